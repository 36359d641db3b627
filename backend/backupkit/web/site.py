"""What every page shares: the visit with its settings and session, the kinds of answers, plans, and access rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backupkit.cli.task import Task
from backupkit.config.settings import Settings, load_settings
from backupkit.model.errors import NoSuchBackup, Refused
from backupkit.model.events import EventListener
from backupkit.web import html
from backupkit.web.access import Access, Session, form_token
from backupkit.web.jobs import Job, Jobs


@dataclass(frozen=True)
class Page:
    """A page to render from a template with these values."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Goto:
    """A redirect to another page of the same session."""

    path: str


@dataclass(frozen=True)
class Content:
    """A file: shown by the browser if `is_shown`, else saved under its name."""

    name: str
    type: str
    bytes: bytes
    is_shown: bool = False


Answer = Page | Goto | Content


@dataclass(frozen=True)
class Visit:
    """One request of a signed-in browser: who made it, the placeholders of its path, its query and its form."""

    site: Site
    settings: Settings
    session: Session
    key: str
    actor: str
    place: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]

    @property
    def is_owner(self) -> bool:
        """Whether this account is the owner's, the only one that may change anything."""
        return self.session.role == "owner"

    def with_current_settings(self) -> Visit:
        """Return this visit with the settings read again."""
        return replace(self, settings=self.site.settings())

    def start(self, task: Task[Any], kind: str = "") -> Goto:
        """Start the task as a job, and go to the job's page."""
        return Goto(f"job/{self.site.jobs.start(task, self.actor, kind).number}")

    def start_plan(self, title: str, kind: str, wanted: Any, look: Callable[[EventListener], Any]) -> Goto:
        """Start a job that makes a plan of `wanted` by calling `look`; the plan is kept with the job, as `Planned`."""
        settings = self.settings
        return self.start(Task(title, lambda emit: Planned(settings, wanted, look(emit)), lambda _: ()), kind)

    def carry_out(self, job: Job, task: Task[Any], kind: str = "") -> Goto:
        """Start the work that the job has planned, and go to its page; start it only once, however often it is asked.

        Raise `Refused` if the settings have changed since: the work would no longer be what the plan showed.
        """
        assert job.ended and isinstance(job.ended.result, Planned)
        if self.settings != job.ended.result.settings:
            raise Refused("The settings were changed after this plan was made; nothing was done.", "Make it again.")
        return Goto(f"job/{self.site.jobs.carry_out(job, task, self.actor, kind).number}")


@dataclass(frozen=True)
class Planned:
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
        about = {
            "visit": visit,
            "at": f"/{visit.session.path}",
            "form_token": form_token(visit.key),
            "running": self.jobs.running,
        }
        return html.render_page(found.template, visit.settings, about | dict(found.values))

    def sign_in_page(self, settings: Settings, **values: Any) -> str:
        """Return the sign-in page as HTML."""
        return html.render_page("sign-in.html", settings, values)


def job_of(visit: Visit) -> Job | None:
    """Return the job that the path names, or None if it is forgotten."""
    return visit.site.jobs.find(visit.place.get("number", ""))


def plan_of(visit: Visit, kind: str, hint: str) -> tuple[Job, Planned]:
    """Return the job that the path names and its plan; raise `NoSuchBackup` if there is no finished plan of `kind`."""
    job = job_of(visit)
    if job is None or job.kind != kind or job.ended is None or not isinstance(job.ended.result, Planned):
        raise NoSuchBackup("This plan is not known any more.", hint=hint)
    return job, job.ended.result


def plan_page(handler: Callable[[Visit, Job, Planned], Answer], kind: str, hint: str) -> Handler:
    """Return a handler that shows the plan to the owner, or redirects to the job once the plan was carried out."""

    def show(visit: Visit) -> Answer:
        require_owner(visit)
        job, planned = plan_of(visit, kind, hint)
        return Goto(f"job/{job.led_to.number}") if job.led_to else handler(visit, job, planned)

    return show


def require_typed(visit: Visit, name: str) -> None:
    """Raise `Refused` unless the name was typed into the form exactly."""
    if visit.form.get("typed", "").strip() != name:
        raise Refused("The name was not typed as it stands there; nothing was changed.", hint="Go back and type it.")


class OwnerOnly(Refused):
    """Raised if the signed-in account may only look."""


def require_owner(visit: Visit) -> None:
    """Raise `OwnerOnly` unless the owner is signed in."""
    if not visit.is_owner:
        raise OwnerOnly("This account only looks; nothing was changed.", hint="Sign in with the owner's password.")
