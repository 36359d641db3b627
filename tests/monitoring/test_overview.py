"""The overview: the calendar by days of the zone, sizes that add up, the last test restores."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, BackupRequest, Metadata
from backupkit.model.operation import Operation, Who
from backupkit.monitoring.overview import Day, overview
from backupkit.monitoring.status import Facts, judge, look
from backupkit.repository.history import History
from backupkit.verify.verify import verify_backups
from small_app import NOON, SmallApp

MONDAY = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Pago_Pago"]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ANNA = Who("anna", 1, "host")


def settings_in(zone: str) -> Settings:
    return Settings(app_dir=Path("/srv/app"), timezone=zone, dir=Path("/srv/app/backups"))


def made(name: str, moment: datetime, **changes: object) -> Backup:
    about = {key: changes.pop(key) for key in ("kind", "app_id") if key in changes}
    metadata = Metadata(name, "", moment, None, "pats.db", True, **about)  # type: ignore[arg-type]
    known = {"state": "checked", "size_bytes": 100, "unique_bytes": 10, **changes}
    return Backup(Path("/srv/app/backups") / name, metadata, **known)  # type: ignore[arg-type]


def done(command: str, moment: datetime, *names: str, outcome: str = "success", error: str = "") -> Operation:
    mark = f"{moment.isoformat()} {command}"
    return Operation(mark, command, moment, ANNA, moment, outcome, backups=names, error=error)  # type: ignore[arg-type]


def days(
    zone: str, now: datetime, backups: Iterable[Backup] = (), history: Iterable[Operation] = ()
) -> dict[date, Day]:
    newest_first = tuple(sorted(history, key=lambda one: one.started_at, reverse=True))
    facts = Facts(now, tuple(backups), History(newest_first))
    return {day.date: day for day in overview(settings_in(zone), facts).days}


# The calendar


def test_the_calendar_is_thirteen_weeks_from_a_monday_to_today() -> None:
    found = overview(settings_in("UTC"), Facts(MONDAY + 3 * DAY))
    assert found.days[0].date == date(2026, 3, 23) and found.days[0].date.weekday() == 0
    assert found.days[-1].date == date(2026, 6, 18)
    assert [len(week) for week in found.weeks] == [7] * 12 + [4]
    assert len(overview(settings_in("UTC"), Facts(MONDAY), weeks=2).days) == 8


def test_each_day_has_the_best_that_is_known_of_it() -> None:
    backups = [
        made("proven", MONDAY - 1 * DAY, state="proven"),
        made("beside", MONDAY - 1 * DAY, state="damaged"),
        made("sound", MONDAY - 2 * DAY),
        made("broken", MONDAY - 3 * DAY, state="damaged"),
        made("first", MONDAY - 9 * DAY),
    ]
    history = [
        done("backup", MONDAY - 2 * DAY, outcome="failure"),
        done("backup", MONDAY - 4 * DAY, "pruned since"),
        done("backup", MONDAY - 5 * DAY, outcome="failure"),
        done("backup", MONDAY - 5 * DAY + HOUR, outcome="interrupted"),
        done("backup", MONDAY - 6 * DAY, outcome="refused"),
        done("push", MONDAY - 7 * DAY, outcome="failure"),
        done("backup", MONDAY - 9 * DAY, "first"),
    ]
    found = days("UTC", MONDAY, backups, history)
    marks = [found[(MONDAY - number * DAY).date()].mark for number in range(11)]
    assert marks[:5] == ["open", "proven", "made", "damaged", "removed"]
    assert marks[5:] == ["failed", "missed", "missed", "missed", "made", "before"]
    yesterday, tried = found[date(2026, 6, 14)], found[date(2026, 6, 10)]
    assert (yesterday.backups, yesterday.proven, yesterday.damaged) == (("proven", "beside"), 1, 1)
    assert (tried.failures, found[date(2026, 6, 13)].failures) == (2, 1)
    assert found[date(2026, 6, 11)].removed == 1 and found[date(2026, 6, 6)].removed == 0


@pytest.mark.parametrize("changes", [{"kind": "pre_restore"}, {"app_id": "another"}], ids=["safety copy", "another's"])
def test_what_the_status_does_not_rely_on_fills_no_day(changes: dict[str, object]) -> None:
    first = made("first", MONDAY - 2 * DAY)
    found = days("UTC", MONDAY, [made("one", MONDAY - DAY, **changes), first])
    assert found[date(2026, 6, 14)].mark == "missed"


def test_days_without_a_backup_are_counted_from_the_first_to_yesterday() -> None:
    facts = Facts(MONDAY, (made("first", MONDAY - 5 * DAY), made("later", MONDAY - 2 * DAY)))
    missing = overview(settings_in("UTC"), facts).days_without
    assert missing == (date(2026, 6, 11), date(2026, 6, 12), date(2026, 6, 14))
    assert overview(settings_in("UTC"), Facts(MONDAY)).days_without == ()


@pytest.mark.parametrize(
    ("zone", "moment", "day"),
    [
        ("Europe/Berlin", "2026-03-28T23:30:00+00:00", "2026-03-29"),  # the start of the day of 23 hours
        ("Europe/Berlin", "2026-03-29T21:59:59+00:00", "2026-03-29"),  # and its end, an hour earlier than usual
        ("Europe/Berlin", "2026-03-29T22:00:00+00:00", "2026-03-30"),
        ("Europe/Berlin", "2026-10-25T22:59:59+00:00", "2026-10-25"),  # the day of 25 hours
        ("Europe/Berlin", "2026-10-25T23:00:00+00:00", "2026-10-26"),
        ("Pacific/Kiritimati", "2026-06-14T10:00:00+00:00", "2026-06-15"),
        ("Pacific/Pago_Pago", "2026-06-15T10:59:59+00:00", "2026-06-14"),
    ],
)
def test_a_backup_stands_on_its_day_in_the_zone(zone: str, moment: str, day: str) -> None:
    at = datetime.fromisoformat(moment)
    found = days(zone, at + 2 * DAY, [made("one", at)])
    assert [one.date.isoformat() for one in found.values() if one.backups] == [day]


@given(
    zone=st.sampled_from(ZONES),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    ages=st.lists(st.floats(0, 120), max_size=20),
)
def test_every_day_is_there_once_and_every_backup_of_these_weeks_on_one(
    zone: str, now: datetime, ages: list[float]
) -> None:
    settings = settings_in(zone)
    backups = [made(str(number), now - age * DAY) for number, age in enumerate(ages)]
    found = overview(settings, Facts(now, tuple(backups))).days
    assert [day.date for day in found] == [found[0].date + number * DAY for number in range(len(found))]
    assert found[-1].date == settings.local(now).date() and found[0].date.weekday() == 0
    placed = sorted(name for day in found for name in day.backups)
    local = {one.name: settings.local(now - age * DAY).date() for one, age in zip(backups, ages, strict=True)}
    assert placed == sorted(name for name, day in local.items() if day >= found[0].date)


# The sizes


def test_the_sizes_add_up_to_those_of_the_status() -> None:
    backups = (
        made("third", MONDAY, size_bytes=400, unique_bytes=7),
        replace(made("nobody knows when", MONDAY, size_bytes=1000, unique_bytes=1000), metadata=None, state="damaged"),
        made("second", MONDAY - DAY, size_bytes=300, unique_bytes=5, kind="pre_restore"),
        made("first", MONDAY - 2 * DAY, size_bytes=200, unique_bytes=200),
    )
    facts, settings = Facts(MONDAY, backups), settings_in("UTC")
    found = overview(settings, facts).sizes
    assert [(one.backup, one.size_bytes, one.total_bytes, one.unique_bytes) for one in found] == [
        ("first", 200, 1200, 1200),
        ("second", 300, 1500, 1205),
        ("third", 400, 1900, 1212),
    ]
    numbers = judge(settings, facts).numbers
    assert (found[-1].total_bytes, found[-1].unique_bytes) == (numbers.total_bytes, numbers.unique_bytes)
    assert overview(settings, Facts(MONDAY)).sizes == ()


# The test restores


def test_test_restores_are_told_by_the_history_and_where_that_is_lost_by_the_backups() -> None:
    backups = (
        made("told", MONDAY - DAY, state="proven", proven_at=MONDAY - 1 * HOUR, recovery_seconds=2.0),
        made("known", MONDAY - DAY, state="proven", proven_at=MONDAY - 3 * HOUR, recovery_seconds=4.0),
    )
    history = (
        done("test-restore", MONDAY - 1 * HOUR, "told"),
        done("test-restore", MONDAY - 2 * HOUR, "bad", outcome="failure", error="It was not."),
        done("test-restore", MONDAY - 4 * HOUR, outcome="refused"),
        done("verify", MONDAY - 5 * HOUR, "told"),
    )
    found = overview(settings_in("UTC"), Facts(MONDAY, backups, History(history))).test_restores
    assert [(one.backups, one.outcome, one.seconds, one.error) for one in found] == [
        (("told",), "success", None, ""),
        (("bad",), "failure", None, "It was not."),
        (("known",), "success", 4.0, ""),
    ]


def test_a_real_test_restore_is_seen(app: SmallApp) -> None:
    made = create_backup(app.settings, BackupRequest("one"), clock=lambda: NOON).backup
    verify_backups(app.settings, [made], test_restore=True, clock=lambda: NOON + HOUR)
    found = overview(app.settings, look(app.settings, lambda: NOON + 2 * HOUR))
    (proof,) = found.test_restores
    assert (proof.at, proof.backups, proof.outcome) == (NOON + HOUR, ("one",), "success")
    assert found.days[-1].mark == "proven" and found.sizes[-1].size_bytes == made.size_bytes
