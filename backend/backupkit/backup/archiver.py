"""Fill a draft: a snapshot of the database, and every upload that this snapshot refers to.

The snapshot begins first. Then a second thread copies and checks the database while the first copies the uploads.
Whatever has not changed since an earlier backup is hard-linked from that backup.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import disk, process, space, tree, trust
from backupkit.fs.trust import Untrusted
from backupkit.migrations import version_table
from backupkit.migrations.schema import CannotRead
from backupkit.model.backup import (
    CHECKSUM_FILE,
    MAIN_DATABASE,
    UPLOADS_FOLDER,
    BackupRequest,
    DatabaseFacts,
    Metadata,
    SealedDatabase,
    SealedTree,
    UploadsFacts,
)
from backupkit.model.errors import SourceBroken, SourceLocked, SourceUnreadable
from backupkit.model.events import Event, EventListener, Notice, Step, Together, Warned, silence
from backupkit.model.version import VERSION
from backupkit.repository import files_cache, manifest
from backupkit.sqlite import database
from backupkit.sqlite.database import Inspection
from backupkit.upload_files import archiver, marked, selection, walk

_LARGE = 64 << 20  # bytes of a database


class Draft(Struct, frozen=True):
    """A backup in progress: the request, its folder, the earlier backup to link from, the files cache to write.

    `salvaged` is a finished database to store instead of the live one. `others` are the same draft for each further
    database and tree, each with the `settings` of its part.
    """

    settings: Settings
    request: BackupRequest
    folder: Path
    earlier: files_cache.ParentBackup | None
    cache_writer: files_cache.Writer
    emit: EventListener
    salvaged: Path | None = None
    others: tuple[Draft, ...] = ()

    @property
    def database(self) -> Path:
        """Path of the copy of the database in the draft."""
        return self.folder / self.settings.database.name

    @property
    def live_uploads(self) -> Path | None:
        """The folder to copy; None if uploads are not requested, or if it is missing and this is a safety copy."""
        live = self.settings.uploads if self.request.uploads else None
        return None if live and self.request.kind == "pre_restore" and not live.is_dir() else live

    @property
    def databases(self) -> tuple[Draft, ...]:
        """The drafts of all databases."""
        return (self, *(one for one in self.others if one.settings.uploads is None))

    @property
    def trees(self) -> tuple[Draft, ...]:
        """The drafts of all trees to copy."""
        return tuple(one for one in (self, *self.others) if one.live_uploads)


class _Archived(Struct, frozen=True):
    """One database or tree as it is in the draft; `added` is the bytes of it that were not linked."""

    draft: Draft
    added: int
    database: Inspection | None = None
    uploads: UploadsFacts | None = None
    excluded: tuple[str, ...] = ()
    inside: tuple[SealedDatabase, ...] = ()
    """The SQLite databases inside the tree."""


class _DatabaseSource(Struct, frozen=True):
    """The snapshot of one database, or why there is none; `stamp` changes with each commit, and is None if unknown."""

    draft: Draft
    snapshot: sqlite3.Connection | None = None
    stamp: str | None = None
    size: int = 0
    error: SourceBroken | None = None


def fill(draft: Draft) -> Metadata:
    """Copy and check the data, write their checksums, and return metadata without name and times."""
    for one in draft.trees:
        assert one.live_uploads
        walk.require(one.live_uploads, one.settings.part)
    with contextlib.closing(manifest.ChecksumWriter(draft.folder)) as checksums:
        found, trees, gap = _archive(draft, checksums)
        for archived in found:
            _record_database(archived, checksums)
    for archived in found:
        _report_flaws(archived)
    return _metadata(draft, found, trees, gap)


def _report_flaws(archived: _Archived) -> None:
    """Report foreign key violations and damaged indexes of the copied database."""
    draft, found = archived.draft, archived.database
    assert found is not None
    if violations := found.facts.foreign_key_violations:
        like = "which were lost, or never there" if draft.salvaged else "as in the live data"
        draft.emit(Notice(f"{violations} rows refer to rows that are not there, {like}."))
    if flaws := found.facts.index_flaws:
        said = database.index_sentence(draft.settings, flaws)
        draft.emit(Notice(said) if draft.request.kind == "pre_restore" else Warned(said))


def _archive(draft: Draft, checksums: manifest.ChecksumWriter) -> tuple[list[_Archived], list[_Archived], float]:
    """Copy all databases and all trees; return both, and how many ms it took to begin the snapshots."""
    with contextlib.ExitStack() as opened:
        began = time.monotonic()
        sources = [found for one in draft.databases if not one.salvaged and (found := _begin_snapshot(one, opened))]
        gap = round((time.monotonic() - began) * 1000, 3)
        with _with_second_thread(draft, sources) as (worker, listeners, own):
            archiving = worker.submit(_archive_databases, sources, listeners)
            trees = _archive_trees(draft, checksums, own)
            made = [_archive_salvaged(one, one.salvaged, own) for one in draft.databases if one.salvaged]
            archived = {one.draft.settings.part: one for one in (*made, *archiving.result())}
            return [archived[part] for one in draft.databases if (part := one.settings.part) in archived], trees, gap


def _begin_snapshot(draft: Draft, opened: contextlib.ExitStack) -> _DatabaseSource | None:
    """Begin the snapshot of this database; return None if it is missing and optional."""
    live = draft.settings.database
    before = database.signature(live)
    try:
        with database.naming(draft.settings.part):  # only while opening: later, errors of other parts pass through here
            snapshot = opened.enter_context(database.snapshot(live, draft.settings.busy_timeout, draft.emit))
    except SourceBroken as error:
        if database.is_optional_and_absent(draft.settings):
            draft.emit(Notice(f"There is no database {draft.settings.part} at {live}: it is not in this backup."))
            return None
        return _DatabaseSource(draft, error=_raise_unless_tolerated(draft, error))
    # A commit in between may be in the snapshot or not: then the stamp does not identify the snapshot's content.
    stamp = before if before == database.signature(live) else None
    return _DatabaseSource(draft, snapshot, stamp, 0 if _is_unchanged(draft, stamp) else database.live_size(snapshot))


def _raise_unless_tolerated(draft: Draft, error: SourceBroken) -> SourceBroken:
    """Return the error for a safety copy or a salvage, which a broken database must not stop; raise it otherwise."""
    if draft.request.kind not in ("pre_restore", "salvaged"):
        raise error
    return error


@contextlib.contextmanager
def _with_second_thread(
    draft: Draft, sources: list[_DatabaseSource]
) -> Iterator[tuple[Executor, list[EventListener], EventListener]]:
    """Require the disk space, then yield a second thread, its listeners (one per snapshot), and the first's listener.

    If the block raises, the next event in the second thread stops its work.
    """
    database_size = sum(one.size for one in sources)
    size = _require_space(draft, database_size)
    together, failed = Together(draft.emit, Step("Backing up", size)), threading.Event()

    def listening(source: _DatabaseSource) -> EventListener:
        part = together.part(database.page_size(source.snapshot) if source.snapshot else 1)

        def listen(event: Event) -> None:
            if failed.is_set():
                raise InterruptedError
            part(event)

        return listen

    with process.optional_worker(database_size) as worker:
        try:
            yield worker, [listening(one) for one in sources], together.part()
        except BaseException:
            failed.set()
            raise


def _require_space(draft: Draft, size: int) -> int | None:
    """Return the bytes to copy, or raise `NoSpace` if they do not fit.

    Return None, without measuring, if twice the sum of `size` and of the earlier backup's uploads fits.
    """
    before = draft.earlier.metadata if draft.earlier else None
    whole = size + sum(one.uploads.bytes for one in before.parts if one.uploads) if before else 0
    if before and before.uploads and 2 * space.with_margin(whole) < disk.free_space(draft.settings.dir):
        return None
    for one in draft.trees:
        assert one.live_uploads
        size += walk.measure(one.live_uploads, selection.of(one.settings).leaves_out, one.earlier)[1]
        if one.earlier:
            one.earlier.rewind()
    space.require(size, draft.settings.dir, "This backup")
    return size


def _archive_trees(draft: Draft, checksums: manifest.ChecksumWriter, emit: EventListener) -> list[_Archived]:
    return [_archive_tree(one, one.live_uploads, checksums, emit) for one in draft.trees if one.live_uploads]


def _archive_tree(draft: Draft, live: Path, checksums: manifest.ChecksumWriter, emit: EventListener) -> _Archived:
    folder = draft.settings.sealed_folder

    def record(path: str, facts: os.stat_result, checksum: str, attributes: int) -> None:
        checksums.record(f"{folder}/{path}", checksum)
        draft.cache_writer.add(path, facts, checksum, attributes)

    selected = selection.of(draft.settings)
    draft.cache_writer.settle(live)
    inside = _DatabasesInTree(draft, live, emit)
    copied = archiver.copy(live, draft.folder / folder, record, selected.leaves_out, draft.earlier, emit, inside.take)
    draft.cache_writer.keeps_attributes = copied.keeps_attributes
    if copied.late:
        checksums.insert({f"{folder}/{path}": checksum for path, checksum in copied.late.items()})
    excluded = tuple(sorted(map(marked.key, selected.marked.found)))
    sealed = tuple(inside.sealed(copied.databases))
    return _Archived(draft, copied.added, uploads=copied.facts, excluded=excluded, inside=sealed)


class _DatabasesInTree:
    """The SQLite databases inside a tree, each copied through SQLite as a snapshot."""

    def __init__(self, draft: Draft, live: Path, emit: EventListener) -> None:
        self._draft, self._live, self._emit = draft, live, emit
        self._found: dict[str, Inspection] = {}

    def take(self, live: Path, target: Path) -> DatabaseFacts | None:
        """Copy a snapshot of the database into a new file and check it; None if it can only be copied as a file."""
        path = os.path.relpath(live, self._live)
        try:
            trust.require_alone_in(live.parent, self._live)
            _refuse_sparse(live)
            with database.snapshot(live, self._draft.settings.busy_timeout, self._emit) as snapshot:
                database.copy(snapshot, target, silence)
                mode = database.journal_mode(snapshot)
            found = database.inspect_copy(target, live, silence, database.bounding(target.stat().st_size))
        except (SourceUnreadable, Untrusted) as error:
            target.unlink(missing_ok=True)
            if database.is_database(live):
                said = f"{error.message} It is backed up as a plain file, with the files beside it."
                self._emit(Warned(said) if isinstance(error, SourceLocked) else Notice(said))  # locked: perhaps torn
            return None
        facts = replace(found.facts, journal_mode=mode, mode=live.stat().st_mode & 0o777)
        self._found[path] = replace(found, facts=facts)
        return facts

    def sealed(self, copied: Mapping[str, DatabaseFacts | None]) -> Iterator[SealedDatabase]:
        """Yield the metadata of the databases that were copied, and of those linked from the earlier backup."""
        folder = self._draft.settings.sealed_folder
        for path in sorted(copied):
            name = f"{folder}/{path}"
            if found := self._found.get(path):
                yield SealedDatabase(
                    name=name,
                    database_file=name,
                    migrations=found.migrations,
                    schema_fingerprint=found.fingerprint,
                    database=found.facts,
                )
            elif self._draft.earlier:
                yield self._draft.earlier.databases[path]


def _refuse_sparse(live: Path) -> None:
    """Raise `SourceUnreadable` for a large file that is holes nearly throughout: SQLite would write them all out.

    A file system that compresses needs a part of the size too, but no such small one.
    """
    facts = live.stat()
    if facts.st_size > _LARGE and 16 * tree.content_size(facts) < facts.st_size:
        raise SourceUnreadable(f"The database {live} has {facts.st_size} bytes, and nearly all of them are holes.")


def _archive_databases(sources: list[_DatabaseSource], listeners: list[EventListener]) -> list[_Archived]:
    return [_archive_or_keep_raw(source, listen) for source, listen in zip(sources, listeners, strict=True)]


def _archive_or_keep_raw(source: _DatabaseSource, emit: EventListener) -> _Archived:
    """Copy the database; if it is broken, keep its raw files, so that a restore does not lose them."""
    draft, error = source.draft, source.error
    if source.snapshot:
        try:
            with database.naming(draft.settings.part), database.attributed_to(draft.settings.database):
                return _archive_database(draft, source.snapshot, source.stamp, emit)
        except SourceBroken as broken:
            error = _raise_unless_tolerated(draft, broken)
    assert error is not None
    kept = _keep_raw(draft)
    what = "Its files are kept as they are." if _database_files(draft) else "The safety copy is without it."
    emit(Notice(f"{error.message} {what}"))
    return kept


def _archive_database(draft: Draft, snapshot: sqlite3.Connection, stamp: str | None, emit: EventListener) -> _Archived:
    _remember_stamp(draft, stamp)
    if _is_unchanged(draft, stamp) and _link_database(draft):
        snapshot.close()
        assert draft.earlier is not None
        return _Archived(draft, 0, database=_parent_inspection(draft.earlier.metadata))
    found = _copy_database(draft, snapshot, emit)
    is_known = draft.earlier is not None and _parent_checksum(draft.earlier) == found.facts.sha256
    return _Archived(draft, 0 if is_known and _link_database(draft) else found.facts.size, database=found)


def _remember_stamp(draft: Draft, stamp: str | None) -> None:
    if draft.settings.part:
        draft.cache_writer.databases[draft.settings.part] = stamp
    else:
        draft.cache_writer.database = stamp


def _parent_checksum(earlier: files_cache.ParentBackup) -> str | None:
    """Return the checksum of the earlier backup's database, or None if it has none or kept only raw files."""
    facts = earlier.metadata.database
    return facts.sha256 if facts and not facts.raw else None


