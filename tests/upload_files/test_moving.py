"""Backups of uploads that are moved, renamed, replaced or deleted meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.repository import manifest
from small_app import SmallApp, tree

Act = Callable[[], object]


@contextmanager
def meanwhile(name: str, act: Act) -> Iterator[list[str]]:
    """Perform the act once: before the backup copies a file of that name, or the listed content of such a folder."""
    done: list[str] = []
    listening = True

    def hear(event: str, values: tuple[object, ...]) -> None:
        if listening and not done and event in ("open", "os.mkdir") and values[0] == name:
            if event == "open" and "." not in name:
                return  # the folder is only counted
            done.append(name)
            act()

    sys.addaudithook(hear)
    try:
        yield done
    finally:
        listening = False


def back_up(app: SmallApp, before: str, act: Act, name: str = "one") -> tuple[dict[str, object], tuple[str, ...]]:
    """Back up while that happens; check that the backup is sound, and return its uploads and warnings."""
    with meanwhile(before, act) as done:
        created = create_backup(app.settings, BackupRequest(name))
    assert done, f"nothing called {before} was opened"
    app.command("verify", name, check=0)
    folder = app.backups / name
    listed = [line[66:] for line in (folder / "SHA256SUMS").read_text().splitlines() if "  uploads/" in line]
    assert listed == sorted(listed, key=lambda path: path.split("/")), "in the order of a walk"
    assert created.backup.metadata and created.backup.metadata.uploads
    found = tree(folder / "uploads")
    assert created.backup.metadata.uploads.files == sum(entry[0] == "file" for entry in found.values())
    return dict(found), created.warnings


@pytest.fixture
def inbox(app: SmallApp) -> SmallApp:
    """An app whose `archive` is listed before its `inbox`, and both before `later`."""
    app.write_upload("archive/old.txt", b"old")
    app.write_upload("inbox/first.txt", b"first")
    app.write_upload("inbox/x.txt", b"the one that is moved")
    app.write_upload("inbox/folder/deep/y.txt", b"in a folder that is moved")
    app.write_upload("later/last.txt", b"last")
    return app


def move(app: SmallApp, source: str, target: str) -> Act:
    return lambda: os.rename(app.uploads / source, app.uploads / target)


def test_a_file_that_is_moved_into_a_folder_that_was_copied_already_is_in_the_backup(inbox: SmallApp) -> None:
    found, warnings = back_up(inbox, "archive", move(inbox, "inbox/x.txt", "archive/x.txt"))
    assert found["archive/x.txt"] == tree(inbox.uploads)["archive/x.txt"]
    assert "inbox/x.txt" not in found
    assert warnings == ()
    assert found["archive"] == tree(inbox.uploads)["archive"], "the folder's own time too"


def test_a_file_that_is_moved_after_it_was_listed_is_in_the_backup(inbox: SmallApp) -> None:
    found, warnings = back_up(inbox, "first.txt", move(inbox, "inbox/x.txt", "archive/x.txt"))
    assert "archive/x.txt" in found
    assert warnings == ()


def test_a_folder_that_is_moved_is_in_the_backup_with_all_that_is_in_it(inbox: SmallApp) -> None:
    found, warnings = back_up(inbox, "archive", move(inbox, "inbox/folder", "archive/folder"))
    assert found["archive/folder/deep/y.txt"] == tree(inbox.uploads)["archive/folder/deep/y.txt"]
    assert warnings == ()


def test_a_file_that_is_moved_to_where_it_is_yet_to_be_copied_is_there_and_no_warning(inbox: SmallApp) -> None:
    found, warnings = back_up(inbox, "first.txt", move(inbox, "inbox/x.txt", "later/x.txt"))
    assert "later/x.txt" in found
    assert warnings == ()


def test_a_file_that_is_moved_deeper_before_it_is_copied_is_there_and_no_warning(inbox: SmallApp) -> None:
    """The new place is copied after the old one was listed, and before the old one's turn."""
    found, warnings = back_up(inbox, "first.txt", move(inbox, "inbox/x.txt", "inbox/folder/x.txt"))
    assert "inbox/folder/x.txt" in found
    assert warnings == ()


def test_a_file_that_gets_its_name_while_what_came_is_copied_is_there_and_no_warning(inbox: SmallApp) -> None:
    """As the reference app writes: a draft appears, and is renamed when everything else is in the backup."""

    def come() -> None:
        inbox.write_upload("archive/.a-came", b"came")
        inbox.write_upload("archive/.draft", b"a new one")

    with meanwhile(".a-came", move(inbox, "archive/.draft", "archive/new.txt")) as renamed:
        found, warnings = back_up(inbox, "last.txt", come)
    assert renamed and "archive/new.txt" in found and "archive/.draft" not in found
    assert warnings == ()


