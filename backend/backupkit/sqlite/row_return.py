"""Put rows of a sealed backup back into the live database, all of them in one transaction, or none.

This module writes what `row_rescue` found. SQLite copies the values from one file to the other, so each is restored to
the last bit.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from backupkit.model.errors import Refused
from backupkit.model.names import printable, printable_text
from backupkit.sqlite import database, engine, rows
from backupkit.sqlite.engine import folded, quoted
from backupkit.sqlite.keyed_tables import (
    KeyedTable,
    columns_of,
    drop_triggers,
    is_same,
    key_text,
    keyed_table,
    search_tables_of,
)
from backupkit.sqlite.row_rescue import Found, RescuedRow

_BrokenKey = tuple[str, int | None, str, int]  # table, row, parent table, number of the foreign key


def bring_back(live: Path, sealed: Path, found: Found, timeout: float, is_rehearsal: bool = False) -> None:
    """Write the rows, all of them in one transaction, or none; a rehearsal ends without the commit.

    Triggers do not run; foreign keys are checked before the commit. Raises `Refused` if the live rows have changed
    since they were found, or a constraint refuses a row; `SourceUnreadable` if the database stays locked.
    """
    with closing(engine.connect(live, "mode=rw", timeout=0)) as connection, rows.attached(connection, sealed):
        # cache_spill=OFF: the file is written only at the commit, so only the commit may have to wait for readers.
        for pragma in ("foreign_keys=OFF", "synchronous=FULL", "recursive_triggers=OFF", "cache_spill=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        database.retry_while_locked(lambda: connection.execute("BEGIN IMMEDIATE"), live, timeout)
        try:
            tables = {name: keyed_table(connection, name) for name in found.columns}
            _refuse_if_changed(connection, found, tables)
            _write(connection, found, tables)
            if not is_rehearsal:
                database.retry_while_locked(lambda: connection.execute("COMMIT"), live, timeout)
        except sqlite3.IntegrityError as error:
            raise Refused(
                f"A row cannot come back: {printable_text(str(error))}.", "Choose other rows. Nothing was changed."
            ) from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _refuse_if_changed(connection: sqlite3.Connection, found: Found, tables: dict[str, KeyedTable]) -> None:
    """Raise `Refused` if the live rows are no longer those of the plan."""
    for row in (*found.inserts, *found.differ):
        table = tables[row.table]
        wanted = ", ".join(map(quoted, table.columns))
        now = connection.execute(f"SELECT {wanted} FROM {table.where('main')}", row.key).fetchone()
        if table.columns != found.columns[row.table] or (None if now is None else tuple(now)) != row.live:
            place = f"{printable(row.table)} {key_text(row.key)}"
            raise Refused(f"{place} was changed meanwhile. Nothing was written.", "Look at the plan again.")


def _write(connection: sqlite3.Connection, found: Found, tables: dict[str, KeyedTable]) -> None:
    names = sorted({row.table for row in found.writes})
    replaced = {row.table for row in found.writes if row.live is not None}
    checked = [*names, *_others_that_refer_to(connection, replaced, names)]
    before = Counter(_broken_keys(connection, checked))
    triggers = drop_triggers(connection, names)
    for row in found.writes:
        _put_back(connection, tables[row.table], row)
        _refuse_other_values(connection, tables[row.table], row)
    for name in names:
        for search in search_tables_of(connection, name):
            connection.execute(f"INSERT INTO main.{quoted(search)} ({quoted(search)}) VALUES ('rebuild')")
    for sql in triggers:
        connection.execute(sql)
    _refuse_broken_keys(Counter(_broken_keys(connection, checked)) - before, found)


def _refuse_other_values(connection: sqlite3.Connection, table: KeyedTable, row: RescuedRow) -> None:
    """Raise `Refused` if the written row differs from the backup's, because a column of another type converted it."""
    if not is_same(connection, table, row.key):
        place = f"{printable(row.table)} {key_text(row.key)}"
        raise Refused(
            f"{place} would not come back as it was: a column has another type now. Nothing was written.",
            "Restore the backup beside the app (`restore NAME --to DIR`), migrate it, and copy the rows.",
        )


def _refuse_broken_keys(broken: Counter[_BrokenKey], found: Found) -> None:
    """Raise `Refused` if rows newly refer to missing rows, except those that do so in the backup too."""
    counts = Counter[tuple[str, str, int]]()
    for (child, _, parent, number), count in broken.items():
        counts[child, parent, number] += count
    for (child, parent, number), count in counts.items():
        if count > found.dangling.get((child, parent, number), 0):
            one, other = printable(child), printable(parent)
            message = f"Rows of {one} would refer to rows of {other} that are not there. Nothing was written."
            raise Refused(message, "Choose more rows.")


def _others_that_refer_to(connection: sqlite3.Connection, replaced: Collection[str], names: Sequence[str]) -> list[str]:
    """Return the tables, other than `names`, with foreign keys to tables in which rows are replaced."""
    known = set(map(folded, names))
    query = 'SELECT 1 FROM pragma_foreign_key_list(?) WHERE "table" = ? COLLATE NOCASE'
    return [
        one
        for one in (database.ordinary_tables(connection) if replaced else ())
        if folded(one) not in known and any(connection.execute(query, (one, name)).fetchone() for name in replaced)
    ]


def _put_back(connection: sqlite3.Connection, table: KeyedTable, row: RescuedRow) -> None:
    """Write the row; a conflict is an error, whatever ON CONFLICT the table declares."""
    columns = ", ".join(map(quoted, table.columns))
    past = f"SELECT {columns} FROM {table.where(rows.OTHER)}"
    if row.live is None:
        if row_id := _free_row_id(connection, table, row):
            columns = f"{row_id}, {columns}"
            past = f"SELECT {columns} FROM {table.where(rows.OTHER)}"
        connection.execute(f"INSERT OR ABORT INTO main.{quoted(table.name)} ({columns}) {past}", row.key)
    else:
        where = table.condition(table.keys)
        change = f"UPDATE OR ABORT main.{quoted(table.name)} SET ({columns}) = ({past}) WHERE {where}"
        connection.execute(change, row.key + row.key)


def _free_row_id(connection: sqlite3.Connection, table: KeyedTable, row: RescuedRow) -> str:
    """Return the name of the rowid, by which a search table finds a row, if it is free and not the key; else empty."""
    row_id, keys = rows.row_id_of(connection, table.name), tuple(map(quoted, table.keys))
    if not row_id or rows.is_row_number(connection, table.name, keys, "main"):
        return ""
    past = f"SELECT {row_id} FROM {table.where(rows.OTHER)}"
    taken = f"SELECT 1 FROM main.{quoted(table.name)} WHERE {row_id} = ({past})"
    try:
        return "" if connection.execute(taken, row.key).fetchone() else row_id
    except sqlite3.OperationalError:
        return ""  # the table has no rowid in the backup


def _broken_keys(connection: sqlite3.Connection, tables: Sequence[str]) -> Iterator[_BrokenKey]:
    is_there = cache(lambda parent: bool(columns_of(connection, parent, "main")))
    for table in tables:
        with suppress(sqlite3.OperationalError):  # a foreign key without a matching parent key: an error of the schema
            for child, row, parent, number in connection.execute(f"PRAGMA main.foreign_key_check({quoted(table)})"):
                if is_there(parent):  # else every row breaks the key, before and after
                    yield folded(child), row, folded(parent), number
