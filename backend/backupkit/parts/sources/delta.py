"""What differs between the live uploads and the wanted tree: found, and staged inside the live folder.

Staged inside, because a rename crosses no mount. `delta_apply` puts it in place. A live file is removed or replaced
only if a copy has it, so nothing is lost that arrived in between.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from backupkit.ground import descriptors, disk, tree
from backupkit.ground.tree import Entry
from backupkit.parts import staging_area
from backupkit.parts.index import Earlier
from backupkit.parts.selection import Selection
from backupkit.parts.sources.delta_apply import OPERATIONS, Action, Operation, write_operation
from backupkit.words.events import Listener, Progress, Step, Warned, silence
from backupkit.words.names import shown

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


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
        if two and two.form == "special":
            continue  # in a folder that a person made a backup of: it cannot be put back
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


def stage(
    found: Iterable[Difference], places: Places, restore: str, total: int | None = None, tell: Listener = silence
) -> None:
    """What is needed lies in the staging area of that restore, with the list of what to do; not yet synced.

    `total` is in bytes.
    """
    tell(Step("Staging the uploads", total))
    done = 0
    with (
        staging_area.opened(places.live, "uploads", restore) as area,
        descriptors.naming(staging_area.place_of(places.live, "uploads")),
        disk.Opened(OPERATIONS, _NEW, area.folder) as handle,
        open(handle, "wb", closefd=False) as operations,
        closing(tree.Parents(places.wanted)) as wanted,
    ):
        for number, one in enumerate(found):
            if one.live and not _is_kept(one.live, places.copies):
                tell(Warned(f"{shown(one.path)} came or changed during the restore, and stays as it is."))
                continue
            if one.brings and one.wanted:
                done += _stage_one(wanted, one.wanted, area.folder, str(number), places.owner)
                tell(Progress(done))
            write_operation(operations, _operation(one, number, places.owner))


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


def _stage_one(wanted: tree.Parents, entry: Entry, folder: int, staged: str, owner: tuple[int, int] | None) -> int:
    with wanted.of(entry.path) as (within, name):
        if entry.form == "file":
            return disk.copy_file(name, staged, dressed=True, owner=owner, within=(within, folder))
    os.symlink(entry.target, staged, dir_fd=folder)
    if os.geteuid() == 0:
        facts = entry.facts
        os.chown(staged, *(owner or (facts.st_uid, facts.st_gid)), dir_fd=folder, follow_symlinks=False)
    os.utime(staged, ns=(entry.facts.st_mtime_ns,) * 2, dir_fd=folder, follow_symlinks=False)
    return 0


def _operation(one: Difference, number: int, owner: tuple[int, int] | None) -> Operation:
    entry = one.wanted or one.live
    assert entry is not None
    return Operation(
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
