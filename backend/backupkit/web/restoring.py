"""The restore pages: the form, the plan, and the restore once the person has agreed to it; in place, or beside.

A job makes the plan, because it verifies every byte that will be used. Beside is into a separate folder: live data is
not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from msgspec.structs import replace

from backupkit.cli import tasks
from backupkit.cli.task import Task
from backupkit.cli.tasks import CopyRequest, RestoreRequest
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.backup import MAIN_DATABASE, UPLOADS_FOLDER, DatabaseFacts, Part, UploadsFacts
from backupkit.model.clock import utc_now
from backupkit.model.errors import BackupError, NoSuchBackup, Refused, SchemaMismatch
from backupkit.model.events import EventListener
from backupkit.model.names import counted
from backupkit.model.patterns import literal
from backupkit.repository import store
from backupkit.restore.extract import plan_extract
from backupkit.restore.lay_out import Layout, kept_folders, require_place
from backupkit.restore.recovery import recover
from backupkit.restore.restore import Restored, RestorePlan, plan_backup, restore_backup
from backupkit.rewind import moments
from backupkit.rewind.chain import Moment
from backupkit.sqlite.rows import Changes
from backupkit.web.html import of_exact
from backupkit.web.site import Answer, Handler, Page, Planned, Plans, Visit, require_typed

_OFFERED = 100  # newest backups that the form offers
_PLANS, _PLANS_BESIDE = Plans("restore/plan"), Plans("restore/beside")
_MOMENTS = 200  # newest points of rewind that the form offers; of older ones, a sample


def choose(visit: Visit) -> Answer:
    """Show the form: which backup, which part of it, whether to migrate it."""
    return chooser(visit, visit.query)


def chooser(visit: Visit, form: Mapping[str, str], refused: BackupError | None = None) -> Page:
    """Return the page of the form as it is filled in, with the error if its input was refused (status 400)."""
    backups = [one for one in store.all_backups(visit.settings) if one.metadata]
    name = form.get("name", "")
    if name in ("", store.LATEST):
        try:
            name = store.latest(visit.settings).backup.name
        except NoSuchBackup:
            name = backups[0].name if backups else ""
    timeline = moments.timeline(visit.settings).moments if visit.settings.rewind else ()
    times = [(moments.typed_time(visit.settings, one.at), one.at, _change_summary(one)) for one in _sampled(timeline)]
    offered = [one for place, one in enumerate(backups) if place < _OFFERED or one.name == name]
    left_out = len(backups) - len(offered)
    kept = {key: form.get(key, "") for key in ("moment", "at", "only", "migrate", "to")}
    values = {"backups": offered, "left_out": left_out, "name": name, "times": times, "form": kept, "refused": refused}
    return Page("restore.html", 400 if refused else 200, kept_folders=kept_folders(visit.settings), **values)


def _sampled(timeline: Sequence[Moment]) -> Iterable[Moment]:
    """Return the newest `_MOMENTS`, newest first, then a regular sample of the older ones that includes the first."""
    older, newer = timeline[:-_MOMENTS], timeline[-_MOMENTS:]
    step = max(1, len(older) * 2 // _MOMENTS)
    return (*reversed(newer), *reversed(older[::step]))


def _change_summary(moment: Moment) -> str:
    """Return in a few words what this point changed, or the name of the backup if it is one."""
    if moment.point is None:
        return f"the backup {moment.chain}"
    header = moment.point.header
    whose = "the databases" if header.databases[1:] else "the database"
    said = [f"{format_bytes(header.changed_bytes)} of {whose}"] if header.changed_bytes else []
    if header.changed_files:
        said.append(counted(len(header.changed_files), "upload"))
    return ", ".join(said) or "no change"


def plan(visit: Visit) -> Answer:
    """Start planning a restore of the chosen backup, or of a time: a point of rewind, or the last backup before it."""
    form = visit.form
    request = RestoreRequest(form.get("name", ""), _part(visit), bool(form.get("migrate")), bool(form.get("force")))
    if at := _time(form):
        chosen, notes = moments.choose_by_words(visit.settings, at, utc_now())
        return _start_plan(visit, replace(request, name=chosen.backup, moment=chosen.moment, notes=notes), at)
    if not request.name:
        raise Refused("No backup was chosen.", hint="Choose one.")
    return _start_plan(visit, request, request.name)


def _time(form: Mapping[str, str]) -> str:
    """Return the time that was typed, or else the moment that was chosen; empty if neither was."""
    return form.get("at", "").strip() or form.get("moment", "")


def _part(visit: Visit) -> str | None:
    """Return the chosen part, or None for all. Raise `Refused` if the settings have no such part."""
    part = visit.form.get("only", "")
    if part and part not in (*get_args(Part), *visit.settings.others):
        raise Refused(f"There is no {part} to choose here; nothing was planned.", hint="`restore --only` may know it.")
    return part or None


def plan_undo(visit: Visit) -> Answer:
    """Start planning the undo of the last restore."""
    return _start_plan(visit, RestoreRequest(force=bool(visit.form.get("force"))), "the last restore")


def _start_plan(visit: Visit, request: RestoreRequest, what: str) -> Answer:
    return _PLANS.start(visit, f"Looking at {what}", request, lambda emit: request.plan(visit.settings, emit))


def _point_task(settings: Settings, request: RestoreRequest, shown: RestorePlan, wanted: Moment) -> Task[Restored]:
    """Return a task that builds the point anew and restores it, if that leads to what the plan showed."""
    how = (request.only, request.force, request.migrate)

    def act(emit: EventListener) -> Restored:
        with moments.built(settings, wanted, emit) as backup:
            plan = plan_backup(settings, backup, *how, emit, verify_while_staging=True)
            if (plan.rows_after, plan.revisions_after) != (shown.rows_after, shown.revisions_after):
                raise Refused("The point is not what the plan has shown; nothing was changed.", hint="Look again.")
            return restore_backup(settings, plan, emit)

    return replace(tasks.restoring(settings, shown, utc_now), act=act)


def plan_put_back(visit: Visit) -> Answer:
    """Start planning to put one upload back in place."""
    settings, name, path = visit.settings, visit.form.get("name", ""), of_exact(visit.form.get("path", ""))

    def look(emit: EventListener) -> RestorePlan:
        recover(settings, emit)
        return plan_extract(settings, name, [literal(path)], emit=emit)

    return _PLANS.start(visit, f"Looking at an upload of {name}", RestoreRequest(name), look)


def _show_plan(number: int, planned: Planned) -> Answer:
    """Show what the restore would change, and ask for agreement; show the mismatch if the schema forbids it."""
    found: RestorePlan | SchemaMismatch = planned.found
    if isinstance(found, SchemaMismatch):
        return Page("mismatch.html", request=planned.wanted, moment=_typed(planned), error=found)
    chosen = found.source.chosen
    return Page(
        "plan.html",
        plan=found,
        number=number,
        is_whole=chosen is None,
        chosen=sorted(chosen.leaves) if chosen else [],
        parts=[(one, *_rows(one)) for one in found.each],
    )


def _rows(plan: RestorePlan) -> tuple[list[tuple[str, int | None, int | None, Changes | None]], int]:
    """Return each table that changes (name, rows now, rows after, row changes), and how many tables do not."""
    now, after = plan.live.rows, plan.rows_after
    differ = plan.differing_tables
    found = [(name, now.get(name), after.get(name), plan.live.changes.get(name)) for name in differ]
    return found, len({*now, *after}) - len(differ)


def _restoring(visit: Visit, planned: Planned) -> Task[Restored]:
    """Return what the plan shows; unless it only puts uploads back, the backup's name must be typed."""
    found, settings, request = planned.found, visit.settings, planned.wanted
    if isinstance(found, SchemaMismatch):
        raise found
    if found.source.chosen is not None:
        return tasks.putting_back(settings, found)
    require_typed(visit, found.source.name)
    if request.moment:
        return _point_task(settings, request, found, request.moment)
    return tasks.restoring(settings, found, utc_now)


