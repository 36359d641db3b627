"""Single-file backups of a plain database, made and restored through SQLite, inside the program that uses it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy

import chance
from backupkit import MAX_BACKUPS, PlainDatabase, create_backup_now, get_last_backup_display, list_backups, protected
from backupkit.fs import disk
from refusals import without_privileges
from small_app import BACKEND, clean_environment

BERLIN = "Europe/Berlin"
MORNING = datetime(2026, 3, 4, 8, 30, tzinfo=UTC)  # 09:30 in Berlin


class Program:
    """A desktop program: a folder with a database of notes, and nothing else."""

    def __init__(self, folder: Path, mode: str = "wal", name: str = "app.db", table: str = "notes") -> None:
        self.database = folder / name
        self.table = table
        self.backups = folder / "backups"
        self.settings = folder / "settings.json"
        self.now = MORNING
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(self.connect()) as live, live:
            live.execute(f"PRAGMA journal_mode={mode}")
            live.execute(f"CREATE TABLE {table} (text TEXT)")
        self.write("first")

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database)

    def write(self, text: str) -> None:
        with contextlib.closing(self.connect()) as live, live:
            live.execute(f"INSERT INTO {self.table} VALUES (?)", (text,))

    def notes(self, database: Path | None = None) -> list[str]:
        with contextlib.closing(sqlite3.connect(database or self.database)) as one:
            return [text for (text,) in one.execute(f"SELECT text FROM {self.table}")]

    def plain(self, **options: Any) -> PlainDatabase:
        given: dict[str, Any] = {"timezone": BERLIN, "timeout": 0.3, "clock": lambda: self.now, **options}
        return PlainDatabase(self.database, **given)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.backups.glob("backup_*.db")) if self.backups.is_dir() else []

    def litter(self) -> list[Path]:
        """Return the files that are neither the program's, nor finished backups, nor the toolkit's lock and record."""
        known = {"backups", "settings.json", ".lock", ".state", "databases.json", "checksums.json"}
        known |= {self.database.name + end for end in ("", "-wal", "-shm", "-journal")}
        found = [path for path in self.database.parent.rglob("*") if path.name not in known]
        return [path for path in found if not (path.parent == self.backups and path.name in self.names())]

    def listed(self) -> list[str]:
        return [entry["name"] for entry in self.plain().list_backups()]

    @property
    def record(self) -> Path:
        return self.backups / ".state" / "databases.json"

    @property
    def checksums(self) -> Path:
        return self.backups / ".state" / "checksums.json"

    def said_last(self) -> str | None:
        return json.loads(self.settings.read_text()).get("last_backup_at") if self.settings.exists() else None


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "my program")


# Backups


def test_a_backup_is_one_sound_file_named_after_the_moment_in_the_zone(program: Program) -> None:
    made = program.plain().create_backup_now()
    assert made == program.backups / "backup_20260304_093000.db"
    assert program.notes(made) == ["first"]
    assert program.litter() == []


def test_what_is_only_in_the_wal_is_in_the_backup(program: Program) -> None:
    with contextlib.closing(program.connect()) as live:
        live.execute("INSERT INTO notes VALUES ('in the wal')")
        live.commit()
        made = program.plain().create_backup_now()
    assert made and program.notes(made) == ["first", "in the wal"]


def test_a_backup_is_never_more_open_than_the_database(program: Program) -> None:
    program.database.chmod(0o600)
    made = program.plain().create_backup_now()
    assert made and stat.S_IMODE(made.stat().st_mode) == 0o600


def test_two_in_one_second_are_two_with_names_of_the_same_shape(program: Program) -> None:
    made = {program.plain().create_backup_now() for _ in range(3)}
    assert made == {program.backups / f"backup_20260304_09300{second}.db" for second in range(3)}
    assert program.said_last() == "2026-03-04T09:30:02+01:00"


def test_the_functions_take_what_the_object_takes(program: Program) -> None:
    options: dict[str, Any] = {"backups": program.database.parent / "kept", "timezone": BERLIN}
    made = create_backup_now(program.database, clock=lambda: MORNING, **options)
    assert made == program.database.parent / "kept" / "backup_20260304_093000.db"
    assert [entry["path"] for entry in list_backups(program.database, **options)] == [made]
    assert get_last_backup_display(program.database, **options) == "04/03/2026 09:30"


def test_an_option_that_the_form_does_not_have_is_the_callers_mistake(program: Program) -> None:
    with pytest.raises(TypeError):
        create_backup_now(program.database, app_dir=program.database.parent)
    with pytest.raises(TypeError):
        create_backup_now(max_backups=3)


# The list of backups, and the last one


def test_the_list_is_newest_first_with_all_that_a_menu_shows(program: Program) -> None:
    program.plain().create_backup_now()
    program.now += timedelta(days=1)
    newest = program.plain().create_backup_now()
    assert newest
    listed = program.plain().list_backups()
    assert listed[0] == {
        "path": newest,
        "name": "backup_20260305_093000.db",
        "display": "05/03/2026 09:30",
        "size": newest.stat().st_size,
    }
    assert [entry["display"] for entry in listed] == ["05/03/2026 09:30", "04/03/2026 09:30"]


def test_only_what_bears_a_backups_name_is_listed_and_removed(program: Program) -> None:
    program.backups.mkdir()
    strangers = [
        "backup_20260101_000000.db.txt",
        "backup_2026.db",
        "backup_20261399_000000.db",
        "my backup_20260101_000000.db",
        "backup_20260101_000000.db\n",
    ]
    for name in strangers:
        (program.backups / name).write_text("mine")
    (program.backups / "backup_20260102_000000.db").mkdir()
    (program.backups / "backup_20260103_000000.db").symlink_to(program.database)
    program.plain(max_backups=1).create_backup_now()
    program.now += timedelta(days=1)
    program.plain(max_backups=1).create_backup_now()
    assert [entry["name"] for entry in program.plain().list_backups()] == ["backup_20260305_093000.db"]
    kept = {path.name for path in program.backups.iterdir()}
    assert kept >= {*strangers, "backup_20260102_000000.db", "backup_20260103_000000.db"}


def test_there_is_a_dash_where_there_is_no_backup(program: Program) -> None:
    assert program.plain().get_last_backup_display() == "—"
    assert program.plain().list_backups() == []
    assert program.litter() == []


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2026-03-04T09:30:00+01:00", "04/03/2026 09:30"),
        ("2026-03-04T08:30:00Z", "04/03/2026 09:30"),
        ("2026-03-04T09:30:00", "04/03/2026 09:30"),
        ("yesterday", "—"),
        (17, "—"),
        (None, "—"),
    ],
)
def test_the_last_backup_is_shown_as_the_settings_have_it(program: Program, written: object, shown: str) -> None:
    program.settings.write_text(json.dumps({"last_backup_at": written}))
    assert program.plain().get_last_backup_display() == shown


def test_the_last_backup_is_shown_as_the_disk_has_it_where_the_settings_are_lost(program: Program) -> None:
    program.plain().create_backup_now()
    program.settings.unlink()
    assert program.plain().get_last_backup_display() == "04/03/2026 09:30"


# The program's settings


def test_the_other_keys_of_the_settings_stay(program: Program) -> None:
    others = {"theme": "dark", "größe": [1, 2.5, None], "last_backup_at": "2020-01-01T00:00:00+00:00", "x": {"y": True}}
    program.settings.write_text(json.dumps(others))
    program.settings.chmod(0o640)
    assert program.plain().create_backup_now()
    content = json.loads(program.settings.read_text())
    assert content == {**others, "last_backup_at": "2026-03-04T09:30:00+01:00"}
    assert list(content) == list(others)
    assert stat.S_IMODE(program.settings.stat().st_mode) == 0o640


def test_settings_behind_a_link_stay_behind_it(program: Program, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("{}")
    program.settings.symlink_to(elsewhere)
    program.plain().create_backup_now()
    assert program.settings.is_symlink()
    assert "last_backup_at" in json.loads(elsewhere.read_text())


@pytest.mark.parametrize("broken", ["{", "[1, 2]", '{"theme": "dark",}', "\ufeff{}", ""])
def test_settings_that_cannot_be_read_stay_as_they_are_and_the_backup_counts(
    program: Program, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    program.settings.write_text(broken)
    assert program.plain().create_backup_if_needed()
    assert program.settings.read_text() == broken
    assert "stays as it is" in caplog.text
    assert program.plain().create_backup_if_needed() is None
    assert len(program.names()) == 1


# One a day


def test_there_is_one_a_day_in_the_zone(program: Program) -> None:
    program.now = datetime(2026, 3, 4, 22, 59, tzinfo=UTC)  # one minute before midnight in Berlin
    assert program.plain().create_backup_if_needed()
    assert program.plain().create_backup_if_needed() is None
    program.now += timedelta(minutes=1)
    assert program.plain().create_backup_if_needed()
    program.now += timedelta(hours=23, minutes=59)
    assert program.plain().create_backup_if_needed() is None
    assert program.names() == ["backup_20260304_235900.db", "backup_20260305_000000.db"]


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]


@pytest.mark.parametrize("zone", chance.cases(ZONES, "zones with a change of the clock"))
@pytest.mark.parametrize("start", [datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 9, 25, tzinfo=UTC)], ids=str)
def test_over_every_change_of_the_clock_there_is_one_a_day(program: Program, zone: str, start: datetime) -> None:
    days = set()
    for hours in range(0, 45 * 24, 7):
        program.now = start + timedelta(hours=hours)
        days.add(program.now.astimezone(ZoneInfo(zone)).date())
        program.plain(timezone=zone, max_backups=100).create_backup_if_needed()
    assert [name[7:15] for name in program.names()] == [f"{day:%Y%m%d}" for day in sorted(days)]


def test_in_the_hour_that_comes_twice_the_newest_is_first_and_the_oldest_goes(program: Program) -> None:
    plain = program.plain(max_backups=2)
    moments = [datetime(2026, 10, 25, 0, minute, tzinfo=UTC) for minute in (10, 50)]  # 02:10 and 02:50, summer time
    moments.append(datetime(2026, 10, 25, 1, 20, tzinfo=UTC))  # 02:20, winter time
    for moment in moments:
        program.now = moment
        made = plain.create_backup_now()
        assert made
        os.utime(made, (moment.timestamp(), moment.timestamp()))
    assert [entry["name"][16:20] for entry in plain.list_backups()] == ["0220", "0250"]


def test_a_backup_made_in_another_zone_counts_for_the_day_it_is_here(program: Program) -> None:
    program.now = datetime(2026, 3, 4, 4, 30, tzinfo=UTC)  # the evening of the 3rd in New York
    assert program.plain(timezone="America/New_York").create_backup_if_needed()
    program.now += timedelta(hours=3)
    assert program.plain().create_backup_if_needed() is None


@pytest.mark.parametrize("said", ["2026-03-04T09:30:00+01:00", "2031-01-01T00:00:00+01:00"])
def test_a_time_in_the_settings_protects_nobody_without_a_backup_on_disk(program: Program, said: str) -> None:
    program.settings.write_text(json.dumps({"last_backup_at": said}))
    assert program.plain().create_backup_if_needed()


def test_a_backup_on_disk_counts_without_a_time_in_the_settings(program: Program) -> None:
    program.plain().create_backup_now()
    program.settings.unlink()
    assert program.plain().create_backup_if_needed() is None


def test_an_empty_file_with_todays_name_is_no_backup_of_today(program: Program) -> None:
    program.backups.mkdir()
    (program.backups / "backup_20260304_080000.db").touch()
    assert program.plain().create_backup_if_needed()


def test_threads_that_ask_at_once_make_one(program: Program) -> None:
    ready = threading.Barrier(8)

    def ask() -> None:
        ready.wait()
        program.plain(timeout=30).create_backup_if_needed()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(program.names()) == 1


ASK = """
import sys
from backupkit import create_backup_if_needed
print("ready", flush=True)
sys.stdin.readline()
print(create_backup_if_needed(sys.argv[1], timeout=30))
"""


def test_processes_that_ask_at_once_make_one(program: Program) -> None:
    children = [started(ASK, program.database) for _ in range(4)]
    for child in children:
        assert child.stdout and child.stdout.readline() == "ready\n"
    answers = [child.communicate("go\n", timeout=60)[0].strip() for child in children]
    assert len(program.names()) == 1
    assert sorted(answers) == sorted([str(program.backups / program.names()[0]), "None", "None", "None"])


def started(code: str, *arguments: Path | str) -> subprocess.Popen[str]:
    environment = {**clean_environment(), "PYTHONPATH": str(BACKEND)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, env=environment, **pipes)


# Retention


def test_the_newest_twenty_stay(program: Program) -> None:
    for _ in range(MAX_BACKUPS + 5):
        program.now += timedelta(days=1)
        assert program.plain().create_backup_now()
    assert MAX_BACKUPS == 20
    assert len(program.names()) == 20
    assert program.names()[-1] == f"backup_{program.now.astimezone(ZoneInfo(BERLIN)):%Y%m%d_%H%M%S}.db"


def test_the_one_just_made_stays_though_the_clock_was_set_back(program: Program) -> None:
    for _ in range(3):
        program.now += timedelta(days=1)
        program.plain(max_backups=3).create_backup_now()
    program.now = MORNING - timedelta(days=300)
    made = program.plain(max_backups=3).create_backup_now()
    assert made and made.exists()
    assert len(program.names()) == 4  # backups dated later stay, and do not count against the limit


def kept_notes(program: Program, **options: Any) -> list[int]:
    """Return how many notes each listed backup has, in the order of the list."""
    return [len(program.notes(entry["path"])) for entry in program.plain(**options).list_backups()]


def write_and_back_up(program: Program, **options: Any) -> None:
    program.write("one more")
    assert program.plain(**options).create_backup_now()


def test_of_many_made_at_once_the_last_made_stay_newest_first(program: Program) -> None:
    for _ in range(8):
        write_and_back_up(program, max_backups=3)
    assert kept_notes(program) == [9, 8, 7]
    program.now += timedelta(seconds=1)
    write_and_back_up(program, max_backups=3)
    assert kept_notes(program) == [10, 9, 8]


def test_of_many_protected_blocks_at_once_the_last_backup_made_stays(program: Program) -> None:
    for _ in range(6):
        program.write("one more")
        with protected("import", on=program.plain(max_backups=2)) as operation:
            pass
    assert kept_notes(program) == [7, 6]
    assert operation.backup == program.plain().list_backups()[0]["path"]


@pytest.mark.parametrize("back", [timedelta(seconds=90), timedelta(hours=5), timedelta(hours=25)], ids=str)
def test_what_is_made_after_the_clock_was_set_back_is_the_newest_and_stays(program: Program, back: timedelta) -> None:
    for _ in range(3):
        program.now += timedelta(seconds=30)
        write_and_back_up(program, max_backups=3)
    program.now -= back
    for _ in range(2):
        write_and_back_up(program, max_backups=3)
    assert kept_notes(program) == [6, 5, 4]
    assert program.names()[-2:] == ["backup_20260304_093131.db", "backup_20260304_093132.db"]
    assert program.said_last() == "2026-03-04T09:31:32+01:00"


def test_after_the_clock_was_set_back_over_midnight_there_is_one_of_today(program: Program) -> None:
    program.now = datetime(2026, 3, 4, 23, 10, tzinfo=UTC)  # ten past midnight in Berlin
    program.plain().create_backup_now()
    program.now -= timedelta(hours=1)
    assert [program.plain().create_backup_if_needed() for _ in range(2)] == [None, None]


def test_in_another_zone_to_the_west_the_last_made_is_the_newest(program: Program) -> None:
    write_and_back_up(program, timezone="Asia/Tokyo", max_backups=2)
    for _ in range(2):
        program.now += timedelta(minutes=5)
        write_and_back_up(program, timezone="America/New_York", max_backups=2)
    assert kept_notes(program, timezone="America/New_York") == [4, 3]


def test_in_the_hour_that_comes_twice_the_second_of_one_second_has_its_offset(program: Program) -> None:
    program.now = datetime(2026, 10, 25, 1, 20, tzinfo=UTC)  # 02:20, winter time
    for _ in range(2):
        made = program.plain().create_backup_now()
        assert made
        os.utime(made, (program.now.timestamp(), program.now.timestamp()))
    assert program.said_last() == "2026-10-25T02:20:01+01:00"


def test_five_days_with_the_clock_in_2035_cost_no_later_backup_its_place(program: Program) -> None:
    plain = program.plain(max_backups=5)
    for _ in range(5):
        program.now += timedelta(days=1)
        plain.create_backup_now()
    real, program.now = program.now, datetime(2035, 1, 1, 12, tzinfo=UTC)
    for _ in range(5):
        program.now += timedelta(days=1)
        plain.create_backup_now()
    program.now = real
    for _ in range(5):
        program.now += timedelta(days=1)
        plain.create_backup_now()
    days = [name for name in program.names() if "2035" not in name]
    assert len(days) == 5 and days[-1] == f"backup_{program.now.astimezone(ZoneInfo(BERLIN)):%Y%m%d_%H%M%S}.db"
    assert len(program.names()) == 10


def test_a_failed_backup_removes_no_older_one(program: Program) -> None:
    program.plain().create_backup_now()
    program.now += timedelta(days=1)
    program.plain().create_backup_now()
    before, program.now = program.names(), program.now + timedelta(days=1)
    program.database.write_bytes(b"no database" * 1000)
    assert program.plain(max_backups=1).create_backup_now() is None
    assert program.names() == before


def test_an_old_backup_that_cannot_be_removed_does_not_make_the_new_one_fail(
    program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program.plain().create_backup_now()
    program.now += timedelta(days=1)

    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(disk, "remove", refuse)
    assert program.plain(max_backups=1).create_backup_now()
    assert "an old one could not be removed" in caplog.text


# Failures


def lose(program: Program) -> None:
    program.database.unlink()
    for sidecar in program.database.parent.glob("app.db-*"):
        sidecar.unlink()


def empty(program: Program) -> None:
    lose(program)
    program.database.touch()


def break_header(program: Program) -> None:
    program.database.write_bytes(b"no database at all" * 1000)


def break_page(program: Program) -> None:
    with program.database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def block_folder(program: Program) -> None:
    program.backups.write_text("not a folder")


FAILURES = [lose, empty, break_header, break_page, block_folder]


@pytest.mark.parametrize("fail", FAILURES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("call", ["create_backup_now", "create_backup_if_needed"])
def test_a_failure_is_none_leaves_nothing_and_is_logged(
    program: Program, fail: Callable[[Program], None], call: str, caplog: pytest.LogCaptureFixture
) -> None:
    program.settings.write_text('{"last_backup_at": "2020-01-01T00:00:00+00:00"}')
    fail(program)
    with caplog.at_level(logging.ERROR):
        assert getattr(program.plain(), call)() is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(program.database.parent) in caplog.text
    assert "Traceback" not in caplog.text
    assert program.said_last() == "2020-01-01T00:00:00+00:00"
    assert program.litter() == []
    assert program.names() == []


def test_what_is_logged_reaches_a_program_that_set_up_no_logging(program: Program) -> None:
    lose(program)
    child = called(program, "create_backup_now")
    assert child.stderr.startswith("create_backup_now failed: There is no database at")


@pytest.mark.needs("strace")
def test_a_full_disk_is_none_and_leaves_nothing(program: Program) -> None:
    program.write("x" * 200_000)
    fault = ["strace", "-f", "-o", "/dev/null", "-e", "inject=pwrite64:error=ENOSPC:when=3+"]
    child = called(program, "create_backup_now", *fault)
    assert child.stdout == "None\n", child.stderr
    assert "create_backup_now failed" in child.stderr
    assert program.litter() == []
    assert program.names() == []
    assert not program.settings.exists()


def test_a_folder_that_may_not_be_written_is_none_and_leaves_nothing(program: Program) -> None:
    program.backups.mkdir(mode=0o555)
    child = called(program, "create_backup_now", *without_privileges())
    assert child.stdout == "None\n"
    assert f"The backups folder {program.backups} cannot be written to." in child.stderr
    assert program.litter() == []


def test_settings_that_may_not_be_written_do_not_make_the_backup_fail(tmp_path: Path) -> None:
    program = Program(tmp_path / "program", "delete")
    program.backups.mkdir()
    program.settings.write_text("{}")
    program.database.parent.chmod(0o555)
    child = called(program, "create_backup_now", *without_privileges())
    program.database.parent.chmod(0o755)
    assert child.stdout == f"{program.backups / program.names()[0]}\n"
    assert "its time could not be recorded" in child.stderr


def called(program: Program, call: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Call that function of the toolkit for this database in a separate process."""
    return ran(f"import sys, backupkit; print(backupkit.{call}(sys.argv[1]))", program, *before)


