"""Results of rewind as text and as JSON documents: the timeline that can be restored, and one point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from backupkit.cli.tables import Terminal, drawn
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.names import counted, printable

if TYPE_CHECKING:
    from backupkit.rewind.chain import Moment, Timeline

_MOST_LOST = 20


def timeline(settings: Settings, found: Timeline, interval: float, screen: Terminal | None = None) -> Iterator[str]:
    """Yield the stretches of time that can be restored, the gaps, the lost points, and the size on disk."""
    from backupkit.rewind.moments import typed_time

    if not settings.rewind:
        yield f"Rewind is off. To restore any minute of a week: {settings.deployment.tool('config set rewind 7d')}"
    points = [one for one in found.moments if one.point]
    if not points and not found.lost:
        yield "There are no points yet. The scheduler takes them, once there is a backup: `schedule`, `backup`"
        return
    if not points:
        yield from _lost(settings, found)
        yield f"Of {counted(len(found.lost), 'point')} none can be restored. The next backup begins new ones: `backup`"
        return
    rows = [
        (_local_time(settings, first), _local_time(settings, last), f"{count:,}")
        for first, last, count in _stretches(found)
    ]
    yield from drawn(screen, ("FROM", "TO", "POINTS"), rows, ("FROM", "TO", "POINTS"), 3)
    for begin, end in found.gaps():
        yield f"Gap: the data is unknown from {_local_time(settings, begin)} to {_local_time(settings, end)}."
    yield from _lost(settings, found)
    looks = f" A look every {interval:g} s." if settings.rewind else ""
    yield f"{counted(len(points), 'point')}, {format_bytes(found.size)}.{looks}"
    typed = f'restore --at "{typed_time(settings, points[-1].at)}"'
    yield f"Restore one: {settings.deployment.tool(typed)}"


def _lost(settings: Settings, found: Timeline) -> Iterator[str]:
    for lost in found.lost[:_MOST_LOST]:
        yield f"Lost: {printable(lost.chain)}/{printable(lost.name)}: {printable(lost.why)}"
    if (more := len(found.lost) - _MOST_LOST) > 0:
        yield f"Lost: {counted(more, 'point')} more."
    if unsure := [one.moment.at for one in found.lost if one.moment]:
        what = f"{counted(len(unsure), 'point')} of these, to {_local_time(settings, max(unsure))}"
        yield f"Perhaps: {what}: `restore --at` tries them, and compares every byte."


def timeline_document(settings: Settings, found: Timeline, interval: float) -> dict[str, Any]:
    """Return the timeline as a document."""
    points = [one for one in found.moments if one.point]
    return {
        "rewind": settings.rewind,
        "interval_seconds": interval,
        "size_bytes": found.size,
        "stretches": [
            {"from": _iso(settings, first), "to": _iso(settings, last), "points": count}
            for first, last, count in _stretches(found)
        ],
        "gaps": [{"from": _iso(settings, begin), "to": _iso(settings, end)} for begin, end in found.gaps()],
        "lost": [{"backup": one.chain, "point": one.name, "why": one.why} for one in found.lost],
        "points": [moment_document(settings, one) for one in points],
    }


def moment(settings: Settings, one: Moment, sentences: Sequence[str]) -> Iterator[str]:
    """Yield one point in full."""
    assert one.point
    header = one.point.header
    yield f"Point      {_local_time(settings, one.at)}"
    yield f"  needs      the backup {one.chain}, and {counted(len(one.way) - 1, 'point')} before this one"
    yield f"  database   {format_bytes(header.database_bytes)}"
    yield f"  pages      {header.changed_pages:,} changed since the point before"
    yield f"  uploads    {counted(len(header.changed_files), 'change')} since the point before"
    yield f"  size       {format_bytes(one.point.size)}"
    yield from (f"  note       {sentence}" for sentence in sentences)


def moment_document(settings: Settings, one: Moment) -> dict[str, Any]:
    """Return one point as a document."""
    assert one.point
    header = one.point.header
    return {
        "at": _iso(settings, one.at),
        "backup": one.chain,
        "point": one.point.name,
        "size_bytes": one.point.size,
        "database_bytes": header.database_bytes,
        "changed_pages": header.changed_pages,
        "changed_uploads": len(header.changed_files),
    }


def _stretches(found: Timeline) -> list[tuple[datetime, datetime, int]]:
    """Return each stretch without a gap that has points: its first and last time, and the number of points."""
    stretches: list[tuple[datetime, datetime, int]] = []
    for one in found.moments:
        if not stretches or one.is_after_gap:
            stretches.append((one.at, one.at, 0))
        first, _, count = stretches[-1]
        stretches[-1] = (first, one.at, count + bool(one.point))
    return [one for one in stretches if one[2]]


def _local_time(settings: Settings, at: datetime) -> str:
    return f"{settings.local(at):%Y-%m-%d %H:%M:%S}"


def _iso(settings: Settings, at: datetime) -> str:
    return settings.local(at).isoformat()
