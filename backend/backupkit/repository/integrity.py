"""Integrity checks of a sealed backup: every file, folder and link, and the content of the database.

Restore and verify share them. They write nothing and follow no link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from backupkit.fs import disk, tree
from backupkit.model.backup import (
    CHECKSUM_FILE,
    GUIDE_FILE,
    METADATA_FILE,
    UPLOADS_FOLDER,
    DatabaseFacts,
    Flaw,
    Metadata,
    UploadsFacts,
)
from backupkit.model.names import printable
from backupkit.repository import manifest
from backupkit.sqlite.database import Inspection
from backupkit.upload_files import walk

_FACTS = ("page_size", "encoding", "user_version", "application_id")

T = TypeVar("T")


class Shared(Generic[T]):
    """Results per inode: backups share unchanged files by hard links, and each file should be read only once.

    An inode with the same change time has the same content. Memory is bounded: beyond `most` files nothing is kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[tuple[int, int, int], T] = {}

    def of(self, facts: os.stat_result, find: Callable[[], T]) -> T:
        """Return the earlier result for this inode, or else call `find`."""
        key = (facts.st_dev, facts.st_ino, facts.st_ctime_ns)
        if key in self._found:
            return self._found[key]
        value = find()
        if facts.st_nlink > 1 and len(self._found) < self._most:
            self._found[key] = value
        return value


class Digests:
    """SHA-256 of the files of one run, each inode read once; `advance` is called for every byte, read or reused."""

    def __init__(self, advance: Callable[[int], None] = lambda _count: None) -> None:
        self._advance = advance
        self._shared: Shared[bytes] = Shared(1 << 17)

    def __call__(self, path: str, facts: os.stat_result) -> str:
        read = False

        def hashed() -> bytes:
            nonlocal read
            read = True
            return bytes.fromhex(disk.hash_file(path, self._advance))

        checksum = self._shared.of(facts, hashed)
        if not read:
            self._advance(facts.st_size)
        return checksum.hex()


def file_flaws(
    folder: Path,
    metadata: Metadata | None,
    digest: manifest.Digest,
    only: str | None = None,
    on_survey: Callable[[str, walk.Survey], None] = lambda _tree, _survey: None,
) -> Iterator[Flaw]:
    """Yield every difference from the sealed state in files, folders and links. The backup must have checksums.

    `on_survey` gets the survey of each tree (see `lost`). With `only`, the other parts are not read. An unreadable file
    or folder raises `PermissionError`, because that is not damage.
    """
    trees = metadata.tree_facts if metadata else {UPLOADS_FOLDER: None}
    without = metadata.left_out(only) if metadata else frozenset[str]()
    with closing(_Surveys(folder, trees)) as surveys:
        yield from manifest.verify_checksums(folder, digest, without, surveys.add)
        yield from _unexpected_entries(folder, trees)
        for name, recorded in trees.items() if metadata else ():
            if name not in without:
                yield from _tree_flaws(folder, name, recorded, surveys, on_survey)


class _Surveys:
    """Surveys of the trees named in the metadata, filled while their checksums are compared."""

    def __init__(self, folder: Path, trees: Mapping[str, UploadsFacts | None]) -> None:
        self._folder, self._trees = folder, trees
        self._surveyors: dict[str, walk.Surveyor] = {}

    def add(self, name: str, entry: tree.Entry) -> None:
        recorded = self._trees.get(name)
        if recorded is None or not recorded.tree:
            return
        if name not in self._surveyors:
            self._surveyors[name] = walk.Surveyor(self._folder / name, bool(recorded.hard_links))
        self._surveyors[name].add(entry)

    def of(self, name: str, recorded: UploadsFacts) -> walk.Survey:
        """Return the survey of a tree; walk it now if no entry was added (it is empty, or nothing was compared)."""
        surveyor = self._surveyors.get(name)
        return surveyor.survey() if surveyor else walk.survey(self._folder / name, bool(recorded.hard_links))

    def close(self) -> None:
        for surveyor in self._surveyors.values():
            surveyor.close()


def lost(recorded: UploadsFacts | None, found: walk.Survey) -> str:
    """Describe extended attributes and hard links that differ from the sealed numbers; empty if none do.

    That is not damage: a copy by way of a file system without them loses them, and nothing else.
    """
    said = []
    if recorded and not keeps_attributes(recorded, found):
        said.append(f"{found.attributes} ACLs and extended attributes where there were {recorded.attributes}")
    if recorded and not keeps_hard_links(recorded, found):
        said.append(f"{found.hard_links} hard links where there were {recorded.hard_links}")
    return " and ".join(said)


def keeps_attributes(recorded: UploadsFacts, found: walk.Survey) -> bool:
    """Return whether there are as many extended attributes as sealed; true for older backups, which have no number."""
    return recorded.attributes is None or recorded.attributes == found.attributes


def keeps_hard_links(recorded: UploadsFacts, found: walk.Survey) -> bool:
    """Return whether there are as many hard links as sealed; true if none were."""
    return not recorded.hard_links or recorded.hard_links == found.hard_links


def size_flaws(folder: Path, metadata: Metadata) -> Iterator[Flaw]:
    """Yield flaws visible in file sizes alone: a missing or truncated database, missing or truncated uploads."""
    for name, database in metadata.database_files.items():
        if database and not database.raw:
            yield from _database_size_flaws(folder, name, database)
    for name, recorded in metadata.tree_facts.items():
        yield from _tree_size_flaws(folder, name, recorded)


