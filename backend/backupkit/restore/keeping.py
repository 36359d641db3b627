"""Make sure that a backup holds the live database before a restore replaces it; others are locked out by then.

The safety copy is made before the restore is prepared. The app may write meanwhile, and after a kill until the
restore is finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import structs

from backupkit.backup.make import make_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.clock import Clock
from backupkit.model.errors import SourceBroken
from backupkit.model.events import EventListener, Kept, Notice, silence
from backupkit.repository import store
from backupkit.restore import journal, staging
from backupkit.restore.journal import Journal
from backupkit.sqlite import database

LiveState = Literal["wanted", "kept", "unknown"]


def keep(settings: Settings, found: Journal, is_resumed: bool, emit: EventListener, clock: Clock) -> Journal:
    """Make another safety copy of the live data, write the journal with its name, and return that journal.

    `is_resumed` is whether the restore was interrupted: then the app's later writes cause a warning, not a notice.
    """
    # In a rollback the uploads are partly restored: a copy of them would not be the earlier state.
    with_uploads = bool(found.safety and any(one.uploads for one in found.parts))
    note = f"what the app wrote after the safety copy for {found.source} was made"
    if found.is_of_migration:
        note = "what the unfinished migration wrote, and the app since it began"
    request = BackupRequest(kind="pre_restore", note=note, uploads=with_uploads)
    made = make_backup(settings, request, emit, clock).backup
    found = structs.replace(found, kept=(*found.kept, made.name))
    for part in found.parts:
        is_restored = not (part.database or (part.uploads and not part.facts))  # databases go first, then trees
        if part.safety and not is_restored:  # of a restored part this copy has the new state, not the earlier one
            found = found.with_part(structs.replace(part, safety=made.name))
    journal.write(settings.dir, found)
    if found.is_of_migration:
        emit(Kept(f"What the unfinished migration wrote, and the app since it began, is kept in {made.name}."))
    elif is_resumed:
        emit(Kept(f"The database was written to since the restore was prepared; that is kept in {made.name}."))
    else:
        emit(Notice(f"The app wrote to the database meanwhile; that is kept in {made.name}."))
    return found


def live_state(settings: Settings, found: Journal) -> LiveState:
    """Return whether the live database is the wanted one, or one of a backup of the journal ("kept"); by content.

    The settings and the journal are those of the database's part. A missing database is "kept".
    """
    wanted = staging.wanted_database(settings, found)
    with store.work_folder(settings, "compared", "restore") as folder:
        taken = _copy_live(settings, folder)
        if not taken:
            return "kept"
        if wanted.exists() and _are_same(taken, [wanted]):
            return "wanted"
        holders = found.holders(settings.dir)
        return "kept" if any(_are_same(taken, _files_in(one, settings)) for one in holders) else "unknown"


def _copy_live(settings: Settings, folder: Path) -> list[Path]:
    """Return a copy of the live database: one file, its raw files if it is broken, or none if it is missing."""
    live = settings.database
    if not database.has_files(live):
        return []
    try:
        with database.snapshot(live, settings.busy_timeout) as snapshot:
            database.copy(snapshot, folder / live.name, silence)
            return [folder / live.name]
    except SourceBroken:
        (folder / live.name).unlink(missing_ok=True)
        return [folder / name for name in database.keep_raw(live, folder)]


def _files_in(backup: Path, settings: Settings) -> list[Path]:
    sealed = backup / settings.sealed_database
    return [path for path in (sealed, *database.sidecars(sealed)) if path.exists()]


def _are_same(one: list[Path], two: list[Path]) -> bool:
    """Return whether both are the same database: the same pages, or the same raw files byte for byte."""
    if [path.name for path in one] != [path.name for path in two]:
        return False
    return all(database.same_content(left, right) for left, right in zip(one, two, strict=True))
