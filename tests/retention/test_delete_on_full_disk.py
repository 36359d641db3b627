"""With a full disk and an unfinished restore, `delete` is what makes room: it must not need room itself."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from backupkit.model.errors import ExitCode
from backupkit.restore import journal
from killed import BEFORE_THE_DATABASE, kill
from small_app import SmallApp


@pytest.fixture
def small_disk(app: SmallApp) -> Iterator[Path]:
    """The backups folder, on a disk of its own that is soon full."""
    command = ["mount", "-t", "tmpfs", "-o", "mode=0755,size=24m", "none", app.backups]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield app.backups
    subprocess.run(["umount", app.backups], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(os.urandom(4096))


def commit(app: SmallApp) -> None:
    """Commit as the app does, so that finishing the restore has to keep that first."""
    with closing(sqlite3.connect(app.database)) as live, live:
        live.execute("CREATE TABLE came_later AS SELECT randomblob(100000) AS value")


def test_prune_says_what_can_be_deleted_where_a_restore_cannot_be_finished(app: SmallApp, small_disk: Path) -> None:
    app.command("backup", "needless", check=0)
    app.command("backup", "old", check=0)
    commit(app)
    kill(app, BEFORE_THE_DATABASE, "restore", "old", "--force")
    with closing(sqlite3.connect(app.database)) as live, live:
        live.execute("INSERT INTO came_later VALUES (randomblob(100000))")
    fill(small_disk)
    pruned = app.command("prune")
    said = " ".join(pruned.err.split())
    assert pruned.code == ExitCode.NO_SPACE, said
    assert "There is no room to finish the restore of old: The disk is full: " in said
    assert "delete` a backup that the restore does not need (it needs old, pre_restore_" in said
    assert "does not need needless" in app.command("delete", "needless", "--yes").err


def test_a_backup_that_the_unfinished_restore_does_not_need_can_be_deleted(app: SmallApp, small_disk: Path) -> None:
    app.command("backup", "old", check=0)
    commit(app)
    large = app.write_upload("large.bin", os.urandom(5_000_000))
    app.command("backup", "wanted", check=0)
    large.unlink()
    kill(app, BEFORE_THE_DATABASE, "restore", "old", "--force")
    with closing(sqlite3.connect(app.database)) as live, live:
        live.execute("INSERT INTO came_later VALUES (randomblob(100000))")
    fill(small_disk)
    assert app.command("recover").code == ExitCode.NO_SPACE
    assert app.command("delete", "old", "--yes").code == ExitCode.NO_SPACE, "it is what is restored"
    deleted = app.command("delete", "wanted", "--yes", check=3)  # the history cannot be written
    assert "The disk is too full to finish the restore of old, which does not need wanted." in deleted.out + deleted.err
    assert journal.exists(small_disk) and not (small_disk / "wanted").exists()
    app.command("recover", check=3)  # what the app wrote since is kept, and named
    assert not journal.exists(small_disk)
    with closing(sqlite3.connect(app.database)) as live:
        assert not live.execute("SELECT 1 FROM sqlite_master WHERE name = 'came_later'").fetchone()


def test_a_disk_that_is_full_to_the_last_block_gets_room_again(app: SmallApp, small_disk: Path) -> None:
    for name in ("one", "two", "three"):
        app.write_upload(f"of_{name}.bin", os.urandom(1_000_000))
        app.command("backup", name, check=0)
    assert (small_disk / ".lock").stat().st_size == 0, "to sign it takes a block"
    fill(small_disk)
    assert app.command("delete", "two", "--yes").code in (ExitCode.DONE, ExitCode.WARNINGS)
    assert not (small_disk / "two").exists()
    fill(small_disk)
    assert app.command("prune").code in (ExitCode.DONE, ExitCode.WARNINGS)
