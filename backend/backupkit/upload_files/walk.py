"""The uploads folder: is it there, how large is it, what of it leads elsewhere, and the list of all that is in it.

How it is copied is in `archiver`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from backupkit.fs import attributes, tree
from backupkit.model.errors import SourceUnreadable
from backupkit.repository.files_cache import ParentBackup


def require(live: Path) -> None:
    """The uploads folder is there and can be read, else `SourceUnreadable`."""
    try:
        os.listdir(live)
    except FileNotFoundError as error:
        hint = "Set BACKUP_UPLOADS to where it is, or to nothing if the app has none."
        raise SourceUnreadable(f"There is no uploads folder at {live}.", hint) from error
    except NotADirectoryError as error:
        hint = "Set BACKUP_UPLOADS to the folder."
        raise SourceUnreadable(f"The uploads folder {live} is not a folder.", hint) from error
    except OSError as error:
        hint = f"Run as a user who may read it (ls -ld {live}), or see `doctor`."
        raise SourceUnreadable(f"The uploads folder {live} cannot be read: {error.strerror}.", hint) from error


def measure(live: Path, skip: tree.Skip, earlier: ParentBackup | None = None) -> tuple[int, int]:
    """Files below the folder, and bytes on disk of those that an earlier backup has not; without reading any."""
    files = size = 0
    for path, facts in _files(live, skip):
        files += 1
        seen = earlier and earlier.find(path)
        if not seen or not seen.is_now(facts):
            size += tree.content_size(facts)
    return files, size


def _files(root: Path, skip: tree.Skip) -> Iterator[tuple[str, os.stat_result]]:
    """Every file that can be reached, in the order of `tree.walk`."""
    with suppress(OSError):
        for entry in tree.walk(root, skip=skip, unreadable=lambda _path, _error: None):
            if entry.form == "file":
                yield entry.path, entry.facts


def leading_out(live: Path, skip: tree.Skip) -> Iterator[str]:
    """The links below the folder that lead to something outside of it."""
    root = os.path.realpath(live)
    for entry in tree.walk(live, skip=skip, unreadable=lambda _path, _error: None):
        if entry.form == "link" and leads_out(root, entry.path, entry.target):
            yield entry.path


def leads_out(root: str, path: str, target: str) -> bool:
    """Whether there is something where the link leads, and it is not below the root."""
    there = os.path.realpath(os.path.join(root, os.path.dirname(path), target))
    return there != root and not there.startswith(f"{root}/") and os.path.exists(there)


class Survey(NamedTuple):
    """What a tree holds beside the contents of its files: the digest of its list, and how many attributes and names.

    `attributes` are ACLs, extended attributes and file capabilities, `hard_links` the names of files that have another
    name in the tree, but for the first of each.
    """

    tree: str
    attributes: int
    hard_links: int


class Surveyor:
    """Finds all of that in a walk which somebody else does; hard links only where asked: that takes memory for each."""

    def __init__(self, root: Path, hard_links: bool) -> None:
        self._root, self._hard_links = root, hard_links
        self._parents = tree.Parents(root)
        self._lines, self._seen = hashlib.sha256(), set[tuple[int, int]]()
        self._attributes = len(attributes.of_open(self._parents.go("")))
        self._other_names = 0

    def add(self, entry: tree.Entry) -> None:
        """The next entry of the walk."""
        self._lines.update(line_of(entry.form, entry.path, entry.target))
        if entry.form in ("file", "folder"):
            self._attributes += len(attributes.names(self._root, entry.path, self._parents))
        if self._hard_links and entry.form == "file" and entry.facts.st_nlink > 1:
            inode = tree.inode(entry.facts)
            self._other_names += inode in self._seen
            self._seen.add(inode)

    def survey(self) -> Survey:
        """What there was."""
        return Survey(self._lines.hexdigest(), self._attributes, self._other_names)

    def close(self) -> None:
        self._parents.close()


def survey(root: Path, hard_links: bool) -> Survey:
    """All of that in a walk of its own."""
    with closing(Surveyor(root, hard_links)) as surveyor:
        for entry in tree.walk(root):
            surveyor.add(entry)
        return surveyor.survey()


def digest(root: Path) -> str:
    """SHA-256 of the list of folders, files and links: what checksums of contents do not cover."""
    return digest_of((entry.form, entry.path, entry.target) for entry in tree.walk(root))


def digest_of(entries: Iterable[tuple[str, str, str]]) -> str:
    """The same for entries that are told: form, path and target, in the order of a walk."""
    lines = hashlib.sha256()
    for form, path, target in entries:
        lines.update(line_of(form, path, target))
    return lines.hexdigest()


def line_of(form: str, path: str, target: str = "") -> bytes:
    """One entry of that list."""
    return "\0".join((form, path, target, "")).encode("utf-8", "surrogateescape")
