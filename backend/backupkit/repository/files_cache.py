"""The files cache: how each live file looked when a backup copied it, so that the next backup can skip unchanged files.

One file per backup, `backups/.state/index/NAME`. The newest few are kept per app, counting whole backups and
database-only backups separately. If one is lost, incomplete or of another backup, the next backup reads all files
again; nothing else depends on it. Format:

    SIZE MTIME CTIME INODE [tab] SHA256 [tab] PATH    one line per file, in the order of `tree.walk`, times in ns; the
                                                      number of extended attributes follows the inode if not 0
    {"seal": …, "database": …, "files": …, …}         SHA-256 of the backup's SHA256SUMS; the database's change stamp;
                                                      the number of file lines
    SHA256 OFFSET                                     of everything above; the offset of the JSON line
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
    """A live file as an earlier backup saw it, and the SHA-256 of its copy in that backup."""

    change_stamp: str
    checksum: str
    attributes: int = 0
    """Number of extended attributes of the copy."""

    def still_matches(self, facts: os.stat_result) -> bool:
        """Return whether the live file certainly still has the content that was copied."""
        return self.change_stamp == stamp_of(facts)


class ParentBackup:
    """An earlier backup from which unchanged files are linked. Ask for paths in the order of `tree.walk`."""

    def __init__(
        self, folder: Path, metadata: Metadata, file: BinaryIO, footer: dict[str, Any], tree: str = UPLOADS_FOLDER
    ) -> None:
        self.folder = folder
        self.uploads = folder / tree
        """Folder with its copies of the uploads."""
        self.metadata = metadata
        self.database: str | None = footer["database"]
        self._stamps: dict[str, str | None] = footer.get("databases", {})
        self._file, self._files = file, int(footer["files"])
        # An earlier version did not sync the live files first, so its stamps cannot be trusted, only its checksums.
        self._is_settled = bool(footer.get("settled"))
        self.keeps_attributes = bool(footer.get("attributes"))
        """Whether its copies have all the attributes that the live files had."""
        self.has_hard_links = bool(metadata.uploads and metadata.uploads.hard_links)
        self.databases: dict[str, SealedDatabase] = {}
        """The SQLite databases inside the tree, by their paths in it."""
        self._path, self._seen, self._is_found = "", CachedFile(RACY, ""), False
        self.rewind()

    def at(self, part: str) -> ParentBackup | None:
        """Return the same backup as if the database `part` were its only one, or None if it has no such database."""
        if not part:
            return self
        metadata = self.metadata.at(part)
        if metadata is None:
            return None
        found = copy.copy(self)
        found.metadata, found.database = metadata, self._stamps.get(part)
        return found

    def find(self, path: str) -> CachedFile | None:
        """Return what the backup recorded about this file, or None."""
        if path != self._path:
            self._go_on_to(path)
        self._is_found = path == self._path
        return self._seen if self._is_found else None

    def _go_on_to(self, path: str) -> None:
        if self._is_found:
            self._advance()  # nearly always to the wanted line: no path needs to be compared by its parts
        if self._path != path:
            wanted = path.split("/")
            while self._path and self._path != path and self._path.split("/") < wanted:
                self._advance()

    def stamps(self) -> Iterator[tuple[str, str]]:
        """Yield the path and the change stamp of each file, from the first."""
        self.rewind()
        while self._path:
            yield self._path, self._seen.change_stamp
            self._advance()

    def rewind(self) -> None:
        """Start again at the first line, so that any path can be asked for next."""
        self._file.seek(0)
        self._lines, self._is_found = islice(self._file, self._files), False
        self._advance()

    def _advance(self) -> None:
        try:
            line = next(self._lines, None)
        except OSError:
            line = None  # the rest is unknown, so the backup reads those files again
        if line is None:
            self._path = ""
            return
        stamp, checksum, path = os.fsdecode(line[:-1]).split("\t", 2)
        stamp, attributes = stamp.rsplit(" ", 1) if stamp.count(" ") > 3 else (stamp, "0")
        stamp = stamp if self._is_settled else RACY
        self._path, self._seen = unescaped(path), CachedFile(stamp, checksum, int(attributes))


class Writer:
    """Writer of the files cache for a backup in progress.

    `database` is the change stamp of the copied database, if known; `databases` has the further ones by name.
    """

    def __init__(self, backups: Path, name: str, folder: Path, file: BinaryIO, part: str = "") -> None:
        self.database: str | None = None
        self.databases: dict[str, str | None] = {}
        self.keeps_attributes = False
        self._backups, self._name, self._folder, self._file, self._part = backups, name, folder, file, part
        self._digest, self._files = hashlib.sha256(), 0
        self._since = 0

    def settle(self, live: Path) -> None:
        """Sync the file system of the live files, so that every later write to them shows in their times.

        A sync is expensive: call this only if the recorded times will be used.
        """
        now = time.time_ns()
        with contextlib.suppress(OSError):
            disk.sync_tree(live)
            self._since = now

    def add(self, path: str, facts: os.stat_result, checksum: str, attributes: int = 0) -> None:
        """Record one upload as it was when it was copied, and the number of extended attributes of the copy."""
        self._files += 1
        seen = change_stamp(facts, self._since) if self._since else RACY
        seen += f" {attributes}" if attributes else ""
        self._write(f"{seen}\t{checksum}\t{escaped(path)}\n")

    def finish(self) -> None:
        """Finish the cache for the sealed backup and remove superseded ones. For speed, nothing is synced."""
        offset = self._file.tell()
        seal = disk.hash_file(self._backups / self._name / CHECKSUM_FILE)
        footer: dict[str, Any] = {"seal": seal, "database": self.database, "files": self._files}
        footer |= {"databases": self.databases} if self.databases else {}
        self._write(json.dumps(footer | {"settled": True, "attributes": self.keeps_attributes}) + "\n")
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
    """Yield a writer of the files cache for one tree of a new backup; remove its draft unless `finish` was called."""
    with own_folder.made(backups, *_folder_of(part)) as folder:
        draft = folder / _draft(name)
        disk.remove(draft)  # left by a killed run
        try:
            with open(disk.make_file(draft), "wb") as file:
                yield Writer(backups, name, folder, file, part)
        finally:
            draft.unlink(missing_ok=True)


def _folder_of(part: str) -> tuple[str, str]:
    return (flags.STATE_FOLDER, f"index-{part}" if part else "index")


def follow_restore(settings: Settings, backup: Path, live: Path, skip: tree.Skip) -> None:
    """Write the backup's files cache anew from the restored live uploads, so that the next backup links from it."""
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
    """Yield the newest good backup of this app with a files cache of this tree, or None.

    With `with_uploads`, skip backups without uploads.
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
        footer = _footer(file)
        if footer is None or footer["seal"] != disk.hash_file(backup.path / CHECKSUM_FILE):
            return None
        found = ParentBackup(backup.path, metadata, file, footer, settings.sealed_folder)
        below = f"{settings.sealed_folder}/"
        inside = [one for one in backup.metadata.databases if one.name.startswith(below)]
        found.databases = {one.name.removeprefix(below): one for one in inside}
        return found
    except (OSError, ValueError, KeyError):
        return None  # deleted meanwhile, unreadable, or of another version: then every file is read again


def _footer(lines: BinaryIO) -> dict[str, Any] | None:
    """Return the JSON line of a files cache, or None if the file is incomplete or damaged."""
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
    footer: dict[str, Any] = json.loads(lines.readline())
    return footer


def _newest_first(folder: Path | None) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if is_name(path.name)] if folder else []
        return sorted(found, key=lambda path: path.lstat().st_mtime_ns, reverse=True)
    except OSError:
        return []


def _superseded(backups: Path, folder: Path, part: str) -> Iterator[Path]:
    """Yield caches to delete: those of lost or unreadable backups, and all but the newest `_KEPT` per `_series_of`."""
    kept: Counter[tuple[str | None, bool] | None] = Counter()
    for path in _newest_first(folder):
        series = _series_of(backups / path.name, part)
        kept[series] += 1
        if kept[series] > _KEPT or series is None:
            yield path


def _series_of(backup: Path, part: str) -> tuple[str | None, bool] | None:
    try:
        metadata = read_metadata(backup, ZoneInfo("UTC")).at(part)
    except Damaged:
        return None
    return (metadata.app_id, metadata.uploads_included) if metadata else None


def _draft(name: str) -> str:
    return f"{disk.DRAFT_PREFIX}{name}"
