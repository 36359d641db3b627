"""Names in open folders: open, remove, rename them and set their attributes, without ever following a link.

Whoever may write to a folder on a path can redirect the path between two calls. So each function here acts on one name
in a folder that is already open.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from backupkit.fs import mounts

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: do not wait for the other end of a fifo in the place of a file.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RUNS_AS_OWNER = stat.S_ISUID | stat.S_ISGID
_NOREPLACE, _EXCL = 1, 4  # flags of renameat2 (Linux) and of renameatx_np (macOS)
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
NOT_KEPT = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # the file system keeps no such owner or mode
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def opened(name: str | Path, flags: int, within: int | None = None) -> Iterator[int]:
    """Hold the name open for the block, and yield its descriptor."""
    handle = os.open(name, flags, dir_fd=within)
    try:
        yield handle
    finally:
        os.close(handle)


def open_folder(name: str, within: int) -> int:
    """Open a folder in an open folder; raise `NotADirectoryError` for a link or anything else."""
    try:
        return os.open(name, FOLDER, dir_fd=within)
    except OSError as error:
        if error.errno == errno.ELOOP:  # some systems report a link this way
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from error
        raise


@contextlib.contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Put the whole path into an `OSError` of the block: the system knew only the name in the folder."""
    try:
        yield
    except OSError as error:
        error.filename = os.path.join(folder, _file_name_of(error))
        raise


def _file_name_of(error: OSError) -> str:
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""


