"""Find how the live uploads differ from the wanted tree, and stage the difference inside the live folder.

Inside, because a rename cannot cross file systems. `apply` puts it in place. A live file is removed or replaced only
if a copy holds it, so a file that arrived in between is not lost. Each file of a sealed tree is compared with its
checksum while it is staged; a file whose content is live already is not staged.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from backupkit.fs import attributes, descriptors, disk, held, mounts, small_file, staging_area, tree
from backupkit.fs.attributes import Attributes, Keeper
from backupkit.fs.small_file import SmallFile
from backupkit.fs.tree import Entry
from backupkit.model.events import PROGRESS_STEP, EventListener, Step, Warned, adding_up, silence
from backupkit.model.names import printable
from backupkit.repository import manifest
from backupkit.repository.files_cache import CachedFile, ParentBackup
from backupkit.upload_files import walk
from backupkit.upload_files.apply import OPERATIONS, Action, Operation, encoded, write_operation
from backupkit.upload_files.archiver import SIDECARS
from backupkit.upload_files.choice import Chosen
from backupkit.upload_files.selection import Selection

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
MOST_PLANNED = 1000  # differences that a plan keeps in memory; each takes about a kilobyte

_Copied = tuple[os.stat_result, Attributes]
"""The facts and attributes of the file that was copied."""

Sealed = Callable[[str], str | None]
"""Returns the SHA-256 that a file of the wanted tree was sealed with; paths must come in the order of a walk."""


class Altered(Exception):
    """A file of the wanted tree is not as it was sealed; `what` says what is wrong with it."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path, self.what = path, what


class DiffPaths(Struct, frozen=True):
    """The live folder, the wanted tree, and trees that hold copies of the live files.

    `owner` is given to every staged entry; None keeps the owners of the wanted tree.
    """

    live: Path
    wanted: Path
    copies: tuple[Path, ...] = ()
    owner: tuple[int, int] | None = None
    has_attributes: bool = True
    """False if it is known that nothing in the wanted tree has extended attributes."""


class Traits(Struct, frozen=True):
    """What to restore of a wanted tree, in addition to contents, modes and times.

    `hard_links` is whether names of one inode are names of one file, or None if that is not known.
    `lost` says what the tree no longer has of what was sealed.
    """

    owners: bool = True
    attributes: bool = False
    hard_links: bool | None = None
    lost: str = ""
    has_attributes: bool = True
    """False if no file or folder of the tree has any extended attribute."""
    missing_rights: tuple[str, ...] = ()
    """Which of modes and owners the tree has lost: with modes, live entries keep theirs (`_LiveModes`)."""


class Difference(Struct, frozen=True):
    """A path that is not as wanted, with its live and its wanted entry.

    `attributes` is whether to set the extended attributes of the wanted entry; else they stay. `same_as` is the path
    of which this is another hard link, and `may_repeat` whether other names of this one may follow. `checksum` is the
    sealed one, or None if the tree was not sealed.
    """

    action: Action
    live: Entry | None
    wanted: Entry | None
    attributes: bool = False
    same_as: str = ""
    checksum: str | None = None
    may_repeat: bool = False

    @property
    def path(self) -> str:
        entry = self.wanted or self.live
        assert entry is not None
        return entry.path

    @property
    def is_new_folder(self) -> bool:
        """Whether it is a folder to make where nothing exists."""
        return self.live is None and self.wanted is not None and self.wanted.form == "folder"

    @property
    def needs_content(self) -> bool:
        """Whether a file or link must be staged for it."""
        return self.action in ("add", "change") and self.wanted is not None and self.wanted.form in ("file", "link")


class Planned(Struct, frozen=True):
    """The differences that a plan found, and the digests of the live files that it found them in.

    They are used again, without another comparison, if the safety copy finds the same live files.
    """

    differences: tuple[Difference, ...]
    seen: walk.Seen


