"""What every remote can do: a place off this machine that holds copies of backups, each whole or not there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from backupkit.words.events import Listener
from backupkit.words.model import Metadata


@dataclass(frozen=True)
class RemoteBackup:
    """A backup that is complete there; `revision` is empty for an unversioned one."""

    name: str
    created_at: datetime
    kind: str
    size_bytes: int
    app_id: str
    revision: str
    uploads: bool = True


class Remote(Protocol):
    """A place for copies. Whatever fails there raises `RemoteFailed`, and leaves the backups here unharmed."""

    name: str

    def check(self) -> None:
        """It is reachable and usable, or `RemoteFailed` says what to do."""

    def list(self) -> list[RemoteBackup]:
        """What is there, newest first."""

    def push(self, backup: Path, metadata: Metadata, tell: Listener) -> None:
        """The backup is there, whole. One that is there already is no error."""

    def pull(self, name: str, target: Path, tell: Listener) -> None:
        """The backup is in the empty folder `target`; whoever called verifies and publishes it."""

    def remove(self, name: str) -> None:
        """The backup is not there any more; `NoSuchBackup` where it never was."""

    def verify(self, tell: Listener) -> None:
        """Everything there is as it was written, as far as the remote can tell; `RemoteFailed` or `Damaged`."""
