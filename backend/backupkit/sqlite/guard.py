"""Limits on what SQL from outside may do to a connection: an authorizer decides, and a meter counts the cost.

Both the text of a dump and the schema of a broken file run under them.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from backupkit.sqlite.allowance import Allowance

_STEPS_PER_CALL = 1_000_000  # steps of SQLite's VM between two checks for Ctrl-C and for too many steps
TOO_MUCH_WORK = "it asks for far more work than there is text"
MODULES = {"fts3", "fts4", "fts4aux", "fts5", "fts5vocab", "geopoly", "rtree", "rtree_i32"}

_ALLOWED_ACTIONS = {
    sqlite3.SQLITE_ALTER_TABLE,
    sqlite3.SQLITE_ANALYZE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_DROP_INDEX,
    sqlite3.SQLITE_DROP_TABLE,
    sqlite3.SQLITE_DROP_TRIGGER,
    sqlite3.SQLITE_DROP_VIEW,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_REINDEX,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_UPDATE,
}
_PRAGMAS_OF_MODULES = {"data_version", "page_size"}  # full text and R-Tree tables read these, and set nothing
_INNOCUOUS = 0x200000  # SQLite's own flag for functions that have no effect and reveal no secret
_MARKED_WRONGLY = "name GLOB 'json*' OR name IN ('->', '->>')"  # innocuous, though SQLite 3.40 does not flag them
_LONGEST_PATTERN = 500  # bytes of a LIKE or GLOB, whose work nothing else bounds

_SCHEMA = {"sqlite_master", "sqlite_sequence"}
_CREATES = {
    "table": (sqlite3.SQLITE_CREATE_TABLE, r"CREATE\s+TABLE\s"),
    "index": (sqlite3.SQLITE_CREATE_INDEX, r"CREATE\s+(?:UNIQUE\s+)?INDEX\s"),
    "view": (sqlite3.SQLITE_CREATE_VIEW, r"CREATE\s+VIEW\s"),
    "trigger": (sqlite3.SQLITE_CREATE_TRIGGER, r"CREATE\s+TRIGGER\s"),
    "virtual table": (sqlite3.SQLITE_CREATE_VTABLE, r"CREATE\s+VIRTUAL\s+TABLE\s"),
}
_WITH_EFFECTS = "edit|fsdir|fts3_tokenizer|load_extension|lsmode|readfile|sqlite_dbpage|writefile|zipfile"
_NOT_CODE = re.compile(
    r"""'(?:[^']|'')*+(?:'|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|("(?:[^"]|"")*+"|`(?:[^`]|``)*+`|\[[^\]]*\])""", re.DOTALL
)
_CALL = re.compile(
    rf"""(?:\b(INTO|REFERENCES|TABLE|VIEW)\s+)?(?<![\w$])["`\[]?\b({_WITH_EFFECTS})["`\]]?\s*\(""", re.IGNORECASE
)


def harden(connection: sqlite3.Connection) -> None:
    """Bar the connection from other files, and from trusting the schema as far as this SQLite can distrust one."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _LONGEST_PATTERN)
    marked = f"SELECT 1 FROM pragma_function_list WHERE name = 'json' AND flags & {_INNOCUOUS}"
    # SQLite 3.40 does not flag JSON functions as innocuous, so OFF would refuse honest schemas: only `Guard` protects.
    trusted = "OFF" if connection.execute(marked).fetchone() else "ON"
    connection.execute(f"PRAGMA trusted_schema={trusted}")


def call_with_effects(sql: str) -> str:
    """Return a function in the definition that does more than compute a value; empty if there is none.

    SQLite resolves a trigger or a view only when it is used: until then the authorizer does not see what it calls.
    """
    code = _NOT_CODE.sub(lambda found: found[1] or " ", sql)
    return next((found[2] for found in _CALL.finditer(code) if not found[1]), "")


def harmless_functions(connection: sqlite3.Connection) -> set[str]:
    """Return the functions that have no effect and reveal no secret, in lower case."""
    marked = f"SELECT DISTINCT name FROM pragma_function_list WHERE flags & {_INNOCUOUS} OR {_MARKED_WRONGLY}"
    return {name for (name,) in connection.execute(marked)}


class Meter:
    """Limits on one statement's use of SQLite. It tells which of them the statement exceeded."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._steps = self._most = 0
        connection.set_progress_handler(self._count, _STEPS_PER_CALL)  # Python handles signals at each call

    def allow(self, allowance: Allowance) -> None:
        """Start a statement with this allowance."""
        self._steps, self._most = 0, allowance.steps
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, allowance.value_bytes)

    def _count(self) -> bool:
        self._steps += _STEPS_PER_CALL
        return self._steps > self._most

    @property
    def is_exceeded(self) -> bool:
        """Whether the statement took more steps than allowed."""
        return self._steps > self._most

    def excess(self, error: Exception) -> str:
        """Return which limit the statement exceeded, in words; empty if the error has another cause."""
        if self.is_exceeded:
            return TOO_MUCH_WORK
        words = {"string or blob too big": "value", "out of memory": "amount of memory"}
        return f"it makes a larger {words[str(error)]} than a text of this length may" if str(error) in words else ""


