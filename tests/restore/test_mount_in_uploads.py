"""A mount inside the uploads: a restore copies into it, counts the room there, and leaves nothing half copied."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import killed
from backupkit.backup.create import create_backup
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.restore.restore import plan_restore, restore_backup
from small_app import SmallApp, tree

MB = 1 << 20
DRAFT = f"{STAGING}-{'0' * 32}"
COPYING = ("backupkit.fs.disk", "copy_file_to", "after")


@pytest.fixture
def disk(app: SmallApp) -> Iterator[Path]:
    """A folder of the uploads that is a disk of its own, of 24 MB."""
    place = app.uploads / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=24m", "none", place]).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def back_up(app: SmallApp, name: str = "good") -> Path:
    return create_backup(app.settings, BackupRequest(name)).backup.path


def drafts(app: SmallApp) -> list[Path]:
    return [*app.uploads.rglob(f"{STAGING}*")]


def test_a_mount_without_room_is_found_before_anything_is_changed(app: SmallApp, disk: Path) -> None:
    (disk / "large").write_bytes(bytes(10 * MB))
    back_up(app)
    (disk / "large").unlink()
    (disk / "other").write_bytes(os.urandom(18 * MB))
    app.execute("DELETE FROM documents")
    before = app.contents()
    result = app.command("restore", "good", "--yes", env={"BACKUP_EXCLUDE": "other"}, check=15)
    assert f"in {disk}" in result.err and "nothing was changed" in result.err
    assert app.contents() == before and not drafts(app)


def test_what_is_replaced_or_removed_on_a_mount_makes_room_there(app: SmallApp, disk: Path) -> None:
    for name in ("one", "two"):
        (disk / name).write_bytes(name.encode() * (3 * MB))
    back_up(app)
    before = tree(app.uploads)
    (disk / "one").write_bytes(bytes(6 * MB))
    (disk / "two").unlink()
    (disk / "three").write_bytes(bytes(6 * MB))
    app.command("restore", "good", "--yes", check=0)
    assert tree(app.uploads) == before


def test_a_mount_that_becomes_full_keeps_nothing_half_copied(app: SmallApp, disk: Path) -> None:
    (disk / "large").write_bytes(os.urandom(6 * MB))
    back_up(app)
    (disk / "large").unlink()
    settings = app.settings.replaced(exclude=("arrived",))
    plan = plan_restore(settings, "good")
    (disk / "arrived").write_bytes(os.urandom(20 * MB))
    before = app.contents()
    with pytest.raises(OSError, match="No space left"):
        restore_backup(settings, plan)
    assert app.contents().uploads.keys() == before.uploads.keys() and app.contents().rows == before.rows
    assert not drafts(app)


def test_what_a_killed_restore_has_half_copied_is_removed_by_recover(app: SmallApp, disk: Path) -> None:
    (disk / "large").write_bytes(b"then")
    back_up(app)
    (disk / "large").unlink()
    killed.kill(app, COPYING, "restore", "good", "--yes")
    assert drafts(app)
    (disk / "large").write_bytes(b"came meanwhile")
    app.command("recover", check=3)
    assert not drafts(app) and (disk / "large").read_bytes() == b"came meanwhile"


def test_what_a_restore_has_half_copied_is_no_upload(app: SmallApp) -> None:
    app.write_upload(f"1/{DRAFT}", b"half")
    kept = back_up(app)
    assert not (kept / "uploads" / "1" / DRAFT).exists()
    assert (kept / "uploads" / "1" / "letter.txt").exists()
