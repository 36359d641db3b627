"""Folders of the toolkit's own in a folder that others may write to: opened step by step, following no link.

Their content is input all the same. A folder is accepted only if it belongs to this user, to root or to the owner of
the base folder, and only if nobody else can write to it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from backupkit.fs import descriptors, mounts
from backupkit.fs.trust import keeps_modes
from backupkit.model.errors import BackupError, way_to_look

_BASE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # the base may be a link, since the user named it


@contextlib.contextmanager
def existing(base: Path, *names: str) -> Iterator[Path | None]:
    """Yield the folder `base/names…` under a path that nobody can redirect until the block ends; None if there is none.

    Raise `BackupError` if it is not a folder of ours.
    """
    try:
        handle = _open(base, names, make=False)
    except (FileNotFoundError, NotADirectoryError):  # NotADirectoryError comes from the base alone
        yield None
        return
    with _hold_open(handle, base.joinpath(*names)) as path:
        yield path


@contextlib.contextmanager
def made(base: Path, *names: str) -> Iterator[Path]:
    """Do the same, but create the folder if it is missing; raise `BackupError` if we cannot write to it."""
    handle = _open(base, names, make=True)
    path = base.joinpath(*names)
    if not os.access(_path_of_handle(handle, path), os.W_OK | os.X_OK):
        why = _why_not_writable(handle, path, base)
        os.close(handle)
        raise why
    with _hold_open(handle, path) as anchored:
        yield anchored


def _open(base: Path, names: tuple[str, ...], make: bool) -> int:
    handle, path = os.open(base, _BASE), base
    owners = {0, os.geteuid(), os.fstat(handle).st_uid}
    for name in names:
        above, path = handle, path / name
        try:
            handle = _open_one(name, above, path, base, make)
        finally:
            os.close(above)
        if why := _why_not_trusted(handle, owners):
            os.close(handle)
            raise BackupError(f"{path} is not used: {why}.", hint=_chown_hint(base))
    return handle


def _open_one(name: str, within: int, path: Path, base: Path, make: bool) -> int:
    try:
        return descriptors.open_folder(name, within)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError as error:
        raise BackupError(
            f"{path} is a link or a file, where this toolkit keeps a folder of its own.",
            hint=f"Look at it: ls -ld {path}. Then remove it: rm {path}",
        ) from error
    except PermissionError as error:
        raise _wrong_owner(path, base) from error
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=within)
    handle = _open_one(name, within, path, base, make=False)
    os.fsync(within)
    return handle


def _why_not_trusted(handle: int, owners: set[int]) -> str:
    facts = os.fstat(handle)
    if facts.st_uid not in owners:
        return f"it belongs to user {facts.st_uid}"
    if not facts.st_mode & 0o022:
        return ""
    if facts.st_uid != os.geteuid():
        return "other users can write to it" if keeps_modes(facts.st_dev) else ""
    with contextlib.suppress(OSError):
        os.fchmod(handle, stat.S_IMODE(facts.st_mode) & ~0o022)  # our own: others need not write there
    return ""


def _wrong_owner(path: Path, base: Path) -> BackupError:
    return BackupError(f"{path} belongs to another user, and this is user {os.geteuid()}.", hint=_chown_hint(base))


def _why_not_writable(handle: int, path: Path, base: Path) -> BackupError:
    if mounts.is_read_only(handle):
        return BackupError(f"{base} is mounted read-only.", hint="Mount it so that it can be written to.")
    if os.geteuid() in (0, os.fstat(handle).st_uid):
        return BackupError(f"{path} cannot be written to, although it is this user's.", way_to_look(path))
    return _wrong_owner(path, base)


def _chown_hint(base: Path) -> str:
    return f"{as_its_owner(base)}As root: chown -R {os.geteuid()}:{os.getegid()} {base}, and chmod -R go-w {base}"


def as_its_owner(folder: Path) -> str:
    """Return the advice to type the command as the owner of the folder; empty if that is this user, or root.

    Who only typed as the wrong user must not take the backups away from the app's.
    """
    owner = folder.stat().st_uid
    if owner in (0, os.geteuid()):
        return ""
    return f"Type it as the user of {folder}: sudo -u {_user_name(owner)}. Or, if the app's data is this user's: "


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"'#{number}'"


@contextlib.contextmanager
def _hold_open(handle: int, path: Path) -> Iterator[Path]:
    """Yield the open folder's path, and close the handle at the end. Errors name the real path."""
    anchor = _path_of_handle(handle, path)
    try:
        yield anchor
    except OSError as error:
        if isinstance(error.filename, str) and error.filename.startswith(f"{anchor}/"):
            error.filename = str(path) + error.filename.removeprefix(str(anchor))
        raise
    finally:
        os.close(handle)


def _path_of_handle(handle: int, path: Path) -> Path:
    """Return a path through the open handle, if the system has such paths (Linux); else the path as it is."""
    anchor = Path(f"/proc/self/fd/{handle}")
    return anchor if anchor.is_dir() else path
