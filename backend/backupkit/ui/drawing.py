"""The calendar and the chart, drawn with characters. Pure: what they show is `monitoring/overview.py`'s."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from rich.text import Text

from backupkit.fs.space import format_bytes
from backupkit.monitoring.overview import Day, Mark, Size
from backupkit.ui.styles import Colours

# A symbol of its own for each, so that it can be read without colours.
MARKS: Mapping[Mark, tuple[str, str]] = {
    "before": (" ", ""),
    "open": ("○", "primary"),
    "missed": ("□", "warning"),
    "failed": ("✗", "error"),
    "damaged": ("✗", "error"),
    "removed": ("·", ""),
    "made": ("■", "success"),
    "proven": ("★", "success"),
}
LEGEND: tuple[tuple[Mark, str], ...] = (
    ("made", "made"),
    ("proven", "proven"),
    ("missed", "none"),
    ("failed", "bad"),
    ("removed", "gone"),
)
_NAMES = ("Mon", "", "Wed", "", "Fri", "", "Sun")
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def calendar(weeks: Sequence[Sequence[Day]], colours: Colours) -> Text:
    """A column for each week, a row for each day of it, the months above."""
    drawn = Text()
    drawn.append(f"    {_months(weeks)}", style="dim")
    for weekday, name in enumerate(_NAMES):
        drawn.append(f"\n{name:4}", style="dim")
        for week in weeks:
            symbol, colour = MARKS[week[weekday].mark] if weekday < len(week) else (" ", "")
            drawn.append(f"{symbol} ", style=colours.get(colour, "dim"))
    return drawn


def legend(colours: Colours) -> Text:
    """What the symbols of the calendar mean."""
    caption = Text()
    for mark, word in LEGEND:
        symbol, colour = MARKS[mark]
        caption.append(symbol, style=colours.get(colour, "dim"))
        caption.append(f" {word} ", style="dim")
    return caption


def _months(weeks: Sequence[Sequence[Day]]) -> str:
    """The name of a month above the first week that begins in it, where there is room."""
    line, seen = "", 0
    for place, week in enumerate(weeks):
        month = week[0].date.month
        if month != seen and len(line) <= 2 * place and (place > 0 or week[0].date.day <= 14):
            line = line.ljust(2 * place) + f"{week[0].date:%b} "
        seen = month
    return line


def chart(sizes: Sequence[Size], width: int, height: int, now: datetime) -> list[str]:
    """What all backups took on disk at each time, as bars; the highest and the time at the edges.

    `width` and `height` are those of all of it, in characters.
    """
    label, bars = 10, max(width - 10, 1)
    if not sizes:
        return ["No backup yet."]
    steps = [_held(sizes, at) for at in _moments(sizes[0].at, now, bars)]
    highest = max(*steps, sizes[-1].unique_bytes, 1)
    rows = list(_rows([step / highest for step in steps], height - 1))
    labels = [format_bytes(highest), *[""] * (height - 3), "0"]
    drawn = [f"{name:>8} {'┤' if name else '│'}{row}" for name, row in zip(labels, rows, strict=True)]
    first, what, last = f"{sizes[0].at:%Y-%m-%d}", "what the backups take on disk", "today"
    return [*drawn, f"{' ' * label}{first}{what:^{max(bars - 15, 1)}}{last}"]


def _moments(first: datetime, last: datetime, count: int) -> Iterator[datetime]:
    """So many moments, the last one now."""
    return (first + (last - first) * ((number + 1) / count) for number in range(count))


def _held(sizes: Sequence[Size], at: datetime) -> int:
    """What the backups that were there came to."""
    count = bisect_right(sizes, at, key=lambda one: one.at)
    return sizes[count - 1].unique_bytes if count else 0


def _rows(shares: Sequence[float], height: int) -> Iterator[str]:
    """Bars of that height, from the top row down; what is there at all is seen."""
    eighths = [max(round(share * height * 8), 1 if share else 0) for share in shares]
    for row in range(height - 1, -1, -1):
        yield "".join(_EIGHTHS[min(max(one - 8 * row, 0), 8)] for one in eighths)
