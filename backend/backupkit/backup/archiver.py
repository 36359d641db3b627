"""What goes into a draft: one moment of the database, and every upload that this moment refers to.

The moment begins first. Then a second thread copies and checks the database while the first copies the uploads.
What is as an earlier backup saw it is linked from there.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import disk, process, space
from backupkit.migrations import version_table
from backupkit.migrations.schema import CannotRead
from backupkit.model.backup import CHECKSUM_FILE, UPLOADS_FOLDER, BackupRequest, DatabaseFacts, Metadata, UploadsFacts
from backupkit.model.errors import SourceBroken
from backupkit.model.events import Event, EventListener, Notice, Step, Together, Warned
from backupkit.model.version import VERSION
from backupkit.repository import files_cache, manifest
from backupkit.sqlite import database
from backupkit.sqlite.database import Inspection
from backupkit.upload_files import archiver, marked, selection, walk


@dataclass(frozen=True)
class Draft:
    """A backup that is being made: what was ordered, its folder, what it may be linked from, what it saw.

    `salvaged` is a finished database that goes into it in the place of the live one.
    """

    settings: Settings
    request: BackupRequest
    folder: Path
    earlier: files_cache.ParentBackup | None
    seen: files_cache.Writer
    emit: EventListener
    salvaged: Path | None = None

    @property
    def database(self) -> Path:
        """Where the copy of the database is made."""
        return self.folder / self.settings.database.name

    @property
    def live_uploads(self) -> Path | None:
        """The folder to copy; None where none is wanted."""
        return self.settings.uploads if self.request.uploads else None


@dataclass(frozen=True)
class _Taken:
    """One of the two sources as it is in the draft; `added` bytes of it were not linked."""

    added: int
    database: Inspection | None = None
    uploads: UploadsFacts | None = None
    excluded: tuple[str, ...] = ()


_NO_UPLOADS = _Taken(0)


def fill(draft: Draft) -> Metadata:
    """The data, copied and checked, with their checksums; the caller puts name and times into the metadata."""
    if draft.live_uploads:
        walk.require(draft.live_uploads)
    with contextlib.closing(manifest.ChecksumWriter(draft.folder)) as checksums:
        found, files = _take(draft, checksums)
        _record_database(draft, found, checksums)
    assert found.database is not None
    if violations := found.database.facts.foreign_key_violations:
        like = "which were lost, or never there" if draft.salvaged else "as in the live data"
        draft.emit(Notice(f"{violations} rows refer to rows that are not there, {like}."))
    if flaws := found.database.facts.index_flaws:
        said = database.index_sentence(draft.settings, flaws)
        draft.emit(Notice(said) if draft.request.kind == "pre_restore" else Warned(said))
    return _metadata(draft, found, files)


def _take(draft: Draft, checksums: manifest.ChecksumWriter) -> tuple[_Taken, _Taken]:
    if draft.salvaged:
        return _take_salvaged(draft, draft.salvaged), _take_uploads(draft, checksums, draft.emit)
    settings, files = draft.settings, None
    before = database.signature(settings.database)
    try:
        with database.snapshot(settings.database, settings.busy_timeout, draft.emit) as snapshot:
            # A commit in between may be in the moment or not: then nothing is known of what it is the moment of.
            stamp = before if before == database.signature(settings.database) else None
            with _both(draft, snapshot, stamp) as (beside, listen, own):
                taking = beside.submit(_take_database, draft, snapshot, stamp, listen)
                files = _take_uploads(draft, checksums, own)
                return taking.result(), files
    except SourceBroken as error:
        # Nothing that is broken may stand in the way of a restore, nor be lost by it.
        if draft.request.kind != "pre_restore":
            raise
        draft.emit(Notice(f"{error.message} Its files are kept as they are in the safety copy."))
        return _keep_raw(draft), files or _take_uploads(draft, checksums, draft.emit)


@contextlib.contextmanager
def _both(
    draft: Draft, snapshot: sqlite3.Connection, stamp: str | None
) -> Iterator[tuple[Executor, EventListener, EventListener]]:
    """A second thread, and a listener for each, when there is room for both. It gives up where the block fails."""
    database_size = 0 if _is_unchanged(draft, stamp) else database.live_size(snapshot)
    size = _required(draft, database_size)
    together, failed = Together(draft.emit, Step("Backing up", size)), threading.Event()
    database_part = together.part(database.page_size(snapshot))

    def listen(event: Event) -> None:
        if failed.is_set():
            raise InterruptedError
        database_part(event)

    with process.optional_worker(database_size) as beside:
        try:
            yield beside, listen, together.part()
        except BaseException:
            failed.set()
            raise


def _required(draft: Draft, size: int) -> int | None:
    """Bytes to copy, for which there is room; None where all of the earlier backup would fit in once more."""
    before = draft.earlier.metadata if draft.earlier else None
    whole = size + (before.uploads.bytes if before and before.uploads else 0)
    if before and before.uploads and 2 * space.with_margin(whole) < disk.free_space(draft.settings.dir):
        return None
    if draft.live_uploads:
        size += walk.measure(draft.live_uploads, selection.of(draft.settings).leaves_out, draft.earlier)[1]
        if draft.earlier:
            draft.earlier.rewind()
    space.require(size, draft.settings.dir, "This backup")
    return size


def _take_uploads(draft: Draft, checksums: manifest.ChecksumWriter, emit: EventListener) -> _Taken:
    if draft.live_uploads is None:
        return _NO_UPLOADS

    def record(path: str, facts: os.stat_result, checksum: str, attributes: int) -> None:
        checksums.record(f"{UPLOADS_FOLDER}/{path}", checksum)
        draft.seen.add(path, facts, checksum, attributes)

    target = draft.folder / UPLOADS_FOLDER
    selected = selection.of(draft.settings)
    draft.seen.settle(draft.live_uploads)
    copied = archiver.copy(draft.live_uploads, target, record, selected.leaves_out, draft.earlier, emit)
    draft.seen.keeps_attributes = copied.keeps_attributes
    if copied.late:
        checksums.insert({f"{UPLOADS_FOLDER}/{path}": checksum for path, checksum in copied.late.items()})
    excluded = tuple(sorted(map(marked.key, selected.marked.found)))
    return _Taken(copied.added, uploads=copied.facts, excluded=excluded)


def _take_database(draft: Draft, snapshot: sqlite3.Connection, stamp: str | None, emit: EventListener) -> _Taken:
    draft.seen.database = stamp
    if _is_unchanged(draft, stamp) and _link_database(draft):
        snapshot.close()
        assert draft.earlier is not None
        return _Taken(0, database=_as_before(draft.earlier.metadata))
    found = _copy_database(draft, snapshot, emit)
    is_known = draft.earlier is not None and _known(draft.earlier) == found.facts.sha256
    return _Taken(0 if is_known and _link_database(draft) else found.facts.size, database=found)


def _known(earlier: files_cache.ParentBackup) -> str | None:
    """The checksum of the earlier backup's database; None where there is none that was sound."""
    facts = earlier.metadata.database
    return facts.sha256 if facts and not facts.raw else None


