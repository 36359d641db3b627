"""Whether the disk of the backups folder is there: no link to it leads nowhere, and it is another if `separate_disk`.

The mount point of a disk that is not mounted is an empty folder: backups would fill the disk of the database, and be
hidden as soon as the disk is back.
"""

from __future__ import annotations

import os
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import disk
from backupkit.model.errors import Refused


def require(settings: Settings) -> None:
    """Raise `Refused` if the backups folder is not on the disk that it should be on."""
    disk.refuse_dangling(settings.dir)
    if text := why_missing(settings):
        raise Refused(
            f"{text} Nothing was changed.",
            hint="Mount it, and try again. If they share a disk for good: `config set separate_disk false`",
        )


def why_missing(settings: Settings) -> str:
    """Return a sentence that says why the disk seems to be missing; empty if it is there, or none is wanted."""
    if text := disk.dangling(settings.dir):
        return text
    if not settings.separate_disk or _device(settings.dir) != _device(settings.whole.database.parent):
        return ""
    return f"The disk for {settings.dir} is not mounted: the folder is on the disk of the database."


def _device(path: Path) -> int:
    """Return the number of the file system that the path is on, or would be on."""
    for place in (path, *path.parents):
        try:
            return os.stat(place).st_dev
        except (FileNotFoundError, NotADirectoryError):
            continue
    return 0
