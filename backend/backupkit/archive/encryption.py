"""Encrypt and decrypt in the format of age (c2sp.org/age, version 1), in constant memory.

The `age` command reads what is written here, and the other way round: for recipients (X25519) or with a passphrase
(scrypt). The primitives come from the package `cryptography`; only the byte layout is ours.
"""

from __future__ import annotations

import base64
import hmac
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from msgspec import Struct

from backupkit.fs.piece_reader import PieceReader
from backupkit.model.errors import Damaged, Refused
from backupkit.model.names import counted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

SUFFIX = ".age"
MAGIC = b"age-encryption.org/v1\n"
ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_INFO = b"age-encryption.org/v1/"
_CHUNK, _TAG = 1 << 16, 16
_COLUMNS = 64
_WORK = 18  # log2 of scrypt's N, as `age` sets it: about a second, and 256 MB
_MOST_WORK = 22
_LONGEST_HEADER = 1 << 20
_AGAIN = "Copy it again from where it was made."


@dataclass(frozen=True, repr=False)
class Recipients:
    """Who can decrypt a file: owners of keys, given by public keys, or else anyone with the passphrase."""

    recipients: tuple[bytes, ...] = ()
    passphrase: str = ""

    def __bool__(self) -> bool:
        return bool(self.recipients or self.passphrase)


@dataclass(frozen=True, repr=False)
class Identities:
    """What may decrypt a file: secret keys, and a function that returns the passphrase, called only if needed."""

    identities: tuple[bytes, ...] = ()
    passphrase: Callable[[], str] = str


class _Stanza(Struct, frozen=True):
    """The file key, wrapped for one recipient."""

    arguments: tuple[str, ...]
    body: bytes


def require_library() -> None:
    """Raise `Refused` if the package that encryption needs is missing."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise Refused("A .age file needs the package cryptography.", hint="pip install cryptography") from error


@contextmanager
def encrypting(raw: BinaryIO, recipients: Recipients) -> Iterator[BinaryIO]:
    """Yield a stream that writes to `raw` encrypted; `raw` stays open. It is complete only if the block ends well."""
    require_library()
    file_key = os.urandom(16)
    raw.write(_header(file_key, recipients))
    nonce = os.urandom(16)
    raw.write(nonce)
    sealing = _EncryptingWriter(raw, _cipher(_derived(file_key, nonce, b"payload")))
    yield cast(BinaryIO, sealing)
    sealing.finish()  # not in a `finally`: a partial file must not look complete


def decrypting(raw: BinaryIO, keys: Identities, name: str) -> BinaryIO:
    """Return a stream of the decrypted content of `raw`; every byte that it returns is authenticated.

    Raises `Refused` if no key fits, and `Damaged`, also while it is read, if the file is altered or cut short.
    """
    require_library()
    stanzas, head, mac = _read_header(raw, name)
    file_key = _unwrap_file_key(stanzas, keys, name)
    if not hmac.compare_digest(_mac(file_key, head), mac):
        raise Damaged(f"{name} was altered after it was encrypted.", _AGAIN)
    nonce = raw.read(16)
    if len(nonce) != 16:
        raise Damaged(f"{name} ends in the middle.", _AGAIN)
    reader = _DecryptingReader(raw, _cipher(_derived(file_key, nonce, b"payload")), name)
    return cast(BinaryIO, io.BufferedReader(reader, _CHUNK))


def _nonce(number: int, last: bool) -> bytes:
    """Return the nonce of a chunk: its number, and whether it is the last one."""
    return number.to_bytes(11, "big") + bytes([last])


class _EncryptingWriter(io.BufferedIOBase):
    """A stream that encrypts what is written; complete only after `finish`."""

    def __init__(self, raw: BinaryIO, cipher: ChaCha20Poly1305) -> None:
        self._raw, self._cipher = raw, cipher
        self._numbers, self._held = count(), bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._held += data
        while len(self._held) > _CHUNK:  # hold back the last chunk, because its nonce differs
            self._put(bytes(self._held[:_CHUNK]), last=False)
            del self._held[:_CHUNK]
        return len(data)

    def finish(self) -> None:
        self._put(bytes(self._held), last=True)

    def _put(self, piece: bytes, last: bool) -> None:
        self._raw.write(self._cipher.encrypt(_nonce(next(self._numbers), last), piece, None))


class _DecryptingReader(PieceReader):
    """A stream that decrypts chunk by chunk; raises `Damaged` if one was altered, or the last is missing."""

    def __init__(self, raw: BinaryIO, cipher: ChaCha20Poly1305, name: str) -> None:
        self._raw, self._cipher, self.name = raw, cipher, name
        self._numbers = count()
        self._ahead = _read_fully(raw, _CHUNK + _TAG)
        self._first, self._ended = True, False

    def _next_piece(self) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        if self._ended:
            return None
        piece, self._ahead = self._ahead, _read_fully(self._raw, _CHUNK + _TAG)
        self._ended = not self._ahead
        try:
            content = self._cipher.decrypt(_nonce(next(self._numbers), self._ended), piece, None)
            if not content and not self._first:
                raise ValueError("an empty chunk")
        except (InvalidTag, ValueError) as error:
            raise Damaged(f"{self.name} was altered or cut short after it was encrypted.", _AGAIN) from error
        self._first = False
        return content


def _read_fully(raw: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end; a single read of a pipe may return fewer."""
    held = bytearray()
    while len(held) < size and (data := raw.read(size - len(held))):
        held += data
    return bytes(held)


