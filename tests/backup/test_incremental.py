"""A backup costs what changed, and needs no other; a restore touches only what differs. Nothing here measures time."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import disk_images
from backupkit.backup.create import create_backup
from backupkit.fs import disk, stamps
from backupkit.model.backup import Backup, BackupRequest
from backupkit.repository import files_cache, flags, sizes, store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.retention.delete import delete_backup
from backupkit.upload_files import selection
from small_app import COMMAND, SALARY, SmallApp, clean_environment, tree

LETTER, OTHER = "uploads/1/letter.txt", "uploads/2/letter.txt"


def back_up(app: SmallApp, name: str) -> Backup:
    return create_backup(app.settings, BackupRequest(name=name)).backup


def restore(app: SmallApp, name: str) -> None:
    restore_backup(app.settings, plan_restore(app.settings, name))


def adds(app: SmallApp) -> dict[str, int]:
    found = sizes.with_unique_bytes(app.settings, store.all_backups(app.settings))
    return {backup.name: backup.unique_bytes for backup in found}


def inode(path: Path) -> int:
    return path.lstat().st_ino


def settle(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the clock tick that must pass before a change is sure to show."""
    monkeypatch.setattr(stamps, "_TICK", 0)


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """Record every path that Python opens in the block."""
    found: set[str] = set()
    listening = True

    def hear(event: str, values: tuple[object, ...]) -> None:
        if listening and event == "open":
            found.add(str(values[0]))

    sys.addaudithook(hear)
    try:
        yield found
    finally:
        listening = False


