"""Rows that name uploads: which of them name a file that is not there, and which files no row names.

The setting `references` says how a row names a file: `"documents.path" = "uploads/{value}"`. What is compared is the
database and the uploads of one backup. However many there are, they are not all in memory: SQLite keeps the list of the
files, on disk where it is long.
"""

from __future__ import annotations

import os
import posixpath
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backupkit.fs import tree
from backupkit.model.backup import UPLOADS_FOLDER, ReferenceFacts, References
from backupkit.model.events import EventListener, Progress, Step, Warned
from backupkit.model.names import printable_text
from backupkit.model.patterns import Patterns
from backupkit.sqlite import database
from backupkit.sqlite.engine import folded, quoted

VALUE = "{value}"
_EXAMPLES = 5
_OFTEN = 20_000  # rows from one word of progress to the next
_TOP = f"{UPLOADS_FOLDER}/".encode()
Wanted = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class LeftOut:
    """What of the uploads is in no backup by the person's own wish, as the metadata have it."""

    patterns: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def test(self) -> Callable[[str], bool]:
        """Whether a path is left out."""
        patterns, folders = Patterns(self.patterns) if self.patterns else None, frozenset(self.folders)

        def is_left_out(path: str) -> bool:
            if folders and any(place in folders for place in tree.with_parents(path)):
                return True
            return bool(patterns and patterns.match(path, is_folder=False))

        return is_left_out


def examine(wanted: Wanted, file: Path, uploads: Path, left_out: LeftOut, emit: EventListener) -> References | None:
    """What the rows of a sealed database name in the tree of the same backup; None where that cannot be found out.

    A table or column that is not there is warned of. Raises nothing for what SQLite or the disk cannot do.
    """
    emit(Step("Looking for the files that rows name", unit="rows"))
    try:
        with _files_of(uploads) as files, database.open_sealed(file) as sealed:
            sealed.text_factory = bytes  # a path may have any bytes
            looking = _Looking(files, sealed, left_out.test(), emit)
            found = tuple(looking.of(column, path) for column, paths in wanted.items() for path in paths)
            for error in dict.fromkeys(one.error for one in found if one.error):
                emit(Warned(f"references: {error}"))
            unnamed, examples = _unnamed(files)
            is_whole = not any(one.error for one in found)
            return References(found, unnamed if is_whole else None, examples if is_whole else ())
    except (sqlite3.Error, OSError) as error:
        emit(Warned(f"The files that rows name could not be looked for: {printable_text(str(error))}."))
        return None


def place_of(path: str, value: bytes) -> bytes | None:
    """Where below the uploads the file of that value is; None for one that is absolute, or leads out of them."""
    if value.startswith(b"/") or b"\0" in value:
        return None
    found = posixpath.normpath(os.fsencode(path).replace(VALUE.encode(), value))
    return found[len(_TOP) :] if found.startswith(_TOP) else None


def sentences(found: References) -> Iterator[str]:
    """What is not as it should be, for a person; nothing where each row finds its file, and each file its row."""
    for one in found.columns:
        if one.error:
            yield f"{one.column}: {one.error}"
        if one.missing:
            files = _some(one.examples, one.missing)
            yield f"{_rows(one.missing, one.column)} a file that is missing: {files}"
        if one.outside:
            yield f"{_rows(one.outside, one.column)} a place outside of the uploads"
    if found.unnamed:
        files = "1 file is" if found.unnamed == 1 else f"{found.unnamed:,} files are"
        yield f"{files} named by no row: {_some(found.unnamed_examples, found.unnamed)}"


def _rows(count: int, column: str) -> str:
    return f"1 row of {column} names" if count == 1 else f"{count:,} rows of {column} name"


def _some(examples: Iterable[str], count: int) -> str:
    told = [printable_text(one) for one in examples]
    return ", ".join(told) + (f" and {count - len(told):,} more" if count > len(told) else "")


@contextmanager
def _files_of(uploads: Path) -> Iterator[sqlite3.Connection]:
    """The paths of the tree, in a database of their own that is gone when the block ends."""
    with closing(sqlite3.connect("", isolation_level=None)) as files:
        files.execute("PRAGMA journal_mode = OFF")
        files.execute("CREATE TABLE files (path BLOB PRIMARY KEY, is_folder INTEGER, named INTEGER) WITHOUT ROWID")
        files.execute("BEGIN")
        entries = tree.walk(uploads)
        files.executemany(
            "INSERT INTO files VALUES (?, ?, 0)", ((os.fsencode(one.path), one.form == "folder") for one in entries)
        )
        yield files


def _unnamed(files: sqlite3.Connection) -> tuple[int, tuple[str, ...]]:
    where = "FROM files WHERE NOT is_folder AND NOT named"
    ((count,),) = files.execute(f"SELECT count(*) {where}")
    some = files.execute(f"SELECT path {where} ORDER BY path LIMIT {_EXAMPLES}")
    return count, tuple(_text(path) for (path,) in some)


@dataclass
class _Looking:
    files: sqlite3.Connection
    sealed: sqlite3.Connection
    is_left_out: Callable[[str], bool]
    emit: EventListener
    rows: int = field(default=0)

    def of(self, column: str, path: str) -> ReferenceFacts:
        """What the rows of that column name by that template."""
        table, _, name = column.rpartition(".")
        if error := self._why_not(table, name):
            return ReferenceFacts(column, path, error=error)
        rows = missing = outside = left_out = 0
        examples: list[str] = []
        for value in self._values(table, name):
            rows += 1
            place = place_of(path, value)
            if place is None:
                outside += 1
            elif not self._is_there(place):
                told = _text(place)
                if self.is_left_out(told):
                    left_out += 1
                    continue
                missing += 1
                if len(examples) < _EXAMPLES:
                    examples.append(told)
        return ReferenceFacts(column, path, rows, missing, outside, left_out, tuple(examples))

    def _values(self, table: str, name: str) -> Iterator[bytes]:
        """What is neither NULL nor empty, as bytes."""
        column = quoted(name)
        for (value,) in self.sealed.execute(f"SELECT {column} FROM main.{quoted(table)} WHERE {column} IS NOT NULL"):
            self.rows += 1
            if self.rows % _OFTEN == 0:
                self.emit(Progress(self.rows))
            if value != b"":
                yield value if isinstance(value, bytes) else str(value).encode()

    def _why_not(self, table: str, name: str) -> str:
        kind = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
        if not self.sealed.execute(kind, (table,)).fetchone():
            return f"there is no table {printable_text(table)}."
        columns = self.sealed.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))
        if folded(name) not in {folded(one.decode(errors="replace")) for (one,) in columns}:
            return f"the table {printable_text(table)} has no column {printable_text(name)}."
        return ""

    def _is_there(self, place: bytes) -> bool:
        """Whether the tree has that path, which is named by a row from here on, and with a folder what is in it."""
        found = self.files.execute("SELECT is_folder, named FROM files WHERE path = ?", (place,)).fetchone()
        if found and not found[1]:
            self.files.execute("UPDATE files SET named = 1 WHERE path = ?", (place,))
            if found[0]:
                self.files.execute(
                    "UPDATE files SET named = 1 WHERE path > ? AND path < ?", (place + b"/", place + b"0")
                )
        return found is not None


def _text(path: bytes) -> str:
    """As metadata have it, which are text: names may have any bytes."""
    return path.decode("utf-8", "backslashreplace")
