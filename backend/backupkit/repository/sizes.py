"""Unique bytes of each backup: bytes that it shares with no older one.

The metadata have them as long as the backup it was linked from exists. After that one is deleted they are counted
again and cached in `backups/.state/sizes.json`, which may be lost.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import disk, own_folder, tree
from backupkit.model.backup import UPLOADS_FOLDER, Backup
from backupkit.repository import flags, store

_FILE = "sizes.json"


class _CachedSize(Struct, frozen=True):
    """Unique bytes of a backup made at `made`, while `older` is the next older one."""

    made: str
    older: str
    bytes: int


def with_unique_bytes(settings: Settings, newest_first: list[Backup]) -> list[Backup]:
    """Return the backups with `unique_bytes` set: the bytes shared with no later entry of the list."""
    before = _read(settings.dir)
    known: dict[str, _CachedSize] = {}
    found = [
        replace(backup, unique_bytes=_unique_bytes(backup, newest_first[place + 1 :], before, known))
        for place, backup in enumerate(newest_first)
    ]
    if known != before:
        with suppress(OSError):  # the folder may be read-only
            _write(settings.dir, known)
    return found


def unique_bytes_of(settings: Settings, backup: Backup) -> Backup:
    """Return the backup with `unique_bytes` set: the bytes shared with no older backup."""
    found = with_unique_bytes(settings, store.all_backups(settings))
    return next((one for one in found if one.name == backup.name), backup)


def _unique_bytes(
    backup: Backup, older: list[Backup], before: dict[str, _CachedSize], known: dict[str, _CachedSize]
) -> int:
    metadata = backup.metadata
    if metadata is None or metadata.added_bytes is None:
        return backup.size_bytes
    if metadata.linked_from is None or any(one.name == metadata.linked_from for one in older):
        return metadata.added_bytes
    made, next_older = metadata.created_at.isoformat(), older[0].name if older else ""
    there = before.get(backup.name)
    if there is None or (there.made, there.older) != (made, next_older):
        there = _CachedSize(made, next_older, _count(backup, [one.path for one in older]))
    known[backup.name] = there
    return there.bytes


def _count(backup: Backup, older: list[Path]) -> int:
    assert backup.metadata is not None
    parts = {UPLOADS_FOLDER, *backup.metadata.database_files, *backup.metadata.tree_facts}
    files = (entry for entry in tree.walk(backup.path) if entry.form == "file" and entry.path.split("/")[0] in parts)
    return sum(entry.facts.st_size for entry in files if not _is_shared(entry, older))


def _is_shared(entry: tree.Entry, older: list[Path]) -> bool:
    return entry.facts.st_nlink > 1 and any(_is_same(entry, folder / entry.path) for folder in older)


def _is_same(entry: tree.Entry, other: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(entry.facts, os.lstat(other))
    return False


def _read(backups: Path) -> dict[str, _CachedSize]:
    try:
        with own_folder.existing(backups, flags.STATE_FOLDER) as folder:
            content = disk.read_plain(folder / _FILE, disk.MOST_STATE) if folder else b"{}"
        return msgspec.json.decode(content.decode(), type=dict[str, _CachedSize])
    except (OSError, ValueError, RecursionError):
        return {}


def _write(backups: Path, known: dict[str, _CachedSize]) -> None:
    document = {name: {"made": one.made, "older": one.older, "bytes": one.bytes} for name, one in known.items()}
    with own_folder.made(backups, flags.STATE_FOLDER) as folder:
        disk.write_file(folder / _FILE, json.dumps(document).encode())
