"""A SQLite database among the uploads is copied through SQLite, and restored through SQLite if it is live."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.model.events import Event, Notice, Progress, Step, Warned
from backupkit.repository import store
from backupkit.restore import journal
from backupkit.restore.extract import plan_extract
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from small_app import SmallApp

INSIDE = "vector_db/chroma.sqlite3"


@pytest.fixture
def chroma(app: SmallApp) -> Iterator[sqlite3.Connection]:
    """The app's connection to a WAL database in its uploads; what it commits stays in the WAL."""
    path = app.write_upload(INSIDE, b"")
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("PRAGMA wal_autocheckpoint=0")
        live.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, value TEXT)")
        put(live, "before")
        yield live


def put(live: sqlite3.Connection, value: str) -> None:
    live.execute("INSERT INTO entries (value) VALUES (?)", (value,))


def values(place: sqlite3.Connection | Path) -> list[str]:
    if isinstance(place, Path):
        with contextlib.closing(sqlite3.connect(f"{place.as_uri()}?immutable=1", uri=True)) as sealed:
            return values(sealed)
    return [value for (value,) in place.execute("SELECT value FROM entries ORDER BY id")]


def back_up(app: SmallApp, name: str = "good") -> list[Event]:
    heard: list[Event] = []
    create_backup(app.settings, BackupRequest(name), heard.append)
    assert not [one for one in heard if isinstance(one, Warned)]
    return heard


def restore(app: SmallApp, name: str = "good", only: str | None = None) -> list[Event]:
    heard: list[Event] = []
    restore_backup(app.settings, plan_restore(app.settings, name, only, emit=heard.append), heard.append)
    assert not list(app.folder.rglob(STAGING))
    assert not journal.exists(app.backups)
    return heard


def test_the_copy_has_what_is_in_the_wal_and_nothing_lies_beside_it(app: SmallApp, chroma: sqlite3.Connection) -> None:
    back_up(app)
    folder = app.backups / "good" / "uploads" / "vector_db"
    assert [one.name for one in folder.iterdir()] == ["chroma.sqlite3"]
    assert values(folder / "chroma.sqlite3") == ["before"]
    metadata = json.loads((app.backups / "good" / "backup_metadata.json").read_text())
    assert [one["name"] for one in metadata["databases"]] == ["database", f"uploads/{INSIDE}"]
    assert metadata["databases"][1]["database"]["rows"] == {"entries": 1}
    assert app.command("verify", "good", check=0)
    listed = (app.backups / "good" / "SHA256SUMS").read_text().splitlines()
    data = [line[66:] for line in listed if not line.endswith(("RESTORE.md", "backup_metadata.json"))]
    size = sum((app.backups / "good" / one).stat().st_size for one in data)
    assert store.read(app.settings, "good").size_bytes == size


def test_a_large_one_is_read_through_sqlite_alone(app: SmallApp) -> None:
    """Not as a file before that: the backup counts no byte of it twice."""
    with contextlib.closing(sqlite3.connect(app.uploads / "large.db")) as large, large:
        large.execute("CREATE TABLE entries AS SELECT zeroblob(2000000) AS value")
    heard = back_up(app)
    most = max(one.done for one in heard if isinstance(one, Progress))
    assert most <= max(one.total or 0 for one in heard if isinstance(one, Step) and one.unit == "bytes")


def test_a_database_with_a_rollback_journal_and_any_name_is_known_by_its_first_bytes(app: SmallApp) -> None:
    path = app.write_upload("plain/data.bin", b"")
    with contextlib.closing(sqlite3.connect(path)) as live, live:
        live.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, value TEXT)")
        put(live, "before")
    back_up(app)
    metadata = json.loads((app.backups / "good" / "backup_metadata.json").read_text())
    assert [one["name"] for one in metadata["databases"]] == ["database", "uploads/plain/data.bin"]
    back_up(app, "next")
    metadata = json.loads((app.backups / "next" / "backup_metadata.json").read_text())
    assert [one["name"] for one in metadata["databases"]] == ["database", "uploads/plain/data.bin"]


def test_open_connections_go_on_and_see_what_was_restored(app: SmallApp, chroma: sqlite3.Connection) -> None:
    back_up(app)
    inode = (app.uploads / INSIDE).stat().st_ino
    put(chroma, "after")
    app.write_upload("new.txt", b"came later")
    restore(app)
    assert values(chroma) == ["before"]
    assert (app.uploads / INSIDE).stat().st_ino == inode
    assert not (app.uploads / "new.txt").exists()
    put(chroma, "goes on")
    assert values(chroma) == ["before", "goes on"]
    restore_backup(app.settings, plan_undo(app.settings))
    assert values(chroma) == ["before", "after"]
    assert (app.uploads / "new.txt").exists()


