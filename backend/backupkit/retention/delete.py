"""Delete, pin or unpin one backup. Deletion first takes away the name in one step, then removes the content."""

from __future__ import annotations

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener, Notice, silence
from backupkit.repository import flags, store, verification
from backupkit.repository.operation import locked_operation
from backupkit.restore.recovery import recover_under_lock, recover_unless_full
from backupkit.restore.undo import lost_without
from backupkit.rewind import chain, copies


def deletable(settings: Settings, name: str) -> Backup:
    """Return the backup with exactly this name.

    Raise `NoSuchBackup` if there is none, and `Refused` for `latest`, a pinned backup, or one that rewind points need.
    """
    if name == store.LATEST:
        raise Refused("Which backup is the latest changes: name the one to delete.", hint="`list` shows the names.")
    backup = store.find(settings, name)
    if backup.pinned:
        raise Refused(f"The backup {backup.path} is pinned.", hint=f"If you mean it: `unpin {name}`, then delete it.")
    if settings.rewind and name in chain.chains(settings.dir):
        raise Refused(
            f"Points of rewind need the backup {backup.path}.",
            hint=f"They expire with age. To delete it now: `config set rewind ''`, then `delete {name}`.",
        )
    return backup


def delete_backup(settings: Settings, name: str, emit: EventListener = silence) -> Backup:
    """Delete the backup and return its description; an interrupted run leaves it complete or without its name.

    Emit a notice of what `undo` can no longer bring back. Raise what `deletable` raises.
    """
    with locked_operation(settings, f"delete of {name}", emit, names=[name]) as work:
        recover_unless_full(settings, work.emit, name)
        backup = deletable(settings, name)
        work.about(backup)
        lost = lost_without(settings, name)
        store.discard(settings, backup, work.emit)
        verification.forget(settings.dir, name)
        copies.remove(settings.dir, name)
        if lost:
            work.emit(Notice(f"{name} is gone. {lost}"))
        return backup


def set_pin(settings: Settings, name: str, pinned: bool, emit: EventListener = silence) -> Backup:
    """Pin the backup, which protects it from deletion and retention, or unpin it. Return its new state."""
    with locked_operation(settings, f"{'pin' if pinned else 'unpin'} of {name}", emit, names=[name]) as work:
        recover_under_lock(settings, work.emit)
        backup = store.find(settings, name, work.emit)
        work.about(backup)
        (flags.add if pinned else flags.clear)(settings.dir, flags.PINNED, backup.name)
        if not pinned:
            flags.clear(settings.dir, flags.HELD, backup.name)
        return store.read(settings, backup.name)
