"""A killed restore loses no committed row, whatever the app and people do before it is finished."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.repository import store
from backupkit.restore import journal
from killed import AFTER_THE_COMMIT, AMONG_THE_UPLOADS, BEFORE_THE_DATABASE, WHILE_STAGING, kill
from refusals import run_here
from small_app import BACKEND, Contents, SmallApp, clean_environment

RESTORE = ("restore", "good", "--force")


@pytest.fixture(params=["wal", "delete"])
def ruined(app: SmallApp, request: pytest.FixtureRequest) -> tuple[SmallApp, Contents]:
    """An app in either journal mode that differs from its backup `good` in every way; and that backup's contents."""
    app.execute(f"PRAGMA journal_mode={request.param}")
    return app, _ruin(app)


@pytest.fixture
def changed(app: SmallApp) -> tuple[SmallApp, Contents]:
    """The same app in WAL mode only."""
    return app, _ruin(app)


def _ruin(app: SmallApp) -> Contents:
    create_backup(app.settings, BackupRequest("good"))
    good = app.contents()
    app.add_rows(2)
    app.write_upload("1/letter.txt", b"altered")
    app.write_upload("new/file", b"new")
    shutil.rmtree(app.uploads / "2")
    return good


def commit(app: SmallApp, name: str) -> None:
    app.execute("INSERT INTO companies (name) VALUES (?)", (name,))


def names(app: SmallApp) -> set[str]:
    return {str(row[1]) for row in app.rows("companies")}


def in_backups(app: SmallApp) -> set[str]:
    """Return the companies in all backups, read without the product."""
    found: set[str] = set()
    for path in app.backups.glob("*/pats.db"):
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as copy:
            found |= {name for (name,) in copy.execute("SELECT name FROM companies")}
    return found


def safety_copies(app: SmallApp) -> list[str]:
    return [one.name for one in store.all_backups(app.settings) if one.name.startswith("pre_restore")]


def assert_finished(app: SmallApp) -> None:
    assert not journal.exists(app.backups)
    assert not list(app.folder.rglob(STAGING)) and not list(app.backups.glob(".draft-*"))


def state(app: SmallApp) -> tuple[Contents, list[str], bool]:
    """Return what must not change: live data, staged files, and whether there is a journal."""
    staged = sorted(str(path) for path in app.folder.rglob("*") if STAGING in path.parts)
    return app.contents(), staged, journal.exists(app.backups)


# Commits by the app before the restore is finished


def test_a_row_committed_after_the_kill_is_kept_when_the_restore_is_finished(ruined: tuple[SmallApp, Contents]) -> None:
    app, good = ruined
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    commit(app, "since the kill")
    result = run_here(app, "recover", check=3)
    newest, _ = safety_copies(app)
    assert newest in result.err
    assert app.contents() == good
    assert "since the kill" in in_backups(app)
    assert_finished(app)
    run_here(app, "undo", "--force", check=0)
    assert "since the kill" in names(app)
    assert (app.uploads / "new" / "file").exists()


def test_a_database_that_is_as_the_safety_copy_has_it_is_not_kept_twice(ruined: tuple[SmallApp, Contents]) -> None:
    app, good = ruined
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    run_here(app, "recover", check=0)
    assert len(safety_copies(app)) == 1
    assert app.contents() == good


def test_a_data_folder_that_was_copied_counts_as_unchanged(ruined: tuple[SmallApp, Contents]) -> None:
    app, good = ruined
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    for folder in (app.database.parent, app.uploads):
        copied = folder.with_name("copied")
        subprocess.run(["cp", "-a", folder, copied], check=True)
        shutil.rmtree(folder)
        copied.rename(folder)
    result = run_here(app, "recover", check=0)
    assert "stays as it is" not in result.err
    assert len(safety_copies(app)) == 1
    assert app.contents() == good


def test_killed_between_the_commit_and_the_journal_nothing_is_replaced_again(
    ruined: tuple[SmallApp, Contents],
) -> None:
    app, good = ruined
    kill(app, AFTER_THE_COMMIT, *RESTORE)
    run_here(app, "recover", check=0)
    assert len(safety_copies(app)) == 1
    assert app.contents() == good


