"""Entries in the uploads folder that are not uploads: the database, by whatever path, and the backups."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest, Part
from backupkit.model.errors import Refused
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from backupkit.upload_files import selection, walk
from small_app import SmallApp, tree

Place = Callable[[SmallApp, Path], None]


def in_the_folder(app: SmallApp, _mounts: Path) -> None:
    """Put the database among the uploads: one folder for both."""
    move_database(app, app.uploads)


def below_it(app: SmallApp, _mounts: Path) -> None:
    """Put the database in its own folder in the uploads."""
    (app.uploads / "1" / "db").mkdir()
    move_database(app, app.uploads / "1" / "db")


def through_a_link(app: SmallApp, mounts: Path) -> None:
    """Make the uploads a link to a folder that also holds the database."""
    real = mounts / "real"
    shutil.copytree(app.uploads, real, symlinks=True)
    shutil.rmtree(app.uploads)
    app.uploads.symlink_to(real)
    (real / "db").mkdir()
    move_database(app, real / "db")


def through_a_second_mount(app: SmallApp, mounts: Path) -> None:
    """Mount the database's folder once more inside the uploads."""
    (app.uploads / "1" / "again").mkdir()
    mount(app.database.parent, app.uploads / "1" / "again")


def as_a_mounted_file(app: SmallApp, mounts: Path) -> None:
    """Mount the database alone once more inside the uploads."""
    (app.uploads / "again.db").touch()
    mount(app.database, app.uploads / "again.db")


def as_a_hard_link(app: SmallApp, mounts: Path) -> None:
    """Give the database a second name in the uploads."""
    os.link(app.database, app.uploads / "again.db")


PLACES = (in_the_folder, below_it, through_a_link, through_a_second_mount, as_a_mounted_file, as_a_hard_link)
MOVED = PLACES[:3]


def move_database(app: SmallApp, folder: Path) -> None:
    for path in app.database.parent.glob("pats.db*"):
        path.rename(folder / path.name)
    app.database.parent.rmdir()
    app.database = folder / "pats.db"


def mount(source: Path, target: Path) -> None:
    if subprocess.run(["mount", "--bind", source, target], capture_output=True).returncode:
        pytest.skip("this machine mounts nothing; it takes root")


@pytest.fixture
def mounts(app: SmallApp, tmp_path: Path) -> Iterator[Path]:
    """A scratch folder; mounts inside the app are unmounted at the end."""
    folder = tmp_path / "mounts"
    folder.mkdir()
    yield folder
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        place = line.split()[4].replace("\\040", " ")
        if Path(place).is_relative_to(app.folder):
            subprocess.run(["umount", place], check=True)


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def together(app: SmallApp, mounts: Path, request: pytest.FixtureRequest) -> SmallApp:
    """An app whose database also appears in the uploads folder, in one of these ways."""
    place: Place = request.param
    place(app, mounts)
    return app


def back_up(app: SmallApp, name: str = "one") -> Path:
    return create_backup(app.settings, BackupRequest(name)).backup.path


def restore(app: SmallApp, name: str = "one", only: Part | None = None) -> tuple[str, ...]:
    return restore_backup(app.settings, plan_restore(app.settings, name, only)).warnings


def uploads_of(app: SmallApp) -> dict[str, object]:
    """Return the uploads without the database and its sidecars, and without the times of folders."""
    found = tree(app.uploads.resolve())
    names = {"pats.db", "pats.db-wal", "pats.db-shm", "again.db"}
    kept = {path: entry for path, entry in found.items() if Path(path).name not in names}
    return {path: entry if entry[0] != "folder" else "folder" for path, entry in kept.items()}


def test_the_database_is_no_upload_of_the_backup(together: SmallApp) -> None:
    together.use_and_crash(rows=3)
    folder = back_up(together)
    assert not [path for path in tree(folder / "uploads") if "db" in Path(path).suffix]
    assert (folder / "pats.db").exists()


def test_a_restore_brings_all_of_it_back_and_an_undo_takes_it_back(together: SmallApp) -> None:
    app = together
    rows, files = app.rows("companies"), uploads_of(app)
    back_up(app)
    app.use_and_crash(rows=4)
    app.write_upload("1/letter.txt", b"Changed\n")
    app.write_upload("later.txt", b"later")
    later_rows, later_files = app.rows("companies"), uploads_of(app)
    assert restore(app) == ()
    assert (app.rows("companies"), uploads_of(app)) == (rows, files)
    restore_backup(app.settings, plan_undo(app.settings))
    assert (app.rows("companies"), uploads_of(app)) == (later_rows, later_files)


def test_a_restore_of_the_uploads_alone_loses_no_committed_row(together: SmallApp) -> None:
    app = together
    back_up(app)
    app.write_upload("later.txt", b"later")
    with closing(app.connect()) as live:  # open, as in a running app
        app.use_and_crash(rows=101)
        assert restore(app, only="uploads") == ()
        assert live.execute("SELECT count(*) FROM companies").fetchone() == (3 + 101,)
    assert len(app.rows("companies")) == 3 + 101
    assert not (app.uploads / "later.txt").exists()


