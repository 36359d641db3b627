"""Expressions of cron, as crontab(5) reads them."""

from __future__ import annotations

from datetime import date, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from backupkit.config.cron import daily, parse_cron, parse_time

MONDAY = date(2026, 6, 15)
WEEK = [MONDAY + timedelta(number) for number in range(7)]


def days(text: str) -> str:
    """The days of a week on which it comes, as letters."""
    cron = parse_cron(text)
    return "".join(letter if cron.on(day) else "-" for letter, day in zip("MTWTFSS", WEEK, strict=True))


@pytest.mark.parametrize(
    ("weekday", "came"),
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
        ("*/2", "-T-T-SS"),
        ("sun-tue", "MT----S"),
    ],
)
def test_sunday_is_0_and_7_and_monday_is_1(weekday: str, came: str) -> None:
    assert days(f"0 2 * * {weekday}") == came


def test_a_day_and_a_weekday_are_either_enough_and_a_star_is_no_restriction() -> None:
    assert days("0 2 16 * fri") == "-T--F--"
    assert days("0 2 */1 * fri") == days("0 2 * * fri") == "----F--"
    assert days("0 2 16 * *") == "-T-----"
    assert days("0 2 16 jul fri") == "-------"


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("30 2 * * *", ["02:30"]),
        ("0,30 1-2 * * *", ["01:00", "01:30", "02:00", "02:30"]),
        ("0 */8 * * *", ["00:00", "08:00", "16:00"]),
        ("0 20/2 * * *", ["20:00", "22:00"]),
        ("@daily", ["00:00"]),
    ],
)
def test_the_times_of_a_day(text: str, times: list[str]) -> None:
    assert [f"{one:%H:%M}" for one in parse_cron(text).times] == times


@given(some.integers(0, 59), some.integers(0, 23), some.integers(1, 28), some.integers(1, 12))
def test_numbers_mean_themselves(minute: int, hour: int, day: int, month: int) -> None:
    cron = parse_cron(f"{minute} {hour} {day} {month} *")
    came = [one for number in range(365) if cron.on(one := date(2026, 1, 1) + timedelta(number))]
    assert came == [date(2026, month, day)] and cron.times == (time(hour, minute),)


NEVER = ("0 0 31 2 *", "0 0 31 4,6 *")
OUT_OF_RANGE = ("60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "-1 * * * *", "5-1 * * * *")
NO_NUMBER = ("x * * * *", "*/0 * * * *", "*/x * * * *", "1- * * * *", "1,,2 * * * *", "\u0663 * * * *")


@pytest.mark.parametrize("text", ["", "* * * *", "* * * * * *", "@often", *OUT_OF_RANGE, *NO_NUMBER, *NEVER])
def test_what_is_no_expression_or_never_comes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_cron(text)


def test_a_leap_day_comes() -> None:
    assert parse_cron("0 0 29 2 *").on(date(2028, 2, 29))


@pytest.mark.parametrize("text", ["", "2", "24:00", "02:60", "2:0x", "02:00:00", "-1:00", "\u0660\u0662:00"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


def test_a_time_of_day_comes_every_day() -> None:
    assert daily(parse_time("2:05")).times == (time(2, 5),) and days("5 2 * * *") == "MTWTFSS"
