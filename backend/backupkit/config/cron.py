"""Times that come again, as crontab(5) writes them: `minute hour day month weekday`, in five fields.

A value, a list, a range, a step, `*`; names of months and weekdays; 0 and 7 are Sunday; `@daily` and the like. Where
both day and weekday are restricted, either is enough, as in every cron.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time, timedelta
from functools import cache

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LONGEST = 8 * 366 + 1  # days from one 29 February to the next, where a century is no leap year
_A_LEAP_YEAR = date(2096, 1, 1)


@dataclass(frozen=True)
class Cron:
    """One expression. `either` means that day and weekday are both restricted."""

    text: str
    times: tuple[time, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool = False

    @property
    def every_hour(self) -> bool:
        """Whether it comes in each hour of its days: then it follows the clock on the wall and not the calendar."""
        return len({one.hour for one in self.times}) == 24

    def on(self, day: date) -> bool:
        """Whether it comes on that day."""
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (by_date or by_weekday if self.either else by_date and by_weekday)


@cache
def parse_cron(text: str) -> Cron:
    """The times that are written so; `ValueError` says what is wrong with them."""
    fields = _SHORT.get(text.strip().lower(), text).lower().split()
    if len(fields) != 5:
        raise ValueError("has not the five fields of cron: minute hour day month weekday")
    minutes = _field(fields[0], 0, 59)
    hours = _field(fields[1], 0, 23)
    days, months = _field(fields[2], 1, 31), _field(fields[3], 1, 12, _MONTHS)
    weekdays = frozenset(number % 7 for number in _field(fields[4], 0, 7, _WEEKDAYS))
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    times = tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes))
    cron = Cron(" ".join(text.split()), times, days, months, weekdays, either)
    if not any(cron.on(_A_LEAP_YEAR + timedelta(number)) for number in range(LONGEST)):
        raise ValueError(f"{cron.text!r} never comes")
    return cron


def _field(text: str, first: int, last: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    return frozenset(number for part in text.split(",") for number in _part(part, first, last, names))


def _part(text: str, first: int, last: int, names: tuple[str, ...]) -> range:
    body, slash, step = text.partition("/")
    begin, dash, end = body.partition("-")
    if body == "*":
        low, high = first, last
    else:
        low = _number(begin, first, last, names)
        high = _number(end, first, last, names) if dash else last if slash else low
    if slash and not (step.isascii() and step.isdigit() and int(step)):
        raise ValueError(f"has a bad step in {text!r}")
    if high == 0 and names is _WEEKDAYS and low:
        high = 7  # fri-sun
    if high < low:
        raise ValueError(f"has a range that goes backwards, {body!r}")
    return range(low, high + 1, int(step) if slash else 1)


def _number(text: str, first: int, last: int, names: tuple[str, ...]) -> int:
    if text in names:
        return names.index(text) + (1 if names is _MONTHS else 0)
    if not (text.isascii() and text.isdigit() and first <= int(text) <= last):
        raise ValueError(f"has {text!r} where a number from {first} to {last} is wanted")
    return int(text)


def parse_time(text: str) -> time:
    """A time of day, `02:00`; `ValueError` for anything else."""
    hour, _, minute = text.partition(":")
    for part, limit in ((hour, 23), (minute, 59)):
        if not (part.isascii() and part.isdigit() and len(part) <= 2 and int(part) <= limit):
            raise ValueError("is not a time of day like 02:00")
    return time(int(hour), int(minute))


def daily(at: time) -> Cron:
    """Every day at that time."""
    return parse_cron(f"{at.minute} {at.hour} * * *")
