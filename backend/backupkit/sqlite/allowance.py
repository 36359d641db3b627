"""How much work SQL text from outside may cause: a fixed amount, and more in proportion to its length.

A dump spells out each row, so an honest one costs some multiple of its length. A hostile one makes much out of little
text: by joins, by triggers that multiply, by functions that return large values.
"""

from __future__ import annotations

from dataclasses import dataclass

_MEGABYTE = 1 << 20
SECONDS, BYTES_A_SECOND = 20, 250_000  # loading 40 MB takes a second here, and a small board is 20 times slower
_PAIRS_A_SECOND = 5_000_000  # for each thing that is made SQLite reads its whole schema: 10,000,000 lines a second here
_STEPS, _STEPS_A_BYTE = 50_000_000, 200  # of SQLite's machine; a row takes 3 to 5 a byte, an index on it as many again
_FILE, _FILE_A_BYTE, _PAGES_A_STATEMENT = 256 * _MEGABYTE, 32, 2  # a row of one digit with ten indexes is 20 times it
_MOST = 2**31 - 1  # SQLite's numbers for sizes end here
_VALUE, _VALUE_A_BYTE = 16 * _MEGABYTE, 3  # in UTF-16 text is twice as long
_MEMORY, _MEMORY_A_BYTE = 512 * _MEGABYTE, 8  # Python and its libraries; the statement four times, the value, the row


@dataclass(frozen=True)
class Allowance:
    """What a text may use, by what was read of it: bytes, statements, bytes of the longest one, number of CREATEs."""

    read: int = 0
    statements: int = 0
    longest: int = 0
    made: int = 0

    @property
    def steps(self) -> int:
        """Steps of SQLite's machine for one statement."""
        return _STEPS + _STEPS_A_BYTE * self.read

    @property
    def seconds(self) -> int:
        """Processor time for all of it."""
        return SECONDS + self.read // BYTES_A_SECOND + self.made**2 // _PAIRS_A_SECOND

    @property
    def value_bytes(self) -> int:
        """Bytes of one value, and of one row."""
        return min(_MOST, _VALUE + _VALUE_A_BYTE * self.longest)

    @property
    def memory_bytes(self) -> int:
        """Address space of the process."""
        return _MEMORY + _MEMORY_A_BYTE * self.longest

    def file_bytes(self, page_size: int) -> int:
        """Bytes of any one file: each table and each index is a page at least."""
        return _FILE + _FILE_A_BYTE * self.read + _PAGES_A_STATEMENT * page_size * self.statements
