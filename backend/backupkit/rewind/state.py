"""The state of database and uploads at a point: the hashes of all pages, and the list of uploads.

It is enough to find what changed since then, and to check that the next point leads to the state that it names.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import astuple, replace

from backupkit.config.settings import Settings
from backupkit.fs import attributes, disk, tree
from backupkit.fs.descriptors import mode_for
from backupkit.model.backup import CHECKSUM_FILE, UPLOADS_FOLDER, Backup, Metadata
from backupkit.model.errors import Damaged
from backupkit.repository import manifest, store
from backupkit.rewind import point
from backupkit.rewind.point import Change, DatabaseChange, Entry, Header, PartChange
from backupkit.sqlite import changed_pages
from backupkit.sqlite.pages import HASH

_HINT = "`rewind` shows what can be restored."


def base_backup(settings: Settings, name: str) -> Backup | None:
    """Return the backup that points are based on, or None if it is gone, or nothing in it can be trusted."""
    backup = store.read(settings, name) if store.is_backup(settings.dir / name) else None
    return backup if backup and backup.metadata and manifest.has_checksums(backup.path) else None


class KnownUpload(NamedTuple):
    """An upload: its entry, the place of its content (file name of a point and offset, or path in the base), its stamp.

    `owner` is the last one known from the base backup or an earlier point, for an entry that records none. It is not
    part of the state: a user who copies a backup may come to own its files, and its points must still fit.
    """

    entry: Entry
    place: tuple[str, int] | str = ""
    stamp: str = ""
    owner: tuple[int, int] | None = None

    @property
    def owner_to_restore(self) -> tuple[int, int]:
        """The uid and gid to restore; those of this process if none is known."""
        return self.entry.owner or self.owner or (os.geteuid(), os.getegid())

    def is_as(self, entry: Entry) -> bool:
        """Return whether the live entry is the same; owners count only if both sides know them."""
        owner = self.entry.owner or self.owner
        found = entry.owner if entry.owner and owner else None
        return replace(self.entry, owner=owner if found else None) == replace(entry, owner=found)


class State(Struct):
    """Database and uploads at one point of a chain; `others` are the further databases and trees by name.

    A further tree has no pages, and a further database has no uploads.
    """

    page_size: int
    hashes: bytearray
    uploads: dict[str, KnownUpload] = field(default_factory=dict)
    others: dict[str, State] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        return len(self.hashes) // HASH

    @property
    def root(self) -> str:
        """The digest of the database: SHA-256 of the hashes of all its pages."""
        return hashlib.sha256(self.hashes).hexdigest()

    def uploads_digest(self) -> str:
        """Return the SHA-256 of all paths and entries of the uploads."""
        digest = hashlib.sha256()
        for path in sorted(self.uploads):
            digest.update(repr((path, astuple(self.uploads[path].entry))).encode("ascii", "backslashreplace"))
        return digest.hexdigest()

    @property
    def parts(self) -> dict[str, State]:
        """All parts by name; the main database and uploads have the empty name."""
        return {"": self, **self.others}

    @property
    def name(self) -> str:
        """One digest of all parts, as in the `state` and `parent` of a header."""
        return _digest(one.signature(part) for part, one in self.parts.items())

    def signature(self, part: str) -> Signature:
        """Return the signature of this state, which is that of the named part."""
        root = "" if part and not self.page_size else self.root
        return part, self.page_size, self.pages, root, "" if part and self.page_size else self.uploads_digest()

    def apply(self, path: Path, header: Header) -> None:
        """Advance this state to that of the point; raise `Damaged`, half changed, if it is not as it was written."""
        point.verify(path)
        for one, state in self.paired_parts(path.name, header):
            if one.database:
                state._apply_pages(path, one.database, one.offset)
            state.change(path.name, one.changes)
        for one, state in self.paired_parts(path.name, header):
            if state.signature(one.name) != _signature_in(one):
                where = f" in the {one.title}" if header.others and state.root != one.root and one.database else ""
                raise Damaged(f"The point {path.name} does not give the data that it recorded{where}.", _HINT)
        if header.state != _digest(map(_signature_in, header.parts)):
            raise Damaged(f"The point {path.name} does not give the data that it recorded.", _HINT)

    def paired_parts(self, name: str, header: Header) -> list[tuple[PartChange, State]]:
        """Pair each part of the point with its state; raise `Damaged` if the two have different parts."""
        mine = self.parts
        if [one.name for one in header.parts] != list(mine):
            raise Damaged(f"The point {name} does not have the same databases and trees as the point before it.", _HINT)
        return [(one, mine[one.name]) for one in header.parts]

    def _apply_pages(self, path: Path, database: DatabaseChange, offset: int) -> None:
        if database.page_size != self.page_size:
            self.page_size, self.hashes = database.page_size, bytearray()
        self.resize(database.pages)
        for number, content in point.pages(path, database, offset=offset):
            self.hashes[(number - 1) * HASH : number * HASH] = changed_pages.hash_of(content)

    def resize(self, pages: int) -> None:
        """Set the number of pages; the hashes of new pages are zero until they are set."""
        del self.hashes[pages * HASH :]
        self.hashes.extend(bytes(pages * HASH - len(self.hashes)))

    def change(self, name: str, changes: Iterable[Change]) -> None:
        """Apply the upload changes of the point `name`; raise `Damaged` if the content of one is missing."""
        for change in changes:
            before = self.uploads.get(change.path)
            if change.entry is None:
                self.uploads.pop(change.path, None)
                continue
            place: tuple[str, int] | str = (name, change.offset) if change.content == "here" else change.source
            if change.content == "before":
                if before is None or before.entry.form != "file" or before.entry.sha256 != change.entry.sha256:
                    raise Damaged(f"The point {name} refers to an upload that is not there.", _HINT)
                place = before.place
            owner = (before.entry.owner or before.owner) if before else None
            self.uploads[change.path] = KnownUpload(change.entry, place, change.stamp, owner)


Signature = tuple[str, int, int, str, str]
"""Name of a part, page size, number of pages, digest of the pages, digest of the uploads."""


def _signature_in(one: PartChange) -> Signature:
    return one.name, *one.shape, one.root, one.uploads


def _digest(parts: Iterable[Signature]) -> str:
    """Return one digest of all signatures; the name of the first part does not count."""
    first, *others = parts
    return hashlib.sha256(json.dumps([*first[1:], *([others] if others else ())]).encode()).hexdigest()


# State of a backup


def of_backup(backup: Backup, with_pages: bool = True) -> State:
    """Return the state of a backup; only with `with_pages` are its databases read and hashed.

    Checksums of uploads are taken from the manifest: comparing the files with it is the task of `verify`.
    """
    metadata = store.require_metadata(backup)
    state = _state_of_part(backup, metadata.at(""), "", with_pages)
    for part in parts_of(metadata):
        state.others[part] = _state_of_part(backup, metadata.at(part), part, with_pages)
    return state


def parts_of(metadata: Metadata) -> list[str]:
    """Return the names of the further databases and trees, but not of databases in a tree: those are files of it."""
    return [name for name in metadata.others if "/" not in name]


def _state_of_part(backup: Backup, metadata: Metadata | None, part: str, with_pages: bool) -> State:
    assert metadata
    uploads = dict(_sealed_uploads(backup.path, part or UPLOADS_FOLDER)) if metadata.uploads_included else {}
    if metadata.database is None or metadata.database_file is None:
        return State(0, bytearray(), uploads)
    file, size, hashes = backup.path / metadata.database_file, metadata.database.page_size, bytearray()
    if with_pages:
        with disk.open_plain(file, 1 << 62) as opened:
            hashes = changed_pages.hashes_of(opened, size, metadata.database.size // size)
    return State(size, hashes, uploads)


def seal_of(backup: Backup) -> str:
    """Return the SHA-256 of the checksum file, which tells this backup from any other of the same name."""
    return disk.hash_file(backup.path / CHECKSUM_FILE)


def _sealed_uploads(folder: Path, of_tree: str) -> Iterator[tuple[str, KnownUpload]]:
    root, checksum_of = folder / of_tree, manifest.checksums_in_order(folder)
    with closing(tree.Parents(root)) as parents:
        handle = parents.go("")
        facts = os.fstat(handle)
        yield "", _known(facts, entry_of(facts, attributes.of_open(handle)))
        for entry in tree.walk(root):
            with parents.of(entry.path) as (within, name):
                found = attributes.of_name(name, within)
            checksum = checksum_of(f"{of_tree}/{entry.path}") or "" if entry.form == "file" else ""
            known = replace(entry_of(entry.facts, found), sha256=checksum, target=entry.target)
            yield entry.path, _known(entry.facts, known, entry.path)


def _known(facts: os.stat_result, entry: Entry, place: str = "") -> KnownUpload:
    return KnownUpload(replace(entry, owner=None), place, owner=(facts.st_uid, facts.st_gid))


def entry_of(facts: os.stat_result, found: attributes.Attributes) -> Entry:
    """Return the entry of an upload without checksum and link target; its owner is recorded only by root.

    Without its owner, a file is recorded with the mode that a copy of ours may have.
    """
    form = tree.form_of(facts.st_mode)
    assert form != "special"
    owner, mode, is_root = (facts.st_uid, facts.st_gid), stat.S_IMODE(facts.st_mode), os.geteuid() == 0
    return Entry(
        form=form,
        mode=mode if is_root or form != "file" else mode_for((os.geteuid(), os.getegid()), owner, mode),
        changed=facts.st_mtime_ns,
        owner=owner if is_root else None,
        size=facts.st_size if form == "file" else 0,
        attributes=tuple((name, value.hex()) for name, value in sorted(found.items())) if form != "link" else (),
    )
