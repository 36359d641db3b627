"""SQL that masks personal data in a copy of a database, and the proof that no text stayed as it was.

The SQL runs under an authorizer that lets it read and write rows of existing tables, and nothing else. Then each text
or blob of the copy is compared with the original's, row by row. A column with any unchanged value is refused by name,
unless the mask allows it in a line of its own: `-- allow: users.role` or `-- allow: countries.*`.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from msgspec import Struct

from backupkit.model.errors import Damaged, Refused
from backupkit.model.names import few, printable, printable_text
from backupkit.sqlite import database, engine, guard, keyed_tables, rows
from backupkit.sqlite.engine import folded, quoted

_ALLOW = re.compile(r"^\s*--\s*allow:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_UPLOADS = re.compile(r"^\s*--\s*uploads:\s*keep\s*$", re.MULTILINE | re.IGNORECASE)
_ACTIONS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_INSERT,
}
_SEARCH_MODULES = {"fts3", "fts4", "fts5"}  # their text is read and written through the virtual table
_NUMBER_MODULES = {"rtree", "rtree_i32", "geopoly"}
_SAMPLES = ("sqlite_stat3", "sqlite_stat4")  # they keep values of the original as samples of ANALYZE
SECONDS = 3600.0
_HINT = "Change every value of it in the mask, or allow it with a line of its own: -- allow: {name}"


class Mask(Struct, frozen=True):
    """A parsed mask: its statements, the columns that may stay unchanged, and whether uploads are included."""

    file: str
    statements: tuple[str, ...]
    allowed: frozenset[str]
    keeps_uploads: bool

    def allows(self, table: str, column: str) -> bool:
        return not self.allowed.isdisjoint((f"{folded(table)}.*", f"{folded(table)}.{folded(column)}"))


def parse(text: str, file: str) -> Mask:
    """Return the mask in that text; raise `Damaged` if it is incomplete or an allowed column is not `table.column`."""
    allowed = [folded(one) for one in _ALLOW.findall(text)]
    if wrong := [one for one in allowed if not re.fullmatch(r"[^.]+\.[^.]+", one)]:
        raise Damaged(
            f"{file} allows {printable(wrong[0])}, which is not a column.", hint="Write table.column, or table.*"
        )
    return Mask(file, tuple(_statements(text, file)), frozenset(allowed), bool(_UPLOADS.search(text)))


def _statements(text: str, file: str) -> Iterator[str]:
    statement = ""
    for piece in re.split(r"(?<=;)", text):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if re.sub(r"--[^\n]*|/\*.*?(\*/|\Z)", "", statement, flags=re.DOTALL).strip():
        raise Damaged(f"{file} is not complete: its last statement does not end.", hint="End each with a semicolon.")


def apply(copy: Path, original: Path, mask: Mask, seconds: float = SECONDS) -> None:
    """Mask the copy: no text of the original stays in it that the mask does not allow, not even in free pages.

    Nobody else may have the copy open. Raises `Damaged` for a mask that is not SQL, asks for more than rows or takes
    longer than `seconds`, `Refused` for a column with unchanged values or a table that cannot be checked.
    """
    with contextlib.closing(engine.connect(copy, "mode=rw", timeout=0)) as connection:
        for pragma in ("journal_mode=DELETE", "secure_delete=ON", "foreign_keys=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        triggers = keyed_tables.drop_triggers(connection)  # or they could copy unmasked values to an audit table
        for name in _virtual_tables(connection):  # open them before the authorizer denies what that takes
            with contextlib.suppress(sqlite3.Error):
                connection.execute(f"SELECT 1 FROM main.{quoted(name)} LIMIT 0").fetchall()
        moved = _run(connection, mask, seconds)
        _delete_samples(connection)
        for search in _virtual_tables(connection):
            _rebuild_search_index(connection, search)
        for sql in triggers:
            connection.execute(sql)
        connection.execute("COMMIT")
        with rows.attached_alike(connection, original):
            _refuse_unchanged(connection, mask, moved)
    with contextlib.closing(engine.connect(copy, "mode=rw", timeout=0)) as connection:
        connection.execute("VACUUM")


def _run(connection: sqlite3.Connection, mask: Mask, seconds: float) -> set[str]:
    """Run the mask; return the tables in which a row may now have another's key: rows were added or keys written."""
    functions, denied = guard.harmless_functions(connection), list[str]()
    written = set[tuple[str, str]]()
    known = {folded(name) for (name,) in connection.execute("SELECT name FROM main.sqlite_master")}

    def decide(action: int, first: str | None, second: str | None, base: str | None, _in: str | None) -> int:
        is_row = action in _ACTIONS and (base in (None, "main")) and not str(first or "").lower().startswith("sqlite_")
        is_call = action == sqlite3.SQLITE_FUNCTION and str(second).lower() in functions
        # Search tables read these, and set nothing.
        is_asked = action == sqlite3.SQLITE_PRAGMA and first in ("data_version", "page_size") and second is None
        if action in (sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_INSERT):
            written.add((str(first), folded(second or "")))
        if is_row or is_call or is_asked or (action == sqlite3.SQLITE_READ and folded(str(first)) in known):
            return sqlite3.SQLITE_OK
        denied.append(guard.in_words(action, first, second))
        return sqlite3.SQLITE_DENY

    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(decide)
    try:
        with rows.limited(connection, seconds) as is_over:
            for number, statement in enumerate(mask.statements, 1):
                try:
                    connection.execute(statement).fetchall()
                except (sqlite3.Error, sqlite3.Warning) as error:
                    reason = f"it is not done after {seconds:g} s" if is_over() else printable_text(str(error))
                    reason = f"it asks for {denied[0]}" if denied else reason
                    raise Damaged(
                        f"Statement {number} of {mask.file} cannot be run: {reason.rstrip('.')}.",
                        hint="A mask is UPDATE, DELETE and INSERT. Nothing was laid out.",
                    ) from error
    finally:
        connection.set_authorizer(None)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 10)
    return {folded(table) for table, column in written if column in ("", *_keys(connection, table))}


