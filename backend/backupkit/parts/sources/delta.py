"""What differs between the live uploads and the wanted tree: found, staged inside the live folder, put in place.

Staged inside, because a rename crosses no mount. Each step can be repeated: what is staged no more was put in place
already. A live file is removed or replaced only while it is as the safety copy has it, so nothing is lost that
arrived in between.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from backupkit.ground import disk, tree
from backupkit.ground.tree import Entry
from backupkit.parts.index import Earlier
from backupkit.parts.selection import Selection
from backupkit.words.events import Listener, Progress, Step, Warned, silence
from backupkit.words.model import STAGING
from backupkit.words.names import shown

OPERATIONS = "operations"

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

Action = Literal["add", "change", "remove", "dress"]


@dataclass(frozen=True)
class Places:
    """The live folder and the wanted tree; trees that hold copies of what is live; an owner for all, or none."""

    live: Path
    wanted: Path
    copies: tuple[Path, ...] = ()
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not as wanted: what is there now, what shall be."""

    action: Action
    live: Entry | None
    wanted: Entry | None

    @property
    def path(self) -> str:
        entry = self.wanted or self.live
        assert entry is not None
        return entry.path

    @property
    def brings(self) -> bool:
        """Whether a file or link must be staged for it."""
        return self.action in ("add", "change") and self.wanted is not None and self.wanted.form in ("file", "link")


@dataclass(frozen=True)
class Summary:
    """What a restore will do to the uploads: numbers of files and links, bytes to stage, and what cannot be read."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    bytes: int = 0
    unreadable: tuple[str, ...] = ()


def differences(
    live: Path,
    wanted: Path,
    same_owner: bool,
    selection: Selection,
    unreadable: tree.Unreadable,
    earlier: Earlier | None = None,
    tell: Listener = silence,
) -> Iterator[Difference]:
    """Every path that is not as wanted. Files of one size are compared by content: a kept time proves nothing.

    But not where the earlier backup has the wanted file, and has seen the live one as it is now. What is no upload
    where it is, or would be, is left out. So is what is live and cannot be read, which `unreadable` is told of, and
    what would be below it: no copy can be made of it, so it stays.
    """
    done = 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        tell(Progress(done))

    comparison = _Comparison(live, wanted, same_owner, earlier, read)
    for one, two in _side_by_side(live, wanted, selection, unreadable):
        try:
            difference = _difference(comparison, one, two)
        except _Unreadable as error:
            unreadable(error.path, error.cause)
            continue
        if difference:
            yield difference


class _Unreadable(Exception):
    """A live file cannot be read, for that cause."""

    def __init__(self, path: str, cause: OSError) -> None:
        super().__init__(path)
        self.path, self.cause = path, cause


def summarise(found: Iterable[Difference], live: Path) -> tuple[Summary, Path | None]:
    """The numbers a person wants to see, folders not counted; and a folder that may not be written to and must be."""
    numbers: Counter[str] = Counter()
    needed, closed, looked_at = 0, None, None
    for one in found:
        entry = one.wanted or one.live
        numbers[one.action] += entry is not None and entry.form != "folder"
        needed += tree.content_size(one.wanted.facts) if one.brings and one.wanted else 0
        folder = (live / one.path).parent
        if closed is None and one.action != "dress" and folder != looked_at:
            looked_at = folder
            closed = folder if _is_closed(folder) else None
    return Summary(numbers["add"], numbers["change"], numbers["remove"], needed), closed


def _is_closed(folder: Path) -> bool:
    return os.path.isdir(folder) and not os.path.islink(folder) and not os.access(folder, os.W_OK | os.X_OK)


def stage(found: Iterable[Difference], places: Places, total: int | None = None, tell: Listener = silence) -> None:
    """What is needed lies in the staging folder with the list of what to do; not yet synced. `total` is in bytes."""
    staging = places.live / STAGING
    staging.mkdir(mode=0o700, exist_ok=True)  # the database may be staged in the same place
    tell(Step("Staging the uploads", total))
    done = 0
    with open(staging / OPERATIONS, "w", encoding="ascii") as operations:
        for number, one in enumerate(found):
            if one.live and not _is_kept(one.live, places.copies):
                tell(Warned(f"{shown(one.path)} came or changed during the restore, and stays as it is."))
                continue
            if one.brings and one.wanted:
                done += _stage_one(places, f"{staging}/{number}", one.wanted)
                tell(Progress(done))
            operations.write(json.dumps(_operation(one, number, places.owner)) + "\n")


def apply(live: Path, tell: Listener = silence) -> None:
    """The uploads are as wanted, and on disk. Can be repeated; with no staging there is nothing to do."""
    if not (live / STAGING / OPERATIONS).exists():
        return
    tell(Step("Restoring the uploads", unit="files"))
    with closing(_Parents(live)) as parents:
        for one in _operations_backwards(live):  # what is in a folder before the folder
            if one.action == "remove" or one.clash:
                _remove(parents, one, tell)
    with closing(_Parents(live)) as parents:
        for one in _operations(live):
            if one.action != "remove":
                _put(parents, one, tell)
        for one in _operations_backwards(live):  # its times last, when nothing in it changes any more
            if one.action != "remove" and one.form == "folder":
                _dress_folder(parents, one, tell)
    disk.sync_tree(live)


def unstage(live: Path) -> None:
    """Nothing of ours is left in the live folder."""
    if live.is_dir():
        disk.remove_tree(live / STAGING)


def _side_by_side(
    live: Path, wanted: Path, selection: Selection, unreadable: tree.Unreadable
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Both walks, entry beside entry of the same path."""
    closed: set[str] = set()

    def cannot_read(path: str, error: OSError) -> None:
        closed.add(path)
        unreadable(path, error)

    left = tree.walk(live, skip=selection.leaves_out, unreadable=cannot_read) if live.is_dir() else iter(())
    right = tree.walk(wanted)
    one, two = next(left, None), next(right, None)
    while one or two:
        if one and two and one.path == two.path:
            yield one, two
            one, two = next(left, None), next(right, None)
        elif two is None or (one is not None and one.key < two.key):
            yield one, None
            one = next(left, None)
        else:
            is_closed = closed and any(place in closed for place in tree.with_parents(two.path))
            if not is_closed and not selection.leaves_out_wanted(two.path):
                yield None, two
            two = next(right, None)


