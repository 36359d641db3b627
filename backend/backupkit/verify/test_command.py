"""The user's own command, run against a restored copy: that it opens is one thing, that the app can use it another.

It is told of the copy in every usual way, so that an app that reads its settings from the environment does not take
the live database.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from backupkit.config.secrets import scrubbed
from backupkit.config.settings import Settings
from backupkit.fs import process
from backupkit.migrations import app_process
from backupkit.model.errors import BackupError
from backupkit.model.names import printable


class NotProven(BackupError):
    """The backup was restored into a scratch folder, and the result does not stand the test."""


def run(settings: Settings, scratch: Settings, log: Path) -> None:
    """The test command ended with 0 in time, or `NotProven` with its last line. Nothing of it goes on.

    It runs in the app's folder, with the places of `scratch`; what it says goes into `log`.
    """
    command, timeout = settings.test_command, settings.test_timeout
    named = repr(scrubbed(command, settings.secrets))
    with app_process.target(settings, scratch.database) as target, open(log, "wb") as said:
        child = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=settings.app_dir,
            env=_environment(scratch, target),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise NotProven(f"{named} did not end within {timeout:g} s.", hint="Set BACKUP_TEST_TIMEOUT.") from error
        finally:
            process.end_group(child)
    if code:
        last = scrubbed(_last_line(log), settings.secrets)  # it is kept with the backup, and sent to whoever is told
        raise NotProven(f"{named} ended with {code} on the restored copy: {last}", hint="Try it by hand.")


def _environment(scratch: Settings, target: app_process.Target) -> dict[str, str]:
    return {
        **os.environ,
        **target.environment(),
        "BACKUP_TEST_DATABASE": str(scratch.database),
        "BACKUP_TEST_UPLOADS": str(scratch.uploads or ""),
        "BACKUP_UPLOADS": str(scratch.uploads or ""),
        "BACKUP_DIR": str(scratch.dir),
    }


def _last_line(log: Path) -> str:
    with open(log, "rb") as said:
        said.seek(max(0, os.fstat(said.fileno()).st_size - 4096))
        lines = said.read().decode(errors="replace").split("\n")
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing"))
