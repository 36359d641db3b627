"""The names a backup may have, and those it gets when nobody names it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime

from backupkit.model.errors import Refused

STAMP = "%Y%m%d_%H%M%S"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_ALLOWED = re.compile(NAME)


def check_name(name: str) -> str:
    """The same name, safe to be one folder below `backups/`; `Refused` for anything else, before a disk is touched."""
    if _ALLOWED.fullmatch(name):
        return name
    raise Refused(
        f"{name!r} is not a name for a backup.",
        hint="Use 1 to 100 letters, digits, '.', '_' and '-', beginning with a letter or a digit.",
    )


def is_name(name: str) -> bool:
    """Whether a backup may have that name."""
    return _ALLOWED.fullmatch(name) is not None


def default_name(kind: str, at: datetime) -> str:
    """`backup_…` for what a person asks for, else the kind and the moment: `pre_restore_20241201_120000`."""
    return f"{'backup' if kind == 'manual' else kind}_{at.strftime(STAMP)}"


def auto_name(branch: str | None, short: str | None, dirty: bool, at: datetime) -> str:
    """`auto_BRANCH_SHORT_YYYYMMDD_HHMMSS[_dirty]`, with whatever of git's facts there is; always a valid name."""
    facts = [_plain(fact)[:length] for fact, length in ((branch, 40), (short, 12)) if fact]
    return "_".join(["auto", *facts, at.strftime(STAMP), *(["dirty"] if dirty else [])])


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def distinct(name: str, taken: set[str]) -> str:
    """The name, or the first of name_2, name_3 … that is not taken: two in one second get distinct names."""
    numbered = (name if number == 1 else f"{name}_{number}" for number in range(1, len(taken) + 3))
    return next(candidate for candidate in numbered if candidate not in taken)


def printable(path: str) -> str:
    """The path as it can be printed on one line, whatever its bytes."""
    return path if path.isprintable() else ascii(path)


def few(texts: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """The first of them, each as it can be printed, and how many more there are: `a, b, c and 4 more`."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return f"{between.join(map(printable, texts[:most]))}{more}"


def first_of(texts: Sequence[str]) -> str:
    """The first of them, as it can be printed, and how many more there are: `a (and 4 more)`."""
    return f"{printable(texts[0])}{f' (and {len(texts) - 1} more)' if len(texts) > 1 else ''}"


def printable_text(text: str) -> str:
    """The text on one line, with whatever a terminal could take for a command written as its code."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(letter: str) -> str:
    if letter.isprintable() or unicodedata.category(letter) == "Zs":  # a wide space, say
        return letter
    return letter.encode("unicode_escape").decode()


def printable_lines(text: str) -> str:
    """The same of a text that may have several lines, as an error of another program has."""
    return text if text.isprintable() else "\n".join(map(printable_text, text.split("\n")))
