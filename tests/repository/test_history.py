"""The history records every operation, also a failed, killed or running one; damage to its file stops nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.backup.sql_dump import dump, restore_dump
from backupkit.fs import append_log, disk
from backupkit.migrations.migrate import migrate
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import BackupError, Declined, Locked, Refused, SourceUnreadable
from backupkit.model.events import Event, EventListener, Finished, Warned
from backupkit.model.operation import Operation
from backupkit.repository import history, lock, operation
from backupkit.repository.operation import locked_operation, recorded
from backupkit.restore.restore import RestorePlan, plan_restore, restore_backup
from backupkit.retention.delete import delete_backup, set_pin
from refusals import another_process, refused, run_here
from small_app import BACKEND, INITIAL, NOON, SmallApp, clean_environment

HOLD = """
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from backupkit.repository.operation import locked_operation
from backupkit.config.settings import Settings
work = locked_operation(Settings(app_dir=Path(sys.argv[2]), dir=Path(sys.argv[3])), "backup", names=["held"])
work.__enter__()
"""
APPEND = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from backupkit.fs import append_log
append_log.PATIENCE = 60.0  # on a busy machine one of them may have to wait
path, child, count, limit = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
for number in range(count):
    append_log.append(path, f"{child} {number} {'x' * (number * 37 % 9000)}".encode(), limit, 50)
"""


def operations(app: SmallApp) -> list[Operation]:
    found = history.read(app.backups)
    assert found.error == ""
    return list(found.operations)


def commands(app: SmallApp) -> list[tuple[str, str]]:
    return [(one.command, one.outcome) for one in operations(app)]


@pytest.fixture
def kept(app: SmallApp) -> Path:
    """The history file, with two operations in it."""
    create_backup(app.settings, BackupRequest("one"))
    create_backup(app.settings, BackupRequest("two"))
    return history.path_of(app.backups)


# Content


def test_a_backup_is_in_the_history_with_all_that_is_known_of_it(app: SmallApp) -> None:
    made = create_backup(app.settings, BackupRequest("one"), clock=lambda: NOON).backup
    (one,) = operations(app)
    assert (one.command, one.outcome, one.exit_code, one.backups) == ("backup", "success", 0, ("one",))
    assert (one.started_at, one.ended_at) == (NOON, NOON)
    assert (one.size_bytes, one.unique_bytes) == (made.size_bytes, made.unique_bytes) and made.size_bytes
    assert one.duration_seconds is not None and one.free_bytes
    assert one.who.pid == os.getpid() and one.who.through == "library" and one.who.user and one.who.host


