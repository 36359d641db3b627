"""Rows of a sealed backup brought back into the live database: which ones, what they need, and one transaction.

`main` is the live database, `other` the sealed file. Values go from one to the other within SQLite, so that each comes
back to the last bit. A row is the same row if its primary key is.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from backupkit.model.errors import BackupError, NoSuchBackup, Refused
from backupkit.model.names import few, printable, shown
from backupkit.sqlite import database, engine, query, rows
from backupkit.sqlite.engine import folded, quoted
from backupkit.sqlite.query import Values
from backupkit.sqlite.rows import Value

MOST = 100_000  # rows of one rescue
_CONTENT = re.compile(
    r"""\bUSING\s+fts[345]\b.*[(,]\s*content\s*=\s*('(?:[^']|'')+'|"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|\w+)""",
    re.IGNORECASE | re.DOTALL,
)
_MOST_NOTES = 20
_MOST_BYTES = 256 << 20  # of text and blobs, all in memory
_LOOK_AT_ROWS = "Look at the rows: `rows`. All of them come back with `restore`."
_SECONDS = 60.0  # that the rows may be looked for
_BrokenKey = tuple[str, int | None, str, int]  # table, row, the table that it refers to, number of the key
Why = Literal["asked for", "referred to", "refers to them"]


@dataclass(frozen=True)
class Choice:
    """Which rows are asked for: those that meet a condition, all that are missing, or those of these keys."""

    where: str = ""
    missing: bool = False
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class RescuedRow:
    """A row of the backup, its values in the order of `RowsOfTable.columns`; `live` is the row that has its key now."""

    table: str
    key: Values
    why: Why
    backup: Values
    live: Values | None


@dataclass(frozen=True)
class Found:
    """What a rescue would do. `differ` are rows with other values now: they stay, or are replaced (`overwrite`).

    `same` counts rows that are live already as they were. `notes` are sentences for the person.
    """

    columns: dict[str, tuple[str, ...]]
    inserts: tuple[RescuedRow, ...]
    differ: tuple[RescuedRow, ...]
    same: int
    overwrite: bool
    notes: tuple[str, ...]
    dangling: dict[tuple[str, str, int], int] = field(default_factory=dict)
    """By table, the table it refers to and the number of the key: rows that refer to what the backup lacks too."""

    @property
    def writes(self) -> tuple[RescuedRow, ...]:
        """The rows that are put back."""
        return self.inserts + (self.differ if self.overwrite else ())


@contextmanager
def opened(live: Path, sealed: Path, timeout: float) -> Iterator[sqlite3.Connection]:
    """One moment of the live database, only read, with the sealed file beside it."""
    with database.snapshot(live, timeout) as snapshot, rows.attached_alike(snapshot, sealed):
        yield snapshot


def find(
    connection: sqlite3.Connection,
    sealed: Path,
    table: str,
    choice: Choice,
    overwrite: bool = False,
    with_children: bool = False,
    seconds: float = _SECONDS,
) -> Found:
    """The rows that are asked for, and those that they refer to and that are missing, along foreign keys.

    With children also those that refer to them. Raises `NoSuchBackup` for a table or key that the backup lacks,
    `Refused` where schema or keys do not say which row is which, or a row cannot go in.
    """
    search = _Search(connection, overwrite, with_children)
    chosen = search.chosen(table, choice, sealed, seconds)
    with rows.limited(connection, seconds) as is_over:
        try:
            search.take(table, chosen)
            return search.found()
        except sqlite3.OperationalError as error:
            if is_over():
                raise BackupError(f"The rows were not found within {seconds:g} s.", "Choose fewer rows.") from error
            raise


# What a table is.


@dataclass(frozen=True)
class _ForeignKey:
    """`number` is SQLite's own. `columns` of the table hold what `parent_columns` of the parent have."""

    number: int
    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """A table that both have: its name as it is live, its primary key, and the columns that can be written in both."""

    name: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    foreign_keys: tuple[_ForeignKey, ...]
    unique: tuple[tuple[str, ...], ...]
    lacking: tuple[str, ...]
    """Columns that the backup has, and that the live table has no more or computes itself."""

    def where(self, side: str, columns: Sequence[str] = ()) -> str:
        """What stands behind FROM to find a row of that side by its key, or by these columns."""
        return f"{side}.{quoted(self.name)} WHERE {self.condition(columns or self.keys)}"

    def condition(self, columns: Sequence[str]) -> str:
        """That these columns have the values that are given."""
        return " AND ".join(f"{quoted(one)} = ?" for one in columns)


