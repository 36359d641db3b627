"""Whole rows that meet a condition: rows of one database, or differences between the rows of two.

A person writes the condition and SQLite runs it: read-only, under an authorizer that allows only reading and computing,
and with a deadline.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

from msgspec import Struct

from backupkit.model.errors import BackupError, NoSuchBackup, Refused
from backupkit.model.names import few, likely, printable, printable_text
from backupkit.sqlite import guard, rows
from backupkit.sqlite.engine import folded, has_damage_code, quoted, unquoted
from backupkit.sqlite.rows import DifferenceQuery, Key, Value

_TABLES = """SELECT name FROM pragma_table_list
    WHERE schema = ? AND type <> 'shadow' AND substr(name, 1, 7) <> 'sqlite_' ORDER BY name"""
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
Values = tuple[Value, ...]
Kind = Literal["only in backup", "only live", "changed"]


class Selection(Struct, frozen=True):
    """Rows of one table in key order; `is_cut`: there are more. Rows of a view have no keys."""

    columns: tuple[str, ...]
    rows: tuple[Values, ...]
    is_cut: bool
    keys: tuple[Key, ...] = ()


class RowDifference(Struct, frozen=True):
    """A row that is only in the backup, only live, or in both with different values; None on the side without it."""

    kind: Kind
    backup: Values | None
    live: Values | None


class RowDifferences(Struct, frozen=True):
    """The rows of one table that differ, first those only in the backup; only `columns` were compared."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    differences: tuple[RowDifference, ...]
    is_cut: bool


def select(
    connection: sqlite3.Connection, table: str, where: str, columns: Sequence[str], most: int, seconds: float
) -> Selection:
    """Return at most `most` rows that meet the condition, or any rows if it is empty; all columns if none is named.

    Raises `NoSuchBackup` for a missing table or column, `Refused` for an invalid condition.
    """
    names = named_columns(connection, table, columns)
    condition = f"WHERE ({where}\n)" if where else ""
    keys = () if _is_view(connection, table) else rows.key_of(connection, table)
    order, wanted = ", ".join(keys) or "1", ", ".join([*keys, *map(quoted, names)])
    with reading_only(connection, seconds):
        check_condition(connection, table, where)
        found = connection.execute(
            f"SELECT {wanted} FROM main.{quoted(table)} {condition} ORDER BY {order} LIMIT ?", (most + 1,)
        )
        chosen = tuple(map(tuple, found.fetchall()))
    shown = chosen[:most]
    return Selection(
        names,
        tuple(one[len(keys) :] for one in shown),
        len(chosen) > most,
        tuple(one[: len(keys)] for one in shown) if keys else (),
    )


def differences(
    connection: sqlite3.Connection,
    table: str,
    earlier: Path,
    where: str,
    columns: Sequence[str],
    most: int,
    seconds: float,
) -> RowDifferences:
    """Return how rows of the live database differ from those of an earlier, sealed file; at most `most` of each kind.

    With a condition, only rows that meet it in one of the two. Raises as `select` does, and `Refused` for a view.
    """
    with rows.attached_alike(connection, earlier):
        ours, theirs = (rows.columns_of(connection, table, schema) for schema in ("main", rows.OTHER))
        if not ours or not theirs:
            schema = rows.OTHER if ours else "main"
            raise no_table(connection, table, "the live database" if theirs else str(earlier), schema)
        if _is_view(connection, table):
            raise Refused(f"{printable(table)} is a view: its rows have no key to compare them by.", "Name a table.")
        keys = rows.identity(connection, table, theirs)
        named = [key for key in map(unquoted, keys) if key in ours]
        wanted = named_columns(connection, table, [*dict.fromkeys((*named, *columns))] if columns else ())
        known = set(map(folded, theirs))
        common = tuple(name for name in wanted if folded(name) in known)
        row_id = rows.row_id_of(connection, table)
        if keys == (row_id,) and not named and common:
            common = (unquoted(row_id), *common)  # or nothing would identify the row
        query = DifferenceQuery(quoted(table), keys, tuple(map(quoted, common)), None, where, row_id)
        if not common:
            raise Refused(f"The table {printable(table)} has no column in common with the backup's.", "See `rows`.")
        _check_condition_on_both(connection, table, where, seconds)
        with reading_only(connection, seconds):
            found = [_first_rows(connection.execute(query.selecting(kind)), most) for kind in rows.KINDS]
    (gone, _), (came, _), (changed, _) = found
    half = len(common)
    shown = (
        *(RowDifference("only in backup", one, None) for one in gone),
        *(RowDifference("only live", None, one) for one in came),
        *(RowDifference("changed", one[:half], one[half:]) for one in changed),
    )
    return RowDifferences(tuple(map(unquoted, keys)), common, shown, any(is_cut for _, is_cut in found))


