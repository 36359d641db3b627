"""Rows of a table, a page at a time; and the rows in which two databases differ.

Values are shortened for display: the beginning of a text, the size of a blob. Names and values come from an untrusted
database: names are quoted, and unprintable characters are escaped.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from msgspec import Struct

from backupkit.model.errors import Refused
from backupkit.model.names import printable_text
from backupkit.sqlite.engine import quoted, unquoted

Value = str | int | float | bytes | None
Key = tuple[Value, ...]
DifferenceKind = Literal["gone", "came", "changed"]
KINDS: tuple[DifferenceKind, ...] = ("gone", "came", "changed")
_ROW_IDS = ("rowid", "_rowid_", "oid")
_APART = "Look at it by itself: `rows` without --diff, or `restore NAME --to DIR`."
OTHER = "other"  # the schema name of the second, attached database
_WIDTH = 60  # letters of a text that are shown
_INSTRUCTIONS = 10_000  # of SQLite's VM, between two checks of the clock


class Cell(Struct, frozen=True):
    """A value on one printable line. `size` is the bytes of a blob, which is not shown itself."""

    kind: Literal["null", "integer", "real", "text", "blob"]
    text: str = ""
    size: int = 0
    is_cut: bool = False


class Row(Struct, frozen=True):
    """A row, and its key, which finds the next page."""

    key: Key
    cells: tuple[Cell, ...]


class RowPage(Struct, frozen=True):
    """Some rows of a table in key order, and whether there are more on either side."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    has_earlier: bool
    has_later: bool


class Difference(Struct, frozen=True):
    """A row that differs between two databases; the cells are empty on the side that has no row of that key.

    `key` is its key in the earlier database, if that was asked for; empty for a row that came.
    """

    kind: DifferenceKind
    before: tuple[Cell, ...] = ()
    after: tuple[Cell, ...] = ()
    key: Key = ()


class Comparison(Struct, frozen=True):
    """The rows that are gone, came or changed since the earlier database; `keys` identify them.

    Only `columns`, which both have, were compared. `is_cut`: there are more, or the time was over (`is_late`).
    """

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    differences: tuple[Difference, ...]
    is_cut: bool
    is_late: bool = False

    def count(self, kind: str) -> int:
        """Return how many of the found rows are of that kind."""
        return sum(one.kind == kind for one in self.differences)


def page(
    connection: sqlite3.Connection, table: str, size: int, after: Key | None = None, before: Key | None = None
) -> RowPage:
    """Return at most `size` rows after, or before, the row of that key; the first ones if no key is given.

    Rows are found by their keys, so the last page costs as little as the first. Texts are cut at `_WIDTH`.
    Raises `Refused` for a key with the wrong number of values.
    """
    columns, keys = columns_of(connection, table), key_of(connection, table)
    direction = "DESC" if before is not None else "ASC"
    edge = before if before is not None else after
    if edge and len(edge) != len(keys):
        raise Refused(f"A row of {table} has a key of {len(keys)} values, not of {len(edge)}.")
    wanted = ", ".join([*keys, *(_shown(quoted(name), _WIDTH) for name in columns)])
    marks = ", ".join("?" * len(keys))
    where = f"WHERE ({', '.join(keys)}) {'<' if before is not None else '>'} ({marks})" if edge else ""
    order = ", ".join(f"{key} {direction}" for key in keys)
    found = connection.execute(
        f"SELECT {wanted} FROM main.{quoted(table)} {where} ORDER BY {order} LIMIT ?", (*(edge or ()), size + 1)
    ).fetchall()
    rows = [Row(tuple(one[: len(keys)]), _cells(one[len(keys) :])) for one in found[:size]]
    has_more = len(found) > size
    if before is not None:
        return RowPage(columns, tuple(reversed(rows)), has_earlier=has_more, has_later=True)
    return RowPage(columns, tuple(rows), has_earlier=after is not None, has_later=has_more)


def columns_of(connection: sqlite3.Connection, table: str, schema: str = "main") -> tuple[str, ...]:
    """Return the columns in order, without generated ones; empty if there is no such table."""
    return tuple(row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?, ?)", (table, schema)))


