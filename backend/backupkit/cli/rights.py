"""Drop root's rights: the toolkit works as the owner of the database's folder, who is the app's user.

It does so before it reads or writes anything that this user can change: otherwise the user could make root do what
the user may not do. Root stays root if it owns the folder and every folder above it.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from backupkit.cli.console import say_notice
from backupkit.config.deployment import is_contained
from backupkit.config.settings import SETTINGS_FILE, app_folder, database_as_given
from backupkit.fs import process
from backupkit.fs.trust import Untrusted
from backupkit.model.errors import Refused


def work_as_owner(app_dir: Path) -> None:
    """Become the owner of the database's folder if this process is root; do nothing if root owns it.

    Raise `Refused` if no single user can do the work.
    """
    if os.geteuid() != 0:
        return
    folder = app_folder(app_dir)
    try:
        place = database_as_given(folder).parent
    except Untrusted:  # the settings file's owner decides where the data is, but must not direct root
        edit_as_owner(app_dir)
        if os.geteuid() == 0:
            raise
        return _refuse_third(folder / SETTINGS_FILE, database_as_given(folder).parent)
    _become(_owner(place), place)


def refuse_to_guess_owner(database: Path, backups: Path) -> None:
    """Raise `Refused` if this is root, no data folder says whose the data are, and the backups are another user's."""
    folder = database.parent
    if os.geteuid() != 0 or folder.exists() or not backups.exists():
        return
    facts = backups.stat()
    if facts.st_uid != 0:
        line = process.line_that_makes(folder, facts.st_uid, facts.st_gid)
        chown = shlex.join(["sudo", "chown", "-R", "0:0", str(backups)])
        raise Refused(
            f"{folder} is missing, and {backups} belongs to {process.user_named(facts.st_uid)}: root does not work"
            " there.",
            hint=f"If the data are that user's: {line} If they are root's: {chown}",
        )


def edit_as_owner(app_dir: Path) -> None:
    """Become the owner of `backup.toml`, or of the app's folder if there is no such file, if this process is root."""
    if os.geteuid() == 0:
        file = app_folder(app_dir) / SETTINGS_FILE
        place = file if file.exists() else file.parent
        _become(_owner(place), place)


def _owner(place: Path) -> tuple[int, int]:
    try:
        return process.owner_of_place(place)
    except PermissionError as error:
        raise Refused(
            f"{error.filename}, on the way to {place}, is a link that another user made: root does not follow it.",
            hint="Set the path that it leads to, or remove it.",
        ) from error


def _become(owner: tuple[int, int], place: Path) -> None:
    if owner[0] == 0:
        return
    try:
        process.become(*owner)
    except PermissionError as error:
        raise Refused(
            f"{place} belongs to {process.user_named(owner[0])}, whom root may not become here.",
            hint="Give the container the capabilities SETUID and SETGID, or start it as that user.",
        ) from error
    if not is_contained(os.environ):
        say_notice(f"Working as {process.user()}, who owns {place}, instead of root.")
    _require_reachable(place)


def _require_reachable(place: Path) -> None:
    """Raise `Refused` unless the folder, the toolkit and its Python can be read without root's rights."""
    for needed in (place, Path(os.__file__), Path(__file__)):
        if not os.access(needed, os.R_OK):
            raise Refused(
                f"{process.user()}, who owns {place}, cannot reach {needed}; as root nothing is done there.",
                hint=f"Open the folder above it that is closed to that user, or move it elsewhere: namei -l {needed}",
            )


def _refuse_third(file: Path, data: Path) -> None:
    uid = _owner(data)[0]
    if uid not in (0, os.geteuid()):
        raise Refused(
            f"{file} belongs to {process.user()}, but {data} to {process.user_named(uid)}.",
            hint=f"Give the settings to root or to the data's owner: sudo chown {uid} {file}",
        )
