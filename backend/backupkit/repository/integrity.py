"""Whether a sealed backup is as it was written: every file, folder and link, and what the database holds.

Restore and verify ask the same questions here. Nothing is written, and no link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
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
    Part,
    UploadsFacts,
)
from backupkit.model.names import shown
from backupkit.repository import manifest
from backupkit.sqlite.database import Inspection
from backupkit.upload_files import walk

_FACTS = ("page_size", "encoding", "user_version", "application_id")

T = TypeVar("T")


class Shared(Generic[T]):
    """What was found out of files that have several names: backups share an unchanged file, and it is read once.

    One inode that was not touched in between is one content. Memory is bounded: beyond `most` files it reads again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[tuple[int, int, int], T] = {}

    def of(self, facts: os.stat_result, find: Callable[[], T]) -> T:
        """What `find` returned for this inode, or returns now."""
        key = (facts.st_dev, facts.st_ino, facts.st_ctime_ns)
        if key in self._found:
            return self._found[key]
        value = find()
        if facts.st_nlink > 1 and len(self._found) < self._most:
            self._found[key] = value
        return value


class Digests:
    """SHA-256 of a run's files, each inode read once; `advance` hears of every byte, read or known already."""

    def __init__(self, advance: Callable[[int], None], most: int = 1 << 17) -> None:
        self._advance = advance
        self._shared: Shared[bytes] = Shared(most)

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
    only: Part | None = None,
    hear: Callable[[walk.Survey], None] = lambda _survey: None,
) -> Iterator[Flaw]:
    """What differs from what was sealed in files, folders and links; a sealed backup only.

    `hear` is told what the uploads hold beside contents (`lost`). With `only` the other part is not looked at. What may
    not be read raises `PermissionError`: that is no damage.
    """
    without = {"database": UPLOADS_FOLDER, "uploads": (metadata and metadata.database_file) or ""}.get(only or "", "")
    yield from manifest.verify_checksums(folder, digest, without)
    yield from _strangers(folder, with_uploads=metadata is None or metadata.uploads_included)
    if metadata is not None and only != "database":
        yield from _tree_flaws(folder, metadata, hear)


def lost(metadata: Metadata, found: walk.Survey) -> str:
    """What of the uploads' attributes and hard links is not as it was sealed; nothing, if all of it is.

    That is no damage: a copy over a file system that cannot keep them loses them, and nothing else.
    """
    recorded, said = metadata.uploads, []
    if recorded and not keeps_attributes(recorded, found):
        said.append(f"{found.attributes} ACLs and extended attributes where there were {recorded.attributes}")
    if recorded and not keeps_hard_links(recorded, found):
        said.append(f"{found.hard_links} hard links where there were {recorded.hard_links}")
    return " and ".join(said)


def keeps_attributes(recorded: UploadsFacts, found: walk.Survey) -> bool:
    """Whether there are as many as were sealed; of an older backup nobody knows."""
    return recorded.attributes is None or recorded.attributes == found.attributes


def keeps_hard_links(recorded: UploadsFacts, found: walk.Survey) -> bool:
    """The same of hard links; where none was sealed, none is looked for."""
    return not recorded.hard_links or recorded.hard_links == found.hard_links


def size_flaws(folder: Path, metadata: Metadata) -> Iterator[Flaw]:
    """What a look at sizes finds, without reading a file: a truncated database, uploads that are lost or cut short."""
    name, database, recorded = metadata.database_file, metadata.database, metadata.uploads
    if name and database and not metadata.is_raw:
        entry = tree.look(folder, name)
        if entry is None or entry.form != "file":
            yield Flaw(name, f"{shown(name)} is missing")
        elif entry.facts.st_size != database.size:
            yield Flaw(name, f"{shown(name)} has {entry.facts.st_size} bytes, and the metadata say {database.size}")
    if metadata.uploads_included and recorded and not (folder / UPLOADS_FOLDER).is_dir():
        yield Flaw(UPLOADS_FOLDER, f"{UPLOADS_FOLDER} is missing")
    elif metadata.uploads_included and recorded:
        found = [one.facts.st_size for one in tree.walk(folder / UPLOADS_FOLDER) if one.form == "file"]
        if (len(found), sum(found)) != (recorded.files, recorded.bytes):
            there = f"{len(found)} files of {sum(found)} bytes"
            told = f"{recorded.files} of {recorded.bytes}"
            yield Flaw(UPLOADS_FOLDER, f"{UPLOADS_FOLDER} holds {there}, and the metadata say {told}")


