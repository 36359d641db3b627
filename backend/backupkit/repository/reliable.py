"""Which backups can be relied on, and why another one cannot. One answer for `latest`, the status and retention. Pure.

Whole backups and those of the database alone are two lines: the one never stands in for the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import PurePath

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, Metadata
from backupkit.model.names import few, printable

CLOCKS_DIFFER = timedelta(minutes=5)


def is_own(settings: Settings, metadata: Metadata) -> bool:
    """Whether it is a backup of this app; where it names none, the name of its database tells."""
    if metadata.app_id is not None:
        return metadata.app_id == settings.app_id
    return metadata.database_file in (None, settings.database.name)


def owner_of(metadata: Metadata) -> str:
    """Whose backup it is, as far as it says so."""
    return metadata.app_id or PurePath(metadata.database_file or "").stem


def is_whole(settings: Settings, metadata: Metadata) -> bool:
    """Whether it holds all that this app has: the database, and the uploads where there are any."""
    return metadata.database_file is not None and (metadata.uploads_included or settings.uploads is None)


def why_not(settings: Settings, backup: Backup, now: datetime) -> str:
    """Why the backup is not taken for `latest`; empty where nothing speaks against it."""
    metadata = backup.metadata
    if metadata is None or backup.state == "damaged":
        return "damaged"
    reasons = (
        (not is_own(settings, metadata), f"of another app: {owner_of(metadata) or 'it names none'}"),
        (metadata.kind == "pre_restore", "a safety copy"),
        (metadata.kind == "salvaged", "salvaged from a broken database"),
        (metadata.is_raw, "raw files of a broken database"),
        (metadata.created_at > now + CLOCKS_DIFFER, "dated in the future"),
        (metadata.database_file is None, "without the database"),
        (not is_whole(settings, metadata), "without the uploads"),
        (bool(backup.unusual), f"unusual: {', '.join(backup.unusual)}"),
    )
    return next((text for is_so, text in reasons if is_so), "")


def passed_over(settings: Settings, backups: Iterable[Backup], now: datetime) -> str:
    """The backups that were passed over for `latest`, by their reasons; safety copies are never meant by it."""
    names: dict[str, list[str]] = {}
    for backup in backups:
        if backup.kind != "pre_restore":
            names.setdefault(why_not(settings, backup, now), []).append(backup.name)
    return printable("; ".join(f"{few(found)} ({reason})" for reason, found in names.items()))
