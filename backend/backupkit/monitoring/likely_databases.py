"""Find files that may be the app's database, if the configured one does not exist."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.sqlite import database

DATABASE_SUFFIXES = (".db", ".db3", ".sqlite", ".sqlite3")
_DEPTH, _MOST_FILES = 3, 20_000
_NOT_THE_APPS = ("node_modules", "site-packages", "__pycache__", "venv", "env")


def likely_databases(settings: Settings) -> list[Path]:
    """Return SQLite files in the app's folder, and in its parent if that has a `backup.sh`; last changed first."""
    project = settings.app_dir.parent
    roots = [settings.app_dir, *([project] if (project / "backup.sh").exists() else [])]
    files = {file for root in roots for file in islice(_files(root, settings), _MOST_FILES) if _is_database(file)}
    return sorted(files, key=_changed, reverse=True)


def _files(root: Path, settings: Settings) -> Iterator[Path]:
    left_out = {settings.dir, settings.uploads}
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        is_deep = len(here.relative_to(root).parts) >= _DEPTH
        folders[:] = [] if is_deep else [one for one in folders if _is_the_apps(one) and here / one not in left_out]
        yield from (here / name for name in names if name.endswith(DATABASE_SUFFIXES) and not name.startswith("."))


def _is_the_apps(folder: str) -> bool:
    return not folder.startswith(".") and folder not in _NOT_THE_APPS


def _is_database(file: Path) -> bool:
    return os.path.isfile(file) and database.is_database(file)  # opening a fifo would block


def _changed(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime
    return 0
