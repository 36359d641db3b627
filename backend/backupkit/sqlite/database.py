"""The SQLite database: snapshot, copy, check and restore, all through SQLite itself.

This process opens, hashes and copies the live file only through SQLite: closing a second handle on it would drop the
locks of this process, which may be the app. A working live file is never replaced by renaming, and never checkpointed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import descriptors, disk, mounts, process, stamps
from backupkit.model.backup import AppMigrations, DatabaseFacts
from backupkit.model.errors import BackupError, Damaged, NoSpace, SourceBroken, SourceLocked, SourceUnreadable
from backupkit.model.events import EventListener, Notice, Progress, Step, Waiting, silence
from backupkit.model.names import first_of
from backupkit.sqlite import app_migrations, engine, pages
from backupkit.sqlite.check import reported
from backupkit.sqlite.engine import quoted

SIDECARS = ("-wal", "-shm", "-journal")
# FULL also compares each index with its table: three to six times the work, 0.5 s for a database of FULL_UP_TO bytes.
QUICK, FULL, FULL_UP_TO = "quick_check(5)", "integrity_check(100)", 128 << 20
_MOST_INDEX_FLAWS = 5
_BROKEN_CHECK = "CHECK constraint failed in "
_SEARCH_INDEX = re.compile(
    r'malformed inverted index for FTS\d table main\.(.+)|fts5: corruption found reading blob -?\d+ from table "(.+)"'
)
_PAGES = 2048  # a step small enough for a live bar and for Ctrl-C
_LIVE_CHECK_SECONDS = 5  # doctor and verify wait no longer for the full check of a live database
_POLL = 0.0002  # seconds between tries for a lock: a busy writer frees it only briefly, and SQLite polls less often
_BUSY = ("locked", "busy")
_MISSING_IN_SQLITE = (
    "no such collation",
    "no such function",
    "no such module",
    "unknown function",
    "no such tokenizer",
    "unknown tokenizer",
    "error in tokenizer constructor",
    "SQL logic error",
)
_HEADER, _WRITE_VERSION = 20, 18  # bytes to read, and an offset in them: sqlite.org/fileformat.html
_WHOLE_HEADER = 100
_SLOWEST = 10 << 20  # bytes per second: the slowest comparison that the timeout allows for
_NO_DATABASE = "file is not a database"
VERSION_TABLE = "alembic_version"
PUT_BACK = "Put a backup back: `list`, then `restore NAME`."

T = TypeVar("T")


class Comparison(Struct, frozen=True):
    """The result of comparing a live database with what was written to it.

    `is_same`: whether the pages are identical; None if unknown. `file`: device and inode of the file that was written;
    the path may name another file since.
    """

    is_same: bool | None
    file: tuple[int, int] | None


class Inspection(Struct, frozen=True):
    """The result of inspecting a database: its facts, its revisions, and its problems (none if it is sound).

    `versions` has the revisions in every table that may be Alembic's version table, by the table's name.
    `has_same_pages`: it was compared page by page with a sound file, and not checked itself.
    """

    facts: DatabaseFacts
    versions: Mapping[str, tuple[str, ...]]
    fingerprint: str
    problems: tuple[str, ...] = ()
    migrations: AppMigrations | None = None
    has_same_pages: bool = False

    @property
    def revisions(self) -> tuple[str, ...] | None:
        """The revisions in Alembic's usual table, or None if there is no such table."""
        return self.versions.get(VERSION_TABLE)


_NAMES_FILES = ": `doctor` names what it may be."


def require(live: Path) -> None:
    """Raise `SourceBroken` if the live database is missing or empty, `SourceUnreadable` if no file can be reached."""
    try:
        facts = os.stat(live)
    except FileNotFoundError as error:
        hint = f"Set BACKUP_DATABASE to where it is{_NAMES_FILES}"
        raise SourceBroken(f"There is no database at {live}.", hint) from error
    except OSError as error:
        hint = f"Run as a user who may read it (ls -ld {live.parent}), or see `doctor`."
        raise SourceUnreadable(f"The database {live} cannot be reached: {error.strerror}.", hint) from error
    if not stat.S_ISREG(facts.st_mode):
        raise SourceUnreadable(f"The database {live} is not a file.", hint="Set BACKUP_DATABASE to the database file.")
    if facts.st_size == 0:
        raise SourceBroken(f"The database {live} is empty (0 bytes).", hint="Is BACKUP_DATABASE right? See `config`.")


