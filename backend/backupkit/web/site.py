"""What every page shares: the settings, who is there, how a page is made from its template, and where it is found."""

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
    """A page to be made from a template with these values."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Goto:
    """Another page of the same session."""

    path: str


@dataclass(frozen=True)
class Content:
    """A file: shown in the page where it `is_shown`, else saved under its name."""

    name: str
    type: str
    bytes: bytes
    is_shown: bool = False


Answer = Page | Goto | Content


@dataclass(frozen=True)
class Visit:
    """One request of somebody who was let in: what was asked for, and by whom."""

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
        """Whether this account may change anything."""
        return self.session.role == "owner"

    def anew(self) -> Visit:
        """The same with the settings as they are in force now."""
        return replace(self, settings=self.site.settings())

    def start(self, task: Task[Any], kind: str = "") -> Goto:
        """Begin the work, and go to its page."""
        return Goto(f"job/{self.site.jobs.start(task, self.actor, kind).number}")

    def look(self, title: str, kind: str, wanted: Any, look: Callable[[EventListener], Any]) -> Goto:
        """Begin to look at what is wanted; the plan it comes to is kept with its job."""
        settings = self.settings
        return self.start(Task(title, lambda emit: Planned(settings, wanted, look(emit)), lambda _: ()), kind)

    def carry_out(self, job: Job, task: Task[Any], kind: str = "") -> Goto:
        """Do what that job has planned, under the settings that it was planned under; once, however often it is asked.

        Raises `Refused` where they were changed since: the plan is not what would be done now.
        """
        assert job.ended and isinstance(job.ended.result, Planned)
        if self.settings != job.ended.result.settings:
            raise Refused("The settings were changed after this plan was made; nothing was done.", "Make it again.")
        return Goto(f"job/{self.site.jobs.carry_out(job, task, self.actor, kind).number}")


@dataclass(frozen=True)
class Planned:
    """What was wanted, under which settings, and the plan of it, or why there is none."""

    settings: Settings
    wanted: Any
    found: Any


Handler = Callable[[Visit], Answer]


class Site:
    """One server's pages. Its settings are read anew for each request, so that an edit is in force at once."""

    def __init__(self, app_dir: Path, access: Access) -> None:
        self._app_dir, self.access, self.jobs = app_dir, access, Jobs()

    def settings(self) -> Settings:
        """The settings in force now."""
        return load_settings(self._app_dir)

    def page(self, visit: Visit, found: Page) -> str:
        """The page as HTML; no secret of the settings is in it."""
        about = {
            "visit": visit,
            "at": f"/{visit.session.path}",
            "form_token": form_token(visit.key),
            "running": self.jobs.running,
        }
        return html.made(found.template, visit.settings, about | dict(found.values))

    def door(self, settings: Settings, **values: Any) -> str:
        """The page of somebody who was not let in yet."""
        return html.made("door.html", settings, values)


def job_of(visit: Visit) -> Job | None:
    """The job that the path names, where it is remembered."""
    return visit.site.jobs.find(visit.place.get("number", ""))


def plan_of(visit: Visit, kind: str, hint: str) -> tuple[Job, Planned]:
    """The job of that kind that the path names, and the plan that it came to; `NoSuchBackup` where it is not there."""
    job = job_of(visit)
    if job is None or job.kind != kind or job.ended is None or not isinstance(job.ended.result, Planned):
        raise NoSuchBackup("This plan is not known any more.", hint=hint)
    return job, job.ended.result


def shown_once(handler: Callable[[Visit, Job, Planned], Answer], kind: str, hint: str) -> Handler:
    """The page of a plan, for the owner; where it was carried out, that of the work."""

    def show(visit: Visit) -> Answer:
        require_owner(visit)
        job, planned = plan_of(visit, kind, hint)
        return Goto(f"job/{job.led_to.number}") if job.led_to else handler(visit, job, planned)

    return show


def require_typed(visit: Visit, name: str) -> None:
    """`Refused` where the person has not typed the name as it stands on the page."""
    if visit.form.get("typed", "").strip() != name:
        raise Refused("The name was not typed as it stands there; nothing was changed.", hint="Go back and type it.")


class OnlyLooks(Refused):
    """The account that is signed in may not do this."""


def require_owner(visit: Visit) -> None:
    """`OnlyLooks` for an account that only looks."""
    if not visit.is_owner:
        raise OnlyLooks("This account only looks; nothing was changed.", hint="Sign in with the owner's password.")
