"""Pages that look inside a backup, and bring rows of it back once the person has agreed to the plan.

They browse its uploads, one folder at a time, and its tables, one page of rows at a time.
"""

from __future__ import annotations

import base64
import io
import json
import mimetypes
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from backupkit.cli import row_text, tasks
from backupkit.cli.session import of_database
from backupkit.cli.task import Task
from backupkit.config.settings import Settings
from backupkit.model.backup import MAIN_DATABASE
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener
from backupkit.model.names import printable
from backupkit.model.patterns import literal
from backupkit.restore.recovery import recover
from backupkit.restore.rescue import Rescued, RescuePlan, plan_rescue
from backupkit.sqlite.query import Values
from backupkit.sqlite.row_rescue import Choice, Found
from backupkit.sqlite.rows import Key, Value
from backupkit.verify import browse
from backupkit.verify.files import list_files
from backupkit.web.html import of_exact
from backupkit.web.site import Answer, Content, Handler, Page, Planned, Plans, Visit, owner_only, require_typed

_NAMES, _ROWS, _FOUND = 200, 50, 500
_EXAMPLES = 50  # rows of each kind that a plan shows
_PLANS = Plans("rescue/plan", hint="Choose the rows again.")
_TICKED = "key."  # prefix of a row's checkbox name, before its key
_LARGEST = 512 * 1024 * 1024  # bytes of the largest file that a page sends; `extract` takes out larger ones
# No PDF: Chromium's viewer shows nothing in a sandbox, and without one it would parse a stranger's file.
_SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "text/plain")


def show_uploads(visit: Visit) -> Answer:
    """Show one folder of the uploads."""
    name, path = visit.place["name"], of_exact(visit.query.get("path", ""))
    typed = visit.query.get("start", "0")
    start = int(typed) if typed.isdecimal() and len(typed) < 10 else 0
    found = browse.look_into(visit.settings, name, path, start, _NAMES)
    parts = path.split("/") if path else []
    above = [(part, "/".join(parts[: place + 1])) for place, part in enumerate(parts)]
    return Page("uploads.html", name=name, folder=found, above=above, step=_NAMES)


def find_uploads(visit: Visit) -> Answer:
    """List the uploads whose name contains the text, and whether the live ones are the same, changed or missing."""
    name, words = visit.place["name"], visit.query.get("find", "").strip()
    if not words:
        raise Refused("Nothing was typed.", hint="Type a part of the file's name.")
    pattern = "*" + literal(words).removeprefix("/") + "*"
    _, found = list_files(visit.settings, name, [pattern])
    return Page("found.html", name=name, find=words, files=found[:_FOUND], total=len(found))


def show_file(visit: Visit) -> Answer:
    """Send one file after comparing it with its checksum: to show if a browser can, else to save."""
    path = of_exact(visit.query.get("path", ""))
    out = _Bounded()
    browse.write_out(visit.settings, visit.place["name"], [literal(path)], out)
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    is_shown = visit.query.get("show") == "1" and kind in _SHOWN
    return Content(PurePosixPath(path).name, kind if is_shown else "application/octet-stream", out.getvalue(), is_shown)


class _Bounded(io.BytesIO):
    """A file in memory that raises `Refused` beyond `_LARGEST` bytes."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > _LARGEST:
            raise Refused("The file is too large to be sent by this page.", hint="`extract` takes it out.")
        return super().write(data)


def show_tables(visit: Visit) -> Answer:
    """List the tables of the database."""
    name, (settings, about) = visit.place["name"], _database(visit)
    return Page("tables.html", name=name, tables=browse.tables(settings, name), **about)


def _database(visit: Visit) -> tuple[Settings, dict[str, Any]]:
    """Return the settings of the chosen database, and the template values for choosing another."""
    wanted = visit.query.get("database", MAIN_DATABASE)
    names = (MAIN_DATABASE, *visit.settings.databases)
    return of_database(visit.settings, wanted), {"database": wanted, "databases": names if len(names) > 1 else ()}


def show_rows(visit: Visit) -> Answer:
    """Show a page of rows, or the rows that meet the typed condition."""
    name, table = visit.place["name"], of_exact(visit.query.get("table", ""))
    where, (settings, about) = visit.query.get("where", "").strip(), _database(visit)
    page, selection = None, None
    if where:
        selection = browse.select_rows(settings, name, table, where, most=_FOUND)
    else:
        after, before = (key_of(visit.query.get(side, "")) for side in ("after", "before"))
        page = browse.read_page(settings, name, table, _ROWS, after, before)
    first, last = (key_text(page.rows[place].key) if page and page.rows else "" for place in (0, -1))
    about |= {"page": page, "first": first, "last": last, "selection": selection, "box_of": box_of}
    return Page("rows.html", name=name, table=table, where=where, **about)


def compare_rows(visit: Visit) -> Answer:
    """Show how the live rows of a table differ from the backup's."""
    name, table = visit.place["name"], of_exact(visit.query.get("table", ""))
    settings, about = _database(visit)
    found = browse.compare_table(settings, name, table)
    return Page("compared.html", name=name, table=table, found=found, box_of=box_of, **about)


