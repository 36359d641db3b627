"""Limits on the work that SQL text from outside may cause: a fixed amount, plus one in proportion to its length.

A dump spells out each row, so an honest one costs some multiple of its length. A hostile one causes much work with
little text: by joins, by triggers that multiply, by functions that return large values.
"""

from __future__ import annotations

from msgspec import Struct

_MEGABYTE = 1 << 20
SECONDS, BYTES_A_SECOND = 20, 250_000  # measured: 40 MB load in a second; a small board is 20 times slower
_PAIRS_A_SECOND = 5_000_000  # SQLite rereads its whole schema for each CREATE: measured, 10,000,000 lines a second
_STEPS, _STEPS_A_BYTE = 50_000_000, 200  # of SQLite's VM; a row takes 3 to 5 per byte, each index on it as many again
_FILE, _FILE_A_BYTE, _PAGES_A_STATEMENT = 256 * _MEGABYTE, 32, 2  # a one-digit row with ten indexes is 20 times it
_MOST = 2**31 - 1  # SQLite's limit for sizes
_VALUE, _VALUE_A_BYTE = 16 * _MEGABYTE, 3  # text is twice as long in UTF-16
_MEMORY, _MEMORY_A_BYTE = 512 * _MEGABYTE, 8  # Python and its libraries; 4 copies of the statement, the value, the row


class Allowance(Struct, frozen=True):
    """The limits of a text, by what was read of it: bytes, statements, bytes of the longest one, number of CREATEs."""

    read: int = 0
    statements: int = 0
    longest: int = 0
    made: int = 0

    @property
    def steps(self) -> int:
        """Steps of SQLite's VM for one statement."""
        return _STEPS + _STEPS_A_BYTE * self.read

    @property
    def seconds(self) -> int:
        """Processor seconds for the whole text."""
        return SECONDS + self.read // BYTES_A_SECOND + self.made**2 // _PAIRS_A_SECOND

    @property
    def value_bytes(self) -> int:
        """Bytes of one value or one row."""
        return min(_MOST, _VALUE + _VALUE_A_BYTE * self.longest)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the process's address space."""
        return _MEMORY + _MEMORY_A_BYTE * self.longest

    def file_bytes(self, page_size: int) -> int:
        """Return the limit of any one file in bytes: each table and each index takes at least a page."""
        return _FILE + _FILE_A_BYTE * self.read + _PAGES_A_STATEMENT * page_size * self.statements
