"""Deeply nested folders: no walk takes a frame of Python or an open file per level, and no path has to fit PATH_MAX.

A path may have 4,096 bytes at most (PATH_MAX), a tree any depth: deeper entries are reached folder by folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupkit.fs import tree
from small_app import SmallApp

DEEP = 1_100
"""Levels below the uploads: more than Python has frames, a process has open files, or a path has room for."""
NAME = "folder"


@contextmanager
def deepest(root: Path, levels: int, name: str, make: bool = False) -> Iterator[int]:
    """Open the innermost of that many nested folders below the root."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        if make:
            os.mkdir(name, dir_fd=handle)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
        os.close(handle)
        handle = inner
    try:
        yield handle
    finally:
        os.close(handle)


def dig(root: Path, levels: int, name: str = NAME) -> None:
    """Create nested folders, with a file and a link in the innermost one."""
    with deepest(root, levels, name, make=True) as inner:
        write(inner, b"deep")
        os.symlink("letter.txt", "link", dir_fd=inner)


def write(folder: int, content: bytes) -> None:
    with open(os.open("letter.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640, dir_fd=folder), "wb") as file:
        file.write(content)


def read(root: Path, levels: int, name: str = NAME) -> tuple[bytes, str, int]:
    """Return the content of the innermost file, the target of the link beside it, and the file's mode."""
    with deepest(root, levels, name) as inner, open(os.open("letter.txt", os.O_RDONLY, dir_fd=inner), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        return file.read(), os.readlink("link", dir_fd=inner), mode


@pytest.fixture
def deep(app: SmallApp) -> int:
    """The number of nested folders in the uploads of the app."""
    dig(app.uploads, DEEP)
    return DEEP


def test_a_deep_tree_is_backed_up_verified_and_restored(app: SmallApp, deep: int) -> None:
    app.command("backup", "one", check=0)
    assert read(app.backups / "one" / "uploads", deep) == (b"deep", "letter.txt", 0o640)
    app.command("verify", "one", check=0)
    app.command("verify", "one", "--test-restore", check=0)
    with deepest(app.uploads, deep, NAME) as inner:
        write(inner, b"changed")
        os.unlink("link", dir_fd=inner)
    app.command("restore", "one", "--force", check=0)
    assert read(app.uploads, deep) == (b"deep", "letter.txt", 0o640)
    app.command("undo", "--force", check=0)
    with deepest(app.uploads, deep, NAME) as inner:
        assert os.listdir(inner) == ["letter.txt"]


def test_a_deep_tree_that_is_gone_comes_back_and_one_that_came_goes(app: SmallApp, deep: int) -> None:
    app.command("backup", "one", check=0)
    remove(app.uploads / NAME)
    app.command("restore", "one", "--force", check=0)
    assert read(app.uploads, deep) == (b"deep", "letter.txt", 0o640)
    app.command("undo", "--force", check=0)
    assert not (app.uploads / NAME).exists()


def test_what_is_deep_and_unchanged_is_linked(app: SmallApp, deep: int) -> None:
    inodes = set()
    for name in ("one", "two"):
        app.command("backup", name, check=0)
        with deepest(app.backups / name / "uploads", deep, NAME) as inner:
            inodes.add(os.stat("letter.txt", dir_fd=inner).st_ino)
    assert len(inodes) == 1


def test_a_deep_backup_is_deleted_and_pruned(app: SmallApp, deep: int) -> None:
    for name in ("one", "two", "three"):
        app.command("backup", name, check=0)
    app.command("delete", "one", "--force", check=0)
    keep = {"BACKUP_KEEP_LAST": "1", "BACKUP_KEEP_MANUAL": "false"}
    app.command("prune", env=keep)
    assert not (app.backups / "one").exists()
    assert not list(app.backups.glob(".draft-*"))


def test_a_deep_draft_of_a_killed_run_is_cleared(app: SmallApp, deep: int) -> None:
    draft = app.backups / ".draft-killed"
    draft.mkdir()
    dig(draft, deep)
    app.command("backup", "one", check=0)
    assert not draft.exists()


def test_a_deep_backup_travels_as_one_file(app: SmallApp, deep: int) -> None:
    app.command("backup", "one", check=0)
    app.command("export", "one", "one.tar", check=0)
    app.command("import", "one.tar", "--name", "came", check=0)
    assert read(app.backups / "came" / "uploads", deep) == (b"deep", "letter.txt", 0o640)
    app.command("verify", "came", check=0)


def test_a_deep_backup_travels_to_a_folder_and_back(app: SmallApp, deep: int, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (app.folder / "backup.toml").write_text(f'[remotes.nas]\ntype = "folder"\npath = "{tmp_path}/nas"\n')
    app.command("remotes", "--init", "nas", check=0)
    for name in ("one", "two"):
        app.command("backup", name, check=0)
        app.command("push", name, check=0)
    assert read(tmp_path / "nas" / "two" / "uploads", deep) == (b"deep", "letter.txt", 0o640)
    app.command("verify", "--remote", "nas", check=0)
    app.command("delete", "two", "--force", check=0)
    app.command("pull", "two", check=0)
    assert read(app.backups / "two" / "uploads", deep) == (b"deep", "letter.txt", 0o640)


def remove(folder: Path) -> None:
    """Remove the folder with `rm`: Python's own function fails on such a tree."""
    os.system(f"rm -rf '{folder}'")


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """Remove the test's folders afterwards, since pytest cannot remove such a tree."""
    yield
    for path in tmp_path.iterdir():
        remove(path)


def test_a_name_that_is_too_long_is_not_there_but_a_root_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    assert tree.look(tmp_path, "x" * 300) is None
    with pytest.raises(OSError, match="too long"):
        tree.look(tmp_path / ("x" * 300), "a")
