"""The pages of a live database, read beside SQLite: a program of its own.

    python -I -S pages.py LIVE SEALED wal|file          whether they are the very pages of a sealed file
    python -I -S pages.py LIVE PAGE_SIZE wal|file LENGTH            those that have another hash

The first says `same`, `other` or `unknown`. Whoever starts it holds a read transaction meanwhile, and believes it only
where nobody has committed by the end. It is a process of its own because closing a handle on a database file drops all
locks that the process has on it.

The second reads so many bytes of hashes, then does as each byte tells it. `LOOK`: it takes the commit that the index of
the WAL has now, and writes the number of pages. `ASK`: it writes `SAME` where that is still the newest commit, else
another byte. `READ`: it writes each page that differs (its number, its content), then `END`; without that it is not to
be believed. The commit may be a later one than the transaction's; what it left stays where it is as long as that is
held.

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
_IN_BLOCK = 4096  # frames; in the first block fewer, because of the header
_WHOLE_HEADER = 100
_LOCKED = 1 << 30  # bytes before the page that SQLite uses for locks only, and never copies
HASH = 16  # bytes of a page's SHA-256 that are kept
END = b"END\0"
LOOK, ASK, READ, SAME = b"l", b"a", b"r", b"="
# What SQLite changes in a header when it writes: the journal mode, how often the file and the schema were changed, and
# by which version of SQLite last.
_COUNTERS = ((18, 20), (24, 28), (40, 44), (92, 100))


def without_counters(head: bytes) -> bytes:
    """The first bytes of a database without what no two copies of it have in common."""
    blank = bytearray(head)
    for start, end in _COUNTERS if head.startswith(b"SQLite format 3\0") else ():
        blank[start:end] = bytes(end - start)
    return bytes(blank)


class _Unknown(Exception):
    """What is there is not what was expected, which says nothing of the pages."""


class _Wal:
    """The frames of the WAL as its index has them now; by page the newest one."""

    def __init__(self, live: str) -> None:
        with open(f"{live}-shm", "rb", 0) as file:
            head = file.read(96)  # before the rest, which is written before it
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
        for frame, page in enumerate(_listed(index, self.frames), 1):
            if page <= self.pages:
                self.of_page[page] = frame

    def close(self) -> None:
        """Another look is to be taken."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, first: int, pages: range, size: int) -> bytes | bytearray:
        """The content of so many frames from that one on, which hold those pages."""
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


def _in_use(wal: _Wal | None) -> _Wal | None:
    """The WAL; None while nothing is in it."""
    return wal if wal and wal.frames else None


def _listed(index: bytes, frames: int) -> Iterator[int]:
    """The page of each frame, in order."""
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
    """First page, number of pages, and the first frame (0: the file itself), of what lies one after the other."""
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
        wal = _in_use(_Wal(live) if has_wal else None)
        of_page = wal.of_page if wal else array("I", bytes(4 * (pages + 1)))
        if (wal.pages if wal else os.fstat(file.fileno()).st_size // size) != pages:
            return "other"
        for page, count, frame in _runs(of_page, pages, _LOCKED // size + 1):
            wanted.seek((page - 1) * size)
            expected = wanted.read(count * size)
            found: bytes | bytearray
            if frame and wal:
                found = wal.read(frame, range(page, page + count), size)
            else:
                found = os.pread(file.fileno(), count * size, (page - 1) * size)
            if len(found) != len(expected):
                raise _Unknown
            if not (_is_same(found, expected) if page == 1 else found == expected):
                return "other"
    return "same"


class _Moment:
    """One commit of the live database; it may be looked for again."""

    def __init__(self, live: str, size: int, file: BinaryIO, has_wal: bool) -> None:
        self._live, self.size, self.file, self._has_wal = live, size, file, has_wal
        self._wal: _Wal | None = None
        self.pages = 0

    def look(self) -> int:
        """It is the newest commit; the number of its pages."""
        if self._wal:
            self._wal.close()
        self._wal = _Wal(self._live) if self._has_wal else None
        wal = _in_use(self._wal)
        self.pages = wal.pages if wal else os.fstat(self.file.fileno()).st_size // self.size
        return self.pages

    def is_newest(self) -> bool:
        """Whether nobody has committed since. With a rollback journal nobody can while the transaction is held."""
        if self._wal is None:
            return True
        with open(f"{self._live}-shm", "rb", 0) as file:
            return file.read(96) == self._wal.header * 2

    def runs(self) -> Iterator[tuple[int, int, bytes | bytearray]]:
        """First page, number of pages and content of what lies one after the other."""
        wal = _in_use(self._wal)
        of_page = wal.of_page if wal else array("I", bytes(4 * (self.pages + 1)))
        for first, count, frame in _runs(of_page, self.pages, _LOCKED // self.size + 1):
            if frame and wal:
                found: bytes | bytearray = wal.read(frame, range(first, first + count), self.size)
            else:
                found = os.pread(self.file.fileno(), count * self.size, (first - 1) * self.size)
            if len(found) != count * self.size:
                raise _Unknown
            yield first, count, found


def _serve(moment: _Moment, length: int, out: BinaryIO) -> None:
    """Do as each byte of the standard input tells; it ends with the pages, or with the input."""
    hashes = sys.stdin.buffer.read(length)
    for command in iter(lambda: sys.stdin.buffer.read(1), b""):
        if command == READ:
            return _write_changed(moment, hashes, out)
        out.write(moment.look().to_bytes(8, "big") if command == LOOK else SAME if moment.is_newest() else b"!")
        out.flush()


def _write_changed(moment: _Moment, hashes: bytes, out: BinaryIO) -> None:
    """Each page whose hash is another than the one in the list, or that the list has not."""
    size = moment.size
    for first, count, found in moment.runs():
        view, known = memoryview(found), hashes[(first - 1) * HASH : (first - 1 + count) * HASH]
        for page in range(count):
            content = view[page * size : (page + 1) * size]
            if sha256(content).digest()[:HASH] != known[page * HASH : (page + 1) * HASH]:
                out.write((first + page).to_bytes(4, "big"))
                out.write(content)
    out.write(END)


def _is_same(found: bytes | bytearray, expected: bytes) -> bool:
    """Whether both are the same pages, of which the first is the one with the header."""
    heads = (without_counters(bytes(one[:_WHOLE_HEADER])) for one in (found, expected))
    return len(set(heads)) == 1 and found[_WHOLE_HEADER:] == expected[_WHOLE_HEADER:]


def _main(live: str, other: str, kind: str, length: str = "") -> None:
    try:
        if length:
            with os.fdopen(os.dup(1), "wb", 1 << 16) as out, open(live, "rb", 0) as file:
                return _serve(_Moment(live, int(other), file, kind == "wal"), int(length), out)
        print(_compare(live, other, kind == "wal"))
    except (OSError, ValueError, IndexError, MemoryError, _Unknown):
        if not length:  # whoever waits for an answer of some length knows by its end
            print("unknown")


if __name__ == "__main__":
    _main(*sys.argv[1:])
