"""Patterns as in .gitignore: `*.pdf`, `/2024/`, `notes/**/draft-*`, `!keep.pdf`; the last one that matches decides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from backupkit.model.errors import Refused
from backupkit.model.names import printable

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_MOST_STARS = 3  # in one name, and `**` in one pattern: with more, matching could take hours


class Patterns:
    """A list of patterns; a line that is a path as it stands matches that path too, and all below it."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Raise `Refused` for a line that is not a pattern, or leads out of the tree."""
        self._lines = tuple(lines)
        self._each = tuple(_parsed(line) for line in self._lines)
        self._all = _spec(self._lines)
        self._unmatched = {line for line in self._lines if not line.startswith("!")}
        self._is_simple = len(self._lines) == len(self._unmatched) == 1

    @property
    def unmatched(self) -> list[str]:
        """The lines that have matched no path so far, in order."""
        return [line for line in self._lines if line in self._unmatched]

    def match(self, path: str, is_folder: bool) -> bool:
        """Return whether the patterns match the path, which is relative to the tree."""
        asked = f"{path}/" if is_folder else path
        if self._is_simple:
            found = self._all.match_file(asked) or _is_at_or_below(path, self._lines[0])
            if found:
                self._unmatched.clear()
            return found
        literal = {line for line in self._unmatched if _is_at_or_below(path, line)}
        for line, spec in zip(self._lines, self._each, strict=True):
            if line in self._unmatched and (line in literal or spec.match_file(asked)):
                self._unmatched.discard(line)
        return self._all.match_file(asked) or any(_is_at_or_below(path, line) for line in self._lines)


def literal(path: str) -> str:
    """Return the pattern that matches this path and no other, whatever characters are in it."""
    return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)


def _is_at_or_below(path: str, line: str) -> bool:
    place = line.rstrip("/")
    return path == place or path.startswith(f"{place}/")


def _parsed(line: str) -> GitIgnoreSpec:
    if ".." in line.split("/"):
        raise Refused(
            f"The pattern {printable(line)} leads out of the uploads.", hint="Patterns begin in the uploads folder."
        )
    parts = line.split("/")
    stars = (re.sub(r"\\.", "", part).count("*") for part in parts)
    if parts.count("**") > _MOST_STARS or any(number > _MOST_STARS for number in stars):
        raise Refused(f"The pattern {printable(line)} has too many stars.", hint="Write it as several patterns.")
    try:
        return _spec((line.removeprefix("!"),))
    except (ValueError, re.error) as error:
        raise Refused(
            f"{printable(line)!r} is not a pattern.", hint="Patterns are as in .gitignore: *.pdf, /2024/."
        ) from error


def _spec(lines: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(lines)
