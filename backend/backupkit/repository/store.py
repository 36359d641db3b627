"""The backups folder: list, find, draft and publish. Any folder that holds our metadata is a backup.

There is no catalogue that could be lost: the list is what is on disk.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.deployment import as_root, is_contained
from backupkit.config.settings import Settings
from backupkit.fs import disk, mounts, own_folder, tree, trust
from backupkit.model import times
from backupkit.model.backup import APART, CHECKSUM_FILE, GUIDE_FILE, METADATA_FILE, Backup, Metadata, State
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, Refused, way_to_look
from backupkit.model.events import EventListener, Notice, Warned, silence
from backupkit.model.names import LETTERS, check_name, few, is_name, likely
from backupkit.repository import flags, history, lock, manifest, order, reliable, separate_disk, verification

LATEST = "latest"
JOURNAL_FILE = ".journal"
BUILT = f"{disk.DRAFT_PREFIX}rewind-"
"""Begins the name of a folder in which a moment of rewind is built."""


def require(backups: Path) -> None:
    """Make the backups folder if it is missing. Raise `BackupError` if it is unwritable, or not safe to use as root."""
    trust.require_roots(backups)
    try:
        disk.make_folder(backups)
    except OSError as error:
        raise BackupError(
            f"The backups folder {backups} cannot be made: {error.strerror}.", _makeable_hint(backups, error)
        ) from error
    if not os.access(backups, os.W_OK | os.X_OK) or mounts.is_read_only(backups):
        raise BackupError(f"The backups folder {backups} cannot be written to.", _writable_hint(backups))


def all_backups(settings: Settings) -> list[Backup]:
    """Return every backup, newest first. Other folders are left out; a damaged backup has the state `damaged`."""
    return read_all(settings.dir, settings.zone)


_seen: ContextVar[dict[tuple[Path, ZoneInfo], list[Backup]] | None] = ContextVar("seen", default=None)


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Read the backups of each folder only once during the block, so that a reader shows one consistent state."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def read_all(folder: Path, zone: ZoneInfo) -> list[Backup]:
    """Return every backup in any backups folder, newest first; times without an offset are taken to be in `zone`."""
    seen = _seen.get()
    if seen is None:
        return _all_in(folder, zone)
    if (folder, zone) not in seen:
        seen[folder, zone] = _all_in(folder, zone)
    return list(seen[folder, zone])


def _all_in(folder: Path, zone: ZoneInfo) -> list[Backup]:
    trust.require_folder(folder)
    try:
        with os.scandir(folder) as entries:
            folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    known_flags = flags.load(folder)
    found = [_read(Path(one), zone, known_flags) for one in folders if _is_backup(one)]
    return sorted(found, key=lambda backup: (backup.made_at, backup.name), reverse=True)


def own_backups(settings: Settings) -> list[Backup]:
    """Return the backups of this app, newest first, and those whose metadata are not trustworthy."""
    return [one for one in all_backups(settings) if one.metadata is None or reliable.is_own(settings, one.metadata)]


def find(settings: Settings, name: str, emit: EventListener = silence) -> Backup:
    """Return the backup of that name, which may be `latest`. Raise `NoSuchBackup`, which names the backups there are.

    Emit a notice if `latest` passes over newer backups, or over one that is newer than its date says.
    """
    chosen = resolve(settings, name)
    for sentence in chosen.sentences:
        emit(Notice(sentence))
    return chosen.backup


def resolve(settings: Settings, name: str) -> Latest:
    """Return the backup of that name and, if the name is `latest`, the newer ones that were passed over."""
    return latest(settings) if name == LATEST else Latest(_find_named(settings, name))


def _find_named(settings: Settings, name: str) -> Backup:
    path = settings.dir / _checked(settings, name)
    if not path.is_dir() or path.is_symlink():
        known = likely(name, [backup.name for backup in all_backups(settings)])[:3]
        hint = (
            f"There are: {', '.join(known)} …; `list` shows all."
            if known
            else f"There are none yet. {none_yet(settings)}"
        )
        raise NoSuchBackup(f"There is no backup named {name} in {settings.dir}.", _hint_on_file(path) or hint)
    if not is_backup(path):
        what = f"{path} is no backup of this toolkit: it has no {METADATA_FILE}, {CHECKSUM_FILE} or {GUIDE_FILE}."
        raise NoSuchBackup(what, hint="`list` shows the backups.")
    return read(settings, name)


def _hint_on_file(path: Path) -> str:
    """Return how to use a dump or an archive that has the name of a backup; empty if there is none."""
    if not path.is_file():
        return ""
    if ".sql" in path.suffixes:
        return f"That file is a dump: `restore-dump {path.name}`"
    return f"That file is an archive: `import {path.name}`" if ".tar" in path.suffixes else ""


def _checked(settings: Settings, name: str) -> str:
    """Return the name if it is one, else raise `Refused`; it tells the name of a path that a shell completed."""
    bare = Path(name).name
    if "/" in name and is_name(bare) and is_backup(settings.dir / bare):
        raise Refused(f"{name!r} is not a name for a backup.", hint=f"Type the name alone: {bare}")
    return check_name(name)


class Latest(Struct, frozen=True):
    """The newest usual, whole backup of this app; `passed_over` lists the newer ones with the reasons.

    `made_later` lists those that were made after it, although their dates are earlier.
    """

    backup: Backup
    passed_over: str = ""
    made_later: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to tell of the others, if anything."""
        passed = f"Passed over: {self.passed_over}." if self.passed_over else ""
        later = f"Made later, although dated earlier: {few(self.made_later)}." if self.made_later else ""
        said = " ".join(filter(None, (passed, later)))
        return (f"latest is {self.backup.name}. {said}",) if said else ()


