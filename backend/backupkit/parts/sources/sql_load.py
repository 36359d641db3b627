"""A database from SQL text that nobody vouches for.

The text is split into statements in one pass. What a dump needs is done; anything else is refused: by its first word,
with a clear sentence, and behind that by SQLite's authorizer, which denies what is not on its list. Transactions,
pragmas and the rows that make virtual tables are never run as written: they are understood here and done by our own
hand. The file is scratch until `load_dump` returns, so nothing in it is journaled to disk or synced before.
"""

from __future__ import annotations

import re

_BLOCK = 1024 * 1024
_PULSE = 1_000_000  # virtual machine steps between two looks at Ctrl-C
_SHORT_STATEMENT = 4 * 1024  # below this on average, statements are worth joining
_JOINED_ROWS = 200
_HINT = "Use a complete dump made by `dump`, or by `sqlite3 app.db .dump`."

# One whole INSERT of plain values: no comments, no names in brackets, nothing that could be read in two ways.
_VALUES = rb"""\([^;'"`\[/-]*(?:(?:'[^']*'|-(?!-))[^;'"`\[/-]*)*\)"""
_TARGET = rb"""INSERT\ INTO\ (?:"[^"]*"|'[^']*'|\w+)(?:\([^;'"`\[/()-]*(?:"[^"]*"[^;'"`\[/()-]*)*\))?\ VALUES\s*"""
_INSERT = re.compile(rb"(" + _TARGET + rb")(" + _VALUES + rb");[ \t\r\n]*", re.VERBOSE)
_INSERTS = re.compile(rb"(?:" + _TARGET + _VALUES + rb";[ \t\r\n]*)+", re.VERBOSE)
