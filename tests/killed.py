"""Kill a restore at one of the toolkit's functions, for tests that look at what is left."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import warm
from small_app import SmallApp, clean_environment

SCRIPT = """
import importlib, os, sys
from pathlib import Path
module, name, when, count = sys.argv[1:5]
place = importlib.import_module(module)
*above, name = name.split(".")
for one in above:
    place = getattr(place, one)
real, calls = getattr(place, name), 0
def dying(*arguments, **named):
    global calls
    calls += 1
    if calls < int(count):
        return real(*arguments, **named)
    if when == "after":
        real(*arguments, **named)
    os.kill(os.getpid(), 9)
setattr(place, name, dying)
sys.argv = ["backup_restore.py", *sys.argv[5:]]
import backup_restore
backup_restore.main()
"""

BEFORE_THE_DATABASE = ("backupkit.restore.recovery", "replace_database", "before")
AFTER_THE_COMMIT = ("backupkit.restore.recovery", "replace_database", "after")
AMONG_THE_UPLOADS = ("backupkit.upload_files.apply", "_Applying.put", "after")
WHILE_STAGING = ("backupkit.restore.journal", "write", "before")

Point = tuple[str, str, str]


def kill(app: SmallApp, point: Point, *command: str, count: int = 1, **environment: str) -> None:
    """Run the command on the app, and kill it before or after that function is called for the `count`th time."""
    told = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), **environment}
    done = warm.run([*point, str(count), *command], told, timeout=60, program=SCRIPT)
    assert done.returncode == -signal.SIGKILL, done.stderr


def move(source: Path, target: Path) -> None:
    """Move with `mv`, as a person does; it can cross file systems."""
    subprocess.run(["mv", os.fspath(source), os.fspath(target)], check=True)
