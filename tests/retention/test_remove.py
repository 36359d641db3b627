"""A backup is deleted whole, by its own name, and never while it is pinned."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from refusals import assert_refusal, picture
from small_app import SmallApp, tree


def names(app: SmallApp) -> list[str]:
    return sorted(backup.name for backup in store.all_backups(app.settings))


def test_a_backup_is_deleted_and_the_others_stay_as_they_are(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    create_backup(app.settings, BackupRequest("two"))
    (app.backups / "one" / "uploads" / "empty").chmod(0o500)
    before = tree(app.backups / "two")
    assert "Deleted one" in app.command("delete", "one", "--yes", check=0).out
    assert names(app) == ["two"]
    assert tree(app.backups / "two") == before
    assert [path.name for path in app.backups.iterdir() if path.name.startswith(".draft")] == []


def test_what_could_not_be_removed_is_told_and_goes_with_the_next_backup(app: SmallApp) -> None:
    """An immutable folder stays when the backup has lost its name."""
    create_backup(app.settings, BackupRequest("one"))
    draft = app.backups / ".draft-one"
    if subprocess.run(["chattr", "+i", app.backups / "one/uploads/empty"], capture_output=True).returncode:
        pytest.skip("making a folder immutable needs root, and a file system that can")
    try:
        result = app.command("delete", "one", "--yes", check=3)
        assert "one is not a backup any more, but some of it could not be removed: " in result.err
        assert str(draft) in result.err and draft.is_dir() and names(app) == []
    finally:
        subprocess.run(["chattr", "-i", draft / "uploads" / "empty"], check=True)
    create_backup(app.settings, BackupRequest("two"))
    assert not draft.exists() and names(app) == ["two"]


@contextmanager
def mounted_over(place: Path, other: Path) -> Iterator[None]:
    """Mount a folder with a file in it over the place; the file must be there in the end."""
    other.mkdir()
    (other / "precious").write_text("not of the backup")
    if subprocess.run(["mount", "--bind", other, place], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
    assert (other / "precious").read_text() == "not of the backup"


def test_nothing_is_removed_of_what_is_mounted_inside_a_backup_and_the_backup_stays_whole(
    app: SmallApp, tmp_path: Path
) -> None:
    create_backup(app.settings, BackupRequest("one", kind="scheduled"))
    create_backup(app.settings, BackupRequest("two", kind="scheduled"))
    place = app.backups / "one" / "uploads" / "empty"
    with mounted_over(place, tmp_path / "other"):
        deleted = app.command("delete", "one", "--yes", check=1)
        assert f"Something is mounted there, so nothing is removed: {place}." in " ".join(deleted.err.split())
        assert f"umount {place}" in deleted.err
        pruned = app.command("prune", env={"BACKUP_KEEP_LAST": "1", "BACKUP_MIN_KEEP": "1"}, check=3)
        assert f"could not be removed: Something is mounted there, so nothing is removed: {place}." in pruned.err
    assert names(app) == ["one", "two"]
    app.command("verify", "one", check=0)
    app.command("delete", "one", "--yes", check=0)


def test_nothing_is_removed_of_what_is_mounted_inside_a_draft(app: SmallApp, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("one"))
    draft = app.backups / ".draft-killed"
    (draft / "uploads").mkdir(parents=True)
    with mounted_over(draft / "uploads", tmp_path / "other"):
        refused = app.command("backup", "two", check=1)
        assert f"umount {draft / 'uploads'}" in refused.err
    app.command("backup", "two", check=0)
    assert not draft.exists()


def test_a_pinned_backup_is_refused_until_it_is_unpinned(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    assert app.command("pin", "kept", check=0).out == "kept is pinned.\n"
    result = app.command("delete", "kept", "--force")
    assert result.code == 2 and "is pinned" in result.err and "unpin kept" in result.err
    assert names(app) == ["kept"]
    assert app.command("unpin", "kept", "--json", check=0).json["pinned"] is False
    app.command("delete", "kept", "-y", check=0)
    assert names(app) == []


def test_a_backup_held_by_a_migration_can_be_unpinned(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("held", pin_until_next=True))
    assert app.command("delete", "held").code == 2
    app.command("unpin", "held", check=0)
    app.command("delete", "held", "--yes", check=0)
    assert names(app) == []


def test_what_is_not_there_or_not_named_is_refused(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    assert app.command("delete", "nope").code == 10
    assert app.command("delete", "latest").code == 2
    assert app.command("delete", "../one").code == 2
    assert app.command("pin", "nope").code == 10
    assert names(app) == ["one"]


def test_without_a_terminal_nothing_is_deleted_that_nobody_said_yes_to(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    before = picture(app)
    assert_refusal(app.command("delete", "one"), 2, "no terminal", "--yes")
    assert picture(app) == before
    assert names(app) == ["one"]


def test_a_damaged_backup_can_be_deleted(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("bad"))
    (app.backups / "bad" / "backup_metadata.json").write_text("{")
    app.command("delete", "bad", "--yes", check=0)
    assert names(app) == []


@pytest.mark.parametrize("left", ["backup_metadata.json", "SHA256SUMS", "RESTORE.md"])
def test_a_backup_that_lost_what_describes_it_can_be_deleted(app: SmallApp, left: str) -> None:
    create_backup(app.settings, BackupRequest("bad"))
    backup = app.backups / "bad"
    for file in {"backup_metadata.json", "SHA256SUMS", "RESTORE.md"} - {left}:
        (backup / file).unlink()
    app.command("delete", "bad", "--yes", check=0)
    assert not backup.exists()


@pytest.mark.parametrize("command", ["delete --yes", "pin", "show", "verify", "restore --yes"])
def test_a_folder_that_is_no_backup_is_not_touched(app: SmallApp, command: str) -> None:
    create_backup(app.settings, BackupRequest("one"))
    contracts = app.backups / "customer_contracts" / "2024"
    contracts.mkdir(parents=True)
    (contracts / "a.pdf").write_bytes(b"signed")
    before = picture(app)
    verb, *options = command.split()
    assert_refusal(app.command(verb, "customer_contracts", *options), 10, "no backup of this toolkit", "list")
    assert picture(app) == before
    assert not (app.backups / ".state" / "pinned").exists()


def test_an_undo_whose_safety_copy_was_deleted_says_so(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    safety = restore_backup(app.settings, plan_restore(app.settings, "good")).safety
    asked = app.command("delete", safety)
    assert asked.code == 2 and names(app) == sorted(["good", safety])
    assert "cannot be taken back" in app.command("delete", safety, "--yes", check=0).err
    result = app.command("undo", "--force")
    assert result.code == 10 and safety in result.err
