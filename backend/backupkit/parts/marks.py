"""What is said of a sealed backup later, kept beside it: losing it loses no backup.

One empty file a mark, `backups/.state/MARK/NAME`, so that two processes never write the same one; and the name of
the last restore's safety copy, `backups/.state/last_restore`; and `backups/.state/operations/NAME.json`, how the
operation ended that a program made the backup for.
"""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from backupkit.ground import disk
from backupkit.words.model import Part

STATE_FOLDER = ".state"
PINNED = "pinned"
HELD = "held"  # pinned until the next good backup
ACCEPTED = "accepted"  # somebody looked at what is unusual about it
PROOFS = "proofs"  # a record, of `parts/proofs.py`
_BY_NAME = (PINNED, HELD, ACCEPTED, PROOFS, "index")  # the folders with a file a backup
_LAST_RESTORE = "last_restore"
_OPERATIONS = "operations"


def put(backups: Path, mark: str, name: str) -> None:
    """The backup of that name bears the mark."""
    path = _path(backups, mark, name)
    disk.make_folder(path.parent, 0o700)
    disk.write_file(path, b"")


def take(backups: Path, mark: str, name: str) -> None:
    """The backup of that name does not bear the mark."""
    disk.remove(_path(backups, mark, name))


def take_all(backups: Path, mark: str) -> None:
    """No backup bears the mark any more."""
    folder = backups / STATE_FOLDER / mark
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        disk.remove(path)


def forget(backups: Path, name: str) -> None:
    """Nothing is said any more of an earlier backup of that name."""
    for mark in (PROOFS, PINNED, HELD, ACCEPTED):
        take(backups, mark, name)


def forget_all_but(backups: Path, names: Set[str]) -> None:
    """Nothing is said any more of backups that are not there."""
    for mark in _BY_NAME:
        folder = backups / STATE_FOLDER / mark
        for name in {path.name for path in folder.iterdir()} - names if folder.is_dir() else ():
            disk.remove(folder / name)


@dataclass(frozen=True)
class Said:
    """What is said of the backups, by their names: asked for at once, which costs less than asking for each."""

    pinned: frozenset[str]
    accepted: frozenset[str]
    checked: frozenset[str]


def said(backups: Path) -> Said:
    """What is said now."""
    return Said(
        pinned=_bearing(backups, PINNED) | _bearing(backups, HELD),
        accepted=_bearing(backups, ACCEPTED),
        checked=_bearing(backups, PROOFS),
    )


def _bearing(backups: Path, mark: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(backups / STATE_FOLDER / mark))
    except FileNotFoundError:
        return frozenset()


def remember_restore(backups: Path, safety: str, part: Part | None = None) -> None:
    """The last restore left this safety copy, and was of that part alone, or of all."""
    path = backups / STATE_FOLDER / _LAST_RESTORE
    disk.make_folder(path.parent, 0o700)
    disk.write_file(path, f"{safety}\n{part}".encode() if part else safety.encode())


def last_restore(backups: Path) -> tuple[str, Part | None] | None:
    """The safety copy of the last restore, and of which part that was; by what is written: a clock can be set back."""
    try:
        written = disk.read_plain(backups / STATE_FOLDER / _LAST_RESTORE, disk.MOST_STATE).decode()
    except (OSError, ValueError):
        return None
    safety, _, part = written.partition("\n")
    return (safety, next((one for one in get_args(Part) if one == part), None)) if safety else None


def remember_operation(backups: Path, name: str, text: str) -> None:
    """What became of the operation that the backup of that name was made for."""
    path = backups / STATE_FOLDER / _OPERATIONS / f"{name}.json"
    disk.make_folder(path.parent, 0o700)
    disk.write_file(path, text.encode())


def _path(backups: Path, mark: str, name: str) -> Path:
    return backups / STATE_FOLDER / mark / name
