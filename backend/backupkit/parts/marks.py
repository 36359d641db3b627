"""What is said of a sealed backup later, kept beside it: losing it loses no backup.

One empty file a mark, `backups/.state/MARK/NAME`, so that two processes never write the same one; and the name of
the last restore's safety copy, `backups/.state/last_restore`.
"""

from __future__ import annotations

from pathlib import Path

from backupkit.ground import disk

STATE_FOLDER = ".state"
PINNED = "pinned"
HELD = "held"  # pinned until the next good backup
ACCEPTED = "accepted"  # a person looked at it: what is unusual in it is meant to be so
_LAST_RESTORE = "last_restore"


def put(backups: Path, mark: str, name: str) -> None:
    """The backup of that name bears the mark."""
    path = _path(backups, mark, name)
    disk.make_folder(path.parent, 0o700)
    disk.write_file(path, b"")


def take(backups: Path, mark: str, name: str) -> None:
    """The backup of that name does not bear the mark."""
    disk.remove(_path(backups, mark, name))


def take_all(backups: Path, mark: str) -> None:
    """No backup bears the mark any more."""
    folder = backups / STATE_FOLDER / mark
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        disk.remove(path)


def bears(backups: Path, mark: str, name: str) -> bool:
    """Whether the backup of that name bears the mark."""
    return _path(backups, mark, name).is_file()


def remember_restore(backups: Path, safety: str) -> None:
    """The last restore left this safety copy."""
    path = backups / STATE_FOLDER / _LAST_RESTORE
    disk.make_folder(path.parent, 0o700)
    disk.write_file(path, safety.encode())


def last_restore(backups: Path) -> str | None:
    """The safety copy of the last restore; by what is written, not by dates: a clock can be set back."""
    try:
        return (backups / STATE_FOLDER / _LAST_RESTORE).read_text() or None
    except FileNotFoundError:
        return None


def _path(backups: Path, mark: str, name: str) -> Path:
    return backups / STATE_FOLDER / mark / name
