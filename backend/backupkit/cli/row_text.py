"""Rows of a table as text, as CSV and as JSON documents; differences and rescues of rows."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backupkit.cli import tables
from backupkit.fs.space import format_bytes
from backupkit.model.documents import Document
from backupkit.model.names import counted, few, printable, printable_text

if TYPE_CHECKING:
    from backupkit.cli.tables import Terminal
    from backupkit.restore.rescue import Rescued, RescuePlan
    from backupkit.sqlite.query import RowDifference, RowDifferences, Selection, Values
    from backupkit.sqlite.row_rescue import Found, RescuedRow

_WIDTH = 40  # characters of a value that a terminal shows
_EXAMPLES = 10  # rows of each kind that a plan shows
_SIGNS = {"only in backup": "-", "only live": "+", "changed": "~"}


def selection(found: Selection, screen: Terminal | None) -> Iterator[str]:
    """Yield the column names and a line for each row; on a terminal, values are cut to `_WIDTH`."""
    width = _WIDTH if screen and screen.width else None
    lines = [tuple(_cell(value, width) for value in row) for row in found.rows]
    yield from tables.table(tuple(map(printable, found.columns)), lines)
    yield f"{counted(len(found.rows), 'row')}{_cut_hint(found.is_cut)}."


def differences(found: RowDifferences, screen: Terminal | None) -> Iterator[str]:
    """Yield a line for each row that differs, with its key and, if it changed, the changed columns; then the counts."""
    width = _WIDTH if screen and screen.width else None
    for one in found.differences:
        yield f"{_SIGNS[one.kind]} {_difference(found, one, width)}"
    counts = {kind: sum(one.kind == kind for one in found.differences) for kind in _SIGNS}
    summed = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    yield f"{summed or 'No row differs'}{_cut_hint(found.is_cut)}."


def _difference(found: RowDifferences, one: RowDifference, width: int | None) -> str:
    if one.backup is None or one.live is None:
        return _named(found.columns, one.backup or one.live or (), width)
    pairs = zip(found.columns, one.backup, strict=True)
    keys = [f"{printable(name)} {_cell(value, width)}" for name, value in pairs if name in found.keys]
    changed = [
        f"{printable(name)} {_cell(before, width)} -> {_cell(now, width)}"
        for name, before, now in _changed(found.columns, one.backup, one.live)
    ]
    return f"{', '.join(keys)}{': ' if keys else ''}{', '.join(changed)}"


def _named(columns: Sequence[str], values: Values, width: int | None) -> str:
    return ", ".join(f"{printable(name)} {_cell(value, width)}" for name, value in zip(columns, values, strict=True))


def _changed(columns: Sequence[str], backup: Values, live: Values) -> Iterator[tuple[str, Any, Any]]:
    """Yield each column whose value or type differs, with both values."""
    for name, before, now in zip(columns, backup, live, strict=True):
        if (type(before), before) != (type(now), now):
            yield name, before, now


def _cut_hint(is_cut: bool) -> str:
    return ", and more: see --limit" if is_cut else ""


def _cell(value: Any, width: int | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"(blob, {format_bytes(len(value))})"
    text = printable_text(str(value))
    return text if width is None or len(text) <= width else f"{text[:width]}…"


def selection_csv(found: Selection) -> str:
    """Return CSV: the column names, and a line for each row."""
    return _csv([found.columns, *found.rows])


def differences_csv(found: RowDifferences) -> str:
    """Return CSV of the rows that differ; the first two columns are kind and side. A changed row has two lines."""
    lines: list[Sequence[Any]] = [("difference", "side", *found.columns)]
    for one in found.differences:
        sides = (("backup", one.backup), ("live", one.live))
        lines += [(one.kind, side, *values) for side, values in sides if values is not None]
    return _csv(lines)


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*map(_plain, line)] for line in lines)
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def selection_document(backup: str, table: str, found: Selection) -> Document:
    """Return rows of a backup's table, each as a list in the order of the columns."""
    return {
        "backup": backup,
        "table": table,
        "columns": list(found.columns),
        "rows": [_values(row) for row in found.rows],
        "more": found.is_cut,
    }


def differences_document(backup: str, table: str, found: RowDifferences) -> Document:
    """Return the rows that differ, as they are in the backup and live; null on the side without such a row."""
    return {
        "backup": backup,
        "table": table,
        "keys": list(found.keys),
        "columns": list(found.columns),
        "differences": [
            {
                "kind": one.kind,
                "backup": None if one.backup is None else _values(one.backup),
                "live": None if one.live is None else _values(one.live),
            }
            for one in found.differences
        ],
        "more": found.is_cut,
    }