@dataclass(frozen=True)
class _Comparison:
    """What is compared, and by what: `read` hears of the bytes that had to be read."""

    live: Path
    wanted: Path
    same_owner: bool
    earlier: Earlier | None
    read: Callable[[int], None]


def _difference(comparison: _Comparison, one: Entry | None, two: Entry | None) -> Difference | None:
    if two is None:
        return None if one is None or one.form == "special" else Difference("remove", one, None)
    if one is None:
        return Difference("add", None, two)
    if one.form != two.form:
        return Difference("change", one, two)
    if one.form == "link" and one.target != two.target:
        return Difference("change", one, two)
    if one.form == "file" and not _same_content(comparison, one, two):
        return Difference("change", one, two)
    if one.form == "folder":
        return Difference("dress", one, two)  # always: its times change with what is put into it
    return None if _dressed_alike(one.facts, two.facts, comparison.same_owner) else Difference("dress", one, two)


def _same_content(comparison: _Comparison, one: Entry, two: Entry) -> bool:
    if one.facts.st_size != two.facts.st_size:
        return False
    if _is_known(comparison.earlier, one, two):
        return True
    try:
        live = disk.Opened(f"{comparison.live}/{one.path}", _FILE)
    except OSError as error:
        raise _Unreadable(one.path, error) from error
    with live as left, disk.Opened(f"{comparison.wanted}/{two.path}", _FILE) as right:
        try:
            return disk.same_open(left, right, comparison.read)
        except disk.ReadError as error:
            if error.handle != left:
                raise
            raise _Unreadable(one.path, error) from error


def _is_known(earlier: Earlier | None, one: Entry, two: Entry) -> bool:
    """Whether both are what the earlier backup copied: the live one as it was seen, the wanted one as that inode."""
    seen = earlier.find(one.path) if earlier else None
    if earlier is None or seen is None or not seen.is_now(one.facts):
        return False
    with suppress(OSError):
        return os.path.samestat(os.lstat(f"{earlier.uploads}/{one.path}"), two.facts)
    return False


def _dressed_alike(one: os.stat_result, two: os.stat_result, same_owner: bool) -> bool:
    if stat.S_IMODE(one.st_mode) != stat.S_IMODE(two.st_mode) or one.st_mtime_ns != two.st_mtime_ns:
        return False
    return not same_owner or os.geteuid() != 0 or (one.st_uid, one.st_gid) == (two.st_uid, two.st_gid)


def _is_kept(live: Entry, copies: tuple[Path, ...]) -> bool:
    """Whether a copy has what is there, so that it may be replaced."""
    return live.form == "folder" or any(_is_copy(live, tree.look(copy, live.path)) for copy in copies)


def _is_copy(live: Entry, kept: Entry | None) -> bool:
    if kept is None or kept.form != live.form or kept.target != live.target:
        return False
    return tree.signature(kept.facts)[:2] == tree.signature(live.facts)[:2]


def _stage_one(places: Places, staged: str, wanted: Entry) -> int:
    if wanted.form == "file":
        return disk.copy_file(f"{places.wanted}/{wanted.path}", staged, dressed=True, owner=places.owner)
    os.symlink(wanted.target, staged)
    disk.dress(Path(staged), wanted.facts)
    if places.owner:
        disk.give(Path(staged), places.owner)
    return 0


class _Operation(NamedTuple):
    """A line of the list in the staging folder: all that `apply` needs to know."""

    action: Action
    path: str
    form: tree.Form
    clash: bool
    staged: str | None
    seen: list[int] | None
    mode: int
    owner: list[int]
    time: int


