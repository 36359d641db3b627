"""Pack a sealed backup into a tar stream, and unpack such a stream into a draft.

The list of checksums and the metadata come first, so that the reader knows what to expect. Each file is compared with
its checksum while it is read or written, in constant memory; it is read only once if files come in the list's order.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from backupkit.archive import tar
from backupkit.archive.tar import Member
from backupkit.config.places import NAME as FOLDER
from backupkit.fs import attributes, descriptors, disk, held, space, tree
from backupkit.fs.attributes import Attributes, Keeper
from backupkit.model.backup import CHECKSUM_FILE, GUIDE_FILE, METADATA_FILE, UPLOADS_FOLDER, Metadata, UploadsFacts
from backupkit.model.errors import BackupError, Damaged
from backupkit.model.events import EventListener, Notice, Progress, Step, Warned
from backupkit.model.names import printable
from backupkit.repository import integrity, manifest
from backupkit.upload_files import walk

Read = TypeVar("Read")

_FIRST = (CHECKSUM_FILE, METADATA_FILE, GUIDE_FILE)
_MOST = {METADATA_FILE: 64 << 20, GUIDE_FILE: 64 << 20, CHECKSUM_FILE: 1 << 30}
_LONGEST_PATH = 1 << 14  # bytes: more than any system call accepts, and few enough to keep one for each folder
_LONGEST_NAME = 255
_MOST_BEFORE_METADATA = 1_000_000  # entries before the metadata
_BESIDE_UPLOADS = 16  # entries: the database in up to four files, three of ours, the folder of uploads
_SETUID_OR_SETGID = stat.S_ISUID | stat.S_ISGID
VOUCH = "If you made it yourself and accept this"
_OLDER = "Try an older backup: `list`."
_OTHER = "Copy it again from where it was made, or take another one."


# Packing


def pack(folder: Path, metadata: Metadata, total: int, out: BinaryIO, emit: EventListener) -> None:
    """Write the sealed backup as a tar archive of one folder of its name; compare every file with its checksum.

    Raises `Damaged` if a file, a folder or a link is not as it was sealed: the archive is then left without an end.
    """
    emit(Step("Exporting", total))
    has_names = _has_hard_links(folder, metadata)
    sealed = manifest.Comparison(folder) if manifest.has_checksums(folder) else None
    with closing(tree.Parents(folder)) as parents:
        packing = _Packing(folder, parents, out, emit, sealed, has_names)
        for entry in _in_order(folder):
            packing.put(entry)
        packing.finish()


def _has_hard_links(folder: Path, metadata: Metadata) -> bool:
    """Return whether a tree has hard links, as it had when sealed; raise `Damaged` if a tree has changed."""
    has_names = False
    for name, recorded in metadata.tree_facts.items():
        if recorded and recorded.tree:
            found = walk.survey(folder / name, bool(recorded.hard_links))
            if found.tree != recorded.tree:
                raise _damaged(folder, f"a folder or a link below {name} is not as it was written")
            has_names |= bool(recorded.hard_links) and integrity.keeps_hard_links(recorded, found)
    return has_names


def _in_order(folder: Path) -> Iterator[tree.Entry]:
    """Yield the folder itself, the files needed to read the rest, and the rest."""
    yield tree.entry_of("", os.lstat(folder))
    yield from (entry for name in _FIRST if (entry := tree.look(folder, name)))
    yield from (entry for entry in tree.walk(folder) if entry.path not in _FIRST)


class _Packing:
    def __init__(
        self,
        folder: Path,
        parents: tree.Parents,
        out: BinaryIO,
        emit: EventListener,
        sealed: manifest.Comparison | None,
        has_names: bool,
    ) -> None:
        self._folder, self._parents, self._out, self._tell, self._sealed = folder, parents, out, emit, sealed
        self._written = self._read = 0
        self._has_hard_links = has_names
        # By inode: the first path of each file that may have several names, and its checksum.
        self._named: dict[int, tuple[str, str]] = {}

    def put(self, entry: tree.Entry) -> None:
        """Write one entry; compare a file's content with its checksum."""
        if entry.form == "special":
            raise _damaged(self._folder, f"{printable(entry.path)} is a socket, a fifo or a device")
        if len(os.fsencode(entry.path)) > _LONGEST_PATH:
            raise BackupError(
                f"{printable(str(self._folder))} cannot be exported: {printable(entry.path)[:200]} … has a path of "
                f"more than {_LONGEST_PATH} bytes.",
                hint="A remote of the type folder takes it: `push`.",
            )
        extra = self._attributes(entry)
        if why := why_untrusted(entry.path, entry.form, entry.facts.st_mode, entry.target, extra):
            self._tell(Notice(f"{printable(entry.path)} {why}: import this archive with --trust."))
        root = self._folder.name
        member = replace(_member(f"{root}/{entry.path}".rstrip("/"), entry), attributes=extra)
        if self._has_hard_links and entry.form == "file" and is_upload(entry.path, "file") and entry.facts.st_nlink > 1:
            return self._put_name(entry, member)
        self._write(tar.written(member))
        if member.form == "file":
            self._put_content(entry.path, member.size)

    def _attributes(self, entry: tree.Entry) -> Attributes:
        if entry.form == "link" or not is_upload(entry.path, entry.form):
            return {}
        with self._parents.of(entry.path) as (folder, name):
            found = attributes.of_name(name, folder)
        if sum(len(name) + len(value) for name, value in found.items()) > tar.LONGEST_HEADER // 2:
            path = printable(str(self._folder / entry.path))
            raise BackupError(f"{path} has more extended attributes than an archive holds.", hint="Use `push`.")
        return found

    def _put_name(self, entry: tree.Entry, member: Member) -> None:
        """Write a file that may have several names: its content once, then hard links to it."""
        if known := self._named.get(entry.facts.st_ino):
            first, checksum = known
            self._write(tar.written(replace(member, form="name", size=0, target=f"{self._folder.name}/{first}")))
            return self._refuse_mismatch(entry.path, checksum)
        self._write(tar.written(member))
        self._named[entry.facts.st_ino] = entry.path, self._put_content(entry.path, member.size)

    def _refuse_mismatch(self, path: str, checksum: str) -> None:
        if self._sealed and (reason := self._sealed.flaw(path, checksum)):
            raise _damaged(self._folder, f"{printable(path)} {reason}")

    def _put_content(self, path: str, size: int) -> str:
        digest, before = hashlib.sha256(), self._read
        with disk.Opened(f"{self._folder}/{path}", os.O_RDONLY | os.O_NOFOLLOW) as file:
            while chunk := os.read(file, min(disk.CHUNK, size - (self._read - before))):
                digest.update(chunk)
                self._write(chunk)
                self._read += len(chunk)
                self._tell(Progress(self._read))
            if self._read - before != size or os.read(file, 1):
                raise _damaged(self._folder, f"{printable(path)} changed while it was read")
        self._refuse_mismatch(path, digest.hexdigest())
        self._write(tar.padding(size))
        return digest.hexdigest()

    def finish(self) -> None:
        """Write the end of the archive; raise `Damaged` if something is missing."""
        if self._sealed and (flaw := next(self._sealed.rest(), None)):
            raise _damaged(self._folder, flaw.text)
        self._write(tar.end(self._written))

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)


