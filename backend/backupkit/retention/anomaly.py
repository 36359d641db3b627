"""Detection of signs of data loss, as sudden shrinkage: a pure comparison of a new backup with the earlier ones.

The baseline is the minimum over the latest usual backups, so that a table which comes and goes raises no alarm.
An unusual backup is not part of the baseline until it is accepted, or until the usual ones are two weeks old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta

from msgspec.structs import replace

from backupkit.fs.space import format_bytes
from backupkit.model.backup import APART, Backup, Metadata
from backupkit.model.names import printable

RECENT = 5
BASELINE_AGE = timedelta(days=14)
# Smaller baselines are not compared: any change would be a large percentage.
_MIN_BASELINE = {"rows": 20, "files": 10, "bytes": 1 << 20}

Figures = Mapping[tuple[str, str], int]
"""Amounts by (what is counted, unit)."""


def unusual(new: Metadata, earlier: Sequence[Backup], drop: int) -> tuple[str, ...]:
    """Return a sentence for each amount that is more than `drop` percent below that of the earlier backups.

    And one for each disk in the uploads that is no longer mounted. With a `drop` of 100 nothing is unusual.

    `earlier` holds all existing backups, newest first. Safety copies and salvaged backups are never unusual: they may
    be taken of lost data on purpose.
    """
    if new.kind in APART:
        return ()
    comparable = [backup for backup in earlier if _is_earlier_state(backup, new)]
    first = _of_one(new, comparable, drop)
    return (*first, *(sentence for name in new.others for sentence in _of_another(name, new, comparable, drop)))


def _of_one(new: Metadata, comparable: list[Backup], drop: int) -> Iterator[str]:
    """Yield the sentences for the main database and the uploads."""
    yield from _shrunk(_database, new, comparable, drop)
    yield from _shrunk(_uploads, new, comparable, drop)
    yield from _unmounted(new, comparable) if drop < 100 else ()


def _of_another(name: str, new: Metadata, comparable: list[Backup], drop: int) -> Iterator[str]:
    """Yield the sentences for one additional database or tree, compared as if each backup held nothing else."""
    alone = new.at(name)
    before = [replace(one, metadata=found) for one in comparable if one.metadata and (found := one.metadata.at(name))]
    for sentence in _of_one(alone, before, drop) if alone else ():
        is_of_tree = sentence.startswith("uploads: ")
        yield f"{printable(name)}: {sentence.removeprefix('uploads: ') if is_of_tree else sentence}"


def _is_earlier_state(backup: Backup, new: Metadata) -> bool:
    """Return whether the backup is an undamaged earlier state of the same app."""
    one = backup.metadata
    if one is None or one.database is None or one.is_raw or backup.state == "damaged":
        return False
    return one.app_id == new.app_id and one.kind not in APART and one.created_at <= new.created_at


def _database(metadata: Metadata) -> Figures:
    if metadata.database is None:
        return {}
    rows = {(f"table {printable(name)}", "rows"): number for name, number in metadata.database.rows.items()}
    return {("database", "bytes"): metadata.database.size, **rows}


def _uploads(metadata: Metadata) -> Figures:
    found = metadata.uploads
    return {("uploads", "files"): found.files, ("uploads", "bytes"): found.bytes} if found else {}


def _shrunk(part: Callable[[Metadata], Figures], new: Metadata, comparable: list[Backup], drop: int) -> Iterator[str]:
    now, baseline = part(new), _baseline(part, new, comparable)
    for what, unit in baseline[0] if now and baseline else ():
        if (what, unit) not in now and _was_migrated(new, comparable):
            continue  # a table that a migration dropped or renamed
        least = min(figures.get((what, unit), 0) for figures in baseline)
        there = now.get((what, unit), 0)
        if least >= _MIN_BASELINE[unit] and there * 100 < least * (100 - drop):
            yield f"{what}: {_amount(there, unit)}, down from {_amount(least, unit)}"


def _unmounted(new: Metadata, comparable: list[Backup]) -> Iterator[str]:
    """Yield a sentence for each place in the uploads at which something was mounted, and where nothing is now."""
    usual = [one.metadata for one in comparable if one.metadata and not one.unusual and _is_recent(one, new)]
    trees = [one.uploads for one in usual if one.uploads and _excludes_alike(one, new)]
    before = next((tree.mounts for tree in trees if tree.mounts is not None), ())
    if new.uploads and new.uploads.mounts is not None:
        for place in sorted(set(before).difference(new.uploads.mounts)):
            yield f"uploads: nothing is mounted at {printable(place)}, where something was"


def _was_migrated(new: Metadata, comparable: list[Backup]) -> bool:
    before = comparable[0].metadata
    return before is not None and before.revisions != new.revisions


def _baseline(part: Callable[[Metadata], Figures], new: Metadata, comparable: list[Backup]) -> list[Figures]:
    """Return the figures of the latest recent usual backups that have this part, or of the latest ones if none is."""
    found = [(backup, figures) for backup in comparable if backup.metadata and (figures := part(backup.metadata))]
    if part is _uploads:  # other exclude patterns change the numbers
        found = [one for one in found if one[0].metadata and _excludes_alike(one[0].metadata, new)]
    usual = [figures for backup, figures in found if not backup.unusual and _is_recent(backup, new)]
    return (usual or [figures for _, figures in found])[:RECENT]


def _excludes_alike(one: Metadata, other: Metadata) -> bool:
    return (one.exclude, one.exclude_marked) == (other.exclude, other.exclude_marked)


def _is_recent(backup: Backup, new: Metadata) -> bool:
    return backup.metadata is not None and new.created_at - backup.metadata.created_at <= BASELINE_AGE


def _amount(number: int, unit: str) -> str:
    return format_bytes(number) if unit == "bytes" else f"{number:,} {unit}"