def compare(
    connection: sqlite3.Connection,
    table: str,
    earlier: Path,
    most: int,
    seconds: float = 30,
    earlier_keys: tuple[str, ...] = (),
) -> Comparison:
    """Compare the table with that of an earlier, sealed file, up to `most` rows of each kind or for `seconds`.

    SQLite itself compares, a row at a time, byte by byte. Both are only read. Two rows are the same row if their
    primary keys are equal, or their rowids if there is no primary key. `earlier_keys`, quoted, make up
    `Difference.key`.
    """
    with attached(connection, earlier):
        ours, theirs = (columns_of(connection, table, schema) for schema in ("main", OTHER))
        columns = tuple(name for name in ours if name in theirs)
        keys = identity(connection, table, theirs)
        query = DifferenceQuery(
            quoted(table),
            keys,
            tuple(map(quoted, columns)),
            _WIDTH,
            row_id=row_id_of(connection, table),
            earlier_keys=earlier_keys,
        )
        found, is_cut, is_late = _differences(connection, query, most, seconds)
    return Comparison(tuple(unquoted(key) for key in keys), columns, tuple(found), is_cut, is_late)


class Changes(Struct, frozen=True):
    """The numbers of rows that a table gains, changes and loses if an earlier state replaces the live one."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.removed


def count_changes(
    connection: sqlite3.Connection, tables: Sequence[str], earlier: Path, seconds: float
) -> dict[str, Changes]:
    """Return the changes of these tables, of as many as can be compared in order within `seconds`.

    A table that only one of the two has, or that only the app can read, is left out.
    """
    found: dict[str, Changes] = {}
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # for example, another encoding
        attached(connection, earlier),
        limited(connection, seconds) as is_over,
    ):
        for table in tables:
            if is_over():
                break
            with contextlib.suppress(sqlite3.DatabaseError):  # the time is over, or only the app has a collation
                found[table] = _counted(connection, table)
    return found


def _counted(connection: sqlite3.Connection, table: str) -> Changes:
    ours, theirs = (columns_of(connection, table, schema) for schema in ("main", OTHER))
    if not theirs or set(ours) != set(theirs):
        raise sqlite3.DatabaseError("It is not the same table.")
    keys, row_id = identity(connection, table, theirs), row_id_of(connection, table)
    query = DifferenceQuery(quoted(table), keys, tuple(map(quoted, ours)), 0, row_id=row_id)
    if all(is_row_number(connection, table, query.keys, schema) for schema in ("main", OTHER)):
        common, changed = connection.execute(query.counting_common()).fetchone()
        now, before = (connection.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in query.sides)
        return Changes(before - common, changed, now - common)
    removed, added, changed = (
        connection.execute(query.counting(kind)).fetchone()[0] for kind in ("came", "gone", "changed")
    )
    return Changes(added, changed, removed)


class DifferenceQuery(Struct, frozen=True):
    """The SQL that finds each kind of difference. `main` is the database as it is now."""

    table: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    width: int | None
    where: str = ""
    """A condition that the row must meet in one of the two; checked before to be one expression."""
    row_id: str = ""
    """The name of the rowid, which identifies rows whose key is NULL; empty if the table has none."""
    earlier_keys: tuple[str, ...] = ()
    """Columns that come first, not shortened, in each row that the earlier database has."""

    def selecting(self, kind: DifferenceKind) -> str:
        """Return the SQL that finds the rows of that kind: as they were, as they are, or both in this order."""
        sides = ("past", "now") if kind == "changed" else ("here",)
        wanted = [_shown(f"{side}.{name}", self.width) for side in sides for name in self.columns]
        keys = [f"{sides[0]}.{name}" for name in self.earlier_keys] if kind != "came" else []
        return f"SELECT {', '.join([*keys, *wanted])} FROM {self._rows(kind)}"

    def counting(self, kind: str) -> str:
        """Return the SQL that counts the rows of that kind."""
        return f"SELECT count(*) FROM {self._rows(kind)}"

    def counting_common(self) -> str:
        """Return the SQL that counts the common rows, and the changed ones of them; correct only if keys are unique."""
        return f"SELECT count(*), count(*) FILTER (WHERE {self._is_changed}) FROM {self._common}"

    @property
    def sides(self) -> tuple[str, str]:
        """The names of the table as it is now, and as it was."""
        return f"main.{self.table}", f"{OTHER}.{self.table}"

    def _rows(self, kind: str) -> str:
        """Return the SQL after FROM."""
        if kind == "changed":
            found = f"{self._common} WHERE {self._is_changed}"
            return f"{found} AND ({self._meets('now')} OR {self._meets('past')})" if self.where else found
        main, other = self.sides
        here, there = (other, main) if kind == "gone" else (main, other)
        found = f"{here} AS here WHERE NOT EXISTS (SELECT 1 FROM {there} AS there WHERE {self._same('there', 'here')})"
        return f"{found} AND ({self.where}\n)" if self.where else found

    def _meets(self, side: str) -> str:
        """Return the SQL that tests the row of that side: the condition names columns without a side."""
        table = self.sides[side == "past"]
        return f"EXISTS (SELECT 1 FROM {table} AS one WHERE {self._same('one', side)} AND ({self.where}\n))"

    @property
    def _common(self) -> str:
        main, other = self.sides
        return f"{main} AS now JOIN {other} AS past ON {self._same('past', 'now')}"

    @property
    def _is_changed(self) -> str:
        """The SQL that tests for a change. Bytewise: a collation may equate A and a. In whole values, 1 is not 1.0."""
        kinds = [f"typeof({{}}.{name})" for name in self.columns] if self.width is None else []
        now = ", ".join(
            [*(f"now.{name} COLLATE BINARY" for name in self.columns), *(one.format("now") for one in kinds)]
        )
        past = ", ".join([*(f"past.{name}" for name in self.columns), *(one.format("past") for one in kinds)])
        return f"({now}) IS NOT ({past})"

    def _same(self, one: str, other: str) -> str:
        same = " AND ".join(f"{one}.{key} IS {other}.{key}" for key in self.keys)
        if not self.row_id or self.row_id in self.keys:
            return same
        is_whole = " AND ".join(f"{one}.{key} IS NOT NULL" for key in self.keys)
        return f"{same} AND (({is_whole}) OR {one}.{self.row_id} = {other}.{self.row_id})"


def _differences(
    connection: sqlite3.Connection, query: DifferenceQuery, most: int, seconds: float
) -> tuple[list[Difference], bool, bool]:
    """Return the differences, whether there may be more, and whether the time was over."""
    found: list[Difference] = []
    is_cut = False
    with limited(connection, seconds) as is_over:
        try:
            for kind in KINDS:
                rows = connection.execute(query.selecting(kind))
                keys = 0 if kind == "came" else len(query.earlier_keys)
                found += (_difference(kind, row[:keys], row[keys:]) for row in islice(rows, most))
                is_cut |= rows.fetchone() is not None
                rows.close()
        except sqlite3.OperationalError:
            if not is_over():
                raise
    return found, is_cut or is_over(), is_over()


def _difference(kind: DifferenceKind, key: Key, row: Sequence[Value]) -> Difference:
    if kind == "gone":
        return Difference(kind, before=_cells(row), key=key)
    if kind == "came":
        return Difference(kind, after=_cells(row))
    half = len(row) // 2
    return Difference(kind, _cells(row[:half]), _cells(row[half:]), key)


@contextlib.contextmanager
def attached(connection: sqlite3.Connection, file: Path) -> Iterator[None]:
    """Attach the sealed file as a second database, read-only; SQLite takes no lock and writes nothing beside it."""
    connection.execute(f"ATTACH ? AS {OTHER}", (f"{file.absolute().as_uri()}?mode=ro&immutable=1",))
    yield  # a database cannot be detached within a transaction: closing the connection detaches it


@contextlib.contextmanager
def attached_alike(connection: sqlite3.Connection, file: Path) -> Iterator[None]:
    """Do `attached`; raise `Refused` if the text encodings differ, because SQLite cannot read both together then."""
    stack = contextlib.ExitStack()
    try:
        stack.enter_context(attached(connection, file))
    except sqlite3.OperationalError as error:
        if "encoding" not in str(error):
            raise
        raise Refused(f"{file} has another encoding of text than the live database.", _APART) from error
    with stack:
        yield


@contextlib.contextmanager
def limited(connection: sqlite3.Connection, seconds: float) -> Iterator[Callable[[], bool]]:
    """Interrupt SQLite in the block when the time is over; yield a function that returns whether it is."""
    deadline = time.monotonic() + seconds

    def is_over() -> bool:
        return time.monotonic() >= deadline

    connection.set_progress_handler(is_over, _INSTRUCTIONS)
    try:
        yield is_over
    finally:
        connection.set_progress_handler(None, 0)


def key_of(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """Return the quoted columns that order and identify the rows: the rowid, else the primary key."""
    row_id = row_id_of(connection, table)
    return (row_id,) if row_id else _primary_key(connection, table)


def row_id_of(connection: sqlite3.Connection, table: str) -> str:
    """Return the quoted name of the rowid in this table; empty if it has none."""
    names = {name.lower() for name in columns_of(connection, table)}
    (without,) = connection.execute(
        "SELECT total(wr) FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE", (table,)
    ).fetchone()
    free = () if without else tuple(quoted(name) for name in _ROW_IDS if name not in names)
    return free[0] if free else ""


def identity(connection: sqlite3.Connection, table: str, theirs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the quoted columns that identify a row in both: the primary key if both have it, else the `key_of`."""
    key = _primary_key(connection, table)
    return key if key and {unquoted(name) for name in key} <= {*theirs} else key_of(connection, table)


