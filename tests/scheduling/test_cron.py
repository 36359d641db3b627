"""Cron expressions are read as crontab(5) describes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from backupkit.config.cron import check_cron, parse_time, times

MONDAY = datetime(2026, 6, 15, tzinfo=UTC)
WEEK = [MONDAY + timedelta(number) for number in range(7)]


def came(text: str, since: datetime, days: int) -> Iterator[datetime]:
    found = times(check_cron(text), ZoneInfo("UTC"), since - timedelta(seconds=1))
    return takewhile(lambda one: one < since + timedelta(days), found)


def days(text: str) -> str:
    """Return the weekdays on which it comes, as letters."""
    found = {one.date() for one in came(text, MONDAY, 7)}
    return "".join(letter if day.date() in found else "-" for letter, day in zip("MTWTFSS", WEEK, strict=True))


@pytest.mark.parametrize(
    ("weekday", "expected"),
    [
        ("*", "MTWTFSS"),
        ("0", "------S"),
        ("7", "------S"),
        ("1", "M------"),
        ("mon-fri", "MTWTF--"),
        ("1-5", "MTWTF--"),
        ("sat,SUN", "-----SS"),
        ("fri-sun", "----FSS"),
        ("5-7", "----FSS"),
        ("wed,fri-0/2", "--W-F-S"),
        ("sun-sun", "------S"),
        ("*/2", "-T-T-SS"),
        ("sun-tue", "MT----S"),
    ],
)
def test_sunday_is_0_and_7_and_monday_is_1(weekday: str, expected: str) -> None:
    assert days(f"0 2 * * {weekday}") == expected


def test_a_day_and_a_weekday_are_either_enough_and_a_star_is_no_restriction() -> None:
    assert days("0 2 16 * fri") == "-T--F--"
    assert days("0 2 */1 * fri") == days("0 2 * * fri") == "----F--"
    assert days("0 2 16 * *") == "-T-----"
    assert days("0 2 16 jul fri") == "-------"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 2 * * *", ["02:30"]),
        ("0,30 1-2 * * *", ["01:00", "01:30", "02:00", "02:30"]),
        ("0 */8 * * *", ["00:00", "08:00", "16:00"]),
        ("0 20/2 * * *", ["20:00", "22:00"]),
        ("@daily", ["00:00"]),
    ],
)
def test_the_times_of_a_day(text: str, expected: list[str]) -> None:
    assert [f"{one:%H:%M}" for one in came(text, MONDAY, 1)] == expected


@given(some.integers(0, 59), some.integers(0, 23), some.integers(1, 28), some.integers(1, 12))
def test_numbers_mean_themselves(minute: int, hour: int, day: int, month: int) -> None:
    found = list(came(f"{minute} {hour} {day} {month} *", datetime(2026, 1, 1, tzinfo=UTC), 365))
    assert found == [datetime(2026, month, day, hour, minute, tzinfo=UTC)]


NEVER = ("0 0 31 2 *", "0 0 31 4,6 *", "* * */20 * 1L")
OUT_OF_RANGE = (
    "60 * * * *",
    "* 24 * * *",
    "* * 0 * *",
    "* * * 13 *",
    "* * * * 8",
    "-1 * * * *",
    "5-1 * * * *",
    "5-0 * * * *",
    "* * 5-0 * *",
)
NO_NUMBER = ("x * * * *", "*/0 * * * *", "*/x * * * *", "1- * * * *", "1,,2 * * * *", "\u0663 * * * *")


@pytest.mark.parametrize("text", ["", "* * * *", "* * * * * *", "@often", *OUT_OF_RANGE, *NO_NUMBER, *NEVER])
def test_what_is_no_expression_or_never_comes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        check_cron(text)


@given(some.text("019*/,-L#w @sunjfb", max_size=20), some.sampled_from("mhdMw"))
def test_whatever_is_typed_is_a_time_or_a_value_error(field: str, place: str) -> None:
    with contextlib.suppress(ValueError):
        check_cron(" ".join(field.replace(" ", "") if one == place else "*" for one in "mhdMw"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 2 * *", "must have five cron fields: minute hour day month weekday"),
        ("61 * * * *", "has a bad minute"),
        ("0 2 * * sam", "has a bad day-of-week"),
        ("* * */20 * 1L", "never comes"),
    ],
)
def test_it_is_said_what_is_wrong_with_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        check_cron(text)


def test_a_leap_day_comes() -> None:
    (found,) = came("0 0 29 2 *", MONDAY, 3 * 365)
    assert found.date() == date(2028, 2, 29)


@pytest.mark.parametrize("text", ["", "2", "24:00", "02:60", "2:0x", "02:00:00", "-1:00", "\u0660\u0662:00"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


def test_a_time_of_day_is_read() -> None:
    assert parse_time("2:05") == time(2, 5)
