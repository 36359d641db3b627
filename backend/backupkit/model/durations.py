"""Lengths of time and times of the past, as people write and read them; `2y5m7d3h` as restic writes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from backupkit.model.errors import Refused
from backupkit.model.names import counted

_SPAN_TEXT = re.compile(r"(?:(\d{1,4})y)?(?:(\d{1,4})m)?(?:(\d{1,5})d)?(?:(\d{1,6})h)?")
LONG_AGO = datetime.min.replace(tzinfo=UTC)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def span(seconds: float) -> str:
    """Return `3 hours` or `1 day`: the largest unit of which there is at least one, rounded down."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return counted(int(seconds // size), unit)
    return "less than a minute"


def interval(seconds: float) -> str:
    """Return `24 hours`, `1.5 hours` or `15 minutes`."""
    number, unit = (seconds / 3600, "hour") if seconds >= 3600 else (seconds / 60, "minute")
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def ago(seconds: float) -> str:
    """Return `3 hours ago`, or `just now` for less than a minute."""
    return f"{span(seconds)} ago" if seconds >= 60 else "just now"


def at(text: str, now: datetime, zone: ZoneInfo) -> datetime:
    """Return a time of the past: `90m`, `36h`, `7d`, `2w` ago, or a date, with a time or without, in that zone.

    Raise `Refused` for anything else.
    """
    if found := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text!r} is not a time.", hint="Say 36h, 7d or 2w, or a date like 2026-11-21.") from None
    return given if given.tzinfo else given.replace(tzinfo=zone)


class Span(Struct, frozen=True):
    """A number of years, months, days and hours; all zero means none."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __bool__(self) -> bool:
        return any((self.years, self.months, self.days, self.hours))

    def __str__(self) -> str:
        parts = zip((self.years, self.months, self.days, self.hours), "ymdh", strict=True)
        return "".join(f"{number}{unit}" for number, unit in parts if number)

    def before(self, at: datetime, zone: ZoneInfo) -> datetime:
        """Return the time that much earlier: years, months and days by the calendar of the zone, hours by the clock.

        A month before 31 March is 3 March: missing days of February run over, as in restic.
        """
        local = at.astimezone(zone)
        month = local.year * 12 + local.month - 1 - self.years * 12 - self.months
        try:
            first = local.replace(year=month // 12, month=month % 12 + 1, day=1, fold=0)
            day = first + timedelta(days=local.day - 1 - self.days)
            return day.astimezone(UTC) - timedelta(hours=self.hours)
        except (ValueError, OverflowError):
            return LONG_AGO


def parse_span(text: str) -> Span:
    """Return the span that the text means, none for an empty text; raise `ValueError` for anything else."""
    found = _SPAN_TEXT.fullmatch(text)
    if found is None:
        raise ValueError("is not a length of time like 2y5m7d3h")
    return Span(*(int(number or 0) for number in found.groups()))