def database_flaws(metadata: Metadata, found: Inspection, checksum: str | None) -> Iterator[Flaw]:
    """What is wrong with the backup's database, by itself and compared with the metadata."""
    name = metadata.database_file or ""
    texts = [*found.problems] or [*_compared(metadata, found, checksum)]
    yield from (Flaw(name, shown(f"{name}: {text}")) for text in texts)


def writable_by_others(folder: Path, metadata: Metadata | None) -> Iterator[Path]:
    """What others than its owner could have written to: with the list of checksums, their change would not be seen."""
    recorded = metadata.database.mode if metadata and metadata.database else 0
    allowed = {metadata.database_file: recorded} if metadata and metadata.database_file else {}
    for name in ("", METADATA_FILE, CHECKSUM_FILE, GUIDE_FILE, *allowed):
        entry = tree.look(folder, name) if name else None
        mode = entry.facts.st_mode if entry else folder.lstat().st_mode
        if (entry or not name) and stat.S_IMODE(mode) & 0o022 & ~allowed.get(name, 0):
            yield folder / name


def _strangers(folder: Path, with_uploads: bool) -> Iterator[Flaw]:
    """Folders, links and the like where only files belong."""
    for name in sorted(os.listdir(folder)):
        entry = tree.look(folder, name)
        if entry is None or entry.form == "file":
            continue
        if name != UPLOADS_FOLDER or not with_uploads:
            yield Flaw(name, f"{shown(name)} was added after the backup was made")
        elif entry.form != "folder":
            yield Flaw(name, f"{name} is no folder")


def _tree_flaws(folder: Path, metadata: Metadata, hear: Callable[[walk.Survey], None]) -> Iterator[Flaw]:
    root, recorded = folder / UPLOADS_FOLDER, metadata.uploads
    if not metadata.uploads_included:
        return
    if not os.path.lexists(root):
        yield Flaw(UPLOADS_FOLDER, f"{UPLOADS_FOLDER} is missing")
    elif recorded and recorded.tree and root.is_dir():
        found = walk.survey(root, bool(recorded.hard_links))
        hear(found)
        if found.tree == recorded.tree or _is_tree(folder, recorded):
            return
        text = "a folder or a link below uploads is not as it was written"
        yield Flaw(UPLOADS_FOLDER, f"{text}: there were {recorded.folders} folders and {recorded.links} links")


def _is_tree(folder: Path, recorded: UploadsFacts) -> bool:
    """Whether folders and links are as recorded; files that were added or lost are told of elsewhere."""
    root = folder / UPLOADS_FOLDER
    below, most = f"{UPLOADS_FOLDER}/", recorded.files
    paths = manifest.listed_paths(folder)
    listed = list(islice((path.removeprefix(below) for path in paths if path.startswith(below)), most + 1))
    if len(listed) > most:
        return False
    entries = [("file", path, "") for path in listed]
    entries += [(one.form, one.path, one.target) for one in tree.walk(root) if one.form != "file"]
    return walk.digest_of(sorted(entries, key=lambda entry: entry[1].split("/"))) == recorded.tree


def _compared(metadata: Metadata, found: Inspection, checksum: str | None) -> Iterator[str]:
    at_table = found.versions.get(metadata.version_table)
    if metadata.revisions and at_table != tuple(sorted(metadata.revisions)):
        at = ", ".join(at_table or ()) or "none"
        yield f"its revision is {at}, and the metadata say {', '.join(metadata.revisions)}"
    if metadata.schema_fingerprint and metadata.schema_fingerprint != found.fingerprint:
        yield "its tables are not built as the metadata say"
    if metadata.database:
        yield from _facts_compared(metadata.database, found.facts)
        if checksum is not None and checksum != metadata.database.sha256:
            yield f"{CHECKSUM_FILE} and the metadata do not have the same checksum of it"


def _facts_compared(recorded: DatabaseFacts, found: DatabaseFacts) -> Iterator[str]:
    for table in sorted(recorded.rows.keys() & found.rows.keys()):  # a table may be one that only the app can read
        before, now = recorded.rows[table], found.rows[table]
        if before != now:
            yield f"table {table} has {now} rows, and the metadata say {before}"
    if found.foreign_key_violations > recorded.foreign_key_violations:
        yield f"{found.foreign_key_violations} rows refer to rows that are not there"
    for name in _FACTS:
        before, now = getattr(recorded, name), getattr(found, name)
        if before != now:
            yield f"its {name} is {now}, and the metadata say {before}"
