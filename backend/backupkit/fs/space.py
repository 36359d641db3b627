"""Checks for free space on the disk, made before anything is written."""

from __future__ import annotations

from pathlib import Path

from backupkit.fs import disk
from backupkit.model.errors import NoSpace

# File systems need more than the content: for folders, journals, rounding up to blocks.
_SHARE, _FLOOR = 0.02, 4 << 20


def require(needed: int, folder: Path, what: str) -> None:
    """Raise `NoSpace` unless `needed` bytes and a margin are free at `folder`. Call it before anything is written."""
    wanted, free = with_margin(needed), disk.free_space(folder)
    if wanted > free:
        raise NoSpace(
            f"{what} needs {format_bytes(wanted)} in {folder}, and {format_bytes(free)} are free; nothing was changed.",
            hint="Make room there: `list` shows the backups and their sizes.",
        )


def with_margin(needed: int) -> int:
    """Return the bytes to ask for, so that `needed` fit; 0 for 0."""
    return int(needed * (1 + _SHARE)) + _FLOOR if needed else 0


def format_bytes(size: float) -> str:
    """Return bytes as people read them: `12.3 MB`, powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
