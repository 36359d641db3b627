"""Bring rows of a backup, and the rows they refer to, back into the live database: all of them, or none.

1. plan: verify the backup and find the rows (`sqlite/row_rescue.py`)
2. lock, and make a safety copy of the database, which `undo` restores
3. restore missing uploads that the rows name (`rescued_uploads.py`), after a rehearsal of the rows has succeeded
4. write the rows in one transaction, in which the live rows must still be those of the plan
A kill leaves the database as it was, or with all of the rows.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from backupkit.backup.create import refuse_overlap
from backupkit.backup.make import make_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import MAIN_DATABASE, BackupRequest
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, Refused
from backupkit.model.events import EventListener, Step, collecting, silence
from backupkit.model.names import printable
from backupkit.repository import flags, hooks, store
from backupkit.repository.operation import locked_operation
from backupkit.restore import recovery, rescued_uploads, restore, staging
from backupkit.restore.rescued_uploads import NamedUploads
from backupkit.restore.restore import RestorePlan
from backupkit.sqlite import database, row_rescue, row_return
from backupkit.sqlite.row_rescue import Choice, Found


class RescuePlan(Struct, frozen=True):
    """The changes of a rescue: the backup's name, its database file, the rows, and the uploads that they name."""

    source: str
    file: Path
    found: Found
    uploads: NamedUploads = NamedUploads()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences to show with the plan, about the rows and their uploads."""
        return (*self.found.notes, *self.uploads.notes())


class Rescued(Struct, frozen=True):
    """The result of a rescue, in rows by table. `safety` is empty if there was nothing to bring back.

    `differ` is the number of rows that differ from the live ones and were left as they are.
    """

    source: str
    safety: str
    inserted: Mapping[str, int]
    replaced: Mapping[str, int]
    differ: int
    uploads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_rescue(
    settings: Settings,
    name: str,
    table: str,
    choice: Choice,
    overwrite: bool = False,
    with_children: bool = False,
    force: bool = False,
    emit: EventListener = silence,
) -> RescuePlan:
    """Return the rows of the backup that would come back. Verify its database; nothing stays written.

    Live rows that differ from the backup's stay as they are unless `overwrite`. With `with_children` rows of other
    tables that refer to these come back too. Raise `NoSuchBackup` for an unknown backup, table or key; `Damaged`;
    `Refused` if schema, keys or constraints do not allow it, or for another app's backup (unless forced).
    """
    if sum((bool(choice.where), choice.missing, bool(choice.keys), bool(choice.rows))) != 1:
        raise Refused("Rows must be selected in exactly one way.", hint="Give one of --where, --missing and --key.")
    refuse_overlap(settings)
    backup = store.find(settings, name, emit)
    restore.refuse_another_app(settings, backup, force)
    source = staging.verified(settings, backup, settings.part or MAIN_DATABASE, emit)
    assert source.database
    restore.require_writable(settings, source)
    emit(Step("Looking for the rows"))
    with (
        database.naming(settings.part),
        row_rescue.opened(settings.database, source.database, settings.busy_timeout) as connection,
    ):
        try:
            found = row_rescue.find(connection, source.database, table, choice, overwrite, with_children)
        except sqlite3.OperationalError as error:
            raise Refused(f"The rows of {printable(table)} cannot be compared: {error}.", "See `rows`.") from error
    return RescuePlan(backup.name, source.database, found, rescued_uploads.find_named(settings, backup, found, emit))


def rescue_rows(settings: Settings, plan: RescuePlan, emit: EventListener = silence, clock: Clock = utc_now) -> Rescued:
    """Write the planned rows to the live database, after a safety copy; an error leaves it unchanged.

    Raise `Refused` if the live rows are no longer those of the plan, `SourceUnreadable` if the database stays locked.
    """
    found = plan.found
    if not found.writes:
        return Rescued(plan.source, "", {}, {}, len(found.differ), notes=plan.notes)
    warnings: list[str] = []
    with (
        hooks.of(settings, "restore", emit) as hook,
        locked_operation(settings, f"rescue from {plan.source}", emit, clock, [plan.source]) as work,
    ):
        recovery.recover_under_lock(settings, work.emit)
        listen = collecting(work.emit, warnings)
        with hook.around(work):
            if plan.uploads.plan:
                safety = _write_uploads_and_rows(settings, plan, plan.uploads.plan, listen, clock)
            else:
                safety = _write_rows(settings, plan, listen, clock)
        work.concerning(safety)
    return Rescued(
        plan.source,
        safety,
        Counter(row.table for row in found.inserts),
        Counter(row.table for row in found.differ) if found.overwrite else {},
        0 if found.overwrite else len(found.differ),
        plan.uploads.paths,
        plan.notes,
        (*warnings, *hook.warnings),
    )


def _write_rows(settings: Settings, plan: RescuePlan, emit: EventListener, clock: Clock) -> str:
    """Make a safety copy, write the rows, and return the name of the copy."""
    with staging.claimed(settings, emit):
        note = f"before rows of {plan.source} were brought back: {len(plan.found.writes)}"
        request = BackupRequest(kind="pre_restore", note=note, uploads=False)
        safety = make_backup(settings, request, emit, clock).backup.name
        emit(Step("Bringing rows back"))
        row_return.bring_back(settings.database, plan.file, plan.found, settings.busy_timeout)
        flags.remember_restore(settings.dir, safety, settings.part or MAIN_DATABASE)
    return safety


def _write_uploads_and_rows(
    settings: Settings, plan: RescuePlan, uploads: RestorePlan, emit: EventListener, clock: Clock
) -> str:
    """Restore the uploads, then the rows that name them, or neither; return the name of the safety copy."""
    row_return.bring_back(settings.database, plan.file, plan.found, settings.busy_timeout, is_rehearsal=True)
    before = flags.last_restore(settings.dir)
    safety = restore.restore_source(settings, uploads, emit, clock).safety  # it holds database and uploads
    try:
        with staging.claimed(settings, emit):
            emit(Step("Bringing rows back"))
            row_return.bring_back(settings.database, plan.file, plan.found, settings.busy_timeout)
            flags.remember_restore(settings.dir, safety)
    except BackupError:
        rescued_uploads.remove_restored(settings, plan.uploads, safety, before, emit, clock)
        raise
    return safety
