"""Who is on duty: one scheduler for a backups folder, and what it keeps in `.state/scheduler`.

The lock there is the kernel's, apart from that of the runs: it is held as long as the scheduler lives. Losing the
folder loses nothing but the seed of the jitter.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from backupkit.fs import disk, own_folder
from backupkit.model.events import EventListener, silence
from backupkit.repository import flags, lock

_FOLDER, _SEED = (flags.STATE_FOLDER, "scheduler"), "seed"


@contextlib.contextmanager
def on(backups: Path, timeout: float, emit: EventListener = silence) -> Iterator[None]:
    """This process is the scheduler until the block ends; `Locked` names the other after `timeout` seconds."""
    with own_folder.made(backups, *_FOLDER) as folder:
        if not (folder / _SEED).exists():
            with contextlib.suppress(OSError):  # without it every place has the same jitter, and that is all
                disk.write_file(folder / _SEED, secrets.token_hex(8).encode())
        with lock.held(folder, "schedule", timeout, emit, backups.joinpath(*_FOLDER)):
            _set_look(folder, 0)
            yield


def looked(backups: Path, at: datetime) -> None:
    """The scheduler has just seen all data for rewind. It is the date of the lock's file: that fits on a full disk."""
    with own_folder.existing(backups, *_FOLDER) as folder:
        if folder:
            _set_look(folder, at.timestamp())


def _set_look(folder: Path, at: float) -> None:
    with contextlib.suppress(OSError):
        os.utime(folder / lock.LOCK_FILE, (at, at), follow_symlinks=False)


def last_look(backups: Path) -> datetime | None:
    """When the scheduler that is at work last saw all data for rewind; None where none is, or it never did."""
    with own_folder.existing(backups, *_FOLDER) as folder:
        if folder is None or not lock.is_held(folder):
            return None
        at = os.lstat(folder / lock.LOCK_FILE).st_mtime
        return datetime.fromtimestamp(at, UTC) if at else None


def is_anyone_on(backups: Path) -> bool:
    """Whether a scheduler is at work for that folder at this moment."""
    with own_folder.existing(backups, *_FOLDER) as folder:
        return folder is not None and lock.is_held(folder)


def seed(backups: Path) -> str:
    """What makes the jitter of this place its own; empty where no scheduler was here yet."""
    try:
        with own_folder.existing(backups, *_FOLDER) as folder:
            return disk.read_plain(folder / _SEED, disk.MOST_STATE).decode() if folder else ""
    except (OSError, ValueError):
        return ""
