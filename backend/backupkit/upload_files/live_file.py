"""Copy one live file while the app may write to it: the copy is of one state of the file, or is reported as unstable.

Its errors tell what they mean for this one file: it is gone, or it cannot be read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

from backupkit.fs import attributes, descriptors, disk, small_file, tree
from backupkit.fs.attributes import Attributes
from backupkit.fs.small_file import SmallFile

_ATTEMPTS = 6  # to copy one file without a change in between
# Nothing is there, or a link, a socket, a folder, a fifo that somebody writes to.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EAGAIN)
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

P = ParamSpec("P")
T = TypeVar("T")


class Gone(Exception):
    """A listed entry has disappeared, or has another form now."""


class Unreadable(Exception):
    """The live file or folder cannot be read; the text says why."""


class Copied(NamedTuple):
    """A finished copy: whether it is of one state of the file, and that state's facts, SHA-256 and attributes."""

    is_stable: bool
    facts: os.stat_result
    checksum: str
    attributes: Attributes


def read_small(name: str, within: int, facts: os.stat_result) -> SmallFile | None:
    """Return what is in a small live file that has not changed since it had these facts; else None."""
    try:
        found = small_file.read(name, within, facts)
    except OSError as error:
        raise translate_error(error) from error
    if found is None or tree.inode(found.facts) != tree.inode(facts):
        return None
    return found if tree.signature(found.facts) == tree.signature(facts) else None


def read_first_bytes(name: str, within: int, count: int) -> bytes:
    """Return the first bytes of a live file."""
    with opened(name, within) as original:
        _require_file(facts_of(original))
        return call(os.pread, original, count, 0)


def write_small(small: SmallFile, copied: int) -> Copied:
    """Write that content to the open new file, with the owner, mode and times that its disk keeps."""
    disk.write_all(copied, small.content)
    disk.set_what_it_keeps(copied, small.facts)
    return Copied(True, small.facts, hashlib.sha256(small.content).hexdigest(), small.attributes)


def copy_until_stable(name: str, within: int, copied: int, check: Callable[[int], None]) -> Copied:
    """Copy the file to the open new one, again while it changes; `check` gets the size of every chunk, once."""
    for attempt in range(_ATTEMPTS):
        with opened(name, within) as original:
            before = facts_of(original)
            _require_file(before)
            if attempt:
                check = _ignore
                os.ftruncate(copied, 0)
                os.lseek(copied, 0, os.SEEK_SET)
            try:
                size, checksum = disk.copy_contents(original, copied, before, check)
            except disk.ReadError as error:
                raise translate_error(error) from error
            found = call(attributes.of_open, original)
            after = facts_of(original)
            disk.set_what_it_keeps(copied, after)
        if tree.signature(before) == tree.signature(after) and size == after.st_size:
            return Copied(True, after, checksum, found)
        time.sleep(0.02 * 2**attempt)
    return Copied(False, after, checksum, found)


def _require_file(facts: os.stat_result) -> None:
    """Raise `Gone` for what is no longer a file: a fifo, say, would be copied as an empty file."""
    if not stat.S_ISREG(facts.st_mode):
        raise Gone


def _ignore(_count: int) -> None:
    """Ignore it: the bytes are counted already."""


def opened(name: str, within: int) -> disk.Opened:
    """Open a live file for a block."""
    try:
        return disk.Opened(name, descriptors.FILE, within)
    except OSError as error:
        raise translate_error(error) from error


def facts_of(handle: int) -> os.stat_result:
    """Return what `fstat` says of an open live file."""
    return call(os.fstat, handle)


def call(ask: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function of the live file system, and translate its errors."""
    try:
        return ask(*arguments, **named)
    except OSError as error:
        raise translate_error(error) from error


def translate_error(error: OSError) -> Exception:
    """Return what an error of the live file system means for one file: `Gone` or `Unreadable`.

    An error of this process, as too many open files, is returned as it is: every other file would meet it too.
    """
    if error.errno in _GONE:
        return Gone()
    return error if error.errno in _OF_THE_PROCESS else Unreadable(error.strerror)
