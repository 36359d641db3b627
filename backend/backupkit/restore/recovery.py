"""Finish a killed restore, or remove what it had only prepared. A normal restore uses the same code.

With a journal everything staged is complete and on disk: apply it, again if necessary. Without one no live data was
touched, and staged files can be removed; but only if this is the backups folder in which the journal would be.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from msgspec import structs

from backupkit.config.settings import Settings
from backupkit.fs import disk, process, scratch, staging_area, trust
from backupkit.fs.staging_area import AreaPart, Identity
from backupkit.migrations import version_table
from backupkit.model.backup import MAIN_DATABASE, UPLOADS_FOLDER
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import (
    BackupError,
    Damaged,
    NoSpace,
    NoSuchBackup,
    SourceBroken,
    SourceLocked,
    explained,
    from_os_error,
)
from backupkit.model.events import Event, EventListener, Kept, Notice, Step, Warned, adding_up, silence
from backupkit.model.names import few, is_name, printable
from backupkit.repository import flags, lock, store
from backupkit.repository.operation import recorded
from backupkit.restore import journal, keeping, staging, unfinished
from backupkit.restore.journal import Journal
from backupkit.restore.staging import Source
from backupkit.sqlite import database
from backupkit.upload_files import apply

Proofs = Mapping[str, database.Inspection | None]
"""The inspection of each restored database, by its part; None if it stayed locked."""
Compared = Mapping[str, database.Comparison | None]
_UNREADABLE = (errno.EIO, errno.ENOENT, errno.ENOTDIR)  # a backup's file is missing, or the disk cannot read it


def recover(settings: Settings, emit: EventListener = silence, timeout: float | None = None) -> Journal | None:
    """Finish an interrupted restore and remove drafts; return the journal that was finished, or None.

    Raise `Locked` if another run still holds the lock after `timeout` seconds: the restore is its own. If there are
    only drafts, do not wait for the lock.
    """
    trust.require_roots(settings.dir)
    if not unfinished.exists(settings):
        _clear_drafts_unless_running(settings, emit)
        return None
    wait = settings.lock_timeout if timeout is None else timeout
    # A missing folder has no lock; its disk may not be mounted.
    is_there = settings.dir.is_dir()
    with lock.held(settings.dir, "recover", wait, emit) if is_there else contextlib.nullcontext():
        return recover_under_lock(settings, emit)


def _clear_drafts_unless_running(settings: Settings, emit: EventListener) -> None:
    """Remove drafts of killed runs; ignore errors, which must not keep the app from starting."""
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
    """Do what `recover` does, drafts included, for a caller that holds the lock."""
    _clear_drafts(settings, emit)
    if not unfinished.exists(settings):
        return None
    with staging.claimed(settings, emit):
        found = journal.read(settings.dir)
        if found is None:
            _clear_staged(settings)
            return None
        _refuse_other_restore(settings, found)
        emit(Notice(f"Finishing the restore of {printable(found.source)}, interrupted on {printable(found.started)}."))
        with recorded(settings, "recover", emit, names=[found.source]) as work, _saying_what_is_needed(settings, found):
            (restore_safety_copies if found.back else finish)(settings, found, work.emit, utc_now)
    _clear_drafts(settings, emit)  # also what the restore was built from
    return found


@contextlib.contextmanager
def _saying_what_is_needed(settings: Settings, found: Journal) -> Iterator[None]:
    """If the disk is too full for the block, raise `NoSpace` with the names of the backups that must not be deleted."""
    try:
        yield
    except Exception as error:
        cause = explained(error)
        if not isinstance(cause, NoSpace):
            raise
        needed = few(sorted(name for name in found.backups if (settings.dir / name).is_dir()))
        raise NoSpace(
            f"There is no room to finish the restore of {printable(found.source)}: {cause.message}",
            hint=f"Make room there: `delete` a backup that the restore does not need (it needs {needed}); "
            "then: `recover`",
        ) from error


def recover_unless_full(settings: Settings, emit: EventListener, name: str) -> None:
    """Do the same before `name` is deleted; if the disk is too full, go on unless the restore needs that backup."""
    try:
        recover_under_lock(settings, emit)
    except Exception as error:
        found = journal.read(settings.dir)
        if not isinstance(explained(error), NoSpace) or found is None or name in found.backups:
            raise
        said = f"The disk is too full to finish the restore of {printable(found.source)}, which does not need {name}."
        emit(Notice(f"{said} It is deleted first; then type: `recover`"))


def _clear_staged(settings: Settings) -> None:
    """Remove what was staged for a restore that has no journal, and so changed no live data."""
    areas = unfinished.require_backups(settings, unfinished.live_folders(settings))
    for folder, identity in areas:
        staging_area.remove(folder, identity.id if identity else None)


def _refuse_other_restore(settings: Settings, found: Journal) -> None:
    """Raise `BackupError` if a staging area belongs to another restore than the journal."""
    for folder in unfinished.live_folders(settings):
        if (identity := staging_area.owner_of_area(folder)) and identity.id != found.id:
            raise BackupError(
                f"{staging_area.place_of(folder)} belongs to another restore than the journal "
                f"{settings.dir / store.JOURNAL_FILE}; nothing was touched.",
                hint=f"Finish that one first, with its BACKUP_DIR, which was {printable(identity.backups)}: recover",
            )


def _require_staged(settings: Settings, found: Journal) -> None:
    """Raise `BackupError` if something that still has to go live is not staged, or has no place in the settings."""
    for part in found.parts:
        if settings.at(part.name) is None:
            raise BackupError(
                f"The unfinished restore of {printable(found.source)} has {printable(part.name)} to put back, and no "
                "place for it.",
                hint="Set it as it was when the restore ran, in [databases] or [trees]; see `config`.",
            )
        _require_staged_part(_place_of(settings, part), part)


def _place_of(settings: Settings, part: Journal) -> Settings:
    place = settings.at(part.name)
    assert place is not None  # `_require_staged` has checked it
    return place


def _require_staged_part(settings: Settings, found: Journal) -> None:
    owed: list[tuple[Path | None, AreaPart, bool]] = [
        (settings.staging_home, "database", found.database),
        (settings.uploads, "uploads", found.uploads),
    ]
    for folder, part, is_owed in owed:
        if is_owed and folder is None:
            raise BackupError(
                f"The unfinished restore of {printable(found.source)} has uploads to put back, and no folder for them.",
                hint="Set BACKUP_UPLOADS as it was when the restore ran; see `config`.",
            )
        if is_owed and folder:
            with staging_area.opened(folder, part, found.id):
                pass


ALL_BACK = "Everything is as it was before the restore."
NOT_ALL_BACK = "The rollback is finished; the warnings name what is not as it was before the restore."
NEITHER_WAY = "Neither the restore nor its rollback is finished."


def roll_back(settings: Settings, found: Journal, error: BaseException, emit: EventListener, clock: Clock) -> None:
    """Roll a failed restore back to the safety copies.

    Raise the error again, with a hint to `recover`, if a safety copy cannot be restored because the data was broken.
    """
    if not all(_is_kept(settings, part) for part in found.parts):
        cause = from_os_error(error) if isinstance(error, OSError) else error
        kind = type(cause) if isinstance(cause, BackupError) else BackupError
        reason = f"The restore of {found.source} failed halfway: {str(cause).rstrip('.')}."
        raise kind(reason, hint="Fix the cause, then type: `recover`") from error
    why = "was interrupted" if isinstance(error, KeyboardInterrupt) else f"failed ({error})"
    emit(Warned(f"The restore {why}; rolling back to the safety copy."))
    back = structs.replace(found, back=True)
    try:
        journal.write(settings.dir, back)
        if not restore_safety_copies(settings, back, emit, clock):
            error.add_note(NOT_ALL_BACK)
    except Exception:
        if journal.exists(settings.dir):
            emit(Warned(f"{NEITHER_WAY} Type: `recover`"))
        raise


def restore_safety_copies(settings: Settings, found: Journal, emit: EventListener, clock: Clock) -> bool:
    """Restore from the safety copies whatever the failed restore could have changed; return whether all is back."""
    is_all_back = True

    def listen(event: Event) -> None:
        nonlocal is_all_back
        is_all_back &= not isinstance(event, Warned) or isinstance(event, Kept)
        emit(event)

    source = _rollback_source(settings, found)
    staging.unstage(settings, found.id)
    identity = staging_area.identify(settings.dir, found.safety or "", found.id)
    staged = staging.stage(settings, source, identity, (), found.holders(settings.dir), listen)
    # Without a safety copy: a restore that was rolled back cannot be undone.
    back = journal_of(settings, staged, identity, found.copies, clock)
    back = journal.joined([structs.replace(one, safety=None) for one in back.parts])
    back = structs.replace(back, kept=found.kept, origins=tuple(dict.fromkeys((*back.origins, *found.held_by))))
    journal.write(settings.dir, back)
    finish(settings, back, listen, clock)
    emit(Notice(ALL_BACK if is_all_back else NOT_ALL_BACK))
    return is_all_back


def _rollback_source(settings: Settings, found: Journal) -> Source:
    """Return the source with the earlier state, each part from its own safety copy."""
    safeties = dict.fromkeys(part.safety for part in found.parts if part.safety)
    kept = {name: staging.verified(settings, store.find(settings, name), found.part, silence).each for name in safeties}
    sources = [
        half
        for name, each in kept.items()
        for source in each
        if (part := _part_for(found, source)) and part.safety == name and (half := _limit_to_replaced(source, part))
    ]
    return staging.as_live(settings, structs.replace(sources[0], others=tuple(sources[1:])))


def _part_for(found: Journal, source: Source) -> Journal | None:
    """Return the restored part that this part of a safety copy belongs to; a database in a tree belongs to the tree."""
    parts = {part.name: part for part in found.parts}
    folder, _, inside = source.part.partition("/")
    return parts.get(source.part) or (parts.get("" if folder == UPLOADS_FOLDER else folder) if inside else None)


def _limit_to_replaced(source: Source, part: Journal) -> Source | None:
    """Reduce the safety copy's part to what the restore replaced, or return None if it replaced nothing of it."""
    is_own = source.part == part.name
    kept = structs.replace(
        source,
        database=source.database if (part.facts if is_own else part.uploads) else None,
        uploads=source.uploads if part.uploads else None,
    )
    return kept if kept.database or kept.uploads else None