def _header(file_key: bytes, recipients: Recipients) -> bytes:
    if recipients.passphrase:
        stanzas = [_wrap_with_passphrase(file_key, recipients.passphrase)]
    else:
        stanzas = [_wrap_for_key(file_key, recipient) for recipient in recipients.recipients]
    head = MAGIC + b"".join(map(_written, stanzas)) + b"---"
    return head + b" " + _base64(_mac(file_key, head)).encode() + b"\n"


def _written(stanza: _Stanza) -> bytes:
    text = _base64(stanza.body)
    lines = [text[start : start + _COLUMNS] for start in range(0, len(text) + 1, _COLUMNS)]  # the last one is short
    return "\n".join([" ".join(["->", *stanza.arguments]), *lines, ""]).encode()


def _read_header(raw: BinaryIO, name: str) -> tuple[list[_Stanza], bytes, bytes]:
    """Return the stanzas, the bytes that the authentication code covers, and the code."""
    stanzas: list[_Stanza] = []
    head = b""
    try:
        while not (line := _line(raw, len(head))).startswith(b"---"):
            head += line
            if line == MAGIC and head == MAGIC:
                continue
            mark, *arguments = line.decode("ascii").rstrip("\n").split(" ")
            if mark != "->" or not all(arguments) or not arguments:
                raise ValueError("no recipient")
            lines = _body(raw, len(head))
            head += b"".join(lines)
            stanzas.append(_Stanza(tuple(arguments), _unbase64(b"".join(lines).replace(b"\n", b"").decode("ascii"))))
        return stanzas, head + b"---", _unbase64(line.removeprefix(b"--- ").rstrip(b"\n").decode("ascii"))
    except ValueError as error:
        raise _unsound_header(name) from error


def _unsound_header(name: str) -> Damaged:
    return Damaged(f"{name} has no sound header of an age file.", _AGAIN)


def _line(raw: BinaryIO, before: int) -> bytes:
    line = raw.readline(_LONGEST_HEADER)
    if not line.endswith(b"\n") or before + len(line) > _LONGEST_HEADER:
        raise ValueError("no end of the header")
    return line