def _values(row: Values) -> list[Any]:
    return [_value(value) for value in row]


def _value(value: Any) -> Any:
    """Return the value itself if JSON can hold it, else an object: `base64` for bytes, `real` for infinity."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": str(value)}
    return value


def rescue_plan(plan: RescuePlan) -> Iterator[str]:
    """Yield what a rescue will change."""
    found = plan.found
    yield f"Bringing rows of {plan.source} back into the live database:"
    for (table, why), rows in grouped(found).items():
        because = "" if why == "asked for" else f" ({why})"
        yield f"  {printable(table)}: {counted(len(rows), 'row')} to bring back{because}"
        yield from (f"    + {_named(found.columns[table], row.backup, _WIDTH)}" for row in rows[:_EXAMPLES])
        if len(rows) > _EXAMPLES:
            yield f"    and {len(rows) - _EXAMPLES:,} more"
    if found.differ:
        does = "replaced by the backup's" if found.overwrite else "left as they are (--overwrite replaces them)"
        yield f"  rows whose live values differ, {does}: {len(found.differ):,}"
        yield from (f"    ~ {printable(row.table)} {_side_by_side(found, row)}" for row in found.differ[:_EXAMPLES])
    if found.same:
        yield f"  rows that are live already, as they were: {found.same:,}"
    if count := len(plan.uploads.paths):
        yield f"  {counted(count, 'upload')} that they name, to bring back: {few(plan.uploads.paths)}"
    yield from (f"  note       {note}" for note in plan.notes)
    if found.writes:
        yield "  A safety copy is made first; `undo` takes this back."
    else:
        yield "  Nothing is to be brought back."


def grouped(found: Found) -> dict[tuple[str, str], list[RescuedRow]]:
    """Return the rows to bring back, by their table and the reason."""
    groups: dict[tuple[str, str], list[RescuedRow]] = {}
    for row in found.inserts:
        groups.setdefault((row.table, row.why), []).append(row)
    return groups


def _side_by_side(found: Found, row: RescuedRow) -> str:
    assert row.live is not None
    changed = [
        f"{printable(name)} {_cell(before, _WIDTH)} in the backup, {_cell(now, _WIDTH)} live"
        for name, before, now in _changed(found.columns[row.table], row.backup, row.live)
    ]
    return f"{', '.join(_cell(one, _WIDTH) for one in row.key)}: {'; '.join(changed)}"


def rescued(done: Rescued) -> Iterator[str]:
    """Yield what a rescue did, and how to undo it."""
    for verb, counts in (("brought back", done.inserted), ("replaced", done.replaced)):
        yield from (f"{printable(table)}: {counted(count, 'row')} {verb}." for table, count in counts.items())
    if done.uploads:
        yield f"{counted(len(done.uploads), 'upload')} that they name brought back."
    if not done.safety:
        yield "Nothing was brought back."
    if done.differ:
        yield f"Not brought back, because the live row of that key has other values: {done.differ:,}. See --overwrite."
    yield from (f"  note       {note}" for note in done.notes)
    if done.safety:
        yield f"The safety copy is {done.safety}. To take this back: `undo`"


def rescue_plan_document(plan: RescuePlan) -> Document:
    """Return the rows that a rescue would bring back, and the live rows that differ."""
    found = plan.found
    return {
        "source": plan.source,
        "inserts": [_rescued_row(found, row) for row in found.inserts],
        "differ": [_rescued_row(found, row) for row in found.differ],
        "same": found.same,
        "overwrite": found.overwrite,
        "notes": list(plan.notes),
        "uploads": list(map(printable, plan.uploads.paths)),
    }


def _rescued_row(found: Found, row: RescuedRow) -> Document:
    names = found.columns[row.table]
    return {
        "table": row.table,
        "why": row.why,
        "key": _values(row.key),
        "backup": dict(zip(names, _values(row.backup), strict=True)),
        "live": None if row.live is None else dict(zip(names, _values(row.live), strict=True)),
    }


def rescued_document(done: Rescued) -> Document:
    """Return what a rescue did: row counts by table, and the safety copy, null if there was nothing to do."""
    return {
        "source": done.source,
        "safety": done.safety or None,
        "inserted": dict(done.inserted),
        "replaced": dict(done.replaced),
        "differ": done.differ,
        "notes": list(done.notes),
        "uploads": list(map(printable, done.uploads)),
        "warnings": list(done.warnings),
    }
