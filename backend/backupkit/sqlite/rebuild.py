"""Build a new database from what can still be read of a broken one, table by table.

1. create the tables by the file's own definitions, else by the newest backup's
2. insert the rows of each tree, even if they break constraints, except those that SQLite itself enforces
3. insert the rows of pages outside any tree into the table that they fit
4. add sequences, indexes, views, triggers; virtual tables as schema rows only: their content is in tables of their own
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from backupkit.model.events import EventListener, Progress, Step, silence
from backupkit.model.names import printable_text
from backupkit.sqlite import engine
from backupkit.sqlite.allowance import Allowance
from backupkit.sqlite.cells import INDEX_INTERIOR, INDEX_LEAF, TABLE_INTERIOR, TABLE_LEAF
from backupkit.sqlite.engine import quoted
from backupkit.sqlite.guard import MODULES, Guard, Meter, harden, raise_if_interrupted
from backupkit.sqlite.page_file import Hints, PageFile
from backupkit.sqlite.page_rows import Losses, RowReader, StoredRow, UndecodedText, Value
from backupkit.sqlite.page_schema import Entry, Schema, known_schema, read_schema
from backupkit.sqlite.sql_load import is_one_statement

_BATCH = 500  # rows in one transaction
_ROWID_NAMES = ("_rowid_", "rowid", "oid")
INDEXES, OWN, _FIRST_MARK = 2, 3, 4  # owners of pages; 1 is the schema
_LOOKED_AT = 5  # rows of a page that are compared with rows elsewhere
_MOST_STAND_INS = 20  # functions and collations that only the app has, in one definition
_BATCH_BYTES = 4 << 20
_MISSING_IN_SQLITE = re.compile(r"no such (collation sequence|function): (\S+)|unknown (function): (\S+)\(\)")
_LATE_ORDER = {"index": 0, "view": 1, "trigger": 2}  # a trigger may be on a view
_SEARCH_TABLE = re.compile(r"\bUSING\s+[\"'`\[]?fts[345]\b", re.IGNORECASE)
_MADE = "SELECT 1 FROM sqlite_master WHERE name = ? AND type = 'table' AND rootpage > 0"
_STATISTICS = "sqlite_stat"
_SEQUENCE = "sqlite_sequence"
LOST_AND_FOUND = "lost_and_found"  # the table that `sqlite3 .recover` makes for rows without a definition
_MOST_COLUMNS = 1000  # of it
_MAY_BE_DELETED = "The list of free pages cannot be read: deleted rows may be among those that came back."
_OWN_WIDTHS = {_SEQUENCE: 2, "sqlite_stat1": 3}  # columns
_Origin = Literal["tree", "adrift", "free"]  # what leads to a page


@dataclass
class TableRows:
    """The result for one table: its rows in the new database, and its losses.

    `adrift` of the rows are from pages outside any tree. SQLite refused `not_taken` rows, the first for this `reason`.
    """

    name: str
    rows: int = 0
    adrift: int = 0
    lost: Losses = field(default_factory=Losses)
    not_taken: int = 0
    reason: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is known to be missing."""
        return not (self.lost.pages or self.lost.rows or self.lost.odd_pages or self.not_taken)


class Rebuilt(Struct, frozen=True):
    """The new database: its tables, and `notes` of a sentence each.

    `known_rows` are in tables that the newest backup has too; all rows if there is no backup. `is_whole_schema`: all
    definitions are the file's own. `no_place` rows fit no table. `has_lost_definitions`: all rows are in
    `LOST_AND_FOUND`. `newer` pages came from the WAL or the journal, in which `lost_frames` could not be trusted.
    `hidden` pages are behind the end that the WAL sets.
    """

    tables: tuple[TableRows, ...]
    known_rows: int
    is_whole_schema: bool
    from_backup: tuple[str, ...]
    no_place: int
    has_lost_definitions: bool
    newer: int
    lost_frames: int
    hidden: int
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.tables)

    @property
    def is_whole(self) -> bool:
        """Whether no damage was found at all."""
        tables = all(one.is_whole and not one.adrift for one in self.tables)
        return tables and self.is_whole_schema and not (self.no_place or self.lost_frames or self.notes)


def rebuild(
    broken: Path, target: Path, known: Path | None, include_free: bool = False, emit: EventListener = silence
) -> Rebuilt:
    """Build a new database at `target` with all readable rows of the broken one, which is only read, without SQLite.

    `known` is the database of the newest backup: it helps if the schema or the header is broken, and to tell pages
    apart. `include_free` adds the rows of freed pages, which were deleted. Raises `sqlite3.DatabaseError` if the new
    database cannot be written.
    """
    found = _rebuild(broken, target, known, include_free, emit)
    if not found.newer or (found.is_whole and found.known_rows and not found.hidden):
        return found
    # A WAL or a journal that belongs to another database hides all of this one.
    again = target.with_name(f"{target.name}-without-newer")
    without = _rebuild(broken, again, known, include_free, emit, with_newer=False)
    if found.known_rows >= without.known_rows / 2 or (found.hidden and _share_tables(found, without)):
        again.unlink()
        return found
    os.replace(again, target)
    said = "The WAL or the journal beside it is another database's, or broken: it is left out."
    return replace(without, notes=(*without.notes, said))