def ran(code: str, program: Program, *before: str) -> subprocess.CompletedProcess[str]:
    """Run the code in a separate process, with this database as its argument."""
    return subprocess.run(
        [*before, sys.executable, "-c", code, program.database],
        env={**clean_environment(), "PYTHONPATH": str(BACKEND)},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"timezone": "Mars/Olympus"}, "is not a time zone"), ({"max_backups": 0}, "is not a number of backups")],
    ids=["zone", "number"],
)
def test_a_value_that_cannot_be_right_is_said_and_removes_nothing(
    program: Program, options: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    program.plain().create_backup_now()
    before = program.names()
    plain = program.plain(**options)
    assert plain.create_backup_now() is None
    assert plain.restore_backup(before[0]) is False
    assert (plain.list_backups(), plain.get_last_backup_display()) == ([], "—")
    assert caplog.text.count(reason) == 4
    assert program.names() == before


def test_what_a_killed_run_left_is_cleared_by_the_next(program: Program) -> None:
    for draft in (
        program.backups / ".draft-backup_20260101_000000.db",
        program.database.with_name(".draft-app.db"),
        program.database.with_name(".draft-app.db.before_restore_20260101_000000"),
    ):
        draft.mkdir(parents=True)
        (draft / "app.db").write_text("half")
    (program.database.parent / ".draft-another.db").mkdir()
    assert program.plain().create_backup_now()
    assert program.litter() == [program.database.parent / ".draft-another.db"]


# Restores


def test_a_restore_brings_the_content_back_and_keeps_what_was_there_beside_it(program: Program) -> None:
    made = program.plain().create_backup_now()
    assert made
    program.write("second")
    assert program.plain().restore_backup(made) is True
    assert program.notes() == ["first"]
    assert program.notes(program.database.with_name("app.db.before_restore_20260304_093000")) == ["first", "second"]
    assert len(program.litter()) == 1


def test_two_restores_in_one_second_keep_two_copies(program: Program) -> None:
    made = program.plain().create_backup_now()
    assert made
    assert program.plain().restore_backup(made) and program.plain().restore_backup(str(made))
    assert len(list(program.database.parent.glob("app.db.before_restore_*"))) == 2


def test_a_backup_may_be_named_without_its_folder(program: Program) -> None:
    made = program.plain().create_backup_now()
    program.write("second")
    assert made and program.plain().restore_backup(made.name)
    assert program.notes() == ["first"]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_inode_mode_and_journal_mode_of_the_database_stay(tmp_path: Path, mode: str) -> None:
    program = Program(tmp_path / "program", mode)
    program.database.chmod(0o640)
    made = program.plain().create_backup_now()
    before = program.database.stat()
    assert made and program.plain().restore_backup(made)
    after = program.database.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    with contextlib.closing(program.connect()) as live:
        assert live.execute("PRAGMA journal_mode").fetchone() == (mode,)


@pytest.mark.parametrize("disaster", [lose, empty, break_header, break_page], ids=lambda one: one.__name__)
def test_a_database_that_is_lost_or_broken_does_not_stop_a_restore(
    program: Program, disaster: Callable[[Program], None]
) -> None:
    made = program.plain().create_backup_now()
    assert made
    disaster(program)
    ruin = program.database.read_bytes() if program.database.exists() else None
    assert program.plain().restore_backup(made) is True
    assert program.notes() == ["first"]
    kept = program.database.with_name("app.db.before_restore_20260304_093000")
    assert (kept.read_bytes() if kept.exists() else None) == ruin


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE songs (title TEXT)")


def in_use(path: Path) -> None:
    Program(path.parent / "other").database.rename(path)
    path.with_name(path.name + "-wal").write_bytes(b"committed, and not in the file yet")


def torn(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as one, one:
        one.execute("CREATE TABLE notes (text TEXT)")
        one.executemany("INSERT INTO notes VALUES (?)", [("x" * 1000,)] * 100)
    os.truncate(path, path.stat().st_size - 5000)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: None,
        lambda path: path.write_text("not a database"),
        lambda path: path.touch(),
        lambda path: path.mkdir(),
        torn,
        foreign,
        in_use,
    ],
    ids=["missing", "text", "empty", "folder", "torn", "foreign", "in use"],
)
def test_what_is_no_backup_of_ours_is_refused_before_anything_is_touched(
    program: Program, tmp_path: Path, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    given = tmp_path / "given.db"
    spoil(given)
    before = program.notes()
    assert program.plain().restore_backup(given) is False
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(given) in caplog.text
    assert program.notes() == before
    assert program.litter() == []


def test_a_backup_of_other_tables_in_our_own_folder_is_ours(program: Program) -> None:
    made = program.plain().create_backup_now()
    with contextlib.closing(program.connect()) as live, live:
        live.execute("ALTER TABLE notes RENAME TO remarks")
    assert made and program.plain().restore_backup(made) is True
    assert program.notes() == ["first"]


def test_a_database_of_another_application_id_is_refused_wherever_it_lies(program: Program) -> None:
    with contextlib.closing(program.connect()) as live:
        live.execute("PRAGMA application_id=7")
        made = program.plain().create_backup_now()
        live.execute("PRAGMA application_id=8")
    assert made and program.plain().restore_backup(made) is False


def altered(backup: Path) -> Path:
    """Alter one bit of a value in the backup, which no check of SQLite sees."""
    content = backup.read_bytes()
    assert b"first" in content
    backup.write_bytes(content.replace(b"first", b"girst"))
    return backup


def test_a_backup_that_is_not_as_it_was_written_is_refused_and_nothing_changes(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    found = altered(made(program))
    program.write("second")
    for given in (found, found.name):
        assert program.plain().restore_backup(given) is False
    assert caplog.text.count(f"{found} is not as it was written; nothing was changed. Restore another backup") == 2
    assert program.notes() == ["first", "second"]
    assert program.litter() == []


def test_an_altered_backup_is_restored_as_it_is_under_another_name(program: Program, tmp_path: Path) -> None:
    found = altered(made(program))
    for copy in (program.backups / "backup_20260101_000000.db", tmp_path / found.name):
        shutil.copy(found, copy)
        program.write("second")
        assert program.plain().restore_backup(copy) is True
        assert program.notes() == ["girst"]


def test_a_whole_folder_that_was_copied_elsewhere_keeps_its_checksums(program: Program, tmp_path: Path) -> None:
    found = made(program)
    shutil.copytree(program.backups, tmp_path / "stick")
    assert program.plain().restore_backup(tmp_path / "stick" / found.name) is True
    assert program.plain().restore_backup(altered(tmp_path / "stick" / found.name)) is False
    assert program.plain().restore_backup(found) is True


def test_a_backup_that_was_looked_into_is_as_it_was_written(program: Program) -> None:
    found = made(program)
    with contextlib.closing(sqlite3.connect(found)) as backup:
        backup.execute("PRAGMA integrity_check")
        assert backup.execute("SELECT text FROM notes").fetchall() == [("first",)]
    assert program.plain().restore_backup(found) is True


def test_a_backup_without_a_checksum_is_restored_as_it_is(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    found = altered(made(program))
    program.checksums.unlink()
    assert program.plain().restore_backup(found) is True
    assert caplog.text == ""
    program.now += timedelta(days=1)
    made(program)
    assert program.plain().restore_backup(found) is True


def test_the_checksums_are_those_of_the_files_that_are_there(program: Program) -> None:
    for _ in range(3):
        made(program, max_backups=2)
        program.now += timedelta(days=1)
    assert program.plain().create_backup_if_needed()
    (program.backups / program.names()[0]).unlink()
    made(program)
    sums = {name: hashlib.sha256((program.backups / name).read_bytes()).hexdigest() for name in program.names()}
    assert json.loads(program.checksums.read_text()) == sums
    assert len(sums) == 3


def test_the_live_database_is_not_restored_onto_itself(program: Program) -> None:
    link = program.database.with_name("link.db")
    os.link(program.database, link)
    assert program.plain().restore_backup(link) is False
    assert program.notes() == ["first"]


def test_a_restore_onto_a_locked_database_is_false_and_changes_nothing(program: Program) -> None:
    made = program.plain().create_backup_now()
    program.write("second")
    with contextlib.closing(program.connect()) as live:
        live.execute("BEGIN IMMEDIATE")
        assert made and program.plain().restore_backup(made) is False
    assert program.notes() == ["first", "second"]


# Two databases in one folder


@pytest.fixture
def contacts(program: Program) -> Program:
    """A second database beside the first, with tables of its own; they share the backups and settings."""
    return Program(program.database.parent, name="contacts.db", table="contacts")


def made(program: Program, **options: Any) -> Path:
    found = program.plain(**options).create_backup_now()
    assert found
    return found


def test_a_backup_of_one_database_is_none_of_the_other(program: Program, contacts: Program) -> None:
    first = program.plain().create_backup_if_needed()
    assert contacts.listed() == []
    assert contacts.plain().get_last_backup_display() == "—"
    second = contacts.plain().create_backup_if_needed()
    assert first and second and first.parent == second.parent
    assert (program.listed(), contacts.listed()) == ([first.name], [second.name])
    assert contacts.plain().create_backup_if_needed() is None
    assert program.plain().create_backup_if_needed() is None


def test_the_last_backup_is_that_of_the_database_that_is_asked_for(program: Program, contacts: Program) -> None:
    made(contacts)
    program.now += timedelta(days=1)
    made(program)
    assert program.said_last() == "2026-03-05T09:30:00+01:00"
    assert contacts.plain().get_last_backup_display() == "04/03/2026 09:30"
    assert program.plain().get_last_backup_display() == "05/03/2026 09:30"


def test_a_database_removes_no_backup_of_another(program: Program, contacts: Program) -> None:
    only = made(contacts, max_backups=2)
    program.now += timedelta(minutes=1)
    for _ in range(5):
        made(program, max_backups=2)
    assert only.exists()
    assert len(program.listed()) == 2
    assert len(program.names()) == 3


def test_a_backup_of_the_other_database_is_refused_by_name_and_says_whose_it_is(
    program: Program, contacts: Program, caplog: pytest.LogCaptureFixture
) -> None:
    other = made(program)
    for given in (other, other.name):
        assert contacts.plain().restore_backup(given) is False
    assert caplog.text.count(f"{other} is a backup of {program.database}") == 2
    assert contacts.notes() == ["first"]


def test_a_backup_of_a_database_of_the_same_tables_can_be_put_into_the_other(program: Program) -> None:
    copy = Program(program.database.parent, name="copy.db")
    program.write("second")
    assert copy.plain().restore_backup(made(program)) is True
    assert copy.notes() == ["first", "second"]


def test_protected_goes_back_to_its_own_backup(program: Program, contacts: Program) -> None:
    with pytest.raises(ZeroDivisionError), protected("drop", on=contacts.plain(), rollback=True) as operation:
        program.now += timedelta(minutes=1)
        made(program)
        with contextlib.closing(contacts.connect()) as live, live:
            live.execute("ALTER TABLE contacts RENAME TO people")
        raise ZeroDivisionError
    assert operation.outcome == "rolled back"
    assert contacts.notes() == ["first"]


def test_protected_goes_back_though_nothing_could_be_recorded(program: Program, contacts: Program) -> None:
    made(program)
    link(program.record)
    with pytest.raises(ZeroDivisionError), protected("drop", on=contacts.plain(), rollback=True) as operation:
        with contextlib.closing(contacts.connect()) as live, live:
            live.execute("ALTER TABLE contacts RENAME TO people")
        raise ZeroDivisionError
    assert operation.outcome == "rolled back"


def test_the_record_names_the_database_beside_the_folder_and_forgets_what_is_gone(program: Program) -> None:
    first = made(program)
    assert json.loads(program.record.read_text()) == {first.name: "../app.db"}
    first.unlink()
    program.now += timedelta(days=1)
    second = made(program)
    assert json.loads(program.record.read_text()) == {second.name: "../app.db"}


def test_a_folder_behind_a_link_and_a_name_of_any_bytes_are_recorded(tmp_path: Path) -> None:
    program = Program(tmp_path / "program", name=os.fsdecode(b"caf\xe9.db"))
    (tmp_path / "far" / "away").mkdir(parents=True)
    program.backups.symlink_to(tmp_path / "far" / "away")
    first = made(program)
    other = Program(tmp_path / "program", name="other.db")
    assert (program.listed(), other.listed()) == ([first.name], [])
    second = made(program, max_backups=1)
    assert program.names() == [second.name]


# Renamed and moved databases


def test_backups_of_a_name_that_is_gone_are_not_those_of_the_new_name(program: Program, contacts: Program) -> None:
    old = made(program)
    program.database.rename(program.database.with_name("memo.db"))
    program.database = program.database.with_name("memo.db")
    assert program.listed() == []
    program.now += timedelta(days=1)
    for _ in range(3):
        made(program, max_backups=1)
    assert old.exists()
    assert program.plain().restore_backup(old) is True


def test_database_and_backups_moved_together_stay_together(program: Program, contacts: Program, tmp_path: Path) -> None:
    mine, other = made(program, max_backups=1), made(contacts)
    program.database.parent.rename(tmp_path / "moved")
    program = Program.__new__(Program)
    moved = tmp_path / "moved"
    program.database, program.backups, program.table = moved / "app.db", moved / "backups", "notes"
    program.now = MORNING + timedelta(days=1)
    assert program.listed() == [mine.name]
    made(program, max_backups=1)
    assert program.names() == [other.name, "backup_20260305_093000.db"]


def test_a_database_that_is_moved_alone_finds_its_backups_and_removes_none_of_the_old_place(
    program: Program, tmp_path: Path
) -> None:
    kept = program.backups
    old = made(program)
    (tmp_path / "new").mkdir()
    program.database = program.database.rename(tmp_path / "new" / "app.db")
    program.now += timedelta(days=1)
    assert [entry["path"] for entry in program.plain(backups=kept).list_backups()] == [old]
    for _ in range(3):
        made(program, backups=kept, max_backups=1)
    assert old.exists() and len(program.names()) == 2


def test_two_databases_of_one_name_share_a_folder(tmp_path: Path) -> None:
    here, there, kept = Program(tmp_path / "here"), Program(tmp_path / "there"), tmp_path / "kept"
    only = made(here, backups=kept)
    assert there.plain(backups=kept).create_backup_if_needed()
    assert [entry["path"] for entry in here.plain(backups=kept).list_backups()] == [only]
    here.database.unlink()  # lost: only its backups are left
    there.now += timedelta(days=1)
    for _ in range(3):
        made(there, backups=kept, max_backups=1)
    assert only.exists()
    assert len(list(kept.glob("backup_*.db"))) == 2


# Backups without a record


def copied_in(program: Program, *names: str) -> list[Path]:
    """Return backups as an older version of this toolkit made them, or as copied in by hand: without a record."""
    found = made(program)
    program.record.unlink()
    return [Path(shutil.copy(found, program.backups / name)) for name in names] + [found]


def test_what_is_not_recorded_counts_as_before(program: Program) -> None:
    copied_in(program, "backup_20260101_000000.db", "backup_20260102_000000.db")
    assert len(program.listed()) == 3
    assert program.plain().create_backup_if_needed() is None
    shutil.rmtree(program.record.parent)
    program.now += timedelta(days=1)
    made(program, max_backups=2)
    assert program.names() == ["backup_20260304_093000.db", "backup_20260305_093000.db"]


def test_what_is_not_recorded_is_removed_by_nobody_where_two_databases_have_records(
    program: Program, contacts: Program
) -> None:
    old = copied_in(program, "backup_20260101_000000.db")
    program.now = contacts.now = MORNING + timedelta(days=1)
    made(contacts)
    for one in (program, contacts, program, contacts):
        made(one, max_backups=1)
    assert all(path.exists() for path in old)
    assert len(program.names()) == len(old) + 2


def test_what_is_not_recorded_is_judged_by_its_tables_where_another_database_has_records(
    program: Program, contacts: Program
) -> None:
    old = copied_in(program)[0]
    program.now += timedelta(days=1)
    made(program)
    assert contacts.plain().restore_backup(old) is False
    assert contacts.notes() == ["first"]


# Unusable records


def link(record: Path) -> None:
    record.unlink()
    record.symlink_to(record.parent / "nowhere.json")


def linked_folder(record: Path) -> None:
    state = record.parent.rename(record.parent.with_name("elsewhere"))
    record.parent.symlink_to(state)


def folder(record: Path) -> None:
    record.unlink()
    record.mkdir()


def fifo(record: Path) -> None:
    record.unlink()
    os.mkfifo(record)


def garbage(text: str) -> Callable[[Path], object]:
    return lambda record: record.write_text(text)


GARBAGE = ["{", "", "[]", "7", '{"a": 7}', '{"a": null}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', "[" * 100_000]


@pytest.mark.parametrize(
    "spoil",
    [link, linked_folder, folder, fifo, *map(garbage, GARBAGE)],
    ids=["link", "linked folder", "folder", "fifo", *(f"garbage {number}" for number in range(len(GARBAGE)))],
)
def test_a_record_that_cannot_be_read_fails_no_backup_and_loses_none(
    program: Program, contacts: Program, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    only = made(contacts)
    spoil(program.record)
    before = facts(program.record)
    program.now += timedelta(days=1)
    for _ in range(3):
        made(program, max_backups=1)
    assert only.exists() and len(program.names()) == 4
    assert len(program.listed()) == 4  # without the record, nothing tells them apart
    assert caplog.text.count("The database of this backup could not be recorded") == 3
    assert facts(program.record) == before
    assert contacts.plain().restore_backup(only) is True


@pytest.mark.parametrize(
    "spoil",
    [link, folder, fifo, *map(garbage, [*GARBAGE, '{"a": "b"}'])],
    ids=["link", "folder", "fifo", *(f"garbage {number}" for number in range(len(GARBAGE) + 1))],
)
def test_checksums_that_cannot_be_read_hold_up_no_backup_and_no_restore(
    program: Program, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    first = made(program)
    spoil(program.checksums)
    before = facts(program.checksums)
    program.now += timedelta(days=1)
    made(program)
    assert caplog.text.count("The checksum of this backup could not be recorded") == 1
    assert facts(program.checksums) == before
    assert program.plain().restore_backup(first) is True
    assert caplog.text.count(f"{first} could not be compared with its checksum") == 1
    assert program.notes() == ["first"]


def facts(path: Path) -> tuple[int, int]:
    return path.lstat().st_ino, path.lstat().st_mtime_ns


def test_a_record_that_may_not_be_read_fails_no_backup_and_loses_none(tmp_path: Path) -> None:
    program = Program(tmp_path / "program", "delete")
    contacts = Program(tmp_path / "program", "delete", "contacts.db", "contacts")
    only = made(contacts)
    program.record.chmod(0)
    code = "import sys, backupkit\nfor _ in range(3): print(backupkit.create_backup_now(sys.argv[1], max_backups=1))"
    child = ran(code, program, *without_privileges())
    assert "None" not in child.stdout
    assert child.stderr.count("could not be recorded") == 3
    assert only.exists() and len(program.names()) == 4


def test_a_record_that_cannot_be_written_fails_no_backup(
    program: Program, contacts: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_file = disk.write_file

    def refuse(path: Path, *given: Any, **named: Any) -> None:
        if path.name == "databases.json":
            raise OSError(28, "No space left on device", str(path))
        write_file(path, *given, **named)

    only = made(contacts)
    monkeypatch.setattr(disk, "write_file", refuse)
    program.now += timedelta(days=1)
    for _ in range(3):
        made(program, max_backups=1)
    assert caplog.text.count("could not be recorded") == 3
    assert only.exists() and len(program.names()) == 4


# Concurrent calls


def test_threads_of_two_databases_that_ask_at_once_make_one_of_each(program: Program, contacts: Program) -> None:
    ready = threading.Barrier(8)

    def ask(one: Program) -> None:
        ready.wait()
        one.plain(timeout=30).create_backup_if_needed()

    threads = [threading.Thread(target=ask, args=[one]) for one in (program, contacts) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(program.listed()), len(contacts.listed()), len(program.names())) == (1, 1, 2)


def test_a_backup_that_another_database_makes_meanwhile_is_not_taken_for_its_own(
    program: Program, contacts: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = os.listdir

    def late(folder: Path) -> list[str]:
        monkeypatch.undo()
        made(contacts)
        return names(folder)

    contacts.backups.mkdir()
    monkeypatch.setattr(os, "listdir", late)
    assert program.listed() == []
    assert len(contacts.listed()) == 1


def test_a_backup_that_is_removed_meanwhile_is_not_listed(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    first, names = made(program), os.listdir
    made(program)

    def early(folder: Path) -> list[str]:
        monkeypatch.undo()
        found = names(folder)
        first.unlink()
        return found

    monkeypatch.setattr(os, "listdir", early)
    assert len(program.listed()) == 1


MAKE = """
import sys
from backupkit import PlainDatabase
plain = PlainDatabase(sys.argv[1], timeout=60, max_backups=3)
print("ready", flush=True)
sys.stdin.readline()
made = [plain.create_backup_now() for _ in range(6)]
listed = [len(plain.list_backups()) for _ in range(20)]
print(None not in made, max(listed))
"""


def test_processes_of_two_databases_at_once_keep_the_newest_of_each(program: Program, contacts: Program) -> None:
    children = [started(MAKE, one.database) for one in (program, contacts) * 2]
    for child in children:
        assert child.stdout and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60)[0].strip() for child in children]
    assert all(answer.startswith("True") for answer in answers), answers
    assert (len(program.listed()), len(contacts.listed()), len(program.names())) == (3, 3, 6)
    assert all(program.notes(program.backups / name) == ["first"] for name in program.listed())
    assert all(contacts.notes(program.backups / name) == ["first"] for name in contacts.listed())


# Killed processes

KILLED = """
import os, sys
from backupkit import PlainDatabase
plain = PlainDatabase(sys.argv[1], max_backups=1, timezone="UTC")
(backup,) = plain.list_backups()
left = int(sys.argv[3])
changing = {f"os.{name}" for name in ("chmod", "chown", "mkdir", "remove", "rename", "rmdir")} | {"sqlite3.connect"}

def hook(event, given):
    global left
    if event in changing or (event == "open" and (given[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
        left -= 1
        if not left:
            os._exit(9)

sys.addaudithook(hook)
print(plain.create_backup_now() if sys.argv[2] == "create" else plain.restore_backup(backup["path"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", ["create", "restore"])
def test_killed_at_any_change_of_a_file_all_that_has_a_name_is_whole(tmp_path: Path, call: str) -> None:
    for point in chance.onwards(f"plain {call} killed"):
        program = Program(tmp_path / str(point))
        program.plain().create_backup_now()
        program.write("second")
        child = started(KILLED, program.database, call, str(point))
        child.communicate(timeout=60)
        contents = [program.notes(), *(program.notes(path) for path in program.backups.glob("backup_*.db"))]
        contents += [program.notes(path) for path in program.database.parent.glob("app.db.before_restore_*")]
        assert all(content in (["first"], ["first", "second"]) for content in contents), point
        assert call == "restore" or program.notes() == ["first", "second"]
        program.now += timedelta(days=1)
        assert program.plain().create_backup_now(), point
        assert [path for path in program.litter() if ".before_restore_" not in path.name] == [], point
        if child.returncode == 0:
            break
        assert child.returncode == 9
    assert point > 10


KILLED_WITH_ANOTHER = KILLED.replace("(backup,) = plain.list_backups()", "")


@pytest.mark.slow
def test_killed_at_any_change_of_a_file_each_backup_is_of_its_own_database(tmp_path: Path) -> None:
    for point in chance.onwards("plain killed beside another"):
        program = Program(tmp_path / str(point))
        contacts = Program(tmp_path / str(point), name="contacts.db", table="contacts")
        only = made(contacts)
        child = started(KILLED_WITH_ANOTHER, program.database, "create", str(point))
        child.communicate(timeout=60)
        assert contacts.listed() == [only.name], point
        assert [program.notes(program.backups / name) for name in program.listed()] in ([], [["first"]]), point
        program.now = contacts.now = MORNING + timedelta(days=1)
        made(program, max_backups=1), made(contacts)
        for record in (program.record, program.checksums):
            assert set(json.loads(record.read_text())) == set(program.names()), point
        assert not list(program.record.parent.glob(".draft-*")), point
        assert len(contacts.listed()) == 2
        if child.returncode == 0:
            break
        assert child.returncode == 9
    assert point > 10


# Inside the program's own process

IS_LOCKED = """
import sqlite3, sys
live = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    live.execute(sys.argv[2])
    print("free")
except sqlite3.OperationalError as error:
    print(error)
"""


def seen_by_another_process(database: Path, statement: str) -> str:
    command = [sys.executable, "-c", IS_LOCKED, database, statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def every_call(program: Program) -> list[object]:
    plain = program.plain()
    return [
        plain.create_backup_now(),
        plain.create_backup_if_needed(),
        plain.list_backups(),
        plain.restore_backup(program.backups / "backup_20260101_000000.db"),
        plain.get_last_backup_display(),
    ]


@pytest.mark.parametrize(
    ("mode", "lock", "question"),
    [
        ("delete", "BEGIN IMMEDIATE", "BEGIN IMMEDIATE"),
        ("delete", "BEGIN EXCLUSIVE", "SELECT * FROM notes"),
        ("wal", "BEGIN IMMEDIATE", "BEGIN IMMEDIATE"),
    ],
    ids=["reserved", "exclusive", "wal"],
)
def test_the_programs_own_locks_outlive_every_call(tmp_path: Path, mode: str, lock: str, question: str) -> None:
    program = Program(tmp_path / "program", mode)
    earlier = program.plain(clock=lambda: datetime(2026, 1, 1, tzinfo=UTC), timezone="UTC").create_backup_now()
    assert earlier and earlier.name == "backup_20260101_000000.db"
    with contextlib.closing(program.connect()) as live:
        live.execute(lock)
        live.execute("INSERT INTO notes VALUES ('uncommitted')")
        assert seen_by_another_process(program.database, question) == "database is locked"
        answers = every_call(program)
        assert seen_by_another_process(program.database, question) == "database is locked"
        live.commit()
    assert answers[3] is False
    assert program.notes() == ["first", "uncommitted"]
    assert seen_by_another_process(program.database, question) == "free"


def test_no_call_opens_the_live_files_but_through_sqlite(program: Program) -> None:
    """Closing a second handle would drop the locks of every connection in the process."""
    code = """
import os, sys
from backupkit import PlainDatabase
opened = []
live = {sys.argv[1] + end for end in ("", "-wal", "-shm", "-journal")}
sys.addaudithook(lambda event, given: opened.append(given[0]) if event == "open" and given[0] in live else None)
plain = PlainDatabase(sys.argv[1])
made = plain.create_backup_now()
plain.create_backup_if_needed(), plain.list_backups(), plain.get_last_backup_display()
assert plain.restore_backup(made)
print(opened)
"""
    child = started(code, program.database)
    assert child.communicate(timeout=60)[0] == "[]\n"


def test_connections_of_sqlalchemy_go_on_and_see_what_was_restored(program: Program) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{program.database}")
    with engine.connect() as reading, engine.connect() as writing:
        assert reading.exec_driver_sql("SELECT count(*) FROM notes").scalar() == 1
        writing.exec_driver_sql("INSERT INTO notes VALUES ('uncommitted')")
        made = program.plain().create_backup_now()
        writing.rollback()
        reading.rollback()
        writing.exec_driver_sql("INSERT INTO notes VALUES ('second')")
        writing.commit()
        assert made and program.plain().restore_backup(made)
        assert reading.exec_driver_sql("SELECT text FROM notes").scalars().all() == ["first"]
        reading.rollback()
        writing.exec_driver_sql("INSERT INTO notes VALUES ('third')")
        writing.commit()
    engine.dispose()
    assert program.notes() == ["first", "third"]
