"""The files that seal a backup: metadata, checksums, and a page on how to restore by hand.

All are readable without this toolkit: JSON, the format of `sha256sum -c`, and Markdown.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import shlex
import string
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import msgspec

from backupkit.config.places import NAME as FOLDER
from backupkit.config.places import colliding
from backupkit.fs import disk, tree
from backupkit.fs.stamps import RACY, change_stamp
from backupkit.model import documents
from backupkit.model.backup import (
    CHECKSUM_FILE,
    FORMAT,
    GUIDE_FILE,
    MAIN_DATABASE,
    METADATA_FILE,
    STAGING,
    UPLOADS_FOLDER,
    Flaw,
    Metadata,
    SealedDatabase,
)
from backupkit.model.checked import explained
from backupkit.model.errors import Damaged
from backupkit.model.names import printable

Digest = Callable[[str, os.stat_result], str | None]
"""Function from the path and facts of a file to its SHA-256, or to None to skip its content."""

# Limits in bytes: a longer file cannot come from this toolkit, and is not read.
MOST_METADATA, MOST_CHECKSUMS = 64 << 20, 512 << 20
_LONGEST_LINE = 16 << 10  # bytes; enough for a path of 4096 bytes, each of them escaped
_MOST_FLAWS = 1000  # unreadable lines, after which the list is not read further
_MOST_AHEAD = 1 << 17  # lines kept in memory while searching for a path; a list in the expected order needs few

# Flaws of a file in a sealed backup
ALTERED, ADDED, MISSING = "is not as it was written", "was added after the backup was made", "is missing"

_HEXADECIMAL = set("0123456789abcdef")  # lower case only, as written here: a capital letter is a flipped bit
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_MEANINGS = {escape: letter for letter, escape in _ESCAPES.items()}
_PLAIN_LINE = re.compile(rb"([0-9a-f]{64})  ([^/\\\n\r\0][^\\\n\r\0]*)\n")  # matches nearly every line
_SPECIAL, _ESCAPED = re.compile(r"[\\\n\r]"), re.compile(r"\\[\\nr]")
_USE_LATER = "Use the version of this toolkit that wrote it, or a later one."
_TRY_ANOTHER = "Try another backup: `list`. What is in this folder can still be copied out by hand."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)  # one for all: `list` reads many documents


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Write `backup_metadata.json` into the draft, not synced."""
    text = json.dumps(documents.metadata(metadata), indent=2, ensure_ascii=True) + "\n"
    (folder / METADATA_FILE).write_text(text, encoding="ascii")


def read_metadata(folder: Path, zone: ZoneInfo) -> Metadata:
    """Return the backup's metadata. Raise `Damaged` if it is missing, not JSON, of a later format, or not trustworthy.

    Times without an offset (made by hand, or by an earlier version) are taken to be in `zone`. The result is cached in
    the process until the file changes.
    """
    stamp = _settled_stamp(folder / METADATA_FILE)
    return _read_once(folder, zone, stamp) if stamp else _read_metadata(folder, zone)


def _settled_stamp(path: Path) -> tuple[int, str] | None:
    """Return device and change stamp of the file, or None if it is so new that another change might not show."""
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    stamp = change_stamp(facts)
    return None if stamp == RACY else (facts.st_dev, stamp)


@lru_cache(maxsize=2048)
def _read_once(folder: Path, zone: ZoneInfo, _stamp: tuple[int, str]) -> Metadata:
    return _read_metadata(folder, zone)


def _read_metadata(folder: Path, zone: ZoneInfo) -> Metadata:
    path = folder / METADATA_FILE
    try:
        content = disk.read_plain(path, MOST_METADATA)
        values = _decoder.decode(content.decode(json.detect_encoding(content), "surrogatepass"))
    except FileNotFoundError as error:
        raise Damaged(f"{folder} has no {METADATA_FILE}.", _TRY_ANOTHER) from error
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}.", _TRY_ANOTHER) from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} cannot be read: {error}.", _TRY_ANOTHER) from error
    if not isinstance(values, dict):
        raise Damaged(f"{path} is not a JSON object.", _TRY_ANOTHER)
    _refuse_later_format(path, values)
    try:
        metadata = msgspec.convert(_with_defaults(values, folder, zone), Metadata)
    except ValueError as error:
        where, what = explained(error)
        raise Damaged(f"{path} cannot be trusted: {where or METADATA_FILE}: {what}.", _TRY_ANOTHER) from error
    _refuse_paths(path, metadata)
    return metadata


