"""Lay a backup out in a folder apart from the app; no live data is read, locked or changed.

The backup is restored, by the code of a real restore, into an empty app in a draft beside the target. One rename
publishes it, so a kill leaves a complete folder of that name, or none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from backupkit.config.deployment import is_contained, on_host
from backupkit.config.settings import WITHOUT_HOOKS, Settings
from backupkit.fs import descriptors, disk, mounts, space, trust
from backupkit.model.backup import MAIN_DATABASE, UPLOADS_FOLDER, Backup, Metadata, SchemaVerdict
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, Locked, Refused
from backupkit.model.events import EventListener, Finished, Notice, Step, collecting, silence, without
from backupkit.repository import lock, manifest, store
from backupkit.repository.operation import recorded
from backupkit.restore import apart, staging
from backupkit.restore.restore import left_in_backup, plan_source, restore_backup
from backupkit.sqlite import database
from backupkit.sqlite import mask as masks
from backupkit.sqlite.mask import Mask
from backupkit.upload_files import choice
from backupkit.upload_files.choice import Chosen

_CONTAINERS = ("/.dockerenv", "/run/.containerenv")  # files by which an engine marks a container
_VIRTUAL = ("tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2")


class Layout(Struct, frozen=True):
    """A backup, the target, the paths of its parts below that (None for one left out), and the bytes that it needs."""

    backup: Backup
    target: Path
    database: Path | None
    uploads: Path | None
    needs: int
    notes: tuple[str, ...] = ()
    chosen: Chosen | None = None
    """The only uploads to lay out, or None for all of them."""
    others: Mapping[str, Path] = field(default_factory=dict)
    """The paths of additional databases and trees, by name."""
    mask: Mask | None = None
    """The mask that is applied to the database before it is published."""

    @property
    def database_file(self) -> Path | None:
        """The final path of the database."""
        return self.target / self.database if self.database else None

    @property
    def uploads_folder(self) -> Path | None:
        """The final path of the uploads."""
        return self.target / self.uploads if self.uploads else None


class LaidOut(Struct, frozen=True):
    """The content of the target: rows by table, the number of uploads, and how the schema compares with this code.

    `is_compared` is whether the backup has checksums, with which every file was compared.
    """

    layout: Layout
    rows: dict[str, int]
    files: int
    verdict: SchemaVerdict | None
    is_compared: bool
    warnings: tuple[str, ...] = ()


def clear_draft(target: Path) -> None:
    """Remove the draft that a killed run left beside the target, if it is ours and no other run uses it."""
    target = Path(os.path.abspath(target.expanduser()))
    with contextlib.suppress(BackupError, OSError):
        _clear(Path(os.path.realpath(target.parent), f"{disk.DRAFT_PREFIX}{target.name}"))


def plan_taking_out(settings: Settings, name: str, target: Path, patterns: Sequence[str]) -> Layout:
    """Return the layout of some uploads, as `plan_layout`; raise `NoSuchBackup` if a pattern matches nothing."""
    tree = settings.sealed_folder
    layout = plan_layout(settings.whole, name, target, tree)
    chosen = choice.choose(layout.backup.path / tree, patterns, layout.backup.name)
    layout = replace(layout, needs=chosen.bytes, chosen=chosen)
    return replace(layout, others={tree: Path()}) if settings.part else replace(layout, uploads=Path())


def plan_layout(
    settings: Settings,
    name: str,
    target: Path,
    only: str | None = None,
    backup: Backup | None = None,
    notes: tuple[str, ...] = (),
) -> Layout:
    """Return where the backup, or the `only` part of it, would be laid out; nothing is written.

    `backup` saves the search by name. Raise `Refused` for a target that is not empty, is a link, is in or around live
    data or the backups folder, or can be changed by others; `Damaged` for a backup without such a part; `NoSpace`.
    """
    target = require_place(settings, target)
    if backup is None:
        found = store.resolve(settings, name)
        backup, notes = found.backup, (*notes, *found.sentences)
    layout = _layout_of(settings, backup, target, only)
    return replace(layout, notes=(*notes, *layout.notes))


def _layout_of(settings: Settings, backup: Backup, target: Path, only: str | None) -> Layout:
    metadata = store.require_metadata(backup)
    database, uploads = _main_paths(settings, metadata, only)
    others = dict(_additional_paths(settings, metadata, only))
    stays = left_in_backup(settings, metadata) if only is None else ()
    if database is None and uploads is None and not others:
        raise staging.not_in_backup(backup, only or MAIN_DATABASE)
    needs = _needs(backup, metadata, database is not None, uploads is not None)
    for alone in filter(None, map(metadata.at, others)):
        needs += 3 * alone.database_size + (alone.uploads.bytes if alone.uploads else 0)
    space.require(needs, target.parent, "This restore")
    return Layout(backup, target, database, uploads, needs, tuple(stays), others=others)


def _additional_paths(settings: Settings, metadata: Metadata, only: str | None) -> Iterator[tuple[str, Path]]:
    """Yield where each additional database and tree goes."""
    for part in settings.parts[1:]:
        if metadata.at(part.part) and only in (None, part.part):
            otherwise = Path(part.part) if part.uploads else Path("data", part.database.name)
            yield part.part, _below(settings, part.uploads or part.database, otherwise)


def _main_paths(settings: Settings, metadata: Metadata, only: str | None) -> tuple[Path | None, Path | None]:
    """Return the paths of database and uploads below the app folder, or usual names if they lie elsewhere."""
    live = settings.uploads or settings.app_dir / UPLOADS_FOLDER
    database = _below(settings, settings.database, Path("data", settings.database.name))
    uploads = _below(settings, live, Path(UPLOADS_FOLDER))
    with_database = metadata.database_file and only in (None, MAIN_DATABASE)
    with_uploads = metadata.uploads_included and only in (None, UPLOADS_FOLDER)
    return database if with_database else None, uploads if with_uploads else None


def _below(settings: Settings, path: Path, otherwise: Path) -> Path:
    path, app = Path(os.path.realpath(path)), Path(os.path.realpath(settings.app_dir))
    return path.relative_to(app) if path.is_relative_to(app) else otherwise


def _needs(backup: Backup, metadata: Metadata, with_database: bool, with_uploads: bool) -> int:
    """Return the bytes needed: for the database, its staged copy and a journal of it, and for the uploads."""
    size = metadata.database.size if metadata.database else backup.size_bytes
    files = metadata.uploads.bytes if metadata.uploads else backup.size_bytes
    return (3 * size if with_database else 0) + (files if with_uploads else 0)


def lay_out(settings: Settings, layout: Layout, emit: EventListener = silence, clock: Clock = utc_now) -> LaidOut:
    """Put the backup into the target, complete and synced: verified while it is copied, the database checked after.

    Raise `Damaged` for a backup that is not as it was written, or `NoSpace`, while the target is still empty.
    """
    return _lay_out_in(settings, layout.backup.name, layout.target, lambda _draft, _emit: layout, emit, clock)


def lay_out_fetched(
    settings: Settings,
    name: str,
    target: Path,
    fetch: Callable[[Path, EventListener], Backup],
    only: str | None = None,
    emit: EventListener = silence,
) -> LaidOut:
    """Lay out a remote backup, as `lay_out`: `fetch` downloads and checks it into a new folder, removed afterwards."""
    target = require_place(settings, target)

    def fetched(draft: Path, listen: EventListener) -> Layout:
        return _layout_of(settings, fetch(draft / "fetched", listen), target, only)

    return _lay_out_in(settings, name, target, fetched, emit, utc_now)


def _lay_out_in(
    settings: Settings,
    name: str,
    target: Path,
    layout_of: Callable[[Path, EventListener], Layout],
    emit: EventListener,
    clock: Clock,
) -> LaidOut:
    """Lay out in a draft beside the target, which `layout_of` is called with, and publish what is complete."""
    warnings: list[str] = []
    with recorded(settings, "restore", emit, clock, [name]) as work, _draft_of(target, f"restore of {name}") as draft:
        work.concerning(name, note=on_host(f"laid out in {target}"))
        listen = collecting(work.emit, warnings)
        layout = layout_of(draft, listen)
        work.concerning(layout.backup.name)
        whole = draft / "whole"
        whole.mkdir(mode=0o700)
        done = _restore_parts(settings.whole, layout, draft, whole, without(listen, Notice, Finished), clock)
        if layout.mask:
            done = replace(done, rows=_apply_mask(layout, layout.mask, whole, listen))
        _publish(whole, target)
    return replace(done, warnings=tuple(warnings))


def _restore_parts(
    settings: Settings, layout: Layout, draft: Path, whole: Path, emit: EventListener, clock: Clock
) -> LaidOut:
    """Restore the parts into an empty app whose folders are in the draft."""
    wanted = {MAIN_DATABASE: layout.database, UPLOADS_FOLDER: layout.uploads, **layout.others}
    alone = [name for name, path in wanted.items() if path]
    only = alone[0] if len(alone) == 1 else None
    source = staging.verified(settings, layout.backup, only, emit, verify_while_staging=True)
    others = tuple(one for one in source.others if one.part in layout.others)
    source = replace(source, chosen=layout.chosen, others=others)
    places = {
        "database": whole / layout.database if layout.database else draft / "none" / settings.database.name,
        "uploads": whole / layout.uploads if layout.uploads else None,
        "dir": draft / "backups",
        "exclude_marked": (),
        "exclude": (),  # the new app has no files to protect
        **WITHOUT_HOOKS,
    }
    scratch = settings.elsewhere(places, {name: whole / path for name, path in layout.others.items()})
    disk.make_folder(scratch.dir)
    plan = plan_source(scratch, source, force=True, emit=emit)
    done = restore_backup(scratch, plan, emit, clock)
    files = plan.uploads.added if plan.uploads else 0
    is_compared = manifest.has_checksums(layout.backup.path)
    return LaidOut(layout, dict(done.rows), files, plan.verdict, is_compared)


def _apply_mask(layout: Layout, mask: Mask, whole: Path, emit: EventListener) -> dict[str, int]:
    """Mask the database in the draft; return its rows by table."""
    emit(Step("Masking the database"))
    metadata = store.require_metadata(layout.backup)
    assert layout.database and metadata.database_file
    copy = whole / layout.database
    masks.apply(copy, layout.backup.path / metadata.database_file, mask)
    with database.open_sealed(copy) as connection:
        return dict(database.count_rows(connection))


# The target


def require_place(settings: Settings, target: Path) -> Path:
    """Return the target with the links in its parents resolved; raise `Refused` if no backup may be laid out there."""
    target = Path(os.path.abspath(target.expanduser()))
    if target.is_symlink():
        raise Refused(f"{target} is a link.", hint="Name the folder that it leads to, or a new one.")
    if not target.parent.is_dir():
        raise Refused(f"There is no folder {target.parent}.", hint=f"Make it first: mkdir -p {target.parent}")
    target = Path(os.path.realpath(target.parent)) / target.name
    _refuse_data(settings, target)
    _refuse_taken(target)
    trust.require_own_place(target)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise Refused(
            f"User {os.geteuid()} cannot write to {target.parent}.",
            hint="Name a folder in one that this user can write to.",
        )
    return target


def kept_folders(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[Path] | None:
    """Return the mounted folders that may hold a target, as the rest goes with the container; None outside of one."""
    if not is_contained(environment) and not any(map(os.path.exists, _CONTAINERS)):
        return None
    mounted = [Path(one.place) for one in mounts.read() if one.place != "/" and one.kind not in _VIRTUAL]
    return sorted({place for place in mounted if _may_hold(settings, place)})


def _may_hold(settings: Settings, folder: Path) -> bool:
    try:
        require_place(settings, folder / f"{disk.DRAFT_PREFIX}look")
    except (BackupError, OSError):
        return False
    return True


def _refuse_data(settings: Settings, target: Path) -> None:
    if apart.touches_data(target, settings):
        where = "in live data or in a backup, or around them"
    elif apart.touches_backups(target, settings):
        where = f"in the backups folder {settings.dir}, or around it"
    else:
        return
    raise Refused(f"{target} is {where}.", hint="Name a new folder apart from the app's data and its backups.")


def _refuse_taken(target: Path) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise Refused(f"{target} is not a folder.", hint="Name a new folder.")
    try:
        is_empty = not os.listdir(target)
    except PermissionError as error:
        raise Refused(f"{target} cannot be read: {error.strerror}.", hint="Name a new folder.") from error
    if not is_empty:
        raise Refused(f"{target} is not empty.", hint="Name a new or an empty folder.")
    if os.path.ismount(target):  # no rename can replace it
        raise Refused(f"{target} is a mount.", hint=f"Name a new folder in it: {target / 'restored'}")


@contextlib.contextmanager
def _draft_of(target: Path, command: str) -> Iterator[Path]:
    """Make and lock a folder beside the target that only this user can enter; yield it, and remove it afterwards."""
    draft = target.with_name(f"{disk.DRAFT_PREFIX}{target.name}")
    _clear(draft)
    draft.mkdir(mode=0o700)
    try:
        with lock.held(draft, command, 0):
            yield draft
    finally:
        disk.remove_tree(draft)


def _clear(draft: Path) -> None:
    if not os.path.lexists(draft):
        return
    with contextlib.suppress(NotADirectoryError), descriptors.opened(draft, descriptors.FOLDER) as handle:
        if lock.is_held(draft):
            raise Locked(
                f"Another run is at work in {draft}; nothing was changed.", hint="Wait for it, or name another folder."
            )
        if not descriptors.why_not_ours(handle):
            return disk.remove_tree(draft)
    raise Refused(f"{draft} exists, and belongs to another user.", hint="Name another folder.")


def _publish(whole: Path, target: Path) -> None:
    """Rename the finished folder to the target; it replaces an empty folder, and takes over its mode and owner."""
    if target.is_dir() and not target.is_symlink():
        facts = os.lstat(target)
        disk.chown_if_root(whole, (facts.st_uid, facts.st_gid))
        whole.chmod(facts.st_mode & 0o7777)
        disk.sync_tree(whole)
        return disk.rename(whole, target)  # fails if the folder is no longer empty
    disk.publish(whole, target)
