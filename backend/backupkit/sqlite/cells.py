"""The cells of a b-tree page, as sqlite.org/fileformat2.html defines them."""

from __future__ import annotations

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


def local_bytes(size: int, kind: int, usable: int) -> int:
    """Return how many bytes of a record lie in its page of that kind; the others are in overflow pages."""
    most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    return local if local <= most else least


def end_of_cell(data: bytes, place: int, kind: int, usable: int) -> int:
    """Return the offset after the cell at this offset; raise `IndexError` if the cell begins beyond the end."""
    begin = place
    place += 4 if kind in INTERIOR else 0
    size, place = varint(data, place)
    if kind == TABLE_INTERIOR:
        return max(begin + LEAST_CELL, place)
    if kind == TABLE_LEAF:
        _, place = varint(data, place)
    local = local_bytes(size, kind, usable)
    return max(begin + LEAST_CELL, place + local + (4 if local < size else 0))
