"""Keep what can still be read of a broken database, as a backup of kind `salvaged`.

1. another process copies the broken file and its sidecars, so SQLite never opens them and nothing is rolled back
2. the copy is read page by page into a new database (`sqlite/rebuild.py`)
3. the new database is compared with the newest good backup, row by row
4. it becomes an ordinary backup with the uploads and, if the app has several databases, the others as they are;
   everything missing is a warning, and one sentence says what to restore
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupkit.backup.create import refuse_overlap
from backupkit.backup.make import Created, make_backup
from backupkit.config.settings import Settings
from backupkit.fs import disk, space
from backupkit.model.backup import MAIN_DATABASE, UPLOADS_FOLDER, Backup, BackupRequest
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, NoSpace, Refused, SourceBroken, SourceUnreadable
from backupkit.model.events import EventListener, Notice, Step, Warned, collecting, silence
from backupkit.model.names import few, is_name, printable, printable_text
from backupkit.repository import store
from backupkit.repository.operation import locked_operation
from backupkit.restore.recovery import recover_under_lock
from backupkit.sqlite import database, rows
from backupkit.sqlite.rebuild import LOST_AND_FOUND, Rebuilt, TableRows
from backupkit.sqlite.rebuilder import rebuild

_TRIES = 3  # attempts to copy files that the app may be writing
_SECONDS = 60  # limit for comparing rows with the newest backup
_NOTHING_TO_RESTORE = (
    "The database is not damaged: nothing needs to be restored. Rows that were deleted are in backups:"
    " `rows NAME TABLE --diff`."
)
_NO_DEFINITIONS = (
    f"The definitions of all tables are lost, and no backup has them: every row that was found is in {LOST_AND_FOUND}. "
    f"The app cannot use it. Look at the rows: `rows NAME {LOST_AND_FOUND}`"
)
_MAKE_ROOM = "Make room there, then try again."


class SalvagedTable(Struct, frozen=True):
    """Row counts of one table: found now, and compared with the newest good backup (None if not compared).

    `lost_pages` and `lost_rows` exist but could not be read; rows of `odd_pages` may be lost; `not_taken` rows violated
    a constraint.
    """

    name: str
    found: int
    in_backup: int | None = None
    missing: int | None = None
    changed: int | None = None
    new: int | None = None
    lost_pages: int = 0
    lost_rows: int = 0
    odd_pages: int = 0
    not_taken: int = 0


class Salvaged(Struct, frozen=True):
    """The result of a salvage. `created` is None for a dry run.

    `recommended` names the backup to restore; it is empty if nothing is damaged and so nothing needs to be restored.
    """

    source: Path
    compared_with: str
    tables: tuple[SalvagedTable, ...]
    created: Created | None
    recommended: str
    advice: str
    warnings: tuple[str, ...]
    only: str | None = None
    """The name of the database, if the app has several: restore the recommended backup with `--only` this one."""

    @property
    def rows(self) -> int:
        return sum(one.found for one in self.tables)


class _Source(Struct, frozen=True):
    """The broken database, and the settings to back it up with, which name the uploads that belong to it, if any."""

    file: Path
    settings: Settings
    has_uploads: bool


class _Rebuilding(Struct, frozen=True):
    """What was read: the new database, its tables, the backup it was compared with, and warnings of what is missing."""

    file: Path
    tables: tuple[SalvagedTable, ...]
    known: _GoodBackup | None
    warnings: tuple[str, ...]
    is_undamaged: bool
    has_lost_definitions: bool


class _GoodBackup(Struct, frozen=True):
    """The newest good backup, and its copy of the same database."""

    name: str
    file: Path


def salvage(
    settings: Settings,
    file: str | None = None,
    include_free: bool = False,
    emit: EventListener = silence,
    clock: Clock = utc_now,
) -> Salvaged:
    """Back up what can still be read of the live database, or of `file`; the source is only read.

    `settings` may be those of one of several databases. `file` is a path, or the name of a backup, whose database is
    then read and whose uploads are included. With `include_free`, deleted rows that can still be found are restored
    too. Raise `SourceBroken` if nothing can be read, `NoSuchBackup` if the file does not exist, `NoSpace`, `Locked`.
    """
    refuse_overlap(settings)
    store.require(settings.dir)
    source = _source(settings, file)
    with locked_operation(settings, "salvage", emit, clock) as work:
        recover_under_lock(settings, work.emit)
        warnings: list[str] = []
        with _rebuild_copy(settings, source, include_free, work.emit) as found:
            for warning in found.warnings:
                collecting(work.emit, warnings)(Warned(warning))
            request = BackupRequest(kind="salvaged", note=_note(source.file), uploads=source.has_uploads)
            created = make_backup(source.settings, request, work.emit, clock, found.file)
        work.about(created.backup)
        return _result(source, found, replace(created, warnings=(*warnings, *created.warnings)))


def plan_salvage(
    settings: Settings, file: str | None = None, include_free: bool = False, emit: EventListener = silence
) -> Salvaged:
    """Return what `salvage` would find, without making a backup; the rebuilt database is deleted again."""
    store.require(settings.dir)
    source = _source(settings, file)
    with _rebuild_copy(settings, source, include_free, emit) as found:
        for warning in found.warnings:
            emit(Warned(warning))
        return _result(source, found, None)


# Reading the broken database


def _source(settings: Settings, file: str | None) -> _Source:
    if file is None:
        return _live(settings)
    named = settings.dir / file
    if is_name(file) and store.is_backup(named):
        if settings.part:
            return _Source(named / _database_of(settings, file), settings, has_uploads=False)
        inside = settings.replaced(uploads=named / UPLOADS_FOLDER)
        return _Source(named / _database_of(settings, file), inside, (named / UPLOADS_FOLDER).is_dir())
    path = Path(os.path.realpath(store.file_named(settings, file)))
    if path == settings.database:
        return _live(settings)
    if path in settings.live_databases:
        number = settings.live_databases.index(path)
        name = [MAIN_DATABASE, *settings.whole.databases][number]
        raise Refused(
            f"{path} is another database of this app: what is left of it would be restored as {_part(settings)}.",
            hint=f"`salvage --database {name}`",
        )
    if path.exists() or not _has_wal(path):
        missing = f"There is no database at {path}."
        store.require_file(settings, path, missing, "*.db", "Name the database file, or a backup: `list`")
    return _Source(path, settings, has_uploads=False)


def _live(settings: Settings) -> _Source:
    live, uploads = settings.database, settings.uploads
    if not _has_wal(live) or (live.exists() and not live.is_file()):
        database.require(live)
    return _Source(live, settings, uploads is not None and uploads.is_dir())


def _has_wal(file: Path) -> bool:
    """Return whether a sidecar of it has content: rows may be in it, even if the database itself is gone."""
    return any(path != file and path.stat().st_size for path in database.raw_files(file))


def _database_of(settings: Settings, name: str) -> str:
    sealed = store.read(settings, name).metadata
    metadata = sealed and sealed.at(settings.part)
    return (metadata and metadata.database_file) or settings.database.name


def _part(settings: Settings) -> str:
    return settings.part or MAIN_DATABASE


def _note(file: Path) -> str:
    return printable_text(f"what could be read of {file}")


@contextlib.contextmanager
def _rebuild_copy(
    settings: Settings, source: _Source, include_free: bool, emit: EventListener
) -> Iterator[_Rebuilding]:
    """Yield what can be read; the rebuilt database is deleted when the block ends."""
    known = _newest_good(settings, source.file)
    with store.work_folder(settings, "salvage", "salvage") as folder:
        copies, target = folder / "broken", folder / "salvaged.db"
        copies.mkdir()
        broken = copies / source.file.name
        said: list[str] = []
        emit(Step(f"Copying {source.file.name}"))
        _copy(source.file, copies, said)
        broken.touch()  # if only the WAL is left
        try:
            rebuilt = rebuild(broken, target, known.file if known else None, include_free, emit)
        except sqlite3.DatabaseError as error:
            raise _write_error(folder, error) from error
        if not rebuilt.rows and not rebuilt.is_whole:
            raise SourceBroken(f"Nothing can be read of {source.file}: no row was found in it.", hint=database.PUT_BACK)
        os.chmod(target, _mode(source.file))
        disk.remove_tree(copies)
        tables = _compared(rebuilt, target, known, emit)
        is_undamaged = rebuilt.is_whole and not any(map(_is_altered, tables))
        if is_undamaged:
            emit(Notice(f"No damage was found in {source.file}: use `backup`, which copies the pages as they are."))
        warnings = (*said, *_warnings(source, rebuilt, tables, known))
        yield _Rebuilding(target, tables, known, warnings, is_undamaged, rebuilt.has_lost_definitions)


def _write_error(folder: Path, error: sqlite3.DatabaseError) -> BackupError:
    if disk.is_full(folder) or "is full" in str(error):
        return NoSpace(f"The disk is full: {folder.parent}.", hint=_MAKE_ROOM)
    return BackupError(f"The new database cannot be written in {folder.parent}: {error}.", hint="See `doctor`.")


def _mode(file: Path) -> int:
    return file.stat().st_mode & 0o777 if file.exists() else 0o600


def _copy(file: Path, folder: Path, said: list[str]) -> None:
    """Copy the file and its sidecars as they are; add warnings to `said`, also if they were written to meanwhile."""
    paths = database.raw_files(file)
    odd = (path for path in database.sidecars(file) if os.path.lexists(path) and path not in paths)
    said.extend(f"{path} is a link, or no file: it is left out." for path in odd)
    for path in paths:
        if not os.access(path, os.R_OK):
            hint = f"Run as a user who may read it: ls -ld {path}"
            raise SourceUnreadable(f"{path} cannot be read: permission denied.", hint)
    # Space for the copy, for the new database, and for sorting its indexes.
    space.require(3 * sum(path.stat().st_size for path in paths), folder, "This salvage")
    for _ in range(_TRIES):
        before = _stamps(file)
        try:
            database.keep_raw(file, folder)
        except subprocess.CalledProcessError as error:
            if disk.is_full(folder):
                raise NoSpace(f"The disk is full: {folder.parent}.", hint=_MAKE_ROOM) from error
            raise SourceUnreadable(
                f"{file} cannot be copied: cp ended with {error.returncode}.", database.PUT_BACK
            ) from error
        if _stamps(file) == before:
            return
    said.append(f"{file} was written to while it was copied: stop the app, then salvage once more.")


def _stamps(file: Path) -> list[tuple[int, int, int]]:
    facts = [os.stat(path) for path in database.raw_files(file) if path in (file, *database.sidecars(file)[:1])]
    return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in facts]


# Comparison with the newest good backup


def _newest_good(settings: Settings, file: Path) -> _GoodBackup | None:
    for backup in store.own_backups(settings):
        sealed = _file_in(backup, settings.part) if backup.is_usable and backup.kind != "salvaged" else None
        if sealed and sealed != file and _is_readable(sealed):
            return _GoodBackup(backup.name, sealed)
    return None


def _file_in(backup: Backup, part: str) -> Path | None:
    metadata = backup.metadata and backup.metadata.at(part)
    return backup.path / metadata.database_file if metadata and metadata.database_file else None


def _is_readable(file: Path) -> bool:
    with contextlib.suppress(OSError, sqlite3.Error), database.open_sealed(file) as connection:
        return bool(database.ordinary_tables(connection))
    return False


def _compared(
    rebuilt: Rebuilt, target: Path, known: _GoodBackup | None, emit: EventListener
) -> tuple[SalvagedTable, ...]:
    """Return the row counts of each table in the new database or in the backup, sorted by name."""
    in_backup: dict[str, int] = {}
    if known:
        emit(Step(f"Comparing with {known.name}"))
        with contextlib.suppress(sqlite3.Error), database.open_sealed(known.file) as connection:
            in_backup = database.count_rows(connection)
    with database.open_sealed(target) as connection:
        found = database.count_rows(connection)
        both = [name for name in found if name in in_backup]
        changes = rows.count_changes(connection, both, known.file, _SECONDS) if known else {}
    reports = {one.name: one for one in rebuilt.tables}
    return tuple(
        _table(
            reports.get(name, TableRows(name)),
            found.get(name, 0),
            in_backup.get(name),
            changes.get(name),
            bool(in_backup),
        )
        for name in sorted({*found, *in_backup})
    )


def _table(
    report: TableRows, found: int, before: int | None, changes: rows.Changes | None, is_compared: bool
) -> SalvagedTable:
    lost = report.lost
    table = SalvagedTable(
        report.name,
        found,
        before,
        lost_pages=lost.pages,
        lost_rows=lost.rows,
        odd_pages=lost.odd_pages,
        not_taken=report.not_taken,
    )
    if changes:
        return replace(table, missing=changes.added, changed=changes.changed, new=changes.removed)
    if before is not None and not found:
        return replace(table, missing=before, changed=0, new=0)
    if before is None and is_compared:
        return replace(table, missing=0, changed=0, new=found)
    return table


# Warnings and advice


def _warnings(
    source: _Source, rebuilt: Rebuilt, tables: tuple[SalvagedTable, ...], known: _GoodBackup | None
) -> Iterator[str]:
    if not source.has_uploads and source.file == source.settings.database and source.settings.uploads:
        yield f"There are no uploads at {source.settings.uploads}: the backup has the database only."
    for one in rebuilt.tables:
        if lost := _lost(one):
            yield f"{printable(one.name)}: {lost}."
    if not rebuilt.is_whole_schema:
        names = f"; from {known.name}: {few(rebuilt.from_backup)}" if known and rebuilt.from_backup else ""
        yield f"Not all of the schema can be read{names}."
    if rebuilt.no_place:
        yield f"{rebuilt.no_place} rows on pages that no tree leads to fit no table, or several, or an index: left out."
    if rebuilt.lost_frames:
        yield f"{rebuilt.lost_frames} pages of the WAL or the journal have a wrong checksum: they are left out."
    yield from rebuilt.notes
    for altered in filter(_is_altered, tables):
        differ = f"{altered.changed} of {altered.in_backup} rows differ from the backup"
        yield f"{printable(altered.name)}: {differ}: changed since, or damaged."
    shared = [one for one in tables if one.in_backup is not None and one.found]
    if known and not shared:
        yield f"It has no table in common with {known.name}: is it this app's database?"


def _lost(table: TableRows) -> str:
    """Describe what could not be read of a table; empty if nothing is lost."""
    parts = []
    if table.lost.pages:
        parts.append(f"pages that cannot be read: {table.lost.pages}, and so the rows below them")
    if table.lost.rows:
        parts.append(f"rows that cannot be read, or whose number another row has: {table.lost.rows}")
    if table.lost.odd_pages:
        parts.append(f"pages of which rows may be lost: {table.lost.odd_pages}")
    if table.adrift:
        parts.append(f"rows found on pages that no tree leads to: {table.adrift}")
    if table.not_taken:
        parts.append(f"rows that do not fit: {table.not_taken} ({table.reason})")
    return "; ".join(parts)


def _result(source: _Source, found: _Rebuilding, created: Created | None) -> Salvaged:
    name = created.backup.name if created else "the salvaged backup"
    known = found.known.name if found.known else ""
    if found.is_undamaged or found.has_lost_definitions:
        recommended, advice = "", _NOTHING_TO_RESTORE if found.is_undamaged else _NO_DEFINITIONS
    else:
        recommended, advice = _advice(name, known, found.tables)
    warnings = created.warnings if created else found.warnings
    only = _part(source.settings) if source.settings.whole.databases else None
    advice += f" With `--only {only}`: the other databases stay as they are." if only and recommended else ""
    return Salvaged(source.file, known, found.tables, created, recommended, advice, warnings, only)


def _is_altered(table: SalvagedTable) -> bool:
    """Return whether most of the backup's rows have other values now."""
    return bool(table.in_backup and table.changed and 2 * table.changed > table.in_backup)


