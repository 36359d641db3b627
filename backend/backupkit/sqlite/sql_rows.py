"""How SQLite itself writes rows as SQL text: expressions to select, and the bytes that come of them made portable.

SQLite formats, because Python would take several times as long. Most rows of a table look alike, so a layout is made
from what its columns hold as a rule: `printf` in one go, for the rows of which SQLite can tell that they keep the rule.
The others are put together value by value, by an expression that is right for every value there is.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_PAGE_BYTES = 1024 * 1024  # of rows that SQLite may put together in memory
FORMAT_ARGUMENTS = 100  # SQLite allows a function 127
_LITERAL = re.compile(rb"'(?:[^']|'')*'")


class RowRun(NamedTuple):
    """Rows that follow a place: how many, the key of the last, and their text: empty where it is too long."""

    place: float
    rows: int
    last: int | None
    text: bytes


class OutOfOrder(Exception):
    """Behind a key come rows that belong before it: the tree is damaged, and whoever searches in it may never end."""


def prepare(connection: sqlite3.Connection) -> None:
    """Makes a connection fit to read rows as text; text from elsewhere need not be UTF-8."""
    connection.text_factory = bytes
    connection.create_function("backupkit_exact", 1, exact, deterministic=True)


def read_run(
    connection: sqlite3.Connection, query: str, place: float | None, size: int, count: int
) -> Iterator[RowRun]:
    """So many pages of so many rows, from a key on; fewer, and in the end an empty one, where there are no more rows.

    The query gives `line` and `key`. Raises `OutOfOrder`.
    """
    while place is not None and count:
        page = _read_page(connection, query, place, size)
        if page.last is not None and page.last <= place:
            raise OutOfOrder
        yield page
        place, count = page.last, count - 1


def _read_page(connection: sqlite3.Connection, query: str, place: float, size: int) -> RowRun:
    limit = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _PAGE_BYTES)
    try:
        joined = f"SELECT count(*), max(key), group_concat(line, ',\n'), count(line) FROM ({query})"
        rows, last, text, lines = connection.execute(joined, (place, size)).fetchone()
        if rows == lines:
            return RowRun(place, rows, last, portable(text or b""))
    except sqlite3.DataError:  # "string or blob too big"
        pass
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
    rows, last = connection.execute(f"SELECT count(*), max(key) FROM ({query})", (place, size)).fetchone()
    return RowRun(place, rows, last, b"")


@dataclass(frozen=True)
class _Layout:
    """A value's place in `printf`, and the condition on which it is right there."""

    format: str
    condition: str = ""
    value: str = ""


# A text ends at a NUL for printf. Literals of reals are read back, as below; of zeros there are two, and one literal.
_USUAL = {
    "integer": _Layout("%s", "typeof({c}) IN ('integer','null')", "ifnull({c},'NULL')"),
    "text": _Layout("%Q", "typeof({c}) IN ('text','null') AND ifnull(instr({c},char(0)),0)=0", "{c}"),
    "short": _Layout("%s", "typeof({c})='real' AND {c}<>0 AND CAST(CAST({c} AS TEXT) AS REAL)={c}", "{c}"),
    "long": _Layout("%!.17g", "typeof({c})='real' AND {c}<>0 AND CAST(printf('%!.17g',{c}) AS REAL)={c}", "{c}"),
}


def kind_of(column: str) -> str:
    """An expression for what is usual or not: the storage class, and of a real whether 15 digits are enough for it."""
    short = f"CASE WHEN CAST(CAST({column} AS TEXT) AS REAL)={column} THEN 'short' ELSE 'long' END"
    return f"CASE typeof({column}) WHEN 'real' THEN {short} ELSE typeof({column}) END"


