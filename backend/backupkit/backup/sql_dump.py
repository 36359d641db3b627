"""SQL dumps: write one from the live database, and restore one the way a backup is restored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import compression, disk
from backupkit.model.clock import Clock, utc_now
from backupkit.model.events import EventListener, Warned, silence
from backupkit.model.names import STAMP
from backupkit.repository import hooks, store
from backupkit.repository.operation import locked_operation
from backupkit.restore.recovery import recover_under_lock
from backupkit.restore.restore import Restored, RestorePlan, plan_source, restore_source
from backupkit.restore.staging import Source, at_its_revisions
from backupkit.sqlite import database, sql, sql_loader

Agree = Callable[[RestorePlan], None]


def dump(settings: Settings, target: Path, emit: EventListener = silence, clock: Clock = utc_now) -> sql.DumpFacts:
    """Write a snapshot of the live database as SQL text into a new file: complete, or not at all.

    The suffixes `.gz` and `.zst` compress it. Raise `Refused` if the file exists, `SourceUnreadable` or `NoSpace`.
    """
    store.require(settings.dir)
    store.require_free(target)
    with locked_operation(settings, "dump", emit, clock, [target.name]) as work:
        recover_under_lock(settings, work.emit)
        with disk.atomic_file(target) as draft, compression.open_for_writing(draft, target.name) as out:
            facts = dump_to(settings, out, work.emit)
        work.concerning(target.name, size_bytes=target.stat().st_size)
        return facts


def dump_to(settings: Settings, out: BinaryIO, emit: EventListener = silence) -> sql.DumpFacts:
    """Write a snapshot of the live database as SQL text into an open stream, and leave it open."""
    with database.snapshot_of(settings, emit) as snapshot:
        if reason := sql.refusal(snapshot):
            emit(Warned(f"`restore-dump` will refuse this text here: {reason} Use `backup` and `restore` instead."))
        return sql.write_dump(snapshot, out, emit)


def dump_path(settings: Settings, file: str | None) -> Path:
    """Return the path of a dump: a bare name is in the backups folder, a path is taken as it is; None is a new name."""
    if file is None:
        return settings.dir / f"database_dump_{settings.local(utc_now()).strftime(STAMP)}.sql"
    return store.file_named(settings, file)


def restore_dump(
    settings: Settings,
    file: Path | BinaryIO,
    agree: Agree,
    force: bool = False,
    emit: EventListener = silence,
) -> Restored:
    """Replace the live database with the content of an SQL dump; a safety copy keeps what was there before.

    `agree` gets the plan before live data are touched, and stops the restore by raising. Raise `NoSuchBackup` if the
    file does not exist, `Damaged` for text that is not SQL, incomplete or hostile, and whatever a restore raises.
    """
    _refuse_missing(settings, file)
    store.require(settings.dir)
    name = _name_of(file)
    with (
        hooks.of(settings, "restore", emit) as hook,
        locked_operation(settings, f"restore-dump of {name}", emit, names=[name]) as work,
    ):
        recover_under_lock(settings, work.emit)
        with store.work_folder(settings, "dump", "restore-dump") as folder:
            source = _load(settings, file, name, work.emit, folder)
            plan = plan_source(settings, source, force, work.emit)
            agree(plan)
            with hook.around(work):
                done = restore_source(settings, plan, work.emit, utc_now)
        return replace(done, warnings=(*done.warnings, *hook.warnings))


def plan_dump(
    settings: Settings, file: Path | BinaryIO, force: bool = False, emit: EventListener = silence
) -> RestorePlan:
    """Return what `restore_dump` would change; the dump is loaded into a scratch database, which is deleted again."""
    _refuse_missing(settings, file)
    store.require(settings.dir)
    with store.work_folder(settings, "dump", "restore-dump --dry-run") as folder:
        source = _load(settings, file, _name_of(file), emit, folder)
        return plan_source(settings, source, force, emit)


def _name_of(file: Path | BinaryIO) -> str:
    return file.name if isinstance(file, Path) else "standard input"


def _refuse_missing(settings: Settings, file: Path | BinaryIO) -> None:
    if isinstance(file, Path):
        missing = f"There is no dump at {file}."
        store.require_file(settings, file, missing, "*.sql*", "To restore a backup: `restore NAME`")


def _load(settings: Settings, file: Path | BinaryIO, name: str, emit: EventListener, folder: Path) -> Source:
    target = folder / settings.database.name
    if isinstance(file, Path):
        with compression.open_for_reading(file) as text:
            sql_loader.load_dump(text, target, emit)
    else:
        sql_loader.load_dump(compression.decompressing(file), target, emit)
    return _source(settings, target, name)


def _source(settings: Settings, loaded: Path, name: str) -> Source:
    with database.open_sealed(loaded) as connection:
        found = database.look(connection)  # the loader has checked its integrity already
    facts = replace(found.facts, sha256=disk.hash_file(loaded))
    return at_its_revisions(settings, Source(name, loaded, None, facts, part=settings.part), found)
