"""Names in open folders: entries are removed, renamed and given attributes themselves, and links are never followed."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupkit.fs import descriptors, disk
from refusals import without_privileges

BACKEND = Path(__file__).parents[2] / "backend"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "folder"
    made.mkdir()
    yield made


def make_deep(folder: Path, levels: int) -> None:
    handle = os.open(folder, descriptors.FOLDER)
    for _ in range(levels):
        os.mkdir("d", dir_fd=handle)
        deeper = os.open("d", descriptors.FOLDER, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(handle)


def test_a_tree_of_any_depth_is_removed_with_few_open_files(folder: Path) -> None:
    make_deep(folder, 1100)
    script = (
        "import resource, sys; from pathlib import Path; from backupkit.fs import disk;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)); disk.remove_tree(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, folder], check=True, env={**os.environ, "PYTHONPATH": str(BACKEND)})
    assert not folder.exists()


def test_folders_without_any_permission_are_removed(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("x")
    (folder / "a" / "link").symlink_to("nowhere")
    (folder / "a" / "b").chmod(0)
    (folder / "a").chmod(0)
    as_ordinary_user("disk.remove_tree(Path(sys.argv[1]))", folder)
    assert not folder.exists()


def as_ordinary_user(script: str, folder: Path) -> None:
    """Run the script as the user of the tests, without root's privileges."""
    code = f"import sys; from pathlib import Path; from backupkit.fs import descriptors, disk\n{script}"
    command = [*without_privileges(), sys.executable, "-c", code, folder]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(BACKEND)})


def test_what_a_link_in_a_tree_leads_to_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    outside.chmod(0o511)
    (folder / "link").symlink_to(outside)
    disk.remove_tree(folder)
    assert not folder.exists()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o511 and (outside / "inner").is_dir()


def test_a_link_is_removed_and_not_the_tree_behind_it(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    disk.remove_tree(link)
    assert folder.is_dir() and not link.is_symlink()


def test_folders_swapped_for_links_while_a_tree_is_removed_lead_nowhere(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    for number in range(20):
        (outside / f"kept-{number}").write_text("x")
    outside.chmod(0o500)
    before = outside.stat().st_ctime_ns
    with subprocess.Popen([sys.executable, "-c", SWAP, root, outside]) as swapper:
        try:
            for _ in range(150):
                for number in range(8):
                    (root / f"{number}").mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):  # a folder appeared during the removal
                    disk.remove_tree(root)
                remove_for_sure(root)
        finally:
            swapper.kill()
    assert len(list(outside.iterdir())) == 20
    assert outside.stat().st_ctime_ns == before, "its mode was changed"


def remove_for_sure(root: Path) -> None:
    while root.exists():
        with contextlib.suppress(OSError):
            disk.remove_tree(root)


# Replaces folders by links to the outside and back, as fast as it can.
SWAP = """
import contextlib, os, sys
root, outside = sys.argv[1:]
while True:
    for number in range(8):
        place = f"{root}/{number}"
        with contextlib.suppress(OSError):
            os.rmdir(place)
            os.symlink(outside, place)
"""


def test_nothing_is_renamed_onto_something(folder: Path) -> None:
    (folder / "new").write_text("new")
    (folder / "old").write_text("old")
    with descriptors.opened(folder, descriptors.FOLDER) as handle:
        assert not descriptors.rename_to_free("new", handle, "old", handle)
        assert descriptors.rename_to_free("new", handle, "free", handle)
    assert (folder / "old").read_text() == "old" and (folder / "free").read_text() == "new"


def test_where_the_file_system_cannot_do_that_it_is_looked_at_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_libc", object())  # simulates a system without that call
    test_nothing_is_renamed_onto_something(folder)


def test_attributes_of_a_file_that_may_not_be_read_can_be_set(folder: Path) -> None:
    file = folder / "closed"
    file.write_text("x")
    file.chmod(0)
    as_ordinary_user(SET_ATTRIBUTES, folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640 and file.stat().st_mtime_ns == 10**18


SET_ATTRIBUTES = """
with descriptors.opened(sys.argv[1], descriptors.FOLDER) as within:
    with descriptors.opened_to_change('closed', within) as handle:
        facts = Path(sys.argv[1]).stat()
        descriptors.set_attributes(handle, (facts.st_uid, facts.st_gid), 0o640, 10**18)
"""


@pytest.mark.parametrize(("mode", "ours"), [(0o600, True), (0o620, False), (0o602, False)])
def test_what_others_may_write_is_not_ours(folder: Path, mode: int, ours: bool) -> None:
    assert judged(folder, mode) == ours


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files may have any owner")
def test_what_another_user_owns_is_not_ours(folder: Path) -> None:
    assert not judged(folder, 0o600, 65534)


def judged(folder: Path, mode: int, owner: int = -1) -> bool:
    file = folder / "file"
    file.touch()
    file.chmod(mode)
    os.chown(file, owner, -1)
    with descriptors.opened(file, descriptors.FILE) as handle:
        found = not descriptors.why_not_ours(handle)
    assert stat.S_IMODE(file.stat().st_mode) == mode
    return found
