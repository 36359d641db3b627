"""Detect an unfinished restore. Every command does this first, so this module imports little."""

from __future__ import annotations

from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import staging_area
from backupkit.fs.staging_area import Identity
from backupkit.model.errors import BackupError
from backupkit.model.names import printable
from backupkit.repository import lock
from backupkit.restore import journal


def exists(settings: Settings) -> bool:
    """Return whether a restore left a journal or a staging area."""
    return journal.exists(settings.dir) or any(map(staging_area.exists, live_folders(settings)))


def describe(settings: Settings) -> str | None:
    """Return a sentence about an unfinished restore, or None if there is none or it is under way."""
    if not exists(settings) or lock.is_held(settings.dir):
        return None
    try:
        if found := journal.read(settings.dir):
            return (
                f"The restore of {printable(found.source)}, interrupted on {printable(found.started)}, is not finished."
            )
        require_backups(settings, [one for one in live_folders(settings) if not lock.is_claimed(one)])
    except (BackupError, OSError) as error:
        return str(error)
    return None


def require_backups(settings: Settings, folders: list[Path]) -> list[tuple[Path, Identity | None]]:
    """Return the staging areas with their owners; raise `BackupError` if one belongs to another backups folder."""
    areas = [(folder, staging_area.owner_of_area(folder)) for folder in folders if staging_area.exists(folder)]
    for folder, identity in areas:
        if identity and not staging_area.is_of(identity, settings.dir):
            place = staging_area.place_of(folder)
            lacks = "holds only a copy of" if (settings.dir / identity.safety).is_dir() else "does not hold"
            raise BackupError(
                f"A restore is unfinished: {place} belongs to it, and its backups folder {printable(identity.backups)} "
                f"is not here: {settings.dir} {lacks} its safety copy {printable(identity.safety)}.",
                hint="Make that folder available, as BACKUP_DIR, and type: `recover`. If it is lost for good: the data "
                f"may be half restored; remove {place.name} there, then restore another backup.",
            )
    return areas


def live_folders(settings: Settings) -> list[Path]:
    """Return the app's folders that a restore stages in."""
    return list(dict.fromkeys(folder for part in settings.parts for folder in _folders_of(part)))


def _folders_of(part: Settings) -> list[Path]:
    is_tree = part.part and part.uploads
    return [*([] if is_tree else [part.database.parent]), *([part.uploads] if part.uploads else [])]
