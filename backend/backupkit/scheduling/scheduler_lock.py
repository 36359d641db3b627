"""Allow one scheduler per backups folder, and keep its state in `.state/scheduler`.

Its lock is a kernel lock, separate from the lock of the runs, and is held as long as the scheduler lives. Losing the
folder loses only the seed of the jitter.
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

_HINT = "Leave it: it takes changed settings from backup.toml by itself. For changed variables end that process first."
_FOLDER, _SEED = (flags.STATE_FOLDER, "scheduler"), "seed"


@contextlib.contextmanager
def on(backups: Path, timeout: float, emit: EventListener = silence) -> Iterator[None]:
    """Hold the scheduler lock while the block runs; raise `Locked`, which names the holder, after `timeout` seconds."""
    with own_folder.made(backups, *_FOLDER) as folder:
        if not (folder / _SEED).exists():
            with contextlib.suppress(OSError):  # without a seed the jitter is the same as in other folders, no more
                disk.write_file(folder / _SEED, secrets.token_hex(8).encode())
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock.held(folder, "schedule", timeout, emit, backups.joinpath(*_FOLDER)))
            except lock.RunAtWork as error:  # which waiting would not end
                raise lock.RunAtWork(f"A scheduler is running already: {error.message}", _HINT) from error
            _set_look(folder, 0)
            yield


def looked(backups: Path, at: datetime) -> None:
    """Record when the scheduler last saw all data for rewind, as its lock file's time: that works on a full disk."""
    with own_folder.existing(backups, *_FOLDER) as folder:
        if folder:
            _set_look(folder, at.timestamp())


def _set_look(folder: Path, at: float) -> None:
    with contextlib.suppress(OSError):
        os.utime(folder / lock.LOCK_FILE, (at, at), follow_symlinks=False)


def last_look(backups: Path) -> datetime | None:
    """Return when the running scheduler last saw all data for rewind, or None if none runs or it never did."""
    with own_folder.existing(backups, *_FOLDER) as folder:
        if folder is None or not lock.is_held(folder):
            return None
        at = os.lstat(folder / lock.LOCK_FILE).st_mtime
        return datetime.fromtimestamp(at, UTC) if at else None


def is_running_for(backups: Path) -> bool:
    """Return whether a scheduler is running for this folder now."""
    with own_folder.existing(backups, *_FOLDER) as folder:
        return folder is not None and lock.is_held(folder)


def seed(backups: Path) -> str:
    """Return the seed of the folder's jitter; empty if no scheduler has run here yet."""
    try:
        with own_folder.existing(backups, *_FOLDER) as folder:
            return disk.read_plain(folder / _SEED, disk.MOST_STATE).decode() if folder else ""
    except (OSError, ValueError):
        return ""
