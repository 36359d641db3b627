"""The pages of the live database that are not as they were, of one moment, without a checkpoint and without a copy.

SQLite holds the moment by a read transaction; the pages are read beside it, by a process of its own (`pages`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from backupkit.fs import process
from backupkit.model.events import EventListener, silence
from backupkit.sqlite import database, pages
from backupkit.sqlite.pages import HASH

_TICK = 2_000_000_000  # ns in which a change may leave the times as they are, on the coarsest of file systems
_LOCKED = 1 << 30  # the page at this byte is used for locks only


@dataclass(frozen=True)
class Stamp:
    """How the database file and its WAL looked: size, times and inode of each."""

    file: tuple[int, ...]
    wal: tuple[int, ...]

    @property
    def is_settled(self) -> bool:
        """Whether a commit after this look would show. Of the WAL that hangs on the time of its content.

        Its other time is new whenever root opens it, because SQLite sets its owner then.
        """
        newest = max(self.file[2] if self.file else time.time_ns(), self.wal[1] if self.wal else 0)
        return time.time_ns() - newest > _TICK

    def is_as(self, other: Stamp) -> bool:
        """Whether nobody committed between the two, as far as it shows; opening the WAL is no commit."""
        return self.file == other.file and (self.wal[:2], self.wal[3:]) == (other.wal[:2], other.wal[3:])

    def __str__(self) -> str:
        return " ".join(map(str, (*self.file, *self.wal)))


def stamp_of(live: Path) -> Stamp:
    """How they look now."""
    wal = live.with_name(live.name + "-wal")
    return Stamp(_looks(live), found if (found := _looks(wal)) and found[0] else ())


def _looks(path: Path) -> tuple[int, ...]:
    try:
        facts = os.stat(path)
    except OSError:
        return ()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


class Unsettled(Exception):
    """What was read is not of one moment: it is to be read again."""


@dataclass(frozen=True)
class Changed:
    """How large the database is at this moment, and the pages whose content has another hash: number and content.

    The iterator raises `Unsettled`; only at its end is it known that all was of one moment.
    """

    page_size: int
    pages: int
    journal_mode: str
    found: Iterator[tuple[int, bytes]]


@contextlib.contextmanager
def changed(
    live: Path, page_size: int, hashes: bytes, timeout: float, emit: EventListener = silence
) -> Iterator[Changed]:
    """The pages that differ from those with these hashes, of that size. The moment ends with the block.

    Raises as `database.snapshot` does.
    """
    with database.snapshot(live, timeout, emit) as taken:
        file, size, mode = database.file_of(live), database.page_size(taken), database.journal_mode(taken)
        command = [
            process.python(),
            "-I",
            "-S",
            pages.__file__,
            str(live),
            str(size),
            "wal" if mode == "wal" else "file",
        ]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        ) as child:
            assert child.stdin and child.stdout
            try:
                with contextlib.suppress(BrokenPipeError), child.stdin:
                    child.stdin.write(hashes if size == page_size else b"")
                count = child.stdout.read(8)
                if len(count) < 8:
                    raise Unsettled
                yield Changed(size, int.from_bytes(count, "big"), mode, _pages(child.stdout, size, live, file))
            finally:
                child.kill()


def _pages(out: IO[bytes], size: int, live: Path, file: tuple[int, int] | None) -> Iterator[tuple[int, bytes]]:
    while (number := out.read(4)) != pages.END:
        content = out.read(size)
        if len(content) < size:
            raise Unsettled
        yield int.from_bytes(number, "big"), content
    if database.file_of(live) != file:
        raise Unsettled


LARGEST_PAGE = 65536  # bytes
_AT_ONCE = 256  # pages


def hash_of(page: bytes | memoryview) -> bytes:
    """What a page is known by."""
    return sha256(page).digest()[:HASH]


def hashes_of(file: IO[bytes], page_size: int, count: int) -> bytearray:
    """The hashes of all pages of a finished file, that of SQLite's page for locks being zeros."""
    found = bytearray()
    for start in range(0, count, _AT_ONCE):
        chunk = memoryview(file.read(page_size * min(_AT_ONCE, count - start)))
        for place in range(min(_AT_ONCE, count - start)):
            found += hash_of(chunk[place * page_size : (place + 1) * page_size])
    if (lock_page := _LOCKED // page_size) < count:
        found[lock_page * HASH : (lock_page + 1) * HASH] = bytes(HASH)
    return found
