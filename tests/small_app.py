"""A small real app to back up: its folder, database and uploads, and the actions of tests on them.

Tests get one as the fixture `app`; nothing in it is faked but the time, which is `NOON`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import warm
from backupkit.config.settings import Settings

BACKEND, COMMAND = warm.BACKEND, warm.COMMAND
NOON = datetime(2026, 6, 15, 12, 0, 0, tzinfo=UTC)

# The reference app's revisions; SALARY and REMINDERS both follow DOCUMENTS, and MERGED brings them together.
INITIAL = "3f1c8a5e2b70"
DOCUMENTS = "8d24b6f09c13"
SALARY = "a7e05d3b1f42"
REMINDERS = "c619f47d8e05"
MERGED = "e2b8307ac5d9"
HEAD = "f5d1964e7a38"

Row = tuple[Any, ...]

CRASH = """
import os, signal, sqlite3, sys
database, rows = sys.argv[1], int(sys.argv[2])
live = sqlite3.connect(database)
live.execute("PRAGMA journal_mode=WAL")
live.execute("PRAGMA wal_autocheckpoint=0")
with live:
    live.executemany("INSERT INTO companies (name) VALUES (?)", ((f"crash {os.getpid()}-{n}",) for n in range(rows)))
os.kill(os.getpid(), signal.SIGKILL)
"""

WRITE = """
import json, os, select, sqlite3, sys, time
live = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
count, errors, longest, last = 0, [], 0.0, time.monotonic()
while not select.select([sys.stdin], [], [], 0.001)[0]:
    try:
        live.execute("INSERT INTO companies (name) VALUES (?)", (f"writer {os.getpid()}-{count}",))
        count += 1
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        if count == 1:
            print("writing", flush=True)
    except sqlite3.Error as error:
        errors.append(str(error))
