"""Back up and restore a plain database: one file per backup, made and restored through SQLite.

A backup takes the lock, copies a snapshot into a draft, checks and syncs it, records its checksum and which database it
is of, and renames it; then it sets `last_backup_at`, and removes all but the newest `max_backups`. A restore checks the
backup, keeps a copy of the live database beside it, and replaces the live content in one transaction.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupkit.backup import last_backup
from backupkit.fs import descriptors, disk, space
from backupkit.model.backup import DatabaseFacts
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, Refused, SourceBroken, SourceLocked
from backupkit.model.events import EventListener, Warned, silence
from backupkit.model.names import STAMP
from backupkit.repository import lock, plain_files, store
from backupkit.restore.copy_beside import clear_unfinished_copies, copy_beside, copy_moment, draft_folder, draft_of
from backupkit.sqlite import database

MAX_BACKUPS = 20


class SingleFileConfig(Struct, frozen=True):
    """What to back up, and where to. Paths are absolute; `zone` is None for the machine's own; `timeout` in seconds."""

    database: Path
    backups: Path
    settings_file: Path
    max_backups: int
    zone: tzinfo | None
    timeout: float

    def local(self, at: datetime) -> datetime:
        """Return the time in the configured zone, without fractions of a second."""
        return at.astimezone(self.zone).replace(microsecond=0)


def create_single(config: SingleFileConfig, emit: EventListener = silence, clock: Clock = utc_now) -> Path:
    """Make a backup, complete and on disk under its name, and return its path; remove all but the newest `max_backups`.

    Raise `SourceUnreadable`, `NoSpace` or `Locked`: then nothing is left behind, and no older backup is touched.
    """
    database.require(config.database)
    with _locked(config, "backup", emit):
        return _make(config, emit, clock)


def create_single_if_needed(
    config: SingleFileConfig, emit: EventListener = silence, clock: Clock = utc_now
) -> Path | None:
    """Make a backup like `create_single`, or return None if there is one of today.

    If several threads and processes call this at once, only one of them makes a backup.
    """
    if backup_of_today(config, clock):
        return None
    database.require(config.database)
    with _locked(config, "backup", emit):
        return None if backup_of_today(config, clock) else _make(config, emit, clock)


def backup_of_today(config: SingleFileConfig, clock: Clock = utc_now) -> plain_files.SingleBackup | None:
    """Return the newest backup made today in the configured zone, or None. Only files that exist count.

    A file name has no offset, but `last_backup_at` has: it gives the right day of its backup after a change of zone.
    One that is ahead of a clock that was set back over midnight counts too: else each call would make another.
    """
    now = config.local(clock())
    last = last_backup.read(config.settings_file, config.zone)
    for backup in own_backups(config):
        exact = last if last and backup.path.name == _name(last) else backup.at
        if backup.size and (config.local(exact).date() == now.date() or plain_files.is_ahead(backup, now)):
            return backup
    return None


def last_backup_moment(config: SingleFileConfig) -> datetime | None:
    """Return when the last backup was made, the later of the newest file's time and `last_backup_at`, or None."""
    on_disk = [backup.at for backup in own_backups(config)]
    written = last_backup.read(config.settings_file, config.zone)
    if written and plain_files.owners(config.backups).is_anothers(_name(written), config.database):
        written = None  # several databases may share the settings too
    return max([*on_disk, *([written] if written else [])], default=None)


def own_backups(config: SingleFileConfig) -> list[plain_files.SingleBackup]:
    """Return the backups in the folder, newest first, without those of other databases."""
    return plain_files.backups_of(config.database, config.backups, config.zone)


def restore_single(
    config: SingleFileConfig,
    path: Path,
    emit: EventListener = silence,
    clock: Clock = utc_now,
    force: bool = False,
) -> Path | None:
    """Replace the content of the live database with the backup's, and return the path of a copy of the old content.

    Return None if there was nothing to keep. Raise `NoSuchBackup`, `Damaged`, `Refused` for another program's database,
    or `SourceLocked`: then the live database is unchanged. With `force`, a backup with other tables is accepted.
    """
    backup, kept = _require_backup_file(config, path), None
    disk.make_folder(config.database.parent)

    def keep() -> None:
        nonlocal kept
        kept = copy_beside(config.database, config.local(clock()), config.timeout, emit)

    with _locked(config, f"restore of {backup.name}", emit), draft_of(config.database) as folder:
        staged = folder / config.database.name
        facts = _stage(config, backup, staged, force, emit)
        with disk.Opened(folder, descriptors.FOLDER) as opened:
            compared = database.replace_live(staged, opened, config.database, config.timeout, facts, keep, emit)
        _prove_restored(config, compared, facts, emit)
    return kept


@contextlib.contextmanager
def _locked(config: SingleFileConfig, command: str, emit: EventListener) -> Iterator[None]:
    """Hold the lock while the block runs, and first remove what killed runs left."""
    store.require(config.backups)
    with lock.held(config.backups, command, config.timeout, emit):
        clear_unfinished_copies(config.database)
        plain_files.clear_unfinished_record(config.backups)
        settings_drafts = f"{disk.DRAFT_PREFIX}{glob.escape(config.settings_file.name)}-*"
        for draft in (
            draft_folder(config.database),
            *config.backups.glob(f"{disk.DRAFT_PREFIX}backup_*"),
            *config.settings_file.parent.glob(settings_drafts),
        ):
            disk.remove_tree(draft)
        yield


