"""One point of rewind: a sealed file with the difference between one state of database and uploads and the next.

    b"BKPOINT1"                     8 bytes
    number and content of each changed page, in one compressed stream for each database
    contents of new uploads, uncompressed
    header                          JSON: the fields of `Header`
    bytes of the header             8, big-endian
    SHA-256 of the header           32
    SHA-256 of all above            32

The header can be read and verified without the rest. The file is untrusted input: nothing in it is used before it was
compared with its checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, NamedTuple, cast

import msgspec
import zstandard
from msgspec import Meta, Struct, to_builtins
from msgspec.structs import replace

from backupkit.fs import disk
from backupkit.model.backup import MAIN_DATABASE, Count, Seconds, Whole
from backupkit.model.errors import Damaged
from backupkit.repository.manifest import is_inside

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_MAGIC = b"BKPOINT1"
_TAIL = 8 + 32 + 32
_MAX_HEADER = 256 << 20
_MAX_BYTES = 1 << 60
_CHUNK = 1 << 20  # bytes
_NAME = re.compile(r"(\d{8})-\d{8}T\d{6}Z\.point")
_HINT = "`rewind` shows what can be restored; `verify --all` names all that is damaged."

Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Form = Literal["file", "folder", "link"]
Compression = Literal["zstd", "zlib"]
COMPRESSION: Compression = "zstd"
"""How pages are compressed now; zlib is what an earlier version used where zstandard was missing."""
ContentPlace = Literal["none", "here", "before", "base"]


class Entry(Struct, frozen=True):
    """One upload, folder or link: `changed` is its mtime in ns, `attributes` are extended ones, with values in hex."""

    form: Form
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    changed: Whole
    owner: tuple[Count, Count] | None = None
    size: Count = 0
    sha256: str = ""
    target: str = ""
    attributes: tuple[tuple[str, str], ...] = ()


class Change(Struct, frozen=True):
    """The new entry of a path, or its deletion (`entry` is None).

    `content` is where the content of a file is: "here" is in this point at `offset`, "before" is where it was before,
    "base" is in the file `source` of the base backup. `stamp` is the change stamp of the live file.
    """

    path: str = ""
    entry: Entry | None = None
    content: ContentPlace = "none"
    offset: Count = 0
    source: str = ""
    stamp: str = ""


class DatabaseChange(Struct, frozen=True):
    """The new state of a database: `root` is the SHA-256 of its pages' hashes, `length` the packed pages' size."""

    page_size: Annotated[int, Meta(ge=512, le=65536)]
    pages: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    root: Digest
    changed: Count
    length: Count
    compression: Compression
    journal_mode: str


class PartChange(Struct, frozen=True):
    """The new state of a part of the app: a database whose pages begin at `offset`, or a tree with its digest.

    The part without a name has both. `packed` is the SHA-256 of its compressed pages in the point.
    """

    name: Annotated[str, Meta(pattern=r"\A([a-z][a-z0-9_-]{0,29})?\Z")]
    database: DatabaseChange | None = None
    offset: Count = 0
    packed: str = ""
    uploads: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""
    changes: tuple[Change, ...] = ()
    excluded_folders: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """The digest of its database; empty if it has none."""
        return self.database.root if self.database else ""

    @property
    def shape(self) -> tuple[int, int]:
        """Page size and number of pages; zeros if it has no database."""
        return (self.database.page_size, self.database.pages) if self.database else (0, 0)

    @property
    def title(self) -> str:
        """The name of its database in messages, if there are several."""
        return f"database {self.name or MAIN_DATABASE}"


class Header(Struct, frozen=True):
    """The header of a point.

    `parent` and `state` are the digests of the states before and after it. `since` is when the data was last seen in
    the parent state. `base` is the name of the base backup, `seal` the SHA-256 of its checksum file, and `base_state`
    the digest of its state. `before` is set in the first point of a chain: when the data was last seen as in the last
    point of the chain before. `interval` is the time between two looks in seconds.
    If the app has several databases or trees, `others` are the further ones, `packed` is the SHA-256 of the first
    database's compressed pages, and `gap_ms` is how far the snapshots of the databases may lie apart, in ms; `state`
    covers all of them.
    """

    at: datetime
    since: datetime
    interval: Annotated[float, Meta(gt=0, le=sys.float_info.max)]
    base: str
    seal: Digest
    base_state: Digest
    parent: Digest
    state: Digest
    database: DatabaseChange
    uploads: Digest
    changes: tuple[Change, ...] = ()
    before: datetime | None = None
    excluded_folders: tuple[str, ...] = ()
    stamp: str = ""
    packed: str = ""
    gap_ms: Seconds = 0
    others: tuple[PartChange, ...] = ()
    format: Literal[1, 2] = 1
    """2 if there are `others`: a version that does not know them must not restore the first part alone."""

    @property
    def parts(self) -> tuple[PartChange, ...]:
        """The first database with the uploads, then each further part."""
        first = PartChange(
            "", self.database, len(_MAGIC), self.packed, self.uploads, self.changes, self.excluded_folders
        )
        return (first, *self.others)

    @property
    def databases(self) -> tuple[DatabaseChange, ...]:
        """The changes of all databases."""
        return tuple(one.database for one in self.parts if one.database)

    @property
    def database_bytes(self) -> int:
        """The size of all databases in bytes."""
        return sum(one.pages * one.page_size for one in self.databases)

    @property
    def changed_pages(self) -> int:
        return sum(one.changed for one in self.databases)

    @property
    def changed_bytes(self) -> int:
        """The size of all changed pages in bytes."""
        return sum(one.changed * one.page_size for one in self.databases)

    @property
    def changed_files(self) -> tuple[Change, ...]:
        """The changes in all trees."""
        return tuple(change for one in self.parts for change in one.changes)


def name_of(number: int, at: datetime) -> str:
    """Return the file name of the point with this number in its chain."""
    return f"{number:08d}-{at:%Y%m%dT%H%M%S}Z.point"


def number_of(name: str) -> int | None:
    """Return the number of a point in its chain, or None if the name is not that of a point."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


