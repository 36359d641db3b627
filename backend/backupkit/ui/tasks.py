"""What can be done with backups, each as one task for the window: the verb the command calls, the lines it prints."""

from __future__ import annotations

import os

from backupkit.archive.export import Exported, closing_for, export_backup, export_path
from backupkit.backup.create import create_backup
from backupkit.backup.make import Created
from backupkit.cli import render
from backupkit.cli.host import git_facts
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, BackupRequest
from backupkit.model.events import EventListener
from backupkit.remotes.push import Pushed, push_backups, refuse_failed
from backupkit.retention.delete import delete_backup, set_pin
from backupkit.ui.work import Task
from backupkit.verify.verify import Verified, refuse_bad, verify_backups


def back_up(settings: Settings, name: str, note: str) -> Task[Created]:
    """A backup now; carried away too where the settings want that."""
    order = BackupRequest(name or None, note=note, git=git_facts(os.environ))
    return Task("Back up now", lambda emit: create_backup(settings, order, emit), render.made)


def verify(settings: Settings, backup: Backup, test_restore: bool = False) -> Task[list[Verified]]:
    """Every byte of it read and compared; or restored for a test."""

    def act(emit: EventListener) -> list[Verified]:
        done = verify_backups(settings, [backup], test_restore, emit)
        refuse_bad(settings, done)
        return done

    title = f"{'Test restore of' if test_restore else 'Verify'} {backup.name}"
    return Task(title, act, lambda done: render.verified(settings, done))


def pin(settings: Settings, backup: Backup) -> Task[Backup]:
    """Pinned, or not any more."""
    wanted = not backup.pinned
    return Task(
        f"{'Pin' if wanted else 'Unpin'} {backup.name}",
        lambda emit: set_pin(settings, backup.name, wanted, emit),
        lambda done: [f"{done.name} is {'pinned' if done.pinned else 'not pinned'}."],
        is_quick=True,
    )


def delete(settings: Settings, backup: Backup) -> Task[Backup]:
    """Gone for ever."""
    return Task(
        f"Delete {backup.name}",
        lambda emit: delete_backup(settings, backup.name, emit),
        render.deleted,
        is_quick=True,
    )


def export(settings: Settings, backup: Backup, file: str, passphrase: str) -> Task[Exported]:
    """One file that holds it, encrypted where its name or the settings say so."""

    def act(emit: EventListener) -> Exported:
        closing = closing_for(settings, file, (), (), lambda: passphrase)
        return export_backup(settings, backup.name, export_path(settings, file), closing, emit)

    return Task(f"Export {backup.name}", act, render.exported)


def push(settings: Settings, backup: Backup) -> Task[list[Pushed]]:
    """Carried to each remote that has it not."""

    def act(emit: EventListener) -> list[Pushed]:
        done = push_backups(settings, backup.name, emit=emit)
        refuse_failed(done)
        return done

    return Task(f"Push {backup.name}", act, render.pushed)