def _database_size_flaws(folder: Path, name: str, database: DatabaseFacts) -> Iterator[Flaw]:
    entry = tree.look(folder, name)
    if entry is None or entry.form != "file":
        yield Flaw(name, f"{printable(name)} is missing")
    elif entry.facts.st_size != database.size:
        yield Flaw(name, f"{printable(name)} has {entry.facts.st_size} bytes, and the metadata say {database.size}")


def _tree_size_flaws(folder: Path, name: str, recorded: UploadsFacts | None) -> Iterator[Flaw]:
    if recorded and not (folder / name).is_dir():
        yield Flaw(name, f"{name} is missing")
    elif recorded:
        found = [one.facts.st_size for one in tree.walk(folder / name) if one.form == "file"]
        if (len(found), sum(found)) != (recorded.files, recorded.bytes):
            there = f"{len(found)} files of {sum(found)} bytes"
            told = f"{recorded.files} of {recorded.bytes}"
            yield Flaw(name, f"{name} holds {there}, and the metadata say {told}")


def database_flaws(metadata: Metadata, found: Inspection, checksum: str | None) -> Iterator[Flaw]:
    """Yield SQLite's problems with the backup's database, or, if it has none, differences from the metadata."""
    name = metadata.database_file or ""
    texts = [*found.problems] or [*_metadata_differences(metadata, found, checksum)]
    yield from (Flaw(name, printable(f"{name}: {text}")) for text in texts)


def writable_by_others(folder: Path, metadata: Metadata | None) -> Iterator[Path]:
    """Yield what users other than the owner can write to: they could change a file and its checksum unnoticed."""
    files = metadata.database_files.items() if metadata else ()
    allowed = {name: one.mode if one else 0 for name, one in files if "/" not in name}
    for name in ("", METADATA_FILE, CHECKSUM_FILE, GUIDE_FILE, *allowed):
        entry = tree.look(folder, name) if name else None
        mode = entry.facts.st_mode if entry else folder.lstat().st_mode
        if (entry or not name) and stat.S_IMODE(mode) & 0o022 & ~allowed.get(name, 0):
            yield folder / name


def _unexpected_entries(folder: Path, trees: Collection[str]) -> Iterator[Flaw]:
    """Yield folders, links and special files that the backup did not have, and trees that are not folders."""
    for name in sorted(os.listdir(folder)):
        entry = tree.look(folder, name)
        if entry is None or entry.form == "file":
            continue
        if name not in trees:
            yield Flaw(name, f"{printable(name)} was added after the backup was made")
        elif entry.form != "folder":
            yield Flaw(name, f"{name} is not a folder")


def _tree_flaws(
    folder: Path,
    name: str,
    recorded: UploadsFacts | None,
    surveys: _Surveys,
    on_survey: Callable[[str, walk.Survey], None],
) -> Iterator[Flaw]:
    root = folder / name
    if not os.path.lexists(root):
        yield Flaw(name, f"{name} is missing")
    elif recorded and recorded.tree and root.is_dir():
        found = surveys.of(name, recorded)
        on_survey(name, found)
        if found.tree == recorded.tree or _is_tree(folder, name, recorded):
            return
        text = f"a folder or a link below {name} is not as it was written"
        yield Flaw(name, f"{text}: there were {recorded.folders} folders and {recorded.links} links")


def _is_tree(folder: Path, name: str, recorded: UploadsFacts) -> bool:
    """Return whether folders and links are as recorded; added and missing files are reported by the checksums."""
    root = folder / name
    below, most = f"{name}/", recorded.files
    paths = manifest.listed_paths(folder)
    listed = list(islice((path.removeprefix(below) for path in paths if path.startswith(below)), most + 1))
    if len(listed) > most:
        return False
    entries = [("file", path, "") for path in listed]
    entries += [(one.form, one.path, one.target) for one in tree.walk(root) if one.form != "file"]
    return walk.digest_of(sorted(entries, key=lambda entry: entry[1].split("/"))) == recorded.tree


def _metadata_differences(metadata: Metadata, found: Inspection, checksum: str | None) -> Iterator[str]:
    at_table = found.versions.get(metadata.version_table)
    if metadata.revisions and at_table != tuple(sorted(metadata.revisions)):
        at = ", ".join(at_table or ()) or "none"
        yield f"its revision is {at}, and the metadata say {', '.join(metadata.revisions)}"
    if metadata.schema_fingerprint and metadata.schema_fingerprint != found.fingerprint:
        yield "its tables are not built as the metadata say"
    if metadata.database:
        yield from _facts_differences(metadata.database, found.facts)
        if checksum is not None and checksum != metadata.database.sha256:
            yield f"{CHECKSUM_FILE} and the metadata do not have the same checksum of it"


def _facts_differences(recorded: DatabaseFacts, found: DatabaseFacts) -> Iterator[str]:
    for table in sorted(recorded.rows.keys() & found.rows.keys()):  # some virtual tables can be read by the app only
        before, now = recorded.rows[table], found.rows[table]
        if before != now:
            yield f"table {table} has {now} rows, and the metadata say {before}"
    if found.foreign_key_violations > recorded.foreign_key_violations:
        yield f"{found.foreign_key_violations} rows refer to rows that are not there"
    for name in _FACTS:
        before, now = getattr(recorded, name), getattr(found, name)
        if before != now:
            yield f"its {name} is {now}, and the metadata say {before}"
