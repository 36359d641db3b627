"""Single-file backups: `backup_YYYYMMDD_HHMMSS.db`, named in the zone of the program they belong to.

There is no catalogue: what bears such a name is a backup, and nothing else is touched. Several databases may share the
folder: `.state/databases.json` says of which one each backup is, by a path relative to the folder, so that both can be
moved together. A backup that is not in it counts as one of whichever database is asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from backupkit.fs import disk, own_folder
from backupkit.model.errors import BackupError
from backupkit.model.names import STAMP
from backupkit.repository.flags import STATE_FOLDER

_ZONES = 26 * 3600  # seconds between the clocks of the two ends of the world
_RECORD = "databases.json"
_NAME = re.compile(r"backup_(\d{8}_\d{6})\.db", re.ASCII)


@dataclass(frozen=True)
class Owners:
    """Of which database each backup in a folder is, where that is recorded."""

    databases: Mapping[str, Path]
    is_readable: bool = True

    def is_anothers(self, name: str, database: Path) -> bool:
        """Whether the backup is recorded of a database of another file name, or of another one that is still there."""
        other = self.databases.get(name, database)
        return not _is_same(other, database) and (other.name != database.name or os.path.exists(other))

    def is_surely_of(self, name: str, database: Path) -> bool:
        """Whether it can be nobody else's: recorded of this path, or unrecorded where no other path has a record."""
        if name in self.databases:
            return _is_same(self.databases[name], database)
        return self.is_readable and all(_is_same(one, database) for one in self.databases.values())


@dataclass(frozen=True)
class SingleBackup:
    """One file; `at` is what its name says, in the zone it was asked for in. Size in bytes."""

    path: Path
    at: datetime
    size: int
    is_surely_own: bool  # `Owners.is_surely_of` the database that was asked for


def backups_of(database: Path, folder: Path, zone: tzinfo | None) -> list[SingleBackup]:
    """Every single-file backup in the folder that is not another database's, newest first."""
    return sorted(_found(database, folder, zone), key=lambda one: (one.at.timestamp(), one.path.name), reverse=True)


def owners(folder: Path) -> Owners:
    """What is recorded now; nothing where that cannot be read."""
    try:
        recorded = _recorded(folder)
    except (BackupError, OSError):
        return Owners({}, is_readable=False)
    return Owners({name: Path(os.path.realpath(folder / path)) for name, path in recorded.items()})


def record(folder: Path, name: str, database: Path) -> None:
    """The backup that is about to get that name is of this database; what is recorded of files that are gone goes.

    Under the lock. Raises `BackupError` for a record that cannot be read, which stays as it is, and `OSError`.
    """
    there = set(os.listdir(folder))
    kept = {one: path for one, path in _recorded(folder).items() if one in there}
    kept[name] = os.path.relpath(database, os.path.realpath(folder))
    with own_folder.made(folder, STATE_FOLDER) as state:
        disk.write_file(state / _RECORD, json.dumps(kept, indent=2).encode())  # ASCII: a path may be any bytes


def clear_unfinished_record(folder: Path) -> None:
    """Removes what a killed run left of it, as far as it can; under the lock."""
    with contextlib.suppress(BackupError, OSError), own_folder.existing(folder, STATE_FOLDER) as state:
        for draft in state.glob(f"{disk.DRAFT_PREFIX}{_RECORD}-*") if state else ():
            disk.remove(draft)


def free_place(at: datetime, folder: Path, shape: str = "backup_{stamp}.db") -> tuple[Path, datetime]:
    """A path that is not taken, and its moment: the second asked for, or the next that is free."""
    while True:
        path = folder / shape.format(stamp=at.strftime(STAMP))
        if not os.path.lexists(path):
            return path, at
        at += timedelta(seconds=1)


def expired(backups: Iterable[SingleBackup], keep: int, made: Path, at: datetime) -> list[SingleBackup]:
    """Those beyond the newest `keep`, newest first; never the one just made, whatever the clock says.

    Only those that are surely this database's are counted and removed. So where several databases have records in the
    folder, or the record cannot be read, nobody removes a backup that is not recorded; nor one of a database that was
    at another path, for that may be lost, and not moved.

    One that is dated days after the one just made stays, and takes no other's place: a clock was wrong then, or is now.
    """
    latest = at.timestamp() + _ZONES
    own = (backup for backup in backups if backup.is_surely_own and backup.path != made)
    return [backup for backup in own if backup.at.timestamp() <= latest][keep - 1 :]


def _found(database: Path, folder: Path, zone: tzinfo | None) -> Iterator[SingleBackup]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    known = owners(folder)  # read after the names: a backup is recorded before it has its name
    for name in names:
        shown = _stamp(name)
        facts = _plain_facts(folder / name) if shown else None
        if shown and facts and not known.is_anothers(name, database):
            at, is_sure = _moment(shown, zone, facts.st_mtime), known.is_surely_of(name, database)
            yield SingleBackup(folder / name, at, facts.st_size, is_sure)


def _plain_facts(path: Path) -> os.stat_result | None:
    """None for what is no plain file, or was removed meanwhile."""
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


def _recorded(folder: Path) -> dict[str, str]:
    """The paths by the backups' names, relative to the folder."""
    try:
        with own_folder.existing(folder, STATE_FOLDER) as state:
            return _paths(disk.read_plain(state / _RECORD, disk.MOST_STATE)) if state else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BackupError(
            f"{folder / STATE_FOLDER / _RECORD} cannot be read, and stays as it is: {error}.",
            hint="Mend it; or remove it, if one database alone uses the folder.",
        ) from error


def _paths(written: bytes) -> dict[str, str]:
    """What is written, if it is what we write; `ValueError` for anything else."""
    found = json.loads(written)
    if not isinstance(found, dict) or not all(isinstance(path, str) for path in found.values()):
        raise ValueError("it holds no paths by names")
    if any(b"\0" in os.fsencode(path) for path in found.values()):
        raise ValueError("it holds a path that none can have")
    return found


def _is_same(one: Path, other: Path) -> bool:
    """Whether both are one file, by path or by inode: a mount gives it a second path."""
    with contextlib.suppress(OSError):
        return one == other or os.path.samefile(one, other)
    return False


def _stamp(name: str) -> datetime | None:
    match = _NAME.fullmatch(name)
    try:
        return datetime.strptime(match[1], STAMP) if match else None
    except ValueError:
        return None


def _moment(shown: datetime, zone: tzinfo | None, changed: float) -> datetime:
    """What the clock showed, as a moment: in the hour that it goes through twice, the one nearer to the file's time."""
    twice = (shown.replace(fold=fold) for fold in (0, 1))
    moments = [one.replace(tzinfo=zone) if zone else one.astimezone() for one in twice]
    return min(moments, key=lambda at: abs(at.timestamp() - changed))