class ChecksumWriter:
    """Writer of a draft's `SHA256SUMS`, line by line, so that memory use stays constant."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO = open(folder / CHECKSUM_FILE, "ab")  # noqa: SIM115

    def record(self, path: str, checksum: str) -> None:
        """Write the line of one file, by its path in the backup."""
        self._file.write(os.fsencode(f"{_line(path, checksum)}\n"))

    def record_file(self, name: str) -> None:
        """Hash one file of the backup and write its line."""
        self.record(name, disk.hash_file(self._folder / name))

    def insert(self, found: Mapping[str, str]) -> None:
        """Insert lines of files found later, each at its place in the order of a walk."""
        self._file.close()
        lines = (os.fsencode(f"{_line(path, checksum)}\n") for path, checksum in sorted(found.items(), key=_in_order))
        listed, whole = self._folder / CHECKSUM_FILE, self._folder / f"{CHECKSUM_FILE}.new"
        with open(listed, "rb") as before, open(whole, "wb") as after:
            after.writelines(heapq.merge(before, lines, key=lambda line: _in_order(_parse(bytes(line)))))
        os.replace(whole, listed)
        self._file = open(listed, "ab")  # noqa: SIM115

    def close(self) -> None:
        self._file.close()


def _in_order(listed: tuple[str, str]) -> list[str]:
    return listed[0].split("/")


def has_checksums(folder: Path) -> bool:
    """Return whether the backup has `SHA256SUMS`; one made by hand has none."""
    return os.path.isfile(f"{folder}/{CHECKSUM_FILE}")


def read_checksums(folder: Path) -> tuple[dict[str, str], list[Flaw]]:
    """Return the SHA-256 of each listed file by path, and the flaws of the list itself."""
    listed = _ChecksumReader(folder)
    checksums: dict[str, str] = {}
    for path, checksum in listed.rest():
        if checksums.setdefault(path, checksum) is not checksum:
            listed.flaws.append(_twice(path))
    return checksums, listed.flaws


def listed_paths(folder: Path) -> Iterator[str]:
    """Yield the path of each line as it is read."""
    return (path for path, _ in _ChecksumReader(folder).rest())


def sound_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each listed file by path. Raise `Damaged` if the list has flaws."""
    checksums, flaws = read_checksums(folder)
    if flaws:
        raise Damaged(f"{folder / CHECKSUM_FILE} is not sound: {flaws[0].text}.", _TRY_ANOTHER)
    return checksums


def checksum_of(folder: Path, path: str) -> str | None:
    """Return the sealed SHA-256 of one file, wherever it is in the list, or None if it is not listed."""
    return next((checksum for listed, checksum in _ChecksumReader(folder).rest() if listed == path), None)


def checksums_in_order(folder: Path) -> Callable[[str], str | None]:
    """Return a function from a path to its sealed SHA-256, or None. Call it in the order of a walk, to save memory.

    Paths may be skipped. If the list is in another order, a path more than 131,072 lines before the last line read is
    not found (`checksum_of` finds it).
    """
    return _ChecksumReader(folder, forgets=True).take


