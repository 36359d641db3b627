"""A folder tree of any depth, read without ever following a symlink in it.

Names are the file system's own, whatever their bytes (surrogateescape). The order is parents first, then by name, so
that two trees can be walked side by side.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from backupkit.fs import descriptors
from backupkit.fs.descriptors import open_folder

Form = Literal["file", "folder", "link", "special"]
Skip = Callable[[str, os.stat_result, os.stat_result], bool]
"""Returns whether to skip an entry and what is in it, by its path, its stat and the stat of its folder."""
Unreadable = Callable[[str, OSError], None]
"""Gets the path of what cannot be read, and the error."""
_FORMS: dict[int, Form] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
_IS_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)  # no file can have a name that is too long
_MOST_OPEN = 16  # parent folders that stay open too, so that going up costs nothing


class Entry(NamedTuple):
    """One name in a tree: its path relative to the root, what `lstat` says, its form, and a link's target.

    Made by `entry_of`, which stores the form because it is needed several times for each of many files.
    """

    path: str
    facts: os.stat_result
    form: Form
    target: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """The sort key of the walk."""
        return tuple(self.path.split("/"))

    @property
    def changed_at(self) -> datetime:
        """When it was last changed; the nearest time that can be shown, where the file system says an absurd one."""
        return datetime.fromtimestamp(max(0, min(self.facts.st_mtime, 2**33)), UTC)


def entry_of(path: str, facts: os.stat_result) -> Entry:
    """Return the entry with these facts, and the form that they tell."""
    return Entry(path, facts, form_of(facts.st_mode))


def inode(facts: os.stat_result) -> tuple[int, int]:
    """Return what identifies a file on this machine as long as it exists."""
    return facts.st_dev, facts.st_ino


def form_of(mode: int) -> Form:
    """Return file, folder, link, or special for what cannot be copied: a socket, a fifo, a device."""
    return _FORMS.get(stat.S_IFMT(mode), "special")


class OpenFolder:
    """One open folder at or below a root, which can move through the tree: it follows no link, and no path is too long.

    However deep it is, only a few descriptors are open.
    """

    def __init__(self, root: str | Path, opened: int | None = None) -> None:
        # The root itself may be a link that a setting names; nothing below it may.
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if opened is None else os.dup(opened)
        self._handles: list[int | None] = [handle]
        self._names: list[str] = []
        self._at: str | None = ""  # the path; None until it is put together from the names
        self.root = os.fspath(root)

    @property
    def path(self) -> str:
        """The folder's path, relative to the root."""
        if self._at is None:
            self._at = "/".join(self._names)
        return self._at

    @property
    def handle(self) -> int:
        """The folder's descriptor; `FileNotFoundError` if it was moved away meanwhile and cannot be reopened."""
        handle = self._handles[-1]
        return self._reopened() if handle is None else handle

    def facts(self) -> os.stat_result:
        """Return what `fstat` says of the folder."""
        try:
            return os.fstat(self.handle)
        except OSError as error:
            error.filename = self._shown()
            raise

    def handle_to_list(self) -> int:
        """Return the handle, from which all that is in the folder now can be listed.

        Else btrfs lists only what was there when the folder was opened (Linux 6.5, `btrfs_opendir`).
        """
        os.lseek(self.handle, 0, os.SEEK_SET)
        return self.handle

    def names(self) -> list[str]:
        """Return the names in the folder, sorted."""
        try:
            return sorted(os.listdir(self.handle_to_list()))
        except OSError as error:
            error.filename = self._shown()
            raise

    def enter(self, name: str) -> None:
        """Go into a folder; raise `NotADirectoryError` if it is none, or a link to one."""
        self._append(name, open_folder(name, self.handle))

    def leave(self) -> None:
        """Go up to the parent folder."""
        handle = self._handles.pop()
        self._names.pop()
        self._at = None
        if handle is not None:
            os.close(handle)

    def go(self, path: str) -> int:
        """Go to that folder by the shortest way, and return its descriptor."""
        if path == self._at:
            return self.handle
        wanted = path.split("/") if path else []
        same = next((n for n, (one, two) in enumerate(zip(self._names, wanted, strict=False)) if one != two), None)
        for _ in range(len(self._names) - (min(len(self._names), len(wanted)) if same is None else same)):
            self.leave()
        for name in wanted[len(self._names) :]:
            self.enter(name)
        self._at = path
        return self.handle

    def close(self) -> None:
        for handle in self._handles:
            if handle is not None:
                os.close(handle)
        self._handles.clear()

    def _shown(self) -> str:
        return os.path.join(self.root, *self._names)

    def _append(self, name: str, handle: int) -> None:
        self._names.append(name)
        self._handles.append(handle)
        self._at = None
        above = len(self._handles) - 2 - _MOST_OPEN
        if above > 0 and (far := self._handles[above]) is not None:
            os.close(far)
            self._handles[above] = None

    def _reopened(self) -> int:
        """Open the folder again, from the nearest parent that is still open."""
        level = next(n for n in reversed(range(len(self._handles))) if self._handles[n] is not None)
        names, self._names = self._names[level:], self._names[:level]
        del self._handles[level + 1 :]
        try:
            while names:
                self._append(names[0], open_folder(names[0], self.handle))
                del names[0]
        finally:  # stay at the same place, even if it could not be opened
            self._names += names
            self._handles += [None] * len(names)
        return self.handle


