"""What each remote held when it was last asked, stored in `backups/.state/remotes/NAME/`. Losing it loses no backup.

With it, retention knows which backups are not pushed yet, and `status` can report, without using the network.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import disk, own_folder
from backupkit.model import documents
from backupkit.model.backup import Backup
from backupkit.model.documents import Document
from backupkit.model.errors import BackupError
from backupkit.model.events import EventListener
from backupkit.model.names import few
from backupkit.remotes.base import RemoteBackup, remote_document
from backupkit.repository import lock, store
from backupkit.repository.flags import STATE_FOLDER

_FILE = "seen.json"


class CachedListing(Struct, frozen=True):
    """A remote's backups, newest first, when it was asked, and whether it is on another disk than the backups here.

    `own`: names of those that this backups folder also held when they were listed; None if an earlier version asked.
    `found`: names of the others that were there when this backups folder asked for the first time.
    `gone`: names of the good copies that were there the last time that any was, if there is none now.
    """

    at: datetime | None = None
    backups: tuple[RemoteBackup, ...] = ()
    other_disk: bool = False
    own: tuple[str, ...] | None = None
    found: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    @property
    def strangers(self) -> tuple[RemoteBackup, ...]:
        """The copies with this app's id that this backups folder never held, newest first.

        Another machine pushed them, or another app whose database has the same name.
        """
        return () if self.own is None else tuple(one for one in self.backups if one.name not in self.own)

    @property
    def arrivals(self) -> tuple[RemoteBackup, ...]:
        """The strangers that appeared after the first listing: another machine or app pushes there too."""
        return tuple(one for one in self.strangers if one.name not in self.found)


def remember(
    settings: Settings, remote: str, there: Sequence[RemoteBackup], now: datetime, damaged: Collection[str] = ()
) -> CachedListing:
    """Store and return what the remote holds now. If it cannot be stored, the remote is asked again next time.

    `damaged`: names of the copies that are no loss if they are gone.
    """
    before = recall(settings.dir, remote)
    own = _own(settings, before, there)
    known = {one.name for one in there} if before.at is None else before.found
    found = tuple(one.name for one in there if one.name in known and one.name not in own)
    held = tuple(one.name for one in before.backups if one.name not in damaged)
    gone = () if there else held or before.gone
    seen = CachedListing(now, tuple(there), _is_on_another_disk(settings, remote), own, found, gone)
    _write(settings, remote, seen)
    return seen


def own(settings: Settings, remote: str, there: Sequence[RemoteBackup]) -> tuple[str, ...]:
    """Return the names of those that this backups folder holds, or held when they were last listed."""
    return _own(settings, recall(settings.dir, remote), there)


def gone_text(remote: str, gone: Sequence[str]) -> str:
    """Return the sentence for a remote that held these copies and holds none now."""
    return f"The copies that were on the remote {remote} are gone: {few(gone)}."


def adopt(settings: Settings, remote: str) -> None:
    """Treat every backup in the last listing as this backups folder's own from now on."""
    seen = recall(settings.dir, remote)
    if seen.strangers:
        _write(settings, remote, replace(seen, own=tuple(one.name for one in seen.backups), found=()))


def _write(settings: Settings, remote: str, seen: CachedListing) -> None:
    document = {
        "at": seen.at,
        "backups": list(map(remote_document, seen.backups)),
        "other_disk": seen.other_disk,
        "own": list(seen.own or ()),
        "found": list(seen.found),
        "gone": list(seen.gone),
    }
    write_document(settings, remote, _FILE, document)


def write_document(settings: Settings, remote: str, name: str, document: Document) -> None:
    """Write what is known of the remote to the file of that name. Ignore failures: the remote is asked again then."""
    with contextlib.suppress(OSError):
        if settings.dir.is_dir():
            with own_folder.made(settings.dir, *_folder(remote)) as folder:
                disk.write_file(folder / name, json.dumps(documents.plain(document)).encode())


def read_document(backups: Path, remote: str, name: str) -> Any:
    """Return the parsed file, or None if its folder is missing. Raises `OSError`, `ValueError`, `RecursionError`."""
    with own_folder.existing(backups, *_folder(remote)) as folder:
        return json.loads(disk.read_plain(folder / name, disk.MOST_STATE)) if folder else None


def _own(settings: Settings, before: CachedListing, there: Sequence[RemoteBackup]) -> tuple[str, ...]:
    known = {(one.name, one.created_at) for one in before.backups if before.own is None or one.name in before.own}
    return tuple(one.name for one in there if (one.name, one.created_at) in known or local_original(settings, one))


def local_original(settings: Settings, one: RemoteBackup) -> Backup | None:
    """Return the local backup that `one` is a copy of; None if it is gone, unreadable, or another has its name."""
    if not store.is_backup(settings.dir / one.name):
        return None
    try:
        backup = store.read(settings, one.name)
    except (BackupError, OSError):  # removed meanwhile, or it cannot be read
        return None
    return backup if backup.metadata and backup.metadata.created_at == one.created_at else None


def recall(backups: Path, remote: str) -> CachedListing:
    """Return what the remote held when it was last asked; empty if that is unknown."""
    try:
        seen = msgspec.convert(read_document(backups, remote, _FILE) or {}, CachedListing)
    except (OSError, ValueError, RecursionError):
        return CachedListing()
    moments = filter(None, (seen.at, *(one.created_at for one in seen.backups)))
    return seen if all(one.tzinfo for one in moments) else CachedListing()


def holders(settings: Settings, backup: Backup) -> list[str]:
    """Return the remotes that held this backup when last asked; by name alone if its metadata is unreadable."""
    made = backup.metadata.created_at if backup.metadata else None
    return [
        remote
        for remote in settings.remotes
        if any(
            one.name == backup.name and made in (None, one.created_at) for one in recall(settings.dir, remote).backups
        )
    ]


@contextlib.contextmanager
def one_at_a_time(backups: Path, remote: str, command: str, timeout: float, emit: EventListener) -> Iterator[None]:
    """Hold the lock of the remote against other runs on this machine; backups and restores go on. Raises `Locked`."""
    names = _folder(remote)
    with (
        own_folder.made(backups, *names) as folder,
        lock.held(folder, command, timeout, emit, backups.joinpath(*names)),
    ):
        yield


def _is_on_another_disk(settings: Settings, remote: str) -> bool:
    folder = settings.remotes[remote].local_folder(settings.app_dir)
    try:
        return folder is not None and folder.stat().st_dev != settings.dir.stat().st_dev
    except OSError:
        return False


def _folder(remote: str) -> tuple[str, ...]:
    return STATE_FOLDER, "remotes", remote
