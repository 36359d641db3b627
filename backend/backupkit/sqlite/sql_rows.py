"""Rows as SQL text: literals that restore each value exactly, with its storage class.

Most rows of a table look alike, so a layout is made from what its columns usually hold: Python writes integers, text
and blobs, SQLite the rest, which only it writes correctly. Other values, and rows that Python cannot hold, are written
by an expression that is correct for every value.
"""

from __future__ import annotations

import binascii
import math
import re
import sqlite3
from collections.abc import Callable, Generator, Sequence
from typing import Any

_LONGEST = 256 * 1024  # bytes of a row that is still read together with others
_CHUNK = 64  # rows
_FORMAT_ARGUMENTS = 100  # SQLite allows a function 127
_LITERAL = re.compile(rb"'(?:[^']|'')*'")
_WRONG_CLASS = (AttributeError, TypeError, ValueError)  # raised for a storage class that is not the column's usual one

Row = tuple[Any, ...]
# How Python writes a column's usual values. Each raises an error for a value of another storage class.
_USUAL = {
    "integer": "{null if %(name)s is None else %(name)s | 0}",
    "blob": "{null if %(name)s is None else 'X' + quote + hexlify(%(name)s).decode().upper() + quote}",
    "text": "{null if %(name)s is None else quote + %(name)s.replace(quote, quotes) + quote}",
}
_AS_IT_IS = "{%(name)s:s}"  # a literal that SQLite wrote; NULL if it would be too long
_NAMES = {"null": "NULL", "quote": "'", "quotes": "''", "hexlify": binascii.hexlify}
# How SQLite usually writes a real: with as many digits as its column needs. The text is read back before it is used.
_REALS = {"short": "CAST(%s AS TEXT)", "long": "printf('%%!.17g',%s)"}


def prepare(connection: sqlite3.Connection) -> None:
    """Prepare a connection to read rows as SQL text. Text is read as bytes, because it need not be UTF-8."""
    connection.text_factory = bytes
    connection.create_function("backupkit_exact", 1, exact, deterministic=True)


class UsualRows:
    """The rows of a table as SQL text, in a layout for the usual storage class of each column, given by `kinds`."""

    def __init__(self, connection: sqlite3.Connection, columns: Sequence[str], kinds: Sequence[str]) -> None:
        self._connection = connection
        self.is_complete = False
        self._by_python = [kind in _USUAL for kind in kinds]
        names = [f"c{number}" for number in range(len(columns))]
        inner = [f"{column} AS {name}" for column, name in zip(columns, names, strict=True)]
        inner += [f"{_REALS[k] % c} AS {n}_text" for c, n, k in zip(columns, names, kinds, strict=True) if k in _REALS]
        self._inner, self._outer = ",".join(inner), ",".join(map(_selected, names, kinds))
        layout = ",".join(_USUAL.get(kind, _AS_IT_IS) % {"name": name} for name, kind in zip(names, kinds, strict=True))
        # Nothing in it comes from the database. Compiled once, it is faster than formatting value by value.
        program = f'lambda rows: [f"""({layout})""" for {",".join(names)}, in rows]'
        self._format: Callable[[list[Row]], list[str]] = eval(program, dict(_NAMES))

    def read(self, source: str, limit: str) -> Generator[tuple[bytes, int], None, None]:
        """Yield the text of some rows at a time, and their number; stop at a row that Python cannot hold."""
        cursor = self._connection.cursor()
        cursor.row_factory = None
        longest = self._connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(_LONGEST, longest))
        self._connection.text_factory = str
        try:
            # LIMIT with WHERE keeps SQLite from making one query of the two, which would format each real twice.
            cursor.execute(f"SELECT {self._outer} FROM (SELECT {self._inner} FROM {source}{limit}) WHERE true")
            while rows := cursor.fetchmany(_CHUNK):
                yield portable(self._text(rows).encode()), len(rows)
            self.is_complete = True
        except (sqlite3.DataError, UnicodeDecodeError):  # "string or blob too big"
            pass
        except sqlite3.OperationalError as error:
            if not str(error).startswith("Could not decode to UTF-8"):
                raise
        finally:
            self._connection.text_factory = bytes
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)

    def _text(self, rows: list[Row]) -> str:
        try:
            text = ",\n".join(self._format(rows))
        except _WRONG_CLASS:
            text = "\0"
        return text if "\0" not in text else ",\n".join(map(self._row_text, rows))

    def _row_text(self, row: Row) -> str:
        literals = [self._literal(value) if own else value for value, own in zip(row, self._by_python, strict=True)]
        if None in literals:
            raise sqlite3.DataError("a literal is too long")
        return f"({','.join(literals)})"

    def _literal(self, value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, int):
            return str(value)
        if isinstance(value, str) and "\0" not in value:
            return "'" + value.replace("'", "''") + "'"
        (literal,) = self._connection.execute(f"SELECT {value_text('?1')}", (value,)).fetchone()
        return str(literal)