class Summary(Struct, frozen=True):
    """The changes of a restore to the uploads: numbers of files and links, bytes to stage, and unreadable paths."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    bytes: int = 0
    unreadable: tuple[str, ...] = ()
    in_use: tuple[str, ...] = ()
    """Databases in use that the wanted tree lacks; they stay."""
    with_new_rights: int = 0
    """Files, links and folders that are as wanted but for their mode or owner."""
    new_rights: str = ""
    """The first of these: its path, and what its mode or owner is and will be."""
    with_new_owner: int = 0
    """Files and links of other users that are replaced by ones of ours: not root, we cannot give files away."""
    in_mounts: tuple[tuple[Path, int], ...] = ()
    """Mounts inside the folder, each with the bytes that it must have free beside those of `bytes`."""


def differences(
    live: Path,
    wanted: Path,
    traits: Traits,
    selection: Selection,
    unreadable: tree.Unreadable,
    earlier: ParentBackup | None = None,
    emit: EventListener = silence,
    chosen: Chosen | None = None,
    databases: Collection[str] = (),
    stays: Callable[[str], None] = lambda _path: None,
    sealed: Sealed | None = None,
    met: Callable[[Entry], None] = lambda _live: None,
    reads_all: bool = False,
) -> Iterator[Difference]:
    """Yield every path that is not as wanted, or only the `chosen` ones if given; call `met` with each live entry.

    The `databases` and their sidecars are left out: they are restored by other means. A live database that is in use
    and that the wanted tree lacks stays, and `stays` is called with its path: its last rows may be in no copy.

    Files of one size are compared by content, since equal times prove nothing; unless the earlier backup has the
    wanted file, and has seen the live one as it is now. With a `sealed` tree only the live file is hashed, unless the
    earlier backup has seen it as it is now; a wanted file is read only if its mode, times or attributes are to be put
    back. Raise `Altered` for a wanted file that was not sealed, or is not as it was sealed. With `reads_all` each live
    file is read, whatever the earlier backup has seen: its content may have rotted on the disk. One that cannot be read
    differs then, if the earlier backup has seen it as it is now, and so has its content.

    What is not an upload at its place is left out. So is a live path that cannot be read, and what would be below it:
    nobody can copy it, so it stays, and `unreadable` is called with it.
    """
    with closing(_Comparison(live, wanted, traits, earlier, adding_up(emit), sealed, reads_all)) as comparison:
        pairs = _side_by_side(live, wanted, selection, unreadable, chosen)
        for one, two in chosen.pairs(pairs) if chosen else pairs:
            if one:
                met(one)
            if _is_of_database(one or two, databases):
                continue
            if one and not two and _is_in_use(live, wanted, one):
                stays(one.path)
                continue
            if two and two.form == "special":
                continue  # in a backup that was made by hand: it cannot be restored
            try:
                difference = comparison.of(one, two)
                if difference and difference.action != "dress" and one:
                    comparison.require_readable(one)
            except _Unreadable as error:
                comparison.forget(two)
                unreadable(error.path, error.cause)
                continue
            if difference:
                yield difference


def _is_of_database(entry: Entry | None, databases: Collection[str]) -> bool:
    if entry is None or not databases:
        return False
    return any(entry.path.removesuffix(end) in databases for end in ("", *SIDECARS))


def _is_in_use(live: Path, wanted: Path, one: Entry) -> bool:
    """Return whether it is a database with a WAL, or a sidecar of one, that the wanted tree lacks."""
    if one.form != "file":
        return False
    base = next((one.path.removesuffix(end) for end in SIDECARS if one.path.endswith(end)), one.path)
    is_wanted = tree.look(wanted, base) is not None
    return not is_wanted and tree.look(live, f"{base}-wal") is not None and tree.look(live, base) is not None


class _Unreadable(Exception):
    """A live file cannot be read."""

    def __init__(self, path: str, cause: OSError) -> None:
        super().__init__(path)
        self.path, self.cause = path, cause


def summarise(found: Iterable[Difference], live: Path, owners: bool) -> tuple[Summary, Path | None]:
    """Return the totals to show, and the first folder that must be written to but is read-only.

    Folders are counted only where their mode or owner changes; `owners` is whether owners are restored.
    """
    totals, closed, looked_at, rooms = _Totals(owners), None, None, _Rooms(live)
    for one in found:
        totals.add(one)
        rooms.add(one)
        below = one.path.rpartition("/")[0]
        if closed is None and one.action != "dress" and below != looked_at:
            looked_at = below
            closed = live / below if _is_read_only(live / below) else None
    return replace(totals.summary(), in_mounts=rooms.needed()), closed


def remembering(found: Iterable[Difference], kept: list[Difference]) -> Iterator[Difference]:
    """Yield the differences, and add them to `kept`: all of them, or one more than `MOST_PLANNED`."""
    for one in found:
        if len(kept) <= MOST_PLANNED:
            kept.append(one)
        yield one


class _Totals:
    """The differences so far, counted; `owners` is whether owners are restored."""

    def __init__(self, owners: bool) -> None:
        self._owners, self._numbers, self._needed, self._new_rights = owners, Counter[str](), 0, ""

    def add(self, one: Difference) -> None:
        entry = one.wanted or one.live
        self._numbers[one.action] += entry is not None and entry.form != "folder"
        self._numbers["owner"] += one.action == "change" and one.live is not None and _is_others(one.live.facts)
        self._needed += tree.content_size(one.wanted.facts) if one.needs_content and one.wanted else 0
        if rights := _new_rights(one, self._owners):
            self._numbers["rights"] += 1
            self._new_rights = self._new_rights or rights

    def summary(self) -> Summary:
        found = self._numbers
        counts = (found["add"], found["change"], found["remove"])
        return Summary(
            *counts,
            self._needed,
            with_new_rights=found["rights"],
            new_rights=self._new_rights,
            with_new_owner=found["owner"],
        )


class _Room:
    """What a mount inside the uploads must have free: files are copied there one by one, after others were removed."""

    def __init__(self, has_staging: bool) -> None:
        self._has_staging, self._removed, self._now, self._most = has_staging, 0, 0, 0

    def add(self, one: Difference) -> None:
        before = tree.content_size(one.live.facts) if one.live and one.live.facts.st_nlink == 1 else 0
        if one.action == "remove":
            self._removed += before
        elif one.needs_content and one.wanted:
            size = tree.content_size(one.wanted.facts)
            self._most = max(self._most, self._now + size)
            self._now += (0 if self._has_staging else size) - before

    @property
    def needed(self) -> int:
        return max(0, self._most - self._removed)


class _Rooms:
    """The rooms of all mounts inside the live uploads."""

    def __init__(self, live: Path) -> None:
        root = os.path.realpath(live)
        places = sorted(mounts.below(root) or (), key=len, reverse=True)  # the innermost first
        self._rooms = {f"{place[len(root) + 1 :]}/": _Room(_is_same_disk(place, root)) for place in places}
        self._live = live

    def add(self, one: Difference) -> None:
        if self._rooms and (room := next((self._rooms[at] for at in self._rooms if one.path.startswith(at)), None)):
            room.add(one)

    def needed(self) -> tuple[tuple[Path, int], ...]:
        return tuple((self._live / at, room.needed) for at, room in self._rooms.items() if room.needed)


def _is_same_disk(one: str, two: str) -> bool:
    with suppress(OSError):
        return os.stat(one).st_dev == os.stat(two).st_dev
    return False


def _is_others(facts: os.stat_result) -> bool:
    """Return whether it belongs to another user than this one, who is not root."""
    return os.geteuid() not in (0, facts.st_uid)


def _new_rights(one: Difference, owners: bool) -> str:
    """Return what changes of the mode or owner of an entry whose content stays, or an empty text."""
    if one.action != "dress" or not one.live or not one.wanted:
        return ""
    now, then = _rights(one.live.facts, owners), _rights(one.wanted.facts, owners)
    return f"{printable(one.path)}: {now} now, {then} then" if now != then else ""


def _rights(facts: os.stat_result, owners: bool) -> str:
    mode = stat.filemode(facts.st_mode)[1:]
    return f"{mode} of {facts.st_uid}:{facts.st_gid}" if owners and os.geteuid() == 0 else mode


def _is_read_only(folder: Path) -> bool:
    return os.path.isdir(folder) and not os.path.islink(folder) and not os.access(folder, os.W_OK | os.X_OK)


def stage(
    found: Iterable[Difference],
    places: DiffPaths,
    restore: str,
    emit: EventListener = silence,
) -> Summary:
    """Put the needed files into the staging area of this restore, and write the list of operations; not yet synced.

    Return the totals of what will change. Raise `Altered` if a sealed file differs from its checksum. A live entry
    that no copy holds stays, with a warning.
    """
    totals = _Totals(owners=places.owner is None)
    emit(Step("Staging the uploads"))
    with (
        staging_area.opened(places.live, "uploads", restore) as area,
        descriptors.naming(staging_area.place_of(places.live, "uploads")),
        disk.Opened(OPERATIONS, _NEW, area.folder) as handle,
        open(handle, "wb", closefd=False) as operations,
        closing(_Staging(places, area.folder, adding_up(emit, PROGRESS_STEP))) as staging,
    ):
        for number, one in enumerate(found):
            if one.live and not _is_kept(one.live, places):
                emit(Warned(f"{printable(one.path)} came or changed during the restore, and stays as it is."))
                staging.unsafe.add(one.path)
                continue
            totals.add(one)
            operation = staging.stage_one(one, str(number))
            if operation:
                write_operation(operations, operation)
        staging.warn_of_lost(emit)
        return totals.summary()


def _side_by_side(
    live: Path, wanted: Path, selection: Selection, unreadable: tree.Unreadable, chosen: Chosen | None
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Yield the live and the wanted entry of each path; skip folders without anything `chosen`."""
    closed: set[str] = set()

    def leads_nowhere(path: str, facts: os.stat_result, _within: os.stat_result) -> bool:
        return chosen is not None and stat.S_ISDIR(facts.st_mode) and not chosen.leads_to(path)

    def is_no_upload(path: str, facts: os.stat_result, within: os.stat_result) -> bool:
        return leads_nowhere(path, facts, within) or selection.leaves_out(path, facts, within)

    def cannot_read(path: str, error: OSError) -> None:
        closed.add(path)
        unreadable(path, error)

    left = tree.walk(live, skip=is_no_upload, unreadable=cannot_read) if live.is_dir() else iter(())
    right = tree.walk(wanted, skip=leads_nowhere if chosen else None)
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
            if not is_closed and not selection.leaves_out_wanted(two.path, two.form == "folder"):
                yield None, two
            two = next(right, None)