class Comparison:
    """Comparison of the files of a sealed folder with their checksums as they arrive, in constant memory.

    Files in a tree must arrive in the order of the list. If they do not, `rest` reads the whole folder again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._listed = folder, _ChecksumReader(folder)
        self._top: dict[str, str] = {}
        self._is_in_order = True

    def close(self) -> None:
        self._listed.close()

    def mark_unordered(self) -> None:
        """Note that files arrived without a comparison, so that `rest` verifies the whole folder."""
        self._is_in_order = False

    def flaw(self, path: str, checksum: str) -> str:
        """Return what is wrong with a file that arrived, as far as is known already; empty if nothing."""
        if not self._is_in_order:
            return ""
        if "/" not in path:
            self._top[path] = checksum
            return ""
        try:
            wanted = self._listed.take(path)
        except _OutOfOrder:
            self._is_in_order = False
            return ""
        return _differing(wanted, checksum)

    def rest(self) -> Iterator[Flaw]:
        """Yield the remaining flaws after the last file: missing files, the list itself, and files not compared yet."""
        if not self._is_in_order:
            yield from verify_checksums(self._folder)
            return
        for path, wanted in self._listed.rest():
            checksum = self._top.pop(path, None)
            reason = "is missing" if checksum is None else _differing(wanted, checksum)
            if reason:
                yield Flaw(path, f"{printable(path)} {reason}")
        yield from self._listed.flaws
        yield from (
            Flaw(path, f"{printable(path)} {_differing(None, '')}") for path in self._top if path != CHECKSUM_FILE
        )


def _differing(wanted: str | None, checksum: str) -> str:
    if wanted is None:
        return f"is not in its {CHECKSUM_FILE}"
    return "" if checksum == wanted else "is not as it was written"


def verify_checksums(
    folder: Path,
    digest: Digest = lambda path, _facts: disk.hash_file(path),
    without: Collection[str] = (),
    on_entry: Callable[[str, tree.Entry], None] = lambda _tree, _entry: None,
) -> Iterator[Flaw]:
    """Yield every difference from the sealed files: altered, missing and extra ones. Memory is bounded.

    Entries of the folder named in `without` are skipped with all below them. `on_entry` is called for each entry of
    each tree, in the order of a walk; if `SHA256SUMS` cannot be used, for none. A file or folder without read
    permission raises `PermissionError`, because that is not damage.
    """
    listed = _ChecksumReader(folder)
    try:
        _opened_list(folder).close()
    except Damaged as error:
        yield Flaw(CHECKSUM_FILE, error.message.rstrip("."))
        return
    entries = _trees_first(folder, without)
    for name, entry in entries:
        if name:
            on_entry(name, entry)
            entry = entry._replace(path=f"{name}/{entry.path}")
        if entry.form != "file" or entry.path == CHECKSUM_FILE:
            continue
        if entry.path == METADATA_FILE and entry.facts.st_size > MOST_METADATA:
            yield Flaw(METADATA_FILE, f"{METADATA_FILE} is not as it was written")  # too long to be ours: not read
            continue
        try:
            wanted = listed.take(entry.path)
        except _OutOfOrder:
            text = f"{CHECKSUM_FILE} is in another order than it was written in, or names many files that are not there"
            yield Flaw(CHECKSUM_FILE, text)
            for name, left in entries:
                if name:
                    on_entry(name, left)
            return
        if reason := _compared(f"{folder}/{entry.path}", entry.facts, wanted, digest):
            yield Flaw(entry.path, f"{printable(entry.path)} {reason}")
    for path, _ in listed.rest():
        if path.split("/")[0] in without:
            continue
        is_there = os.path.isfile(folder / path) and not os.path.islink(folder / path)
        yield _twice(path) if is_there else Flaw(path, f"{printable(path)} is missing")
    yield from listed.flaws


def _twice(path: str) -> Flaw:
    return Flaw(CHECKSUM_FILE, f"{CHECKSUM_FILE} names {printable(path)} twice")


def _trees_first(folder: Path, without: Collection[str]) -> Iterator[tuple[str, tree.Entry]]:
    """Yield (tree, entry) for each tree, then ("", entry) for the other entries, in the order of `SHA256SUMS`."""
    names = sorted(set(os.listdir(folder)).difference(without), key=lambda name: (name != UPLOADS_FOLDER, name))
    there = [entry for name in names if (entry := tree.look(folder, name))]
    for entry in there:
        if entry.form == "folder":
            yield from ((entry.path, inner) for inner in tree.walk(folder / entry.path))
    yield from (("", entry) for entry in there if entry.form != "folder")


class _OutOfOrder(Exception):
    """The search for a path passed `_MOST_AHEAD` lines, so the list is not in the expected order."""


class _ChecksumReader:
    """Reader of `SHA256SUMS` that reads only as far as needed; with a list in order, few lines are in memory."""

    def __init__(self, folder: Path, forgets: bool = False) -> None:
        self.flaws: list[Flaw] = []
        self._ahead: dict[str, str] = {}
        self._forgets = forgets
        self._lines = _lines_of(folder, self.flaws)

    def close(self) -> None:
        """Close the list before its end is read: some file systems remove no folder with an open file in it."""
        self._lines.close()

    def take(self, path: str) -> str | None:
        """Return the checksum of a path and remove it from the rest, or None if it is not listed."""
        while path not in self._ahead:
            line = next(self._lines, None)
            if line is None:
                return None
            if line[0] == path:
                return line[1]
            if len(self._ahead) >= _MOST_AHEAD:
                if not self._forgets:
                    raise _OutOfOrder
                del self._ahead[next(iter(self._ahead))]
            if self._ahead.setdefault(*line) is not line[1]:
                self.flaws.append(_twice(line[0]))
        return self._ahead.pop(path)

    def rest(self) -> Iterator[tuple[str, str]]:
        """Yield (path, checksum) of the lines that were not taken."""
        yield from self._ahead.items()
        yield from self._lines


def _lines_of(folder: Path, flaws: list[Flaw]) -> Generator[tuple[str, str], None, None]:
    """Yield path and checksum of each line; add a flaw for one that is not as we write it.

    No method of the reader: the two would refer to each other, and the file stay open until memory is collected.
    """
    with _opened_list(folder) as lines:
        for number, line in enumerate(iter(partial(lines.readline, _LONGEST_LINE), b""), 1):
            path, checksum = _parse(line)
            if path:
                yield path, checksum
                continue
            text = f"{CHECKSUM_FILE} line {number} is not as it was written"
            flaws.append(Flaw(CHECKSUM_FILE, text))
            if len(flaws) >= _MOST_FLAWS:
                return


def _opened_list(folder: Path) -> BinaryIO:
    """Open `SHA256SUMS`. Raise `Damaged` if it is too long, no plain file, or cannot be read for any other reason.

    `FileNotFoundError` and `PermissionError` pass through.
    """
    path = folder / CHECKSUM_FILE
    try:
        return disk.open_plain(path, MOST_CHECKSUMS)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}.", _TRY_ANOTHER) from error


def _compared(path: str, facts: os.stat_result, wanted: str | None, digest: Digest) -> str:
    """Return what is wrong with the file; empty if it is as it was sealed."""
    if wanted is None:
        return ADDED
    try:
        return "" if digest(path, facts) in (None, wanted) else ALTERED
    except FileNotFoundError:
        return MISSING
    except PermissionError:
        raise
    except OSError as error:  # a failing disk
        return f"cannot be read: {error.strerror}"


def write_guide(folder: Path, metadata: Metadata, places: Mapping[str, Mapping[str, str]]) -> None:
    """Write `RESTORE.md`: how to restore this backup by hand, without this toolkit. `places` are the values by part."""
    heads, schemas = [], []
    for name, own in places.items():
        alone = metadata.at(name)
        assert alone is not None
        values = {**own, **_guide_values(metadata, alone, name)}
        pieces = [_GUIDE_HEAD] if not name else []
        if alone.database_file:
            pieces.append(_GUIDE_RAW if alone.is_raw else _GUIDE_DATABASE)
        if alone.uploads_included:
            pieces.append(_GUIDE_UPLOADS)
        heads += [string.Template(piece).substitute(values) for piece in pieces]
        if not name or (alone.database_file and alone.revisions):
            schema = _GUIDE_SCHEMA if alone.revisions else _GUIDE_UNVERSIONED
            schemas.append(string.Template(schema).substitute(values))
    (folder / GUIDE_FILE).write_text("\n".join((*heads, *schemas)), encoding="utf-8", errors="surrogateescape")


def _without_sidecars(metadata: Metadata, folder: str) -> Iterator[str]:
    """Yield shell lines that remove the live WAL of each database in the tree, or SQLite would apply it to the copy."""
    for one in metadata.databases:
        tree, _, path = one.name.partition("/")
        if path and tree == folder:
            names = " ".join(f'"$UPLOADS"/{shlex.quote(path + end)}' for end in ("-wal", "-shm", "-journal"))
            yield f"rm -f {names}\n"


def _guide_values(whole: Metadata, metadata: Metadata, part: str) -> dict[str, str]:
    return {
        "name": metadata.backup_name,
        "made": metadata.created_at.isoformat(sep=" "),
        "of": f" {part}" if part else "",
        "files": f"files of {part}" if part else "uploads",
        "kept": part or UPLOADS_FOLDER,
        "sidecars": "".join(_without_sidecars(whole, part or UPLOADS_FOLDER)),
        "database_file": shlex.quote(f"./{metadata.database_file}"),
        "revision": printable(" ".join(metadata.revisions)),
        "commit": metadata.git.commit if metadata.git else "not recorded",
    }


def _line(path: str, checksum: str) -> str:
    name = escaped(path)
    mark = "\\" if name != path else ""
    return f"{mark}{checksum}  {name}"


def _parse(raw: bytes) -> tuple[str, str]:
    """Return path and checksum of a line, or two empty strings if it is not byte for byte as `_line` writes it."""
    plain = _PLAIN_LINE.fullmatch(raw)
    if plain and b".." not in raw:
        return os.fsdecode(plain[2]), plain[1].decode()
    line = os.fsdecode(raw.removesuffix(b"\n"))
    is_escaped = line.startswith("\\")
    checksum, _, path = line[is_escaped:].partition("  ")
    path = unescaped(path) if is_escaped else path
    if len(checksum) != 64 or set(checksum) - _HEXADECIMAL or not is_inside(path):
        return "", ""
    return (path, checksum) if raw == os.fsencode(f"{_line(path, checksum)}\n") else ("", "")


def escaped(path: str) -> str:
    """Return the path escaped onto one line, as `sha256sum` does."""
    return _SPECIAL.sub(lambda found: _ESCAPES[found.group()], path) if _SPECIAL.search(path) else path


def unescaped(line: str) -> str:
    """Return the path that `escaped` was given."""
    return _ESCAPED.sub(lambda found: _MEANINGS[found.group()], line) if "\\" in line else line


def is_inside(path: str) -> bool:
    """Return whether a path is relative and stays below the folder it is joined to, links apart."""
    return bool(path) and not path.startswith("/") and "\0" not in path and ".." not in path.split("/")


def _refuse_later_format(path: Path, values: dict[str, Any]) -> None:
    version = str(values.get("backup_version", FORMAT))
    major = version.partition(".")[0]
    if not re.fullmatch("[0-9]{1,9}", major):
        raise Damaged(f"{path} names no format: backup_version is {version[:9]!r}.", _TRY_ANOTHER)
    if int(major) > int(FORMAT.partition(".")[0]):
        raise Damaged(f"{path} is of format {printable(version[:9])}, later than this toolkit's {FORMAT}.", _USE_LATER)


def _refuse_paths(path: Path, metadata: Metadata) -> None:
    name = metadata.database_file
    if name is not None and (not name or "/" in name or name in (".", "..") or "\0" in name):
        raise Damaged(f"{path} cannot be trusted: database_file is {name!r}, not a file's plain name.", _TRY_ANOTHER)
    if why := _invalid_list(metadata):
        raise Damaged(f"{path} cannot be trusted: {why}.", _TRY_ANOTHER)


def _invalid_list(metadata: Metadata) -> str:
    """Return what is invalid in the lists of databases and trees; empty if nothing is."""
    trees, databases = [one.name for one in metadata.trees], metadata.databases
    if wrong := [one for one in trees if not FOLDER.fullmatch(one) or one == MAIN_DATABASE]:
        return f"trees: {wrong[0]!r} is not a name"
    if databases and (databases[0].name, databases[0].database_file) != (MAIN_DATABASE, metadata.database_file):
        return "databases: the first is another than database_file"
    for one in databases[1:]:
        if why := _invalid_database(one, metadata):
            return f"databases: {one.name!r} {why}"
    files = [one.database_file for one in databases if one.database_file]
    names = [one.name for one in databases]
    if two := colliding([one for one in files if "/" not in one], [one for one in trees if one != UPLOADS_FOLDER]):
        return f"{two} have one name"
    return "a name comes twice" if len(set(names)) < len(names) or len(set(trees)) < len(trees) else ""


def _invalid_database(one: SealedDatabase, metadata: Metadata) -> str:
    folder, _, inside = one.name.partition("/")
    if not inside:
        is_plain = one.database_file is None or (is_inside(one.database_file) and "/" not in one.database_file)
        is_free = one.name not in metadata.tree_facts
        return "" if FOLDER.fullmatch(one.name) and is_plain and is_free else "is not a name"
    steps = inside.split("/")
    is_there = folder in metadata.tree_facts and one.database_file == one.name
    return "" if is_there and is_inside(one.name) and not {"", ".", STAGING} & {*steps} else "is not a path in a tree"


def _with_defaults(values: dict[str, Any], folder: Path, zone: ZoneInfo) -> dict[str, Any]:
    known = dict(values)
    known.setdefault("backup_name", folder.name)
    known.setdefault("alembic_revision", None)
    known.setdefault("uploads_included", (folder / UPLOADS_FOLDER).is_dir())
    known.setdefault("database_file", None)
    return known | _times(known, zone)


def _times(values: dict[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """Return `created_at`, with an offset, and `timestamp`, each derived from the other if missing; {} if neither."""
    stamp, created = values.get("timestamp"), values.get("created_at")
    try:
        at = datetime.fromisoformat(created) if created else datetime.strptime(str(stamp), "%Y%m%d_%H%M%S")
    except (ValueError, TypeError):
        return {}
    aware = at if at.tzinfo else at.replace(tzinfo=zone)
    if not 1970 <= aware.year <= 9998:  # near year 9999, converting to another zone overflows
        return {"created_at": None}
    return {"created_at": aware, "timestamp": stamp or aware.strftime("%Y%m%d_%H%M%S")}


_GUIDE_HEAD = """\
# Restore $name by hand

