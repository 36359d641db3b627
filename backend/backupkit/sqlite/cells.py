"""The cells of a b-tree page, as sqlite.org/fileformat2.html defines them."""

from __future__ import annotations

from typing import NamedTuple

TABLE_LEAF, TABLE_INTERIOR, INDEX_LEAF, INDEX_INTERIOR = 13, 5, 10, 2  # the types of b-tree pages
INTERIOR = (TABLE_INTERIOR, INDEX_INTERIOR)
LEAST_CELL = 4  # bytes of the smallest cell


def varint(data: bytes, place: int) -> tuple[int, int]:
    """Return SQLite's variable-length integer at this offset, and the offset after it; `IndexError` beyond the end."""
    value = 0
    for at in range(place, place + 8):
        value = value << 7 | data[at] & 0x7F
        if data[at] < 0x80:
            return value, at + 1
    return value << 8 | data[place + 8], place + 9


class Cell(NamedTuple):
    """A cell: its row number (None in an index), the `size` of its record, and the record's `place` in the page.

    `local` bytes of the record are in the page, the others in overflow pages; `end` is the offset after the cell.
    A cell of a table's interior page has no record.
    """

    number: int | None
    size: int
    place: int
    local: int
    end: int


def cell_at(data: bytes, begin: int, kind: int, usable: int) -> Cell:
    """Return the cell at this offset of a page of that kind; raise `IndexError` if its head reaches beyond the end."""
    number, size, place = None, 0, begin + (4 if kind in INTERIOR else 0)  # the number of the child page to the left
    if kind != TABLE_INTERIOR:
        size, place = varint(data, place)
    if kind in (TABLE_LEAF, TABLE_INTERIOR):
        number, place = varint(data, place)
        number -= (1 << 64) if number >> 63 else 0
    local = _local_bytes(size, kind, usable)
    end = place + local + (4 if local < size else 0)
    return Cell(number, size, place, local, max(begin + LEAST_CELL, end))


def _local_bytes(size: int, kind: int, usable: int) -> int:
    """Return how many bytes of a record lie in its page of that kind; the others are in overflow pages."""
    most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    return local if local <= most else least