# Reading


def read_header(path: Path) -> Header:
    """Return the header; raise `Damaged` if it is not as it was written or not valid."""
    try:
        with disk.open_plain(path, _MAX_BYTES) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL))
            tail = file.read(_TAIL)
            length = int.from_bytes(tail[:8], "big")
            if len(tail) < _TAIL or length > min(_MAX_HEADER, end - _TAIL - len(_MAGIC)):
                raise _damaged(path, "it is cut short")
            file.seek(end - _TAIL - length)
            raw = file.read(length)
        if hashlib.sha256(raw).digest() != tail[8:40]:
            raise _damaged(path, "its header is not as it was written")
        header = msgspec.convert(json.loads(raw), Header)
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header cannot be trusted") from error
    _require_sane(path, header, end - _TAIL - length)
    return header


def _require_sane(path: Path, header: Header, end: int) -> None:
    """Raise `Damaged` for offsets outside the file, paths outside the uploads, invalid parts, or times without zone."""
    names = [one.name for one in header.parts]
    is_sane = len(set(names)) == len(names) and (header.format == 2) == bool(header.others)
    is_sane &= header.at.tzinfo is not None and header.since.tzinfo is not None
    if not is_sane or not all(_is_sane(one, end) for one in header.parts):
        raise _damaged(path, "its header cannot be trusted")
    if any(_leads_out(change) for change in header.changed_files):
        raise _damaged(path, "a path in it leads out of the uploads")


def _is_sane(one: PartChange, end: int) -> bool:
    if one.name and bool(one.database) == bool(one.uploads):
        return False
    if one.database and not len(_MAGIC) <= one.offset <= end - one.database.length:
        return False
    return all(_is_sane_content(change, change.entry, end) for change in one.changes if change.entry)


def _is_sane_content(change: Change, entry: Entry, end: int) -> bool:
    is_there = change.content != "here" or len(_MAGIC) <= change.offset <= end - entry.size
    return is_there and (entry.form == "file") == (change.content != "none")


def _leads_out(change: Change) -> bool:
    names = change.path.split("/") if change.path else []
    is_plain = not any(name in ("", ".", "..") or "\0" in name for name in names)
    return not is_plain or bool(change.source and not is_inside(change.source))


def verify(path: Path) -> None:
    """Read every byte and compare it with the checksum; raise `Damaged` if it is not as it was written."""
    try:
        with disk.open_plain(path, _MAX_BYTES) as file:
            left = file.seek(0, os.SEEK_END) - 32
            file.seek(0)
            digest, first = hashlib.sha256(), b""
            while left > 0 and (chunk := file.read(min(left, disk.CHUNK))):
                first = first or chunk[: len(_MAGIC)]
                digest.update(chunk)
                left -= len(chunk)
            if first != _MAGIC or digest.digest() != file.read(32):
                raise _damaged(path, _what_is_wrong(path, file))
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from error


