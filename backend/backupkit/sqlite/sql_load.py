"""Build a database from untrusted SQL text.

The text is split into statements in one pass. Only what a dump needs is run; anything else is refused: by its first
word, with a clear sentence, and after that by SQLite's authorizer, which denies everything that is not on its list.
Transactions, pragmas and the rows that create virtual tables are never run as written: they are parsed, and this module
runs statements of its own. The file is scratch until `load_dump` returns, so it is not journaled on disk or synced.
The length of the text limits the work that it may cause: see `allowance`. `sql_loader` adds the limits of a process.
"""

from __future__ import annotations

import io
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NoReturn

from backupkit.model.errors import BackupError, Damaged, NoSpace
from backupkit.model.events import EventListener, Progress, Step, silence
from backupkit.model.names import printable_text
from backupkit.sqlite import engine, guard
from backupkit.sqlite.allowance import Allowance
from backupkit.sqlite.check import reported
from backupkit.sqlite.engine import quoted
from backupkit.sqlite.guard import MODULES, Guard, Meter, raise_if_interrupted

_BLOCK = 256 * 1024
_LONG = 8 * 1024 * 1024  # bytes that any statement may have; only one with values may be longer
_KEYWORDS_WITHIN = 4096  # bytes at the start of a statement that are searched for its first words
_SHORT_STATEMENT = 2048  # bytes: statements that are shorter on average load faster joined
_ROWS_JOINED = 250
HINT = "Use a complete dump, made by `dump` or by `sqlite3 app.db .dump`."

# INSERTs of plain values: no comments, no names in brackets, nothing outside strings that could be read in two ways.
_TARGET = rb"""INSERT INTO (?:(?:"[^"]*")+|\w+)(?:\([^;'"`\[/()-]*(?:"[^"]*"[^;'"`\[/()-]*)*\))? VALUES[ \r\n]*"""
_VALUES = rb"""\([^;'"`\[/-]*(?:(?:'[^']*'|-(?!-))[^;'"`\[/-]*)*\)"""
_INSERT = re.compile(rb"(%b)(%b);[ \t\r\n]*" % (_TARGET, _VALUES))
_INSERTS = re.compile(rb"(?:%b%b;[ \t\r\n]*)+" % (_TARGET, _VALUES))

