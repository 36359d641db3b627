"""Uploads and backups on btrfs, which lists in an open folder only what was there when it was opened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import disk_images
from small_app import SmallApp, tree
from upload_files.test_moving import back_up

pytestmark = pytest.mark.needs("mkfs.btrfs")


@pytest.fixture
def on_btrfs(app: SmallApp, tmp_path: Path) -> Iterator[SmallApp]:
    with disk_images.mounted("btrfs", tmp_path) as place:
        for folder in (app.uploads, app.backups):
            shutil.move(folder, place / folder.name)
            folder.symlink_to(place / folder.name)
        for name in ("a.txt", "b.txt", "folder/c.txt"):
            app.write_upload(name, b"first")
        yield app


def test_all_of_it_is_in_a_backup_and_comes_back_without_a_warning(on_btrfs: SmallApp) -> None:
    app = on_btrfs
    first = tree(app.uploads)
    assert app.command("backup", "one", check=0).err == ""
    assert tree(app.backups / "one/uploads") == first
    app.write_upload("a.txt", b"second")
    app.write_upload("new/d.txt", b"second")
    os.remove(app.uploads / "b.txt")
    second = tree(app.uploads)
    app.command("restore", "one", "--yes", check=0)
    assert tree(app.uploads) == first
    app.command("undo", "--yes", check=0)
    assert tree(app.uploads) == second
    app.command("delete", "one", "--yes", check=0)
    assert not (app.backups / "one").exists()


def test_a_file_that_is_moved_up_while_the_rest_is_copied_is_in_the_backup(on_btrfs: SmallApp) -> None:
    found, warnings = back_up(
        on_btrfs, "c.txt", lambda: os.rename(on_btrfs.uploads / "folder/c.txt", on_btrfs.uploads / "0.txt")
    )
    assert "0.txt" in found and warnings == ()
