"""The interface of a remote, which stores copies of backups; one class implements it for each type.

Also: open a remote by its name, and retry while it is unreachable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar, assert_never, runtime_checkable

from msgspec import Struct

from backupkit.config.remotes import FolderTable, GitTable, ResticTable
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, Metadata
from backupkit.model.documents import Document
from backupkit.model.errors import Damaged, Refused, RemoteAway, RemoteFailed
from backupkit.model.events import EventListener, Waiting, Warned, silence
from backupkit.rewind.chain import Point
from backupkit.rewind.copies import Copied

T = TypeVar("T")
_FIRST, _LONGEST = 2.0, 60.0  # seconds between two attempts
KEEPS_NO_RIGHTS = "The remote {name} cannot keep {kinds} of uploads: backups pulled from it lack them."
KEEPS_NO_ATTRIBUTES = (
    "The remote {name} cannot keep {lost} ACLs, extended attributes, file capabilities or hard links: backups pulled "
    "from it lack them."
)


class RemoteBackup(Struct, frozen=True):
    """A complete backup on a remote; `revision` is empty for an unversioned one."""

    name: str
    created_at: datetime
    kind: str
    size_bytes: int
    app_id: str
    revision: str
    uploads: bool = True
    points: int = 0
    """Number of rewind points stored beside it."""


WHOLE = ""
"""Key of a flaw in a remote as a whole, used in place of a backup's name."""


class DamagedThere(Damaged):
    """Damaged copies on a remote: `flaws` maps each name, or `WHOLE`, to what is wrong."""

    def __init__(self, message: str, hint: str, flaws: Mapping[str, str]) -> None:
        super().__init__(message, hint)
        self.flaws = flaws


def remote_document(found: RemoteBackup) -> Document:
    """Return the backup as the document that is stored and printed as JSON."""
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
    """A place for copies. Every method raises `RemoteFailed`, or `RemoteAway` if it may work in a minute."""

    name: str
    reads_copies: bool
    """Whether `verify` reads the files of the copies: if not, only a fetch finds what is wrong with them."""
    is_history: bool
    """Whether the remote shows the order of pushes: then the oldest is pushed first, else the newest."""

    def check(self) -> None:
        """Raise unless the remote can be reached and used; the error's hint says what to do."""

    def list(self, emit: EventListener = silence, /) -> list[RemoteBackup]:
        """Return this app's complete backups on the remote, newest first."""

    def push(self, backup: Path, metadata: Metadata, emit: EventListener) -> None:
        """Copy the backup to the remote. A repeated push does nothing; an interrupted one is not visible there."""

    def pull(self, name: str, target: Path, emit: EventListener) -> None:
        """Copy the backup's files into the empty folder `target`, without checking them."""

    def remove(self, names: Sequence[str]) -> None:
        """Delete these backups, in this order if the remote deletes one at a time. Ignore those that are gone."""

    def verify(self, emit: EventListener, names: Collection[str] = ()) -> None:
        """Check with the remote's own means these backups at least, or all if none is named; raise `DamagedThere`."""


@runtime_checkable
class Preparable(Protocol):
    """A remote that a person prepares once, so that a wrong place is never filled by mistake."""

    def prepare(self) -> None:
        """Make the remote usable; change nothing if it is already."""


@runtime_checkable
class HoldsPoints(Protocol):
    """A remote that stores rewind points beside the backup they are based on, and removes them with it."""

    def push_points(self, backup: Backup, emit: EventListener) -> Copied:
        """Copy to the remote the points based on a backup that it holds. A repeated push copies nothing."""

    def pull_points(self, backup: Backup, emit: EventListener, refuse: Callable[[Point], None]) -> Copied:
        """Fetch the points after the last one here, except those that `refuse` raises for and those based on them."""


@runtime_checkable
class Tidying(Protocol):
    """A remote that frees space in one step, after backups were removed."""

    def tidy(self, emit: EventListener) -> None:
        """Free the space of removed backups."""


@runtime_checkable
class OnADisk(Protocol):
    """A remote whose disk may keep no modes or owners of files."""

    def missing_rights(self) -> tuple[str, ...]:
        """Return which of modes and owners it cannot keep."""


def another_there(name: str, remote: str) -> RemoteFailed:
    """Return the error for another backup of that name on the remote."""
    return RemoteFailed(
        f"There is another {name} on the remote {remote} already.",
        hint="Look at both: `list`, `list --remote`. Delete or move one of them.",
    )


def was_made_at(metadata: Metadata, created_at: datetime) -> bool:
    """Return whether the backup was made at that time. Its name proves nothing: `import --name` renames a backup.

    A backup made by hand may record no time zone, so each machine reads it in its own: compare its local time then.
    """
    if metadata.created_at == created_at:
        return True
    return not metadata.tool_version and metadata.timestamp == f"{created_at:%Y%m%d_%H%M%S}"


def open_remote(settings: Settings, name: str) -> Remote:
    """Return the remote of that name without contacting it; raise `Refused` if the settings have none."""
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
    if isinstance(table, ResticTable):
        from backupkit.remotes.restic import ResticRemote

        return ResticRemote(settings, name, table)
    assert_never(table)


def refuse_without(settings: Settings) -> None:
    """Raise `Refused` if no remote is set up."""
    if not settings.remotes:
        raise Refused("There is no remote.", hint="Set one up: a table [remotes.NAME] in backup.toml.")


def retry_while_away(
    act: Callable[[], T], seconds: float, emit: EventListener, sleep: Callable[[float], None] = time.sleep
) -> T:
    """Call `act` until it succeeds and return its result; raise its `RemoteAway` if it fails for `seconds`."""
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


def copy_points(copy: Callable[[], Copied], backup: Backup, seconds: float, emit: EventListener) -> int:
    """Copy the points based on the backup; return how many came, and warn if some were left out."""
    done = retry_while_away(copy, seconds, emit)
    if done.left_out:
        emit(Warned(f"Points of rewind after {backup.name} were left out of the copy: {done.left_out[0]}."))
    return done.points
