"""References from rows to uploads: rows that name a missing file, and files that no row names.

The setting `references` says how a row names a file: `"documents.path" = "uploads/{value}"`. Compared are the database
and the uploads of the same backup. Memory is bounded: SQLite keeps the list of files, on disk if it is long.
"""

from __future__ import annotations

import os
import posixpath
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from backupkit.fs import tree
from backupkit.model.backup import UPLOADS_FOLDER, ReferenceFacts, References
from backupkit.model.events import EventListener, Progress, Step, Warned
from backupkit.model.names import printable_text
from backupkit.model.patterns import Patterns
from backupkit.sqlite import database
from backupkit.sqlite.engine import folded, quoted

VALUE = "{value}"
_EXAMPLES = 5
_OFTEN = 20_000  # rows between two progress events
_TOP = f"{UPLOADS_FOLDER}/".encode()
Wanted = Mapping[str, tuple[str, ...]]


class LeftOut(Struct, frozen=True):
    """The uploads that the settings excluded from the backup, as recorded in its metadata."""

    patterns: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def test(self) -> Callable[[str], bool]:
        """Return a function that returns whether a path is left out."""
        patterns, folders = Patterns(self.patterns) if self.patterns else None, frozenset(self.folders)

        def is_left_out(path: str) -> bool:
            if folders and any(place in folders for place in tree.with_parents(path)):
                return True
            return bool(patterns and patterns.match(path, is_folder=False))

        return is_left_out


def examine(wanted: Wanted, file: Path, uploads: Path, left_out: LeftOut, emit: EventListener) -> References | None:
    """Compare the rows of a sealed database with the uploads of the same backup; None, with a warning, if that fails.

    A missing table or column is a warning. Errors of SQLite and of the disk are never raised.
    """
    emit(Step("Looking for the files that rows name", unit="rows"))
    try:
        with _files_of(uploads) as files, database.open_sealed(file) as sealed:
            sealed.text_factory = bytes  # a path may have any bytes
            comparison = _Comparison(files, sealed, left_out.test(), emit)
            found = tuple(comparison.compare(column, path) for column, paths in wanted.items() for path in paths)
            for error in dict.fromkeys(one.error for one in found if one.error):
                emit(Warned(f"references: {error}"))
            unnamed, examples = _unnamed(files)
            is_whole = not any(one.error for one in found)
            return References(found, unnamed if is_whole else None, examples if is_whole else ())
    except (sqlite3.Error, OSError) as error:
        emit(
            Warned(f"It could not be checked whether the files that rows name are there: {printable_text(str(error))}.")
        )
        return None


def place_of(path: str, value: bytes) -> bytes | None:
    """Return the path below the uploads that a value names, or None if it is absolute or leads out of the uploads."""
    if value.startswith(b"/") or b"\0" in value:
        return None
    found = posixpath.normpath(os.fsencode(path).replace(VALUE.encode(), value))
    return found[len(_TOP) :] if found.startswith(_TOP) else None


def sentences(found: References) -> Iterator[str]:
    """Yield a sentence per problem; none if each row finds its file and each file is named by a row."""
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
    """Yield a temporary database of the paths in the tree; it is deleted when the block ends."""
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
class _Comparison:
    files: sqlite3.Connection
    sealed: sqlite3.Connection
    is_left_out: Callable[[str], bool]
    emit: EventListener
    rows: int = field(default=0)

    def compare(self, column: str, path: str) -> ReferenceFacts:
        """Compare the values of one column with the files, by one path template."""
        table, _, name = column.rpartition(".")
        if error := self._column_error(table, name):
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
        """Yield the values that are neither NULL nor empty, as bytes."""
        column = quoted(name)
        for (value,) in self.sealed.execute(f"SELECT {column} FROM main.{quoted(table)} WHERE {column} IS NOT NULL"):
            self.rows += 1
            if self.rows % _OFTEN == 0:
                self.emit(Progress(self.rows))
            if value != b"":
                yield value if isinstance(value, bytes) else str(value).encode()

    def _column_error(self, table: str, name: str) -> str:
        kind = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
        if not self.sealed.execute(kind, (table,)).fetchone():
            return f"there is no table {printable_text(table)}."
        columns = self.sealed.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))
        if folded(name) not in {folded(one.decode(errors="replace")) for (one,) in columns}:
            return f"the table {printable_text(table)} has no column {printable_text(name)}."
        return ""

    def _is_there(self, place: bytes) -> bool:
        """Return whether the tree has the path, and mark it, and everything in it if it is a folder, as named."""
        found = self.files.execute("SELECT is_folder, named FROM files WHERE path = ?", (place,)).fetchone()
        if found and not found[1]:
            self.files.execute("UPDATE files SET named = 1 WHERE path = ?", (place,))
            if found[0]:
                self.files.execute(
                    "UPDATE files SET named = 1 WHERE path > ? AND path < ?", (place + b"/", place + b"0")
                )
        return found is not None


def _text(path: bytes) -> str:
    """Return the path as text for the metadata, with bytes that are not UTF-8 escaped."""
    return path.decode("utf-8", "backslashreplace")
