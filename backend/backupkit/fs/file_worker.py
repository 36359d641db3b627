"""Copy files from open folders to open folders and hash them: a program of its own, so that several can work at once.

    python -I -S file_worker.py PARENT

It is given batches by the socket that is its standard input: eight bytes with the length of what follows, with them
the open folders; then a list of (folder, name, new folder, new name, owner, unless). It answers in the same way: first
a zero, that it is there; then a list as long, with the facts of each file and its SHA-256, or None for one that is not
done. Then nothing of it is left, and whoever asked does it with more care: what is plain is done here, nothing else. In
a long copy it answers with a number of bytes, as a sign of life. It ends when its parent does.
"""

from __future__ import annotations

import array
import hashlib
import marshal
import os
import stat
import sys
from _socket import CMSG_SPACE, SCM_RIGHTS, SOL_SOCKET, socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_FOLDERS = 64  # open ones that come with one batch
# What makes a file not plain: extended attributes of the source, or of the copy; another name of the source.
SOURCE_ATTRIBUTES, TARGET_ATTRIBUTES, OTHER_NAMES = 1, 2, 4
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_FICLONE = 0x40049409
_KEPT = ("user.", "system.posix_acl_", "security.capability")  # as `attributes.is_kept`
_SIGN = 16 << 20  # bytes after which it says that it is alive

_buffer = memoryview(bytearray(1 << 20))
_unclonable: set[int] = set()
"""Devices whose files share no blocks with where they are copied to."""

Job = tuple[int, bytes, int, bytes, tuple[int, int] | None, int]
Done = tuple[tuple[tuple[float, ...], dict[str, float]], str]


class _NotPlain(Exception):
    """It is left to whoever asked."""


def _copy(
    source: int,
    name: bytes,
    target: int,
    new: bytes,
    owner: tuple[int, int] | None,
    unless: int,
    alive: Callable[[], None],
) -> Done:
    original = os.open(name, _READ, dir_fd=source)
    try:
        before = os.fstat(original)
        if not stat.S_ISREG(before.st_mode) or (unless & OTHER_NAMES and before.st_nlink != 1):
            raise _NotPlain
        copied = os.open(new, _NEW, 0o600, dir_fd=target)
        try:
            size, checksum = _copy_contents(original, copied, before, alive)
            after = os.fstat(original)
            if size != after.st_size or _signature(before) != _signature(after):
                raise _NotPlain
            if (unless & SOURCE_ATTRIBUTES and _has_any(original)) or (unless & TARGET_ATTRIBUTES and _has_any(copied)):
                raise _NotPlain
            if os.geteuid() == 0:  # first: it clears bits of the mode
                os.fchown(copied, *(owner or (after.st_uid, after.st_gid)))
            os.fchmod(copied, stat.S_IMODE(after.st_mode))
            os.utime(copied, ns=(after.st_atime_ns, after.st_mtime_ns))
        except BaseException:
            os.unlink(new, dir_fd=target)
            raise
        finally:
            os.close(copied)
    finally:
        os.close(original)
    return after.__reduce__()[1], checksum  # type: ignore[return-value]


def _signature(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _has_any(handle: int) -> bool:
    try:
        return any(name.startswith(_KEPT) for name in os.listxattr(handle)) if hasattr(os, "listxattr") else False
    except OSError:
        return False  # a file system that has none


def _copy_contents(source: int, target: int, facts: os.stat_result, alive: Callable[[], None]) -> tuple[int, str]:
    is_shared = _clone(source, target, facts.st_dev)
    sparse = not is_shared and facts.st_blocks * 512 < facts.st_size
    digest, size, left = hashlib.sha256(), 0, facts.st_size
    while count := os.readv(target if is_shared else source, [_buffer[: left + 1] if left >= 0 else _buffer]):
        chunk = _buffer[:count]
        digest.update(chunk)
        if sparse and bytes(chunk).count(0) == count:
            os.lseek(target, count, os.SEEK_CUR)
        elif not is_shared:
            _write(target, chunk)
        size, left = size + count, left - count
        if size % _SIGN < count:
            alive()
        if left == 0:
            break
    if sparse:
        os.ftruncate(target, size)
    return size, digest.hexdigest()


def _write(target: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(target, chunk) :]


def _clone(source: int, target: int, device: int) -> bool:
    """Whether the target shares the source's blocks now."""
    if device in _unclonable or sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        _unclonable.add(device)
        return False
    return True


def _serve(parent: int) -> None:
    asked = socket(fileno=0)

    def answer(value: int | list[Done | None]) -> None:
        content = marshal.dumps(value)
        asked.sendall(len(content).to_bytes(8, "big") + content)

    def alive() -> None:
        _end_with(parent)
        answer(_SIGN)

    answer(0)  # it is there
    while (batch := _next_batch(asked)) is not None:
        folders, jobs = batch
        done: list[Done | None] = []
        for source, name, target, new, owner, unless in jobs:
            _end_with(parent)
            try:
                done.append(_copy(folders[source], name, folders[target], new, owner, unless, alive))
            except (OSError, _NotPlain):
                done.append(None)
        for folder in folders:
            os.close(folder)
        answer(done)


def _end_with(parent: int) -> None:
    """Nothing is written any more for a parent that was killed: the next command clears away what it left."""
    if os.getppid() != parent:
        os._exit(1)


def _next_batch(asked: socket) -> tuple[list[int], list[Job]] | None:
    handles = array.array("i")
    head, ancillary, _, _ = asked.recvmsg(8, CMSG_SPACE(MOST_FOLDERS * handles.itemsize))
    for level, kind, numbers in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            handles.frombytes(numbers[: len(numbers) - len(numbers) % handles.itemsize])
    if len(head) < 8:
        return None
    content = bytearray(int.from_bytes(head, "big"))
    rest = memoryview(content)
    while rest:
        if not (count := asked.recv_into(rest)):
            return None
        rest = rest[count:]
    return list(handles), marshal.loads(content)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
