"""What the live data looked like when a backup took it: by this the next one knows what has not changed since.

One file a backup, `backups/.state/index/NAME`, the newest few kept: of each app, and of whole backups and those of the
database alone, which share with their own line. One that is lost, not whole, or not of that very
backup costs the next backup a second reading, and nothing else:

    SIZE MTIME CTIME INODE [tab] SHA256 [tab] PATH    a line a file, in the order of `tree.walk`, times in ns; behind
                                                      the inode the number of its extended attributes, if it has any
    {"seal": …, "database": …, "files": …, …}         SHA-256 of the backup's SHA256SUMS; the database's stamp; lines
    SHA256 OFFSET                                     of all above; where the line before this one begins
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zoneinfo import ZoneInfo

from backupkit.config.settings import Settings
from backupkit.fs import disk, own_folder, tree
from backupkit.fs.stamps import RACY, change_stamp, stamp_of
from backupkit.model.backup import CHECKSUM_FILE, UPLOADS_FOLDER, Metadata, SealedDatabase
from backupkit.model.errors import BackupError, Damaged
from backupkit.model.names import is_name
from backupkit.repository import flags, reliable, store
from backupkit.repository.manifest import MOST_CHECKSUMS, checksums_in_order, escaped, read_metadata, unescaped

_KEPT = 2
_FOOTER = 64 + 1 + 20 + 1


class CachedFile(NamedTuple):
    """A live file as an earlier backup saw it, and the SHA-256 of its copy there."""

    change_stamp: str
    checksum: str
    attributes: int = 0
    """How many of them the copy has."""

    def is_now(self, facts: os.stat_result) -> bool:
        """Whether the live file surely has the content that was copied."""
        return self.change_stamp == stamp_of(facts)


class ParentBackup:
    """A backup that what has not changed is linked from. Paths are asked for in the order of `tree.walk`."""

    def __init__(
        self, folder: Path, metadata: Metadata, file: BinaryIO, said: dict[str, Any], tree: str = UPLOADS_FOLDER
    ) -> None:
        self.folder = folder
        self.uploads = folder / tree
        """Its copies of the uploads."""
        self.metadata = metadata
        self.database: str | None = said["database"]
        self._stamps: dict[str, str | None] = said.get("databases", {})
        self._file, self._files = file, int(said["files"])
        # An earlier version did not sync what it saw: then it knows only the contents.
        self._is_settled = bool(said.get("settled"))
        self.keeps_attributes = bool(said.get("attributes"))
        """Whether its copies have all the attributes that the live files had."""
        self.has_hard_links = bool(metadata.uploads and metadata.uploads.hard_links)
        self.databases: dict[str, SealedDatabase] = {}
        """The databases that lie in the tree, by their paths there."""
        self._path, self._seen = "", CachedFile(RACY, "")
        self.rewind()

    def at(self, part: str) -> ParentBackup | None:
        """The same backup as if that database were its only one; None where it has none of that name."""
        if not part:
            return self
        metadata = self.metadata.at(part)
        if metadata is None:
            return None
        found = copy.copy(self)
        found.metadata, found.database = metadata, self._stamps.get(part)
        return found

    def find(self, path: str) -> CachedFile | None:
        """What it saw of that file; None where it saw nothing."""
        if path != self._path:
            wanted = path.split("/")
            while self._path and self._path.split("/") < wanted:
                self._advance()
        return self._seen if path == self._path else None

    def rewind(self) -> None:
        """The next question may be for any path again."""
        self._file.seek(0)
        self._lines = islice(self._file, self._files)
        self._advance()

    def _advance(self) -> None:
        try:
            line = next(self._lines, None)
        except OSError:
            line = None  # nothing is known of the rest: it is read again
        if line is None:
            self._path = ""
            return
        stamp, checksum, path = os.fsdecode(line[:-1]).split("\t", 2)
        parts = stamp.split(" ")
        stamp, attributes = (stamp, 0) if len(parts) == 4 else (" ".join(parts[:4]), int(parts[4]))
        self._path, self._seen = unescaped(path), CachedFile(stamp if self._is_settled else RACY, checksum, attributes)


class Writer:
    """The index of a backup that is being made; `database` is the stamp of what was copied, if it is known.

    `databases` has those of the others, by name.
    """

    def __init__(self, backups: Path, name: str, folder: Path, file: BinaryIO, part: str = "") -> None:
        self.database: str | None = None
        self.databases: dict[str, str | None] = {}
        self.keeps_attributes = False
        self._backups, self._name, self._folder, self._file, self._part = backups, name, folder, file, part
        self._digest, self._files = hashlib.sha256(), 0
        self._since = 0

    def settle(self, live: Path) -> None:
        """What was written to the live files is on disk, so that whatever is written from now on shows in their times.

        That costs a sync of their file system, and is done only where somebody will go by the times.
        """
        now = time.time_ns()
        with contextlib.suppress(OSError):
            disk.sync_tree(live)
            self._since = now

    def add(self, path: str, facts: os.stat_result, checksum: str, attributes: int = 0) -> None:
        """One file of the uploads, as it was when it was copied, and how many attributes the copy has."""
        self._files += 1
        seen = change_stamp(facts, self._since) if self._since else RACY
        seen += f" {attributes}" if attributes else ""
        self._write(f"{seen}\t{checksum}\t{escaped(path)}\n")

    def finish(self) -> None:
        """The sealed backup has this index, and old ones are gone; for speed it is not synced."""
        offset = self._file.tell()
        seal = disk.hash_file(self._backups / self._name / CHECKSUM_FILE)
        said: dict[str, Any] = {"seal": seal, "database": self.database, "files": self._files}
        said |= {"databases": self.databases} if self.databases else {}
        self._write(json.dumps(said | {"settled": True, "attributes": self.keeps_attributes}) + "\n")
        self._file.write(f"{self._digest.hexdigest()} {offset:020d}\n".encode())
        self._file.flush()
        os.replace(self._folder / _draft(self._name), self._folder / self._name)
        for old in _superseded(self._backups, self._folder, self._part):
            old.unlink()

    def _write(self, line: str) -> None:
        raw = os.fsencode(line)
        self._digest.update(raw)
        self._file.write(raw)


@contextlib.contextmanager
def writing(backups: Path, name: str, part: str = "") -> Iterator[Writer]:
    """The index of a backup to be made, of that tree of it; a draft, and gone, unless it is finished."""
    with own_folder.made(backups, *_folder_of(part)) as folder:
        draft = folder / _draft(name)
        disk.remove(draft)  # of a killed run
        try:
            with open(disk.make_file(draft), "wb") as file:
                yield Writer(backups, name, folder, file, part)
        finally:
            draft.unlink(missing_ok=True)


def _folder_of(part: str) -> tuple[str, str]:
    return (flags.STATE_FOLDER, f"index-{part}" if part else "index")


def follow_restore(settings: Settings, backup: Path, live: Path, skip: tree.Skip) -> None:
    """The backup's index is of the live uploads as a restore of it has left them: the next one shares with it."""
    tree_name, checksum_of = settings.sealed_folder, checksums_in_order(backup)
    with (
        contextlib.suppress(OSError, BackupError),
        writing(settings.dir, backup.name, settings.part) as seen,
        contextlib.closing(tree.Parents(backup / tree_name)) as copies,
    ):
        seen.settle(live)
        for entry in tree.walk(live, skip=skip):
            kept = copies.look(entry.path) if entry.form == "file" else None
            checksum = checksum_of(f"{tree_name}/{entry.path}") if kept else None
            if kept and checksum and tree.signature(kept.facts)[:2] == tree.signature(entry.facts)[:2]:
                seen.add(entry.path, entry.facts, checksum)
        seen.finish()