class _LiveModes:
    """The modes for a wanted tree that has lost its own: those of the live entries, and for new ones the folder's."""

    def __init__(self, live: Path) -> None:
        folder = stat.S_IMODE(live.stat().st_mode) if live.is_dir() else 0o750
        self._for_new = {"folder": folder, "file": folder & 0o666}

    def given(self, one: Entry | None, two: Entry) -> Entry:
        """Return the wanted entry with the mode that it is to have."""
        if two.form not in self._for_new:
            return two
        is_live = one is not None and one.form == two.form
        mode = stat.S_IMODE(one.facts.st_mode) if one and is_live else self._for_new[two.form]
        return two._replace(facts=_with_mode(two.facts, mode))


def _without_rights_of_owner(two: Entry) -> Entry:
    """Return the entry without setuid and setgid: it gets another owner than it had."""
    mode = stat.S_IMODE(two.facts.st_mode)
    kept = mode & ~(stat.S_ISUID | stat.S_ISGID)
    return two if kept == mode else two._replace(facts=_with_mode(two.facts, kept))


def _with_mode(facts: os.stat_result, mode: int) -> os.stat_result:
    fields: Any = facts.__reduce__()[1]  # the only way to all of them
    return os.stat_result((stat.S_IFMT(facts.st_mode) | mode, *fields[0][1:]), fields[1])