def _what_is_wrong(path: Path, file: BinaryIO) -> str:
    """Return what is damaged; if there are several databases, name the one whose pages are."""
    with contextlib.suppress(Damaged):
        header = read_header(path)
        for one in header.parts if header.others else ():
            file.seek(one.offset)
            length = one.database.length if one.database else 0
            if one.packed and hashlib.sha256(file.read(length)).hexdigest() != one.packed:
                return f"the pages of the {one.title} in it are not as they were written"
    return "it is not as it was written"


def pages(
    path: Path, database: DatabaseChange, known: Sequence[int] = (), offset: int = len(_MAGIC)
) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each changed page that is not marked in `known`; raise `Damaged` for invalid data."""
    record, last = 4 + database.page_size, 0
    with disk.open_plain(path, _MAX_BYTES) as file:
        file.seek(offset)
        left, chunks, buffer = database.changed, _unpacked(path, file, database), b""
        while left:
            while len(buffer) < record:
                if not (more := next(chunks, b"")):
                    raise _damaged(path, "its pages are cut short")
                buffer += more
            view = memoryview(buffer)
            for start in range(0, min(len(buffer) // record, left) * record, record):
                number = int.from_bytes(view[start : start + 4], "big")
                if not last < number <= database.pages:
                    raise _damaged(path, "its pages cannot be trusted")
                if not known or not known[number]:
                    yield number, view[start + 4 : start + record]
                last, left = number, left - 1
            buffer = buffer[len(buffer) // record * record :]


def _unpacked(path: Path, file: BinaryIO, database: DatabaseChange) -> Iterator[bytes]:
    """Decompress the pages in pieces of at most 1 MiB, so that a crafted stream cannot fill the memory."""
    if database.compression == "zlib":
        return _zlib_pieces(path, file, database.length)
    return _zstd_pieces(path, file, database.length)


def _zlib_pieces(path: Path, file: BinaryIO, left: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj()
    try:
        while left and (data := file.read(min(left, _CHUNK))):
            left -= len(data)
            while found := decoder.decompress(data, _CHUNK):
                yield found
                data = decoder.unconsumed_tail
    except zlib.error as error:
        raise _damaged(path, "its pages cannot be decompressed") from error


def _zstd_pieces(path: Path, file: BinaryIO, length: int) -> Iterator[bytes]:
    packed = cast(BinaryIO, _FileSlice(file, length))
    with zstandard.ZstdDecompressor().stream_reader(packed, closefd=False) as reader:
        try:
            while found := reader.read(_CHUNK):
                yield found
        except zstandard.ZstdError as error:
            raise _damaged(path, "its pages cannot be decompressed") from error


class _FileSlice:
    """The next `left` bytes of an open file, as a file."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def content(path: Path, offset: int, size: int) -> Iterator[bytes]:
    """Yield the content of an upload in a point, in pieces; less than its size if the file is cut short."""
    with disk.open_plain(path, _MAX_BYTES) as file:
        file.seek(offset)
        while size and (chunk := file.read(min(size, disk.CHUNK))):
            size -= len(chunk)
            yield chunk


def of_last_page_size(way: Iterable[tuple[str, PartChange]]) -> list[tuple[str, DatabaseChange, int]]:
    """Return the points of a way whose pages are needed (name, database, offset): those since the last new page size.

    The first point with a new page size holds all pages of the database.
    """
    found = [(name, one.database, one.offset) for name, one in way if one.database]
    others = [place for place, (_, one, _) in enumerate(found) if one.page_size != found[-1][1].page_size]
    return found[max(others, default=-1) + 1 :]


def copy_content(path: Path, offset: int, entry: Entry, target: int) -> None:
    """Write the content of an upload to a new file; raise `Damaged` if its size or checksum differ."""
    size, checksum = disk.write_contents(content(path, offset, entry.size), target)
    if (size, checksum) != (entry.size, entry.sha256):
        raise _damaged(path, "an upload in it is not as it was written")


def _damaged(path: Path, why: str) -> Damaged:
    return Damaged(f"The point {path.name} is damaged: {why}.", _HINT)


# Writing