def _table(connection: sqlite3.Connection, name: str) -> _Table:
    live, past = (_columns(connection, name, schema) for schema in ("main", rows.OTHER))
    for side, columns in (("the live database", live), ("the backup", past)):
        if not columns:
            raise NoSuchBackup(f"There is no table {shown(name)} in {side}.", hint="The schema was another one then.")
    listed = "SELECT type, name FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE"
    kind, true_name = connection.execute(listed, (name,)).fetchone() or ("", name)
    if kind != "table" or folded(name).startswith("sqlite_"):
        raise Refused(
            f"{shown(name)} is no ordinary table: no row can be put back into it.", "Name the table behind it."
        )
    keys = [_primary_key(columns) for columns in (live, past)]
    if not keys[0]:
        message = f"The table {shown(name)} has no primary key: it cannot be known which row is which."
        raise Refused(message, hint=_LOOK_AT_ROWS)
    if keys[0] != keys[1]:
        raise Refused(f"The table {shown(name)} has another primary key than the backup.", hint=_LOOK_AT_ROWS)
    common = [one for name, one in live.items() if one.is_written and name in past]
    if missing := [one.name for name, one in live.items() if one.is_required and name not in past]:
        raise Refused(
            f"The table {shown(name)} has a column that needs a value, and that the backup lacks: {few(missing)}.",
            hint="Restore the backup beside the app (`restore NAME --to DIR`), migrate it, and copy the rows.",
        )
    return _Table(
        true_name,
        keys[0],
        tuple(one.name for one in common),
        _foreign_keys(connection, true_name),
        _unique_columns(connection, true_name),
        tuple(
            one.name for name, one in past.items() if one.is_written and (name not in live or not live[name].is_written)
        ),
    )


@dataclass(frozen=True)
class _Column:
    """`is_required`: it must be given a value. `place` is that in the primary key, from 1 on; 0 for none."""

    name: str
    is_written: bool
    is_required: bool
    place: int


def _columns(connection: sqlite3.Connection, table: str, schema: str) -> dict[str, _Column]:
    """By name in small letters; empty where there is no such table."""
    found = connection.execute(
        'SELECT name, hidden, "notnull", dflt_value, pk FROM pragma_table_xinfo(?, ?)', (table, schema)
    )
    return {
        folded(name): _Column(name, hidden == 0, hidden == 0 and required and default is None, place)
        for name, hidden, required, default, place in found
    }


def _primary_key(columns: dict[str, _Column]) -> tuple[str, ...]:
    return tuple(sorted((name for name, one in columns.items() if one.place), key=lambda name: columns[name].place))


def _foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[_ForeignKey, ...]:
    """Those of the live table whose columns, there and in the parent, the backup has too."""
    found: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, parent, here, there in connection.execute(
        'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq', (table,)
    ):
        found.setdefault(number, []).append((parent, here, there))
    keys = (one for number, parts in found.items() if (one := _foreign_key(connection, table, number, parts)))
    return tuple(one for one in keys if _is_in_the_backup(connection, one))


def _is_in_the_backup(connection: sqlite3.Connection, key: _ForeignKey) -> bool:
    here, parent = (_columns(connection, one, rows.OTHER) for one in (key.table, key.parent))
    return set(key.columns) <= set(here) and set(key.parent_columns) <= set(parent)


def _foreign_key(
    connection: sqlite3.Connection, table: str, number: int, parts: list[tuple[str, str, str | None]]
) -> _ForeignKey | None:
    parent = parts[0][0]
    columns = _columns(connection, parent, "main")
    named = tuple(folded(there) for _, _, there in parts if there) or _primary_key(columns)
    if not columns or len(named) != len(parts):
        return None  # it refers to what is not there: the schema's slip
    return _ForeignKey(number, table, tuple(folded(here) for _, here, _ in parts), parent, named)


def _unique_columns(connection: sqlite3.Connection, table: str) -> tuple[tuple[str, ...], ...]:
    """The columns in which no two rows may be alike; not the primary key, and none of expressions."""
    names = connection.execute(
        "SELECT name FROM pragma_index_list(?) WHERE \"unique\" AND NOT partial AND origin <> 'pk'", (table,)
    ).fetchall()
    found = []
    for (name,) in names:
        columns = [one for (one,) in connection.execute("SELECT name FROM pragma_index_info(?)", (name,))]
        found += [tuple(map(folded, columns))] if all(columns) else []
    return tuple(found)


