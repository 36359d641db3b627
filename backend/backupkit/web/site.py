"""What every page shares: the visit with its settings and session, the kinds of answers, jobs, plans, access rules.

A job runs in a thread and has a number, by which any page can watch and cancel it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from backupkit.cli.task import Ended, Run, Task, how_far
from backupkit.config.deployment import in_full
from backupkit.config.secrets import Secret, scrubbed
from backupkit.config.settings import Settings, load_settings
from backupkit.model.errors import NoSuchBackup, Refused
from backupkit.model.events import EventListener
from backupkit.model.names import printable_lines, printable_text
from backupkit.repository import operation
from backupkit.web import html
from backupkit.web.access import Access, Session, form_token

_KEPT = 50  # jobs that are remembered
_LARGE = "rescue/plan"  # the kind whose results hold many rows
_KEPT_LARGE = 3


class Page:
    """A page to render from a template with these values; `code` is the status of the response."""

    def __init__(self, template: str, code: int = 200, **values: Any) -> None:
        self.template, self.code, self.values = template, code, values


class Goto(Struct, frozen=True):
    """A redirect to another page of the same session."""

    path: str


class Content(Struct, frozen=True):
    """A file: shown by the browser if `is_shown`, else saved under its name."""

    name: str
    type: str
    bytes: bytes
    is_shown: bool = False


Answer = Page | Goto | Content


class Visit(Struct, frozen=True):
    """One request of a signed-in browser: who made it, the placeholders of its path, its query and its form."""

    site: Site
    settings: Settings
    session: Session
    key: str
    actor: str
    place: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_owner(self) -> bool:
        """Whether this account is the owner's, the only one that may change anything."""
        return self.session.role == "owner"

    def typed(self, name: str) -> str:
        """Return what was typed into that field of the form, stripped; empty if there is no such field."""
        return self.form.get(name, "").strip()

    def start(self, task: Task[Any], kind: str = "") -> Goto:
        """Start the task as a job, and go to the job's page."""
        return Goto(f"job/{self.site.jobs.start(task, self.actor, kind).number}")


class Planned(Struct, frozen=True):
    """The result of a planning job: the settings it used, what was wanted, and the plan or the reason for none."""

    settings: Settings
    wanted: Any
    found: Any


Handler = Callable[[Visit], Answer]


class Site:
    """The pages of one server. It reads the settings anew for each request, so that an edit is in force at once."""

    def __init__(self, app_dir: Path, access: Access) -> None:
        self._app_dir, self.access, self.jobs = app_dir, access, Jobs()

    def settings(self) -> Settings:
        """Return the settings in force now."""
        return load_settings(self._app_dir)

    def page(self, visit: Visit, found: Page) -> str:
        """Return the page as HTML, without any secret of the settings."""
        at, token = f"/{visit.session.path}", form_token(visit.key)
        about = {"visit": visit, "at": at, "form_token": token, "running": self.jobs.running}
        return html.render(found.template, visit.settings, frame="base.html", **about, **found.values)


def job_of(visit: Visit) -> Job | None:
    """Return the job that the path names, or None if it is forgotten."""
    return visit.site.jobs.find(visit.place.get("number", ""))


class Plans(Struct, frozen=True):
    """Plans of one kind, each made by a job and kept with it: what is carried out is exactly what was shown.

    `path` is that of their pages, without the job's number; `hint` says what to do if a plan is forgotten.
    """

    path: str
    hint: str = "Make it again."

    def start(self, visit: Visit, title: str, wanted: Any, look: Callable[[EventListener], Any]) -> Goto:
        """Start a job that makes a plan of `wanted` by calling `look`; the plan's page follows the job's."""
        settings = visit.settings
        return visit.start(Task(title, lambda emit: Planned(settings, wanted, look(emit)), lambda _: ()), self.path)

    def of(self, visit: Visit) -> tuple[Job, Planned]:
        """Return the job that the path names and its plan; raise `NoSuchBackup` if there is no finished one."""
        job = job_of(visit)
        if job is None or job.kind != self.path or job.ended is None or not isinstance(job.ended.result, Planned):
            raise NoSuchBackup("This plan is not known any more.", hint=self.hint)
        return job, job.ended.result

    def shown(self, show: Callable[[int, Planned], Answer]) -> Handler:
        """Return a handler that shows the plan to the owner, or redirects to the job once the plan was carried out."""

        def answer(visit: Visit) -> Answer:
            job, planned = self.of(visit)
            return Goto(f"job/{job.led_to.number}") if job.led_to else show(job.number, planned)

        return owner_only(answer)

    def carried_out(self, task_of: Callable[[Visit, Planned], Task[Any]], kind: str = "restore") -> Handler:
        """Return a handler that starts the work that the plan shows; it starts only once, however often it is asked.

        It raises `Refused` if the settings have changed since: the work would no longer be what the plan showed.
        """

        def answer(visit: Visit) -> Answer:
            job, planned = self.of(visit)
            task = task_of(visit, planned)
            if visit.settings != planned.settings:
                raise Refused("The settings were changed after this plan was made; nothing was done.", "Make it again.")
            return Goto(f"job/{visit.site.jobs.carry_out(job, task, visit.actor, kind).number}")

        return answer


