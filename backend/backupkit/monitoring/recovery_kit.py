"""The recovery kit: everything needed to restore after the machine is lost. Read-only, and it holds no secret."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from msgspec import Struct

from backupkit.config.remotes import secret_origins
from backupkit.config.settings import Settings, origins, secret_names
from backupkit.fs import disk
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.repository import reliable, store


class RecoveryKit(Struct, frozen=True):
    """What the sheet has beside the settings. `secrets` are the names of those that are set, each with its origin."""

    made_at: datetime
    settings: Settings
    newest: Backup | None
    proven: Backup | None
    recipients: tuple[str, ...]
    secrets: tuple[tuple[str, str], ...]


def recovery_kit(settings: Settings, clock: Clock = utc_now) -> RecoveryKit:
    """Return the kit as of now: the newest reliable backup, the last proven one, keys and secret names."""
    backups = store.own_backups(settings)
    sound = [one for one in backups if not reliable.why_not_latest(settings, one, clock())]
    proven = [(one.proven_at, one) for one in backups if one.proven_at]
    come_from = origins(settings)
    return RecoveryKit(
        made_at=clock(),
        settings=settings,
        newest=sound[0] if sound else None,
        proven=max(proven, key=lambda pair: pair[0])[1] if proven else None,
        recipients=tuple(settings.export_recipients.split()),
        secrets=(
            *((name, come_from[name]) for name in secret_names() if getattr(settings, name)),
            *secret_origins(settings.remotes),
        ),
    )


def sheet_path(settings: Settings, file: str) -> Path:
    """Return the path for a sheet of that name: a bare name lies in the backups folder.

    Raises `Refused` if the path exists, or its folder does not.
    """
    path = store.file_named(settings, file)
    store.require_free(path)
    return path


def write_sheet(path: Path, text: str) -> None:
    """Write the sheet to a new file that only its owner may read."""
    disk.write_file(path, text.encode(errors="surrogateescape"))