@contextlib.contextmanager
def snapshot(live: Path, timeout: float, emit: EventListener = silence) -> Iterator[sqlite3.Connection]:
    """Hold a snapshot of the live database, WAL included, while the block runs; writers in WAL mode are not blocked.

    Raises `SourceBroken` if it is missing, empty or not a database, `SourceUnreadable` if it stays locked.
    """
    require(live)
    try:
        with contextlib.closing(_open_for_reading(live, timeout, emit)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise _unreadable(live, error) from error


@contextlib.contextmanager
def snapshot_of(
    settings: Settings, emit: EventListener = silence, timeout: float | None = None
) -> Iterator[sqlite3.Connection]:
    """Hold a `snapshot` of the settings' database; the hint of an error names the database if there are several."""
    wait = settings.busy_timeout if timeout is None else timeout
    with naming(settings.part), snapshot(settings.database, wait, emit) as connection:
        yield connection


@contextlib.contextmanager
def attributed_to(live: Path) -> Iterator[None]:
    """Raise SQLite's errors in the block as errors of this database, for a block that holds snapshots of several."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _unreadable(live, error) from error


@contextlib.contextmanager
def naming(part: str) -> Iterator[None]:
    """Name this one of several databases in the hint of a `SourceUnreadable` from the block; "" needs no name."""
    try:
        yield
    except SourceUnreadable as error:
        if part and "/" not in part:
            error.hint = error.hint.replace("`restore NAME`", f"`restore NAME --only {part}`")
            error.hint = error.hint.replace("BACKUP_DATABASE", f"path of [databases.{part}] in backup.toml")
            error.hint = error.hint.replace(_NAMES_FILES, f"; if it is gone: `restore NAME --only {part}`.")
            error.hint = error.hint.replace("`salvage`", f"`salvage --database {part}`")
        raise


def copy(snapshot: sqlite3.Connection, target: Path, emit: EventListener = silence) -> None:
    """Write the snapshot to `target` as one complete file with a rollback-journal header, not yet synced.

    The snapshot's read transaction is open, so the stepped copy is of one state and never restarts.
    Raises `NoSpace` if the disk is full.
    """
    try:
        with contextlib.closing(engine.connect(target)) as copied:
            copied.execute("PRAGMA synchronous=OFF")  # the draft is synced as a whole
            snapshot.backup(copied, pages=_PAGES, progress=_reporter(emit))
            # The copied header says WAL: opening the sealed copy would leave -wal and -shm beside it.
            copied.execute("PRAGMA journal_mode=DELETE").fetchone()
            _read_schema(copied)
    except sqlite3.OperationalError as error:
        if _is_full(str(error), target.parent):
            raise NoSpace(f"The disk is full: {target.parent}.", hint="Make room there, then try again.") from error
        raise


def _read_schema(connection: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` if no app can open it. SQLite parses CHECKs only on a writable connection."""
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def require_usable(copied: Path, source: Path) -> None:
    """Raise `Damaged` if no app can open this copy of `source`, although it passed every check on a read-only one."""
    try:
        with contextlib.closing(engine.connect(copied, "mode=rw")) as connection:
            _read_schema(connection)
    except sqlite3.DatabaseError as error:
        raise Damaged(f"{source} is damaged: {error}.", hint="Try an older backup: `list`.") from error


def interrupt(connections: Iterable[sqlite3.Connection]) -> None:
    """End what these connections do in other threads; one that is closed by then is passed over."""
    for connection in connections:
        with contextlib.suppress(sqlite3.ProgrammingError):
            connection.interrupt()


def seal(copied: Path) -> None:
    """Give the finished file a rollback-journal header, so that opening it creates no file beside it."""
    with contextlib.closing(engine.connect(copied, "mode=rw")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE").fetchone()


def header_mode(copied: Path) -> str:
    """Return `wal` or `delete`, from the header. Not for a live database: closing the file drops SQLite's locks."""
    with disk.Opened(copied, os.O_RDONLY | os.O_NOFOLLOW) as handle:
        return "wal" if os.pread(handle, 1, _WRITE_VERSION) == b"\x02" else "delete"


def signature(live: Path) -> str | None:
    """Return a text that changes with every commit, without opening a file; None if a very recent one may not show."""
    wal = _facts(live.with_name(live.name + "-wal"))
    file = _facts(live)
    found = [
        stamps.change_stamp(file) if file else stamps.RACY,
        stamps.change_stamp(wal) if wal and wal.st_size else "-",
    ]
    return None if stamps.RACY in found else "; ".join(found)


def is_database(live: Path) -> bool:
    """Return whether a live file begins with SQLite's magic string."""
    return _header(live).startswith(b"SQLite format 3\0")


def live_size(snapshot: sqlite3.Connection) -> int:
    """Return the size of the database in this snapshot, in bytes."""
    return _number(snapshot, "page_count") * page_size(snapshot)


def schema_version(snapshot: sqlite3.Connection) -> int:
    """Return the number that SQLite increments with every change of the schema."""
    return _number(snapshot, "schema_version")


def page_size(snapshot: sqlite3.Connection) -> int:
    """Return the page size in bytes."""
    return _number(snapshot, "page_size")


def journal_mode(snapshot: sqlite3.Connection) -> str:
    """Return the journal mode of the live database: `wal`, `delete` and so on."""
    return str(_pragma(snapshot, "journal_mode"))


def inspect(
    sealed: Path, emit: EventListener = silence, opened: Callable[[sqlite3.Connection], None] | None = None
) -> Inspection:
    """Return the facts, checksum and problems of a finished file; write nothing beside it.

    `opened` is called with each connection. Raises `Damaged` if SQLite cannot read the file at all.
    """
    with process.optional_worker(sealed.stat().st_size) as worker:
        checksum = worker.submit(disk.hash_file, sealed)
        found = examine(sealed, check_for(sealed.stat().st_size), emit, opened)
        return replace(found, facts=replace(found.facts, sha256=checksum.result()))


def check_for(size: int) -> str:
    """Return the most thorough check that is still quick for a database of `size` bytes."""
    return FULL if size <= FULL_UP_TO else QUICK


def index_sentence(settings: Settings, flaws: Sequence[str]) -> str:
    """Return a sentence saying that an index does not match its table, with the command that rebuilds the index."""
    found = _SEARCH_INDEX.match(flaws[0])
    table = quoted(found[1] or found[2]) if found else ""
    statement = f"INSERT INTO {table}({table}) VALUES('rebuild')" if found else "REINDEX"
    line = settings.deployment.sql(settings.database, statement)
    return f"In {settings.database} an index does not match its table: {first_of(flaws)}. Rebuild it: {line}"


def check_live(live: Path, timeout: float) -> Inspection | None:
    """Return the problems and index flaws that a full check of the live database finds, without its other facts.

    Returns None if they are unknown: it cannot be read, is larger than `FULL_UP_TO`, or the check took too long.
    """
    try:
        with snapshot(live, timeout) as taken:
            if live_size(taken) > FULL_UP_TO:
                return None
            deadline = time.monotonic() + _LIVE_CHECK_SECONDS
            taken.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
            problems, index_flaws = _checked(taken, silence, FULL)
        problems += (unwritable,) if (unwritable := _unwritable(_header(live))) else ()
    except SourceBroken as error:
        if not live.exists():
            return None
        return Inspection(DatabaseFacts(size=0, sha256=""), {}, "", (error.message.rstrip("."),))
    except SourceUnreadable:
        return None
    return Inspection(DatabaseFacts(size=0, sha256="", index_flaws=index_flaws), {}, "", problems)


def examine(
    sealed: Path, check: str, emit: EventListener = silence, opened: Callable[[sqlite3.Connection], None] | None = None
) -> Inspection:
    """Inspect a finished file without the checksum, which takes a second read; `check` is `QUICK` or `FULL`.

    `opened` is called with the connection, so that another thread can interrupt it. Raises as `inspect` does.
    """
    try:
        with open_sealed(sealed) as connection:
            if opened:
                opened(connection)
            found = _inspection(connection, emit, check)
        with disk.Opened(sealed, os.O_RDONLY) as file:
            unwritable = _unwritable(os.pread(file, _HEADER, 0))
        return replace(found, problems=(*found.problems, unwritable)) if unwritable else found
    except sqlite3.DatabaseError as error:
        raise _not_sound(sealed, error) from error


def versions_in(sealed: Path) -> dict[str, tuple[str, ...]]:
    """Return the `versions` of a finished file that was checked before; raise `Damaged` if SQLite cannot read it."""
    try:
        with open_sealed(sealed) as connection:
            return versions(connection)
    except sqlite3.DatabaseError as error:
        raise _not_sound(sealed, error) from error


def _not_sound(sealed: Path, error: sqlite3.DatabaseError) -> Damaged:
    return Damaged(f"{sealed} is not a sound SQLite database: {error}.", hint="Try an older backup: `list`.")


def bounding(size: int) -> Callable[[sqlite3.Connection], None]:
    """Return a function that bounds what a connection computes for an untrusted database of `size` bytes.

    Its schema has expressions, in indexes and in CHECKs, that a check evaluates for each row. A value may have four
    times the bytes of the file, and all may take a minute, and a second for each megabyte.
    """
    deadline = time.monotonic() + 60 + size / (1 << 20)

    def bound(connection: sqlite3.Connection) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(10**9, max(16 << 20, 4 * size)))
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)

    return bound