def _member(path: str, entry: tree.Entry) -> Member:
    facts, form = entry.facts, entry.form
    assert form != "special"
    size = facts.st_size if form == "file" else 0
    owner = (facts.st_uid, facts.st_gid)
    return Member(path, form, stat.S_IMODE(facts.st_mode), owner, facts.st_mtime_ns, size, entry.target)


def _damaged(folder: Path, problem: str) -> Damaged:
    return Damaged(f"The backup {folder} is damaged: {problem}; nothing was exported.", hint=_OLDER)


def is_upload(path: str, form: str) -> bool:
    """Return whether a path in a backup is a tree or in one: only there attributes are those of the live files."""
    return "/" in path or (bool(path) and form == "folder")


def why_unsupported(path: str, form: str) -> str:
    """Return why no backup can hold this entry, even a trusted one; empty for ordinary entries."""
    if form == "special":
        return "is a socket, a fifo or a device"
    if "/" in path:
        return ""
    wanted = "folder" if path == UPLOADS_FOLDER else "file"
    is_tree = form == "folder" and FOLDER.fullmatch(path)  # the metadata says if this backup has it
    return "" if form == wanted or is_tree else f"is a {form}, where a backup has a {wanted}"


def why_untrusted(path: str, form: str, mode: int, target: str, extra: Collection[str] = ()) -> str:
    """Return why a person must vouch for this entry; empty for most. `extra`: names of its extended attributes."""
    if form == "link" and not _stays_inside(path, target):
        return "is a link that leads out of the uploads"
    if form == "file" and mode & _SETUID_OR_SETGID:
        return "is a setuid or setgid file"
    if attributes.CAPABILITY in extra:
        return "has file capabilities"
    return ""


