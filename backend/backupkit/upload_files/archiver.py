"""Copy the uploads as they are: symlinks as symlinks, hard links as hard links, each file complete or reported.

Directories are traversed by descriptors, never by paths, so that a swapped-in symlink is never followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from backupkit.fs import attributes, descriptors, disk, held, tree
from backupkit.fs.attributes import Attributes, Keeper
from backupkit.model.backup import DatabaseFacts, UploadsFacts
from backupkit.model.events import PROGRESS_STEP, EventListener, Warned, adding_up, silence
from backupkit.model.names import first_of, printable
from backupkit.repository.files_cache import ParentBackup
from backupkit.upload_files import live_file, walk

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL
_MOST_WARNINGS = 100
_ROUNDS = 5  # searches for files that were moved meanwhile, each much shorter than the one before

Record = Callable[[str, os.stat_result, str, int], None]
TakeDatabase = Callable[[Path, Path], DatabaseFacts | None]
"""Copies a live SQLite database to a new file; returns None if it is not a database, or SQLite cannot read it."""
SIDECARS = ("-wal", "-shm", "-journal")
_IN_USE = ("-wal", "-journal")
_LONGEST = 2000  # bytes of a path that SQLite can open
_NAME_NOT_HELD = "has a name that the disk of the backups cannot hold ({why}), and is not in the backup."
_LINK_NOT_HELD = "is a link that the disk of the backups cannot hold ({why}), and is not in the backup."
_MAGIC = b"SQLite format 3\0"


class Copied(Struct, frozen=True):
    """The result of a copy: its facts, and the bytes that were copied rather than linked.

    `late` holds the SHA-256, by path, of files that appeared after their folder was listed, and were not recorded.
    """

    facts: UploadsFacts
    added: int
    late: dict[str, str]
    keeps_attributes: bool
    """Whether every copy has all extended attributes of its file."""
    databases: dict[str, DatabaseFacts | None] = field(default_factory=dict)
    """The SQLite databases among the files, by path; None for one that is linked to the earlier backup."""


def copy(
    live: Path,
    target: Path,
    record: Record,
    skip: tree.Skip,
    earlier: ParentBackup | None = None,
    emit: EventListener = silence,
    take_database: TakeDatabase = lambda _live, _target: None,
) -> Copied:
    """Copy the whole tree to `target`, a new folder, with contents, modes, times, links and, as root, owners.

    A file that is moved to another folder meanwhile is copied too. A file that is unchanged since the earlier backup is
    hard-linked to the copy there; if only its ctime or inode differs, after its content was compared. Nothing is ever
    written through such a link. `record` receives the path, live facts, SHA-256 and number of attributes of every file
    but the late ones. `skip` leaves out what is not an upload. What cannot be copied, or disappears after the listing,
    causes a warning and is not counted.

    A SQLite database, recognised by its first bytes or by a WAL or journal beside it, is copied by `take_database`;
    its sidecars are part of that copy.
    """
    target.mkdir(mode=0o700)
    with (
        closing(tree.OpenFolder(live)) as source,
        closing(tree.OpenFolder(target)) as copied,
        closing(tree.Parents(target)) as drafted,
        closing(_EarlierFolder(earlier.uploads if earlier else None)) as before,
    ):
        copying = _Copying(
            os.path.realpath(live),
            record,
            emit,
            adding_up(emit, PROGRESS_STEP),
            earlier,
            skip,
            drafted,
            take_database,
        )
        folders = _Folders(source, copied, before)
        _copy_folder(folders, _level_of(source, ""), copying)
        copying.end_ordered_walk()
        if all(_copy_late_arrivals(folders, copying) for _ in range(_ROUNDS)):
            copying.add_warning("Uploads kept moving while they were copied: some may be missing from the backup.")
    walk.require(live)  # if the whole folder is unreadable now, single warnings would be wrong
    copying.warn_of_missing()
    copying.warn_of_lost()
    facts = replace(copying.facts(), mounts=_mounts_in(live, target))
    facts = replace(facts, tree=walk.digest(target)) if copying.late else facts
    return Copied(facts, copying.added, copying.late, not copying.keeper.lost, copying.databases)


def _mounts_in(live: Path, copied: Path) -> tuple[str, ...] | None:
    found = walk.mounted(live)
    return None if found is None else tuple(path for path in found if os.path.lexists(copied / path))


class _EarlierFolder:
    """The same folder in the earlier backup, if it exists there."""

    def __init__(self, root: Path | None) -> None:
        self._folder, self._missing = None, 0
        if root is not None:
            with suppress(OSError):
                self._folder = tree.OpenFolder(root)

    @property
    def handle(self) -> int | None:
        """The descriptor of the folder, or None if the earlier backup lacks it."""
        if self._folder is None or self._missing:
            return None
        try:
            return self._folder.handle
        except OSError:
            return None

    def enter(self, name: str) -> None:
        if self.handle is None or self._folder is None:
            self._missing += 1
            return
        try:
            self._folder.enter(name)
        except OSError:
            self._missing += 1

    def leave(self) -> None:
        if self._missing:
            self._missing -= 1
        elif self._folder:
            self._folder.leave()

    def close(self) -> None:
        if self._folder:
            self._folder.close()


class _Folders(Struct, frozen=True):
    """The current folder in three trees: live, draft and earlier backup."""

    source: tree.OpenFolder
    target: tree.OpenFolder
    before: _EarlierFolder

    def leave(self) -> None:
        self.source.leave()
        self.target.leave()
        self.before.leave()


class _LinkedFile(NamedTuple):
    """A file with several names, as it was when it was copied; `path` is that of its copy in the draft."""

    path: str
    facts: os.stat_result
    checksum: str
    attributes: int


class _NotHeld(Exception):
    """The file system of the draft cannot hold this name, or this link; the text says why."""


class _Copying(Struct):
    root: str
    record: Record
    emit: EventListener
    advance: Callable[[int], None]
    """Takes the number of bytes that were copied just now, for the progress."""
    earlier: ParentBackup | None
    skip: tree.Skip
    drafted: tree.Parents
    take_database: TakeDatabase
    databases: dict[str, DatabaseFacts | None] = field(default_factory=dict)
    keeper: Keeper = field(default_factory=Keeper)
    named: dict[tuple[int, int], _LinkedFile] = field(default_factory=dict)
    """Files with more than one name, by device and inode."""
    used: set[int] = field(default_factory=set)
    """Inodes of the earlier backup that the draft links to; filled only if that backup has hard links."""
    hard_links: int = 0
    separate: list[str] = field(default_factory=list)
    """Paths of hard links that had to be copied as separate files."""
    files: int = 0
    bytes: int = 0
    added: int = 0
    folders: int = 0
    links: int = 0
    links_out: int = 0
    incomplete: set[str] = field(default_factory=set)
    """Paths that could not be copied, or not completely."""
    missing: dict[int, str] = field(default_factory=dict)
    """Paths, by inode, that were listed and had disappeared before they were copied."""
    late: dict[str, str] = field(default_factory=dict)
    moved: int = 0
    """The number of late entries that are older than this backup: moved, not uploaded meanwhile."""
    is_late: bool = False
    started: int = field(default_factory=time.time_ns)
    warnings: list[str] = field(default_factory=list)
    list: Hash = field(default_factory=hashlib.sha256)

    def facts(self) -> UploadsFacts:
        if (more := len(self.incomplete) - _MOST_WARNINGS) > 0:
            self.add_warning(f"The same holds for {more} more.")
        return UploadsFacts(
            files=self.files,
            bytes=self.bytes,
            folders=self.folders,
            links=self.links,
            links_out=self.links_out,
            attributes=self.keeper.kept + self.keeper.lost,
            hard_links=self.hard_links + len(self.separate),
            tree=self.list.hexdigest(),
            warnings=tuple(self.warnings),
        )

    def warn(self, path: str, reason: str) -> None:
        """Warn of a path that is not, or not completely, in the backup; the first hundred get a warning each."""
        self.incomplete.add(path)
        if len(self.incomplete) <= _MOST_WARNINGS:
            self.add_warning(f"{printable(path)} {reason}")

    def warn_of_not_held(self, path: str, error: _NotHeld) -> None:
        """Warn of a path that the file system of the backups cannot hold."""
        if self.separate[-1:] == [path]:
            self.separate.pop()
        self.warn(path, str(error))

    def add_warning(self, text: str) -> None:
        """Emit a warning, and keep it for the metadata."""
        self.warnings.append(text)
        self.emit(Warned(text))

    def end_ordered_walk(self) -> None:
        """End the ordered walk: from here on no file is looked up in the earlier backup, or recorded."""
        self.is_late, self.earlier = True, None

    def warn_of_missing(self) -> None:
        """Emit one warning for all files that disappeared."""
        if paths := sorted(self.missing.values()):
            text = "disappeared before being copied: deleted, or moved out of the uploads."
            self.add_warning(f"{first_of(paths)} {text}")

    def warn_of_lost(self) -> None:
        """Warn of attributes and hard links that the file system of the backups could not keep."""
        if self.keeper.lost:
            self.add_warning(self.keeper.sentence("the backups"))
        if self.separate:
            self.add_warning(
                f"{len(self.separate)} hard links are separate files in the backup, because they cannot be linked "
                f"there; the first is {printable(self.separate[0])}."
            )

    def is_part_of_database(self, path: str) -> bool:
        """Return whether the path is that of a sidecar of a copied database."""
        return path.endswith(SIDECARS) and path.rpartition("-")[0] in self.databases

    def enter(self, path: str) -> None:
        self.folders += 1
        self.list.update(walk.line_of("folder", path))

    def link(self, path: str, target: str) -> None:
        self.links += 1
        self.links_out += walk.leads_out(self.root, path, target)
        self.list.update(walk.line_of("link", path, target))

    def file(
        self, path: str, facts: os.stat_result, checksum: str, added: int, attributes: int, size: int | None = None
    ) -> None:
        """Count and record a file of the draft; `added` bytes of it were copied, not linked. `size` is the copy's."""
        if facts.st_nlink > 1:
            self.named.setdefault(tree.inode(facts), _LinkedFile(path, facts, checksum, attributes))
        self.files += 1
        self.bytes += facts.st_size if size is None else size
        self.added += added
        self.list.update(walk.line_of("file", path))
        if self.is_late:
            self.late[path] = checksum
        else:
            self.record(path, facts, checksum, attributes)


