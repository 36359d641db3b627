"""A small real app to back up: its folder, its database, its uploads, and the things that happen to them.

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
    """All that a restore must bring back: the schema, every row of every table, every entry below uploads."""

    schema: tuple[Row, ...]
    rows: dict[str, list[Row]]
    uploads: dict[str, tuple[str, int, int, bytes]]
    """By path: kind, mode, time of change in nanoseconds, and the bytes (of a link: where it points)."""


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document."""
        return json.loads(self.out)


@dataclass
class Writer:
    """A process that commits a row every millisecond; what it has to report is there when the `with` block ends."""

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
        """An app at HEAD with three applications, and two documents among other uploads."""
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

    # The database.

    def connect(self) -> sqlite3.Connection:
        """A connection like the app's own; the caller closes it."""
        return sqlite3.connect(self.database, timeout=30)

    def execute(self, statement: str, values: Row = ()) -> None:
        """Run one statement and commit it."""
        with contextlib.closing(self.connect()) as live, live:
            live.execute(statement, values)

    def add_rows(self, count: int) -> None:
        """New companies with one application each, at any revision."""
        with contextlib.closing(self.connect()) as live, live:
            (before,) = live.execute("SELECT coalesce(max(id), 0) FROM companies").fetchone()
            for number in range(before + 1, before + 1 + count):
                live.execute("INSERT INTO companies (id, name) VALUES (?, ?)", (number, f"Company {number}"))
                live.execute("INSERT INTO applications (company_id, position) VALUES (?, 'Engineer')", (number,))

    def add_document(self, application: int, path: Path) -> None:
        """A row for a file that lies under uploads."""
        values = (application, path.name, str(path.relative_to(self.uploads)), path.stat().st_size)
        self.execute("INSERT INTO documents (application_id, name, path, size_bytes) VALUES (?, ?, ?, ?)", values)

    def rows(self, table: str) -> list[Row]:
        """Every row, in order. It reads through SQLite, and leaves a hot WAL hot."""
        with contextlib.closing(self._read()) as live:
            return sorted(live.execute(f'SELECT * FROM "{table}"'), key=repr)

    def revisions(self) -> set[str]:
        """What `alembic_version` says; nothing where there is no such table."""
        return {row[0] for row in self.rows("alembic_version")} if "alembic_version" in self.tables() else set()

    def tables(self) -> list[str]:
        """Every table, SQLite's own included."""
        with contextlib.closing(self._read()) as live:
            return [name for (name,) in live.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]

    def _read(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=30)

    def at_revision(self, *revisions: str, rows: int = 3) -> None:
        """The database anew, migrated to these revisions and no further, with `rows` applications in it."""
        for leftover in self.database.parent.glob(f"{self.database.name}*"):
            leftover.unlink()
        shutil.copyfile(template(self.templates, revisions), self.database)
        self.add_rows(rows)

    def forget_revision(self) -> None:
        """Make the database unversioned: an app that never used Alembic."""
        self.execute("DROP TABLE alembic_version")

    # The uploads.

    def write_upload(self, path: str, content: bytes) -> Path:
        """A file below uploads, its folders made as needed."""
        file = self.uploads / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    # All of it.

    def contents(self) -> Contents:
        """A picture that compares equal only where nothing was lost, added or changed."""
        with contextlib.closing(self._read()) as live:
            live.execute("BEGIN")
            schema = live.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
            tables = [name for kind, name, _, _ in schema if kind == "table"]
            rows = {table: sorted(live.execute(f'SELECT * FROM "{table}"'), key=repr) for table in tables}
        return Contents(tuple(schema), rows, tree(self.uploads))

    # What happens to it.

    def use_and_crash(self, rows: int = 10) -> None:
        """Another process commits `rows` companies and is killed: they are in the hot -wal and nowhere else."""
        child = subprocess.run([sys.executable, "-c", CRASH, self.database, str(rows)], check=False)
        assert child.returncode == -signal.SIGKILL
        assert self.database.with_name(f"{self.database.name}-wal").stat().st_size > 0

    @contextlib.contextmanager
    def writer(self) -> Iterator[Writer]:
        """Another process writes from before the block begins until it ends."""
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

    # The toolkit.

    @property
    def settings(self) -> Settings:
        """The settings of this app, for the library; the environment has no say."""
        return Settings(
            app_dir=self.folder,
            database=self.database,
            uploads=self.uploads,
            dir=self.backups,
            busy_timeout=self.patience,
            lock_timeout=1,
        )

    def quick(self) -> SmallApp:
        """The same app, waiting only a moment for a locked database."""
        self.patience = 0.5
        return self

    def command(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        check: int | None = None,
    ) -> Result:
        """Run `backup_restore.py` on this app, with no terminal; `check` is the exit code it must end with."""
        environment = {**clean_environment(), "BACKUP_APP_DIR": str(self.folder), **(env or {})}
        done = warm.run(arguments, environment, self.folder.parent, input or "")
        result = Result(done.returncode, done.stdout, done.stderr)
        assert check is None or result.code == check, f"{arguments} ended with {result.code}:\n{result.out}{result.err}"
        return result


def clean_environment() -> dict[str, str]:
    """The environment without settings that would point a command at other data."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("BACKUP_", "DATABASE_URL"))}


def tree(folder: Path) -> dict[str, tuple[str, int, int, bytes]]:
    """Every entry below the folder; see `Contents.uploads`."""
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
    """A closed WAL database without rows at these revisions; made once, then copied."""
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
