"""A folder on another disk, a NAS or a mounted bucket: same layout as here, with unchanged files hard-linked.

An unmounted mount point is an empty folder, so the folder is used only if a marker file says that it is the remote.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

from backupkit.archive import packing
from backupkit.config.remotes import FolderTable
from backupkit.config.settings import Settings
from backupkit.fs import attributes, descriptors, disk, held, space, tree
from backupkit.fs.attributes import Attributes, Keeper
from backupkit.model.backup import CHECKSUM_FILE, UPLOADS_FOLDER, Backup, Metadata
from backupkit.model.errors import FULL, Damaged, NoSpace, Refused, RemoteAway, RemoteFailed
from backupkit.model.events import EventListener, Notice, Progress, Step, silence
from backupkit.model.names import first_of, printable
from backupkit.remotes import checks
from backupkit.remotes.base import KEEPS_NO_ATTRIBUTES, KEEPS_NO_RIGHTS, DamagedThere, RemoteBackup, another_there
from backupkit.repository import integrity, manifest, store
from backupkit.retention import rules
from backupkit.rewind import copies
from backupkit.rewind.chain import Point
from backupkit.rewind.copies import Copied

MARKER = ".backupkit-remote"
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.ECONNRESET}
_RENAME = "Rename or remove that upload, then make another backup; or give the remote {name} a disk with ext4 or XFS."
_NO_BACKUP = "No backup holds one: look at it, and take another backup."


class FolderRemote:
    """A folder as a remote, for one app. A push resumes its own interrupted draft."""

    reads_copies = True
    is_history = False

    def __init__(self, settings: Settings, name: str, table: FolderTable) -> None:
        self.name = name
        self._settings = settings
        self._path = table.local_folder(settings.app_dir)
        self._has_told = False
        self._missing_rights: tuple[str, ...] | None = None

    def check(self) -> None:
        with self._as_remote_failure():
            self._require_folder()
            owner = self._owner()
            if owner is None:
                raise RemoteFailed(
                    f"{self._path} is not prepared as the remote {self.name}: there is no {MARKER} in it.",
                    hint=f"Mount its disk, or: `remotes --init {self.name}`",
                )
            if owner != self._settings.app_id:
                raise RemoteFailed(
                    f"{self._path} holds the backups of another app: {printable(owner)}.",
                    hint="Give each app a folder of its own; BACKUP_APP_ID says which app this is.",
                )
            if not os.access(self._path, os.W_OK | os.X_OK):
                raise RemoteFailed(
                    f"The remote {self.name} cannot be written to: {self._path}.", f"Look at it: ls -ld {self._path}"
                )

    def prepare(self) -> None:
        """Write the marker file into the folder, which must exist: whoever mounts a disk makes the mount point."""
        with self._as_remote_failure():
            self._require_folder()
            if self._owner() is None:
                text = json.dumps({"app_id": self._settings.app_id}) + "\n"
                disk.write_file(self._path / MARKER, text.encode(), 0o644)
        self.check()

    def list(self, _emit: EventListener = silence) -> list[RemoteBackup]:
        self.check()
        with self._as_remote_failure():
            names = [name for name in os.listdir(self._path) if store.is_backup(self._path / name)]
            found = [one for name in names for one in self._describe(name)]
        return sorted(found, key=lambda one: (one.created_at, one.name), reverse=True)

    def push(self, backup: Path, metadata: Metadata, emit: EventListener) -> None:
        there = self.list()
        if any(one.name == backup.name and one.created_at == metadata.created_at for one in there):
            return
        final, draft = self._path / backup.name, self._draft(backup.name)
        with self._as_remote_failure():
            if os.path.lexists(final):
                raise another_there(backup.name, self.name)
            self._clear_drafts(but=draft)
            flaws = checks.recall(self._settings, self.name).flaws
            earlier = next((self._path / one.name for one in there if one.name not in flaws), None)
            copy = _Copy(backup, draft, earlier, emit, self.name, _RENAME.format(name=self.name), bool(flaws))
            size = sum(entry.facts.st_size for entry in tree.walk(backup) if entry.form == "file")
            emit(Step(f"Copying {backup.name} to {self.name}", size))
            self._tell_of_missing_rights(metadata.uploads_included, emit)
            try:
                with _reading(backup):
                    copy.make(manifest.sound_checksums(backup) if manifest.has_checksums(backup) else {})
            except (Damaged, Refused):
                disk.remove_tree(draft)  # this backup will not get there: the draft is not worth resuming
                raise
            except NoSpace as error:
                with contextlib.suppress(OSError):
                    draft.rmdir()  # empty unless an interrupted push left something to resume
                raise self._full(error, there) from error
            disk.publish(draft, final)

    def pull(self, name: str, target: Path, emit: EventListener) -> None:
        source = self._path / name
        self.check()
        with self._as_remote_failure():
            size = sum(entry.facts.st_size for entry in tree.walk(source) if entry.form == "file")
            emit(Step(f"Copying {name} from {self.name}", size))
            self._tell_of_missing_rights((source / UPLOADS_FOLDER).is_dir(), emit)
            _Copy(source, target, None, emit, self.name, held.ON_ANOTHER_DISK).make({})

    def push_points(self, backup: Backup, emit: EventListener) -> Copied:
        self.check()
        with self._as_remote_failure():
            try:
                return copies.copy(self._settings.dir, self._path, backup, emit)
            except NoSpace as error:
                raise self._full(error, self.list()) from error

    def pull_points(self, backup: Backup, emit: EventListener, refuse: Callable[[Point], None]) -> Copied:
        self.check()
        with self._as_remote_failure():
            return copies.copy(self._path, self._settings.dir, backup, emit, only_later=True, refuse=refuse)

    def remove(self, names: Sequence[str]) -> None:
        self.check()
        with self._as_remote_failure():
            for name in names:
                copies.remove(self._path, name)  # first: without the backup they could not be identified
                disk.remove_tree(self._draft(name))
                if os.path.lexists(self._path / name):
                    disk.remove_atomically(self._draft(name), self._path / name)

    def verify(self, emit: EventListener, names: Collection[str] = ()) -> None:
        self.check()
        bad: dict[str, list[str]] = {}
        with self._as_remote_failure():
            there = sorted(name for name in os.listdir(self._path) if store.is_backup(self._path / name))
            wanted = [name for name in there if not names or name in names]
            digests = integrity.Digests()
            emit(Step(f"Verifying {self.name}", len(wanted), "files"))
            for number, name in enumerate(wanted, 1):
                found = [*(f"{name}: {text}" for text in self._flaws(name, digests)), *copies.flaws(self._path, name)]
                bad |= {name: found} if found else {}
                emit(Progress(number))
        if bad:
            texts = [text for found in bad.values() for text in found]
            paths = dict.fromkeys(str(self._path / text.partition(":")[0]) for text in texts)
            raise DamagedThere(
                f"The remote {self.name} holds something damaged: {first_of(texts)}.",
                f"Where the backup here is good, remove the copy, then `push`: rm -r {shlex.join(paths)}",
                {name: found[0] for name, found in bad.items()},
            )

    def _flaws(self, name: str, digests: integrity.Digests) -> Sequence[str]:
        folder = self._path / name
        try:
            metadata = manifest.read_metadata(folder, self._settings.zone)
        except Damaged as error:
            return [error.message.rstrip(".")]
        if not manifest.has_checksums(folder):
            return [f"{CHECKSUM_FILE} is missing"] if metadata.tool_version else []
        return [flaw.text for flaw in islice(integrity.file_flaws(folder, metadata, digests), 3)]

    def _describe(self, name: str) -> Iterator[RemoteBackup]:
        """Yield the backup there; nothing if it is damaged, which `verify` reports."""
        backup = store.read_at(self._path / name, self._settings.zone)
        if (metadata := backup.metadata) and backup.state != "damaged":
            size, owner = backup.size_bytes, metadata.app_id or self._settings.app_id
            about = (metadata.created_at, metadata.kind, size, owner, ",".join(metadata.revisions))
            yield RemoteBackup(name, *about, metadata.uploads_included, copies.number_in(self._path, name))

    def missing_rights(self) -> tuple[str, ...]:
        """Return what the disk does not keep; it is tried once, with a file that is made there."""
        if self._missing_rights is None:
            self._missing_rights = attributes.missing_rights(self._path)
        return self._missing_rights

    def _tell_of_missing_rights(self, has_uploads: bool, emit: EventListener) -> None:
        """Say once what the disk of the remote does not keep of the uploads."""
        if has_uploads and not self._has_told and (missing := self.missing_rights()):
            self._has_told = True
            emit(Notice(KEEPS_NO_RIGHTS.format(name=self.name, kinds=" and ".join(missing))))

    def _require_folder(self) -> None:
        if not self._path.is_dir():
            raise RemoteFailed(
                f"The folder {self._path} of the remote {self.name} is not there.",
                hint=f"Mount the disk, or make the folder: mkdir -p {self._path}",
            )

    def _owner(self) -> str | None:
        """Return the app id in the marker file; None if there is no marker, empty if it is malformed."""
        try:
            marker = json.loads(disk.read_plain(self._path / MARKER, disk.MOST_STATE))
            return str(marker["app_id"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            return ""

    def _full(self, error: NoSpace, there: Sequence[RemoteBackup]) -> RemoteFailed:
        """Return the error; its hint is to prune only if there is something that has rules."""
        has_rules = rules.policy_of_remote(self._settings.remotes[self.name]).of_routine
        look = f"`prune --remote {self.name}`" if has_rules and there[1:] else f"df -h {self._path}"
        return RemoteFailed(
            f"The remote {self.name} has no room: {error.message}",
            hint=f"Make room there, or use a larger disk: {look}",
        )

    def _draft(self, name: str) -> Path:
        return self._path / f"{disk.DRAFT_PREFIX}{name}"

    def _clear_drafts(self, but: Path) -> None:
        for left in self._path.glob(f"{disk.DRAFT_PREFIX}*"):
            if left != but:
                disk.remove_tree(left)

    @contextlib.contextmanager
    def _as_remote_failure(self) -> Iterator[None]:
        """Raise an `OSError` as the remote's failure, with the path in it."""
        try:
            yield
        except OSError as error:
            file = printable(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else ""
            if error.errno in FULL and not file.startswith(str(self._path)):
                raise  # the disk here is full, not the remote's
            where = f": {file}" if file else ""
            kind = RemoteAway if error.errno in _PASSING else RemoteFailed
            raise kind(
                f"The remote {self.name} failed: {error.strerror or type(error).__name__}{where}.",
                hint=f"Look at it: df -h {self._path}; the backup here is not touched by that.",
            ) from error


class _Copy:
    """One backup being copied, file by file; correct files that the draft already has are not copied again."""

    def __init__(
        self,
        source: Path,
        draft: Path,
        earlier: Path | None,
        emit: EventListener,
        name: str,
        if_not_held: str,
        reads_earlier: bool = False,
    ) -> None:
        """With `reads_earlier`, a file is linked to the earlier backup's only after that was read and compared."""
        self.source, self.draft, self.earlier, self.emit, self.name = source, draft, earlier, emit, name
        self._if_not_held, self._reads_earlier = if_not_held, reads_earlier
        self._keeper, self._not_linked = Keeper(), 0
        # By inode: the first path of each file with several names, and the earlier backup's files that the draft uses.
        self._first_paths: dict[int, str] = {}
        self._linked_inodes: set[int] = set()
        self._has_own_hard_links = _has_hard_links(source)
        self._earlier_has_hard_links = earlier is not None and _has_hard_links(earlier)

    def make(self, checksums: Mapping[str, str]) -> None:
        """Make the draft equal to the source; read each copied file back and compare it with its checksum."""
        disk.make_folder(self.draft, 0o700)
        with contextlib.ExitStack() as opened:
            self._from = opened.enter_context(contextlib.closing(tree.Parents.in_ours(self.source)))
            self._to = opened.enter_context(contextlib.closing(tree.Parents.in_ours(self.draft)))
            self._first = opened.enter_context(contextlib.closing(tree.Parents.in_ours(self.draft)))
            self._before = None
            if self.earlier and self.earlier.is_dir():
                self._before = opened.enter_context(contextlib.closing(tree.Parents(self.earlier)))
            space.require(self._bytes_to_write(), self.draft.parent, f"The copy of {self.source.name}")
            self._remove_extra_entries()
            self._copy_all(checksums)

    def _copy_all(self, checksums: Mapping[str, str]) -> None:
        known = self._earlier_checksums() if self._before else {}
        folders, done, entries = [tree.entry_of("", self.source.lstat())], 0, 0
        for entry in tree.walk(self.source):
            entries += 1
            if entry.form == "folder":
                self._folder(entry)
                folders.append(entry)
            elif entry.form == "link":
                self._link(entry)
            elif entry.form == "special":
                raise Damaged(
                    f"{self.source / printable(entry.path)} is a socket, a fifo or a device.", hint=_NO_BACKUP
                )
            else:
                wanted = checksums.get(entry.path, "")
                self._file(entry, wanted, bool(wanted) and known.get(entry.path) == wanted)
                done += entry.facts.st_size
                self.emit(Progress(done))
        self._require_each_name(entries)
        for entry in reversed(folders):
            self._set_attributes(entry, self._to.go(entry.path))
        self._report_lost_attributes()

    def _require_each_name(self, entries: int) -> None:
        """Raise `Refused` if the draft has fewer entries: its file system took two names for the same one."""
        if sum(1 for _ in tree.paths(self.draft)) != entries:
            there = {path for path, _ in tree.paths(self.draft)}
            lost = next(entry for entry in tree.walk(self.source) if entry.path not in there)
            why = "it takes another name for the same"
            raise held.not_held(self.draft.parent, lost.path, lost.form, why, self._if_not_held)

    def _making(self, entry: tree.Entry) -> contextlib.AbstractContextManager[None]:
        return held.making(self.draft.parent, self.draft, entry.path, entry.form, self._if_not_held)

    def _report_lost_attributes(self) -> None:
        if lost := self._keeper.lost + self._not_linked:
            self.emit(Notice(KEEPS_NO_ATTRIBUTES.format(name=self.name, lost=lost)))

    def _folder(self, entry: tree.Entry) -> None:
        with self._to.of(entry.path) as (folder, name), self._making(entry), contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)

    def _file(self, entry: tree.Entry, wanted: str, is_there: bool) -> None:
        if self._link_in_draft(entry) or self._is_copied(entry, wanted):
            return
        if is_there and self._link_to_earlier(entry, wanted):
            return
        self._clear(entry.path)
        with (
            self._from.of(entry.path) as (there, name),
            disk.Opened(name, os.O_RDONLY | os.O_NOFOLLOW, there) as original,
            self._to.of(entry.path) as (here, _),
            self._new_file(entry, name, here) as copied,
        ):
            disk.copy_open(original, copied, os.fstat(original))
            os.fsync(copied)
            found = disk.hash_from_disk(copied)
            if wanted and found != wanted:
                raise self._altered(entry, disk.hash_contents(original) != wanted)
            self._set_attributes(entry, copied)

    def _new_file(self, entry: tree.Entry, name: str, folder: int) -> disk.Opened:
        with self._making(entry):
            return disk.Opened(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, folder)

    def _link_in_draft(self, entry: tree.Entry) -> bool:
        """Hard-link the file if the draft has it under another name already; return whether it did."""
        if not self._has_own_hard_links or entry.facts.st_nlink == 1 or not packing.is_upload(entry.path, entry.form):
            return False
        first = self._first_paths.setdefault(entry.facts.st_ino, entry.path)
        if first == entry.path:
            return False
        self._clear(entry.path)
        with self._first.of(first) as (there, known), self._to.of(entry.path) as (here, name):
            is_linked = descriptors.link(known, there, name, here)
        self._not_linked += not is_linked
        return is_linked

    def _altered(self, entry: tree.Entry, here: bool) -> Exception:
        if here:
            return Damaged(
                f"The backup {self.source} is damaged: {printable(entry.path)} is not as it was written.",
                hint="It is not copied. Make a new one: `backup`.",
            )
        return RemoteAway(
            f"What was written to {self.draft / entry.path} reads back as something else.",
            hint="That disk, or the way to it, fails.",
        )

    def _is_copied(self, entry: tree.Entry, wanted: str) -> bool:
        """Return whether an interrupted run finished this file: its attributes and its content are right."""
        there = self._to.look(entry.path)
        if there is None or not wanted or there.form != "file" or not self._has_same_attributes(self._to, there, entry):
            return False
        return _content_is(self._to, entry.path, wanted)

    def _link_to_earlier(self, entry: tree.Entry, wanted: str) -> bool:
        """Link an unchanged file to the earlier backup's if its attributes are the same; return whether it did."""
        assert self._before is not None
        there = self._before.look(entry.path)
        if there is None or there.form != "file" or not self._has_same_attributes(self._before, there, entry):
            return False
        if there.facts.st_ino in self._linked_inodes:
            return False
        try:
            if self._reads_earlier and not _content_is(self._before, entry.path, wanted):
                return False
            self._clear(entry.path)
            with self._before.of(entry.path) as (before, name), self._to.of(entry.path) as (here, _):
                os.link(name, name, src_dir_fd=before, dst_dir_fd=here, follow_symlinks=False)
        except OSError:  # too many links, a file system without hard links, or a file that cannot be read
            return False
        if self._earlier_has_hard_links:
            self._linked_inodes.add(there.facts.st_ino)
        return True

    def _has_same_attributes(self, place: tree.Parents, there: tree.Entry, entry: tree.Entry) -> bool:
        """Return whether a copy has the file's owner, mode, time and attributes, as far as they can be kept there."""
        if _compared_facts(there.facts) != _compared_facts(entry.facts):
            return False
        return not packing.is_upload(entry.path, entry.form) or _attributes(place, entry) == self._keeper.can_keep(
            _attributes(self._from, entry)
        )

    def _link(self, entry: tree.Entry) -> None:
        self._clear(entry.path)
        with self._to.of(entry.path) as (folder, name):
            with self._making(entry):
                os.symlink(entry.target, name, dir_fd=folder)
            facts = entry.facts
            owner_and_times = (facts.st_uid, facts.st_gid), (facts.st_atime_ns, facts.st_mtime_ns)
            with descriptors.keeping_what_it_can():
                descriptors.set_link_attributes(name, folder, *owner_and_times)

    def _set_attributes(self, entry: tree.Entry, handle: int) -> None:
        disk.set_what_it_keeps(handle, entry.facts)
        if packing.is_upload(entry.path, entry.form):
            self._keeper.set(handle, _attributes(self._from, entry), entry.path)

    def _clear(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._to.of(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def _remove_extra_entries(self) -> None:
        """Remove from the draft what is not in the backup, or is of another type there."""
        for entry in list(tree.walk(self.draft)):
            there = self._from.look(entry.path)
            if there is None or there.form != entry.form:
                disk.remove_tree(self.draft / entry.path)

    def _earlier_checksums(self) -> Mapping[str, str]:
        try:
            return manifest.read_checksums(self.earlier or self.source)[0]
        except OSError:
            return {}

    def _bytes_to_write(self) -> int:
        """Return the most bytes to write; a file that the draft or earlier backup has in the same size costs none."""
        needed = 0
        for entry in tree.walk(self.source):
            if entry.form == "file":
                there = [place.look(entry.path) for place in (self._to, self._before) if place]
                same = any(one and one.facts.st_size == entry.facts.st_size for one in there)
                needed += 0 if same else tree.content_size(entry.facts)
        return needed


@contextlib.contextmanager
def _reading(backup: Path) -> Iterator[None]:
    """Raise `Damaged` if a disk fails below the backup here: that is no failure of the remote."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO or not str(error.filename).startswith(f"{backup}{os.sep}"):
            raise
        raise Damaged(
            f"The backup here cannot be read: {error.strerror}: {printable(error.filename)}.",
            hint=f"Its disk fails. `verify {backup.name}` reads all of it.",
        ) from error


def _content_is(place: tree.Parents, path: str, wanted: str) -> bool:
    with place.of(path) as (folder, name), disk.Opened(name, os.O_RDONLY | os.O_NOFOLLOW, folder) as file:
        return disk.hash_from_disk(file) == wanted


def _attributes(place: tree.Parents, entry: tree.Entry) -> Attributes:
    with place.of(entry.path) as (folder, name):
        return attributes.of_name(name, folder)


def _has_hard_links(backup: Path) -> bool:
    """Return whether the backup has hard links of its own, not only files shared with another backup."""
    try:
        metadata = manifest.read_metadata(backup, ZoneInfo("UTC"))
    except Damaged:
        return False
    return any(one and one.hard_links for one in metadata.tree_facts.values())


def _compared_facts(facts: os.stat_result) -> tuple[int, ...]:
    owner = (facts.st_uid, facts.st_gid) if os.geteuid() == 0 else ()
    return (facts.st_size, facts.st_mode, facts.st_mtime_ns, *owner)
