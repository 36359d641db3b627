"""Tables that a live database and an attached sealed file both have, with the keys that identify their rows.

`main` is the live database, `other` the sealed file. Two rows are the same row if their primary keys are equal.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Sequence

from msgspec import Struct

from backupkit.model.errors import Refused
from backupkit.model.names import few, printable, printable_text
from backupkit.sqlite import rows
from backupkit.sqlite.engine import folded, quoted
from backupkit.sqlite.query import Values, no_table

LOOK_AT_ROWS = "Look at the rows: `rows`. All of them come back with `restore`."
_CONTENT = re.compile(
    r"""\bUSING\s+fts[345]\b.*[(,]\s*content\s*=\s*('(?:[^']|'')+'|"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|\w+)""",
    re.IGNORECASE | re.DOTALL,
)


class ForeignKey(Struct, frozen=True):
    """A foreign key: `columns` of the table refer to `parent_columns` of the parent. `number` is SQLite's own."""

    number: int
    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


class KeyedTable(Struct, frozen=True):
    """A table that both have: its live name, its primary key, and the columns that can be written in both."""

    name: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    foreign_keys: tuple[ForeignKey, ...]
    unique: tuple[tuple[str, ...], ...]
    lacking: tuple[str, ...]
    """Columns of the backup that the live table no longer has, or computes itself."""

    def where(self, side: str, columns: Sequence[str] = ()) -> str:
        """Return the SQL after FROM that finds a row of that side by its key, or by these columns."""
        return f"{side}.{quoted(self.name)} WHERE {self.condition(columns or self.keys)}"

    def condition(self, columns: Sequence[str]) -> str:
        """Return the SQL condition that these columns equal the bound values."""
        return " AND ".join(f"{quoted(one)} = ?" for one in columns)


def keyed_table(connection: sqlite3.Connection, name: str) -> KeyedTable:
    """Return the table of that name in both databases.

    Raises `NoSuchBackup` if one of them has none, `Refused` if it is not an ordinary table, no common primary key
    identifies the rows, or a column requires a value that the backup does not have.
    """
    live, past = (columns_of(connection, name, schema) for schema in ("main", rows.OTHER))
    for side, schema, columns in (("the live database", "main", live), ("the backup", rows.OTHER, past)):
        if not columns:
            raise no_table(connection, name, side, schema)
    listed = "SELECT type, name FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE"
    kind, true_name = connection.execute(listed, (name,)).fetchone() or ("", name)
    if kind != "table" or folded(name).startswith("sqlite_"):
        raise Refused(
            f"{printable(name)} is not an ordinary table: no row can be put back into it.", "Name the table behind it."
        )
    keys = [_primary_key(columns) for columns in (live, past)]
    if not keys[0]:
        message = f"The table {printable(name)} has no primary key: its rows cannot be told apart."
        raise Refused(message, hint=LOOK_AT_ROWS)
    if keys[0] != keys[1]:
        raise Refused(f"The table {printable(name)} has another primary key than the backup.", hint=LOOK_AT_ROWS)
    common = [one for name, one in live.items() if one.is_written and name in past]
    if missing := [one.name for name, one in live.items() if one.is_required and name not in past]:
        raise Refused(
            f"The table {printable(name)} has a column that needs a value, and that the backup lacks: {few(missing)}.",
            hint="Restore the backup beside the app (`restore NAME --to DIR`), migrate it, and copy the rows.",
        )
    return KeyedTable(
        true_name,
        keys[0],
        tuple(one.name for one in common),
        foreign_keys_of(connection, true_name),
        _unique_columns(connection, true_name),
        tuple(
            one.name for name, one in past.items() if one.is_written and (name not in live or not live[name].is_written)
        ),
    )


class Column(Struct, frozen=True):
    """A column. `is_required`: it must be given a value. `place`: its place in the primary key from 1 on, or 0."""

    name: str
    is_written: bool
    is_required: bool
    place: int


def columns_of(connection: sqlite3.Connection, table: str, schema: str) -> dict[str, Column]:
    """Return the columns by folded name; empty if there is no such table."""
    query = 'SELECT name, hidden, "notnull", dflt_value, pk FROM pragma_table_xinfo(?, ?)'
    return {
        folded(name): Column(name, hidden == 0, hidden == 0 and required and default is None, place)
        for name, hidden, required, default, place in connection.execute(query, (table, schema))
    }


