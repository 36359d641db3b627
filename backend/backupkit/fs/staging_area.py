"""The staging area of a restore: a folder of ours inside each live folder, which names its restore.

    .backupkit-staging/     only we may write to it
      restore.json          the restore that it belongs to: written first, removed last
      database/NAME         what will replace the live database
      uploads/…             what will be done to the uploads (`upload_files/apply`)

It is inside the live folder because a rename cannot cross mounts. Its content is input: what is not ours is refused.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import Struct

from backupkit.fs import descriptors, disk
from backupkit.model.backup import STAGING
from backupkit.model.errors import BackupError

AreaPart = Literal["database", "uploads"]
_MARK = "restore.json"
_MARK_DRAFT = "restore.json.new"
_MOST = 1 << 16  # bytes of the mark
_ID = re.compile(r"[0-9a-f]{32}")


class Identity(Struct, frozen=True):
    """A restore as its staging areas name it: its id, its safety copy's name and inode, and the backups folder."""

    id: str
    safety: str
    inode: int
    backups: str


class Area(NamedTuple):
    """One part of a staging area: the open live folder, and the open folder of the part in it."""

    live: int
    folder: int


def identify(backups: Path, safety: str, restore: str = "") -> Identity:
    """Return the identity of a new restore (or the one with that id), whose safety copy lies in that backups folder."""
    return Identity(restore or os.urandom(16).hex(), safety, (backups / safety).stat().st_ino, str(backups))


def is_of(identity: Identity, backups: Path) -> bool:
    """Return whether the restore's safety copy lies in this backups folder: the copy itself, by its inode."""
    with contextlib.suppress(OSError):
        return os.lstat(backups / identity.safety).st_ino == identity.inode
    return False


def place_of(live: Path, part: AreaPart | None = None) -> Path:
    """Return the path of the staging area, or of that part of it."""
    return live / STAGING / part if part else live / STAGING


def make(live: Path, identity: Identity) -> None:
    """Create the staging area in the live folder, on disk and marked with its restore, or reuse one of that restore.

    Raise `BackupError` if the area is not ours, or belongs to another restore.
    """
    with descriptors.naming(live), _opened_live(live) as root:
        with contextlib.suppress(FileExistsError):  # it exists if the database lies in the uploads folder
            os.mkdir(STAGING, 0o700, dir_fd=root)
        with _opened_area(root, live) as area:
            if (found := _read_mark(area, live)) and found != identity:
                raise _not_trusted(live / STAGING, "it belongs to another restore")
            _write_mark(area, identity)
        os.fsync(root)


def add(live: Path, part: AreaPart, identity: Identity) -> None:
    """Create the folder of that part in the area, if it is missing."""
    with descriptors.naming(live), _opened_live(live) as root, _opened_area(root, live) as area:
        with contextlib.suppress(FileExistsError):  # several databases may share one
            os.mkdir(part, 0o700, dir_fd=area)
        os.fsync(area)


@contextlib.contextmanager
def opened(live: Path, part: AreaPart, restore: str) -> Iterator[Area]:
    """Yield that part of the staging area of the restore with that id; raise `BackupError` if there is none."""
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(_opened_live(live))
            area = stack.enter_context(_opened_area(root, live))
            found = _read_mark(area, live)
            if found is None or found.id != restore:
                raise _not_staged(live)
            folder = stack.enter_context(_open_trusted(part, area, live / STAGING / part))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _not_staged(live) from error
        yield Area(root, folder)


def exists(live: Path) -> bool:
    """Return whether anything has the area's name."""
    return os.path.lexists(live / STAGING)


def owner_of_area(live: Path) -> Identity | None:
    """Return the restore that the area belongs to, or None if there is no area, or an empty one that names none yet.

    Raise `BackupError` if it is not ours, or holds something and names no restore.
    """
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(_opened_live(live))
            area = stack.enter_context(_opened_area(root, live))
        except FileNotFoundError:
            return None
        found = _read_mark(area, live)
        if found is None and set(os.listdir(area)) - {_MARK_DRAFT}:
            raise BackupError(
                f"{live / STAGING} does not say which restore it belongs to; nothing was touched.",
                hint="Look what is in it. If no restore by an earlier version is unfinished, remove it.",
            )
        return found


