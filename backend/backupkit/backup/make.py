"""Make one backup under a lock that is held already: complete and on disk under its name, or not at all.

1. the name is free, the space is there
2. a draft folder; one moment of the database, and every upload (`archiver`)
3. metadata, the page for restoring by hand, checksums: the seal
4. everything synced, one rename, the folder synced
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from backupkit.backup import archiver, references
from backupkit.backup.archiver import Draft
from backupkit.config.settings import Settings
from backupkit.fs import disk
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


@dataclass(frozen=True)
class Created:
    """The sealed backup, and what should be in it and is not."""

    backup: Backup
    warnings: tuple[str, ...] = ()


def make_backup(
    settings: Settings, request: BackupRequest, emit: EventListener, clock: Clock, salvaged: Path | None = None
) -> Created:
    """The backup that was ordered; the same promises and errors as `create_backup`, but for the lock.

    `salvaged` is a database that goes into it in the place of the live one that the settings are of.
    """
    part, settings = settings.part, settings.whole
    started, at = time.monotonic(), clock().astimezone(settings.zone)
    name = free_name(settings, request, at)
    warnings: list[str] = []
    with contextlib.ExitStack() as indexes:
        seen = indexes.enter_context(files_cache.writing(settings.dir, name))
        with (
            store.draft_folder(settings, name) as folder,
            files_cache.newest(settings, _takes_uploads(settings, request)) as earlier,
            contextlib.ExitStack() as before,
        ):
            draft = Draft(settings, request, folder, earlier, seen, collecting(emit, warnings))
            draft = replace(draft, others=tuple(_further(draft, name, indexes, before)))
            draft = _with_salvaged(draft, part, salvaged) if salvaged else draft
            metadata = replace(
                archiver.fill(draft),
                backup_name=name,
                timestamp=at.strftime(STAMP),
                created_at=at,
                duration_seconds=round(time.monotonic() - started, 3),
            )
            metadata = _compared(settings, _with_references(settings, metadata, draft), emit)
            _seal(settings, folder, metadata)
        with contextlib.suppress(OSError):  # the backup is as good without it
            for one in {id(one.seen): one.seen for one in (draft, *draft.others)}.values():
                one.finish()
    _mark(settings, request, name)
    if metadata.database and not metadata.is_raw:
        verification.remember_sound(settings.dir, name, metadata.database_checksum)
    made = store.read(settings, name)
    store.require_metadata(made)  # it was sealed a moment ago: if it cannot be read now, the disk fails
    return Created(made, tuple(warnings))


def _further(draft: Draft, name: str, indexes: contextlib.ExitStack, before: contextlib.ExitStack) -> Iterator[Draft]:
    """The draft for each further database and tree; each tree has an index of its own."""
    for part in draft.settings.parts[1:]:
        if part.uploads is None:
            earlier = draft.earlier.at(part.part) if draft.earlier else None
            yield replace(draft, settings=part, earlier=earlier)
        elif draft.request.uploads and not _may_be_missing(part, draft.emit):
            earlier = before.enter_context(files_cache.newest(part, with_uploads=True))
            seen = indexes.enter_context(files_cache.writing(part.dir, name, part.part))
            yield replace(draft, settings=part, earlier=earlier, seen=seen)


def _with_salvaged(draft: Draft, part: str, salvaged: Path) -> Draft:
    """With that file in the place of the live database of that part."""
    if not part:
        return replace(draft, salvaged=salvaged)
    others = (replace(one, salvaged=salvaged) if one.settings.part == part else one for one in draft.others)
    return replace(draft, others=tuple(others))


def _may_be_missing(part: Settings, emit: EventListener) -> bool:
    """Whether it is a tree that is missing, and may be."""
    is_missing = part.is_optional and part.uploads is not None and not os.path.lexists(part.uploads)
    if is_missing:
        emit(Notice(f"There is no folder {part.part} at {part.uploads}: it is not in this backup."))
    return is_missing


def _takes_uploads(settings: Settings, request: BackupRequest) -> bool:
    return request.uploads and settings.uploads is not None


def _with_references(settings: Settings, metadata: Metadata, draft: Draft) -> Metadata:
    """With what rows name of the uploads, where the settings say how, and both are in the backup."""
    raw = metadata.database is None or metadata.database.raw
    if not settings.references or raw or not metadata.uploads_included:
        return metadata
    left_out = references.LeftOut(metadata.exclude, metadata.excluded_folders)
    uploads = draft.folder / UPLOADS_FOLDER
    found = references.examine(settings.references, draft.database, uploads, left_out, draft.emit)
    return replace(metadata, references=found)


def _compared(settings: Settings, metadata: Metadata, emit: EventListener) -> Metadata:
    """With what is unusual about it. A notice, no warning: all that is live is in the backup."""
    anomalies = anomaly.unusual(metadata, store.all_backups(settings), settings.anomaly_drop)
    for sentence in anomalies:
        emit(Notice(f"Unusual: {sentence}."))
    if anomalies:
        emit(Notice("Is that as it should be? Until somebody has looked, `prune` removes nothing."))
    return replace(metadata, anomalies=anomalies)


def _mark(settings: Settings, request: BackupRequest, name: str) -> None:
    """The marks that were ordered and none that an earlier backup of that name had."""
    if request.kind not in APART:
        flags.clear_all(settings.dir, flags.HELD)
    flags.forget(settings.dir, name)
    for mark, wanted in ((flags.PINNED, request.pin), (flags.HELD, request.pin_until_next)):
        if wanted:
            flags.add(settings.dir, mark, name)


def free_name(settings: Settings, request: BackupRequest, at: datetime) -> str:
    """The name that a backup made at that moment gets; `Refused` where the one that is wanted is taken."""
    taken = store.taken_names(settings)
    if request.name is None:
        return distinct(_default(request, at), taken)
    if request.name in taken:
        raise Refused(f"There is a {request.name} in {settings.dir} already.", hint="Choose another name; see `list`.")
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
    manifest.write_guide(draft, metadata, {part.part: _places(part, metadata) for part in parts})
    with contextlib.closing(manifest.ChecksumWriter(draft)) as checksums:
        for name in (METADATA_FILE, GUIDE_FILE):
            checksums.record_file(name)
    for name in (METADATA_FILE, GUIDE_FILE, CHECKSUM_FILE):
        os.chmod(draft / name, 0o600)
        disk.chown_if_root(draft / name, disk.owner_of(settings.dir))


def _places(settings: Settings, metadata: Metadata) -> dict[str, str]:
    """What the page for restoring by hand says about where things are."""
    reach, folder = settings.reach, settings.dir / metadata.backup_name
    return {
        "database": shlex.quote(str(settings.database)),
        "uploads": shlex.quote(str(settings.uploads or "")),
        "tool": reach.tool(f"restore {metadata.backup_name}"),
        "salvage": reach.tool(f"salvage {metadata.backup_name}"),
        "shell": reach.shell(folder),
        **_migrating(settings, metadata),
    }


def _migrating(settings: Settings, metadata: Metadata) -> dict[str, str]:
    """The commands that confirm the backup's schema and bring it to this code; a comment where only the app has one."""
    metadata = metadata.at(settings.part) or metadata
    reach, target = settings.reach, schema.plain_target(settings, metadata.revisions)
    confirm = reach.alembic(f"stamp {shlex.join(metadata.revisions)}", is_kept=True)
    upgrade = reach.alembic(f"upgrade {target}", is_kept=True)
    if settings.migrate_command:
        confirm = "# by the app's own command, which is to be led to this database:"
        upgrade = f"# {printable(settings.migrate_command)}"
    tool = reach.tool("migrate heads" if target == "heads" else "migrate")
    return {"migrate": tool, "alembic_stamp": confirm, "alembic_upgrade": upgrade}