def journal_of(settings: Settings, staged: Source, identity: Identity, copies: Sequence[str], clock: Clock) -> Journal:
    """Return the journal for what is staged; the `copies` are backups that hold the live data."""
    started = settings.local(clock()).isoformat(sep=" ")
    parts = [_part_of(staging.place_of(settings, one), one, identity, started, copies) for one in staged.each]
    origins = tuple(dict.fromkeys(_origins(settings, staged)))
    return structs.replace(journal.joined(parts), part=_only_part(settings, staged), origins=origins)


def _origins(settings: Settings, staged: Source) -> Iterator[str]:
    """Yield the folders below the backups folder that something was staged from, but for the backup of that name."""
    places = (place for one in staged.each for place in (one.database, one.uploads) if place)
    for place in places:
        if place.is_relative_to(settings.dir):
            first, *below = place.relative_to(settings.dir).parts
            if first.startswith(store.BUILT):
                yield f"{first}/{below[0]}"
            elif first != staged.name and is_name(first):  # not the draft in which a dump was loaded
                yield first


def _only_part(settings: Settings, staged: Source) -> str | None:
    """Return the only part that was restored, or None if everything was."""
    folder = staged.part or UPLOADS_FOLDER
    others = [one for one in staged.others if one.part.partition("/")[0] != folder]
    if others:
        return None
    if staged.database is None:
        return folder
    return None if staged.uploads and settings.uploads else staged.part or MAIN_DATABASE