def try_lock(handle: int) -> bool:
    """Try to take the kernel's lock on an open file or folder; return False if another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def look(name: str, within: int) -> os.stat_result | None:
    """Return what `lstat` says of the name, or None if nothing has it."""
    try:
        return os.stat(name, dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        return None


def why_not_ours(handle: int) -> str:
    """Return why an open file is not trusted: another user owns it, or may write to it. Empty if it is ours alone."""
    facts = os.fstat(handle)
    if facts.st_uid != os.geteuid():
        return f"it belongs to user {facts.st_uid}, and this is user {os.geteuid()}"
    is_open = facts.st_mode & 0o022 and _can_shut_out_others(handle, facts.st_mode)
    return "other users may write to it" if is_open else ""


def _can_shut_out_others(handle: int, mode: int) -> bool:
    """Return whether others can be kept from writing; some file systems (exFAT, SMB) show one mode for everything."""
    mode = stat.S_IMODE(mode)
    try:
        os.fchmod(handle, mode & ~0o022)
        is_closed = not os.fstat(handle).st_mode & 0o022
        os.fchmod(handle, mode)
    except OSError:
        return False
    return is_closed


def link(known: str, within: int, name: str, folder: int) -> bool:
    """Give the file another name that can be seen to be its own; return False, and leave none, if that is impossible.

    Some shares (sshfs) make the name, and show it as another file.
    """
    try:
        os.link(known, name, src_dir_fd=within, dst_dir_fd=folder, follow_symlinks=False)
        facts = (os.stat(one, dir_fd=at, follow_symlinks=False) for one, at in ((known, within), (name, folder)))
        if os.path.samestat(*facts):
            return True
        os.unlink(name, dir_fd=folder)
    except OSError:  # another mount, too many names, or a file system without hard links
        pass
    return False


def rename_to_free(source: str, source_folder: int, target: str, target_folder: int) -> bool:
    """Rename in one step, and return True; return False if the target exists, which is never replaced.

    If the system or the file system cannot do that, check the target first, and then rename.
    """
    sys.audit("os.rename", source, target, source_folder, target_folder)  # `os.rename` raises this event too
    try:
        _rename_without_replacing(source_folder, os.fsencode(source), target_folder, os.fsencode(target))
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _UNKNOWN:
            error.filename = source
            raise
        if look(target, target_folder):
            return False
        os.rename(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder)
    return True


def _rename_without_replacing(*names: int | bytes) -> None:
    for call, flag in (("renameat2", _NOREPLACE), ("renameatx_np", _EXCL)):
        if hasattr(_libc, call):
            if getattr(_libc, call)(*names, flag):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            return
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def set_attributes(handle: int, owner: tuple[int, int], mode: int, changed: int) -> None:
    """Set owner (if we are root), mode and times (ns) of an open file, even of one opened with O_PATH."""
    set_owner_mode_times(place_of(handle), owner, mode, (changed, changed))


def set_owner_mode_times(place: int | str | Path, owner: tuple[int, int], mode: int, times: tuple[int, int]) -> None:
    """Set owner (if we are root), mode and times (of access and change, in ns) of a file or folder.

    In this order, as chown clears bits of the mode; and only another owner, as it clears file capabilities too. Nor is
    the same mode set again: that clears the setgid bit of a folder whose group we are not in. A file that does not get
    the owner is not setuid (see `mode_for`).
    """
    facts = os.stat(place)
    is_anothers = (facts.st_uid, facts.st_gid) != owner and os.geteuid() == 0
    if is_anothers:
        os.chown(place, *owner)
    if mode & _RUNS_AS_OWNER and stat.S_ISREG(facts.st_mode):
        mode = mode_for(_owner(os.stat(place)), owner, mode)
    if is_anothers or stat.S_IMODE(facts.st_mode) != mode:
        os.chmod(place, mode)
    os.utime(place, ns=times)


def mode_for(given: tuple[int, int], owner: tuple[int, int], mode: int) -> int:
    """Return the mode for a copy of a file: the copy has the owner and group `given`, the file the others.

    A program that is setuid or setgid runs with the rights of its file's owner or group: in a copy of another owner or
    group, with those of somebody who never gave them.
    """
    if given[0] != owner[0]:
        mode &= ~stat.S_ISUID
    return mode if given[1] == owner[1] else mode & ~stat.S_ISGID


def _owner(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_uid, facts.st_gid


def set_what_it_keeps(place: int, owner: tuple[int, int], mode: int, times: tuple[int, int]) -> None:
    """Do the same as far as the file system can keep them: another owner or a mode that it refuses is no error."""
    try:
        set_owner_mode_times(place, owner, mode, times)
    except OSError as error:
        if error.errno not in NOT_KEPT:
            raise
        there = os.fstat(place)
        fitting = mode_for(_owner(there), owner, mode) if stat.S_ISREG(there.st_mode) else mode
        with keeping_what_it_can():
            set_owner_mode_times(place, _owner(there), fitting, times)
        with keeping_what_it_can():
            os.utime(place, ns=times)


@contextlib.contextmanager
def keeping_what_it_can() -> Iterator[None]:
    """Ignore that the file system cannot keep what the block sets: an owner, a mode or times."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_KEPT:
            raise


def set_link_attributes(name: str, within: int, owner: tuple[int, int], changed: tuple[int, int]) -> None:
    """Set owner (if we are root) and times (ns) of a link in an open folder; its target is not touched.

    On Linux, a file that somebody has put in the place of the link does not get the owner either.
    """
    if os.geteuid() == 0 and hasattr(os, "O_PATH"):
        with opened(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, within) as handle:
            if stat.S_ISLNK(os.fstat(handle).st_mode):
                os.chown(f"/proc/self/fd/{handle}", *owner)
    elif os.geteuid() == 0:
        os.chown(name, *owner, dir_fd=within, follow_symlinks=False)
    os.utime(name, ns=changed, dir_fd=within, follow_symlinks=False)


@contextlib.contextmanager
def opened_to_change(name: str, within: int) -> Iterator[int]:
    """Yield a descriptor of a file or folder, never of a link, to change its attributes, even if it is unreadable."""
    try:
        handle = os.open(name, FILE, dir_fd=within)
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            raise
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        yield handle
    finally:
        os.close(handle)