def plan_beside(visit: Visit) -> Answer:
    """Start planning the copy; if the input is refused, show the form again as it was filled in."""
    settings = visit.settings
    try:
        wanted = _beside(visit)
    except BackupError as error:
        return chooser(visit, visit.form, error)
    return _PLANS_BESIDE.start(visit, f"Looking at {wanted.name}", wanted, lambda emit: wanted.plan(settings, emit))


def _beside(visit: Visit) -> CopyRequest:
    settings, form, only = visit.settings, visit.form, _part(visit)
    typed = visit.typed("to")
    if not typed.startswith("/") or "\0" in typed:
        raise Refused("No folder was named for the copy.", hint="Type its whole path, which begins with /.")
    target = require_place(settings, Path(typed))
    if form.get("migrate"):
        raise Refused(
            "Migrations are not run on a copy beside: it is laid out as it is.", hint="Take the tick out, or restore."
        )
    if at := _time(form):
        chosen, notes = moments.choose_by_words(settings, at, utc_now())
        return CopyRequest(chosen.backup, target, only, chosen.moment, notes)
    return CopyRequest(store.find(settings, form.get("name", "")).name, target, only)


def _typed(planned: Planned) -> str:
    """Return the point of rewind that was wanted, as it is typed into the form; empty for a backup."""
    return moments.typed_time(planned.settings, planned.wanted.moment.at) if planned.wanted.moment else ""


def _show_plan_beside(number: int, planned: Planned) -> Answer:
    layout, wanted = planned.found, planned.wanted
    back = {"name": wanted.name, "to": wanted.target, "only": wanted.only or "", "at": _typed(planned)}
    return Page("beside.html", layout=layout, number=number, parts=list(_laid(layout)), back=back)


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


GET: Mapping[str, Handler] = {
    "restore": choose,
    "restore/plan/{number}": _PLANS.shown(_show_plan),
    "restore/beside/{number}": _PLANS_BESIDE.shown(_show_plan_beside),
}
POST: Mapping[str, Handler] = {
    "restore/plan": plan,
    "restore/undo": plan_undo,
    "restore/put-back": plan_put_back,
    "restore/plan/{number}": _PLANS.carried_out(_restoring),
    "restore/beside": plan_beside,
    "restore/beside/{number}": _PLANS_BESIDE.carried_out(
        lambda visit, planned: tasks.laying_out(visit.settings, planned.wanted, planned.found), kind=""
    ),
}
