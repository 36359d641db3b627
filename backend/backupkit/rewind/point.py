"""One point of rewind: a sealed file that leads from one state of database and uploads to the next.

    b"BKPOINT1"                     8 bytes
    number and content of each changed page, in one compressed stream
    contents of new uploads, as they are
    header                          JSON: what `Header` has
    bytes of the header             8, big-endian
    SHA-256 of the header           32
    SHA-256 of all above            32

The header is read, and compared with its checksum, without the rest. What is in such a file is input: nothing of it is
believed that was not compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, cast

from pydantic import Field, TypeAdapter

from backupkit.fs import disk
from backupkit.model.backup import Count, Whole
from backupkit.model.errors import Damaged
from backupkit.repository.manifest import is_inside

FORMAT = 1
_MAGIC = b"BKPOINT1"
_TAIL = 8 + 32 + 32
_MOST_HEADER = 256 << 20
_MOST = 1 << 60
_PIECE = 1 << 20  # bytes
_NAME = re.compile(r"(\d{8})-\d{8}T\d{6}Z\.point")
_OTHER = "`rewind` shows what can be restored; `verify --all` names all that is damaged."

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Form = Literal["file", "folder", "link"]
Where = Literal["none", "here", "before", "base"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One upload, folder or link: `changed` is its time of change in ns, `attributes` are names and values in hex."""

    form: Form
    mode: Annotated[int, Field(ge=0, le=0o7777)]
    changed: Whole
    owner: tuple[Count, Count] | None = None
    size: Count = 0
    sha256: str = ""
    target: str = ""
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What a path is from this point on, or that it is gone (no entry).

    `content` says where that of a file is: in this point at that `offset`, where it was before, or in the base's file
    of the path `source`. `stamp` is how the live file looked.
    """

    path: str = ""
    entry: Entry | None = None
    content: Where = "none"
    offset: Count = 0
    source: str = ""
    stamp: str = ""


@dataclass(frozen=True)
class DatabaseChange:
    """What the database is from this point on: `root` is the SHA-256 of the hashes of its pages.

    `changed` pages are in the point, compressed to `length` bytes.
    """

    page_size: Annotated[int, Field(ge=512, le=65536)]
    pages: Annotated[int, Field(ge=1, lt=2**32)]
    root: Digest
    changed: Count
    length: Count
    compression: Literal["zstd", "zlib"]
    journal_mode: str


@dataclass(frozen=True)
class Header:
    """What a point says of itself.

    `parent` is the state that it leads from, `state` the one that it leads to; both are digests. `since` is when the
    data were last seen to be as in the parent. `base` is the backup at the beginning of its chain, known by the
    SHA-256 of its checksums (`seal`), and `base_state` what is in it. `before` is when the data were last seen to be
    as in the last point of the chain before, in the first point of a chain. `interval` is in seconds, of the looks.
    """

    at: datetime
    since: datetime
    interval: Annotated[float, Field(gt=0, allow_inf_nan=False)]
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
    format: Literal[1] = 1


@cache
def _form() -> TypeAdapter[Header]:
    return TypeAdapter(Header)


def name_of(number: int, at: datetime) -> str:
    """The file name of a chain's point."""
    return f"{number:08d}-{at:%Y%m%dT%H%M%S}Z.point"


def number_of(name: str) -> int | None:
    """Its number in the chain; None for what is no point."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


# Reading.


def read_header(path: Path) -> Header:
    """The header; `Damaged` where it is not as it was written or cannot be trusted."""
    try:
        with disk.open_plain(path, _MOST) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL))
            tail = file.read(_TAIL)
            length = int.from_bytes(tail[:8], "big")
            if len(tail) < _TAIL or length > min(_MOST_HEADER, end - _TAIL - len(_MAGIC)):
                raise _damaged(path, "it is cut short")
            file.seek(end - _TAIL - length)
            raw = file.read(length)
        if hashlib.sha256(raw).digest() != tail[8:40]:
            raise _damaged(path, "its header is not as it was written")
        header = _form().validate_python(json.loads(raw))
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header cannot be trusted") from error
    _require_sane(path, header, end - _TAIL - length)
    return header


def _require_sane(path: Path, header: Header, end: int) -> None:
    """`Damaged` for offsets outside of the file, and paths outside of the uploads."""
    if header.at.tzinfo is None or header.since.tzinfo is None or len(_MAGIC) + header.database.length > end:
        raise _damaged(path, "its header cannot be trusted")
    for change in header.changes:
        entry = change.entry
        names = change.path.split("/") if change.path else []
        is_plain = not any(name in ("", ".", "..") or "\0" in name for name in names)
        if not is_plain or (change.source and not is_inside(change.source)):
            raise _damaged(path, "a path in it leads out of the uploads")
        if entry and (entry.form == "file") != (change.content != "none"):
            raise _damaged(path, "its header cannot be trusted")
        if entry and change.content == "here" and not len(_MAGIC) <= change.offset <= end - entry.size:
            raise _damaged(path, "its header cannot be trusted")


def verify(path: Path) -> None:
    """Every byte is as it was written; `Damaged` otherwise."""
    try:
        with disk.open_plain(path, _MOST) as file:
            left = file.seek(0, os.SEEK_END) - 32
            file.seek(0)
            digest, first = hashlib.sha256(), b""
            while left > 0 and (chunk := file.read(min(left, disk.CHUNK))):
                first = first or chunk[: len(_MAGIC)]
                digest.update(chunk)
                left -= len(chunk)
            if first != _MAGIC or digest.digest() != file.read(32):
                raise _damaged(path, "it is not as it was written")
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from error


def pages(path: Path, database: DatabaseChange, known: Sequence[int] = ()) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each changed page, but of those marked in `known`; `Damaged` for anything else."""
    record, last = 4 + database.page_size, 0
    with disk.open_plain(path, _MOST) as file:
        file.seek(len(_MAGIC))
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
    """The stream of pages in pieces of a megabyte at most, however much it would swell."""
    if database.compression == "zlib":
        return _zlib_pieces(path, file, database.length)
    return _zstd_pieces(path, file, database.length)


