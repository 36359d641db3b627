"""Allow one writing run at a time, across threads, processes and containers that share the backups folder.

The lock is the kernel's (flock on `backups/.lock`): it ends with its holder, however that ends, so it is never stale.
The content of the file only names the holder.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from backupkit.fs import descriptors, disk, process, tree
from backupkit.model.errors import FULL, BackupError, Locked
from backupkit.model.events import EventListener, StillWaiting, Waiting, silence

LOCK_FILE = ".lock"
_locked_here: set[tuple[int, int]] = set()
_handles: set[int] = set()
"""File descriptors that hold a lock of this process."""


def _let_go_in_child() -> None:
    """Close the parent's lock descriptors in a forked process, which would otherwise hold the locks while it lives."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()
    _locked_here.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextlib.contextmanager
def _of_this_process(handle: int) -> Iterator[None]:
    """Close this lock's descriptor in every process that is forked before the block ends."""
    _handles.add(handle)
    try:
        yield
    finally:
        _handles.discard(handle)


class RunAtWork(Locked):
    """The error for a lock that another run of this toolkit holds."""


@contextlib.contextmanager
def held(
    backups: Path, command: str, timeout: float, emit: EventListener = silence, place: Path | None = None
) -> Iterator[int]:
    """Hold the lock until the block ends; raise `Locked`, which names its holder, after `timeout` seconds.

    Yield its file descriptor. A program that is started with it holds the lock too, until both have ended; a process
    that is forked meanwhile does not. `place` is the path to name in messages, if it is not `backups`.
    """
    deadline = time.monotonic() + timeout
    with _folder_locked(backups, timeout, emit, place or backups):
        handle = _locked_file(backups, max(0.0, deadline - time.monotonic()), emit, place or backups)
        try:
            with _of_this_process(handle):
                _sign(handle, command)
                yield handle
                os.ftruncate(handle, 0)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _folder_locked(backups: Path, timeout: float, emit: EventListener, place: Path) -> Iterator[None]:
    """Lock the folder too: if somebody removed the lock file, a second run could lock a new one."""
    with disk.Opened(backups, os.O_RDONLY | os.O_DIRECTORY) as handle:
        with contextlib.suppress(OSError):  # if the file system cannot lock folders, the lock file must do
            _acquire(handle, timeout, emit, backups / LOCK_FILE, place)
        inode = tree.inode(os.fstat(handle))
        _locked_here.add(inode)
        try:
            with _of_this_process(handle):
                yield
        finally:
            _locked_here.discard(inode)


def _locked_file(backups: Path, timeout: float, emit: EventListener, place: Path) -> int:
    """Return the open, locked file; try again if the lock file was removed or replaced during the wait."""
    path = backups / LOCK_FILE
    while True:
        handle = _open(path, place / LOCK_FILE)
        try:
            _acquire(handle, timeout, emit, path, place)
            if (there := _facts(path)) and tree.inode(there) == tree.inode(os.fstat(handle)):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


@contextlib.contextmanager
def claimed(folders: Iterable[Path], timeout: float, emit: EventListener = silence) -> Iterator[None]:
    """Keep other restores out of these live folders until the block ends, even those with another backups folder.

    Raise `Locked` after `timeout` seconds. A folder whose file system has no locks is not locked.
    """
    with contextlib.ExitStack() as opened:
        for folder in _in_lock_order(folders):
            with contextlib.suppress(OSError):
                handle = opened.enter_context(disk.Opened(folder, os.O_RDONLY | os.O_DIRECTORY))
                opened.enter_context(_of_this_process(handle))
                _acquire(handle, timeout, emit, None, folder)
        yield


def is_claimed(folder: Path) -> bool:
    """Return whether a restore has locked this live folder now."""
    try:
        with disk.Opened(folder, os.O_RDONLY | os.O_DIRECTORY) as handle:
            return not descriptors.try_lock(handle)
    except OSError:
        return False


def _in_lock_order(folders: Iterable[Path]) -> list[Path]:
    """Return the existing folders, without duplicates, by inode, so that two restores of the same ones cannot deadlock.

    A folder that is also a backups folder locked by this process is left out.
    """
    found = {tree.inode(facts): folder for folder in folders if (facts := _facts(folder))}
    return [found[key] for key in sorted(found) if key not in _locked_here]