class Packed(NamedTuple):
    """The changed pages of one database in a point: number, compressed bytes, offset and checksum."""

    changed: int
    length: int
    offset: int
    sha256: str


class Writer:
    """A point that is being written to `draft`; the file is created with the first byte, so not if nothing changed.

    Write the pages of each database in order, then contents, then call `finish`.
    """

    def __init__(self, draft: Path) -> None:
        self._draft, self._handle = draft, -1
        self._digest, self._size = hashlib.sha256(), 0
        self._begin_pages()

    def _begin_pages(self) -> None:
        self._packer = zstandard.ZstdCompressor(level=3).compressobj()
        self._changed, self._offset, self._packed = 0, max(self._size, len(_MAGIC)), hashlib.sha256()

    @property
    def has_begun(self) -> bool:
        """Whether the draft file exists."""
        return self._handle >= 0

    def add_page(self, number: int, content: bytes | memoryview) -> None:
        """Write a changed page; call it in the order of page numbers."""
        self._changed += 1
        self._pack(self._packer.compress(number.to_bytes(4, "big") + content))

    def end_pages(self) -> Packed:
        """Finish the pages of one database, and return the facts on them; the next database may follow."""
        if self._changed:
            self._pack(self._packer.flush())
        length = self._size - self._offset if self._changed else 0
        found = Packed(self._changed, length, self._offset, self._packed.hexdigest())
        self._begin_pages()
        return found

    def _pack(self, data: bytes) -> None:
        self._packed.update(data)
        self._write(data)

    @contextlib.contextmanager
    def content(self) -> Iterator[Content]:
        """Yield a `Content` to write one upload to; it is taken out again unless its `is_kept` is set."""
        digest, size, has_begun = self._digest.copy(), self._size, self.has_begun
        content = Content(self._write, max(size, len(_MAGIC)))
        try:
            yield content
        finally:
            if not content.is_kept:
                self._go_back_to(digest, size, has_begun)

    def _go_back_to(self, digest: Hash, size: int, has_begun: bool) -> None:
        """Take out again what was written since the draft had this digest and size."""
        if has_begun:
            os.ftruncate(self._handle, size)
            os.lseek(self._handle, size, os.SEEK_SET)
            self._digest, self._size = digest, size
        else:
            self.abandon()
            self._digest, self._size = hashlib.sha256(), 0

    def finish(self, header: Header, final: Path) -> int:
        """Write the header, sync, and rename the draft to `final`; return the size in bytes."""
        raw = _to_json(header)
        self._write(raw + len(raw).to_bytes(8, "big") + hashlib.sha256(raw).digest())
        self._write(self._digest.digest())
        os.fsync(self._handle)
        os.close(self._handle)
        self._handle = -1
        disk.rename(self._draft, final)
        return self._size

    def abandon(self) -> None:
        """Close and delete the draft, if there is one."""
        if self.has_begun:
            os.close(self._handle)
            self._handle = -1
            self._draft.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        if not data:
            return
        if not self.has_begun:
            self._handle = disk.make_file(self._draft)
            self._put(_MAGIC)
        self._put(data)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._handle, view) :]
        self._digest.update(data)
        self._size += len(data)


class Content:
    """An upload that is being written into a point; unless `is_kept` is set, it is taken out again."""

    def __init__(self, write: Callable[[bytes], None], offset: int) -> None:
        self._write, self.offset = write, offset
        self._digest, self.size, self.is_kept = hashlib.sha256(), 0, False

    def add(self, chunk: bytes) -> None:
        self._write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _to_json(header: Header) -> bytes:
    """Return the header as JSON in ASCII, since names may hold any bytes."""
    values = to_builtins(replace(header, changes=(), others=()), builtin_types=(datetime,))
    values |= {key: value.isoformat() for key, value in values.items() if isinstance(value, datetime)}
    values["changes"] = [_without_defaults(change) for change in header.changes]
    if header.others:
        values["others"] = [_part_to_json(one) for one in header.others]
    else:  # format 1 has no such keys
        for key in ("packed", "gap_ms", "others"):
            del values[key]
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _part_to_json(one: PartChange) -> dict[str, object]:
    return {**to_builtins(replace(one, changes=())), "changes": [_without_defaults(change) for change in one.changes]}


def _without_defaults(change: Change) -> dict[str, object]:
    return {key: value for key, value in to_builtins(change).items() if value not in ("", 0, None)}
