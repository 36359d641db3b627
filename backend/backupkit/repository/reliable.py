"""Which backups can be relied on, and why others cannot: one answer for `latest`, the status and retention. Pure.

Whole backups and database-only backups are separate: one never counts as the other.
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
    """Return whether it is a backup of this app; if it names no app, the database's file name decides."""
    if metadata.app_id is not None:
        return metadata.app_id == settings.app_id
    return metadata.database_file in (None, settings.database.name)


def owner_of(metadata: Metadata) -> str:
    """Return the app that it is a backup of: its id, else the database's file name without suffix, maybe empty."""
    return metadata.app_id or PurePath(metadata.database_file or "").stem


def is_whole(settings: Settings, metadata: Metadata) -> bool:
    """Return whether it has the database and, if the app has uploads, those too."""
    return metadata.database_file is not None and (metadata.uploads_included or settings.uploads is None)


def why_not_latest(settings: Settings, backup: Backup, now: datetime) -> str:
    """Return why the backup cannot be `latest`; empty if it can."""
    metadata = backup.metadata
    if metadata is None or backup.state == "damaged":
        return "damaged"
    reasons = (
        (not is_own(settings, metadata), f"of another app: {owner_of(metadata) or 'it names none'}"),
        (metadata.kind == "pre_restore", "a safety copy"),
        (metadata.kind == "salvaged", "made by salvage"),
        (metadata.is_raw, "raw files of a broken database"),
        (metadata.created_at > now + CLOCKS_DIFFER, "dated in the future"),
        (metadata.database_file is None, "without the database"),
        (not is_whole(settings, metadata), "without the uploads"),
        (bool(backup.unusual), f"unusual: {', '.join(backup.unusual)}"),
    )
    return next((text for is_so, text in reasons if is_so), "")


def passed_over(settings: Settings, backups: Iterable[Backup], now: datetime) -> str:
    """Return a text of the backups that cannot be `latest`, by reason; safety copies are not mentioned."""
    names: dict[str, list[str]] = {}
    for backup in backups:
        if backup.kind != "pre_restore":
            names.setdefault(why_not_latest(settings, backup, now), []).append(backup.name)
    return printable("; ".join(f"{few(found)} ({reason})" for reason, found in names.items()))
