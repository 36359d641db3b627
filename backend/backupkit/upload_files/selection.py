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


@dataclass
class Selection:
    """What one walk of the live uploads leaves out; it remembers what it met, so that a wanted tree leaves it out too.

    `data` is the folder that the database lies in, and `data_path` its path below the uploads, where it has one and
    whether it is there or not. `apart` are a file and a folder that are known by themselves, with their paths.
    `excluded` are patterns of settings: what any of them means is left out. So are `marked` folders.
    """

    live: Path
    database: str
    data: Identity | None
    data_path: str | None
    apart: dict[Identity, Path]
    marked: MarkedFolders
    excluded: tuple[Patterns, ...] = ()
    met: set[str] = field(default_factory=set)

    def leaves_out(self, path: str, facts: os.stat_result, within: os.stat_result) -> bool:
        """Whether a live entry is no upload; `within` is what is known of the folder that it is in."""
        is_out = (
            path == STAGING
            or (self._has_the_name(path.rpartition("/")[2]) and tree.inode(within) == self.data)
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
        if self.met and any(place in self.met for place in tree.with_parents(path)):
            return True
        is_ours = path == STAGING or (self._has_the_name(name) and self._is_data(above))
        return is_ours or self._is_excluded(path, is_folder) or self.marked.holds(path)

    def _is_excluded(self, path: str, is_folder: bool) -> bool:
        return any(patterns.match(path, is_folder) for patterns in self.excluded)

    def _has_the_name(self, name: str) -> bool:
        """Whether something of that name is no upload where the database lies."""
        if not name.startswith((self.database, STAGING)):
            return False
        rest = name[len(self.database) :]
        return name == STAGING or rest in _SIDECARS or rest.startswith(_SUPER_JOURNAL)

    def _is_apart(self, found: Identity) -> bool:
        # Looked at again: the number of a file that was removed meanwhile may be an upload's now.
        return found in self.apart and _identity_of(self.apart[found]) == found

    def _is_data(self, path: str) -> bool:
        if path == self.data_path:
            return True
        if self.data is None:
            return False
        if not path:
            return _identity_of(self.live) == self.data
        there = tree.look(self.live, path)
        return there is not None and tree.inode(there.facts) == self.data


@dataclass(frozen=True)
class Excluded:
    """What was left out of a backup: by patterns, by files that mark a folder, and the folders that they marked."""

    patterns: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def of(settings: Settings, also: Excluded = Excluded()) -> Selection:
    """What is no upload in the app's uploads folder, or is excluded: by the settings or by `also`, a backup's."""
    assert settings.uploads is not None
    folder = settings.database.parent
    below = os.path.relpath(os.path.realpath(folder), os.path.realpath(settings.uploads))
    apart = {_identity_of(path): path for path in (settings.database, settings.dir)}
    return Selection(
        live=settings.uploads,
        database=settings.database.name,
        data=_identity_of(folder),
        data_path=None if below.split("/")[0] == ".." else "" if below == "." else below,
        marked=MarkedFolders(settings.uploads, dict.fromkeys((*settings.exclude_marked, *also.marks)), also.folders),
        excluded=tuple(Patterns(lines) for lines in dict.fromkeys((settings.exclude, also.patterns)) if lines),
        apart={found: path for found, path in apart.items() if found},
    )


def _identity_of(path: Path) -> Identity | None:
    try:
        return tree.inode(os.stat(path))
    except OSError:
        return None
