"""Make one backup under a lock that is held already: complete and on disk under its name, or not at all.

1. the name is free, the space is there
2. a draft folder; one moment of the database, copied and checked; then every upload
3. metadata, the page for restoring by hand, checksums: the seal
4. everything synced, one rename, the folder synced
"""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import backupkit
from backupkit.ground import disk
from backupkit.parts import manifest, marks, proofs, space, store
from backupkit.parts.sources import database, uploads
from backupkit.words.errors import Damaged, Refused, SourceBroken
from backupkit.words.events import Listener, Notice, collecting
from backupkit.words.model import (
    CHECKSUM_FILE,
    GUIDE_FILE,
    METADATA_FILE,
    UPLOADS_FOLDER,
    Backup,
    DatabaseFacts,
    GitFacts,
    Metadata,
    Order,
    UploadsFacts,
)
from backupkit.words.names import STAMP, auto_name, default_name, distinct
from backupkit.words.settings import Settings

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The system's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Created:
    """The sealed backup, and what should be in it and is not."""

    backup: Backup
    warnings: tuple[str, ...] = ()


def make_backup(settings: Settings, order: Order, tell: Listener, clock: Clock) -> Created:
    """The backup that was ordered; the same promises and errors as `create_backup`, but for the lock."""
    started, moment = time.monotonic(), clock().astimezone(settings.zone)
    name = _free_name(settings, order, moment)
    heard: list[str] = []
    listener = collecting(tell, heard)
    with _draft(settings, name) as draft:
        metadata = _fill(settings, order, draft, listener)
        metadata = replace(
            metadata,
            backup_name=name,
            timestamp=moment.strftime(STAMP),
            created_at=moment,
            duration_seconds=round(time.monotonic() - started, 3),
        )
        _seal(settings, draft, metadata)
    _mark(settings, order, name)
    return Created(store.read(settings, name), tuple(heard))


def _mark(settings: Settings, order: Order, name: str) -> None:
    """The marks that were ordered and none that an earlier backup of that name had."""
    if order.kind != "pre_restore":
        marks.take_all(settings.dir, marks.HELD)
    proofs.forget(settings.dir, name)
    for mark, wanted in ((marks.PINNED, order.pin), (marks.HELD, order.hold), (marks.ACCEPTED, False)):
        (marks.put if wanted else marks.take)(settings.dir, mark, name)


def _free_name(settings: Settings, order: Order, moment: datetime) -> str:
    taken = store.taken_names(settings)
    if order.name is None:
        return distinct(_default(order, moment), taken)
    if order.name in taken:
        raise Refused(f"There is a {order.name} in {settings.dir} already.", hint="Choose another name; see `list`.")
    if order.name == store.LATEST:
        raise Refused("'latest' means the newest backup, and cannot be a name.", hint="Choose another name.")
    return order.name


def _default(order: Order, moment: datetime) -> str:
    if order.kind == "auto":
        git = order.git or GitFacts(commit="", short="")
        return auto_name(git.branch, git.short, git.dirty, moment)
    return default_name(order.kind, moment)


@contextlib.contextmanager
def _draft(settings: Settings, name: str) -> Iterator[Path]:
    draft = store.draft_of(settings, name)
    try:
        draft.mkdir(mode=0o700)
        disk.give(draft, disk.owner_of(settings.dir))
        yield draft
        disk.publish(draft, settings.dir / name)
    except BaseException:
        disk.remove_tree(draft)
        raise


def _fill(settings: Settings, order: Order, draft: Path, tell: Listener) -> Metadata:
    """The data, copied and checked; the caller puts name and times into the metadata."""
    live = settings.uploads if order.uploads else None
    upload_bytes = _measured(live)
    found = _take_database(settings, order, upload_bytes, draft, tell)
    with contextlib.closing(manifest.ChecksumWriter(draft)) as checksums:
        for path in sorted(draft.glob(f"{glob.escape(settings.database.name)}*")):
            checksums.record_file(path.name)
        record = _below_uploads(checksums)
        facts = uploads.copy(live, draft / UPLOADS_FOLDER, record, upload_bytes, tell) if live else None
    if found.facts.foreign_key_violations:
        tell(
            Notice(f"{found.facts.foreign_key_violations} rows refer to rows that are not there, as in the live data.")
        )
    return _metadata(settings, order, found, facts)


