"""What database and uploads are at a point: the hashes of all pages, and the list of uploads. It follows the points.

Whoever holds the state of a point knows what the next one must hold, and what of it is as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from backupkit.fs import attributes, disk, tree
from backupkit.model.backup import CHECKSUM_FILE, UPLOADS_FOLDER, Backup, Metadata
from backupkit.model.errors import Damaged
from backupkit.repository import manifest, store
from backupkit.rewind import point
from backupkit.rewind.point import Change, DatabaseChange, Entry, Header, PartChange
from backupkit.sqlite import changed_pages
from backupkit.sqlite.pages import HASH

_OTHER = "`rewind` shows what can be restored."


class Known(NamedTuple):
    """An upload: where its content is (a point's file name and the place in it, or a path in the base), its stamp.

    `owner` is whose it was before a point said so. It is no part of the state: who copies a backup may become the
    owner of all of it, and the points that stand on it fit as before.
    """

    entry: Entry
    place: tuple[str, int] | str = ""
    stamp: str = ""
    owner: tuple[int, int] | None = None

    @property
    def whose(self) -> tuple[int, int]:
        """The owner that it is to have; whoever asks, where nobody knows."""
        return self.entry.owner or self.owner or (os.geteuid(), os.getegid())

    def is_as(self, entry: Entry) -> bool:
        """Whether the live one is the same; an owner that either side cannot tell is no difference."""
        owner = self.entry.owner or self.owner
        found = entry.owner if entry.owner and owner else None
        return replace(self.entry, owner=owner if found else None) == replace(entry, owner=found)


@dataclass
class State:
    """Database and uploads at one point of a chain; `others` are the further databases and trees, by their names.

    A tree has no pages, a further database no uploads.
    """

    page_size: int
    hashes: bytearray
    uploads: dict[str, Known] = field(default_factory=dict)
    others: dict[str, State] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        return len(self.hashes) // HASH

    @property
    def root(self) -> str:
        """What the database is known by: every page of it has a part in that."""
        return hashlib.sha256(self.hashes).hexdigest()

    def uploads_digest(self) -> str:
        """What the uploads are known by."""
        digest = hashlib.sha256()
        for path in sorted(self.uploads):
            digest.update(repr((path, _values(self.uploads[path].entry))).encode("ascii", "backslashreplace"))
        return digest.hexdigest()

    @property
    def parts(self) -> dict[str, State]:
        """Each part by its name, the first ones under none."""
        return {"": self, **self.others}

    @property
    def name(self) -> str:
        """One digest for all."""
        return _digest(one.signature(part) for part, one in self.parts.items())

    def signature(self, part: str) -> Signature:
        """What that part of the app, which this is the state of, is known by."""
        root = "" if part and not self.page_size else self.root
        return part, self.page_size, self.pages, root, "" if part and self.page_size else self.uploads_digest()

    def apply(self, path: Path, header: Header) -> None:
        """It is that of the point now, which leads from here; `Damaged` for a file that is not as it was written."""
        point.verify(path)
        for one, state in self.matched(path.name, header):
            if one.database:
                state._apply_pages(path, one.database, one.offset)
            state.change(path.name, one.changes)
        for one, state in self.matched(path.name, header):
            if state.signature(one.name) != _signature_in(one):
                where = f" in the {one.title}" if header.others and state.root != one.root and one.database else ""
                raise Damaged(f"The point {path.name} does not lead to where it says{where}.", _OTHER)
        if header.state != _digest(map(_signature_in, header.parts)):
            raise Damaged(f"The point {path.name} does not lead to where it says.", _OTHER)

    def matched(self, name: str, header: Header) -> list[tuple[PartChange, State]]:
        """Each part of the point of that name with its state; `Damaged` where they have not the same parts."""
        mine = self.parts
        if [one.name for one in header.parts] != list(mine):
            raise Damaged(f"The point {name} has other databases or trees than those that it leads on from.", _OTHER)
        return [(one, mine[one.name]) for one in header.parts]

    def _apply_pages(self, path: Path, database: DatabaseChange, offset: int) -> None:
        if database.page_size != self.page_size:
            self.page_size, self.hashes = database.page_size, bytearray()
        self.resize(database.pages)
        for number, content in point.pages(path, database, offset=offset):
            self.hashes[(number - 1) * HASH : number * HASH] = changed_pages.hash_of(content)

    def resize(self, pages: int) -> None:
        """The database has so many pages; new ones are not known yet."""
        del self.hashes[pages * HASH :]
        self.hashes.extend(bytes(pages * HASH - len(self.hashes)))

    def change(self, name: str, changes: Iterable[Change]) -> None:
        """The uploads are as that point says; `Damaged` where what it refers to is not there."""
        for change in changes:
            before = self.uploads.get(change.path)
            if change.entry is None:
                self.uploads.pop(change.path, None)
                continue
            place: tuple[str, int] | str = (name, change.offset) if change.content == "here" else change.source
            if change.content == "before":
                if before is None or before.entry.form != "file" or before.entry.sha256 != change.entry.sha256:
                    raise Damaged(f"The point {name} refers to an upload that is not there.", _OTHER)
                place = before.place
            owner = (before.entry.owner or before.owner) if before else None
            self.uploads[change.path] = Known(change.entry, place, change.stamp, owner)


Signature = tuple[str, int, int, str, str]
"""A part's name, the size and number of its pages, their digest, and that of its uploads."""


def _signature_in(one: PartChange) -> Signature:
    return one.name, *one.shape, one.root, one.uploads


def _digest(parts: Iterable[Signature]) -> str:
    """One digest for all; for an app that has one database and one tree, of their values alone."""
    first, *others = parts
    return hashlib.sha256(json.dumps([*first[1:], *([others] if others else ())]).encode()).hexdigest()


def _values(entry: Entry) -> tuple[object, ...]:
    owner = entry.owner and tuple(entry.owner)
    return (
        entry.form,
        entry.mode,
        entry.changed,
        owner,
        entry.size,
        entry.sha256,
        entry.target,
        tuple(tuple(one) for one in entry.attributes),
    )


# A backup as the state that a chain begins with.


def of_backup(backup: Backup, with_pages: bool = True) -> State:
    """What is in a backup, its databases read where wanted; that its uploads are as sealed is for a verify to say."""
    metadata = store.require_metadata(backup)
    state = _of_part(backup, metadata.at(""), "", with_pages)
    for part in parts_of(metadata):
        state.others[part] = _of_part(backup, metadata.at(part), part, with_pages)
    return state


def parts_of(metadata: Metadata) -> list[str]:
    """The names of its further databases and trees, those left out that lie in a tree: they are files of it."""
    return [name for name in metadata.others if "/" not in name]


def _of_part(backup: Backup, metadata: Metadata | None, part: str, with_pages: bool) -> State:
    assert metadata
    uploads = dict(_sealed(backup.path, part or UPLOADS_FOLDER)) if metadata.uploads_included else {}
    if metadata.database is None or metadata.database_file is None:
        return State(0, bytearray(), uploads)
    file, size, hashes = backup.path / metadata.database_file, metadata.database.page_size, bytearray()
    if with_pages:
        with disk.open_plain(file, 1 << 62) as opened:
            hashes = changed_pages.hashes_of(opened, size, metadata.database.size // size)
    return State(size, hashes, uploads)


def seal_of(backup: Backup) -> str:
    """What tells this backup from any other of its name."""
    return disk.hash_file(backup.path / CHECKSUM_FILE)


def _sealed(folder: Path, of_tree: str) -> Iterator[tuple[str, Known]]:
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


def _known(facts: os.stat_result, entry: Entry, place: str = "") -> Known:
    return Known(replace(entry, owner=None), place, owner=(facts.st_uid, facts.st_gid))


def entry_of(facts: os.stat_result, found: attributes.Attributes) -> Entry:
    """What the system says of an upload, its content and where it points left out."""
    form = tree.form_of(facts.st_mode)
    assert form != "special"
    return Entry(
        form=form,
        mode=stat.S_IMODE(facts.st_mode),
        changed=facts.st_mtime_ns,
        owner=(facts.st_uid, facts.st_gid) if os.geteuid() == 0 else None,
        size=facts.st_size if form == "file" else 0,
        attributes=tuple((name, value.hex()) for name, value in sorted(found.items())) if form != "link" else (),
    )