class Guard:
    """An authorizer, which SQLite asks before it prepares a statement. It denies what a dump does not need."""

    def __init__(self, connection: sqlite3.Connection, trusts_pragmas: bool = False) -> None:
        self._functions = harmless_functions(connection)
        if "unistr" not in self._functions:
            connection.create_function("unistr", 1, _unistr, deterministic=True)
            self._functions.add("unistr")
        self._trusts_pragmas = trusts_pragmas
        self._defined: tuple[str, str] | None = None
        self._probed: list[tuple[str, str]] | None = None
        self.denied = ""
        connection.set_authorizer(self._decide)

    def _decide(self, action: int, first: str | None, second: str | None, base: str | None, _in: str | None) -> int:
        if self._defined and action not in (sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_CREATE_VTABLE):
            allowed = base == "main" and self._is_of_definition(*self._defined, action, first, second)
        elif action in _ALLOWED_ACTIONS:
            allowed = base == "main" or base is None or action == sqlite3.SQLITE_ALTER_TABLE
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = str(second).lower() in self._functions
        elif action == sqlite3.SQLITE_PRAGMA:
            allowed = self._trusts_pragmas or (first in _PRAGMAS_OF_MODULES and second is None)
        else:
            allowed = action == sqlite3.SQLITE_CREATE_VTABLE and self._allows_module(str(first), str(second))
        if allowed:
            return sqlite3.SQLITE_OK
        self.denied = self.denied or in_words(action, first, second)
        return sqlite3.SQLITE_DENY

    @contextmanager
    def defining(self, kind: str, name: str, sql: str) -> Iterator[None]:
        """Allow the statement in the block to create this object and do nothing else.

        Raises `sqlite3.DatabaseError` if the text is not such a definition, or calls a function with effects.
        """
        if not re.match(_CREATES[kind][1], sql, re.IGNORECASE):
            raise sqlite3.DatabaseError(f"its text is not a CREATE {kind.upper()}")
        if called := call_with_effects(sql):
            raise sqlite3.DatabaseError(f"it calls {called}()")
        self._defined, trusts = (kind, name), self._trusts_pragmas
        self._trusts_pragmas, self.denied = False, ""
        try:
            yield
        except sqlite3.Warning as error:  # more than one statement, as older Pythons say it
            raise sqlite3.DatabaseError("its text is not one statement") from error
        except sqlite3.Error as error:
            if not self.denied:
                raise
            raise sqlite3.DatabaseError(f"it asks for {self.denied}") from error
        finally:
            self._defined, self._trusts_pragmas = None, trusts

    @staticmethod
    def _is_of_definition(kind: str, name: str, action: int, first: str | None, second: str | None) -> bool:
        """Return whether SQLite itself performs this action to create the object."""
        if action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE):
            return first in _SCHEMA
        if action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_REINDEX):
            return True
        if action == sqlite3.SQLITE_CREATE_INDEX and kind == "table":
            return second == name and str(first).startswith("sqlite_autoindex_")
        return action == _CREATES[kind][0] and (first == name or (kind == "table" and first == "sqlite_sequence"))

    def allow_function(self, name: str) -> None:
        """Allow a function that we registered ourselves."""
        self._functions.add(name.lower())

    def _allows_module(self, table: str, module: str) -> bool:
        if self._probed is None:
            return module.lower() in MODULES
        self._probed.append((table, module))
        return False

    @contextmanager
    def trusting_pragmas(self) -> Iterator[None]:
        """Allow all pragmas in the block, because they are our own."""
        self._trusts_pragmas = True
        try:
            yield
        finally:
            self._trusts_pragmas = False

    def table_and_module_of(self, connection: sqlite3.Connection, sql: str) -> tuple[str, str]:
        """Return table and module of a CREATE VIRTUAL TABLE as SQLite parses it, without creating the table."""
        self._probed = []
        try:
            connection.execute(sql)
        except sqlite3.Error:
            return self._probed[0] if self._probed else ("", "")
        finally:
            self._probed, self.denied = None, ""
        return "", ""


def raise_if_interrupted(error: Exception, guard: Guard, meter: Meter) -> None:
    """Raise the `KeyboardInterrupt` that sqlite3 swallowed: Ctrl-C in a callback looks like a denial or an excess.

    It was Ctrl-C if neither the guard denied anything nor the meter was exceeded.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    is_denial = code == sqlite3.SQLITE_AUTH and not guard.denied
    if is_denial or (code == sqlite3.SQLITE_INTERRUPT and not meter.is_exceeded):
        raise KeyboardInterrupt from error


def in_words(action: int, first: str | None, second: str | None) -> str:
    """Return what the authorizer denied, worded for a message."""
    if action == sqlite3.SQLITE_FUNCTION:
        return f"the function {second}"
    if action == sqlite3.SQLITE_CREATE_VTABLE:
        return f"a virtual table of the module {second}"
    names = {
        sqlite3.SQLITE_ATTACH: "ATTACH",
        sqlite3.SQLITE_DETACH: "DETACH",
        sqlite3.SQLITE_PRAGMA: f"PRAGMA {first}",
        sqlite3.SQLITE_CREATE_INDEX: f"the index {first}",
        sqlite3.SQLITE_CREATE_TABLE: f"the table {first}",
        sqlite3.SQLITE_CREATE_TRIGGER: f"the trigger {first}",
        sqlite3.SQLITE_CREATE_VIEW: f"the view {first}",
        sqlite3.SQLITE_RECURSIVE: "a recursive query",
        sqlite3.SQLITE_SELECT: "a query",
    }
    return names.get(action, "this statement")


def _unistr(text: str | None) -> str | None:
    r"""Do what SQLite's own `unistr` does from 3.50 on: \XXXX, \uXXXX, \+XXXXXX and \UXXXXXXXX become characters."""
    if text is None:
        return None
    return _ESCAPE.sub(lambda escape: "\\" if escape[0] == "\\\\" else chr(int(escape[0].lstrip("\\u+U"), 16)), text)


_ESCAPE = re.compile(r"\\(?:\\|u?[0-9A-Fa-f]{4}|\+[0-9A-Fa-f]{6}|U[0-9A-Fa-f]{8})")
