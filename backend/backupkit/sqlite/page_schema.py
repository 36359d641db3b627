"""The schema of a broken SQLite file, with parts of the newest backup's schema in place of the broken ones."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from backupkit.sqlite.cells import TABLE_LEAF
from backupkit.sqlite.page_rows import Losses, RowReader, StoredRow

SCHEMA_MARK = 1
_KINDS = ("table", "index", "view", "trigger")
_BEGINS = {  # as SQLite stores them, however they were typed
    "table": re.compile(r"CREATE (VIRTUAL )?TABLE "),
    "index": re.compile(r"CREATE (UNIQUE )?INDEX "),
    "view": re.compile(r"CREATE VIEW "),
    "trigger": re.compile(r"CREATE TRIGGER "),
}


class Entry(Struct, frozen=True):
    """A row of `sqlite_schema`. `from_backup`: `sql` is the newest backup's text.

    `other_root` is the root page in the backup, `other_sql` the text that is the alternative to `sql`.
    `is_guess`: only the backup has it and the file's own schema is whole, so it may have been dropped since.
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
        """Whether it is a table that stores rows itself."""
        return self.kind == "table" and self.root > 0

    @property
    def is_virtual(self) -> bool:
        """Whether it is a virtual table, whose content is in other tables."""
        return self.kind == "table" and self.root == 0

    @property
    def what(self) -> str:
        """What its text makes, in words: a virtual table has no root page, and nor has one whose row is damaged."""
        return "virtual table" if self.sql[:14].upper() == "CREATE VIRTUAL" else self.kind


class Schema(Struct, frozen=True):
    """The schema in use, and whether all of it could be read from the file itself."""

    entries: tuple[Entry, ...]
    is_whole: bool


def read_schema(reader: RowReader, known: Sequence[Entry], known_revisions: Iterable[str]) -> Schema:
    """Return the file's own schema, with broken parts as the newest backup has them."""
    losses = Losses()
    own = {(one.kind, one.name): one for one in _own(reader, losses)}
    is_whole = not losses.pages and not losses.rows and any(one.is_table for one in own.values())
    if not is_whole:
        for one in _entries_outside_tree(reader):
            own.setdefault((one.kind, one.name), one)
    theirs = {(one.kind, one.name): one for one in known}
    is_same = _revisions(reader, own.values()) == set(known_revisions) != set()
    entries = [_repaired(one, theirs.get(key), is_same) for key, one in own.items()]
    missing = [one for key, one in theirs.items() if key not in own]
    entries += [replace(one, other_root=one.root, from_backup=True, is_guess=is_whole) for one in missing]
    return Schema(tuple(entries), is_whole)


def known_schema(connection: sqlite3.Connection) -> list[Entry]:
    """Return the schema of a sound database."""
    rows = connection.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master")
    return list(_entries((StoredRow(None, tuple(row)) for row in rows), Losses()))


def _own(reader: RowReader, losses: Losses) -> Iterator[Entry]:
    for page in reader.pages_of(1, SCHEMA_MARK, losses):
        yield from _entries(reader.rows_of(page, losses), losses)


def _entries_outside_tree(reader: RowReader) -> Iterator[Entry]:
    """Yield the entries in pages without an owner that hold mostly definitions; rows of an app may look like some."""
    for page in range(2, reader.file.count + 1):
        if reader.owner[page] or reader.file.kind(page) != TABLE_LEAF:
            continue
        rows = reader.peek(page)
        if sum(map(_is_definition, rows)) * 2 > len(rows):
            reader.owner[page] = SCHEMA_MARK
            yield from _entries(filter(_is_definition, reader.rows_of(page, Losses())), Losses())


def _is_definition(row: StoredRow) -> bool:
    """Return whether the row holds a statement that creates the object that it names."""
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
            case ("index", str(name), str(table), int(root), None):  # SQLite creates it for a constraint
                yield Entry("index", name, table, root, "")
            case (str(kind), str(name), str(table), int(root), str(sql)) if kind in _KINDS and _is_plain(name + sql):
                yield Entry(kind, name, table, max(root, 0), sql)
            case _:
                losses.rows += 1


def _is_plain(text: str) -> bool:
    """Return whether the text can be passed to SQLite."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _repaired(own: Entry, known: Entry | None, is_same: bool) -> Entry:
    """Return the entry with the root and text that the backup has; at one revision, one other character is damage."""
    if known is None:
        return own
    repaired = replace(own, other_root=known.root, other_sql=known.sql)
    if is_same and len(own.sql) == len(known.sql) and sum(map(str.__ne__, own.sql, known.sql)) == 1:
        return replace(repaired, sql=known.sql, other_sql=own.sql, from_backup=True)
    return repaired


def _revisions(reader: RowReader, entries: Iterable[Entry]) -> set[str]:
    """Return the revisions in Alembic's usual table, without becoming the owner of its pages."""
    found: set[str] = set()
    for one in entries:
        if one.name == "alembic_version" and one.is_table and reader.file.kind(one.root) == TABLE_LEAF:
            found.update(str(row.values[0]) for row in reader.peek(one.root) if row.values)
    return found
