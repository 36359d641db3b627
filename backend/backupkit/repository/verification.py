"""Verification records of sealed backups, `backups/.state/proofs/NAME`. Losing them loses no backup.

`backups/.state/sound/NAME` has the checksum of the backup's database, if SQLite has checked that database here.

Each record has the time its backup was made, so a later backup of the same name does not inherit it. Records are
written without the lock, since verify never waits for it: each write replaces the record atomically, the last one wins.
"""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from backupkit.fs import disk, own_folder
from backupkit.model import documents
from backupkit.model.backup import Flaw, Metadata, Seconds
from backupkit.model.documents import Document
from backupkit.model.errors import BackupError
from backupkit.repository import flags
from backupkit.repository.flags import PROOFS, SOUND, STATE_FOLDER

_ATTEMPTS = 3


class Record(Struct, frozen=True):
    """When a backup was checked (`checked_at`), test-restored (`tried_at`) and proven by that, and what was found.

    `not_proven` is why the last test restore failed; `recovery_seconds` is how long the restore took.
    """

    made_at: datetime
    checked_at: datetime | None = None
    tried_at: datetime | None = None
    proven_at: datetime | None = None
    recovery_seconds: Seconds | None = None
    not_proven: str = ""
    flaws: tuple[Flaw, ...] = ()


def read(backups: Path, name: str, metadata: Metadata) -> Record:
    """Return the record of this backup; an empty one if there is none, or it is unreadable or of another backup."""
    try:
        found = _load(backups, name)
    except (OSError, ValueError, RecursionError):
        return Record(metadata.created_at)
    return found if found.made_at == metadata.created_at else Record(metadata.created_at)


def is_broken(backups: Path, name: str) -> bool:
    """Return whether there is a record but it cannot be read."""
    try:
        _load(backups, name)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return False


def write(backups: Path, name: str, record: Record) -> None:
    """Write the record, replacing an earlier one."""
    content = json.dumps(documents.plain(_document(record))).encode()  # ASCII: a path may be any bytes
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with own_folder.made(backups, STATE_FOLDER, PROOFS) as folder:
                return disk.write_file(folder / name, content)
        except FileNotFoundError:  # another run cleared its draft away as a leftover
            if attempt == _ATTEMPTS:
                raise


def _document(record: Record) -> Document:
    return {
        "made_at": record.made_at,
        "checked_at": record.checked_at,
        "tried_at": record.tried_at,
        "proven_at": record.proven_at,
        "recovery_seconds": record.recovery_seconds,
        "not_proven": record.not_proven,
        "flaws": documents.flaws(record.flaws),
    }


def forget(backups: Path, name: str) -> None:
    """Delete the record and the checksum of a backup."""
    flags.clear(backups, PROOFS, name)
    flags.clear(backups, SOUND, name)


def remember_sound(backups: Path, name: str, checksum: str) -> None:
    """Record that SQLite checked the database with this checksum here, opened writable: a restore can skip that check.

    The file is not synced. If it is lost, the restore checks again.
    """
    with contextlib.suppress(OSError), own_folder.made(backups, STATE_FOLDER, SOUND) as folder:
        disk.remove(folder / name)
        with open(disk.make_file(folder / name), "wb") as file:
            file.write(checksum.encode())


def is_known_sound(backups: Path, name: str, checksum: str) -> bool:
    """Return whether `remember_sound` was called with this checksum."""
    try:
        with own_folder.existing(backups, STATE_FOLDER, SOUND) as folder:
            return folder is not None and disk.read_plain(folder / name, disk.MOST_STATE) == checksum.encode()
    except (BackupError, OSError):
        return False


def _load(backups: Path, name: str) -> Record:
    with own_folder.existing(backups, STATE_FOLDER, PROOFS) as folder:
        if folder is None:
            raise FileNotFoundError
        record = msgspec.convert(json.loads(disk.read_plain(folder / name, disk.MOST_STATE)), Record)
    times = filter(None, (record.made_at, record.checked_at, record.tried_at, record.proven_at))
    if not all(time.tzinfo for time in times):
        raise ValueError(f"the record of {name} has a time without its offset")
    return record
