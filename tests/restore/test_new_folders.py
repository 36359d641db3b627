"""Each lost folder comes back in one step with all its contents; what was put in its place meanwhile stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.repository import store
from backupkit.restore import journal
from disk_images import until_unmounted
from killed import AMONG_THE_UPLOADS, BEFORE_THE_DATABASE, Point, kill
from refusals import as_user, run_here
from small_app import COMMAND, Contents, SmallApp, clean_environment

RESTORE = ("restore", "good", "--force")
IN_THE_FOLDER = ("backupkit.upload_files.apply", "_Applying._make_folder", "after")
MOUNT = ("mount", "-t", "tmpfs", "none")
LAST_YEAR = 1_700_000_000


@pytest.fixture
def lost(app: SmallApp) -> tuple[SmallApp, Contents]:
    """An app that lost its folder `year` with folders, links and two names of one file; and its contents before."""
    for month in ("01", "02"):
        for number in range(3):
            app.write_upload(f"year/{month}/{number}.txt", f"{month} {number}".encode())
    year = app.uploads / "year"
    (year / "empty").mkdir()
    (year / "link").symlink_to("01/0.txt")
    os.link(year / "01" / "1.txt", year / "02" / "again.txt")
    (year / "02" / "2.txt").chmod(0o400)
    for folder, mode in ((year / "01", 0o555), (year / "02", 0o750), (year, 0o711)):
        folder.chmod(mode)
        os.utime(folder, (LAST_YEAR, LAST_YEAR))
    create_backup(app.settings, BackupRequest("good"))
    good = app.contents()
    (year / "01").chmod(0o755)
    shutil.rmtree(year)
    app.add_rows(2)
    return app, good


@pytest.fixture
def another_mount(app: SmallApp) -> Iterator[Path]:
    """A tmpfs mounted among the uploads."""
    place = app.uploads / "disk"
    place.mkdir()
    with until_unmounted("tmpfs", [*MOUNT, place]):
        yield place


def assert_tidy(app: SmallApp) -> None:
    assert not journal.exists(app.backups)
    assert not [path for path in app.folder.rglob("*") if path.name.startswith(STAGING)]


@pytest.mark.needs("strace")
def test_a_lost_folder_takes_one_rename(lost: tuple[SmallApp, Contents], tmp_path: Path) -> None:
    app, good = lost
    trace = tmp_path / "trace"
    traced = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=rename,renameat,renameat2,mkdirat"]
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder)}
    subprocess.run([*traced, sys.executable, str(COMMAND), *RESTORE], env=environment, check=True, capture_output=True)
    named = [line for line in trace.read_text().splitlines() if '"year"' in line and "rename" in line]
    assert len(named) == 1
    assert not [line for line in trace.read_text().splitlines() if ".txt" in line]
    assert app.contents() == good
    year = app.uploads / "year"
    assert os.path.samefile(year / "01" / "1.txt", year / "02" / "again.txt")
    assert_tidy(app)


@pytest.mark.parametrize("point", [AMONG_THE_UPLOADS, IN_THE_FOLDER], ids=["after a line", "after a folder"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_killed_among_the_uploads_the_rest_comes_too(lost: tuple[SmallApp, Contents], point: Point, count: int) -> None:
    app, good = lost
    kill(app, point, *RESTORE, count=count)
    run_here(app, "recover", check=0)
    assert app.contents() == good
    assert_tidy(app)


def test_what_came_into_the_place_of_a_lost_folder_stays(lost: tuple[SmallApp, Contents]) -> None:
    app, good = lost
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    app.write_upload("year/01/0.txt", b"came meanwhile")
    app.write_upload("year/03/new.txt", b"came too")
    result = run_here(app, "recover", check=3)
    assert "year/01/0.txt came or changed during the restore, and stays as it is" in " ".join(result.err.split())
    now, uploads = app.contents(), app.uploads
    assert (uploads / "year/01/0.txt").read_bytes() == b"came meanwhile"
    assert (uploads / "year/03/new.txt").read_bytes() == b"came too"
    for path in ("year/01/1.txt", "year/02/0.txt", "year/02/2.txt", "year/02/again.txt", "year/link"):
        assert now.uploads[path] == good.uploads[path]
    assert (uploads / "year" / "01").stat().st_mode & 0o777 == 0o555
    assert os.path.samefile(uploads / "year/01/1.txt", uploads / "year/02/again.txt")
    assert_tidy(app)


def test_a_file_in_the_place_of_a_lost_folder_stays(lost: tuple[SmallApp, Contents]) -> None:
    app, _ = lost
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    (app.uploads / "year").write_bytes(b"a file")
    result = run_here(app, "recover", check=3)
    assert "year came or changed during the restore" in " ".join(result.err.split())
    assert (app.uploads / "year").read_bytes() == b"a file"
    assert_tidy(app)


def test_killed_while_it_fills_a_folder_that_came_it_goes_on(lost: tuple[SmallApp, Contents]) -> None:
    app, good = lost
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    (app.uploads / "year" / "02").mkdir(parents=True)
    for count in (1, 3, 6):
        kill(app, AMONG_THE_UPLOADS, "recover", count=count)
    run_here(app, "recover", check=0)
    assert app.contents() == good
    assert_tidy(app)


def test_into_another_mount_it_is_copied(another_mount: Path, lost: tuple[SmallApp, Contents]) -> None:
    app, _ = lost
    for number in range(3):
        app.write_upload(f"disk/lost/{number % 2}/{number}.txt", b"%d" % number)
    with suppress(OSError):  # not every tmpfs has extended attributes
        os.setxattr(another_mount / "lost/0/0.txt", "user.kept", b"1")
    (another_mount / "lost" / "0").chmod(0o711)
    os.utime(another_mount / "lost" / "0", (LAST_YEAR, LAST_YEAR))
    create_backup(app.settings, BackupRequest("mounted"))
    good = app.contents()
    shutil.rmtree(another_mount / "lost")
    kill(app, AMONG_THE_UPLOADS, "restore", "mounted", "--force", count=2)
    run_here(app, "recover", check=0)
    assert app.contents() == good
    assert_tidy(app)


def test_an_ordinary_user_gets_a_folder_back_that_is_read_only(lost: tuple[SmallApp, Contents]) -> None:
    app, _ = lost
    app.write_upload("closed/below/file.txt", b"closed")
    for folder in ("closed/below", "closed"):
        (app.uploads / folder).chmod(0o555)
    assert as_user(app, "backup", "closed").code == 0
    good = app.contents()
    subprocess.run(["rm", "-rf", app.uploads / "closed"], check=True)
    assert as_user(app, "restore", "closed", "--force").code == 0
    assert app.contents() == good


def test_a_disk_among_the_uploads_that_is_not_mounted_is_no_empty_folder(app: SmallApp) -> None:
    place = app.uploads / "videos"
    place.mkdir()
    with until_unmounted("tmpfs", [*MOUNT, place]):
        (place / "one.mp4").write_bytes(b"a video")
        app.command("backup", "whole", check=0)
    alone = app.command("backup", "without", check=0)
    assert "Unusual: uploads: nothing is mounted at videos, where something was.\n" in alone.err
    assert "unusual" in app.command("status").out
    plan = app.command("restore", "latest", "--dry-run", check=0).out
    assert "Restoring whole " in plan
    assert f"  note       Nothing is mounted at videos in {app.uploads}; at the backup's time something was.\n" in plan
    with until_unmounted("tmpfs", [*MOUNT, place]):
        assert "Nothing is mounted" not in app.command("restore", "latest", "--force", check=0).out
        assert (place / "one.mp4").read_bytes() == b"a video"
        app.command("backup", "again", check=0)
    assert not store.find(app.settings, "again").unusual
