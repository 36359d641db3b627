"""The scheduler: a year of it with a simulated clock, and the real process, controlled by signals."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import chance
from backupkit.backup.create import create_backup
from backupkit.cli import daemon
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, BackupRequest
from backupkit.model.errors import NoSpace, Refused
from backupkit.model.events import EventListener
from backupkit.monitoring.status import status
from backupkit.repository import history, lock, store
from backupkit.scheduling.run import RunStep, StepReport
from refusals import run_here
from small_app import BACKEND, COMMAND, NOON, SmallApp, clean_environment

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAST_BACKUP = {"BACKUP_BACKUP_ON_SHUTDOWN": "true", "BACKUP_SHUTDOWN_TIMEOUT": "60"}  # long enough for a busy machine


# A simulated clock: the real scheduler, and backups that consist of metadata only


class World:
    """The time, and a scheduler in it; `made` holds the moments of its backups."""

    def __init__(self, app: SmallApp, now: datetime, **changed: object) -> None:
        self.app, self.now = app, now
        self.settings = Settings(**{**app.settings.values(), "test_schedule": "", **changed})
        self.made: list[datetime] = []
        self.tested: list[datetime] = []
        self.error: Exception | None = None
        self.test_trouble: Exception | None = None
        self.start()

    def start(self) -> None:
        """Start the scheduler, as after a boot."""
        self.daemon = daemon.Daemon(self.settings, lambda: self.settings, lambda: self.now, self.wait)
        self.daemon.begin()

    def wait(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += timedelta(seconds=max(seconds, 1))

    def until(self, moment: datetime) -> None:
        while self.now < moment:
            self.daemon.turn()

    def steps(self, _settings: Settings, task: str, _clock: object) -> list[RunStep]:
        return [RunStep(task, self.back_up if task == "backup" else self.test)]

    def back_up(self, _done: Mapping[str, StepReport], _tell: EventListener) -> StepReport:
        if self.error:
            raise self.error
        self.made.append(self.now)
        name = f"scheduled_{len(self.made)}"
        folder = self.app.backups / name
        folder.mkdir()
        about = {"backup_name": name, "timestamp": "", "created_at": self.now.isoformat(), "kind": "scheduled"}
        rest = {
            "alembic_revision": None,
            "database_file": "pats.db",
            "uploads_included": False,
            "backup_version": "1.0",
        }
        (folder / "backup_metadata.json").write_text(json.dumps(about | rest))
        shutil.rmtree(self.app.backups / f"scheduled_{len(self.made) - 3}", ignore_errors=True)
        return StepReport("Made.", backup=Backup(folder, None, "unchecked"))

    def test(self, _done: Mapping[str, StepReport], _tell: EventListener) -> StepReport:
        self.tested.append(self.now)
        if self.test_trouble:
            raise self.test_trouble
        return StepReport("Restored.")


@pytest.fixture
def world(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Return the function `world(now, setting=value …)` that starts a `World`."""
    worlds: list[World] = []

    monkeypatch.setattr(daemon, "TICK", 6 * 3600)
    monkeypatch.setattr(daemon, "_steps", lambda *arguments: worlds[-1].steps(*arguments))

    def begin(now: datetime, **changed: object) -> World:
        made = World.__new__(World)
        worlds.append(made)
        made.now = now
        made.__init__(app, now, **changed)  # type: ignore[misc]
        return made

    return begin


CLOCKS = [
    ("Europe/Berlin", "02:30"),
    ("America/New_York", "02:00"),
    ("America/Santiago", "00:00"),
    ("Australia/Lord_Howe", "02:15"),
    ("Asia/Kathmandu", "02:00"),
    ("Africa/Cairo", "00:30"),
]


@pytest.mark.parametrize(("zone", "at"), chance.cases(CLOCKS, "years of the scheduler"))
def test_a_year_of_the_scheduler_has_exactly_one_backup_a_day(world: Callable[..., World], zone: str, at: str) -> None:
    place = ZoneInfo(zone)
    here = world(datetime(2025, 12, 31, 23, 30, tzinfo=place).astimezone(UTC), timezone=zone, backup_time=at)
    here.until(datetime(2027, 1, 1, tzinfo=place).astimezone(UTC))
    days = [one.astimezone(place).date() for one in here.made]
    assert days == [date(2025, 12, 31) + timedelta(number) for number in range(366)], "the first one at its start"
    late = [one for one in here.made[1:] if f"{one.astimezone(place):%H:%M:%S}" != f"{at}:00"]
    assert len(late) <= 1, "but on the day without that time"


