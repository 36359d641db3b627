"""The demo's throw-away app: four migrations, rows, uploads, a process that writes, and what happens to them.

It looks at its own data with plain `sqlite3` and `os`, never through the toolkit: its pictures are the independent
witness of what a backup and a restore must bring.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backupkit.model.errors import BackupError
from backupkit.model.names import printable
from demo import writer

CUSTOMERS, ORDERS, DOCUMENTS = 120, 300, 36
ODD_NAME = '-- it\'s an "odd"\nname.txt'
DEADLINE = 60  # seconds for anything that should take one

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Migration:
    """One step of the demo's schema."""

    revision: str
    title: str
    statements: tuple[str, ...]


MIGRATIONS = (
    Migration(
        "demo_0001",
        "customers and their orders",
        (
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, note TEXT, badge BLOB)",
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,"
            " item TEXT NOT NULL, price REAL NOT NULL)",
        ),
    ),
    Migration(
        "demo_0002",
        "documents, which lie among the uploads",
        (
            "CREATE TABLE documents (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,"
            " path TEXT NOT NULL UNIQUE)",
        ),
    ),
    Migration(
        "demo_0003",
        "visits, and how many there were",
        (
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)",
            "CREATE TABLE visit_total (total INTEGER NOT NULL)",
            "INSERT INTO visit_total VALUES (0)",
        ),
    ),
    Migration(
        "demo_0004",
        "the status of an order",
        ("ALTER TABLE orders ADD COLUMN status TEXT NOT NULL DEFAULT 'new'",),
    ),
)