def _share_tables(found: Rebuilt, without: Rebuilt) -> bool:
    """Return whether both share most of their tables: then there are fewer rows because some were deleted."""
    names, others = {one.name for one in found.tables}, {one.name for one in without.tables}
    return len(names & others) * 2 > len(names | others)


def _rebuild(
    broken: Path, target: Path, known: Path | None, include_free: bool, emit: EventListener, with_newer: bool = True
) -> Rebuilt:
    with contextlib.ExitStack() as stack:
        past = stack.enter_context(_opened_known(known)) if known else None
        file = stack.enter_context(PageFile(broken, _hints(past, known), with_newer))
        new = stack.enter_context(contextlib.closing(engine.connect(target)))
        size = sum(one.stat().st_size for one in broken.parent.glob(f"{glob.escape(broken.name)}*"))
        return _Rebuild(size, file, new, past, include_free, emit).run()


@contextlib.contextmanager
def _opened_known(known: Path) -> Iterator[sqlite3.Connection | None]:
    """Open the newest backup's database while the block runs; yield None if it cannot be read, as it is optional."""
    connection = engine.connect(known, "mode=ro&immutable=1")
    with contextlib.closing(connection):
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError:
            yield None
        else:
            yield connection


def _hints(past: sqlite3.Connection | None, known: Path | None) -> Hints:
    if past is None or known is None:
        return Hints()
    size, encoding = (past.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "encoding"))
    with known.open("rb") as file:
        reserved = file.read(21)[20]
    return Hints(size, encoding, reserved)


@dataclass
class _Table:
    """A table of the new database, and how its rows are stored in the old one."""

    entry: Entry
    mark: int
    columns: tuple[_Column, ...]
    rowid: str
    """The name of the row number, or empty if there is none that can be written."""
    has_rowid: bool
    found: TableRows

    @property
    def is_known(self) -> bool:
        """Whether the newest backup has a table of that name."""
        return self.entry.from_backup or bool(self.entry.other_sql)

    def fits(self, row: StoredRow) -> bool:
        """Return whether the row may belong to this table."""
        if len(row.values) > len(self.columns) or (row.number is None) is self.has_rowid:
            return False
        return all(one.may_hold(value) for one, value in zip(self.columns, row.values, strict=False))

    def likeness(self, rows: Sequence[StoredRow]) -> float:
        """Return the share of values that are typical of their columns, for rows that all fit."""
        pairs = [(one, value) for row in rows for one, value in zip(self.columns, row.values, strict=False)]
        return sum(one.usually_holds(value) for one, value in pairs) / max(1, len(pairs))

    def statement(self, odd: tuple[str, ...]) -> str:
        """Return the INSERT of a row with as many stored columns as `odd` has entries; see `_odd_texts`."""
        pairs = [(one, how) for one, how in zip(self.columns, odd, strict=False) if one.is_written]
        names, marks = [quoted(one.name) for one, _ in pairs], [how or "?" for _, how in pairs]
        if self.rowid:
            names, marks = [self.rowid, *names], ["?", *marks]
        if not names:
            return f"INSERT INTO {quoted(self.entry.name)} DEFAULT VALUES"
        return f"INSERT INTO {quoted(self.entry.name)} ({', '.join(names)}) VALUES ({', '.join(marks)})"

    def values(self, row: StoredRow, odd: tuple[str, ...]) -> tuple[Value, ...]:
        """Return the values to bind to `statement`."""
        pairs = zip(self.columns, row.values, odd, strict=False)
        found = tuple(value for one, value, how in pairs if one.is_written and (not how or "?" in how))
        return (row.number, *found) if self.rowid else found


class _Column(Struct, frozen=True):
    """A stored column. `is_number`: it is the row number. `is_written`: neither that nor computed by SQLite."""

    name: str
    affinity: Literal["TEXT", "NUMERIC", "INTEGER", "REAL", "BLOB"]
    is_required: bool
    is_number: bool
    is_written: bool

    def may_hold(self, value: Value) -> bool:
        if self.is_number:
            return value is None
        if value is None:
            return not self.is_required
        return not (self.affinity == "TEXT" and isinstance(value, int | float))

    def usually_holds(self, value: Value) -> bool:
        if value is None or self.affinity == "BLOB":
            return True
        is_text = isinstance(value, str | UndecodedText)
        return is_text if self.affinity == "TEXT" else isinstance(value, int | float)


@dataclass
class _Index:
    """An index, and how its entries are stored; `is_open`: not all of its pages were found."""

    entry: Entry
    columns: tuple[_Column, ...]
    has_number: bool
    is_open: bool = True

    def fits(self, row: StoredRow) -> bool:
        """Return whether the row may be an entry of this index."""
        if row.number is not None or len(row.values) != len(self.columns):
            return False
        if self.has_number and not isinstance(row.values[-1], int):
            return False
        return all(one.may_hold(value) for one, value in zip(self.columns, row.values, strict=True))

    def fits_all(self, rows: Sequence[StoredRow]) -> bool:
        return all(map(self.fits, rows))


