"""Connections to SQLite that raise only `sqlite3.Error`, however damaged the file is.

Python decodes SQLite's messages as UTF-8, and they quote the schema: one wrong byte there, and a call raises
`UnicodeDecodeError`, which no caller expects. So every untrusted database is opened here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

# Raised for text that is not UTF-8, for a name that cannot be text, for a value that is too large for Python.
_PYTHON_ERRORS = (ValueError, OverflowError, MemoryError)
_FIXED_EARLIER = (((3, 44, 6), (3, 45)), ((3, 50, 7), (3, 51)))
_LOWER = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})
_DAMAGE = ("not a database", "malformed", "disk image", "unsupported file format")


def connect(file: Path, options: str = "", **settings: Any) -> Connection:
    """Connect to the file, with the options of SQLite's URIs (`mode=ro`); transactions begin only with a BEGIN.

    Bytes that are not UTF-8 become surrogates in text.
    """
    name = f"{file.absolute().as_uri()}?{options}"
    connection = sqlite3.connect(name, uri=True, isolation_level=None, factory=Connection, **settings)
    connection.text_factory = _lenient_text
    return connection


def quoted(name: str) -> str:
    """Return the name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def unquoted(name: str) -> str:
    """Return the name of an identifier that `quoted` made."""
    return name[1:-1].replace('""', '"')


def is_text(value: str) -> bool:
    """Return whether Python can pass it to SQLite, which allows any bytes in a name and in a text."""
    return not any("\udc80" <= letter <= "\udcff" for letter in value)


def folded(name: str) -> str:
    """Return the name as SQLite compares names: it folds only A to Z. Another folding could match another column."""
    return name.translate(_LOWER)


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Return whether a simultaneous checkpoint and write can damage a database in WAL mode: sqlite.org/wal.html."""
    is_fixed = version >= (3, 51, 3) or any(first <= version < end for first, end in _FIXED_EARLIER)
    return version >= (3, 7) and not is_fixed


def is_damage(error: BaseException) -> bool:
    """Return whether SQLite says that the file is broken, and not that it is busy, full or out of reach."""
    return isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in _DAMAGE)


def has_damage_code(error: sqlite3.Error) -> bool:
    """Return whether SQLite's error code says that the file is broken: a message may call JSON malformed too."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _raising_sqlite_errors(call: Callable[..., Any]) -> Any:
    """Wrap the call so that it raises only errors of SQLite."""

    @wraps(call)
    def calling(*arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except _PYTHON_ERRORS as error:
            raise _as_sqlite_error(error) from error

    return calling


class Cursor(sqlite3.Cursor):
    """A cursor that raises only errors of SQLite."""

    execute = _raising_sqlite_errors(sqlite3.Cursor.execute)
    executescript = _raising_sqlite_errors(sqlite3.Cursor.executescript)
    fetchone = _raising_sqlite_errors(sqlite3.Cursor.fetchone)
    fetchall = _raising_sqlite_errors(sqlite3.Cursor.fetchall)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:  # one try for all rows: there may be millions
            yield from iter(super().fetchone, None)
        except _PYTHON_ERRORS as error:
            raise _as_sqlite_error(error) from error


class Connection(sqlite3.Connection):
    """A connection that raises only errors of SQLite, as do its cursors."""

    backup = _raising_sqlite_errors(sqlite3.Connection.backup)

    def cursor(self, factory: Any = Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        cursor: Cursor = self.cursor().execute(sql, parameters)
        return cursor

    def executescript(self, script: str, /) -> Cursor:
        cursor: Cursor = self.cursor().executescript(script)
        return cursor


def _as_sqlite_error(error: Exception) -> sqlite3.DatabaseError:
    """Return the error that SQLite would have raised, with its message even if Python could not decode that."""
    message = str(error)
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode("utf-8", "backslashreplace")
    elif isinstance(error, UnicodeEncodeError):
        message = "a name in it is not UTF-8"
    elif isinstance(error, MemoryError):
        message = "out of memory"
    return sqlite3.DatabaseError(message)


def _lenient_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
