"""Upgrade the live database's schema, or leave it as it was.

1. Make a backup (`pre_migration`), pinned until the next good one.
2. Rehearse on a copy: if that fails, the live database was never touched.
3. Stage the old database and write a journal that restores it: from here on, a kill is rolled back.
4. Run the real `alembic upgrade`, then the checks; an error is rolled back.
5. Remove the journal: the migration is done.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupkit.backup.create import refuse_overlap
from backupkit.backup.make import make_backup
from backupkit.config.settings import Settings
from backupkit.fs import disk, space, staging_area
from backupkit.migrations import schema, upgrade, version_table
from backupkit.model.backup import Backup, BackupRequest, Metadata, Migration
from backupkit.model.clock import Clock, utc_now
from backupkit.model.events import EventListener, Notice, Step, Warned, silence
from backupkit.repository import flags, hooks, store
from backupkit.repository.operation import locked_operation
from backupkit.restore import journal, recovery, staging
from backupkit.restore.journal import Journal
from backupkit.restore.staging import Source, stage_database
from backupkit.sqlite import app_migrations, database


class Migrated(Struct, frozen=True):
    """What was migrated: rows by table before and after, and the seconds; no `backup` if it was only rehearsed."""

    backup: str | None
    migrations: tuple[Migration, ...]
    rows_before: Mapping[str, int]
    rows_after: Mapping[str, int]
    rehearsal_seconds: float
    seconds: float | None
    warnings: tuple[str, ...] = ()


def migrate(
    settings: Settings,
    revision: str = "head",
    emit: EventListener = silence,
    clock: Clock = utc_now,
    expect_loss: Collection[str] = (),
) -> Migrated | None:
    """Migrate the live database to that revision and check it, or leave it as it was; None if there is nothing to do.

    Raises `MigrationFailed` with the migration's own error, `LossRefused` if it loses data of a table that is not
    in `expect_loss`, `Refused` for an unknown revision, `SchemaMismatch` for a database that this code does not know,
    and everything that a backup raises.
    """
    refuse_overlap(settings)
    store.require(settings.dir)
    with (
        hooks.of(settings, "restore", emit) as hook,
        locked_operation(settings, f"migrate to {revision}", emit, clock) as work,
    ):
        recovery.recover_under_lock(settings, work.emit)
        pending = _pending(settings, revision, work.emit)
        if not pending:
            return None
        with hook.around(work):
            with staging.claimed(settings, work.emit):
                done = _migrate(settings, revision, pending, expect_loss, work.handle, work.emit, clock)
            work.concerning(done.backup or "", note=f"to {revision}, migrations: {len(pending)}")
        return replace(done, warnings=tuple(hook.warnings))


def rehearse(
    settings: Settings, revision: str = "head", emit: EventListener = silence, expect_loss: Collection[str] = ()
) -> Migrated | None:
    """Try on a copy what `migrate` would do, and raise as it does; None if there is nothing to do."""
    store.require(settings.dir)
    pending = _pending(settings, revision, emit)
    if not pending:
        return None
    started = time.monotonic()
    space.require(2 * settings.database.stat().st_size, settings.dir, "The rehearsal of the migration")
    with _scratch_copy(settings) as copy:
        with database.snapshot(settings.database, settings.busy_timeout, emit) as snapshot:
            database.copy(snapshot, copy)
            rows_before = database.count_rows(snapshot)
        rehearsed = _migrate_copy(settings, copy, revision, [one.revision for one in pending], emit)
    upgrade.refuse_loss(rehearsed, expect_loss)
    seconds = round(time.monotonic() - started, 3)
    return Migrated(None, pending, rows_before, rehearsed.found.facts.rows, seconds, None)


def _pending(settings: Settings, revision: str, emit: EventListener) -> tuple[Migration, ...]:
    """Return the migrations to run; those of an app's own command are known only after it ran on a copy."""
    with database.snapshot(settings.database, settings.busy_timeout, emit) as snapshot:
        if schema.tree_if_needed(settings, emit) is None:
            return _pending_by_rehearsal(settings, snapshot, revision, emit)
        return schema.steps_to(settings, version_table.of_live(settings, snapshot, emit), revision, emit)


def _pending_by_rehearsal(
    settings: Settings, snapshot: sqlite3.Connection, revision: str, emit: EventListener
) -> tuple[Migration, ...]:
    with _scratch_copy(settings) as copy:
        database.copy(snapshot, copy)
        before = disk.hash_file(copy)
        found = _migrate_copy(settings, copy, revision, None, emit).found
        if found.facts.sha256 == before:
            return ()
        was, now = app_migrations.applied(snapshot), _applied(copy)
    new = [one for one in now if not was or one not in was[1]]
    return tuple(Migration(one, "") for one in new) or (Migration(found.fingerprint[:12], settings.migrate_command),)