Made $made. Code: commit $commit. With the toolkit it is one command: `$tool`

Without it you need `sh`, `cp`, `mv` and `python3`. Stop the app first. Then type everything in this folder:

    $shell

Each block stops at the first line that fails. What it prints then is the reason.

## 1. Is this backup whole?

    sha256sum -c SHA256SUMS
"""

_GUIDE_DATABASE = """
## 2. The database$of

The backup is copied beside the live database and checked there. Then the live database is moved aside *with* its
`-wal`, or that would be mixed into the restored file, and the copy takes its place. Never `cp` over a live database.

```sh
(
set -eu
LIVE=$database
cp -p $database_file "$$LIVE.restored"
python3 -c '
import pathlib, sqlite3, sys
database = sqlite3.connect(pathlib.Path(sys.argv[1]).as_uri() + "?mode=rw", uri=True)
tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
lines = [line for (line,) in database.execute("PRAGMA quick_check")] if tables else ["it has no tables"]
# Older versions of SQLite report values that are not there, in a table WITHOUT ROWID.
found = [line for line in lines if line != "ok" and " value in " not in line]
sys.exit("The backup is not sound: " + found[0] if found else None)
' "$$LIVE.restored"
KEEP=$$(mktemp -d "$$(dirname "$$LIVE")/before_restore.XXXXXX")
for part in "" -wal -shm -journal; do
  if [ -e "$$LIVE$$part" ]; then mv "$$LIVE$$part" "$$KEEP"/; fi
done
mv "$$LIVE.restored" "$$LIVE"
if [ "$$(id -u)" = 0 ]; then chown --reference="$$(dirname "$$LIVE")" "$$LIVE"; fi
printf 'Restored. What was there before is in %s\\n' "$$KEEP"
)
```
"""

_GUIDE_RAW = """
## 2. The database$of

