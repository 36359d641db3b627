"""Copies of points in another folder: points lie there as they lie here, beside the backup that they stand on.

A point is there whole, or not at all. What is there already stays: where points were merged on one side, both have the
same state under the same name. What lies there is input, as any point is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backupkit.fs import disk, own_folder, space
from backupkit.model.backup import Backup
from backupkit.model.errors import BackupError, Damaged, RemoteAway
from backupkit.model.events import EventListener, Progress, Step, silence
from backupkit.rewind import chain, point
from backupkit.rewind.chain import FOLDER, Point
from backupkit.rewind.state import seal_of

_DRAFT = f"{disk.DRAFT_PREFIX}copied-point"


@dataclass(frozen=True)
class Copied:
    """How many points came just now, and why others did not."""

    points: int = 0
    left_out: tuple[str, ...] = ()


def number_in(backups: Path, backup: str) -> int:
    """How many points lie there beside a backup; none where that cannot be told."""
    try:
        with chain.opened(backups, backup) as folder:
            return len(chain.files(folder)) if folder else 0
    except (BackupError, OSError):
        return 0


def copy(
    source: Path,
    target: Path,
    backup: Backup,
    emit: EventListener = silence,
    only_later: bool = False,
    refuse: Callable[[Point], None] = lambda _point: None,
) -> Copied:
    """The points of `source` that stand on the backup lie in `target` too, each compared before it has its name.

    `only_later` takes those alone that come after the last one there. One that is damaged, or of which `refuse` raises
    `Damaged`, stays where it is, with all that lead on from it.
    """
    there, _ = chain.read(target, backup.name)
    last = max((one.number for one in there), default=0) if only_later else 0
    known = {one.name for one in there}
    wanted = [one for one in chain.read(source, backup.name)[0] if one.name not in known and one.number > last]
    if not wanted:
        return Copied()
    size = sum(one.size for one in wanted)
    emit(Step(f"Copying the points after {backup.name}", size))
    copied, left_out, done = 0, list[str](), 0
    states = _States(seal_of(backup), there)
    with chain.opened(source, backup.name) as origin, own_folder.made(target, FOLDER, backup.name) as folder:
        space.require(size, target, f"The copy of the points after {backup.name}")
        for one in wanted:
            if origin and states.lead_to(one.header):
                try:
                    refuse(one)
                    copied += _copy_one(origin / one.name, folder, states)
                except Damaged as error:
                    left_out.append(error.message.rstrip("."))
            emit(Progress(done := done + one.size))
    return Copied(copied, tuple(left_out))


def to_send(
    backups: Path, backup: Backup, is_new: Callable[[Point], bool], emit: EventListener = silence
) -> tuple[list[Point], tuple[str, ...]]:
    """The new points that stand on the backup, each read and found as it was sealed; and why others are left out.

    Of those that lead on from a damaged one none is among them.
    """
    found, _ = chain.read(backups, backup.name)
    new = [one for one in found if is_new(one)]
    if not new:
        return [], ()
    emit(Step(f"Reading the points after {backup.name}", sum(one.size for one in new)))
    damaged, gone, done = dict[str, str](), set[str](), 0
    with chain.opened(backups, backup.name) as folder:
        assert folder is not None
        for one in new:
            try:
                point.verify(folder / one.name)
            except Damaged as error:
                if os.path.lexists(folder / one.name):
                    damaged[one.name] = error.message.rstrip(".")
                else:
                    gone.add(one.name)  # merged into a later one meanwhile, which the next push finds
            emit(Progress(done := done + one.size))
    good, _ = chain.ways([one for one in found if one.name not in damaged.keys() | gone], seal_of(backup))
    return [one for one in new if one.name in good], tuple(damaged.values())


def remove(backups: Path, backup: str) -> None:
    """No point lies there beside that backup any more."""
    with chain.opened(backups) as folder:
        if folder and (folder / backup).is_dir():
            disk.remove_tree(folder / f"{disk.DRAFT_PREFIX}{backup}")
            disk.remove_atomically(folder / f"{disk.DRAFT_PREFIX}{backup}", folder / backup)


def flaws(backups: Path, backup: str) -> Iterator[str]:
    """Each point there that is not as it was written, by its path in the folder, and why; every byte is read."""
    with chain.opened(backups, backup) as folder:
        for name in chain.files(folder) if folder else ():
            assert folder is not None
            try:
                point.read_header(folder / name)
                point.verify(folder / name)
            except Damaged as error:
                yield f"{FOLDER}/{backup}/{name}: {error.message.rstrip('.')}"


class _States:
    """What the points there lead to: a point that leads on from none of it could not be restored there."""

    def __init__(self, seal: str, there: list[Point]) -> None:
        self._seal, self._states = seal, set[str]()
        for one in there:
            if self.lead_to(one.header):
                self.add(one.header)

    def lead_to(self, header: point.Header) -> bool:
        return header.seal == self._seal and header.parent in {header.base_state, *self._states}

    def add(self, header: point.Header) -> None:
        self._states.add(header.state)


def _copy_one(source: Path, folder: Path, states: _States) -> int:
    """1 where it came; 0 where the scheduler has merged it into another one meanwhile."""
    draft = folder / _DRAFT
    disk.remove_tree(draft)
    try:
        disk.copy_file(source, draft)
        _sync(draft)
        header = _compared(source, draft)
        if not states.lead_to(header):
            return 0
        os.chmod(draft, 0o600)
        disk.rename(draft, folder / source.name)
    except FileNotFoundError:
        return 0
    finally:
        draft.unlink(missing_ok=True)
    states.add(header)
    return 1


def _sync(draft: Path) -> None:
    with disk.Opened(draft, os.O_RDWR | os.O_NOFOLLOW) as handle:
        os.fsync(handle)
        disk.forget_cached(handle)


def _compared(source: Path, draft: Path) -> point.Header:
    """The header of the copy, every byte of which is as it was sealed."""
    try:
        point.verify(draft)
    except Damaged as error:
        point.verify(source)  # is it damaged there, or did the copy come to harm?
        raise RemoteAway(
            f"The copy of the point {source.name} reads back as something else.",
            hint="That disk, or the way to it, fails.",
        ) from error
    return point.read_header(draft)