def _make(config: SingleFileConfig, emit: EventListener, clock: Clock) -> Path:
    at = plain_files.time_after(own_backups(config), config.local(clock()))
    final, at = plain_files.free_place(at, config.backups)
    with draft_of(final) as folder:
        copied = folder / final.name
        checksum = copy_moment(config.database, copied, config.timeout, emit)
        disk.sync_file(copied)
        _record(config, final.name, emit)
        _record_checksum(config, final.name, checksum, emit)
        disk.rename(copied, final)
    _record_time(config, at, emit)
    _prune(config, final, at, emit)
    return final


def _record(config: SingleFileConfig, name: str, emit: EventListener) -> None:
    try:
        plain_files.record(config.backups, name, config.database)
    except (BackupError, OSError) as error:
        emit(Warned(f"The database of this backup could not be recorded: {error}"))


def _record_checksum(config: SingleFileConfig, name: str, checksum: str, emit: EventListener) -> None:
    try:
        plain_files.record_checksum(config.backups, name, checksum)
    except (BackupError, OSError) as error:
        emit(Warned(f"The checksum of this backup could not be recorded: {error}"))


def _record_time(config: SingleFileConfig, at: datetime, emit: EventListener) -> None:
    try:
        last_backup.write(config.settings_file, at)
    except (BackupError, OSError) as error:
        emit(Warned(f"The backup is made, but its time could not be recorded: {error}"))


def _prune(config: SingleFileConfig, made: Path, at: datetime, emit: EventListener) -> None:
    try:
        for old in plain_files.expired(own_backups(config), config.max_backups, made, at):
            disk.remove(old.path)
    except OSError as error:
        emit(Warned(f"The backup is made, but an old one could not be removed: {error}"))


def _name(at: datetime) -> str:
    return f"backup_{at.strftime(STAMP)}.db"


def _require_backup_file(config: SingleFileConfig, path: Path) -> Path:
    """Return the backup's file, given a path or a bare name in the backups folder. Raise if it is not usable."""
    named = config.backups / path
    found = Path(os.path.realpath(named if len(path.parts) == 1 and named.exists() else path.expanduser()))
    if not found.is_file():
        raise NoSuchBackup(f"There is no backup at {found}.", hint="list_backups() tells which there are.")
    if config.database.exists() and os.path.samefile(found, config.database):
        raise Refused(f"{found} is the live database itself.", hint="list_backups() tells which backups there are.")
    if unfinished := [one for one in database.sidecars(found) if one.exists() and one.stat().st_size]:
        raise Damaged(f"{found} is not a backup but a database in use: {unfinished[0]} belongs to it.")
    return found


def _stage(config: SingleFileConfig, backup: Path, staged: Path, force: bool, emit: EventListener) -> DatabaseFacts:
    """Stage the backup's content next to the live database, checked, and with the live page size."""
    found = database.inspect(backup)
    if found.problems:
        raise Damaged(f"{backup} is damaged: {found.problems[0]}.", hint="Try an older backup.")
    _refuse_altered(backup, found.facts.sha256, emit)
    _refuse_foreign(config, backup, found.facts, force or _is_surely_own(config, backup))
    space.require(4 * found.facts.size, staged.parent, "This restore")
    disk.copy_file(backup, staged)
    if disk.hash_file(staged) != found.facts.sha256:
        raise Damaged(f"{backup} changed while it was staged.", hint="Try again.")
    database.require_usable(staged, backup)
    database.seal(staged)
    database.match_page_size(staged, config.database, config.timeout)
    disk.sync_tree(staged.parent)
    return replace(found.facts, mode=backup.stat().st_mode & 0o777)


def _refuse_altered(backup: Path, checksum: str, emit: EventListener) -> None:
    """Raise `Damaged` if another checksum is recorded: SQLite sees no flipped bit in a value."""
    if plain_files.checksum_or_warn(backup, emit) not in (None, checksum):
        raise Damaged(
            f"{backup} is not as it was written; nothing was changed.",
            hint="Restore another backup: list_backups() tells which there are. "
            "Or copy this one to another name, and restore the copy: it is taken as it is.",
        )


def _refuse_foreign(config: SingleFileConfig, backup: Path, facts: DatabaseFacts, is_own: bool) -> None:
    """Raise `Refused` if the application ids differ or no table is in both; with `is_own`, compare only the ids."""
    try:
        with database.snapshot(config.database, config.timeout) as snapshot:
            live = database.look(snapshot).facts
    except SourceBroken:
        return  # a missing or broken live database cannot be compared, and must not prevent its restore
    ids = {live.application_id, facts.application_id} - {0}
    if len(ids) > 1 or (live.rows and not is_own and live.rows.keys().isdisjoint(facts.rows)):
        raise _another_programs(config, backup)


def _another_programs(config: SingleFileConfig, backup: Path) -> Refused:
    hint = "list_backups() tells its own."
    known = plain_files.owners(config.backups)
    if _is_in_folder(config, backup) and known.is_anothers(backup.name, config.database):
        other = known.databases[backup.name]
        return Refused(
            f"{backup} is a backup of {other}, another program's database than {config.database}.", hint=hint
        )
    return Refused(f"{backup} is another program's database than {config.database}.", hint=hint)


def _is_surely_own(config: SingleFileConfig, backup: Path) -> bool:
    known = plain_files.owners(config.backups)
    return _is_in_folder(config, backup) and known.is_surely_of(backup.name, config.database)


def _is_in_folder(config: SingleFileConfig, backup: Path) -> bool:
    return backup.parent == Path(os.path.realpath(config.backups))


def _prove_restored(
    config: SingleFileConfig, compared: database.Comparison | None, facts: DatabaseFacts, emit: EventListener
) -> None:
    try:
        database.prove(config.database, config.timeout, None, compared=compared, rows=facts.rows)
    except SourceLocked as error:
        emit(Warned(f"The restored database could not be proven: {error.message}"))