def _applied(copy: Path) -> tuple[str, ...]:
    with database.open_sealed(copy) as connection:
        found = app_migrations.applied(connection)
    return found[1] if found else ()


def _migrate(
    settings: Settings,
    revision: str,
    pending: tuple[Migration, ...],
    expect_loss: Collection[str],
    handle: int,
    emit: EventListener,
    clock: Clock,
) -> Migrated:
    note = f"before migrating to {revision}: {len(pending)} migration{'s' * (len(pending) != 1)}"
    request = BackupRequest(kind="pre_migration", note=note, pin_until_next=True)
    backup = make_backup(settings, request, emit, clock).backup
    started = time.monotonic()
    rehearsed = _rehearse(settings, backup, revision, pending, emit)
    upgrade.refuse_loss(rehearsed, expect_loss)
    rehearsal_seconds, started = time.monotonic() - started, time.monotonic()
    proof = _go_live(settings, backup, revision, rehearsed, handle, emit, clock)
    metadata = _metadata_of(settings, backup)
    return Migrated(
        backup=backup.name,
        migrations=pending,
        rows_before=metadata.database.rows if metadata.database else {},
        rows_after=proof.facts.rows,
        rehearsal_seconds=round(rehearsal_seconds, 3),
        seconds=round(time.monotonic() - started, 3),
    )


def _metadata_of(settings: Settings, backup: Backup) -> Metadata:
    """Return the metadata of the database that is migrated."""
    metadata = store.require_metadata(backup)
    return metadata.at(settings.part) or metadata


def _rehearse(
    settings: Settings, backup: Backup, revision: str, pending: tuple[Migration, ...], emit: EventListener
) -> upgrade.Rehearsed:
    with _scratch_copy(settings) as copy:
        disk.copy_file(backup.path / settings.database.name, copy)
        return _migrate_copy(settings, copy, revision, [one.revision for one in pending], emit)


@contextlib.contextmanager
def _scratch_copy(settings: Settings) -> Iterator[Path]:
    """Yield a path for a copy of the database, in a folder that is deleted when the block ends."""
    with store.work_folder(settings, "rehearsal", "migrate") as folder:
        yield folder / settings.database.name


def _migrate_copy(
    settings: Settings, copy: Path, revision: str, wanted: Collection[str] | None, emit: EventListener
) -> upgrade.Rehearsed:
    emit(Step("Rehearsing the migration on a copy"))
    try:
        return upgrade.migrate_copy(settings, copy, revision, wanted, emit)
    except upgrade.MigrationFailed as error:
        message = f"The rehearsal on a copy failed; the live database was not touched: {error.message}"
        raise upgrade.MigrationFailed(message, error.hint) from error


def _go_live(
    settings: Settings,
    backup: Backup,
    revision: str,
    rehearsed: upgrade.Rehearsed,
    handle: int,
    emit: EventListener,
    clock: Clock,
) -> database.Inspection:
    rollback = _prepare_rollback(settings, backup, clock)
    emit(Step("Migrating the live database"))
    try:
        upgrade.migrate_live(settings, revision, rehearsed.way, emit, handle)
        wanted = version_table.at(settings, rehearsed.found)
        proof = database.prove(settings.database, settings.busy_timeout, wanted, version_table.known(settings))
        flags.remember_restore(settings.dir, backup.name, settings.part or None)
        journal.remove(settings.dir)
    except BaseException as error:
        why = str(error) or "it was interrupted"
        emit(Warned(f"The migration failed on the live database and is rolled back: {why}"))
        recovery.finish(settings, rollback, emit, clock)
        emit(Notice("The live database is as it was before the migration."))
        raise
    staging.unstage(settings, rollback.id)
    return proof


def _prepare_rollback(settings: Settings, backup: Backup, clock: Clock) -> Journal:
    """Stage the old database and write a journal that restores it: a process that finds it undoes the migration."""
    metadata = _metadata_of(settings, backup)
    name, file = f"{backup.name}{journal.OF_MIGRATION}", backup.path / settings.database.name
    source = Source(name, file, None, metadata.database, metadata.revisions, part=settings.part)
    identity = staging_area.identify(settings.dir, backup.name)
    stage_database(settings, source, identity)
    rollback = replace(recovery.journal_of(settings, source, identity, [backup.name], clock), safety=None)
    journal.write(settings.dir, rollback)
    return rollback
