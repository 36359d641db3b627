"""A small app whose points are taken, and checks of what they hold."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.rewind import moments
from backupkit.rewind.take import Rewinder
from backupkit.sqlite import pages
from small_app import SmallApp, tree

Uploads = dict[str, tuple[str, int, int, bytes]]
START = datetime(2026, 6, 15, 12, 0, 0, tzinfo=UTC)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


def true_copy(app: SmallApp) -> bytes:
    """Return the database as SQLite copies it, in the form that is compared."""
    file = app.folder / "true.db"
    with contextlib.closing(app.connect()) as live, contextlib.closing(sqlite3.connect(file)) as copied:
        live.backup(copied)
        copied.execute("PRAGMA journal_mode=DELETE").fetchone()
    found = comparable(file)
    file.unlink()
    return found


def comparable(file: Path) -> bytes:
    content = file.read_bytes()
    return pages.without_counters(content[:100]) + content[100:]


def rewinding(app: SmallApp) -> tuple[Rewinder, Clock]:
    """Back the app up; return the `Rewinder` that takes its points, and its clock."""
    clock = Clock()
    create_backup(app.settings, BackupRequest(), clock=clock)
    clock.forward(seconds=60)
    return Rewinder(app.settings.replaced(rewind="30d"), clock), clock


def assert_restores(app: SmallApp, at: datetime, copy: bytes, uploads: Uploads) -> None:
    settings = app.settings
    moment = moments.timeline(settings).before(at)
    assert moment and moment.point and moment.at == at
    with moments.built(settings, moment) as backup:
        assert comparable(backup.path / settings.database.name) == copy, moment.point.name
        assert tree(backup.path / "uploads") == uploads
