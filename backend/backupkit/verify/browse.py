"""Browse a backup: its uploads by folder, its tables by page; write one file to a stream.

It only reads, without the lock, since a sealed backup does not change. Comparisons read the live database through
SQLite in one read transaction, as a backup does. No link in a backup is ever followed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from backupkit.config.settings import Settings
from backupkit.fs import descriptors, disk, tree
from backupkit.model.backup import Backup
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, Refused, SourceBroken
from backupkit.model.events import EventListener, Step, Warned, silence
from backupkit.model.names import printable
from backupkit.repository import manifest, store
from backupkit.sqlite import database, engine, query, rows
from backupkit.sqlite.query import RowDifferences, Selection
from backupkit.sqlite.rows import Comparison, Key, RowPage
from backupkit.upload_files import choice

_MOST = 200  # differences of each kind that are listed
_MOST_ROWS = 1000
_SECONDS = 30.0  # limit for evaluating a condition, and so for reading the live database


class Item(Struct, frozen=True):
    """One entry of a folder; size in bytes, and the target of a link."""

    name: str
    form: tree.Form
    size_bytes: int
    changed_at: datetime
    target: str = ""


class Folder(Struct, frozen=True):
    """A page of a folder's entries, folders first, from index `start`, and the total number of entries."""

    path: str
    items: tuple[Item, ...]
    start: int
    total: int


class Table(Struct, frozen=True):
    """A table and its number of rows."""

    name: str
    rows: int


def look_into(settings: Settings, name: str, path: str = "", start: int = 0, count: int = 200) -> Folder:
    """List a folder of the backup's uploads: at most `count` entries from index `start`; only these are examined.

    Raise `NoSuchBackup` if the backup or the folder does not exist, `Refused` for a path that leaves the uploads.
    """
    top = uploads_of(settings, store.find(settings, name))
    folder = _path_inside(top, path)
    try:
        with os.scandir(folder) as entries:
            names = sorted((not entry.is_dir(follow_symlinks=False), entry.name) for entry in entries)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoSuchBackup(f"There is no folder {folder}.", hint=f"`show {name}` tells what is in it.") from error
    with contextlib.closing(tree.Parents(folder)) as parents:
        found = [parents.look(one) for _, one in names[start : start + count]]
    items = tuple(Item(one.path, one.form, one.facts.st_size, one.changed_at, one.target) for one in found if one)
    return Folder(path, items, start, len(names))


def write_out(
    settings: Settings, name: str, patterns: Sequence[str], output: BinaryIO, emit: EventListener = silence
) -> None:
    """Write the one file that matches the patterns to `output`, after comparing it with its checksum.

    Raise `Refused` if not exactly one file matches, `Damaged` if the file is not as it was sealed.
    """
    backup = store.find(settings, name, emit)
    top = uploads_of(settings, backup)
    chosen = choice.choose(top, patterns, backup.name)
    if len(chosen.leaves) != 1:
        raise Refused(
            f"{len(chosen.leaves)} files of {backup.name} match, but only one can go to stdout.",
            hint=f"`files {backup.name}` lists them. --to DIR takes out several.",
        )
    (path,) = chosen.leaves
    source = _path_inside(top, path)
    _require_file(source)
    wanted = _checksum(backup, f"{settings.sealed_folder}/{path}", emit)
    with disk.Opened(source, descriptors.FILE) as file:
        if disk.hash_contents(file) != wanted and manifest.has_checksums(backup.path):
            what = f"{printable(str(source))} is not as it was written."
            raise Damaged(what, hint=f"`verify {name}`; try another one.")
        os.lseek(file, 0, os.SEEK_SET)
        with open(file, "rb", closefd=False) as content:
            shutil.copyfileobj(content, output, disk.CHUNK)
    output.flush()


def tables(settings: Settings, name: str) -> tuple[Table, ...]:
    """Return the tables of the backup's database, by name. Rows are counted only if the metadata have no numbers."""
    metadata = store.require_metadata(store.find(settings, name)).at(settings.part)
    if metadata and metadata.database and metadata.database.rows:
        counts = dict(metadata.database.rows)
    else:
        with _database_of(settings, name) as connection:
            counts = database.count_rows(connection)
    return tuple(Table(table, counted) for table, counted in sorted(counts.items()))


def read_page(
    settings: Settings, name: str, table: str, size: int, after: Key | None = None, before: Key | None = None
) -> RowPage:
    """Return rows of a table, after or before a key; see `rows.page`. Raise `NoSuchBackup` if the table is missing."""
    with _database_of(settings, name) as connection:
        _require_table(connection, table, name)
        return rows.page(connection, table, size, after, before)


def compare_table(
    settings: Settings, name: str, table: str, most: int = _MOST, seconds: float = _SECONDS
) -> Comparison:
    """Compare the rows of a live table with the backup's; read the live database for at most `seconds`.

    Raise `NoSuchBackup` if either database lacks the table, `SourceUnreadable` if the live one cannot be read.
    """
    with _database_of(settings, name) as connection:
        _require_table(connection, table, name)
        sealed, keys = _database_file(store.find(settings, name), settings.part), rows.key_of(connection, table)
    with database.snapshot_of(settings) as snapshot:
        _require_table(snapshot, table, str(settings.database))
        try:
            return rows.compare(snapshot, table, sealed, most, seconds, keys)
        except sqlite3.DatabaseError as error:
            raise _not_compared(settings, name, table, sealed, error) from error