def kind_of(column: str) -> str:
    """Return the SQL expression for the storage class; for a real, `short` if 15 digits are enough, else `long`."""
    short = f"CASE WHEN CAST(CAST({column} AS TEXT) AS REAL)={column} THEN 'short' ELSE 'long' END"
    return f"CASE typeof({column}) WHEN 'real' THEN {short} ELSE typeof({column}) END"


def _selected(name: str, kind: str) -> str:
    if kind not in _REALS:
        return name
    is_right = f"typeof({name})='real' AND {name}<>0 AND CAST({name}_text AS REAL)={name}"
    return f"CASE WHEN {is_right} THEN {name}_text ELSE {value_text(name)} END"


def any_row(columns: Sequence[str]) -> str:
    """Return the SQL expression for a row as `(1,'a',NULL)`, whatever the columns hold."""
    starts = range(0, len(columns), _FORMAT_ARGUMENTS)
    parts = [[value_text(column) for column in columns[start : start + _FORMAT_ARGUMENTS]] for start in starts]
    formats = [",".join(["%s"] * len(part)) for part in parts]
    formats[0] = "(" + formats[0]
    formats[-1] += ")"
    return " || ',' || ".join(f"printf('{f}',{','.join(part)})" for f, part in zip(formats, parts, strict=True))


def value_text(column: str) -> str:
    """Return the SQL expression for the literal that restores the column's value exactly, with its storage class.

    SQLite's functions lose a NUL or half a surrogate pair, so such text is written as its bytes in the database's
    encoding. Literals of reals are read back first, because SQLite sometimes reads them off by one bit.
    """
    c = column
    return f"""CASE typeof({c})
        WHEN 'integer' THEN CAST({c} AS TEXT)
        WHEN 'text' THEN CASE WHEN CAST(substr({c},1) AS BLOB)=CAST({c} AS BLOB) THEN quote({c})
            ELSE 'CAST(X'''||hex(CAST({c} AS BLOB))||''' AS TEXT)' END
        WHEN 'real' THEN CASE WHEN {c}=0 THEN backupkit_exact({c})
            WHEN CAST(CAST({c} AS TEXT) AS REAL)={c} THEN CAST({c} AS TEXT)
            WHEN CAST(printf('%!.17g',{c}) AS REAL)={c} THEN printf('%!.17g',{c})
            ELSE backupkit_exact({c}) END
        ELSE quote({c}) END"""


def exact(value: float) -> str:
    """Return the real as arithmetic that cannot round: its digits as an integer, times or over powers of two."""
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
    """Return the same values as UTF-8, and without CR LF, which the shell reads as LF even in a string."""
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
    except UnicodeDecodeError:  # only in a UTF-8 database: SQLite converts text of any other
        return b"CAST(X'%b' AS TEXT)" % literal[1:-1].replace(b"''", b"'").hex().encode()
    if b"\r\n" not in literal:
        return literal
    mark = b"\\r"
    while mark in literal:
        mark += b"r"
    return b"replace(%b,'%b',char(13))" % (literal.replace(b"\r", mark), mark)