# The search.


class _Search:
    """The rows of one rescue, found one after the other."""

    def __init__(self, connection: sqlite3.Connection, overwrite: bool, with_children: bool) -> None:
        self._connection, self._overwrite, self._with_children = connection, overwrite, with_children
        self._tables: dict[str, _Table] = {}
        self._rows: dict[tuple[str, Values], RescuedRow] = {}
        self._same: set[tuple[str, Values]] = set()
        self._waiting: deque[tuple[_Table, Values, bool]] = deque()
        self._live: dict[tuple[str, Values], Values] = {}
        self._children: dict[str, list[_ForeignKey]] = {}
        self._bytes = 0
        self._notes: dict[str, None] = {}
        self._dangling: Counter[tuple[str, str, int]] = Counter()

    def _table_if_ordinary(self, name: str) -> _Table | None:
        """None for one whose rows cannot be told apart: what refers to them is checked at the end."""
        with suppress(Refused, NoSuchBackup):
            return self._table(name)
        return None

    def chosen(self, name: str, choice: Choice, sealed: Path, seconds: float) -> list[Values]:
        """The keys of the rows that are asked for."""
        table = self._table(name)
        if choice.keys:
            return [self._of_key(table, text) for text in choice.keys]
        if choice.missing:
            return self._missing(table, seconds)
        with database.open_sealed(sealed) as alone, query.reading_only(alone, seconds):
            # By itself: what a subquery reads is the backup's too.
            query.check_condition(alone, table.name, choice.where)
            wanted = ", ".join(map(quoted, table.keys))
            found = alone.execute(f"SELECT {wanted} FROM main.{quoted(table.name)} WHERE ({choice.where}\n)")
            return self._few([tuple(one) for one in found.fetchmany(MOST + 1)])

    def take(self, name: str, keys: Sequence[Values]) -> None:
        """Take the rows of these keys, and all that belongs to them."""
        for key in keys:
            self._add(self._table(name), key, "asked for")
        while self._waiting:
            table, key, is_meant = self._waiting.popleft()
            self._take_parents(table, key)
            if self._with_children and is_meant:  # not of a row that is only referred to: these would be its siblings
                self._take_children(table, key)

    def found(self) -> Found:
        inserts = tuple(one for one in self._rows.values() if one.live is None)
        for one in inserts:
            self._refuse_twins(one)
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

    def _table(self, name: str) -> _Table:
        if folded(name) not in self._tables:
            self._tables[folded(name)] = _table(self._connection, name)
        return self._tables[folded(name)]

    def _missing(self, table: _Table, seconds: float) -> list[Values]:
        wanted, past = ", ".join(map(quoted, table.keys)), f"{rows.OTHER}.{quoted(table.name)}"
        is_null = " OR ".join(f"past.{quoted(one)} IS NULL" for one in table.keys)
        same = " AND ".join(f"live.{quoted(one)} = past.{quoted(one)}" for one in table.keys)
        live = f"SELECT 1 FROM main.{quoted(table.name)} AS live WHERE {same}"
        with query.reading_only(self._connection, seconds):
            if self._connection.execute(f"SELECT 1 FROM {past} AS past WHERE {is_null}").fetchone():
                self._note(f"Rows of {shown(table.name)} whose key is NULL are left out: nothing tells which they are.")
            return self._keys(f"SELECT {wanted} FROM {past} AS past WHERE NOT ({is_null}) AND NOT EXISTS ({live})")

    def _of_key(self, table: _Table, text: str) -> Values:
        if len(table.keys) > 1:
            raise Refused(
                f"A row of {shown(table.name)} is found by {few(table.keys)}: one key is not enough.", "Use --where."
            )
        for value in _readings(text):
            wanted = f"SELECT {quoted(table.keys[0])} FROM {table.where(rows.OTHER)}"
            if found := self._connection.execute(wanted, (value,)).fetchone():
                return tuple(found)
        raise NoSuchBackup(f"The backup has no row {shown(text)} in {shown(table.name)}.", hint="See `rows`.")

    def _keys(self, sql: str, values: Values = ()) -> list[Values]:
        return self._few([tuple(one) for one in self._connection.execute(sql, values).fetchmany(MOST + 1)])

    def _few(self, found: list[Values]) -> list[Values]:
        self._refuse_too_many(len(found))
        return found

    def _refuse_too_many(self, number: int) -> None:
        if number > MOST:
            raise Refused(f"These are more than {MOST:,} rows.", hint="Choose fewer, or restore all: `restore`.")

    def _add(self, table: _Table, key: Values, why: Why) -> None:
        place = (table.name, key)
        if place in self._rows or place in self._same:
            return
        self._refuse_too_many(len(self._rows) + len(self._same) + 1)
        if None in key or any(isinstance(one, str) and _is_no_text(one) for one in key):
            raise Refused(f"A row of {shown(table.name)} has a key that is NULL or no text.", hint="See `rows`.")
        backup, live = (self._values(table, side, key) for side in (rows.OTHER, "main"))
        assert backup is not None
        self._count_bytes(backup, live or ())
        if live is not None:
            self._refuse_twice(table, key)
        if live is not None and _is_same(self._connection, table, key):
            self._same.add(place)
            is_followed = self._with_children and why != "referred to"
        elif live is None or why == "asked for":
            self._rows[place] = RescuedRow(table.name, key, why, backup, live)
            is_followed = live is None or self._overwrite
        else:
            name = f"{shown(table.name)} {_key_text(key)}"
            self._note(
                f"{name} is another row now than in the backup, and rows that come back refer to it: see `rows`."
            )
            return
        if is_followed:
            self._waiting.append((table, key, why != "referred to"))

    def _count_bytes(self, *found: Values) -> None:
        self._bytes += sum(len(one) for values in found for one in values if isinstance(one, str | bytes))
        if self._bytes > _MOST_BYTES:
            raise Refused(
                f"These rows hold more than {_MOST_BYTES >> 20} MB.", "Choose fewer, or restore all: `restore`."
            )

    def _refuse_twice(self, table: _Table, key: Values) -> None:
        """Two rows of the backup must not become one: the live key may tell less apart than the backup's did."""
        wanted = ", ".join(map(quoted, table.keys))
        place = (
            table.name,
            tuple(self._connection.execute(f"SELECT {wanted} FROM {table.where('main')}", key).fetchone()),
        )
        if self._live.setdefault(place, key) != key:
            raise Refused(
                f"Two rows of {shown(table.name)} in the backup are one live row: {_key_text(place[1])}.", _LOOK_AT_ROWS
            )

    def _values(self, table: _Table, side: str, key: Values) -> Values | None:
        wanted = ", ".join(map(quoted, table.columns))
        found = self._connection.execute(f"SELECT {wanted} FROM {table.where(side)}", key).fetchone()
        return None if found is None else tuple(found)

    def _take_parents(self, table: _Table, key: Values) -> None:
        """The rows that this one refers to, where they are missing."""
        for one in table.foreign_keys:
            wanted = ", ".join(map(quoted, one.columns))
            referred = self._connection.execute(f"SELECT {wanted} FROM {table.where(rows.OTHER)}", key).fetchone()
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
                self._note(
                    f"Rows of {shown(table.name)} refer to rows of {shown(parent.name)} that the backup lacks too."
                )

    def _is_live(self, table: _Table, columns: Sequence[str], values: Values) -> bool:
        return bool(self._connection.execute(f"SELECT 1 FROM {table.where('main', columns)}", values).fetchone())

    def _take_children(self, table: _Table, key: Values) -> None:
        """The rows that refer to this one, and are missing."""
        for one in self._references_to(table):
            child = self._table_if_ordinary(one.table)
            if child is None:
                self._note(f"Rows of {shown(one.table)} that refer to these are not looked for: it has no usable key.")
                continue
            wanted = ", ".join(map(quoted, one.parent_columns))
            referred = self._connection.execute(f"SELECT {wanted} FROM {table.where(rows.OTHER)}", key).fetchone()
            if None in referred:
                continue
            keys = ", ".join(map(quoted, child.keys))
            for found in self._keys(f"SELECT {keys} FROM {child.where(rows.OTHER, one.columns)}", tuple(referred)):
                if not self._is_live(child, child.keys, found):
                    self._add(child, found, "refers to them")

    def _references_to(self, table: _Table) -> list[_ForeignKey]:
        """The foreign keys, of tables that both have, that lead to this one."""
        if table.name not in self._children:
            found = (
                one
                for name in database.ordinary_tables(self._connection)
                for one in _foreign_keys(self._connection, name)
            )
            self._children[table.name] = [one for one in found if folded(one.parent) == folded(table.name)]
        return self._children[table.name]

    def _refuse_twins(self, row: RescuedRow) -> None:
        """No live row may have what may be there only once."""
        table = self._table(row.table)
        values = dict(zip(map(folded, table.columns), row.backup, strict=True))
        for columns in table.unique:
            wanted = tuple(values.get(one) for one in columns)
            if None in wanted or any(isinstance(one, str) and _is_no_text(one) for one in wanted):
                continue
            keys = ", ".join(map(quoted, table.keys))
            if twin := self._connection.execute(
                f"SELECT {keys} FROM {table.where('main', columns)}", wanted
            ).fetchone():
                place = f"{shown(row.table)} {_key_text(row.key)}"
                raise Refused(
                    f"{place} cannot come back: the live row {_key_text(tuple(twin))} has the same {few(columns)}.",
                    "That may be there only once: change the live row in the app first.",
                )

    def _note_what_is_lost(self, table: _Table) -> None:
        if table.lacking:
            self._note(
                f"The live table {shown(table.name)} has no column {few(table.lacking)}: its values stay behind."
            )
        if names := triggers_of(self._connection, table.name):
            self._note(f"Triggers of {shown(table.name)} do not run for these rows: {few(names)}.")
        if names := search_tables_of(self._connection, table.name):
            self._note(f"The search index of {shown(table.name)} is made anew: {few(names)}.")

    def _note(self, text: str) -> None:
        if len(self._notes) < _MOST_NOTES:
            self._notes[text] = None


