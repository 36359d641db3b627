"""Checks for who else can change what this program reads, or the folders in which root works.

A settings file names commands to run, files to write, and where data goes, so it acts with the rights of whoever reads
it. Trusted are root, the user who reads it, and the owner of this program's code, who has those rights anyway.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from backupkit.fs import mounts
from backupkit.model.errors import Refused

# On these every file shows the same mode, whoever may write it, and `chmod` has no effect.
_WITHOUT_MODES = re.compile(r"9p|drvfs|fakeowner|cifs|smb3|smbfs|vfat|exfat|msdos|ntfs3?|fuseblk|fuse\..*")
_TEMPORARY = Path("/tmp")  # exempt: data there is for trials, and many images forget the sticky bit


class Untrusted(Refused):
    """A file or folder that another user can change, or a file that cannot be read."""


def require_trusted(path: Path, handle: int) -> None:
    """Raise `Untrusted` if an untrusted user can change the open file, which was found at that path.

    On a read-only mount nobody can, whoever owns it. Raise `Refused` if it is not a plain file.
    """
    facts, found = os.fstat(handle), os.lstat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise Refused(f"{path} is not a plain file.", hint=f"Look at it: ls -l {path}")
    if mounts.is_read_only(handle):
        return
    for owner in (found.st_uid, facts.st_uid):
        if not is_trusted(owner):
            raise Untrusted(
                f"{path} belongs to user {owner} and would control what user {os.geteuid()} does; it is not read.",
                hint=f"Give it to root or to that user: sudo chown {os.geteuid()} {path}",
            )
    if _others_can_write(facts) and keeps_modes(facts.st_dev):
        raise Untrusted(
            f"{path} can be changed by other users (mode {stat.S_IMODE(facts.st_mode):04o}); it is not read.",
            hint=f"Take that right away: chmod go-w {path}",
        )


def require_trusted_program(path: Path) -> None:
    """Raise `Untrusted` if an untrusted user can change the program, or put another in its place."""
    real = Path(os.path.realpath(path))
    for place, is_open in ((real, _others_can_write), (real.parent, _everybody_can_write)):
        facts = os.stat(place)
        if not is_trusted(facts.st_uid):
            raise Untrusted(f"{place} belongs to user {facts.st_uid}.", f"Give it to root: sudo chown 0 {place}")
        if is_open(facts) and keeps_modes(facts.st_dev):
            mode = f"{stat.S_IMODE(facts.st_mode):04o}"
            raise Untrusted(f"{place} can be changed by other users (mode {mode}).", f"Type: chmod go-w {place}")


def is_trusted(owner: int) -> bool:
    """Return whether it is root, this user, or the owner of this very code."""
    return owner in (0, os.geteuid(), os.stat(__file__).st_uid)


def _everybody_can_write(facts: os.stat_result) -> bool:
    """Return whether everybody can write, and no sticky bit protects what belongs to others."""
    return bool(facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX)


def require_folder(folder: Path) -> None:
    """Raise `Refused` if the backups folder is something else, such as a file or a device."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise Refused(f"The backups folder {folder} is not a folder.", hint="Set BACKUP_DIR to a folder.")


def require_roots(folder: Path) -> None:
    """Raise `Untrusted` if we are root and another user can change the folder, or put another in its place.

    That user could swap a file or a folder for a link between any two calls of root's. Raise `Refused` for what is no
    folder.
    """
    require_folder(folder)
    if os.geteuid() != 0:
        return
    # A link on the way may be another user's; mostly there is none, and both paths are the same.
    for path in dict.fromkeys((Path(os.path.realpath(folder)), folder.absolute())):
        if why := _why_not_roots(path):
            raise Untrusted(
                f"Root does not work in {folder}: {why}, and could make root write anywhere.", _hint_for_root(folder)
            )


def require_alone_in(folder: Path, root: Path) -> None:
    """Raise `Untrusted` if anybody but root and this user can change a folder from `root` down to `folder`.

    They could put a link in the place of a folder or a file at any time, so nothing there may be opened by its path,
    as SQLite opens a database and what lies beside it. As root, this includes every folder on the way to `root`.
    """
    require_roots(folder)
    for path in (folder, *folder.parents):
        facts = os.lstat(path)
        is_open = facts.st_uid not in (0, os.geteuid()) or _others_can_write(facts)
        if is_open and keeps_modes(facts.st_dev):
            raise Untrusted(
                f"Other users can change {path}, and put something else in the place of a database there.",
                hint=f"Let only user {os.geteuid()} write there: ls -ld {path}",
            )
        if path == root:
            return


def require_own_place(target: Path) -> None:
    """Raise `Untrusted` if anybody but root and this user can replace what is created at that path.

    As root, this includes every folder on the way to it.
    """
    if why := _why_not_roots(target) if os.geteuid() == 0 else _why_shared(target.parent):
        raise Untrusted(
            f"Nothing was written to {target}: {why}, and could replace the files there.",
            hint=f"Name a folder in one that only user {os.geteuid()} can change.",
        )


def _why_shared(folder: Path) -> str:
    facts = os.stat(folder)
    if not keeps_modes(facts.st_dev):
        return ""
    if facts.st_uid not in (0, os.geteuid()):
        return f"user {facts.st_uid} owns {folder}"
    is_open = _others_can_write(facts) and not facts.st_mode & stat.S_ISVTX
    return f"others can change {folder}" if is_open else ""


def _hint_for_root(folder: Path) -> str:
    own = f"Work as that user; or, if the data are root's: sudo chown -R 0:0 {folder} && sudo chmod go-w {folder}"
    return own if _why_not_alone(folder) else "Set BACKUP_DIR to a folder that no other user can change."


def _why_not_roots(folder: Path) -> str:
    """Return who beside root can change the folder, or one on the way to it; empty if nobody, or nobody can tell."""
    there = [path for path in (folder, *folder.parents) if path.exists()]
    if not there or not keeps_modes(os.stat(there[0]).st_dev):
        return ""
    return _why_not_alone(folder) or next(filter(None, map(_why_not_on_the_way, there)), "")


def _why_not_alone(folder: Path) -> str:
    if not folder.exists():
        return ""
    facts = os.stat(folder)
    if facts.st_uid:
        return f"user {facts.st_uid} owns {folder}"
    if facts.st_mode & stat.S_IWOTH:
        return f"anybody can change {folder}"
    is_shared = facts.st_mode & stat.S_IWGRP and facts.st_gid
    return f"group {facts.st_gid} can change {folder}" if is_shared else ""


def _why_not_on_the_way(folder: Path) -> str:
    facts = os.stat(folder)
    if facts.st_uid:
        return f"user {facts.st_uid} owns {folder}"
    is_open = facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX and folder != _TEMPORARY
    return f"anybody can change {folder}" if is_open else ""


def _others_can_write(facts: os.stat_result) -> bool:
    """Return whether others can write, or a group other than root's and the owner's own, which has the same number."""
    own_group = facts.st_gid in (0, facts.st_uid)
    return bool(facts.st_mode & (stat.S_IWOTH if own_group else stat.S_IWOTH | stat.S_IWGRP))


def keeps_modes(device: int) -> bool:
    """Return whether the file system with that device number keeps modes, as far as Linux shows its mounts."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return not any(_WITHOUT_MODES.fullmatch(one.kind) for one in mounts.read() if one.device == wanted)