def _is_poorer(table: SalvagedTable) -> bool:
    """Return whether it has fewer rows than in the backup, and probably lost them by damage, not by deletion."""
    is_damaged = not table.found or table.lost_pages or table.lost_rows or table.not_taken
    return bool(is_damaged and table.found < (table.in_backup or 0))


def _advice(name: str, known: str, tables: tuple[SalvagedTable, ...]) -> tuple[str, str]:
    """Return the backup to restore, and why. A salvage with fewer rows than the last backup is never recommended."""
    if not known:
        return name, f"There is no good backup to compare with: `restore {name}`"
    here, there = sum(one.found for one in tables), sum(one.in_backup or 0 for one in tables)
    missing, new = sum(one.missing or 0 for one in tables), sum(one.new or 0 for one in tables)
    fewer = [one.name for one in tables if one.found < (one.in_backup or 0)]
    only = f" Only {name} has the {new} newer rows." if new else ""
    if here < there:
        return known, f"Fewer rows came back than {known} holds ({here} of {there}): restore {known}.{only}"
    if poor := [one.name for one in tables if _is_poorer(one)]:
        return known, f"Rows of {few(poor)} that {known} holds were lost: restore {known}.{only}"
    less = f" Fewer rows than there came back of {few(fewer)}: look at it first." if fewer else ""
    gone = f" {missing} rows of {known} are not in it: deleted since, or lost." if missing else ""
    return name, f"Restore {name}: {here} rows, of which {new} came since {known}.{gone}{less}"