def place_of(handle: int) -> int | str:
    """Return what `chmod` and the like accept: the handle, or its path below /proc if it was opened with O_PATH."""
    is_place = hasattr(os, "O_PATH") and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_PATH
    return f"/proc/self/fd/{handle}" if is_place else handle


def remove_tree(folder: Path) -> None:
    """Remove the folder and all below it from the disk, folders of ours without permissions too. No link is followed.

    Raise `OSError`, and remove nothing, if something is mounted at it or below it: what is in that is not ours.
    It holds one folder open at a time, however deeply they are nested.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        naming(folder.parent),
        opened(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as parent,
    ):
        remove_tree_in(folder.name, parent)


def remove_tree_in(name: str, within: int) -> None:
    """Do the same for a name in an open folder."""
    facts = look(name, within)
    if facts is None:
        return
    if stat.S_ISDIR(facts.st_mode):
        refuse_mounts(name, within)
        with contextlib.suppress(FileNotFoundError):
            _empty(name, within)
            os.rmdir(name, dir_fd=within)
    else:
        unlink(name, within)
    os.fsync(within)


def refuse_mounts(name: str, within: int) -> None:
    """Raise `OSError` if something is mounted at that folder of an open one, or below it."""
    with contextlib.suppress(FileNotFoundError):  # no /proc, and so no list of mounts either
        if place := mounts.first_in(os.path.join(os.readlink(f"/proc/self/fd/{within}"), name)):
            raise OSError(errno.EBUSY, "Something is mounted there, so nothing is removed", place)


def _empty(name: str, within: int) -> None:
    """Remove everything in that folder."""
    handle = _open_to_empty(name, within)
    below: list[tuple[str, os.stat_result]] = []  # the names that led here, each with the stat of its folder
    left = [os.listdir(handle)]
    try:
        while True:
            if left[-1]:
                child = left[-1].pop()
                if (deeper := _remove_or_open(child, handle)) is not None:
                    below.append((child, os.fstat(handle)))
                    os.close(handle)
                    handle = deeper
                    left.append(os.listdir(handle))
            elif below:
                left.pop()
                child, above = below.pop()
                higher = _open_parent(handle, above)
                os.close(handle)
                handle = higher
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(child, dir_fd=handle)
            else:
                return
    except OSError as error:
        error.filename = os.path.join(name, *(one for one, _ in below), _file_name_of(error))
        raise
    finally:
        os.close(handle)


def _remove_or_open(name: str, within: int) -> int | None:
    """Remove the name; if it is a folder, return it open instead."""
    facts = look(name, within)
    if facts and stat.S_ISDIR(facts.st_mode):
        with contextlib.suppress(FileNotFoundError):
            return _open_to_empty(name, within)
    elif facts:
        unlink(name, within)
    return None


def unlink(name: str, within: int) -> None:
    """Remove a file or link in an open folder; a missing one is not an error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=within)


def _open_parent(handle: int, above: os.stat_result) -> int:
    """Return the parent folder, open; raise `OSError` if it is no longer the one that led here."""
    higher = os.open("..", FOLDER, dir_fd=handle)
    if not os.path.samestat(os.fstat(higher), above):
        os.close(higher)
        raise OSError(errno.ESTALE, "a folder was moved while it was removed", "")
    return higher


def _open_to_empty(name: str, within: int) -> int:
    """Open a folder so that we may list it and remove from it."""
    try:
        handle = open_folder(name, within)
    except PermissionError:
        _make_accessible(name, within)
        handle = open_folder(name, within)
    facts = os.fstat(handle)
    if facts.st_uid == os.geteuid() and facts.st_mode & 0o700 != 0o700:
        os.fchmod(handle, 0o700)
    return handle


def _make_accessible(name: str, within: int) -> None:
    """Set the mode of a folder of ours that may not even be opened for reading."""
    if not hasattr(os, "O_PATH"):
        return os.chmod(name, 0o700, dir_fd=within, follow_symlinks=False)
    with opened(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, within) as handle:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