def _primary_key(columns: dict[str, Column]) -> tuple[str, ...]:
    return tuple(sorted((name for name, one in columns.items() if one.place), key=lambda name: columns[name].place))


def foreign_keys_of(connection: sqlite3.Connection, table: str) -> tuple[ForeignKey, ...]:
    """Return the foreign keys of the live table whose columns, in the table and its parent, the backup has too."""
    found: dict[int, list[tuple[str, str, str | None]]] = {}
    query = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq'
    for number, parent, here, there in connection.execute(query, (table,)):
        found.setdefault(number, []).append((parent, here, there))
    keys = (one for number, parts in found.items() if (one := _foreign_key(connection, table, number, parts)))
    return tuple(one for one in keys if _is_in_the_backup(connection, one))


def _is_in_the_backup(connection: sqlite3.Connection, key: ForeignKey) -> bool:
    here, parent = (columns_of(connection, one, rows.OTHER) for one in (key.table, key.parent))
    return set(key.columns) <= set(here) and set(key.parent_columns) <= set(parent)


def _foreign_key(
    connection: sqlite3.Connection, table: str, number: int, parts: list[tuple[str, str, str | None]]
) -> ForeignKey | None:
    parent = parts[0][0]
    columns = columns_of(connection, parent, "main")
    named = tuple(folded(there) for _, _, there in parts if there) or _primary_key(columns)
    if not columns or len(named) != len(parts):
        return None  # it refers to a missing table or column: an error of the schema
    return ForeignKey(number, table, tuple(folded(here) for _, here, _ in parts), parent, named)


def _unique_columns(connection: sqlite3.Connection, table: str) -> tuple[tuple[str, ...], ...]:
    """Return the columns of each UNIQUE index, except the primary key, partial indexes and those on expressions."""
    query = "SELECT name FROM pragma_index_list(?) WHERE \"unique\" AND NOT partial AND origin <> 'pk'"
    found = []
    for (name,) in connection.execute(query, (table,)).fetchall():
        columns = [one for (one,) in connection.execute("SELECT name FROM pragma_index_info(?)", (name,))]
        found += [tuple(map(folded, columns))] if all(columns) else []
    return tuple(found)


def triggers_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the triggers of a table in the order in which SQLite reads, and so runs, them."""
    found = "SELECT name FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY rowid"
    return [name for (name,) in connection.execute(found, (table,))]


def drop_triggers(connection: sqlite3.Connection, tables: Collection[str] | None = None) -> list[str]:
    """Drop the triggers of these tables, or all; return their SQL, to be run again in the same transaction."""
    query = "SELECT name, tbl_name, sql FROM main.sqlite_master WHERE type = 'trigger' ORDER BY rowid"
    wanted = None if tables is None else set(map(folded, tables))
    found = connection.execute(query).fetchall()
    dropped = [(name, sql) for name, table, sql in found if wanted is None or folded(table) in wanted]
    for name, _ in dropped:
        connection.execute(f"DROP TRIGGER main.{quoted(name)}")
    return [sql for _, sql in dropped]


def search_tables_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the search tables whose external content is that table: only triggers tell them of its rows."""
    query = "SELECT name, sql FROM main.sqlite_master WHERE type = 'table' AND sql LIKE 'create virtual%'"
    found = connection.execute(query)
    return [name for name, sql in found if (of := _CONTENT.search(sql)) and folded(_bare(of[1])) == folded(table)]


def _bare(name: str) -> str:
    return name[1:-1].replace(name[-1] * 2, name[-1]) if name[0] in "'\"`[" else name


def is_same(connection: sqlite3.Connection, table: KeyedTable, key: Values) -> bool:
    """Return whether the live row has exactly the values of the backup's row, and of the same types."""
    exact = ", ".join(f"{one} COLLATE BINARY, typeof({one})" for one in map(quoted, table.columns))
    live, past = (f"SELECT {exact} FROM {table.where(side)}" for side in ("main", rows.OTHER))
    both = f"SELECT count(*) FROM ({live} INTERSECT {past})"
    return bool(connection.execute(both, key + key).fetchone()[0])


def key_text(key: Values) -> str:
    return ", ".join(printable_text(str(one)) for one in key)