def select_rows(
    settings: Settings,
    name: str,
    table: str,
    where: str = "",
    columns: Sequence[str] = (),
    most: int = _MOST_ROWS,
    seconds: float = _SECONDS,
) -> Selection:
    """Return complete rows of a backup's table in key order, all or those that meet the condition, at most `most`.

    Raise `NoSuchBackup` for a missing table or column, `Refused` if `where` is not a condition.
    """
    with _database_of(settings, name) as connection:
        return query.select(connection, table, where, columns, most, seconds)


def differing_rows(
    settings: Settings,
    name: str,
    table: str,
    where: str = "",
    columns: Sequence[str] = (),
    most: int = _MOST_ROWS,
    emit: EventListener = silence,
) -> RowDifferences:
    """Return how the live rows of a table differ from the backup's, as complete rows, at most `most` of each kind."""
    sealed = _database_file(store.find(settings, name), settings.part)
    with _database_of(settings, name) as connection:
        _require_table(connection, table, name)
    emit(Step(f"Comparing {printable(table)}"))
    with database.snapshot_of(settings, emit) as snapshot:
        try:
            return query.differences(snapshot, table, sealed, where, columns, most, _SECONDS)
        except sqlite3.DatabaseError as error:
            raise _not_compared(settings, name, table, sealed, error) from error


def _not_compared(settings: Settings, name: str, table: str, sealed: Path, error: sqlite3.DatabaseError) -> BackupError:
    return _error_class(error, sealed)(
        f"The table {printable(table)} of {settings.database} cannot be compared with {sealed}: {error}.",
        hint=f"`verify {name}` checks the backup; `doctor` looks at the live data.",
    )


def _error_class(error: sqlite3.DatabaseError, sealed: Path) -> type[BackupError]:
    """Return the error class for a failed comparison: the sealed database is damaged, else the live one, or neither."""
    if not engine.is_damage(error):
        return BackupError
    try:
        return Damaged if database.examine(sealed, database.QUICK).problems else SourceBroken
    except Damaged:
        return Damaged


def uploads_of(settings: Settings, backup: Backup) -> Path:
    """Return the folder of the backup's uploads, or of the tree of `settings`. Raise `NoSuchBackup` if it has none."""
    top, metadata = backup.path / settings.sealed_folder, store.require_metadata(backup).at(settings.part)
    if not (metadata and metadata.uploads_included) or top.is_symlink() or not top.is_dir():
        raise NoSuchBackup(f"There are no {top.name} in {backup.path}.", hint="`list` shows the backups there are.")
    return top


def _path_inside(top: Path, path: str) -> Path:
    """Return the path below the uploads. Raise `Refused` if it leaves them, or leads through a link."""
    if path and not manifest.is_inside(path):
        raise Refused(f"{printable(path)} is not a path below {top}.", hint="Take one from the folder's list.")
    parts = path.split("/") if path else []
    if any(top.joinpath(*parts[:number]).is_symlink() for number in range(1, len(parts) + 1)):
        raise Refused(f"{printable(path)} leads through a link.", hint="Take the file where the link points.")
    return top / path


def _require_file(source: Path) -> None:
    """Raise `NoSuchBackup` if the file does not exist, `Refused` if it is not a file."""
    named = printable(str(source))
    try:
        mode = os.lstat(source).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoSuchBackup(f"There is no file {named}.", hint="Take one from the folder's list.") from error
    if not stat.S_ISREG(mode):
        raise Refused(f"{named} is not a file.", hint="Only a file can be taken out; `export` takes all.")


def _checksum(backup: Backup, path: str, emit: EventListener) -> str | None:
    """Return the sealed checksum of the file; None if it is not listed, or, with a warning, if there is no list."""
    if not manifest.has_checksums(backup.path):
        emit(Warned(f"{backup.name} has no checksums (unchecked): the file is taken out as it lies there."))
        return None
    return manifest.checksum_of(backup.path, path)


def _database_file(backup: Backup, part: str) -> Path:
    metadata = store.require_metadata(backup).at(part)
    if (metadata is None or metadata.database_file is None) and part:
        raise NoSuchBackup(f"{backup.path} holds no {printable(part)}.", f"`show {backup.name}` says what is in it.")
    if metadata is None or metadata.database_file is None:
        raise NoSuchBackup(f"There is no database in {backup.path}.", hint="`list` shows the backups there are.")
    file = backup.path / metadata.database_file
    if file.is_symlink() or not file.is_file() or file.stat().st_size == 0:
        raise Damaged(f"{file} is missing, empty or a link.", hint="Try another backup: `list`.")
    return file


@contextlib.contextmanager
def _database_of(settings: Settings, name: str) -> Iterator[sqlite3.Connection]:
    """Open the backup's database read-only while the block runs. Raise `Damaged` if SQLite cannot read it."""
    file = _database_file(store.find(settings, name), settings.part)
    try:
        with database.open_sealed(file) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise Damaged(f"{file} cannot be read: {error}.", hint=f"`verify {name}`; try another backup.") from error


def _require_table(connection: sqlite3.Connection, table: str, where: str) -> None:
    if not rows.columns_of(connection, table):
        raise query.no_table(connection, table, where)
