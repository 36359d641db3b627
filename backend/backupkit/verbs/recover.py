"""Finish what a killed restore began, or clear away what it had only prepared. The normal path is this path.

With a journal everything staged is whole and on disk: apply it, again if need be. Without one nothing live was
touched: what is staged is litter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from concurrent.futures import Future

from backupkit.ground import process
from backupkit.parts import journal, lock, marks, store
from backupkit.parts.journal import Journal
from backupkit.parts.sources import database, delta
from backupkit.verbs import staging
from backupkit.verbs.make import Clock, make_backup, utc_now
from backupkit.verbs.recording import recorded
from backupkit.verbs.staging import Source
from backupkit.words.errors import BackupError, Locked, SourceLocked, from_os_error
from backupkit.words.events import Listener, Notice, Warned, silence
from backupkit.words.model import STAGING, UPLOADS_FOLDER, Order, Part
from backupkit.words.settings import Settings


def recover(settings: Settings, tell: Listener = silence, timeout: float | None = None) -> Journal | None:
    """No restore is left half done, and no draft: the journal that was finished, or None.

    While another run holds the lock the restore is that run's: `Locked` after `timeout` seconds. A mere draft of
    another run is waited for by nobody.
    """
    if not is_needed(settings):
        _clear_drafts_unless_running(settings, tell)
        return None
    wait = settings.lock_timeout if timeout is None else timeout
    with lock.held(settings.dir, "recover", wait, tell):
        return recover_under_lock(settings, tell)


def recover_unless_running(settings: Settings, tell: Listener = silence) -> None:
    """`recover` for a command that only reads: what is under way, or cannot be finished now, does not stop it."""
    try:
        recover(settings, tell, timeout=0)
    except Locked:
        return
    except BackupError as error:
        tell(Warned(f"An interrupted restore could not be finished: {error.message} Type: recover"))


def is_needed(settings: Settings) -> bool:
    """Whether a restore left something: a journal, or things it staged."""
    staged = (folder / STAGING for folder in staging.live_folders(settings))
    return journal.exists(settings.dir) or any(map(os.path.lexists, staged))


def _clear_drafts_unless_running(settings: Settings, tell: Listener) -> None:
    if store.has_drafts(settings):
        with contextlib.suppress(Locked, OSError), lock.held(settings.dir, "recover", 0):
            _clear_drafts(settings, tell)


def _clear_drafts(settings: Settings, tell: Listener) -> None:
    if not store.has_drafts(settings):
        return
    with recorded(settings, "clean-up", tell) as work:
        cleared = store.clear_drafts(settings)
        work.concerning(*cleared)
        if cleared:
            tell(Notice(f"Cleared away what an interrupted run had not finished: {', '.join(cleared)}."))


def recover_under_lock(settings: Settings, tell: Listener) -> Journal | None:
    """`recover` for a verb that holds the lock already, drafts included."""
    _clear_drafts(settings, tell)
    found = journal.read(settings.dir)
    if found is None:
        staging.unstage(settings)
        return None
    tell(Notice(f"Finishing the restore of {found.source}, interrupted on {found.started}."))
    with recorded(settings, "recover", tell, names=[found.source]) as work:
        (go_back if found.back else go_on)(settings, found, work.tell, utc_now)
    return found


def go_on(settings: Settings, found: Journal, tell: Listener, clock: Clock) -> None:
    """`finish`, with a copy of what it replaces made first where the journal asks for that."""
    if found.keep and found.database:
        note = f"what a migration came to before it was taken back: {found.source}"
        make_backup(settings, Order(kind="pre_restore", note=note, uploads=False), tell, clock)
        found = dataclasses.replace(found, keep=False)
        journal.write(settings.dir, found)
    finish(settings, found, tell)


def turn_back(settings: Settings, found: Journal, error: BaseException, tell: Listener, clock: Clock) -> None:
    """A restore that failed half way is taken back; where what was there before was broken it can only go on."""
    if not _can_go_back(settings, found):
        cause = from_os_error(error) if isinstance(error, OSError) else error
        kind = type(cause) if isinstance(cause, BackupError) else BackupError
        reason = f"The restore of {found.source} failed half way: {str(cause).rstrip('.')}."
        raise kind(reason, hint="Mend that, then type: recover") from error
    tell(Warned(f"The restore failed ({error}); going back to what was there before."))
    back = dataclasses.replace(found, back=True)
    journal.write(settings.dir, back)
    go_back(settings, back, tell, clock)


def go_back(settings: Settings, found: Journal, tell: Listener, clock: Clock) -> None:
    """The live data is as the safety copy has it, as far as the failed restore could have changed it."""
    safety = store.find(settings, found.safety or "")
    only: Part | None = None if found.facts and found.uploads else "database" if found.facts else "uploads"
    source = staging.verified(settings, safety, only, silence)
    staging.unstage(settings)
    copies = (safety.path / UPLOADS_FOLDER, settings.dir / found.source / UPLOADS_FOLDER)
    staged = staging.stage(settings, source, False, copies, tell)
    # No safety copy is named: there is nothing to undo, since it never happened.
    back = journal_of(settings, staged, None, clock)
    journal.write(settings.dir, back)
    finish(settings, back, tell)
    tell(Notice("Everything is as it was before the restore."))


def journal_of(settings: Settings, staged: Source, safety: str | None, clock: Clock) -> Journal:
    """The journal that makes what is staged go live."""
    return Journal(
        source=staged.name,
        safety=safety,
        started=settings.local(clock()).isoformat(sep=" "),
        database=staged.database is not None,
        uploads=staged.uploads is not None and settings.uploads is not None,
        facts=staged.facts if staged.database else None,
        revisions=staged.revisions if staged.database else None,
    )


def _can_go_back(settings: Settings, found: Journal) -> bool:
    kept = store.find(settings, found.safety or "").metadata
    if kept is None or (found.uploads and not kept.uploads_included):
        return False
    return not found.facts or bool(kept.database_file and kept.database and not kept.database.raw)


def finish(settings: Settings, found: Journal, tell: Listener) -> database.Inspection | None:
    """What the journal says is done, checked, and the journal gone. Can be repeated."""
    _refuse_other_place(settings, found)
    if not found.database:
        # The app may have gone on since, to another revision too.
        return finish_uploads(settings, dataclasses.replace(found, revisions=None), tell)
    replace_database(settings, found, tell)
    return finish_uploads(settings, database_is_done(settings, found), tell)


def database_is_done(settings: Settings, found: Journal) -> Journal:
    """Written down, because the app may write into what was restored: a repeated run must not undo that."""
    done = dataclasses.replace(found, database=False)
    journal.write(settings.dir, done)
    return done


def replace_database(settings: Settings, found: Journal, tell: Listener) -> None:
    """The live database holds what is staged; when this raises, it is as it was."""
    assert found.facts is not None
    staged = staging.staged_database(settings)
    database.replace_live(staged, settings.database, settings.busy_timeout, found.facts, tell)


def finish_uploads(settings: Settings, found: Journal, tell: Listener) -> database.Inspection | None:
    """What comes after the database: uploads, the proof, tidying up; returns what was proven of the database."""
    # Meanwhile, since it only reads: what is proven stands there already.
    with process.beside(found.facts.size if found.facts else 0) as beside:
        proving = beside.submit(_prove, settings, found) if found.facts else None
        if found.uploads and settings.uploads:
            delta.apply(settings.uploads, tell)
        proof = _proof(proving, tell) if proving else None
    staging.unstage(settings)
    if found.safety:
        marks.remember_restore(settings.dir, found.safety)
    journal.remove(settings.dir)
    return proof


def _prove(settings: Settings, found: Journal) -> database.Inspection:
    return database.prove(settings.database, settings.busy_timeout, found.revisions)


def _proof(proving: Future[database.Inspection], tell: Listener) -> database.Inspection | None:
    try:
        return proving.result()
    except SourceLocked as error:
        # All is in place: an app that keeps the lock is no reason to take it back.
        tell(Warned(f"The restored database could not be proven: {error.message}"))
        return None


def _refuse_other_place(settings: Settings, found: Journal) -> None:
    if found.database and not staging.staged_database(settings).parent.is_dir():
        raise BackupError(
            f"{settings.dir / journal.JOURNAL_FILE} tells of a restore of {found.source} that was interrupted, "
            f"and nothing of it is staged in {settings.database.parent}.",
            hint="Run this where the restore ran, with its BACKUP_DATABASE and BACKUP_UPLOADS; see `config`.",
        )
