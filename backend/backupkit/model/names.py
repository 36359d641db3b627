"""The names that a backup may have, and the default ones; and texts made safe to print."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime

from backupkit.model.errors import Refused

STAMP = "%Y%m%d_%H%M%S"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
LETTERS = "1 to 100 letters, digits, '.', '_' and '-', beginning with a letter or a digit"
_ALLOWED = re.compile(NAME)


def check_name(name: str) -> str:
    """Return the name if it can be a folder below `backups/`; raise `Refused` for anything else. No disk is touched."""
    if _ALLOWED.fullmatch(name):
        return name
    raise Refused(f"{name!r} is not a name for a backup.", hint=f"Use {LETTERS}.")


def is_name(name: str) -> bool:
    """Return whether a backup may have that name."""
    return _ALLOWED.fullmatch(name) is not None


def default_name(kind: str, at: datetime) -> str:
    """Return `backup_…` for a manual backup, else the kind and the time: `pre_restore_20241201_120000`."""
    return f"{'backup' if kind == 'manual' else kind}_{at.strftime(STAMP)}"


def auto_name(branch: str | None, short: str | None, dirty: bool, at: datetime) -> str:
    """Return `auto_BRANCH_SHORT_YYYYMMDD_HHMMSS[_dirty]`, with what is known from git; it is always a valid name."""
    facts = [_plain(fact)[:length] for fact, length in ((branch, 40), (short, 12)) if fact]
    return "_".join(["auto", *facts, at.strftime(STAMP), *(["dirty"] if dirty else [])])


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def distinct(name: str, taken: set[str]) -> str:
    """Return the name, or the first of name_2, name_3 … that is not taken: two in one second get distinct names."""
    numbered = (name if number == 1 else f"{name}_{number}" for number in range(1, len(taken) + 3))
    return next(candidate for candidate in numbered if candidate not in taken)


def printable(path: str) -> str:
    """Return the path as it can be printed on one line, whatever its bytes."""
    return path if path.isprintable() else ascii(path)


def few(texts: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """Return the first of the texts, made printable, and how many more there are: `a, b, c and 4 more`."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return f"{between.join(map(printable, texts[:most]))}{more}"


def likely(wanted: str, known: Sequence[str]) -> list[str]:
    """Return the known names, those first that a slip of the hand turns into the wanted one."""
    import difflib  # only an error needs it

    alike = difflib.get_close_matches(wanted, known, n=3)
    return [*alike, *(name for name in known if name not in alike)]


def first_of(texts: Sequence[str]) -> str:
    """Return the first of the texts, made printable, and how many more there are: `a (and 4 more)`."""
    return f"{printable(texts[0])}{f' (and {len(texts) - 1} more)' if len(texts) > 1 else ''}"


def printable_text(text: str) -> str:
    """Return the text on one line, with whatever a terminal could take for a command written as its code."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(letter: str) -> str:
    if letter.isprintable() or unicodedata.category(letter) == "Zs":  # a wide space, say
        return letter
    return letter.encode("unicode_escape").decode()


def printable_lines(text: str) -> str:
    """Do the same for a text that may have several lines, such as an error of another program."""
    return text if text.isprintable() else "\n".join(map(printable_text, text.split("\n")))


def counted(number: int, thing: str, things: str = "") -> str:
    """Return the number with its noun: `1 file`, `2 files`; `things` is the plural if it is not made with an s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