def test_a_restore_of_the_database_alone_leaves_the_uploads(together: SmallApp) -> None:
    app = together
    back_up(app)
    app.use_and_crash(rows=5)
    app.write_upload("later.txt", b"later")
    files = uploads_of(app)
    restore(app, only="database")
    assert (len(app.rows("companies")), uploads_of(app)) == (3, files)


@pytest.mark.parametrize("place", MOVED, ids=lambda place: place.__name__)
def test_when_all_of_it_is_gone_all_of_it_comes_back(app: SmallApp, mounts: Path, place: Place) -> None:
    place(app, mounts)
    rows, files = app.rows("companies"), uploads_of(app)
    back_up(app)
    for path in app.uploads.resolve().iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    restore(app)
    assert (app.rows("companies"), uploads_of(app)) == (rows, files)


def test_a_test_restore_passes(together: SmallApp) -> None:
    back_up(together)
    together.command("verify", "one", "--test-restore", env=environment(together), check=0)


def environment(app: SmallApp) -> dict[str, str]:
    return {"BACKUP_DATABASE": str(app.database), "BACKUP_UPLOADS": str(app.uploads)}


def test_the_second_backup_links_what_is_unchanged(together: SmallApp) -> None:
    one, two = back_up(together, "one"), back_up(together, "two")
    assert (one / "uploads/1/letter.txt").stat().st_ino == (two / "uploads/1/letter.txt").stat().st_ino


def test_a_database_that_an_earlier_version_took_for_an_upload_is_not_put_over_the_live_one(app: SmallApp) -> None:
    """Such a backup holds the file twice, with a `-wal` beside the second."""
    in_the_folder(app, app.folder)
    folder = back_up(app)
    for path in app.uploads.glob("pats.db*"):
        shutil.copy2(path, folder / "uploads")
    (folder / "uploads" / "pats.db-wal").write_bytes(b"of then")
    (folder / "SHA256SUMS").unlink()
    metadata = folder / "backup_metadata.json"
    metadata.write_text(metadata.read_text().replace('"tool_version"', '"was"'))
    inode = app.database.stat().st_ino
    app.use_and_crash(rows=6)
    restore(app)
    assert app.database.stat().st_ino == inode
    assert len(app.rows("companies")) == 3
    for path in app.uploads.glob("pats.db*"):
        path.unlink()
    restore(app)
    assert len(app.rows("companies")) == 3


def test_a_folder_that_holds_the_database_is_not_replaced_by_a_file_of_its_name(app: SmallApp) -> None:
    app.write_upload("place", b"a file")
    back_up(app)
    (app.uploads / "place").unlink()
    (app.uploads / "place").mkdir()
    move_database(app, app.uploads / "place")
    app.use_and_crash(rows=2)
    warnings = restore(app, only="uploads")
    assert [text for text in warnings if "place" in text]
    assert len(app.rows("companies")) == 3 + 2


def test_backups_that_are_mounted_inside_the_uploads_are_not_in_the_backup(app: SmallApp, mounts: Path) -> None:
    (app.uploads / "old").mkdir()
    mount(app.backups, app.uploads / "old")
    back_up(app, "one")
    folder = back_up(app, "two")
    assert not [path for path in tree(folder / "uploads") if path.startswith("old")]
    app.write_upload("later.txt", b"later")
    assert restore(app) == ()
    assert sorted(path.name for path in app.backups.iterdir() if path.name in ("one", "two")) == ["one", "two"]
    assert not (app.uploads / "later.txt").exists()


def test_backups_and_uploads_that_are_one_folder_are_refused(app: SmallApp, mounts: Path) -> None:
    mount(app.uploads, app.backups)
    with pytest.raises(Refused, match="overlap"):
        back_up(app)


def test_an_upload_that_is_called_like_a_database_is_one(app: SmallApp) -> None:
    app.write_upload("1/pats.db", b"not the database")
    app.write_upload("pats.db-wal", b"nor its sidecar")
    folder = back_up(app)
    assert (folder / "uploads/1/pats.db").read_bytes() == b"not the database"
    assert (folder / "uploads/pats.db-wal").exists()


def test_doctor_says_that_the_database_lies_in_the_uploads(together: SmallApp) -> None:
    said = together.command("doctor", env=environment(together)).out
    assert "not backed up as uploads" in said


def test_what_is_counted_is_what_is_copied(together: SmallApp) -> None:
    folder = back_up(together)
    counted = walk.measure(together.uploads, selection.of(together.settings).leaves_out)[0]
    assert counted == sum(entry[0] == "file" for entry in tree(folder / "uploads").values())