def _stays_inside(path: str, target: str) -> bool:
    """Return whether a link in the uploads can lead only into the uploads, whatever other such links there are."""
    steps = [step for step in target.split("/") if step not in ("", ".")]
    up = next((number for number, step in enumerate(steps) if step != ".."), len(steps))
    # After another link `..` could lead out, so it may only be at the front, where it applies to real folders.
    depth = len(path.split("/")) - 2  # folders between uploads and the link
    return not target.startswith("/") and up <= depth and ".." not in steps[up:]


# Unpacking


Members = Iterator[tuple[Member, Iterator[bytes]]]


def read_name(stream: BinaryIO) -> tuple[str, Members]:
    """Return the name of the one folder that the archive begins with, or raise `Damaged`, and the entries in it."""
    members = tar.members(stream)
    first = next(members, None)
    if first is None or first[0].form != "folder" or "/" in first[0].path:
        raise Damaged("The archive is refused: it does not begin with one folder, named as the backup.", hint=_OTHER)
    return first[0].path, members


def unpack(name: str, members: Members, draft: Path, zone: ZoneInfo, trust: bool, emit: EventListener) -> None:
    """Unpack the entries into the new folder `draft`, without syncing; raise `Damaged` unless they are as sealed.

    `trust` accepts what a person must vouch for. Raises `NoSpace` before writing a file that would not fit.
    """
    with (
        closing(tree.Parents.in_ours(draft)) as parents,
        closing(_Unpacking(draft, parents, name, zone, trust, emit)) as unpacking,
    ):
        for member, content in members:
            unpacking.put(member, content)
        unpacking.finish()


