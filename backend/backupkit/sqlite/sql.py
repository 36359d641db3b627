"""SQL text of a database: `write_dump` writes it, `load_dump` (in `sql_load`) builds a database from it.

Loading a written dump restores the same content: every row with its storage class and its rowid, the exact schema text,
`user_version`, `application_id`, encoding, page size, sequences, statistics, virtual tables. The `sqlite3` shell can
read the text too, and its `.dump` writes similar text:

    PRAGMA encoding='UTF-8'; …     before the first table, or SQLite ignores them
    BEGIN TRANSACTION;
    tables, each with its rows     many rows to an INSERT, one row to a line
    sqlite_sequence, sqlite_stat1  after the rows, which would change them
    indexes, views, triggers       after the rows, which would set the triggers off
    virtual tables                 as rows of the schema: their content came with their shadow tables
    COMMIT;                        the proof that nothing is missing
"""

from __future__ import annotations

import io
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, BinaryIO

from msgspec import Struct

from backupkit.fs import scratch
from backupkit.model.errors import Damaged, SourceUnreadable
from backupkit.model.events import EventListener, Progress, Step, silence
from backupkit.sqlite.engine import quoted
from backupkit.sqlite.guard import MODULES
from backupkit.sqlite.sql_load import load_dump
from backupkit.sqlite.sql_rows import UsualRows, any_row, kind_of, portable, prepare

__all__ = ["DumpFacts", "load_dump", "refusal", "write_dump"]

_PROGRESS_ROWS = 5000
_STATEMENT_BYTES = 32 * 1024  # of rows in one INSERT: fast to load, and still readable
_MOST_COLUMNS = 2000  # in a result, and in an INSERT of several rows
_FEW_COLUMNS = 100  # a table with more gets no layout
_SAMPLE = 64  # rows that are read to see what a column usually holds
_ROWID_NAMES = ("_rowid_", "rowid", "oid")
_LAST_ORDER = {"index": 0, "view": 1, "trigger": 2}  # a trigger may be on a view
_COMMENT = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_MODULE = re.compile(r"\bUSING\s+[\"'`\[]?(\w+)", re.IGNORECASE)
_NOT_ORDINARY = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('shadow', 'virtual')"
_COLUMN_NAMES = "SELECT name FROM pragma_table_info(?, 'main')"
_COMMENT_OR_QUOTED = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'[^']*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]", re.DOTALL)
_WRITABLE_SCHEMA = (
    "/* WARNING: Script requires that SQLITE_DBCONFIG_DEFENSIVE be disabled */\nPRAGMA writable_schema=ON"
)


class DumpFacts(Struct, frozen=True):
    """The content of a dump in numbers; `bytes` is the size of the text before any compression."""

    tables: int
    rows: int
    bytes: int


class _Entry(Struct, frozen=True):
    """One line of `sqlite_master`."""

    root: int
    kind: str
    name: str
    table: str
    sql: str


class _Rows(Struct, frozen=True):
    """The start of the INSERT, the source and the columns of a table's rows; `alone`: one INSERT for each row."""

    target: bytes
    source: str
    columns: Sequence[str]
    alone: bool


def write_dump(live: sqlite3.Connection, out: BinaryIO, emit: EventListener = silence) -> DumpFacts:
    """Write SQL text of one consistent snapshot of the database, in constant memory (that of its largest row).

    Changes neither the database nor a transaction that the caller has open.
    Raises SourceUnreadable if the database cannot be read, has no tables, or has a row that is too long for SQL text.
    """
    try:
        with _hold_snapshot(live), closing(_Dump(live, out, emit)) as dump:
            return dump.write()
    except sqlite3.Error as error:
        if "user-defined function raised" in str(error):
            raise KeyboardInterrupt from error  # our functions raise nothing else, and sqlite3 hides what they raise
        raise SourceUnreadable(
            f"Cannot read the database {_path_of(live)}: {error}.", hint="Run `doctor` to see what is wrong."
        ) from error


