"""Finish what a killed restore began, or clear away what it had only prepared. The normal path is this path.

With a journal everything staged is whole and on disk: apply it, again if need be. Without one nothing live was
touched: what is staged is litter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path

from backupkit.ground import disk
from backupkit.parts import journal, lock, marks
from backupkit.parts.journal import Journal
from backupkit.parts.sources import database, delta
from backupkit.verbs.make import Clock, make_backup, utc_now
from backupkit.words.errors import BackupError, Locked, SourceLocked
from backupkit.words.events import Listener, Notice, Warned, silence
from backupkit.words.model import STAGING, Order
from backupkit.words.settings import Settings


def recover(settings: Settings, tell: Listener = silence, timeout: float | None = None) -> Journal | None:
    """No restore is left half done: the journal that was finished, or None. Without one it takes no lock.

    While another run holds the lock it is that run's restore: `Locked` after `timeout` seconds.
    """
    if not is_needed(settings):
        return None
    wait = settings.lock_timeout if timeout is None else timeout
    with lock.held(settings.dir, "recover", wait, tell):
        return recover_under_lock(settings, tell)


def recover_unless_running(settings: Settings, tell: Listener = silence) -> None:
    """`recover` for a command that only reads: a restore that is under way is left to its process."""
    with contextlib.suppress(Locked):
        recover(settings, tell, timeout=0)


def is_needed(settings: Settings) -> bool:
    """Whether a restore left something: a journal, or things it staged."""
    return journal.exists(settings.dir) or any(os.path.lexists(folder / STAGING) for folder in _live_folders(settings))


def recover_under_lock(settings: Settings, tell: Listener) -> Journal | None:
    """`recover` for a verb that holds the lock already."""
    found = journal.read(settings.dir)
    if found is None:
        unstage(settings)
        return None
    tell(Notice(f"Finishing the restore of {found.source}, interrupted on {found.started}."))
    go_on(settings, found, tell, utc_now)
    return found


def go_on(settings: Settings, found: Journal, tell: Listener, clock: Clock) -> None:
    """`finish`, with a copy of what it replaces made first where the journal asks for that."""
    if found.keep and found.database:
        note = f"what a migration came to before it was taken back: {found.source}"
        make_backup(settings, Order(kind="pre_restore", note=note, uploads=False), tell, clock)
        found = dataclasses.replace(found, keep=False)
        journal.write(settings.dir, found)
    finish(settings, found, tell)


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
    database.replace_live(staged_database(settings), settings.database, settings.busy_timeout, found.facts, tell)


def finish_uploads(settings: Settings, found: Journal, tell: Listener) -> database.Inspection | None:
    """What comes after the database: uploads, the proof, tidying up; returns what was proven of the database."""
    if found.uploads and settings.uploads:
        delta.apply(settings.uploads, tell)
    proof = _prove(settings, found, tell) if found.facts else None
    unstage(settings)
    if found.safety:
        marks.remember_restore(settings.dir, found.safety)
    journal.remove(settings.dir)
    return proof


def _prove(settings: Settings, found: Journal, tell: Listener) -> database.Inspection | None:
    try:
        return database.prove(settings.database, settings.busy_timeout, found.revisions)
    except SourceLocked as error:
        # All is in place: an app that keeps the lock is no reason to take it back.
        tell(Warned(f"The restored database could not be proven: {error.message}"))
        return None


def unstage(settings: Settings) -> None:
    """Nothing of ours is left in the app's folders."""
    for folder in _live_folders(settings):
        disk.remove_tree(folder / STAGING)


def staged_database(settings: Settings) -> Path:
    """Where the database to be restored is prepared: beside the live one, in the same mount."""
    return settings.database.parent / STAGING / settings.database.name


def _live_folders(settings: Settings) -> list[Path]:
    return [settings.database.parent, *([settings.uploads] if settings.uploads else [])]


def _refuse_other_place(settings: Settings, found: Journal) -> None:
    if found.database and not staged_database(settings).parent.is_dir():
        raise BackupError(
            f"{settings.dir / journal.JOURNAL_FILE} tells of a restore of {found.source} that was interrupted, "
            f"and nothing of it is staged in {settings.database.parent}.",
            hint="Run this where the restore ran, with its BACKUP_DATABASE and BACKUP_UPLOADS; see `config`.",
        )