def _take_database(settings: Settings, order: Order, more: int, draft: Path, tell: Listener) -> database.Inspection:
    try:
        with database.snapshot(settings.database, settings.busy_timeout, tell) as moment:
            space.require(database.live_size(moment) + more, settings.dir, "This backup")
            return _copy_database(settings, moment, draft, tell)
    except SourceBroken as error:
        # Nothing that is broken may stand in the way of a restore, nor be lost by it.
        if order.kind != "pre_restore":
            raise
        tell(Notice(f"{error.message} Its files are kept as they are in the safety copy."))
        return _keep_raw(settings, draft)


def _keep_raw(settings: Settings, draft: Path) -> database.Inspection:
    for path in draft.glob(f"{glob.escape(settings.database.name)}*"):
        path.unlink()  # what a copy came to before it failed
    kept = database.keep_raw(settings.database, draft)
    size = sum((draft / name).stat().st_size for name in kept)
    main = draft / settings.database.name
    checksum = disk.hash_file(main) if main.exists() else ""
    return database.Inspection(DatabaseFacts(size=size, sha256=checksum, raw=True), None, "")


def _measured(live: Path | None) -> int:
    if live is None:
        return 0
    uploads.require(live)
    return uploads.measure(live)[1]


def _below_uploads(checksums: manifest.ChecksumWriter) -> uploads.Record:
    return lambda path, checksum: checksums.record(f"{UPLOADS_FOLDER}/{path}", checksum)


def _copy_database(settings: Settings, moment: sqlite3.Connection, draft: Path, tell: Listener) -> database.Inspection:
    target = draft / settings.database.name
    database.copy(moment, target, tell)
    mode = settings.database.stat().st_mode & 0o777
    os.chmod(target, mode)
    disk.give(target, disk.owner_of(settings.dir))
    found = _inspected(settings, target, tell)
    facts = replace(found.facts, journal_mode=database.journal_mode(moment), mode=mode)
    return replace(found, facts=facts)


def _inspected(settings: Settings, copied: Path, tell: Listener) -> database.Inspection:
    """What the copy holds; what is wrong with it is wrong with the live database."""
    try:
        found = database.inspect(copied, tell)
        problem = found.problems[0] if found.problems else ""
    except Damaged as error:
        problem = str(error.__cause__)
    if problem:
        raise SourceBroken(
            f"The database {settings.database} is damaged: {problem}.",
            hint="Put a backup back: `list`, then `restore`. `dump` may save what can still be read.",
        )
    return found


def _metadata(settings: Settings, order: Order, found: database.Inspection, facts: UploadsFacts | None) -> Metadata:
    revisions = found.revisions or ()
    return Metadata(
        backup_name="",
        timestamp="",
        created_at=datetime.min,
        alembic_revision=revisions[0] if revisions else None,
        database_file=settings.database.name if found.facts.sha256 else None,
        uploads_included=facts is not None,
        kind=order.kind,
        note=order.note,
        alembic_revisions=revisions,
        schema_fingerprint=found.fingerprint,
        database=found.facts,
        uploads=facts,
        git=order.git,
        app_id=settings.app_id,
        tool_version=backupkit.__version__,
    )


def _seal(settings: Settings, draft: Path, metadata: Metadata) -> None:
    manifest.write_metadata(draft, metadata)
    manifest.write_guide(draft, metadata, _places(settings, metadata))
    with contextlib.closing(manifest.ChecksumWriter(draft)) as checksums:
        for name in (METADATA_FILE, GUIDE_FILE):
            checksums.record_file(name)
    for name in (METADATA_FILE, GUIDE_FILE, CHECKSUM_FILE):
        os.chmod(draft / name, 0o600)
        disk.give(draft / name, disk.owner_of(settings.dir))


def _places(settings: Settings, metadata: Metadata) -> dict[str, str]:
    """What the page for restoring by hand says about where things are."""
    reach, folder = settings.reach, settings.dir / metadata.backup_name
    return {
        "database": shlex.quote(str(settings.database)),
        "uploads": shlex.quote(str(settings.uploads or "")),
        "tool": reach.tool(f"restore {metadata.backup_name}"),
        "shell": reach.shell(folder),
        "alembic_stamp": reach.alembic(f"stamp {' '.join(metadata.revisions)}"),
        "alembic_upgrade": reach.alembic("upgrade head"),
    }
