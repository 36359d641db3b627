"""Verify backups: read and compare every byte, check the database in full, and on request restore it for a test.

The dated result is stored outside the backup (`repository/verification.py`). Verify does not take the lock, and changes
no backup. A backup that cannot be read, or was deleted meanwhile, is not reported as damaged.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from backupkit.backup import references
from backupkit.config.settings import Settings
from backupkit.fs import disk, tree
from backupkit.migrations import schema, version_table
from backupkit.migrations.upgrade import MigrationFailed
from backupkit.model.backup import (
    CHECKSUM_FILE,
    METADATA_FILE,
    UPLOADS_FOLDER,
    Backup,
    Flaw,
    Metadata,
    References,
    SchemaVerdict,
)
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, Refused, SchemaMismatch, from_os_error
from backupkit.model.events import EventListener, Notice, Progress, Step, Warned, collecting, silence
from backupkit.remotes import listing_cache
from backupkit.repository import integrity, manifest, plain_files, store, verification
from backupkit.repository.operation import recorded
from backupkit.sqlite import database
from backupkit.upload_files.walk import Survey
from backupkit.verify.test_restore import NotProven, prove_backup

MOST_FLAWS = 100  # flaws that are listed; the rest are counted
_KEPT_FLAWS = 20  # flaws that the record stores
_MAKE_NEW_HINT = "Make a new one: `backup`. Do not delete older ones that are good: `list`."
_MOST_DATABASES = 64  # databases whose results are kept for other backups that share the file

Choose = Callable[[Sequence[Backup]], Backup]


class Verified(Struct, frozen=True):
    """The result for one backup: the backup in its new state, its flaws, and the number of `more` flaws not listed.

    `failure` is why it could not be checked or proven; `took` is the seconds of a passed test restore.
    """

    backup: Backup
    flaws: tuple[Flaw, ...] = ()
    more: int = 0
    warnings: tuple[str, ...] = ()
    hint: str = ""
    failure: BackupError | None = None
    took: float | None = None
    references: References | None = None


class VerifiedFile(Struct, frozen=True):
    """The content of a plain database file, and its flaws."""

    path: Path
    flaws: tuple[Flaw, ...]
    rows: dict[str, int] = field(default_factory=dict)
    revisions: tuple[str, ...] = ()
    verdict: SchemaVerdict | None = None


def verify_backups(
    settings: Settings,
    backups: Sequence[Backup],
    test_restore: bool = False,
    emit: EventListener = silence,
    clock: Clock = utc_now,
) -> list[Verified]:
    """Check each backup byte for byte, and with `test_restore` also test-restore the good ones; return the results.

    Files that backups share are read once. A backup deleted meanwhile is left out, or raises `NoSuchBackup` if it is
    the only one.
    """
    command = "test-restore" if test_restore else "verify"
    with recorded(settings, command, emit, clock, [backup.name for backup in backups]) as work:
        done = list(
            _verify_each(_Run(settings, work.emit, clock, sum(map(_bytes_to_read, backups))), backups, test_restore)
        )
        work.about(*(one.backup for one in done))
        if bad := _first_error(settings, done):
            work.end(bad)
    return done


def _verify_each(run: _Run, backups: Sequence[Backup], test_restore: bool) -> Iterator[Verified]:
    for backup in backups:
        try:
            yield run.verify(backup, test_restore)
        except NoSuchBackup as error:
            if len(backups) == 1:
                raise
            run.emit(Notice(error.message))


def verify_file(settings: Settings, path: Path, emit: EventListener = silence) -> VerifiedFile:
    """Check a database file outside of backups in full; write nothing beside it.

    Raise `Refused` if it is the live database or has a WAL or journal, since its last rows may be in that file.
    """
    if settings.database.exists() and path.samefile(settings.database):
        raise Refused(f"{path} is the live database.", hint="`doctor` looks at it; `backup` checks what it copies.")
    for beside in database.sidecars(path.resolve()):
        if not beside.name.endswith("-shm") and beside.exists() and beside.stat().st_size:
            raise Refused(f"{path} is in use, or was not closed: {beside} is there.", hint="Close it, then try again.")
    if path.stat().st_size == 0:
        return VerifiedFile(path, (Flaw(path.name, f"{path.name} is empty"),))
    emit(Step("Checking the database"))
    if not _is_as_recorded(path.resolve(), emit):
        return VerifiedFile(path, (Flaw(path.name, f"{path.name} is not as it was written"),))
    try:
        found = database.examine(path.resolve(), database.FULL, emit)
    except Damaged as error:
        return VerifiedFile(path, (Flaw(path.name, f"{path.name}: {error.__cause__}"),))
    flaws = tuple(Flaw(path.name, f"{path.name}: {problem}") for problem in (*found.problems, *found.facts.index_flaws))
    at = version_table.at(settings, found, emit)
    return VerifiedFile(path, flaws, dict(found.facts.rows), at, schema.classify(settings, at))


def _is_as_recorded(path: Path, emit: EventListener) -> bool:
    """Return False if another checksum is recorded for this backup: SQLite sees no flipped bit in a value."""
    look = _sealed_checksum if manifest.has_checksums(path.parent) else plain_files.checksum_of
    recorded = plain_files.checksum_or_warn(path, emit, look)
    return recorded is None or recorded == disk.hash_file(path)


def _sealed_checksum(path: Path) -> str | None:
    return manifest.checksum_of(path.parent, path.name)


def backup_at(settings: Settings, path: Path) -> Backup:
    """Return the backup in any folder; results of a verify are stored only if it is in the backups folder."""
    return store.read_at(path.resolve(), settings.zone)


def choose_for_test(settings: Settings, choose: Choose = random.choice) -> Backup:
    """Choose a backup for a test restore: one never tested, or else one of the half tested longest ago.

    Raise `NoSuchBackup` if there is none that could be restored.
    """
    able = [one for one in store.own_backups(settings) if can_be_proven(one)]
    able = [one for one in able if one.state != "damaged"] or able
    if not able:
        raise NoSuchBackup(f"There is no backup in {settings.dir} that could be restored.", hint="Make one: `backup`")
    tried = {one.name: verification.read(settings.dir, one.name, store.require_metadata(one)).tried_at for one in able}
    if never := [one for one in able if tried[one.name] is None]:
        return choose(never)
    longest_ago = sorted(able, key=lambda one: str(tried[one.name]))
    return choose(longest_ago[: (len(able) + 1) // 2])


def can_be_proven(backup: Backup) -> bool:
    """Return whether it can be restored at all: its metadata are readable, and its database is not raw."""
    metadata = backup.metadata
    return metadata is not None and not backup.error and not metadata.is_raw


def refuse_bad(settings: Settings, done: Sequence[Verified]) -> None:
    """Raise `Damaged` if any backup is damaged, or else the first reason why one could not be checked or proven."""
    if bad := _first_error(settings, done):
        raise bad


def _first_error(settings: Settings, done: Sequence[Verified]) -> BackupError | None:
    if damaged := [one for one in done if one.flaws]:
        advice = next((one.hint for one in damaged if one.hint), "")
        hint = advice or _pull_hint(settings, damaged) or _MAKE_NEW_HINT
        if len(done) == 1 and not advice and _is_shared(damaged[0]):
            hint += " Other backups share that file: `verify --all` says which are good."
        if len(done) > 1:
            names = ", ".join(one.backup.name for one in damaged)
            return Damaged(f"Of {len(done)} backups verified these are damaged: {names}.", hint)
        count = len(damaged[0].flaws) + damaged[0].more
        text = f"{damaged[0].flaws[0].text}{f' (and {count - 1} more)' if count > 1 else ''}"
        return Damaged(f"The backup {damaged[0].backup.path} is damaged: {text}.", hint)
    return next((one.failure for one in done if one.failure), None)


def _is_shared(damaged: Verified) -> bool:
    """Return whether a damaged file is one file with another backup's, which is damaged with it."""
    files = (damaged.backup.path / flaw.path for flaw in damaged.flaws)
    return any(os.path.isfile(one) and os.lstat(one).st_nlink > 1 for one in files)


