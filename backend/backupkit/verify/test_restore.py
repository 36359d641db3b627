"""Test restore: run the real restore, the app's migrations and the user's test command in a scratch folder.

The scratch folder is in the backups folder, whose disk is meant for such data. It is a draft, so the next run clears
away what a killed one left; while this run lives, it holds a lock in the folder.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from backupkit.config.settings import WITHOUT_HOOKS, Settings
from backupkit.fs import disk
from backupkit.migrations import upgrade
from backupkit.model.backup import Backup, SchemaVerdict
from backupkit.model.clock import Clock
from backupkit.model.errors import Refused
from backupkit.model.events import Event, EventListener, Notice, Step, Warned
from backupkit.repository import store
from backupkit.restore import apart, staging
from backupkit.restore.restore import Restored, plan_source, restore_backup
from backupkit.restore.staging import Source
from backupkit.upload_files import diff, selection
from backupkit.verify import test_command
from backupkit.verify.test_command import NotProven


def prove_backup(settings: Settings, backup: Backup, emit: EventListener, clock: Clock) -> float:
    """Restore the backup into a scratch folder, migrate it, run the test command; return the seconds before the test.

    Raise `NotProven` if the result differs from the backup or fails the user's test command, `NoSpace`, and whatever a
    restore or a migration raises. Live data are never touched, and the scratch folder is always deleted.
    """
    with _scratch(settings, backup) as scratch:
        started = time.monotonic()
        source = staging.verified(settings, backup, None, _without_notices(emit), verify_while_staging=True)
        for name in store.require_metadata(backup).others:
            if settings.at(name) is None:
                emit(Warned(f"{name} of {backup.name} was not tested: the settings name no place for it."))
        plan = plan_source(scratch, source, force=False, emit=_without_notices(emit))
        done = restore_backup(scratch, plan, _without_notices(emit), clock)
        _compare(scratch, source, done)
        command = settings.migrate_command
        if done.verdict and (done.verdict.relation == "behind" or done.verdict.migrates_by_itself(command)):
            emit(Step("Migrating the restored copy"))
            _migrate(settings, scratch, done.verdict, emit)
        took = time.monotonic() - started
        _run_test(settings, scratch, emit)
        return round(took, 3)


def _migrate(settings: Settings, scratch: Settings, verdict: SchemaVerdict, emit: EventListener) -> None:
    listener = _without_notices(emit)
    rehearsed = upgrade.migrate_copy(settings, scratch.database, verdict.target, emit=listener, uploads=scratch.uploads)
    for one in rehearsed.losses:
        emit(Warned(f"Restoring it with --migrate would lose {one.text}."))


@contextlib.contextmanager
def _scratch(settings: Settings, backup: Backup) -> Iterator[Settings]:
    """Yield settings whose paths are all in a new scratch folder, which is deleted when the block ends."""
    store.require(settings.dir)
    with store.work_folder(settings, "test-restore", f"test restore of {backup.name}") as folder:
        scratch = _settings_in(folder, settings, backup)
        refuse_live(scratch, settings)
        disk.make_folder(scratch.dir)
        yield scratch


def _settings_in(folder: Path, settings: Settings, backup: Backup) -> Settings:
    with_uploads = backup.metadata is not None and backup.metadata.uploads_included
    places = {
        "database": folder / "data" / settings.database.name,
        "uploads": folder / "uploads" if with_uploads else None,
        "dir": folder / "backups",
        "exclude_marked": (),
        "exclude": (),  # the scratch folder has no excluded files to preserve
        **WITHOUT_HOOKS,
    }
    there = [part for part in settings.parts if backup.metadata and part.part in backup.metadata.others]
    further = {one.part: folder / one.part if one.uploads else folder / "data" / one.database.name for one in there}
    return settings.elsewhere(places, further)


def refuse_live(scratch: Settings, settings: Settings) -> None:
    """Raise `Refused` if the scratch folder would be inside live data or a backup, or contain them."""
    places = [place for part in scratch.parts for place in (part.database.parent, part.uploads)]
    for place in filter(None, (*places, scratch.dir)):
        if apart.touches_data(place, settings):
            raise Refused(
                f"A test restore would be at {place}, in live data or in a backup.",
                hint="Set BACKUP_DIR to a folder apart from the database and the uploads.",
            )


def _without_notices(emit: EventListener) -> EventListener:
    """Return a listener that drops notices, which are meant for people whose live data a restore changes."""

    def listen(event: Event) -> None:
        if not isinstance(event, Notice):
            emit(event)

    return listen


def _compare(scratch: Settings, source: Source, done: Restored) -> None:
    """Raise `NotProven` if the restored rows or uploads differ from the backup's."""
    for one in source.each:
        part = done.parts.get(one.part)
        if "/" in one.part and part is None:
            continue  # restored as a file of its tree, and compared there
        _compare_part(staging.place_of(scratch, one), one, part.rows if part else done.rows)


def _compare_part(scratch: Settings, source: Source, rows: Mapping[str, int]) -> None:
    if source.facts and (differing := _differing(source.facts.rows, rows)):
        raise NotProven(
            f"The rows of {differing} are not those of the backup {source.name} after its test restore.",
            hint="That is a bug: please report it, with this command's output.",
        )
    if source.uploads and scratch.uploads:
        wrong: list[str] = []
        found = diff.differences(
            scratch.uploads,
            source.uploads,
            source.traits,
            selection.of(scratch),
            lambda path, _error: wrong.append(path),
            sealed=staging.sealed_files(source),
        )
        wrong += [one.path for one in found if one.action != "dress"]
        if wrong:
            raise NotProven(
                f"{scratch.uploads / wrong[0]} is not as in the backup {source.name} after its test restore.",
                hint="That is a bug: please report it, with this command's output.",
            )


def _differing(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    return ", ".join(sorted(table for table in before if before[table] != after.get(table)))


def _run_test(settings: Settings, scratch: Settings, emit: EventListener) -> None:
    if settings.test_command:
        emit(Step("Running the test command"))
        test_command.run(settings, scratch, scratch.dir / "test.log")