def _copy_folder(folders: _Folders, first: _Level, copying: _Copying) -> None:
    """Copy the contents of the current folder, and of every folder below it; set a folder's own attributes last."""
    levels = [first]
    while levels:
        level = levels[-1]
        listed = next(level.names, None)
        if listed is None:
            disk.set_what_it_keeps(folders.target.handle, level.facts)
            copying.keeper.set(folders.target.handle, level.attributes, level.path or "the folder itself")
            levels.pop()
            if levels:
                folders.leave()
        elif inner := _try_entry(folders, *listed, level, copying):
            levels.append(inner)


def _copy_late_arrivals(folders: _Folders, copying: _Copying) -> bool:
    """Copy what is live and not in the draft yet; return whether any of it was moved there, or disappeared again.

    The names are compared folder by folder: the times of a folder that changed twice in one clock tick do not show it.
    """
    before, missing, levels = copying.moved, set(copying.missing), [_reopen_level(folders, "")]
    while levels:
        level, drafted = levels[-1]
        listed = next(level.names, None)
        if listed is None:
            levels.pop()
            if levels:
                folders.leave()
            continue
        name, inode = listed
        path = f"{level.path}{name}"
        if name in drafted:
            copying.missing.pop(inode, None)
            if drafted[name] and _enter_both(folders, name):
                levels.append(_reopen_level(folders, f"{path}/"))
        elif path not in copying.incomplete:
            if inner := _try_entry(folders, name, inode, level, copying):
                _copy_folder(folders, inner, copying)
                folders.leave()
            disk.set_what_it_keeps(folders.target.handle, level.facts)
    return copying.moved > before or not copying.missing.keys() <= missing