def _check_condition_on_both(connection: sqlite3.Connection, table: str, where: str, seconds: float) -> None:
    """Raise `Refused` unless the condition reads only the row: a subquery would read the live tables for both sides."""
    with reading_only(connection, seconds):
        check_condition(connection, table, where)
    try:
        with reading_only(connection, seconds, without_subqueries=True):
            check_condition(connection, table, where)
    except Refused as error:
        message = f"With --diff a condition with a query in it has no one meaning: {printable_text(where)}."
        raise Refused(message, "Leave out --diff, or the query.") from error


def _first_rows(found: sqlite3.Cursor, most: int) -> tuple[list[Values], bool]:
    chosen = list(islice(found, most + 1))
    found.close()
    return chosen[:most], len(chosen) > most


def named_columns(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return these columns, or all of the table, spelled as in the table; raise `NoSuchBackup` for a missing one."""
    there = {folded(name): name for name in rows.columns_of(connection, table)}
    if not there:
        raise no_table(connection, table, "the backup")
    if missing := next((name for name in columns if folded(name) not in there), None):
        hint = f"It has: {', '.join(map(printable_text, there.values()))}"
        raise NoSuchBackup(f"The table {printable(table)} has no column {printable(missing)}.", hint)
    return tuple(there[folded(name)] for name in columns) or tuple(there.values())


def no_table(connection: sqlite3.Connection, table: str, where: str, schema: str = "main") -> NoSuchBackup:
    """Return the error for a missing table; its hint names the tables of that schema, those of like names first."""
    known = [name for (name,) in connection.execute(_TABLES, (schema,))]
    hint = f"There are: {few(likely(table, known), 7)}." if known else "There are no tables."
    return NoSuchBackup(f"There is no table {printable(table)} in {where}.", hint)


def _is_view(connection: sqlite3.Connection, table: str) -> bool:
    found = "SELECT 1 FROM main.sqlite_master WHERE type = 'view' AND name = ? COLLATE NOCASE"
    return connection.execute(found, (table,)).fetchone() is not None


# The condition


def check_condition(connection: sqlite3.Connection, table: str, where: str) -> None:
    """Raise `Refused` unless SQLite takes the text for one expression on the columns of the table."""
    if not where:
        return
    if "\0" in where:
        raise _no_condition(where, "it holds a zero byte")
    try:
        # Inside CASE, text that closes the bracket and goes on is a syntax error.
        connection.execute(
            f"EXPLAIN SELECT CASE WHEN ({where}\n) THEN 1 END FROM main.{quoted(table)} WHERE ({where}\n)"
        )
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _no_condition(where, str(error)) from error


def _no_condition(where: str, reason: str) -> Refused:
    hint = "Give a condition as after WHERE: \"name LIKE 'A%' AND id > 7\""
    return Refused(f"{printable_text(where)} is not a condition: {printable_text(reason).rstrip('.')}.", hint)


@contextmanager
def reading_only(connection: sqlite3.Connection, seconds: float, without_subqueries: bool = False) -> Iterator[None]:
    """Allow only reading and computing in the block, for at most `seconds`, optionally `without_subqueries`.

    Raises `BackupError` when the time is over, `Refused` for what SQLite cannot compute; damage is raised as by SQLite.
    """
    functions, queries = guard.harmless_functions(connection), 0

    def decide(action: int, _first: str | None, second: str | None, _base: str | None, _in: str | None) -> int:
        nonlocal queries
        queries += action == sqlite3.SQLITE_SELECT
        if without_subqueries and queries > 1:  # a subquery would read the live table on both sides
            return sqlite3.SQLITE_DENY
        is_allowed = action in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and str(second).lower() in functions)
        return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY

    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(decide)
    try:
        with rows.limited(connection, seconds) as is_over:
            try:
                yield
            except sqlite3.Error as error:
                if is_over():
                    raise BackupError(f"It was not done after {seconds:g} s, and was ended.", _SIMPLER) from error
                if has_damage_code(error):
                    raise
                raise Refused(f"SQLite cannot read that: {printable_text(str(error))}.", _SIMPLER) from error
    finally:
        connection.set_authorizer(None)


_SIMPLER = "Give a simpler condition, or fewer rows: --limit."