print(json.dumps({"count": count, "errors": errors, "longest_stall": longest}))
"""


@dataclass(frozen=True)
class Contents:
    """Everything that a restore must bring back: the schema, every row of every table, every entry below uploads."""

    schema: tuple[Row, ...]
    rows: dict[str, list[Row]]
    uploads: dict[str, tuple[str, int, int, bytes]]
    """By path: kind, mode, modification time in nanoseconds, and the content (of a link: its target)."""


@dataclass(frozen=True)
class Result:
    """The outcome of a command: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document."""
        return json.loads(self.out)


@dataclass
class Writer:
    """The report of a process that commits a row every millisecond; filled in when the `with` block ends."""

    count: int = 0
    errors: tuple[str, ...] = ()
    longest_stall: float = 0.0


class SmallApp:
    """A folder like `backend/`: alembic.ini, alembic/, models.py, data/pats.db in WAL mode, uploads/ and backups/."""

    def __init__(self, folder: Path, templates: Path) -> None:
        self.folder = folder
        self.templates = templates
        self.database = folder / "data" / "pats.db"
        self.uploads = folder / "uploads"
        self.backups = folder / "backups"
        self.patience = 5.0

    @classmethod
    def create(cls, folder: Path, templates: Path) -> SmallApp:
        """Create an app at HEAD with three applications, and two documents among other uploads."""
        app = cls(folder, templates)
        for wanted in (app.database.parent, app.uploads, app.backups):
            wanted.mkdir(parents=True)
        for name in ("alembic.ini", "models.py"):
            shutil.copy2(BACKEND / name, folder)
        shutil.copytree(BACKEND / "alembic", folder / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
        app.at_revision(HEAD)
        for number in (1, 2):
            path = app.write_upload(f"{number}/letter.txt", f"Dear company {number}\n".encode())
            app.add_document(number, path)
        (app.uploads / "empty").mkdir()
        (app.uploads / "latest").symlink_to("2/letter.txt")
        return app

    # Database

    def connect(self) -> sqlite3.Connection:
        """Return a connection like the app's own; the caller closes it."""
        return sqlite3.connect(self.database, timeout=30)

    def execute(self, statement: str, values: Row = ()) -> None:
        """Run one statement and commit it."""
        with contextlib.closing(self.connect()) as live, live:
            live.execute(statement, values)

    def add_rows(self, count: int) -> None:
        """Add companies with one application each; works at any revision."""
        with contextlib.closing(self.connect()) as live, live:
            (before,) = live.execute("SELECT coalesce(max(id), 0) FROM companies").fetchone()
            for number in range(before + 1, before + 1 + count):
                live.execute("INSERT INTO companies (id, name) VALUES (?, ?)", (number, f"Company {number}"))
                live.execute("INSERT INTO applications (company_id, position) VALUES (?, 'Engineer')", (number,))

    def add_document(self, application: int, path: Path) -> None:
        """Add a row for a file below uploads."""
        values = (application, path.name, str(path.relative_to(self.uploads)), path.stat().st_size)
        self.execute("INSERT INTO documents (application_id, name, path, size_bytes) VALUES (?, ?, ?, ?)", values)

    def rows(self, table: str) -> list[Row]:
        """Return every row, sorted. The read goes through SQLite, and leaves a hot WAL hot."""
        with contextlib.closing(self._read()) as live:
            return sorted(live.execute(f'SELECT * FROM "{table}"'), key=repr)

    def revisions(self) -> set[str]:
        """Return the content of `alembic_version`; empty if there is no such table."""
        return {row[0] for row in self.rows("alembic_version")} if "alembic_version" in self.tables() else set()

    def tables(self) -> list[str]:
        """Return every table, SQLite's own included."""
        with contextlib.closing(self._read()) as live:
            return [name for (name,) in live.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]

    def _read(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=30)

    def at_revision(self, *revisions: str, rows: int = 3) -> None:
        """Replace the database by one migrated to these revisions and no further, with `rows` applications in it."""
        for leftover in self.database.parent.glob(f"{self.database.name}*"):
            leftover.unlink()
        shutil.copyfile(template(self.templates, revisions), self.database)
        self.add_rows(rows)

    def forget_revision(self) -> None:
        """Make the database unversioned, as in an app that never used Alembic."""
        self.execute("DROP TABLE alembic_version")

    # Uploads

    def write_upload(self, path: str, content: bytes) -> Path:
        """Write a file below uploads; create its folders as needed."""
        file = self.uploads / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    # Database and uploads

    def contents(self) -> Contents:
        """Return a snapshot; two are equal only if nothing was lost, added or changed."""
        with contextlib.closing(self._read()) as live:
            live.execute("BEGIN")
            schema = live.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
            tables = [name for kind, name, _, _ in schema if kind == "table"]
            rows = {table: sorted(live.execute(f'SELECT * FROM "{table}"'), key=repr) for table in tables}
        return Contents(tuple(schema), rows, tree(self.uploads))

    # Events

    def use_and_crash(self, rows: int = 10) -> None:
        """Commit `rows` companies from another process and kill it: only the hot -wal holds them."""
        child = subprocess.run([sys.executable, "-c", CRASH, self.database, str(rows)], check=False)
        assert child.returncode == -signal.SIGKILL
        assert self.database.with_name(f"{self.database.name}-wal").stat().st_size > 0

    @contextlib.contextmanager
    def writer(self) -> Iterator[Writer]:
        """Run a process that writes during the whole block; yield its report."""
        report = Writer()
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE, self.database], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with child:
            assert child.stdout and child.stdin
            assert child.stdout.readline() == "writing\n"
            try:
                yield report
            finally:
                child.stdin.close()
                said = json.loads(child.stdout.read())
                report.count, report.errors = said["count"], tuple(said["errors"])
                report.longest_stall = said["longest_stall"]

    # Toolkit

    @property
    def settings(self) -> Settings:
        """The settings of this app, for the library; the environment does not affect them."""
        return Settings(
            app_dir=self.folder,
            database=self.database,
            uploads=self.uploads,
            dir=self.backups,
            busy_timeout=self.patience,
            lock_timeout=1,
        )

    def quick(self) -> SmallApp:
        """Return the same app, which from now on waits only a moment for a locked database."""
        self.patience = 0.5
        return self

    def command(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        check: int | None = None,
    ) -> Result:
        """Run `backup_restore.py` on this app, without a terminal; `check` is the exit code it must end with."""
        environment = {**clean_environment(), "BACKUP_APP_DIR": str(self.folder), **(env or {})}
        done = warm.run(arguments, environment, self.folder.parent, input or "")
        result = Result(done.returncode, done.stdout, done.stderr)
        assert check is None or result.code == check, f"{arguments} ended with {result.code}:\n{result.out}{result.err}"
        return result


def clean_environment() -> dict[str, str]:
    """Return the environment without settings that would point a command at other data."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("BACKUP_", "DATABASE_URL"))}


def tree(folder: Path) -> dict[str, tuple[str, int, int, bytes]]:
    """Return every entry below the folder; see `Contents.uploads`."""
    return {str(path.relative_to(folder)): entry(path) for path in sorted(folder.rglob("*"))}


def entry(path: Path) -> tuple[str, int, int, bytes]:
    facts = path.lstat()
    mode, changed = stat.S_IMODE(facts.st_mode), facts.st_mtime_ns
    if stat.S_ISLNK(facts.st_mode):
        return "link", mode, changed, os.fsencode(path.readlink())
    if stat.S_ISDIR(facts.st_mode):
        return "folder", mode, changed, b""
    return "file", mode, changed, path.read_bytes()


@cache
def template(folder: Path, revisions: tuple[str, ...]) -> Path:
    """Return a closed WAL database without rows at these revisions; made once, then copied."""
    path = folder / f"{'-'.join(revisions)}.db"
    upgrade(path, *revisions)
    with contextlib.closing(sqlite3.connect(path)) as fresh:
        fresh.execute("PRAGMA journal_mode=WAL")
    return path


def upgrade(database: Path, *revisions: str) -> None:
    """Run the reference app's migrations up to each of these revisions."""
    from alembic import command
    from alembic.config import Config

    config = Config(BACKEND / "alembic.ini")
    config.set_main_option("sqlalchemy.url", f"sqlite:///{database}".replace("%", "%%"))
    for revision in revisions:
        command.upgrade(config, revision)