def latest(settings: Settings, until: datetime | None = None) -> Latest:
    """Return the newest backup that can be relied on, made at or before `until`. Raise `NoSuchBackup` with the reason.

    A backup whose metadata are not trustworthy has no date, and is never excluded by `until`.
    """
    found, now = all_backups(settings), datetime.now(UTC)
    if until:
        found = [one for one in found if times.is_until(one.made_at, until)]
    for place, backup in enumerate(found):
        if not reliable.why_not_latest(settings, backup, now):
            newer = [*found[:place], *(one for one in found[place:] if _may_be_newer(one, backup))]
            return Latest(backup, reliable.passed_over(settings, newer, now), _made_later(settings, found[place:], now))
    if passed_over := reliable.passed_over(settings, found, now):
        raise NoSuchBackup(
            f"No backup in {settings.dir} is a usual, whole one of this app. Passed over: {passed_over}.",
            hint="To take one of them, name it instead of `latest`: `list`",
        )
    if until:
        when = settings.local(until).isoformat(sep=" ")
        raise NoSuchBackup(f"There is no backup in {settings.dir} made until {when}.", hint="`list` shows all of them.")
    raise NoSuchBackup(f"There is no backup in {settings.dir} yet.", hint=none_yet(settings))


def _made_later(settings: Settings, found: list[Backup], now: datetime) -> tuple[str, ...]:
    """Return which of the backups were made after the first of them, which has the latest date."""
    later = order.made_later(settings, found, history.read(settings.dir).operations, now)
    return tuple(name for name, other in later.items() if other.name == found[0].name)


def _may_be_newer(unreadable: Backup, backup: Backup) -> bool:
    """Return whether a backup without trustworthy metadata may be newer, by the only date it has: its folder's."""
    return unreadable.metadata is None and any(changed > backup.made_at for changed in last_changed(unreadable))


def last_changed(backup: Backup) -> list[datetime]:
    """Return when the folder was last changed, as a list of one; empty if it was removed meanwhile."""
    try:
        return [datetime.fromtimestamp(os.lstat(backup.path).st_mtime, UTC)]
    except (OSError, OverflowError, ValueError):
        return []


def newest(settings: Settings) -> Backup:
    """Return the newest backup of this app, damaged or not, except safety copies and salvaged ones.

    Raise `NoSuchBackup` if there is none.
    """
    for backup in own_backups(settings):
        if backup.metadata is None or backup.metadata.kind not in APART:
            return backup
    raise NoSuchBackup(f"There is no backup in {settings.dir} yet.", hint=none_yet(settings))


def none_yet(settings: Settings) -> str:
    """Return the hint for an empty folder: mount its disk, use the default of an earlier version, or make a backup."""
    if missing := separate_disk.why_missing(settings):
        return f"{missing} Mount it."
    if there := left_beside(settings):
        return f"There are backups in {there}, where an earlier version kept them: set BACKUP_DIR to that."
    return "Make one: `backup`"


def left_beside(settings: Settings) -> Path | None:
    """Return `../backups`, an earlier version's default, if it has backups of this app and no folder is configured."""
    there = settings.app_dir.parent / "backups"
    if "dir" in settings.given or there == settings.dir:
        return None
    with contextlib.suppress(OSError):
        found = read_all(there, settings.zone)
        return there if any(one.metadata and reliable.is_own(settings, one.metadata) for one in found) else None
    return None


def read(settings: Settings, name: str) -> Backup:
    """Return the backup as it is on disk; if its metadata are not trustworthy, with `error` instead of them."""
    return read_at(settings.dir / name, settings.zone)


def read_at(path: Path, zone: ZoneInfo) -> Backup:
    """Return a backup in any folder as it is on disk, like `read`."""
    return _read(path, zone, flags.load(path.parent))


