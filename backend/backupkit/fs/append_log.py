"""Files to which several processes append lines at once: no line is torn by another, or lost in a rotation.

A file that has grown past its limit becomes `NAME.1`, that one `NAME.2`, and so on; the oldest is overwritten.
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

PATIENCE = 5.0  # seconds to wait for the lock: another process holds it for a millisecond


def append(path: Path, line: bytes, limit: int, kept: int, mode: int = 0o600, durable: bool = True) -> None:
    """Append the line, whole, and on disk if `durable`. After an `OSError` no part of it is in the file.

    A file longer than `limit` bytes is rotated first, and `kept` old ones stay.
    """
    while True:
        with locked(path, mode) as handle:
            if os.fstat(handle).st_size <= limit:
                return _append(handle, line, durable)
            rotate(path, kept)


def _append(handle: int, line: bytes, durable: bool) -> None:
    size = os.fstat(handle).st_size
    torn = size and os.pread(handle, 1, size - 1) != b"\n"  # a power failure or an editor left it so
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
    """Hold the file's lock, and yield it open for appending; create it if missing. Other appenders wait.

    Raise `OSError` (EBUSY) if another process keeps the lock for `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        handle = _open(path, mode)
        try:
            if _try_lock(handle, path):
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


def _try_lock(handle: int, path: Path) -> bool:
    """Return whether we got the lock and the file still has this name: another process may have rotated it."""
    with contextlib.suppress(FileNotFoundError):
        return descriptors.try_lock(handle) and os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def rotate(path: Path, kept: int) -> None:
    """Rename the file to `NAME.1`, and keep `kept` old ones. The caller must hold the lock."""
    for number in range(kept, 0, -1):
        younger = numbered(path, number - 1)
        if younger.exists():
            disk.rename(younger, numbered(path, number))


def numbered(path: Path, number: int) -> Path:
    """Return the path itself for 0, `NAME.1` for the file before it, and so on."""
    return path.with_name(f"{path.name}.{number}") if number else path


def replace(path: Path, lines: Iterable[bytes]) -> None:
    """Replace the file's content with these lines. The caller must hold the lock."""
    disk.write_file(path, b"".join(b"%b\n" % line for line in lines))
