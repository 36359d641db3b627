"""A restore gets its turn beside a process that writes as fast as it can, in either journal mode."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from refusals import run_here
from small_app import SmallApp

# Commits one row after the other, or in transactions of 50 ms that free the lock only for an instant in between.
WRITE = """
import sqlite3, sys, time
live = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
print("writing", flush=True)
while True:
    if sys.argv[2] == "back to back":
        live.execute("BEGIN IMMEDIATE")
        live.execute("INSERT INTO filler VALUES ('written')")
        time.sleep(0.05)
        live.execute("COMMIT")
    else:
        live.execute("INSERT INTO filler VALUES ('written')")
"""


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("pace", ["at full speed", "back to back"])
def test_a_restore_gets_its_turn_beside_a_writer_that_never_rests(app: SmallApp, mode: str, pace: str) -> None:
    app.execute(f"PRAGMA journal_mode={mode}")
    app.execute("CREATE TABLE filler (content BLOB)")
    app.execute("INSERT INTO filler VALUES (randomblob(2000000))")
    create_backup(app.settings, BackupRequest("good"))
    command = [sys.executable, "-c", WRITE, app.database, pace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "writing\n"
        try:
            for _ in range(3):
                run_here(app, "restore", "good", "--force", env={"BACKUP_BUSY_TIMEOUT": "15"}, check=0)
            assert writer.poll() is None
        finally:
            writer.send_signal(signal.SIGKILL)