def _reopen_level(folders: _Folders, path: str) -> tuple[_Level, dict[str, bool]]:
    """Return the level of the live folder, and the names in the draft's, each with whether it is a folder."""
    with os.scandir(folders.target.handle_to_list()) as drafted:
        names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in drafted}
    return _level_of(folders.source, path), names


def _enter_both(folders: _Folders, name: str) -> bool:
    """Enter the folder of this name and return True; return False unless it is one both live and in the draft."""
    try:
        folders.source.enter(name)
    except OSError:
        return False
    try:
        folders.target.enter(name)
    except NotADirectoryError:
        folders.source.leave()
        return False
    folders.before.enter(name)
    return True


class _Level(Struct, frozen=True):
    """A folder that is being copied: its path with a trailing slash, live facts, and the names still to copy.

    Each name comes with its inode.
    """

    path: str
    facts: os.stat_result
    attributes: Attributes
    names: Iterator[tuple[str, int]]
    in_use: frozenset[str]
    """Names with a WAL or journal beside them, like those of a database in use."""


def _level_of(source: tree.OpenFolder, path: str) -> _Level:
    """Return the level of the open live folder; `path` has a trailing slash."""
    names = _sorted_names(source)
    in_use = frozenset(name.rpartition("-")[0] for name, _ in names if name.endswith(_IN_USE))
    return _Level(path, source.facts(), attributes.of_open(source.handle), iter(names), in_use)


