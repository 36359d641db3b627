"""File operations that are durable: what they wrote, renamed or removed is on disk, unless a docstring says otherwise.

They follow no symlink below the folder that they were given, and know nothing of SQLite.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from backupkit.fs import descriptors, tree
from backupkit.fs import mounts as mount_table
from backupkit.fs.descriptors import FOLDER, try_lock
from backupkit.fs.descriptors import remove_tree as remove_tree
from backupkit.model.errors import Refused
from backupkit.model.names import printable

CHUNK = 1 << 20
MOST_STATE = 64 << 20  # bytes of a file that this toolkit keeps: it never writes a longer one
CORRECT_LINK = "Mount that disk, or correct the link."
DRAFT_PREFIX = ".draft-"  # unfinished files and folders: the next run removes those of a killed one
_FICLONE = 0x40049409 if sys.platform == "linux" else 0
_devices_without_reflinks: set[int] = set()  # devices whose file systems have refused to share blocks
_UNSUPPORTED = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # do not wait for a fifo in the place of a file
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_libc = ctypes.CDLL(None, use_errno=True)


class ReadError(OSError):
    """A failed read of an open file, because its disk fails. `handle` tells which of two files it was."""

    handle = -1


class Opened:
    """A file or folder, open for a block. A class takes a fifth of a generator's time, and many files are opened."""

    __slots__ = ("_handle",)

    def __init__(self, path: str | Path, flags: int, within: int | None = None) -> None:
        try:
            self._handle = os.open(path, flags | os.O_CLOEXEC, 0o600, dir_fd=within)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG or within is not None:
                raise
            self._handle = _open_long_path(str(path), flags | os.O_CLOEXEC)

    def __enter__(self) -> int:
        return self._handle

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error.filename, str | bytes):
            error.filename = _path_of(self._handle)  # for a descriptor the system does not say which
        os.close(self._handle)


def open_plain(path: Path, most: int) -> BinaryIO:
    """Open a plain file of at most `most` bytes for reading; raise `OSError` for anything else, without opening it."""
    _require_plain(os.lstat(path), path, most)  # before it is opened: opening a device can have effects
    handle = os.open(path, _FILE | os.O_CLOEXEC)
    try:
        _require_plain(os.fstat(handle), path, most)
    except BaseException:
        os.close(handle)
        raise
    return io.BufferedReader(NamedFile(handle, path))


class NamedFile(io.FileIO):
    """A file open for reading whose errors carry its path, which the system does not tell. It owns the handle."""

    def __init__(self, handle: int, path: Path) -> None:
        super().__init__(handle)
        self.name = str(path)

    def readinto(self, target: Any, /) -> int | None:
        try:
            return super().readinto(target)
        except OSError as error:
            error.filename = self.name
            raise

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            error.filename = self.name
            raise


def read_plain(path: Path, most: int) -> bytes:
    """Return the content of a plain file of at most `most` bytes; raise `OSError` for anything else."""
    with open_plain(path, most) as file:
        return file.read(most)


def _require_plain(facts: os.stat_result, path: Path, most: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    if facts.st_size > most:
        raise OSError(errno.EFBIG, f"it has {facts.st_size} bytes, more than the limit of {most}", str(path))


def _open_long_path(path: str, flags: int) -> int:
    """Open a file or folder step by step, since its path has more bytes than the system takes at once."""
    *above, name = path.split("/")
    within = os.open(above.pop(0) or "/", FOLDER)
    try:
        for step in above:
            inner = os.open(step or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=within)
            os.close(within)
            within = inner
        return os.open(name, flags, 0o600, dir_fd=within)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(within)


def sync_file(path: Path) -> None:
    """Flush the file's content to disk."""
    _sync(path, _FILE)


def sync_folder(path: Path) -> None:
    """Flush the names in the folder to disk: otherwise a power failure may undo a rename or a new file."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(folder: Path) -> None:
    """Flush everything below the folder to disk; raise an error of the disk.

    This is one call for the whole file system if the system has it (syncfs, Linux; it reports write errors since 5.8).
    """
    if hasattr(_libc, "syncfs"):
        with Opened(folder, os.O_RDONLY | os.O_DIRECTORY) as handle:
            if _libc.syncfs(handle):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(folder))
        return
    for entry in tree.walk(folder):
        if entry.form == "file":
            sync_file(folder / entry.path)
        elif entry.form == "folder":
            sync_folder(folder / entry.path)
    sync_folder(folder)


def write_file(
    path: Path, content: bytes, mode: int = 0o600, like: os.stat_result | None = None, is_ours: bool = False
) -> None:
    """Replace the file's content, or leave it as it was: write a draft beside it, sync, rename, and sync the folder.

    Its owner becomes the folder's, and its mode the given one; with `like`, both become those of `like`. With
    `is_ours`, even root stays the owner.
    """
    # A unique name, because two processes may write one file at once; the last one wins.
    draft = path.with_name(f"{DRAFT_PREFIX}{path.name}-{os.urandom(4).hex()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            if not is_ours and os.geteuid() == 0:
                owner = like or os.stat(path.parent)
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            if like:
                os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        rename(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield the path for a draft, and rename it to the target when the block ends; remove it if the block fails.

    The block itself must sync the draft.
    """
    draft = target.with_name(f"{DRAFT_PREFIX}{target.name}")
    try:
        yield draft
        rename(draft, target)
    except BaseException:
        remove(draft)
        raise


def open_or_make(path: Path, flags: int, mode: int) -> tuple[int, bool]:
    """Open the file for reading and writing, or create it; return the handle, and whether it is new.

    As root, a new file gets the owner of its folder, so it must be certain that it is new. Opening for reading as well
    keeps a fifo from blocking.
    """
    flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags), False
        with contextlib.suppress(FileExistsError):
            return make_file(path, flags, mode), True


