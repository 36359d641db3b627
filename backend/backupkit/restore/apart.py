"""Checks that a folder is apart from live data and from sealed backups, by path and by inode."""

from __future__ import annotations

import os
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.model.backup import METADATA_FILE


def touches_data(place: Path, settings: Settings) -> bool:
    """Return whether the place is in or around live data, in a sealed backup, or in the folder of a live database.

    The last does not count if the backups folder lies there too.
    """
    above = _with_parents(place)
    is_sealed = any((folder / METADATA_FILE).exists() for folder in above)
    lives = [live for part in settings.parts for live in (part.database, part.uploads) if live]
    is_live = any(_overlaps(above, live) for live in lives)
    return is_sealed or is_live or any(_is_beside(above, part) for part in settings.parts)


def touches_backups(place: Path, settings: Settings) -> bool:
    """Return whether the place is in the backups folder, or around it."""
    return _overlaps(_with_parents(place), settings.dir)


def _overlaps(above: list[Path], live: Path) -> bool:
    """Return whether one is, or is in, the other; `above` is the place and its parents."""
    place = above[0]
    return any(_is_same(folder, live) for folder in above) or any(_is_same(place, one) for one in _with_parents(live))


def _is_beside(above: list[Path], settings: Settings) -> bool:
    """Return whether the place is in the database's folder, unless the backups folder is in there too."""
    folder = settings.database.parent
    inside = any(_is_same(one, folder) for one in above)
    return inside and not any(_is_same(one, folder) for one in _with_parents(settings.dir))


def _with_parents(path: Path) -> list[Path]:
    real = Path(os.path.realpath(path))
    return [real, *real.parents]


def _is_same(one: Path, two: Path) -> bool:
    try:
        return os.path.samefile(one, two)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(two)