class _Comparison:
    """A comparison of live with wanted entries; `read` is called with the bytes that had to be read."""

    def __init__(
        self,
        live: Path,
        wanted: Path,
        traits: Traits,
        earlier: ParentBackup | None,
        read: Callable[[int], None],
        sealed: Sealed | None,
        reads_all: bool,
    ) -> None:
        self._live, self._wanted, self._traits, self._earlier, self._read = live, wanted, traits, earlier, read
        self._sealed, self._reads_all = sealed, reads_all
        self._modes = _LiveModes(live) if "modes" in traits.missing_rights else None
        self._checksums: dict[str, str | None] = {}
        """The sealed checksum of each wanted file with several names, by its first name."""
        self._opened = [tree.Parents(root) if root.is_dir() else None for root in (live, wanted)]
        # The first path of each inode: live, wanted
        self._first_paths: tuple[dict[tuple[int, int], str], ...] = ({}, {})

    def close(self) -> None:
        for parents in self._opened:
            if parents:
                parents.close()

    def of(self, one: Entry | None, two: Entry | None) -> Difference | None:
        """Return how a live entry differs from the wanted one of its path, or None if it does not."""
        if two is None:
            return None if one is None or one.form == "special" else Difference("remove", one, None)
        if self._modes:
            two = self._modes.given(one, two)
        elif not self._traits.owners and two.form == "file":
            two = _without_rights_of_owner(two)
        checksum = self._checksum(two)
        same_as, is_other_name = self._names(one, two, checksum)
        if one is None:
            return self._difference("add", None, two, same_as, checksum)
        if is_other_name or one.form != two.form or one.target != two.target:
            return self._difference("change", one, two, same_as, checksum)
        if one.form == "file" and not self._same_content(one, two, checksum):
            return self._difference("change", one, two, same_as, checksum)
        if one.form == "folder":
            return self._difference("dress", one, two)  # always: its times change when entries are put into it
        if _same_mode_time_owner(one.facts, two.facts, self._traits.owners) and self._same_attributes(one, two):
            return None
        self._require_sealed(two, checksum)
        return self._difference("dress", one, two)

    def require_readable(self, one: Entry) -> None:
        """Raise `_Unreadable` for a live file that cannot be read, and so is in no copy."""
        if one.form != "file" or one.facts.st_mode & stat.S_IROTH or os.geteuid() == 0:
            return
        try:
            with disk.Opened(f"{self._live}/{one.path}", _FILE):
                pass
        except OSError as error:
            raise _Unreadable(one.path, error) from error

    def _checksum(self, two: Entry) -> str | None:
        if self._sealed is None or two.form != "file":
            return None
        checksum = self._sealed(two.path)
        if checksum is None:
            raise Altered(two.path, manifest.ADDED)
        return checksum

    def _difference(
        self, action: Action, one: Entry | None, two: Entry, same_as: str = "", checksum: str | None = None
    ) -> Difference:
        has_attributes = self._traits.attributes and two.form != "link"
        return Difference(action, one, two, has_attributes, same_as, checksum, self._may_repeat(two))

    def _names(self, one: Entry | None, two: Entry, checksum: str | None) -> tuple[str, bool]:
        """Return the earlier path of which the wanted file is another name, or an empty string.

        And whether the live file is a name of another one, or has a name of its own where a link is wanted.
        """
        if two.form != "file" or self._traits.hard_links is None:
            return "", False
        wanted = two.path
        if self._may_repeat(two):
            wanted = self._first_path(1, two)
            if self._checksums.setdefault(wanted, checksum) != checksum:
                raise Altered(two.path, manifest.ALTERED)  # one file cannot match two checksums
        live = self._first_path(0, one) if one and one.form == "file" else two.path
        return wanted if wanted != two.path else "", live != wanted

    def _may_repeat(self, two: Entry) -> bool:
        """Return whether other names of the wanted file may follow.

        In a backup without hard links its inode has the names in other backups: to remember it would only take memory.
        """
        return bool(self._traits.hard_links) and two.form == "file" and two.facts.st_nlink > 1

    def _first_path(self, side: int, entry: Entry) -> str:
        """Return the first path that the walk met with the same inode."""
        if entry.facts.st_nlink == 1:
            return entry.path
        return self._first_paths[side].setdefault(tree.inode(entry.facts), entry.path)

    def forget(self, two: Entry | None) -> None:
        """Let no later path become another name of this one, because the live file there stays."""
        if two and self._first_paths[1].get(inode := tree.inode(two.facts)) == two.path:
            del self._first_paths[1][inode]

    def _same_attributes(self, one: Entry, two: Entry) -> bool:
        if not self._traits.attributes or one.form == "link":
            return True
        if self._earlier and self._earlier.keeps_attributes and self._has_those_of(self._earlier, one, two):
            return True
        return self._attributes(0, one) == self._attributes(1, two)

    def _has_those_of(self, earlier: ParentBackup, one: Entry, two: Entry) -> bool:
        """Return whether the live file has the wanted attributes, as far as the earlier backup tells."""
        if self._traits.has_attributes:
            return _is_sealed_copy(earlier, one, two)
        seen = earlier.find(one.path)
        return seen is not None and not seen.attributes and seen.still_matches(one.facts)

    def _attributes(self, side: int, entry: Entry) -> Attributes:
        parents = self._opened[side]
        assert parents
        try:
            with parents.of(entry.path) as (folder, name):
                return attributes.of_name(name, folder)
        except OSError as error:
            if side:
                raise
            raise _Unreadable(entry.path, error) from error

    def _same_content(self, one: Entry, two: Entry, checksum: str | None) -> bool:
        if checksum is None and not self._reads_all and _is_sealed_copy(self._earlier, one, two):
            return True
        seen = self._seen(one)
        if one.facts.st_size != two.facts.st_size:
            return False
        if seen and checksum is not None and not self._reads_all:
            return seen.checksum == checksum
        try:
            return self._is_read_as(one, two) if checksum is None else self._is_read_with(one, checksum)
        except _Unreadable:
            if seen and self._reads_all:
                return False
            raise

    def _seen(self, one: Entry) -> CachedFile | None:
        """Return what the earlier backup recorded of the live file, if that is as it was then by its times."""
        seen = self._earlier.find(one.path) if self._earlier else None
        return seen if seen and seen.still_matches(one.facts) else None

    def _is_read_with(self, one: Entry, checksum: str) -> bool:
        try:
            return disk.hash_file(f"{self._live}/{one.path}", self._read) == checksum
        except OSError as error:
            raise _Unreadable(one.path, error) from error

    def _is_read_as(self, one: Entry, two: Entry) -> bool:
        try:
            live = disk.Opened(f"{self._live}/{one.path}", _FILE)
        except OSError as error:
            raise _Unreadable(one.path, error) from error
        with live as left, disk.Opened(f"{self._wanted}/{two.path}", _FILE) as right:
            try:
                return disk.same_open(left, right, self._read)
            except disk.ReadError as error:
                if error.handle != left:
                    raise
                raise _Unreadable(one.path, error) from error

    def _require_sealed(self, two: Entry, checksum: str | None) -> None:
        """Raise `Altered` if a sealed file whose mode or times are to be put back has other content by now.

        A write to the file in the backup changes its times, so differing times may be the sign of one.
        """
        if checksum is None:
            return
        try:
            found = disk.hash_file(f"{self._wanted}/{two.path}", self._read)
        except OSError as error:
            raise Altered(two.path, f"cannot be read: {error.strerror}") from error
        if found != checksum:
            raise Altered(two.path, manifest.ALTERED)