@dataclass
class _Unpacking:
    draft: Path
    parents: tree.Parents
    root: str
    zone: ZoneInfo
    trust: bool
    emit: EventListener
    folders: dict[str, Member] = field(default_factory=dict)
    early: dict[str, str] = field(default_factory=dict)
    """Checksums of files outside the trees that came before the list of checksums."""
    sealed: manifest.Comparison | None = None
    has_uncompared: bool = False
    """Whether files that could not be compared came before the list."""
    metadata: Metadata | None = None
    names: set[str] = field(default_factory=set)
    keeper: Keeper = field(default_factory=Keeper)
    files: int = 0
    links: int = 0
    size: int = 0

    def close(self) -> None:
        if self.sealed:
            self.sealed.close()

    def put(self, member: Member, content: Iterable[bytes]) -> None:
        """Check and write one entry; read the metadata and the list of checksums as soon as they come."""
        path = self._place(member)
        self._refuse_untrusted(path, member)
        with held.making(self.draft.parent, self.draft, path, "link" if member.form == "name" else member.form):
            try:
                _PUT[member.form](self, path, member, content)
            except FileExistsError as error:
                raise _refused(f"{printable(path)} is there twice, or this disk takes two names for one") from error
        if path == METADATA_FILE:
            self.metadata = self._read(lambda: manifest.read_metadata(self.draft, self.zone))
            space.require(self.metadata.content_size, self.draft, "This import")
        if path == CHECKSUM_FILE:
            self._begin_comparing()
        self._refuse_bomb()

    def _read(self, what: Callable[[], Read]) -> Read:
        """Return what `what` reads from the draft; report damage as the archive's, without the draft's path."""
        try:
            return what()
        except Damaged as error:
            raise _refused(error.message.replace(f"{self.draft}/", "").rstrip(".")) from error

    def _place(self, member: Member) -> str:
        """Return the entry's path in the backup; raise `Damaged` if no backup has such a path."""
        root, _, path = member.path.partition("/")
        if root != self.root or not path:
            one = printable(self.root)
            raise _refused(f"{printable(member.path)} is not in the one folder {one}, or is there twice")
        above, _, name = path.rpartition("/")
        steps = path.split("/")
        if above and above not in self.folders:
            raise _refused(f"{printable(path)} is in no folder that came before it")
        if len(os.fsencode(path)) > _LONGEST_PATH or any(len(os.fsencode(step)) > _LONGEST_NAME for step in steps):
            raise _refused(f"{printable(path)[:200]} … is too long or too deep")
        if not above:
            self._refuse_at_top(name, member)
        return path

    def _refuse_at_top(self, name: str, member: Member) -> None:
        plain = unicodedata.normalize("NFC", name).casefold()
        if plain in self.names:
            raise _refused(f"{printable(name)} is there twice")
        self.names.add(plain)
        if why := why_unsupported(name, member.form):
            raise _refused(f"{printable(name)} {why}")
        if member.size > _MOST.get(name, member.size):
            raise _refused(f"{name} claims to have {member.size} bytes")

    def _refuse_untrusted(self, path: str, member: Member) -> None:
        if not self.trust and (why := why_untrusted(path, member.form, member.mode, member.target, member.attributes)):
            raise Damaged(f"The archive is refused: {printable(path)} {why}.", hint=f"{VOUCH}: `import FILE --trust`")

    def put_folder(self, path: str, member: Member, _content: Iterable[bytes]) -> None:
        with self.parents.of(path) as (folder, name):
            os.mkdir(name, 0o700, dir_fd=folder)
        self.folders[path] = member

    def put_link(self, path: str, member: Member, _content: Iterable[bytes]) -> None:
        with self.parents.of(path) as (folder, name):
            os.symlink(member.target, name, dir_fd=folder)
            with descriptors.keeping_what_it_can():
                descriptors.set_link_attributes(name, folder, member.owner, (member.changed, member.changed))
        self.links += 1

    def put_file(self, path: str, member: Member, content: Iterable[bytes]) -> None:
        space.require(member.size, self.draft, "This import")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with self.parents.of(path) as (folder, name), disk.Opened(name, flags, folder) as file:
            _, checksum = disk.write_contents(content, file, sparse=True)
            self._set_attributes(file, path, member)
        if path != CHECKSUM_FILE:
            self._compare(path, checksum)
        self.size += 0 if path in _FIRST else member.size
        self.files += 1

    def put_name(self, path: str, member: Member, _content: Iterable[bytes]) -> None:
        """Create a hard link, only in a tree and only to a file that this archive put into a tree."""
        root, _, first = member.target.partition("/")
        there = self.parents.look(first) if root == self.root and "/" in first and "/" in path else None
        if there is None or there.form != "file":
            target = printable(member.target)
            raise _refused(f"{printable(path)} is a hard link to {target}, which is not an upload before it")
        with closing(tree.Parents.in_ours(self.draft)) as parents, parents.of(first) as (before, known):
            with disk.Opened(known, os.O_RDONLY | os.O_NOFOLLOW, before) as file:
                checksum = disk.hash_contents(file)
            with self.parents.of(path) as (folder, name):
                os.link(known, name, src_dir_fd=before, dst_dir_fd=folder, follow_symlinks=False)
        self._compare(path, checksum)
        self.size += there.facts.st_size
        self.files += 1

    def _set_attributes(self, place: int, path: str, member: Member) -> None:
        """Set owner, mode, times and attributes: in a tree as in the archive, elsewhere as in any backup made here."""
        if is_upload(path, member.form):
            descriptors.set_what_it_keeps(place, member.owner, member.mode, (member.changed, member.changed))
            self.keeper.set(place, member.attributes, path)
        else:
            mode = member.mode & (0o600 if path in _FIRST else 0o777)
            descriptors.set_what_it_keeps(place, disk.owner_of(self.draft), mode, (member.changed, member.changed))

    def _begin_comparing(self) -> None:
        self.sealed = manifest.Comparison(self.draft)
        if self.has_uncompared:
            self.sealed.mark_unordered()
        for path, checksum in self.early.items():
            self._compare(path, checksum)

    def _compare(self, path: str, checksum: str) -> None:
        sealed = self.sealed
        if sealed is None and "/" not in path and len(self.early) < _BESIDE_UPLOADS:
            self.early[path] = checksum
        elif sealed is None:
            self.has_uncompared = True
        elif reason := self._read(lambda: sealed.flaw(path, checksum)):
            raise _refused(f"{printable(path)} {reason}")

    def _refuse_bomb(self) -> None:
        """Refuse an archive bomb: more than the archive's metadata says, or too many entries before the metadata."""
        told, entries = self.metadata, self.files + self.links + len(self.folders)
        if told is None and entries > _MOST_BEFORE_METADATA:
            raise _refused(f"there are {entries} entries, and no {METADATA_FILE} yet")
        if told is None or (told.database is None and told.uploads is None):
            return
        if self.size > told.content_size:
            raise _refused(f"it holds more bytes than its {METADATA_FILE} says")
        trees = [one or UploadsFacts(0, 0) for one in told.tree_facts.values()]
        most = sum(one.files + one.links + one.folders for one in trees) + _BESIDE_UPLOADS + 5 * len(told.others)
        if entries > most:
            raise _refused(f"it holds more entries than its {METADATA_FILE} says")

    def finish(self) -> None:
        """Raise `Damaged` if something is missing; then set the folders' modes and times, inner ones first."""
        sealed = self.sealed
        if sealed is not None and (flaw := self._read(lambda: next(sealed.rest(), None))):
            raise _refused(flaw.text)
        self._refuse_changed_trees()
        for path, member in reversed(self.folders.items()):
            self._set_attributes(self.parents.go(path), path, member)
        if self.keeper.lost:
            self.emit(Warned(self.keeper.sentence("the backups")))

    def _refuse_changed_trees(self) -> None:
        trees = self.metadata.tree_facts if self.metadata else {UPLOADS_FOLDER: None}
        if strangers := [path for path in self.folders if "/" not in path and path not in (UPLOADS_FOLDER, *trees)]:
            raise _refused(f"{printable(strangers[0])} is a folder, where a backup has a file")
        for name, facts in trees.items():
            recorded = facts.tree if facts else ""
            if recorded and name not in self.folders:
                raise _refused(f"its {name} are missing" if name == UPLOADS_FOLDER else f"its tree {name} is missing")
            if recorded and walk.digest(self.draft / name) != recorded:
                raise _refused(f"a folder or a link below {name} is not as it was written")


_PUT = {
    "folder": _Unpacking.put_folder,
    "link": _Unpacking.put_link,
    "file": _Unpacking.put_file,
    "name": _Unpacking.put_name,
}


def _refused(reason: str) -> Damaged:
    return Damaged(f"The archive is refused: {reason}.", hint=_OTHER)
