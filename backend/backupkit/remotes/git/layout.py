"""Which parts of a backup a git commit holds, and where: text to read and diff, and the files themselves if included.

dump.sql               the database as SQL text; dump.NAME.sql is that of another one, NAME in [databases]
backup_metadata.json   as in the backup; so is RESTORE.md
database/ uploads/     the files themselves, if included: of all databases; of [trees] beside uploads, as NAME/.
                       Paths cannot collide: NAME has no dot, and is not `database`
uploads.tree           with them: one line for each, with what git does not keep: modes, times, owners, empty
                       folders, links
SHA256SUMS             if all of the backup is included: a pull then restores it byte for byte
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from backupkit.archive.tar import Member
from backupkit.fs import disk, space, tree
from backupkit.model.backup import CHECKSUM_FILE, GUIDE_FILE, METADATA_FILE, UPLOADS_FOLDER, Metadata
from backupkit.model.errors import Damaged, Refused
from backupkit.model.names import few, printable
from backupkit.repository import manifest

LISTING, DATABASE_FOLDER = "uploads.tree", "database"
TEXTS = (CHECKSUM_FILE, METADATA_FILE, GUIDE_FILE)
# Names that git or a host reserves: `.git` in any spelling that some file system reads as it. And characters that are
# not text, or that git would quote.
_RESERVED = re.compile(r"\.git|git~|\.{1,2}$|$", re.IGNORECASE)
_UNSUITABLE = re.compile(r'[\x00-\x1f\x7f"\\%\ud800-\udfff]')
_MILLION = 1_000_000
_AGAIN = "Try an older backup: `list`."


class Stored(Struct, frozen=True):
    """A file to put into the tree: its path there, its source, its size, its name in errors, its checksum if known."""

    path: str
    source: Path
    size: int
    name: str
    checksum: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """Yield its content; raise `Damaged` if that is not as it was sealed."""
        digest, left = hashlib.sha256(), self.size
        with open(os.open(self.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
            while chunk := file.read(min(disk.CHUNK, left)):
                digest.update(chunk)
                left -= len(chunk)
                yield chunk
        if left or (self.checksum is not None and digest.hexdigest() != self.checksum):
            raise altered(self.source)


def altered(file: Path) -> Damaged:
    """Return the error for a file of a sealed backup whose content has changed."""
    return Damaged(f"{printable(str(file))} is not as it was written; nothing was pushed.", hint=_AGAIN)


def is_whole(metadata: Metadata, include: Collection[str]) -> bool:
    """Return whether all of the backup is included."""
    return "database" in include and ("uploads" in include or not metadata.tree_facts)


def databases(metadata: Metadata) -> dict[str, Metadata]:
    """Return the metadata of each database outside the trees, by name; the first one's name is empty."""
    alone = {name: metadata.at(name) for name in ("", *metadata.others) if "/" not in name}
    return {name: one for name, one in alone.items() if one and one.database_file}


def dump_part(name: str) -> str:
    """Return the name of the part that is this database's SQL text, as commits list it."""
    return f"dump.{name}" if name else "dump"


def dump_file(part: str) -> str:
    """Return the file name of a part that is SQL text; empty for any other part."""
    return f"{part}.sql" if part.partition(".")[0] == "dump" else ""


def stored(backup: Path, metadata: Metadata, include: Collection[str]) -> list[Stored]:
    """Return the backup's own files for the tree; the caller adds the dumps and the listing, which are generated."""
    expected = manifest.sound_checksums(backup) if manifest.has_checksums(backup) else {}
    texts = TEXTS if is_whole(metadata, include) else TEXTS[1:]
    paths = [name for name in texts if (backup / name).is_file()]
    paths += [entry.path for entry in _included_entries(backup, metadata, include) if entry.form == "file"]
    trees = _trees(metadata)
    return [
        Stored(_path_in_git(path, trees), backup / path, os.lstat(backup / path).st_size, path, expected.get(path))
        for path in paths
    ]


