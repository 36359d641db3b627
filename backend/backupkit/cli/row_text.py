"""Rows of a table as text: a table for people, CSV for other programs, and values as JSON has them."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backupkit.cli import tables
from backupkit.cli.render import counted
from backupkit.fs.space import format_bytes
from backupkit.model.documents import Document
from backupkit.model.names import printable, shown

if TYPE_CHECKING:
    from backupkit.cli.tables import Terminal
    from backupkit.sqlite.query import RowDifference, RowDifferences, Selection, Values

_WIDTH = 40  # letters of a value, at a terminal
_SIGNS = {"only in backup": "-", "only live": "+", "changed": "~"}


# For people.


def selection(found: Selection, screen: Terminal | None) -> Iterator[str]:
    """A line for each row, below the names of the columns; at a terminal each value is cut."""
    width = _WIDTH if screen and screen.width else None
    lines = [tuple(_cell(value, width) for value in row) for row in found.rows]
    yield from tables.table(tuple(map(shown, found.columns)), lines)
    yield f"{counted(len(found.rows), 'row')}{_more(found.is_cut)}."


def differences(found: RowDifferences, screen: Terminal | None) -> Iterator[str]:
    """A line for each row that differs, found by its key; of one that changed, what did."""
    width = _WIDTH if screen and screen.width else None
    for one in found.differences:
        yield f"{_SIGNS[one.kind]} {_difference(found, one, width)}"
    counts = {kind: sum(one.kind == kind for one in found.differences) for kind in _SIGNS}
    summed = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    yield f"{summed or 'No row differs'}{_more(found.is_cut)}."


def _difference(found: RowDifferences, one: RowDifference, width: int | None) -> str:
    pairs = [(name, index) for index, name in enumerate(found.columns)]
    if one.backup is None or one.live is None:
        values = one.backup or one.live or ()
        return ", ".join(f"{shown(name)} {_cell(values[index], width)}" for name, index in pairs)
    backup, live = one.backup, one.live
    keys = [f"{shown(name)} {_cell(backup[index], width)}" for name, index in pairs if name in found.keys]
    changed = [
        f"{shown(name)} {_cell(backup[index], width)} -> {_cell(live[index], width)}"
        for name, index in pairs
        if (type(backup[index]), backup[index]) != (type(live[index]), live[index])
    ]
    return f"{', '.join(keys)}{': ' if keys else ''}{', '.join(changed)}"


def _more(is_cut: bool) -> str:
    return ", and more: see --limit" if is_cut else ""


def _cell(value: Any, width: int | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"(blob, {format_bytes(len(value))})"
    text = printable(str(value))
    return text if width is None or len(text) <= width else f"{text[:width]}…"


# For programs.


def selection_csv(found: Selection) -> str:
    """The names of the columns, and a line for each row."""
    return _csv([found.columns, *found.rows])


def differences_csv(found: RowDifferences) -> str:
    """The same of the rows that differ, behind what differs and on which side: a row that changed has two lines."""
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
    """Rows of a backup's table, each a list in the order of the columns."""
    return {
        "backup": backup,
        "table": table,
        "columns": list(found.columns),
        "rows": [_values(row) for row in found.rows],
        "more": found.is_cut,
    }


def differences_document(backup: str, table: str, found: RowDifferences) -> Document:
    """The rows that differ: as they are in the backup, and live; null on the side that has none."""
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
    """The value itself, where JSON has such; else an object that says what it is."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": str(value)}
    return value
