"""Who is on duty: one scheduler for a backups folder, and what it keeps in `.state/scheduler`.

The lock there is the kernel's, apart from that of the runs: it is held as long as the scheduler lives. Losing the
folder loses nothing but the seed of the jitter.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from backupkit.ground import disk
from backupkit.parts import lock, marks
from backupkit.words.events import Listener, silence

_FOLDER, _SEED = "scheduler", "seed"


@contextlib.contextmanager
def on(backups: Path, timeout: float, tell: Listener = silence) -> Iterator[None]:
    """This process is the scheduler until the block ends; `Locked` names the other after `timeout` seconds."""
    folder = _folder(backups)
    disk.make_folder(folder, 0o700)
    if not (folder / _SEED).exists():
        with contextlib.suppress(OSError):  # without it every place has the same jitter, and that is all
            disk.write_file(folder / _SEED, secrets.token_hex(8).encode())
    with lock.held(folder, "schedule", timeout, tell):
        yield


def is_anyone_on(backups: Path) -> bool:
    """Whether a scheduler is at work for that folder at this moment."""
    return lock.is_held(_folder(backups))


def seed(backups: Path) -> str:
    """What makes the jitter of this place its own; empty where no scheduler was here yet."""
    try:
        return disk.read_plain(_folder(backups) / _SEED, disk.MOST_STATE).decode()
    except (OSError, ValueError):
        return ""


def _folder(backups: Path) -> Path:
    return backups / marks.STATE_FOLDER / _FOLDER
