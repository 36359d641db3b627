"""Copy the live database to `NAME.before_restore_YYYYMMDD_HHMMSS` beside it before a program restores.

A program that calls this may have no command line: its users find a plain file to go back to in the data folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import disk, space
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import SourceBroken
from backupkit.model.events import EventListener, Notice, silence
from backupkit.repository import plain_files
from backupkit.restore.restore import Restored, RestorePlan, restore_backup
from backupkit.sqlite import database

_MARK = ".before_restore_"


def restore_with_copy_beside(
    settings: Settings, plan: RestorePlan, emit: EventListener = silence, clock: Clock = utc_now
) -> Restored:
    """Restore as `restore_backup` does, and first copy the live database beside itself."""

    def copy(emit: EventListener) -> None:
        if plan.source.database:
            copy_beside(settings.database, settings.local(clock()), settings.busy_timeout, emit)

    return restore_backup(settings, plan, emit, clock, copy)


def copy_beside(live: Path, snapshot: datetime, timeout: float, emit: EventListener) -> Path | None:
    """Copy the live database beside itself, and return the complete, synced copy, or None if there is no database.

    The caller holds the lock. A database too broken to be copied is kept as raw files. Raise `SourceLocked`, `NoSpace`.
    """
    clear_unfinished_copies(live)
    if not any(path.exists() for path in (live, *database.sidecars(live))):
        return None
    final, _ = plain_files.free_place(snapshot, live.parent, f"{_literal(live.name)}{_MARK}{{stamp}}")
    with draft_of(final) as folder:
        try:
            copy_moment(live, folder / live.name, timeout, emit)
            kept = [live.name]
        except SourceBroken as error:
            emit(Notice(f"{error.message} Its files are kept as they are beside it."))
            kept = _raw(live, folder)
        for name in reversed(kept):  # the main file last: once it is there, its sidecars are too
            disk.sync_file(folder / name)
            disk.rename(folder / name, final.with_name(final.name + name.removeprefix(live.name)))
    return final


def copy_moment(live: Path, target: Path, timeout: float, emit: EventListener) -> str:
    """Write a checked snapshot of the live database with its mode and owner, not yet synced; return its SHA-256."""
    with database.snapshot(live, timeout, emit) as snapshot:
        space.require(database.live_size(snapshot), target.parent, "This backup")
        database.copy(snapshot, target, emit)
    copied = database.inspect_copy(target, live, emit)
    facts = live.stat()
    disk.chown_if_root(target, (facts.st_uid, facts.st_gid))
    target.chmod(facts.st_mode & 0o777)
    return copied.facts.sha256


@contextlib.contextmanager
def draft_of(final: Path) -> Iterator[Path]:
    """Make a folder beside the final place that only its owner can read; yield it, and remove it afterwards."""
    folder = draft_folder(final)
    disk.remove_tree(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        disk.remove_tree(folder)


def draft_folder(final: Path) -> Path:
    """Return the path at which something is made before it is renamed to the final one."""
    return final.with_name(f"{disk.DRAFT_PREFIX}{final.name}")


def clear_unfinished_copies(live: Path) -> None:
    """Remove drafts that killed runs left beside the database; the caller holds the lock, so none is in use."""
    start = f"{draft_folder(live).name}{_MARK}"
    for entry in live.parent.iterdir() if live.parent.is_dir() else ():
        if entry.name.startswith(start):
            disk.remove_tree(entry)


def _raw(live: Path, folder: Path) -> list[str]:
    for left in folder.iterdir():
        left.unlink()  # the incomplete copy
    return database.keep_raw(live, folder)


def _literal(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")
