"""After a restore the pages of the live file are compared with those that were restored, not only checked."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest, DatabaseFacts
from backupkit.model.errors import SourceUnreadable
from backupkit.restore import recovery
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.sqlite import database, pages
from refusals import run_here
from small_app import SmallApp

MODES = ("wal", "delete", "truncate", "persist")
FACTS = DatabaseFacts(size=0, sha256="")


@pytest.fixture(params=[1, 9 << 20], ids=["small", "large"])
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def make(path: Path, size: int, mode: str = "delete", page_size: int = 4096) -> sqlite3.Connection:
    """Make a database of at least that many bytes; return a connection to it."""
    live = sqlite3.connect(path, isolation_level=None)
    live.execute(f"PRAGMA page_size={page_size}")
    live.execute(f"PRAGMA journal_mode={mode}")
    live.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
    for _ in range(1 + size // 100_000):
        live.execute("INSERT INTO t (body) VALUES (randomblob(100000))")
    return live


def replace(folder: Path, sealed: Path, live: Path) -> bool | None:
    handle = os.open(sealed.parent, os.O_RDONLY)
    try:
        compared = database.replace_live(sealed, handle, live, 5, FACTS, lambda: None)
    finally:
        os.close(handle)
    return compared.is_same if compared else None


@pytest.mark.parametrize("mode", MODES)
def test_the_live_database_is_found_to_have_the_pages_that_were_written(tmp_path: Path, mode: str, size: int) -> None:
    sealed, live = tmp_path / "sealed.db", tmp_path / "live.db"
    make(sealed, size).close()
    with closing(make(live, 2 * size, mode)) as app:
        assert replace(tmp_path, sealed, live) is True
        assert app.execute("PRAGMA journal_mode").fetchone() == (mode,)
        assert app.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("mode", MODES)
def test_a_page_that_differs_is_found(tmp_path: Path, mode: str, size: int) -> None:
    sealed, live = tmp_path / "sealed.db", tmp_path / "live.db"
    with closing(make(sealed, size)) as copied, closing(make(live, 1, mode)):
        replace(tmp_path, sealed, live)
        copied.execute("UPDATE t SET body = randomblob(length(body)) WHERE id = 1")
        with closing(database._open_live(live)) as connection:
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            assert database._has_same_pages(connection, live, sealed, version, database.file_of(live)) is False


@pytest.mark.parametrize("mode", MODES)
def test_where_the_app_has_committed_since_nothing_is_claimed(tmp_path: Path, mode: str, size: int) -> None:
    sealed, live = tmp_path / "sealed.db", tmp_path / "live.db"
    make(sealed, size).close()
    with closing(make(live, 1, mode)) as app, closing(database._open_live(live)) as connection:
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        app.execute("DELETE FROM t")
        assert database._has_same_pages(connection, live, sealed, version, database.file_of(live)) is None


@pytest.mark.parametrize("checkpoint", ["passive", "truncate", "none"])
def test_pages_in_the_wal_are_compared_as_they_are_there(tmp_path: Path, checkpoint: str) -> None:
    sealed, live = tmp_path / "sealed.db", tmp_path / "live.db"
    make(sealed, 30 << 20).close()
    with closing(make(live, 1, "wal")) as app:
        replace(tmp_path, sealed, live)  # 7,500 frames: more than the first block of the WAL's index holds
        app.execute("PRAGMA wal_autocheckpoint=0")
        app.execute("UPDATE t SET body = zeroblob(100000) WHERE id = 7")
        assert said(live, sealed) == "other"
        with closing(sqlite3.connect(sealed)) as copied, copied:
            copied.execute("UPDATE t SET body = zeroblob(100000) WHERE id = 7")
        if checkpoint != "none":
            app.execute(f"PRAGMA wal_checkpoint({checkpoint})")
        with closing(sqlite3.connect(live)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM t").fetchone()
            assert said(live, sealed) == "same"


@pytest.mark.parametrize("size_of_page", [512, 4096, 65536])
def test_any_size_of_page_is_compared(tmp_path: Path, size_of_page: int) -> None:
    sealed, live = tmp_path / "sealed.db", tmp_path / "live.db"
    make(sealed, 300_000, page_size=size_of_page).close()
    with closing(make(live, 1, "wal", size_of_page)):
        replace(tmp_path, sealed, live)
        assert said(live, sealed) == "same"


@pytest.mark.parametrize("ruin", ["no index", "short index", "short WAL", "noise", "no database"])
def test_what_cannot_be_read_is_unknown_and_no_difference(tmp_path: Path, ruin: str) -> None:
    sealed, live = tmp_path / "sealed.db", tmp_path / "live.db"
    make(sealed, 300_000).close()
    with closing(make(live, 1, "wal")):
        replace(tmp_path, sealed, live)
        copies = tmp_path / "copies"
        copies.mkdir()
        for path in tmp_path.glob("live.db*"):
            (copies / path.name).write_bytes(path.read_bytes())
    index, wal = copies / "live.db-shm", copies / "live.db-wal"
    assert said(copies / "live.db", sealed) == "same"
    match ruin:
        case "no index":
            index.unlink()
        case "short index":
            index.write_bytes(index.read_bytes()[:200])
        case "short WAL":
            wal.write_bytes(wal.read_bytes()[:9000])
        case "noise":
            wal.write_bytes(os.urandom(wal.stat().st_size))
        case "no database":
            (copies / "live.db").unlink()
    assert said(copies / "live.db", sealed) == "unknown"


def said(live: Path, sealed: Path) -> str:
    """Return the program's verdict on a database in WAL mode."""
    command = [sys.executable, "-I", "-S", pages.__file__, str(live), str(sealed), "wal"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_restore_whose_pages_differ_is_taken_back(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(2)
    before = app.contents()
    real, answers = database._has_same_pages, [False]
    monkeypatch.setattr(database, "_has_same_pages", lambda *given: answers.pop() if answers else real(*given))
    with pytest.raises(SourceUnreadable, match="does not hold what was written"):
        restore_backup(app.settings, plan_restore(app.settings, "good"))
    assert app.contents() == before


ALTER = """
import os, sys
handle = os.open(sys.argv[1], os.O_RDWR)
end = os.fstat(handle).st_size
os.pwrite(handle, bytes(byte ^ 1 for byte in os.pread(handle, 16, end - 16)), end - 16)
"""


@pytest.mark.parametrize("mode", MODES)
def test_bytes_of_the_file_that_differ_from_what_sqlite_remembers_are_found(
    tmp_path: Path, mode: str, size: int
) -> None:
    sealed, live = tmp_path / "sealed.db", tmp_path / "live.db"
    make(sealed, size).close()
    with closing(make(live, 1, mode)), closing(database._open_live(live)) as connection:
        replace(tmp_path, sealed, live)
        connection.execute("SELECT count(*), sum(length(body)) FROM t").fetchone()  # SQLite has all pages in memory
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        altered = live.with_name("live.db-wal") if mode == "wal" else live
        # In a separate process: closing the file here would drop the locks of this one.
        subprocess.run([sys.executable, "-c", ALTER, altered], check=True)
        assert database._has_same_pages(connection, live, sealed, version, database.file_of(live)) is False


@pytest.mark.parametrize("python", [None, "", "/nowhere/python"])
def test_without_a_python_to_start_nothing_is_claimed_and_the_restore_is_checked(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, python: str | None
) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(2)
    monkeypatch.setattr(sys, "executable", python)
    restored = restore_backup(app.settings, plan_restore(app.settings, "good"))
    assert not restored.has_same_pages
    assert restored.rows


def when_written(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], before: bool) -> None:
    """Let another process act once the live database is written, before or after it is compared."""
    real, acts = database._has_same_pages, [act]

    def compare(*given: Any) -> bool | None:
        if before and acts:
            acts.pop()()
        found = real(*given)
        if acts:
            acts.pop()()
        return found

    monkeypatch.setattr(database, "_has_same_pages", compare)


@pytest.mark.parametrize("before", [True, False], ids=["before it is compared", "after it"])
def test_a_file_of_other_rows_put_in_place_meanwhile_is_not_called_restored(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    with closing(sqlite3.connect(app.database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # else the WAL that is left belongs to the file of that name
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(2)
    other = other_database(app)
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.execute("INSERT INTO theirs VALUES (1)")
    when_written(monkeypatch, lambda: os.rename(other, app.database), before)
    with pytest.raises(SourceUnreadable, match="put another file in the place of"):
        restore_backup(app.settings, plan_restore(app.settings, "good"))
    assert "theirs" in {name for backup in kept(app) for name in backup}  # a backup has what came meanwhile


@pytest.mark.parametrize("before", [True, False], ids=["before it is compared", "after it"])
def test_a_file_of_the_same_rows_put_in_place_meanwhile_is_checked_and_not_called_the_same(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    create_backup(app.settings, BackupRequest("good"))
    other = other_database(app)
    app.add_rows(2)
    when_written(monkeypatch, lambda: os.rename(other, app.database), before)
    result = run_here(app, "restore", "good", "--force", check=0)
    assert "quick check passed" in result.out and "every page" not in result.out


def test_a_file_put_in_place_of_one_that_needed_no_restore_is_not_called_the_same(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_backup(app.settings, BackupRequest("good"))
    other = other_database(app)
    real = recovery.database_is_done

    def done(*given: Any) -> Any:
        os.rename(other, app.database)
        return real(*given)

    monkeypatch.setattr(recovery, "database_is_done", done)
    assert "quick check passed" in run_here(app, "restore", "good", "--force", check=0).out


def test_a_file_put_in_place_after_the_safety_copy_is_kept_before_it_is_written_over(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(app.database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(2)
    other = other_database(app)
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE theirs (a)")
    real = recovery.replace_database

    def replace_database(*given: Any) -> Any:
        os.rename(other, app.database)
        return real(*given)

    monkeypatch.setattr(recovery, "replace_database", replace_database)
    restore_backup(app.settings, plan_restore(app.settings, "good"))
    assert "theirs" in {name for backup in kept(app) for name in backup}


def other_database(app: SmallApp) -> Path:
    """Copy the live database to another name; return the copy's path."""
    other = app.database.with_name("other.db")
    with closing(sqlite3.connect(app.database)) as source, closing(sqlite3.connect(other)) as copy:
        source.backup(copy)
    return other


def kept(app: SmallApp) -> list[dict[str, int]]:
    """Return the number of rows by table in each safety copy."""
    copies = app.settings.dir.glob("pre_restore_*/backup_metadata.json")
    return [json.loads(path.read_text())["database"]["rows"] for path in copies]


def test_a_restore_says_that_every_page_is_as_restored_and_checks_nothing_twice(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(2)
    assert "every page as restored" in run_here(app, "restore", "good", "--force", check=0).out
    app.add_rows(2)
    monkeypatch.setattr(database, "_has_same_pages", lambda *_given: None)
    assert "quick check passed" in run_here(app, "restore", "good", "--force", check=0).out


def test_a_database_that_is_as_in_the_backup_already_is_not_checked_again(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_backup(app.settings, BackupRequest("good"))
    checks: list[str] = []
    real = database._checked
    monkeypatch.setattr(
        database, "_checked", lambda connection, emit, check: checks.append(check) or real(connection, emit, check)
    )
    result = run_here(app, "restore", "good", "--force", check=0)
    assert "stays as it is" in result.err and "every page as restored" in result.out
    assert database.QUICK not in checks
