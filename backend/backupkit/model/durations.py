"""Spans of time and moments, as people write and read them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from backupkit.model.errors import Refused

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def span(seconds: float) -> str:
    """`3 hours`, `1 day`: the largest unit of which there is at least one, rounded down."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number:,} {unit}{'' if number == 1 else 's'}"
    return "less than a minute"


def ago(seconds: float) -> str:
    """`3 hours ago`; what is younger than a minute was just now."""
    return f"{span(seconds)} ago" if seconds >= 60 else "just now"


def moment(text: str, now: datetime, zone: ZoneInfo) -> datetime:
    """A moment of the past: `90m`, `36h`, `7d`, `2w` ago, or a date, with a time or without, in that zone.

    Raises `Refused` for anything else.
    """
    if found := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text!r} is no time.", hint="Say 36h, 7d or 2w, or a date like 2026-11-21.") from None
    return given if given.tzinfo else given.replace(tzinfo=zone)
