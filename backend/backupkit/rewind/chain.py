"""The points that there are: which of them can be restored, from when to when, with which gaps.

`backups/.rewind/BACKUP/` holds the points whose chain begins with that backup. Each names the state that it leads from
and the one that it leads to; so a point that is lost costs those behind it, and a merged one fits where it was.
All but `read` decides by values alone.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from backupkit.fs import own_folder
from backupkit.model.errors import Damaged
from backupkit.model.names import is_name
from backupkit.rewind import point
from backupkit.rewind.point import Header

FOLDER = ".rewind"
_LATE = 3  # looks that may be missed before nobody is said to have looked


@dataclass(frozen=True)
class Point:
    """A point as it lies on disk: the backup that its chain begins with, its file, and what its header says."""

    chain: str
    name: str
    number: int
    size: int
    header: Header

    @property
    def at(self) -> datetime:
        return self.header.at


@dataclass(frozen=True)
class Lost:
    """A point that cannot be restored, and why."""

    chain: str
    name: str
    why: str


@dataclass(frozen=True)
class Moment:
    """What can be restored: a point, or the backup at the beginning of a chain (no point).

    `seen` is when the data were last seen to be as in the moment before; `tolerance` is how much later this one may be.
    """

    at: datetime
    chain: str
    point: Point | None
    seen: datetime | None
    tolerance: timedelta
    way: tuple[Point, ...] = ()
    """The points that lead there from the backup, itself included."""

    @property
    def is_after_gap(self) -> bool:
        """Whether nobody can say what was there just before it."""
        return self.seen is None or self.at - self.seen > self.tolerance


@dataclass(frozen=True)
class Timeline:
    """All moments by their time, what is lost, and the bytes of all of it."""

    moments: tuple[Moment, ...] = ()
    lost: tuple[Lost, ...] = ()
    size: int = 0

    def before(self, at: datetime) -> Moment | None:
        """The newest moment at that time or before."""
        place = bisect_right(self.moments, at, key=lambda one: one.at)
        return self.moments[place - 1] if place else None

    def after(self, at: datetime) -> Moment | None:
        """The first moment after that time."""
        place = bisect_right(self.moments, at, key=lambda one: one.at)
        return self.moments[place] if place < len(self.moments) else None

    def gaps(self) -> list[tuple[datetime, datetime]]:
        """From when to when nobody can say what was there."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return [(max(one.at, two.seen or one.at), two.at) for one, two in pairs if two.is_after_gap]

    def in_gap(self, at: datetime) -> tuple[Moment, Moment] | None:
        """The moments on both sides of the gap that the time lies in; None where it lies in none."""
        one, two = self.before(at), self.after(at)
        if one is None or two is None or not two.is_after_gap:
            return None
        return None if at <= max(one.at, two.seen or one.at) else (one, two)


def opened(backups: Path, chain: str = "") -> AbstractContextManager[Path | None]:
    """The folder of all chains, or of one, as long as the block lasts; None where there is none."""
    return own_folder.existing(backups, FOLDER, *([chain] if chain else []))


def chains(backups: Path) -> list[str]:
    """The backups that points stand on, by name; they may be there no more."""
    with opened(backups) as folder:
        return sorted(name for name in os.listdir(folder) if is_name(name)) if folder else []


def files(folder: Path) -> list[str]:
    """The names of the points of one chain, in their order."""
    return sorted(name for name in os.listdir(folder) if point.number_of(name) is not None)


def read(backups: Path, chain: str) -> tuple[list[Point], list[Lost]]:
    """The points of one chain in their order, and those whose header is damaged."""
    found, lost = list[Point](), list[Lost]()
    with opened(backups, chain) as folder:
        for name in files(folder) if folder else []:
            try:
                assert folder is not None
                header = point.read_header(folder / name)
                if header.base != chain:
                    raise Damaged(f"The point {name} belongs to {header.base[:100]!r}.")
            except Damaged as error:
                lost.append(Lost(chain, name, error.message))
                continue
            size = os.lstat(folder / name).st_size
            found.append(Point(chain, name, point.number_of(name) or 0, size, header))
    return found, lost


def ways(points: Iterable[Point], seal: str) -> tuple[dict[str, Point | None], list[Lost]]:
    """By the name of each point that can be restored the one that it leads from (none: the backup); and the others."""
    states: dict[str, Point | None] = {}
    before: dict[str, Point | None] = {}
    lost: list[Lost] = []
    for one in points:
        header = one.header
        if header.seal != seal:
            lost.append(Lost(one.chain, one.name, f"the backup {one.chain} is not the one that it was made after"))
            continue
        states.setdefault(header.base_state, None)
        if header.parent not in states:
            lost.append(Lost(one.chain, one.name, "a point before it is damaged or missing"))
            continue
        before[one.name] = states[header.parent]
        states[header.state] = one
    return before, lost


def way_to(one: Point, before: Mapping[str, Point | None]) -> tuple[Point, ...]:
    """The points that lead to this one, in their order."""
    way = [one]
    while (earlier := before[way[-1].name]) is not None:
        way.append(earlier)
    return tuple(reversed(way))


def moments_of(
    points: list[Point], seal: str, made_at: datetime, without: Iterable[str] = ()
) -> tuple[list[Moment], list[Lost]]:
    """The moments of one chain, its backup first, but for points known to be damaged; and what is lost."""
    without = set(without)
    before, lost = ways([one for one in points if one.name not in without], seal)
    good = [one for one in points if one.name in before]
    if not good:
        return [], lost
    first = good[0].header
    found = [Moment(made_at, first.base, None, first.before, timedelta(seconds=_LATE * first.interval))]
    for one in good:
        tolerance = timedelta(seconds=_LATE * one.header.interval)
        found.append(Moment(one.at, one.chain, one, one.header.since, tolerance, way_to(one, before)))
    return found, lost