def _read(path: Path, zone: ZoneInfo, known_flags: flags.Flags) -> Backup:
    name = path.name
    try:
        metadata = manifest.read_metadata(path, zone)
    except Damaged as error:
        return Backup(path, None, "damaged", error=error.message)
    sealed = manifest.has_checksums(path)
    size = _size(path, metadata)
    if metadata.tool_version and not sealed:  # only backups made by hand have no checksums
        lacking = "no plain file" if os.path.lexists(path / CHECKSUM_FILE) else "missing"
        return Backup(path, metadata, "damaged", size, size, error=f"{path / CHECKSUM_FILE} is {lacking}.")
    adds = size if metadata.added_bytes is None else metadata.added_bytes
    accepted = bool(metadata.anomalies) and name in known_flags.accepted
    state: State = "raw" if metadata.is_raw else "checked" if sealed else "unchecked"
    backup = Backup(path, metadata, state, size, adds, name in known_flags.pinned, accepted=accepted)
    known = name in known_flags.checked
    record = verification.read(path.parent, name, metadata) if known else verification.Record(metadata.created_at)
    return _with_record(backup, metadata, record)


def _with_record(backup: Backup, metadata: Metadata, record: verification.Record) -> Backup:
    """Return the backup with the results of its last verify; one with checksums was checked when it was made."""
    made = metadata.created_at if backup.state == "checked" else None
    checked_at = record.checked_at or made
    if record.flaws:
        return replace(backup, state="damaged", checked_at=checked_at, flaws=record.flaws)
    return replace(
        backup,
        state="proven" if record.proven_at else backup.state,
        checked_at=checked_at,
        proven_at=record.proven_at,
        recovery_seconds=record.recovery_seconds,
        not_proven=record.not_proven,
    )


def require_metadata(backup: Backup) -> Metadata:
    """Return the metadata. Raise `Damaged` if they are not trustworthy; flaws found by a verify do not count here."""
    if backup.metadata is None or backup.error:
        raise Damaged(backup.error, hint="Try another backup: `list`.")
    return backup.metadata


def taken_names(settings: Settings) -> set[str]:
    """Return the names in use in the backups folder: backups, dumps and anything else."""
    try:
        return set(os.listdir(settings.dir))
    except FileNotFoundError:
        return set()


def discard(settings: Settings, backup: Backup, emit: EventListener) -> None:
    """Remove the backup: its name first, in one step, and then its content.

    Emit a warning if the name is gone and some of the content could not be removed; raise `OSError` if it still has
    its name.
    """
    draft = draft_of(settings, backup.name)
    try:
        disk.remove_atomically(draft, backup.path)
    except OSError as error:
        if os.path.lexists(backup.path):
            raise
        text = f"{backup.name} is not a backup any more, but some of it could not be removed: {error.strerror}."
        emit(Warned(f"{text} It is in {draft}; the next `backup` removes it, once it can."))


def draft_of(settings: Settings, name: str) -> Path:
    """Return the path of the draft for a backup of that name."""
    return settings.dir / f"{disk.DRAFT_PREFIX}{name}"


def file_named(settings: Settings, file: str) -> Path:
    """Return the path of a file that a person named: a bare name is in the backups folder, a path is taken as it is."""
    if "/" in file:
        return Path(os.path.abspath(os.path.expanduser(file)))
    if is_name(file):
        return settings.dir / file
    raise Refused(
        f"{file!r} is not a name for a file in the backups folder.",
        hint=f"Use {LETTERS}; or type its path: ./NAME",
    )


def require_free(target: Path) -> None:
    """Raise `Refused` if the path exists, or its folder does not."""
    if os.path.lexists(target):
        raise Refused(f"{target} exists already.", hint="Choose another name.")
    require_parent(target)


def require_parent(file: Path) -> None:
    """Raise `Refused` if the folder of the file does not exist."""
    if not file.parent.is_dir():
        hint = f"Make it: mkdir -p {shlex.quote(str(file.parent))}. A bare file name goes to the backups folder."
        raise Refused(f"There is no folder {file.parent}.", hint)


def require_file(settings: Settings, file: Path, missing: str, pattern: str, hint: str) -> None:
    """Raise `NoSuchBackup` with the message `missing` if there is no such file, or `Refused` if it is not a file."""
    if not file.exists():
        known = ", ".join(sorted(path.name for path in settings.dir.glob(pattern))[-3:])
        otherwise = "A bare name is looked for in the backups folder."
        raise NoSuchBackup(missing, f"There are: {known}." if known else otherwise)
    if not file.is_file():
        is_one = file.parent == settings.dir and is_backup(file)
        raise Refused(f"{file} is not a file.", f"It is a backup: `restore {file.name}`" if is_one else hint)


