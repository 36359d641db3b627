"""Single-file backups: `backup_YYYYMMDD_HHMMSS.db`, in the local time of the program they belong to.

There is no catalogue: a file with such a name is a backup, and no other file is touched. Several databases may share
the folder: `.state/databases.json` maps each backup to its database, by a path relative to the folder so that both can
be moved together. A backup that is not recorded there counts as one of any database. `.state/checksums.json` maps each
backup to its SHA-256; a backup that is not recorded there was made elsewhere, or by an earlier version.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from msgspec import Struct

from backupkit.fs import disk, own_folder
from backupkit.model.errors import BackupError
from backupkit.model.events import EventListener, Warned
from backupkit.model.names import STAMP
from backupkit.repository.flags import STATE_FOLDER

_ZONES = 26 * 3600  # seconds between the earliest and the latest time zone
_RECORD = "databases.json"
_CHECKSUMS = "checksums.json"
_MEND = {
    _RECORD: "Mend it; or remove it, if one database alone uses the folder.",
    _CHECKSUMS: "Remove it: the backups that are there now are then restored without a comparison.",
}
_CHECKSUM = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"backup_(\d{8}_\d{6})\.db", re.ASCII)


class Owners(Struct, frozen=True):
    """The recorded databases, by name of the backup, in one backups folder."""

    databases: Mapping[str, Path]
    is_readable: bool = True

    def is_anothers(self, name: str, database: Path) -> bool:
        """Return whether it is recorded for a different database, with another file name or still existing."""
        other = self.databases.get(name, database)
        return not _is_same(other, database) and (other.name != database.name or os.path.exists(other))

    def is_surely_of(self, name: str, database: Path) -> bool:
        """Return whether it can only be of this database: recorded for it, or unrecorded and no other has a record."""
        if name in self.databases:
            return _is_same(self.databases[name], database)
        return self.is_readable and all(_is_same(one, database) for one in self.databases.values())


class SingleBackup(Struct, frozen=True):
    """One backup file; `at` is the time in its name, read in the requested zone. Size in bytes."""

    path: Path
    at: datetime
    size: int
    is_surely_own: bool  # `Owners.is_surely_of` for the requested database


def backups_of(database: Path, folder: Path, zone: tzinfo | None) -> list[SingleBackup]:
    """Return the single-file backups in the folder, newest first, without those of other databases."""
    return sorted(_found(database, folder, zone), key=lambda one: (one.at.timestamp(), one.path.name), reverse=True)


def owners(folder: Path) -> Owners:
    """Return what is recorded now; empty, with `is_readable` false, if the record cannot be read."""
    try:
        recorded = _recorded(folder, _RECORD)
    except (BackupError, OSError):
        return Owners({}, is_readable=False)
    return Owners({name: Path(os.path.realpath(folder / path)) for name, path in recorded.items()})


def record(folder: Path, name: str, database: Path) -> None:
    """Record that the backup to be published as `name` is of this database; drop records of deleted backups.

    The caller holds the lock. Raise `BackupError` if the record cannot be read (it is left unchanged), or `OSError`.
    """
    _add(folder, _RECORD, name, os.path.relpath(database, os.path.realpath(folder)))


def record_checksum(folder: Path, name: str, checksum: str) -> None:
    """Record the SHA-256 of the backup to be published as `name`, as `record` does."""
    _add(folder, _CHECKSUMS, name, checksum)


def checksum_of(backup: Path) -> str | None:
    """Return the SHA-256 that is recorded beside this backup, or None. Raise `BackupError` if it cannot be read."""
    return _recorded(backup.parent, _CHECKSUMS).get(backup.name)


def checksum_or_warn(backup: Path, emit: EventListener, look: Callable[[Path], str | None] = checksum_of) -> str | None:
    """Return the checksum that `look` finds for this backup; if it cannot be read, warn and return None."""
    try:
        return look(backup)
    except (BackupError, OSError) as error:
        emit(Warned(f"{backup} could not be compared with its checksum: {error}"))
        return None


def clear_unfinished_record(folder: Path) -> None:
    """Remove drafts of the records that killed runs left, if possible. The caller holds the lock."""
    with contextlib.suppress(BackupError, OSError), own_folder.existing(folder, STATE_FOLDER) as state:
        drafts = (state.glob(f"{disk.DRAFT_PREFIX}{file}-*") for file in (_RECORD, _CHECKSUMS)) if state else ()
        for draft in itertools.chain.from_iterable(drafts):
            disk.remove(draft)


def free_place(at: datetime, folder: Path, shape: str = "backup_{stamp}.db") -> tuple[Path, datetime]:
    """Return an unused path and its time: the requested second, or the next one whose name is free."""
    while True:
        path = folder / shape.format(stamp=at.strftime(STAMP))
        if not os.path.lexists(path):
            return path, at
        at = _next_second(at)


def is_ahead(one: SingleBackup, at: datetime) -> bool:
    """Return whether the backup is dated after `at`, but not so far that its clock must have been wrong.

    So it is where several are made in one second, where the clock was set back, and in a time zone farther west.
    """
    return 0 <= one.at.timestamp() - at.timestamp() <= _ZONES


def time_after(backups: Iterable[SingleBackup], at: datetime) -> datetime:
    """Return `at`, or the second after the newest of the backups that are ahead of it: the last made sorts last."""
    ahead = [one.at for one in backups if is_ahead(one, at)]
    return _next_second(max(ahead, key=datetime.timestamp)) if ahead else at


def expired(backups: Iterable[SingleBackup], keep: int, made: Path, at: datetime) -> list[SingleBackup]:
    """Return the backups beyond the newest `keep`, newest first; never the one just made, whatever the clock says.

    Only backups that are surely of this database are counted and returned. So an unrecorded backup is never removed if
    several databases have records in the folder or the record cannot be read. Nor is one recorded for another path of
    this database, since that database may be lost rather than moved.

    A backup dated more than 26 hours after the one just made is kept and not counted: the clock was or is wrong.
    """
    latest = at.timestamp() + _ZONES
    own = (backup for backup in backups if backup.is_surely_own and backup.path != made)
    return [backup for backup in own if backup.at.timestamp() <= latest][keep - 1 :]


def _next_second(at: datetime) -> datetime:
    return (at + timedelta(seconds=1)).replace(fold=at.fold)  # a sum is of the first of the hour that comes twice


def _found(database: Path, folder: Path, zone: tzinfo | None) -> Iterator[SingleBackup]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    known = owners(folder)  # read after the names, because a backup is recorded before it gets its name
    for name in names:
        shown = _stamp(name)
        facts = _plain_facts(folder / name) if shown else None
        if shown and facts and not known.is_anothers(name, database):
            at, is_sure = _time_in_name(shown, zone, facts.st_mtime), known.is_surely_of(name, database)
            yield SingleBackup(folder / name, at, facts.st_size, is_sure)


def _plain_facts(path: Path) -> os.stat_result | None:
    """Return the facts of a plain file; None for anything else, or if it was removed meanwhile."""
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


def _add(folder: Path, file: str, name: str, text: str) -> None:
    there = set(os.listdir(folder))
    kept = {one: recorded for one, recorded in _recorded(folder, file).items() if one in there}
    kept[name] = text
    with own_folder.made(folder, STATE_FOLDER) as state:
        disk.write_file(state / file, json.dumps(kept, indent=2).encode())  # ASCII: a path may be any bytes


def _recorded(folder: Path, file: str) -> dict[str, str]:
    """Return what that file of the state folder says of each backup, by name. Raise `BackupError`."""
    try:
        with own_folder.existing(folder, STATE_FOLDER) as state:
            return _READ[file](disk.read_plain(state / file, disk.MOST_STATE)) if state else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BackupError(
            f"{folder / STATE_FOLDER / file} cannot be read, and stays as it is: {error}.", hint=_MEND[file]
        ) from error


def _paths(written: bytes) -> dict[str, str]:
    """Parse the databases. Raise `ValueError` for anything that `record` does not write."""
    found = _texts(written)
    if any(b"\0" in os.fsencode(path) for path in found.values()):
        raise ValueError("it holds a path that none can have")
    return found


def _checksums(written: bytes) -> dict[str, str]:
    """Parse the checksums. Raise `ValueError` for anything that `record_checksum` does not write."""
    found = _texts(written)
    if not all(_CHECKSUM.fullmatch(checksum) for checksum in found.values()):
        raise ValueError("it holds a checksum that none can be")
    return found


def _texts(written: bytes) -> dict[str, str]:
    found = json.loads(written)
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("it holds no texts by names")
    return found


_READ = {_RECORD: _paths, _CHECKSUMS: _checksums}


def _is_same(one: Path, other: Path) -> bool:
    """Return whether both are the same file, by path or by inode, since a mount gives a file a second path."""
    with contextlib.suppress(OSError):
        return one == other or os.path.samefile(one, other)
    return False


def _stamp(name: str) -> datetime | None:
    match = _NAME.fullmatch(name)
    try:
        return datetime.strptime(match[1], STAMP) if match else None
    except ValueError:
        return None


def _time_in_name(shown: datetime, zone: tzinfo | None, changed: float) -> datetime:
    """Return a local time as a point in time; in the repeated hour, the one nearer to the file's modification time."""
    twice = (shown.replace(fold=fold) for fold in (0, 1))
    moments = [one.replace(tzinfo=zone) if zone else one.astimezone() for one in twice]
    return min(moments, key=lambda at: abs(at.timestamp() - changed))