def make_file(path: Path, flags: int = os.O_RDWR, mode: int = 0o600) -> int:
    """Create a file, open for writing, with the owner of its folder; raise `FileExistsError` if the name is taken."""
    handle = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    if os.geteuid() == 0:
        owner = os.stat(path.parent)
        os.fchown(handle, owner.st_uid, owner.st_gid)
    return handle


def rewrite_file(path: Path, content: bytes) -> None:
    """Replace the content of a user's own file, or leave it as it was; keep owner and mode, and follow a link to it.

    A new file is readable for all. A file that is itself a mount is written in place, since no rename can replace it: a
    kill then leaves the old content, or the new one and perhaps empty lines behind it.
    """
    path = Path(os.path.realpath(path))
    if str(path) in mounts():
        return _write_in_place(path, content)
    for left in path.parent.glob(f"{DRAFT_PREFIX}{path.name}-*"):  # left by a killed run
        remove(left)
    write_file(path, content, 0o644, os.stat(path) if path.exists() else None)


def mounts() -> set[str]:
    """Return every mount point that the system shows."""
    return {mount.place for mount in mount_table.read()}


@contextlib.contextmanager
def try_lock_dir(folder: Path) -> Iterator[bool]:
    """Try to lock the folder for the block, and yield whether that worked. The kernel's lock leaves nothing behind."""
    with Opened(folder, os.O_RDONLY | os.O_DIRECTORY) as handle:
        yield try_lock(handle)