def refusal(live: sqlite3.Connection) -> str:
    """Return why `load_dump` would refuse a dump of this database, in a sentence; empty if it would accept it.

    Loads a trial dump of the schema with one row of each table; for a virtual table, only checks the module.
    """
    text = io.BytesIO()
    with _hold_snapshot(live), closing(_Dump(live, text, limit=" LIMIT 1")) as dump:
        if unknown := dump.unknown_modules():
            return f"A virtual table of the module {', '.join(unknown)} is not allowed in a dump."
        try:
            dump.write()
        except SourceUnreadable:
            return ""  # it has only virtual tables, or nothing; the real dump says which
    text.seek(0)
    with scratch.folder() as folder:
        try:
            load_dump(text, folder / "trial.db")
        except Damaged as error:
            reason = re.sub(r"^.*?(?:, line \d+)?: ", "", error.message)
            return reason[0].upper() + reason[1:]
    return ""


@contextmanager
def _hold_snapshot(live: sqlite3.Connection) -> Iterator[None]:
    """Hold one snapshot while the block runs; afterwards the connection is as it was, except for one pure function."""
    text_factory, began = live.text_factory, not live.in_transaction
    prepare(live)
    try:
        if began:
            live.execute("BEGIN")
        yield
    finally:
        if began and live.in_transaction:
            live.rollback()
        live.text_factory = text_factory


