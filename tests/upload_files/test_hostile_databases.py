"""A database among the uploads is input: what its schema, the files beside it and other users of its folder can do."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.table import Invalid
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import ExitCode
from backupkit.model.events import Event, Notice
from backupkit.repository import store
from backupkit.restore.restore import plan_restore
from others import USER, as_other, give
from small_app import SmallApp

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
INSIDE = "vector_db/chroma.sqlite3"


@pytest.fixture
def app(templates: Path) -> Iterator[SmallApp]:
    """A small app in a folder that any user can reach."""
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        yield SmallApp.create(Path(open_to_all, "app"), templates)


def make_database(app: SmallApp, path: str) -> Path:
    """Make a database among the uploads with one row."""
    place = app.write_upload(path, b"")
    with contextlib.closing(sqlite3.connect(place)) as live, live:
        live.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, value TEXT)")
        live.execute("INSERT INTO entries (value) VALUES ('before')")
    return place


def values(place: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"{place.as_uri()}?immutable=1", uri=True)) as sealed:
        return [value for (value,) in sealed.execute("SELECT value FROM entries ORDER BY id")]


def back_up(app: SmallApp) -> list[str]:
    """Back up, and return what was said."""
    heard: list[Event] = []
    create_backup(app.settings, BackupRequest("good"), heard.append)
    return [one.text for one in heard if isinstance(one, Notice)]


def inside(app: SmallApp, name: str = "good") -> list[str]:
    """Return the names of the databases in the backup that were copied through SQLite."""
    metadata = store.read(app.settings, name).metadata
    assert metadata
    return [one.name for one in metadata.databases if "/" in one.name]


@root_only
@pytest.mark.parametrize("mode", [0o755, 0o2770])
def test_one_in_a_folder_that_another_user_can_change_is_copied_as_a_file(app: SmallApp, mode: int) -> None:
    """That user could put a link in the place of the folder between any two steps of SQLite."""
    create_backup(app.settings, BackupRequest("before"))  # with all modules, which the other user may not read
    make_database(app, INSIDE)
    give(USER, app.database.parent, app.uploads, app.backups)
    folder = (app.uploads / INSIDE).parent
    os.chown(folder, USER + 1 if mode == 0o755 else USER, USER + 1)
    folder.chmod(mode)

    def back_up_and_restore() -> None:
        heard = back_up(app)
        assert any(f"Other users can change {folder}" in text for text in heard)
        assert inside(app) == []
        assert values(app.backups / "good" / "uploads" / INSIDE) == ["before"]
        assert plan_restore(app.settings, "good").source.inside == frozenset()

    as_other(back_up_and_restore)


@root_only
def test_a_link_of_another_user_in_the_place_of_the_database_is_not_followed(app: SmallApp) -> None:
    private = app.folder / "private.db"
    shutil.copy(app.database, private)
    app.database.unlink()
    app.database.symlink_to(private)
    give(USER, app.database.parent, app.uploads, app.backups, private)
    os.chown(app.database, USER + 1, USER + 1, follow_symlinks=False)

    def refuse() -> None:
        with pytest.raises(Invalid, match=f"is a link of user {USER + 1}"):
            app.settings  # noqa: B018 - they are read anew each time

    as_other(refuse)


@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
def test_a_fifo_beside_one_stops_nothing(app: SmallApp, end: str) -> None:
    """SQLite would wait for the other end of it for ever, and no signal would end that."""
    path = make_database(app, "x.db")
    os.mkfifo(f"{path}{end}")
    made = app.command("backup", "good", check=3)
    assert f"x.db{end} is a socket, a fifo or a device" in made.out + made.err
    assert inside(app) == []
    path.write_bytes(b"scribbled over")
    app.command("restore", "good", "--yes", check=3)  # the safety copy does not have the fifo either
    os.unlink(f"{path}{end}")
    assert values(path) == ["before"]


def test_a_fifo_beside_the_database_is_named(app: SmallApp) -> None:
    app.command("backup", "good", check=0)
    os.mkfifo(f"{app.database}-journal")
    for command in (["backup", "next"], ["restore", "good", "--dry-run"]):
        done = app.command(*command)
        assert done.code == ExitCode.SOURCE_UNREADABLE
        assert f"{app.database}-journal is not a plain file" in done.err
    for command in (["status"], ["doctor"]):
        app.command(*command)


def test_what_the_schema_of_one_computes_is_bounded(app: SmallApp) -> None:
    """Its indexes may have expressions, which a check evaluates for every row."""
    path = app.write_upload("x.db", b"")
    with contextlib.closing(sqlite3.connect(path)) as live, live:
        live.execute("CREATE TABLE a (x)")
        live.executemany("INSERT INTO a VALUES (?)", [(number,) for number in range(2000)])
        live.execute("CREATE INDEX i ON a (length(hex(zeroblob(1))), x)")
        large = "replace(hex(zeroblob(200000000 + x % 10)), '0', 'ab')"
        live.execute("PRAGMA writable_schema = ON")
        live.execute(
            "UPDATE sqlite_master SET sql = ? WHERE name = 'i'", (f"CREATE INDEX i ON a (length({large}), x)",)
        )
    assert any("x.db" in text and "plain file" in text for text in back_up(app))
    assert inside(app) == []
    assert (app.backups / "good" / "uploads" / "x.db").read_bytes() == path.read_bytes()


def test_one_that_is_holes_keeps_them(app: SmallApp) -> None:
    path = make_database(app, "x.db")
    pages = (1 << 30) // 4096
    with path.open("r+b") as file:
        file.truncate(1 << 30)
        file.seek(28)
        file.write(pages.to_bytes(4, "big"))
    assert any("nearly all of them are holes" in text for text in back_up(app))
    copied = (app.backups / "good" / "uploads" / "x.db").stat()
    assert copied.st_size == 1 << 30 and copied.st_blocks * 512 <= 4 << 20
    assert inside(app) == []
