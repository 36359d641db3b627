"""A length of time as a person writes it, in restic's way: `2y5m7d3h`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_WRITTEN = re.compile(r"(?:(\d{1,4})y)?(?:(\d{1,4})m)?(?:(\d{1,5})d)?(?:(\d{1,6})h)?")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Span:
    """So many years, months, days and hours; all zero means none."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __bool__(self) -> bool:
        return any((self.years, self.months, self.days, self.hours))

    def __str__(self) -> str:
        parts = zip((self.years, self.months, self.days, self.hours), "ymdh", strict=True)
        return "".join(f"{number}{unit}" for number, unit in parts if number)

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The moment so much earlier: years, months and days by the calendar of the zone, hours by the clock.

        A month before 31 March is 3 March: what February lacks runs over, as in restic.
        """
        local = moment.astimezone(zone)
        month = local.year * 12 + local.month - 1 - self.years * 12 - self.months
        try:
            first = local.replace(year=month // 12, month=month % 12 + 1, day=1, fold=0)
            day = first + timedelta(days=local.day - 1 - self.days)
            return day.astimezone(UTC) - timedelta(hours=self.hours)
        except (ValueError, OverflowError):
            return _LONG_AGO


def parse_span(text: str) -> Span:
    """The span that is written so, none for an empty text; `ValueError` for anything else."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError("is not a length of time like 2y5m7d3h")
    return Span(*(int(number or 0) for number in found.groups()))