def remove(live: Path, restore: str | None) -> None:
    """Remove the area, on disk too, if it belongs to the restore with that id, or is empty and names none yet.

    The mark is removed last, so that a remainder names its restore. The area of another restore stays.
    """
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(_opened_live(live))
            area = stack.enter_context(_opened_area(root, live))
        except FileNotFoundError:
            return
        stack.enter_context(descriptors.naming(live / STAGING))
        names = set(os.listdir(area))
        found = _read_mark(area, live)
        if (found and found.id != restore) or (not found and names - {_MARK_DRAFT}):
            return
        for name in sorted(names, key=lambda name: name == _MARK):
            descriptors.remove_tree_in(name, area)
        os.rmdir(STAGING, dir_fd=root)
        os.fsync(root)


def _opened_live(live: Path) -> AbstractContextManager[int]:
    """Open the live folder, which the settings may name by a link."""
    return descriptors.opened(live, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _opened_area(root: int, live: Path) -> AbstractContextManager[int]:
    return _open_trusted(STAGING, root, live / STAGING)


@contextlib.contextmanager
def _open_trusted(name: str, within: int, shown: Path) -> Iterator[int]:
    try:
        handle = descriptors.open_folder(name, within)
    except NotADirectoryError as error:
        raise _not_trusted(shown, "it is not a folder") from error
    try:
        if why := descriptors.why_not_ours(handle):
            raise _not_trusted(shown, why)
        yield handle
    finally:
        os.close(handle)


def _write_mark(area: int, identity: Identity) -> None:
    document = {"id": identity.id, "safety": identity.safety, "inode": identity.inode, "backups": identity.backups}
    content = json.dumps(document, indent=2).encode()
    descriptors.unlink(_MARK_DRAFT, area)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with disk.Opened(_MARK_DRAFT, flags, area) as handle:
        disk.write_contents((content,), handle)
        os.fsync(handle)
    os.rename(_MARK_DRAFT, _MARK, src_dir_fd=area, dst_dir_fd=area)
    os.fsync(area)


def _read_mark(area: int, live: Path) -> Identity | None:
    try:
        with descriptors.opened(_MARK, descriptors.FILE, area) as handle:
            if why := descriptors.why_not_ours(handle):
                raise _not_trusted(live / STAGING / _MARK, why)
            return _parsed(os.read(handle, _MOST))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_read(live / STAGING / _MARK, error) from error
    except ValueError as error:
        raise _not_trusted(live / STAGING / _MARK, "it is no record of a restore") from error


def _parsed(content: bytes) -> Identity:
    match json.loads(content):
        case {"id": str(id), "safety": str(safety), "inode": int(inode), "backups": str(backups), **rest} if not rest:
            found = Identity(id, safety, inode, backups)
        case _:
            raise ValueError(content)
    if not _ID.fullmatch(found.id) or not found.safety or "/" in found.safety or found.safety.startswith("."):
        raise ValueError(content)
    return found


def _not_trusted(path: Path, why: str) -> BackupError:
    return BackupError(
        f"{path} cannot be trusted ({why}); nothing was touched.",
        hint=f"Look what it is (ls -ld {path}). If no restore is unfinished, remove it.",
    )


def _not_read(path: Path, error: OSError) -> BackupError:
    if error.errno == errno.ELOOP:
        return _not_trusted(path, "it is a link")
    return BackupError(
        f"{path} cannot be read ({error.strerror}), so it is not known whether a restore is unfinished.",
        hint=f"Do not remove it. Look at the disk and the folder (ls -ld {path}); once it can be read: `recover`.",
    )


def _not_staged(live: Path) -> BackupError:
    return BackupError(
        f"A restore is unfinished, but its staged files are not in {live}; nothing was touched.",
        hint="Run this where the restore ran, with its BACKUP_DATABASE and BACKUP_UPLOADS; see `config`.",
    )
