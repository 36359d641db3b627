"""The points on disk: which of them can be restored, for which times, and where the gaps are.

`backups/.rewind/BACKUP/` holds one chain: the points that build on that backup, its base. Each point names its parent
state and its own state. So if a point is lost, all points after it are lost too, and a merged point replaces the ones
that it was made of.
"""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace as replace_field

from backupkit.fs import disk, own_folder
from backupkit.model.errors import Damaged
from backupkit.model.names import counted, is_name
from backupkit.rewind import point
from backupkit.rewind.point import Header

FOLDER = ".rewind"
_DAMAGED = ".damaged"
_AFTER_DAMAGE = "a point before it is damaged, and it may need that"
_ALLOWED_INTERVALS = 3  # intervals that may pass without a look before the time counts as a gap

SET_BACK = datetime.fromtimestamp(0, UTC)
"""The `since` of a point that was taken when the clock was not ahead of the point before it."""


class Point(Struct, frozen=True):
    """A point on disk: the name of its base backup (`chain`), its file, and its header."""

    chain: str
    name: str
    number: int
    size: int
    header: Header

    @property
    def at(self) -> datetime:
        return self.header.at


@dataclass(frozen=True)
class Moment:
    """A time that can be restored: a point, or the base backup of a chain (`point` is None).

    `seen` is when the data were last seen unchanged since the moment before. If `at` is later than that by more than
    `tolerance`, or `seen` is None, there is a gap before this moment.
    """

    at: datetime
    chain: str
    point: Point | None
    seen: datetime | None
    tolerance: timedelta
    earlier: Mapping[str, Point | None] = field(default_factory=dict, repr=False, compare=False)
    """The parent of each point of the chain, by point name; None is the base backup."""
    turn: int = 0
    """How often the clock had been set back in this chain before this moment."""

    @property
    def number(self) -> int:
        return self.point.number if self.point else 0

    @property
    def way(self) -> tuple[Point, ...]:
        """The points to apply to the base backup, in order; the last one is the point itself."""
        return points_to(self.point, self.earlier) if self.point else ()

    @property
    def is_after_gap(self) -> bool:
        """Whether the data just before this moment is unknown."""
        return self.seen is None or self.at - self.seen > self.tolerance

    @property
    def run(self) -> tuple[str, int]:
        """A key shared by the moments between which the clock was not set back, so that their times are in order."""
        return self.chain, self.turn


class Lost(Struct, frozen=True):
    """A point that cannot be restored, and why; `header` is None if it cannot be read.

    `moment` is set if it is sound itself and comes after a damaged point: it can be restored, as of that moment, if it
    needs nothing of the damage. Only building it tells.
    """

    chain: str
    name: str
    why: str
    header: Header | None = None
    moment: Moment | None = None


class Timeline(Struct, frozen=True):
    """All moments sorted by time, all lost points, and the size of all readable points in bytes."""

    moments: tuple[Moment, ...] = ()
    lost: tuple[Lost, ...] = ()
    size: int = 0

    def before(self, at: datetime) -> Moment | None:
        """Return the newest moment at or before that time, or None."""
        place = bisect_right(self.moments, at, key=lambda one: one.at)
        return self.moments[place - 1] if place else None

    def after(self, at: datetime) -> Moment | None:
        """Return the first moment after that time, or None."""
        place = bisect_right(self.moments, at, key=lambda one: one.at)
        return self.moments[place] if place < len(self.moments) else None

    def other(self, found: Moment, at: datetime) -> Moment | None:
        """Return the newest moment until `at` in another run, if the clock was set back and this time came twice."""
        runs = dict[tuple[str, int], list[Moment]]()
        for one in self.moments:
            runs.setdefault(one.run, []).append(one)
        own = runs.pop(found.run)
        twice = (run for run in runs.values() if run[0].at < own[-1].at and own[0].at < run[-1].at)
        spans = (run for run in twice if run[0].at <= at <= run[-1].at)
        return max((one for run in spans for one in run if one.at <= at), key=lambda one: one.at, default=None)

    def gaps(self) -> list[tuple[datetime, datetime]]:
        """Return the start and end of each time span in which the data is unknown."""
        pairs = pairwise(self.moments)
        return [(max(one.at, two.seen or one.at), two.at) for one, two in pairs if two.is_after_gap]

    def in_gap(self, at: datetime) -> tuple[Moment, Moment] | None:
        """Return the moments before and after the gap that contains this time, or None if no gap does."""
        one, two = self.before(at), self.after(at)
        if one is None or two is None or not two.is_after_gap:
            return None
        return None if at <= max(one.at, two.seen or one.at) else (one, two)


def opened(backups: Path, chain: str = "") -> AbstractContextManager[Path | None]:
    """Hold open the folder of one chain, or the folder of all chains; yield its path, or None if it does not exist."""
    return own_folder.existing(backups, FOLDER, *([chain] if chain else []))