def inspect_copy(
    copied: Path,
    live: Path,
    emit: EventListener = silence,
    opened: Callable[[sqlite3.Connection], None] = lambda _connection: None,
) -> Inspection:
    """Inspect a fresh copy, as `inspect`; raise `SourceBroken` for a problem, since the live database has it too."""
    try:
        found = inspect(copied, emit, opened)
        problem = found.problems[0] if found.problems else ""
    except Damaged as error:
        problem = str(error.__cause__)
    if problem:
        raise SourceBroken(
            f"The database {live} is damaged: {problem}.",
            hint=f"{PUT_BACK} Rows since then are often still there: `salvage`.",
        )
    for table in _with_broken_checks(copied, opened):
        emit(Notice(f"A row of the table {table} breaks a CHECK of its own, as in the live data."))
    return found


def _with_broken_checks(copied: Path, opened: Callable[[sqlite3.Connection], None]) -> list[str]:
    """Return the tables with a row that breaks a CHECK; SQLite tests CHECKs only in a file that it may write."""
    if copied.stat().st_size > FULL_UP_TO:
        return []
    with contextlib.closing(engine.connect(copied, "mode=rw")) as connection:
        opened(connection)
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE sql LIKE '%CHECK%'").fetchone():
            return []
        try:
            found = reported(connection, "quick_check(100)")
        except (sqlite3.OperationalError, sqlite3.DataError):  # only the app can read some of it, or it takes too much
            return []
    return sorted({line.removeprefix(_BROKEN_CHECK) for line in found if line.startswith(_BROKEN_CHECK)})


def look(connection: sqlite3.Connection) -> Inspection:
    """Return the facts, revisions and fingerprint of an open database, without checking its pages."""
    facts = DatabaseFacts(
        size=live_size(connection),
        sha256="",
        page_size=page_size(connection),
        journal_mode=journal_mode(connection),
        encoding=str(_pragma(connection, "encoding")),
        user_version=_number(connection, "user_version"),
        application_id=_number(connection, "application_id"),
        rows=count_rows(connection),
        sqlite_version=sqlite3.sqlite_version,
    )
    migrations = app_migrations.facts(connection)
    return Inspection(facts, versions(connection), fingerprint(connection), migrations=migrations)


