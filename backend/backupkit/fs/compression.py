"""Compressed dumps, read and written as streams: `.gz` and `.zst` by suffix, anything else uncompressed.

Both directions use constant memory. Reading goes by the first bytes and not by the name, so that a compressed dump on
stdin works too; input that ends early or fails its checksum raises Damaged.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, cast

from backupkit.fs import disk
from backupkit.fs.piece_reader import PieceReader
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, Refused

Format = Literal["gzip", "zstd"]

_SUFFIXES: dict[str, Format] = {".gz": "gzip", ".zst": "zstd"}
_MAGIC: dict[bytes, Format] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_GZIP_WINDOW = 31  # zlib's number for a stream with gzip header and trailer
_READ_SIZE = {"gzip": 16 * 1024, "zstd": 1024}  # bytes: hostile input can expand ten-thousandfold
_BLOCK = 1024 * 1024


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def format_of(name: str) -> Format | None:
    """Return how a file of this name is compressed, or None if it is not."""
    return _SUFFIXES.get(Path(name).suffix.lower())


@contextmanager
def open_for_writing(path: Path, name: str = "") -> Iterator[BinaryIO]:
    """Yield a new file of mode 0600, which is complete and on disk when the block ends without an error.

    The path must be free. The suffix of `name` (by default that of the path) decides the compression, since a draft can
    have any name. If the block fails, the incomplete draft stays, without the trailer of a compressed file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb", buffering=_BLOCK) as raw:
        with compressing(raw, name or path.name) as out:
            yield out
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def compressing(raw: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Yield a stream that writes into `raw`, compressed as the suffix of `name` says; `raw` stays open."""
    kind = format_of(name)
    if kind is None:
        yield raw
        return
    writer = _CompressingWriter(raw, _encoder(kind))
    yield cast(BinaryIO, writer)
    writer.finish()  # not in a `finally`: a trailer would make half a dump look like a whole one


@contextmanager
def open_for_reading(path: Path) -> Iterator[BinaryIO]:
    """Yield the decompressed content of a dump; raise NoSuchBackup if there is no such file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raw = io.BufferedReader(disk.NamedFile(handle, path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NoSuchBackup(f"There is no dump {path}.", hint="Look into the backups folder for its name.") from error
    except OSError as error:
        raise BackupError(f"Cannot read {path}: {error.strerror}.") from error
    with raw:
        yield decompressing(cast(BinaryIO, raw), expected=format_of(path.name))


def decompressing(raw: BinaryIO, expected: Format | None = None) -> BinaryIO:
    """Return the content of `raw`, decompressed if its first bytes say so; raise Damaged if they are not as `expected`.

    `raw` stays open, whatever happens to the returned stream.
    """
    start = raw.read(max(len(magic) for magic in _MAGIC))
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    content: io.RawIOBase = _PrefixedStream(start, raw)
    if expected and kind != expected:
        raise Damaged(f"{_name_of(raw)} is not a {expected} file.", hint="Copy it again, or give it its right suffix.")
    if kind is not None:
        content = _DecompressingReader(io.BufferedReader(content), kind, _name_of(raw))
    return cast(BinaryIO, io.BufferedReader(content, _BLOCK))


class _PrefixedStream(io.RawIOBase):
    """A stream of the bytes already read, and then the rest; it does not own what it reads from."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest
        self.name = _name_of(rest)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        data = self._start[: len(target)] or self._rest.read(len(target))
        self._start = self._start[len(data) :]
        target[: len(data)] = data
        return len(data)


class _CompressingWriter(io.BufferedIOBase):
    """A stream that compresses what is written, and is complete only after `finish`."""

    def __init__(self, raw: BinaryIO, encoder: _Encoder) -> None:
        self._raw = raw
        self._encoder = encoder

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._raw.write(self._encoder.compress(data))
        return len(data)

    def finish(self) -> None:
        self._raw.write(self._encoder.flush())


class _DecompressingReader(PieceReader):
    """A stream that decompresses one frame after the other; it raises Damaged for one that is cut short or altered."""

    def __init__(self, raw: io.BufferedReader, kind: Format, name: str) -> None:
        self._raw = raw
        self._read_size = _READ_SIZE[kind]
        self.name = name
        self._new_decoder, self._error = _decoding(kind)
        self._decoder: _Decoder | None = None

    def _next_piece(self) -> bytes | None:
        data = self._next_data()
        return self._decompress(data) if data else None

    def _next_data(self) -> bytes:
        rest = self._decoder.unused_data if self._decoder and self._decoder.eof else b""
        if self._decoder and self._decoder.eof:
            self._decoder = None
        data = rest or self._raw.read(self._read_size)
        if self._decoder is None:
            return data.lstrip(b"\0")  # tapes and some tools pad a gzip file with zeros
        if not data:
            raise self._damaged("ends in the middle")
        return data

    def _decompress(self, data: bytes) -> bytes:
        self._decoder = self._decoder or self._new_decoder()
        try:
            return self._decoder.decompress(data)
        except self._error as error:
            raise self._damaged(f"cannot be decompressed ({error})") from error

    def _damaged(self, what: str) -> Damaged:
        return Damaged(f"{self.name} {what}.", hint="Copy it again from where it was made, or use another dump.")


def _encoder(kind: Format) -> _Encoder:
    if kind == "gzip":
        return zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)  # no name and no time inside: same input, same file
    return cast(_Encoder, _zstandard().ZstdCompressor(level=3, write_checksum=True).compressobj())


def _decoding(kind: Format) -> tuple[Callable[[], _Decoder], type[Exception]]:
    if kind == "gzip":
        return lambda: zlib.decompressobj(_GZIP_WINDOW), zlib.error
    zstandard = _zstandard()
    return lambda: cast(_Decoder, zstandard.ZstdDecompressor().decompressobj()), zstandard.ZstdError


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise Refused("A .zst file needs the package zstandard.", hint="pip install zstandard") from error
    return zstandard


def _name_of(raw: BinaryIO) -> str:
    name = getattr(raw, "name", None)
    return name if isinstance(name, str) else "The dump"
