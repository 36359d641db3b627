"""Who is on duty: one scheduler for a backups folder, and what it keeps in `.state/scheduler`.

The lock there is the kernel's, apart from that of the runs: it is held as long as the scheduler lives. Losing the
folder loses nothing but the seed of the jitter.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
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
            yield


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
