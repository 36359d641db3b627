"""The toolkit's own folders among the backups: links in their place are not followed, nor is foreign state used."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.fs import disk, own_folder, trust
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import BackupError, Refused
from backupkit.model.events import silence
from backupkit.monitoring.doctor import Finding, examine
from backupkit.repository import files_cache, flags, history, lock, store
from backupkit.restore.recovery import recover
from backupkit.retention.prune import plan_prune, prune_backups
from backupkit.scheduling import scheduler_lock
from others import USER, as_other, give
from refusals import as_user, assert_refusal
from small_app import NOON, SmallApp

STATE = flags.STATE_FOLDER
FOLDERS = [(), ("pinned",), ("held",), ("accepted",), ("proofs",), ("index",), ("scheduler",)]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user: run the tests as root")


@pytest.fixture
def app(templates: Path) -> Iterator[SmallApp]:
    """A small app in a folder that any user can reach."""
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        yield SmallApp.create(Path(open_to_all, "app"), templates)


@pytest.fixture
def victim(app: SmallApp) -> Path:
    """A folder outside, with files of the names that the toolkit gives to its own."""
    folder = app.folder.parent / "victim"
    for name in ("a", "b", "seed", "history.jsonl", ".lock", "sizes.json", "last_restore", ".draft-x/precious"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    return folder


def picture(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    found = {path: path.lstat() for path in (folder, *folder.rglob("*"))}
    return {
        str(path): (facts.st_mode, facts.st_uid, facts.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path, facts in found.items()
    }


def use_all_of_it(app: SmallApp) -> None:
    """Read and write every part of the state; each act is done or refused with an error of ours."""
    settings = app.settings.replaced(keep_last=1, keep_daily=0, keep_weekly=0, keep_monthly=0)
    acts = (
        lambda: create_backup(settings, BackupRequest("c"), clock=lambda: NOON),
        lambda: prune_backups(settings, plan_prune(settings)),
        lambda: store.all_backups(settings),
        lambda: flags.add(settings.dir, flags.PINNED, "a"),
        lambda: flags.clear_all(settings.dir, flags.HELD),
        lambda: flags.forget_all_but(settings.dir, {"a"}),
        lambda: flags.last_restore(settings.dir),
        lambda: flags.remember_restore(settings.dir, "a"),
        lambda: store.clear_drafts(settings),
        lambda: history.read(settings.dir),
        lambda: _on_duty(settings.dir),
        lambda: scheduler_lock.is_running_for(settings.dir),
        lambda: scheduler_lock.seed(settings.dir),
    )
    for act in acts:
        with contextlib.suppress(BackupError):
            act()


def _on_duty(backups: Path) -> None:
    with scheduler_lock.on(backups, 0):
        pass


@pytest.mark.parametrize("names", FOLDERS, ids="/".join)
def test_a_link_in_the_place_of_a_folder_of_ours_is_named_and_not_followed(
    app: SmallApp, victim: Path, names: tuple[str, ...]
) -> None:
    create_backup(app.settings, BackupRequest("a"), clock=lambda: NOON)
    before = picture(victim)
    place = app.backups.joinpath(STATE, *names)
    shutil.rmtree(place, ignore_errors=True)
    place.symlink_to(victim)
    with (
        pytest.raises(BackupError, match=f"{place} is a link or a file") as refused,
        own_folder.made(app.backups, STATE, *names),
    ):
        pass
    assert f"rm {place}" in refused.value.hint
    use_all_of_it(app)
    assert picture(victim) == before
    assert not (victim / "c").exists()


@pytest.mark.parametrize("name", [lock.LOCK_FILE, ".state/history.jsonl", ".state/index/.draft-c", ".draft-c"])
def test_a_link_in_the_place_of_a_file_of_ours_is_not_followed(app: SmallApp, victim: Path, name: str) -> None:
    create_backup(app.settings, BackupRequest("a"), clock=lambda: NOON)
    place = app.backups / name
    place.unlink(missing_ok=True)
    place.symlink_to(victim / "history.jsonl")
    before = picture(victim)
    use_all_of_it(app)
    assert picture(victim) == before


def test_a_command_names_the_link_and_how_to_remove_it(app: SmallApp, victim: Path) -> None:
    create_backup(app.settings, BackupRequest("a"), clock=lambda: NOON)
    shutil.rmtree(app.backups / STATE)
    (app.backups / STATE).symlink_to(victim)
    for command in ("list", "status", "history", "backup"):
        assert_refusal(app.command(command), 1, str(app.backups / STATE), f"rm {app.backups / STATE}")


def test_a_folder_that_is_swapped_meanwhile_leads_nowhere(app: SmallApp, victim: Path) -> None:
    before = picture(victim)
    with own_folder.made(app.backups, STATE, "pinned") as folder:
        (app.backups / STATE).rename(app.backups / "away")
        (app.backups / STATE).symlink_to(victim)
        disk.write_file(folder / "a", b"mine")
    assert (app.backups / "away" / "pinned" / "a").read_bytes() == b"mine"
    assert picture(victim) == before


def test_an_error_names_the_place_as_a_person_knows_it(app: SmallApp) -> None:
    place = app.backups / STATE / "pinned" / "b"
    with pytest.raises(FileNotFoundError, match=str(place)), own_folder.made(app.backups, STATE, "pinned") as folder:
        os.unlink(folder / "b")


def test_names_that_are_none_of_ours_are_no_marks(app: SmallApp) -> None:
    (app.backups / STATE / "pinned").mkdir(parents=True)
    for name in (".draft-x", "-x", "x" * 101, "a\nb"):
        (app.backups / STATE / "pinned" / name).touch()
    flags.add(app.backups, flags.PINNED, "good")
    assert flags.load(app.backups).pinned == {"good"}
    (app.backups / STATE / "last_restore").write_text("../../other")
    assert flags.last_restore(app.backups) is None


def test_a_folder_of_ours_that_was_opened_to_all_is_closed_again(app: SmallApp) -> None:
    flags.add(app.backups, flags.PINNED, "good")
    for folder in (app.backups / STATE, app.backups / STATE / "pinned"):
        folder.chmod(0o777)
    assert flags.load(app.backups).pinned == {"good"}
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (app.backups / STATE, app.backups / STATE / "pinned")]
    assert modes == [0o755, 0o755]


@root_only
def test_state_of_a_third_user_is_not_taken(app: SmallApp) -> None:
    flags.add(app.backups, flags.PINNED, "good")
    give(USER, app.backups / STATE)
    with pytest.raises(BackupError, match=f"it belongs to user {USER}") as refused:
        flags.load(app.backups)
    assert "chown -R 0:0" in refused.value.hint


@root_only
def test_state_that_root_left_is_named_with_its_chown(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    give(USER, app.database.parent, app.uploads, app.backups)
    give(0, app.backups / STATE)

    def list_them() -> None:
        with pytest.raises(BackupError, match="belongs to another user") as refused:
            store.all_backups(app.settings)
        assert refused.value.hint.startswith(f"As root: chown -R {USER}:{USER} {app.backups}")

    as_other(list_them)


@root_only
def test_who_types_as_the_wrong_user_is_told_to_type_as_the_owner_first(app: SmallApp) -> None:
    """To give the backups to whoever typed would take them away from the app."""
    create_backup(app.settings, BackupRequest("good"))
    with contextlib.closing(sqlite3.connect(app.database)) as live:
        live.execute("PRAGMA journal_mode = DELETE")  # in WAL mode the database could not be read either
    give(USER + 1, app.database.parent, app.uploads, app.backups)

    def list_them() -> None:
        with pytest.raises(BackupError, match="belongs to another user") as refused:
            store.all_backups(app.settings)
        assert refused.value.hint.startswith(f"Type it as the user of {app.backups}: sudo -u '#{USER + 1}'. Or, ")

    def back_up() -> None:
        with pytest.raises(BackupError, match="cannot be written to") as refused:
            store.require(app.backups)
        assert refused.value.hint.startswith(f"Type it as the user of {app.backups}: ")

    def diagnose() -> None:
        fixes = "".join(one.fix for one in examine(app.settings) if "a restore would fail" in one.text)
        for folder in (app.database.parent, app.uploads):
            assert f"Type it as the user of {folder}: sudo -u '#{USER + 1}'. Or, " in fixes

    as_other(list_them)
    as_other(back_up)
    as_other(diagnose)


@root_only
def test_state_that_cannot_be_entered_keeps_no_app_from_starting(app: SmallApp) -> None:
    """The container's start only asks whether a restore is unfinished; other cleaning up is not its task."""
    create_backup(app.settings, BackupRequest("good"))
    give(USER, app.database.parent, app.uploads, app.backups)
    give(0, app.backups / STATE)
    (app.backups / STATE).chmod(0o700)

    def start() -> None:
        assert recover(app.settings) is None

    as_other(start)


