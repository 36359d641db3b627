"""What verifying found of a sealed backup, kept beside it: `backups/.state/proofs/NAME`. Losing it loses no backup.

`backups/.state/sound/NAME` has the checksum of its database, where SQLite has checked that here.

Each record names the backup it is about by the time it was made: another one of that name inherits nothing. Written
without the lock, since reading never waits: a record is replaced in one step, and the last word counts.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from backupkit.fs import disk, own_folder
from backupkit.model import documents
from backupkit.model.backup import Flaw, Metadata, Seconds
from backupkit.model.documents import Document
from backupkit.model.errors import BackupError
from backupkit.repository import flags
from backupkit.repository.flags import PROOFS, SOUND, STATE_FOLDER

_ATTEMPTS = 3


@dataclass(frozen=True)
class Record:
    """When the backup was checked, restored for a test, and proven by that; and what was found.

    `not_proven` is why the last test restore failed; seconds that a restore took.
    """

    made_at: datetime
    checked_at: datetime | None = None
    tried_at: datetime | None = None
    proven_at: datetime | None = None
    recovery_seconds: Seconds | None = None
    not_proven: str = ""
    flaws: tuple[Flaw, ...] = ()


@cache
def _form() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def read(backups: Path, name: str, metadata: Metadata) -> Record:
    """What is known of this very backup; an empty record where nothing is, or where it cannot be read."""
    try:
        found = _load(backups, name)
    except (OSError, ValueError, RecursionError):
        return Record(metadata.created_at)
    return found if found.made_at == metadata.created_at else Record(metadata.created_at)


def is_broken(backups: Path, name: str) -> bool:
    """Whether there is a record that nobody can read."""
    try:
        _load(backups, name)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return False


def write(backups: Path, name: str, record: Record) -> None:
    """The record is kept, instead of the one before."""
    content = json.dumps(documents.plain(_document(record))).encode()  # ASCII: a path may be any bytes
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with own_folder.made(backups, STATE_FOLDER, PROOFS) as folder:
                return disk.write_file(folder / name, content)
        except FileNotFoundError:  # another run took its draft for one that a killed run left
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
    """Nothing is known of a backup of that name any more."""
    flags.clear(backups, PROOFS, name)
    flags.clear(backups, SOUND, name)


def remember_sound(backups: Path, name: str, checksum: str) -> None:
    """SQLite found the database with that checksum sound here, opened for writing too: a restore need not ask again.

    Not synced, and nothing depends on it: where it is lost, the restore asks.
    """
    with contextlib.suppress(OSError), own_folder.made(backups, STATE_FOLDER, SOUND) as folder:
        disk.remove(folder / name)
        with open(disk.make_file(folder / name), "wb") as file:
            file.write(checksum.encode())


def is_known_sound(backups: Path, name: str, checksum: str) -> bool:
    """Whether that was found of the database with this very checksum."""
    try:
        with own_folder.existing(backups, STATE_FOLDER, SOUND) as folder:
            return folder is not None and disk.read_plain(folder / name, disk.MOST_STATE) == checksum.encode()
    except (BackupError, OSError):
        return False


def _load(backups: Path, name: str) -> Record:
    with own_folder.existing(backups, STATE_FOLDER, PROOFS) as folder:
        if folder is None:
            raise FileNotFoundError
        record = _form().validate_python(json.loads(disk.read_plain(folder / name, disk.MOST_STATE)))
    times = filter(None, (record.made_at, record.checked_at, record.tried_at, record.proven_at))
    if not all(time.tzinfo for time in times):
        raise ValueError(f"the record of {name} has a time without its offset")
    return record