def require_typed(visit: Visit, name: str) -> None:
    """Raise `Refused` unless the name was typed into the form exactly."""
    if visit.typed("typed") != name:
        raise Refused("The name was not typed as it stands there; nothing was changed.", hint="Go back and type it.")


class OwnerOnly(Refused):
    """Raised if the signed-in account may only look."""


def require_owner(visit: Visit) -> None:
    """Raise `OwnerOnly` unless the owner is signed in."""
    if not visit.is_owner:
        raise OwnerOnly("This account only looks; nothing was changed.", hint="Sign in with the owner's password.")


def owner_only(handler: Handler) -> Handler:
    """Return the handler for the owner alone: it raises `OwnerOnly` for others."""

    def answer(visit: Visit) -> Answer:
        require_owner(visit)
        return handler(visit)

    return answer


def starting(task_of: Callable[[Visit], Task[Any]]) -> Handler:
    """Return a handler that starts this task as a job."""
    return lambda visit: visit.start(task_of(visit))


@dataclass
class Job:
    """One task, running or ended. `kind` decides which page follows once it is done."""

    number: int
    kind: str
    run: Run[Any]
    actor: str
    ended: Ended[Any] | None = None
    took: float = 0.0
    led_to: Job | None = None
    """For a plan: the job that carried it out."""

    @property
    def state(self) -> str:
        """`running`, `done`, `failed` or `cancelled`."""
        return self.ended.state if self.ended else "running"

    @property
    def lines(self) -> list[str]:
        """The lines of the result, or the error and its hint; none while it runs or if it was cancelled."""
        if self.ended is None or self.ended.state == "cancelled":
            return []
        if error := self.ended.error:
            return [printable_lines(in_full(one)) for one in (error.message, error.hint) if one]
        return [printable_lines(in_full(one)) for one in self.run.task.result_lines(self.ended.result)]

    def document(self, secrets: Iterable[Secret] = ()) -> dict[str, object]:
        """Return the progress as JSON values for a page, without these secrets."""
        step, done = self.run.step, self.run.done
        return {
            "state": self.state,
            "step": printable_text(scrubbed(self.run.waiting or step.name, secrets)),
            "amount": how_far(self.run),
            "share": min(done / step.total, 1.0) if step.total else None,
            "seconds": round(time.monotonic() - self.run.began),
            "said": [printable_lines(scrubbed(in_full(one), secrets)) for one in self.run.said[-20:]],
            "can_be_cancelled": self.run.can_be_cancelled and not self.run.wants_to_end,
        }


class Jobs:
    """The jobs of one server, newest last. Each runs in a thread of its own."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._once = threading.Lock()

    def start(self, task: Task[Any], actor: str, kind: str = "") -> Job:
        """Start the task in a thread and forget the oldest ended jobs; the history names `actor` as who did it."""
        job = Job(next(self._numbers), kind, Run(task), actor)
        self._jobs[job.number] = job
        large = [number for number, one in self._jobs.items() if one.kind == _LARGE]
        for number in (*list(self._jobs)[:-_KEPT], *large[:-_KEPT_LARGE]):
            if number in self._jobs and self._jobs[number].ended:
                del self._jobs[number]
        threading.Thread(target=self._carry_out, args=(job,), name=f"job {job.number}", daemon=False).start()
        return job

    def carry_out(self, planned: Job, task: Task[Any], actor: str, kind: str = "") -> Job:
        """Start the planned work once; return the same job if asked again, for example by a double click."""
        with self._once:
            planned.led_to = planned.led_to or self.start(task, actor, kind)
            return planned.led_to

    def find(self, number: str) -> Job | None:
        """Return the job of the number in the URL, or None if it is unknown or forgotten."""
        return self._jobs.get(int(number)) if number.isdecimal() and len(number) < 10 else None

    @property
    def running(self) -> list[Job]:
        """The jobs that have not ended, oldest first."""
        return [job for job in self._jobs.values() if job.ended is None]

    def _carry_out(self, job: Job) -> None:
        with operation.acting_as(job.actor):
            ended = job.run.carry_out()
        job.took = time.monotonic() - job.run.began
        job.run.task = replace(job.run.task, act=lambda _: None)  # frees the memory that the old closure held
        job.ended = ended
