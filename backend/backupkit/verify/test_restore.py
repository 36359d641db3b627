"""Test restore: run the real restore, the app's migrations and the user's test command in a scratch folder.

The scratch folder is in the backups folder, whose disk is meant for such data. It is a draft, so the next run clears
away what a killed one left; while this run lives, it holds a lock in the folder.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from backupkit.config.secrets import scrubbed
from backupkit.config.settings import WITHOUT_HOOKS, Settings
from backupkit.fs import disk, process
from backupkit.migrations import app_process, upgrade
from backupkit.model.backup import Backup, SchemaVerdict
from backupkit.model.clock import Clock
from backupkit.model.errors import BackupError, Refused
from backupkit.model.events import EventListener, Notice, Step, Warned, without
from backupkit.model.names import printable
from backupkit.repository import store
from backupkit.restore import apart, staging
from backupkit.restore.restore import Restored, plan_source, restore_backup
from backupkit.restore.staging import Source
from backupkit.upload_files import diff, selection


class NotProven(BackupError):
    """The backup was restored into a scratch folder, but the result failed the test."""


def prove_backup(settings: Settings, backup: Backup, emit: EventListener, clock: Clock) -> float:
    """Restore the backup into a scratch folder, migrate it, run the test command; return the seconds before the test.

    Raise `NotProven` if the result differs from the backup or fails the user's test command, `NoSpace`, and whatever a
    restore or a migration raises. Live data are never touched, and the scratch folder is always deleted.
    """
    quietly = without(emit, Notice)  # notices are meant for people whose live data a restore changes
    with _scratch(settings, backup) as scratch:
        started = time.monotonic()
        source = staging.verified(settings, backup, None, quietly, verify_while_staging=True)
        for name in store.require_metadata(backup).others:
            if settings.at(name) is None:
                emit(Warned(f"{name} of {backup.name} was not tested: the settings name no place for it."))
        plan = plan_source(scratch, source, force=False, emit=quietly)
        done = restore_backup(scratch, plan, quietly, clock)
        _compare(scratch, source, done)
        command = settings.migrate_command
        if done.verdict and (done.verdict.relation == "behind" or done.verdict.migrates_by_itself(command)):
            emit(Step("Migrating the restored copy"))
            _migrate(settings, scratch, done.verdict, emit)
        took = time.monotonic() - started
        if settings.test_command:
            emit(Step("Running the test command"))
            _run_test_command(settings, scratch, scratch.dir / "test.log")
        return round(took, 3)


def _migrate(settings: Settings, scratch: Settings, verdict: SchemaVerdict, emit: EventListener) -> None:
    listener, uploads = without(emit, Notice), scratch.uploads
    rehearsed = upgrade.migrate_copy(settings, scratch.database, verdict.target, emit=listener, uploads=uploads)
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
        with staging.refusing_altered(source):
            wrong += [one.path for one in found if one.action != "dress"]
        if wrong:
            raise NotProven(
                f"{scratch.uploads / wrong[0]} is not as in the backup {source.name} after its test restore.",
                hint="That is a bug: please report it, with this command's output.",
            )


def _differing(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    return ", ".join(sorted(table for table in before if before[table] != after.get(table)))


# The test command


def _run_test_command(settings: Settings, scratch: Settings, log: Path) -> None:
    """Run the test command. Raise `NotProven`, with its last line, if it exits with another code than 0 or too late.

    It runs in the app's folder with the paths of `scratch`; its output goes into `log`. All its processes are ended.
    """
    command, timeout = settings.test_command, settings.test_timeout
    named = repr(scrubbed(command, settings.secrets))
    with app_process.target(settings, scratch.database) as target, open(log, "wb") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=settings.app_dir,
            env=_test_environment(scratch, target),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise NotProven(f"{named} did not end within {timeout:g} s.", hint="Set BACKUP_TEST_TIMEOUT.") from error
        finally:
            process.end_group(child)
    if code:
        last = scrubbed(_last_line(log), settings.secrets)  # the line is stored in the record and sent in notifications
        raise NotProven(f"{named} ended with {code} on the restored copy: {last}", hint="Try it by hand.")


def _test_environment(scratch: Settings, target: app_process.Target) -> dict[str, str]:
    return {
        **os.environ,
        **target.environment(),
        "BACKUP_TEST_DATABASE": str(scratch.database),
        "BACKUP_TEST_UPLOADS": str(scratch.uploads or ""),
        "BACKUP_UPLOADS": str(scratch.uploads or ""),
        "BACKUP_DIR": str(scratch.dir),
    }


def _last_line(log: Path) -> str:
    with open(log, "rb") as output:
        output.seek(max(0, os.fstat(output.fileno()).st_size - 4096))
        lines = output.read().decode(errors="replace").split("\n")
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing"))
