"""Back up the running app: take the lock, recover from a killed run, make the backup (`make`), then push it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from backupkit.backup.make import Created, free_name, make_backup
from backupkit.config.settings import Settings
from backupkit.migrations import schema
from backupkit.model.backup import APART, Backup, BackupRequest
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener, Warned, silence
from backupkit.model.names import check_name
from backupkit.repository import hooks, reliable, store
from backupkit.repository.operation import Work, locked_operation
from backupkit.restore.recovery import recover_under_lock


def create_backup(
    settings: Settings,
    request: BackupRequest,
    emit: EventListener = silence,
    clock: Clock = utc_now,
    push: bool = True,
) -> Created:
    """Back up the running app: a snapshot of the database, and every upload that this snapshot refers to.

    With `push`, push it afterwards if the settings say so; a failed push is a warning. Raise `Refused` for an invalid
    or taken name, `SourceUnreadable` for live data that are missing, empty, locked or broken, `NoSpace`, `Locked`: then
    nothing is left behind, and no older backup is touched.
    """
    with _locked(settings, request, emit, clock, [request.name] if request.name else []) as (hook, work):
        created = _make_with_hooks(settings, request, hook, work, clock)
    return _push_if_configured(settings, created, emit, clock) if push else created


def create_backup_if_needed(
    settings: Settings,
    request: BackupRequest,
    emit: EventListener = silence,
    clock: Clock = utc_now,
    push: bool = True,
) -> Created | None:
    """Create a backup like `create_backup`, or return None if there is one of today.

    If several threads and processes call this at once, only one of them makes a backup.
    """
    if backup_of_today(settings, clock, request.uploads):
        return None
    with _locked(settings, request, emit, clock) as (hook, work):
        if backup_of_today(settings, clock, request.uploads):
            return None
        created = _make_with_hooks(settings, request, hook, work, clock)
    return _push_if_configured(settings, created, emit, clock) if push else created


@contextlib.contextmanager
def _locked(
    settings: Settings, request: BackupRequest, emit: EventListener, clock: Clock, names: Sequence[str] = ()
) -> Iterator[tuple[hooks.Hooks, Work]]:
    """Check name and folders, hold the lock while the block runs, and first finish what a killed run left."""
    if request.name is not None:
        check_name(request.name)
    with hooks.of(settings, _hook_kind(request), emit) as hook:
        refuse_overlap(settings)
        store.require(settings.dir)
        with locked_operation(settings, "backup", emit, clock, names) as work:
            recover_under_lock(settings, work.emit)
            yield hook, work


def _hook_kind(request: BackupRequest) -> Literal["backup"] | None:
    """Return the hooks to run; none for safety copies, since the operation they belong to runs its own."""
    return None if request.kind in APART else "backup"


def _make_with_hooks(
    settings: Settings, request: BackupRequest, hook: hooks.Hooks, work: Work, clock: Clock
) -> Created:
    free_name(settings, request, clock().astimezone(settings.zone))  # refuse a bad name before any hook runs
    with hook.around(work):
        created = _warn_if_unreadable_schema(settings, make_backup(settings, request, work.emit, clock), work.emit)
        work.about(created.backup)
    return replace(created, warnings=(*created.warnings, *hook.warnings, *_moved_away(created, work.emit)))


def _moved_away(created: Created, emit: EventListener) -> tuple[str, ...]:
    """Return and emit a warning if the backup is not at its place any more, after the hook `after_backup`."""
    path = created.backup.path
    if path.is_dir():
        return ()
    warning = f"{path.name} is not in {path.parent} any more: it was moved or removed while after_backup ran."
    emit(Warned(warning))
    return (warning,)


def _push_if_configured(settings: Settings, created: Created, emit: EventListener, clock: Clock) -> Created:
    """Push to the remotes if the settings say so for each backup; the lock is already released."""
    if not settings.push_after_backup or not settings.remotes:
        return created
    from backupkit.remotes.push import push_after  # imported late: most apps have no remote, and it is large

    return replace(created, warnings=(*created.warnings, *push_after(settings, emit, clock)[1]))


def _warn_if_unreadable_schema(settings: Settings, created: Created, emit: EventListener) -> Created:
    """Add a warning if the backup is the first of its schema and that cannot be compared with this code.

    So a wrong setting shows on the day of the set-up, not on the day of a restore.
    """
    mine = created.backup.metadata
    others = (one.metadata for one in store.all_backups(settings) if one.name != created.backup.name)
    if mine is None or mine.kind == "pre_migration" or any(one and one.revisions == mine.revisions for one in others):
        return created
    verdict = schema.classify(settings, mine.revisions, emit)
    if verdict.relation != "unreadable":
        return created
    warning = f"{verdict.reason} This backup cannot be compared with this code. {verdict.needs}"
    emit(Warned(warning))
    return replace(created, warnings=(*created.warnings, warning))


def backup_of_today(settings: Settings, clock: Clock = utc_now, whole: bool = True) -> Backup | None:
    """Return this app's newest usable backup made today in the configured time zone, or None.

    Safety copies and salvaged backups do not count; with `whole`, nor do backups without the uploads.
    """
    today = settings.local(clock()).date()
    for backup in store.all_backups(settings):
        metadata = backup.metadata
        if (
            metadata
            and backup.is_usable
            and metadata.kind not in APART
            and reliable.is_own(settings, metadata)
            and (not whole or reliable.is_whole(settings, metadata))
            and settings.local(metadata.created_at).date() == today
        ):
            return backup
    return None


def refuse_overlap(settings: Settings) -> None:
    """Raise `Refused` if backups and uploads overlap, links resolved: each backup would contain all earlier ones.

    A second mount of the backups folder inside the uploads is allowed: `selection` leaves it out.
    """
    if settings.uploads is None:
        return
    backups, live = (Path(os.path.realpath(path)) for path in (settings.dir, settings.uploads))
    if backups in (live, *live.parents) or live in backups.parents or _are_one(backups, live):
        raise Refused(
            f"The backups folder {settings.dir} and the uploads folder {settings.uploads} overlap.",
            hint="Set BACKUP_DIR to a folder outside the uploads.",
        )


def _are_one(one: Path, two: Path) -> bool:
    """Return whether two existing folders are the same one, as with two mounts."""
    return one.is_dir() and two.is_dir() and one.samefile(two)
