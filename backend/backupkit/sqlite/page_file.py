"""The pages of a SQLite file that SQLite itself can no longer read, with its WAL or its rollback journal applied.

The file format is that of sqlite.org/fileformat2.html. Every number in the file is checked against the file before it
is used: none makes this module read beyond the file, loop, or reserve memory.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from backupkit.sqlite.cells import INDEX_INTERIOR, INDEX_LEAF, INTERIOR, TABLE_INTERIOR, TABLE_LEAF, cell_at

MAGIC = b"SQLite format 3\0"
HEADER = 100  # bytes at the beginning of page 1
_B_TREE = (TABLE_LEAF, TABLE_INTERIOR, INDEX_LEAF, INDEX_INTERIOR)
_SIZES = tuple(1 << power for power in range(9, 17))
_ENCODINGS = {1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}
_NAMES = {"UTF-8": "utf-8", "UTF-16LE": "utf-16-le", "UTF-16BE": "utf-16-be"}  # as PRAGMA encoding writes them
_SAMPLE, _BLOCK = 128, _SIZES[-1]  # parts of the file that are read to find the page size, and the bytes of each
_LOCK_BYTE = 1 << 30  # the page with this byte holds no data
_WAL_HEADER, _FRAME_HEADER, _WAL_MAGIC = 32, 24, 0x377F0682
_JOURNAL_MAGIC, _JOURNAL_HEADER = bytes.fromhex("d9d505f920a163d7"), 28
_UNKNOWN = 0xFFFFFFFF
_LEAST_USABLE = 480
_POINTER_TO_TREE_PAGE = 5
_DEEPEST = 40


class Hints(Struct, frozen=True):
    """Facts about the file from elsewhere, used if its own header is broken; zero, empty or None if unknown."""

    page_size: int = 0
    encoding: str = ""
    reserved: int | None = None


class Header(Struct, frozen=True):
    """Facts about the database from page 1; zeros if it is broken."""

    is_sound: bool
    user_version: int = 0
    application_id: int = 0
    has_pointer_map: bool = False
    is_incremental: bool = False


class PageFile:
    """A broken database that nobody else uses: a copy, with its `-wal` or `-journal` beside it. It is only read.

    It has `count` pages of `size` bytes, of which `usable` can hold data. `newer` pages come from the WAL or the
    journal, in which `lost_frames` could not be trusted. Pages behind `end`, the size that the last commit in the WAL
    records, are no longer part of the database.
    """

    def __init__(self, path: Path, hints: Hints = Hints(), with_newer: bool = True) -> None:
        self._files = contextlib.ExitStack()
        self._file = self._opened(path)
        self._length = os.fstat(self._file).st_size
        self._newer: dict[int, tuple[int, int]] = {}
        self.lost_frames = 0
        head = os.pread(self._file, HEADER, 0)
        self.size = self._page_size(head, hints, path)
        self.count = -(-self._length // self.size)
        self.end = 0
        if with_newer:
            self._apply_newer(path)
        self.end = min(self.end or self.count, self.count)
        head = self.page(1)[:HEADER]
        self.header = _header(head)
        reserved = _reserved_bytes(head, hints)
        self.usable = self.size - (reserved if self.size - reserved >= _LEAST_USABLE else 0)
        self.encoding = self._encoding(head, hints)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._files.close()

    @property
    def newer(self) -> int:
        """The number of pages that come from the WAL or the journal."""
        return len(self._newer)

    def page(self, number: int) -> bytes:
        """Return the page as the last commit left it, padded with zeros if it is cut off; empty if there is none."""
        data = self.stored(number)
        return data.ljust(self.size, b"\0") if data else b""

    def stored(self, number: int) -> bytes:
        """Return the page as far as the file has it: fewer bytes than `size` if it is cut off."""
        if not 1 <= number <= self.count:
            return b""
        file, place = self._newer.get(number) or (self._file, (number - 1) * self.size)
        return os.pread(file, self.size, place)

    def kind(self, number: int) -> int:
        """Return the type of a b-tree page, or 0 for any other page."""
        data = self.page(number)
        kind = data[HEADER if number == 1 else 0] if data else 0
        return kind if kind in _B_TREE else 0

    @property
    def recorded_pages(self) -> int:
        """The number of pages that page 1 records, or `end` if that number is out of date or broken."""
        head = self.page(1)[:HEADER]
        (recorded,) = struct.unpack_from(">I", head, 28) if self.header.is_sound else (0,)
        return recorded if 0 < recorded <= self.end and head[24:28] == head[92:96] else self.end

    def is_special(self, number: int) -> bool:
        """Return whether this is the page with the lock byte, or a page of the pointer map."""
        is_map = self.header.has_pointer_map and number == self._map_of(number)
        return is_map or number == _LOCK_BYTE // self.size + 1

    def free_pages(self) -> tuple[bytearray, bool]:
        """Return a byte for each page, 1 if it is free or behind the end, and whether the free list is complete."""
        behind = bytearray(self.end + 1) + b"\1" * (self.count - self.end)
        free, head = behind[:], self.page(1)
        if not self.header.is_sound:
            return behind, False
        trunk, wanted = struct.unpack_from(">II", head, 32)
        found = 0
        while trunk:
            data = self.page(trunk)
            number = struct.unpack_from(">I", data, 4)[0] if data else _UNKNOWN
            if not data or number > self.usable // 4 - 2:
                return behind, False
            for page in (trunk, *struct.unpack_from(f">{number}I", data, 8)):
                if not 1 < page <= self.count or (free[page] and page <= self.end):
                    return behind, False
                free[page] = 1
            found += 1 + number
            trunk = struct.unpack_from(">I", data)[0]
        return free, found == wanted

    def parents(self, number: int) -> Iterator[int]:
        """Yield the pages above this one in its tree, as far as a pointer map records them."""
        for _ in range(_DEEPEST):
            if not self.header.has_pointer_map:
                return
            above = self._map_of(number)
            entry = self.page(above)[5 * (number - above - 1) :][:5] if above < number else b""
            if len(entry) < 5 or entry[0] != _POINTER_TO_TREE_PAGE:
                return
            number = int.from_bytes(entry[1:], "big")
            yield number

    def _map_of(self, number: int) -> int:
        """Return the pointer-map page that has the entry of this page, or is this page."""
        if number < 2:
            return number
        group = self.usable // 5 + 1
        found = 2 + (number - 2) // group * group
        return found + 1 if found == _LOCK_BYTE // self.size + 1 else found

    def _opened(self, path: Path) -> int:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self._files.callback(os.close, file)
        return file

    def _page_size(self, head: bytes, hints: Hints, path: Path) -> int:
        """Return the page size of the header, the hints or the WAL; if none fits the pages, the one that fits best."""
        said, recorded, wal = 0, 0, _size_of_wal(path)
        if head.startswith(MAGIC) and len(head) == HEADER:
            said, recorded = (struct.unpack_from(">H", head, 16)[0], struct.unpack_from(">I", head, 28)[0])
            said = 65536 if said == 1 else said
        if said in _SIZES and (said == wal or said * recorded == self._length):
            return said  # no damage makes two numbers agree
        fits = _pages_by_size(self._file, self._length, _reserved_bytes(head, hints))
        best = max(fits.values(), default=0)
        likely = [size for size in _SIZES if 2 * fits[size] > best]
        guesses = (size for size in (said, hints.page_size, wal) if size in (likely or _SIZES))
        return next(guesses, max(likely, key=fits.__getitem__, default=4096))

    def _encoding(self, head: bytes, hints: Hints) -> str:
        """Return the text encoding that the schema shows, else that of the header or the hints."""
        shown: Counter[str] = Counter()
        for number in range(1, min(self.count, 20) + 1):
            data = self.page(number)
            # UTF-16 text looks the same in both byte orders, shifted by a byte: on a tie, big-endian comes first.
            shown.update({name: data.count("CREATE ".encode(name)) for name in ("utf-8", "utf-16-be", "utf-16-le")})
        name, seen = shown.most_common(1)[0] if shown else ("", 0)
        if seen:
            return name
        said = _ENCODINGS.get(head[59], "") if self.header.is_sound and head[56:59] == b"\0\0\0" else ""
        return said or _NAMES.get(hints.encoding.upper(), "utf-8")

    def _apply_newer(self, path: Path) -> None:
        wal, journal = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
        if _has_content(wal):
            self._apply_wal(self._opened(wal))
        if not self._newer and _has_content(journal):
            self._apply_journal(self._opened(journal))

    def _apply_wal(self, file: int) -> None:
        """Apply the frames up to the last commit, except those with a wrong checksum."""
        pending: dict[int, tuple[int, int]] = {}
        broken, end = 0, self.count
        for number, commit, place in self._frames(file):
            if not number:
                broken += 1  # it is lost if a commit follows
                continue
            pending[number] = (file, place)
            if commit:
                self._newer.update(pending)
                pending.clear()
                self.lost_frames += broken
                broken, end = 0, commit
        # A truncated WAL may lack its last commit, whose larger size counts if a checkpoint has written its pages.
        is_cut = broken or (os.fstat(file).st_size - _WAL_HEADER) % (_FRAME_HEADER + self.size)
        self.end = 0 if is_cut else end
        self.count = max(self.count, max(self._newer, default=0), min(end, self.count + len(self._newer)))

    def _frames(self, file: int) -> Iterator[tuple[int, int, int]]:
        """Yield for each frame its page (0 if untrusted), the database size after a commit (or 0), and its offset."""
        head = os.pread(file, _WAL_HEADER, 0).ljust(_WAL_HEADER, b"\0")
        order = ">" if head[3] & 1 else "<"
        is_sound = _checksum(head[:24], (0, 0), order) == struct.unpack_from(">II", head, 24)
        if is_sound and struct.unpack_from(">I", head, 8)[0] not in (self.size, self.size & 0xFFFF):
            return  # it belongs to another database
        salts = head[16:24] if is_sound else b""
        before: tuple[int, int] | None = struct.unpack_from(">II", head, 24) if is_sound else None
        whole = _FRAME_HEADER + self.size
        frames = (os.fstat(file).st_size - _WAL_HEADER) // whole
        highest = self.count + frames
        for place in range(_WAL_HEADER, _WAL_HEADER + frames * whole, whole):
            frame = os.pread(file, whole, place)
            salts = salts or frame[8:16]
            if frame[8:16] != salts:
                continue  # left over from before the WAL was last reset
            found: tuple[int, int] = struct.unpack_from(">II", frame, 16)
            number, commit = struct.unpack_from(">II", frame)
            is_whole = before and _checksum(frame[:8] + frame[_FRAME_HEADER:], before, order) == found
            yield (number, commit, place + _FRAME_HEADER) if is_whole and number <= highest else (0, 0, 0)
            before = found  # the next frame continues this checksum: a broken frame costs no other

    def _apply_journal(self, file: int) -> None:
        """Restore the pages from before the transaction of a killed process, as SQLite itself would."""
        length, place = os.fstat(file).st_size, 0
        record = self.size + 8
        while length - place >= _JOURNAL_HEADER:
            head = os.pread(file, _JOURNAL_HEADER, place)
            records, nonce, pages, sector, size = struct.unpack_from(">IIIII", head, 8)
            if head[:8] != _JOURNAL_MAGIC or size != self.size or not 32 <= sector <= 65536:
                return
            there = (length - place - sector) // record
            place += sector
            for _ in range(there if records == _UNKNOWN else min(records, there)):
                data = os.pread(file, record, place)
                number, found = struct.unpack_from(">I", data)[0], struct.unpack_from(">I", data, record - 4)[0]
                if found != (nonce + sum(data[4:-4][self.size - 200 : 0 : -200])) & 0xFFFFFFFF:
                    self.lost_frames += 1
                elif 0 < number <= pages:
                    self._newer.setdefault(number, (file, place + 4))
                place += record
            if self._newer and pages:
                self.count = max(max(self._newer), min(self.count, pages))
            place = -(-place // sector) * sector


def _size_of_wal(path: Path) -> int:
    wal = path.with_name(path.name + "-wal")
    if not _has_content(wal):
        return 0
    with wal.open("rb") as file:
        return int.from_bytes(file.read(12)[8:], "big")


def _has_content(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size > 0


def _header(head: bytes) -> Header:
    if len(head) < HEADER or not head.startswith(MAGIC):
        return Header(is_sound=False)
    largest_root, incremental = struct.unpack_from(">I", head, 52)[0], struct.unpack_from(">I", head, 64)[0]
    user_version, application_id = struct.unpack_from(">i", head, 60)[0], struct.unpack_from(">i", head, 68)[0]
    return Header(True, user_version, application_id, largest_root > 0, incremental > 0)


def _reserved_bytes(head: bytes, hints: Hints) -> int:
    """Return how many bytes at the end of each page hold no data, by the hints or else by the header."""
    if hints.reserved is not None:
        return hints.reserved
    return head[20] if _header(head).is_sound else 0


def _pages_by_size(file: int, length: int, reserved: int) -> Counter[int]:
    """Count for each page size the b-tree pages that have it exactly, in parts of the file spread over it."""
    found: Counter[int] = Counter()
    blocks = -(-length // _BLOCK)
    for block in range(0, blocks, max(1, blocks // _SAMPLE)):
        data = os.pread(file, _BLOCK, block * _BLOCK)
        for size in _SIZES:
            for place in range(0, len(data), size):
                start = HEADER if block == place == 0 else 0
                if place + start < len(data) and data[place + start] in _B_TREE:
                    found[size] += _is_page(data[place : place + size], start, size - reserved)
    return found


def _is_page(data: bytes, start: int, usable: int) -> bool:
    """Return whether it is a b-tree page of just that size: its last cell ends where the page ends."""
    if len(data) < start + 12:
        return False
    cells, content = struct.unpack_from(">HH", data, start + 3)
    pointers = start + (12 if data[start] in INTERIOR else 8)
    if not cells or pointers + 2 * cells > min(content or 65536, len(data)):
        return False
    places = struct.unpack_from(f">{cells}H", data, pointers)
    try:
        return (content or 65536) <= min(places) and cell_at(data, max(places), data[start], usable).end == usable
    except IndexError:
        return False


def _checksum(data: bytes, before: tuple[int, int], order: str) -> tuple[int, int]:
    """Return the checksum of a WAL, as defined in sqlite.org/fileformat2.html."""
    one, two = before
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
