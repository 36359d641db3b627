"""Stamps that tell whether a file has changed since it was seen, without reading it."""

from __future__ import annotations

import os
import time

# A change within one tick of the clock leaves the times as they are; the coarsest clocks of file systems tick in 2 s.
_TICK = 2_000_000_000
RACY = "- - - -"


def change_stamp(facts: os.stat_result, since: int | None = None) -> str:
    """Return a text that changes with the file's content, or `RACY` if a change might not show.

    It does not show within one tick of the clock; nor, in a file that is written through mmap, from the first write
    until the file is synced. `since` is the time of the last sync, in ns; without it, now.
    """
    return RACY if (since or time.time_ns()) - facts.st_ctime_ns < _TICK else stamp_of(facts)


def stamp_of(facts: os.stat_result) -> str:
    """Return the same for a file that is known to be settled."""
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"