def _facts(folder: Path) -> os.stat_result | None:
    try:
        return os.stat(folder)
    except OSError:
        return None


def is_held(backups: Path) -> bool:
    """Return whether a run holds the lock now."""
    if is_claimed(backups):
        return True
    try:
        handle = os.open(backups / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not descriptors.try_lock(handle)
    finally:
        os.close(handle)


def signature(backups: Path) -> str:
    """Return the identity that the lock's present holder wrote into it, or an empty string if nobody holds it."""
    try:
        return str(json.loads(disk.read_plain(backups / LOCK_FILE, disk.MOST_STATE))["who"]) if is_held(backups) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def holder(path: Path) -> str:
    """Return the lock's holder in words, or "another process" if the file cannot be read."""
    return _run(path, None) or "another process"


def _run(record: Path | None, locker: process.Locker | None) -> str:
    """Return in words the run that signed the lock file, or an empty string if it is not the one that holds the lock.

    A killed run's signature stays, and any process that may read the file or the folder can lock it.
    """
    try:
        signed = json.loads(disk.read_plain(record, disk.MOST_STATE)) if record else {}
        said, who = f"{signed['command']} ({signed['who']}, since {signed['since']})", str(signed["who"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    is_of_another = (
        locker and who.endswith(f" on {process.host()}") and who != process.named(locker.pid, process.host())
    )
    return "" if is_of_another else said


def _in_words(locker: process.Locker | None) -> str:
    return f"pid {locker.pid} ({locker.name}) of user {locker.user}" if locker else "another process"


def _open(path: Path, named: Path) -> int:
    """Open the lock file; an error calls it `named`."""
    try:
        handle = disk.open_or_make(path, os.O_NONBLOCK, 0o600)[0]
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
        raise _stranger(named) from error
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise _stranger(named)
    if facts.st_mode & 0o077:  # who may read it can lock it
        with contextlib.suppress(OSError):
            os.fchmod(handle, 0o600)
    return handle


def _stranger(path: Path) -> BackupError:
    return BackupError(
        f"{path} is not a plain file, and this toolkit keeps one of its own there.",
        f"Look at it: ls -ld {path}. Then remove it: rm -r {path}",
    )


def _acquire(handle: int, timeout: float, emit: EventListener, record: Path | None, where: Path) -> None:
    """Take the lock; `record` is the file in which its holder signed."""
    deadline, has_said = time.monotonic() + timeout, False
    while not descriptors.try_lock(handle):
        if time.monotonic() >= deadline:
            raise _refusal(handle, record, where)
        if not has_said:
            locker = process.locker(handle)
            who = _run(record, locker) or _in_words(locker)
            emit(Waiting(f"Waiting up to {round(timeout, 1):g} s for {who} to finish."))
            has_said = True
        emit(StillWaiting())
        time.sleep(0.1)


def _refusal(handle: int, record: Path | None, where: Path) -> Locked:
    locker = process.locker(handle)
    if run := _run(record, locker):
        return RunAtWork(
            f"{run} is at work in {where}; nothing was changed.",
            hint="Wait for it to end, then try again; the lock ends with that process.",
        )
    end = f"end it, as user {locker.user} or root: kill {locker.pid}" if locker else _look_for(handle)
    return Locked(
        f"A lock on {where} is held by {_in_words(locker)}; nothing was changed.",
        hint=f"Wait for it to end. If it is no run of this toolkit, {end}",
    )


def _look_for(handle: int) -> str:
    return f"look for its number as root, on the host, and end it: grep FLOCK.*:{os.fstat(handle).st_ino} /proc/locks"


def _sign(handle: int, command: str) -> None:
    """Write down who has the lock, for others to read; without room for it the lock counts all the same."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(handle, 0)
    try:
        os.pwrite(handle, json.dumps({"command": command, "who": process.identity(), "since": since}).encode(), 0)
    except OSError as error:
        if error.errno not in FULL:  # else nothing could be deleted from a full disk
            raise