@dataclass(frozen=True)
class Picture:
    """One moment of the data: what stands still, and apart from it what the writer adds to all the time.

    `files` has for each path below uploads its kind, mode, time of change in nanoseconds, and its content's SHA-256
    (of a link: where it points).
    """

    schema: tuple[Row, ...]
    rows: Mapping[str, list[Row]]
    files: Mapping[str, Row]
    visits: list[Row]
    total: int

    @property
    def row_count(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def file_count(self) -> int:
        return sum(facts[0] == "file" for facts in self.files.values())


class Writer:
    """The process that writes from its beginning to its end; asked, it says how it fares."""

    def __init__(self, database: Path) -> None:
        # A session of its own: Ctrl-C at the terminal is for the demo, which ends the writer itself.
        self._process = subprocess.Popen(
            [sys.executable, "-I", writer.__file__, database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def committed(self) -> int:
        """Transactions committed so far."""
        return int(self._ask()["committed"])

    def errors(self) -> list[str]:
        """What went wrong for it so far; nothing, if all is as promised."""
        return list(self._ask()["errors"])

    def wait_for_more(self) -> int:
        """The number of transactions when at least one more was committed than before, or it saw an error."""
        before = self.committed()
        while (now := self.committed()) == before and not self.errors():
            pass
        return now

    def end(self) -> None:
        """The process is gone, whatever state it was in."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    def _ask(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            self._stdin.write("\n")
            self._stdin.flush()
            if answer := self._stdout.readline():
                return dict(json.loads(answer))
        raise BackupError("The writing process ended by itself.", hint="Its reason is above.")

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout


class ScratchApp:
    """A folder of the shape the toolkit serves: backup.toml, alembic.ini, alembic/, data/, uploads/, backups/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "data" / "demo.db"
        self.uploads = folder / "uploads"
        self.backups = folder / "backups"

    def make(self, migrations: int) -> None:
        """The app with its first so many migrations, its rows and its uploads."""
        for part in (self.database.parent, self.uploads, self.backups, self._versions):
            part.mkdir(parents=True)
        (self.folder / "backup.toml").write_text('database = "data/demo.db"\n')
        (self.folder / "alembic.ini").write_text("[alembic]\nscript_location = alembic\n")
        (self.folder / "alembic" / "env.py").write_text(_ENV)
        self.have_code(migrations)
        self.upgrade()
        self._fill()

    def have_code(self, migrations: int) -> None:
        """The code has the first so many migrations, as if another commit were checked out."""
        before: str | None = None
        for number, one in enumerate(MIGRATIONS):
            file = self._versions / f"{one.revision}.py"
            if number < migrations:
                file.write_text(_MIGRATION.format(one=one, before=before))
            else:
                file.unlink(missing_ok=True)
            before = one.revision

    def upgrade(self) -> None:
        """`alembic upgrade head`, as a release of the app does it."""
        from alembic import command
        from alembic.config import Config

        config = Config(self.folder / "alembic.ini")
        config.set_main_option("script_location", str(self.folder / "alembic").replace("%", "%%"))
        command.upgrade(config, "head")

    def revision(self) -> str:
        """What the database says."""
        with _opened(self.database) as live:
            return ", ".join(str(row[0]) for row in live.execute("SELECT version_num FROM alembic_version"))

    def journal_mode(self) -> str:
        """What the database says."""
        with _opened(self.database) as live:
            return str(live.execute("PRAGMA journal_mode").fetchone()[0])

    def picture(self) -> Picture:
        """The live data now."""
        return _picture(self.database, self.uploads)

    def picture_in(self, backup: str) -> Picture:
        """What lies in that backup's folder, read without the toolkit."""
        folder = self.backups / backup
        return _picture(folder / self.database.name, folder / "uploads", sealed=True)

    def backup_names(self) -> set[str]:
        """The names in the backups folder."""
        return {name for name in os.listdir(self.backups) if not name.startswith(".")}

    @contextlib.contextmanager
    def writer(self) -> Iterator[Writer]:
        """Another process writes while the block runs, and is gone after it, however that ends."""
        writer = Writer(self.database)
        try:
            writer.wait_for_more()
            yield writer
        finally:
            writer.end()

    def go_on(self) -> None:
        """A day's work: new customers, orders and uploads."""
        with self._change() as live:
            _add_customers(live, CUSTOMERS, 25)
            _add_orders(live, 50)
        for number in range(5):
            self._write(f"late/{number}.txt", number)

    def disaster(self) -> None:
        """A table dropped, another overwritten, uploads deleted, truncated and replaced by rubbish."""
        with self._change() as live:
            live.execute("DROP TABLE orders")
            live.execute("UPDATE customers SET name = 'oops', badge = NULL")
        shutil.rmtree(self.uploads / "documents" / "0")
        for path in sorted((self.uploads / "documents" / "1").iterdir()):
            path.write_bytes(b"rubbish")
        (self.uploads / "latest").unlink()
        os.truncate(self.uploads / ODD_NAME, 0)

    @property
    def _versions(self) -> Path:
        return self.folder / "alembic" / "versions"

    def _fill(self) -> None:
        with self._change() as live:
            live.execute("PRAGMA journal_mode=WAL")
            _add_customers(live, 0, CUSTOMERS)
            _add_orders(live, ORDERS)
            for number in range(1, DOCUMENTS + 1):
                path = self._write(f"documents/{number % 6}/{number}.pdf", number)
                live.execute("INSERT INTO documents (customer_id, path) VALUES (?, ?)", (number, path))
        self._write(ODD_NAME, 0)
        self._write("private.key", 1)
        (self.uploads / "private.key").chmod(0o600)
        (self.uploads / "latest").symlink_to(f"documents/0/{DOCUMENTS}.pdf")
        (self.uploads / "empty").mkdir()

    def _write(self, name: str, number: int) -> str:
        path = self.uploads / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(1000 + 500 * number))
        return name

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=DEADLINE)) as live, live:
            yield live


def differences(wanted: Picture, found: Picture) -> list[str]:
    """What stands still and is not as wanted, each as a sentence: schema, rows, files. Nothing, if all is equal."""
    problems = [] if wanted.schema == found.schema else ["the schema is another one"]
    for table in sorted({*wanted.rows, *found.rows}):
        rows, there = wanted.rows.get(table, []), found.rows.get(table, [])
        if rows != there:
            problems.append(f"table {table}: {len(there)} rows, not the {len(rows)} wanted or not equal to them")
    for path in sorted({*wanted.files, *found.files}):
        if wanted.files.get(path) != found.files.get(path):
            problems.append(f"uploads/{printable(path)} {_said(path, wanted.files, found.files)}")
    return problems


