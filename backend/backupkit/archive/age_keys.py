"""Keys of age as text: `age1…` to encrypt to, `AGE-SECRET-KEY-1…` to decrypt with. Bech32, see BIP 173."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import reduce

from backupkit.config.secrets import SECRET_KEY
from backupkit.model.errors import Refused

_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PUBLIC, _SECRET = "age", "age-secret-key-"


def recipient(text: str) -> bytes:
    """Return the public key that `age1…` encodes; raise `Refused` for anything else."""
    if key := _decoded(text, _PUBLIC):
        return key
    what = "A secret key of age" if SECRET_KEY.search(text) else repr(text[:80])
    raise Refused(
        f"{what} is not a recipient of age.", hint="It begins with age1, and is printed by `age-keygen -y KEYFILE`."
    )


def recipients(text: str) -> list[bytes]:
    """Return the public keys in a list or a file, separated by spaces, commas or line ends; # starts a comment."""
    return [recipient(word) for word in _words(text)]


def identities(text: str, where: str) -> list[bytes]:
    """Return the secret keys in a file of `age-keygen`; raise `Refused`, without any key in it, if it is not one."""
    keys = [_decoded(word, _SECRET) for word in _words(text)]
    if not keys or None in keys:
        raise Refused(
            f"{where} holds something that is not a secret key of age.",
            hint="It is a file that `age-keygen` wrote, with lines AGE-SECRET-KEY-1…; without a passphrase of its own.",
        )
    return [key for key in keys if key]


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from re.split(r"[\s,]+", line.partition("#")[0].strip()) if line.partition("#")[0].strip() else ()


def _decoded(text: str, kind: str) -> bytes | None:
    if text not in (text.lower(), text.upper()):
        return None
    head, mark, rest = text.lower().rpartition("1")
    if head != kind or not mark or set(rest) - set(_LETTERS):
        return None
    data = [_LETTERS.index(letter) for letter in rest]
    if _checksum(_expanded(kind) + data) != 1:
        return None
    if len(data) != 58:
        return None
    number = reduce(lambda held, one: held << 5 | one, data[:-6], 0)
    return (number >> 4).to_bytes(32) if not number & 0b1111 else None  # 52 letters: 32 bytes and four bits, all zero


def _expanded(kind: str) -> list[int]:
    return [ord(letter) >> 5 for letter in kind] + [0] + [ord(letter) & 31 for letter in kind]


def _checksum(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(_GENERATOR):
            state ^= term if top >> bit & 1 else 0
    return state