def _keys(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    found = connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0", (table,))
    return ("rowid", *(folded(name) for (name,) in found))


def _delete_samples(connection: sqlite3.Connection) -> None:
    for name in _SAMPLES:
        if connection.execute("SELECT 1 FROM main.sqlite_master WHERE name = ?", (name,)).fetchone():
            connection.execute(f"DELETE FROM main.{name}")


def _virtual_tables(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the module of each virtual table, by the table's name."""
    found = connection.execute("SELECT name, sql FROM main.sqlite_master WHERE sql LIKE 'create virtual table%'")
    modules = {name: re.search(r"\bUSING\s+[\"`\[]?(\w+)", sql, re.IGNORECASE) for name, sql in found}
    return {name: module[1].lower() if module else "" for name, module in modules.items()}


def _rebuild_search_index(connection: sqlite3.Connection, table: str) -> None:
    """Rebuild a search index from its masked content, because it still has the words of the original."""
    if _virtual_tables(connection)[table] not in _SEARCH_MODULES:
        return
    try:
        connection.execute(f"INSERT INTO main.{quoted(table)} ({quoted(table)}) VALUES ('rebuild')")
    except sqlite3.Error as error:
        raise Refused(
            f"The search index {printable(table)} cannot be rebuilt, and would keep words of the original: "
            f"{printable_text(str(error))}.",
            hint="Lay it out without a mask, or drop that index in the app.",
        ) from error


def _refuse_unchanged(connection: sqlite3.Connection, mask: Mask, moved: Set[str]) -> None:
    found = list(_unchanged_columns(connection, mask, moved))
    if found:
        names = [name for name, _ in found]
        name, count = found[0]
        kept = "1 value is" if count == 1 else f"{count:,} values are"
        more = f" So are values of {few(names[1:], 20)}." if names[1:] else ""
        raise Refused(
            f"{printable(name)} is not masked: {kept} as before.{more}", hint=_HINT.format(name=printable(name))
        )


def _unchanged_columns(connection: sqlite3.Connection, mask: Mask, moved: Set[str]) -> Iterator[tuple[str, int]]:
    """Yield each column with unchanged values, as `table.column`, and their number."""
    modules = _virtual_tables(connection)
    for table, module in modules.items():
        if module not in (*_SEARCH_MODULES, *_NUMBER_MODULES) and f"{folded(table)}.*" not in mask.allowed:
            raise Refused(
                f"{printable(table)} is a virtual table of the module {printable(module)}: whether it is masked is "
                "not known.",
                hint=_HINT.format(name=f"{printable(table)}.*"),
            )
    # Some R-Tree tables have text columns too.
    virtual = (one for one, module in modules.items() if module in (*_SEARCH_MODULES, *_NUMBER_MODULES))
    tables = [*database.ordinary_tables(connection), *virtual]
    for table in tables:
        columns = [one for one in rows.columns_of(connection, table) if not mask.allows(table, one)]
        keys = rows.key_of(connection, table)
        for column in columns:
            if count := _count_same(connection, table, column, keys, folded(table) in moved):
                yield f"{table}.{column}", count


def _count_same(connection: sqlite3.Connection, table: str, column: str, keys: Sequence[str], is_moved: bool) -> int:
    """Count texts and blobs that their rows had before; in a row with a new key, those that any row had before."""
    one, name = quoted(column), quoted(table)
    past = f"SELECT past.{one} FROM {rows.OTHER}.{name} AS past"
    row = f"{past} WHERE " + " AND ".join(f"past.{key} IS now.{key}" for key in keys)
    is_text = f"typeof(now.{one}) IN ('text', 'blob') AND length(now.{one}) > 0"
    stayed = f"now.{one} COLLATE BINARY IS ({row})"
    if not is_moved and _is_uniform(connection, name, one, row):
        return 0  # the mask gave all rows the same value, which reveals nothing
    came = f"now.{one} IN ({past})" + ("" if is_moved else f" AND NOT EXISTS ({row})")
    query = f"SELECT count(*) FROM main.{name} AS now WHERE {is_text} AND ({stayed} OR {came})"
    return int(connection.execute(query).fetchone()[0])


def _is_uniform(connection: sqlite3.Connection, name: str, one: str, row: str) -> bool:
    """Return whether all rows have one value, and some had another one before."""
    if connection.execute(f"SELECT count(DISTINCT {one} COLLATE BINARY) FROM main.{name}").fetchone()[0] > 1:
        return False
    is_changed = f"EXISTS ({row}) AND now.{one} COLLATE BINARY IS NOT ({row})"
    return connection.execute(f"SELECT 1 FROM main.{name} AS now WHERE {is_changed} LIMIT 1").fetchone() is not None