class _Within:
    """A block in which an error has the whole path. A class, since it is entered several times for each file."""

    __slots__ = ("_folder", "_path")

    def __init__(self, folder: OpenFolder, path: str) -> None:
        self._folder, self._path = folder, path

    def __enter__(self) -> tuple[int, str]:
        below, _, name = self._path.rpartition("/")
        try:
            return self._folder.go(below), name
        except OSError as error:
            self._name(error)
            raise

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, OSError):
            self._name(error)

    def _name(self, error: OSError) -> None:
        error.filename = f"{self._folder.root}/{self._path}"  # the system knew only the last name of it


class Parents:
    """The open folder that holds a path, kept open for the next path in it; no link on the way is followed.

    `opened` is a descriptor of the root, if it is open already.
    """

    def __init__(self, root: str | Path, opened: int | None = None) -> None:
        self._folder = OpenFolder(root, opened)

    @classmethod
    def in_ours(cls, root: Path) -> Parents:
        """Return the same for a folder that we made; raise `NotADirectoryError` if there is a link in its place."""
        with descriptors.opened(root, descriptors.FOLDER) as handle:
            return cls(root, handle)

    def of(self, path: str) -> _Within:
        """Return a block that yields the open parent and the name in it; an error in the block has the whole path."""
        return _Within(self._folder, path)

    def go(self, path: str) -> int:
        """Return that folder itself, open."""
        return self._folder.go(path)

    def look(self, path: str) -> Entry | None:
        """Return the entry of that path now, or None if there is none, or only behind a link."""
        below, _, name = path.rpartition("/")
        try:
            return _look(self._folder.go(below), name, path)
        except OSError as error:
            if error.errno in _IS_NOT_THERE:
                return None
            error.filename = f"{self._folder.root}/{path}"
            raise

    def close(self) -> None:
        self._folder.close()


def look(root: str | Path, path: str) -> Entry | None:
    """Return the entry of that path now, or None if there is none, or only behind a link."""
    try:
        with closing(Parents(root)) as parents:
            return parents.look(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def walk(
    root: str | Path,
    skip: Skip | None = None,
    unreadable: Unreadable | None = None,
    opened: int | None = None,
) -> Iterator[Entry]:
    """Yield every entry below the root except those to skip, and what is in them.

    An entry that vanishes meanwhile is left out. What cannot be read is passed to `unreadable` and left out; without
    `unreadable`, the error is raised. `opened` is a descriptor of the root, if it is open already.
    """
    with closing(OpenFolder(root, opened)) as folder:
        names, below, within = [iter(folder.names())], [""], [folder.facts()]
        while names:
            name = next(names[-1], None)
            if name is None:
                names.pop()
                within.pop()
                if below.pop():
                    folder.leave()
                continue
            path = f"{below[-1]}{name}"
            try:
                entry = _look(folder.handle, name, path)
                if skip and skip(path, entry.facts, within[-1]):
                    continue
                yield entry
                if entry.form == "folder":
                    names.append(_entered(folder, name))
                    below.append(f"{path}/")
                    within.append(entry.facts)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                error.filename = f"{folder.root}/{path}"
                if unreadable is None:
                    raise
                unreadable(path, error)


def paths(root: str | Path) -> Iterator[tuple[str, bool]]:
    """Yield the path of every entry below the root, in the order of `walk`, and whether it is a folder.

    An entry that vanishes meanwhile is left out; an unreadable folder raises `OSError`.
    """
    with closing(OpenFolder(root)) as folder:
        below, waiting = [""], [iter(_scanned(folder))]
        while waiting:
            name, is_folder = next(waiting[-1], ("", False))
            if not name:
                waiting.pop()
                if below.pop():
                    folder.leave()
                continue
            path = f"{below[-1]}{name}"
            yield path, is_folder
            if is_folder:
                try:
                    folder.enter(name)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                below.append(f"{path}/")
                waiting.append(iter(_scanned(folder)))


def _scanned(folder: OpenFolder) -> list[tuple[str, bool]]:
    """Return the names in the folder, sorted, and whether each is a folder."""
    try:
        with os.scandir(folder.handle_to_list()) as entries:
            return sorted((one.name, one.is_dir(follow_symlinks=False)) for one in entries)
    except OSError as error:
        error.filename = f"{folder.root}/{folder.path}"
        raise


def _entered(folder: OpenFolder, name: str) -> Iterator[str]:
    """Enter the folder, and return its names; leave it again if they cannot be read."""
    folder.enter(name)
    try:
        return iter(folder.names())
    except OSError:
        folder.leave()
        raise


def _look(folder: int, name: str, path: str) -> Entry:
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
        form = form_of(facts.st_mode)
        return Entry(path, facts, form, os.readlink(name, dir_fd=folder) if form == "link" else "")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _look(folder, name, path)  # a link was replaced between the two calls


def with_parents(path: str) -> Iterator[str]:
    """Yield the path, and every folder above it except the root."""
    yield path
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def signature(facts: os.stat_result) -> tuple[int, int, int]:
    """Return what changes with a file's content: size, time of change of content, time of change of anything (ns)."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def content_size(facts: os.stat_result) -> int:
    """Return the bytes on disk: less than the length for a sparse file."""
    return min(facts.st_size, facts.st_blocks * 512)
