"""The backups folder: its backups are listed newest first, marks beside them apply, and other entries are ignored."""

from __future__ import annotations

import os
import shutil
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import NoSuchBackup
from backupkit.monitoring.doctor import examine
from backupkit.remotes.copies import known_copies
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from backupkit.verify.verify import choose_for_test
from refusals import assert_refusal, picture, run_here
from small_app import NOON, SmallApp, tree

OWNER = 1234


def make(app: SmallApp, name: str, hours: int, **order: object) -> Path:
    wanted = BackupRequest(name, **order)  # type: ignore[arg-type]
    return create_backup(app.settings, wanted, clock=lambda: NOON + timedelta(hours=hours)).backup.path


def names(settings: Settings) -> list[str]:
    return [backup.name for backup in store.all_backups(settings)]


def test_the_newest_comes_first_whatever_the_names(app: SmallApp) -> None:
    for name, hours in (("b", 2), ("a", 3), ("c", 1)):
        make(app, name, hours)
    assert names(app.settings) == ["a", "b", "c"]
    assert store.latest(app.settings).backup.name == "a"


def test_latest_is_never_a_safety_copy(app: SmallApp) -> None:
    make(app, "one", 1)
    make(app, "safety", 2, kind="pre_restore")
    assert names(app.settings) == ["safety", "one"]
    assert store.find(app.settings, "latest").name == "one"
    shutil.rmtree(app.backups / "one")
    with pytest.raises(NoSuchBackup):
        store.find(app.settings, "latest")


def test_latest_is_never_one_that_cannot_be_read(app: SmallApp) -> None:
    make(app, "one", 1)
    (make(app, "two", 2) / "backup_metadata.json").write_text("{")
    assert store.latest(app.settings).backup.name == "one"


def other_app(app: SmallApp, app_id: str = "another") -> Settings:
    """Return the settings of another app that shares this one's backups folder."""
    return app.settings.replaced(app_id=app_id)


def test_latest_is_the_newest_usual_whole_backup_of_this_app_and_the_others_are_named_with_why(app: SmallApp) -> None:
    app.add_rows(100)
    make(app, "good", 1)
    make(app, "partial", 2, uploads=False)
    create_backup(other_app(app), BackupRequest("theirs"), clock=lambda: NOON + timedelta(hours=3))
    (make(app, "flipped", 4) / "SHA256SUMS").unlink()
    app.execute("DELETE FROM applications WHERE id > 3")
    make(app, "disaster", 5)
    make(app, "safety", 6, kind="pre_restore")
    make(app, "tomorrow", 100 * 365 * 24)
    (make(app, "unreadable", 7) / "backup_metadata.json").write_text("{")
    found = store.latest(app.settings)
    assert found.backup.name == "good"
    for reason in (
        "partial (without the uploads)",
        "theirs (of another app: another)",
        "flipped, unreadable (damaged)",
        "disaster (unusual: table applications: 3 rows, down from 103 rows)",
        "tomorrow (dated in the future)",
    ):
        assert reason in found.passed_over
    assert "safety" not in found.passed_over


def test_the_time_that_a_list_shows_for_a_backup_is_a_time_of_that_backup(app: SmallApp, tmp_path: Path) -> None:
    """A backup is made within a second, and shown with its beginning."""
    make(app, "old", -3)
    at = NOON + timedelta(milliseconds=700)
    create_backup(app.settings, BackupRequest("new"), clock=lambda: at)
    (app.folder / "backup.toml").write_text(f'[remotes.nas]\ntype = "folder"\npath = "{tmp_path}"\n')
    run_here(app, "remotes", "--init", "nas", check=0)
    run_here(app, "push", "--yes", check=0)
    shown = run_here(app, "list", check=0).out
    assert f"{NOON:%Y-%m-%d %H:%M:%S}" in shown
    typed = ("--at", f"{NOON:%Y-%m-%d %H:%M:%S}")
    assert run_here(app, "restore", "latest", *typed, "--dry-run", "--json").json["source"]["name"] == "new"
    assert run_here(app, "show", *typed, "--json").json["backup_name"] == "new"
    laid_out = ("restore", "latest", "--remote", "nas", "--to", str(app.folder.parent / "look"), "--dry-run")
    assert "new" in run_here(app, *laid_out, *typed, check=0).out
    before = ("--at", f"{NOON - timedelta(seconds=1):%Y-%m-%d %H:%M:%S}")
    assert run_here(app, "restore", "latest", *before, "--dry-run", "--json").json["source"]["name"] == "old"


