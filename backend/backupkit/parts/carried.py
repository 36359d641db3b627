"""What each remote held when it was last asked, kept in `backups/.state/remotes/NAME/`. Losing it loses no backup.

So retention knows what is not yet carried away, and `status` can tell, without asking anybody over a network.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

from backupkit.ground import disk
from backupkit.parts import lock
from backupkit.parts.marks import STATE_FOLDER
from backupkit.parts.remotes.remote import RemoteBackup
from backupkit.words.events import Listener

_FILE = "seen.json"


@dataclass(frozen=True)
class Seen:
    """What was there, newest first, and when that was."""

    at: datetime | None = None
    backups: tuple[RemoteBackup, ...] = ()


_SEEN = TypeAdapter(Seen)


def remember(backups: Path, remote: str, there: Sequence[RemoteBackup], now: datetime) -> None:
    """This is what the remote held just now. What cannot be written is asked again the next time."""
    content = json.dumps(_SEEN.dump_python(Seen(now, tuple(there)), mode="json")).encode()
    with contextlib.suppress(OSError):
        disk.make_folder(_folder(backups, remote), 0o700)
        disk.write_file(_folder(backups, remote) / _FILE, content)


def recall(backups: Path, remote: str) -> Seen:
    """What it held when it was last asked; nothing where that is not known."""
    try:
        return _SEEN.validate_python(json.loads((_folder(backups, remote) / _FILE).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return Seen()


@contextlib.contextmanager
def one_at_a_time(backups: Path, remote: str, command: str, timeout: float, tell: Listener) -> Iterator[None]:
    """No other run of this machine works on the remote; backups and restores go on meanwhile. Raises `Locked`."""
    disk.make_folder(_folder(backups, remote), 0o700)
    with lock.held(_folder(backups, remote), command, timeout, tell):
        yield


def _folder(backups: Path, remote: str) -> Path:
    return backups / STATE_FOLDER / "remotes" / remote
