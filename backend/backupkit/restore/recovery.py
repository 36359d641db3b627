"""Finish what a killed restore began, or clear away what it had only prepared. The normal path is this path.

With a journal everything staged is whole and on disk: apply it, again if need be. Without one nothing live was
touched: what is staged is litter. But only where the backups folder is the one in which the journal would be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import disk, process, scratch, staging_area, trust
from backupkit.fs.staging_area import AreaPart, Identity
from backupkit.migrations import version_table
from backupkit.model.backup import UPLOADS_FOLDER
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, SourceBroken, SourceLocked, from_os_error
from backupkit.model.events import EventListener, Notice, Step, Warned, adding_up, silence
from backupkit.model.names import shown
from backupkit.repository import flags, lock, store
from backupkit.repository.operation import recorded
from backupkit.restore import journal, keeping, staging, unfinished
from backupkit.restore.journal import Journal
from backupkit.restore.staging import Source
from backupkit.sqlite import database
from backupkit.upload_files import apply

_UNREADABLE = (errno.EIO, errno.ENOENT, errno.ENOTDIR)  # of a file of a backup: it is gone, or the disk has lost it


def recover(settings: Settings, emit: EventListener = silence, timeout: float | None = None) -> Journal | None:
    """No restore is left half done, and no draft: the journal that was finished, or None.

    While another run holds the lock the restore is that run's: `Locked` after `timeout` seconds. A mere draft of
    another run is waited for by nobody.
    """
    trust.require_roots(settings.dir)
    if not unfinished.exists(settings):
        _clear_drafts_unless_running(settings, emit)
        return None
    wait = settings.lock_timeout if timeout is None else timeout
    # No folder, no lock: it may be a disk that is not mounted.
    is_there = settings.dir.is_dir()
    with lock.held(settings.dir, "recover", wait, emit) if is_there else contextlib.nullcontext():
        return recover_under_lock(settings, emit)


def _clear_drafts_unless_running(settings: Settings, emit: EventListener) -> None:
    """What cannot be looked for or cleared stays: it is no reason to keep the app from starting."""
    with contextlib.suppress(BackupError, OSError):
        if store.has_drafts(settings) or scratch.has_leftovers():
            with lock.held(settings.dir, "recover", 0):
                _clear_drafts(settings, emit)


def _clear_drafts(settings: Settings, emit: EventListener) -> None:
    scratch.clear()
    if not store.has_drafts(settings):
        return
    with recorded(settings, "clean-up", emit) as work:
        cleared = store.clear_drafts(settings)
        work.concerning(*cleared)
        if cleared:
            emit(Notice(f"Cleared away what an interrupted run had not finished: {', '.join(cleared)}."))


def recover_under_lock(settings: Settings, emit: EventListener) -> Journal | None:
    """`recover` for a verb that holds the lock already, drafts included."""
    _clear_drafts(settings, emit)
    if not unfinished.exists(settings):
        return None
    with staging.claimed(settings, emit):
        found = journal.read(settings.dir)
        if found is None:
            _clear_litter(settings)
            return None
        _refuse_other_restore(settings, found)
        emit(Notice(f"Finishing the restore of {shown(found.source)}, interrupted on {shown(found.started)}."))
        with recorded(settings, "recover", emit, names=[found.source]) as work:
            (go_back if found.back else finish)(settings, found, work.emit, utc_now)
    return found


def _clear_litter(settings: Settings) -> None:
    """What was staged for a restore that never began is gone; nothing live was touched."""
    areas = unfinished.require_backups(settings, unfinished.live_folders(settings))
    for folder, identity in areas:
        staging_area.remove(folder, identity.id if identity else None)


def _refuse_other_restore(settings: Settings, found: Journal) -> None:
    """`BackupError` where anything else is staged than what the journal tells of."""
    for folder in unfinished.live_folders(settings):
        if (identity := staging_area.owner_of_area(folder)) and identity.id != found.id:
            raise BackupError(
                f"{staging_area.place_of(folder)} belongs to another restore than the journal "
                f"{settings.dir / journal.JOURNAL_FILE}; nothing was touched.",
                hint=f"Finish that one first, with its BACKUP_DIR, which was {shown(identity.backups)}: recover",
            )


def _require_staged(settings: Settings, found: Journal) -> None:
    """`BackupError` where something is missing that still has to go live."""
    owed: list[tuple[Path | None, AreaPart, bool]] = [
        (settings.database.parent, "database", found.database),
        (settings.uploads, "uploads", found.uploads),
    ]
    for folder, part, is_owed in owed:
        if is_owed and folder is None:
            raise BackupError(
                f"The unfinished restore of {shown(found.source)} has uploads to put back, and no folder for them.",
                hint="Set BACKUP_UPLOADS as it was when the restore ran; see `config`.",
            )
        if is_owed and folder:
            with staging_area.opened(folder, part, found.id):
                pass


def roll_back(settings: Settings, found: Journal, error: BaseException, emit: EventListener, clock: Clock) -> None:
    """A restore that failed half way is taken back; where what was there before was broken it can only go on."""
    if not _can_go_back(settings, found):
        cause = from_os_error(error) if isinstance(error, OSError) else error
        kind = type(cause) if isinstance(cause, BackupError) else BackupError
        reason = f"The restore of {found.source} failed half way: {str(cause).rstrip('.')}."
        raise kind(reason, hint="Mend that, then type: `recover`") from error
    emit(Warned(f"The restore failed ({error}); going back to what was there before."))
    back = dataclasses.replace(found, back=True)
    journal.write(settings.dir, back)
    go_back(settings, back, emit, clock)


def go_back(settings: Settings, found: Journal, emit: EventListener, clock: Clock) -> None:
    """The live data is as the safety copy has it, as far as the failed restore could have changed it."""
    safety = store.find(settings, found.safety or "")
    source = staging.verified(settings, safety, found.part, silence)
    staging.unstage(settings, found.id)
    held = [*found.copies, *found.kept, *_backup_named(settings, found.source)]
    copies = tuple(settings.dir / name / UPLOADS_FOLDER for name in held)
    identity = staging_area.identify(settings.dir, safety.name, found.id)
    staged = staging.stage(settings, source, identity, False, copies, emit)
    # No safety copy is named: there is nothing to undo, since it never happened.
    back = dataclasses.replace(journal_of(settings, staged, identity, held, clock), safety=None, kept=found.kept)
    journal.write(settings.dir, back)
    finish(settings, back, emit, clock)
    emit(Notice("Everything is as it was before the restore."))


def _backup_named(settings: Settings, source: str) -> list[str]:
    """The source's name, if it is a backup's: a dump is none."""
    return [one.name for one in store.all_backups(settings) if one.name == source]


def journal_of(settings: Settings, staged: Source, identity: Identity, copies: Sequence[str], clock: Clock) -> Journal:
    """The journal that makes what is staged go live; the `copies` are backups that hold what is live."""
    uploads = staged.uploads is not None and settings.uploads is not None
    return Journal(
        source=staged.name,
        safety=identity.safety,
        id=identity.id,
        started=settings.local(clock()).isoformat(sep=" "),
        database=staged.database is not None,
        uploads=uploads,
        copies=tuple(copies),
        facts=staged.facts if staged.database else None,
        revisions=staged.revisions if staged.database else None,
        part="uploads" if not staged.database else None if uploads else "database",
        sealed=staged.sealed,
    )


def _can_go_back(settings: Settings, found: Journal) -> bool:
    kept = store.find(settings, found.safety or "").metadata
    if kept is None or (found.uploads and not kept.uploads_included):
        return False
    return not found.facts or bool(kept.database_file and kept.database and not kept.database.raw)


def finish(settings: Settings, found: Journal, emit: EventListener, clock: Clock) -> database.Inspection | None:
    """What the journal says is done, checked, and the journal gone. Can be repeated."""
    _require_staged(settings, found)
    if not found.database:
        # The app may have gone on since, to another revision too.
        return finish_uploads(settings, dataclasses.replace(found, revisions=None), emit)
    _verify_sealed_again(settings, found, emit, clock)
    found, compared = _resume_database(settings, found, emit, clock)
    return finish_uploads(settings, database_is_done(settings, found), emit, compared)


def _verify_sealed_again(settings: Settings, found: Journal, emit: EventListener, clock: Clock) -> None:
    """The backup that is restored from where it lies is as it was; or the restore goes back, and that is raised."""
    if found.sealed is None or found.facts is None:
        return
    emit(Step(f"Verifying {found.sealed} again", found.facts.size))
    try:
        file = staging.wanted_database(settings, found)
        if disk.hash_file(file, adding_up(emit)) != found.facts.sha256:
            raise Damaged(f"{file} is not as it was when the restore began.", hint="")
    except (NoSuchBackup, Damaged, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _UNREADABLE:
            raise
        cause = from_os_error(error) if isinstance(error, OSError) else error
        if not found.safety:
            raise Damaged(
                f"{shown(found.source)} cannot be restored: {cause.message}",
                hint=f"Put {settings.dir / found.sealed} back as it was, then: `recover`. If it is lost, the data "
                f"may be half restored: remove {settings.dir / journal.JOURNAL_FILE}, then restore another backup.",
            ) from error
        failed = type(cause)(
            f"The restore of {shown(found.source)}, interrupted on {shown(found.started)}, cannot be finished: "
            f"{cause.message}",
            hint="Restore another backup: `list`.",
        )
        roll_back(settings, found, failed, emit, clock)
        raise failed from error


def _resume_database(
    settings: Settings, found: Journal, emit: EventListener, clock: Clock
) -> tuple[Journal, database.Comparison | None]:
    """The live database is replaced, if it is not what is wanted already; what is in no backup is kept first.

    On the way back it is written in any case: a commit that failed may stand in the WAL unseen, until the next to open
    the database replays it.
    """

    def keep() -> None:
        nonlocal found
        standing = keeping.standing(settings, found)
        if standing == "wanted" and found.safety:
            raise _IsThere
        if standing == "unknown":
            found = keeping.keep(settings, found, True, emit, clock)

    compared: database.Comparison | None = None
    with contextlib.suppress(_IsThere):
        compared = replace_database(settings, found, keep, emit)
    return found, compared


class _IsThere(Exception):
    """The live database is what is wanted."""


def database_is_done(settings: Settings, found: Journal) -> Journal:
    """Written down, because the app may write into what was restored: a repeated run must not undo that."""
    done = dataclasses.replace(found, database=False)
    journal.write(settings.dir, done)
    return done


def replace_database(
    settings: Settings, found: Journal, keep: Callable[[], None], emit: EventListener
) -> database.Comparison | None:
    """The live database holds what is staged; when this raises, it is as it was. As `replace_live` has it."""
    assert found.facts is not None
    live, staged = settings.database, staging.staged_database(settings)
    if found.sealed:
        sealed = staging.wanted_database(settings, found)
        if database.page_size_of(live, settings.busy_timeout) == found.facts.page_size:
            with contextlib.suppress(SourceBroken):
                return database.write_through(sealed, live, settings.busy_timeout, keep, emit)
        staging.stage_sealed(settings, found)
    with staging_area.opened(live.parent, "database", found.id) as area:
        return database.replace_live(staged, area.folder, live, settings.busy_timeout, found.facts, keep, emit)


def finish_uploads(
    settings: Settings, found: Journal, emit: EventListener, compared: database.Comparison | None = None
) -> database.Inspection | None:
    """What comes after the database: uploads, the proof, tidying up; returns what was proven of the database.

    `compared` is what `replace_live` returned.
    """
    # Meanwhile, since it only reads: what is proven stands there already.
    with process.optional_worker(found.facts.size if found.facts else 0) as beside:
        proving = beside.submit(_prove, settings, found, compared) if found.facts else None
        if found.uploads and settings.uploads:
            copies = tuple(settings.dir / name / UPLOADS_FOLDER for name in found.copies)
            apply.apply(settings.uploads, found.id, copies, emit)
        proof = _proof(proving, emit) if proving else None
    # Nothing staged is needed any more: now it may go, piece by piece.
    journal.write(settings.dir, dataclasses.replace(found, database=False, uploads=False))
    staging.unstage(settings, found.id)
    if found.safety:
        flags.remember_restore(settings.dir, found.safety, found.part)
    journal.remove(settings.dir)
    return proof


def _prove(settings: Settings, found: Journal, compared: database.Comparison | None) -> database.Inspection:
    table = version_table.known(settings)
    rows = found.facts.rows if found.facts else None
    return database.prove(settings.database, settings.busy_timeout, found.revisions, table, compared, rows)


def _proof(proving: Future[database.Inspection], emit: EventListener) -> database.Inspection | None:
    try:
        return proving.result()
    except SourceLocked as error:
        # All is in place: an app that keeps the lock is no reason to take it back.
        emit(Warned(f"The restored database could not be proven: {error.message}"))
        return None