def _zlib_pieces(path: Path, file: BinaryIO, left: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj()
    try:
        while left and (data := file.read(min(left, _PIECE))):
            left -= len(data)
            while found := decoder.decompress(data, _PIECE):
                yield found
                data = decoder.unconsumed_tail
    except zlib.error as error:
        raise _damaged(path, "its pages cannot be decompressed") from error


def _zstd_pieces(path: Path, file: BinaryIO, left: int) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise Damaged(f"{path} needs the package zstandard.", hint="pip install zstandard") from error
    with zstandard.ZstdDecompressor().stream_reader(cast(BinaryIO, _Part(file, left)), closefd=False) as reader:
        try:
            while found := reader.read(_PIECE):
                yield found
        except zstandard.ZstdError as error:
            raise _damaged(path, "its pages cannot be decompressed") from error


class _Part:
    """So many bytes of an open file, from where it is."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def content(path: Path, offset: int, size: int) -> Iterator[bytes]:
    """The content of an upload in a point, in pieces; less than its size where the file is cut short."""
    with disk.open_plain(path, _MOST) as file:
        file.seek(offset)
        while size and (chunk := file.read(min(size, disk.CHUNK))):
            size -= len(chunk)
            yield chunk


def copy_content(path: Path, offset: int, entry: Entry, target: int) -> None:
    """The same, written to a new file; `Damaged` where it has another checksum."""
    size, checksum = disk.write_contents(content(path, offset, entry.size), target)
    if (size, checksum) != (entry.size, entry.sha256):
        raise _damaged(path, "an upload in it is not as it was written")


def _damaged(path: Path, why: str) -> Damaged:
    return Damaged(f"The point {path.name} is damaged: {why}.", _OTHER)


# Writing.


class Writer:
    """A point that is being written to `draft`, which is made with the first byte: where nothing changed, none is.

    First pages, in order; then contents; then `finish`.
    """

    def __init__(self, draft: Path) -> None:
        self._draft, self._handle = draft, -1
        self._digest, self._size = hashlib.sha256(), 0
        self.compression: Literal["zstd", "zlib"]
        self.compression, self._packer = _packer()
        self.changed = self.length = 0

    @property
    def has_begun(self) -> bool:
        """Whether anything was written."""
        return self._handle >= 0

    def add_page(self, number: int, content: bytes | memoryview) -> None:
        """A changed page; they come by their numbers."""
        self.changed += 1
        self._write(self._packer.compress(number.to_bytes(4, "big") + content))

    def end_pages(self) -> None:
        """There are no more."""
        if self.changed:
            self._write(self._packer.flush())
            self.length = self._size - len(_MAGIC)

    @contextlib.contextmanager
    def content(self) -> Iterator[Content]:
        """The content of one upload, which is kept only if it is said to be."""
        digest, size, has_begun = self._digest.copy(), self._size, self.has_begun
        content = Content(self._write, max(size, len(_MAGIC)))
        yield content
        if not content.is_kept and has_begun:
            os.ftruncate(self._handle, size)
            os.lseek(self._handle, size, os.SEEK_SET)
            self._digest, self._size = digest, size
        elif not content.is_kept:
            self.abandon()
            self._digest, self._size = hashlib.sha256(), 0

    def finish(self, header: Header, final: Path) -> int:
        """The point is on disk under its name; its size in bytes."""
        raw = _dumped(header)
        self._write(raw + len(raw).to_bytes(8, "big") + hashlib.sha256(raw).digest())
        self._write(self._digest.digest())
        os.fsync(self._handle)
        os.close(self._handle)
        self._handle = -1
        disk.rename(self._draft, final)
        return self._size

    def abandon(self) -> None:
        """Nothing is left."""
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
    """An upload that is being written into a point; `keep` it or it is taken out again."""

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


def _dumped(header: Header) -> bytes:
    """ASCII, since names may hold any bytes."""
    values = asdict(replace(header, changes=()))
    values |= {key: value.isoformat() for key, value in values.items() if isinstance(value, datetime)}
    values["changes"] = [_without_defaults(change) for change in header.changes]
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _without_defaults(change: Change) -> dict[str, object]:
    return {key: value for key, value in asdict(change).items() if value not in ("", 0, None)}


def _packer() -> tuple[Literal["zstd", "zlib"], Any]:
    try:
        import zstandard
    except ImportError:
        return "zlib", zlib.compressobj(1)
    return "zstd", zstandard.ZstdCompressor(level=3).compressobj()