def _sorted_names(folder: tree.OpenFolder) -> list[tuple[str, int]]:
    """Return the names in the open folder, sorted, each with its inode."""
    try:
        with os.scandir(folder.handle_to_list()) as found:
            return sorted((entry.name, entry.inode()) for entry in found)
    except OSError as error:
        error.filename = os.path.join(folder.root, folder.path)
        raise


def _try_entry(folders: _Folders, name: str, inode: int, level: _Level, copying: _Copying) -> _Level | None:
    """Call `_copy_entry`; note an entry that disappeared, warn of an unreadable one. Errors of the draft get a path."""
    path = f"{level.path}{name}"
    try:
        inner = _copy_entry(folders, name, path, level, copying)
    except live_file.Gone:
        copying.missing[inode] = path
        return None
    except live_file.Unreadable as error:
        copying.warn(path, f"cannot be read ({error}), and is not in the backup.")
        return None
    except _NotHeld as error:
        copying.warn_of_not_held(path, error)
        return None
    except OSError as error:
        if not isinstance(error, disk.ReadError):
            error.filename = f"{folders.target.root}/{path}"
        raise
    copying.missing.pop(inode, None)
    return inner


def _copy_entry(folders: _Folders, name: str, path: str, within: _Level, copying: _Copying) -> _Level | None:
    """Copy one entry to the draft. Make and enter a folder, and return its level: the caller copies its contents."""
    facts = live_file.call(os.stat, name, dir_fd=folders.source.handle, follow_symlinks=False)
    if copying.skip(path, facts, within.facts) or copying.is_part_of_database(path):
        return None
    copying.moved += copying.is_late and facts.st_mtime_ns < copying.started
    form = tree.form_of(facts.st_mode)
    if form == "folder":
        return _begin_folder(folders, name, path, facts, copying)
    if form == "link":
        _copy_link(folders, name, path, facts, copying)
    elif form == "special":
        copying.warn(path, "is a socket, a fifo or a device, and is not in the backup.")
    elif name in within.in_use and _copy_database(folders, name, path, facts, copying):
        pass
    elif not _link_in_draft(folders, name, path, facts, copying) and not _link_unchanged(
        folders, name, path, facts, copying
    ):
        _copy_file(folders, name, path, facts, copying)
    return None


def _copy_link(folders: _Folders, name: str, path: str, facts: os.stat_result, copying: _Copying) -> None:
    pointed = _read_link(name, folders.source.handle)
    with _making(folders, "link"):
        os.symlink(pointed, name, dir_fd=folders.target.handle)
    owner, times = (facts.st_uid, facts.st_gid), (facts.st_atime_ns, facts.st_mtime_ns)
    with descriptors.keeping_what_it_can():
        descriptors.set_link_attributes(name, folders.target.handle, owner, times)
    copying.link(path, pointed)


