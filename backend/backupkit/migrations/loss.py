"""What a migration loses: rows of tables and values of columns, counted on a copy before and after."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from backupkit.sqlite import database
from backupkit.sqlite.engine import quoted

_AT_ONCE = 500  # columns in one query; SQLite allows 2,000 in a result
# Alembic's own tables: the revision changes with each migration, and a batch migration may leave a temporary table.
_OWN = ("alembic_version", "_alembic_tmp_")


class Filled(Struct, frozen=True):
    """A table's number of rows, and by column the number of values that are neither NULL nor empty."""

    rows: int
    columns: Mapping[str, int] = field(default_factory=dict)


Fillings = Mapping[str, Filled]


class Loss(Struct, frozen=True):
    """What a table loses, in a few words."""

    table: str
    text: str


def measure(sealed: Path) -> dict[str, Filled]:
    """Count each table of a finished file; leave out tables that only the app can read."""
    with database.open_sealed(sealed) as connection:
        tables = database.ordinary_tables(connection)
        found = ((one, _filled(connection, one)) for one in tables if not one.startswith(_OWN))
        return {name: filled for name, filled in found if filled}


def cascades(sealed: Path) -> set[str]:
    """Return the tables whose rows are deleted with the row that they refer to."""
    with database.open_sealed(sealed) as connection:
        question = "SELECT 1 FROM pragma_foreign_key_list(?) WHERE on_delete = 'CASCADE'"
        return {one for one in database.ordinary_tables(connection) if connection.execute(question, (one,)).fetchone()}


def losses(before: Fillings, after: Fillings) -> tuple[Loss, ...]:
    """Return what was there before and is missing now. Renaming a table or column loses nothing."""
    new = {name: filled for name, filled in after.items() if name not in before}
    found = []
    for name, was in before.items():
        if name in after:
            found += [Loss(name, text) for text in _lost_of(name, was, after[name])]
        elif was.rows and not _take_renamed(was, new):
            found.append(Loss(name, f"{name} and its {_counted(was.rows, 'row')}"))
    return tuple(found)


def _lost_of(name: str, was: Filled, now: Filled) -> Iterator[str]:
    gone = max(0, was.rows - now.rows)
    if gone:
        yield f"{gone:,} of {_counted(was.rows, 'row')} of {name}"
    new = sorted(count for column, count in now.columns.items() if column not in was.columns)
    for column, count in sorted(was.columns.items(), key=lambda one: -one[1]):
        expected = count - gone  # values may have gone with their rows
        left = now.columns.get(column, 0)
        if column not in now.columns and new and new[-1] >= expected > 0:
            left = new.pop()  # renamed, or of another type now
        if left < expected:
            yield f"{expected - left:,} of {_counted(count, 'value')} of {name}.{column}"


def _take_renamed(was: Filled, new: dict[str, Filled]) -> bool:
    """Return whether a new table holds all of it under another name; remove that table from `new`, to match it once."""
    for name, now in new.items():
        kept = [column for column, count in was.columns.items() if now.columns.get(column, -1) >= count]
        if now.rows >= was.rows and 2 * len(kept) >= len(was.columns):
            del new[name]
            return True
    return False


def _filled(connection: sqlite3.Connection, table: str) -> Filled | None:
    try:
        names = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
        counts = [one for start in range(0, len(names), _AT_ONCE) for one in _counts(connection, table, names, start)]
        (rows,) = connection.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()
        return Filled(rows, dict(zip(names, counts, strict=True)))
    except (sqlite3.Error, UnicodeError):
        return None


def _counts(connection: sqlite3.Connection, table: str, names: Sequence[str], start: int) -> tuple[int, ...]:
    # COLLATE BINARY, because only the app may have the column's own collation.
    wanted = [f"count(nullif({quoted(name)} COLLATE BINARY, ''))" for name in names[start : start + _AT_ONCE]]
    counts: tuple[int, ...] = connection.execute(f"SELECT {', '.join(wanted)} FROM {quoted(table)}").fetchone()
    return counts


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
