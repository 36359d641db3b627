"""What SQLite's check reports of values counts only if such a value is there: older versions report others."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from backupkit.model.errors import SourceUnreadable
from backupkit.sqlite import database
from backupkit.sqlite.check import reported
from chance import chance
from small_app import SmallApp

# Each is healthy, and SQLite 3.40 reports values in it: the first two in both checks, the last in the quick one.
TABLES = """
CREATE TABLE kv (value TEXT NOT NULL, key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE session (data INT NOT NULL, who TEXT NOT NULL, id INT NOT NULL, PRIMARY KEY (id)) WITHOUT ROWID;
CREATE TABLE pairs (a TEXT NOT NULL, b INT NOT NULL, PRIMARY KEY (b, a)) WITHOUT ROWID;
INSERT INTO kv VALUES ('v', 'k'), ('w', 'l');
INSERT INTO session VALUES (1, 'two', 3);
INSERT INTO pairs VALUES ('x', 1);
CREATE TABLE written (id INTEGER PRIMARY KEY);
"""
CHECKS = (database.QUICK, database.FULL)


@pytest.fixture
def odd(app: SmallApp) -> SmallApp:
    with closing(app.connect()) as live:
        live.executescript(TABLES)
    return app


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("number", range(40))
def test_no_healthy_table_without_rowid_is_reported(check: str, number: int) -> None:
    pick = chance(f"tables without rowid {number}")
    with closing(sqlite3.connect(":memory:")) as connection:
        for table in range(3):
            fill(connection, f"t{table}", pick)
        assert reported(connection, check) == []


def fill(connection: sqlite3.Connection, table: str, pick: random.Random) -> None:
    """Make a table with columns and a key in any order, and rows in it."""
    kinds = {"INT": 1, "INTEGER": 2, "TEXT": "text", "REAL": 1.5, "BLOB": b"blob"}
    columns = [(f"c{number}", pick.choice([*kinds])) for number in range(pick.randint(2, 6))]
    key = pick.sample([name for name, _ in columns], pick.randint(1, min(3, len(columns))))
    defined = [f"{name} {kind}{pick.choice(['', ' NOT NULL'])}" for name, kind in columns]
    strict = pick.choice(["", ", STRICT"])
    connection.execute(
        f"CREATE TABLE {table} ({', '.join(defined)}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID{strict}"
    )
    holes = "?, " * (len(columns) - 1) + "?"
    for _ in range(pick.randint(1, 4)):
        optional = {name for (name, _), text in zip(columns, defined, strict=True) if "NOT NULL" not in text}
        row = [
            None if name in optional - {*key} and pick.random() < 0.3 else value(kinds[kind], pick)
            for name, kind in columns
        ]
        connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({holes})", row)


def value(like: object, pick: random.Random) -> object:
    number = pick.randrange(1000)
    return {int: number, str: f"text {number}", float: number + 0.5, bytes: bytes([number % 256])}[type(like)]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("end", ["", " WITHOUT ROWID"])
def test_a_value_that_is_there_is_reported(check: str, end: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE [a.b] (id INT PRIMARY KEY, [c.d] TEXT){end}")
        connection.execute("INSERT INTO [a.b] VALUES (1, NULL)")
        redefine(connection, "[c.d] TEXT", "[c.d] TEXT NOT NULL")
        assert reported(connection, check) == ["NULL value in a.b.c.d"]


def redefine(connection: sqlite3.Connection, old: str, new: str) -> None:
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?)", (old, new))
    connection.commit()
    connection.execute("PRAGMA writable_schema=RESET")


def test_what_is_behind_the_mistaken_lines_is_found() -> None:
    """SQLite stops at five lines, and reports one for each row of the healthy table first, or last."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES)
        connection.executemany("INSERT INTO kv VALUES ('v', ?)", [(str(number),) for number in range(1000)])
        connection.execute("CREATE TABLE broken (id INTEGER PRIMARY KEY, text TEXT)")
        connection.execute("INSERT INTO broken VALUES (1, NULL)")
        redefine(connection, "text TEXT", "text TEXT NOT NULL")
        for check in CHECKS:
            assert reported(connection, check) == ["NULL value in broken.text"]


def test_a_text_that_is_a_number_counts_only_where_it_is() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("CREATE TABLE t (a, id INT PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES ('7', 1)")
        redefine(connection, "(a,", "(a INT,")
        lines = reported(connection, database.FULL)
        assert lines in ([], ["TEXT value in t.a"]), "not every version reports it"


@contextmanager
def written_to(app: SmallApp) -> Iterator[None]:
    """Another connection commits all the time while the block runs."""
    ended = threading.Event()

    def write() -> None:
        with closing(app.connect()) as live:
            live.execute("PRAGMA busy_timeout=10000")
            while not ended.wait(0.002):
                live.execute("INSERT INTO written DEFAULT VALUES")
                live.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def test_such_a_database_is_backed_up_restored_and_dumped(odd: SmallApp, tmp_path: Path) -> None:
    odd.command("backup", "one", check=0)
    odd.command("verify", "one", "--test-restore", check=0)
    odd.command("doctor")
    odd.command("dump", "all.sql", check=0)
    odd.command("restore-dump", "all.sql", "--yes", check=0)
    odd.command("restore", "one", "--to", str(tmp_path / "beside"), check=0)
    with written_to(odd):
        odd.command("restore", "one", "--yes", check=0)
    odd.command("undo", "--yes", check=0)


def test_the_commands_of_the_recovery_sheet_take_it(odd: SmallApp) -> None:
    odd.command("backup", "one", check=0)
    sheet = (odd.backups / "one" / "RESTORE.md").read_text()
    script = sheet.partition("python3 -c '\n")[2].partition("\n'")[0]
    copy = odd.folder / "copy.db"
    shutil.copy(odd.backups / "one" / odd.database.name, copy)
    subprocess.run([sys.executable, "-c", script, copy], check=True)
    copy.write_bytes(copy.read_bytes()[:4096] + bytes(4096) + copy.read_bytes()[8192:])
    assert subprocess.run([sys.executable, "-c", script, copy], capture_output=True, check=False).returncode


def test_what_the_backup_has_too_holds_up_no_restore(odd: SmallApp) -> None:
    """Else neither the restore nor its rollback could ever end."""
    with closing(odd.connect()) as live:
        live.execute("CREATE TABLE broken (id INTEGER PRIMARY KEY, text TEXT)")
        live.execute("INSERT INTO broken VALUES (1, NULL)")
        live.commit()
        sound = odd.folder / "sound.db"
        live.execute("VACUUM INTO ?", (str(sound),))
        redefine(live, "text TEXT", "text TEXT NOT NULL")
        alike = odd.folder / "alike.db"
        live.execute("VACUUM INTO ?", (str(alike),))
    done = database.prove(odd.database, 5, None, restored=lambda: alike)
    assert done.problems == ("NULL value in broken.text",)
    for other in (sound, odd.folder / "missing.db"):
        with pytest.raises(SourceUnreadable, match="not sound after the restore"):
            database.prove(odd.database, 5, None, restored=partial(Path, other))
