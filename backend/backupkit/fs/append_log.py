"""Files to which many processes append lines at once: no line is ever torn by another, none is lost by turning over.

A file that has grown past its limit becomes `NAME.1`, that one `NAME.2`, and so on; the oldest goes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from backupkit.fs import descriptors, disk

PATIENCE = 5.0  # seconds to wait for another process that appends: it needs a millisecond


def append(path: Path, line: bytes, limit: int, kept: int, mode: int = 0o600, durable: bool = True) -> None:
    """The line is the file's last, whole, and on disk where `durable`; or `OSError`, and no part of it is there.

    A file longer than `limit` bytes is turned over first, and `kept` old ones stay.
    """
    while True:
        with locked(path, mode) as handle:
            if os.fstat(handle).st_size <= limit:
                return _append(handle, line, durable)
            turn_over(path, kept)


def _append(handle: int, line: bytes, durable: bool) -> None:
    size = os.fstat(handle).st_size
    torn = size and os.pread(handle, 1, size - 1) != b"\n"  # by a power failure, or by hand
    whole = memoryview(b"%b%b\n" % (b"\n" if torn else b"", line))
    try:
        while whole:
            whole = whole[os.write(handle, whole) :]
        if durable:
            os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise


@contextlib.contextmanager
def locked(path: Path, mode: int = 0o600) -> Iterator[int]:
    """The file, made where it is missing, open for appending; whoever else appends waits until the block ends."""
    deadline = time.monotonic() + PATIENCE
    while True:
        handle = _open(path, mode)
        try:
            if _try(handle, path):
                yield handle
                return
        finally:
            os.close(handle)
        if time.monotonic() >= deadline:
            raise OSError(errno.EBUSY, "another process has kept it locked", str(path))
        time.sleep(0.01)


def _open(path: Path, mode: int) -> int:
    handle, is_new = disk.open_or_make(path, os.O_APPEND, mode)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if is_new:
            disk.sync_folder(path.parent)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _try(handle: int, path: Path) -> bool:
    """Whether the lock is ours, and the file is still the one of that name: another may have turned it over."""
    with contextlib.suppress(FileNotFoundError):
        return descriptors.try_lock(handle) and os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def turn_over(path: Path, kept: int) -> None:
    """The file is now `NAME.1`; for whoever has it locked."""
    for number in range(kept, 0, -1):
        younger = numbered(path, number - 1)
        if younger.exists():
            disk.rename(younger, numbered(path, number))


def numbered(path: Path, number: int) -> Path:
    """The file itself for 0, `NAME.1` for the one before it, and so on."""
    return path.with_name(f"{path.name}.{number}") if number else path


def replace(path: Path, lines: Iterable[bytes], mode: int = 0o600) -> None:
    """The file has these lines and no others; for whoever has it locked."""
    disk.write_file(path, b"".join(b"%b\n" % line for line in lines), mode)