def _is_unchanged(draft: Draft, stamp: str | None) -> bool:
    """Return whether the live database has not changed since the earlier backup."""
    return bool(draft.earlier and stamp and draft.earlier.database == stamp and _parent_checksum(draft.earlier))


def _parent_inspection(metadata: Metadata) -> Inspection:
    assert metadata.database is not None
    versions = {metadata.version_table: metadata.revisions} if metadata.revisions else {}
    print_ = metadata.schema_fingerprint or ""
    return Inspection(metadata.database, versions, print_, migrations=metadata.migrations)


def _link_database(draft: Draft) -> bool:
    """Link the earlier backup's database, which is identical, into the draft; return whether that was possible."""
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
    """Return whether the sealed file was not written to since, and has the mode and owner that a copy would get."""
    assert draft.earlier is not None and draft.earlier.metadata.database is not None
    facts, seal = os.lstat(sealed), os.lstat(draft.earlier.folder / CHECKSUM_FILE)
    untouched = facts.st_size == draft.earlier.metadata.database.size and facts.st_mtime_ns <= seal.st_mtime_ns
    same_mode = facts.st_mode & 0o777 == draft.settings.database.stat().st_mode & 0o777
    return untouched and same_mode and disk.owner_of(sealed) == disk.owner_of(draft.folder)