def test_a_year_of_power_failures_has_each_missed_backup_once_as_soon_as_the_machine_is_up(
    world: Callable[..., World],
) -> None:
    choose, place = random.Random(1), ZoneInfo("Europe/Berlin")
    here = world(datetime(2026, 1, 1, tzinfo=place).astimezone(UTC), timezone=place.key)
    end = here.now + 365 * DAY
    outages = 0
    while here.now < end:
        here.until(here.now + timedelta(hours=choose.uniform(1, 60)))
        before, here.now = len(here.made), here.now + timedelta(hours=choose.uniform(0.1, 60))
        here.start()
        missed = any(slot > here.made[-1] for slot in slots(place, here.made[-1], here.now))
        here.until(here.now + timedelta(seconds=1))
        assert len(here.made) - before == missed
        outages += missed
    assert outages > 50
    for earlier, later in zip(here.made, here.made[1:], strict=False):
        assert len(slots(place, earlier, later)) >= 1, "never two for one day"


def slots(place: ZoneInfo, since: datetime, until: datetime) -> list[datetime]:
    """Return each day's 02:00 in between; if the clock skips it, 03:00, when the run comes instead."""
    first = since.astimezone(place).date()
    days = (first + timedelta(number) for number in range((until - since).days + 2))
    found = (datetime(day.year, day.month, day.day, 2, tzinfo=place).astimezone(UTC) for day in days)
    return [one for one in found if since < one <= until]


def test_a_clock_that_is_set_back_or_forward_neither_doubles_nor_stops_the_backups(
    world: Callable[..., World],
) -> None:
    here = world(NOON)
    here.until(NOON + 3 * DAY)
    made = len(here.made)
    here.now -= 2 * HOUR
    here.until(here.now + 12 * HOUR)
    assert len(here.made) == made
    here.now += 40 * HOUR
    here.until(here.now + timedelta(seconds=1))
    assert len(here.made) == made + 1
    here.now -= 20 * DAY  # backups made meanwhile are now dated in the future
    here.daemon.turn()
    here.until(here.now + 3 * DAY)
    assert len(here.made) >= made + 3


def test_test_restores_come_each_week_and_one_that_fails_is_not_repeated_before_the_next(
    world: Callable[..., World],
) -> None:
    here = world(NOON, test_schedule="30 4 * * sun")
    here.until(NOON + 15 * DAY)
    assert [f"{one:%a %H:%M}" for one in here.tested] == ["Mon 12:00", "Sun 04:30", "Sun 04:30"]
    here.test_trouble = NoSpace("Full.")
    here.until(NOON + 26 * DAY)
    assert len(here.tested) == 4


# Errors, and the memory of them


