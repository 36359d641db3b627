"""Geometry and text of the calendar and the size curves. Pure functions.

The SVG itself is in `templates/drawings.html`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from math import ceil, floor, log10

from msgspec import Struct

from backupkit.fs.space import format_bytes
from backupkit.model.names import counted
from backupkit.monitoring.overview import Day, Mark, Overview, Size

MEANINGS: Mapping[Mark, str] = {
    "proven": "backup, proven by a test restore",
    "made": "backup",
    "removed": "backup made, removed since",
    "damaged": "damaged backup",
    "failed": "failed",
    "missed": "no backup",
    "open": "none yet today",
    "before": "before the first backup",
}
_TICK, _CROSS, _BANG = "M4.5 8.5 7 11l4.500-5.500", "M5.500 5.500l5 5m0-5l-5 5", "M8 4v5M8 11.800v.2"
GLYPHS: Mapping[str, str] = {
    "proven": _TICK,
    "removed": "M8 7.900v.2",
    "damaged": _CROSS,
    "failed": _BANG,
    "missed": "M5 8h6",
    "fine": _TICK,
    "warning": _BANG,
    "critical": _CROSS,
}
_WIDTH = 520
_X0, _Y0, _X1, _Y1 = 62, 30, 512, 156  # the plot in a drawing of 520 by 180
_POINTS = 150


def tooltip(day: Day) -> str:
    """Return the date and what happened on that day."""
    return f"{day.date:%a} {day.date}: {'; '.join(_facts(day))}"


def _facts(day: Day) -> Iterator[str]:
    if day.backups:
        number = len(day.backups)
        yield day.backups[0] if number == 1 else f"{number} backups"
    if day.removed:
        yield f"{day.removed} made, removed since"
    counts = ((day.proven, "proven"), (day.damaged, "damaged"), (day.failures, "failed"))
    yield from (f"{number} {what}" for number, what in counts if number)
    if not (day.backups or day.removed or day.failures):
        yield MEANINGS[day.mark]


def months(weeks: Sequence[Sequence[Day]]) -> Iterator[tuple[int, str]]:
    """Yield the index of each week in which a month begins, with the month's name.

    The first week gets a label too if no month begins within the first three weeks.
    """
    for column, days in enumerate(weeks):
        first = next((day.date for day in days if day.date.day == 1), None)
        if first is None and column == 0 and not any(day.date.day == 1 for week in weeks[:3] for day in week):
            first = days[0].date
        if first:
            yield column, f"{first:%b}"


def calendar_in_words(found: Overview) -> str:
    """Return the calendar as a sentence, for screen readers."""
    if not found.days:
        return "No days."
    covered = sum(day.mark in ("made", "proven", "removed") for day in found.days)
    first, last = found.days[0].date, found.days[-1].date
    return f"Calendar from {first} to {last}: {covered} days with a backup, {len(found.days_without)} without."


def days_without(found: Overview) -> str:
    """Return a sentence on the days without a backup, with the dates of the newest five."""
    missing = [f"{day}" for day in found.days_without]
    if not missing:
        has_any = any(day.mark not in ("before", "open") for day in found.days)
        return "No day has been without a backup." if has_any else "There is no backup yet."
    more = f" and {len(missing) - 5} earlier" if len(missing) > 5 else ""
    return f"{counted(len(missing), 'day')} without a backup: {', '.join(missing[:-6:-1])}{more}."


class Curve(Struct, frozen=True):
    """A size over time: its points, the grid lines with their labels, and the first and last day."""

    title: str
    words: str
    points: Sequence[tuple[float, float]]
    grid: Sequence[tuple[float, str]]
    days: Sequence[str]

    @property
    def line(self) -> str:
        """The points in the form that SVG takes."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)


def curves(sizes: Sequence[Size], local: Callable[[datetime], datetime]) -> Iterator[Curve]:
    """Yield the size of each backup and the disk use of all together; nothing if there are fewer than two backups."""
    if len(sizes) < 2:
        return
    yield _curve("Size of each backup", sizes, local, lambda one: one.size_bytes)
    yield _curve("On disk, all together", sizes, local, lambda one: one.unique_bytes)


def _curve(
    title: str, sizes: Sequence[Size], local: Callable[[datetime], datetime], of: Callable[[Size], int]
) -> Curve:
    top, step = scale(max(map(of, sizes)))
    first, last = sizes[0].at, sizes[-1].at
    points = _thinned([(_x(one.at, first, last), round(_y(of(one), top), 1)) for one in sizes])
    days = (f"{local(first).date()}", f"{local(last).date()}")
    ends = (format_bytes(of(sizes[0])), format_bytes(of(sizes[-1])))
    words = f"{title}: {ends[0]} on {days[0]}, {ends[1]} on {days[1]}."
    return Curve(title, words, points, list(_grid(top, step)), days)


def scale(largest: int) -> tuple[float, float]:
    """Return the upper end of a scale from 0 that holds `largest`, and its step: a round number, two or three steps."""
    rough = max(largest, 1) / 3
    power = 10.0 ** floor(log10(rough))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= rough)
    return step * ceil(max(largest, 1) / step), step


def _x(at: datetime, first: datetime, last: datetime) -> float:
    return round(_X0 + (_X1 - _X0) * ((at - first) / (last - first) if last > first else 1), 1)


def _y(value: float, top: float) -> float:
    return _Y1 - (_Y1 - _Y0) * value / top


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `_POINTS` points, spread over the width: the lowest and the last of each group of neighbours."""
    if len(points) <= _POINTS:
        return points
    together: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        together.setdefault(int(point[0] * _POINTS / 2 / _WIDTH), []).append(point)
    kept = (sorted({max(group, key=lambda point: point[1]), group[-1]}) for group in together.values())
    return [point for group in kept for point in group]


def _grid(top: float, step: float) -> Iterator[tuple[float, str]]:
    for number in range(round(top / step) + 1):
        label = format_bytes(number * step).replace(".0 ", " ") if number else "0"
        yield round(_y(number * step, top), 1), label
