"""Read a small file whole, before anything is made for its copy: fewer calls than to copy it piece by piece."""

from __future__ import annotations

import os
from typing import NamedTuple

from backupkit.fs import attributes, descriptors, disk
from backupkit.fs.attributes import Attributes

_SMALL = 1 << 18  # bytes


class SmallFile(NamedTuple):
    """The content of a file, its attributes if asked for, and its facts after it was read."""

    content: bytes
    attributes: Attributes
    facts: os.stat_result


def read(name: str, within: int, facts: os.stat_result, with_attributes: bool = True) -> SmallFile | None:
    """Return what is in a file that had these facts a moment ago.

    Return None if it is large, sparse, or has another size by now, and where its file system may share blocks with a
    copy: then `disk.copy_contents` copies it.
    """
    size = facts.st_size
    if size > _SMALL or facts.st_blocks * 512 < size or disk.may_share_blocks(facts):
        return None
    handle = os.open(name, descriptors.FILE, dir_fd=within)
    try:
        content = os.read(handle, size + 1)
        found = attributes.of_open(handle) if with_attributes else attributes.NOTHING
        after = os.fstat(handle)
    finally:
        os.close(handle)
    return SmallFile(content, found, after) if len(content) == size == after.st_size else None