def _part_of(settings: Settings, staged: Source, identity: Identity, started: str, copies: Sequence[str]) -> Journal:
    uploads = staged.uploads is not None and settings.uploads is not None
    return Journal(
        source=staged.name,
        safety=identity.safety,
        id=identity.id,
        started=started,
        database=staged.database is not None,
        uploads=uploads,
        copies=tuple(copies),
        facts=staged.facts if staged.database else None,
        revisions=staged.revisions if staged.database else None,
        sealed=staged.sealed,
        name=staged.part,
    )


def _is_kept(settings: Settings, part: Journal) -> bool:
    """Return whether the safety copy can restore the earlier state of this part."""
    metadata = store.find(settings, part.safety or "").metadata
    kept = metadata and metadata.at(part.name)
    if kept is None or (part.uploads and not kept.uploads_included):
        return False
    return not part.facts or bool(kept.database_file and kept.database and not kept.database.raw)


def finish(settings: Settings, found: Journal, emit: EventListener, clock: Clock) -> Proofs:
    """Carry out the journal, prove the result and remove the journal. Can be repeated."""
    _require_staged(settings, found)
    compared: dict[str, database.Comparison | None] = {}
    for name in [part.name for part in found.parts if part.database]:
        _verify_sealed_again(settings, found, name, emit, clock)
    for part in found.parts:
        if part.database:
            found, compared[part.name] = _resume_database(settings, found, part.name, emit, clock)
            found = database_is_done(settings, found, part.name)
        else:  # since then the app may have migrated it to another revision
            found = found.with_part(structs.replace(part, revisions=None))
    return finish_uploads(settings, found, emit, compared)


def _verify_sealed_again(settings: Settings, whole: Journal, name: str, emit: EventListener, clock: Clock) -> None:
    """Verify the backup whose database is restored without a staged copy; on a failure roll back, and raise it."""
    found = whole.at(name)
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
                f"{printable(found.source)} cannot be restored: {cause.message}",
                hint=f"Put {settings.dir / found.sealed} back as it was, then: `recover`. If it is lost, the data "
                f"may be half restored: remove {settings.dir / store.JOURNAL_FILE}, then restore another backup.",
            ) from error
        failed = type(cause)(
            f"The restore of {printable(found.source)}, interrupted on {printable(found.started)}, cannot be finished: "
            f"{cause.message}",
            hint="Restore another backup: `list`.",
        )
        roll_back(settings, whole, failed, emit, clock)
        raise failed from error


