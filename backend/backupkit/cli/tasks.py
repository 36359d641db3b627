"""The actions on backups as tasks: the function that the command calls, and the lines that it prints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from backupkit.backup.create import create_backup
from backupkit.backup.make import Created
from backupkit.cli import render, row_text
from backupkit.cli.host import git_facts
from backupkit.cli.task import Task
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, BackupRequest
from backupkit.model.clock import Clock
from backupkit.model.errors import Refused, SchemaMismatch
from backupkit.model.events import EventListener, silence
from backupkit.remotes.push import Pushed, push_backups, refuse_failed
from backupkit.restore.lay_out import LaidOut, Layout, clear_draft, lay_out, plan_layout
from backupkit.restore.recovery import recover
from backupkit.restore.rescue import Rescued, RescuePlan, rescue_rows
from backupkit.restore.restore import Restored, RestorePlan, plan_backup, plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from backupkit.retention.delete import delete_backup, set_pin
from backupkit.rewind import moments
from backupkit.rewind.chain import Moment
from backupkit.verify.verify import Verified, refuse_bad, verify_backups

# Once one of these steps has begun, staged data goes live, and the work cannot be cancelled.
_NOT_CANCELLABLE = frozenset({"Restoring the database", "Restoring the uploads", "Bringing rows back"})


def back_up(settings: Settings, name: str, note: str) -> Task[Created]:
    """Return a task that makes a backup, and pushes it if the settings say so; an empty name means an automatic one."""
    order = BackupRequest(name or None, note=note, git=git_facts())
    return Task("Back up now", lambda emit: create_backup(settings, order, emit), render.made)


def verify(settings: Settings, backup: Backup, test_restore: bool = False) -> Task[list[Verified]]:
    """Return a task that compares every byte of the backup, or performs a test restore; it fails if either does."""

    def act(emit: EventListener) -> list[Verified]:
        done = verify_backups(settings, [backup], test_restore, emit)
        refuse_bad(settings, done)
        return done

    title = f"{'Test restore of' if test_restore else 'Verify'} {backup.name}"
    return Task(title, act, lambda done: render.verified(settings, done))


def pin(settings: Settings, backup: Backup) -> Task[Backup]:
    """Return a task that pins the backup, or unpins it if it is pinned."""
    wanted = not backup.pinned
    return Task(
        f"{'Pin' if wanted else 'Unpin'} {backup.name}",
        lambda emit: set_pin(settings, backup.name, wanted, emit),
        lambda done: [f"{done.name} is {'pinned' if done.pinned else 'not pinned'}."],
        is_quick=True,
    )


def delete(settings: Settings, backup: Backup) -> Task[Backup]:
    """Return a task that deletes the backup."""
    return Task(
        f"Delete {backup.name}",
        lambda emit: delete_backup(settings, backup.name, emit),
        render.deleted,
        is_quick=True,
    )


def push(settings: Settings, name: str | None = None) -> Task[list[Pushed]]:
    """Return a task that pushes the backup to each remote that lacks it; without a name, all that are missing there."""

    def act(emit: EventListener) -> list[Pushed]:
        done = push_backups(settings, name, emit=emit)
        refuse_failed(done)
        return done

    return Task(f"Push {name or 'what is missing elsewhere'}", act, render.pushed)


class RestoreRequest(Struct, frozen=True):
    """What a person wants to restore; without a name, to undo the last restore."""

    name: str = ""
    only: str | None = None
    migrate: bool = False
    force: bool = False
    moment: Moment | None = None
    """A point of rewind, to restore instead of the backup."""
    notes: tuple[str, ...] = ()

    def plan(self, settings: Settings, emit: EventListener) -> RestorePlan | SchemaMismatch:
        """Return what the restore would change, or the `SchemaMismatch` that forbids it, for a person to judge.

        Finish an interrupted restore first.
        """
        recover(settings, emit)
        how = (self.only, self.force, self.migrate, emit)
        try:
            if self.moment:
                with moments.built(settings, self.moment, emit) as backup:
                    return plan_backup(settings, backup, *how, notes=self.notes)
            if not self.name:
                return plan_undo(settings, self.force, emit)
            return plan_restore(settings, self.name, *how, notes=self.notes)
        except SchemaMismatch as error:
            return error


def restoring(settings: Settings, plan: RestorePlan, clock: Clock) -> Task[Restored]:
    """Return a task that carries out the plan; it can be cancelled until staged data goes live."""
    return Task(
        f"Restoring {plan.source.name}",
        lambda emit: restore_backup(settings, plan, emit, clock),
        lambda done: [*render.restored(settings.deployment, done), *_warnings(done.warnings)],
        steps_to_finish=_NOT_CANCELLABLE,
        choices=("Undo",),
    )


def putting_back(settings: Settings, plan: RestorePlan) -> Task[Restored]:
    """Return a task that puts the planned uploads back."""
    return Task(
        f"Putting back from {plan.source.name}",
        lambda emit: restore_backup(settings, plan, emit),
        lambda done: [*render.put_back(settings.deployment, done), *_warnings(done.warnings)],
        steps_to_finish=_NOT_CANCELLABLE,
    )


def bringing_back(settings: Settings, title: str, plan: RescuePlan) -> Task[Rescued]:
    """Return a task that brings the planned rows back."""
    return Task(
        title,
        lambda emit: rescue_rows(settings, plan, emit),
        lambda done: [*row_text.rescued(done), *_warnings(done.warnings)],
        steps_to_finish=_NOT_CANCELLABLE,
    )


class CopyRequest(Struct, frozen=True):
    """What a person wants to restore into a separate folder: a backup, or a point of rewind."""

    name: str
    target: Path
    only: str | None = None
    moment: Moment | None = None
    notes: tuple[str, ...] = ()

    @contextlib.contextmanager
    def planned(self, settings: Settings, emit: EventListener = silence) -> Iterator[Layout]:
        """Yield where the parts go; build the point of rewind for the block. Raise as `plan_layout` does."""
        with contextlib.ExitStack() as building:
            built = building.enter_context(moments.built(settings, self.moment, emit)) if self.moment else None
            yield plan_layout(settings, self.name, self.target, self.only, backup=built, notes=self.notes)

    def plan(self, settings: Settings, emit: EventListener) -> Layout:
        """Return where the parts would go; write nothing into the target."""
        with self.planned(settings, emit) as layout:
            return layout


def laying_out(settings: Settings, wanted: CopyRequest, shown: Layout) -> Task[LaidOut]:
    """Return a task that carries out the layout; live data is not touched. Its last line says how to start the app.

    The task raises `Refused` if the backup is no longer the one that the plan showed.
    """

    def act(emit: EventListener) -> LaidOut:
        clear_draft(wanted.target)
        with wanted.planned(settings, emit) as layout:
            if layout.backup.metadata != shown.backup.metadata:
                raise Refused(
                    f"{shown.backup.name} is not what the plan has shown; nothing was written.", "Look again."
                )
            return lay_out(settings, layout, emit)

    return Task(
        f"Laying {shown.backup.name} out in {shown.target}",
        act,
        lambda done: [*_warnings(done.warnings), *render.laid_out(done)],
    )


def _warnings(found: Iterable[str]) -> Iterator[str]:
    return (f"Warning: {text}" for text in found)