def test_a_file_that_is_renamed_over_another_one_is_no_warning(inbox: SmallApp) -> None:
    """As programs write: into a new file that replaces the old one by its name."""
    found, warnings = back_up(inbox, "first.txt", move(inbox, "inbox/x.txt", "inbox/first.txt"))
    kept = found["inbox/first.txt"]
    assert isinstance(kept, tuple) and kept[3] == b"the one that is moved"
    assert warnings == ()


def test_what_was_seen_and_is_nowhere_is_one_warning(inbox: SmallApp) -> None:
    inbox.write_upload("inbox/z.txt", b"another")

    def delete() -> None:
        for name in ("x.txt", "z.txt"):
            (inbox.uploads / "inbox" / name).unlink()

    _, warnings = back_up(inbox, "first.txt", delete)
    (text,) = warnings
    assert text.startswith("inbox/x.txt (and 1 more) disappeared before being copied")


def test_a_file_that_became_a_link_meanwhile_is_in_the_backup_as_that(inbox: SmallApp) -> None:
    def replace() -> None:
        (inbox.uploads / "inbox" / "x.txt").unlink()
        (inbox.uploads / "inbox" / "x.txt").symlink_to("first.txt")

    found, _ = back_up(inbox, "first.txt", replace)
    kept = found["inbox/x.txt"]
    assert isinstance(kept, tuple) and kept[0] == "link"


def test_a_file_that_came_late_is_linked_by_the_backup_after_the_next(inbox: SmallApp) -> None:
    """The file is in no index, so the next backup copies it once more."""
    back_up(inbox, "archive", move(inbox, "inbox/x.txt", "archive/x.txt"))
    for name in ("two", "three"):
        create_backup(inbox.settings, BackupRequest(name))
    one, two, three = ((inbox.backups / name / "uploads/archive/x.txt").stat() for name in ("one", "two", "three"))
    assert two.st_ino == three.st_ino
    assert one.st_size == two.st_size


def test_whatever_is_moved_about_all_the_time_is_in_each_backup_or_named(app: SmallApp) -> None:
    """A process renames files between folders as fast as it can."""
    for folder in ("a", "m", "z"):
        (app.uploads / folder).mkdir()
    for number in range(30):
        app.write_upload(f"m/{number}", b"%d" % number)
    code = (
        "import itertools, os, sys\nos.chdir(sys.argv[1])\nprint(flush=True)\n"
        "for places in itertools.cycle([('m', 'a'), ('a', 'z'), ('z', 'm')]):\n"
        "    for name in os.listdir(places[0]): os.rename(f'{places[0]}/{name}', f'{places[1]}/{name}')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, app.uploads], stdout=subprocess.PIPE) as mover:
        assert mover.stdout and mover.stdout.readline()
        try:
            for number in range(10):
                created = create_backup(app.settings, BackupRequest(f"b{number}"))
                folder = created.backup.path
                held = {path.read_bytes() for path in (folder / "uploads").glob("[amz]/*")}
                assert len(held) == 30 or created.warnings, f"{30 - len(held)} are nowhere, and nothing is said"
                assert list(manifest.verify_checksums(folder)) == []
        finally:
            mover.kill()


SIZES = pytest.mark.parametrize("size", [10, 300_000], ids=["small", "large"])


@SIZES
def test_a_file_that_is_replaced_by_a_folder_after_it_was_listed_is_that_folder_in_the_backup(
    app: SmallApp, size: int
) -> None:
    path = app.write_upload("inbox/x.txt", b"x" * size)

    def replace() -> None:
        path.unlink()
        path.mkdir()
        (path / "inner.txt").write_bytes(b"in the folder")

    found, warnings = back_up(app, "x.txt", replace)
    assert found["inbox/x.txt/inner.txt"] == tree(app.uploads)["inbox/x.txt/inner.txt"]
    # The file is gone, and named as that, unless the file system gave the folder its inode.
    assert [warning for warning in warnings if "disappeared before" not in warning] == []


@SIZES
@pytest.mark.parametrize("is_written_to", [False, True])
def test_a_file_that_is_replaced_by_a_fifo_after_it_was_listed_is_no_file_of_the_backup(
    app: SmallApp, size: int, is_written_to: bool
) -> None:
    path = app.write_upload("inbox/x.txt", b"x" * size)
    opened = list[int]()

    def replace() -> None:
        path.unlink()
        os.mkfifo(path)
        if is_written_to:
            opened.append(os.open(path, os.O_RDWR))

    try:
        found, warnings = back_up(app, "x.txt", replace)
    finally:
        for handle in opened:
            os.close(handle)
    assert "inbox/x.txt" not in found
    assert "inbox/x.txt is a socket, a fifo or a device, and is not in the backup." in warnings