def test_every_verb_that_changes_something_is_in_it(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    set_pin(app.settings, "one", True)
    set_pin(app.settings, "one", False)
    dump(app.settings, app.backups / "text.sql")
    restore_backup(app.settings, plan_restore(app.settings, "one"))
    restore_dump(app.settings, app.backups / "text.sql", lambda _plan: None)
    delete_backup(app.settings, "one")
    app.at_revision(INITIAL)
    migrate(app.settings)
    found = operations(app)
    assert [one.command for one in reversed(found)] == [
        *("backup", "pin", "unpin", "dump", "restore", "restore-dump", "delete", "migrate")
    ]
    assert {one.outcome for one in found} == {"success"}
    assert found[0].note.startswith("to head, migrations: ")
    assert [one.backups for one in found[1:4]] == [("one",), ("text.sql",), ("one",)]
    assert [one.backups for one in found[1:4]] == [("one",), ("text.sql",), ("one",)]


def test_a_dump_that_was_not_agreed_to_says_so(app: SmallApp) -> None:
    dump(app.settings, app.backups / "text.sql")

    def no(_plan: RestorePlan) -> None:
        raise Declined("Nothing was changed.")

    with pytest.raises(Declined):
        restore_dump(app.settings, app.backups / "text.sql", no)
    assert (operations(app)[0].outcome, operations(app)[0].exit_code) == ("refused", 4)


def test_a_failure_is_in_it_with_its_sentence_and_its_code(app: SmallApp) -> None:
    app.database.unlink()
    with pytest.raises(SourceUnreadable) as raised:
        create_backup(app.settings, BackupRequest("one"))
    (one,) = operations(app)
    assert (one.outcome, one.exit_code, one.error) == ("failure", 13, raised.value.message)


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (Refused("No."), "refused", 2),
        (BackupError("Bad."), "failure", 1),
        (OSError(28, "No space left on device"), "failure", 15),
        (ZeroDivisionError("a bug"), "failure", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_whatever_ends_it_has_its_outcome(app: SmallApp, error: BaseException, outcome: str, code: int) -> None:
    with pytest.raises(type(error)), locked_operation(app.settings, "backup"):
        raise error
    assert [(one.outcome, one.exit_code) for one in operations(app)] == [(outcome, code)]


def test_a_warning_is_kept_and_is_no_failure(app: SmallApp) -> None:
    os.mkfifo(app.uploads / "pipe")
    create_backup(app.settings, BackupRequest("one"))
    (one,) = operations(app)
    assert (one.outcome, one.exit_code) == ("warning", 3) and not one.has_failed
    assert "pipe" in one.warnings[0]


def test_thousands_of_warnings_make_no_long_line(app: SmallApp) -> None:
    with recorded(app.settings, "backup") as work:
        for number in range(3000):
            work.emit(Warned(f"{number} " + "long " * 1000))
    (one,) = operations(app)
    assert len(one.warnings) == 20 and all(len(text) <= 1001 for text in one.warnings)


def test_a_run_that_found_the_lock_taken_is_in_it(app: SmallApp) -> None:
    with lock.held(app.backups, "another", 0), pytest.raises(Locked):
        create_backup(app.settings, BackupRequest("one"))
    (one,) = operations(app)
    assert (one.outcome, one.exit_code) == ("failure", 11) and "another" in one.error


def test_a_name_of_any_bytes_can_be_kept(app: SmallApp) -> None:
    with recorded(app.settings, "dump", names=[os.fsdecode(b"\xff\n.sql")]):
        pass
    assert operations(app)[0].backups == ("\\udcff\n.sql",)
    assert "\\udcff" in run_here(app, "history", check=0).out


@pytest.mark.parametrize(
    ("arguments", "environment", "through"),
    [
        (["/app/backup_restore.py", "backup"], {"BACKUP_RUNNER_IN_USE": "exec"}, "wrapper"),
        (["backup_restore.py", "backup"], {}, "command"),
        (["/usr/bin/backup-restore", "backup"], {}, "command"),
        (["backup_restore.py", "schedule"], {}, "scheduler"),
        (["gunicorn", "app"], {}, "library"),
        ([], {}, "library"),
    ],
)
def test_who_did_it_is_told_by_how_it_was_started(
    arguments: list[str], environment: dict[str, str], through: str
) -> None:
    who = operation.who_is_at_work({"BACKUP_HOST_USER": "anna", **environment}, arguments)
    assert (who.through, who.user) == (through, "anna")


def test_a_command_says_that_it_was_one(app: SmallApp) -> None:
    app.command("backup", "one", env={"BACKUP_HOST_USER": "anna"}, check=0)
    assert operations(app)[0].who.through == "command"
    assert operations(app)[0].who.user == "anna"


# Listeners


def test_the_end_is_told_after_the_lock_is_free(app: SmallApp) -> None:
    heard: list[tuple[Operation, bool]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Finished):
            heard.append((event.operation, lock.is_held(app.backups)))

    create_backup(app.settings, BackupRequest("one"), listen)
    app.database.unlink()
    with pytest.raises(SourceUnreadable):
        create_backup(app.settings, BackupRequest("two"), listen)
    assert [(one.outcome, held) for one, held in heard] == [("success", False), ("failure", False)]
    assert [one for one, _ in reversed(heard)] == operations(app)


# Killed and running operations


def test_a_killed_run_is_seen_as_interrupted_and_one_under_way_as_running(app: SmallApp) -> None:
    with another_process(HOLD, BACKEND, app.folder, app.backups) as child:
        assert commands(app) == [("backup", "running")]
        child.send_signal(signal.SIGKILL)
        child.wait()
        (one,) = operations(app)
    assert (one.outcome, one.ended_at, one.backups) == ("interrupted", None, ("held",))
    assert one.has_failed and "end was not recorded" in one.error
    create_backup(app.settings, BackupRequest("next"))
    assert commands(app) == [("backup", "success"), ("backup", "interrupted")]


def test_a_run_in_another_container_is_running_as_long_as_it_holds_the_lock(app: SmallApp) -> None:
    with another_process(HOLD, BACKEND, app.folder, app.backups):
        path = history.path_of(app.backups)
        signed = json.loads((app.backups / lock.LOCK_FILE).read_text())
        elsewhere = signed["who"].rpartition(" ")[0] + " elsewhere"
        (app.backups / lock.LOCK_FILE).write_text(json.dumps(signed | {"who": elsewhere}))
        entry = json.loads(path.read_text())
        path.write_text(json.dumps(entry | {"who": entry["who"] | {"host": "elsewhere"}}) + "\n")
        assert commands(app) == [("backup", "running")]
    assert commands(app) == [("backup", "interrupted")]


def test_a_later_process_of_the_same_number_is_not_taken_for_it(app: SmallApp) -> None:
    with recorded(app.settings, "verify"):
        assert commands(app) == [("verify", "running")]
        path = history.path_of(app.backups)
        entry = json.loads(path.read_text())
        path.write_text(json.dumps(entry | {"who": entry["who"] | {"born": "1"}}) + "\n")
        assert commands(app) == [("verify", "interrupted")]
    assert commands(app) == [("verify", "success")]


def test_what_a_killed_run_left_is_cleared_and_that_is_in_it(app: SmallApp) -> None:
    (app.backups / ".draft-one").mkdir()
    (app.backups / ".state" / "index").mkdir(parents=True)
    (app.backups / ".state" / "index" / ".draft-one").touch()  # what was to be remembered of it
    app.command("recover", check=0)
    (one,) = operations(app)
    assert (one.command, one.backups) == ("clean-up", (".draft-one",))


# The file


@pytest.mark.parametrize("limit", [10_000_000, 100_000], ids=["one file", "turned over all the time"])
def test_processes_that_write_at_once_lose_and_tear_no_line(tmp_path: Path, limit: int) -> None:
    path, count = tmp_path / "lines", 120
    children = [
        subprocess.Popen([sys.executable, "-c", APPEND, BACKEND, path, str(child), str(count), str(limit)])
        for child in range(4)
    ]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    wanted = {f"{child} {number} {'x' * (number * 37 % 9000)}" for child in range(4) for number in range(count)}
    files = list(tmp_path.iterdir())
    assert (len(files) > 5) == (limit == 100_000)
    found = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(found) == sorted(wanted)


def test_backups_and_pins_of_two_processes_are_all_in_it(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    words = [("pin", "one"), ("unpin", "one"), ("dump", "a.sql"), ("backup", "two")]
    children = [
        subprocess.Popen(
            [sys.executable, BACKEND / "backup_restore.py", *argv],
            env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
            stdout=subprocess.DEVNULL,
        )
        for argv in words
    ]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    assert sorted(one.command for one in operations(app)) == ["backup", "backup", "dump", "pin", "unpin"]
    assert {one.outcome for one in operations(app)} == {"success"}


def test_the_file_is_turned_over_and_an_operation_split_by_that_is_whole(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LIMIT", 100)
    for _ in range(3):
        create_backup(app.settings, BackupRequest())
    files = sorted(path.name for path in history.path_of(app.backups).parent.glob("history*"))
    assert files == ["history.jsonl", "history.jsonl.1"]
    assert commands(app)[0] == ("backup", "success")


TORN = '{"id":"x","command":"back'


@pytest.mark.parametrize(
    "rubbish",
    [TORN, "no json", "[]", '{"id": 1}', '{"id":"a","command":"b","started_at":"2026-01-01","who":{}}', "\x00" * 512],
    ids=["torn", "text", "list", "few fields", "no offset", "zeros"],
)
def test_a_line_that_cannot_be_read_is_set_aside_and_said_once(app: SmallApp, kept: Path, rubbish: str) -> None:
    good = kept.read_text().splitlines()
    kept.write_text("\n".join([*good[:2], rubbish, *good[2:]]) + "\n")
    first, second = (run_here(app, "history", check=0) for _ in range(2))
    assert "1 lines" in first.err and "history.damaged.jsonl" in first.err
    assert second.err == "" and second.out == first.out
    assert kept.with_name("history.damaged.jsonl").read_bytes() == rubbish.encode() + b"\n"
    assert [one.backups for one in operations(app)] == [("two",), ("one",)]


def test_what_was_torn_by_a_power_failure_swallows_no_later_line(app: SmallApp, kept: Path) -> None:
    with kept.open("a") as file:
        file.write(TORN)
    create_backup(app.settings, BackupRequest("three"))
    found = history.read(app.backups)
    assert [one.backups for one in found.operations] == [("three",), ("two",), ("one",)]
    assert found.error
    assert kept.with_name("history.damaged.jsonl").read_text() == f"{TORN}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests as root to check owners")
def test_a_file_that_is_turned_over_while_it_gets_its_owner_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, owner_of = tmp_path / "lines", disk.owner_of
    another = iter([lambda: append_log.rotate(path, 1)])

    def late(folder: Path) -> tuple[int, int]:
        for act in another:
            act()
        return owner_of(folder)

    monkeypatch.setattr(disk, "owner_of", late)
    append_log.append(path, b"first", 1000, 1)
    assert path.read_bytes() == b"first\n"


def test_a_line_is_not_appended_to_a_file_that_was_turned_over_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock_it = tmp_path / "lines", fcntl.flock
    append_log.append(path, b"first", 1000, 1)
    another = iter([lambda: append_log.rotate(path, 1)])

    def late(handle: int, how: int) -> None:
        for act in another:
            act()
        lock_it(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    append_log.append(path, b"second", 1000, 1)
    assert (path.read_bytes(), append_log.numbered(path, 1).read_bytes()) == (b"second\n", b"first\n")


def test_a_line_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "lines", os.write
    append_log.append(path, b"first", 1000, 1)
    calls = iter([lambda handle, whole: write(handle, whole[:3])])

    def full(handle: int, whole: bytes) -> int:
        for short in calls:
            return short(handle, whole)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        append_log.append(path, b"second", 1000, 1)
    monkeypatch.undo()
    assert path.read_bytes() == b"first\n"


def as_a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def as_a_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def as_a_link(path: Path) -> None:
    path.replace(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [as_a_folder, as_a_fifo, as_a_link], ids=lambda one: one.__name__)
def test_a_history_that_cannot_be_written_is_a_warning_said_once_and_fails_no_backup(
    app: SmallApp, kept: Path, spoil: object
) -> None:
    spoil(kept)  # type: ignore[operator]
    before = written(kept.parent)
    result = app.command("backup", "three", check=0)
    assert result.err.count("Warning: The history ") == 1
    app.command("restore", "three", "--force", check=0)
    assert app.command("history", check=0).out
    assert app.command("status").code in (0, 1)
    assert written(kept.parent) == before


def written(folder: Path) -> dict[str, bytes]:
    """Return the content of the files in the folder, links followed."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "last_restore"}


def test_losing_it_loses_no_backup(app: SmallApp, kept: Path) -> None:
    shutil.rmtree(kept.parent)
    assert run_here(app, "history", check=0).out == "Nothing in the history matches.\n"
    run_here(app, "restore", "one", "--force", check=0)
    assert commands(app) == [("restore", "success")]


def test_a_process_that_keeps_it_locked_delays_a_backup_and_stops_none(
    app: SmallApp, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_log, "PATIENCE", 0.2)
    heard: list[str] = []
    keep_locked = "import fcntl\nfile = open(sys.argv[1], 'a')\nfcntl.flock(file, fcntl.LOCK_EX)"
    with another_process(keep_locked, kept):
        create_backup(app.settings, BackupRequest("three"), warnings_into(heard))
    assert len(heard) == 1 and "another process has kept it locked" in heard[0]


def warnings_into(heard: list[str]) -> EventListener:
    return lambda event: heard.append(event.text) if isinstance(event, Warned) else None


def test_a_clock_that_goes_back_changes_no_order(app: SmallApp) -> None:
    for number, hours in enumerate((5, 1, 3)):
        create_backup(
            app.settings, BackupRequest(f"b{number}"), clock=lambda hours=hours: NOON + timedelta(hours=hours)
        )  # type: ignore[misc]
    assert [one.backups for one in operations(app)] == [("b2",), ("b1",), ("b0",)]


# The command


@pytest.fixture
def varied(app: SmallApp) -> Iterator[SmallApp]:
    """An app whose history has an old failure and a new success."""
    app.command("backup", "one", check=0)
    entries = [json.loads(line) for line in history.path_of(app.backups).read_text().splitlines()]
    moments = {"old": (NOON - timedelta(days=3000), "failure"), "new": (None, "success")}
    made = []
    for name, (moment, outcome) in moments.items():
        changed = {"id": name, "backups": [name], "outcome": outcome}
        made.append(entries[1] | changed | ({"started_at": moment.isoformat()} if moment else {}))
    history.path_of(app.backups).write_text("".join(f"{json.dumps(one)}\n" for one in made))
    yield app


def ids(app: SmallApp, *options: str) -> list[str]:
    return [one["id"] for one in run_here(app, "history", "--json", *options, check=0).json]


def test_the_history_can_be_narrowed(varied: SmallApp) -> None:
    assert ids(varied) == ["new", "old"]
    assert ids(varied, "--failures") == ["old"]
    assert ids(varied, "--since", "2d") == ["new"]
    assert ids(varied, "--since", "2010-01-01") == ["new", "old"]
    for text in ("10 minutes ago", "yesterday", "yesterday 18:00", "Today"):
        assert ids(varied, "--since", text) == ["new"], text
    assert ids(varied, "--since", "2d", "--failures") == []
    assert ids(varied, "--limit", "1") == ["new"]
    assert "1 earlier operation: --limit 2" in run_here(varied, "history", "--limit", "1", check=0).out


@pytest.mark.parametrize("text", ["yesteryear", "", "3", "-3d", "3y", "2026-13-01"])
def test_a_time_that_is_none_is_refused(app: SmallApp, text: str) -> None:
    if text:
        refused(app, "history", f"--since={text}", code=2, names="is not a time", hint="36h")
    else:
        run_here(app, "history", "--since", text, check=0)


def test_the_table_has_one_line_for_an_operation_whatever_its_error(app: SmallApp) -> None:
    with pytest.raises(BackupError), recorded(app.settings, "backup"):
        raise BackupError("first\nsecond\x1b[31m")
    out = run_here(app, "history", check=0).out
    assert len(out.splitlines()) == 2 and "\x1b" not in out


# The log


def test_two_processes_turn_the_log_over_and_lose_no_line(app: SmallApp, tmp_path: Path) -> None:
    log = tmp_path / "log" / "backup.log"
    for name in ("one", "two"):
        app.command("backup", name, env={"BACKUP_LOG_FILE": str(log)}, check=0)
    said = log.read_text()
    assert "started: backup one" in said and "backup two success in" in said


def test_the_log_is_json_where_that_is_asked_for(app: SmallApp, tmp_path: Path) -> None:
    log = tmp_path / "backup.log"
    environment = {"BACKUP_LOG_FILE": str(log), "BACKUP_LOG_FORMAT": "json"}
    app.command("backup", "one", env=environment, check=0)
    app.command("backup", "one", env=environment, check=2)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"time", "level", "pid", "message"} <= set(entries[0])
    assert [one["operation"]["outcome"] for one in entries if "operation" in one] == ["success", "refused"]
    assert entries[-1]["level"] == "error"


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(app: SmallApp, tmp_path: Path) -> None:
    result = app.command("backup", "one", env={"BACKUP_LOG_FILE": str(tmp_path)}, check=0)
    assert result.err.count("Warning: the log ") == 1


def test_a_form_of_the_log_that_is_none_is_refused(app: SmallApp) -> None:
    refused(
        app, "list", code=2, names="BACKUP_LOG_FORMAT", hint="unset BACKUP_LOG_FORMAT", env={"BACKUP_LOG_FORMAT": "xml"}
    )
