"""An app that was written to in its container goes back to several moments, each compared with a true copy.

This takes an hour, so only a thorough run does it. Usual runs test the scheduler as a process (tests/rewind).
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from engine import wait_until
from project import Project

import chance
from backupkit.rewind import chain
from backupkit.scheduling import scheduler_lock
from rewind.a_day import Uploads, comparable
from small_app import tree

MOMENTS, STRETCH, PACE = 5, 570, 0.2  # seconds
ELSEWHERE = """
import sqlite3
live = sqlite3.connect("/app/data/pats.db", timeout=30, isolation_level=None)
live.execute("DELETE FROM applications WHERE id % 3 = 0 AND id > 10")
live.execute("VACUUM")
live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
"""


def live(project: Project, scratch: Path) -> tuple[bytes, Uploads]:
    """Return the live database, copied by SQLite, and the uploads."""
    scratch.unlink(missing_ok=True)
    source = sqlite3.connect(f"file:{project.database}?mode=ro", uri=True, timeout=30)
    with contextlib.closing(source), contextlib.closing(sqlite3.connect(scratch)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE").fetchone()
    return comparable(scratch), tree(project.uploads)


def points(project: Project) -> int:
    return sum(len(chain.read(project.backups, name)[0]) for name in chain.chains(project.backups))


def next_look(project: Project) -> datetime:
    """Wait until the scheduler ends its next look; return when that was."""
    since = datetime.now(UTC)
    ended = wait_until(lambda: (scheduler_lock.last_look(project.backups) or since) > since, 360)
    assert ended, project.logs(*project.containers("False", "scheduler"))
    found = scheduler_lock.last_look(project.backups)
    assert found
    return found


@pytest.mark.skipif(not chance.is_thorough(), reason="takes an hour: --thorough")
def test_a_container_that_was_written_to_goes_back_to_any_moment(project: Project, tmp_path: Path) -> None:
    project.scheduler.pop("profiles")
    project.scheduler |= {"environment": {"BACKUP_TEST_SCHEDULE": ""}}
    project.override(healthcheck={"interval": "1s"})
    project.compose("up", "--detach", "--no-build", "backend")
    assert wait_until(project.answers)
    project.add_document(project.add_application("First"), "the first")
    project.backup_sh("backup", "base")
    project.compose("up", "--detach", "--no-build", "scheduler")
    kept: dict[datetime, tuple[bytes, Uploads]] = {}
    for number in range(MOMENTS):
        with project.writing(PACE) as answers:
            time.sleep(STRETCH)
        assert answers["200"] > 10 and answers.keys() == {"200"}
        if number == 1:
            project.inside("python", "-c", ELSEWHERE)
            project.compose("restart", "backend")
            assert wait_until(project.answers)
        next_look(project)  # this look may have begun before the writer ended
        at = next_look(project)
        next_look(project)  # one more look, so that there is no gap at that time
        kept[at] = live(project, tmp_path / "true.db")
    with project.writing(PACE):
        next_look(project)
    assert points(project) >= 40
    project.compose("stop", "scheduler")
    for at, true in reversed(kept.items()):
        project.backup_sh("restore", "--at", at.isoformat(), "--force")
        assert live(project, tmp_path / "found.db") == true, at
    project.backup_sh("verify", "--all")
