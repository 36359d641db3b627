"""Keep a Python process from the live database and uploads.

This file is copied as `sitecustomize.py` into the app's `sys.path`. It needs only the standard library, since the app's
Python may be another one than ours.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from urllib.parse import unquote

_VARIABLE = "BACKUP_REHEARSAL_FORBIDS"  # as JSON: the path of the database, and those of the folders of uploads
REFUSAL = "opened the live database"
REFUSAL_OF_UPLOADS = "changed the live uploads"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# The events of a change, each with the places of its paths and of the open folders that these are relative to. To make
# a folder is no such change: many apps make theirs when they are imported.
_CHANGES = {
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.link": ((1, 3),),
    "os.remove": ((0, 1),),
    "os.removexattr": ((0, None),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.setxattr": ((0, None),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.utime": ((0, 3),),
}


def _install(database: str, uploads: list[str]) -> None:
    """Make this process fail when it opens the database, or changes something in the folders of uploads."""
    folders = [os.path.realpath(one) for one in uploads]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        is_written = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if is_written or event == "sqlite3.connect":
            _refuse(_path_of(arguments[0]), database)
        for path, within in ((0, None),) if is_written else _CHANGES.get(event, ()):
            _refuse_in(_place_of(arguments[path], None if within is None else arguments[within]), folders)

    sys.addaudithook(watch)


def _refuse(path: str, database: str) -> None:
    if path and _is_same(path, database):
        raise PermissionError(f"it {REFUSAL} {database}, which is forbidden here")


def _refuse_in(place: str, folders: list[str]) -> None:
    for one in folders:
        if place.startswith(one + os.sep):
            raise PermissionError(f"it {REFUSAL_OF_UPLOADS} ({place}), which is forbidden here")


def _place_of(path: object, within: object) -> str:
    """Return the place that a path names, relative to an open folder unless that is -1; empty for anything else."""
    if isinstance(path, int):
        return _place_of_open(path)
    if not isinstance(path, (str, bytes, os.PathLike)):
        return ""
    if isinstance(within, int) and within >= 0:
        path = os.path.join(_place_of_open(within), os.fsdecode(path))
    folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
    return os.path.join(os.path.realpath(folder), name)


def _place_of_open(handle: int) -> str:
    """Return the place of an open file or folder; empty where the system does not tell it."""
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return ""


def _path_of(database: object) -> str:
    """Return the file that a path or a `file:` URI names; empty for anything else."""
    path = os.fsdecode(database) if isinstance(database, (str, bytes, os.PathLike)) else ""
    if path.startswith("file:"):
        path = unquote(path[len("file:") :].partition("?")[0])
        path = "/" + path.lstrip("/") if path.startswith("/") else path
    return path


def _is_same(one: str, two: str) -> bool:
    try:
        return os.path.samefile(one, two)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(two)


def _run_hidden_sitecustomize() -> None:
    """Run the `sitecustomize` of the app's Python, if it has one, since this file hides it."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec and spec.loader:
        spec.loader.exec_module(module_from_spec(spec))


if __name__ == "sitecustomize":
    if os.environ.get(_VARIABLE):
        _install(*json.loads(os.environ[_VARIABLE]))
    _run_hidden_sitecustomize()