The database could not be read when this was made. These are its raw files: do not copy them over anything. What can
still be read of them goes into a new backup, which can be restored:

    $salvage
"""

_GUIDE_UPLOADS = """
## 3. The $files

What is there now is copied aside. (If there is no room for that, leave out the `if`.) Then files of the same name are
replaced; what came later stays.

```sh
(
set -eu
UPLOADS=$uploads
if [ -e "$$UPLOADS" ]; then
  KEEP=$$(mktemp -d ../before_restore.XXXXXX)
  cp -a "$$UPLOADS" "$$KEEP"/$kept
  printf 'What was there before is in %s\\n' "$$KEEP"
fi
mkdir -p "$$UPLOADS"
# Not through a link that is there: where this cp knows it, each file is removed first.
${sidecars}cp -a $$(cp --help 2>&1 | grep -o -e --remove-destination | head -n 1) $kept/. "$$UPLOADS"/
)
```
"""

_GUIDE_SCHEMA = """
## 4. The schema$of

This database is at Alembic revision `$revision`. If the code is newer, upgrade it: `$migrate`

Without the toolkit (the first line only confirms where the database is):

    $alembic_stamp
    $alembic_upgrade

If the code is older, check out the commit above instead. Never `stamp head`.
"""

_GUIDE_UNVERSIONED = """
## 4. The schema

This database has no `alembic_version` table. If its schema is that of a revision you know, and only then:
`alembic stamp THAT_REVISION`. Never `stamp head`.
"""
