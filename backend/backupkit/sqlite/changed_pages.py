"""The changed pages of live databases in one snapshot, read without a checkpoint and without a copy.

A read transaction of SQLite holds the snapshot; a child process (`pages`) reads the pages. Snapshots of several
databases are taken again until nobody has committed to any of them meanwhile; if that never succeeds, the time over
which the last ones were taken is returned.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO

from msgspec import Struct

from backupkit.fs import process
from backupkit.sqlite import database, pages
from backupkit.sqlite.pages import HASH

_TICK = 2_000_000_000  # ns within which a change may not alter the times, on the coarsest of file systems
_LOCKED = 1 << 30  # SQLite uses the page at this byte for locks only
_TRIES, _PAUSE = 50, 0.002  # tries for one moment of several databases, and seconds between two tries


class Stamp(Struct, frozen=True):
    """Size, times and inode of a database file, and of its WAL."""

    file: tuple[int, ...]
    wal: tuple[int, ...]

    @property
    def is_settled(self) -> bool:
        """Whether a commit after this stamp would show. Of the WAL, only the time of its content counts.

        Its change time is new whenever root opens it, because SQLite sets its owner then.
        """
        newest = max(self.file[2] if self.file else time.time_ns(), self.wal[1] if self.wal else 0)
        return time.time_ns() - newest > _TICK

    def is_as(self, other: Stamp) -> bool:
        """Return whether nobody committed between the two, as far as stamps show; opening the WAL is not a commit."""
        return self.file == other.file and (self.wal[:2], self.wal[3:]) == (other.wal[:2], other.wal[3:])

    def __str__(self) -> str:
        return " ".join(map(str, (*self.file, *self.wal)))


def stamp_of(live: Path) -> Stamp:
    """Return the stamp of the database now; an empty WAL counts as none."""
    file = _real(live)
    wal = file.with_name(file.name + "-wal")
    return Stamp(_stat_of(file), found if (found := _stat_of(wal)) and found[0] else ())


def _real(live: Path) -> Path:
    """Return the file itself where a link leads to it: SQLite keeps the WAL beside that."""
    return Path(os.path.realpath(live))


def stamps_of(databases: Iterable[Path]) -> str:
    """Return the stamps of all of them now, as a rewind point stores them."""
    return "; ".join(str(stamp_of(live)) for live in databases)


def _stat_of(path: Path) -> tuple[int, ...]:
    try:
        facts = os.stat(path)
    except OSError:
        return ()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


class PagesChanged(Exception):
    """The pages read are not from one moment: they must be read again."""


class Known(Struct, frozen=True):
    """A live database, and the earlier hashes of its pages; `part` is its name if there are several."""

    live: Path
    page_size: int
    hashes: bytes
    part: str = ""


class Changed(Struct, frozen=True):
    """The size of the database in this snapshot, and the pages whose hash has changed: number and content.

    `found` raises `PagesChanged`; only after its last page is it certain that all are from one moment.
    """

    page_size: int
    pages: int
    journal_mode: str
    found: Iterator[tuple[int, bytes]]


class _Reader:
    """A child process that reads the pages of one database, while this process holds the snapshot."""

    def __init__(self, known: Known, held: sqlite3.Connection, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin and child.stdout
        self._known, self._held, self._in, self._out = known, held, child.stdin.fileno(), child.stdout
        self._file = database.file_of(known.live)
        self.page_size, self.journal_mode = database.page_size(held), database.journal_mode(held)
        self.pages = 0
        self.send(known.hashes if self.page_size == known.page_size else b"")

    def send(self, what: bytes) -> None:
        """Write to the process; if it has ended, `receive` raises."""
        view = memoryview(what)
        with contextlib.suppress(BrokenPipeError):
            while view:
                view = view[os.write(self._in, view) :]

    def receive(self, length: int) -> bytes:
        """Return `length` bytes from the process; raise `PagesChanged` if it ends earlier."""
        if len(found := self._out.read(length)) < length:
            raise PagesChanged
        return found

    def changed(self) -> Iterator[tuple[int, bytes]]:
        """Yield the changed pages, then end the snapshot so that waiting writers can go on."""
        self.send(pages.READ)
        while (number := self.receive(4)) != pages.END:
            yield int.from_bytes(number, "big"), self.receive(self.page_size)
        if database.file_of(self._known.live) != self._file:
            raise PagesChanged
        self._held.close()


@contextlib.contextmanager
def changed(databases: Sequence[Known], timeout: float) -> Iterator[tuple[list[Changed], float]]:
    """Hold snapshots while the block runs; yield the changed pages of each database, to be read in this order.

    Also yields the ms by which the snapshots may lie apart: 0 if they are of one moment. Raises as
    `database.snapshot` does.
    """
    with contextlib.ExitStack() as opened:
        readers = [opened.enter_context(_reader(one, timeout)) for one in databases]
        gap = _take_newest_commits(readers)
        yield [Changed(one.page_size, one.pages, one.journal_mode, one.changed()) for one in readers], gap


@contextlib.contextmanager
def _reader(known: Known, timeout: float) -> Iterator[_Reader]:
    with contextlib.ExitStack() as opened:
        with database.naming(known.part):
            held = opened.enter_context(database.snapshot(known.live, timeout))
        size, mode = database.page_size(held), database.journal_mode(held)
        length = len(known.hashes) if size == known.page_size else 0
        program = [process.python(), "-I", "-S", pages.__file__]
        command = [*program, str(_real(known.live)), str(size), "wal" if mode == "wal" else "file", str(length)]
        child = opened.enter_context(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        opened.callback(child.kill)
        yield _Reader(known, held, child)


def _take_newest_commits(readers: Sequence[_Reader]) -> float:
    """Make each reader take the newest commit; return the ms that this took, or 0 if nobody committed meanwhile."""
    gap = 0.0
    for _ in range(_TRIES if readers[1:] else 1):
        began = time.monotonic()
        for one in readers:
            one.send(pages.LOOK)
        for one in readers:
            one.pages = int.from_bytes(one.receive(8), "big")
        gap = round((time.monotonic() - began) * 1000, 3)
        if not readers[1:] or _are_newest(readers):
            return 0.0
        time.sleep(_PAUSE)
    return gap


def _are_newest(readers: Sequence[_Reader]) -> bool:
    for one in readers:
        one.send(pages.ASK)
    return [one.receive(1) for one in readers] == [pages.SAME] * len(readers)


LARGEST_PAGE = 65536  # bytes
_AT_ONCE = 256  # pages


def hash_of(page: bytes | memoryview) -> bytes:
    """Return the truncated SHA-256 that identifies the content of a page."""
    return sha256(page).digest()[:HASH]


def hashes_of(file: IO[bytes], page_size: int, count: int) -> bytearray:
    """Return the hashes of all pages of a finished file; that of SQLite's lock page is zeros."""
    found = bytearray()
    for start in range(0, count, _AT_ONCE):
        chunk = memoryview(file.read(page_size * min(_AT_ONCE, count - start)))
        for place in range(min(_AT_ONCE, count - start)):
            found += hash_of(chunk[place * page_size : (place + 1) * page_size])
    if (lock_page := _LOCKED // page_size) < count:
        found[lock_page * HASH : (lock_page + 1) * HASH] = bytes(HASH)
    return found
