"""The points that there are: which of them can be restored, from when to when, with which gaps.

`backups/.rewind/BACKUP/` holds the points whose chain begins with that backup. Each names the state that it leads from
and the one that it leads to; so a point that is lost costs those behind it, and a merged one fits where it was.
All but `read` decides by values alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from backupkit.fs import disk, own_folder
from backupkit.model.errors import Damaged
from backupkit.model.names import is_name
from backupkit.rewind import point
from backupkit.rewind.point import Header

FOLDER = ".rewind"
_DAMAGED = ".damaged"
_LATE = 3  # looks that may be missed before nobody is said to have looked

SET_BACK = datetime.fromtimestamp(0, UTC)
"""What a point says of when its data were last seen as before, where the clock was behind the point before it."""


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
    """A point that cannot be restored, and why; its header, where that can be read."""

    chain: str
    name: str
    why: str
    header: Header | None = None


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
    earlier: Mapping[str, Point | None] = field(default_factory=dict, repr=False, compare=False)
    """By the name of each point of the chain the one that it leads from."""
    turn: int = 0
    """How often the clock had been set back in its chain."""

    @property
    def number(self) -> int:
        return self.point.number if self.point else 0

    @property
    def way(self) -> tuple[Point, ...]:
        """The points that lead there from the backup, itself included."""
        return way_to(self.point, self.earlier) if self.point else ()

    @property
    def is_after_gap(self) -> bool:
        """Whether nobody can say what was there just before it."""
        return self.seen is None or self.at - self.seen > self.tolerance

    @property
    def run(self) -> tuple[str, int]:
        """The moments of one run were taken in the order of their times: no clock was set back among them."""
        return self.chain, self.turn


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

    def other(self, found: Moment, at: datetime) -> Moment | None:
        """Where the clock was set back and this time came twice: the newest moment of the other time."""
        runs = dict[tuple[str, int], list[Moment]]()
        for one in self.moments:
            runs.setdefault(one.run, []).append(one)
        own = runs.pop(found.run)
        twice = (run for run in runs.values() if run[0].at < own[-1].at and own[0].at < run[-1].at)
        spans = (run for run in twice if run[0].at <= at <= run[-1].at)
        return max((one for run in spans for one in run if one.at <= at), key=lambda one: one.at, default=None)

    def gaps(self) -> list[tuple[datetime, datetime]]:
        """From when to when nobody can say what was there."""
        pairs = pairwise(self.moments)
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


def damaged(backups: Path, chain: str) -> dict[str, str]:
    """The points of a chain that were found damaged when all of them was read, and why; of those that are there."""
    with opened(backups, chain) as folder:
        if folder is None:
            return {}
        try:
            found = json.loads(disk.read_plain(folder / _DAMAGED, disk.MOST_STATE))
            there = set(files(folder))
            return {str(name): str(why) for name, why in found.items() if name in there}
        except (OSError, ValueError, AttributeError, Damaged):
            return {}


def remember_damaged(backups: Path, chain: str, found: Mapping[str, str]) -> None:
    """`damaged` says so from now on; that this cannot be written is no reason to fail."""
    if damaged(backups, chain) == found:
        return
    with opened(backups, chain) as folder, contextlib.suppress(OSError):
        if folder and found:
            disk.write_file(folder / _DAMAGED, json.dumps(dict(found)).encode())
        elif folder:
            disk.remove(folder / _DAMAGED)


def read(backups: Path, chain: str) -> tuple[list[Point], list[Lost]]:
    """The points of one chain in their order, and those whose header is damaged.

    One that is gone by the time it is read was merged into a later one, which was put there before: it is neither.
    """
    found, lost = list[Point](), list[Lost]()
    with opened(backups, chain) as folder:
        for name in files(folder) if folder else []:
            assert folder is not None
            try:
                header = point.read_header(folder / name)
                if header.base != chain:
                    raise Damaged(f"The point {name} belongs to {header.base[:100]!r}.")
                size = os.lstat(folder / name).st_size
            except FileNotFoundError:
                continue
            except Damaged as error:
                if os.path.lexists(folder / name):
                    lost.append(Lost(chain, name, error.message))
                continue
            found.append(Point(chain, name, point.number_of(name) or 0, size, header))
    return found, lost


def are_there(backups: Path, points: Iterable[Point]) -> bool:
    """Whether each of the points of one chain lies there as it was read: none was merged or removed since."""
    points = list(points)
    now = {one.name: one for one in read(backups, points[0].chain)[0]} if points else {}
    return all(now.get(one.name) == one for one in points)


def ways(points: Iterable[Point], seal: str) -> tuple[dict[str, Point | None], list[Lost]]:
    """By the name of each point that can be restored the one that it leads from (none: the backup); and the others."""
    states: dict[str, Point | None] = {}
    before: dict[str, Point | None] = {}
    lost: list[Lost] = []
    for one in points:
        header = one.header
        if header.seal != seal:
            why = f"the backup {one.chain} is not the one that it was made after"
            lost.append(Lost(one.chain, one.name, why, header))
            continue
        states.setdefault(header.base_state, None)
        if header.parent not in states:
            lost.append(Lost(one.chain, one.name, "a point before it is damaged or missing", header))
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
    points: list[Point], seal: str, made_at: datetime, without: Mapping[str, str]
) -> tuple[list[Moment], list[Lost]]:
    """The moments of one chain, its backup first, but for points known to be damaged; and what is lost."""
    before, lost = ways([one for one in points if one.name not in without], seal)
    lost += [Lost(one.chain, one.name, without[one.name], one.header) for one in points if one.name in without]
    good = [one for one in points if one.name in before]
    if not good:
        return [], lost
    first = good[0].header
    found = [Moment(made_at, first.base, None, first.before, timedelta(seconds=_LATE * first.interval))]
    turn = 0
    for one in good:
        tolerance = timedelta(seconds=_LATE * one.header.interval)
        turn += one.header.since == SET_BACK
        found.append(Moment(one.at, one.chain, one, one.header.since, tolerance, before, turn))
    return found, lost


def in_time(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """The moments of all chains by their time; where the clock was set back, two that were apart have a gap between.

    It was also set back where the times of two chains overlap: a chain begins when the one before it has ended. Which
    of them came first, and what the next chain leads on from, nobody knows then.
    """
    found = sorted(moments, key=lambda one: one.at)
    mixed, turns = _overlapping(found), dict[str, int]()
    for one in found:
        turns[one.chain] = max(one.turn, turns.get(one.chain, 0))

    def follows(one: Moment, two: Moment) -> bool:
        if one.chain == two.chain:
            return one.turn == two.turn and one.number < two.number
        return one.turn == turns[one.chain] and not mixed & {one.chain, two.chain}

    return (*found[:1], *(two if follows(one, two) else replace(two, seen=None) for one, two in pairwise(found)))


def _overlapping(found: list[Moment]) -> set[str]:
    """The chains that begin before another one ends, and those; the moments are given by their time."""
    last = {one.chain: place for place, one in enumerate(found)}
    begun, mixed = set[str](), set[str]()
    for place, one in enumerate(found):
        begun.add(one.chain)
        if len(begun) > 1:
            mixed |= begun
        if last[one.chain] == place:
            begun.remove(one.chain)
    return mixed
