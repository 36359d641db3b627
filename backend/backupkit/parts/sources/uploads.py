"""The uploads folder: copied as it is, symlinks as symlinks, each file whole or reported.

Walked by open folders, never by paths, so that a link slipped in meanwhile leads nowhere.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from backupkit.ground import disk, tree
from backupkit.words.errors import SourceUnreadable
from backupkit.words.events import Listener, Progress, Step, Warned, silence
from backupkit.words.model import STAGING, UploadsFacts
from backupkit.words.names import shown

_ATTEMPTS = 6  # then the file is one that will not hold still
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# The uploads folder itself may be a link that the setting names; nothing below it may.
_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Record = Callable[[str, str], None]


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


def measure(live: Path) -> tuple[int, int]:
    """Files and bytes on disk below the folder, without reading them."""
    files = size = 0
    for root, _, names in os.walk(live):
        for name in names:
            with suppress(OSError):
                facts = os.lstat(os.path.join(root, name))
                files += stat.S_ISREG(facts.st_mode)
                size += tree.content_size(facts) if stat.S_ISREG(facts.st_mode) else 0
    return files, size


def copy(live: Path, target: Path, record: Record, total: int, tell: Listener = silence) -> UploadsFacts:
    """The whole tree below `target`, a new folder: contents, modes, times, links and, as root, owners.

    `record` hears the path and SHA-256 of every file. What cannot be copied is warned of, and counted nowhere.
    """
    tell(Step("Copying the uploads", total))
    target.mkdir(mode=0o700)
    copying = _Copying(record, tell)
    with _opened(live, _ROOT) as source, _opened(target, _FOLDER) as copied:
        _copy_folder(source, copied, "", copying)
        _dress(copied, os.fstat(source))
    return UploadsFacts(
        files=copying.files,
        bytes=copying.bytes,
        folders=copying.folders,
        links=copying.links,
        tree=digest(target),
        warnings=tuple(copying.warnings),
    )


def digest(root: Path) -> str:
    """SHA-256 of the list of folders, files and links: what checksums of contents do not cover."""
    return digest_of((entry.form, entry.path, entry.target) for entry in tree.walk(root))


def digest_of(entries: Iterable[tuple[str, str, str]]) -> str:
    """The same for entries that are told: form, path and target, in the order of a walk."""
    lines = hashlib.sha256()
    for entry in entries:
        lines.update("\0".join((*entry, "")).encode("utf-8", "surrogateescape"))
    return lines.hexdigest()


@dataclass
class _Copying:
    record: Record
    tell: Listener
    files: int = 0
    bytes: int = 0
    folders: int = 0
    links: int = 0
    warnings: list[str] = field(default_factory=list)

    def warn(self, path: str, reason: str) -> None:
        text = f"{shown(path)} {reason}"
        self.warnings.append(text)
        self.tell(Warned(text))

    def advance(self, count: int) -> None:
        self.bytes += count
        self.tell(Progress(self.bytes))


def _copy_folder(source: int, target: int, below: str, copying: _Copying) -> None:
    for name in sorted(os.listdir(source)):
        path = f"{below}/{name}" if below else name
        if path != STAGING:
            try:
                _copy_entry(source, target, name, path, copying)
            except (FileNotFoundError, NotADirectoryError):
                continue  # gone since it was listed: no part of any later moment
            except _Unreadable:
                copying.warn(path, "cannot be read, and is not in the backup.")


def _copy_entry(source: int, target: int, name: str, path: str, copying: _Copying) -> None:
    facts = os.stat(name, dir_fd=source, follow_symlinks=False)
    form = tree.form_of(facts.st_mode)
    if form == "folder":
        with _live(name, source, _FOLDER) as inner:
            os.mkdir(name, 0o700, dir_fd=target)
            with _opened(name, _FOLDER, target) as copied:
                _copy_folder(inner, copied, path, copying)
                _dress(copied, facts)
        copying.folders += 1
    elif form == "link":
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        _dress_link(name, target, facts)
        copying.links += 1
    elif form == "special":
        copying.warn(path, "is a socket, a fifo or a device, and is not in the backup.")
    else:
        _copy_file(source, target, name, path, copying)


def _copy_file(source: int, target: int, name: str, path: str, copying: _Copying) -> None:
    with _opened(name, _NEW, target) as copied:
        try:
            still, checksum = _until_still(source, name, copied, copying)
        except BaseException:
            os.unlink(name, dir_fd=target)
            raise
    if not still:
        copying.warn(path, "was changed every time it was copied; the backup has its last state, perhaps torn.")
    copying.files += 1
    copying.record(path, checksum)


def _until_still(source: int, name: str, copied: int, copying: _Copying) -> tuple[bool, str]:
    """Whether the copy is of one state of the file, and its checksum; taken again while the file changes."""
    for attempt in range(_ATTEMPTS):
        with _live(name, source, _FILE) as original:
            before = os.fstat(original)
            os.ftruncate(copied, 0)
            os.lseek(copied, 0, os.SEEK_SET)
            size, checksum = disk.copy_contents(original, copied, sparse=tree.content_size(before) < before.st_size)
            after = os.fstat(original)
            _dress(copied, after)
        if tree.signature(before) == tree.signature(after) and size == after.st_size:
            copying.advance(size)
            return True, checksum
        time.sleep(0.02 * 2**attempt)
    copying.advance(size)
    return False, checksum


def _dress(handle: int, facts: os.stat_result) -> None:
    """Owner, then mode (which a change of owner clears), then times of `facts`."""
    if os.geteuid() == 0:
        os.fchown(handle, facts.st_uid, facts.st_gid)
    os.fchmod(handle, stat.S_IMODE(facts.st_mode))
    os.utime(handle, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _dress_link(name: str, folder: int, facts: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(name, facts.st_uid, facts.st_gid, dir_fd=folder, follow_symlinks=False)
    os.utime(name, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=folder, follow_symlinks=False)


class _Unreadable(Exception):
    """The live file or folder may not be read: not to be taken for trouble where it is copied to."""


@contextmanager
def _live(name: str, within: int, flags: int) -> Iterator[int]:
    """A live file or folder, opened; FileNotFoundError where it became something else since it was listed."""
    try:
        handle = os.open(name, flags, dir_fd=within)
    except PermissionError as error:
        raise _Unreadable from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise FileNotFoundError(error.errno, error.strerror, name) from error
        raise
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _opened(name: str | Path, flags: int, within: int | None = None) -> Iterator[int]:
    handle = os.open(name, flags, 0o600, dir_fd=within)
    try:
        yield handle
    finally:
        os.close(handle)