def _is_unchanged(draft: Draft, stamp: str | None) -> bool:
    """Whether the live database is as the earlier backup saw it."""
    return bool(draft.earlier and stamp and draft.earlier.database == stamp and _known(draft.earlier))


def _as_before(metadata: Metadata) -> Inspection:
    assert metadata.database is not None
    versions = {metadata.version_table: metadata.revisions} if metadata.revisions else {}
    print_ = metadata.schema_fingerprint or ""
    return Inspection(metadata.database, versions, print_, migrations=metadata.migrations)


def _link_database(draft: Draft) -> bool:
    """Whether the earlier backup's database, which is the same, stands in the draft now."""
    assert draft.earlier is not None
    sealed = draft.earlier.folder / draft.settings.database.name
    linked = draft.database.with_name(f"{draft.database.name}.linked")
    try:
        if not _is_as_sealed(draft, sealed):
            return False
        os.link(sealed, linked, follow_symlinks=False)
        os.replace(linked, draft.database)
    except OSError:
        return False  # a file system without links
    return True


def _is_as_sealed(draft: Draft, sealed: Path) -> bool:
    """Whether nobody wrote to the sealed file since, and it has the mode and owner that a copy would get."""
    assert draft.earlier is not None and draft.earlier.metadata.database is not None
    facts, seal = os.lstat(sealed), os.lstat(draft.earlier.folder / CHECKSUM_FILE)
    untouched = facts.st_size == draft.earlier.metadata.database.size and facts.st_mtime_ns <= seal.st_mtime_ns
    same_mode = facts.st_mode & 0o777 == draft.settings.database.stat().st_mode & 0o777
    return untouched and same_mode and disk.owner_of(sealed) == disk.owner_of(draft.folder)