def _copy_database(draft: Draft, snapshot: sqlite3.Connection, emit: EventListener) -> Inspection:
    live = draft.settings.database
    database.copy(snapshot, draft.database, emit)
    mode, journal_mode = live.stat().st_mode & 0o777, database.journal_mode(snapshot)
    snapshot.close()  # as soon as possible, since with a rollback journal writers wait for it
    os.chmod(draft.database, mode)
    disk.chown_if_root(draft.database, disk.owner_of(draft.settings.dir))
    found = database.inspect_copy(draft.database, live, emit)
    return replace(found, facts=replace(found.facts, journal_mode=journal_mode, mode=mode))


def _archive_salvaged(draft: Draft, database_file: Path, emit: EventListener) -> _Archived:
    """Move the salvaged database into the draft and check it. Raise `SourceBroken` if it is not sound."""
    os.rename(database_file, draft.database)
    disk.chown_if_root(draft.database, disk.owner_of(draft.settings.dir))
    found = database.inspect(draft.database, emit)
    if found.problems:
        raise SourceBroken(
            f"What was read of {draft.settings.database} makes no sound database: {found.problems[0]}.",
            hint=database.PUT_BACK,
        )
    mode, journal_mode = draft.database.stat().st_mode & 0o777, _journal_mode_of(draft)
    found = replace(found, facts=replace(found.facts, mode=mode, journal_mode=journal_mode))
    return _Archived(draft, found.facts.size, found)