def triggers_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """The triggers of a table, in the order in which SQLite reads them, and so runs them."""
    found = "SELECT name FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY rowid"
    return [name for (name,) in connection.execute(found, (table,))]


def search_tables_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """The search tables whose content is that table, and which know nothing of rows that no trigger tells them of."""
    found = connection.execute(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'table' AND sql LIKE 'create virtual%'"
    )
    return [name for name, sql in found if (of := _CONTENT.search(sql)) and folded(_bare(of[1])) == folded(table)]


def _bare(name: str) -> str:
    return name[1:-1].replace(name[-1] * 2, name[-1]) if name[0] in "'\"`[" else name


def _is_same(connection: sqlite3.Connection, table: _Table, key: Values) -> bool:
    """Whether the live row has the very values of the backup's, and of the same types."""
    exact = ", ".join(f"{one} COLLATE BINARY, typeof({one})" for one in map(quoted, table.columns))
    live, past = (f"SELECT {exact} FROM {table.where(side)}" for side in ("main", rows.OTHER))
    both = f"SELECT count(*) FROM ({live} INTERSECT {past})"
    return bool(connection.execute(both, key + key).fetchone()[0])


def _key_text(key: Values) -> str:
    return ", ".join(printable(str(one)) for one in key)


def _readings(text: str) -> Iterator[Value]:
    """What may be meant by a key that was typed: the column says, or where it has no type, the row that is there."""
    if _is_no_text(text):
        return
    yield text
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            yield kind(text)