@root_only
def test_the_doctor_says_that_root_does_not_work_in_a_backups_folder_of_another_user(app: SmallApp) -> None:
    def told() -> list[Finding]:
        return [one for one in examine(app.settings) if "Root does not work" in one.text]

    assert told() == []
    give(USER, app.backups)
    (finding,) = told()
    assert f"user {USER} owns {app.backups}" in finding.text
    assert f"sudo chown -R 0:0 {app.backups}" in finding.fix


@root_only
def test_a_swapping_user_gains_nothing_from_roots_state(app: SmallApp, victim: Path) -> None:
    """The user owns the backups folder, and keeps replacing its folders by links as fast as possible."""
    create_backup(app.settings, BackupRequest("a"), clock=lambda: NOON)
    give(USER, app.backups)
    before = picture(victim)
    child = os.fork()
    if not child:
        _swap_for_ever(app.backups, victim)
    try:
        for number in range(60):
            with contextlib.suppress(BackupError, OSError):
                flags.add(app.backups, flags.PINNED, f"n{number}")
            with contextlib.suppress(BackupError, OSError):
                flags.clear_all(app.backups, flags.PINNED)
            with contextlib.suppress(BackupError, OSError), files_cache.writing(app.backups, f"n{number}"):
                pass
            with contextlib.suppress(BackupError, OSError):
                store.clear_drafts(app.settings)
            with contextlib.suppress(BackupError, OSError), lock.held(app.backups, "test", 0, silence):
                pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert picture(victim) == before


