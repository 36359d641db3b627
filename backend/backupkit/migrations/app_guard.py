"""Keep a Python process from the live database. This file is copied as `sitecustomize.py` into the app's `sys.path`.

It needs only the standard library, since the app's Python may be another one than ours.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from urllib.parse import unquote

_VARIABLE = "BACKUP_REHEARSAL_FORBIDS"  # the forbidden paths, as a JSON list
REFUSAL = "opened the live database"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _install(forbidden: list[str]) -> None:
    """Make this process fail when it connects to these SQLite files or opens them for writing."""

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        is_written = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if is_written or event == "sqlite3.connect":
            _refuse(_path_of(arguments[0]), forbidden)

    sys.addaudithook(watch)


def _refuse(path: str, forbidden: list[str]) -> None:
    for one in forbidden:
        if path and _is_same(path, one):
            raise PermissionError(f"it {REFUSAL} {one}, which is forbidden here")


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
        _install(json.loads(os.environ[_VARIABLE]))
    _run_hidden_sitecustomize()
