"""Flags set on a backup after it was sealed, stored outside it: losing them loses no backup.

A flag is an empty file, `backups/.state/FLAG/NAME`, so that two processes never write the same file. Also here: the
name of the last restore's safety copy, `backups/.state/last_restore`; and, for a backup that a program made before an
operation of its own, how that operation ended, `backups/.state/operations/NAME.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from backupkit.fs import disk, own_folder
from backupkit.model.names import is_name

STATE_FOLDER = ".state"
PINNED = "pinned"
HELD = "held"  # pinned until the next good backup
ACCEPTED = "accepted"  # a person has looked at its anomalies
PROOFS = "proofs"  # a verification record (`repository/verification.py`)
SOUND = "sound"  # the checksum of a database that SQLite has checked on this machine (same module)
WITHOUT = {"modes": "without_modes", "owners": "without_owners"}  # what the remote it was pulled from does not keep
_BY_NAME = (PINNED, HELD, ACCEPTED, PROOFS, SOUND, *WITHOUT.values(), "index")  # the folders with one file per backup
_LAST_RESTORE = "last_restore"
_OPERATIONS = "operations"


def add(backups: Path, flag: str, name: str) -> None:
    """Set a flag on a backup."""
    with own_folder.made(backups, STATE_FOLDER, flag) as folder:
        disk.write_file(folder / name, b"")


def clear(backups: Path, flag: str, name: str) -> None:
    """Clear a flag of a backup, if it is set."""
    with own_folder.existing(backups, STATE_FOLDER, flag) as folder:
        if folder:
            disk.remove(folder / name)


def clear_all(backups: Path, flag: str) -> None:
    """Clear a flag of every backup."""
    for name in _listed(backups, flag):
        clear(backups, flag, name)


def forget(backups: Path, name: str) -> None:
    """Clear every flag and verification record of an earlier backup of the same name."""
    for flag in (PROOFS, SOUND, PINNED, HELD, ACCEPTED, *WITHOUT.values()):
        clear(backups, flag, name)


def forget_all_but(backups: Path, names: Set[str]) -> None:
    """Clear flags, verification records and files caches of all backups except these."""
    for flag in _BY_NAME:
        for name in set(_listed(backups, flag)) - names:
            clear(backups, flag, name)


def missing_rights(backups: Path, name: str) -> set[str]:
    """Return which of modes and owners this backup's uploads lost on the remote that it was pulled from."""
    return {kind for kind, flag in WITHOUT.items() if name in _listed(backups, flag)}


class Flags(Struct, frozen=True):
    """The names of the backups with each flag, read at once because that is cheaper than one look per backup."""

    pinned: frozenset[str]
    accepted: frozenset[str]
    checked: frozenset[str]


def load(backups: Path) -> Flags:
    """Return the flags of all backups as they are now."""
    return Flags(
        pinned=_names_with(backups, PINNED) | _names_with(backups, HELD),
        accepted=_names_with(backups, ACCEPTED),
        checked=_names_with(backups, PROOFS),
    )


def _names_with(backups: Path, flag: str) -> frozenset[str]:
    return frozenset(filter(is_name, _listed(backups, flag)))


def _listed(backups: Path, flag: str) -> list[str]:
    with own_folder.existing(backups, STATE_FOLDER, flag) as folder:
        return os.listdir(folder) if folder else []


class LastRestore(NamedTuple):
    """What `undo` restores: a safety copy, all of it or one part; `later` names newer copies for some parts."""

    safety: str
    part: str | None = None
    later: Mapping[str, str] = {}


def remember_restore(
    backups: Path, safety: str, part: str | None = None, later: Mapping[str, str] | None = None
) -> None:
    """Record the safety copy of the last restore, and the part it restored (None for all).

    `later` maps parts to a later safety copy, which holds their last state before the restore.
    """
    lines = [safety, part or "", json.dumps(later) if later else ""]
    with own_folder.made(backups, STATE_FOLDER) as folder:
        disk.write_file(folder / _LAST_RESTORE, "\n".join(lines).rstrip("\n").encode())


def last_restore(backups: Path) -> LastRestore | None:
    """Return what the last restore recorded, or None. Times are not compared, because a clock can be set back."""
    try:
        with own_folder.existing(backups, STATE_FOLDER) as folder:
            written = disk.read_plain(folder / _LAST_RESTORE, disk.MOST_STATE).decode() if folder else ""
    except (OSError, ValueError):
        return None
    safety, part, later = (*written.split("\n", 2), "", "")[:3]
    return LastRestore(safety, part if is_name(part) else None, _later(later)) if is_name(safety) else None


def _later(written: str) -> Mapping[str, str]:
    """Parse the parts with a later safety copy; the file is untrusted, so anything invalid is dropped."""
    try:
        found = json.loads(written or "{}")
    except ValueError:
        return {}
    return {part: str(name) for part, name in found.items() if is_name(str(name))} if isinstance(found, dict) else {}


def drafts(backups: Path) -> Iterator[Path]:
    """Yield the drafts that killed runs left in the state folder; a path is valid only until the next one is taken."""
    yield from _drafts_in(backups, STATE_FOLDER)


def _drafts_in(backups: Path, *names: str) -> Iterator[Path]:
    with own_folder.existing(backups, *names) as folder:
        if folder is None:
            return
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            if entry.name.startswith(disk.DRAFT_PREFIX):
                yield folder / entry.name
            elif entry.is_dir(follow_symlinks=False):
                yield from _drafts_in(backups, *names, entry.name)


def remember_operation(backups: Path, name: str, text: str) -> None:
    """Record how the operation ended that the backup was made for."""
    with own_folder.made(backups, STATE_FOLDER, _OPERATIONS) as folder:
        disk.write_file(folder / f"{name}.json", text.encode())
