"""Root works with another user's rights in a folder that is his, where he could lead it astray.

Whoever owns a folder can put a link where a file is about to be written by its path, as SQLite does. With that user's
own rights, nothing is read or written there that he could not read or write himself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from backupkit.fs import process

# The calls of Linux itself, which are for one thread: the C library's setgroups is for all of them.
_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}
_libc = ctypes.CDLL(None, use_errno=True)
_thread = threading.local()


def are_lent() -> bool:
    """Whether this thread works with another user's rights just now: what it makes is that user's already."""
    return getattr(_thread, "are_lent", False)


def may_give() -> bool:
    """Whether this thread may give files away: root may, with rights of its own."""
    return os.geteuid() == 0 and not are_lent()


def is_anothers(folder: Path) -> bool:
    """Whether this is root, and the folder belongs to another user."""
    return may_give() and os.stat(folder).st_uid != 0


@contextlib.contextmanager
def of_owner(folder: Path) -> Iterator[None]:
    """This thread opens and makes files in the block with the rights of the folder's owner, where it `is_anothers`.

    Where that cannot be (no Linux, no capability to change users, a folder that its owner cannot reach or write to),
    the block runs with root's rights; `are_lent` tells. Call nothing in it that starts a thread.
    """
    if sys.platform != "linux" or not is_anothers(folder):
        yield
        return
    groups = os.getgroups()
    try:
        _thread.are_lent = _become(folder)
        if not _thread.are_lent:
            _take_back(groups)
        yield
    finally:
        _thread.are_lent = False
        _take_back(groups)


def _become(folder: Path) -> bool:
    facts = os.stat(folder)
    if not facts.st_mode & stat.S_IWUSR or not facts.st_mode & stat.S_IXUSR:
        return False
    group = process.own_group(facts.st_uid, facts.st_gid)
    if not (_set_groups([group]) and _set(_libc.setfsgid, group) and _set(_libc.setfsuid, facts.st_uid)):
        return False
    try:
        return os.path.samestat(os.stat(folder), facts)
    except OSError:  # it lies in a folder that is closed to its owner
        return False


def _take_back(groups: list[int]) -> None:
    _set(_libc.setfsuid, os.geteuid())
    _set(_libc.setfsgid, os.getegid())
    _set_groups(groups)


def _set(call: ctypes._NamedFuncPointer, wanted: int) -> bool:
    """Whether it is so now: these calls return what was so before, whether they changed it or not."""
    call(wanted)
    return bool(call(-1) == wanted)


def _set_groups(groups: list[int]) -> bool:
    number = _SETGROUPS.get(os.uname().machine) if sys.maxsize > 1 << 32 else None
    return number is not None and not _libc.syscall(number, len(groups), (ctypes.c_uint32 * len(groups))(*groups))