def _swap_for_ever(backups: Path, victim: Path) -> None:
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    os.chdir(backups)
    places = [STATE, f"{STATE}/pinned", f"{STATE}/index", ".lock", ".draft-x"]
    while True:
        for place in places:
            with contextlib.suppress(OSError):
                os.rename(place, f"{place}.away")
            with contextlib.suppress(OSError):
                os.symlink(victim / ".lock" if place == ".lock" else victim, place)
            with contextlib.suppress(OSError):
                os.unlink(place)
            with contextlib.suppress(OSError):
                os.rename(f"{place}.away", place)


def test_what_is_said_of_a_backups_folder_that_is_closed_is_one_sentence(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("a"))
    if os.geteuid() == 0:
        give(USER, app.backups)
    (app.backups / STATE).chmod(0)
    done = as_user(app, "list")
    assert done.code in (0, 1) and "Traceback" not in done.err


@root_only
def test_root_says_who_can_lead_it_astray_on_the_way_to_the_backups(app: SmallApp, tmp_path: Path) -> None:
    trust.require_roots(app.backups)
    theirs = app.folder.parent / "theirs"
    theirs.mkdir()
    (theirs / "link").symlink_to(app.backups)
    os.chown(theirs, USER, USER)
    shared = app.folder.parent / "shared"
    shared.mkdir(mode=0o775)
    shared.chmod(0o775)
    os.chown(shared, 0, USER)
    for folder, why, hint in (
        (theirs / "link", f"user {USER} owns {theirs}", "Set BACKUP_DIR"),
        (theirs / "not there yet", f"user {USER} owns {theirs}", "Set BACKUP_DIR"),
        (shared, f"group {USER} can change {shared}", f"sudo chown -R 0:0 {shared}"),
    ):
        with pytest.raises(Refused, match=re.escape(f"Root does not work in {folder}: {why}")) as refused:
            trust.require_roots(folder)
        assert hint in refused.value.hint
    trust.require_roots(shared / "of ours")  # a group may have rights in a folder on the way