def box_of(key: Key) -> str:
    """Return the name of the row's checkbox."""
    return f"{_TICKED}{key_text(key)}"


def ticked(form: Mapping[str, str]) -> tuple[Key, ...]:
    """Return the keys of the ticked rows."""
    found = (key_of(name.removeprefix(_TICKED)) for name in form if name.startswith(_TICKED))
    return tuple(key for key in found if key)


def key_text(key: Key) -> str:
    """Return a row's key as URL-safe base64 of JSON; bytes become hexadecimal."""
    values = [{"bytes": one.hex()} if isinstance(one, bytes) else one for one in key]
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def key_of(text: str) -> Key | None:
    """Return the key that `key_text` made, or None for an empty text. Raise `Refused` for anything else."""
    if not text:
        return None
    try:
        return tuple(map(_part, json.loads(base64.urlsafe_b64decode(text))))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused("This is not the key of a row.", hint="Open the table again.") from error


def _part(value: object) -> Value:
    """Return the value as SQLite takes it; raise `ValueError` or `TypeError` for any other."""
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])
    if isinstance(value, str):
        value.encode()  # raises for a lone surrogate, which SQLite cannot store
    is_number = isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63)
    if value is None or is_number or isinstance(value, str):
        return value  # type: ignore[return-value]
    raise ValueError(value)


class Wanted(Struct, frozen=True):
    """Which rows of which table of a backup to bring back, and how."""

    name: str
    database: str
    table: str
    choice: Choice
    overwrite: bool = False
    with_children: bool = False


def choose_rows(visit: Visit) -> Answer:
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
    return _start_plan(visit, Wanted(form.get("name", ""), place, of_exact(form.get("table", "")), choice))


def look_again(visit: Visit) -> Answer:
    """Plan the same rows again with other options."""
    form, (_, planned) = visit.form, _PLANS.of(visit)
    overwrite, with_children = bool(form.get("overwrite")), bool(form.get("with_children"))
    return _start_plan(visit, replace(planned.wanted, overwrite=overwrite, with_children=with_children))


def _start_plan(visit: Visit, wanted: Wanted) -> Answer:
    settings, part = visit.settings, of_database(visit.settings, wanted.database)

    def look(emit: EventListener) -> RescuePlan:
        recover(settings, emit)
        return plan_rescue(
            part, wanted.name, wanted.table, wanted.choice, wanted.overwrite, wanted.with_children, emit=emit
        )

    return _PLANS.start(visit, f"Looking for rows of {printable(wanted.table)}", wanted, look)


def _show_plan(number: int, planned: Planned) -> Answer:
    """Show which rows come back and which stay, and ask for agreement."""
    plan: RescuePlan = planned.found
    groups, differ = list(_groups(plan.found)), plan.found.differ[:_EXAMPLES]
    return Page("rescue.html", plan=plan, wanted=planned.wanted, number=number, groups=groups, differ=differ)


def _groups(found: Found) -> Iterator[tuple[str, str, list[Values], int]]:
    """Yield the rows of one table that come back for one reason: table, reason, the first rows, how many there are."""
    for (table, why), rows in row_text.grouped(found).items():
        yield table, why, [row.backup for row in rows[:_EXAMPLES]], len(rows)


def _bringing_back(visit: Visit, planned: Planned) -> Task[Rescued]:
    """Return what the plan shows; raise `Refused` unless the backup's name was typed."""
    plan, wanted = planned.found, planned.wanted
    require_typed(visit, plan.source)
    if not plan.found.writes:
        raise Refused("There is no row to bring back; nothing was changed.", hint="Choose others.")
    title = f"Bringing rows of {printable(wanted.table)} back from {plan.source}"
    return tasks.bringing_back(of_database(visit.settings, wanted.database), title, plan)


GET: Mapping[str, Handler] = {
    "uploads/{name}": owner_only(show_uploads),
    "uploads/{name}/find": owner_only(find_uploads),
    "uploads/{name}/file": owner_only(show_file),
    "tables/{name}": owner_only(show_tables),
    "rows/{name}": owner_only(show_rows),
    "rows/{name}/compare": owner_only(compare_rows),
    "rescue/plan/{number}": _PLANS.shown(_show_plan),
}
POST: Mapping[str, Handler] = {
    "rescue": choose_rows,
    "rescue/plan/{number}": _PLANS.carried_out(_bringing_back),
    "rescue/plan/{number}/again": look_again,
}
