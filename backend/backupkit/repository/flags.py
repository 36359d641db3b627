"""Flags set on a backup after it was sealed, kept beside it: losing them loses no backup.

A flag is an empty file, `backups/.state/FLAG/NAME`, so that two processes never write the same one. Also here: the name
of the last restore's safety copy, `backups/.state/last_restore`; and `backups/.state/operations/NAME.json`, how the
operation ended that a program made the backup for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from backupkit.fs import disk, own_folder
from backupkit.model.names import is_name

STATE_FOLDER = ".state"
PINNED = "pinned"
HELD = "held"  # pinned until the next good backup
ACCEPTED = "accepted"  # somebody looked at what is unusual about it
PROOFS = "proofs"  # a record, of `repository/verification.py`
SOUND = "sound"  # the checksum of a database that SQLite has checked here, of the same module
_BY_NAME = (PINNED, HELD, ACCEPTED, PROOFS, SOUND, "index")  # the folders with a file a backup
_LAST_RESTORE = "last_restore"
_OPERATIONS = "operations"


def add(backups: Path, flag: str, name: str) -> None:
    """Set a flag on the backup of that name."""
    with own_folder.made(backups, STATE_FOLDER, flag) as folder:
        disk.write_file(folder / name, b"")


def clear(backups: Path, flag: str, name: str) -> None:
    """Clear a flag of the backup of that name, if it is set."""
    with own_folder.existing(backups, STATE_FOLDER, flag) as folder:
        if folder:
            disk.remove(folder / name)


def clear_all(backups: Path, flag: str) -> None:
    """Clear a flag of every backup."""
    for name in _listed(backups, flag):
        clear(backups, flag, name)


def forget(backups: Path, name: str) -> None:
    """Clear all that an earlier backup of that name left here."""
    for flag in (PROOFS, SOUND, PINNED, HELD, ACCEPTED):
        clear(backups, flag, name)


def forget_all_but(backups: Path, names: Set[str]) -> None:
    """Clear all that backups left here which are none of these."""
    for flag in _BY_NAME:
        for name in set(_listed(backups, flag)) - names:
            clear(backups, flag, name)


@dataclass(frozen=True)
class Flags:
    """The names of the backups that have each flag, read at once: that costs less than asking for each backup."""

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
    """What `undo` goes back to: a safety copy, of one part alone or of all; some parts from a `later` copy."""

    safety: str
    part: str | None = None
    later: Mapping[str, str] = {}


def remember_restore(
    backups: Path, safety: str, part: str | None = None, later: Mapping[str, str] | None = None
) -> None:
    """The last restore left this safety copy, and was of that part alone, or of all.

    `later` are the parts that a later safety copy has as they were last.
    """
    lines = [safety, part or "", json.dumps(later) if later else ""]
    with own_folder.made(backups, STATE_FOLDER) as folder:
        disk.write_file(folder / _LAST_RESTORE, "\n".join(lines).rstrip("\n").encode())


def last_restore(backups: Path) -> LastRestore | None:
    """What the last restore left; by what is written: a clock can be set back."""
    try:
        with own_folder.existing(backups, STATE_FOLDER) as folder:
            written = disk.read_plain(folder / _LAST_RESTORE, disk.MOST_STATE).decode() if folder else ""
    except (OSError, ValueError):
        return None
    safety, part, later = (*written.split("\n", 2), "", "")[:3]
    return LastRestore(safety, part if is_name(part) else None, _later(later)) if is_name(safety) else None


def _later(written: str) -> Mapping[str, str]:
    """The parts that a later safety copy has, by what is written; it is input."""
    try:
        found = json.loads(written or "{}")
    except ValueError:
        return {}
    return {part: str(name) for part, name in found.items() if is_name(str(name))} if isinstance(found, dict) else {}


def drafts(backups: Path) -> Iterator[Path]:
    """What killed runs left unfinished among all this; each path is good until the next is asked for."""
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
    """What became of the operation that the backup of that name was made for."""
    with own_folder.made(backups, STATE_FOLDER, _OPERATIONS) as folder:
        disk.write_file(folder / f"{name}.json", text.encode())
