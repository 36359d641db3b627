"""Read-only queries of the uploads folder: existence, size, links that lead out, and the digest of its entries.

The module `archiver` copies it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from backupkit.fs import attributes, disk, mounts, tree
from backupkit.fs.stamps import stamp_of
from backupkit.model.errors import SourceUnreadable
from backupkit.repository.files_cache import ParentBackup
from backupkit.upload_files import marked


def require(live: Path, tree_name: str = "") -> None:
    """Raise `SourceUnreadable` unless the folder of uploads, or of that tree, exists and can be read."""
    setting = f"path of [trees.{tree_name}] in backup.toml" if tree_name else "BACKUP_UPLOADS"
    what = f"folder {tree_name}" if tree_name else "uploads folder"
    missing = f"There is no folder {tree_name} at {live}." if tree_name else f"There is no uploads folder at {live}."
    try:
        os.listdir(live)
    except FileNotFoundError as error:
        otherwise = "remove that table" if tree_name else "to nothing"
        hint = f"Set {setting} to where it is, or {otherwise} if the app has none."
        if text := disk.dangling(live):
            raise SourceUnreadable(f"The uploads cannot be read: {text}", disk.CORRECT_LINK) from error
        raise SourceUnreadable(missing, hint) from error
    except NotADirectoryError as error:
        hint = f"Set {setting} to the folder."
        raise SourceUnreadable(f"The {what} {live} is not a folder.", hint) from error
    except OSError as error:
        hint = f"Run as a user who may read it (ls -ld {live}), or see `doctor`."
        raise SourceUnreadable(f"The {what} {live} cannot be read: {error.strerror}.", hint) from error


def measure(live: Path, skip: tree.Skip, earlier: ParentBackup | None = None) -> tuple[int, int]:
    """Return the number of files below the folder, and the bytes on disk of those that an earlier backup lacks.

    No file is read.
    """
    files = size = 0
    for path, facts in _files(live, skip):
        files += 1
        seen = earlier and earlier.find(path)
        if not seen or not seen.still_matches(facts):
            size += tree.content_size(facts)
    return files, size


def _files(root: Path, skip: tree.Skip) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file that can be reached, in the order of `tree.walk`."""
    with suppress(OSError):
        for entry in tree.walk(root, skip=skip, unreadable=lambda _path, _error: None):
            if entry.form == "file":
                yield entry.path, entry.facts


def mounted(live: Path) -> list[str] | None:
    """Return the paths below the folder at which something is mounted, sorted; None if the system shows no mounts.

    They are text that metadata can hold, so a name of other bytes is not the one that it has on the disk.
    """
    root = os.path.realpath(live)
    found = mounts.below(root)
    return None if found is None else sorted({marked.key(os.path.relpath(place, root)) for place in found})


def leading_out(live: Path, skip: tree.Skip) -> Iterator[str]:
    """Yield the links below the folder that lead to something outside of it."""
    root = os.path.realpath(live)
    for entry in tree.walk(live, skip=skip, unreadable=lambda _path, _error: None):
        if entry.form == "link" and leads_out(root, entry.path, entry.target):
            yield entry.path


def leads_out(root: str, path: str, target: str) -> bool:
    """Return whether the link's target exists and is not below the root."""
    there = os.path.realpath(os.path.join(root, os.path.dirname(path), target))
    return there != root and not there.startswith(f"{root}/") and os.path.exists(there)


class Survey(NamedTuple):
    """The facts of a tree beside the contents of its files; `tree` is the digest of its entries (see `digest`).

    `attributes` counts ACLs, extended attributes and file capabilities. `hard_links` counts the further names of files
    that have several names in the tree.
    """

    tree: str
    attributes: int
    hard_links: int


class Surveyor:
    """A collector of these facts during the caller's walk; hard links only on request, since each takes memory."""

    def __init__(self, root: Path, hard_links: bool) -> None:
        self._root, self._hard_links = root, hard_links
        self._parents = tree.Parents(root)
        self._lines, self._seen = hashlib.sha256(), set[tuple[int, int]]()
        self._attributes = len(attributes.of_open(self._parents.go("")))
        self._other_names = 0

    def add(self, entry: tree.Entry) -> None:
        """Add the next entry of the walk."""
        self._lines.update(line_of(entry.form, entry.path, entry.target))
        if entry.form in ("file", "folder"):
            self._attributes += len(attributes.names(self._root, entry.path, self._parents))
        if self._hard_links and entry.form == "file" and entry.facts.st_nlink > 1:
            inode = tree.inode(entry.facts)
            self._other_names += inode in self._seen
            self._seen.add(inode)

    def survey(self) -> Survey:
        """Return the facts of all entries so far."""
        return Survey(self._lines.hexdigest(), self._attributes, self._other_names)

    def close(self) -> None:
        self._parents.close()


def survey(root: Path, hard_links: bool) -> Survey:
    """Walk the tree and return its facts."""
    with closing(Surveyor(root, hard_links)) as surveyor:
        for entry in tree.walk(root):
            surveyor.add(entry)
        return surveyor.survey()


class Seen(NamedTuple):
    """Digests of live uploads: of the list of entries (see `digest`), and of the change stamps of the files.

    Two looks with equal digests have found the same files with the same contents.
    """

    tree: str
    stamps: str


class Seeing:
    """A collector of these digests during the caller's walk."""

    def __init__(self) -> None:
        self._entries, self._stamps = hashlib.sha256(), hashlib.sha256()

    def add(self, entry: tree.Entry) -> None:
        """Add the next entry of the walk."""
        self._entries.update(line_of(entry.form, entry.path, entry.target))
        if entry.form == "file":
            self._stamps.update(line_of("file", entry.path, stamp_of(entry.facts)))

    def seen(self) -> Seen:
        """Return the digests of all entries so far."""
        return Seen(self._entries.hexdigest(), self._stamps.hexdigest())


def seen_by(earlier: ParentBackup) -> Seen | None:
    """Return the same digests of the live uploads as this backup found them, or None if it has no uploads."""
    stamps = hashlib.sha256()
    for path, stamp in earlier.stamps():
        stamps.update(line_of("file", path, stamp))
    facts = earlier.metadata.uploads
    return Seen(facts.tree, stamps.hexdigest()) if facts else None


def digest(root: Path) -> str:
    """Return the SHA-256 of the list of folders, files and links, which checksums of contents do not cover."""
    return digest_of((entry.form, entry.path, entry.target) for entry in tree.walk(root))


def digest_of(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return the same digest for given entries: form, path and target, in the order of a walk."""
    lines = hashlib.sha256()
    for form, path, target in entries:
        lines.update(line_of(form, path, target))
    return lines.hexdigest()


def line_of(form: str, path: str, target: str = "") -> bytes:
    """Return one entry of that list as the digest reads it."""
    return "\0".join((form, path, target, "")).encode("utf-8", "surrogateescape")