class _Rebuild:
    """One database that is being built."""

    def __init__(
        self,
        size: int,
        file: PageFile,
        new: sqlite3.Connection,
        past: sqlite3.Connection | None,
        include_free: bool,
        emit: EventListener,
    ) -> None:
        self._file, self._new, self._past, self._emit = file, new, past, emit
        harden(new)
        self._guard, self._meter = Guard(new, trusts_pragmas=True), Meter(new)
        self._allowance = Allowance(size, longest=size)
        self._include_free = include_free
        self._reader = RowReader(file)
        self._free, self._is_free_known = file.free_pages()
        self._notes: dict[str, None] = {}
        self._tables: list[_Table] = []
        self._indexes: list[_Index] = []
        self._lost_sequences: set[str] = set()
        self._dropped: list[Entry] = []
        self._no_place = 0
        self._has_lost_definitions = False
        self._done = 0

    def run(self) -> Rebuilt:
        self._emit(Step("Reading the pages", self._file.count, "pages"))
        known = known_schema(self._past) if self._past else []
        schema = read_schema(self._reader, known, _revisions(self._past))
        self._begin()
        for entry in sorted(schema.entries, key=lambda one: (one.from_backup, one.is_guess)):
            if entry.is_table and not entry.name.startswith("sqlite_"):
                self._make_table(entry)
        self._indexes = self._shapes(schema)
        self._lost_sequences = self._names_of_sequences(schema)
        for table in sorted(self._tables, key=lambda one: not one.has_rowid):  # their rows show what is an index entry
            if not table.entry.is_guess:
                self._take_tree(table)
        sequences = self._claim_sqlite_tables(schema)
        self._claim_indexes()
        is_all = schema.is_whole and self._is_all_reached()
        if not is_all:
            for table in self._tables:
                if table.entry.is_guess:
                    self._take_tree(table)
        if not is_all or self._include_free:
            self._take_pages_outside_trees()
        if not self._tables and not self._past:
            self._keep_lost_rows()
        self._drop_guesses()
        if not is_all:
            self._drop_other_database()
        self._set_sequences(sequences)
        self._finish(schema)
        from_backup = tuple(sorted(one.entry.name for one in self._tables if one.entry.from_backup))
        return Rebuilt(
            tables=tuple(sorted((table.found for table in self._tables), key=lambda one: one.name)),
            known_rows=sum(one.found.rows for one in self._tables if one.is_known or not self._past),
            is_whole_schema=schema.is_whole and not from_backup,
            from_backup=from_backup,
            no_place=self._no_place,
            has_lost_definitions=self._has_lost_definitions,
            newer=self._file.newer,
            lost_frames=self._file.lost_frames,
            hidden=self._file.count - self._file.end,
            notes=tuple(self._notes),
        )

    # The new file

    def _begin(self) -> None:
        header = self._file.header
        vacuum: object = ("FULL", "INCREMENTAL")[header.is_incremental] if header.has_pointer_map else "NONE"
        if self._past:
            (vacuum,) = self._past.execute("PRAGMA auto_vacuum").fetchone()
        for pragma in (
            f"page_size={self._file.size}",
            f"encoding='{self._file.encoding.upper().replace('-LE', 'le').replace('-BE', 'be')}'",
            f"auto_vacuum={vacuum}",
            "synchronous=OFF",  # the draft is synced as a whole
            "journal_mode=MEMORY",
            "ignore_check_constraints=ON",
            "foreign_keys=OFF",
        ):
            self._execute(f"PRAGMA {pragma}").fetchone()

    def _make_table(self, entry: Entry) -> None:
        reason = ""
        for chosen in (entry, replace(entry, sql=entry.other_sql, from_backup=True)):
            if chosen.sql:
                why_not = self._why_not_made(chosen)
                if not why_not:
                    return self._add_table(chosen)
                reason = reason or why_not
        self._leave_out("table", entry, f"its definition cannot be read{reason and f': {reason}'}")

    def _why_not_made(self, entry: Entry) -> str:
        """Create the table; roll back and return the reason if the statement does not create just that table."""
        reason = "it makes no table of that name"
        self._execute("BEGIN")
        try:
            self._define(entry)
            if self._execute(_MADE, (entry.name,)).fetchone():
                self._execute("COMMIT")
                return ""
        except sqlite3.Error as error:
            _require_room(error)
            reason = str(error)
        if self._new.in_transaction:
            self._execute("ROLLBACK")
        return reason

    def _define(self, entry: Entry) -> None:
        """Run an untrusted definition, with stand-ins for functions and collations that only the app has."""
        for attempt in range(_MOST_STAND_INS + 1):
            try:
                with self._guard.defining(entry.kind, entry.name, entry.sql):
                    self._execute(entry.sql)
                return
            except sqlite3.OperationalError as error:
                found = _MISSING_IN_SQLITE.search(str(error))
                if not found or attempt == _MOST_STAND_INS:
                    raise
                self._stand_in(*[one for one in found.groups() if one])

    def _execute(self, sql: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        return self._run(self._new.execute, sql, parameters)

    def _run(self, call: Callable[..., sqlite3.Cursor], *arguments: object) -> sqlite3.Cursor:
        """Run one statement, limited to the work that a file of this size needs."""
        self._meter.allow(self._allowance)
        self._guard.denied = ""
        try:
            return call(*arguments)
        except sqlite3.Error as error:
            raise_if_interrupted(error, self._guard, self._meter)
            if self._meter.is_exceeded:
                raise sqlite3.DatabaseError("it asks for far more work than a file of this size") from error
            raise

    def _stand_in(self, what: str, name: str) -> None:
        """Register a bytewise collation, or a function that returns NULL."""
        if what == "function":
            self._new.create_function(name, -1, lambda *_: None, deterministic=True)
            self._guard.allow_function(name)
            self._execute("PRAGMA trusted_schema=ON")  # else an index could not use it
        else:
            self._new.create_collation(name, lambda one, two: (one > two) - (one < two))
        self._note(f"The {what.split()[0]} {printable_text(name)} is the app's own: in the app, REINDEX what uses it.")

    def _add_table(self, entry: Entry) -> None:
        found = TableRows(entry.name)
        columns, has_rowid = _stored_columns(self._new, entry.name)
        taken = _names_of_columns(self._new, entry.name)
        rowid = next((name for name in _ROWID_NAMES if name not in taken), "") if has_rowid else ""
        number = next((quoted(one.name) for one in columns if one.is_number), rowid)
        mark = _FIRST_MARK + len(self._tables)
        self._tables.append(_Table(entry, mark, columns, number, has_rowid, found))

    # Rows

    def _take_tree(self, table: _Table) -> None:
        root = self._root_of(table)
        if root is None:
            table.found.lost.pages += not table.entry.is_guess
            return
        pages = self._reader.pages_of(root, table.mark, table.found.lost, not table.has_rowid)
        self._insert(table, self._rows_in(table, pages))

    def _claim_sqlite_tables(self, schema: Schema) -> list[int]:
        """Mark the pages of SQLite's own tables as taken, and return those of `sqlite_sequence`."""
        found, losses = list[int](), Losses()
        for entry in schema.entries:
            if not entry.is_table or not entry.name.startswith("sqlite_"):
                continue
            for page in list(self._reader.pages_of(entry.root, OWN, losses)):
                if self._may_belong_to_sqlite(entry, page, schema):
                    self._reader.claim(page)
                    found += [page] if entry.name == _SEQUENCE else []
                else:
                    self._reader.owner[page] = 0
        if losses.pages:
            self._note(f"Pages of SQLite's own tables that cannot be read: {losses.pages}.")
        return found + self._misplaced_sequences()

    def _may_belong_to_sqlite(self, entry: Entry, page: int, schema: Schema) -> bool:
        """Return whether the page may belong to that SQLite table: half of its rows begin with a table's name."""
        rows, names = self._reader.peek(page), {one.name for one in schema.entries if one.kind == "table"}
        width = _OWN_WIDTHS.get(entry.name)
        fitting = [row for row in rows if len(row.values) == (width or len(row.values)) and row.values[:1]]
        return sum(row.values[0] in names for row in fitting) * 2 >= len(rows)

    def _names_of_sequences(self, schema: Schema) -> set[str]:
        """Return the tables with AUTOINCREMENT if the sequences are not where the schema says, else none."""
        for entry in schema.entries:
            if entry.name == _SEQUENCE and entry.is_table:
                kind = self._file.kind(entry.root)
                if kind == TABLE_INTERIOR or (
                    kind == TABLE_LEAF and self._may_belong_to_sqlite(entry, entry.root, schema)
                ):
                    return set()
                self._note("The sequences of AUTOINCREMENT are not where the schema says.")
                return {one.name for one in schema.entries if one.is_table and "AUTOINCREMENT" in one.sql.upper()}
        return set()

    def _misplaced_sequences(self) -> list[int]:
        pages = range(2, self._file.count + 1) if self._lost_sequences else ()
        found = [page for page in pages if not self._reader.owner[page] and self._has_lost_sequences(page)]
        for page in found:
            self._reader.owner[page] = OWN
        return found

    def _has_lost_sequences(self, page: int) -> bool:
        if not self._lost_sequences or self._file.kind(page) != TABLE_LEAF:
            return False
        rows = [row.values for row in self._reader.peek(page)]
        return bool(rows) and all(
            len(one) == 2 and one[0] in self._lost_sequences and isinstance(one[1], int) for one in rows
        )

    def _root_of(self, table: _Table) -> int | None:
        """Return the root page of the table's tree, from the file or else the backup; None if neither is usable."""
        for root in dict.fromkeys((table.entry.root, table.entry.other_root)):
            is_there = 0 < root <= self._file.count and not self._reader.owner[root]
            if is_there and self._has_lost_sequences(root):
                continue
            is_dropped = table.entry.from_backup and is_there and self._free[root]
            if is_there and not is_dropped and self._may_belong_to(table, root) and not self._may_be_index(table, root):
                return root
        return None

    def _may_belong_to(self, table: _Table, page: int) -> bool:
        """Return whether the page may belong to the table, judged by its first rows."""
        kind = self._file.kind(page)
        if table.has_rowid and kind == TABLE_INTERIOR:
            return True
        if kind not in ((TABLE_LEAF,) if table.has_rowid else (INDEX_LEAF, INDEX_INTERIOR)):
            return False
        rows = self._reader.peek(page)
        return sum(map(table.fits, rows)) * 2 >= len(rows)

    def _rows_in(self, table: _Table, pages: Iterable[int]) -> Iterator[StoredRow]:
        for page in pages:
            self._done += 1
            if self._done % 256 == 0:
                self._emit(Progress(self._done))
            if not self._may_belong_to(table, page):
                self._reader.owner[page] = 0
                table.found.lost.pages += 1
                continue
            for row in self._reader.rows_of(page, table.found.lost):
                if len(row.values) <= len(table.columns):
                    yield row
                else:
                    table.found.lost.rows += 1

    def _insert(self, table: _Table, rows: Iterator[StoredRow], origin: _Origin = "tree") -> None:
        for batch in _batches(rows):
            for odd, alike in groupby(batch, key=self._odd_texts):
                self._insert_alike(table, odd, list(alike), origin)

    def _odd_texts(self, row: StoredRow) -> tuple[str, ...]:
        """Return for each value its SQL expression if it is an `UndecodedText`; empty if it is bound as it is."""
        is_bound = self._file.encoding == "utf-8"  # SQLite takes the bytes of a bound blob for UTF-8
        return tuple(
            (f"CAST({'?' if is_bound else _literal(one)} AS TEXT)") if type(one) is UndecodedText else ""
            for one in row.values
        )

    def _insert_alike(self, table: _Table, odd: tuple[str, ...], rows: list[StoredRow], origin: _Origin) -> None:
        before, statement = table.found.rows, table.statement(odd)
        self._execute("BEGIN")
        try:
            self._run(self._new.executemany, statement, (table.values(row, odd) for row in rows))
            self._execute("COMMIT")
            table.found.rows += len(rows)
        except (sqlite3.Error, OverflowError) as error:
            if self._new.in_transaction:
                self._execute("ROLLBACK")
            _require_room(error)
            for row in rows:
                self._insert_one(table, odd, row, origin)
        table.found.adrift += (table.found.rows - before) if origin != "tree" else 0

    def _insert_one(self, table: _Table, odd: tuple[str, ...], row: StoredRow, origin: _Origin) -> None:
        try:
            self._execute(table.statement(odd), table.values(row, odd))
            table.found.rows += 1
        except (sqlite3.Error, OverflowError) as error:
            _require_room(error)
            if origin == "free":
                return  # probably an older copy of a row
            if self._is_there(table, row):
                # If a tree has two rows of one number, one of them is damaged.
                table.found.lost.rows += origin == "tree" or not self._is_alike_there(table, row)
            else:
                table.found.not_taken += 1
                table.found.reason = table.found.reason or printable_text(str(error))

    def _is_there(self, table: _Table, row: StoredRow) -> bool:
        """Return whether a row of that number was inserted already."""
        if not table.rowid:
            return False
        query = f"SELECT 1 FROM {quoted(table.entry.name)} WHERE {table.rowid} = ?"
        return self._execute(query, (row.number,)).fetchone() is not None

    def _is_alike_there(self, table: _Table, row: StoredRow) -> bool:
        """Return whether this exact row was inserted already."""
        written = [(one.name, value) for one, value in zip(table.columns, row.values, strict=False) if one.is_written]
        if any(type(value) is UndecodedText for _, value in written):
            return False
        told = "".join(f" AND {quoted(name)} IS ?" for name, _ in written)
        query = f"SELECT 1 FROM {quoted(table.entry.name)} WHERE {table.rowid} = ?{told}"
        return self._execute(query, (row.number, *(value for _, value in written))).fetchone() is not None

    # Pages outside any tree

    def _take_pages_outside_trees(self) -> None:
        candidates = self._tables
        if not self._is_free_known and not self._include_free:
            candidates = [one for one in candidates if one.found.lost.pages or one.entry.is_guess]
        if not candidates:
            return
        for kinds in ((TABLE_LEAF,), (INDEX_LEAF, INDEX_INTERIOR)):
            for page in self._pages_outside_trees(*kinds):
                self._take_page(page, candidates, bool(self._free[page]))
        if not self._is_free_known and any(one.found.adrift for one in candidates):
            self._note(_MAY_BE_DELETED)

    def _pages_outside_trees(self, *kinds: int) -> Iterator[int]:
        """Yield the pages of these kinds that nothing owns; free ones only if deleted rows are wanted."""
        for page in range(2, self._file.count + 1):
            is_taken = self._reader.owner[page] or self._file.is_special(page)
            if self._file.kind(page) in kinds and not is_taken and (self._include_free or not self._free[page]):
                yield page

    def _keep_lost_rows(self) -> None:
        """Put the rows of all tables into one, as `sqlite3 .recover` does: no definition of a table is left."""
        pages = list(self._pages_outside_trees(TABLE_LEAF))
        widths = [len(row.values) for page in pages for row in self._reader.peek(page, self._file.size)]
        if not widths:
            return
        names = ("pgno", "nfield", "id", *(f"c{number}" for number in range(min(max(widths), _MOST_COLUMNS))))
        sql = f"CREATE TABLE {LOST_AND_FOUND} ({', '.join(names)})"
        self._make_table(Entry("table", LOST_AND_FOUND, LOST_AND_FOUND, 0, sql))
        self._has_lost_definitions = True
        self._insert(self._tables[0], self._lost_rows(pages, len(names)), "adrift")
        if not self._is_free_known:
            self._note(_MAY_BE_DELETED)

    def _lost_rows(self, pages: Iterable[int], width: int) -> Iterator[StoredRow]:
        """Yield each row as one of `lost_and_found`: its page, how many values it has, its number, and the values."""
        lost, numbers = self._tables[0].found.lost, count(1)
        for page in pages:
            for row in self._reader.rows_of(page, lost):
                values = (page, len(row.values), row.number, *row.values)
                yield StoredRow(next(numbers), values[:width])

    def _is_all_reached(self) -> bool:
        """Return whether a tree or the free list leads to each page: then no row can be anywhere else."""
        if not self._is_free_known or self._file.lost_frames:
            return False
        tables = [one for one in self._tables if not one.entry.is_guess]
        if any(one.found.lost.pages for one in tables) or any(one.is_open for one in self._indexes):
            return False
        if any(not self._is_used(page) for page in range(2, self._file.recorded_pages + 1)):
            return False
        behind = sum(
            self._file.kind(page) > 0 and not self._is_used(page)
            for page in range(self._file.recorded_pages + 1, self._file.count + 1)
        )
        if behind and self._past and not any(one.is_known for one in tables):
            return False  # page 1 may be another database's
        if behind:
            self._note(f"{behind} pages lie behind the end that the first page tells: they are left out.")
        return True

    def _is_used(self, page: int) -> bool:
        return bool(self._reader.owner[page] or self._free[page]) or self._file.is_special(page)

    # Indexes: their entries look like the rows of a WITHOUT ROWID table

    def _shapes(self, schema: Schema) -> list[_Index]:
        """Return the shapes of all indexes, automatic ones too; called before there are rows that they would sort."""
        entries = {one.name: one for one in schema.entries if one.kind == "index"}
        found = []
        for table in self._tables:
            names = "SELECT name, origin FROM pragma_index_list(?)"
            for name, origin in self._execute(names, (table.entry.name,)).fetchall():
                if name in entries and (table.has_rowid or origin != "pk"):
                    found.append(self._shape(entries.pop(name)))
        return found + [self._shape_by_trial(one) for one in entries.values()]

    def _shape_by_trial(self, entry: Entry) -> _Index:
        """Return the shape of an index by creating it and rolling back; without columns if that fails."""
        self._execute("BEGIN")
        try:
            self._define(entry)
            return self._shape(entry)
        except sqlite3.Error as error:
            _require_room(error)
            return _Index(entry, (), has_number=False)
        finally:
            if self._new.in_transaction:
                self._execute("ROLLBACK")

    def _shape(self, entry: Entry) -> _Index:
        declared = self._execute("SELECT cid, type FROM pragma_table_info(?)", (entry.table,)).fetchall()
        types = {cid: _affinity(str(one)) for cid, one in declared} | {-1: "INTEGER"}
        stored = self._execute("SELECT cid FROM pragma_index_xinfo(?) ORDER BY seqno", (entry.name,)).fetchall()
        columns = tuple(_Column("", types.get(cid, "BLOB"), False, False, False) for (cid,) in stored)
        return _Index(entry, columns, (-1,) in stored)

    def _claim_indexes(self) -> None:
        """Mark the pages of indexes as taken, so that no table gets them."""
        lost = 0
        for index in self._indexes:
            root = index.entry.root
            if index.entry.from_backup and not (0 < root <= self._file.count and self._may_hold_entries(index, root)):
                continue
            losses = Losses()
            for page in self._reader.pages_of(root, INDEXES, losses, in_index=True):
                self._reader.claim(page)
            index.is_open = index.entry.from_backup or losses.pages > 0
            lost += 0 if index.entry.from_backup else losses.pages
        if lost:
            self._note(f"Pages of indexes that cannot be read: {lost}. The indexes are rebuilt from the rows.")

    def _may_hold_entries(self, index: _Index, page: int) -> bool:
        """Return whether the page may hold entries of the index."""
        if self._file.kind(page) not in (INDEX_LEAF, INDEX_INTERIOR):
            return False
        rows = self._reader.peek(page)
        return bool(rows) and index.fits_all(rows)

    def _may_be_index(self, table: _Table, page: int) -> bool:
        """Return whether the page may as well hold index entries as rows of a table that only the backup has."""
        if table.has_rowid or not table.entry.from_backup:
            return False
        return self._may_be_entries(table, self._reader.peek(page))

    def _may_be_entries(self, table: _Table, rows: list[StoredRow]) -> bool:
        """Return whether rows that fit the table may as well be entries of an index with lost pages."""
        fits = any(one.is_open and one.fits_all(rows) for one in self._indexes)
        return (fits or self._are_entries(rows)) and not self._known_rows(table, rows)

    def _are_entries(self, rows: list[StoredRow]) -> bool:
        """Return whether a table has rows of those numbers and values: these are entries of a lost index."""
        numbers = [row for row in rows[:_LOOKED_AT] if row.values and isinstance(row.values[-1], int)]
        return len(numbers) == len(rows[:_LOOKED_AT]) and any(
            all(self._is_entry(one, row) for row in numbers) for one in self._tables if one.rowid
        )

    def _is_entry(self, table: _Table, row: StoredRow) -> bool:
        query = f"SELECT * FROM {quoted(table.entry.name)} WHERE {table.rowid} = ?"
        found = self._execute(query, row.values[-1:]).fetchone()
        return found is not None and set(row.values[:-1]) <= set(found)

    def _take_page(self, page: int, candidates: list[_Table], is_free: bool) -> None:
        rows = self._reader.peek(page)
        if not rows:
            return
        fitting = [one for one in candidates if all(map(one.fits, rows))]
        table = self._parent_table(page, fitting) or self._best_fit(fitting, rows)
        if table and not table.has_rowid and self._may_be_entries(table, rows):
            table = None
        if table:
            self._reader.owner[page] = table.mark
            lost = Losses() if is_free else table.found.lost
            found = self._reader.rows_of(page, lost)
            self._insert(table, (row for row in found if table.fits(row)), "free" if is_free else "adrift")
        elif not is_free and (fitting or self._file.kind(page) == TABLE_LEAF):
            self._no_place += sum(1 for _ in self._reader.rows_of(page, Losses()))

    def _parent_table(self, page: int, fitting: list[_Table]) -> _Table | None:
        for above in self._file.parents(page):
            owner = self._reader.owner[above] if 0 < above <= self._file.count else 0
            for table in fitting:
                if table.mark == owner or above in (table.entry.root, table.entry.other_root):
                    return table
        return None

    def _best_fit(self, fitting: list[_Table], rows: list[StoredRow]) -> _Table | None:
        """Return the table that the rows fit best, or None if none fits or two are equally likely."""

        def rank(table: _Table) -> tuple[int, bool, bool, float]:
            is_full = len(rows[0].values) == len(table.columns)
            return self._known_rows(table, rows), table.found.lost.pages > 0, is_full, table.likeness(rows)

        ranked = sorted(((rank(one), number) for number, one in enumerate(fitting)), reverse=True)
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        return fitting[ranked[0][1]]

    def _known_rows(self, table: _Table, rows: list[StoredRow]) -> int:
        """Return how many of the first rows the newest backup has in that table, with most values the same."""
        if self._past is None:
            return 0
        if not table.has_rowid:
            return _known_keyed_rows(self._past, table, rows)
        names = ", ".join(quoted(one.name) for one in table.columns)
        query = f"SELECT {names} FROM {quoted(table.entry.name)} WHERE {table.rowid or 'rowid'} = ?"
        found = 0
        for row in rows[:_LOOKED_AT]:
            try:
                theirs = self._past.execute(query, (row.number,)).fetchone()
            except sqlite3.Error:
                return 0
            found += theirs is not None and _are_alike(table, row, theirs)
        return found

    def _drop_guesses(self) -> None:
        """Remove the tables that only the backup has and that got no row: they were dropped."""
        self._drop(one for one in self._tables if one.entry.is_guess and not one.found.rows)

    def _drop_other_database(self) -> None:
        """Remove the tables of another program's database that was written over the beginning of this one."""
        guessed = [one for one in self._tables if one.entry.is_guess]
        others = [one for one in self._tables if not one.entry.from_backup]
        if guessed and not any(one.is_known for one in others):
            names = ", ".join(printable_text(one.entry.name) for one in others)
            self._note(
                f"Another database was written over the beginning of this one; its tables are left out: {names}."
            )
            self._drop(others)

    def _drop(self, tables: Iterable[_Table]) -> None:
        for table in list(tables):
            self._dropped.append(table.entry)
            self._execute(f"DROP TABLE {quoted(table.entry.name)}")
            self._tables.remove(table)

    # Objects that are added after the rows

    def _finish(self, schema: Schema) -> None:
        for entry in sorted(filter(self._is_later, schema.entries), key=lambda one: _LATE_ORDER.get(one.kind, -1)):
            if entry.is_virtual:
                self._add_virtual(entry)
            else:
                self._finish_one(entry)
        if any(one.name.startswith(_STATISTICS) for one in schema.entries):
            with contextlib.suppress(sqlite3.Error):
                self._execute("ANALYZE")
        header = self._file.header
        for name in ("user_version", "application_id"):
            known = self._past.execute(f"PRAGMA {name}").fetchone()[0] if self._past else 0
            self._execute(f"PRAGMA {name}={getattr(header, name) if header.is_sound else known}")

    def _is_later(self, entry: Entry) -> bool:
        """Return whether it is added after the rows: it is not a stored table, and its own table was not dropped."""
        made = {table.entry.name: table for table in self._tables}
        if entry.is_table or entry.name.startswith("sqlite_"):
            return False
        if entry.kind in ("index", "trigger") and entry.table in {one.name for one in self._dropped}:
            return False
        table = made.get(entry.table)
        return not entry.is_guess or bool(table and table.entry.is_guess)

    def _set_sequences(self, pages: list[int]) -> None:
        """Restore the AUTOINCREMENT counters: inserting rows has set them to the highest number in the table."""
        for page in pages:
            for row in self._reader.rows_of(page, Losses()):
                match row.values:
                    case (str(name), int(last)):
                        with contextlib.suppress(sqlite3.Error):
                            self._set_sequence(name, last)

    def _set_sequence(self, name: str, last: int) -> None:
        there = self._execute(f"UPDATE {_SEQUENCE} SET seq = max(seq, ?) WHERE name = ?", (last, name)).rowcount
        if not there and any(table.entry.name == name for table in self._tables):
            self._execute(f"INSERT INTO {_SEQUENCE} VALUES (?, ?)", (name, last))

    def _finish_one(self, entry: Entry) -> None:
        reason = ""
        for sql in filter(None, (entry.sql, entry.other_sql)):
            try:
                return self._define(replace(entry, sql=sql))
            except sqlite3.Error as error:
                _require_room(error)
                reason = reason or str(error)
        self._leave_out(entry.kind, entry, reason)

    def _add_virtual(self, entry: Entry) -> None:
        """Add only the row of the schema: the content came with the table's shadow tables."""
        try:
            self._require_virtual(entry)
        except sqlite3.Error as error:
            return self._leave_out(entry.what, entry, str(error))
        self._execute("PRAGMA writable_schema=ON")
        self._execute("BEGIN")
        try:
            line = (entry.name, entry.table, entry.sql)
            self._execute("INSERT INTO sqlite_master VALUES ('table', ?, ?, 0, ?)", line)
            self._execute("PRAGMA writable_schema=RESET")
            self._execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._execute("COMMIT")
        except sqlite3.Error as error:
            _require_room(error)
            self._execute("PRAGMA writable_schema=ON")
            self._execute("ROLLBACK")
            self._execute("PRAGMA writable_schema=RESET")
            self._leave_out(entry.what, entry, str(error))
        else:
            if _SEARCH_TABLE.search(entry.sql):
                self._check_search(entry.name)

    def _require_virtual(self, entry: Entry) -> None:
        """Raise `sqlite3.DatabaseError` unless the text only creates this virtual table, of a module in `MODULES`."""
        with self._guard.defining("virtual table", entry.name, entry.sql):
            table, module = self._guard.table_and_module_of(self._new, entry.sql)
        if not table == entry.name == entry.table or not is_one_statement(entry.sql):
            raise sqlite3.DatabaseError("its definition cannot be read")
        if module.lower() not in MODULES:
            raise sqlite3.DatabaseError(f"it is of the module {module}")

    def _check_search(self, name: str) -> None:
        """Rebuild a search index that no longer matches its text."""
        command = f"INSERT INTO {quoted(name)}({quoted(name)}) VALUES (?)"
        try:
            self._execute(command, ("integrity-check",))
        except sqlite3.DatabaseError as error:
            if not engine.is_damage(error):
                return  # a tokenizer that only the app has
            try:
                self._execute(command, ("rebuild",))
            except sqlite3.DatabaseError as again:
                _require_room(again)
                self._note(f"The search index {printable_text(name)} does not match its text, and cannot be rebuilt.")

    def _leave_out(self, what: str, entry: Entry, reason: str) -> None:
        self._note(f"The {what} {printable_text(entry.name)} is left out: {printable_text(reason)}.")

    def _note(self, text: str) -> None:
        self._notes[text] = None


def _batches(rows: Iterator[StoredRow]) -> Iterator[list[StoredRow]]:
    """Yield the rows in batches that fit in memory; the last may be empty."""
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        size += row.size
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _revisions(past: sqlite3.Connection | None) -> list[str]:
    try:
        found = past.execute("SELECT version_num FROM alembic_version").fetchall() if past else []
    except sqlite3.DatabaseError:
        return []
    return [str(row[0]) for row in found]


def _known_keyed_rows(past: sqlite3.Connection, table: _Table, rows: list[StoredRow]) -> int:
    """Return how many of the rows the newest backup has with the same values, since they have no number."""
    found = 0
    for row in rows:
        pairs = zip(table.columns, row.values, strict=False)
        told = [(one.name, value) for one, value in pairs if type(value) is not UndecodedText]
        where = " AND ".join(f"{quoted(name)} IS ?" for name, _ in told) or "0"
        query = f"SELECT 1 FROM {quoted(table.entry.name)} WHERE {where} LIMIT 1"
        try:
            found += past.execute(query, [value for _, value in told]).fetchone() is not None
        except sqlite3.Error:
            return 0
    return found


def _literal(text: bytes) -> str:
    return f"x'{text.hex()}'"


def _are_alike(table: _Table, row: StoredRow, theirs: Sequence[Value]) -> bool:
    pairs = zip(table.columns, row.values, theirs, strict=False)
    told = [(mine, other) for column, mine, other in pairs if not column.is_number and mine is not None]
    return bool(told) and sum(mine == other for mine, other in told) * 2 > len(told)


def _require_room(error: Exception) -> None:
    """Raise the error again if it is not the row's fault: the disk is full or cannot be written."""
    if any(word in str(error) for word in ("is full", "disk I/O error", "readonly", "unable to open")):
        raise error


def _stored_columns(connection: sqlite3.Connection, table: str) -> tuple[tuple[_Column, ...], bool]:
    """Return the columns in the order in which they are stored, and whether rows have a number."""
    found = connection.execute('SELECT cid, name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?)', (table,))
    columns = {row[0]: row for row in found}
    (without,) = connection.execute(
        "SELECT wr FROM pragma_table_list WHERE schema='main' AND name=?", (table,)
    ).fetchone()
    keys = connection.execute("SELECT name FROM pragma_index_list(?) WHERE origin = 'pk'", (table,)).fetchone()
    order = list(columns)
    if without:
        order = [row[0] for row in connection.execute("SELECT cid FROM pragma_index_xinfo(?)", keys)]
    key = [row[0] for row in columns.values() if row[4]]
    number = key[0] if not without and len(key) == 1 and keys is None else None
    stored = [columns[place] for place in order if columns[place][5] in (0, 3)]
    return tuple(_column(row, row[0] == number) for row in stored), not without


def _column(row: Sequence[object], is_number: bool) -> _Column:
    _, name, declared, is_required, _, hidden = row
    affinity = _affinity(str(declared))
    return _Column(str(name), affinity, bool(is_required), is_number, not is_number and hidden == 0)


def _affinity(declared: str) -> Literal["TEXT", "NUMERIC", "INTEGER", "REAL", "BLOB"]:
    """Return the affinity of a declared type, by the rules of sqlite.org/datatype3.html."""
    declared = declared.upper()
    if "INT" in declared:
        return "INTEGER"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in declared or not declared or declared == "ANY":
        return "BLOB"
    return "REAL" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def _names_of_columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """Return the names of all columns, computed ones too, in lower case."""
    return {row[0].lower() for row in connection.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))}
