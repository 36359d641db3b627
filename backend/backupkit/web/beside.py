"""A copy beside the live data: where it is to be, the plan of it, and the copy; nothing live is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from backupkit.cli import tasks
from backupkit.cli.task import Task
from backupkit.cli.tasks import Beside
from backupkit.config.settings import Settings
from backupkit.model.backup import MAIN_DATABASE, UPLOADS_FOLDER, Metadata
from backupkit.model.clock import utc_now
from backupkit.model.errors import BackupError, Refused
from backupkit.model.events import EventListener
from backupkit.repository import store
from backupkit.restore.lay_out import Layout, require_place
from backupkit.rewind import moments
from backupkit.web.jobs import Job
from backupkit.web.restoring import chooser, part_of
from backupkit.web.site import Answer, Goto, Handler, Page, Visit, plan_of, require_owner, require_same_settings


@dataclass(frozen=True)
class Planned:
    """What was wanted, under which settings, and the plan of it."""

    settings: Settings
    wanted: Beside
    layout: Layout


class Laid(NamedTuple):
    """One part of the copy: its path there, rows by table, number and bytes of its files; None for what it has not."""

    name: str
    path: Path
    rows: Mapping[str, int] | None = None
    files: int | None = None
    bytes: int = 0


def plan(visit: Visit) -> Answer:
    """Look at what the copy would be; where that cannot be, the form comes back as it was filled in."""
    settings = visit.settings
    try:
        wanted = _wanted(visit)
    except BackupError as error:
        return chooser(visit, visit.form, error)

    def act(emit: EventListener) -> Planned:
        return Planned(settings, wanted, wanted.plan(settings, emit))

    return visit.start(Task(f"Looking at {wanted.name}", act, lambda _: ()), "beside")


def _wanted(visit: Visit) -> Beside:
    settings, form, only = visit.settings, visit.form, part_of(visit)
    target = _target(settings, form.get("to", "").strip())
    if form.get("migrate"):
        raise Refused(
            "Migrations are not run on a copy beside: it is laid out as it is.", hint="Take the tick out, or restore."
        )
    if at := form.get("at", "").strip() or form.get("moment", ""):
        chosen, notes = moments.choose_by_words(settings, at, utc_now())
        return Beside(chosen.backup, target, only, chosen.moment, notes)
    return Beside(store.find(settings, form.get("name", "")).name, target, only)


def _target(settings: Settings, typed: str) -> Path:
    """The folder that was named; `Refused` as from `restore --to`."""
    if not typed.startswith("/") or "\0" in typed:
        raise Refused("No folder was named for the copy.", hint="Type its whole path, which begins with /.")
    return require_place(settings, Path(typed))


def show_plan(visit: Visit) -> Answer:
    """What will be where."""
    require_owner(visit)
    job, planned = _planned(visit)
    if job.led_to:
        return Goto(f"job/{job.led_to.number}")
    layout, wanted = planned.layout, planned.wanted
    back = {"name": wanted.name, "to": wanted.target, "only": wanted.only or ""}
    if wanted.moment:
        back["at"] = moments.typed(planned.settings, wanted.moment.at)
    return Page("beside.html", {"layout": layout, "number": job.number, "parts": list(_laid(layout)), "back": back})


def _laid(layout: Layout) -> Iterator[Laid]:
    metadata = store.require_metadata(layout.backup)
    if layout.database_file:
        yield _part(MAIN_DATABASE, layout.database_file, metadata.at(""), is_tree=False)
    if layout.uploads_folder:
        yield _part(UPLOADS_FOLDER, layout.uploads_folder, metadata.at(""), is_tree=True)
    for name, path in layout.others.items():
        found = metadata.at(name)
        yield _part(name, layout.target / path, found, is_tree=bool(found and found.uploads_included))


def _part(name: str, path: Path, metadata: Metadata | None, is_tree: bool) -> Laid:
    facts, files = (metadata.database, metadata.uploads) if metadata else (None, None)
    if is_tree:
        return Laid(name, path, None, files.files if files else None, files.bytes if files else 0)
    return Laid(name, path, facts.rows if facts else {})


def carry_out(visit: Visit) -> Answer:
    """What the plan shows, done."""
    job, planned = _planned(visit)
    require_same_settings(visit, planned.settings)
    task = tasks.laying_out(visit.settings, planned.wanted, planned.layout, utc_now)
    return Goto(f"job/{visit.site.jobs.carry_out(job, task, visit.actor).number}")


def _planned(visit: Visit) -> tuple[Job, Planned]:
    return plan_of(visit, "beside", hint="Make it again.")


GET: Mapping[str, Handler] = {"restore/beside/{number}": show_plan}
POST: Mapping[str, Handler] = {"restore/beside": plan, "restore/beside/{number}": carry_out}
