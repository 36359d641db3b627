"""Thin the points: keep all for a day, one an hour for a week, one a day after that, for as long as rewind reaches.

Points that are not kept are merged into the next kept one. The merged file is read back and checked to lead to the
same state, then renamed over the last point of its group; then the others are deleted. If the process is killed at any
time, every kept point can be restored.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import disk
from backupkit.model.backup import Backup
from backupkit.model.durations import parse_span
from backupkit.model.errors import Damaged
from backupkit.rewind import chain, copies, point
from backupkit.rewind.chain import Moment, Point
from backupkit.rewind.point import COMPRESSION, Change, DatabaseChange, Header, Packed, PartChange, Writer
from backupkit.rewind.state import base_backup, of_backup, seal_of

_A_DAY, _A_WEEK = timedelta(days=1), timedelta(days=7)
_REACH_WHEN_OFF = "7d"  # how long points are kept after rewind is switched off
_DRAFT = ".draft-merged"


def kept(points: Sequence[tuple[str, datetime]], now: datetime, zone: ZoneInfo) -> set[str]:
    """Return the names of the points of one chain to keep: the last of each hour or day, and the newest. Pure."""
    last: dict[object, str] = {}
    for name, at in points:
        local = at.astimezone(zone)
        age = now - at
        period: object = name if age <= _A_DAY else local.date()
        last[(local.date(), local.hour, local.utcoffset()) if _A_DAY < age <= _A_WEEK else period] = name
    return {*last.values(), *(name for name, _ in points[-1:])}


def is_over(newest: datetime, now: datetime, rewind: str, zone: ZoneInfo) -> bool:
    """Return whether a chain whose newest point is of that time is older than rewind reaches. Pure."""
    return newest < parse_span(rewind or _REACH_WHEN_OFF).before(now, zone)


def thin(settings: Settings, now: datetime, current: str = "") -> int:
    """Merge or delete points by age, then until they fit `rewind_max_bytes`; return how many points went.

    The caller holds the lock. `current` is the chain that points are being added to: it is never removed as a whole.
    """
    _clear_drafts(settings)
    before = _count(settings)
    sizes: dict[str, int] = {}
    newest: dict[str, datetime] = {}
    for name in chain.chains(settings.dir):
        points, lost = chain.read(settings.dir, name)
        if not points and lost:
            continue  # kept, so that a person can look at the damage first
        if name != current and (not points or is_over(points[-1].at, now, settings.rewind, settings.zone)):
            copies.remove(settings.dir, name)
            continue
        kept_names = kept([(one.name, one.at) for one in points], now, settings.zone)
        points = _merge_points(settings, name, points, kept_names)
        sizes[name], newest[name] = sum(one.size for one in points), points[-1].at
    _make_room(settings, sizes, newest, current or max(newest, key=lambda name: newest[name], default=""))
    return before - _count(settings)


def _count(settings: Settings) -> int:
    return sum(copies.number_in(settings.dir, name) for name in chain.chains(settings.dir))


def _make_room(settings: Settings, sizes: dict[str, int], newest: dict[str, datetime], current: str) -> None:
    most = settings.rewind_max_bytes
    for name in sorted(sizes.keys() - {current}, key=lambda one: newest[one]):
        if not most or sum(sizes.values()) <= most:
            return
        copies.remove(settings.dir, name)
        del sizes[name]
    while most and current in sizes and sizes[current] > most:
        points, _ = chain.read(settings.dir, current)
        kept_names = {one.name for one in points[len(points) // 2 :]}
        left = _merge_points(settings, current, points, kept_names)
        if len(left) >= len(points):
            return
        sizes[current] = sum(one.size for one in left)


def _clear_drafts(settings: Settings) -> None:
    """Delete the drafts of killed runs."""
    for name in ("", *chain.chains(settings.dir)):
        with chain.opened(settings.dir, name) as folder:
            for draft in folder.glob(f"{disk.DRAFT_PREFIX}*") if folder else ():
                disk.remove_tree(draft)


def _merge_points(settings: Settings, name: str, points: list[Point], kept_names: set[str]) -> list[Point]:
    """Merge each point that is not in `kept_names` into the next one that is; return the points left."""
    backup = base_backup(settings, name)
    has_database = backup and backup.metadata and backup.metadata.database
    if backup is None or not has_database or all(one.name in kept_names for one in points):
        return points
    moments, _ = chain.moments_of(points, seal_of(backup), backup.made_at, chain.damaged(settings.dir, name))
    if not moments:
        return points
    newest = max(moments, key=lambda one: one.point.number if one.point else 0)
    with chain.opened(settings.dir, name) as folder:
        assert folder is not None
        with contextlib.suppress(Damaged):  # `verify` names the damage; earlier groups are merged
            _merge_groups(folder, backup, newest, kept_names)
    return chain.read(settings.dir, name)[0]


def _merge_groups(folder: Path, backup: Backup, newest: Moment, kept_names: set[str]) -> None:
    state, group = of_backup(backup), list[Point]()
    for one in newest.way:
        group.append(one)
        if one.name not in kept_names:
            continue
        if len(group) == 1:
            state.apply(folder / one.name, one.header)
        else:
            draft = folder / _DRAFT
            draft.unlink(missing_ok=True)
            try:
                header = merge(folder, group, draft)
                state.apply(draft, header)
                disk.rename(draft, folder / one.name)
            finally:
                draft.unlink(missing_ok=True)
            for gone in reversed(group[:-1]):  # if killed meanwhile, no point that is left lacks the one before it
                (folder / gone.name).unlink()
        group = []
    disk.sync_folder(folder)


# Merging points


def merge(folder: Path, group: Sequence[Point], target: Path) -> Header:
    """Write one point to `target`, from the parent of the first point to the state of the last; return its header."""
    last = group[-1].header
    writer = Writer(target)
    try:
        names = [one.name for one in last.parts]
        packed = {name: _merge_pages(folder, group, name, writer) for name in names}
        first, *others = (_merged_part(folder, group, name, packed[name], writer) for name in names)
        assert first.database
        headers = [one.header for one in group]
        first_gap = next((one.since for one in headers if one.at - one.since > chain.tolerance(one)), last.since)
        header = replace(
            last,
            parent=headers[0].parent,
            before=headers[0].before,
            since=first_gap,
            database=first.database,
            changes=first.changes,
            packed=first.packed if others else "",
            others=tuple(others),
        )
        writer.finish(header, target)
        return point.read_header(target)
    finally:
        writer.abandon()


def _merge_pages(folder: Path, group: Sequence[Point], part: str, writer: Writer) -> Packed:
    for number, content in _merged_pages(folder, [(one.name, _part(one, part)) for one in group]):
        writer.add_page(number, content)
    return writer.end_pages()


def _merged_part(folder: Path, group: Sequence[Point], name: str, packed: Packed, writer: Writer) -> PartChange:
    last = _part(group[-1], name)
    changes = tuple(_copy_change(folder, *one, writer) for one in _merged_changes(group, name))
    if last.database is None:
        return replace(last, changes=changes)
    database = replace(last.database, changed=packed.changed, length=packed.length, compression=COMPRESSION)
    return replace(last, database=database, offset=packed.offset, packed=packed.sha256, changes=changes)


def _part(one: Point, name: str) -> PartChange:
    """Return the part of that name in the point; raise `Damaged` if it has none."""
    found = next((part for part in one.header.parts if part.name == name), None)
    if found is None:
        raise Damaged(f"The point {one.name} has no {name}.")
    return found


def _merged_pages(folder: Path, group: Sequence[tuple[str, PartChange]]) -> Iterator[tuple[int, bytes | memoryview]]:
    """Yield the newest content of each page of one database, by page number; skip points of an earlier page size."""
    counting = point.of_last_page_size(group)
    if not counting:
        return
    last = counting[-1][1]
    streams = (_ranked_pages(folder / name, one, offset, -place) for place, (name, one, offset) in enumerate(counting))
    before = 0
    for number, _, content in heapq.merge(*streams, key=lambda one: one[:2]):
        if before < number <= last.pages:
            before = number
            yield number, content


def _ranked_pages(path: Path, one: DatabaseChange, offset: int, rank: int) -> Iterator[tuple[int, int, memoryview]]:
    return ((number, rank, content) for number, content in point.pages(path, one, offset=offset))


def _merged_changes(group: Sequence[Point], part: str) -> Iterable[tuple[Change, str]]:
    """Return the last change of each path, and the file name of the point that holds its content."""
    merged: dict[str, tuple[Change, str]] = {}
    for one in group:
        for change in _part(one, part).changes:
            place, file = merged.get(change.path, (None, one.name))
            if change.content == "before" and place and place.content in ("here", "base"):
                change = replace(change, content=place.content, offset=place.offset, source=place.source)
            else:
                file = one.name
            merged[change.path] = change, file
    return merged.values()


def _copy_change(folder: Path, change: Change, file: str, writer: Writer) -> Change:
    entry = change.entry
    if entry is None or change.content != "here":
        return change
    with writer.content() as content:
        for chunk in point.content(folder / file, change.offset, entry.size):
            content.add(chunk)
        content.is_kept = True
        if content.sha256 != entry.sha256:
            raise Damaged(f"An upload in the point {file} is not as it was written.")
        return replace(change, offset=content.offset)
