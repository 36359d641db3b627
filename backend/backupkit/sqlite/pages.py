"""A program that reads the pages of a live database without SQLite.

    python -I -S pages.py LIVE SEALED wal|file               compare with the pages of a sealed file
    python -I -S pages.py LIVE PAGE_SIZE wal|file LENGTH     write the pages that have another hash

The first prints `same`, `other` or `unknown`. The caller holds a read transaction meanwhile, and trusts the answer only
if nobody has committed by the end. It is a process of its own because closing a handle on a database file drops all
locks that the process has on it.

The second reads LENGTH bytes of hashes, then one command per byte. `LOOK`: take the commit that the index of the WAL
has now, and write the number of pages. `ASK`: write `SAME` if that is still the newest commit, else another byte.
`READ`: write each page that differs (its number, its content), then `END`; without `END` the pages must not be
trusted. The commit may be later than the caller's transaction; its pages stay in place as long as that is held.

The formats of the WAL and of its index are SQLite's own: sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator
from hashlib import sha256

TYPE_CHECKING = False  # `typing` itself takes time to load
if TYPE_CHECKING:
    from typing import BinaryIO

_AT_ONCE = 128  # pages
_FRAME_HEADER, _WAL_HEADER = 24, 32  # bytes
_INDEX_HEADER, _BLOCK = 136, 32768  # bytes of the WAL's index: its header, and each block of it
_IN_BLOCK = 4096  # frames; fewer in the first block, because of the header
_WHOLE_HEADER = 100
_LOCKED = 1 << 30  # offset of the page that SQLite uses for locks only, and never copies
HASH = 16  # bytes of a page's SHA-256 that are kept
END = b"END\0"
LOOK, ASK, READ, SAME = b"l", b"a", b"r", b"="
# The header fields that SQLite changes when it writes: the journal mode, the counters of changes to the file and the
# schema, and the version of SQLite that wrote last.
_COUNTERS = ((18, 20), (24, 28), (40, 44), (92, 100))


def without_counters(head: bytes) -> bytes:
    """Return the first bytes of a database with zeros in the fields that differ between any two copies."""
    blank = bytearray(head)
    for start, end in _COUNTERS if head.startswith(b"SQLite format 3\0") else ():
        blank[start:end] = bytes(end - start)
    return bytes(blank)


class _Unknown(Exception):
    """The files are not as expected, which says nothing about the pages."""


class _Wal:
    """The frames of the WAL as its index has them now, with the newest frame of each page."""

    def __init__(self, live: str) -> None:
        with open(f"{live}-shm", "rb", 0) as file:
            head = file.read(96)  # read it before the rest, because SQLite writes it after the rest
            index = head + file.read()
        header = index[:48]
        if len(index) < _BLOCK or header != index[48:96]:
            raise _Unknown
        self.header = header
        self.frames, self.pages = array("I", header[16:24])
        self._salt = header[32:40]
        self._heads, self._content = bytearray(_AT_ONCE * _FRAME_HEADER), bytearray()
        self._parts: list[memoryview] = []
        self._file = os.open(f"{live}-wal", os.O_RDONLY) if self.frames else -1
        self.of_page = array("I", bytes(4 * (self.pages + 1)))
        for frame, page in enumerate(_page_numbers(index, self.frames), 1):
            if page <= self.pages:
                self.of_page[page] = frame

    def close(self) -> None:
        """Close the file, so that another look can be taken."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, first: int, pages: range, size: int) -> bytes | bytearray:
        """Return the content of the frames from `first` on; raise `_Unknown` if they do not hold these pages."""
        if not self._parts:
            self._content = bytearray(_AT_ONCE * size)
            both = memoryview(self._heads), memoryview(self._content)
            cuts = [
                (view, length * n, length * (n + 1))
                for n in range(_AT_ONCE)
                for view, length in zip(both, (_FRAME_HEADER, size), strict=True)
            ]
            self._parts = [view[start:end] for view, start, end in cuts]
        parts = self._parts[: 2 * len(pages)]
        place = _WAL_HEADER + (first - 1) * (size + _FRAME_HEADER)
        if os.preadv(self._file, parts, place) != len(pages) * (size + _FRAME_HEADER):
            raise _Unknown
        for page, start in zip(pages, range(0, len(self._heads), _FRAME_HEADER), strict=False):
            if self._heads[start : start + 4] != page.to_bytes(4, "big"):
                raise _Unknown
            if self._heads[start + 8 : start + 16] != self._salt:
                raise _Unknown
        return self._content if len(pages) == _AT_ONCE else bytes(self._content[: len(pages) * size])


def _unless_empty(wal: _Wal | None) -> _Wal | None:
    """Return the WAL, or None while it is empty."""
    return wal if wal and wal.frames else None


def _page_numbers(index: bytes, frames: int) -> Iterator[int]:
    """Yield the page of each frame, in order."""
    start, left, room = _INDEX_HEADER, frames, _IN_BLOCK - _INDEX_HEADER // 4
    block = 0
    while left:
        count = min(left, room)
        numbers = index[start : start + 4 * count]
        if len(numbers) < 4 * count:
            raise _Unknown
        yield from array("I", numbers)
        left, block, room = left - count, block + 1, _IN_BLOCK
        start = block * _BLOCK