def chains(backups: Path) -> list[str]:
    """Return the names of the base backups of all chains, sorted; the backups themselves may be gone."""
    with opened(backups) as folder:
        return sorted(name for name in os.listdir(folder) if is_name(name)) if folder else []


def files(folder: Path) -> list[str]:
    """Return the file names of the points of one chain, in order."""
    return sorted(name for name in os.listdir(folder) if point.number_of(name) is not None)


def damaged(backups: Path, chain: str) -> dict[str, str]:
    """Return the points that still exist and that an earlier full read found damaged: reasons by file name."""
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
    """Store what `damaged` returns from now on; a write error is ignored."""
    if damaged(backups, chain) == found:
        return
    with opened(backups, chain) as folder, contextlib.suppress(OSError):
        if folder and found:
            disk.write_file(folder / _DAMAGED, json.dumps(dict(found)).encode())
        elif folder:
            disk.remove(folder / _DAMAGED)


def read(backups: Path, chain: str) -> tuple[list[Point], list[Lost]]:
    """Return the points of one chain in order, and those whose header is damaged.

    A point that vanishes meanwhile is in neither list: it was merged into a later point, which was written first.
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
    """Return whether these points of one chain are still on disk unchanged: none was merged or removed since."""
    points = list(points)
    now = {one.name: one for one in read(backups, points[0].chain)[0]} if points else {}
    return all(now.get(one.name) == one for one in points)


def parents_of(points: Iterable[Point], seal: str) -> tuple[dict[str, Point | None], list[Lost]]:
    """Return the parent of each restorable point by point name (None is the base backup), and the lost points."""
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


def by_header(points: Iterable[Point], seal: str) -> dict[str, Moment]:
    """Return the moment of each point, by name, to which headers lead, whatever is damaged on the way."""
    points = list(points)
    before, _ = parents_of(points, seal)
    return {
        one.name: Moment(one.at, one.chain, one, one.header.since, tolerance(one.header), before)
        for one in points
        if one.name in before
    }


def maybe_restorable(lost: Lost, moments: Mapping[str, Moment]) -> Lost:
    """Return the lost point, which is sound itself, with the moment that it may be built to, if there is one."""
    moment = moments.get(lost.name)
    return replace_field(lost, why=_AFTER_DAMAGE, moment=moment) if moment else lost


def counted_lost(lost: Sequence[Lost]) -> str:
    """Return how many points cannot be restored, for certain or perhaps, as the beginning of a sentence."""
    unsure = sum(one.moment is not None for one in lost)
    text = f"{counted(len(lost) - unsure, 'point')} of rewind cannot be restored"
    return f"{text}, and {unsure} after that only if they need nothing of it" if unsure else text


def points_to(one: Point, before: Mapping[str, Point | None]) -> tuple[Point, ...]:
    """Return the points to apply in order to reach this one, itself last."""
    way = [one]
    while (earlier := before[way[-1].name]) is not None:
        way.append(earlier)
    return tuple(reversed(way))


def moments_of(
    points: list[Point], seal: str, made_at: datetime, without: Mapping[str, str]
) -> tuple[list[Moment], list[Lost]]:
    """Return the moments of one chain, base backup first, and its lost points; points in `without` are lost.

    There are no moments if no point can be restored.
    """
    before, unreachable = parents_of([one for one in points if one.name not in without], seal)
    known = by_header(points, seal) if unreachable else {}
    lost = [maybe_restorable(one, known) for one in unreachable]
    lost += [Lost(one.chain, one.name, without[one.name], one.header) for one in points if one.name in without]
    good = [one for one in points if one.name in before]
    if not good:
        return [], lost
    first = good[0].header
    found = [Moment(made_at, first.base, None, first.before, tolerance(first))]
    turn = 0
    for one in good:
        turn += one.header.since == SET_BACK
        found.append(Moment(one.at, one.chain, one, one.header.since, tolerance(one.header), before, turn))
    return found, lost


def tolerance(header: Header) -> timedelta:
    """Return the time that may pass without a look before a point, without being a gap."""
    return timedelta(seconds=_ALLOWED_INTERVALS * header.interval)


def sorted_by_time(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """Return the moments of all chains sorted by time, with a gap between neighbours if the clock was set back.

    It was also set back if two chains overlap in time, since a chain begins after the one before it has ended. It is
    then unknown which of them came first, and which one the next chain follows.
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
    """Return the chains that overlap another one in time; `found` is sorted by time."""
    last = {one.chain: place for place, one in enumerate(found)}
    begun, mixed = set[str](), set[str]()
    for place, one in enumerate(found):
        begun.add(one.chain)
        if len(begun) > 1:
            mixed |= begun
        if last[one.chain] == place:
            begun.remove(one.chain)
    return mixed