def misplaced_visits(earlier: Picture, found: Picture, since: int) -> list[str]:
    """What is wrong with the writer's rows; nothing, if they are the earlier ones and then only later ones.

    The writer numbers its rows: any that is beyond the earlier ones must have been committed after number `since`.
    """
    problems = [] if found.total == len(found.visits) else [f"{len(found.visits)} visits, but a total of {found.total}"]
    known = len(earlier.visits)
    if found.visits[:known] != earlier.visits:
        problems.append(f"the first {known} visits are not those of the earlier moment")
    if stale := [number for _, number in found.visits[known:] if number <= since]:
        problems.append(f"{len(stale)} visits are there that came before")
    return problems


def last_visit(picture: Picture) -> int:
    """The number the writer gave to its last row in the picture."""
    return int(picture.visits[-1][1]) if picture.visits else 0


def _said(path: str, wanted: Mapping[str, Row], found: Mapping[str, Row]) -> str:
    if path not in found:
        return "is missing"
    return "should not be there" if path not in wanted else "is another one"


def _add_customers(live: sqlite3.Connection, before: int, count: int) -> None:
    for number in range(before + 1, before + count + 1):
        note = None if number % 3 else f"called {number} times;\nlikes 'quotes'"
        badge = hashlib.sha256(bytes([number])).digest()
        live.execute("INSERT INTO customers VALUES (?, ?, ?, ?)", (number, f"Customer {number}", note, badge))


def _add_orders(live: sqlite3.Connection, count: int) -> None:
    rows = [(number % CUSTOMERS + 1, f"item {number % 17}", number / 7) for number in range(count)]
    live.executemany("INSERT INTO orders (customer_id, item, price) VALUES (?, ?, ?)", rows)


def _picture(database: Path, uploads: Path, sealed: bool = False) -> Picture:
    with _opened(database, sealed) as moment:
        moment.execute("BEGIN")
        schema = moment.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        rows = {name: _rows(moment, name) for kind, name, _, _ in schema if kind == "table"}
    visits, totals = rows.pop("visits", []), rows.pop("visit_total", [])
    files = dict(_files(uploads))
    return Picture(tuple(schema), rows, files, visits, totals[0][0] if totals else 0)


def _rows(moment: sqlite3.Connection, table: str) -> list[Row]:
    return moment.execute(f'SELECT * FROM "{table}" ORDER BY rowid').fetchall()


def _files(root: Path) -> Iterable[tuple[str, Row]]:
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(folder, name)
            yield str(path.relative_to(root)), _facts(path)


def _facts(path: Path) -> Row:
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return "link", 0, facts.st_mtime_ns, os.readlink(path)
    if stat.S_ISDIR(facts.st_mode):
        return "folder", facts.st_mode, facts.st_mtime_ns, ""
    return "file", facts.st_mode, facts.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def _opened(database: Path, sealed: bool = False) -> Iterator[sqlite3.Connection]:
    # `immutable`, because a look must not leave files beside what is sealed.
    address = f"{database.as_uri()}?mode=ro{'&immutable=1' * sealed}"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=DEADLINE, isolation_level=None)) as connection:
        yield connection


_MIGRATION = '''\
"""{one.title}"""

from alembic import op

revision = {one.revision!r}
down_revision = {before!r}


def upgrade():
    for statement in {one.statements!r}:
        op.execute(statement)
'''

_ENV = """\
import logging
from pathlib import Path

from alembic import context
from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool

if context.config.cmd_opts:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)

beside = Path(__file__).resolve().parent.parent / "data" / "demo.db"
url = context.config.get_main_option("sqlalchemy.url") or URL.create("sqlite", database=str(beside))
with create_engine(url, poolclass=NullPool).connect() as connection:
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
"""
