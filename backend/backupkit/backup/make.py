"""Make one backup while the caller holds the lock: complete and on disk under its name, or not at all.

1. check that the name is free
2. make a draft folder; check the space; copy a snapshot of the database and every upload (`archiver`)
3. seal it: metadata, the page for restoring by hand, checksums
4. sync everything, rename the draft, sync the backups folder
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupkit.backup import archiver, references
from backupkit.backup.archiver import Draft
from backupkit.config.settings import Settings
from backupkit.fs import attributes, disk
from backupkit.migrations import schema
from backupkit.model.backup import (
    APART,
    CHECKSUM_FILE,
    GUIDE_FILE,
    METADATA_FILE,
    UPLOADS_FOLDER,
    Backup,
    BackupRequest,
    GitFacts,
    Metadata,
)
from backupkit.model.clock import Clock
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener, Notice, collecting
from backupkit.model.names import STAMP, auto_name, default_name, distinct, printable
from backupkit.repository import files_cache, flags, manifest, store, verification
from backupkit.retention import anomaly


class Created(Struct, frozen=True):
    """A sealed backup, and warnings, such as what should be in it and is not."""

    backup: Backup
    warnings: tuple[str, ...] = ()


def make_backup(
    settings: Settings, request: BackupRequest, emit: EventListener, clock: Clock, salvaged: Path | None = None
) -> Created:
    """Make the requested backup, with the promises and errors of `create_backup`, except that no lock is taken.

    `salvaged` is a database to store instead of the live database of `settings`.
    """
    part, settings = settings.part, settings.whole
    started, at = time.monotonic(), clock().astimezone(settings.zone)
    name = free_name(settings, request, at)
    warnings: list[str] = []
    if request.uploads and settings.uploads and request.kind not in APART:
        _tell_of_missing_rights(settings.dir, emit)
    with contextlib.ExitStack() as indexes:
        writer = indexes.enter_context(files_cache.writing(settings.dir, name))
        with (
            store.draft_folder(settings, name) as folder,
            files_cache.newest(settings, request.uploads and settings.uploads is not None) as earlier,
            contextlib.ExitStack() as before,
        ):
            draft = Draft(settings, request, folder, earlier, writer, collecting(emit, warnings))
            draft = replace(draft, others=tuple(_further_drafts(draft, name, indexes, before)))
            draft = _with_salvaged(draft, part, salvaged) if salvaged else draft
            metadata = replace(
                archiver.fill(draft),
                backup_name=name,
                timestamp=at.strftime(STAMP),
                created_at=at,
                duration_seconds=round(time.monotonic() - started, 3),
            )
            metadata = _with_anomalies(settings, _with_references(settings, metadata, draft), emit)
            _seal(settings, folder, metadata)
        with contextlib.suppress(OSError):  # the backup is complete without a files cache
            for one in {id(one.cache_writer): one.cache_writer for one in (draft, *draft.others)}.values():
                one.finish()
    _set_flags(settings, request, name)
    if metadata.database and not metadata.is_raw:
        verification.remember_sound(settings.dir, name, metadata.database_checksum)
    made = store.read(settings, name)
    store.require_metadata(made)  # if what was sealed a moment ago cannot be read, the disk is failing
    return Created(made, tuple(warnings))


def _tell_of_missing_rights(backups: Path, emit: EventListener) -> None:
    """Emit a notice, and no warning since contents are kept, if the disk of the backups keeps no modes or owners."""
    if missing := attributes.missing_rights(backups):
        emit(
            Notice(
                f"The disk of {backups} keeps no {' and no '.join(missing)} of uploads: they are in no backup there."
            )
        )


def _further_drafts(
    draft: Draft, name: str, indexes: contextlib.ExitStack, before: contextlib.ExitStack
) -> Iterator[Draft]:
    """Yield the draft of each further database and tree; each tree has its own files cache."""
    for part in draft.settings.parts[1:]:
        if part.uploads is None:
            earlier = draft.earlier.at(part.part) if draft.earlier else None
            yield replace(draft, settings=part, earlier=earlier)
        elif draft.request.uploads and not _is_optional_and_absent(part, draft.emit):
            earlier = before.enter_context(files_cache.newest(part, with_uploads=True))
            writer = indexes.enter_context(files_cache.writing(part.dir, name, part.part))
            yield replace(draft, settings=part, earlier=earlier, cache_writer=writer)


def _with_salvaged(draft: Draft, part: str, salvaged: Path) -> Draft:
    """Return the draft with the salvaged file instead of the live database of one part."""
    if not part:
        return replace(draft, salvaged=salvaged)
    others = (replace(one, salvaged=salvaged) if one.settings.part == part else one for one in draft.others)
    return replace(draft, others=tuple(others))


def _is_optional_and_absent(part: Settings, emit: EventListener) -> bool:
    """Return whether it is an optional tree that is missing; if so, emit a notice."""
    is_missing = part.is_optional and part.uploads is not None and not os.path.lexists(part.uploads)
    if is_missing:
        emit(Notice(f"There is no folder {part.part} at {part.uploads}: it is not in this backup."))
    return is_missing


def _with_references(settings: Settings, metadata: Metadata, draft: Draft) -> Metadata:
    """Add the uploads that rows name, if the settings define references and the backup has both sides."""
    raw = metadata.database is None or metadata.database.raw
    if not settings.references or raw or not metadata.uploads_included:
        return metadata
    left_out = references.LeftOut(metadata.exclude, metadata.excluded_folders)
    uploads = draft.folder / UPLOADS_FOLDER
    found = references.examine(settings.references, draft.database, uploads, left_out, draft.emit)
    return replace(metadata, references=found)


def _with_anomalies(settings: Settings, metadata: Metadata, emit: EventListener) -> Metadata:
    """Add the anomalies. They are notices, not warnings, since the backup has all live data."""
    anomalies = anomaly.unusual(metadata, store.all_backups(settings), settings.anomaly_drop)
    for sentence in anomalies:
        emit(Notice(f"Unusual: {sentence}."))
    if anomalies:
        emit(Notice(f"Until you accept that, `prune` removes nothing: `verify {metadata.backup_name} --accept`."))
    return replace(metadata, anomalies=anomalies)


def _set_flags(settings: Settings, request: BackupRequest, name: str) -> None:
    """Set the requested flags, and clear those of an earlier backup of that name.

    A usual backup also ends every `pin_until_next`.
    """
    if request.kind not in APART:
        flags.clear_all(settings.dir, flags.HELD)
    flags.forget(settings.dir, name)
    for flag, wanted in ((flags.PINNED, request.pin), (flags.HELD, request.pin_until_next)):
        if wanted:
            flags.add(settings.dir, flag, name)


def free_name(settings: Settings, request: BackupRequest, at: datetime) -> str:
    """Return the name for a backup made at `at`. Raise `Refused` if the requested name is taken or reserved."""
    taken = store.taken_names(settings)
    if request.name is None:
        return distinct(_default(request, at), taken)
    if request.name in taken:
        there = settings.dir / request.name
        raise Refused(f"The name is taken: {there} is there already.", hint="Choose another name; see `list`.")
    if request.name == store.LATEST:
        raise Refused("'latest' means the newest backup, and cannot be a name.", hint="Choose another name.")
    return request.name


def _default(request: BackupRequest, at: datetime) -> str:
    if request.kind == "auto":
        git = request.git or GitFacts(commit="", short="")
        return auto_name(git.branch, git.short, git.dirty, at)
    return default_name(request.kind, at)


def _seal(settings: Settings, draft: Path, metadata: Metadata) -> None:
    manifest.write_metadata(draft, metadata)
    parts = [part for part in settings.parts if metadata.at(part.part)]
    manifest.write_guide(draft, metadata, {part.part: _guide_values(part, metadata) for part in parts})
    with contextlib.closing(manifest.ChecksumWriter(draft)) as checksums:
        for name in (METADATA_FILE, GUIDE_FILE):
            checksums.record_file(name)
    for name in (METADATA_FILE, GUIDE_FILE, CHECKSUM_FILE):
        os.chmod(draft / name, 0o600)
        disk.chown_if_root(draft / name, disk.owner_of(settings.dir))


def _guide_values(settings: Settings, metadata: Metadata) -> dict[str, str]:
    """Return the paths and commands that the page for restoring by hand names."""
    deployment, folder = settings.deployment, settings.dir / metadata.backup_name
    return {
        "database": shlex.quote(str(settings.database)),
        "uploads": shlex.quote(str(settings.uploads or "")),
        "tool": deployment.tool(f"restore {metadata.backup_name}"),
        "salvage": deployment.tool(f"salvage {metadata.backup_name}"),
        "shell": deployment.shell(folder),
        **_migration_commands(settings, metadata),
    }


def _migration_commands(settings: Settings, metadata: Metadata) -> dict[str, str]:
    """Return the commands that stamp the backup's revision and upgrade it; comments if the app has its own command."""
    metadata = metadata.at(settings.part) or metadata
    deployment, target = settings.deployment, schema.plain_target(settings, metadata.revisions)
    confirm = deployment.alembic(f"stamp {shlex.join(metadata.revisions)}", is_kept=True)
    upgrade = deployment.alembic(f"upgrade {target}", is_kept=True)
    if settings.migrate_command:
        confirm = "# with the app's own migrate command, after you point it to this database:"
        upgrade = f"# {printable(settings.migrate_command)}"
    tool = deployment.tool("migrate heads" if target == "heads" else "migrate")
    return {"migrate": tool, "alembic_stamp": confirm, "alembic_upgrade": upgrade}