def rename(source: Path, target: Path) -> None:
    """Rename on disk; a file that has the target's name is replaced in one step."""
    os.rename(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def publish(draft: Path, final: Path) -> None:
    """Sync a finished folder and give it its name, which must be free: rename would replace an empty folder."""
    sync_tree(draft)
    if os.path.lexists(final):
        raise FileExistsError(17, os.strerror(17), str(final))
    rename(draft, final)


def remove(path: Path) -> None:
    """Remove the file; a missing file is not an error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_folder(path.parent)


def remove_atomically(draft: Path, folder: Path) -> None:
    """Remove the folder in one step as far as a reader can see: rename it to `draft` first, then remove that.

    Raise `OSError`, and rename nothing, if it holds a folder of another user, which we could not empty, or a mount.
    """
    _require_ours(folder)
    with Opened(folder.parent, os.O_RDONLY | os.O_DIRECTORY) as parent:
        descriptors.refuse_mounts(folder.name, parent)
    rename(folder, draft)
    remove_tree(draft)


def copy_contents(
    source: int, target: int, facts: os.stat_result, check: Callable[[int], None] = lambda _count: None
) -> tuple[int, str]:
    """Return the bytes copied and the SHA-256 of what the target holds, each byte read once; not yet synced.

    Blocks are shared if the file system can do that, and holes stay holes. `facts` are the source's. `check` is called
    with the size of every chunk.
    """
    if _clone(source, target, facts):
        return os.fstat(target).st_size, hash_contents(target, check)
    return write_contents(_chunks(source, facts.st_size), target, facts.st_blocks * 512 < facts.st_size, check)


def may_share_blocks(facts: os.stat_result) -> bool:
    """Return whether a copy may share the blocks of a file with these facts: its file system has not refused it yet."""
    return facts.st_dev not in _devices_without_reflinks


def write_all(target: int, content: bytes) -> None:
    """Write all of the content, in as many calls as that takes."""
    written = os.write(target, content)
    while written < len(content):
        written += os.write(target, memoryview(content)[written:])


def write_contents(
    chunks: Iterable[bytes], target: int, sparse: bool = False, check: Callable[[int], None] = lambda _count: None
) -> tuple[int, str]:
    """Return the bytes written and their SHA-256; not yet synced. Chunks of zeros become holes if `sparse`.

    `check` is called with the size of every chunk.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        if sparse and chunk.count(0) == len(chunk):
            os.lseek(target, len(chunk), os.SEEK_CUR)
        else:
            write_all(target, chunk)
        size += len(chunk)
        check(len(chunk))
    if sparse:
        os.ftruncate(target, size)
    return size, digest.hexdigest()


def copy_file(
    source: str | Path,
    target: str | Path,
    within: tuple[int | None, int | None] = (None, None),
) -> int:
    """Copy into a new file that only its owner may read, the fastest way; return the bytes copied. Not yet synced.

    `within` are open folders that hold the source and the target.
    """
    with Opened(source, _FILE, within[0]) as original, Opened(target, _NEW, within[1]) as copied:
        return copy_open(original, copied, os.fstat(original))


def copy_open(source: int, target: int, facts: os.stat_result) -> int:
    """Do the same for open files; the target is new and empty, `facts` are the source's."""
    if _clone(source, target, facts) or _copy_in_kernel(source, target, facts):
        return facts.st_size
    return copy_contents(source, target, facts)[0]


def copy_and_hash(source: Path, target: str, within: int) -> str:
    """Copy into a new file of that name in an open folder, and return the SHA-256; not yet synced."""
    with Opened(source, _FILE) as original, Opened(target, _NEW, within) as copied:
        return copy_contents(original, copied, os.fstat(original))[1]


def copy_file_to(source: str, within: int, folder: int, name: str) -> None:
    """Copy a file in an open folder to a new file in another, and sync its content; only its owner may read it."""
    with Opened(name, _NEW, folder) as target, Opened(source, _FILE, within) as original:
        copy_contents(original, target, os.fstat(original))
        os.fsync(target)


def same_open(left: int, right: int, check: Callable[[int], None] = lambda _count: None) -> bool:
    """Return whether two open files hold the same bytes from their positions on; `check` gets the size of each chunk.

    A `ReadError` says which of them failed.
    """
    for chunk in _chunks(left, os.fstat(left).st_size):
        if chunk != _read(right, len(chunk)):
            return False
        check(len(chunk))
    return not _read(right, 1)


def hash_file(path: str | Path, check: Callable[[int], None] = lambda _count: None) -> str:
    """Return the SHA-256 of a file that is not a symlink. Never of a live database: closing it drops SQLite's locks."""
    with Opened(path, _FILE) as handle:
        return hash_contents(handle, check)


def hash_from_disk(handle: int) -> str:
    """Return the SHA-256 of what is on the disk, as far as `forget_cached` can see to that."""
    forget_cached(handle)
    return hash_contents(handle)


def forget_cached(handle: int) -> None:
    """Make the next read of the file come from the disk, if the system can drop what it has cached of it."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def hash_contents(handle: int, check: Callable[[int], None] = lambda _count: None) -> str:
    """Return the SHA-256 of an open file, from its beginning; call `check` with the size of every chunk read."""
    os.lseek(handle, 0, os.SEEK_SET)
    digest = hashlib.sha256()
    for chunk in _chunks(handle, os.fstat(handle).st_size):
        digest.update(chunk)
        check(len(chunk))
    return digest.hexdigest()


def lines_backwards(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a text that are not empty, from last to first, with about one chunk in memory."""
    end, rest = file.seek(0, os.SEEK_END), b""
    while end:
        begin = max(0, end - CHUNK)
        file.seek(begin)
        first, *whole = (file.read(end - begin) + rest).split(b"\n")
        yield from (line for line in reversed(whole) if line)
        end, rest = begin, first
    if rest:
        yield rest


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def free_space(folder: Path) -> int:
    """Return the bytes that an ordinary user can still write at the folder, which need not exist yet."""
    facts = os.statvfs(nearest(folder))
    return facts.f_bavail * facts.f_frsize


def is_full(folder: Path) -> bool:
    """Return whether not even a small file fits there, for lack of bytes or of inodes."""
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize < 1 << 16 or bool(facts.f_files and not facts.f_favail)


def make_folder(folder: Path, mode: int = 0o755) -> None:
    """Create the folder and those above it, if missing; each gets the owner of its parent if we are root."""
    if folder.is_dir():
        return
    refuse_dangling(folder)
    make_folder(folder.parent, mode)
    folder.mkdir(mode=mode, exist_ok=True)
    chown_if_root(folder, owner_of(folder.parent))
    sync_folder(folder.parent)


def refuse_dangling(folder: Path) -> None:
    """Raise `Refused` if the way to the folder is a link that leads nowhere."""
    if text := dangling(folder):
        raise Refused(f"{text} Nothing was changed.", hint=CORRECT_LINK)


def dangling(folder: Path) -> str:
    """Return a sentence on the link in the place of the folder, or above it, that leads nowhere; empty if none does."""
    link = next((one for one in (folder, *folder.parents) if one.is_symlink() and not one.exists()), None)
    return f"{link} is a link to {printable(os.readlink(link))}, which is not there." if link else ""


def owner_of(path: Path) -> tuple[int, int]:
    """Return user and group id of the path, not of a link's target."""
    facts = os.lstat(path)
    return facts.st_uid, facts.st_gid


def chown_if_root(path: Path, owner: tuple[int, int]) -> None:
    """Set the owner of the path if we are root, who alone may; of a symlink itself, not of its target."""
    if os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)