def _is_no_text(value: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in value)


# The transaction.


def bring_back(live: Path, sealed: Path, found: Found, timeout: float) -> None:
    """Put the rows back, all of them in one transaction, or none.

    Triggers do not run; foreign keys are checked before it commits. Raises `Refused` where the live rows are not those
    that were found, or a constraint does not allow a row; `SourceUnreadable` where the database stays locked.
    """
    with closing(engine.connect(live, "mode=rw", timeout=0)) as connection, rows.attached(connection, sealed):
        # Nothing is written before the commit, for which alone it may have to wait.
        for pragma in ("foreign_keys=OFF", "synchronous=FULL", "recursive_triggers=OFF", "cache_spill=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        database.retry_while_locked(lambda: connection.execute("BEGIN IMMEDIATE"), live, timeout)
        try:
            tables = {name: _table(connection, name) for name in found.columns}
            _refuse_if_changed(connection, found, tables)
            _write(connection, found, tables)
            database.retry_while_locked(lambda: connection.execute("COMMIT"), live, timeout)
        except sqlite3.IntegrityError as error:
            raise Refused(
                f"A row cannot come back: {printable(str(error))}.", "Choose other rows. Nothing was changed."
            ) from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _refuse_if_changed(connection: sqlite3.Connection, found: Found, tables: dict[str, _Table]) -> None:
    """The live rows must be those that the plan was made of."""
    for row in (*found.inserts, *found.differ):
        table = tables[row.table]
        wanted = ", ".join(map(quoted, table.columns))
        now = connection.execute(f"SELECT {wanted} FROM {table.where('main')}", row.key).fetchone()
        if table.columns != found.columns[row.table] or (None if now is None else tuple(now)) != row.live:
            place = f"{shown(row.table)} {_key_text(row.key)}"
            raise Refused(f"{place} was changed meanwhile. Nothing was written.", "Look at the plan again.")


def _write(connection: sqlite3.Connection, found: Found, tables: dict[str, _Table]) -> None:
    names = sorted({row.table for row in found.writes})
    checked = _with_those_that_refer_to(connection, names)
    before = Counter(_broken_keys(connection, checked))
    triggers = _taken_off(connection, names)
    for row in found.writes:
        _put_back(connection, tables[row.table], row)
        _refuse_other_values(connection, tables[row.table], row)
    for name in names:
        for search in search_tables_of(connection, name):
            connection.execute(f"INSERT INTO main.{quoted(search)} ({quoted(search)}) VALUES ('rebuild')")
    for sql in triggers:
        connection.execute(sql)
    _refuse_broken_keys(Counter(_broken_keys(connection, checked)) - before, found)


def _refuse_other_values(connection: sqlite3.Connection, table: _Table, row: RescuedRow) -> None:
    """What a column of another type made of a value would be no longer what the backup holds."""
    if not _is_same(connection, table, row.key):
        place = f"{shown(row.table)} {_key_text(row.key)}"
        raise Refused(
            f"{place} would not come back as it was: a column has another type now. Nothing was written.",
            "Restore the backup beside the app (`restore NAME --to DIR`), migrate it, and copy the rows.",
        )


def _refuse_broken_keys(broken: Counter[_BrokenKey], found: Found) -> None:
    """No row refers to what is not there that did not before, but for those that do in the backup too."""
    counts = Counter[tuple[str, str, int]]()
    for (child, _, parent, number), count in broken.items():
        counts[child, parent, number] += count
    for (child, parent, number), count in counts.items():
        if count > found.dangling.get((child, parent, number), 0):
            one, other = shown(child), shown(parent)
            message = f"Rows of {one} would refer to rows of {other} that are not there. Nothing was written."
            raise Refused(message, "Choose more rows.")


def _with_those_that_refer_to(connection: sqlite3.Connection, names: Sequence[str]) -> list[str]:
    """These tables, and those whose rows a change of them may leave alone."""
    wanted = set(map(folded, names))
    query = 'SELECT 1 FROM pragma_foreign_key_list(?) WHERE "table" = ? COLLATE NOCASE'
    others = [
        one
        for one in database.ordinary_tables(connection)
        if folded(one) not in wanted and any(connection.execute(query, (one, name)).fetchone() for name in names)
    ]
    return [*names, *others]


def _put_back(connection: sqlite3.Connection, table: _Table, row: RescuedRow) -> None:
    """Whatever a constraint of the table would do with a conflict: it is an error."""
    columns = ", ".join(map(quoted, table.columns))
    past = f"SELECT {columns} FROM {table.where(rows.OTHER)}"
    if row.live is None:
        connection.execute(f"INSERT OR ABORT INTO main.{quoted(table.name)} ({columns}) {past}", row.key)
    else:
        where = table.condition(table.keys)
        change = f"UPDATE OR ABORT main.{quoted(table.name)} SET ({columns}) = ({past}) WHERE {where}"
        connection.execute(change, row.key + row.key)


def _broken_keys(connection: sqlite3.Connection, tables: Sequence[str]) -> Iterator[_BrokenKey]:
    for table in tables:
        with suppress(sqlite3.OperationalError):  # a key that refers to what cannot be: the schema's slip
            for child, row, parent, number in connection.execute(f"PRAGMA main.foreign_key_check({quoted(table)})"):
                if _columns(connection, parent, "main"):  # or no row can refer to it
                    yield folded(child), row, folded(parent), number


def _taken_off(connection: sqlite3.Connection, tables: Sequence[str]) -> list[str]:
    """The triggers of these tables are gone until their statements are run again, in the same transaction."""
    found = []
    for table in tables:
        for name in triggers_of(connection, table):
            ((sql,),) = connection.execute(
                "SELECT sql FROM main.sqlite_master WHERE type = 'trigger' AND name = ?", (name,)
            )
            connection.execute(f"DROP TRIGGER main.{quoted(name)}")
            found.append(sql)
    return found
