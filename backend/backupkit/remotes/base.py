"""What a remote can do: carry a copy of a backup away, and bring it back. One class a kind of place.

And: the remote of a name, and another try at what it could not do just now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from backupkit.config.remotes import FolderTable, GitTable
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, Metadata
from backupkit.model.documents import Document
from backupkit.model.errors import Damaged, Refused, RemoteAway
from backupkit.model.events import EventListener, Waiting
from backupkit.rewind.chain import Point
from backupkit.rewind.copies import Copied

T = TypeVar("T")
_FIRST, _LONGEST = 2.0, 60.0  # seconds between two attempts
NOT_COPIED = "Points of rewind after {backup} were left out of the copy: {why}."
KEEPS_NO_OWNERS = "The remote {name} keeps no owners, modes and times: what is pulled from it has lost them."

KEEPS_NO_ATTRIBUTES = (
    "The remote {name} cannot keep {lost} ACLs, extended attributes, file capabilities or hard links: what is pulled "
    "from it has lost them."
)


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
    points: int = 0
    """How many points of rewind lie beside it."""


WHOLE = ""
"""The name under which stands what is wrong with a remote as a whole."""


class DamagedThere(Damaged):
    """Copies on a remote are damaged: what is wrong with each, by its name, or with all of it."""

    def __init__(self, message: str, hint: str, flaws: Mapping[str, str]) -> None:
        super().__init__(message, hint)
        self.flaws = flaws


def remote_document(found: RemoteBackup) -> Document:
    """The backup as it is written down and printed."""
    return {
        "name": found.name,
        "created_at": found.created_at,
        "kind": found.kind,
        "size_bytes": found.size_bytes,
        "app_id": found.app_id,
        "revision": found.revision,
        "uploads": found.uploads,
        "points": found.points,
    }


class Remote(Protocol):
    """A place for copies. Everything raises `RemoteFailed`, or `RemoteAway` where it may work in a minute."""

    name: str

    def check(self) -> None:
        """It can be reached and used; the error's hint says what to do if not."""

    def list(self) -> list[RemoteBackup]:
        """The complete backups of this app there, newest first."""

    def push(self, backup: Path, metadata: Metadata, emit: EventListener) -> None:
        """The backup is there, complete. Done twice it does nothing; cut short it is not visible there."""

    def pull(self, name: str, target: Path, emit: EventListener) -> None:
        """The backup's files are in the empty folder `target`, unchecked."""

    def remove(self, names: Sequence[str]) -> None:
        """None of these backups is there any more; the first go first. Done twice it does nothing."""

    def verify(self, emit: EventListener, names: Collection[str] = ()) -> None:
        """All that the remote can check by itself is sound, of these backups at least; `DamagedThere` says what is not.

        Of all where none is named.
        """


@runtime_checkable
class Preparable(Protocol):
    """A remote that is made ready once, by a person: so that a wrong place is not filled by a slip."""

    def prepare(self) -> None:
        """It can be used from now on; nothing changes where it could already."""


@runtime_checkable
class HoldsPoints(Protocol):
    """A remote that keeps the points of rewind beside the backup that they stand on, and removes them with it."""

    def push_points(self, backup: Backup, emit: EventListener) -> Copied:
        """The points that stand on the backup, which is there, are there too. Done twice it does nothing."""

    def pull_points(self, backup: Backup, emit: EventListener, refuse: Callable[[Point], None]) -> Copied:
        """The points there that come after the last one here are here; but for those of which `refuse` raises."""


@runtime_checkable
class Tidying(Protocol):
    """A remote where room is given back in one go, after backups were removed."""

    def tidy(self, emit: EventListener) -> None:
        """The room of what was removed is free."""


def is_of(metadata: Metadata, created_at: datetime) -> bool:
    """Whether the backup was made at that moment. Its name tells nothing: `import --name` gives it another one here.

    A backup made by hand may name no zone, and is read by that of each machine: then its own clock tells.
    """
    if metadata.created_at == created_at:
        return True
    return not metadata.tool_version and metadata.timestamp == f"{created_at:%Y%m%d_%H%M%S}"


def open_remote(settings: Settings, name: str) -> Remote:
    """The remote of that name in the settings; `Refused` where there is none. Nothing is touched yet."""
    table = settings.remotes.get(name)
    if table is None:
        known = f"There are: {', '.join(settings.remotes)}." if settings.remotes else "Set one up in backup.toml."
        raise Refused(f"There is no remote named {name!r}.", hint=known)
    if isinstance(table, FolderTable):
        from backupkit.remotes.folder import FolderRemote

        return FolderRemote(settings, name, table)
    if isinstance(table, GitTable):
        from backupkit.remotes.git.remote import GitRemote

        return GitRemote(settings, name, table)
    from backupkit.remotes.restic import ResticRemote

    return ResticRemote(settings, name, table)


def retry_while_away(
    act: Callable[[], T], seconds: float, emit: EventListener, sleep: Callable[[float], None] = time.sleep
) -> T:
    """What `act` returns at last; its own `RemoteAway` where it goes on failing for so long."""
    deadline, pause = time.monotonic() + seconds, _FIRST
    while True:
        try:
            return act()
        except RemoteAway as error:
            if time.monotonic() + pause > deadline:
                raise
            emit(Waiting(f"{error.message} Trying again in {pause:g} s."))
        sleep(pause)
        pause = min(2 * pause, _LONGEST)
