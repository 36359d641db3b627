"""Recurring times, as crontab(5) writes them: `minute hour day month weekday`, in five fields.

cronsim parses them, by the rules of Debian's cron; this adds `@daily` and the like, and ranges that end with Sunday.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LONGEST_LEAP = timedelta(hours=3)  # the most by which a change of the clock moves it


def check_cron(text: str) -> str:
    """Return the expression with one space between its fields; raise `ValueError` with what is wrong with it."""
    if len(_fields(text).split()) != 5:  # cronsim would accept a sixth, for seconds
        raise ValueError("must have five cron fields: minute hour day month weekday")
    try:
        next(CronSim(_fields(text), datetime(2096, 1, 1)))
    except CronSimError as error:
        raise ValueError(f"has a {str(error).lower()}") from error
    except StopIteration:
        raise ValueError("never comes") from None
    return " ".join(text.split())


def times(text: str, zone: ZoneInfo, at: datetime, reverse: bool = False) -> Iterator[datetime]:
    """Yield each time after `at`, in UTC; with `reverse` each one up to and including `at`, the latest first."""
    # If a change of the clock repeats a time, cronsim takes `at` for the first one, and would miss those in between.
    begin = at + _LONGEST_LEAP if reverse else at
    found = (one.astimezone(UTC) for one in CronSim(_fields(text), begin.astimezone(zone), reverse))
    return (one for one in found if (one <= at if reverse else one > at))


def _fields(text: str) -> str:
    text = text.strip().lower()
    return re.sub(r"(?<=[a-z1-6])(?<!sun)-(sun|0)(?=[,/]\S*$|$)", "-7", _SHORT.get(text, text))  # fri-sun


def parse_time(text: str) -> time:
    """Return the time of day in a text like `02:00`; raise `ValueError` for anything else."""
    hour, _, minute = text.partition(":")
    for part, limit in ((hour, 23), (minute, 59)):
        if not (part.isascii() and part.isdigit() and len(part) <= 2 and int(part) <= limit):
            raise ValueError("is not a time of day like 02:00")
    return time(int(hour), int(minute))