def test_what_latest_passes_over_is_in_the_plan_and_told_by_every_command_that_takes_it(app: SmallApp) -> None:
    make(app, "good", 1)
    make(app, "partial", 2, uploads=False)
    sentence = "latest is good. Passed over: partial (without the uploads)."
    assert sentence in run_here(app, "restore", "latest", "--dry-run", check=0).out
    assert sentence in run_here(app, "restore", "latest", "--dry-run", "--json", check=0).json["notes"]
    assert run_here(app, "restore", "latest", "--yes", check=0).err.count(sentence) == 1
    for command in (("show", "latest"), ("verify", "latest"), ("export", "latest", "x.tar"), ("pin", "latest")):
        assert sentence in run_here(app, *command, check=0).err


def test_a_backup_without_uploads_is_whole_where_the_app_has_none(app: SmallApp) -> None:
    settings = app.settings.replaced(uploads=None)
    create_backup(settings, BackupRequest("one"))
    assert store.latest(settings).backup.name == "one"


def test_latest_names_what_there_is_where_none_will_do(app: SmallApp) -> None:
    make(app, "partial", 1, uploads=False)
    result = run_here(app, "restore", "latest", "--yes", check=10)
    assert "Passed over: partial (without the uploads)" in result.err and "name it" in result.err


def test_another_apps_backup_is_refused_and_restored_only_if_that_is_meant(app: SmallApp) -> None:
    create_backup(other_app(app), BackupRequest("theirs"))
    app.add_rows(1)
    before = picture(app)
    for command in (("restore", "theirs", "--yes"), ("restore", "theirs", "--dry-run")):
        result = run_here(app, *command)
        assert_refusal(result, 2, "of another app: another, and this is pats", "--force")
    assert picture(app) == before
    run_here(app, "restore", "theirs", "--force", check=0)


def test_what_another_app_did_in_a_shared_folder_is_nobody_elses_proof_undo_or_schedule(
    app: SmallApp, tmp_path: Path
) -> None:
    second = SmallApp.create(tmp_path / "second", app.templates)
    theirs = second.settings.replaced(dir=app.backups, app_id="second")
    make(app, "ours", 1)
    create_backup(theirs, BackupRequest("theirs", kind="scheduled"))
    with pytest.raises(NoSuchBackup):
        plan_undo(app.settings)
    mine = restore_backup(app.settings, plan_restore(app.settings, "ours")).safety
    restore_backup(theirs, plan_restore(theirs, "theirs"))
    assert plan_undo(app.settings).source.name == mine
    picked = {choose_for_test(app.settings, lambda able, n=n: able[n % len(able)]).name for n in range(4)}
    assert picked == {"ours", mine}
    told = {one.text for one in examine(app.settings) if "scheduler" in one.text}
    assert told == {"No scheduler is running, and nothing else makes automatic backups."}
    shutil.rmtree(app.backups / "ours")
    shutil.rmtree(app.backups / mine)
    assert known_copies(app.settings, store.all_backups(app.settings)).copies == 1


def test_a_backup_made_by_hand_is_of_the_app_whose_database_it_has(app: SmallApp) -> None:
    by_hand = make(app, "one", 1)
    shutil.move(by_hand, app.backups / "by_hand")
    (app.backups / "by_hand" / "SHA256SUMS").unlink()
    (app.backups / "by_hand" / "backup_metadata.json").write_text(
        '{"timestamp": "20241201_120000", "database_file": "pats.db", "uploads_included": true}'
    )
    assert store.latest(other_app(app)).backup.name == "by_hand"


def test_two_apps_side_by_side_share_no_folder_by_default(app: SmallApp, tmp_path: Path) -> None:
    (app.backups).rmdir()
    second = SmallApp.create(tmp_path / "second", app.templates)
    second.backups.rmdir()
    app.command("backup", "one", check=0)
    assert second.command("list", "--json", check=0).json == []
    assert second.command("restore", "latest", "--yes").code == 10