def _is_sealed_copy(earlier: ParentBackup | None, one: Entry, two: Entry) -> bool:
    """Return whether the earlier backup copied the live file as it is now, and the wanted file is that copy."""
    seen = earlier.find(one.path) if earlier and one.form == two.form == "file" else None
    if earlier is None or seen is None or not seen.still_matches(one.facts):
        return False
    with suppress(OSError):
        return os.path.samestat(os.lstat(f"{earlier.uploads}/{one.path}"), two.facts)
    return False


def _same_mode_time_owner(one: os.stat_result, two: os.stat_result, same_owner: bool) -> bool:
    live, wanted = (one.st_uid, one.st_gid), (two.st_uid, two.st_gid)
    if one.st_mtime_ns != two.st_mtime_ns:
        return False
    if one.st_mode != two.st_mode and not (
        stat.S_ISREG(one.st_mode) and descriptors.mode_for(wanted, live, one.st_mode) == two.st_mode
    ):
        return False
    return not same_owner or live == wanted or os.geteuid() != 0


def _is_kept(live: Entry, places: DiffPaths) -> bool:
    """Return whether a copy holds this live file, so that it may be replaced."""
    return live.form == "folder" or any(_is_copy(live, places.live, copy) for copy in places.copies)


def _is_copy(live: Entry, root: Path, copy: Path) -> bool:
    """Return whether the copy has the live file: by its size and time, or by its content, as some disks round times."""
    kept = tree.look(copy, live.path)
    if kept is None or kept.form != live.form or kept.target != live.target:
        return False
    if tree.signature(kept.facts)[:2] == tree.signature(live.facts)[:2]:
        return True
    if live.form == "link":
        return True  # of the same target
    return live.form == "file" and kept.facts.st_size == live.facts.st_size and _are_alike(live.path, root, copy)


