"""A folder tree, looked at and copied without ever following a symlink in it.

Names are the file system's own, whatever their bytes (surrogateescape). The order is parents first, then by name,
so that two trees can be walked side by side.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["file", "folder", "link", "special"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree: its path relative to the root, what `lstat` says, and a link's target."""

    path: str
    facts: os.stat_result
    target: str = ""

    @property
    def form(self) -> Form:
        return form_of(self.facts.st_mode)

    @property
    def key(self) -> tuple[str, ...]:
        """What the walk is ordered by."""
        return tuple(self.path.split("/"))


def form_of(mode: int) -> Form:
    """File, folder, link, or what cannot be copied: a socket, a fifo, a device."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "special"


def walk(root: Path, leave_out: str = "") -> Iterator[Entry]:
    """Every entry below the root but `leave_out` and what is in it. What vanishes meanwhile is not there."""
    yield from _walk(os.fspath(root), "", leave_out)


def _walk(root: str, below: str, leave_out: str) -> Iterator[Entry]:
    for name in sorted(os.listdir(f"{root}/{below}" if below else root)):
        path = f"{below}/{name}" if below else name
        if path == leave_out:
            continue
        entry = look(root, path)
        if entry is None:
            continue
        yield entry
        if entry.form == "folder":
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                yield from _walk(root, path, leave_out)


def look(root: str | Path, path: str) -> Entry | None:
    """The entry of that path now; None where there is none."""
    full = os.path.join(root, path)
    try:
        facts = os.lstat(full)
        return Entry(path, facts, os.readlink(full) if stat.S_ISLNK(facts.st_mode) else "")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return look(root, path)  # a link was replaced between the two calls


def signature(facts: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file's content does: size, time of change of content, time of change of anything (ns)."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def content_size(facts: os.stat_result) -> int:
    """Bytes on disk: less than the length for a sparse file."""
    return min(facts.st_size, facts.st_blocks * 512)
