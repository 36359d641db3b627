"""The schema of a broken SQLite file, and what of the newest backup's stands in for what is broken of it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from backupkit.sqlite.page_file import TABLE_LEAF
from backupkit.sqlite.page_rows import Losses, RowReader, StoredRow

SCHEMA_MARK = 1
_KINDS = ("table", "index", "view", "trigger")
_BEGINS = {  # as SQLite stores each, whatever was typed
    "table": re.compile(r"CREATE (VIRTUAL )?TABLE "),
    "index": re.compile(r"CREATE (UNIQUE )?INDEX "),
    "view": re.compile(r"CREATE VIEW "),
    "trigger": re.compile(r"CREATE TRIGGER "),
}


@dataclass(frozen=True)
class Entry:
    """A line of `sqlite_schema`. `other_root` is where the newest backup has the table's tree, `from_backup` its text.

    `is_guess`: only the backup has it, so it may have been dropped since.
    """

    kind: str
    name: str
    table: str
    root: int
    sql: str
    other_root: int = 0
    other_sql: str = ""
    from_backup: bool = False
    is_guess: bool = False

    @property
    def is_table(self) -> bool:
        """Whether it has rows of its own."""
        return self.kind == "table" and self.root > 0

    @property
    def is_virtual(self) -> bool:
        """Whether its content is in other tables."""
        return self.kind == "table" and self.root == 0


@dataclass(frozen=True)
class Schema:
    """The schema in use, and whether all of it could be read from the file itself."""

    entries: tuple[Entry, ...]
    is_whole: bool


def read_schema(reader: RowReader, known: Sequence[Entry], known_revisions: Iterable[str]) -> Schema:
    """The file's own schema; what is broken of it as the newest backup knows it."""
    losses = Losses()
    own = {(one.kind, one.name): one for one in _own(reader, losses)}
    is_whole = not losses.pages and not losses.rows and any(one.is_table for one in own.values())
    if not is_whole:
        for one in _adrift(reader):
            own.setdefault((one.kind, one.name), one)
    theirs = {(one.kind, one.name): one for one in known}
    is_same = _revisions(reader, own.values()) == set(known_revisions) != set()
    entries = [_mended(one, theirs.get(key), is_same) for key, one in own.items()]
    missing = [one for key, one in theirs.items() if key not in own]
    entries += [replace(one, other_root=one.root, from_backup=True, is_guess=is_whole) for one in missing]
    return Schema(tuple(entries), is_whole)


def known_schema(connection: sqlite3.Connection) -> list[Entry]:
    """The schema of a sound database."""
    rows = connection.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master")
    return list(_entries((StoredRow(None, tuple(row)) for row in rows), Losses()))


def _own(reader: RowReader, losses: Losses) -> Iterator[Entry]:
    for page in reader.pages_of(1, SCHEMA_MARK, losses):
        yield from _entries(reader.rows_of(page, losses), losses)


def _adrift(reader: RowReader) -> Iterator[Entry]:
    """What pages of the schema say whose tree is broken; only of what nobody else has.

    Rows of the app may look like it: most rows of such a page are definitions, and what is none is not taken.
    """
    for page in range(2, reader.file.count + 1):
        if reader.owner[page] or reader.file.kind(page) != TABLE_LEAF:
            continue
        rows = reader.peek(page)
        if sum(map(_is_definition, rows)) * 2 > len(rows):
            reader.owner[page] = SCHEMA_MARK
            yield from _entries(filter(_is_definition, reader.rows_of(page, Losses())), Losses())


def _is_definition(row: StoredRow) -> bool:
    """Whether the row is a statement that makes what the row names."""
    match row.values:
        case ("index", str(name), str(), int(), None):
            return name.startswith("sqlite_autoindex_")
        case (str(kind), str(name), str(), int(), str(sql)) if kind in _KINDS:
            begin = _BEGINS[kind].match(sql)
            return begin is not None and any(one in sql[begin.end() :] for one in (name, name.replace('"', '""')))
    return False


def _entries(rows: Iterable[StoredRow], losses: Losses) -> Iterator[Entry]:
    for row in rows:
        match row.values:
            case ("index", str(name), str(table), int(root), None):  # SQLite makes it by itself, of a constraint
                yield Entry("index", name, table, root, "")
            case (str(kind), str(name), str(table), int(root), str(sql)) if kind in _KINDS and _is_plain(name + sql):
                yield Entry(kind, name, table, max(root, 0), sql)
            case _:
                losses.rows += 1


def _is_plain(text: str) -> bool:
    """Whether SQLite can be asked for it."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _mended(own: Entry, known: Entry | None, is_same: bool) -> Entry:
    """The entry with what the backup knows of it.

    At the same revision a text that differs in one letter was damaged, not migrated.
    """
    if known is None:
        return own
    mended = replace(own, other_root=known.root, other_sql=known.sql)
    if is_same and len(own.sql) == len(known.sql) and sum(map(str.__ne__, own.sql, known.sql)) == 1:
        return replace(mended, sql=known.sql, other_sql=own.sql, from_backup=True)
    return mended


def _revisions(reader: RowReader, entries: Iterable[Entry]) -> set[str]:
    """The revisions in Alembic's usual table, looked at without taking its pages."""
    found: set[str] = set()
    for one in entries:
        if one.name == "alembic_version" and one.is_table and reader.file.kind(one.root) == TABLE_LEAF:
            found.update(str(row.values[0]) for row in reader.peek(one.root) if row.values)
    return found