def is_row_number(connection: sqlite3.Connection, table: str, keys: tuple[str, ...], schema: str) -> bool:
    """Return whether that key is the rowid itself, which is unique and never NULL."""
    if len(keys) != 1:
        return False
    rowid = connection.execute(
        "SELECT wr = 0 FROM pragma_table_list WHERE schema = ? AND name = ? COLLATE NOCASE", (schema, table)
    ).fetchone()
    named = connection.execute(
        "SELECT upper(type) = 'INTEGER' AND pk = 1, (SELECT max(pk) FROM pragma_table_info(?1, ?2)),"
        " EXISTS (SELECT 1 FROM pragma_index_list(?1, ?2) WHERE origin = 'pk')"
        " FROM pragma_table_info(?1, ?2) WHERE name = ?3",
        (table, schema, unquoted(keys[0])),
    ).fetchone()
    return bool(rowid and rowid[0]) and (named is None or named == (1, 1, 0))


def _primary_key(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    found = connection.execute("SELECT name FROM pragma_table_info(?, 'main') WHERE pk > 0 ORDER BY pk", (table,))
    return tuple(quoted(name) for (name,) in found)


def _shown(name: str, width: int | None) -> str:
    """Return the SQL that fetches the value, for a `width` only the size of a blob and the beginning of a text."""
    if width is None:
        return name
    return (
        f"CASE typeof({name}) WHEN 'blob' THEN CAST(length({name}) AS BLOB)"
        f" WHEN 'text' THEN substr({name}, 1, {width + 1}) ELSE {name} END"
    )


def _cells(values: Sequence[Value]) -> tuple[Cell, ...]:
    return tuple(map(_cell, values))


def _cell(value: Value) -> Cell:
    if value is None:
        return Cell("null")
    if isinstance(value, bytes):
        return Cell("blob", size=int(value.replace(b"\0", b"")), is_cut=True)  # UTF-16 has two bytes a digit
    if isinstance(value, str):
        return Cell("text", printable_text(value[:_WIDTH]), is_cut=len(value) > _WIDTH)
    return Cell("integer" if isinstance(value, int) else "real", str(value))