@pytest.mark.parametrize(
    "error", [NoSpace("Full."), OSError(5, "Input/output error", "/x"), ZeroDivisionError("a bug")]
)
def test_a_run_that_fails_is_tried_again_and_the_scheduler_goes_on(
    world: Callable[..., World], error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    here = world(NOON)
    here.error = error
    here.until(NOON + 2 * HOUR)
    assert here.made == []
    said = capsys.readouterr().err
    assert said.count("\nError: ") == 4  # at noon, and 15, 45 and 105 minutes later
    assert "again, after 4 that failed" in said and "Traceback" not in said
    here.error = None
    here.until(NOON + 20 * HOUR)
    assert here.made == [NOON + timedelta(minutes=225), NOON + 14 * HOUR]


def test_a_scheduler_that_starts_again_remembers_what_failed_before(world: Callable[..., World], app: SmallApp) -> None:
    away = app.database.rename(app.database.with_name("away"))
    with running(app) as scheduler:
        scheduler.says("again, after 1 that failed")
        scheduler.end()
    away.rename(app.database)
    failed = datetime.now(UTC)
    here = world(failed + timedelta(minutes=1), backup_time=f"{failed + 12 * HOUR:%H:%M}")  # not near this test's time
    here.until(failed + timedelta(minutes=14))
    assert here.made == []
    here.until(failed + timedelta(minutes=16))
    assert len(here.made) == 1


def test_a_failed_run_is_told_and_pinged_like_one_of_cron(app: SmallApp) -> None:
    from listener import listening_service

    app.database.unlink()
    with (
        listening_service() as service,
        running(app, BACKUP_NOTIFY_URLS=service.notify(), BACKUP_PING_URL=service.page()),
    ):
        wait_until(lambda: len(service.pings) == 2 and len(service.messages) >= 1)
        assert service.pings == ["/check/start", "/check/fail"]
        assert "There is no database" in service.messages[0]["message"]


# Settings


def test_changed_settings_are_in_force_at_once(world: Callable[..., World]) -> None:
    here = world(NOON)
    here.until(NOON + HOUR)
    here.settings = here.settings.replaced(backup_time="20:00")
    (here.app.folder / "backup.toml").write_text("# changed")
    here.until(NOON + 9 * HOUR)
    assert here.made == [NOON, NOON + 8 * HOUR]
    here.settings = here.settings.replaced(enabled=False)
    (here.app.folder / "backup.toml").write_text("# once more")
    here.until(NOON + 9 * DAY)
    assert len(here.made) == 2


def test_an_invalid_file_is_said_once_and_the_last_good_settings_go_on(
    world: Callable[..., World], capsys: pytest.CaptureFixture[str]
) -> None:
    here = world(NOON)

    def refuse() -> Settings:
        raise Refused("backup_time 'noon' is not a time of day.", hint="Mend it.")

    here.daemon._load = refuse
    here.until(NOON + 3 * DAY)
    assert len(here.made) == 4
    assert capsys.readouterr().err.count("is not a time of day") == 1


# The real process

KILLED_RESTORE = """
import os, sys
from pathlib import Path
from backupkit.restore import journal
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.config.settings import load_settings
write = journal.write
def write_and_die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), 9)
journal.write = write_and_die
settings = load_settings(Path(sys.argv[1]))
restore_backup(settings, plan_restore(settings, sys.argv[2], force=True))
"""

SHIFTED = f"""
import sys
from datetime import datetime, timedelta
from pathlib import Path
sys.path.insert(0, {str(BACKEND)!r})
from backupkit.cli.daemon import Daemon
from backupkit.config.settings import load_settings
AHEAD = datetime.fromisoformat(sys.argv[1]) - datetime.now().astimezone()
load = lambda: load_settings(Path(sys.argv[2]))
sys.exit(Daemon(load(), load, lambda: datetime.now().astimezone() + AHEAD).serve())
"""


class Process:
    """A running scheduler; its output goes to a file."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self.child, self._log = child, log

    @property
    def said(self) -> str:
        return self._log.read_text()

    def says(self, text: str) -> None:
        wait_until(lambda: text in self.said or self.child.poll() is not None)
        assert text in self.said

    def end(self, number: int = signal.SIGTERM) -> int:
        self.child.send_signal(number)
        return self.child.wait(60)


@contextlib.contextmanager
def running(app: SmallApp, *command: str, **changed: str) -> Iterator[Process]:
    """Run a scheduler for this app; kill it at the end of the block if it is still running."""
    log = app.folder / "said"
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "BACKUP_TEST_SCHEDULE": "", **changed}
    with log.open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, *(command or (str(COMMAND), "schedule"))],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        yield Process(child, log)
    finally:
        child.kill()
        child.wait()


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def names(app: SmallApp) -> list[str]:
    return [one.name for one in store.all_backups(app.settings)]


def just_made(app: SmallApp, moment: datetime | None = None) -> None:
    """Make a scheduled backup, so that none is due."""
    create_backup(app.settings, BackupRequest(kind="scheduled"), clock=lambda: moment or datetime.now(UTC))


def test_a_backup_is_made_at_its_time(app: SmallApp) -> None:
    just_made(app, NOON - HOUR)
    early = NOON + 14 * HOUR - timedelta(seconds=4)  # 01:59:56
    with running(app, "-c", SHIFTED, early.isoformat(), str(app.folder)) as scheduler:
        scheduler.says("Next backup: 2026-06-16 02:00:00 UTC")
        assert len(names(app)) == 1
        scheduler.says("prune ")
        assert scheduler.end() == 0
    assert len(names(app)) == 2 and names(app)[0].startswith("scheduled_20260616_0200")


def test_a_backup_that_was_missed_is_made_at_the_start_and_not_again(app: SmallApp) -> None:
    just_made(app, datetime.now(UTC) - 3 * DAY)
    for _ in range(2):
        with running(app) as scheduler:
            scheduler.says("Next backup: ")
            assert scheduler.end() == 0
        assert len(names(app)) == 2
    assert not (app.backups / ".lock").read_bytes()
    steps = [one.command for one in history.read(app.backups).operations if one.who.through == "scheduler"]
    assert steps == ["prune", "verify", "backup"]


@pytest.mark.parametrize("by_itself", [False, True], ids=["told to end", "the app ended"])
def test_beside_an_app_in_one_container_both_end_together(app: SmallApp, by_itself: bool) -> None:
    just_made(app)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), **LAST_BACKUP}
    stop = app.folder / "stop"
    wait_for_it = f"trap 'exit 7' TERM; until [ -e '{stop}' ]; do sleep 0.1; done; exit 7"
    log = app.folder / "said"
    with log.open("wb") as said:
        both = subprocess.Popen(
            ["sh", "with_scheduler.sh", "sh", "-c", wait_for_it],
            cwd=BACKEND,
            env={**environment, "PATH": path, "BACKUP_TEST_SCHEDULE": ""},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        wait_until(lambda: "Next backup: " in log.read_text())
        with lock.held(app.backups, "a run that the last backup waits for", 0):
            stop.touch() if by_itself else both.send_signal(signal.SIGTERM)
            wait_until(lambda: "Making a backup before the end." in log.read_text())
            time.sleep(0.5)  # now the app has ended, and the scheduler got its second signal
        assert both.wait(60) == 7
    finally:
        both.kill()
    assert "The scheduler has ended." in log.read_text()
    assert len(names(app)) == 2


@pytest.mark.needs("script")
def test_at_a_terminal_it_runs_too_and_ctrl_c_ends_it(app: SmallApp) -> None:
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "TERM": "xterm"}
    program = f"exec {sys.executable} {COMMAND} schedule"  # without exec, Ctrl-C would kill the shell in between
    command = ["script", "-qec", program, "/dev/null"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True, errors="replace") as terminal:
        assert terminal.stdout and terminal.stdin
        said = ""
        while "Next test restore: " not in said:
            line = terminal.stdout.readline()
            assert line, said
            said += line
        terminal.stdin.write("\x03")
        terminal.stdin.flush()
        said += terminal.stdout.read()
    assert terminal.returncode == 0, said
    assert "The scheduler has ended." in said and "Traceback" not in said and "Error" not in said
    assert [one.state for one in store.all_backups(app.settings)] == ["proven"]


def test_a_test_restore_proves_the_first_backup(app: SmallApp) -> None:
    with running(app, BACKUP_TEST_SCHEDULE="30 4 * * sun") as scheduler:
        scheduler.says("Test restore of ")
        scheduler.end()
    (made,) = store.all_backups(app.settings)
    assert made.state == "proven"


def test_being_told_to_end_makes_a_last_backup_where_that_is_asked(app: SmallApp) -> None:
    just_made(app)
    with running(app, **LAST_BACKUP) as scheduler:
        scheduler.says("Next backup: ")
        assert scheduler.end() == 0
        assert "Making a backup before the end." in scheduler.said
    assert len(names(app)) == 2
    with running(app, **LAST_BACKUP) as scheduler:
        scheduler.says("Next backup: ")
        assert scheduler.end(signal.SIGINT) == 0  # Ctrl-C: a person ends it, without a last backup
    with running(app) as scheduler:
        scheduler.says("Next backup: ")
        assert scheduler.end() == 0
    assert len(names(app)) == 2


def test_a_last_backup_that_fails_is_the_exit_code(app: SmallApp) -> None:
    just_made(app)
    with running(app, **LAST_BACKUP) as scheduler:
        scheduler.says("Next backup: ")
        app.database.unlink()
        assert scheduler.end() == 13


@contextlib.contextmanager
def long_backup(app: SmallApp) -> Iterator[None]:
    """Keep the database locked during the block, so that a backup takes as long."""
    app.execute("PRAGMA journal_mode=DELETE")
    with contextlib.closing(app.connect()) as live:
        live.isolation_level = None
        live.execute("BEGIN EXCLUSIVE")
        yield


def test_a_run_under_way_is_interrupted_and_nothing_is_left_half_done(app: SmallApp) -> None:
    with running(app) as scheduler, long_backup(app):
        wait_until(lambda: lock.is_held(app.backups))
        assert scheduler.end() == 0
        assert "It was interrupted; nothing is left half done." in scheduler.said
        assert "Traceback" not in scheduler.said
    assert names(app) == [] and not [path for path in app.backups.iterdir() if path.name.startswith(".draft")]
    (told,) = (one for one in history.read(app.backups).operations if one.command == "backup")
    assert told.outcome == "interrupted"


def test_a_backup_under_way_is_finished_where_one_is_wanted_at_the_end(app: SmallApp) -> None:
    with running(app, **LAST_BACKUP) as scheduler:
        with long_backup(app):
            scheduler.says("Due now: backup")
            scheduler.child.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert scheduler.child.poll() is None
        assert scheduler.child.wait(60) == 0
    assert len(names(app)) == 1 and "Making a backup before the end." not in scheduler.said


def test_a_backup_at_the_end_takes_no_longer_than_it_may(app: SmallApp) -> None:
    just_made(app)
    with running(app, BACKUP_BACKUP_ON_SHUTDOWN="true", BACKUP_SHUTDOWN_TIMEOUT="1") as scheduler:
        scheduler.says("Next backup: ")
        with long_backup(app):
            assert scheduler.end() == 130
        assert "The backup did not end within 1 s: see BACKUP_SHUTDOWN_TIMEOUT" in scheduler.said
    assert len(names(app)) == 1


def test_a_changed_file_is_read_without_a_restart_and_at_once_when_told_so(app: SmallApp) -> None:
    just_made(app)
    file = app.folder / "backup.toml"
    with running(app) as scheduler:
        scheduler.says("Next backup: ")
        file.write_text('schedule = ["0 5 * * *"]')
        scheduler.child.send_signal(signal.SIGHUP)
        scheduler.says("(0 5 * * *)")
        file.write_text('backup_time = "25:00"')
        scheduler.says("goes on with the settings that it has")  # noticed without a signal
        assert "backup_time" in scheduler.said and str(file) in scheduler.said
        scheduler.child.send_signal(signal.SIGHUP)
        file.write_text('backup_time = "05:30"')
        scheduler.says("(30 5 * * *)")
        assert scheduler.said.count("25:00") == 1
        scheduler.end()


def test_a_second_scheduler_is_refused_and_names_the_first(app: SmallApp) -> None:
    just_made(app)
    with running(app) as scheduler:
        scheduler.says("Next backup: ")
        result = app.command("schedule", env={"BACKUP_LOCK_TIMEOUT": "0"}, check=11)
        assert "A scheduler is running already: schedule (" in result.err
        assert f"pid {scheduler.child.pid}" in result.err
        assert "Wait for it" not in result.err and "changed settings from backup.toml by itself" in result.err
        scheduler.end()


def test_a_restore_that_was_killed_is_finished_when_the_scheduler_starts(app: SmallApp) -> None:
    just_made(app)
    before = app.contents()
    app.add_rows(5)
    (name,) = names(app)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RESTORE, str(app.folder), name],
        env={**clean_environment(), "PYTHONPATH": str(BACKEND)},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with running(app) as scheduler:
        scheduler.says("Next backup: ")
        scheduler.end()
    assert app.contents().rows == before.rows


# Output


def test_the_list_shows_the_next_runs_and_says_where_no_scheduler_is_at_work(app: SmallApp) -> None:
    just_made(app)
    result = run_here(app, "schedule", "--list", check=0)
    head, *rows = result.out.splitlines()
    assert head.split() == ["WHEN", "WHAT", "WHY"] and len(rows) == 10
    assert sum("02:00:00 UTC  backup" in row for row in rows) == 8
    assert "No scheduler is running" in result.err
    document = run_here(app, "schedule", "--list", "--json", check=0).json
    assert [sorted(one) for one in document] == [["at", "schema_version", "task", "why"]] * 10
    assert run_here(app, "schedule", "--list", env={"BACKUP_ENABLED": "false"}, check=0).out.startswith(
        "Nothing is scheduled"
    )


def test_the_scheduler_itself_has_nothing_to_show_as_json(app: SmallApp) -> None:
    assert "--list" in run_here(app, "schedule", "--json", check=2).err


@pytest.mark.parametrize(
    "changed",
    [
        {"BACKUP_TIME": "26:00"},
        {"SCHEDULE": "0 2 * *"},
        {"SCHEDULE": "0 0 31 2 *"},
        {"TEST_SCHEDULE": "sundays"},
        {"JITTER": "-1"},
        {"ENABLED": "perhaps"},
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_by_its_name(app: SmallApp, changed: dict[str, str]) -> None:
    ((name, value),) = changed.items()
    result = run_here(app, "schedule", "--list", env={f"BACKUP_{name}": value}, check=2)
    assert re.match(rf"Error: BACKUP_{name} = '{re.escape(value)}': .+\.\n", result.err), result.err


def test_several_expressions_are_written_in_a_row_or_as_a_list(app: SmallApp) -> None:
    wanted = ["0 2 * * *", "0 14 * * mon-fri"]
    (app.folder / "backup.toml").write_text(f"schedule = {json.dumps(wanted)}")
    assert run_here(app, "config", "--json", check=0).json["schedule"]["value"] == wanted
    for between in (";", " ; ", "\n"):
        found = run_here(app, "config", "--json", env={"BACKUP_SCHEDULE": between.join(wanted)}, check=0).json
        assert found["schedule"]["value"] == wanted


def test_the_status_shows_the_next_run_of_a_scheduler_at_work_and_expects_its_interval(app: SmallApp) -> None:
    just_made(app)
    assert status(app.settings).numbers.next_run_at is None
    with running(app, BACKUP_SCHEDULE="0 0 1 1 *") as scheduler:
        scheduler.says("Next backup: ")
        yearly = run_here(app, "status", "--json", env={"BACKUP_SCHEDULE": "0 0 1 1 *"}, check=0).json
        assert datetime.fromisoformat(yearly["next_run_at"]).strftime("%m-%d %H:%M") == "01-01 00:00"
        assert "next run   planned, " in run_here(app, "status", check=0).out
        scheduler.end()
    assert run_here(app, "status", "--json", check=0).json["next_run_at"] is None
    hourly = run_here(app, "status", "--json", env={"BACKUP_SCHEDULE": "@hourly"}, check=0).json
    assert hourly["expected_interval_seconds"] == 3600
    told = {"BACKUP_SCHEDULE": "@hourly", "BACKUP_EXPECTED_INTERVAL": "9"}
    assert run_here(app, "status", "--json", env=told, check=0).json["expected_interval_seconds"] == 9 * 3600


def test_the_health_turns_when_backups_stop_succeeding(app: SmallApp) -> None:
    def health() -> int:
        check = f"{sys.executable} {COMMAND} status >/dev/null || [ $? -eq 1 ]"
        environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "BACKUP_SCHEDULE": "@hourly"}
        return subprocess.run(["sh", "-c", check], env=environment, check=False).returncode

    assert health() == 1
    just_made(app, datetime.now(UTC) - 2 * HOUR)
    assert health() == 0, "late is not critical yet"
    shutil.rmtree(app.backups)
    app.backups.mkdir()
    just_made(app, datetime.now(UTC) - 3 * HOUR)
    assert health() == 1
    just_made(app)
    assert health() == 0


def test_a_scheduler_that_waits_has_no_open_database_and_uses_no_time(app: SmallApp) -> None:
    with running(app) as scheduler:
        scheduler.says("Next backup: ")
        handles = [os.readlink(path) for path in Path(f"/proc/{scheduler.child.pid}/fd").iterdir()]
        assert not [one for one in handles if str(app.database) in one]
        scheduler.end()