@contextlib.contextmanager
def draft_folder(settings: Settings, name: str, replaces: bool = False) -> Iterator[Path]:
    """Yield a draft folder; publish it under `name`, synced, when the block ends. If the block raises, remove it.

    With `replaces`, delete the backup that has the name now, after the draft is synced and before it is published.
    """
    draft = draft_of(settings, name)
    try:
        draft.mkdir(mode=0o700)
        disk.chown_if_root(draft, disk.owner_of(settings.dir))
        yield draft
        if replaces:
            disk.sync_tree(draft)  # the draft must be on disk before the other backup loses its name
            disk.remove_atomically(draft_of(settings, f"{name}-replaced"), settings.dir / name)
        disk.publish(draft, settings.dir / name)
    except BaseException:
        disk.remove_tree(draft)
        raise


@contextlib.contextmanager
def work_folder(settings: Settings, name: str, command: str) -> Iterator[Path]:
    """Yield a new empty scratch folder in the backups folder; remove it when the block ends.

    Several runs may have one at once. It is a draft with a lock of its own, which names `command`: while that lock is
    held, no other run clears the folder away.
    """
    trust.require_roots(settings.dir)
    folder = Path(tempfile.mkdtemp(prefix=f"{disk.DRAFT_PREFIX}{name}-", dir=settings.dir))
    try:
        with lock.held(folder, command, 0):
            yield folder
    finally:
        disk.remove_tree(folder)


def has_drafts(settings: Settings) -> bool:
    """Return whether there are drafts in the backups folder."""
    return any(True for _ in _drafts(settings))


def count_drafts(settings: Settings) -> int:
    """Return the number of drafts in the backups folder, of a run in progress or left by a killed one."""
    return sum(1 for _ in _drafts(settings))


def clear_drafts(settings: Settings) -> list[str]:
    """Remove the drafts that killed runs left and return their names. The caller holds the lock, so none is in use.

    The draft of a backup, and that of what is remembered of it, have one name. A draft of another user that this
    process may not remove stays; it does no harm.
    """
    return list(dict.fromkeys(draft.name for draft in _drafts(settings) if _is_removed(draft)))


def _is_removed(draft: Path) -> bool:
    with contextlib.suppress(PermissionError):
        disk.remove_tree(draft)
        return True
    return False


def _drafts(settings: Settings) -> Iterator[Path]:
    # Scratch folders in use hold a lock of their own. What an unfinished restore was built from may be needed again.
    is_needed = BUILT if os.path.lexists(settings.dir / JOURNAL_FILE) else ()
    found = (one for one in settings.dir.glob(f"{disk.DRAFT_PREFIX}*") if not one.name.startswith(is_needed))
    yield from (draft for draft in found if not lock.is_held(draft))
    yield from flags.drafts(settings.dir)


def is_backup(path: Path) -> bool:
    """Return whether the folder is a backup, damaged or not."""
    return path.is_dir() and not path.is_symlink() and _is_backup(str(path))


def _is_backup(folder: str) -> bool:
    if os.path.basename(folder).startswith("."):
        return False
    if any(os.path.exists(f"{folder}/{name}") for name in (METADATA_FILE, CHECKSUM_FILE, GUIDE_FILE)):
        return True
    return not os.access(folder, os.R_OK | os.X_OK)  # listed, so that the user sees that it cannot be read


def _size(path: Path, metadata: Metadata) -> int:
    """Return the size of the content in bytes, as recorded, or as on disk if the metadata have no sizes."""
    if metadata.database is None and metadata.uploads is None:
        return sum(_file_sizes(path))
    return metadata.content_size


def _file_sizes(path: Path) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):  # the backup may be deleted during the walk
        for entry in tree.walk(path, unreadable=lambda _path, _error: None):
            if entry.form != "folder":
                yield entry.facts.st_size


def _makeable_hint(backups: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return _writable_hint(backups)
    return f"Set BACKUP_DIR to a folder in one that is there: ls -ld {shlex.quote(str(backups.parent))}"


def _writable_hint(backups: Path) -> str:
    if backups.exists() and mounts.is_read_only(backups):
        return "It is mounted read-only: mount it so that it can be written to, or set BACKUP_DIR."
    if backups.exists() and os.geteuid() in (0, backups.stat().st_uid):
        return f"{way_to_look(backups)} (or set BACKUP_DIR)"
    as_owner = own_folder.as_its_owner(backups) if backups.exists() and not is_contained(os.environ) else ""
    user, group = str(os.geteuid()), str(os.getegid())
    give = ("chown", "-R", f"{user}:{group}") if backups.exists() else ("install", "-d", "-o", user, "-g", group)
    return f"{as_owner}{as_root(*give, str(backups))} (or set BACKUP_DIR)"