def _operation(one: Difference, number: int, owner: tuple[int, int] | None) -> _Operation:
    entry = one.wanted or one.live
    assert entry is not None
    return _Operation(
        action=one.action,
        path=one.path,
        form=entry.form,
        clash=bool(one.live and one.wanted and one.live.form != one.wanted.form),
        staged=str(number) if one.brings else None,
        seen=list(tree.signature(one.live.facts)) if one.live and one.live.form != "folder" else None,
        mode=stat.S_IMODE(entry.facts.st_mode),
        owner=list(owner or (entry.facts.st_uid, entry.facts.st_gid)),
        time=entry.facts.st_mtime_ns,
    )


def _operations(live: Path) -> Iterator[_Operation]:
    with open(live / STAGING / OPERATIONS, encoding="ascii") as lines:
        yield from (_Operation(*json.loads(line)) for line in lines)


def _operations_backwards(live: Path) -> Iterator[_Operation]:
    with open(live / STAGING / OPERATIONS, "rb") as lines:
        yield from (_Operation(*json.loads(line)) for line in disk.lines_backwards(lines))


def _remove(parents: _Parents, one: _Operation, tell: Listener) -> None:
    # A repeated run finds a file where the folder was that this was in.
    with suppress(FileNotFoundError, NotADirectoryError), parents.of(one.path) as (folder, name):
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode):
            _remove_folder(name, folder)
        elif not _in_place(parents.live, one) and _as_seen(there, one, tell):
            os.unlink(name, dir_fd=folder)


def _remove_folder(name: str, within: int) -> None:
    try:
        os.rmdir(name, dir_fd=within)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            raise
        # Something is in it again, or it is a mount: it stays.


def _in_place(live: Path, one: _Operation) -> bool:
    return one.staged is not None and not os.path.lexists(f"{live}/{STAGING}/{one.staged}")


def _put(parents: _Parents, one: _Operation, tell: Listener) -> None:
    with parents.of(one.path) as (folder, name):
        if one.form == "folder":
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)
        elif one.staged is None:
            _dress(folder, name, one, tell)
        elif not _in_place(parents.live, one):
            _place(parents.live / STAGING / one.staged, folder, name, one, tell)


def _place(staged: Path, folder: int, name: str, one: _Operation, tell: Listener) -> None:
    with suppress(FileNotFoundError):
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not one.clash and not _as_seen(there, one, tell):
            return
    try:
        os.rename(staged, name, dst_dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _carry_over(staged, folder, name, one, tell)


def _carry_over(staged: Path, folder: int, name: str, one: _Operation, tell: Listener) -> None:
    """Into another mount inside the uploads folder: copied beside its place, made durable there, then renamed."""
    beside = f"{STAGING}-{staged.name}"
    with suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=folder)  # of a killed run
    if staged.is_symlink():
        os.symlink(os.readlink(staged), beside, dir_fd=folder)
    else:
        disk.copy_file_to(staged, folder, beside)
    _dress(folder, beside, one, tell)
    os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
    os.unlink(staged)


def _as_seen(there: os.stat_result, one: _Operation, tell: Listener) -> bool:
    """Whether the live file is still what the safety copy has; if not, it stays, and the person is told."""
    if one.seen is not None and list(tree.signature(there)) == one.seen:
        return True
    tell(Warned(f"{shown(one.path)} came or changed during the restore, and stays as it is."))
    return False


def _dress_folder(parents: _Parents, one: _Operation, tell: Listener) -> None:
    with parents.of(one.path) as (folder, name):
        _dress(folder, name, one, tell)


def _dress(folder: int, name: str, one: _Operation, tell: Listener) -> None:
    """Owner, mode and time as wanted; what is another user's stays as it is, and the person is told."""
    with suppress(FileNotFoundError):
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if _is_dressed(there, one):
            return
        try:
            _dress_now(folder, name, one)
        except PermissionError:
            tell(Warned(f"{shown(one.path)} belongs to another user, and keeps its mode and time."))


def _dress_now(folder: int, name: str, one: _Operation) -> None:
    if os.geteuid() == 0:
        os.chown(name, *one.owner, dir_fd=folder, follow_symlinks=False)
    if one.form != "link":
        os.chmod(name, one.mode, dir_fd=folder)
    os.utime(name, ns=(one.time, one.time), dir_fd=folder, follow_symlinks=False)


def _is_dressed(there: os.stat_result, one: _Operation) -> bool:
    alike = stat.S_IMODE(there.st_mode) == one.mode and there.st_mtime_ns == one.time
    return alike and (os.geteuid() != 0 or [there.st_uid, there.st_gid] == one.owner)


class _Parents:
    """The open folder that holds a path, kept open for the next path in it; no link on the way is followed."""

    def __init__(self, live: Path) -> None:
        self.live = live
        self._folder = tree.OpenFolder(live)

    @contextmanager
    def of(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder, and the name of the path in it."""
        below, _, name = path.rpartition("/")
        try:
            yield self._folder.go(below), name
        except OSError as error:
            error.filename = str(self.live / path)  # the system knew only the last name of it
            raise

    def close(self) -> None:
        self._folder.close()