def test_a_row_committed_between_the_commit_and_the_journal_is_kept(ruined: tuple[SmallApp, Contents]) -> None:
    app, good = ruined
    kill(app, AFTER_THE_COMMIT, *RESTORE)
    commit(app, "onto the restored")
    run_here(app, "recover", check=3)
    assert app.contents() == good
    assert "onto the restored" in in_backups(app)


def test_a_row_committed_among_the_uploads_stays_live(ruined: tuple[SmallApp, Contents]) -> None:
    app, good = ruined
    kill(app, AMONG_THE_UPLOADS, *RESTORE, count=2)
    commit(app, "onto the restored")
    run_here(app, "recover", check=0)
    assert "onto the restored" in names(app)
    assert app.contents().uploads == good.uploads


def test_an_upload_that_was_changed_after_the_kill_stays_and_is_warned_of(changed: tuple[SmallApp, Contents]) -> None:
    app, good = changed
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    app.write_upload("1/letter.txt", b"changed since the kill")
    app.write_upload("later", b"came since the kill")
    result = run_here(app, "recover", check=3)
    assert "Warning: 1/letter.txt came or changed during the restore, and stays as it is." in result.err
    assert (app.uploads / "1" / "letter.txt").read_bytes() == b"changed since the kill"
    assert (app.uploads / "later").exists()
    assert app.contents().rows == good.rows
    assert_finished(app)


def test_a_command_that_finishes_a_restore_with_warnings_ends_with_3(changed: tuple[SmallApp, Contents]) -> None:
    app, _ = changed
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    commit(app, "since the kill")
    run_here(app, "backup", "next", check=3)
    assert "since the kill" in in_backups(app)


@pytest.mark.parametrize("what", ["broken", "gone"])
def test_a_database_that_broke_after_the_kill_is_kept_as_it_is(changed: tuple[SmallApp, Contents], what: str) -> None:
    app, good = changed
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    for path in app.database.parent.glob("pats.db*"):
        path.unlink()
    if what == "broken":
        app.database.write_bytes(b"noise " * 1000)
    run_here(app, "recover", check=3 if what == "broken" else 0)
    assert app.contents() == good
    kept = [path.read_bytes()[:5] for path in app.backups.glob("pre_restore*/pats.db")]
    assert (b"noise" in kept) == (what == "broken")


