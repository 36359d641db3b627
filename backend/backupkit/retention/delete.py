"""Delete one backup, pin it, unpin it. A deleted backup loses its name in one step, and then its content."""

from __future__ import annotations

from backupkit.config.settings import Settings
from backupkit.fs import disk
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener, Notice, silence
from backupkit.repository import flags, store, verification
from backupkit.repository.operation import locked_operation
from backupkit.restore.recovery import recover_under_lock
from backupkit.restore.undo import lost_without
from backupkit.rewind import chain, thin


def deletable(settings: Settings, name: str) -> Backup:
    """The backup of that very name, which may be deleted; `NoSuchBackup`, or `Refused` for one that is pinned."""
    if name == store.LATEST:
        raise Refused("Which backup is the latest changes: name the one to delete.", hint="`list` shows the names.")
    backup = store.find(settings, name)
    if backup.pinned:
        raise Refused(f"The backup {backup.path} is pinned.", hint=f"If you mean it: `unpin {name}`, then delete it.")
    if settings.rewind and name in chain.chains(settings.dir):
        raise Refused(
            f"Points of rewind stand on the backup {backup.path}.",
            hint="They go by themselves when they are too old. At once: `config set rewind ''`, then delete it.",
        )
    return backup


def delete_backup(settings: Settings, name: str, emit: EventListener = silence, clock: Clock = utc_now) -> Backup:
    """The backup is gone, or whole: it never is under its name in part. Returns what it was.

    Tells what `undo` cannot bring back from then on.
    """
    with locked_operation(settings, f"delete of {name}", emit, clock, [name]) as work:
        recover_under_lock(settings, work.emit)
        backup = deletable(settings, name)
        work.about(backup)
        lost = lost_without(settings, name)
        disk.remove_atomically(store.draft_of(settings, name), backup.path)
        verification.forget(settings.dir, name)
        thin.remove_chain(settings, name)
        if lost:
            work.emit(Notice(f"{name} is gone. {lost}"))
        return backup


def set_pin(
    settings: Settings, name: str, pinned: bool, emit: EventListener = silence, clock: Clock = utc_now
) -> Backup:
    """The backup is pinned, which keeps it from being deleted and removed by retention; or it is no more."""
    with locked_operation(settings, f"{'pin' if pinned else 'unpin'} of {name}", emit, clock, [name]) as work:
        recover_under_lock(settings, work.emit)
        backup = store.find(settings, name, work.emit)
        work.about(backup)
        (flags.add if pinned else flags.clear)(settings.dir, flags.PINNED, backup.name)
        if not pinned:
            flags.clear(settings.dir, flags.HELD, backup.name)
        return store.read(settings, backup.name)
