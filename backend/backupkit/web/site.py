"""What every page shares: the settings, who is there, how a page is made from its template, and where it is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backupkit.cli.task import Task
from backupkit.config.settings import Settings, load_settings
from backupkit.model.errors import NoSuchBackup, Refused
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


def plan_of(visit: Visit, kind: str, hint: str) -> tuple[Job, Any]:
    """The job of that kind that the path names, and the plan that it came to; `NoSuchBackup` where it is not there."""
    job = job_of(visit)
    if job is None or job.kind != kind or job.ended is None or job.ended.state != "done" or not job.ended.result:
        raise NoSuchBackup("This plan is not known any more.", hint=hint)
    return job, job.ended.result


def require_typed(visit: Visit, name: str) -> None:
    """`Refused` where the person has not typed the name as it stands on the page."""
    if visit.form.get("typed", "").strip() != name:
        raise Refused("The name was not typed as it stands there; nothing was changed.", hint="Go back and type it.")


def require_same_settings(visit: Visit, planned: Settings) -> None:
    """`Refused` where the plan was made under other settings: it is not what would be done now."""
    if visit.settings != planned:
        raise Refused("The settings were changed after this plan was made; nothing was done.", hint="Make it again.")


class OnlyLooks(Refused):
    """The account that is signed in may not do this."""


def require_owner(visit: Visit) -> None:
    """`OnlyLooks` for an account that only looks."""
    if not visit.is_owner:
        raise OnlyLooks("This account only looks; nothing was changed.", hint="Sign in with the owner's password.")
