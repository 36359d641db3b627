"""Restore into a separate folder: its form, its plan and the work. Live data is not touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from backupkit.cli import tasks
from backupkit.cli.tasks import Beside
from backupkit.config.settings import Settings
from backupkit.model.backup import MAIN_DATABASE, UPLOADS_FOLDER, DatabaseFacts, UploadsFacts
from backupkit.model.clock import utc_now
from backupkit.model.errors import BackupError, Refused
from backupkit.repository import store
from backupkit.restore.lay_out import Layout, require_place
from backupkit.rewind import moments
from backupkit.web.jobs import Job
from backupkit.web.restoring import chooser, part_of
from backupkit.web.site import Answer, Handler, Page, Planned, Visit, plan_of, plan_page

_KIND = ("beside", "Make it again.")  # kind of the jobs that make the plan, and the hint if such a job is forgotten


def plan(visit: Visit) -> Answer:
    """Start planning the copy; if the input is refused, show the form again as it was filled in."""
    settings = visit.settings
    try:
        wanted = _wanted(visit)
    except BackupError as error:
        return chooser(visit, visit.form, error)
    return visit.start_plan(f"Looking at {wanted.name}", "beside", wanted, lambda emit: wanted.plan(settings, emit))


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
    """Return the folder that was typed; raise `Refused` as `restore --to` does."""
    if not typed.startswith("/") or "\0" in typed:
        raise Refused("No folder was named for the copy.", hint="Type its whole path, which begins with /.")
    return require_place(settings, Path(typed))


def show_plan(_visit: Visit, job: Job, planned: Planned) -> Answer:
    """Show which part will be written where."""
    layout, wanted = planned.found, planned.wanted
    back = {"name": wanted.name, "to": wanted.target, "only": wanted.only or ""}
    if wanted.moment:
        back["at"] = moments.typed(planned.settings, wanted.moment.at)
    return Page("beside.html", {"layout": layout, "number": job.number, "parts": list(_laid(layout)), "back": back})


def _laid(layout: Layout) -> Iterator[tuple[str, Path, DatabaseFacts | UploadsFacts | None]]:
    """Yield each part of the copy: its name, its future path, and the facts recorded in the backup, if any."""
    metadata = store.require_metadata(layout.backup)
    if layout.database_file:
        yield MAIN_DATABASE, layout.database_file, metadata.database
    if layout.uploads_folder:
        yield UPLOADS_FOLDER, layout.uploads_folder, metadata.uploads
    for name, path in layout.others.items():
        found = metadata.at(name)
        yield name, layout.target / path, (found.database or found.uploads) if found else None


def carry_out(visit: Visit) -> Answer:
    """Start the work that the plan describes."""
    job, planned = plan_of(visit, *_KIND)
    return visit.carry_out(job, tasks.laying_out(visit.settings, planned.wanted, planned.found, utc_now))


GET: Mapping[str, Handler] = {"restore/beside/{number}": plan_page(show_plan, *_KIND)}
POST: Mapping[str, Handler] = {"restore/beside": plan, "restore/beside/{number}": carry_out}
