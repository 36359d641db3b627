"""Data folders laid out as by Open WebUI and Rails 8 come back whole from a backup made while the app writes."""

from __future__ import annotations

import contextlib
import select
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.settings import load_settings
from backupkit.model.backup import BackupRequest
from backupkit.restore.restore import plan_restore, restore_backup

# Commits each number to all databases in turn, every two milliseconds.
WRITE = """
import select, sqlite3, sys
lives = [sqlite3.connect(one, timeout=60, isolation_level=None) for one in sys.argv[1:]]
number = 0
while not select.select([sys.stdin], [], [], 0.002)[0]:
    number += 1
    for live in lives:
        live.execute("INSERT INTO entries (value) VALUES (?)", (number,))
    if number == 20:
        print("writing", flush=True)
"""


def make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, value INTEGER)")


def last(path: Path) -> int:
    """Return the last number in the database; assert that it is sound and has no gap."""
    with contextlib.closing(sqlite3.connect(path)) as live:
        assert live.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        values = [value for (value,) in live.execute("SELECT value FROM entries ORDER BY id")]
    assert values == list(range(1, len(values) + 1))
    return len(values)


@contextlib.contextmanager
def writing(*databases: Path) -> Iterator[None]:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE, *map(str, databases)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin and child.stdout
        assert select.select([child.stdout], [], [], 60)[0]
        try:
            yield
        finally:
            child.stdin.close()
    assert child.returncode == 0


OPEN_WEBUI = 'database = "data/webui.db"\nuploads = "data"\n'
RAILS = """
database = "storage/production.sqlite3"
uploads = "storage"
[databases.cache]
path = "storage/production_cache.sqlite3"
optional = true
[databases.queue]
path = "storage/production_queue.sqlite3"
[databases.cable]
path = "storage/production_cable.sqlite3"
"""


@pytest.mark.parametrize(
    ("settings_file", "databases", "upload"),
    [
        (OPEN_WEBUI, ("data/webui.db", "data/vector_db/chroma.sqlite3"), "data/uploads/a.pdf"),
        (
            RAILS,
            tuple(f"storage/production{end}.sqlite3" for end in ("", "_cache", "_queue", "_cable")),
            "storage/xy/zz/xyzzy",
        ),
    ],
    ids=["open-webui", "rails-8"],
)
def test_a_real_layout_comes_back_whole_while_the_app_writes(
    tmp_path: Path, settings_file: str, databases: tuple[str, ...], upload: str
) -> None:
    (tmp_path / "backups").mkdir()
    (tmp_path / "backup.toml").write_text(settings_file)
    lives = [tmp_path / one for one in databases]
    for live in lives:
        make(live)
    (tmp_path / upload).parent.mkdir(parents=True)
    (tmp_path / upload).write_bytes(b"an upload")
    settings = load_settings(tmp_path)
    with writing(*lives):
        made = create_backup(settings, BackupRequest("good"))
        assert made.warnings == ()
    (tmp_path / upload).write_bytes(b"spoiled")
    before = [last(live) for live in lives]
    copies = [made.backup.path / _sealed(one) for one in databases]
    wanted = [last(copy) for copy in copies]
    assert all(0 < number <= now for number, now in zip(wanted, before, strict=True))
    if "cache" in settings.databases:  # the copies differ by what was written while the snapshots began
        gap = made.backup.metadata.databases_gap_ms if made.backup.metadata else None
        assert gap and max(wanted) - min(wanted) <= 1 + len(wanted) + gap
    with contextlib.ExitStack() as opened:
        held = [opened.enter_context(contextlib.closing(sqlite3.connect(live))) for live in lives]
        counts = [one.execute("SELECT count(*) FROM entries").fetchone()[0] for one in held]
        assert counts == before
        restore_backup(settings, plan_restore(settings, "good"))
        assert [one.execute("SELECT count(*) FROM entries").fetchone()[0] for one in held] == wanted
    assert [last(live) for live in lives] == wanted
    assert (tmp_path / upload).read_bytes() == b"an upload"


def _sealed(path: str) -> str:
    """Return where a database is in the backup: under its name, or as a file of the tree."""
    inside = path.removeprefix("data/")
    return f"uploads/{inside}" if "/" in inside and path.startswith("data/") else Path(path).name