def _pull_hint(settings: Settings, damaged: Sequence[Verified]) -> str:
    """Return a hint on how to pull copies of the damaged backups, by the cached listings of remotes; empty if none."""
    there = [
        (one.backup.name, remotes[0]) for one in damaged if (remotes := listing_cache.holders(settings, one.backup))
    ]
    fetched = ", ".join(f"`pull {name} --remote {remote}`" for name, remote in there[:3])
    return f"Copies are on a remote; each is checked when it comes: {fetched}." if there else ""


def _bytes_to_read(backup: Backup) -> int:
    return backup.size_bytes + (backup.metadata.database_size if backup.metadata else 0)


class _Run:
    """One run over several backups, with a common progress bar and cached results for files that they share."""

    def __init__(self, settings: Settings, emit: EventListener, clock: Clock, total: int) -> None:
        self._settings, self.emit, self._clock = settings, emit, clock
        self._total, self._done, self._counting = total, 0, threading.Lock()
        self._digests = integrity.Digests(self._advance)
        self._inspections: integrity.Shared[database.Inspection] = integrity.Shared(_MOST_DATABASES)

    def verify(self, backup: Backup, test_restore: bool) -> Verified:
        """Verify one backup and store the result in its record. Raise `NoSuchBackup` if it was deleted meanwhile."""
        before = _identity(backup.path)
        try:
            verified = self._check(backup)
        except OSError as error:
            verified = Verified(backup, failure=_unreadable(error))
        except BackupError as error:
            verified = Verified(backup, failure=error)
        _refuse_gone(backup, before)
        verified = self._record(verified)
        if test_restore and not verified.flaws and not verified.failure:
            verified = self._prove(verified)
            _refuse_gone(backup, before)
        return verified

    def _check(self, backup: Backup) -> Verified:
        _require_readable(backup.path)
        self.emit(Step(f"Verifying {backup.name}", self._total))
        self.emit(Progress(self._done))
        warnings: list[str] = []
        listen = collecting(self.emit, warnings)
        check = _BackupCheck(backup, self._digests, self._inspections, self._advance, listen)
        found = check.flaws()
        flaws = tuple(islice(found, MOST_FLAWS))
        more = sum(1 for _ in found)
        for flaw in check.index_flaws[:1]:
            listen(Warned(f"An index of {backup.name} does not match its table: {flaw}. {self._live_advice}"))
        for lost in check.lost:
            listen(Warned(f"{lost}. Its contents are as written."))
        for path in integrity.writable_by_others(backup.path, backup.metadata):
            listen(Warned(f"{path} can be written by others than its owner."))
        if backup.metadata and backup.metadata.is_raw:
            path = backup.path
            listen(Warned(f"{path} keeps a database that could not be read, as raw files: only salvage can read it."))
        found_named = None if flaws else self._references(backup, listen)
        hint = self._live_advice if check.sealed_damage else ""
        return Verified(backup, flaws, more, tuple(warnings), hint, references=found_named)

    def _references(self, backup: Backup, emit: EventListener) -> References | None:
        """Compare its rows with its uploads by the present settings' references; None if that is not possible."""
        metadata, wanted = backup.metadata, self._settings.references
        if not wanted or metadata is None or not metadata.database_file or not metadata.uploads_included:
            return None
        if metadata.is_raw:
            return None
        left_out = references.LeftOut(metadata.exclude, metadata.excluded_folders)
        file, uploads = backup.path / metadata.database_file, backup.path / UPLOADS_FOLDER
        return references.examine(wanted, file, uploads, left_out, emit)

    @cached_property
    def _live_advice(self) -> str:
        """Advice that says whether the live database is damaged too: then a new backup would be damaged as well."""
        live = self._settings.database
        found = database.check_live(live, min(self._settings.busy_timeout, 5))
        if found is None:
            return f"Whether {live} has the same damage could not be found out: it is missing, large, or in use."
        if found.problems:
            return f"{live} is damaged too ({found.problems[0]}): restore an older backup: `list`."
        if flaws := found.facts.index_flaws:
            return database.index_sentence(self._settings, flaws)
        return f"{live} has no such damage: make a new one: `backup`."

    def _advance(self, count: int) -> None:
        with self._counting:
            self._done = min(self._done + count, self._total)
        self.emit(Progress(self._done))

    def _record(self, verified: Verified) -> Verified:
        if verified.failure or verified.backup.metadata is None or verified.backup.error:
            return verified
        return self._update_record(
            verified, lambda record: replace(record, checked_at=self._now(), flaws=verified.flaws[:_KEPT_FLAWS])
        )

    def _prove(self, verified: Verified) -> Verified:
        if not can_be_proven(verified.backup):
            text = f"{verified.backup.path} keeps a database that could not be read: it cannot be restored."
            return replace(verified, failure=Refused(text, hint="`verify` without --test-restore checks its files."))
        warnings = list(verified.warnings)
        try:
            took = prove_backup(self._settings, verified.backup, collecting(self.emit, warnings), self._clock)
        except (BackupError, OSError) as error:
            failure = error if isinstance(error, BackupError) else from_os_error(error)
            return self._update_record(
                replace(verified, failure=failure), lambda record: self._with_failure(record, failure)
            )
        now = self._now()
        verified = replace(verified, warnings=tuple(warnings), took=took)
        return self._update_record(
            verified, lambda record: replace(record, tried_at=now, proven_at=now, recovery_seconds=took, not_proven="")
        )

    def _with_failure(self, record: verification.Record, failure: BackupError) -> verification.Record:
        record = replace(record, tried_at=self._now())
        if isinstance(failure, Damaged):
            return replace(record, flaws=(Flaw("", failure.message.rstrip(".")),))
        if isinstance(failure, SchemaMismatch | MigrationFailed | NotProven):
            return replace(record, proven_at=None, recovery_seconds=None, not_proven=failure.message)
        return record  # another failure, such as a full disk, says nothing about the backup

    def _update_record(
        self, verified: Verified, change: Callable[[verification.Record], verification.Record]
    ) -> Verified:
        """Change the record, and return the result with the backup read again. A failed write is a warning."""
        backup = verified.backup
        if backup.path.parent.resolve() != self._settings.dir.resolve():
            return verified
        if verification.is_broken(self._settings.dir, backup.name):
            self.emit(Notice(f"The verification record of {backup.name} could not be read; a new one is written."))
        record = verification.read(self._settings.dir, backup.name, store.require_metadata(backup))
        try:
            verification.write(self._settings.dir, backup.name, change(record))
        except OSError as error:
            warnings = list(verified.warnings)
            listen = collecting(self.emit, warnings)
            listen(Warned(f"The result for {backup.name} could not be saved: {error.strerror}."))
            return replace(verified, warnings=tuple(warnings))
        return replace(verified, backup=store.read(self._settings, backup.name))

    def _now(self) -> datetime:
        return self._settings.local(self._clock())


