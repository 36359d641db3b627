"""Selection of the files in the uploads folder that are not uploads: database, sidecars, backups, staging area.

They are recognised by inode, not by path: a folder can be reached through a link, a hard link or a second mount.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from backupkit.config.settings import Settings
from backupkit.fs import tree
from backupkit.model.backup import STAGING
from backupkit.model.patterns import Patterns
from backupkit.upload_files.marked import MarkedFolders

_SIDECARS = ("", "-wal", "-shm", "-journal")
_SUPER_JOURNAL = "-mj"  # SQLite's super-journal for a commit to several databases; more characters follow

_DRAFT = re.compile(rf"{re.escape(STAGING)}-[0-9a-f]{{32}}")

Identity = tuple[int, int]


class DatabasePlace(Struct, frozen=True):
    """The file name of a database, the inode of its folder, and the folder's path below the uploads.

    The database need not exist. `folder` is None if there is no such folder, `path` is None outside the uploads.
    """

    name: str
    folder: Identity | None
    path: str | None

    def has_the_name(self, name: str) -> bool:
        """Return whether a file of this name in the database's folder is not an upload."""
        if not name.startswith((self.name, STAGING)):
            return False
        rest = name[len(self.name) :]
        return name == STAGING or rest in _SIDECARS or rest.startswith(_SUPER_JOURNAL)

    def is_in(self, live: Path, path: str) -> bool:
        """Return whether the database's folder is the one at this path below the live uploads."""
        if path == self.path:
            return True
        if self.folder is None:
            return False
        if not path:
            return _identity_of(live) == self.folder
        there = tree.look(live, path)
        return there is not None and tree.inode(there.facts) == self.folder


@dataclass
class Selection:
    """What one walk of the live uploads leaves out; `met` remembers it, so that a wanted tree leaves it out too.

    `databases` are the app's databases. `apart` are the databases and the backups folder by inode, with their paths.
    `excluded` are the patterns of the settings and of a backup: a match of any is left out. So are `marked` folders.
    """

    live: Path
    databases: tuple[DatabasePlace, ...]
    apart: dict[Identity, Path]
    marked: MarkedFolders
    excluded: tuple[Patterns, ...] = ()
    met: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # To tell of most files, each with one call, that no other check is needed.
        self._reserved = (STAGING, *(one.name for one in self.databases))
        self._inodes = {inode for _, inode in self.apart}

    def leaves_out(self, path: str, facts: os.stat_result, within: os.stat_result) -> bool:
        """Return whether a live entry is not an upload; `within` is the `stat` of its folder."""
        is_folder = stat.S_ISDIR(facts.st_mode)
        name = path.rpartition("/")[2]
        is_out = (
            (name.startswith(self._reserved) and self._is_ours(path, name, within))
            or (facts.st_ino in self._inodes and self._is_apart(tree.inode(facts)))
            or (bool(self.excluded) and self._is_excluded(path, is_folder))
            or (is_folder and self.marked.has(path))
        )
        if is_out:
            self.met.add(path)
        return is_out

    def leaves_out_wanted(self, path: str, is_folder: bool) -> bool:
        """Return whether a path of another tree is not an upload in the live folder; after the walk has passed it."""
        above, _, name = path.rpartition("/")
        if self.met and not self.met.isdisjoint(tree.with_parents(path)):
            return True
        for one in self.databases:
            if one.has_the_name(name) and one.is_in(self.live, above):
                return True
        return _is_staged(path, name) or self._is_excluded(path, is_folder) or self.marked.holds(path)

    def _is_ours(self, path: str, name: str, within: os.stat_result) -> bool:
        return _is_staged(path, name) or any(
            one.has_the_name(name) and tree.inode(within) == one.folder for one in self.databases
        )

    def _is_excluded(self, path: str, is_folder: bool) -> bool:
        return any(patterns.match(path, is_folder) for patterns in self.excluded)

    def _is_apart(self, found: Identity) -> bool:
        # The inode is read again: that of a removed file may be an upload's now.
        return found in self.apart and _identity_of(self.apart[found]) == found


def _is_staged(path: str, name: str) -> bool:
    """Return whether it is the staging area, or what a killed restore has half copied into a mount in the uploads."""
    return path == STAGING or _DRAFT.fullmatch(name) is not None


class Excluded(Struct, frozen=True):
    """What a backup left out: the patterns, the names of marking files, and the folders that they marked."""

    patterns: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def of(settings: Settings, also: Excluded = Excluded()) -> Selection:
    """Return the selection for the app's uploads folder; the settings and `also`, those of a backup, exclude files."""
    assert settings.uploads is not None
    apart = {_identity_of(path): path for path in (*settings.live_databases, settings.dir)}
    return Selection(
        live=settings.uploads,
        databases=tuple(_place_of(database, settings.uploads) for database in settings.live_databases),
        marked=MarkedFolders(settings.uploads, dict.fromkeys((*settings.exclude_marked, *also.marks)), also.folders),
        excluded=tuple(Patterns(lines) for lines in dict.fromkeys((settings.exclude, also.patterns)) if lines),
        apart={found: path for found, path in apart.items() if found},
    )


def _place_of(database: Path, uploads: Path) -> DatabasePlace:
    below = os.path.relpath(os.path.realpath(database.parent), os.path.realpath(uploads))
    path = None if below.split("/")[0] == ".." else "" if below == "." else below
    return DatabasePlace(database.name, _identity_of(database.parent), path)


def _identity_of(path: Path) -> Identity | None:
    try:
        return tree.inode(os.stat(path))
    except OSError:
        return None
