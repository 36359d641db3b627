"""What the report draws: marks, the calendar, sizes over time. Each drawing says in words what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from math import ceil, floor, log10
from xml.etree.ElementTree import Element

from backupkit.fs.space import format_bytes
from backupkit.monitoring.overview import Day, Mark, Overview, Size
from backupkit.monitoring.status import Level
from backupkit.web.report.elements import element

MEANINGS: dict[Mark, str] = {
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
_GLYPHS: dict[Mark, str] = {
    "proven": _TICK,
    "removed": "M8 7.900v.2",
    "damaged": _CROSS,
    "failed": _BANG,
    "missed": "M5 8h6",
}
_LEVELS: dict[Level, str] = {"fine": _TICK, "warning": _BANG, "critical": _CROSS}
_CELL, _LEFT, _TOP = 22, 34, 20  # of the calendar: a day, and the room for the names of days and months
_WIDTH, _HEIGHT = 520, 180
_X0, _Y0, _X1, _Y1 = 62, 30, 512, 156  # the plot in it
_POINTS = 150


def level_mark(level: Level) -> Element:
    """The level as a mark that needs no colour to be told from the others."""
    box = element("circle", class_="box", cx=8, cy=8, r=7)
    glyph = element("path", class_="glyph", d=_LEVELS[level])
    return element("svg", box, glyph, viewBox="0 0 16 16", class_="level-mark", aria_hidden="true")


def day_mark(mark: Mark) -> Element:
    """A day of the calendar by itself, for the legend."""
    return element("svg", *_shapes(mark), viewBox="0 0 16 16", class_=mark, aria_hidden="true")


def _shapes(mark: Mark) -> Iterator[Element]:
    yield element("rect", class_="box", x=1, y=1, width=14, height=14, rx=3)
    if mark in _GLYPHS:
        yield element("path", class_="glyph", d=_GLYPHS[mark])


# The calendar.


def calendar(found: Overview) -> Element:
    """The weeks as columns, Monday first."""
    weeks = found.weeks
    drawn = (
        element("g", _tooltip(day), *_shapes(day.mark), class_=day.mark, transform=_place(column, row))
        for column, days in enumerate(weeks)
        for row, day in enumerate(days)
    )
    width, height = _LEFT + _CELL * len(weeks), _TOP + _CELL * 7
    shapes = (*_week_names(), *_months(weeks), *drawn)
    return _drawing(width, height, _calendar_in_words(found), *shapes, kind="chart calendar")


def _place(column: int, row: int) -> str:
    return f"translate({_LEFT + _CELL * column + 2} {_TOP + _CELL * row + 2})"


def _tooltip(day: Day) -> Element:
    return element("title", f"{day.date:%a} {day.date}: {'; '.join(_facts(day))}")


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


def _week_names() -> Iterator[Element]:
    for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"), (6, "Sun")):
        yield element("text", name, x=0, y=_TOP + _CELL * row + 13)


def _months(weeks: Sequence[Sequence[Day]]) -> Iterator[Element]:
    """The name of a month over the week in which it begins; the first week's over that, where there is room."""
    for column, days in enumerate(weeks):
        first = next((day.date for day in days if day.date.day == 1), None)
        if first is None and column == 0 and not any(day.date.day == 1 for week in weeks[:3] for day in week):
            first = days[0].date
        if first:
            yield element("text", f"{first:%b}", x=_LEFT + _CELL * column + 2, y=12)


def _calendar_in_words(found: Overview) -> str:
    if not found.days:
        return "No days."
    covered = sum(day.mark in ("made", "proven", "removed") for day in found.days)
    first, last = found.days[0].date, found.days[-1].date
    return f"Calendar from {first} to {last}: {covered} days with a backup, {len(found.days_without)} without."


# Sizes over time.


def size_charts(sizes: Sequence[Size], local: Callable[[datetime], datetime]) -> Iterator[Element]:
    """How large the backups are, and what they take on disk together."""
    if len(sizes) < 2:
        return
    yield _curve("Size of each backup", sizes, local, lambda one: one.size_bytes)
    yield _curve("On disk, all together", sizes, local, lambda one: one.unique_bytes)


def _curve(
    title: str, sizes: Sequence[Size], local: Callable[[datetime], datetime], of: Callable[[Size], int]
) -> Element:
    top, step = scale(max(map(of, sizes)))
    first, last = sizes[0].at, sizes[-1].at
    points = _thinned([(_x(one.at, first, last), round(_y(of(one), top), 1)) for one in sizes])
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    ends = (format_bytes(of(sizes[0])), format_bytes(of(sizes[-1])))
    words = f"{title}: {ends[0]} on {local(first).date()}, {ends[1]} on {local(last).date()}."
    return _drawing(
        _WIDTH,
        _HEIGHT,
        words,
        element("text", title, class_="title", x=0, y=12),
        *_grid(top, step),
        *_dates(local(first).date(), local(last).date()),
        element("polygon", class_="area", points=f"{points[0][0]:g},{_Y1} {line} {points[-1][0]:g},{_Y1}"),
        element("polyline", class_="curve", points=line),
        element("circle", class_="dot", cx=points[-1][0], cy=points[-1][1], r=4),
    )


def scale(largest: int) -> tuple[float, float]:
    """The upper end of a scale from nothing to at least that, and its steps: two to four, of a round number each."""
    rough = max(largest, 1) / 3
    power = 10.0 ** floor(log10(rough))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= rough)
    return step * ceil(max(largest, 1) / step), step


def _x(at: datetime, first: datetime, last: datetime) -> float:
    return round(_X0 + (_X1 - _X0) * ((at - first) / (last - first) if last > first else 1), 1)


def _y(value: float, top: float) -> float:
    return _Y1 - (_Y1 - _Y0) * value / top


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """No more than so many, spread over the width: of those that fall together, the lowest and the last."""
    if len(points) <= _POINTS:
        return points
    together: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        together.setdefault(int(point[0] * _POINTS / 2 / _WIDTH), []).append(point)
    kept = (sorted({max(group, key=lambda point: point[1]), group[-1]}) for group in together.values())
    return [point for group in kept for point in group]


def _grid(top: float, step: float) -> Iterator[Element]:
    for number in range(round(top / step) + 1):
        y = round(_y(number * step, top), 1)
        yield element("line", class_="grid", x1=_X0, x2=_X1, y1=y, y2=y)
        label = format_bytes(number * step).replace(".0 ", " ") if number else "0"
        yield element("text", label, x=_X0 - 8, y=y + 4, text_anchor="end")


def _dates(first: date, last: date) -> Iterator[Element]:
    yield element("text", f"{first}", x=_X0, y=_HEIGHT - 5)
    if last > first:
        yield element("text", f"{last}", x=_X1, y=_HEIGHT - 5, text_anchor="end")


def _drawing(width: int, height: int, words: str, *shapes: Element, kind: str = "chart") -> Element:
    return element("svg", *shapes, viewBox=f"0 0 {width} {height}", class_=kind, role="img", aria_label=words)
