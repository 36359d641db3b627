"""The scheduler takes points by itself, also after it was killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from backupkit.backup.create import create_backup
from backupkit.cli.daemon import Daemon
from backupkit.config.secrets import SecretUrl
from backupkit.model.backup import BackupRequest
from backupkit.repository import history
from backupkit.rewind import moments
from disk_images import until_unmounted
from listener import listening_service
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


def test_a_full_disk_is_told_with_what_to_do(app: SmallApp, capsys: pytest.CaptureFixture[str]) -> None:
    with until_unmounted("tmpfs", ["mount", "-t", "tmpfs", "-o", "mode=0755,size=8m", "none", app.backups]):
        create_backup(app.settings, BackupRequest())
        app.write_upload("large", os.urandom(12_000_000))
        settings = app.settings.replaced(rewind="7d")
        Daemon(settings, lambda: settings)._look_for_changes()
    said = capsys.readouterr().err
    assert "No point of rewind was taken: The disk is full" in said
    assert "Next: Make room there:" in said and "list` shows the backups and their sizes" in said


def test_that_no_point_can_be_taken_is_told_once_and_once_that_it_is_over(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    create_backup(app.settings, BackupRequest())
    with listening_service() as service:
        told = {"notify_urls": (SecretUrl(service.notify()),), "notify_on": ("failure", "success")}
        settings = app.settings.replaced(rewind="7d", **told)
        for is_anew in (False, True):  # also if the scheduler restarts meanwhile
            daemon = Daemon(settings, lambda: settings)
            away = app.database.rename(app.folder / "away")
            for _ in range(2):
                daemon._next_look = 0
                daemon._look_for_changes()
            away.rename(app.database)
            daemon = Daemon(settings, lambda: settings) if is_anew else daemon
            for _ in range(2):
                daemon._next_look = 0
                daemon._look_for_changes()
    ends = [one.outcome for one in history.read(app.backups).operations if one.command == "rewind"]
    assert ends == ["success", "failure"] * 2  # newest first
    assert len(service.messages) == 4