def _journal_mode_of(draft: Draft) -> str:
    """Return the journal mode recorded by the earlier backup, since the broken file cannot tell it."""
    before = draft.earlier.metadata.database if draft.earlier else None
    return before.journal_mode if before else "delete"


def _keep_raw(draft: Draft) -> _Archived:
    for path in _database_files(draft):
        path.unlink()  # left by the copy that failed
    kept = database.keep_raw(draft.settings.database, draft.folder)
    size = sum((draft.folder / name).stat().st_size for name in kept)
    checksum = disk.hash_file(draft.database) if draft.database.exists() else ""
    _remember_stamp(draft, None)
    return _Archived(draft, size, database=Inspection(DatabaseFacts(size=size, sha256=checksum, raw=True), {}, ""))


def _record_database(archived: _Archived, checksums: manifest.ChecksumWriter) -> None:
    assert archived.database is not None
    for path in sorted(_database_files(archived.draft)):
        if path == archived.draft.database:
            checksums.record(path.name, archived.database.facts.sha256)
        else:
            checksums.record_file(path.name)


def _database_files(draft: Draft) -> list[Path]:
    """Return the files of this database in the draft: the copy, or the raw files."""
    return [path for path in (draft.database, *database.sidecars(draft.database)) if path.exists()]


def _metadata(draft: Draft, found: list[_Archived], trees: list[_Archived], gap: float) -> Metadata:
    sealed = [*map(_sealed, found), *(one for archived in trees for one in archived.inside)]
    held = [SealedTree(one.draft.settings.sealed_folder, one.uploads, one.excluded) for one in trees if one.uploads]
    first, uploads = sealed[0], next((one.uploads for one in held if one.name == UPLOADS_FOLDER), None)
    added = sum(one.added for one in (*found, *trees))
    size = sum(one.database.facts.size for one in found if one.database) + sum(one.uploads.bytes for one in held)
    return Metadata(
        backup_name="",
        timestamp="",
        created_at=datetime.min,
        alembic_revision=first.alembic_revision,
        database_file=first.database_file,
        uploads_included=uploads is not None,
        kind=draft.request.kind,
        note=draft.request.note,
        alembic_revisions=first.alembic_revisions,
        version_table=first.version_table,
        migrations=first.migrations,
        schema_fingerprint=first.schema_fingerprint,
        database=first.database,
        uploads=uploads,
        git=draft.request.git,
        app_id=draft.settings.app_id,
        tool_version=VERSION,
        linked_from=draft.earlier.folder.name if draft.earlier and added < size else None,
        added_bytes=added,
        exclude=draft.settings.exclude if held else (),
        exclude_marked=draft.settings.exclude_marked if held else (),
        excluded_folders=next((one.excluded_folders for one in held if one.name == UPLOADS_FOLDER), ()),
        databases=tuple(sealed) if sealed[1:] else (),
        trees=tuple(held) if [one.name for one in held] not in ([], [UPLOADS_FOLDER]) else (),
        databases_gap_ms=gap if found[1:] else None,
    )


def _sealed(archived: _Archived) -> SealedDatabase:
    draft, found = archived.draft, archived.database
    assert found is not None
    table = _version_table(draft, found)
    revisions = found.versions.get(table, ())
    return SealedDatabase(
        name=draft.settings.part or MAIN_DATABASE,
        database_file=draft.database.name if found.facts.sha256 else None,
        alembic_revision=revisions[0] if revisions else None,
        alembic_revisions=revisions,
        version_table=table,
        migrations=found.migrations,
        schema_fingerprint=found.fingerprint,
        database=found.facts,
    )


def _version_table(draft: Draft, found: Inspection) -> str:
    """Return the version table; Alembic's default, with a warning, if several are possible and env.py cannot tell."""
    try:
        return version_table.name_of(draft.settings, found.versions, draft.emit)
    except CannotRead as error:
        draft.emit(Warned(f"{error.message} {error.hint}"))
        return database.VERSION_TABLE