def test_backups_where_an_earlier_version_kept_them_by_default_are_named(app: SmallApp) -> None:
    make(app, "one", 1)
    shutil.move(app.backups, app.folder.parent / "backups")
    there = str(app.folder.parent / "backups")
    assert there in app.command("restore", "latest", "--yes", check=10).err
    assert there in app.command("restore", "one", "--yes", check=10).err
    assert there in app.command("list", check=0).out
    assert there in app.command("doctor").out


def test_what_is_no_backup_is_not_listed(app: SmallApp) -> None:
    make(app, "one", 1)
    (app.backups / "folder").mkdir()
    (app.backups / "database_dump_20241201.sql").write_text("SELECT 1;")
    (app.backups / "link").symlink_to("one")
    shutil.copytree(app.backups / "one", app.backups / ".draft-two")
    shutil.copytree(app.backups / "one", app.backups / ".state" / "three")
    assert names(app.settings) == ["one"]


def test_a_damaged_backup_is_listed_last_and_says_so(app: SmallApp) -> None:
    make(app, "one", 1)
    (make(app, "two", 2) / "backup_metadata.json").unlink()
    assert names(app.settings) == ["one", "two"]
    assert store.find(app.settings, "two").state == "damaged"
    assert "backup_metadata.json" in store.find(app.settings, "two").error


def test_a_pin_survives_and_losing_it_loses_no_backup(app: SmallApp) -> None:
    make(app, "one", 1, pin=True)
    before = tree(app.backups / "one")
    assert store.find(app.settings, "one").pinned
    shutil.rmtree(app.backups / ".state")
    assert not store.find(app.settings, "one").pinned
    assert tree(app.backups / "one") == before
    run_here(app, "restore", "one", "--force", check=0)


def test_a_new_backup_does_not_inherit_the_marks_of_one_that_was_removed_by_hand(app: SmallApp) -> None:
    shutil.rmtree(make(app, "one", 1, pin=True))
    make(app, "one", 2)
    assert not store.find(app.settings, "one").pinned


def test_everything_of_ours_is_closed_to_others(app: SmallApp) -> None:
    app.database.chmod(0o640)
    app.write_upload("secret", b"x").chmod(0o600)
    before = os.umask(0)
    try:
        backup = make(app, "one", 1, pin=True)
        run_here(app, "dump", "text.sql", check=0)
    finally:
        os.umask(before)
    assert mode(backup) == 0o700
    assert mode(backup / "pats.db") == 0o640
    assert mode(backup / "uploads" / "secret") == 0o600
    for name in ("backup_metadata.json", "SHA256SUMS", "RESTORE.md"):
        assert mode(backup / name) == 0o600
    assert mode(app.backups / "text.sql") == 0o600


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests as root to check owners")
def test_uploads_keep_their_owners_and_all_else_is_the_toolkits(app: SmallApp) -> None:
    upload = app.write_upload("mine", b"x")
    os.chown(upload, 4321, 4322)
    for command in (
        ("backup", "one", "--pin"),
        ("dump", "text.sql.gz"),
        ("restore", "one", "--force"),
        ("undo", "--force"),
    ):
        app.command(*command, check=0)
    copied = app.backups / "one" / "uploads" / "mine"
    foreign = [path for path in app.backups.rglob("*") if (path.lstat().st_uid, path.lstat().st_gid) != (0, 0)]
    assert copied in foreign and all(path.name == "mine" for path in foreign)
    for path in (copied, upload):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (4321, 4322)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests as root to check owners")
def test_root_makes_no_backups_folder_in_one_of_another_user(app: SmallApp) -> None:
    elsewhere = app.folder.parent / "elsewhere"
    elsewhere.mkdir()
    os.chown(elsewhere, OWNER, OWNER)
    refused = app.command("backup", "one", env={"BACKUP_DIR": str(elsewhere / "deep" / "backups")}, check=2)
    assert f"user {OWNER} owns {elsewhere}" in refused.err
    assert not list(elsewhere.iterdir())