def count_rows(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the row count of each of the `ordinary_tables` by name, except those that only the app can read."""
    names = ordinary_tables(connection)
    return {name: rows for name in names if (rows := _rows_of(connection, name)) is not None}


def ordinary_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names, sorted, of tables that are not virtual, shadow or SQLite's own; names must be text."""
    return [row[0] for row in connection.execute(_ORDINARY_TABLES) if engine.is_text(row[0])]


def _rows_of(connection: sqlite3.Connection, table: str) -> int | None:
    try:
        rows: int = connection.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()[0]
    except sqlite3.OperationalError as error:
        if not _needs_the_app(error):
            raise
        return None
    return rows


def _needs_the_app(error: sqlite3.OperationalError) -> bool:
    """Return whether SQLite lacks something that the app registers; from 3.44 on, it does not name a tokenizer."""
    return str(error).startswith(_MISSING_IN_SQLITE)


def versions(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """Return the sorted revisions in every table that has Alembic's version column, by the table's name."""
    shaped = "SELECT 1 FROM pragma_table_info(?) WHERE name = 'version_num'"
    tables = [one for one in ordinary_tables(connection) if connection.execute(shaped, (one,)).fetchone()]
    return {one: _version_numbers(connection, one) for one in tables}


def _version_numbers(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    return tuple(sorted(str(row[0]) for row in connection.execute(f"SELECT version_num FROM {quoted(table)}")))


def fingerprint(connection: sqlite3.Connection) -> str:
    """Return the SHA-256 of the schema, without white space. It shows a half-applied migration; a revision does not."""
    columns = ", ".join(f"coalesce(CAST({name} AS TEXT), '')" for name in ("type", "name", "tbl_name", "sql"))
    rows = connection.execute(f"SELECT {columns} FROM sqlite_master ORDER BY 1, 2, 3")
    lines = ("\0".join((*row[:3], re.sub(r"\s+", " ", row[3]).strip())) for row in rows)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def same_content(one: Path, two: Path) -> bool:
    """Return whether two copies hold the same pages, ignoring the header fields that SQLite changes when it writes."""
    with disk.Opened(one, os.O_RDONLY | os.O_NOFOLLOW) as left, disk.Opened(two, os.O_RDONLY | os.O_NOFOLLOW) as right:
        heads = [os.read(handle, _WHOLE_HEADER) for handle in (left, right)]
        return len(set(map(pages.without_counters, heads))) == 1 and disk.same_open(left, right)


def open_sealed(sealed: Path) -> contextlib.closing[engine.Connection]:
    """Open a finished file read-only while the block runs; SQLite takes no lock and writes nothing beside it."""
    return contextlib.closing(engine.connect(sealed, "mode=ro&immutable=1"))


def page_size_of(live: Path, timeout: float) -> int:
    """Return the page size of the live database in bytes, or 0 if it is missing or broken."""
    try:
        with snapshot(live, timeout) as taken:
            return page_size(taken)
    except SourceBroken:
        return 0


def match_page_size(staged: Path, live: Path, timeout: float) -> None:
    """Give the staged file the live page size: a WAL database refuses another size, with a misleading error."""
    wanted = page_size_of(live, timeout)
    if not wanted:
        return
    with contextlib.closing(engine.connect(staged, "mode=rw")) as connection:
        if page_size(connection) == wanted:
            return
        again = staged.with_name(staged.name + ".paged")
        connection.execute(f"PRAGMA page_size={wanted}")
        # INTO, because a plain VACUUM may renumber the rows.
        connection.execute("VACUUM INTO ?", (str(again),))
    os.replace(again, staged)


def replace_live(
    staged: Path,
    folder: int,
    live: Path,
    timeout: float,
    wanted: DatabaseFacts,
    keep: Callable[[], None],
    emit: EventListener = silence,
) -> Comparison | None:
    """Replace the content of the live database by that of the staged file: in one SQLite transaction, or not at all.

    Inode, owner, mode and journal mode stay; other processes go on and see the new content at their next
    transaction. Only a live file that is missing or not a database is replaced by renaming. `keep` is called once no
    other process can write to the live database, while it can still be read and before anything in it changes; if
    `keep` raises, nothing changes. `folder` is an open descriptor of the staged file's folder. Can be repeated.
    Raises `SourceUnreadable`, naming the process that holds the lock, if it stays locked for `timeout` seconds.
    Returns whether the live file now has the very pages of the staged file, which is unknown if, for example, others
    have written to it already. Returns None if a whole file was put in place, now or by an earlier call.
    """
    if not descriptors.look(staged.name, folder):
        return None  # a repeated run: the file is in place already
    if live.exists():
        try:
            return write_through(staged, live, timeout, keep, emit)
        except SourceBroken:
            pass
    keep()
    _put_in_place(staged, folder, live, wanted)
    return None


class Watch:
    """A watch for commits of others to the live database, since it began and since they were locked out."""

    def __init__(self, connection: sqlite3.Connection | None, live: Path, file: tuple[int, int] | None) -> None:
        self._connection, self._live, self.file = connection, live, file
        self._before = self._version()
        self._locked_at, self._was_locked = self._before, False

    def lock(self) -> bool:
        """Note that others are locked out now; return whether any of them has committed, or that is not known."""
        self._locked_at, self._was_locked = self._version(), True
        return self._locked_at is None or self._locked_at != self._before

    def is_as_before(self) -> bool:
        """Return whether the database certainly is as it was when the watch began."""
        return self._before is not None and self._version() == self._before

    def is_untouched(self) -> bool:
        """Return whether the database certainly is as it was when others were locked out."""
        return not self._was_locked or (self._locked_at is not None and self._version() == self._locked_at)

    def _version(self) -> int | None:
        """Return a number that differs from the previous one if anyone committed in between; None if unknown."""
        if file_of(self._live) != self.file:
            return None  # the path names another file than the one watched
        if (connection := self._connection) is None:
            return None
        try:
            return retry_while_locked(lambda: _number(connection, "data_version"), self._live, 1)
        except (sqlite3.Error, SourceUnreadable):
            return None


@contextlib.contextmanager
def watching(live: Path) -> Iterator[Watch]:
    """Watch the live database while the block runs, and leave its files as they are."""
    file = file_of(live)
    try:
        connection = _open_live(live, _reading_mode(live))
    except sqlite3.Error:
        yield Watch(None, live, file)
        return
    with contextlib.closing(connection):
        yield Watch(connection, live, file if file_of(live) == file else None)


def prove(
    live: Path,
    timeout: float,
    wanted: tuple[str, ...] | None,
    table: str | None = None,
    compared: Comparison | None = None,
    rows: Mapping[str, int] | None = None,
    restored: Callable[[], Path] | None = None,
) -> Inspection:
    """Return an inspection of the live database after proving that it is writable, sound and at the `wanted` revisions.

    `wanted` is None if any revisions will do; `table` holds them if not Alembic's usual one. A file with the very pages
    of a sound one (`compared`) is not checked again. Another file that replaced it must have these `rows`. Problems
    that the file from `restored` has too are returned: no restore could remove them.
    Raises `SourceLocked` if the database stays locked, `SourceUnreadable` if any of this does not hold.
    """
    compared = compared or Comparison(None, file_of(live))
    if compared.is_same is False:
        raise SourceUnreadable(f"{live} does not hold what was written to it.", hint="Check the disk, then try again.")
    with contextlib.closing(_open_live(live)) as connection:
        retry_while_locked(lambda: connection.execute("BEGIN IMMEDIATE"), live, timeout)
        connection.execute("ROLLBACK")
        retry_while_locked(lambda: _begin_reading(connection, live), live, timeout)
        was_replaced = file_of(live) != compared.file
        has_same_pages = bool(compared.is_same) and not was_replaced
        problems = () if has_same_pages else _checked(connection, silence, QUICK)[0]
        if problems and not (restored and _has_problems(restored, problems)):
            raise SourceUnreadable(f"{live} is not sound after the restore: {problems[0]}.", hint="Type: `undo`")
        found = replace(look(connection), problems=problems, has_same_pages=has_same_pages)
    if was_replaced and rows is not None and found.facts.rows != rows:
        raise SourceUnreadable(
            f"Another process put another file in the place of {live} meanwhile, and that does not hold the rows that"
            " were restored.",
            hint="Stop the app, then restore again: --stop",
        )
    at = found.versions.get(table or VERSION_TABLE, ())
    if wanted is not None and at != wanted:
        raise SourceUnreadable(
            f"{live} is at revision {_named(at)} now, not at {_named(wanted)}: another process changed it.",
            hint="Stop the app, then restore again: --stop",
        )
    return found


def _has_problems(sealed: Callable[[], Path], problems: Collection[str]) -> bool:
    """Return whether a quick check of that file finds all of these problems too; False if it is gone."""
    try:
        return set(problems) <= set(examine(sealed(), QUICK).problems)
    except (BackupError, OSError):
        return False


def _named(revisions: tuple[str, ...]) -> str:
    return ", ".join(revisions) or "none"


def keep_raw(live: Path, folder: Path) -> list[str]:
    """Copy the live database and its sidecars to `folder` as they are, and return the names of the copied files.

    A child process copies: closing a handle on a database file in this process would drop its SQLite locks.
    """
    kept = []
    for path in raw_files(live):
        source, copied = (os.path.realpath(path) if path == live else path), folder / path.name
        # -RP copies a path that has become a link or a pipe as such: cp neither follows nor reads it.
        subprocess.run(["cp", "-RPp", "--", str(source), str(copied)], check=True, stdin=subprocess.DEVNULL)
        if _is_plain(copied):
            kept.append(path.name)
        else:
            disk.remove_tree(copied)
    return kept


def raw_files(live: Path) -> list[Path]:
    """Return the files of the database that exist. A linked sidecar is left out: anyone may have put the link there."""
    return [path for path in (live, *sidecars(live)) if (path.is_file() if path == live else _is_plain(path))]


def _is_plain(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISREG(os.lstat(path).st_mode)
    return False


def sidecars(live: Path) -> list[Path]:
    """Return the paths of the WAL, its index and the rollback journal, whether they exist or not."""
    return [live.with_name(live.name + suffix) for suffix in SIDECARS]


def has_files(live: Path) -> bool:
    """Return whether the database file or any of its sidecars exists."""
    return any(map(os.path.lexists, (live, *sidecars(live))))


def is_optional_and_absent(settings: Settings) -> bool:
    """Return whether the database is optional and none of its files exist."""
    return settings.is_optional and not has_files(settings.database)


def retry_while_locked(action: Callable[[], T], live: Path, timeout: float, emit: EventListener = silence) -> T:
    """Return the action's result; while the database is locked, retry, and raise `SourceLocked` after `timeout` s."""
    wait = _LockWait(live, timeout, emit)
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not any(word in str(error) for word in _BUSY):
                raise
            wait.pause(error)


class _LockWait:
    """A wait for a locked database, which is reported once and ends after `timeout` seconds."""

    def __init__(self, live: Path, timeout: float, emit: EventListener) -> None:
        self._live, self._timeout, self._emit = live, timeout, emit
        self._deadline, self._has_reported = time.monotonic() + timeout, False

    def pause(self, error: Exception | None = None) -> None:
        """Sleep until the next try; raise `SourceLocked` if the time is over."""
        if time.monotonic() >= self._deadline:
            raise _locked(self._live, self._timeout) from error
        if not self._has_reported:
            self._has_reported = True
            seconds, holders = round(self._timeout, 1), _holders(self._live)
            self._emit(Waiting(f"Waiting up to {seconds:g} s for {self._live}, which {holders} keeps locked."))
        time.sleep(_POLL)


def file_of(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file that has this path now, or None if there is none."""
    return (facts.st_dev, facts.st_ino) if (facts := _facts(path)) else None


def _facts(path: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.stat(path)
    return None


def _open_for_reading(live: Path, timeout: float, emit: EventListener) -> sqlite3.Connection:
    """Return a connection that holds a read transaction, and that leaves the files as they were when it closes."""
    if (mode := _reading_mode(live)) == "ro":
        try:
            return _reading(live, mode, timeout, emit)
        except sqlite3.OperationalError:
            pass  # only a writable connection may roll back the transaction of a killed process
    return _reading(live, "rw", timeout, emit)


def _reading_mode(live: Path) -> str:
    """Return the mode in which closing the database leaves its files as they were."""
    # With a WAL: ro, because the last connection to close would checkpoint it, perhaps into a broken file.
    # Without: rw, because ro would leave an empty WAL beside an idle database in WAL mode.
    return "ro" if live.with_name(live.name + "-wal").exists() else "rw"


def _reading(live: Path, mode: str, timeout: float, emit: EventListener) -> sqlite3.Connection:
    connection = _open_live(live, mode)
    try:
        retry_while_locked(lambda: _begin_reading(connection, live), live, timeout, emit)
    except BaseException:
        connection.close()
        raise
    return connection


def has_plain_files(live: Path) -> bool:
    """Return whether WAL, its index and journal, as far as they exist, are plain files: SQLite waits for a fifo."""
    return not _odd_sidecar(live)


def _odd_sidecar(live: Path) -> Path | None:
    """Return the WAL, index of the WAL or journal that is not a plain file, if there is one."""
    for path in sidecars(live):
        with contextlib.suppress(OSError):  # it is not there, or no longer
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return path
    return None


def _open_live(live: Path, mode: str = "rw") -> sqlite3.Connection:
    """Connect to an existing database; never create one. Raise `SourceUnreadable` if a sidecar is not a plain file."""
    if odd := _odd_sidecar(live):
        raise SourceUnreadable(
            f"The database {live} cannot be opened: {odd} is not a plain file.", hint=f"Look at it: ls -ld {odd}"
        )
    # timeout=0, because `retry_while_locked` does all waiting: Ctrl-C can interrupt it.
    return engine.connect(live, f"mode={mode}", timeout=0, check_same_thread=False)


def _begin_reading(connection: sqlite3.Connection, live: Path) -> None:
    if not connection.in_transaction:
        connection.execute("BEGIN")
    if not connection.execute(_TABLES_AND_VIEWS).fetchone()[0]:
        raise SourceBroken(f"The database {live} holds no tables.", hint="Is BACKUP_DATABASE right? See `config`.")


def _inspection(connection: sqlite3.Connection, emit: EventListener, check: str) -> Inspection:
    emit(Step("Checking the database"))
    problems, index_flaws = _checked(connection, emit, check)
    if problems:
        return Inspection(DatabaseFacts(size=0, sha256=""), {}, "", problems)
    found = look(connection)
    if not found.facts.rows and not connection.execute(_TABLES_AND_VIEWS).fetchone()[0]:
        problems = ("it holds no tables",)
    facts = replace(found.facts, foreign_key_violations=_foreign_key_violations(connection), index_flaws=index_flaws)
    return replace(found, facts=facts, problems=problems)


def _checked(
    connection: sqlite3.Connection, emit: EventListener, check: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the problems of the database; and if it has none (every row can be read), the flaws of its indexes."""
    found = _problems(connection, emit, check)
    # A quick check covers everything but the content of indexes: what it does not find is wrong there.
    quick = _problems(connection, silence, QUICK) if found and check == FULL else found
    problems = tuple(one for one in quick if not _SEARCH_INDEX.match(one))
    return problems, () if problems else tuple(found[:_MOST_INDEX_FLAWS])


def _problems(connection: sqlite3.Connection, emit: EventListener, check: str) -> list[str]:
    # A row that breaks a CHECK is not damage. Read-only connections do not see it, so the others must ignore it too.
    connection.execute("PRAGMA ignore_check_constraints=ON")
    try:
        return reported(connection, check)
    except sqlite3.OperationalError as error:
        if not _needs_the_app(error):
            raise
        emit(Notice(f"The database could only be checked in part: {error}."))
    names = [row[0] for row in connection.execute(_STORED_TABLES)]
    return [problem for name in names if engine.is_text(name) for problem in _problems_of(connection, check, name)]


def _problems_of(connection: sqlite3.Connection, check: str, table: str) -> list[str]:
    """Return the problems of one table; none if only the app can read it."""
    try:
        return reported(connection, f"{check.partition('(')[0]}({quoted(table)})")
    except sqlite3.OperationalError as error:
        if not _needs_the_app(error):
            raise
        return []


def _foreign_key_violations(connection: sqlite3.Connection) -> int:
    try:
        return sum(1 for _ in connection.execute("PRAGMA foreign_key_check"))
    except sqlite3.OperationalError:  # a foreign key has no matching parent key: an error of the schema, not the data
        return 0


def write_through(
    staged: Path, live: Path, timeout: float, keep: Callable[[], None], emit: EventListener
) -> Comparison:
    """Do `replace_live` for a live file of the same page size; raise `SourceBroken` if it is not a database.

    `staged` may be a sealed file: it is only read, and nothing is written beside it.
    """
    with open_sealed(staged) as source, contextlib.closing(_open_live(live)) as target:
        file = file_of(live)  # after opening: an overlay changes a file's inode when it is opened for writing
        try:
            retry_while_locked(
                lambda: target.execute("SELECT count(*) FROM sqlite_master").fetchone(), live, timeout, emit
            )
            target.execute("PRAGMA wal_autocheckpoint=0")
            target.execute("PRAGMA synchronous=EXTRA")  # sync the folder too, or a hot journal may reappear
            in_wal_mode = journal_mode(target) == "wal"
            if not in_wal_mode:
                _lock_out_writers(target, live, timeout, keep, emit)
            count = _number(source, "page_count")
            emit(Step("Restoring the database", count, "pages"))
            on_step = _on_step(_LockWait(live, timeout, emit), keep if in_wal_mode else None, emit)
            before = _number(target, "data_version")  # commits of others change it, our own does not
            # The last step commits, so there must be a step before it.
            source.backup(target, pages=max(1, min(_PAGES, count - 1)), progress=on_step, sleep=0)
        except sqlite3.DatabaseError as error:
            raise _unreadable(live, error) from error
        return Comparison(_has_same_pages(target, live, staged, before, file), file)


def _has_same_pages(
    target: sqlite3.Connection, live: Path, staged: Path, before: int, file: tuple[int, int] | None
) -> bool | None:
    """Return whether the live file has the pages of the staged one, if only this connection wrote to it; else None."""
    with contextlib.suppress(sqlite3.Error, OSError, subprocess.SubprocessError, MemoryError):
        target.execute("BEGIN")
        target.execute("SELECT count(*) FROM sqlite_master").fetchone()
        is_same = _compared_by_child(target, live, staged)
        target.execute("ROLLBACK")
        if _number(target, "data_version") == before and file_of(live) == file:
            return is_same
    return None


def _compared_by_child(snapshot: sqlite3.Connection, live: Path, staged: Path) -> bool | None:
    """Compare in a child process, because SQLite in this one would show its own cache, not the content of the file."""
    kind = "wal" if journal_mode(snapshot) == "wal" else "file"
    done = subprocess.run(
        [process.python(), "-I", "-S", pages.__file__, str(live), str(staged), kind],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=30 + live_size(snapshot) / _SLOWEST,
        start_new_session=True,  # Ctrl-C must reach the parent only
    )
    return {b"same": True, b"other": False}.get(done.stdout.strip())


def _lock_out_writers(
    target: sqlite3.Connection, live: Path, timeout: float, keep: Callable[[], None], emit: EventListener
) -> None:
    """Lock out writers until the next commit, call `keep` while readers can still go on, then lock them out too."""
    retry_while_locked(lambda: target.execute("BEGIN IMMEDIATE"), live, timeout, emit)
    keep()
    # This mode keeps the lock beyond the end of this transaction until the next one, which is that of the copy.
    target.execute("PRAGMA locking_mode=EXCLUSIVE")
    retry_while_locked(lambda: target.execute("COMMIT"), live, timeout, emit)
    target.execute("PRAGMA locking_mode=NORMAL")


def _on_step(wait: _LockWait, keep: Callable[[], None] | None, emit: EventListener) -> Callable[[int, int, int], None]:
    """Return a progress handler for SQLite's copy: it calls `keep` after the first step, which takes the write lock."""
    is_kept = keep is None

    def on_step(status: int, remaining: int, total: int) -> None:
        nonlocal is_kept
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return wait.pause()  # CPython itself retries a locked target without end
        if keep and not is_kept:
            is_kept = True
            keep()
        emit(Progress(total - remaining))

    return on_step


def _put_in_place(staged: Path, folder: int, live: Path, wanted: DatabaseFacts) -> None:
    if wanted.journal_mode == "wal":
        with contextlib.closing(engine.connect(staged, "mode=rw")) as connection:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
    with descriptors.naming(live.parent), disk.Opened(live.parent, os.O_RDONLY | os.O_DIRECTORY) as home:
        with descriptors.opened_to_change(staged.name, folder) as handle:
            owner, mode = _owner_and_mode(live, wanted)
            descriptors.set_attributes(handle, owner, mode, os.fstat(handle).st_mtime_ns)
            os.fsync(handle)
        with _set_aside(sidecars(live), home, folder):  # or SQLite would replay them over the restored file
            _move(staged.name, folder, live.name, home)


def _owner_and_mode(live: Path, wanted: DatabaseFacts) -> tuple[tuple[int, int], int]:
    """Return owner and mode of the live file; if it is missing, the folder's owner and the mode in the backup."""
    if facts := _facts(live):
        return (facts.st_uid, facts.st_gid), stat.S_IMODE(facts.st_mode)
    return disk.owner_of(live.parent), wanted.mode


@contextlib.contextmanager
def _set_aside(files: list[Path], home: int, folder: int) -> Iterator[None]:
    """Move the files to `folder`, and back if the block fails."""
    moved = [file.name for file in files if descriptors.look(file.name, home)]
    try:
        for name in moved:
            _move(name, home, f"aside-{name}", folder)  # or SQLite would take it for a sidecar of the staged file
        yield
    except BaseException:
        for name in moved:
            with contextlib.suppress(FileNotFoundError):
                _move(f"aside-{name}", folder, name, home)
        raise


def _move(name: str, within: int, target: str, target_folder: int) -> None:
    os.rename(name, target, src_dir_fd=within, dst_dir_fd=target_folder)
    os.fsync(target_folder)
    os.fsync(within)


def _unreadable(live: Path, error: sqlite3.DatabaseError) -> BackupError:
    text = str(error)
    if _is_full(text, live.parent):
        return NoSpace(f"The disk is full: {live.parent}.", hint="Make room there, then try again.")
    if engine.is_damage(error):
        # A restore would write over what the setting names, which may be another file of the user's.
        is_it = "If it is another file, correct BACKUP_DATABASE: `config`. If not: " if _NO_DATABASE in text else ""
        return SourceBroken(
            f"The database {live} cannot be read: {text}.",
            hint=f"{is_it}{PUT_BACK} Rows since then are often still there: `salvage`.",
        )
    if any(word in text for word in _BUSY):
        return _locked(live, 0)
    if ("readonly" in text or "unable to open" in text) and mounts.is_read_only(live.parent):
        hint = "Mount it so that it can be written to: in WAL mode SQLite writes beside the file even to read it."
        return SourceUnreadable(f"The database {live} cannot be read: its disk is mounted read-only.", hint)
    if "readonly" in text and (reason := _unwritable(_header(live))):
        return SourceBroken(f"The database {live} cannot be written: {reason}.", hint="Put a backup back: `restore`.")
    if "readonly" in text:
        return SourceUnreadable(
            f"The database {live} cannot be written: {text}.", hint=f"Look at its mode and attributes: lsattr {live}"
        )
    hint = f"Check who may read and write {live.parent} and what is in it: `doctor`."
    return SourceUnreadable(f"The database {live} cannot be read: {text}.", hint)


def _header(live: Path) -> bytes:
    """Return the first bytes of a live database, read by a child process: see `keep_raw`."""
    head = ["head", "-c", str(_HEADER), "--", str(live)]
    return subprocess.run(head, check=False, stdin=subprocess.DEVNULL, capture_output=True).stdout


def _unwritable(header: bytes) -> str:
    """Return why SQLite can read but not write a database with this header; empty if it can write it."""
    version = header[_WRITE_VERSION] if len(header) == _HEADER else 0
    return f"its header says that only a later SQLite may write it (format {version})" if version > 2 else ""


def _is_full(text: str, folder: Path) -> bool:
    """Return whether this SQLite error is due to a full disk: it says so, or is a vaguer error and the disk is full."""
    return "is full" in text or (text in ("disk I/O error", "unable to open database file") and disk.is_full(folder))


def _locked(live: Path, timeout: float) -> SourceLocked:
    return SourceLocked(
        f"The database {live} stayed locked for {timeout:g} s by {_holders(live)}; it was not changed.",
        hint="Stop the app or end that transaction, then try again; BACKUP_BUSY_TIMEOUT sets how long to wait.",
    )


def _holders(live: Path) -> str:
    return ", ".join(process.holders(live, *sidecars(live))) or "another process"


def _reporter(emit: EventListener) -> Callable[[int, int, int], None]:
    begun = False

    def report(_status: int, remaining: int, total: int) -> None:
        nonlocal begun
        if not begun:
            emit(Step("Copying the database", total, "pages"))
            begun = True
        emit(Progress(total - remaining))

    return report


def _pragma(connection: sqlite3.Connection, name: str) -> int | str:
    value: int | str = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _number(connection: sqlite3.Connection, name: str) -> int:
    return int(_pragma(connection, name))


_TABLES_AND_VIEWS = "SELECT count(*) FROM sqlite_master WHERE type IN ('table', 'view')"
_STORED_TABLES = "SELECT CAST(name AS TEXT) FROM sqlite_master WHERE type='table' AND rootpage > 0 AND name NOT NULL"
_ORDINARY_TABLES = (
    "SELECT name FROM pragma_table_list WHERE schema='main' AND type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    " ORDER BY name"
)
