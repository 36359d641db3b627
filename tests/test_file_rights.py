"""Root works with another user's rights in that user's folder: this thread alone, for the block alone."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupkit.fs import disk, file_rights
from others import USER

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who has rights to lend: run the tests as root")


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder of another user's, where that user can reach it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "theirs")
        path.mkdir(mode=0o700)
        os.chown(path, USER, USER)
        yield path


def test_what_is_made_belongs_to_the_owner_and_what_is_roots_is_closed(theirs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    with file_rights.of_owner(theirs):
        assert file_rights.are_lent()
        (theirs / "new").write_text("x")
        disk.give(theirs / "new", (0, 0))  # nothing is given away by another user
        with pytest.raises(PermissionError):
            secret.read_text()
        with pytest.raises(PermissionError):
            (tmp_path / "new").write_text("x")
    assert disk.owner_of(theirs / "new") == (USER, USER)
    assert secret.read_text() == "root's" and not file_rights.are_lent()


def test_a_file_that_roots_groups_may_read_is_closed_too(theirs: Path) -> None:
    of_a_group = theirs.parent / "of a group"
    of_a_group.write_text("the group's")
    os.chown(of_a_group, 0, 4343)
    of_a_group.chmod(0o640)
    before = os.getgroups()
    os.setgroups([*before, 4343])
    try:
        with file_rights.of_owner(theirs), pytest.raises(PermissionError):
            of_a_group.read_text()
        assert os.getgroups() == [*before, 4343]
    finally:
        os.setgroups(before)


def test_another_thread_keeps_the_rights_of_root(theirs: Path, tmp_path: Path) -> None:
    asked, seen = threading.Barrier(2, timeout=60), list[bool]()

    def look() -> None:
        asked.wait()
        (tmp_path / "new").write_text("x")
        seen.append(file_rights.are_lent())

    other = threading.Thread(target=look)
    other.start()
    with file_rights.of_owner(theirs):
        asked.wait()
        other.join()
    assert seen == [False]


def test_rights_come_back_after_an_error(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), file_rights.of_owner(theirs):
        raise ValueError("x")
    (tmp_path / "new").write_text("x")


def test_a_folder_of_roots_and_one_that_its_owner_cannot_use_change_nothing(theirs: Path, tmp_path: Path) -> None:
    theirs.chmod(0o500)
    for folder in (tmp_path, theirs):
        with file_rights.of_owner(folder):
            assert not file_rights.are_lent()
            (tmp_path / "new").write_text("x")
    theirs.chmod(0o700)
    theirs.parent.chmod(0o700)
    with file_rights.of_owner(theirs):
        assert not file_rights.are_lent()
        (theirs / "new").write_text("x")
