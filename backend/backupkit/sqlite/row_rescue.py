"""Find the rows of a sealed backup to restore to the live database, and the rows that they need there.

`main` is the live database, `other` the sealed file. `row_return` writes what is found here.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from backupkit.model.errors import BackupError, NoSuchBackup, Refused
from backupkit.model.names import few, printable
from backupkit.sqlite import database, query, rows
from backupkit.sqlite.engine import folded, is_text, quoted
from backupkit.sqlite.keyed_tables import (
    LOOK_AT_ROWS,
    ForeignKey,
    KeyedTable,
    foreign_keys_of,
    is_same,
    key_text,
    keyed_table,
    search_tables_of,
    triggers_of,
)
from backupkit.sqlite.query import Values
from backupkit.sqlite.rows import Key, Value

MOST = 100_000  # rows of one rescue
_MOST_NOTES = 20
_MOST_BYTES = 256 << 20  # of text and blobs, all held in memory
_SECONDS = 60.0  # limit of the search
_SECONDS_TO_COUNT = 3.0  # limit of the search for rows that only a note names
Why = Literal["asked for", "referred to", "refers to them"]


class Choice(Struct, frozen=True):
    """The rows that are asked for: those that meet a condition, all that are missing, or those of these keys.

    `keys` are as typed, for a primary key of one column; `rows` are exact values of `rows.key_of` in the backup.
    """

    where: str = ""
    missing: bool = False
    keys: tuple[str, ...] = ()
    rows: tuple[Key, ...] = ()


class RescuedRow(Struct, frozen=True):
    """A row of the backup, its values in the order of `Found.columns`; `live` is the live row of this key, or None."""

    table: str
    key: Values
    why: Why
    backup: Values
    live: Values | None


class Found(Struct, frozen=True):
    """The plan of a rescue. `differ` are rows with other values live: they stay, or are replaced if `overwrite`.

    `same` counts rows that are live unchanged. `notes` are sentences for the user.
    """

    columns: dict[str, tuple[str, ...]]
    inserts: tuple[RescuedRow, ...]
    differ: tuple[RescuedRow, ...]
    same: int
    overwrite: bool
    notes: tuple[str, ...]
    dangling: dict[tuple[str, str, int], int] = field(default_factory=dict)
    """The number of rows that refer to rows that the backup lacks too, by table, parent table and key number."""

    @property
    def writes(self) -> tuple[RescuedRow, ...]:
        """The rows to write."""
        return self.inserts + (self.differ if self.overwrite else ())


@contextmanager
def opened(live: Path, sealed: Path, timeout: float) -> Iterator[sqlite3.Connection]:
    """Hold a read-only snapshot of the live database while the block runs, with the sealed file attached."""
    with database.snapshot(live, timeout) as snapshot, rows.attached_alike(snapshot, sealed):
        yield snapshot


def find(
    connection: sqlite3.Connection,
    sealed: Path,
    table: str,
    choice: Choice,
    overwrite: bool = False,
    with_children: bool = False,
) -> Found:
    """Find the rows that are asked for, and the missing rows that they refer to by foreign keys.

    `with_children` adds missing rows that refer to them. Raises `NoSuchBackup` for a table or key that the backup
    lacks, `Refused` if the schema or keys do not identify the rows or a row cannot be inserted, `BackupError` after
    a minute.
    """
    search = _Search(connection, overwrite, with_children)
    chosen = search.chosen(table, choice, sealed, _SECONDS)
    with rows.limited(connection, _SECONDS) as is_over:
        try:
            search.take(table, chosen)
            found = search.found()
        except sqlite3.OperationalError as error:
            if is_over():
                raise BackupError(f"The rows were not found within {_SECONDS:g} s.", "Choose fewer rows.") from error
            raise
    if not with_children and (note := search.note_on_children(_SECONDS_TO_COUNT)):
        return replace(found, notes=(*found.notes, note))
    return found


# The search


class _Search:
    """A search for the rows of one rescue."""

    def __init__(self, connection: sqlite3.Connection, overwrite: bool, with_children: bool) -> None:
        self._connection, self._overwrite, self._with_children = connection, overwrite, with_children
        self._tables: dict[str, KeyedTable] = {}
        self._rows: dict[tuple[str, Values], RescuedRow] = {}
        self._same: set[tuple[str, Values]] = set()
        self._waiting: deque[tuple[KeyedTable, Values, bool]] = deque()
        self._live: dict[tuple[str, Values], Values] = {}
        self._children: dict[str, list[ForeignKey]] = {}
        self._bytes = 0
        self._notes: dict[str, None] = {}
        self._dangling: Counter[tuple[str, str, int]] = Counter()

    def _table_if_ordinary(self, name: str) -> KeyedTable | None:
        """Return the table, or None if no key identifies its rows: references to them are checked at the end."""
        with suppress(Refused, NoSuchBackup):
            return self._table(name)
        return None

    def chosen(self, name: str, choice: Choice, sealed: Path, seconds: float) -> list[Values]:
        """Return the keys of the rows that are asked for."""
        table = self._table(name)
        if choice.keys:
            return [self._of_key(table, text) for text in choice.keys]
        if choice.missing:
            return self._missing(table, seconds)
        if choice.rows:
            return self._of_rows(table, choice.rows, sealed)
        with database.open_sealed(sealed) as alone, query.reading_only(alone, seconds):
            # The backup is opened alone, so that subqueries read it too.
            query.check_condition(alone, table.name, choice.where)
            wanted = ", ".join(map(quoted, table.keys))
            found = alone.execute(f"SELECT {wanted} FROM main.{quoted(table.name)} WHERE ({choice.where}\n)")
            return self._limited(found.fetchmany(MOST + 1))

    def take(self, name: str, keys: Sequence[Values]) -> None:
        """Take the rows of these keys, then their parents and children."""
        for key in keys:
            self._add(self._table(name), key, "asked for")
        while self._waiting:
            table, key, is_meant = self._waiting.popleft()
            self._take_parents(table, key)
            if self._with_children and is_meant:  # not for a row that is only referred to: they would be siblings
                self._take_children(table, key)

    def found(self) -> Found:
        inserts = tuple(one for one in self._rows.values() if one.live is None)
        for one in inserts:
            self._refuse_unique_conflict(one)
        tables = [self._tables[name] for name in sorted({folded(one.table) for one in self._rows.values()})]
        for table in tables:
            self._note_what_is_lost(table)
        return Found(
            {table.name: table.columns for table in tables},
            inserts,
            tuple(one for one in self._rows.values() if one.live is not None),
            len(self._same),
            self._overwrite,
            tuple(self._notes),
            dict(self._dangling),
        )

    def _table(self, name: str) -> KeyedTable:
        if folded(name) not in self._tables:
            self._tables[folded(name)] = keyed_table(self._connection, name)
        return self._tables[folded(name)]

    def _missing(self, table: KeyedTable, seconds: float) -> list[Values]:
        wanted, past = ", ".join(map(quoted, table.keys)), f"{rows.OTHER}.{quoted(table.name)}"
        is_null = " OR ".join(f"past.{quoted(one)} IS NULL" for one in table.keys)
        same = " AND ".join(f"live.{quoted(one)} = past.{quoted(one)}" for one in table.keys)
        live = f"SELECT 1 FROM main.{quoted(table.name)} AS live WHERE {same}"
        with query.reading_only(self._connection, seconds):
            if self._connection.execute(f"SELECT 1 FROM {past} AS past WHERE {is_null}").fetchone():
                of = printable(table.name)
                self._note(f"Rows of {of} whose key is NULL are left out: nothing tells which they are.")
            sql = f"SELECT {wanted} FROM {past} AS past WHERE NOT ({is_null}) AND NOT EXISTS ({live})"
            return self._limited(self._connection.execute(sql).fetchmany(MOST + 1))

    def _of_key(self, table: KeyedTable, text: str) -> Values:
        if len(table.keys) > 1:
            raise Refused(
                f"A row of {printable(table.name)} is found by {few(table.keys)}: one key is not enough.",
                "Use --where.",
            )
        for value in _possible_values(text):
            wanted = f"SELECT {quoted(table.keys[0])} FROM {table.where(rows.OTHER)}"
            if found := self._connection.execute(wanted, (value,)).fetchone():
                return tuple(found)
        raise NoSuchBackup(f"The backup has no row {printable(text)} in {printable(table.name)}.", hint="See `rows`.")

    def _of_rows(self, table: KeyedTable, wanted: Sequence[Key], sealed: Path) -> list[Values]:
        with database.open_sealed(sealed) as alone:
            names = rows.key_of(alone, table.name)
            if any(len(one) != len(names) for one in wanted):
                raise Refused(f"This is not the key of a row of {printable(table.name)}.", LOOK_AT_ROWS)
            same = " AND ".join(f"{name} IS ?" for name in names)
            sql = f"SELECT {', '.join(map(quoted, table.keys))} FROM main.{quoted(table.name)} WHERE {same}"
            found = [one for key in wanted for one in alone.execute(sql, key)]
        if len(found) < len(wanted):
            of = printable(table.name)
            raise NoSuchBackup(f"The backup does not have each of these rows of {of}.", "See `rows`.")
        return self._limited(found)

    def _limited(self, found: list[Values]) -> list[Values]:
        self._refuse_too_many(len(found))
        return found

    def _refuse_too_many(self, number: int) -> None:
        if number > MOST:
            raise Refused(f"These are more than {MOST:,} rows.", hint="Choose fewer, or restore all: `restore`.")

    def _add(self, table: KeyedTable, key: Values, why: Why) -> None:
        place = (table.name, key)
        if place in self._rows or place in self._same:
            return
        self._refuse_too_many(len(self._rows) + len(self._same) + 1)
        if None in key or not _is_all_text(key):
            raise Refused(f"A row of {printable(table.name)} has a key that is NULL or no text.", hint="See `rows`.")
        backup, live = (self._values(table, side, key) for side in (rows.OTHER, "main"))
        assert backup is not None
        self._count_bytes(backup, live or ())
        if live is not None:
            self._refuse_shared_live_row(table, key)
        if live is not None and is_same(self._connection, table, key):
            self._same.add(place)
            is_followed = self._with_children and why != "referred to"
        elif live is None or why == "asked for":
            self._rows[place] = RescuedRow(table.name, key, why, backup, live)
            is_followed = live is None or self._overwrite
        else:
            what = f"{printable(table.name)} {key_text(key)} is another row now than in the backup"
            return self._note(f"{what}, and rows that come back refer to it: see `rows`.")
        if is_followed:
            self._waiting.append((table, key, why != "referred to"))

    def _count_bytes(self, *found: Values) -> None:
        self._bytes += sum(len(one) for values in found for one in values if isinstance(one, str | bytes))
        if self._bytes > _MOST_BYTES:
            raise Refused(
                f"These rows hold more than {_MOST_BYTES >> 20} MB.", "Choose fewer, or restore all: `restore`."
            )

    def _refuse_shared_live_row(self, table: KeyedTable, key: Values) -> None:
        """Raise `Refused` if two rows of the backup have the same live row: the live key may distinguish less."""
        wanted = ", ".join(map(quoted, table.keys))
        live = tuple(self._connection.execute(f"SELECT {wanted} FROM {table.where('main')}", key).fetchone())
        if self._live.setdefault((table.name, live), key) != key:
            message = f"Two rows of {printable(table.name)} in the backup are one live row: {key_text(live)}."
            raise Refused(message, LOOK_AT_ROWS)

    def _values(self, table: KeyedTable, side: str, key: Values) -> Values | None:
        wanted = ", ".join(map(quoted, table.columns))
        found = self._connection.execute(f"SELECT {wanted} FROM {table.where(side)}", key).fetchone()
        return None if found is None else tuple(found)

    def _take_parents(self, table: KeyedTable, key: Values) -> None:
        """Take the missing rows that this one refers to."""
        for one in table.foreign_keys:
            referred = self._in_columns(table, one.columns, key)
            if None in referred:
                continue
            parent = self._table_if_ordinary(one.parent)
            if parent is None:
                continue
            keys = ", ".join(map(quoted, parent.keys))
            past = f"SELECT {keys} FROM {parent.where(rows.OTHER, one.parent_columns)}"
            if found := self._connection.execute(past, referred).fetchone():
                self._add(parent, tuple(found), "referred to")
            elif not self._is_live(parent, one.parent_columns, referred):
                self._dangling[folded(table.name), folded(parent.name), one.number] += 1
                rows_of, others = printable(table.name), printable(parent.name)
                self._note(f"Rows of {rows_of} refer to rows of {others} that the backup lacks too.")

    def _in_columns(self, table: KeyedTable, columns: Sequence[str], key: Values) -> Values:
        """Return what the backup's row of that key has in these columns."""
        wanted = ", ".join(map(quoted, columns))
        return tuple(self._connection.execute(f"SELECT {wanted} FROM {table.where(rows.OTHER)}", key).fetchone())

    def _is_live(self, table: KeyedTable, columns: Sequence[str], values: Values) -> bool:
        return bool(self._connection.execute(f"SELECT 1 FROM {table.where('main', columns)}", values).fetchone())

    def _take_children(self, table: KeyedTable, key: Values) -> None:
        """Take the missing rows that refer to this one."""
        for one in self._references_to(table):
            child = self._table_if_ordinary(one.table)
            if child is None:
                self._note(
                    f"Rows of {printable(one.table)} that refer to these are not looked for: it has no usable key."
                )
                continue
            for found in self._limited(self._missing_children(one, child, table, key)):
                self._add(child, found, "refers to them")

    def _missing_children(self, one: ForeignKey, child: KeyedTable, table: KeyedTable, key: Values) -> list[Values]:
        """Return the keys of the rows that the backup has, that are not live, and refer to this row by that key."""
        referred = self._in_columns(table, one.parent_columns, key)
        if None in referred:
            return []
        keys = ", ".join(map(quoted, child.keys))
        past = self._connection.execute(f"SELECT {keys} FROM {child.where(rows.OTHER, one.columns)}", referred)
        missing = (tuple(found) for found in past if not self._is_live(child, child.keys, found))
        return list(islice(missing, MOST + 1))

    def note_on_children(self, seconds: float) -> str:
        """Return a sentence on missing rows that refer to those that come back; empty if there are none."""
        try:
            with rows.limited(self._connection, seconds) as is_over:
                left = Counter(name for name, _ in self._children_left_behind())
        except sqlite3.OperationalError:
            if is_over():
                return (
                    "Missing rows that refer to these were not counted: it takes long. --with-children looks for them."
                )
            raise
        if not left:
            return ""
        numbers = few([f"{number:,} of {printable(name)}" for name, number in sorted(left.items())])
        return f"Rows that refer to these are missing too: {numbers}. --with-children brings them back."

    def _children_left_behind(self) -> set[tuple[str, Values]]:
        missing: set[tuple[str, Values]] = set()
        for row in [one for one in self._rows.values() if one.live is None and one.why == "asked for"]:
            table = self._table(row.table)
            for one in self._references_to(table):
                if child := self._table_if_ordinary(one.table):
                    found = self._missing_children(one, child, table, row.key)
                    missing.update((child.name, key) for key in found)
        return missing - self._rows.keys()

    def _references_to(self, table: KeyedTable) -> list[ForeignKey]:
        """Return the foreign keys that refer to this table, from tables that both databases have."""
        if table.name not in self._children:
            tables = database.ordinary_tables(self._connection)
            found = (one for name in tables for one in foreign_keys_of(self._connection, name))
            self._children[table.name] = [one for one in found if folded(one.parent) == folded(table.name)]
        return self._children[table.name]

    def _refuse_unique_conflict(self, row: RescuedRow) -> None:
        """Raise `Refused` if a live row has the same values in columns that must be unique."""
        table = self._table(row.table)
        values = dict(zip(map(folded, table.columns), row.backup, strict=True))
        for columns in table.unique:
            wanted = tuple(values.get(one) for one in columns)
            if None in wanted or not _is_all_text(wanted):
                continue
            keys = ", ".join(map(quoted, table.keys))
            query = f"SELECT {keys} FROM {table.where('main', columns)}"
            if conflict := self._connection.execute(query, wanted).fetchone():
                place = f"{printable(row.table)} {key_text(row.key)}"
                raise Refused(
                    f"{place} cannot come back: the live row {key_text(tuple(conflict))} has the same {few(columns)}.",
                    "That may be there only once: change the live row in the app first.",
                )

    def _note_what_is_lost(self, table: KeyedTable) -> None:
        if table.lacking:
            self._note(
                f"The live table {printable(table.name)} has no column {few(table.lacking)}: its values stay behind."
            )
        if names := triggers_of(self._connection, table.name):
            self._note(f"Triggers of {printable(table.name)} do not run for these rows: {few(names)}.")
        if names := search_tables_of(self._connection, table.name):
            self._note(f"The search index of {printable(table.name)} is rebuilt: {few(names)}.")

    def _note(self, text: str) -> None:
        if len(self._notes) < _MOST_NOTES:
            self._notes[text] = None


def _is_all_text(values: Values) -> bool:
    return all(is_text(one) for one in values if isinstance(one, str))


def _possible_values(text: str) -> Iterator[Value]:
    """Yield the values that a typed key may mean: the column's type decides, or the row that exists if it has none."""
    if not is_text(text):
        return
    yield text
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            yield kind(text)