Examined = list[tuple[Metadata, database.Inspection | Flaw]]


class _BackupCheck(Struct, frozen=True):
    """The check of one backup: its files in this thread, its databases in a second one, as both use disk and CPU."""

    backup: Backup
    digests: integrity.Digests
    inspections: integrity.Shared[database.Inspection]
    advance: Callable[[int], None]
    emit: EventListener
    connections: list[sqlite3.Connection] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)
    sealed_damage: list[str] = field(default_factory=list)
    """Damage of a database whose bytes are as sealed: so the live database had it when the backup was made."""
    lost: list[str] = field(default_factory=list)
    """Extended attributes and hard links that the uploads no longer have."""
    index_flaws: list[str] = field(default_factory=list)
    """Damaged indexes of a database whose bytes are as sealed: every row is there."""

    def flaws(self) -> Iterator[Flaw]:
        metadata, folder = self.backup.metadata, self.backup.path
        if self.backup.error:
            yield Flaw(CHECKSUM_FILE if metadata else METADATA_FILE, self.backup.error.rstrip("."))
        seen: set[str] = set()
        with self._in_second_thread(self._examined) as examined:
            for flaw in self._flaws_of_files(folder, metadata):
                seen.add(flaw.path)
                yield flaw
            for alone, found in examined.result():
                yield from self._database_flaws(alone, found, seen)

    def _flaws_of_files(self, folder: Path, metadata: Metadata | None) -> Iterator[Flaw]:
        if not manifest.has_checksums(folder):
            return _parts_missing(folder, metadata)
        return integrity.file_flaws(folder, metadata, self._digest, on_survey=self._note_survey)

    def _note_survey(self, tree: str, found: Survey) -> None:
        assert self.backup.metadata is not None
        if lost := integrity.lost(self.backup.metadata.tree_facts[tree], found):
            self.lost.append(f"{self.backup.path / tree} has {lost}")

    def _database_flaws(self, metadata: Metadata, found: database.Inspection | Flaw, seen: set[str]) -> Iterator[Flaw]:
        name = metadata.database_file or ""
        is_as_written = not seen & {METADATA_FILE, CHECKSUM_FILE, name}
        is_sealed = is_as_written and manifest.has_checksums(self.backup.path)
        problems = (found.text,) if isinstance(found, Flaw) else found.problems
        self.sealed_damage.extend(problems if is_sealed else ())
        if isinstance(found, Flaw):
            yield found
            return
        if is_sealed:
            self.index_flaws.extend(found.facts.index_flaws)
        else:
            yield from (Flaw(name, f"{name}: {text}") for text in found.facts.index_flaws)
        if problems or is_as_written:
            yield from integrity.database_flaws(metadata, found, self.checksums.get(name))

    def _digest(self, path: str, facts: os.stat_result) -> str:
        checksum = self.digests(path, facts)
        name = path.removeprefix(f"{self.backup.path}/")
        if self.backup.metadata and name in self.backup.metadata.database_files:
            self.checksums[name] = checksum
        return checksum

    def _examined(self) -> Examined:
        """Inspect each database; return the results, each with the metadata of that database alone."""
        parts = self.backup.metadata.parts if self.backup.metadata else ()
        return [(alone, found) for alone in parts if (found := self._examined_part(alone))]

    def _examined_part(self, metadata: Metadata) -> database.Inspection | Flaw | None:
        """Inspect one database; None if there is nothing to open, which the check of the files reports."""
        if not metadata.database_file or metadata.is_raw:
            return None
        path = self.backup.path / metadata.database_file
        if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK) or path.stat().st_size == 0:
            return None
        try:
            facts = path.stat()
            return self.inspections.of(
                facts, lambda: database.examine(path, database.FULL, self._notice, self.connections.append)
            )
        except Damaged as error:
            return Flaw(metadata.database_file, f"{metadata.database_file}: {error.__cause__}")
        finally:
            self.advance(metadata.database_size)

    def _notice(self, event: object) -> None:
        if isinstance(event, Notice):
            self.emit(event)

    @contextlib.contextmanager
    def _in_second_thread(self, work: Callable[[], Examined]) -> Iterator[Future[Examined]]:
        """Run the work in a second thread during the block; if the block raises, interrupt SQLite's checks."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work)
            try:
                yield future
            except BaseException:
                while not future.done():
                    database.interrupt(self.connections)
                    wait([future], 0.05)
                raise


def _parts_missing(folder: Path, metadata: Metadata | None) -> Iterator[Flaw]:
    """Yield what is missing or empty of the content that a backup without checksums names."""
    for name in metadata.database_files if metadata else ():
        if not (folder / name).is_file() or (folder / name).is_symlink():
            yield Flaw(name, f"{name} is missing")
        elif (folder / name).stat().st_size == 0:
            yield Flaw(name, f"{name} is empty")
    for name in metadata.tree_facts if metadata else ():
        if (folder / name).is_symlink() or not (folder / name).is_dir():
            yield Flaw(name, f"{name} is missing")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        return tree.inode(path.lstat())
    except FileNotFoundError:
        return None


def _refuse_gone(backup: Backup, before: tuple[int, int] | None) -> None:
    """Raise `NoSuchBackup` if the folder was deleted or replaced, since the result would not be reliable."""
    if before is None or _identity(backup.path) != before:
        raise NoSuchBackup(f"{backup.path} was removed while it was verified.", hint="`list` shows what is there.")


def _require_readable(folder: Path) -> None:
    """Raise `PermissionError` if the folder, metadata or checksums may not be read: that is not damage."""
    os.listdir(folder)
    for name in (METADATA_FILE, CHECKSUM_FILE):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(os.lstat(folder / name).st_mode):
                os.close(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))


def _unreadable(error: OSError) -> BackupError:
    if not isinstance(error, PermissionError):
        return from_os_error(error)
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file of it"
    return BackupError(
        f"{where} cannot be read, and so the backup was not checked: {error.strerror}.",
        hint="Run as the user who owns it, or as root.",
    )
