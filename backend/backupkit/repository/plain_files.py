"""Single-file backups: `backup_YYYYMMDD_HHMMSS.db`, named in the zone of the program they belong to.

There is no catalogue: what bears such a name is a backup, and nothing else is touched.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from backupkit.model.names import STAMP

_ZONES = 26 * 3600  # seconds between the clocks of the two ends of the world
_NAME = re.compile(r"backup_(\d{8}_\d{6})\.db", re.ASCII)


@dataclass(frozen=True)
class SingleBackup:
    """One file; `at` is what its name says, in the zone it was asked for in. Size in bytes."""

    path: Path
    at: datetime
    size: int


def all_backups(folder: Path, zone: tzinfo | None) -> list[SingleBackup]:
    """Every single-file backup in the folder, newest first."""
    return sorted(_found(folder, zone), key=lambda backup: (backup.at.timestamp(), backup.path.name), reverse=True)


def free_place(at: datetime, folder: Path, shape: str = "backup_{stamp}.db") -> tuple[Path, datetime]:
    """A path that is not taken, and its moment: the second asked for, or the next that is free."""
    while True:
        path = folder / shape.format(stamp=at.strftime(STAMP))
        if not os.path.lexists(path):
            return path, at
        at += timedelta(seconds=1)


def expired(backups: Iterable[SingleBackup], keep: int, made: Path, at: datetime) -> list[SingleBackup]:
    """Those beyond the newest `keep`, newest first; never the one just made, whatever the clock says.

    One that is dated days after the one just made stays, and takes no other's place: a clock was wrong then, or is now.
    """
    latest = at.timestamp() + _ZONES
    others = [backup for backup in backups if backup.path != made and backup.at.timestamp() <= latest]
    return others[keep - 1 :]


def _found(folder: Path, zone: tzinfo | None) -> Iterator[SingleBackup]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        path = folder / name
        shown = _stamp(name)
        if shown and stat.S_ISREG((facts := os.lstat(path)).st_mode):
            yield SingleBackup(path, _moment(shown, zone, facts.st_mtime), facts.st_size)


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