def _are_alike(path: str, one: Path, two: Path) -> bool:
    try:
        with disk.Opened(f"{one}/{path}", _FILE) as left, disk.Opened(f"{two}/{path}", _FILE) as right:
            return disk.same_open(left, right)
    except OSError:
        return False


class _Staging:
    """The staging area while it is filled.

    A new folder is built there with its whole contents, and is moved into place by one rename.
    """

    def __init__(self, places: DiffPaths, folder: int, advance: Callable[[int], None]) -> None:
        self._owner, self._advance, self._has_attributes = places.owner, advance, places.has_attributes
        self._place = places.live
        self._wanted, self._live = tree.Parents(places.wanted), tree.Parents(places.live)
        area = staging_area.place_of(places.live, "uploads")
        self._area, self._other_names = tree.Parents(area, folder), tree.Parents(area, folder)
        self._keeper, self._separate = Keeper(), list[str]()
        self._staged: dict[str, str] = {}
        self._new_folder = ("", "")  # the one being built: its path and its staged name, each with a trailing slash
        self.unsafe: set[str] = set()
        """Live paths that stay as they are: no staged file may be linked to them."""

    def close(self) -> None:
        for parents in (self._wanted, self._live, self._area, self._other_names):
            parents.close()

    def stage_one(self, one: Difference, number: str) -> Operation | None:
        """Stage the wanted file, link or new folder, if one is needed; return its operation.

        The operation is None if the entry is moved into place with the folder that it is staged in.
        """
        is_within = bool(self._new_folder[0]) and one.path.startswith(self._new_folder[0])
        if not is_within:
            self._new_folder = (f"{one.path}/", f"{number}/") if one.is_new_folder else ("", "")
        staged = self._new_folder[1] + one.path.removeprefix(self._new_folder[0]) if is_within else number
        try:
            wanted = self._stage_content(one, staged)
        except OSError as error:
            form = one.wanted.form if one.wanted else "folder"
            if not (is_within or form == "link") or not held.is_refused(error, form, self._place):
                raise
            raise held.not_held(self._place, one.path, form, error.strerror, held.ELSEWHERE) from error
        if not is_within:
            return _operation(one, staged if one.needs_content or one.is_new_folder else None, self._owner, wanted)
        return _operation(one, None, self._owner, wanted) if one.is_new_folder else None

    def _stage_content(self, one: Difference, staged: str) -> Attributes | None:
        """Stage it; return the wanted attributes, or None for those that stay as they are."""
        if one.is_new_folder:
            with self._area.of(staged) as (folder, name):
                os.mkdir(name, 0o700, dir_fd=folder)
        if not one.needs_content or one.wanted is None:
            return self._attributes(one)
        if one.wanted.form == "link":
            self._link(one.wanted, staged)
            return None
        if one.same_as and self._link_again(one.same_as, staged):
            return self._attributes(one)
        if one.same_as:
            self._separate.append(one.path)
        elif one.may_repeat:
            self._staged[one.path] = staged
        return self._copy(one, staged)

    def _attributes(self, one: Difference) -> Attributes | None:
        if not one.attributes:
            return None
        if not self._has_attributes:
            return attributes.NOTHING
        with self._wanted.of(one.path) as (folder, name):
            return attributes.of_name(name, folder)

    def _copy(self, one: Difference, staged: str) -> Attributes | None:
        with self._wanted.of(one.path) as (within, name), self._area.of(staged) as (folder, new):
            with_attributes = one.attributes and self._has_attributes
            small = _read_small(name, within, one, with_attributes)
            with disk.Opened(new, _NEW, folder) as copied:
                if small:
                    facts, wanted = self._write(small, copied)
                else:
                    facts, wanted = self._copy_large(name, within, one, copied, with_attributes)
                _set_rights(copied, facts, one, self._owner)
                if not one.attributes:
                    return None
                self._keeper.set(copied, wanted, one.path)
                return wanted

    def _write(self, small: SmallFile, copied: int) -> _Copied:
        disk.write_all(copied, small.content)
        self._advance(len(small.content))
        return small.facts, small.attributes

    def _copy_large(self, name: str, within: int, one: Difference, copied: int, with_attributes: bool) -> _Copied:
        """Copy the content of a wanted file; raise `Altered` if it is not as it was sealed."""
        try:
            opened = disk.Opened(name, _FILE, within)
        except OSError as error:
            raise _altered(one, error) from error
        with opened as original:
            facts = os.fstat(original)
            _copy_content(original, copied, facts, one, self._advance)
            return facts, attributes.of_open(original) if with_attributes else attributes.NOTHING

    def _link(self, entry: Entry, staged: str) -> None:
        owner, time = self._owner or (entry.facts.st_uid, entry.facts.st_gid), entry.facts.st_mtime_ns
        with self._area.of(staged) as (folder, name):
            os.symlink(entry.target, name, dir_fd=folder)
            descriptors.set_link_attributes(name, folder, owner, (time, time))

    def _link_again(self, path: str, staged: str) -> bool:
        """Link the file of that path, staged or live, into the area; return False if that is unsafe or impossible."""
        before = self._staged.get(path)
        if before is None and path in self.unsafe:
            return False
        parents = self._other_names if before else self._live
        try:
            with parents.of(before or path) as (within, name), self._area.of(staged) as (folder, new):
                return descriptors.link(name, within, new, folder)
        except OSError:  # the live file is gone
            return False

    def warn_of_lost(self, emit: EventListener) -> None:
        """Warn of attributes and hard links that the file system of the live uploads could not keep."""
        if self._keeper.lost:
            emit(Warned(self._keeper.sentence("the uploads")))
        if self._separate:
            text = (
                f"{len(self._separate)} hard links are restored as separate files, because they cannot be linked "
                f"there; the first is {printable(self._separate[0])}."
            )
            emit(Warned(text))


