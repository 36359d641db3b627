"""Folders that a file in them excludes from backups: `.nobackup`, `CACHEDIR.TAG`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from backupkit.fs import disk, tree

CACHE_TAG = "CACHEDIR.TAG"
SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"  # https://bford.info/cachedir/
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class MarkedFolders:
    """The folders below the live one that hold a marking file now, or did in a backup (`sealed`).

    A folder that was found once counts as marked from then on.
    """

    def __init__(self, live: Path, marks: Iterable[str], sealed: Iterable[str] = ()) -> None:
        self.found: set[str] = set()
        self._live, self._marks, self._sealed = live, tuple(marks), frozenset(sealed)
        self._unmarked: set[str] = set()

    def has(self, path: str) -> bool:
        """Return whether the folder is marked, now or at an earlier call."""
        if not self._marks and not self._sealed:
            return False
        if path not in self.found and (key(path) in self._sealed or any(map(self._is_mark, self._names(path)))):
            self.found.add(path)
        return path in self.found

    def holds(self, path: str) -> bool:
        """Return whether a path of another tree is that of a marked folder or below one; check each folder once."""
        if not self._marks and not self._sealed:
            return False
        for place in tree.with_parents(path):
            if place not in self._unmarked and self.has(place):
                return True
            self._unmarked.add(place)
        return False

    def _names(self, path: str) -> Iterable[str]:
        return (f"{path}/{mark}" for mark in self._marks)

    def _is_mark(self, path: str) -> bool:
        try:
            there = tree.look(self._live, path)
            if there is None or there.form != "file":
                return False
            return path.rpartition("/")[2] != CACHE_TAG or self._is_signed(path)
        except OSError:
            return False  # the walk reports that it cannot be read

    def _is_signed(self, path: str) -> bool:
        with (
            closing(tree.Parents(self._live)) as parents,
            parents.of(path) as (folder, name),
            disk.Opened(name, _FILE, folder) as handle,
        ):
            return os.read(handle, len(SIGNATURE)) == SIGNATURE


def key(path: str) -> str:
    """Return the path in the form that metadata store; they are text, and names may have any bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
