"""Temporary folders outside all data, which nobody else may enter; each is removed when its block ends.

A later run removes what a killed run left: each folder is locked by its user, and the lock ends with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backupkit.fs import descriptors

PREFIX = "backupkit-scratch-"
_NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Yield a new empty folder. It is removed when the block ends, and if a signal interrupts its making or removal."""
    made: list[Path] = []
    handles: list[int] = []
    try:
        yield _make_locked(made, handles)
    finally:
        try:
            _remove(made)
        except KeyboardInterrupt:
            _remove(made)
            raise
        finally:
            for handle in handles:
                os.close(handle)


def _remove(made: list[Path]) -> None:
    for path in made:
        with contextlib.suppress(OSError):  # a later run removes it
            descriptors.remove_tree(path)


def has_leftovers() -> bool:
    """Return whether a killed run left such a folder."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        return any(True for _ in _leftovers(stack))
    return False


def clear() -> None:
    """Remove those of our folders that no process uses."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        for name, parent in _leftovers(stack):
            descriptors.remove_tree_in(name, parent)


def _make_locked(made: list[Path], handles: list[int]) -> Path:
    while True:
        path = _make_unlocked(made)
        with contextlib.suppress(FileNotFoundError):  # another run took it for a leftover before it was locked
            handles.append(os.open(path, descriptors.FOLDER))
            with contextlib.suppress(OSError):  # a file system without locks: nothing is ever cleared there
                fcntl.flock(handles[-1], fcntl.LOCK_EX)
            if path.exists():
                return path


def _make_unlocked(made: list[Path]) -> Path:
    """Make it where Python would, but without Python's test for a writable place, which a kill would leave behind."""
    for place in _places():
        with contextlib.suppress(OSError):
            return _make_in(place, made)
    return _make_in(tempfile.gettempdir(), made)


def _make_in(place: str, made: list[Path]) -> Path:
    """Make a folder there, and add its path before that: an interrupt may come as soon as it exists."""
    path = Path(place, PREFIX + secrets.token_hex(4))
    made.append(path)
    try:
        path.mkdir(0o700)
    except OSError:
        made.remove(path)  # it may be somebody else's
        raise
    return path


def _places() -> list[str]:
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    return [os.path.abspath(place) for place in (*named, "/tmp", "/var/tmp") if place]


def _leftovers(stack: contextlib.ExitStack) -> Iterator[tuple[str, int]]:
    """Yield leftovers as names in open folders; each stays locked until the stack is closed, so no run uses it."""
    for place in dict.fromkeys(_places()):
        names = [name for name in _listed(place) if _NAME.fullmatch(name)]
        if names:
            parent = stack.enter_context(descriptors.opened(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            yield from ((name, parent) for name in names if _is_leftover(name, parent, stack))


def _listed(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []


def _is_leftover(name: str, parent: int, stack: contextlib.ExitStack) -> bool:
    """Return whether the folder is ours, and no process uses it."""
    try:
        handle = stack.enter_context(descriptors.opened(name, descriptors.FOLDER, parent))
        return not descriptors.why_not_ours(handle) and descriptors.try_lock(handle)
    except OSError:
        return False