def _runs(of_page: array[int], pages: int, unused: int) -> Iterator[tuple[int, int, int]]:
    """Yield first page, number of pages and first frame (0: the database file) of each run of contiguous pages."""
    page = 1
    while page <= pages:
        frame, count = of_page[page], 1
        while count < _AT_ONCE and page + count <= pages and page + count != unused:
            if of_page[page + count] != (frame + count if frame else 0):
                break
            count += 1
        if page != unused:
            yield page, count, frame
        page += 1 if page == unused else count


def _compare(live: str, sealed: str, has_wal: bool) -> str:
    with open(sealed, "rb") as wanted, open(live, "rb", 0) as file:
        head = wanted.read(_WHOLE_HEADER)
        size, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
        size = 65536 if size == 1 else size
        if size < 512 or pages * size != os.fstat(wanted.fileno()).st_size:
            raise _Unknown
        commit = _Commit(live, size, file, has_wal)
        if commit.look() != pages:
            return "other"
        for page, count, found in commit.runs():
            wanted.seek((page - 1) * size)
            expected = wanted.read(count * size)
            if len(found) != len(expected):
                raise _Unknown
            if not (_is_same(found, expected) if page == 1 else found == expected):
                return "other"
    return "same"


class _Commit:
    """One commit of the live database; `look` moves to the newest."""

    def __init__(self, live: str, size: int, file: BinaryIO, has_wal: bool) -> None:
        self._live, self.size, self.file, self._has_wal = live, size, file, has_wal
        self._wal: _Wal | None = None
        self.pages = 0

    def look(self) -> int:
        """Move to the newest commit, and return the number of its pages."""
        if self._wal:
            self._wal.close()
        self._wal = _Wal(self._live) if self._has_wal else None
        wal = _unless_empty(self._wal)
        self.pages = wal.pages if wal else os.fstat(self.file.fileno()).st_size // self.size
        return self.pages

    def is_newest(self) -> bool:
        """Return whether nobody has committed since. With a rollback journal, the caller's transaction prevents it."""
        if self._wal is None:
            return True
        with open(f"{self._live}-shm", "rb", 0) as file:
            return file.read(96) == self._wal.header * 2

    def runs(self) -> Iterator[tuple[int, int, bytes | bytearray]]:
        """Yield first page, number of pages and content of each run of contiguous pages."""
        wal = _unless_empty(self._wal)
        of_page = wal.of_page if wal else array("I", bytes(4 * (self.pages + 1)))
        for first, count, frame in _runs(of_page, self.pages, _LOCKED // self.size + 1):
            if frame and wal:
                found: bytes | bytearray = wal.read(frame, range(first, first + count), self.size)
            else:
                found = os.pread(self.file.fileno(), count * self.size, (first - 1) * self.size)
            if len(found) != count * self.size:
                raise _Unknown
            yield first, count, found


def _serve(commit: _Commit, length: int, out: BinaryIO) -> None:
    """Obey each byte of the standard input, until the pages are written or the input ends."""
    hashes = sys.stdin.buffer.read(length)
    for command in iter(lambda: sys.stdin.buffer.read(1), b""):
        if command == READ:
            return _write_changed(commit, hashes, out)
        out.write(commit.look().to_bytes(8, "big") if command == LOOK else SAME if commit.is_newest() else b"!")
        out.flush()


def _write_changed(commit: _Commit, hashes: bytes, out: BinaryIO) -> None:
    """Write each page whose hash differs from that in the list, or is not in it."""
    size = commit.size
    for first, count, found in commit.runs():
        view, known = memoryview(found), hashes[(first - 1) * HASH : (first - 1 + count) * HASH]
        for page in range(count):
            content = view[page * size : (page + 1) * size]
            if sha256(content).digest()[:HASH] != known[page * HASH : (page + 1) * HASH]:
                out.write((first + page).to_bytes(4, "big"))
                out.write(content)
    out.write(END)


def _is_same(found: bytes | bytearray, expected: bytes) -> bool:
    """Return whether both are the same pages, the first of them being that with the header."""
    heads = (without_counters(bytes(one[:_WHOLE_HEADER])) for one in (found, expected))
    return len(set(heads)) == 1 and found[_WHOLE_HEADER:] == expected[_WHOLE_HEADER:]


def _main(live: str, other: str, kind: str, length: str = "") -> None:
    try:
        if length:
            with os.fdopen(os.dup(1), "wb", 1 << 16) as out, open(live, "rb", 0) as file:
                return _serve(_Commit(live, int(other), file, kind == "wal"), int(length), out)
        print(_compare(live, other, kind == "wal"))
    except (OSError, ValueError, IndexError, MemoryError, _Unknown):
        if not length:  # a caller that expects pages sees that `END` is missing
            print("unknown")


if __name__ == "__main__":
    _main(*sys.argv[1:])