def change_unseen(path: Path, content: bytes) -> None:
    """Change the content but keep the size and the modification time."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("tick", ["over", "not over"])
def test_what_has_not_changed_is_linked_between_backups_and_never_to_live_files(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, tick: str
) -> None:
    if tick == "over":
        settle(app, monkeypatch)
    one, two = back_up(app, "one").path, back_up(app, "two").path
    for name in ("pats.db", LETTER, OTHER):
        assert inode(one / name) == inode(two / name)
    for live in (app.database, *(path for path in app.uploads.rglob("*") if path.is_file())):
        assert live.stat().st_nlink == 1
    assert adds(app)["two"] == 0
    assert adds(app)["one"] == store.read(app.settings, "one").size_bytes


def test_a_changed_file_is_copied_and_the_others_are_linked(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(app, monkeypatch)
    one = back_up(app, "one").path
    app.write_upload("1/letter.txt", b"Changed\n")
    two = back_up(app, "two").path
    assert (one / LETTER).read_bytes() == b"Dear company 1\n"
    assert (two / LETTER).read_bytes() == b"Changed\n"
    assert inode(one / OTHER) == inode(two / OTHER)
    assert adds(app)["two"] == len(b"Changed\n")


@pytest.mark.parametrize("tick", ["over", "not over"])
def test_content_changed_under_a_kept_size_and_time_is_caught(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, tick: str
) -> None:
    if tick == "over":
        settle(app, monkeypatch)
    back_up(app, "one")
    change_unseen(app.uploads / "1/letter.txt", b"DEAR company 1\n")
    assert (back_up(app, "two").path / LETTER).read_bytes() == b"DEAR company 1\n"
    assert (app.backups / "one" / LETTER).read_bytes() == b"Dear company 1\n"
    restore(app, "one")
    assert (app.uploads / "1/letter.txt").read_bytes() == b"Dear company 1\n"


def test_an_unchanged_file_is_not_even_opened(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(app, monkeypatch)
    back_up(app, "one")
    app.write_upload("2/letter.txt", b"Changed\n")
    with opened_files() as opened:
        back_up(app, "two")
    # Uploads are opened by name, relative to their folder. Both letters have the same name; one of them was changed.
    assert sum(Path(path).name == "letter.txt" for path in opened) == 1
    with opened_files() as opened:
        plan_restore(app.settings, "one")
    assert str(app.uploads / "1/letter.txt") not in opened
    assert str(app.uploads / "2/letter.txt") not in opened, "its size alone tells that it differs"


def test_a_file_that_was_only_touched_is_linked_by_its_content(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(app, monkeypatch)
    one = back_up(app, "one").path
    change_unseen(app.uploads / "1/letter.txt", b"Dear company 1\n")
    assert inode(back_up(app, "two").path / LETTER) == inode(one / LETTER)


def test_another_mode_or_time_is_kept_apart_and_nothing_is_written_through_a_link(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(app, monkeypatch)
    one = back_up(app, "one").path
    before = tree(one)
    (app.uploads / "1/letter.txt").chmod(0o600)
    os.utime(app.uploads / "2/letter.txt", ns=(1, 1))
    two = back_up(app, "two").path
    assert tree(one) == before
    assert inode(one / LETTER) != inode(two / LETTER)
    assert (two / LETTER).stat().st_mode & 0o777 == 0o600
    assert (two / OTHER).stat().st_mtime_ns == 1
    delete_backup(app.settings, "two")
    assert tree(one) == before


@pytest.mark.parametrize("gone", ["one", "two", "three"])
def test_deleting_any_backup_harms_no_other(app: SmallApp, gone: str) -> None:
    contents = {}
    for number, name in enumerate(("one", "two", "three")):
        app.write_upload(f"new {number}.txt", b"x" * number)
        app.add_rows(number)
        contents[name] = app.contents()
        back_up(app, name)
    delete_backup(app.settings, gone)
    for name in contents.keys() - {gone}:
        restore(app, name)
        assert app.contents() == contents[name]


def test_a_damaged_file_that_backups_share_is_called_so(app: SmallApp) -> None:
    """An older backup has it too: to type `restore` of one after the other would end each time with 12."""
    for name in ("one", "two"):
        back_up(app, name)
    (app.backups / "one" / LETTER).write_bytes(b"damaged")
    (app.uploads / "1" / "letter.txt").unlink()
    assert "verify --all` says which are good" in app.command("verify", "one", check=12).err
    for arguments in ((), ("--only", "uploads")):
        refusal = app.command("restore", "two", "--force", *arguments, check=12).err
        assert "verify --all` says which are good" in refusal
    told = app.command("verify", "--all", check=12).err
    assert "damaged: two, one" in told and "Other backups share" not in told
    (app.backups / "two" / LETTER).unlink()
    assert "Other backups share" not in app.command("verify", "two", check=12).err


def test_a_backup_copied_elsewhere_restores_there(app: SmallApp, tmp_path: Path, templates: Path) -> None:
    back_up(app, "one")
    back_up(app, "two")
    other = SmallApp.create(tmp_path / "other", templates)
    subprocess.run(["cp", "-a", app.backups / "two", other.backups / "two"], check=True)
    restore(other, "two")
    assert other.contents() == app.contents()
    assert [backup.unique_bytes for backup in store.all_backups(other.settings) if backup.name == "two"] == [0]
    assert adds(other)["two"] == store.read(other.settings, "two").size_bytes, "there it shares nothing"


def test_what_a_backup_adds_grows_when_the_one_it_shared_with_is_gone(app: SmallApp) -> None:
    whole = back_up(app, "one").size_bytes
    back_up(app, "two")
    back_up(app, "three")
    assert adds(app) == {"one": whole, "two": 0, "three": 0}
    delete_backup(app.settings, "one")
    assert adds(app) == {"two": whole, "three": 0}
    delete_backup(app.settings, "two")
    assert adds(app) == {"three": whole}
    shutil.rmtree(app.backups / flags.STATE_FOLDER)
    assert adds(app) == {"three": whole}


# The database


def test_a_database_that_was_written_to_is_copied(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(app, monkeypatch)
    one = back_up(app, "one").path
    app.use_and_crash(rows=1)  # only into the -wal
    two = back_up(app, "two").path
    assert inode(one / "pats.db") != inode(two / "pats.db")
    assert rows(two) == rows(one) + 1


def test_a_commit_in_the_very_moment_of_a_backup_is_in_the_next(app: SmallApp) -> None:
    with closing(app.connect()) as live:
        for number in range(25):
            with live:
                live.execute("INSERT INTO companies (name) VALUES (?)", (f"moment {number}",))
            back_up(app, f"b{number}")
    assert [rows(app.backups / f"b{number}") for number in range(25)] == [4 + number for number in range(25)]


def test_the_same_content_after_a_checkpoint_costs_nothing(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(app, monkeypatch)
    app.use_and_crash(rows=5)
    one = back_up(app, "one").path
    with closing(app.connect()) as live:
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    two = back_up(app, "two").path
    assert inode(one / "pats.db") == inode(two / "pats.db")


def test_a_backup_leaves_the_live_database_as_unchanged_as_it_was(app: SmallApp) -> None:
    before = app.database.stat()
    back_up(app, "one")
    after = app.database.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_size) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_size,
    )


def rows(backup: Path) -> int:
    with closing(sqlite3.connect(f"{(backup / 'pats.db').as_uri()}?immutable=1", uri=True)) as sealed:
        count: int = sealed.execute("SELECT count(*) FROM companies").fetchone()[0]
    return count


@pytest.mark.needs("mkfs.xfs")
def test_where_blocks_can_be_shared_a_backup_of_a_large_upload_takes_no_room(app: SmallApp, tmp_path: Path) -> None:
    with disk_images.mounted("xfs", tmp_path) as disk_of_its_own:
        for folder in (app.uploads, app.backups):
            shutil.move(folder, disk_of_its_own / folder.name)
            folder.symlink_to(disk_of_its_own / folder.name)
        app.write_upload("large.bin", os.urandom(20_000_000))
        os.sync()
        free = disk.free_space(disk_of_its_own)
        made = back_up(app, "one")
        assert free - disk.free_space(disk_of_its_own) < 5_000_000
        assert made.size_bytes > 20_000_000
        assert (made.path / "uploads/large.bin").read_bytes() == (app.uploads / "large.bin").read_bytes()


# Files that are not linked from


def test_nothing_is_linked_from_a_sealed_file_that_was_tampered_with(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(app, monkeypatch)
    one = back_up(app, "one").path
    for name in (LETTER, "pats.db"):
        with open(one / name, "r+b") as sealed:
            sealed.write(b"!")
    two = back_up(app, "two").path
    assert inode(one / LETTER) != inode(two / LETTER)
    assert inode(one / "pats.db") != inode(two / "pats.db")
    restore(app, "two")


def harm(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        path.write_bytes(content[:30] + bytes([content[30] ^ 1]) + content[31:])
    elif how == "of another backup":
        path.write_bytes(content.replace(b'{"seal": "', b'{"seal": "0', 1))
    elif how == "no text":
        path.write_bytes(os.urandom(500))
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["torn", "flipped", "of another backup", "no text", "empty"])
def test_an_index_that_is_not_whole_costs_a_full_copy_and_nothing_else(app: SmallApp, how: str) -> None:
    one = back_up(app, "one").path
    harm(app.backups / flags.STATE_FOLDER / "index" / "one", how)
    two = back_up(app, "two").path
    assert inode(one / LETTER) != inode(two / LETTER)
    assert tree(one / "uploads") == tree(two / "uploads")
    assert inode(back_up(app, "three").path / LETTER) == inode(two / LETTER)


def test_a_new_backup_under_an_old_name_inherits_no_index(app: SmallApp) -> None:
    back_up(app, "one")
    kept = (app.backups / flags.STATE_FOLDER / "index" / "one").read_bytes()
    delete_backup(app.settings, "one")
    app.write_upload("1/letter.txt", b"Changed\n")
    back_up(app, "one")
    (app.backups / flags.STATE_FOLDER / "index" / "one").write_bytes(kept)
    with files_cache.newest(app.settings, with_uploads=True) as earlier:
        assert earlier is None


def test_where_files_cannot_be_linked_they_are_copied(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    one = back_up(app, "one").path

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(31, "Too many links")

    monkeypatch.setattr(os, "link", refuse)
    two = back_up(app, "two").path
    assert inode(one / LETTER) != inode(two / LETTER)
    assert tree(one / "uploads") == tree(two / "uploads")
    assert adds(app)["two"] == store.read(app.settings, "two").size_bytes


def test_backups_of_the_database_alone_break_no_sharing_of_the_uploads(app: SmallApp) -> None:
    one = back_up(app, "one").path
    for number in range(3):
        app.add_rows(1)
        create_backup(app.settings, BackupRequest(f"part{number}", uploads=False))
    assert inode(back_up(app, "two").path / LETTER) == inode(one / LETTER)


def test_sharing_goes_on_after_a_restore_of_a_dump_and_after_a_migration_is_undone(app: SmallApp) -> None:
    app.at_revision(SALARY)
    one = back_up(app, "one").path
    for command in (("dump", "text.sql"), ("restore-dump", "text.sql", "--yes"), ("migrate",), ("undo", "--yes")):
        app.command(*command, check=0)
    assert inode(back_up(app, "two").path / LETTER) == inode(one / LETTER)


def test_two_apps_that_share_a_folder_break_no_sharing_of_the_other(app: SmallApp, tmp_path: Path) -> None:
    one = back_up(app, "one").path
    second = SmallApp.create(tmp_path / "second", app.templates)
    for number in range(3):
        settings = second.settings.replaced(dir=app.backups, app_id="second")
        create_backup(settings, BackupRequest(f"theirs{number}"))
    assert inode(back_up(app, "two").path / LETTER) == inode(one / LETTER)


# Restores


def test_a_restore_leaves_alone_what_is_the_same(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(app, monkeypatch)
    before = app.contents()
    back_up(app, "one")
    kept = (app.uploads / "2/letter.txt").stat()
    database = app.database.stat()
    app.write_upload("1/letter.txt", b"Changed\n")
    app.write_upload("extra.txt", b"extra")
    restore(app, "one")
    assert app.contents() == before
    assert (app.uploads / "2/letter.txt").stat() == kept
    assert app.database.stat() == database


def test_a_restore_needs_room_for_what_differs(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(app, monkeypatch)
    app.write_upload("big.bin", os.urandom(1_000_000))
    back_up(app, "one")
    assert sum(plan_restore(app.settings, "one").needs.values()) == 0
    app.write_upload("1/letter.txt", b"Changed\n")
    needs = plan_restore(app.settings, "one").needs
    assert 0 < sum(needs.values()) < 100_000


def test_the_backup_after_a_disaster_shares_with_what_was_restored(app: SmallApp) -> None:
    one = back_up(app, "one").path
    shutil.rmtree(app.uploads)
    restore(app, "one")
    two = back_up(app, "two").path
    assert inode(one / LETTER) == inode(two / LETTER)
    assert adds(app)["two"] <= (one / "pats.db").stat().st_size


def test_a_file_that_is_not_as_the_restored_one_is_not_taken_for_it(app: SmallApp) -> None:
    back_up(app, "one")
    change_unseen(app.uploads / "1/letter.txt", b"DEAR company 1\n")
    app.write_upload("2/letter.txt", b"Longer than it was\n")
    files_cache.follow_restore(app.settings, app.backups / "one", app.uploads, selection.of(app.settings).leaves_out)
    two = back_up(app, "two").path
    assert (two / LETTER).read_bytes() == b"DEAR company 1\n"
    assert (two / OTHER).read_bytes() == b"Longer than it was\n"


def test_an_equal_tree_is_found_equal_without_an_index_too(app: SmallApp) -> None:
    before = app.contents()
    back_up(app, "one")
    shutil.rmtree(app.backups / flags.STATE_FOLDER)
    kept = (app.uploads / "2/letter.txt").stat()
    app.write_upload("1/letter.txt", b"Changed\n")
    restore(app, "one")
    assert app.contents() == before
    assert (app.uploads / "2/letter.txt").stat() == kept


# Large trees


def test_lines_backwards_are_the_lines_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "CHUNK", 7)
    for text in (b"", b"one\n", b"one\ntwo", b"a longer line than a chunk\nshort\n\nthe last of all\n"):
        path = tmp_path / "text"
        path.write_bytes(text)
        with open(path, "rb") as file:
            assert list(disk.lines_backwards(file)) == [line for line in reversed(text.split(b"\n")) if line]


def peak(app: SmallApp, *arguments: str) -> int:
    """Return the peak memory of a command, in kilobytes."""
    script = "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=2); " + (
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, str(COMMAND), *arguments],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.slow
def test_memory_stays_flat_on_a_large_tree(app: SmallApp) -> None:
    small = [peak(app, "backup", "small"), peak(app, "restore", "small", "--force")]
    for folder in range(60):
        (app.uploads / f"folder {folder}").mkdir()
        for number in range(500):
            (app.uploads / f"folder {folder}" / f"a file with quite a long name {number:06}.txt").touch()
    large = [peak(app, "backup", "large"), peak(app, "backup", "again")]
    shutil.rmtree(app.uploads)
    large.append(peak(app, "restore", "large", "--force"))
    assert sum(1 for path in app.uploads.rglob("*.txt")) == 30_002
    # 400 bytes kept for each of 30,000 files, as once for those that two backups share, would be 12 MB.
    assert max(large) - max(small) < 6_000 * (resource.getpagesize() // 4096)


# Files written through mmap: the first write to a clean page changes their times, and no later write does so until the
# page was written back.

MAPPED = """
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
    print("mapped", flush=True)
    for line in sys.stdin:
        mapped[:1] = line[:1].encode()
        print("written", flush=True)
