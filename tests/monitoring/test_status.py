"""The status: its level and all reasons for it, decided from facts, and how people, scripts and monitors see it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, BackupRequest, Metadata, UploadsFacts
from backupkit.model.errors import BackupError
from backupkit.model.operation import Operation, Who
from backupkit.monitoring.status import Facts, Status, judge, last_backup, look, status
from backupkit.remotes.copies import Copies, RemoteState, count
from backupkit.repository import history, store
from backupkit.repository.history import History
from backupkit.restore import journal
from refusals import another_process, refused, run_here
from small_app import NOON, SmallApp

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GIGABYTE = 10**9


def backup(settings: Settings, name: str, age: timedelta, **changes: object) -> Backup:
    """Return a backup of that age, of one megabyte, checked when it was made."""
    made = NOON - age
    facts = {"kind": "manual", "uploads_included": True, "uploads": UploadsFacts(1, 1), "app_id": settings.app_id}
    about = {key: value for key, value in changes.items() if key in facts}
    rest = {key: value for key, value in changes.items() if key not in facts}
    metadata = Metadata(name, "", made, None, "pats.db", **{**facts, **about})  # type: ignore[arg-type]
    known = {"state": "checked", "size_bytes": 10**6, "unique_bytes": 10**6, "checked_at": made}
    return Backup(settings.dir / name, metadata, **{**known, **rest})  # type: ignore[arg-type]


def operation(number: int, command: str, outcome: str, age: timedelta, free: int | None = None) -> Operation:
    moment = NOON - age
    return Operation(str(number), command, moment, Who("anna", 1, "host"), moment, outcome, free_bytes=free)  # type: ignore[arg-type]


def judged(app: SmallApp, *backups: Backup, changed: dict[str, object] | None = None, **facts: object) -> Status:
    settings = app.settings.replaced(**(changed or {}))
    return judge(settings, Facts(NOON, backups, **{"free_bytes": 100 * GIGABYTE, **facts}))  # type: ignore[arg-type]


def levels(found: Status) -> list[str]:
    return [reason.level for reason in found.reasons]


# The level and its reasons


def test_a_recent_backup_is_fine_and_the_sentence_says_so(app: SmallApp) -> None:
    found = judged(app, backup(app.settings, "one", 3 * HOUR))
    assert (found.level, found.reasons) == ("fine", ())
    assert found.sentence == "Your data is safe: the last backup, one, was made 3 hours ago."


def test_no_backup_at_all_is_critical_and_names_the_command(app: SmallApp) -> None:
    found = judged(app)
    assert found.level == "critical"
    assert found.sentence.startswith("Your data is at risk. There is no backup in ")
    assert found.sentence.endswith("Type: ./backup.sh backup") or found.sentence.endswith("backup_restore.py backup")


@pytest.mark.parametrize(
    ("hours", "changed", "level"),
    [
        (29, {}, "fine"),
        (31, {}, "warning"),
        (55, {}, "critical"),
        (2, {"expected_interval": 1}, "warning"),
        (3, {"expected_interval": 1}, "critical"),
        (9000, {"expected_interval": 0}, "fine"),
        (11, {"expected_interval": 0, "warning_age": 10}, "warning"),
        (21, {"expected_interval": 0, "warning_age": 10}, "critical"),
        (31, {"warning_age": 40}, "fine"),
        (60, {"warning_age": 40}, "warning"),
        (11, {"critical_age": 10}, "critical"),
        (31, {"critical_age": 100}, "warning"),
    ],
)
def test_the_age_of_the_last_backup_is_held_against_what_is_expected(
    app: SmallApp, hours: int, changed: dict[str, object], level: str
) -> None:
    assert judged(app, backup(app.settings, "one", hours * HOUR), changed=changed).level == level


def test_a_short_interval_is_told_in_minutes(app: SmallApp) -> None:
    found = judged(app, backup(app.settings, "one", 5 * HOUR), changed={"schedule": ("*/15 * * * *",)})
    assert "one is expected every 15 minutes" in found.sentence
    assert found.numbers.expected_interval_seconds == 900


@pytest.mark.parametrize(
    "changes",
    [{"kind": "pre_restore"}, {"state": "damaged"}, {"app_id": "another"}],
    ids=["safety copy", "damaged", "another app's"],
)
def test_what_cannot_be_relied_on_does_not_make_the_data_safe(app: SmallApp, changes: dict[str, object]) -> None:
    found = judged(app, backup(app.settings, "one", HOUR, **changes), backup(app.settings, "two", 100 * HOUR))
    assert found.level == "critical" and "two, is 4 days old" in found.sentence
    assert judged(app, backup(app.settings, "one", HOUR, **changes)).level == "critical"


def test_a_backup_dated_in_the_future_is_said_and_does_not_count(app: SmallApp) -> None:
    future = backup(app.settings, "wrong", -400 * DAY)
    found = judged(app, future, backup(app.settings, "one", HOUR))
    assert found.level == "warning" and "Dated in the future: wrong." in found.sentence
    assert found.numbers.last_backup == "one"
    assert judged(app, future).level == "critical"
    assert judged(app, backup(app.settings, "now", -HOUR / 60)).level == "fine"


def test_an_unfinished_restore_is_critical(app: SmallApp) -> None:
    found = judged(app, backup(app.settings, "one", HOUR), unfinished_restore=True)
    assert found.level == "critical" and found.sentence.endswith("recover")


def test_no_room_for_another_backup_is_critical(app: SmallApp) -> None:
    large = backup(app.settings, "one", HOUR, size_bytes=GIGABYTE)
    assert judged(app, large, free_bytes=GIGABYTE).level == "critical"
    assert judged(app, large, free_bytes=2 * GIGABYTE).level == "fine"


@pytest.mark.parametrize(
    ("gone", "level"), [(0, "fine"), (-9, "fine"), (10, "fine"), (60, "warning"), (300, "critical")]
)
def test_a_disk_that_fills_is_told_of_by_the_days_it_lasts(app: SmallApp, gone: int, level: str) -> None:
    earlier = operation(1, "backup", "success", 10 * DAY, (50 + gone) * GIGABYTE)
    found = judged(app, backup(app.settings, "one", HOUR), history=History((earlier,)), free_bytes=50 * GIGABYTE)
    assert found.level == level
    assert found.numbers.days_left == (round(500 / gone, 1) if gone > 0 else None)


def test_what_is_wrong_with_the_last_backup_itself_is_a_warning(app: SmallApp) -> None:
    torn = backup(app.settings, "one", HOUR, uploads=UploadsFacts(1, 1, warnings=("a socket",)))
    assert "not complete" in judged(app, torn).sentence


def test_backups_without_the_uploads_do_not_make_the_uploads_safe(app: SmallApp) -> None:
    bare = backup(app.settings, "bare", HOUR, uploads_included=False, uploads=None)
    assert "No backup holds the uploads." in judged(app, bare).sentence
    assert judged(app, bare).level == "critical"
    assert "full, is 9 days old" in judged(app, bare, backup(app.settings, "full", 9 * DAY)).sentence
    fine = judged(app, bare, backup(app.settings, "full", DAY))
    assert fine.level == "fine" and (fine.numbers.last_backup, fine.numbers.last_whole) == ("bare", "full")
    assert "bare, of the database alone, was made" in fine.sentence and "with the uploads is full" in fine.sentence
    assert judged(app, bare, changed={"uploads": None}).level == "fine"


def test_a_damaged_backup_is_a_warning_beside_good_ones(app: SmallApp) -> None:
    found = judged(
        app, backup(app.settings, "one", HOUR), Backup(app.backups / "bad", None, "damaged", error="It is torn.")
    )
    assert found.level == "warning" and "Damaged backups: bad." in found.sentence
    assert found.numbers.by_state == {"checked": 1, "damaged": 1}


def test_an_unusual_newest_backup_is_a_warning_until_somebody_has_looked(app: SmallApp) -> None:
    whole = backup(app.settings, "one", HOUR)
    assert whole.metadata
    odd = replace(whole, metadata=replace(whole.metadata, anomalies=("half the rows are gone",)))
    found = judged(app, odd)
    assert found.level == "warning" and "one is unusual: half the rows are gone." in found.sentence
    assert judged(app, replace(odd, accepted=True)).level == "fine"
    assert judged(app, backup(app.settings, "two", HOUR / 2), odd).level == "fine"


def test_failures_count_until_the_next_good_backup(app: SmallApp) -> None:
    one = backup(app.settings, "one", HOUR)
    failed = [operation(number, "verify", "failure", number * HOUR) for number in range(3)]
    killed = operation(4, "backup", "interrupted", 4 * HOUR)
    good, refusal = operation(5, "backup", "success", HOUR), operation(6, "backup", "refused", HOUR)
    found = judged(app, one, history=History((*failed, killed, refusal, good, failed[0])))
    assert (found.level, found.numbers.failures_since_success) == ("warning", 4)
    assert found.sentence.endswith("history --failures")
    assert judged(app, one, history=History((good, *failed))).level == "fine"


def about(number: int, command: str, outcome: str, age: timedelta, note: str = "", *backups: str) -> Operation:
    return replace(operation(number, command, outcome, age), note=note, backups=backups)


def test_what_went_well_later_is_no_failure_any_more(app: SmallApp) -> None:
    one, good = backup(app.settings, "one", 9 * HOUR), operation(9, "backup", "success", 9 * HOUR)

    def failures(*operations: Operation) -> int:
        return judged(app, one, history=History((*operations, good))).numbers.failures_since_success

    failed = about(1, "push", "failure", 2 * HOUR, "to nas")
    assert failures(failed) == 1
    assert failures(about(2, "push", "success", HOUR, "to nas"), failed) == 0
    assert failures(about(2, "push", "success", HOUR, "to cloud"), failed) == 1
    assert failures(failed, about(2, "push", "success", 3 * HOUR, "to nas")) == 1
    broken = about(3, "verify", "failure", 2 * HOUR, "", "one")
    assert failures(about(4, "verify", "success", HOUR, "", "two"), broken) == 1
    assert failures(about(4, "verify", "success", HOUR, "", "one", "two"), broken) == 0
    assert failures(operation(5, "restore", "warning", HOUR), operation(6, "restore", "failure", 2 * HOUR)) == 0


def test_a_history_that_cannot_be_read_is_said(app: SmallApp) -> None:
    assert "torn" in judged(app, backup(app.settings, "one", HOUR), history=History(error="It is torn.")).sentence


def test_the_worst_comes_first_and_all_are_there(app: SmallApp) -> None:
    found = judged(
        app,
        backup(app.settings, "one", 40 * HOUR),
        Backup(app.backups / "bad", None, "damaged"),
        unfinished_restore=True,
    )
    assert levels(found) == ["critical", "warning", "warning"]


def test_growth_is_of_the_last_thirty_days(app: SmallApp) -> None:
    days = [backup(app.settings, f"b{age}", age * DAY + HOUR) for age in range(0, 60)]
    numbers = judged(app, *days).numbers
    assert numbers.growth_bytes_per_day == 10**6
    assert (numbers.total_bytes, numbers.backups) == (60 * 10**6, 60)
    assert judged(app, days[0]).numbers.growth_bytes_per_day == 10**6


def test_the_newest_checked_and_the_newest_proven_are_told_apart(app: SmallApp) -> None:
    old = backup(app.settings, "old", 2 * DAY, state="proven", proven_at=NOON - DAY)
    numbers = judged(app, backup(app.settings, "new", HOUR), old).numbers
    assert (numbers.newest_checked, numbers.newest_checked_at) == ("new", NOON - HOUR)
    assert (numbers.newest_proven, numbers.newest_proven_at) == ("old", NOON - DAY)
    assert numbers.next_run_at is None


# Proof


@pytest.mark.parametrize(
    ("ago", "changed", "level"),
    [(20, {}, "fine"), (20, {"proven_within": 500}, "fine"), (20, {"proven_within": 400}, "warning")],
)
def test_a_last_test_restore_that_is_too_long_ago_is_a_warning(
    app: SmallApp, ago: int, changed: dict[str, object], level: str
) -> None:
    old = backup(app.settings, "old", 30 * DAY, proven_at=NOON - ago * DAY)
    found = judged(app, backup(app.settings, "new", HOUR), old, changed=changed)
    assert (found.level, found.numbers.last_proof_at) == (level, NOON - ago * DAY)
    if level == "warning":
        assert "No backup has passed a test restore for 20 days." in found.sentence
        assert found.sentence.endswith("verify --test-restore")


@pytest.mark.parametrize(("ago", "level"), [(15, "fine"), (16, "warning")])
def test_a_scheduler_at_work_sets_how_often_a_proof_is_expected(app: SmallApp, ago: int, level: str) -> None:
    proven = backup(app.settings, "one", HOUR, proven_at=NOON - ago * DAY)
    assert judged(app, proven, scheduler_seed="").level == level
    never = {"test_schedule": ""}
    assert judged(app, proven, scheduler_seed="", changed=never).level == "fine"


def test_what_was_never_proven_has_the_same_time_from_the_first_backup_on(app: SmallApp) -> None:
    fresh, old = backup(app.settings, "new", HOUR), backup(app.settings, "old", 20 * DAY)
    assert judged(app, fresh, changed={"proven_within": 24}).level == "fine"
    found = judged(app, fresh, old, changed={"proven_within": 24})
    assert "No backup has passed a test restore yet." in found.sentence


def test_the_proof_of_a_backup_that_is_gone_counts_and_a_failed_one_does_not(app: SmallApp) -> None:
    one, changed = backup(app.settings, "one", HOUR), {"proven_within": 48}
    old = backup(app.settings, "old", 30 * DAY)
    good, bad = operation(1, "test-restore", "success", DAY), operation(2, "test-restore", "failure", DAY)
    assert judged(app, one, old, changed=changed, history=History((good,))).level == "fine"
    assert "yet" in judged(app, one, old, changed=changed, history=History((bad,))).reasons[0].text


# Copies elsewhere


def copies_on(*remotes: RemoteState) -> Copies:
    return count(remotes, [])


def cloud(age: timedelta | None, behind: int = 0, asked: bool = True) -> RemoteState:
    newest = (3, "one", NOON - age) if age else (0, None, None)
    return RemoteState("cloud", "restic", True, True, *newest, behind, NOON if asked else None)


@pytest.mark.parametrize(
    ("remote", "changed", "says"),
    [
        (cloud(None, asked=False), {}, "The remote cloud was never reached: no copy is known to be there."),
        (cloud(None, behind=1), {}, "There is no copy on the remote cloud yet."),
        (cloud(None), {}, ""),
        (cloud(53 * HOUR, behind=2), {}, ""),
        (cloud(55 * HOUR, behind=2), {}, "The newest copy on the remote cloud, one, is 2 days old; still to be"),
        (cloud(99 * DAY), {}, ""),
        (cloud(5 * HOUR, behind=1), {"carried_within": 4}, "still to be pushed: 1."),
        (cloud(99 * DAY, behind=1), {"expected_interval": 0}, ""),
        (cloud(99 * DAY, behind=1), {"carried_within": 24 * 100}, ""),
    ],
)
def test_a_copy_that_is_late_is_a_warning_and_never_critical(
    app: SmallApp, remote: RemoteState, changed: dict[str, object], says: str
) -> None:
    found = judged(app, backup(app.settings, "one", HOUR), changed=changed, copies=copies_on(remote))
    assert found.level == ("warning" if says else "fine")
    assert not says or (says in found.sentence and found.sentence.endswith("push --remote cloud"))


def test_what_the_remotes_last_said_is_told_without_asking_them(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (app.folder / "backup.toml").write_text(f'[remotes.nas]\ntype = "folder"\npath = "{tmp_path}/nas"\n')
    create_backup(app.settings, BackupRequest("one"))
    assert "The remote nas was never reached" in app.command("status").out
    app.command("remotes", "--init", "nas", check=0)
    app.command("push", check=0)
    create_backup(app.settings, BackupRequest("two"))
    (tmp_path / "nas").rename(tmp_path / "unmounted")
    told = app.command("status", "--json", check=0).json
    (nas,) = told["remotes"]
    assert (nas["newest"], nas["backups"], nas["behind"], nas["failure"]) == ("one", 1, 1, None)
    assert nas["asked_at"] and (told["copies"], told["lacking"][-1]) == (2, "a copy in another place")
    result = app.command("status", "--prometheus", "-", check=0)
    assert 'backupkit_remote_behind{app="pats",remote="nas"} 1\n' in result.out
    assert "on nas     1, the newest one; still to be pushed: 1; asked: 20" in app.command("status", check=0).out
    created = store.find(app.settings, "one").metadata
    assert created
    line = f'newest_timestamp_seconds{{app="pats",remote="nas"}} {created.created_at.timestamp():.17g}\n'
    assert line in result.out


@pytest.mark.parametrize("content", ["", "[]", "[" * 9999, '{"at": "2026-01-01T00:00:00"}'])
def test_a_spoilt_note_of_what_a_remote_held_is_as_none(app: SmallApp, content: str) -> None:
    (app.folder / "backup.toml").write_text('[remotes.nas]\ntype = "folder"\npath = "x"\n')
    create_backup(app.settings, BackupRequest("one"))
    note = app.backups / ".state" / "remotes" / "nas" / "seen.json"
    note.parent.mkdir(parents=True)
    note.write_text(content)
    assert "The remote nas was never reached" in run_here(app, "status", check=1).out


# On disk


def test_a_real_backup_makes_it_fine_and_time_makes_it_critical(app: SmallApp) -> None:
    assert status(app.settings).level == "critical"
    create_backup(app.settings, BackupRequest("one"), clock=lambda: NOON)
    assert status(app.settings, lambda: NOON + HOUR).level == "fine"
    assert status(app.settings, lambda: NOON + 40 * HOUR).level == "warning"
    assert status(app.settings, lambda: NOON + 60 * HOUR).level == "critical"
    assert status(app.settings, lambda: NOON - 9 * DAY).level == "critical"


@pytest.mark.parametrize("command", [("restore-dump", "note.txt", "--yes"), ("import", "note.txt")])
def test_a_file_that_is_not_what_it_was_named_for_leaves_the_data_as_safe_as_before(
    app: SmallApp, command: tuple[str, ...]
) -> None:
    create_backup(app.settings, BackupRequest("one"))
    before = status(app.settings)
    (app.backups / "note.txt").write_text("Milk, bread.")
    app.command(*command, check=12)
    assert history.read(app.backups).operations[0].has_failed
    assert (status(app.settings).level, status(app.settings).sentence) == (before.level, before.sentence)


def test_a_killed_backup_is_a_warning_until_the_next_one(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    hold = (
        "sys.path[:0] = sys.argv[1:3]\nfrom pathlib import Path\nfrom small_app import SmallApp\n"
        "from backupkit.repository.operation import locked_operation\n"
        "work = locked_operation(SmallApp(Path(sys.argv[3]), Path()).settings, 'backup')\nwork.__enter__()"
    )
    backend = Path(history.__file__).parents[2]
    with another_process(hold, backend, Path(__file__).parents[1], app.folder) as child:
        assert status(app.settings).level == "fine"
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert "Failed since the last backup: 1." in status(app.settings).sentence
    create_backup(app.settings, BackupRequest("two"))
    assert status(app.settings).level == "fine"


def test_it_waits_for_no_lock_and_a_restore_under_way_is_not_unfinished(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    (app.backups / journal.JOURNAL_FILE).write_text("{}")
    assert look(app.settings).unfinished_restore
    keep_locked = "import fcntl\nfile = open(sys.argv[1], 'a')\nfcntl.flock(file, fcntl.LOCK_EX)"
    with another_process(keep_locked, app.backups / ".lock"):
        assert not look(app.settings).unfinished_restore
        assert app.command("status").code == 0


def test_backups_that_vanish_while_they_are_read_are_not_there(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    made = [by_hand(app, number) for number in range(40)]
    away = app.folder.parent / "away"
    away.mkdir()
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            for path in made:
                path.rename(away / path.name)
            for path in made:
                (away / path.name).rename(path)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        found = [status(app.settings) for _ in range(30)]
    finally:
        stop.set()
        thread.join()
    assert {one.numbers.last_backup for one in found} == {"one"}


def by_hand(app: SmallApp, number: int) -> Path:
    folder = app.backups / f"hand{number}"
    shutil.copytree(app.backups / "one" / "uploads", folder / "uploads", symlinks=True)
    shutil.copy2(app.backups / "one" / "pats.db", folder)
    old = {"backup_name": folder.name, "timestamp": "20200101_000000", "created_at": "2020-01-01T00:00:00"}
    rest = {"alembic_revision": None, "database_file": "pats.db", "uploads_included": True, "backup_version": "1.0"}
    (folder / "backup_metadata.json").write_text(json.dumps(old | rest))
    return folder


def test_a_backups_folder_that_is_none_is_critical_and_no_error(app: SmallApp) -> None:
    changed = app.settings.replaced(dir=app.database)
    found = status(changed)
    assert found.level == "critical" and "is not a folder" in found.sentence
    with pytest.raises(BackupError, match="is not a folder"):
        last_backup(changed)


# The live data


@pytest.mark.parametrize("how", ["missing", "empty", "no database", "no tables"])
def test_a_live_database_that_is_gone_is_critical_whatever_backups_there_are(app: SmallApp, how: str) -> None:
    create_backup(app.settings, BackupRequest("one"))
    for leftover in app.database.parent.glob("pats.db*"):
        leftover.unlink()
    if how == "empty":
        app.database.touch()
    elif how == "no database":
        app.database.write_bytes(b"This is no database. " * 1000)
    elif how == "no tables":
        with contextlib.closing(app.connect()) as live:
            live.execute("PRAGMA user_version = 1")
    found = status(app.settings)
    assert found.level == "critical" and str(app.database) in found.sentence and "safe" not in found.sentence
    assert found.reasons[0].fix.endswith("restore latest")
    assert app.command("status").code == 2


@pytest.mark.parametrize("how", ["missing", "a file", "empty"])
def test_live_uploads_that_are_gone_are_critical_though_the_folder_may_be_there(app: SmallApp, how: str) -> None:
    create_backup(app.settings, BackupRequest("one"))
    shutil.rmtree(app.uploads)
    if how == "a file":
        app.uploads.touch()
    elif how == "empty":
        app.uploads.mkdir()
    found = status(app.settings)
    assert found.level == "critical" and str(app.uploads) in found.sentence
    assert found.reasons[0].fix.endswith("restore latest --only uploads")


def test_uploads_that_always_were_empty_or_that_the_app_has_not_are_no_trouble(app: SmallApp) -> None:
    shutil.rmtree(app.uploads)
    app.uploads.mkdir()
    create_backup(app.settings, BackupRequest("one"))
    assert status(app.settings).level == "fine"
    app.uploads.rmdir()
    assert status(app.settings.replaced(uploads=None)).level == "fine"


def test_a_locked_live_database_is_not_called_safe_nor_lost(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    with contextlib.closing(app.connect()) as live:
        live.execute("PRAGMA journal_mode=DELETE")
        live.execute("BEGIN EXCLUSIVE")
        found = status(app.settings)
    assert found.level == "warning" and "not looked at" in found.sentence


def test_a_look_at_the_live_data_reads_no_page_that_it_need_not(app: SmallApp) -> None:
    """It does not look for damage deep in a table, so a large table takes no longer."""
    create_backup(app.settings, BackupRequest("one"))
    with open(app.database, "r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(b"\xff" * 1000)
    assert look(app.settings).database_trouble is None


# The command


def test_the_exit_code_is_what_monitors_expect(app: SmallApp) -> None:
    assert app.command("status").code == 2
    app.command("backup", "one", check=0)
    assert app.command("status").code == 0
    (app.backups / "one").joinpath("SHA256SUMS").rename(app.backups / "one" / "gone")
    create_backup(app.settings, BackupRequest("two"))
    result = app.command("status")
    assert result.code == 1 and result.out.splitlines()[0].startswith("Your data is backed up, with a warning. ")


def test_json_has_the_level_the_reasons_and_every_number(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    told = run_here(app, "status", "--json", check=0).json
    assert (told["level"], told["exit_code"], told["reasons"], told["last_backup"]) == ("fine", 0, [], "one")
    assert {"newest_proven_at", "next_run_at", "free_bytes", "days_left", "growth_bytes_per_day"} <= set(told)
    assert told["by_kind"] == {"manual": 1}


LINE = re.compile(r'(backupkit_[a-z_]+)\{app="((?:[^"\\]|\\.)*)"(?:,(?:kind|state)="\w+")?\} (-?[\d.e+]+)')


def test_the_metrics_are_in_the_form_prometheus_reads(app: SmallApp) -> None:
    environment = {"BACKUP_APP_ID": 'a"b\\c'}
    run_here(app, "backup", "one", check=0, env=environment)
    out = run_here(app, "status", "--prometheus", "-", check=0, env=environment).out
    values = {}
    for line in out.splitlines():
        if not line.startswith("# "):
            found = LINE.fullmatch(line)
            assert found, line
            assert f"# TYPE {found[1]} gauge" in out and f"# HELP {found[1]} " in out
            assert found[2] == 'a\\"b\\\\c'
            values[found[1]] = float(found[3])
    assert values["backupkit_status"] == 0
    assert values["backupkit_free_bytes"] > 0 and values["backupkit_backups_by_state"] == 1


def test_the_metrics_go_into_a_file_whole_that_others_can_read(app: SmallApp, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("one"))
    target = tmp_path / "pats.prom"
    target.write_text("old")
    result = app.command("status", "--prometheus", str(target), check=0)
    assert result.out.startswith("Your data is safe")
    assert "backupkit_last_success_timestamp_seconds" in target.read_text()
    assert target.stat().st_mode & 0o044 == 0o044
    assert [path.name for path in tmp_path.iterdir() if path.name != "app" and "prom" in path.name] == ["pats.prom"]


def test_metrics_that_cannot_be_written_are_refused_and_leave_nothing(app: SmallApp, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("one"))
    folder = tmp_path / "taken.prom"
    (folder / "sub").mkdir(parents=True)
    refused(app, "status", "--prometheus", str(folder), code=2, names="cannot be written", hint="ls -ld")
    refused(app, "status", "--prometheus", str(tmp_path / "no" / "x.prom"), code=2, names="cannot be", hint="ls -ld")
    refused(app, "status", "--prometheus", "-", "--json", code=2, names="stdout", hint="--json")
    assert not (tmp_path / "taken.prom.new").exists()


def test_metrics_replace_no_link_and_no_device(app: SmallApp, tmp_path: Path) -> None:
    """As root, a rename over /dev/stdout would take it away from every program of the machine."""
    create_backup(app.settings, BackupRequest("one"))
    link, pipe = tmp_path / "stdout", tmp_path / "pipe"
    link.symlink_to("/proc/self/fd/1")
    os.mkfifo(pipe)
    for taken in (link, pipe):
        refused(app, "status", "--prometheus", str(taken), code=2, names=str(taken), hint="`status --prometheus -`")
    assert link.is_symlink() and pipe.is_fifo()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("BACKUP_EXPECTED_INTERVAL", "-1"),
        ("BACKUP_WARNING_AGE", "0"),
        ("BACKUP_WARNING_AGE", "nan"),
        ("BACKUP_CRITICAL_FREE_DAYS", "15"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(app: SmallApp, setting: str, value: str) -> None:
    refused(app, "status", code=2, names=setting, hint="unset BACKUP_", env={setting: value})


def test_a_critical_age_below_the_warning_s_is_refused(app: SmallApp) -> None:
    environment = {"BACKUP_WARNING_AGE": "30", "BACKUP_CRITICAL_AGE": "20"}
    refused(app, "status", code=2, names="is below BACKUP_WARNING_AGE", hint="unset BACKUP_", env=environment)


def test_drafts_are_counted(app: SmallApp) -> None:
    (app.backups / ".draft-x").mkdir()
    assert look(app.settings).drafts == 1