@contextlib.contextmanager
def newest(settings: Settings, with_uploads: bool) -> Iterator[ParentBackup | None]:
    """The newest backup of this app that is good and has an index of this tree.

    Only one that has uploads, where they are wanted.
    """
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(own_folder.existing(settings.dir, *_folder_of(settings.part)))
        found = (_open(settings, path, with_uploads, opened) for path in _newest_first(folder))
        yield next((earlier for earlier in found if earlier), None)


def _open(settings: Settings, path: Path, with_uploads: bool, opened: contextlib.ExitStack) -> ParentBackup | None:
    try:
        backup = store.read(settings, path.name)
        if backup.metadata is None or backup.state == "damaged" or not reliable.is_own(settings, backup.metadata):
            return None
        metadata = backup.metadata if not settings.part else backup.metadata.at(settings.part)
        if metadata is None or (with_uploads and not metadata.uploads_included):
            return None
        file: BinaryIO = opened.enter_context(disk.open_plain(path, MOST_CHECKSUMS))
        said = _footer(file)
        if said is None or said["seal"] != disk.hash_file(backup.path / CHECKSUM_FILE):
            return None
        found = ParentBackup(backup.path, metadata, file, said, settings.sealed_folder)
        below = f"{settings.sealed_folder}/"
        inside = [one for one in backup.metadata.databases if one.name.startswith(below)]
        found.databases = {one.name.removeprefix(below): one for one in inside}
        return found
    except (OSError, ValueError, KeyError):
        return None  # gone meanwhile, another user's, or of another version: then everything is read again


def _footer(lines: BinaryIO) -> dict[str, Any] | None:
    """What the index says of its backup; None where it is not whole."""
    size = lines.seek(0, os.SEEK_END)
    if size < _FOOTER:
        return None
    lines.seek(size - _FOOTER)
    checksum, _, offset = lines.read().decode("ascii", "replace").strip().partition(" ")
    lines.seek(0)
    digest, left = hashlib.sha256(), size - _FOOTER
    while left:
        chunk = lines.read(min(left, disk.CHUNK))
        digest.update(chunk)
        left -= len(chunk)
    if digest.hexdigest() != checksum:
        return None
    lines.seek(int(offset))
    said: dict[str, Any] = json.loads(lines.readline())
    return said


def _newest_first(folder: Path | None) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if is_name(path.name)] if folder else []
        return sorted(found, key=lambda path: path.lstat().st_mtime_ns, reverse=True)
    except OSError:
        return []


def _superseded(backups: Path, folder: Path, part: str) -> Iterator[Path]:
    """All but the newest few of each line, and those of backups that are gone or cannot be read."""
    kept: Counter[tuple[str | None, bool] | None] = Counter()
    for path in _newest_first(folder):
        line = _line_of(backups / path.name, part)
        kept[line] += 1
        if kept[line] > _KEPT or line is None:
            yield path


def _line_of(backup: Path, part: str) -> tuple[str | None, bool] | None:
    try:
        metadata = read_metadata(backup, ZoneInfo("UTC")).at(part)
    except Damaged:
        return None
    return (metadata.app_id, metadata.uploads_included) if metadata else None


def _draft(name: str) -> str:
    return f"{disk.DRAFT_PREFIX}{name}"
