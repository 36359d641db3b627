"""The scheduler takes points by itself, and goes on when it is killed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from backupkit.rewind import moments
from refusals import run_here
from rewind.a_day import true_copy
from small_app import COMMAND, SmallApp, clean_environment, tree

ON = {"BACKUP_REWIND": "7d", "BACKUP_REWIND_INTERVAL": "5", "BACKUP_TEST_SCHEDULE": ""}


@contextlib.contextmanager
def scheduler(app: SmallApp) -> Iterator[subprocess.Popen[str]]:
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), **ON}
    command = [sys.executable, str(COMMAND), "schedule"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def wait_for_points(app: SmallApp, number: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(app.backups.glob(".rewind/*/*.point"))) < number:
        assert time.monotonic() < deadline, run_here(app, "rewind", env=ON).out
        time.sleep(0.1)


def test_points_are_taken_by_the_scheduler_also_after_it_was_killed(app: SmallApp) -> None:
    run_here(app, "backup", "base", check=0)
    with scheduler(app):
        wait_for_points(app, 1)
        app.add_rows(2)
        app.write_upload("new", b"new")
        copy = true_copy(app), tree(app.uploads)
        wait_for_points(app, 2)
    with scheduler(app):
        app.add_rows(2)
        wait_for_points(app, 3)
    found = moments.timeline(app.settings)
    before = found.moments[-2]
    assert before.point and not moments.check(app.settings)
    with moments.built(app.settings, before) as backup:
        assert tree(backup.path / "uploads") == copy[1]
    run_here(app, "restore", "--at", before.at.isoformat(), "--yes", env=ON, check=0)
    assert (true_copy(app), tree(app.uploads)) == copy
