"""A restic repository that opens at once. A real one takes half a second of key derivation each time, on purpose.

The repository's key stores this cost, so the key is written anew here with a low one; restic works with it as usual.
The format is restic's: https://github.com/restic/restic/blob/master/doc/design.rst
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

CHEAP = {"N": 2, "r": 1, "p": 1}
_NONCE = _TAG = 16


def put_repository(place: Path, password: str, templates: Path) -> Path:
    """Create a repository at that place; all have the same master key, and no snapshot."""
    return shutil.copytree(_template(templates / "quick_restic", password), place)


@cache
def _template(folder: Path, password: str) -> Path:
    environment = {**os.environ, "RESTIC_PASSWORD": password, "RESTIC_REPOSITORY": str(folder)}
    subprocess.run(["restic", "init", "--quiet"], env=environment, check=True)
    (key,) = (folder / "keys").iterdir()
    content = _cheapened(json.loads(key.read_bytes()), password)
    key.unlink()
    (folder / "keys" / hashlib.sha256(content).hexdigest()).write_bytes(content)
    return folder


def _cheapened(told: dict[str, Any], password: str) -> bytes:
    data = base64.b64decode(told["data"])
    nonce = data[:_NONCE]
    master = _crypted(_derived(told, password), nonce, data[_NONCE:-_TAG])
    told |= CHEAP
    key = _derived(told, password)
    hidden = _crypted(key, nonce, master)
    told["data"] = base64.b64encode(nonce + hidden + _tag(key, nonce, hidden)).decode()
    return json.dumps(told).encode()


def _derived(told: dict[str, Any], password: str) -> bytes:
    """Return the derived key: 32 bytes to encrypt with, and twice 16 to sign with."""
    costs = {"n": told["N"], "r": told["r"], "p": told["p"]}
    return hashlib.scrypt(password.encode(), salt=base64.b64decode(told["salt"]), **costs, maxmem=1 << 30, dklen=64)


def _crypted(key: bytes, nonce: bytes, text: bytes) -> bytes:
    return Cipher(algorithms.AES(key[:32]), modes.CTR(nonce)).encryptor().update(text)


def _tag(key: bytes, nonce: bytes, text: bytes) -> bytes:
    once = Cipher(algorithms.AES(key[32:48]), modes.ECB()).encryptor().update(nonce)
    return Poly1305.generate_tag(key[48:] + once, text)
