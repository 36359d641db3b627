"""Back up the running app: the lock, what an earlier run left, the backup itself (`make`), and then the push."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from backupkit.backup.make import Created, free_name, make_backup
from backupkit.config.settings import Settings
from backupkit.migrations import schema
from backupkit.model.backup import APART, Backup, BackupRequest
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener, Warned, silence
from backupkit.model.names import check_name
from backupkit.remotes.push import push_after
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
    """A backup of the running app: one moment of the database, and every upload that moment refers to.

    Pushed afterwards where the settings want it, unless the caller does what follows by itself (`push=False`); a push
    that fails is a warning. Raises `Refused` for a name that is bad or taken, `SourceUnreadable` for live data that is
    missing, empty, locked or broken, `NoSpace`, `Locked`; nothing is left behind then, and no older backup is touched.
    """
    if request.name is not None:
        check_name(request.name)
    with hooks.of(settings, _around(request), emit) as hook:
        refuse_overlap(settings)
        store.require(settings.dir)
        with locked_operation(settings, "backup", emit, clock, [request.name] if request.name else []) as work:
            recover_under_lock(settings, work.emit)
            created = _created(settings, request, hook, work, clock)
    return _pushed(settings, created, emit, clock) if push else created


def create_backup_if_needed(
    settings: Settings,
    request: BackupRequest,
    emit: EventListener = silence,
    clock: Clock = utc_now,
    push: bool = True,
) -> Created | None:
    """`create_backup`, unless there is a backup of today: one, however many threads and processes ask at once."""
    if backup_of_today(settings, clock, request.uploads):
        return None
    with hooks.of(settings, _around(request), emit) as hook:
        refuse_overlap(settings)
        store.require(settings.dir)
        with locked_operation(settings, "backup", emit, clock) as work:
            recover_under_lock(settings, work.emit)
            if backup_of_today(settings, clock, request.uploads):
                return None
            created = _created(settings, request, hook, work, clock)
    return _pushed(settings, created, emit, clock) if push else created


def _around(request: BackupRequest) -> Literal["backup"] | None:
    """Safety copies are part of something else, which has its own hooks."""
    return None if request.kind in APART else "backup"


def _created(settings: Settings, request: BackupRequest, hook: hooks.Hooks, work: Work, clock: Clock) -> Created:
    free_name(settings, request, clock().astimezone(settings.zone))  # or a hook would run for nothing
    with hook.around(work):
        created = _checked(settings, make_backup(settings, request, work.emit, clock), work.emit)
        work.about(created.backup)
    return replace(created, warnings=(*created.warnings, *hook.warnings))


def _pushed(settings: Settings, created: Created, emit: EventListener, clock: Clock) -> Created:
    """The backup, carried to the remotes where the settings want that after each backup; the lock is free by then."""
    if not settings.push_after_backup or not settings.remotes:
        return created
    return replace(created, warnings=(*created.warnings, *push_after(settings, emit, clock)[1]))


def _checked(settings: Settings, created: Created, emit: EventListener) -> Created:
    """The backup, with a warning where it is the first of its schema and that cannot be compared with this code.

    So that is found on the day on which it was set up, not on the day of a restore.
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
    """The newest backup of this app made today in the configured time zone, safety copies apart.

    Where a `whole` one is wanted, one without the uploads does not count.
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
    """Neither of backups and uploads lies in the other, links resolved: each backup would hold all earlier ones.

    Backups that are mounted once more inside the uploads are left out of them (`selection`).
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
    """Whether two paths lead to one folder, by two mounts."""
    return one.is_dir() and two.is_dir() and one.samefile(two)
