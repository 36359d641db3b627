"""The rows in the pages of a broken SQLite file, found through the tree of their table or in a page that lost its tree.

Every page is taken once, whoever points to it, and an overflow page belongs to one row: so a ring of pointers cannot
trap a read, and the size of the file bounds the work.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from msgspec import Struct

from backupkit.sqlite.cells import INDEX_INTERIOR, INDEX_LEAF, LEAST_CELL, TABLE_INTERIOR, TABLE_LEAF, cell_at, varint
from backupkit.sqlite.page_file import HEADER, PageFile

Value = None | int | float | str | bytes
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)  # bytes of a value, by its serial type below 10
_CHANGED_IN_UTF_16 = re.compile("^\ufeff|[\ufffe\uffff]")  # when SQLite converts UTF-8 to UTF-16
_READS_PER_PAGE = 20  # reads of overflow pages that may lead nowhere, for each page of the file


class UndecodedText(bytes):
    """The bytes of a text that is not valid in its database's encoding, or that SQLite would change."""


class StoredRow(Struct, frozen=True):
    """A row: its number (None if its table has none), its values as far as they are stored, its size in bytes."""

    number: int | None
    values: tuple[Value, ...]
    size: int = 0


@dataclass
class Losses:
    """The parts of a tree that could not be read: pages, with everything below them, and single rows.

    `odd_pages` have bytes that belong to no row and are not free either: rows may be lost there without a trace.
    """

    pages: int = 0
    rows: int = 0
    odd_pages: int = 0


class _Cell(Struct, frozen=True):
    """A cell: `record` has `size` bytes, or is None if a part is missing; `length` is the cell's size on its page."""

    number: int | None
    record: bytes | None
    size: int
    length: int