@pytest.mark.parametrize(("only", "comes_back"), [("uploads", True), ("database", False)])
def test_it_belongs_to_the_uploads(app: SmallApp, chroma: sqlite3.Connection, only: str, comes_back: bool) -> None:
    back_up(app)
    put(chroma, "after")
    restore(app, only=only)
    assert values(chroma) == (["before"] if comes_back else ["before", "after"])


def test_one_that_is_gone_comes_back_as_a_file(app: SmallApp, chroma: sqlite3.Connection) -> None:
    back_up(app)
    chroma.close()
    shutil.rmtree(app.uploads / "vector_db")
    restore(app)
    assert values(app.uploads / INSIDE) == ["before"]


def test_a_wal_that_was_left_of_one_that_is_broken_is_not_mixed_in(app: SmallApp, chroma: sqlite3.Connection) -> None:
    back_up(app)
    chroma.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    put(chroma, "after")
    saved = (app.uploads / f"{INSIDE}-wal").read_bytes()
    chroma.close()
    (app.uploads / INSIDE).write_bytes(b"noise " * 1000)
    (app.uploads / f"{INSIDE}-wal").write_bytes(saved)
    restore(app)
    assert not (app.uploads / f"{INSIDE}-wal").exists()
    assert values(app.uploads / INSIDE) == ["before"]


def test_one_that_came_since_and_is_in_use_stays_and_goes_on(app: SmallApp) -> None:
    back_up(app)
    path = app.write_upload("later.db", b"")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, value TEXT)")
        put(live, "new")
        plan = plan_restore(app.settings, "good")
        assert any("later.db" in note and "stay as they are" in note for note in plan.notes)
        heard = restore(app)
        assert values(live) == ["new"]
    assert not [one for one in heard if isinstance(one, Warned)]


def test_rows_that_came_after_the_safety_copy_are_kept(app: SmallApp, chroma: sqlite3.Connection) -> None:
    back_up(app)
    put(chroma, "after")
    late: list[bool] = []

    def listen(event: Event) -> None:
        if not late and journal.exists(app.backups):
            late.append(True)
            put(chroma, "late")

    restore_backup(app.settings, plan_restore(app.settings, "good"), listen)
    assert values(chroma) == ["before"]
    copies = [one.path / "uploads" / INSIDE for one in store.all_backups(app.settings)]
    assert any("late" in values(one) for one in copies)


def test_extract_puts_it_back_through_sqlite_too(app: SmallApp, chroma: sqlite3.Connection) -> None:
    back_up(app)
    put(chroma, "after")
    app.write_upload("1/letter.txt", b"altered")
    restore_backup(app.settings, plan_extract(app.settings, "good", [INSIDE]))
    assert values(chroma) == ["before"]
    assert (app.uploads / "1" / "letter.txt").read_bytes() == b"altered"


def test_one_that_is_broken_is_copied_as_it_lies_there(app: SmallApp) -> None:
    app.write_upload("broken.db", b"SQLite format 3\0" + b"noise" * 1000)
    heard: list[Event] = []
    create_backup(app.settings, BackupRequest("good"), heard.append)
    assert any("broken.db" in one.text for one in heard if isinstance(one, Notice))
    copied = app.backups / "good" / "uploads" / "broken.db"
    assert copied.read_bytes() == (app.uploads / "broken.db").read_bytes()


def test_a_link_in_the_place_of_one_leads_nowhere(app: SmallApp, chroma: sqlite3.Connection) -> None:
    back_up(app)
    chroma.close()
    elsewhere = app.folder / "elsewhere"
    shutil.move(app.uploads / "vector_db", elsewhere)
    (app.uploads / "vector_db").symlink_to(elsewhere)
    before = (elsewhere / "chroma.sqlite3").read_bytes()
    restore(app)
    assert (elsewhere / "chroma.sqlite3").read_bytes() == before
    assert not (app.uploads / "vector_db").is_symlink()
    assert values(app.uploads / INSIDE) == ["before"]


def test_a_test_restore_and_a_layout_have_it(app: SmallApp, chroma: sqlite3.Connection) -> None:
    back_up(app)
    put(chroma, "after")
    assert app.command("verify", "good", "--test-restore", check=0)
    target = app.folder.parent / "look"
    assert app.command("restore", "good", "--to", str(target), check=0)
    assert values(target / "uploads" / INSIDE) == ["before"]
    assert values(chroma) == ["before", "after"]
