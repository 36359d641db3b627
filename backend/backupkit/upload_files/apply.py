"""Apply the staged uploads: the list of operations, and how each one is carried out.

Each step can be repeated: an entry that is missing from the staging area was put in place by an earlier run. A live
file that the list does not know stays, with a warning. The list is untrusted input: every line is checked before
anything is touched, and all work uses directory descriptors, so that a swapped-in symlink is never followed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

from backupkit.fs import attributes, descriptors, disk, held, staging_area, tree
from backupkit.fs.attributes import Attributes, Keeper
from backupkit.fs.staging_area import Area
from backupkit.model.backup import STAGING
from backupkit.model.errors import BackupError
from backupkit.model.events import EventListener, Step, Warned, silence
from backupkit.model.names import printable

OPERATIONS = "operations"
Place = tuple[int, str]
"""An open folder, and a name in it."""
Action = Literal["add", "change", "remove", "dress"]
"""What to do with a path; "dress" sets attributes alone. Unfinished restores store these words on disk."""
_ACTIONS = get_args(Action)
_FORMS = ("file", "folder", "link")
_REMOVING = (b'"remove"', b"true")  # each line that removes something, or has a clash, contains one of them


class Operation(NamedTuple):
    """A line of the list: an action on a path, with everything needed for it.

    `form` is that of the wanted entry, or of the one to remove; `clash` is whether the live entry has another form.
    `staged` is the name of the staged file, link or folder; of the contents of a staged folder only the folders have
    lines of their own. `seen` is the signature of the live file or link when the list was made.
    """

    action: Action
    path: str
    form: tree.Form
    clash: bool
    staged: str | None
    seen: list[int] | None
    mode: int
    owner: list[int]
    time: int
    attributes: dict[str, str] | None = None
    """ACLs and other extended attributes in base64, or None to leave them as they are."""

    @property
    def wanted(self) -> Attributes | None:
        """The decoded `attributes`."""
        found = self.attributes
        return None if found is None else {name: b64decode(value, validate=True) for name, value in found.items()}


def encoded(wanted: Attributes | None) -> dict[str, str] | None:
    """Return attributes in the form in which the list stores them."""
    return None if wanted is None else {name: b64encode(value).decode() for name, value in wanted.items()}


def write_operation(file: BinaryIO, one: Operation) -> None:
    """Append a line to the list."""
    file.write(json.dumps(one).encode("ascii") + b"\n")


def apply(live: Path, restore: str, copies: tuple[Path, ...] = (), emit: EventListener = silence) -> None:
    """Put in place what the restore with this id staged for the uploads, and sync it to disk. Can be repeated.

    `copies` are trees that hold copies of the live files. Raise `BackupError` before anything is touched if nothing is
    staged, or if a line of the list is not one that this module writes.
    """
    with staging_area.opened(live, "uploads", restore) as area, descriptors.naming(live):
        with _Applying(live, area, copies, emit) as applying:
            applying.check()
            emit(Step("Restoring the uploads", unit="files"))
            for one in applying.operations_backwards(*_REMOVING):  # a folder is removed after its contents
                if one.action == "remove" or one.clash:
                    applying.remove(one)
            for one in applying.operations():
                if one.action != "remove":
                    applying.put(one)
            # Folders last: each change inside a folder changes its times.
            for one in applying.operations_backwards(b'"folder"'):
                if one.action != "remove" and one.form == "folder":
                    applying.set_folder_attributes(one)
            applying.warn_of_lost()
        disk.sync_tree(live)


class _Applying:
    """One run of the list, with the live folder, the staging area and the copies open."""

    def __init__(self, live: Path, area: Area, copies: tuple[Path, ...], emit: EventListener) -> None:
        self._path = staging_area.place_of(live, "uploads") / OPERATIONS
        self._live, self._area, self._copies, self._emit = live, area, copies, emit
        self._warned: set[str] = set()
        self._keeper = Keeper()

    def __enter__(self) -> _Applying:
        self._list = self._open_list()
        self._parents = tree.Parents(self._live, self._area.live)
        self._staged = tree.Parents(self._path.parent, self._area.folder)
        self._kept = [tree.Parents(path) for path in self._copies if path.is_dir()]
        return self

    def __exit__(self, *_: object) -> None:
        self._list.close()
        for parents in (self._parents, self._staged, *self._kept):
            parents.close()

    def _open_list(self) -> BinaryIO:
        try:
            handle = os.open(OPERATIONS, descriptors.FILE, dir_fd=self._area.folder)
        except FileNotFoundError as error:
            raise BackupError(
                f"{self._path} is missing, and the restore is unfinished; nothing was touched.",
                hint="Restore the safety copy again, or another backup: `list`, `restore`.",
            ) from error
        except OSError as error:
            raise _not_ours(self._path, "it cannot be read") from error
        file = os.fdopen(handle, "rb")
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        if why := descriptors.why_not_ours(handle) if is_file else "it is not a file":
            file.close()
            raise _not_ours(self._path, why)
        return file

    def check(self) -> None:
        """Raise `BackupError` unless this module writes such lines. Nobody else can write to the open file later."""
        self._list.seek(0)
        for line in self._list:
            try:
                _require_ours(_decoded(line))
            except (ValueError, TypeError, AttributeError) as error:
                raise _not_ours(self._path, "it contains an invalid line") from error

    def operations(self) -> Iterator[Operation]:
        self._list.seek(0)
        return map(_decoded, self._list)

    def operations_backwards(self, *having: bytes) -> Iterator[Operation]:
        """Return, last first, the operations whose line has one of these texts; for speed no other line is decoded."""
        lines = disk.lines_backwards(self._list)
        return (_decoded(line) for line in lines if any(text in line for text in having))

    def remove(self, one: Operation) -> None:
        """Remove the live entry: a file or link if it is unchanged since it was seen, a folder if it is empty."""
        # In a repeated run the parent may be a file already.
        with suppress(FileNotFoundError, NotADirectoryError), self._parents.of(one.path) as (folder, name):
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if one.clash and self._is_placed(one, there):
                return
            if stat.S_ISDIR(there.st_mode) and one.seen is None:
                _remove_folder(name, folder)
            elif self._is_as_seen(there, folder, name, one):
                os.unlink(name, dir_fd=folder)

    def _is_placed(self, one: Operation, there: os.stat_result) -> bool:
        """Return whether an earlier run has put the wanted entry in place."""
        if one.form == "folder":
            return stat.S_ISDIR(there.st_mode)
        return one.staged is not None and descriptors.look(one.staged, self._area.folder) is None

    def put(self, one: Operation) -> None:
        """Put the wanted entry in place; warn if something else has taken its place, or that of a parent folder."""
        try:
            with self._parents.of(one.path) as place:
                if one.staged is None:
                    self._make_folder(place, one) if one.form == "folder" else self._set_attributes_if_seen(*place, one)
                else:
                    with self._staged.of(one.staged) as staged:
                        self._put_staged(staged, place, one)
        except NotADirectoryError:
            self._warn(one, "cannot be restored: one of its parent folders is not a folder any more.")
        except OSError as error:
            if not held.is_refused(error, one.form, (self._live / one.path).parent):
                raise
            raise held.not_held(self._live, one.path, one.form, error.strerror, held.ELSEWHERE) from error

    def _put_staged(self, staged: Place, place: Place, one: Operation) -> None:
        """Move a staged entry into place. For a new path try the rename first: most entries of a large restore are."""
        is_new = one.seen is None and not one.clash
        if is_new and _try_rename(staged, place):
            return
        if descriptors.look(staged[1], staged[0]) is None:
            return  # an earlier run put it in place
        if one.form == "folder":
            self._make_folder(place, one)
            self._put_contents(one)
        else:
            self._place(staged, place, one)

    def _put_contents(self, one: Operation) -> None:
        """Put the contents of a staged folder in place one by one: its name is taken, or it is in another mount."""
        assert one.staged is not None
        within = self._staged.go(one.staged)
        for entry in tree.walk(self._path.parent / one.staged, opened=within):
            below = f"{one.staged}/{entry.path}"
            with self._staged.of(below) as (folder, name):
                kept = None if entry.form == "folder" else encoded(attributes.of_name(name, folder))
            self.put(_operation_for_staged(entry, f"{one.path}/{entry.path}", below, kept))

    def _make_folder(self, place: Place, one: Operation) -> None:
        folder, name = place
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            there = descriptors.look(name, folder)
            if there and not stat.S_ISDIR(there.st_mode):
                self._warn_of_change(one)

    def _place(self, staged: Place, place: Place, one: Operation) -> None:
        """Rename the staged file or link into place, atomically; replace only a live entry that is as it was seen."""
        (area, source), (folder, name) = staged, place
        there = descriptors.look(name, folder)
        if there and (one.clash or not self._is_as_seen(there, folder, name, one)):
            return self._warn_of_change(one)
        try:
            if there:
                os.rename(source, name, src_dir_fd=area, dst_dir_fd=folder)
            elif not descriptors.rename_to_free(source, area, name, folder):
                self._warn_of_change(one)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_across_mounts(staged, place, one, over=there is not None)

    def _copy_across_mounts(self, staged: Place, place: Place, one: Operation, over: bool) -> None:
        """Copy into another mount inside the uploads folder: beside its final place, then rename and sync there."""
        assert one.staged is not None
        (area, source), (folder, name), draft = staged, place, _draft_of(one.staged)
        descriptors.unlink(draft, folder)  # left by a killed run
        try:
            if one.form == "link":
                os.symlink(os.readlink(source, dir_fd=area), draft, dir_fd=folder)
            else:
                disk.copy_file_to(source, area, folder, draft)
            self._set_attributes_if_seen(folder, draft, one, is_new=True)
            if over:
                os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
            elif not descriptors.rename_to_free(draft, folder, name, folder):
                return self._warn_of_change(one)
        finally:
            descriptors.unlink(draft, folder)
        os.fsync(folder)
        os.unlink(source, dir_fd=area)

    def set_folder_attributes(self, one: Operation) -> None:
        """Set owner, mode, times and extended attributes of the folder."""
        with suppress(NotADirectoryError), self._parents.of(one.path) as (folder, name):
            self._set_attributes_if_seen(folder, name, one)

    def _set_attributes_if_seen(self, folder: int, name: str, one: Operation, is_new: bool = False) -> None:
        """Set owner, mode, times and extended attributes; warn if the entry belongs to another user."""
        there = descriptors.look(name, folder)
        if there is None or _has_wanted_attributes(there, folder, name, one):
            return
        if tree.form_of(there.st_mode) != one.form:
            return self._warn_of_change(one)
        if one.form != "folder" and not is_new and not self._is_as_seen(there, folder, name, one):
            return
        try:
            _set_attributes(folder, name, there, one, self._keeper)
        except PermissionError:
            self._warn(one, "belongs to another user, and keeps its mode and time.")

    def _is_as_seen(self, there: os.stat_result, folder: int, name: str, one: Operation) -> bool:
        """Return whether the live file or link is as it was seen, or has the content of a copy; if not, warn.

        The content is compared because the times differ once a data folder was copied.
        """
        is_known = one.seen is not None and not stat.S_ISDIR(there.st_mode)
        if is_known and (list(tree.signature(there)) == one.seen or self._is_kept(there, folder, name, one.path)):
            return True
        self._warn_of_change(one)
        return False

    def _is_kept(self, there: os.stat_result, folder: int, name: str, path: str) -> bool:
        for parents in self._kept:
            with suppress(OSError), parents.of(path) as (within, copy):
                kept = os.stat(copy, dir_fd=within, follow_symlinks=False)
                same_form = stat.S_IFMT(kept.st_mode) == stat.S_IFMT(there.st_mode)
                if same_form and kept.st_size == there.st_size:
                    return _same_content(name, folder, copy, within, there.st_mode)
        return False

    def warn_of_lost(self) -> None:
        """Warn of attributes that the live file system could not keep."""
        if self._keeper.lost:
            self._emit(Warned(self._keeper.sentence("the uploads")))

    def _warn_of_change(self, one: Operation) -> None:
        if one.staged is not None:
            with self._parents.of(one.path) as (folder, _):
                descriptors.unlink(_draft_of(one.staged), folder)  # left by a killed run
        self._warn(one, "came or changed during the restore, and stays as it is.")

    def _warn(self, one: Operation, what: str) -> None:
        if one.path not in self._warned:
            self._warned.add(one.path)
            self._emit(Warned(f"{printable(one.path)} {what}"))


def _draft_of(staged: str) -> str:
    """Return the name under which a staged entry is copied into another mount."""
    return f"{STAGING}-{hashlib.sha256(os.fsencode(staged)).hexdigest()[:32]}"


def _try_rename(staged: Place, place: Place) -> bool:
    """Rename the staged entry and return True, or False if the name is taken, in another mount, or none is staged."""
    try:
        return descriptors.rename_to_free(staged[1], staged[0], place[1], place[0])
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EXDEV):
            raise
        return False


def _operation_for_staged(entry: tree.Entry, path: str, staged: str, kept: dict[str, str] | None) -> Operation:
    """Return the operation that puts an entry of a staged folder in place; a folder is only made, not moved."""
    facts = entry.facts
    return Operation(
        action="add",
        path=path,
        form=entry.form,
        clash=False,
        staged=None if entry.form == "folder" else staged,
        seen=None,
        mode=stat.S_IMODE(facts.st_mode),
        owner=[facts.st_uid, facts.st_gid],
        time=facts.st_mtime_ns,
        attributes=kept,
    )


def _remove_folder(name: str, within: int) -> None:
    try:
        os.rmdir(name, dir_fd=within)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            raise
        # It stays: it is not empty, or it is a mount.


def _same_content(one: str, one_folder: int, two: str, two_folder: int, mode: int) -> bool:
    if stat.S_ISLNK(mode):
        return os.readlink(one, dir_fd=one_folder) == os.readlink(two, dir_fd=two_folder)
    if not stat.S_ISREG(mode):
        return False
    with (
        descriptors.opened(one, descriptors.FILE, one_folder) as left,
        descriptors.opened(two, descriptors.FILE, two_folder) as right,
    ):
        return disk.same_open(left, right)


def _set_attributes(folder: int, name: str, there: os.stat_result, one: Operation, keeper: Keeper) -> None:
    """Set the wanted attributes of the entry, unless another one has replaced it since `there` was read."""
    owner = (one.owner[0], one.owner[1])
    if one.form == "link":
        return descriptors.set_link_attributes(name, folder, owner, (one.time, one.time))
    with descriptors.opened_to_change(name, folder) as handle:
        if os.path.samestat(os.fstat(handle), there):
            place, wanted = descriptors.place_of(handle), one.wanted
            wanted = attributes.of_open(place) if wanted is None else wanted  # chown clears file capabilities
            descriptors.set_attributes(handle, owner, one.mode, one.time)
            keeper.set(place, wanted, one.path)


def _has_wanted_attributes(there: os.stat_result, folder: int, name: str, one: Operation) -> bool:
    alike = stat.S_IMODE(there.st_mode) == one.mode and there.st_mtime_ns == one.time
    if not alike or (os.geteuid() == 0 and [there.st_uid, there.st_gid] != one.owner):
        return False
    return one.attributes is None or one.form == "link" or attributes.of_name(name, folder) == one.wanted


def _decoded(line: bytes) -> Operation:
    return Operation(*json.loads(line.decode("ascii")))  # for bytes `json` would first detect the encoding


def _require_ours(one: Operation) -> None:
    """Raise `ValueError`, `TypeError` or `AttributeError` unless this module writes such operations."""
    is_one = (
        one.action in _ACTIONS
        and _is_path_inside(one.path)
        and one.form in _FORMS
        and isinstance(one.clash, bool)
        and (one.staged is None or (isinstance(one.staged, str) and one.staged.isascii() and one.staged.isdigit()))
        and (one.seen is None or _are_numbers(one.seen, 3))
        and _are_numbers([one.time], 1)
        and _are_numbers([one.mode], 1, 0, 0o10000)
        and _are_numbers(one.owner, 2, 0, 2**32 - 1)
        and (one.attributes is None or all(map(attributes.is_kept, one.attributes)))
        and (one.attributes is None or one.wanted is not None)
    )
    if not is_one:
        raise ValueError(one)


def _is_path_inside(path: Any) -> bool:
    steps = path.split("/")
    return "\0" not in path and not any(step in ("", ".", "..") for step in steps) and steps[0] != STAGING


def _are_numbers(values: Any, count: int, least: int = -(2**63), limit: int = 2**63) -> bool:
    return len(values) == count and all(type(value) is int and least <= value < limit for value in values)


def _not_ours(path: Path, why: str) -> BackupError:
    return BackupError(
        f"{path} cannot be trusted ({why}); nothing was touched.",
        hint="Restore the safety copy again, or another backup: `list`, `restore`.",
    )