class RowReader:
    """A reader of rows. `owner` has each page's owner: 0 for none, -1 if the page holds the rest of a long row."""

    def __init__(self, file: PageFile) -> None:
        self.file, self.owner = file, [0] * (file.count + 1)
        self._reads_left = _READS_PER_PAGE * file.count + 1000
        self._follows = True

    def pages_of(self, root: int, mark: int, losses: Losses, in_index: bool = False) -> Iterator[int]:
        """Yield the pages with rows in the tree below that root, in key order, and set their owner to `mark`.

        A page with another owner counts as lost. The caller must release a page that turns out to be another's.
        """
        interior, leaf = (INDEX_INTERIOR, INDEX_LEAF) if in_index else (TABLE_INTERIOR, TABLE_LEAF)
        waiting = [root]
        while waiting:
            number = waiting.pop()
            kind = self.file.kind(number)
            if kind not in (interior, leaf) or self.owner[number]:
                losses.pages += 1
                continue
            self.owner[number] = mark
            if kind == leaf or in_index:
                yield number
            if kind == interior:
                waiting.extend(reversed(self._children(number)))

    def rows_of(self, number: int, losses: Losses) -> Iterator[StoredRow]:
        """Yield the rows in that page; count in `losses` those that cannot be read."""
        for cell in self._cells(number, losses):
            values = self._values(cell.record, cell.size) if cell.record is not None else None
            if values is None:
                losses.rows += 1
            else:
                yield StoredRow(cell.number, values, cell.size)

    def claim(self, number: int) -> None:
        """Take the overflow pages of each long row in that page, without decoding the rows."""
        for _ in self._cells(number, Losses()):
            pass

    def peek(self, number: int, most: int = 20) -> list[StoredRow]:
        """Return at most `most` of the first rows in that page, with as much of their values as the page itself has."""
        self._follows = False
        try:
            return list(islice(self.rows_of(number, Losses()), most))
        finally:
            self._follows = True

    def _children(self, number: int) -> list[int]:
        data = self.file.page(number)
        start = HEADER if number == 1 else 0
        found = []
        for place in self._places(data, start, 12):
            if place + 4 <= len(data):
                found.append(int.from_bytes(data[place : place + 4], "big"))
        return [*found, int.from_bytes(data[start + 8 : start + 12], "big")]

    def _places(self, data: bytes, start: int, header: int) -> list[int]:
        """Return the offsets of the cells of a page, each once."""
        cells = struct.unpack_from(">H", data, start + 3)[0]
        cells = min(cells, (self.file.usable - start - header) // (LEAST_CELL + 2))
        return list(dict.fromkeys(struct.unpack_from(f">{cells}H", data, start + header)))

    def _cells(self, number: int, losses: Losses) -> Iterator[_Cell]:
        stored, start = self.file.stored(number), HEADER if number == 1 else 0
        data = stored.ljust(self.file.size, b"\0")
        kind, taken = data[start], 0
        places = self._places(data, start, 12 if kind == INDEX_INTERIOR else 8)
        for place in sorted(places, key=self.file.size.__le__):  # one that leads beyond the page comes last
            if place >= self.file.size:
                place = self._mended(data, start, place, taken)
            if taken > 2 * self.file.size:
                losses.rows += 1  # more rows than a page can hold
                continue
            try:
                cell = self._cell(stored, place, kind)
            except IndexError:  # the cell reaches beyond the page, or beyond the end of a file that is cut off
                cell = _Cell(None, None, 0, 0)
            taken += cell.length
            yield cell
        losses.odd_pages += taken != self._bytes_of_cells(data, start)

    def _bytes_of_cells(self, data: bytes, start: int) -> int:
        content = int.from_bytes(data[start + 5 : start + 7], "big") or 65536
        return self.file.usable - content - _free_bytes(data, start)

    def _mended(self, data: bytes, start: int, place: int, taken: int) -> int:
        """Return the offset without the bits that lead beyond the page, if a cell there fills what is not `taken`."""
        mended = place & (self.file.size - 1)
        try:
            end = cell_at(data, mended, data[start], self.file.usable).end
        except IndexError:
            return place
        return mended if mended >= 8 and taken + end - mended == self._bytes_of_cells(data, start) else place

    def _cell(self, data: bytes, place: int, kind: int) -> _Cell:
        if place < 8:
            raise IndexError
        cell = cell_at(data, place, kind, self.file.usable)
        return _Cell(cell.number, self._record(data, cell.place, cell.size, cell.local), cell.size, cell.end - place)

    def _record(self, data: bytes, place: int, size: int, local: int) -> bytes | None:
        """Return the whole record, or None if a part of it is missing; for `peek`, only the part in its page."""
        usable = self.file.usable
        if local == size:
            found = data[place : place + size]
            return found if size >= 2 and len(found) == size and place + size <= usable else None
        if place + local + 4 > min(usable, len(data)):
            return None
        if not self._follows:
            return data[place : place + local]
        rest = self._chain(int.from_bytes(data[place + local : place + local + 4], "big"), size - local)
        return data[place : place + local] + rest if rest is not None else None

    def _chain(self, number: int, size: int) -> bytes | None:
        """Return `size` bytes from overflow pages, now owned by this row; None if one is missing or already taken."""
        step = self.file.usable - 4
        parts, pages = [], dict[int, None]()
        while size > 0:
            data = self.file.stored(number)
            self._reads_left -= 1
            if len(data) < 4 + min(size, step) or self.owner[number] or number in pages or self._reads_left < 0:
                return None
            pages[number] = None
            parts.append(data[4 : 4 + min(size, step)])
            size -= step
            number = int.from_bytes(data[:4], "big")
        for page in pages:
            self.owner[page] = -1
        self._reads_left += len(pages)
        return b"".join(parts)

    def _values(self, record: bytes, size: int) -> tuple[Value, ...] | None:
        """Return the values of a record, or None if it is not valid."""
        try:
            end, at = varint(record, 0)
            if not at < end <= len(record):
                return None
            kinds, place = [], end
            while at < end:
                kind, at = (record[at], at + 1) if record[at] < 128 else varint(record, at)
                kinds.append(kind)
                place += (kind - 12) // 2 if kind >= 12 else _SIZES[kind]
        except IndexError:
            return None
        if at != end or place != size:
            return None
        return self._decoded(record, kinds, end)

    def _decoded(self, record: bytes, kinds: list[int], place: int) -> tuple[Value, ...]:
        values: list[Value] = []
        for kind in kinds:
            size = (kind - 12) // 2 if kind >= 12 else _SIZES[kind]
            data = record[place : place + size]
            place += size
            if kind >= 12:
                values.append(self._text(data) if kind & 1 else data)
            elif kind == 7:
                real = struct.unpack(">d", data.ljust(8, b"\0"))[0]
                values.append(None if math.isnan(real) else real)
            elif kind:
                values.append(int.from_bytes(data, "big", signed=True) if size else kind - 8)
            else:
                values.append(None)
        return tuple(values)

    def _text(self, data: bytes) -> Value:
        try:
            text = data.decode(self.file.encoding)
        except UnicodeDecodeError:
            return UndecodedText(data)
        return text if self.file.encoding == "utf-8" or not _CHANGED_IN_UTF_16.search(text) else UndecodedText(data)


def _free_bytes(data: bytes, start: int) -> int:
    """Return the number of free bytes between the rows of a page; fewer if the list of free blocks is broken."""
    place, free = int.from_bytes(data[start + 1 : start + 3], "big"), data[start + 7]
    while start < place <= len(data) - 4:
        following, size = struct.unpack_from(">HH", data, place)
        free += size
        place = following if following > place else 0
    return free
