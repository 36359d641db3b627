"""Temporary folders outside all data, which nobody else may enter: gone when their block ends.

One that a killed run left is cleared by a later run: who uses a folder holds a lock on it, which ends with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backupkit.fs import descriptors

PREFIX = "backupkit-scratch-"
_NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new empty folder."""
    path, handle = _make()
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # then a later run clears it
            descriptors.remove_tree(path)
        os.close(handle)


def has_leftovers() -> bool:
    """Whether a run was killed that had such a folder."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        return any(True for _ in _leftovers(stack))
    return False


def clear() -> None:
    """No such folder of ours is left but of those that are at work."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        for name, parent in _leftovers(stack):
            descriptors.remove_tree_in(name, parent)


def _make() -> tuple[Path, int]:
    while True:
        path = Path(_new())
        with contextlib.suppress(FileNotFoundError):  # another run took it for a leftover before it was locked
            handle = os.open(path, descriptors.FOLDER)
            with contextlib.suppress(OSError):  # a file system without locks: nothing is ever cleared there
                fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists():
                return path, handle
            os.close(handle)


def _new() -> str:
    """Where Python itself would look, without its trial whether a file can be written, which a kill leaves behind."""
    for place in _places():
        with contextlib.suppress(OSError):
            return tempfile.mkdtemp(prefix=PREFIX, dir=place)
    return tempfile.mkdtemp(prefix=PREFIX)


def _places() -> list[str]:
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    return [os.path.abspath(place) for place in (*named, "/tmp", "/var/tmp") if place]


def _leftovers(stack: contextlib.ExitStack) -> Iterator[tuple[str, int]]:
    """Names in open folders; each is locked until the stack is closed, so that it is nobody's."""
    for place in dict.fromkeys(_places()):
        names = [name for name in _listed(place) if _NAME.fullmatch(name)]
        if names:
            parent = stack.enter_context(descriptors.opened(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            yield from ((name, parent) for name in names if _is_left(name, parent, stack))


def _listed(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []


def _is_left(name: str, parent: int, stack: contextlib.ExitStack) -> bool:
    """Whether the folder is ours, and nobody is at work in it."""
    try:
        handle = stack.enter_context(descriptors.opened(name, descriptors.FOLDER, parent))
        return not descriptors.why_not_ours(handle) and descriptors.try_lock(handle)
    except OSError:
        return False