def set_attributes(handle: int, facts: os.stat_result, owner: tuple[int, int] | None = None) -> None:
    """Set owner, mode and times of an open file to those of `facts`, or the owner to the given one."""
    times = (facts.st_atime_ns, facts.st_mtime_ns)
    descriptors.set_owner_mode_times(handle, owner or (facts.st_uid, facts.st_gid), stat.S_IMODE(facts.st_mode), times)


def set_what_it_keeps(handle: int, facts: os.stat_result) -> None:
    """Do the same as far as the file system can keep them."""
    times = (facts.st_atime_ns, facts.st_mtime_ns)
    descriptors.set_what_it_keeps(handle, (facts.st_uid, facts.st_gid), stat.S_IMODE(facts.st_mode), times)


def _sync(path: Path, flags: int) -> None:
    with Opened(path, flags) as handle:
        if sys.platform == "darwin":
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        else:
            os.fsync(handle)


def _copy_in_kernel(source: int, target: int, facts: os.stat_result) -> bool:
    """Copy without passing the content through this process (copy_file_range, Linux); return whether that worked.

    The call may be refused, or stop short, on some file systems; and it fills holes.
    """
    left = facts.st_size
    if not hasattr(os, "copy_file_range") or facts.st_blocks * 512 < left:
        return False
    try:
        while left and (count := os.copy_file_range(source, target, left)):
            left -= count
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    if left:
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
    return not left


def _clone(source: int, target: int, facts: os.stat_result) -> bool:
    """Share the source's blocks with the target (FICLONE: XFS, Btrfs, bcachefs); return whether that worked."""
    if not may_share_blocks(facts):
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            _devices_without_reflinks.add(facts.st_dev)
        return False
    return True


def _chunks(handle: int, size: int) -> Iterator[bytes]:
    """Yield the content to the end; `size` is expected. A small file is one read: a whole chunk costs more memory."""
    left = size
    while chunk := _read(handle, min(CHUNK, left + 1) if left >= 0 else CHUNK):
        yield chunk
        left -= len(chunk)
        if left == 0:
            return


def _read(handle: int, count: int) -> bytes:
    try:
        return os.read(handle, count)
    except OSError as error:
        failed = ReadError(error.errno, error.strerror, _path_of(handle))
        failed.handle = handle
        raise failed from error


def _path_of(handle: int) -> str | None:
    """Return where an open file lies, or None if the system does not tell."""
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return None


def _write_in_place(path: Path, content: bytes) -> None:
    with Opened(path, os.O_RDWR | os.O_NOFOLLOW) as handle:
        before = os.pread(handle, os.fstat(handle).st_size, 0)
        # One call, because a kill cannot cut it in two; a full disk can.
        if os.pwrite(handle, content.ljust(len(before), b"\n"), 0) < len(content):
            os.pwrite(handle, before, 0)
            os.ftruncate(handle, len(before))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.ftruncate(handle, len(content))
        os.fsync(handle)


def _require_ours(folder: Path) -> None:
    if os.geteuid() == 0:
        return
    if os.lstat(folder).st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder))
    for entry in tree.walk(folder, unreadable=_ignore_unreadable):
        if entry.form == "folder" and entry.facts.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"{folder}/{entry.path}")


def _ignore_unreadable(_path: str, _error: OSError) -> None:
    """Ignore it: a folder of ours that we cannot read is opened when it is emptied."""
