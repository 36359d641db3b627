"""The errors of the toolkit, each with its exit code: the codes are an interface, and do not change.

BackupError                 1   failed, or a bug
  Refused                   2   usage, or refused without a terminal
    Declined                4   the question was answered with no
  NoSuchBackup             10   no such backup, dump or archive
  Locked                   11   another run holds the lock
  Damaged                  12   a backup or dump that cannot be trusted
  SourceUnreadable         13   the live data cannot be read
    SourceBroken           13   missing, empty or no SQLite file: waiting is useless; a restore may replace it
    SourceLocked           13   another process keeps it locked
  SchemaMismatch           14   schema not restorable by this code
  NoSpace                  15   no space
  RemoteFailed             16   a remote failed
    RemoteAway             16   not reachable now: worth another try
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sqlite3
from enum import IntEnum

FULL = (errno.ENOSPC, errno.EDQUOT)
CANCELLED = "A person cancelled it."  # the error of an operation that its own user ended


class ExitCode(IntEnum):
    """The exit codes of all commands but `status`, which has three of its own."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    WARNINGS = 3
    DECLINED = 4
    NO_SUCH_BACKUP = 10
    LOCKED = 11
    DAMAGED = 12
    SOURCE_UNREADABLE = 13
    SCHEMA_MISMATCH = 14
    NO_SPACE = 15
    REMOTE_FAILED = 16
    INTERRUPTED = 130


class BackupError(Exception):
    """An error for the user: one sentence with the path in it, and a hint that names the next command to type."""

    code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Refused(BackupError):
    """A request that is wrong, or must not go ahead without a person: nothing was changed."""

    code = ExitCode.USAGE


class Declined(Refused):
    """A question that a person answered with no: nothing was changed."""

    code = ExitCode.DECLINED


class NoSuchBackup(BackupError):
    """A backup, dump or archive that does not exist."""

    code = ExitCode.NO_SUCH_BACKUP


class Locked(BackupError):
    """A lock that another run kept past the deadline."""

    code = ExitCode.LOCKED


class Damaged(BackupError):
    """A backup or a dump that is incomplete, altered, hostile or of a later format."""

    code = ExitCode.DAMAGED


class SourceUnreadable(BackupError):
    """A live database or uploads folder that is missing, empty, locked or broken."""

    code = ExitCode.SOURCE_UNREADABLE


class SourceBroken(SourceUnreadable):
    """A live database that is missing, empty, damaged or no SQLite file: waiting is useless."""


class SourceLocked(SourceUnreadable):
    """A live database that stayed locked past the deadline; the message says by whom."""


class SchemaMismatch(BackupError):
    """A backup whose revision is unknown to this code, or later than it."""

    code = ExitCode.SCHEMA_MISMATCH


class NoSpace(BackupError):
    """A disk that is full, or has too little space for what was asked; nothing was lost."""

    code = ExitCode.NO_SPACE


class RemoteFailed(BackupError):
    """A copy off the machine that could not be made or fetched; the local backup is unharmed."""

    code = ExitCode.REMOTE_FAILED


class RemoteAway(RemoteFailed):
    """A remote that cannot be reached now, or is busy: calls are repeated until its deadline."""


def left_by_interrupt(interrupt: BaseException | None) -> str:
    """Return the words on what an interrupted command has left, which whoever knew it added as a note."""
    notes = getattr(interrupt, "__notes__", ())
    return "the warnings say what is not as it was" if notes else "nothing is left half done"


def from_os_error(error: OSError) -> BackupError:
    """Return the system's error as one of ours, with the path if the system told it."""
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    if error.errno in FULL:
        return NoSpace(f"The disk is full{where}.", hint="Make room; `list` shows the backups and their sizes.")
    reason = error.strerror or type(error).__name__
    if where and error.errno == errno.EBUSY:
        return BackupError(f"{reason}{where}.", hint=f"Unmount it: umount {shlex.quote(os.fsdecode(error.filename))}")
    if where and error.errno == errno.EROFS:
        return BackupError(f"{reason}{where}.", hint="It is mounted read-only: mount it so that it can be written to.")
    if where and error.errno in (errno.EACCES, errno.EPERM) and (place := _foreign_path(os.fsdecode(error.filename))):
        return BackupError(
            f"{reason}{where}. {place} belongs to another user, and this is user {os.geteuid()}.", way_to_look(place)
        )
    if where and error.errno in (errno.EACCES, errno.EPERM):
        return BackupError(f"{reason}{where}.", way_to_look(os.fsdecode(error.filename)))
    return BackupError(f"{reason}{where}.", hint="`doctor` looks for what is wrong, and says how to fix it.")


def way_to_look(path: str | os.PathLike[str]) -> str:
    """Return the advice to look at what keeps its owner, or root, from a path: an attribute such as `chattr +i`."""
    while not os.path.lexists(path) and os.path.dirname(path):
        path = os.path.dirname(path)
    name = shlex.quote(os.fspath(path))
    return f"Look at its owner, mode and attributes: ls -ld {name}; lsattr -d {name}"


def _foreign_path(path: str) -> str:
    """Return what keeps us from the path and is another user's: the path, or a folder above; empty if nothing."""
    while True:
        with contextlib.suppress(OSError):
            facts = os.lstat(path)
            if facts.st_uid != os.geteuid():
                return path
            if not os.access(path, os.W_OK):
                return ""  # our own: we can change its mode ourselves
        if path in ("/", ""):
            return ""
        path = os.path.dirname(path)


def explained(error: BaseException) -> BackupError | None:
    """Return the exception as one of our errors; None for a bug, and for what is not an error, such as Ctrl-C."""
    if isinstance(error, BackupError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    return _from_sqlite(error) if isinstance(error, sqlite3.Error) else None


def _from_sqlite(error: sqlite3.Error) -> BackupError:
    if "full" in str(error):
        return NoSpace(
            f"The disk is full, says SQLite: {error}.", hint="Make room; `list` shows the backups and sizes."
        )
    return BackupError(f"SQLite says: {error}.", hint="`doctor` looks for what is wrong, and says how to fix it.")
