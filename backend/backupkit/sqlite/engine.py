"""Connections to SQLite, of which every error is `sqlite3.Error`, however damaged the file is.

Python reads SQLite's messages as UTF-8, and they quote the schema: one wrong byte there, and a call raises
`UnicodeDecodeError`, which nobody expects of a database. So every database that nobody vouches for is opened here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

# Of text that is no UTF-8, of a name that cannot be text, of a value that is too large for Python.
_NOT_OF_SQLITE = (ValueError, OverflowError, MemoryError)
_MENDED_EARLIER = (((3, 44, 6), (3, 45)), ((3, 50, 7), (3, 51)))
_LOWER = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})
_DAMAGE = ("not a database", "malformed", "disk image", "unsupported file format")


def connect(file: Path, options: str = "", **settings: Any) -> Connection:
    """A connection to the file, with options as SQLite's URIs have them (`mode=ro`); no transaction is begun unasked.

    Text that is no UTF-8 comes as surrogates.
    """
    name = f"{file.absolute().as_uri()}?{options}"
    connection = sqlite3.connect(name, uri=True, isolation_level=None, factory=Connection, **settings)
    connection.text_factory = _lenient_text
    return connection


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def unquoted(name: str) -> str:
    """The name that `quoted` made an identifier of."""
    return name[1:-1].replace('""', '"')


def folded(name: str) -> str:
    """The name as SQLite compares names: only A to Z have no case. Another folding would name another column."""
    return name.translate(_LOWER)


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether a checkpoint and a writer, at one instant, can damage a database in WAL mode: sqlite.org/wal.html."""
    is_mended = version >= (3, 51, 3) or any(first <= version < end for first, end in _MENDED_EARLIER)
    return version >= (3, 7) and not is_mended


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file is broken, and not that it is busy, full or out of reach."""
    return isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in _DAMAGE)


def has_damage_code(error: sqlite3.Error) -> bool:
    """Whether SQLite's own code says that the file is broken: a value, as of JSON, may be called malformed too."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _in_its_words(call: Callable[..., Any]) -> Any:
    """The call, which raises nothing but what SQLite has to say."""

    @wraps(call)
    def calling(*arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except _NOT_OF_SQLITE as error:
            raise _of_sqlite(error) from error

    return calling


class Cursor(sqlite3.Cursor):
    """A cursor whose every error is SQLite's."""

    execute = _in_its_words(sqlite3.Cursor.execute)
    executescript = _in_its_words(sqlite3.Cursor.executescript)
    fetchone = _in_its_words(sqlite3.Cursor.fetchone)
    fetchall = _in_its_words(sqlite3.Cursor.fetchall)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:  # once, and not for each row: there may be millions
            yield from iter(super().fetchone, None)
        except _NOT_OF_SQLITE as error:
            raise _of_sqlite(error) from error


class Connection(sqlite3.Connection):
    """A connection all of whose cursors are such."""

    backup = _in_its_words(sqlite3.Connection.backup)

    def cursor(self, factory: Any = Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        cursor: Cursor = self.cursor().execute(sql, parameters)
        return cursor

    def executescript(self, script: str, /) -> Cursor:
        cursor: Cursor = self.cursor().executescript(script)
        return cursor


def _of_sqlite(error: Exception) -> sqlite3.DatabaseError:
    """What SQLite would have raised: its own message, where Python could not read that."""
    message = str(error)
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode("utf-8", "backslashreplace")
    elif isinstance(error, UnicodeEncodeError):
        message = "a name in it is no UTF-8"
    elif isinstance(error, MemoryError):
        message = "out of memory"
    return sqlite3.DatabaseError(message)


def _lenient_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