def listing(backup: Path, metadata: Metadata, include: Collection[str]) -> bytes:
    """Return what git does not keep of the included files, one line of JSON each."""
    return b"".join(json.dumps(_line(entry)).encode() + b"\n" for entry in _included_entries(backup, metadata, include))


def _included_entries(backup: Path, metadata: Metadata, include: Collection[str]) -> Iterator[tree.Entry]:
    """Yield the included entries of a backup except its texts, in the order of a walk."""
    trees = _trees(metadata)
    left_out = frozenset[str]() if "uploads" in include else trees
    for entry in tree.walk(backup, skip=lambda path, _facts, _folder: path in left_out):
        is_upload = entry.path.partition("/")[0] in trees
        if entry.path not in TEXTS and (is_upload or "database" in include):
            yield entry


def _trees(metadata: Metadata) -> frozenset[str]:
    """Return the names of the backup's upload folders."""
    return frozenset({UPLOADS_FOLDER, *metadata.tree_facts})


def _line(entry: tree.Entry) -> dict[str, Any]:
    facts = entry.facts
    line: dict[str, Any] = {"path": entry.path, "form": entry.form, "mode": f"{stat.S_IMODE(facts.st_mode):o}"}
    line |= {"owner": [facts.st_uid, facts.st_gid], "changed": facts.st_mtime_ns}
    return line | ({"target": entry.target} if entry.form == "link" else {})


def _path_in_git(path: str, trees: Collection[str]) -> str:
    """Return where in git's tree a file of a backup is, under a name that git and every host accepts."""
    if path in TEXTS:
        return path
    folder, inner, _ = path.partition("/")
    inside = path if inner and folder in trees else f"{DATABASE_FOLDER}/{path}"
    return "/".join(_escaped(name) for name in inside.split("/"))


def _escaped(name: str) -> str:
    """Return the name with bytes that git cannot hold written as `%` and two hex digits."""
    plain = name.encode("ascii", "ignore").decode()  # some file systems ignore such letters in `.git`
    if _RESERVED.match(plain) and (plain != "" or not name.isprintable()):
        return "".join(f"%{byte:02X}" for byte in os.fsencode(name))
    return _UNSUITABLE.sub(lambda found: "".join(f"%{byte:02X}" for byte in os.fsencode(found[0])), name)


def refuse_large(files: Iterable[Stored], limit: float, remote: str, because: str = "") -> None:
    """Raise `Refused` with the names of files larger than the host's limit (in MB), before anything is committed.

    `because`: a sentence that says why all of them are needed.
    """
    large = [file for file in files if file.size > limit * _MILLION]
    if not large:
        return
    named = few([f"{printable(file.name)} ({space.format_bytes(file.size)})" for file in large], 5)
    refused = f"The git remote {remote} takes files up to {limit:g} MB, and {named} are larger; nothing was pushed."
    raise Refused(
        f"{because} {refused}".lstrip(),
        hint="Raise `file_limit_mb`, if the host takes more; or use restic."
        if because
        else "Leave that part out of `include`; or raise `file_limit_mb`, if the host takes more; or use restic.",
    )


def members(lines: bytes, sizes: dict[str, int], metadata: Metadata, root: str) -> Iterator[tuple[Member, str]]:
    """Yield a listing's entries as archive members, each with its path in the tree; raise `Damaged` if malformed."""
    trees = _trees(metadata)
    try:
        for line in lines.splitlines():
            entry = json.loads(line)
            place = _path_in_git(entry["path"], trees) if entry["form"] == "file" else ""
            yield _member(entry, sizes[place] if place else 0, root), place
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{LISTING} of {root} is not as it was written: {error!r}.", hint=_AGAIN) from error


def _member(entry: dict[str, Any], size: int, root: str) -> Member:
    user, group = entry["owner"]
    path, target = f"{root}/{entry['path']}", entry.get("target", "")
    if entry["form"] not in ("file", "folder", "link") or not manifest.is_inside(path):
        raise ValueError(path)
    mode = int(entry["mode"], 8) & 0o7777
    return Member(path, entry["form"], mode, (int(user), int(group)), int(entry["changed"]), size, target)