@pytest.mark.parametrize("what", ["broken", "no database", "gone"])
def test_a_database_that_broke_after_it_was_restored_holds_up_nothing(
    changed: tuple[SmallApp, Contents], what: str
) -> None:
    """Else no command could put a backup back: each would try to finish that restore first."""
    app, good = changed
    kill(app, AMONG_THE_UPLOADS, *RESTORE, count=2)
    for path in app.database.parent.glob("pats.db-*"):
        path.unlink()
    content = app.database.read_bytes()
    app.database.unlink()
    if what != "gone":
        kept = content[:4096] if what == "broken" else b""
        app.database.write_bytes(kept + b"noise " * (len(content) // 6))
    result = run_here(app, "recover", check=3)
    assert "was restored by an earlier run, and cannot be used now: " in result.err
    assert "Restore it again: `python backup_restore.py restore good`" in result.err
    assert_finished(app)
    run_here(app, "restore", "good", "--yes", "--force")
    assert app.contents() == good


WRITE_AND_TELL = """
import sqlite3, sys, time
live = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
number = 0
print("writing", flush=True)
while True:
    live.execute("INSERT INTO companies (name) VALUES (?)", (f"written {number}",))
    print(number, flush=True)
    number += 1
    time.sleep(0.002)
"""


def test_every_row_committed_while_a_restore_runs_is_live_or_in_a_backup(ruined: tuple[SmallApp, Contents]) -> None:
    app, _ = ruined
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_TELL, app.database], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout and writer.stdout.readline() == "writing\n"
        told: list[str] = []
        try:
            for _ in range(6):
                told += [writer.stdout.readline() for _ in range(20)]  # the writer goes on in the restored database
                assert "is kept in" in run_here(app, *RESTORE, check=0).err
        finally:
            writer.send_signal(signal.SIGKILL)
            committed = [*told, *writer.stdout.read().split()]
    with closing(app.connect()) as live:
        live.execute("SELECT count(*) FROM companies").fetchone()  # rolls back the killed writer's transaction
    wanted = {f"written {int(number)}" for number in committed}
    assert len(wanted) > 100
    assert wanted - names(app) - in_backups(app) == set()


def test_rows_committed_onto_the_restored_data_are_kept_when_it_is_taken_back(
    ruined: tuple[SmallApp, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    from backupkit.fs import descriptors
    from backupkit.restore.restore import plan_restore, restore_backup

    app, _ = ruined
    before = app.contents()
    real = descriptors.rename_to_free

    def write_and_fail(*arguments: object) -> bool:
        monkeypatch.setattr(descriptors, "rename_to_free", real)
        commit(app, "onto the restored")
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr(descriptors, "rename_to_free", write_and_fail)
    with pytest.raises(PermissionError):
        restore_backup(app.settings, plan_restore(app.settings, "good"))
    assert app.contents() == before
    assert "onto the restored" in in_backups(app)


# Commands that only read

READING = [
    ("list",),
    ("show", "good"),
    ("status",),
    ("history",),
    ("verify", "good"),
    ("report", "--output", "{tmp}/report.html"),
    ("restore", "good", "--dry-run"),
    ("undo", "--dry-run"),
    ("prune", "--dry-run"),
    ("schedule", "--list"),
    ("list", "--json"),
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_command_that_reads_says_that_a_restore_is_unfinished_and_leaves_it(
    changed: tuple[SmallApp, Contents], command: tuple[str, ...], tmp_path: Path
) -> None:
    app, _ = changed
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    before = state(app)
    result = run_here(app, *(one.format(tmp=tmp_path) for one in command))
    assert state(app) == before
    assert result.code == (2 if command[0] == "status" else 0), result.err
    said = [line for line in result.err.splitlines() if "not finished" in line and "recover" in line]
    assert len(said) == 1, result.err


def test_doctor_names_the_unfinished_restore(changed: tuple[SmallApp, Contents]) -> None:
    app, _ = changed
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    before = state(app)
    result = run_here(app, "doctor")
    assert "The restore of good, interrupted on" in result.out
    assert state(app) == before


def test_the_calls_for_programs_list_without_finishing(changed: tuple[SmallApp, Contents]) -> None:
    from backupkit.api import calls

    app, _ = changed
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    before = state(app)
    assert calls.list_backups(app_dir=app.folder)
    assert state(app) == before
    assert calls.restore_backup("good", app_dir=app.folder)
    assert_finished(app)


# Staged files of another restore, or of none


def test_without_its_backups_folder_a_restore_stays_unfinished(
    changed: tuple[SmallApp, Contents], tmp_path: Path
) -> None:
    app, good = changed
    kill(app, AMONG_THE_UPLOADS, *RESTORE, count=2)
    away = tmp_path / "away"
    app.backups.rename(away)
    app.backups.mkdir()
    before = state(app)
    for command in (("recover",), ("backup", "new"), ("restore", "good", "--force"), ("undo", "--force"), ("run",)):
        result = run_here(app, *command, check=1)
        assert str(app.uploads / STAGING) in result.err or str(app.database.parent / STAGING) in result.err
        assert str(app.backups) in result.err
        assert state(app) == before
    listed = run_here(app, "list", check=0)
    assert "is unfinished" in listed.err and state(app) == before
    assert run_here(app, "status").code == 2
    shutil.rmtree(app.backups)
    away.rename(app.backups)
    run_here(app, "recover", check=0)
    assert app.contents() == good
    assert_finished(app)


def test_a_copy_of_the_backups_folder_is_not_taken_for_it(changed: tuple[SmallApp, Contents], tmp_path: Path) -> None:
    app, good = changed
    kill(app, AMONG_THE_UPLOADS, *RESTORE, count=2)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for backup in app.backups.iterdir():
        if not backup.name.startswith("."):
            shutil.copytree(backup, mirror / backup.name, symlinks=True)
    before = state(app)
    result = run_here(app, "recover", env={"BACKUP_DIR": str(mirror)}, check=1)
    assert "unfinished" in result.err and f"{mirror} holds only a copy of its safety copy" in result.err
    assert state(app) == before
    run_here(app, "recover", check=0)
    assert app.contents() == good


def test_with_other_settings_nothing_is_touched(changed: tuple[SmallApp, Contents], tmp_path: Path) -> None:
    app, good = changed
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    before = state(app)
    other = tmp_path / "other"
    other.mkdir()
    (other / "uploads").mkdir()
    shutil.copyfile(app.database, other / "pats.db")
    for name, value in (
        ("BACKUP_DATABASE", str(other / "pats.db")),
        ("BACKUP_UPLOADS", str(other / "uploads")),
        ("BACKUP_UPLOADS", ""),
        ("BACKUP_DIR", str(other / "backups")),
    ):
        result = run_here(app, "recover", env={name: value})
        assert result.code == 1 and "Next: " in result.err, (name, result.err)
        assert state(app) == before, name
    run_here(app, "recover", check=0)
    assert app.contents() == good


def test_a_restore_killed_while_it_was_staged_is_litter_for_the_next_that_writes(
    changed: tuple[SmallApp, Contents], tmp_path: Path
) -> None:
    app, _ = changed
    before = app.contents()
    kill(app, WHILE_STAGING, *RESTORE)
    assert list(app.folder.rglob(STAGING))
    assert run_here(app, "list", check=0).err == ""
    assert list(app.folder.rglob(STAGING))
    elsewhere = run_here(app, "backup", env={"BACKUP_DIR": str(tmp_path / "other")}, check=1)
    assert "unfinished" in elsewhere.err and list(app.folder.rglob(STAGING))
    run_here(app, "backup", check=0)
    assert_finished(app)
    assert app.contents() == before


def test_an_area_that_was_just_made_is_litter(changed: tuple[SmallApp, Contents]) -> None:
    app, _ = changed
    (app.uploads / STAGING).mkdir(mode=0o700)
    run_here(app, "backup", check=0)
    assert_finished(app)


def test_a_missing_list_of_operations_is_an_error(changed: tuple[SmallApp, Contents]) -> None:
    app, _ = changed
    kill(app, AMONG_THE_UPLOADS, *RESTORE, count=2)
    (app.uploads / STAGING / "uploads" / "operations").unlink()
    before = state(app)
    result = run_here(app, "recover", check=1)
    assert str(app.uploads / STAGING / "uploads" / "operations") in result.err
    assert state(app) == before


def test_a_kill_while_the_staged_is_removed_is_finished(changed: tuple[SmallApp, Contents]) -> None:
    app, good = changed
    point = ("backupkit.fs.descriptors", "remove_tree_in", "after")
    for count in range(1, 8):
        try:
            kill(app, point, *RESTORE, count=count)
        except AssertionError:  # the restore finished without being killed
            break
        run_here(app, "recover", check=0)
        assert app.contents() == good
        assert_finished(app)
        app.write_upload("1/letter.txt", b"altered again")
        commit(app, "again")
    assert count > 3


HOLD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from backupkit.restore import recovery
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.config.settings import load_settings
real = recovery.replace_database
def waiting(*arguments):
    print("staged", flush=True)
    sys.stdin.read()
    real(*arguments)
recovery.replace_database = waiting
settings = load_settings(Path(sys.argv[2]))
restore_backup(settings, plan_restore(settings, "good"))
"""


def test_a_restore_under_way_is_left_alone_by_commands_with_another_backups_folder(
    changed: tuple[SmallApp, Contents], tmp_path: Path
) -> None:
    app, good = changed
    other = {"BACKUP_DIR": str(tmp_path / "other"), "BACKUP_LOCK_TIMEOUT": "0.2"}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, BACKEND, app.folder],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as restoring:
        assert restoring.stdin and restoring.stdout and restoring.stdout.readline() == "staged\n"
        before = state(app)
        assert run_here(app, "list", env=other, check=0).err == ""
        for command in (("recover",), ("backup",), ("run",)):
            result = run_here(app, *command, env=other, check=11)
            assert str(app.database.parent) in result.err or str(app.uploads) in result.err
        assert state(app) == before
        restoring.stdin.close()
    assert restoring.returncode == 0
    assert app.contents() == good
    assert_finished(app)