def _set_rights(copied: int, facts: os.stat_result, one: Difference, owner: tuple[int, int] | None) -> None:
    """Set the owner and times that the copied file had, and the wanted mode."""
    assert one.wanted is not None
    times, mode = (facts.st_atime_ns, facts.st_mtime_ns), stat.S_IMODE(one.wanted.facts.st_mode)
    descriptors.set_owner_mode_times(copied, owner or (facts.st_uid, facts.st_gid), mode, times)


def _read_small(name: str, within: int, one: Difference, with_attributes: bool) -> SmallFile | None:
    """Return what is in a small wanted file, or None if it is not small; raise `Altered` if it is not as sealed."""
    assert one.wanted is not None
    try:
        found = small_file.read(name, within, one.wanted.facts, with_attributes)
    except OSError as error:
        raise _altered(one, error) from error
    if found and one.checksum not in (None, hashlib.sha256(found.content).hexdigest()):
        raise Altered(one.path, manifest.ALTERED)
    return found


def _altered(one: Difference, error: OSError) -> Exception:
    """Return what it means that a wanted file cannot be opened or read: that it is damaged, if it was sealed."""
    if one.checksum is None or isinstance(error, PermissionError):
        return error
    return Altered(
        one.path, manifest.MISSING if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    )


def _copy_content(
    original: int, copied: int, facts: os.stat_result, one: Difference, advance: Callable[[int], None]
) -> None:
    if one.checksum is None:
        return advance(disk.copy_open(original, copied, facts))
    try:
        _, checksum = disk.copy_contents(original, copied, facts, advance)
    except disk.ReadError as error:
        raise _altered(one, error) from error
    if checksum != one.checksum:
        raise Altered(one.path, manifest.ALTERED)


def _operation(
    one: Difference, staged: str | None, owner: tuple[int, int] | None, wanted: Attributes | None
) -> Operation:
    entry = one.wanted or one.live
    assert entry is not None
    return Operation(
        action=one.action,
        path=one.path,
        form=entry.form,
        clash=bool(one.live and one.wanted and one.live.form != one.wanted.form),
        staged=staged,
        seen=list(tree.signature(one.live.facts)) if one.live and one.live.form != "folder" else None,
        mode=stat.S_IMODE(entry.facts.st_mode),
        owner=list(owner or (entry.facts.st_uid, entry.facts.st_gid)),
        time=entry.facts.st_mtime_ns,
        attributes=encoded(wanted),
    )