def _resume_database(
    settings: Settings, found: Journal, name: str, emit: EventListener, clock: Clock
) -> tuple[Journal, database.Comparison | None]:
    """Replace the live database unless it is the wanted one already; first back up what no backup holds."""
    place = _place_of(settings, found.at(name))

    def keep() -> None:
        nonlocal found
        state = keeping.live_state(place, found.at(name))
        # A rollback always writes it: the WAL may hold a failed commit that the next connection would replay.
        if state == "wanted" and found.at(name).safety:
            raise _AlreadyLive
        if state == "unknown":
            found = keeping.keep(settings, found, True, emit, clock)

    compared: database.Comparison | None = None
    with contextlib.suppress(_AlreadyLive):
        compared = replace_database(place, found.at(name), keep, emit)
    return found, compared


class _AlreadyLive(Exception):
    """The live database is the wanted one already."""


def database_is_done(settings: Settings, found: Journal, name: str) -> Journal:
    """Record in the journal that the database is live: a repeated run must not undo what the app writes afterwards."""
    done = found.with_part(structs.replace(found.at(name), database=False))
    journal.write(settings.dir, done)
    return done


def replace_database(
    settings: Settings, found: Journal, keep: Callable[[], None], emit: EventListener
) -> database.Comparison | None:
    """Replace the live database as `replace_live` does, or directly from the sealed one; an error changes nothing."""
    assert found.facts is not None
    live, staged = settings.database, staging.staged_database(settings)
    if found.sealed:
        sealed = staging.wanted_database(settings, found)
        if database.page_size_of(live, settings.busy_timeout) == found.facts.page_size:
            with contextlib.suppress(SourceBroken):
                return database.write_through(sealed, live, settings.busy_timeout, keep, emit)
        staging.stage_sealed(settings, found)
    with staging_area.opened(settings.staging_home, "database", found.id) as area:
        return database.replace_live(staged, area.folder, live, settings.busy_timeout, found.facts, keep, emit)


def finish_uploads(settings: Settings, found: Journal, emit: EventListener, compared: Compared | None = None) -> Proofs:
    """Apply the trees, prove the databases and clean up; return the inspection of each database.

    `compared` is what `replace_live` returned for each that was replaced just now. Another one was replaced by an
    earlier run: what happened to it since then holds up nothing.
    """
    compared = compared or {}
    databases = [part for part in found.parts if part.facts]
    # In parallel: the databases are already live, and proving only reads them.
    with process.optional_worker(sum(part.facts.size for part in databases if part.facts)) as worker:
        proving = {
            part.name: worker.submit(_prove, _place_of(settings, part), part, compared.get(part.name))
            for part in databases
        }
        for part in found.parts:
            place = _place_of(settings, part)
            if part.uploads and place.uploads:
                copies = tuple(folder / place.sealed_folder for folder in found.holders(settings.dir))
                apply.apply(place.uploads, found.id, copies, emit)
        proofs = {name: _proof(one, found.source, name in compared, emit) for name, one in proving.items()}
    # From here on nothing staged is needed: a kill may leave it partly removed.
    journal.write(settings.dir, found.all_done())
    staging.unstage(settings, found.id)
    if found.safety:
        # A part that the app wrote to after the first part was restored has a later safety copy.
        later = {part.name: part.safety for part in found.parts if part.safety and part.safety != found.safety}
        flags.remember_restore(settings.dir, found.safety, found.part, later)
    journal.remove(settings.dir)
    return proofs


def _prove(settings: Settings, found: Journal, compared: database.Comparison | None) -> database.Inspection:
    return database.prove(
        settings.database,
        settings.busy_timeout,
        found.revisions,
        version_table.known(settings),
        compared,
        found.facts.rows if found.facts else None,
        lambda: staging.wanted_database(settings, found),
    )


def _proof(
    proving: Future[database.Inspection], source: str, is_of_now: bool, emit: EventListener
) -> database.Inspection | None:
    """Return the proof, or None with a warning where it fails and nothing is to be done about it here."""
    try:
        proof = proving.result()
        if proof.problems:
            first = proof.problems[0]
            emit(Warned(f"SQLite's check finds in the restored database what it finds in the backup too: {first}."))
        return proof
    except SourceLocked as error:
        # Everything is in place: a lock that the app holds is not a reason to roll back.
        emit(Warned(f"The restored database could not be proven: {error.message}"))
        return None
    except (BackupError, sqlite3.Error) as error:
        cause = explained(error)
        if is_of_now or cause is None:
            raise
        again = f"Restore it again: `restore {printable(source)}`"
        emit(Warned(f"The database was restored by an earlier run, and cannot be used now: {cause.message} {again}"))
        return None
