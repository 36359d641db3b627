"""The restore pages: the form, the plan, and the restore once the person has agreed to it.

A job makes the plan, because it verifies every byte that will be used. The plan is kept with its job, so that the
person agrees to exactly what was shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, get_args

from backupkit.cli import tasks
from backupkit.cli.render import counted
from backupkit.cli.task import Task
from backupkit.cli.tasks import Wish
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.backup import Part
from backupkit.model.clock import utc_now
from backupkit.model.errors import BackupError, NoSuchBackup, Refused, SchemaMismatch
from backupkit.model.events import EventListener
from backupkit.model.patterns import literal
from backupkit.repository import store
from backupkit.restore.extract import plan_extract
from backupkit.restore.lay_out import kept_folders
from backupkit.restore.recovery import recover
from backupkit.restore.restore import Restored, RestorePlan, plan_backup, restore_backup
from backupkit.rewind import moments
from backupkit.rewind.chain import Moment
from backupkit.sqlite.rows import Changes
from backupkit.web.jobs import Job
from backupkit.web.site import Answer, Handler, Page, Planned, Visit, plan_of, plan_page, require_typed

_OFFERED = 100  # newest backups that the form offers
_KIND = ("plan", "Make it again.")  # kind of the jobs that make the plan, and the hint if such a job is forgotten
_MOMENTS = 200  # newest points of rewind that the form offers; of older ones, a sample


class Wanted(NamedTuple):
    """What to restore, and from which point of rewind; None for a backup."""

    wish: Wish
    moment: Moment | None = None


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
    times = [(moments.typed(visit.settings, one.at), one.at, _change_summary(one)) for one in _sampled(timeline)]
    offered = [one for place, one in enumerate(backups) if place < _OFFERED or one.name == name]
    left_out = len(backups) - len(offered)
    values = {"backups": offered, "left_out": left_out, "name": name, "times": times}
    kept = {key: form.get(key, "") for key in ("moment", "at", "only", "migrate", "to")}
    values |= {"form": kept, "refused": refused, "kept_folders": kept_folders(visit.settings)}
    return Page("restore.html", values, 400 if refused else 200)


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
    """Start planning a restore of the chosen backup or time."""
    form, only = visit.form, part_of(visit)
    wish = Wish(form.get("name", ""), only, bool(form.get("migrate")), bool(form.get("force")))
    if at := form.get("at", "").strip() or form.get("moment", ""):
        return _start_plan_at(visit, replace(wish, name=""), at)
    if not wish.name:
        raise Refused("No backup was chosen.", hint="Choose one.")
    return _start_plan(visit, wish)


def part_of(visit: Visit) -> str | None:
    """Return the chosen part, or None for all. Raise `Refused` if the settings have no such part."""
    part = visit.form.get("only", "")
    if part and part not in (*get_args(Part), *visit.settings.others):
        raise Refused(f"There is no {part} to choose here; nothing was planned.", hint="`restore --only` may know it.")
    return part or None


def plan_undo(visit: Visit) -> Answer:
    """Start planning the undo of the last restore."""
    return _start_plan(visit, Wish(force=bool(visit.form.get("force"))))


def _start_plan(visit: Visit, wish: Wish) -> Answer:
    title = f"Looking at {wish.name}" if wish.name else "Looking at the last restore"
    return visit.start_plan(title, "plan", Wanted(wish), lambda emit: wish.plan(visit.settings, emit))


def _start_plan_at(visit: Visit, wish: Wish, at: str) -> Answer:
    """Start planning a restore of the data at that time: from a point of rewind, or the newest backup before it."""
    settings = visit.settings
    chosen, notes = moments.choose_by_words(settings, at, utc_now())
    if chosen.moment is None:
        wish = replace(wish, name=chosen.backup)

    def look(emit: EventListener) -> RestorePlan | SchemaMismatch:
        recover(settings, emit)
        if chosen.moment is None:
            found = wish.plan(settings, emit)
            return replace(found, notes=(*notes, *found.notes)) if isinstance(found, RestorePlan) else found
        with moments.built(settings, chosen.moment, emit) as backup:
            return plan_backup(settings, backup, wish.only, wish.force, wish.migrate, emit, notes=notes)

    return visit.start_plan(f"Looking at {at}", "plan", Wanted(wish, chosen.moment), look)


def _point_task(settings: Settings, wish: Wish, shown: RestorePlan, wanted: Moment) -> Task[Restored]:
    """Return a task that builds the point anew and restores it.

    It raises `Refused` if rows or revisions after the restore would not be those that the plan showed.
    """

    def act(emit: EventListener) -> Restored:
        with moments.built(settings, wanted, emit) as backup:
            plan = plan_backup(settings, backup, wish.only, wish.force, wish.migrate, emit, verify_while_staging=True)
            if (plan.rows_after, plan.revisions_after) != (shown.rows_after, shown.revisions_after):
                raise Refused("The point is not what the plan has shown; nothing was changed.", hint="Look again.")
            return restore_backup(settings, plan, emit)

    return replace(tasks.restoring(settings, shown, utc_now), act=act)


def plan_put_back(visit: Visit) -> Answer:
    """Start planning to put one upload back in place."""
    settings, name, path = visit.settings, visit.form.get("name", ""), visit.form.get("path", "")

    def look(emit: EventListener) -> RestorePlan:
        recover(settings, emit)
        return plan_extract(settings, name, [literal(path)], emit=emit)

    return visit.start_plan(f"Looking at an upload of {name}", "plan", Wanted(Wish(name)), look)


def show_plan(_visit: Visit, job: Job, planned: Planned) -> Answer:
    """Show what the restore would change, and ask for agreement; show the mismatch if the schema forbids it."""
    found: RestorePlan | SchemaMismatch = planned.found
    if isinstance(found, SchemaMismatch):
        return Page("mismatch.html", {"wish": planned.wanted.wish, "error": found})
    return Page(
        "plan.html",
        {
            "plan": found,
            "number": job.number,
            "is_whole": found.source.chosen is None,
            "chosen": sorted(found.source.chosen.leaves) if found.source.chosen else [],
            "parts": [(one, *_rows(one)) for one in found.each],
        },
    )


def _rows(plan: RestorePlan) -> tuple[list[tuple[str, int | None, int | None, Changes | None]], int]:
    """Return each table that changes (name, rows now, rows after, row changes), and how many tables do not."""
    now, after = plan.live.rows, plan.rows_after
    differ = plan.differing_tables
    found = [(name, now.get(name), after.get(name), plan.live.changes.get(name)) for name in differ]
    return found, len({*now, *after}) - len(differ)


def carry_out(visit: Visit) -> Answer:
    """Start the work that the plan shows; unless it only puts uploads back, the backup's name must be typed."""
    job, planned = plan_of(visit, *_KIND)
    found, settings, (wish, moment) = planned.found, visit.settings, planned.wanted
    if isinstance(found, SchemaMismatch):
        raise found
    if found.source.chosen is None:
        require_typed(visit, found.source.name)
    if moment:
        task = _point_task(settings, wish, found, moment)
    elif found.source.chosen is None:
        task = tasks.restoring(settings, found, utc_now)
    else:
        task = tasks.putting_back(settings, f"Putting back from {found.source.name}", found, utc_now)
    return visit.carry_out(job, task, "restore")


GET: Mapping[str, Handler] = {"restore": choose, "restore/plan/{number}": plan_page(show_plan, *_KIND)}
POST: Mapping[str, Handler] = {
    "restore/plan": plan,
    "restore/undo": plan_undo,
    "restore/put-back": plan_put_back,
    "restore/plan/{number}": carry_out,
}
