"""Rescue of rows from a backup: the choice of rows, the plan, and the rescue once the person has agreed to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from backupkit.cli import tasks
from backupkit.cli.session import of_database
from backupkit.model.backup import MAIN_DATABASE
from backupkit.model.clock import utc_now
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener
from backupkit.model.names import printable
from backupkit.restore.recovery import recover
from backupkit.restore.rescue import RescuePlan, plan_rescue
from backupkit.sqlite.query import Values
from backupkit.sqlite.row_rescue import Choice, Found
from backupkit.web.inside import ticked
from backupkit.web.jobs import Job
from backupkit.web.site import Answer, Handler, Page, Planned, Visit, plan_of, plan_page, require_typed

_SHOWN = 50  # rows of each kind
_KIND = ("rescue", "Choose the rows again.")  # kind of the jobs that make the plan, and the hint if one is forgotten


@dataclass(frozen=True)
class Wanted:
    """Which rows of which table of a backup to bring back, and how."""

    name: str
    database: str
    table: str
    choice: Choice
    overwrite: bool = False
    with_children: bool = False


class Group(NamedTuple):
    """Rows of one table that come back for the same reason: the first `_SHOWN` of them, and how many there are."""

    table: str
    why: str
    columns: tuple[str, ...]
    rows: list[Values]
    total: int


def choose(visit: Visit) -> Answer:
    """Start planning the rescue of the chosen rows: all missing ones, those of the condition, or the ticked ones."""
    form, which = visit.form, visit.form.get("which", "")
    if which == "missing":
        choice = Choice(missing=True)
    elif which == "found" and (where := form.get("where", "").strip()):
        choice = Choice(where=where)
    elif rows := ticked(form):
        choice = Choice(rows=rows)
    else:
        raise Refused("No row was ticked.", hint="Go back and tick those that are to come back.")
    place = form.get("database", MAIN_DATABASE)
    return _start_plan(visit, Wanted(form.get("name", ""), place, form.get("table", ""), choice))


def look_again(visit: Visit) -> Answer:
    """Plan the same rows again with other options."""
    form, (_, planned) = visit.form, plan_of(visit, *_KIND)
    overwrite, with_children = bool(form.get("overwrite")), bool(form.get("with_children"))
    return _start_plan(visit, replace(planned.wanted, overwrite=overwrite, with_children=with_children))


def _start_plan(visit: Visit, wanted: Wanted) -> Answer:
    settings, part = visit.settings, of_database(visit.settings, wanted.database)

    def look(emit: EventListener) -> RescuePlan:
        recover(settings, emit)
        return plan_rescue(
            part, wanted.name, wanted.table, wanted.choice, wanted.overwrite, wanted.with_children, emit=emit
        )

    return visit.start_plan(f"Looking for rows of {printable(wanted.table)}", "rescue", wanted, look)


def show_plan(_visit: Visit, job: Job, planned: Planned) -> Answer:
    """Show which rows come back and which stay, and ask for agreement."""
    plan: RescuePlan = planned.found
    found = plan.found
    values = {
        "plan": plan,
        "wanted": planned.wanted,
        "number": job.number,
        "groups": list(_groups(found)),
        "differ": found.differ[:_SHOWN],
    }
    return Page("rescue.html", values)


def _groups(found: Found) -> Iterator[Group]:
    for table, why in dict.fromkeys((row.table, row.why) for row in found.inserts):
        rows = [row.backup for row in found.inserts if (row.table, row.why) == (table, why)]
        yield Group(table, why, found.columns[table], rows[:_SHOWN], len(rows))


def carry_out(visit: Visit) -> Answer:
    """Start bringing the planned rows back; raise `Refused` unless the backup's name was typed."""
    job, planned = plan_of(visit, *_KIND)
    plan, wanted = planned.found, planned.wanted
    require_typed(visit, plan.source)
    if not plan.found.writes:
        raise Refused("There is no row to bring back; nothing was changed.", hint="Choose others.")
    title = f"Bringing rows of {printable(wanted.table)} back from {plan.source}"
    task = tasks.bringing_back(of_database(visit.settings, wanted.database), title, plan, utc_now)
    return visit.carry_out(job, task, "restore")


GET: Mapping[str, Handler] = {"rescue/plan/{number}": plan_page(show_plan, *_KIND)}
POST: Mapping[str, Handler] = {
    "rescue": choose,
    "rescue/plan/{number}": carry_out,
    "rescue/plan/{number}/again": look_again,
}