def row_text(columns: Sequence[str], usual: Sequence[str]) -> str:
    """An expression for `(1,'a',NULL)`; `usual` has the kind to expect of each column, or nothing."""
    any_row = _row([_Layout("%s", "", _value_text(column)) for column in columns])
    if not usual or len(columns) > FORMAT_ARGUMENTS:
        return any_row
    layouts = [_layout(column, kind) for column, kind in zip(columns, usual, strict=True)]
    conditions = " AND ".join(layout.condition for layout in layouts if layout.condition)
    return f"CASE WHEN {conditions} THEN {_row(layouts)} ELSE {any_row} END" if conditions else any_row


def _layout(column: str, kind: str) -> _Layout:
    if kind not in _USUAL:
        return _Layout("%s", "", _value_text(column))
    layout = _USUAL[kind]
    return _Layout(layout.format, layout.condition.replace("{c}", column), layout.value.replace("{c}", column))


def _row(layouts: Sequence[_Layout]) -> str:
    starts = range(0, len(layouts), FORMAT_ARGUMENTS)
    parts = [layouts[start : start + FORMAT_ARGUMENTS] for start in starts]
    formats = [",".join(layout.format for layout in part) for part in parts]
    formats[0] = "(" + formats[0]
    formats[-1] += ")"
    values = [",".join(layout.value for layout in part) for part in parts]
    return " || ',' || ".join(f"printf('{f}',{value})" for f, value in zip(formats, values, strict=True))


def _value_text(column: str) -> str:
    """An expression for the literal that brings the column's value back, storage class and every bit of it.

    A text literal cannot hold what SQLite does not carry through its functions: a NUL, half a surrogate pair. Such
    text goes as its bytes in the database's encoding. Literals of reals are read back first, because SQLite's own
    reading of them is off by one bit now and then.
    """
    c = column
    return f"""CASE typeof({c})
        WHEN 'integer' THEN {c}
        WHEN 'text' THEN CASE WHEN CAST(substr({c},1) AS BLOB)=CAST({c} AS BLOB) THEN quote({c})
            ELSE 'CAST(X'''||hex(CAST({c} AS BLOB))||''' AS TEXT)' END
        WHEN 'real' THEN CASE WHEN {c}=0 THEN backupkit_exact({c})
            WHEN CAST(CAST({c} AS TEXT) AS REAL)={c} THEN CAST({c} AS TEXT)
            WHEN CAST(printf('%!.17g',{c}) AS REAL)={c} THEN printf('%!.17g',{c})
            ELSE backupkit_exact({c}) END
        ELSE quote({c}) END"""


def exact(value: float) -> str:
    """The real as arithmetic that cannot round: its digits as an integer, times or over powers of two."""
    if value in (math.inf, -math.inf):
        return "1e999" if value > 0 else "-1e999"
    if value == 0:
        return repr(value)
    fraction, exponent = math.frexp(value)
    digits, shift = int(fraction * 2**53), exponent - 53
    operator = "*" if shift > 0 else "/"
    factors = [2 ** min(62, abs(shift) - done) for done in range(0, abs(shift), 62)]  # an integer literal has 63 bits
    return f"(1.0*{digits}" + "".join(f"{operator}{factor}" for factor in factors) + ")"


def portable(values: bytes) -> bytes:
    """The same values as UTF-8, and without CR LF, which the shell reads as LF even in a string."""
    try:
        values.isascii() or values.decode()
    except UnicodeDecodeError:
        return _LITERAL.sub(_portable_literal, values)
    has_crlf = b"\r" in values and b"\r\n" in values  # one byte is found far faster than two
    return _LITERAL.sub(_portable_literal, values) if has_crlf else values


def _portable_literal(found: re.Match[bytes]) -> bytes:
    literal = found.group()
    try:
        literal.decode()
    except UnicodeDecodeError:  # only in a UTF-8 database: from any other, SQLite converts
        return b"CAST(X'%b' AS TEXT)" % literal[1:-1].replace(b"''", b"'").hex().encode()
    if b"\r\n" not in literal:
        return literal
    mark = b"\\r"
    while mark in literal:
        mark += b"r"
    return b"replace(%b,'%b',char(13))" % (literal.replace(b"\r", mark), mark)
