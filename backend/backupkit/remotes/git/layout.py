"""What of a backup git holds, and where in its tree: text to be read and compared, bytes where they are asked for.

dump.sql               the database as SQL text; dump.NAME.sql is that of a further one, the NAME of [databases]
backup_metadata.json   as in the backup; so is RESTORE.md
database/ uploads/     the files themselves, where they are included: of all databases; of [trees] beside uploads, as
                       NAME/. No two paths can be one: NAME has no dot, and is not `database`
uploads.tree           with them: one line for each with what git does not keep: modes, times, owners, empty
                       folders, links
SHA256SUMS             where all of the backup is included: it comes back byte for byte
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backupkit.archive.tar import Member
from backupkit.fs import disk, space, tree
from backupkit.model.backup import CHECKSUM_FILE, GUIDE_FILE, METADATA_FILE, UPLOADS_FOLDER, Metadata
from backupkit.model.errors import Damaged, Refused
from backupkit.model.names import few, printable
from backupkit.repository import manifest

LISTING, DATABASE_FOLDER = "uploads.tree", "database"
TEXTS = (CHECKSUM_FILE, METADATA_FILE, GUIDE_FILE)
# Names that git or a host takes for its own, `.git` in any spelling that some file system reads so; and bytes that
# are no text, or that git would put in quotes.
_ITS_OWN = re.compile(r"\.git|git~|\.{1,2}$|$", re.IGNORECASE)
_UNFIT = re.compile(r'[\x00-\x1f\x7f"\\%\ud800-\udfff]')
_MILLION = 1_000_000
_AGAIN = "Try an older backup: `list`."


@dataclass(frozen=True)
class Stored:
    """A file that is to be in the tree: its path there, where it lies, its size, and its checksum if one is known."""

    path: str
    source: Path
    size: int
    name: str
    checksum: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """Its content; `Damaged` where that is not as it was sealed."""
        digest, left = hashlib.sha256(), self.size
        with open(os.open(self.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
            while chunk := file.read(min(disk.CHUNK, left)):
                digest.update(chunk)
                left -= len(chunk)
                yield chunk
        if left or (self.checksum is not None and digest.hexdigest() != self.checksum):
            raise altered(self.source)


def altered(file: Path) -> Damaged:
    """The error for a file of a sealed backup that has another content now."""
    return Damaged(f"{printable(str(file))} is not as it was written; nothing was pushed.", hint=_AGAIN)


def is_whole(metadata: Metadata, include: Collection[str]) -> bool:
    """Whether nothing of the backup is left out."""
    return "database" in include and ("uploads" in include or not metadata.tree_facts)


def databases(metadata: Metadata) -> dict[str, Metadata]:
    """What is recorded of each database that lies in no tree, by its name; that of the first is empty."""
    alone = {name: metadata.at(name) for name in ("", *metadata.others) if "/" not in name}
    return {name: one for name, one in alone.items() if one and one.database_file}


def dump_part(name: str) -> str:
    """What a commit calls the SQL text of that database, where it says which parts it holds."""
    return f"dump.{name}" if name else "dump"


def dump_file(part: str) -> str:
    """The name of the SQL text of which a commit says that; empty for another part."""
    return f"{part}.sql" if part.partition(".")[0] == "dump" else ""


def stored(backup: Path, metadata: Metadata, include: Collection[str]) -> list[Stored]:
    """The files of the backup that are to be in the tree; the dump and the listing are made, and come beside."""
    expected = manifest.sound_checksums(backup) if manifest.has_checksums(backup) else {}
    texts = TEXTS if is_whole(metadata, include) else TEXTS[1:]
    paths = [name for name in texts if (backup / name).is_file()]
    paths += [entry.path for entry in _bytes(backup, metadata, include) if entry.form == "file"]
    trees = _trees(metadata)
    return [
        Stored(_place(path, trees), backup / path, os.lstat(backup / path).st_size, path, expected.get(path))
        for path in paths
    ]


def listing(backup: Path, metadata: Metadata, include: Collection[str]) -> bytes:
    """What git does not keep of the included files, one line of JSON each."""
    return b"".join(json.dumps(_line(entry)).encode() + b"\n" for entry in _bytes(backup, metadata, include))


def _bytes(backup: Path, metadata: Metadata, include: Collection[str]) -> Iterator[tree.Entry]:
    """The included entries of a backup but its texts, in the order of a walk."""
    trees = _trees(metadata)
    left_out = frozenset[str]() if "uploads" in include else trees
    for entry in tree.walk(backup, skip=lambda path, _facts, _folder: path in left_out):
        is_upload = entry.path.partition("/")[0] in trees
        if entry.path not in TEXTS and (is_upload or "database" in include):
            yield entry


def _trees(metadata: Metadata) -> frozenset[str]:
    """The names of the folders of uploads in the backup."""
    return frozenset({UPLOADS_FOLDER, *metadata.tree_facts})


def _line(entry: tree.Entry) -> dict[str, Any]:
    facts = entry.facts
    line: dict[str, Any] = {"path": entry.path, "form": entry.form, "mode": f"{stat.S_IMODE(facts.st_mode):o}"}
    line |= {"owner": [facts.st_uid, facts.st_gid], "changed": facts.st_mtime_ns}
    return line | ({"target": entry.target} if entry.form == "link" else {})


def _place(path: str, trees: Collection[str]) -> str:
    """Where in git's tree the file of a backup lies, by a name that git and every host takes."""
    if path in TEXTS:
        return path
    folder, inner, _ = path.partition("/")
    inside = path if inner and folder in trees else f"{DATABASE_FOLDER}/{path}"
    return "/".join(_fit(name) for name in inside.split("/"))


def _fit(name: str) -> str:
    """The name, with what git cannot have as `%` and two digits a byte."""
    plain = name.encode("ascii", "ignore").decode()  # some file systems read `.git` with such letters in it
    if _ITS_OWN.match(plain) and (plain != "" or not name.isprintable()):
        return "".join(f"%{byte:02X}" for byte in os.fsencode(name))
    return _UNFIT.sub(lambda found: "".join(f"%{byte:02X}" for byte in os.fsencode(found[0])), name)


def refuse_large(files: Iterable[Stored], limit: float, remote: str, because: str = "") -> None:
    """No file is larger than the host takes (in MB), else `Refused` with their names, before anything is committed.

    `because`: why they must all be there, in a sentence.
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
    """What a listing tells, as entries of an archive, each with its place in the tree; `Damaged` if it is not sound."""
    trees = _trees(metadata)
    try:
        for line in lines.splitlines():
            entry = json.loads(line)
            place = _place(entry["path"], trees) if entry["form"] == "file" else ""
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
