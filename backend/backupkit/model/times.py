"""Times of the past as people say them: `14:32`, `yesterday 18:00`, `10 minutes ago`, `2026-11-25 14:32`, `36h`."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from backupkit.model import durations
from backupkit.model.errors import Refused

_AGO = re.compile(r"(\d{1,6}|an?|one) (second|minute|hour|day|week)s? ago")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_DAYS = {"today": 0, "yesterday": 1}


def moment(text: str, now: datetime, zone: ZoneInfo) -> tuple[datetime, str]:
    """Return the time, and a remark for the user if the clock shows it twice or not at all; else an empty remark.

    Raise `Refused` for what is not a time. A time in the future is not refused.
    """
    words = " ".join(text.lower().split())
    if words == "now":
        return now, ""
    if found := _AGO.fullmatch(words):
        number = int(found[1]) if found[1].isdecimal() else 1
        return _before(now, number * _SECONDS[found[2]], text), ""
    day, _, rest = words.partition(" ")
    if day not in _DAYS:
        day, rest = "today", words
    if clock := _time_of_day(rest):
        local = now.astimezone(zone).date() - timedelta(days=_DAYS[day])
        return _in_zone(datetime.combine(local, clock), zone)
    try:
        given = datetime.fromisoformat(text.strip().replace(" UTC", "+00:00"))
    except ValueError:
        return _by_length(text.strip(), now, zone), ""
    if given.tzinfo:
        return given.astimezone(UTC), ""
    return _in_zone(given, zone)


def beginning(text: str, now: datetime, zone: ZoneInfo) -> datetime:
    """Return the time at which a stretch of the past begins: of `yesterday`, the day's first moment."""
    day = text.strip().lower()
    return moment(f"{day} 00:00" if day in _DAYS else text, now, zone)[0]


def is_until(made: datetime, until: datetime) -> bool:
    """Return whether a time is at or before another, both as they are shown: in whole seconds.

    Else the time that a list shows for a backup, typed after `--at`, would lead to the backup before it.
    """
    return made.replace(microsecond=0) <= until


def _by_length(text: str, now: datetime, zone: ZoneInfo) -> datetime:
    try:
        return durations.at(text, now, zone).astimezone(UTC)
    except (Refused, OverflowError, ValueError):
        raise _no_time(text) from None


def _before(now: datetime, seconds: int, text: str) -> datetime:
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        raise _no_time(text) from None


def _no_time(text: str) -> Refused:
    return Refused(
        f"{text!r} is not a time.",
        hint='Say "14:32", "yesterday 18:00", "10 minutes ago", "2026-11-21 14:32", or 36h, 7d or 2w ago.',
    )


def _time_of_day(text: str) -> time | None:
    if not re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
        return None
    try:
        return time.fromisoformat(text.zfill(5 if text.count(":") == 1 else 8))
    except ValueError:
        return None


def _in_zone(local: datetime, zone: ZoneInfo) -> tuple[datetime, str]:
    """Return the wall clock's time in UTC: the first of two; if there is none, later by as much as the clock leapt."""
    try:
        first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    except (OverflowError, ValueError):
        raise _no_time(str(local)) from None
    back = first.astimezone(zone)
    if back.replace(tzinfo=None) != local:
        return (
            first,
            f"There is no {local:%H:%M} on {_day(local)}, when the clock is set forward: {back:%H:%M %Z} is used.",
        )
    if second != first:
        other = second.astimezone(zone)
        return first, (
            f"{local:%H:%M} comes twice on {_day(local)}: the first, {back:%H:%M %Z}, is used. "
            f"The second is {other.isoformat(timespec='minutes')}."
        )
    return first, ""


def _day(local: datetime) -> date:
    return local.date()
