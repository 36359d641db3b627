"""Secrets: values that are used, and never shown, logged, or put into a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backupkit.model.errors import Refused
from backupkit.model.names import printable

MASK = "***"
IN_FILE = "_file"  # suffix of a secret's name: the file that holds it
SECRET_KEY = re.compile(r"AGE-SECRET-KEY-\w+", re.IGNORECASE)
"""A secret key of age, which some paste where the public one belongs."""
_LONGEST = 1_000_000  # bytes; a longer file must be a wrong one
_SHORTEST = 4  # a shorter secret occurs in ordinary text, which would become unreadable


class Secret:
    """A text that is `***` wherever it is printed or becomes JSON; `get_secret_value()` returns the text."""

    def __init__(self, text: str) -> None:
        self.__text = text

    def get_secret_value(self) -> str:
        """Return the text itself, to be used."""
        return self.__text

    def __len__(self) -> int:
        return len(self.__text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.get_secret_value() == self.__text

    def __hash__(self) -> int:
        return hash(self.__text)

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return repr(str(self))


class SecretUrl(Secret):
    """An address with a password or a token in it. It prints as its scheme; for a web page, also its host."""

    def __str__(self) -> str:
        scheme, mark, _ = self.get_secret_value().partition("://")
        if not mark or not re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*", scheme):
            return MASK
        host = _host(self.get_secret_value()) if scheme in ("http", "https") else ""
        return f"{scheme}://{host}/{MASK}" if host else f"{scheme}://{MASK}"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def revealed(secret: Secret | None) -> str:
    """Return the text itself, to be used; empty if there is none."""
    return secret.get_secret_value() if secret else ""


def secrets_from_files(
    names: Iterable[str],
    raw: Mapping[str, Any],
    folder: Path,
    spelled: Callable[[str], str],
    next_step: Callable[[str], str] | None = None,
) -> dict[str, str]:
    """Return the content of each file that a setting names in place of one of these secrets.

    A relative path starts in the folder. `spelled` returns how a setting is written where it was set. Raise `Refused`,
    which shows nothing of the content, if secret and file are both set, or the file cannot be read; `next_step` then
    returns what to type, if leaving the file out once does not help.
    """
    found = {}
    for name in names:
        file = raw.get(name + IN_FILE)
        if file and raw.get(name):
            raise Refused(f"{spelled(name)} and {spelled(name + IN_FILE)} are both set.", hint="Keep one of them.")
        if file:
            told, setting = spelled(name + IN_FILE), name + IN_FILE
            hint = next_step(setting) if next_step else _leave_out(told, setting)
            found[name] = _read(place_of(str(file), folder), told, hint)
    return found


def place_of(file: str, folder: Path) -> Path:
    """Return where that file is; a relative path starts in the folder."""
    try:
        return folder / Path(file).expanduser()
    except RuntimeError:  # the home of somebody unknown
        return folder / file


def _read(place: Path, told: str, hint: str) -> str:
    named = f"{told} names the file {printable(str(place))}"
    try:
        with open(place, "rb") as opened:
            content = opened.read(_LONGEST + 1)
        if not content.strip():
            raise Refused(f"{named}, which is empty.", hint)
        if len(content) <= _LONGEST:
            return content.decode().strip()
        reason = "it is too large"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError:
        reason = "it is not text, or the path is not valid"
    raise Refused(f"{named}, which cannot be read: {reason}.", hint)


def _leave_out(told: str, name: str) -> str:
    variable = told if told.startswith("BACKUP_") else f"BACKUP_{name.upper()}"
    return f"Correct it, or leave it out this once: put {variable}= before the command."


def scrubbed(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Return the text without these secrets (from 4 letters on), passwords in URLs, and secret keys of age."""
    for value in sorted((one.get_secret_value() for one in secrets), key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, MASK)
    return SECRET_KEY.sub(MASK, re.sub(r"://[^/@\s]*@", f"://{MASK}@", text))
