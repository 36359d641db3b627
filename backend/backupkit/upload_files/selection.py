"""What in the uploads folder is no upload: the database with its sidecars, the backups, and what a restore stages.

Known by what they are, not by their path: a folder can be reached through a link, a hard link or a second mount.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import tree
from backupkit.model.backup import STAGING
from backupkit.model.patterns import Patterns
from backupkit.upload_files.marked import MarkedFolders

_SIDECARS = ("", "-wal", "-shm", "-journal")
_SUPER_JOURNAL = "-mj"  # SQLite's own of a commit to several databases; other letters follow

Identity = tuple[int, int]


@dataclass(frozen=True)
class DatabasePlace:
    """A database's name, the folder that it lies in, and its path below the uploads, whether it is there or not."""

    name: str
    folder: Identity | None
    path: str | None

    def has_the_name(self, name: str) -> bool:
        """Whether something of that name is no upload where the database lies."""
        if not name.startswith((self.name, STAGING)):
            return False
        rest = name[len(self.name) :]
        return name == STAGING or rest in _SIDECARS or rest.startswith(_SUPER_JOURNAL)

    def is_in(self, live: Path, path: str) -> bool:
        """Whether its folder is the one at that path below the live uploads."""
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
    """What one walk of the live uploads leaves out; it remembers what it met, so that a wanted tree leaves it out too.

    `databases` are those of the app, each with where it lies. `apart` are files and a folder that are known by
    themselves, with their paths.
    `excluded` are patterns of settings: what any of them means is left out. So are `marked` folders.
    """

    live: Path
    databases: tuple[DatabasePlace, ...]
    apart: dict[Identity, Path]
    marked: MarkedFolders
    excluded: tuple[Patterns, ...] = ()
    met: set[str] = field(default_factory=set)

    def leaves_out(self, path: str, facts: os.stat_result, within: os.stat_result) -> bool:
        """Whether a live entry is no upload; `within` is what is known of the folder that it is in."""
        is_out = (
            path == STAGING
            or self._is_database(path.rpartition("/")[2], within)
            or self._is_apart(tree.inode(facts))
            or self._is_excluded(path, stat.S_ISDIR(facts.st_mode))
            or (stat.S_ISDIR(facts.st_mode) and self.marked.has(path))
        )
        if is_out:
            self.met.add(path)
        return is_out

    def leaves_out_wanted(self, path: str, is_folder: bool) -> bool:
        """The same for a path of another tree, whose place is in the live uploads, when the walk has passed it."""
        above, _, name = path.rpartition("/")
        if not self.met.isdisjoint(tree.with_parents(path)):
            return True
        for one in self.databases:
            if one.has_the_name(name) and one.is_in(self.live, above):
                return True
        return path == STAGING or self._is_excluded(path, is_folder) or self.marked.holds(path)

    def _is_database(self, name: str, within: os.stat_result) -> bool:
        for one in self.databases:  # noqa: SIM110 - a generator would cost more than all else that is asked of a file
            if one.has_the_name(name) and tree.inode(within) == one.folder:
                return True
        return False

    def _is_excluded(self, path: str, is_folder: bool) -> bool:
        return bool(self.excluded) and any(patterns.match(path, is_folder) for patterns in self.excluded)

    def _is_apart(self, found: Identity) -> bool:
        # Looked at again: the number of a file that was removed meanwhile may be an upload's now.
        return found in self.apart and _identity_of(self.apart[found]) == found


@dataclass(frozen=True)
class Excluded:
    """What was left out of a backup: by patterns, by files that mark a folder, and the folders that they marked."""

    patterns: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def of(settings: Settings, also: Excluded = Excluded()) -> Selection:
    """What is no upload in the app's uploads folder, or is excluded: by the settings or by `also`, a backup's."""
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