@contextmanager
def _making(folders: _Folders, form: tree.Form) -> Iterator[None]:
    """Raise `_NotHeld` if the block cannot make an entry in the draft because of its name, or because it is a link."""
    try:
        yield
    except OSError as error:
        if not held.is_refused(error, form, Path(folders.target.root, folders.target.path)):
            raise
        raise _NotHeld((_LINK_NOT_HELD if form == "link" else _NAME_NOT_HELD).format(why=error.strerror)) from error


def _copy_database(folders: _Folders, name: str, path: str, facts: os.stat_result, copying: _Copying) -> bool:
    """Copy a snapshot of the database, including its WAL, to the draft; return False if SQLite cannot read it."""
    if len(os.fsencode(path)) > _LONGEST or any("\udc80" <= letter <= "\udcff" for letter in path):
        return False  # SQLite cannot open the path, or the metadata cannot store it
    target = Path(folders.target.root, path)
    made = target.with_name(f"{disk.DRAFT_PREFIX}{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}")
    try:
        found = copying.take_database(Path(folders.source.root, path), made)
        if found is None:
            return False
        with disk.Opened(made, os.O_RDWR | os.O_NOFOLLOW) as copied:
            disk.set_what_it_keeps(copied, facts)
            before = copying.keeper.kept
            copying.keeper.set(copied, live_file.call(attributes.of_name, name, folders.source.handle), path)
            size = os.fstat(copied).st_size
        _name_in_draft(folders, made.name, name)
    finally:
        for left in (made, *(made.with_name(made.name + end) for end in SIDECARS)):
            left.unlink(missing_ok=True)
    copying.databases[path] = found
    copying.advance(size)
    copying.file(path, facts, found.sha256, size, copying.keeper.kept - before, size)
    return True


