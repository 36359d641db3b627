"""Copies of points in another backups folder, which has the same layout.

A point is copied completely or not at all. Existing points are never replaced: if points were merged on one side, both
sides still have the same state under the same name. Copies are untrusted input and verified as any point is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from backupkit.fs import disk, own_folder, space
from backupkit.model.backup import Backup
from backupkit.model.errors import BackupError, Damaged, RemoteAway
from backupkit.model.events import EventListener, Progress, Step, silence
from backupkit.rewind import chain, point
from backupkit.rewind.chain import FOLDER, Point
from backupkit.rewind.state import seal_of

_DRAFT = f"{disk.DRAFT_PREFIX}copied-point"


class Copied(Struct, frozen=True):
    """The number of points copied by one call, and why others were left out."""

    points: int = 0
    left_out: tuple[str, ...] = ()


def number_in(backups: Path, backup: str) -> int:
    """Return how many points build on a backup in this folder; 0 if that cannot be read."""
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
    """Copy the points that build on the backup from `source` to `target`; each copy is verified before it is renamed.

    With `only_later`, copy only points after the last one in `target`. A point that is damaged, or for which `refuse`
    raises `Damaged`, is left out, and so are all points that build on it.
    Raises `NoSpace`, and `RemoteAway` if a copy reads back differently from a good source.
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
    states = _ReachedStates(seal_of(backup), there)
    with chain.opened(source, backup.name) as origin, own_folder.made(target, FOLDER, backup.name) as folder:
        space.require(size, target, f"The copy of the points after {backup.name}")
        for one in wanted:
            if origin and states.can_apply(one.header):
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
    """Return the new points that build on the backup, each read and verified; and why damaged ones are left out."""
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
                    gone.add(one.name)  # the scheduler merged it into a later point, which the next push finds
            emit(Progress(done := done + one.size))
    good, _ = chain.parents_of([one for one in found if one.name not in damaged.keys() | gone], seal_of(backup))
    return [one for one in new if one.name in good], tuple(damaged.values())


def remove(backups: Path, backup: str) -> None:
    """Delete all points that build on that backup in this folder."""
    with chain.opened(backups) as folder:
        if folder and (folder / backup).is_dir():
            disk.remove_tree(folder / f"{disk.DRAFT_PREFIX}{backup}")
            disk.remove_atomically(folder / f"{disk.DRAFT_PREFIX}{backup}", folder / backup)


def flaws(backups: Path, backup: str) -> Iterator[str]:
    """Read every byte of the points of a backup; yield the relative path of each damaged one, and why."""
    with chain.opened(backups, backup) as folder:
        for name in chain.files(folder) if folder else ():
            assert folder is not None
            try:
                point.read_header(folder / name)
                point.verify(folder / name)
            except Damaged as error:
                yield f"{FOLDER}/{backup}/{name}: {error.message.rstrip('.')}"


class _ReachedStates:
    """The states that the points in the target reach: a point with another parent could not be restored there."""

    def __init__(self, seal: str, there: list[Point]) -> None:
        self._seal, self._states = seal, set[str]()
        for one in there:
            if self.can_apply(one.header):
                self.add(one.header)

    def can_apply(self, header: point.Header) -> bool:
        return header.seal == self._seal and header.parent in {header.base_state, *self._states}

    def add(self, header: point.Header) -> None:
        self._states.add(header.state)


def _copy_one(source: Path, folder: Path, states: _ReachedStates) -> int:
    """Copy one point and return 1; return 0 if the scheduler merged it into another point meanwhile."""
    draft = folder / _DRAFT
    disk.remove_tree(draft)
    try:
        disk.copy_file(source, draft)
        _sync(draft)
        header = _verified(source, draft)
        if not states.can_apply(header):
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


def _verified(source: Path, draft: Path) -> point.Header:
    """Verify every byte of the copy and return its header."""
    try:
        point.verify(draft)
    except Damaged as error:
        point.verify(source)  # raises if the source is damaged too, and not only the copy
        raise RemoteAway(
            f"The copy of the point {source.name} reads back as something else.",
            hint="That disk, or the way to it, fails.",
        ) from error
    return point.read_header(draft)
