"""Ask SQLite whether a database is sound, and leave out what it gets wrong.

Older versions, as Debian 12's 3.40, look at other columns than they name in a table WITHOUT ROWID whose primary key is
not its first columns. They report values that are not there: `NULL value in session.data`. So what is reported of
values is looked up in the table, and counts only if such a value is there.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from itertools import islice

from backupkit.sqlite.engine import quoted

_CALL = re.compile(r"(\w+)\((\d+)\)")
_VALUE = re.compile(r"(NULL|NUMERIC|TEXT|non-\w+) value in (.+)", re.DOTALL)
_ALL = 2_000_000_000  # more lines than any check reports
# Of each report, when a value is meant by it; `typeof` is asked because SQLite takes NOT NULL for granted.
_CONDITIONS = {
    "NULL": "typeof({0}) = 'null'",
    "NUMERIC": "typeof({0}) IN ('integer', 'real')",
    "TEXT": "typeof({0}) = 'text' AND ({0} || '') = CAST({0} AS NUMERIC)",
    "non-INT": "typeof({0}) NOT IN ('integer', 'null')",
    "non-INTEGER": "typeof({0}) NOT IN ('integer', 'null')",
    "non-REAL": "typeof({0}) NOT IN ('real', 'integer', 'null')",
    "non-TEXT": "typeof({0}) NOT IN ('text', 'null')",
    "non-BLOB": "typeof({0}) NOT IN ('blob', 'null')",
}


def reported(connection: sqlite3.Connection, check: str) -> list[str]:
    """Return the lines of `quick_check(5)`, `integrity_check(100)` or the like; none for a sound database.

    The number is the most lines to return. A table's name may be in its place; then SQLite stops at 100 lines.
    """
    values, call = _Values(connection), _CALL.fullmatch(check)
    lines = list(_lines(connection, check))
    found = [line for line in lines if not values.is_mistaken(line)]
    if found or not lines or not call:
        return found
    # All of them are mistaken, and SQLite stops at a number of lines: there may be others behind them.
    rest = (line for line in _lines(connection, f"{call[1]}({_ALL})") if not values.is_mistaken(line))
    return list(islice(rest, int(call[2])))


def _lines(connection: sqlite3.Connection, check: str) -> Iterator[str]:
    for (line,) in connection.execute(f"PRAGMA {check}"):
        if line != "ok":
            yield line.removeprefix("*** in database main ***\n").replace("\n", "; ")


class _Values:
    """The values of a database that a check reports."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._columns: dict[str, list[tuple[str, str]]] | None = None
        self._mistaken: dict[str, bool] = {}

    def is_mistaken(self, line: str) -> bool:
        """Return whether the line reports a kind of value that is nowhere in the column that it names."""
        if line not in self._mistaken:
            found = _VALUE.fullmatch(line)
            self._mistaken[line] = found is not None and not self._is_there(found[1], found[2])
        return self._mistaken[line]

    def _is_there(self, kind: str, place: str) -> bool:
        """Return whether such a value is in the column `table.column`; True if that is not known."""
        places, condition = self._columns_at(place), _CONDITIONS.get(kind)
        return not places or not condition or any(self._holds(*one, condition) for one in places)

    def _holds(self, table: str, column: str, condition: str) -> bool:
        where = condition.format(quoted(column))
        found = self._connection.execute(f"SELECT 1 FROM main.{quoted(table)} NOT INDEXED WHERE {where} LIMIT 1")
        return found.fetchone() is not None

    def _columns_at(self, place: str) -> list[tuple[str, str]]:
        """Return the tables and columns that are written like that; names may have dots of their own."""
        if self._columns is None:
            self._columns = {}
            tables = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND rootpage"
            for (table,) in self._connection.execute(tables).fetchall():
                for row in self._connection.execute(f"PRAGMA main.table_xinfo({quoted(table)})"):
                    self._columns.setdefault(f"{table}.{row[1]}", []).append((table, row[1]))
        return self._columns.get(place, [])
