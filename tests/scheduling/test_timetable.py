"""When the next run is due, and why: by the calendar of the zone, and by past runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, Metadata
from backupkit.model.operation import Operation, Who
from backupkit.scheduling.planner import (
    DueRun,
    RunHistory,
    following,
    longest_gap,
    next_due,
    preceding,
    run_history_of,
    upcoming,
)
from small_app import NOON, SmallApp

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",  # skips midnight
    "Australia/Lord_Howe",  # shifts by half an hour
    "Asia/Kathmandu",  # 5:45 from UTC
    "Africa/Cairo",  # skips midnight into a Friday
    "Europe/Dublin",  # its winter time is the exception
    "Antarctica/Troll",  # shifts by two hours
]


def moments(zone: ZoneInfo, *rules: str, since: datetime, until: datetime) -> Iterator[datetime]:
    at = since
    while (at := following(rules, zone, at) or until) < until:
        yield at


def year_of(zone: ZoneInfo, *rules: str) -> list[datetime]:
    """Return every run of 2026, in the local calendar."""
    first, last = (datetime(year, 1, 1, tzinfo=zone).astimezone(UTC) for year in (2026, 2027))
    return list(moments(zone, *rules, since=first - timedelta(seconds=1), until=last))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("time", ["0 0", "30 0", "0 1", "30 1", "0 2", "15 2", "30 2", "0 3", "59 23"])
def test_each_day_of_a_year_has_exactly_one_run_wherever_the_clock_leaps(zone: str, time: str) -> None:
    place = ZoneInfo(zone)
    found = [one.astimezone(place).date() for one in year_of(place, f"{time} * * *")]
    assert found == [date(2026, 1, 1) + timedelta(number) for number in range(365)]


@pytest.mark.parametrize("zone", ZONES)
def test_a_run_of_every_hour_has_no_break_where_the_clock_is_changed(zone: str) -> None:
    days = [datetime(2026, 1, 1, 12, tzinfo=ZoneInfo(zone)) + timedelta(number) for number in range(365)]
    changes = [day for day, following_day in pairwise(days) if day.utcoffset() != following_day.utcoffset()]
    for day in changes or days[:1]:
        since = day.astimezone(UTC)
        found = list(moments(ZoneInfo(zone), "0,30 * * * *", since=since, until=since + DAY))
        assert found == [since + HOUR / 2 * number for number in range(1, 48)]


def test_a_time_that_is_leapt_over_comes_after_the_leap_and_one_that_comes_twice_the_first_time() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    local = {one.astimezone(berlin).isoformat() for one in year_of(berlin, "30 2 * * *")}
    assert "2026-03-29T03:00:00+02:00" in local
    assert "2026-10-25T02:30:00+02:00" in local and "2026-10-25T02:30:00+01:00" not in local


CHANGES = some.builds(
    lambda day, minutes: day + timedelta(minutes=minutes),
    some.sampled_from([datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 29), (4, 5), (10, 4), (10, 25))]),
    some.integers(-24 * 60, 24 * 60),
)


@settings(max_examples=300, deadline=None)
@given(
    some.sampled_from(ZONES),
    some.sampled_from(["0 2 * * *", "30 2 * * sun", "*/20 * * * *", "15 0,12 1 * *", "0 0 29 2 *"]),
    some.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=some.just(UTC)) | CHANGES,
)
def test_the_last_run_before_the_next_one_is_not_after_now(zone: str, rule: str, now: datetime) -> None:
    place, rules = ZoneInfo(zone), (rule,)
    before, after = preceding(rules, place, now), following(rules, place, now)
    assert before and after and before <= now < after
    assert preceding(rules, place, after) == after
    assert preceding(rules, place, after - timedelta(microseconds=1)) == before
    assert following(rules, place, before) == after


# Past runs, and runs that are due. NOON is 12:00 UTC on Monday, 15 June 2026.


def with_(app: SmallApp, **changed: object) -> Settings:
    return Settings(**{**app.settings.values(), "test_schedule": "", **changed})


def due(found: Settings, past: RunHistory, now: datetime = NOON) -> DueRun:
    (one,) = next_due(found, past, now)
    return one


def backed_up(ago: timedelta, **more: object) -> RunHistory:
    return replace(RunHistory({"backup": NOON - ago}), **more)  # type: ignore[arg-type]


def test_after_todays_backup_the_next_is_tomorrows(app: SmallApp) -> None:
    found = due(with_(app), backed_up(9 * HOUR))
    assert (found.at, found.why) == (NOON + 14 * HOUR, "0 2 * * *")


def test_a_run_that_was_missed_is_due_now_and_says_when_it_was_missed(app: SmallApp) -> None:
    found = due(with_(app), backed_up(20 * HOUR))
    assert (found.at, found.why) == (NOON - 10 * HOUR, "missed at 2026-06-15 02:00")
    assert due(with_(app), RunHistory()).why == "there is no scheduled one yet"


def test_however_many_were_missed_one_run_makes_up_for_all(app: SmallApp) -> None:
    assert due(with_(app), backed_up(90 * DAY)).at <= NOON
    assert due(with_(app), backed_up(timedelta(0))).at == NOON + 14 * HOUR


def test_a_failed_run_is_tried_again_later_and_later_but_the_next_regular_one_is_not_put_off(app: SmallApp) -> None:
    at = []
    failed: list[datetime] = [NOON - 10 * HOUR]
    for _ in range(8):
        found = due(with_(app), backed_up(30 * HOUR, failed={"backup": tuple(failed)}), failed[-1])
        at.append((found.at - failed[-1]) / timedelta(minutes=1))
        failed.append(found.at)
    assert at[:6] == [15, 30, 60, 120, 240, 480]
    assert failed[7] == NOON + 14 * HOUR, "the run of the next day is in its time, whatever failed before"


def test_a_backup_of_the_future_does_not_stop_the_timetable(app: SmallApp) -> None:
    found = with_(app)
    past = run_history_of(found, [scheduled(found, NOON + 400 * DAY), scheduled(found, NOON - 20 * HOUR)], [], NOON)
    assert past.last["backup"] == NOON - 20 * HOUR


@pytest.mark.parametrize(
    ("changes", "counts"),
    [({}, True), ({"state": "damaged"}, False), ({"kind": "manual"}, False), ({"app_id": "another"}, False)],
    ids=["sound", "damaged", "made by hand", "another app's"],
)
def test_a_sound_scheduled_backup_of_this_app_is_what_counts(
    app: SmallApp, changes: dict[str, str], counts: bool
) -> None:
    found = with_(app)
    assert ("backup" in run_history_of(found, [scheduled(found, NOON, **changes)], [], NOON).last) is counts


def scheduled(found: Settings, made: datetime, state: str = "checked", **changes: str) -> Backup:
    about = {"kind": "scheduled", "app_id": found.app_id, **changes}
    metadata = Metadata("x", "", made, None, "pats.db", True, **about)  # type: ignore[arg-type]
    return Backup(found.dir / "x", metadata, state)  # type: ignore[arg-type]


def test_the_history_tells_of_failures_of_the_scheduler_and_of_test_restores(app: SmallApp) -> None:
    def done(command: str, outcome: str, ago: timedelta, through: str = "scheduler") -> Operation:
        who = Who("anna", 1, "host", through)  # type: ignore[arg-type]
        return Operation(str(ago), command, NOON - ago, who, NOON - ago, outcome)  # type: ignore[arg-type]

    told = [
        done("backup", "failure", HOUR),
        done("backup", "failure", 2 * HOUR, "command"),
        done("backup", "interrupted", 3 * HOUR),
        done("test-restore", "failure", 4 * HOUR),
        done("test-restore", "success", 5 * HOUR),
        done("backup", "failure", 30 * HOUR),
    ]
    past = run_history_of(with_(app), [scheduled(with_(app), NOON - 25 * HOUR)], told, NOON)
    assert past.failed["backup"] == (NOON - 3 * HOUR, NOON - HOUR)
    assert past.last["test restore"] == NOON - 4 * HOUR


def test_expressions_of_cron_stand_instead_of_the_daily_time_and_any_of_them_counts(app: SmallApp) -> None:
    found = with_(app, schedule=("0 18 * * *", "0 13 * * mon"))
    assert due(found, backed_up(HOUR)).at == NOON + HOUR
    assert due(found, RunHistory({"backup": NOON + HOUR}), NOON + HOUR).at == NOON + 6 * HOUR


def test_the_calendar_is_that_of_the_zone(app: SmallApp) -> None:
    assert due(with_(app, timezone="Asia/Kathmandu"), backed_up(HOUR)).at == NOON + timedelta(hours=8, minutes=15)


@pytest.mark.parametrize("changed", [{"enabled": False}, {"automatic_daily": False}])
def test_what_is_switched_off_is_not_due(app: SmallApp, changed: dict[str, object]) -> None:
    assert next_due(with_(app, **changed), RunHistory(), NOON) == []
    assert next_due(with_(app, enabled=False, backup_on_start=True), RunHistory(started=NOON), NOON) == []


def test_without_the_daily_one_an_expression_still_comes(app: SmallApp) -> None:
    found = with_(app, automatic_daily=False, schedule="@hourly")
    assert due(found, backed_up(timedelta(0))).at == NOON + HOUR


def test_a_test_restore_is_due_each_week_after_the_backup_of_that_time(app: SmallApp) -> None:
    found = with_(app, test_schedule="0 2 * * *")
    assert [one.task for one in next_due(found, RunHistory(), NOON)] == ["backup", "test restore"]
    past = RunHistory({"backup": NOON, "test restore": NOON - 9 * HOUR})
    assert [one.at for one in next_due(found, past, NOON)] == [NOON + 14 * HOUR] * 2


def test_a_backup_at_the_start_is_not_made_again_and_again_by_a_scheduler_that_crashes(app: SmallApp) -> None:
    found = with_(app, backup_on_start=True)
    assert due(found, backed_up(5 * HOUR, started=NOON)).why == "at the start"
    assert due(found, backed_up(HOUR / 2, started=NOON)).at > NOON
    assert due(found, backed_up(timedelta(0), started=NOON - HOUR)).at > NOON


# Jitter


def test_jitter_puts_a_run_off_by_a_part_that_is_always_the_same_for_it_and_another_in_another_place(
    app: SmallApp,
) -> None:
    found = with_(app, jitter=3600)
    at = [due(found, backed_up(HOUR, seed=seed)).at for seed in "aab"]
    assert at[0] == at[1] != at[2]
    assert all(NOON + 14 * HOUR <= one < NOON + 15 * HOUR for one in at)
    slot = NOON + 14 * HOUR
    waiting = due(found, backed_up(HOUR, seed="a"), slot)
    assert waiting.at == at[0], "when its time has come, it is still put off"
    assert due(found, RunHistory({"backup": at[0]}, seed="a"), at[0]).at >= slot + DAY


def test_jitter_keeps_no_run_from_coming_however_often_it_comes(app: SmallApp) -> None:
    found = with_(app, schedule="* * * * *", jitter=3600)
    for number in range(20):
        slot = NOON + timedelta(minutes=number)
        one = due(found, RunHistory({"backup": slot - timedelta(seconds=1)}, seed="x"), slot)
        assert slot <= one.at < slot + timedelta(seconds=30)


# Upcoming runs, and the longest gap between backups


def test_the_next_runs_are_listed_in_their_order(app: SmallApp) -> None:
    found = upcoming(with_(app, test_schedule="0 13 * * *"), RunHistory({"test restore": NOON}), NOON, 5)
    assert [(one.task, one.at) for one in found] == [
        ("backup", NOON),
        ("test restore", NOON + HOUR),
        ("backup", NOON + 14 * HOUR),
        ("test restore", NOON + 25 * HOUR),
        ("backup", NOON + 38 * HOUR),
    ]


@pytest.mark.parametrize(
    ("schedule", "hours"),
    [("", 24), ("0 2 * * mon-fri", 72), ("*/10 9-17 * * *", 15 + 1 / 6), ("0 0 1 * *", 31 * 24), ("@hourly", 1)],
)
def test_the_longest_time_between_two_backups_of_a_timetable(app: SmallApp, schedule: str, hours: float) -> None:
    assert longest_gap(with_(app, schedule=schedule), NOON) == timedelta(hours=hours)


def test_where_nothing_is_planned_nothing_is_expected(app: SmallApp) -> None:
    assert longest_gap(with_(app, enabled=False), NOON) is None