def _body(raw: BinaryIO, before: int) -> list[bytes]:
    """Return the lines of a stanza's body: lines of 64 characters, and a last one that is shorter."""
    lines = [_line(raw, before)]
    while len(lines[-1]) == _COLUMNS + 1:
        lines.append(_line(raw, before + len(lines) * (_COLUMNS + 1)))
    if len(lines[-1]) > _COLUMNS:
        raise ValueError("a line is too long")
    return lines


def _unwrap_file_key(stanzas: list[_Stanza], keys: Identities, name: str) -> bytes:
    kinds = [stanza.arguments[0] for stanza in stanzas]
    if "scrypt" in kinds:
        if len(stanzas) != 1:
            raise Damaged(f"{name} has a passphrase beside other recipients, which no age file has.", _AGAIN)
        return _unwrap_with_passphrase(stanzas[0], keys.passphrase(), name)
    for stanza in stanzas:
        for identity in keys.identities:
            if stanza.arguments[0] == "X25519" and (file_key := _unwrap_with_key(stanza, identity, name)):
                return file_key
    problem = "none of the secret keys opens it" if keys.identities else "a secret key is needed"
    raise Refused(
        f"{name} is encrypted to {counted(len(stanzas), 'recipient')}, and {problem}.",
        hint="Give the key file: `--identity FILE`, or decrypt it first: age -d -i KEYFILE",
    )


def _wrap_for_key(file_key: bytes, recipient: bytes) -> _Stanza:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    wrapping = _cipher(_derived(secret, share + recipient, _INFO + b"X25519"))
    return _Stanza(("X25519", _base64(share)), wrapping.encrypt(bytes(12), file_key, None))


def _unwrap_with_key(stanza: _Stanza, identity: bytes, name: str) -> bytes | None:
    """Return the file key, or None if it was wrapped for another secret key."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    private = X25519PrivateKey.from_private_bytes(identity)
    try:
        (encoded,) = stanza.arguments[1:]
        share = _unbase64(encoded)
        secret = private.exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError as error:
        raise _unsound_header(name) from error
    wrapping = _derived(secret, share + private.public_key().public_bytes_raw(), _INFO + b"X25519")
    try:
        return _key(_cipher(wrapping).decrypt(bytes(12), stanza.body, None), name)
    except InvalidTag:
        return None


def _wrap_with_passphrase(file_key: bytes, passphrase: str) -> _Stanza:
    salt = os.urandom(16)
    wrapping = _cipher(_stretched(passphrase, salt, _WORK))
    return _Stanza(("scrypt", _base64(salt), str(_WORK)), wrapping.encrypt(bytes(12), file_key, None))


def _unwrap_with_passphrase(stanza: _Stanza, passphrase: str, name: str) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        encoded, written = stanza.arguments[1:]
        salt, work = _unbase64(encoded), int(written)
        if len(salt) != 16 or written != str(work) or not 0 < work <= _MOST_WORK:
            raise ValueError("not what age writes")
    except ValueError as error:
        raise _unsound_header(name) from error
    try:
        return _key(_cipher(_stretched(passphrase, salt, work)).decrypt(bytes(12), stanza.body, None), name)
    except InvalidTag as error:
        raise Refused(f"The passphrase does not open {name}.", hint="Try again; capitals and spaces count.") from error


def _key(content: bytes, name: str) -> bytes:
    if len(content) != 16:
        raise _unsound_header(name)
    return content


def _stretched(passphrase: str, salt: bytes, work: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=_INFO + b"scrypt" + salt, length=32, n=1 << work, r=8, p=1).derive(passphrase.encode())


def _mac(file_key: bytes, head: bytes) -> bytes:
    return hmac.digest(_derived(file_key, b"", b"header"), head, "sha256")


def _derived(secret: bytes, salt: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length=32, salt=salt, info=info).derive(secret)


def _cipher(key: bytes) -> ChaCha20Poly1305:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    """Decode base64 without padding; raise `ValueError` for any but the canonical encoding."""
    content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    if _base64(content) != text:
        raise ValueError("not the one spelling")
    return content