# Everything between two statements, as a text may have nothing else there. A comment without its end does not match.
_BETWEEN = re.compile(rb"(?:[ \t\r\n\f;]++|--[^\n]*+\n|/\*.*?\*/)*+", re.DOTALL)
# Possessive, because the number of ways to match comments doubles with each of them.
_GAP = rb"(?>[ \t\r\n\f]|--[^\n]*\n|/\*.*?\*/)"
_COMMENT = re.compile(rb"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TRIGGER = re.compile(rb"CREATE%b++(?:TEMP(?:ORARY)?%b++)?TRIGGER\b" % (_GAP, _GAP), re.IGNORECASE | re.DOTALL)
_END = re.compile(rb"%b*+END%b*+" % (_GAP, _GAP), re.IGNORECASE | re.DOTALL)
_WORD = re.compile(rb"[A-Za-z_]+")
_SPECIAL = re.compile(rb"""['"`\[;]|--|/\*""")
_CLOSING = {b"'": b"'", b'"': b'"', b"`": b"`", b"[": b"]", b"--": b"\n", b"/*": b"*/"}

_PRAGMA = re.compile(r"""PRAGMA\s+(?:main\.)?(\w+)\s*(?:=\s*|\(\s*)['"]?([\w+-]+)['"]?\s*\)?\s*;\s*""", re.IGNORECASE)
_PRAGMAS_KEPT = {
    "application_id": re.compile(r"[+-]?\d{1,10}"),
    "auto_vacuum": re.compile(r"[012]|NONE|FULL|INCREMENTAL", re.IGNORECASE),
    "encoding": re.compile(r"UTF-?(?:8|16(?:le|be)?)", re.IGNORECASE),
    "page_size": re.compile(r"\d{3,5}"),
    "user_version": re.compile(r"[+-]?\d{1,10}"),
}
_PRAGMAS_IGNORED = {"defer_foreign_keys", "foreign_keys", "journal_mode", "synchronous", "writable_schema"}

_TRANSACTION = re.compile(
    r"(?:BEGIN|COMMIT|END)(?:\s+(?:DEFERRED|IMMEDIATE|EXCLUSIVE))?(?:\s+TRANSACTION)?\s*;\s*", re.I
)
_VIRTUAL_ROW = re.compile(
    r"""INSERT\s+INTO\s+"?sqlite_(?:schema|master)"?\s*\(type,name,tbl_name,rootpage,sql\)\s*"""
    r"""VALUES\s*\('table','((?:[^']|'')*)','((?:[^']|'')*)',0,'(CREATE VIRTUAL TABLE(?:[^']|'')*)'\)\s*;\s*""",
    re.IGNORECASE,
)

_WORDS = {"ALTER", "ANALYZE", "CREATE", "DELETE", "DROP", "INSERT", "REINDEX", "REPLACE", "UPDATE"}
_WORDS_WITH_VALUES = {"INSERT", "REPLACE", "UPDATE"}
_WORDS_PARSED = {"BEGIN", "COMMIT", "END", "PRAGMA", "ROLLBACK"}
_WORDS_REFUSED = {"ATTACH", "DETACH", "EXPLAIN", "RELEASE", "SAVEPOINT", "SELECT", "VACUUM", "VALUES", "WITH"}

Confine = Callable[[Allowance, int], None]
_OPTIONAL_TABLES = {f"no such table: sqlite_stat{number}" for number in (2, 3, 4)}


def load_dump(text: BinaryIO, target: Path, emit: EventListener = silence) -> None:
    """Build a new SQLite file `target` from SQL text; refused text leaves no file behind.

    The path must be free. The file has a rollback-journal header, has passed `quick_check`, and is not synced.
    Raises Damaged, with the line, if the text is not SQL, is incomplete, or asks for more than a dump needs.
    """
    with removed_on_failure(target):
        emit(Step("Loading the SQL text"))
        fill(text, name_of(text), target, emit)


def fill(
    text: BinaryIO,
    name: str,
    target: Path,
    emit: EventListener = silence,
    confine: Confine = lambda _allowance, _page_size: None,
) -> None:
    """Do `load_dump` into an existing, empty file, which stays as it is after a failure.

    `confine` is called with the allowance and the page size each time that the allowance grows.
    """
    with closing(_connected(target)) as connection:
        load = _Load(connection, text, name, emit, confine)
        load.run()
    with closing(_connected(target)) as connection:  # a new one, because it must read its schema from the file
        _check(connection, name, load.allowance)


@contextmanager
def removed_on_failure(target: Path) -> Iterator[None]:
    """Create an empty file at the path, which must be free, and remove it if the block fails."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield
    except BaseException:
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{target}{suffix}").unlink(missing_ok=True)
        raise


def _connected(target: Path) -> sqlite3.Connection:
    connection = engine.connect(target, cached_statements=0)
    guard.harden(connection)
    for setting in (
        "foreign_keys=OFF",
        "synchronous=OFF",
        "locking_mode=EXCLUSIVE",
        "journal_mode=MEMORY",
        "cache_size=-16384",
        "threads=2",
    ):
        connection.execute(f"PRAGMA {setting}")
    return connection


def _check(connection: sqlite3.Connection, name: str, allowance: Allowance) -> None:
    """Raise `Damaged` unless the file is a sound database with a table or view, and its virtual tables open."""
    asked, meter = Guard(connection), Meter(connection)
    meter.allow(allowance)
    try:
        with asked.trusting_pragmas():
            found = reported(connection, "quick_check(1)")
        if found:
            raise Damaged(f"{name} makes a database that is not sound: {found[0]}.", hint=HINT)
        tables = connection.execute(
            "SELECT name, rootpage, type FROM sqlite_master"
            r" WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%' ESCAPE '\'"
        ).fetchall()
        if not tables:
            raise Damaged(f"{name} holds no table.", hint=HINT)
        for kind, owner, sql in connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql NOT NULL"):
            if kind != "index" and (called := guard.call_with_effects(sql)):
                raise Damaged(
                    f"{name} cannot be loaded: the {kind} {printable_text(owner)} calls {called}().", hint=HINT
                )
        for table in (table for table, root, kind in tables if kind == "table" and not root):
            connection.execute(f"SELECT 1 FROM {quoted(table)} LIMIT 0")
    except sqlite3.Error as error:
        raise _translated(error, f"{name} makes a database that cannot be read", meter.excess(error)) from error


class _Load:
    """One dump being loaded."""

    def __init__(
        self, connection: sqlite3.Connection, stream: BinaryIO, name: str, emit: EventListener, confine: Confine
    ) -> None:
        self._connection = connection
        self._guard = Guard(connection)
        self._meter = Meter(connection)
        self.allowance = Allowance()
        confine(self.allowance, 0)  # before the first byte is read; the page size counts only with statements
        self._text = _Text(stream, name, connection.getlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH), self._allow)
        self._emit = emit
        self._confine = confine
        self._statements = self._made = self._longest = 0
        self._open = False
        self._complete = False
        self._virtual: dict[str, tuple[str, str]] = {}

    def run(self) -> None:
        while self._text.skip_to_statement():
            line = self._text.line
            if inserts := self._text.take_inserts():
                self._insert(inserts, line)
            else:
                self._refuse_unknown_word(self._text.first_word(), line)
                self._statement(self._text.take_statement(), line)
            self._emit(Progress(self._text.bytes_read))
        if not self._complete:
            self._damaged(self._text.line, self._why_incomplete())
        self._write_virtual_tables()

    def _why_incomplete(self) -> str:
        if not self._statements:
            return "it is empty"
        if self._open:
            return "it ends in the middle, without COMMIT"
        return (
            "it has no COMMIT at its end and may be cut off; if it is whole, put BEGIN; before it and COMMIT; behind it"
        )

    def _insert(self, inserts: bytes, line: int) -> None:
        """Run consecutive INSERTs together; if that fails, run them one by one to find the line of the error."""
        self._complete, self._guard.denied = False, ""
        self._allow(len(inserts))
        try:
            script = _joined(inserts).decode()
        except UnicodeDecodeError:
            script = self._text.decoded(inserts, line)  # fails too, but knows the line, which joining has moved
        try:
            self._connection.executescript(f"BEGIN;{script}COMMIT;")
        except sqlite3.Error as error:
            raise_if_interrupted(error, self._guard, self._meter)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if excess := self._meter.excess(error):
                raise _translated(error, self._sentence(line), excess) from error
            if _is_not_the_dumps_fault(error):
                raise _translated(error, "") from error
            for insert in _INSERT.finditer(inserts):
                self._statement(insert.group(), line)
                line += insert.group().count(b"\n")

    def _statement(self, statement: bytes, line: int) -> None:
        sql = self._text.decoded(statement, line)
        word = _word_of(statement)
        self._statements += 1
        self._made += word == "CREATE"
        self._allow(len(statement))
        self._complete = self._complete and word == "PRAGMA"
        if word in _WORDS_PARSED:
            self._handle_control_statement(word, sql, line)
        elif row := _VIRTUAL_ROW.fullmatch(sql):
            self._keep_virtual_table(*(part.replace("''", "'") for part in row.groups()), line=line)
        else:
            self._execute(sql, line)

    def _handle_control_statement(self, word: str, sql: str, line: int) -> None:
        """Apply a transaction statement or a pragma without running it as written."""
        if word == "PRAGMA":
            self._set_pragma(sql, line)
        elif word == "ROLLBACK":
            self._damaged(line, "it was broken off by errors where it was made")
        elif not _TRANSACTION.fullmatch(_uncommented(sql)) or (word == "BEGIN") == self._open:
            self._damaged(line, f"{word} is out of place")
        else:
            self._open = word == "BEGIN"
            self._complete = not self._open

    def _set_pragma(self, sql: str, line: int) -> None:
        parts = _PRAGMA.fullmatch(_uncommented(sql))
        name, value = (parts[1].lower(), parts[2]) if parts else ("", "")
        if name in _PRAGMAS_KEPT and _PRAGMAS_KEPT[name].fullmatch(value):
            with self._guard.trusting_pragmas():
                self._execute(f"PRAGMA {name}='{value}'", line)
        elif name not in _PRAGMAS_IGNORED:
            self._damaged(line, f"{sql.split(';')[0].strip()[:60]} is not allowed in a dump")

    def _keep_virtual_table(self, name: str, table: str, sql: str, *, line: int) -> None:
        """Keep its schema row for the end: until then its name means nothing, and its shadow tables are ordinary."""
        found, module = self._guard.table_and_module_of(self._connection, sql)
        if not name == table == found or name.lower() in self._virtual or not is_one_statement(sql):
            self._damaged(line, "a row of the schema that is not a virtual table is not allowed in a dump")
        if module.lower() not in MODULES:
            self._damaged(line, f"a virtual table of the module {module} is not allowed in a dump")
        self._virtual[name.lower()] = (name, sql)

    def _write_virtual_tables(self) -> None:
        if not self._virtual:
            return
        with self._guard.trusting_pragmas():
            self._execute("PRAGMA writable_schema=ON", self._text.line)
            for name, sql in self._virtual.values():
                self._connection.execute(
                    "INSERT INTO sqlite_master(type, name, tbl_name, rootpage, sql) VALUES('table', ?, ?, 0, ?)",
                    (name, name, sql),
                )
            self._execute("PRAGMA writable_schema=OFF", self._text.line)

    def _execute(self, sql: str, line: int) -> None:
        self._guard.denied = ""
        try:
            self._connection.execute(sql)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise_if_interrupted(error, self._guard, self._meter)
            if str(error) == "no such table: sqlite_sequence":
                self._make_sequence_table()
                self._execute(sql, line)
            elif not self._may_be_ignored(str(error)):
                denied = self._guard.denied
                reason = f"{denied} is not allowed in a dump" if denied else self._meter.excess(error)
                raise _translated(error, self._sentence(line), reason) from error

    def _allow(self, length: int) -> None:
        """Set the limits for the next statement of that length, or for several of that length together."""
        self._longest = max(self._longest, length)
        allowance = Allowance(self._text.bytes_read, self._statements, self._longest, self._made)
        self._meter.allow(allowance)
        if allowance != self.allowance:
            self.allowance = allowance
            with self._guard.trusting_pragmas():
                self._confine(allowance, self._connection.execute("PRAGMA page_size").fetchone()[0])

    def _make_sequence_table(self) -> None:
        """Make SQLite create `sqlite_sequence`, which it keeps after the last AUTOINCREMENT table is dropped."""
        self._connection.execute("CREATE TABLE backupkit_sequence(id INTEGER PRIMARY KEY AUTOINCREMENT)")
        self._connection.execute("DROP TABLE backupkit_sequence")

    def _may_be_ignored(self, error: str) -> bool:
        """Return whether the missing table only has statistics, or is virtual: its shadow tables hold the rows too."""
        found, _no, missing = error.partition("no such table: ")
        return error in _OPTIONAL_TABLES or (not found and missing.lower() in self._virtual)

    def _refuse_unknown_word(self, word: str, line: int) -> None:
        if word.startswith("."):
            self._damaged(line, f"{word} is a command of the sqlite3 shell, which is not allowed in a dump")
        if word in _WORDS_REFUSED:
            self._damaged(line, f"{word} is not allowed in a dump")
        if word not in _WORDS and word not in _WORDS_PARSED:
            self._damaged(line, "this is not SQL")

    def _sentence(self, line: int) -> str:
        return f"{self._text.name} cannot be loaded, line {line}"

    def _damaged(self, line: int, reason: str) -> NoReturn:
        raise Damaged(f"{self._sentence(line)}: {reason}.", hint=HINT)


class _Text:
    """The text of a dump, statement by statement. Splitting it takes work linear in its size."""

    def __init__(self, stream: BinaryIO, name: str, longest: int, expect: Callable[[int], None]) -> None:
        self._stream = stream
        self._longest = self._most = longest
        self._expect = expect
        self._expected = _LONG
        self._buffer = bytearray()
        self.name = name
        self.line = 1
        self.bytes_read = 0
        self._read_more()
        if self._buffer.startswith(b"\xef\xbb\xbf"):
            del self._buffer[:3]

    def skip_to_statement(self) -> bool:
        """Skip space, comments and empty statements; return False at the end of the text."""
        while True:
            self._take(self._matched(_BETWEEN))
            if len(self._buffer) < 2 and self._read_more():
                continue
            if self._buffer.startswith(b"--"):
                self._skip_past(b"\n")
            elif self._buffer.startswith(b"/*"):
                self._skip_past(b"*/")
            else:
                return bool(self._buffer)

    def take_inserts(self) -> bytes:
        """Return the complete INSERTs of plain values that come next in the buffer; empty if there is none."""
        while len(self._buffer) < _BLOCK and self._read_more():
            self._expect(self._expected)
        return self._take(self._matched(_INSERTS))

    def first_word(self) -> str:
        """Return the statement's first word in upper case, or the name of a dot-command; empty if it has neither."""
        while len(self._buffer) < _KEYWORDS_WITHIN and self._read_more():
            self._expect(self._expected)
        if self._buffer.startswith(b"."):
            words = bytes(self._buffer[:80]).split()
            return words[0].decode(errors="replace")
        return _word_of(self._buffer)

    def take_statement(self) -> bytes:
        """Return the statement up to its semicolon; for a trigger, up to the semicolon of its END."""
        self._most = self._longest if _word_of(self._buffer) in _WORDS_WITH_VALUES else min(_LONG, self._longest)
        is_trigger = bool(self._matched(_TRIGGER))
        start, end = 0, self._semicolon(0)
        while is_trigger and not _END.fullmatch(self._buffer, start, end - 1):
            start, end = end, self._semicolon(end)
        return self._take(end)

    def decoded(self, statement: bytes, line: int) -> str:
        try:
            return statement.decode()
        except UnicodeDecodeError as error:
            raise self._damaged(line + statement.count(b"\n", 0, error.start), "this is not UTF-8") from error

    def _semicolon(self, position: int) -> int:
        """Return the offset after the next semicolon that is not in a string, name or comment."""
        while True:
            found = _SPECIAL.search(self._buffer, position)
            token, position = (found.group(), found.end()) if found else (b"", max(position, len(self._buffer) - 1))
            found = None  # a match holds the buffer, which then could not grow
            if token == b";":
                return position
            if token:
                position = self._past(_CLOSING[token], position)
            else:
                self._must_read_more()

    def _past(self, closing: bytes, position: int) -> int:
        while (found := self._buffer.find(closing, position)) < 0:
            position = max(position, len(self._buffer) - len(closing) + 1)
            self._must_read_more()
        return found + len(closing)

    def _skip_past(self, closing: bytes) -> None:
        self._take(2)
        while (found := self._buffer.find(closing)) < 0:
            self._take(max(0, len(self._buffer) - len(closing) + 1))
            if not self._read_more():
                self._take(len(self._buffer))
                return
        self._take(found + len(closing))

    def _matched(self, pattern: re.Pattern[bytes]) -> int:
        match = pattern.match(self._buffer)
        return match.end() if match else 0

    def _take(self, count: int) -> bytes:
        piece = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        self.line += piece.count(b"\n")
        return piece

    def _must_read_more(self) -> None:
        if len(self._buffer) > self._most:
            raise self._damaged(self.line, "this statement is longer than SQLite, or a dump, allows")
        if len(self._buffer) > self._expected // 2:
            self._expected *= 2
            self._expect(self._expected)
        if not self._read_more():
            raise self._damaged(self.line, "this statement has no end")

    def _read_more(self) -> bool:
        piece = self._stream.read(_BLOCK)
        if (nul := piece.find(b"\0")) >= 0:
            line = self.line + self._buffer.count(b"\n") + piece.count(b"\n", 0, nul)
            raise self._damaged(line, "there is a NUL byte, so this is not SQL text")
        self._buffer += piece
        self.bytes_read += len(piece)
        return bool(piece)

    def _damaged(self, line: int, reason: str) -> Damaged:
        return Damaged(f"{self.name} cannot be loaded, line {line}: {reason}.", hint=HINT)


def is_one_statement(sql: str) -> bool:
    """Return whether the text is one complete statement, and nothing follows it."""
    text = _Text(io.BytesIO(f"{sql}\n;".encode()), "", len(sql), lambda _length: None)
    try:
        text.take_statement()
        return not text.skip_to_statement()
    except Damaged:
        return False


def _joined(inserts: bytes) -> bytes:
    """Return the same rows in fewer statements, which SQLite reads in two thirds of the time."""
    if inserts.count(b"INSERT INTO ") * _SHORT_STATEMENT < len(inserts):
        return inserts
    joined = []
    for target, statements in groupby(_INSERT.findall(inserts), key=lambda statement: statement[0]):
        values = [values for _target, values in statements]
        for start in range(0, len(values), _ROWS_JOINED):
            joined.append(b"%b%b;" % (target, b",".join(values[start : start + _ROWS_JOINED])))
    return b"".join(joined)


def _translated(error: Exception, sentence: str, reason: str = "") -> BaseException:
    """Return the error to raise for an error of SQLite: full disk, Ctrl-C, trouble of this machine, or a bad dump."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if reason:
        return Damaged(f"{sentence}: {reason}.", hint=HINT)
    if code == sqlite3.SQLITE_INTERRUPT:
        return KeyboardInterrupt()
    if code == sqlite3.SQLITE_FULL:
        return NoSpace("The disk is full: there is no room for the database that the dump makes.")
    if _is_not_the_dumps_fault(error):
        return BackupError(f"Cannot write the database that the dump makes: {error}.")
    return Damaged(f"{sentence}: {error}.", hint=HINT)


def _is_not_the_dumps_fault(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
    }


def _uncommented(sql: str) -> str:
    """Return the start of the statement without comments; it is all of a statement that this module parses."""
    return _COMMENT.sub(b" ", sql[:_KEYWORDS_WITHIN].encode()).decode().lstrip()


def _word_of(statement: bytes | bytearray) -> str:
    word = _WORD.match(statement)
    return word.group().decode().upper() if word else ""


def name_of(stream: BinaryIO) -> str:
    """Return the name of the text for errors."""
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) else "The dump"