def _copy_database(draft: Draft, snapshot: sqlite3.Connection, emit: EventListener) -> Inspection:
    live = draft.settings.database
    database.copy(snapshot, draft.database, emit)
    mode, journal_mode = live.stat().st_mode & 0o777, database.journal_mode(snapshot)
    snapshot.close()  # with a rollback journal writers wait for this
    os.chmod(draft.database, mode)
    disk.give(draft.database, disk.owner_of(draft.settings.dir))
    found = database.inspect_copy(draft.database, live, emit)
    return replace(found, facts=replace(found.facts, journal_mode=journal_mode, mode=mode))


def _take_salvaged(draft: Draft, database_file: Path) -> _Taken:
    """The database that was made of a broken one, moved into the draft; the uploads have room."""
    draft.emit(Step("Backing up", _required(draft, 0)))
    os.rename(database_file, draft.database)
    disk.give(draft.database, disk.owner_of(draft.settings.dir))
    found = database.inspect(draft.database, draft.emit)
    if found.problems:
        raise SourceBroken(
            f"What was read of {draft.settings.database} makes no sound database: {found.problems[0]}.",
            hint=database.PUT_BACK,
        )
    mode, journal_mode = draft.database.stat().st_mode & 0o777, _journal_mode_of(draft)
    return _Taken(found.facts.size, replace(found, facts=replace(found.facts, mode=mode, journal_mode=journal_mode)))


def _journal_mode_of(draft: Draft) -> str:
    """The one that the backups before had: the broken file cannot be asked."""
    before = draft.earlier.metadata.database if draft.earlier else None
    return before.journal_mode if before else "delete"


def _keep_raw(draft: Draft) -> _Taken:
    for path in _database_files(draft):
        path.unlink()  # what a copy came to before it failed
    kept = database.keep_raw(draft.settings.database, draft.folder)
    size = sum((draft.folder / name).stat().st_size for name in kept)
    checksum = disk.hash_file(draft.database) if draft.database.exists() else ""
    draft.seen.database = None
    return _Taken(size, database=Inspection(DatabaseFacts(size=size, sha256=checksum, raw=True), {}, ""))


def _record_database(draft: Draft, found: _Taken, checksums: manifest.ChecksumWriter) -> None:
    assert found.database is not None
    for path in sorted(_database_files(draft)):
        if path == draft.database:
            checksums.record(path.name, found.database.facts.sha256)
        else:
            checksums.record_file(path.name)


def _database_files(draft: Draft) -> list[Path]:
    return list(draft.folder.glob(f"{glob.escape(draft.database.name)}*"))


def _metadata(draft: Draft, found: _Taken, files: _Taken) -> Metadata:
    assert found.database is not None
    table = _version_table(draft, found.database)
    revisions = found.database.versions.get(table, ())
    added = found.added + files.added
    shares = added < found.database.facts.size + (files.uploads.bytes if files.uploads else 0)
    return Metadata(
        backup_name="",
        timestamp="",
        created_at=datetime.min,
        alembic_revision=revisions[0] if revisions else None,
        database_file=draft.database.name if found.database.facts.sha256 else None,
        uploads_included=files.uploads is not None,
        kind=draft.request.kind,
        note=draft.request.note,
        alembic_revisions=revisions,
        version_table=table,
        migrations=found.database.migrations,
        schema_fingerprint=found.database.fingerprint,
        database=found.database.facts,
        uploads=files.uploads,
        git=draft.request.git,
        app_id=draft.settings.app_id,
        tool_version=VERSION,
        linked_from=draft.earlier.folder.name if draft.earlier and shares else None,
        added_bytes=added,
        exclude=draft.settings.exclude if files.uploads is not None else (),
        exclude_marked=draft.settings.exclude_marked if files.uploads is not None else (),
        excluded_folders=files.excluded,
    )


def _version_table(draft: Draft, found: Inspection) -> str:
    """Where the revisions stand; Alembic's usual table where several may be meant and env.py cannot say which."""
    try:
        return version_table.name_of(draft.settings, found.versions, draft.emit)
    except CannotRead as error:
        draft.emit(Warned(f"{error.message} {error.hint}"))
        return database.VERSION_TABLE