class _Dump:
    """One dump being written."""

    def __init__(self, live: sqlite3.Connection, out: BinaryIO, emit: EventListener = silence, limit: str = "") -> None:
        self._live = live
        self._limit = limit
        self._collations: list[str] = []
        self._cursor = live.cursor()
        self._cursor.row_factory = None
        self._out = out
        self._emit = emit
        self._path = _path_of(live)
        self._bytes = 0
        self._rows = 0
        self._reported = 0
        self._encoding = self._pragma("encoding").decode()

    def write(self) -> DumpFacts:
        schema = self._schema()
        tables = [entry for entry in schema if entry.kind == "table" and entry.root and not _is_internal(entry.name)]
        if self._limit:  # a virtual table opens only with all of its shadow tables
            own = {str(name.decode()) for (name,) in self._all(_NOT_ORDINARY)}
            schema = [entry for entry in schema if entry.name not in own and entry.table not in own]
            tables = [entry for entry in tables if entry.name not in own]
        virtual = [entry for entry in schema if entry.kind == "table" and not entry.root]
        internal = {entry.name for entry in schema if entry.kind == "table" and _is_internal(entry.name)}
        if not tables and not virtual and not any(entry.kind == "view" for entry in schema):
            raise SourceUnreadable(f"The database {self._path} has no tables.", hint="Is this the right file?")
        for entry in tables:
            self._stand_in_for_collations(entry.name)
        if not self._limit:
            counts = [self._all(f"SELECT count(*) FROM main.{quoted(entry.name)}") for entry in tables]
            self._emit(Step("Dumping the database", sum(count for ((count,),) in counts), "rows"))
        self._write_head()
        for entry in tables:
            self._statement(_terminated(entry.sql))
            self._write_rows(entry.name)
        rows = self._rows  # the app's rows: SQLite's own follow
        self._write_sequence(internal, tables)
        self._write_statistics(internal)
        for entry in sorted((e for e in schema if e.kind in _LAST_ORDER), key=lambda e: _LAST_ORDER[e.kind]):
            self._statement(_terminated(entry.sql))
        self._write_virtual(virtual)
        self._statement("COMMIT;")
        return DumpFacts(len(tables) + len(virtual), rows, self._bytes)

    def unknown_modules(self) -> list[str]:
        """Return the modules of virtual tables that this SQLite lacks, or that text from outside must not use."""
        here = {name.decode().lower() for (name,) in self._all("SELECT name FROM pragma_module_list")}
        virtual = [entry.sql for entry in self._schema() if entry.kind == "table" and not entry.root]
        found = [match[1].lower() for sql in virtual if (match := _MODULE.search(_COMMENT.sub(" ", sql)))]
        return sorted({one for one in found if one not in here & MODULES})

    def close(self) -> None:
        """Remove our collations from the connection."""
        for name in self._collations:
            self._live.create_collation(name, None)

    def _stand_in_for_collations(self, table: str) -> None:
        """Register a stand-in for each collation of the app: SQLite requires it, although nothing is sorted here."""
        columns = [f"max({quoted(column.decode())})" for (column,) in self._all(_COLUMN_NAMES, table)]
        parts = [columns[start : start + _SAMPLE] for start in range(0, len(columns), _SAMPLE)]
        for what in ("count(*)", *(", ".join(part) for part in parts)):
            while name := self._missing_collation(f"EXPLAIN SELECT {what} FROM main.{quoted(table)}"):
                self._live.create_collation(name, _by_bytes)
                self._collations.append(name)
                self._cursor.execute("PRAGMA writable_schema=RESET")  # reread the schema, with the collation

    def _missing_collation(self, query: str) -> str:
        try:
            self._cursor.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            name = str(error).removeprefix("no such collation sequence: ")
            if name != str(error) and name not in self._collations:
                return name
        return ""

    def _schema(self) -> list[_Entry]:
        # CAST, because only text belongs there, but a damaged schema may hold anything.
        texts = ", ".join(f"coalesce(CAST({name} AS TEXT), '')" for name in ("type", "name", "tbl_name", "sql"))
        rows = self._all(f"SELECT coalesce(rootpage, 0), {texts} FROM main.sqlite_master WHERE sql NOT NULL")
        try:
            return [_Entry(root, *(text.decode() for text in texts)) for root, *texts in rows]
        except UnicodeDecodeError as error:
            raise SourceUnreadable(
                f"The schema of {self._path} is not UTF-8, which SQL text must be.",
                hint="Make a backup instead: it keeps the database byte for byte.",
            ) from error

    def _write_head(self) -> None:
        """Write the settings that SQLite accepts only before the first table, then those of the file."""
        self._statement(f"PRAGMA page_size={self._pragma('page_size')};")
        if mode := self._pragma("auto_vacuum"):
            self._statement(f"PRAGMA auto_vacuum={mode};")
        self._statement(f"PRAGMA encoding='{self._encoding}';")
        self._statement("PRAGMA foreign_keys=OFF;")
        self._statement("BEGIN TRANSACTION;")
        for name in ("application_id", "user_version"):
            self._statement(f"PRAGMA {name}={self._pragma(name)};")

    def _write_sequence(self, internal: set[str], tables: Sequence[_Entry]) -> None:
        if "sqlite_sequence" not in internal:
            return
        if not any("AUTOINCREMENT" in _COMMENT_OR_QUOTED.sub("", entry.sql).upper() for entry in tables):
            # The last table with AUTOINCREMENT was dropped, and only such a table makes SQLite create sqlite_sequence.
            name = quoted(_free_name({entry.name.lower() for entry in tables}))
            self._statement(f"CREATE TABLE {name}(id INTEGER PRIMARY KEY AUTOINCREMENT);\nDROP TABLE {name};")
        self._statement("DELETE FROM sqlite_sequence;")
        self._write_rows("sqlite_sequence")

    def _write_statistics(self, internal: set[str]) -> None:
        """Write what ANALYZE found. Only stat1: the others hold samples, and not every SQLite is compiled with them."""
        if "sqlite_stat1" in internal:
            self._statement("ANALYZE sqlite_master;")
            self._write_rows("sqlite_stat1")

    def _write_virtual(self, virtual: Sequence[_Entry]) -> None:
        if not virtual:
            return
        self._statement(f"{_WRITABLE_SCHEMA};")
        for entry in virtual:
            name, sql = _literal(entry.name), _literal(entry.sql)
            self._statement(
                f"INSERT INTO sqlite_master(type,name,tbl_name,rootpage,sql)VALUES('table',{name},{name},0,{sql});"
            )
        self._statement("PRAGMA writable_schema=OFF;")

    def _write_rows(self, table: str) -> None:
        """Write every row, in the order of the table, as INSERTs of many rows."""
        rows, before = self._rows_of(table), self._rows
        if usual := self._usual_rows(rows):
            with closing(usual.read(rows.source, self._limit or " LIMIT -1")) as chunks:
                self._write_inserts(rows, chunks)
        if not usual or not usual.is_complete:
            rest = self._limit or f" LIMIT -1 OFFSET {self._rows - before}"
            lines = self._cursor.execute(f"SELECT {any_row(rows.columns)} FROM {rows.source}{rest}")
            self._write_inserts(rows, _single_rows(table, lines))

    def _write_inserts(self, rows: _Rows, chunks: Iterable[tuple[bytes, int]]) -> None:
        """Write the INSERTs of `chunks`: the text of some rows, and their number."""
        texts, size, count = list[bytes](), 0, 0
        for text, more in chunks:
            texts.append(text)
            size, count = size + len(text), count + more
            if rows.alone or size > _STATEMENT_BYTES:
                self._write_insert(rows.target, b",\n".join(texts), count)
                texts, size, count = [], 0, 0
        if texts:
            self._write_insert(rows.target, b",\n".join(texts), count)

    def _write_insert(self, target: bytes, values: bytes, count: int) -> None:
        self._bytes += self._out.write(b"".join((target, values, b";\n")))
        self._rows += count
        if self._rows >= self._reported + _PROGRESS_ROWS:
            self._reported = self._rows
            self._emit(Progress(self._rows))

    def _rows_of(self, table: str) -> _Rows:
        facts = self._all("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?, 'main') ORDER BY cid", table)
        stored = [quoted(name.decode()) for name, _type, _key, hidden in facts if hidden not in (2, 3)]
        rowid = self._rowid(table, facts)
        columns = [rowid, *stored] if rowid else stored
        named = "" if not rowid and len(stored) == len(facts) else f"({','.join(columns)})"
        target = f"INSERT INTO {quoted(table)}{named} VALUES\n".encode()
        # NOT INDEXED, or SQLite would read an index that covers the table instead, in the order of the index.
        return _Rows(target, f"main.{quoted(table)} NOT INDEXED", columns, len(columns) > _MOST_COLUMNS)

    def _usual_rows(self, rows: _Rows) -> UsualRows | None:
        """Return the layout of the table's first rows, or None if it has no rows or cannot have a layout."""
        if self._encoding != "UTF-8" or len(rows.columns) > _FEW_COLUMNS:
            return None
        kinds = ",".join(map(kind_of, rows.columns))
        sample = self._all(f"SELECT {kinds} FROM {rows.source} LIMIT {_SAMPLE}")
        usual = [Counter(kind).most_common() for kind in zip(*sample, strict=True)]
        return UsualRows(self._live, rows.columns, [_first_but_null(kinds) for kinds in usual]) if usual else None

    def _rowid(self, table: str, facts: Sequence[tuple[Any, ...]]) -> str:
        """Return the name for the rowid: empty if it is one of the columns, or there is none."""
        keys = [kind.decode().upper() for _name, kind, key, _hidden in facts if key]
        key_indexes = self._all("SELECT 1 FROM pragma_index_list(?, 'main') WHERE origin = 'pk'", table)
        if keys == ["INTEGER"] and not key_indexes:
            return ""  # with an index, it is INTEGER PRIMARY KEY DESC: not the rowid
        taken = {name.decode().lower() for name, *_ in facts}
        free = next((name for name in _ROWID_NAMES if name not in taken), "")
        return free if free and self._has_rowid(table, free) else ""

    def _has_rowid(self, table: str, name: str) -> bool:
        try:
            self._cursor.execute(f"SELECT {name} FROM main.{quoted(table)} LIMIT 0")
        except sqlite3.OperationalError:
            return False
        return True

    def _pragma(self, name: str) -> Any:
        return self._all(f"PRAGMA main.{name}")[0][0]

    def _all(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        return self._cursor.execute(sql, values).fetchall()

    def _statement(self, sql: str) -> None:
        self._bytes += self._out.write(f"{sql}\n".encode())


def _by_bytes(one: str, two: str) -> int:
    return (one > two) - (one < two)


def _single_rows(table: str, lines: Iterable[tuple[bytes | None]]) -> Iterator[tuple[bytes, int]]:
    for (line,) in lines:
        if line is None:
            raise sqlite3.DataError(f"a row of {table} is too long for SQL text")
        yield portable(line), 1


def _first_but_null(kinds: Sequence[tuple[bytes, int]]) -> str:
    return next((kind.decode() for kind, _count in kinds if kind != b"null"), "text")


def _terminated(sql: str) -> str:
    """Return the statement with its semicolon, which must not end up in a comment at the end of the statement."""
    endings = (";", "\n;", "*/;")
    return next((sql + ending for ending in endings if sqlite3.complete_statement(sql + ending)), f"{sql};")


def _is_internal(name: str) -> bool:
    return name.lower().startswith("sqlite_")


def _free_name(taken: set[str]) -> str:
    name = "backupkit_sequence"
    while name in taken:
        name += "_"
    return name


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _path_of(live: sqlite3.Connection) -> str:
    path = live.execute("PRAGMA database_list").fetchone()[2]
    return path.decode(errors="replace") if isinstance(path, bytes) else str(path)
