"""A backups folder on a separate disk: nothing is written while that disk is not mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupkit.monitoring.status import status
from refusals import refused, run_here
from small_app import SmallApp

WANTED = {"BACKUP_SEPARATE_DISK": "true"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The mount point of a separate disk."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", place], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", place], check=True)


@contextmanager
def mounted(disk: Path, place: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", disk, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_nothing_is_written_while_the_disk_is_not_mounted(app: SmallApp, disk: Path) -> None:
    with mounted(disk, app.backups):
        run_here(app, "backup", "first", env=WANTED, check=0)
    for command in (["backup", "second"], ["dump"]):
        result = refused(app, *command, code=2, names="is not mounted", hint="Mount it", env=WANTED)
        assert "Nothing was changed" in result.err
    refused(app, "restore", "first", "--yes", code=10, names="no backup named first", hint="is not mounted", env=WANTED)
    assert "is not mounted" in run_here(app, "run", env=WANTED, check=2).out
    assert os.listdir(app.backups) == []
    found = run_here(app, "status", env=WANTED)
    assert found.code == 2 and "at risk" in found.out and "is not mounted" in found.out
    assert "is not mounted" in run_here(app, "doctor", env=WANTED).out
    with mounted(disk, app.backups):
        run_here(app, "restore", "first", "--yes", env=WANTED, check=0)


def test_what_writes_to_a_read_only_disk_says_that_it_is_one(app: SmallApp, disk: Path) -> None:
    app.command("backup", "first", check=0)
    with mounted(app.backups, app.backups):
        subprocess.run(["mount", "-o", "remount,ro,bind", app.backups], check=True)
        for command in (["restore", "first", "--yes"], ["pin", "first"], ["backup", "second"]):
            done = app.command(*command)
            said = " ".join(done.err.split())
            assert done.code == 1 and "mounted read-only" in said and "another user" not in said, said
        # Commands that only read the backups work, and warn that the history does not record them.
        elsewhere = str(app.folder.parent / "elsewhere")
        for command in (["verify", "first"], ["restore", "first", "--to", elsewhere]):
            done = app.command(*command)
            assert done.code in (0, 3) and "mounted read-only" in " ".join(done.err.split()), done.err
        assert Path(elsewhere).is_dir()


def test_the_folder_of_a_disk_that_is_not_there_is_on_the_disk_of_its_parent(app: SmallApp) -> None:
    for place in (app.backups / "missing" / "deeper", app.backups):
        settings = app.settings.replaced(separate_disk=True, dir=place)
        (first, *_) = status(settings).reasons
        assert first.level == "critical" and first.text.endswith("the folder is on the disk of the database.")


@pytest.mark.usefixtures("disk")  # it skips where nothing can be mounted
def test_a_restore_says_that_the_live_disk_is_mounted_read_only(app: SmallApp) -> None:
    run_here(app, "backup", "one", check=0)
    app.add_rows(1)
    with mounted(app.database.parent, app.database.parent):
        subprocess.run(["mount", "-o", "remount,ro,bind", app.database.parent], check=True)
        refused(app, "restore", "one", "--yes", code=13, names="mounted read-only", hint="Mount it")


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_opens_a_database_says_that_its_disk_is_mounted_read_only(app: SmallApp, mode: str) -> None:
    run_here(app, "backup", "one", check=0)
    app.execute("DELETE FROM companies WHERE id > 1")
    app.execute(f"PRAGMA journal_mode={mode}")
    with mounted(app.database.parent, app.database.parent):
        subprocess.run(["mount", "-o", "remount,ro,bind", app.database.parent], check=True)
        rescue = ["rescue", "one", "companies", "--missing", "--yes"]
        refused(app, *rescue, code=13, names=f"{app.database} is mounted read-only; nothing", hint="Mount it")
        if mode == "wal":  # SQLite cannot even read it there
            refused(app, "rows", "one", "companies", "--diff", code=13, names="mounted read-only", hint="Mount it")


def test_a_link_to_a_disk_that_is_not_mounted_is_named(app: SmallApp, tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "backups"
    app.backups.rmdir()
    app.backups.symlink_to(gone)
    said = f"{app.backups} is a link to {gone}, which is not there."
    refused(app, "backup", "one", code=2, names=said, hint="Mount that disk, or correct the link")
    refused(app, "restore", "first", "--yes", code=10, names="no backup named first", hint="is a link to")
    for command, code in (("status", 2), ("doctor", 1), ("list", 0), ("run", 2)):
        assert said in " ".join(run_here(app, command, check=code).out.split())
    assert app.backups.is_symlink() and not gone.parent.exists()


def test_a_restore_says_that_the_link_in_the_place_of_the_uploads_leads_nowhere(app: SmallApp, tmp_path: Path) -> None:
    run_here(app, "backup", "one", check=0)
    app.uploads.rename(tmp_path / "kept")
    app.uploads.symlink_to(tmp_path / "gone")
    said, mend = f"{app.uploads} is a link to {tmp_path / 'gone'}, which is not there.", "correct the link"
    refused(app, "restore", "one", "--yes", code=2, names=said, hint=mend)
    refused(app, "backup", "two", code=13, names=said, hint=mend)