"""


@contextmanager
def mapping(path: Path) -> Iterator[Callable[[str], None]]:
    """Run a process that has the file mapped; yield a function that makes it write a letter at the file's start."""
    with subprocess.Popen([sys.executable, "-c", MAPPED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout and child.stdout.readline()

        def write(letter: str) -> None:
            assert child.stdin and child.stdout
            child.stdin.write(f"{letter}\n".encode())
            child.stdin.flush()
            assert child.stdout.readline() == b"written\n"

        yield write
        child.stdin.close()


@pytest.fixture
def on_its_own_disk(app: SmallApp, tmp_path: Path) -> Iterator[SmallApp]:
    """The app with its uploads on a different file system than the backups, which no other process syncs."""
    with disk_images.mounted("xfs", tmp_path) as disk_of_its_own:
        shutil.move(app.uploads, disk_of_its_own / "uploads")
        app.uploads.symlink_to(disk_of_its_own / "uploads")
        yield app


@pytest.mark.needs("mkfs.xfs")
def test_what_is_written_through_mmap_after_a_backup_is_in_the_next(
    on_its_own_disk: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = on_its_own_disk
    settle(app, monkeypatch)
    with mapping(app.uploads / "1/letter.txt") as write:
        write("1")
        back_up(app, "one")
        for letter in "23":
            write(letter)
            assert (back_up(app, f"b{letter}").path / LETTER).read_bytes()[:1] == letter.encode()


@pytest.mark.needs("mkfs.xfs")
def test_what_is_written_through_mmap_while_it_is_copied_is_not_taken_for_settled(
    on_its_own_disk: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = on_its_own_disk
    monkeypatch.setattr(stamps, "_TICK", 10_000_000)  # ns; the times of files are up to 4 ms behind the clock
    with mapping(app.uploads / "1/letter.txt") as write:
        written: list[str] = []

        def hear(event: str, values: tuple[object, ...]) -> None:
            if event == "open" and values[0] == "letter.txt" and not written:
                written.append("letter.txt")
                write("1")
                time.sleep(0.02)  # more than a tick passes before the copy is recorded

        sys.addaudithook(hear)
        back_up(app, "one")
        assert written
        write("2")
        assert (back_up(app, "two").path / LETTER).read_bytes()[:1] == b"2"


def test_an_index_of_an_earlier_version_costs_a_second_reading_and_no_second_copy(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(app, monkeypatch)
    one = back_up(app, "one").path
    path = app.backups / flags.STATE_FOLDER / "index" / "one"
    lines = path.read_bytes().replace(b', "settled": true, "attributes": true', b"").splitlines(keepends=True)[:-1]
    body = b"".join(lines)
    path.write_bytes(body + f"{hashlib.sha256(body).hexdigest()} {len(body) - len(lines[-1]):020d}\n".encode())
    with opened_files() as opened:
        two = back_up(app, "two").path
    assert inode(one / LETTER) == inode(two / LETTER)
    assert any(Path(path).name == "letter.txt" for path in opened), "they are read"