def _name_in_draft(folders: _Folders, made: str, name: str) -> None:
    """Give the file its name; a file whose name the file system takes for the same one is not replaced."""
    folder = folders.target.handle
    with _making(folders, "file"):
        if not descriptors.rename_to_free(made, folder, name, folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _begin_folder(folders: _Folders, name: str, path: str, facts: os.stat_result, copying: _Copying) -> _Level:
    level = replace(_enter_live(folders.source, name, f"{path}/"), facts=facts)
    try:
        with _making(folders, "folder"):
            os.mkdir(name, 0o700, dir_fd=folders.target.handle)
    except _NotHeld:
        folders.source.leave()
        raise
    folders.target.enter(name)
    folders.before.enter(name)
    copying.enter(path)
    return level


def _enter_live(source: tree.OpenFolder, name: str, path: str) -> _Level:
    """Enter the live folder and return its level; on an error the current folder stays the same."""
    try:
        source.enter(name)
    except OSError as error:
        raise live_file.translate_error(error) from error
    try:
        return _level_of(source, path)
    except OSError as error:
        source.leave()
        raise live_file.translate_error(error) from error


def _read_link(name: str, source: int) -> str:
    try:
        return os.readlink(name, dir_fd=source)
    except OSError as error:
        raise (
            live_file.Gone if error.errno == errno.EINVAL else live_file.translate_error(error)
        ) from error  # no longer a link


def _link_in_draft(folders: _Folders, name: str, path: str, facts: os.stat_result, copying: _Copying) -> bool:
    """Link a file that the draft has under another name, and return True; else return False."""
    first = copying.named.get(tree.inode(facts)) if facts.st_nlink > 1 else None
    if first is None or tree.signature(facts)[:2] != tree.signature(first.facts)[:2]:
        return False
    with copying.drafted.of(first.path) as (folder, known):
        is_linked = descriptors.link(known, folder, name, folders.target.handle)
    if not is_linked:
        copying.separate.append(path)
        return False
    copying.hard_links += 1
    copying.keeper.kept += first.attributes
    copying.file(path, first.facts, first.checksum, 0, first.attributes)
    return True


def _link_unchanged(folders: _Folders, name: str, path: str, facts: os.stat_result, copying: _Copying) -> bool:
    """Link the earlier backup's copy of this file into the draft, and return True; return False if it differs."""
    before = folders.before.handle
    if before is None or copying.earlier is None:
        return False
    seen = copying.earlier.find(path)
    kept = _matching_sealed_copy(name, before, facts) if seen else None
    if seen is None or kept is None or kept.st_ino in copying.used:
        return False
    still_matches = seen.still_matches(facts)
    if not still_matches and not _is_of_content(name, folders.source.handle, facts, seen.checksum):
        return False
    known = seen.attributes if still_matches and copying.earlier.keeps_attributes else None
    found = _count_kept_attributes(folders, name, path, known, copying)
    if found is None:
        return False
    try:
        os.link(name, name, src_dir_fd=before, dst_dir_fd=folders.target.handle, follow_symlinks=False)
    except OSError:
        return False  # too many links to one file, or a file system without them
    if copying.earlier.has_hard_links:
        copying.used.add(kept.st_ino)
    if path in copying.earlier.databases:
        copying.databases[path] = None
    copying.file(path, facts, seen.checksum, 0, found)
    return True


def _matching_sealed_copy(name: str, folder: int, facts: os.stat_result) -> os.stat_result | None:
    """Return the facts of the sealed copy if it has the mode, size, mtime and, as root, owner of the live file."""
    try:
        kept = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    given, owner = (kept.st_uid, kept.st_gid), (facts.st_uid, facts.st_gid)
    same_owner = given == owner or os.geteuid() != 0
    same_mode = kept.st_mode == facts.st_mode or kept.st_mode == descriptors.mode_for(given, owner, facts.st_mode)
    alike = same_mode and kept.st_size == facts.st_size and kept.st_mtime_ns == facts.st_mtime_ns
    return kept if alike and same_owner else None


def _count_kept_attributes(folders: _Folders, name: str, path: str, known: int | None, copying: _Copying) -> int | None:
    """Return the number of attributes of the sealed copy, or None unless it has all that the backups can keep.

    `known` is that number if the live file certainly still has the same.
    """
    if known is not None:
        copying.keeper.kept += known
        return known
    assert folders.before.handle is not None
    live = live_file.call(attributes.of_name, name, folders.source.handle)
    with suppress(OSError):
        sealed = attributes.of_name(name, folders.before.handle)
        if sealed == copying.keeper.can_keep(live):
            copying.keeper.count(live, sealed, path)
            return len(sealed)
    return None


def _is_of_content(name: str, folder: int, facts: os.stat_result, checksum: str) -> bool:
    with live_file.opened(name, folder) as handle:
        try:
            same = disk.hash_contents(handle) == checksum
        except disk.ReadError as error:
            raise live_file.translate_error(error) from error
        return same and tree.signature(live_file.facts_of(handle)) == tree.signature(facts)


def _copy_file(folders: _Folders, name: str, path: str, facts: os.stat_result, copying: _Copying) -> None:
    """Copy a file, which had these facts a moment ago, with its attributes."""
    source = folders.source.handle
    small = live_file.read_small(name, source, facts)
    begins = small.content if small else live_file.read_first_bytes(name, source, len(_MAGIC))
    if begins.startswith(_MAGIC) and _copy_database(folders, name, path, facts, copying):
        return
    before = copying.keeper.kept
    with _making(folders, "file"):
        opened = disk.Opened(name, _NEW, folders.target.handle)
    with opened as copied:
        try:
            if small:
                written = live_file.write_small(small, copied)
                copying.advance(len(small.content))
            else:
                written = live_file.copy_until_stable(name, source, copied, copying.advance)
            copying.keeper.set(copied, written.attributes, path)
        except BaseException:
            os.unlink(name, dir_fd=folders.target.handle)
            raise
    if not written.is_stable:
        copying.warn(
            path, "changed in every attempt to copy it; the backup has the last copy, which may mix two states."
        )
    copying.file(path, written.facts, written.checksum, written.facts.st_size, copying.keeper.kept - before)
