"""The recovery kit: everything needed to restore after the machine is lost. Read-only, and it holds no secret."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from msgspec import Struct

from backupkit.config.remotes import RemoteTable, secret_origins
from backupkit.config.settings import Settings, origins, secret_names
from backupkit.fs import disk
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.repository import reliable, store


class RemoteAccess(Struct, frozen=True):
    """A remote: its name, its place, and the command that fetches the newest backup from it.

    `lacks_uploads`: the app has uploads and the remote does not get them, so that none there is `latest`.
    No field may hold a password.
    """

    name: str
    place: str
    fetch: str
    lacks_uploads: bool = False


class RecoveryKit(Struct, frozen=True):
    """Everything for the sheet. `secrets` are the names of the secrets that are set, each with its origin.

    `ways_in` are names of remotes, each with what else access to it requires.
    """

    made_at: datetime
    settings: Settings
    newest: Backup | None
    proven: Backup | None
    copies: tuple[RemoteAccess, ...]
    recipients: tuple[str, ...]
    secrets: tuple[tuple[str, str], ...]
    ways_in: tuple[tuple[str, str], ...] = ()


def _access(settings: Settings, name: str, table: RemoteTable) -> RemoteAccess:
    lacks_uploads = settings.uploads is not None and not table.holds_uploads
    wanted = "NAME" if lacks_uploads else store.LATEST
    return RemoteAccess(name, table.place, f"./backup.sh pull {wanted} --remote {name}", lacks_uploads)


def recovery_kit(settings: Settings, clock: Clock = utc_now) -> RecoveryKit:
    """Return the kit as of now: the newest reliable backup, the last proven one, the remotes, keys and secret names."""
    backups = store.own_backups(settings)
    sound = [one for one in backups if not reliable.why_not_latest(settings, one, clock())]
    proven = [(one.proven_at, one) for one in backups if one.proven_at]
    come_from = origins(settings)
    return RecoveryKit(
        made_at=clock(),
        settings=settings,
        newest=sound[0] if sound else None,
        proven=max(proven, key=lambda pair: pair[0])[1] if proven else None,
        copies=tuple(_access(settings, name, table) for name, table in settings.remotes.items()),
        recipients=tuple(settings.export_recipients.split()),
        secrets=(
            *((name, come_from[name]) for name in secret_names() if getattr(settings, name)),
            *secret_origins(settings.remotes),
        ),
        ways_in=tuple((name, table.way_in) for name, table in settings.remotes.items() if table.way_in),
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
