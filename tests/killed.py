"""Kill or interrupt a restore at one of the toolkit's functions, for tests that look at what is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import warm
from small_app import SmallApp, clean_environment

SCRIPT = """
import importlib, os, sys
from pathlib import Path
module, name, when, counts = sys.argv[1:5]
signals = dict(map(int, one.split(":")) for one in counts.split(","))
place = importlib.import_module(module)
*above, name = name.split(".")
for one in above:
    place = getattr(place, one)
real, calls = getattr(place, name), 0
def dying(*arguments, **named):
    global calls
    calls += 1
    if calls not in signals:
        return real(*arguments, **named)
    done = real(*arguments, **named) if when == "after" else None
    os.kill(os.getpid(), signals[calls])
    return done if when == "after" else real(*arguments, **named)
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
    done = interrupt(app, point, {count: signal.SIGKILL}, *command, **environment)
    assert done.returncode == -signal.SIGKILL, done.stderr


def interrupt(
    app: SmallApp, point: Point, signals: Mapping[int, signal.Signals], *command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command on the app, and send it each of the signals at that call of the function."""
    told = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), **environment}
    counts = ",".join(f"{count}:{int(one)}" for count, one in signals.items())
    return warm.run([*point, counts, *command], told, timeout=60, program=SCRIPT)


def move(source: Path, target: Path) -> None:
    """Move with `mv`, as a person does; it can cross file systems."""
    subprocess.run(["mv", os.fspath(source), os.fspath(target)], check=True)
