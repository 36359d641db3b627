"""Run the user's test command against a restored copy, to prove that the app can use it, not only that it opens.

The command gets the paths of the copy in every usual environment variable, so that an app that reads its settings from
there does not use the live database.
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
    """The backup was restored into a scratch folder, but the result failed the test."""


def run(settings: Settings, scratch: Settings, log: Path) -> None:
    """Run the test command. Raise `NotProven`, with its last line, if it exits with another code than 0 or too late.

    It runs in the app's folder with the paths of `scratch`; its output goes into `log`. All its processes are ended.
    """
    command, timeout = settings.test_command, settings.test_timeout
    named = repr(scrubbed(command, settings.secrets))
    with app_process.target(settings, scratch.database) as target, open(log, "wb") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=settings.app_dir,
            env=_environment(scratch, target),
            stdin=subprocess.DEVNULL,
            stdout=output,
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
        last = scrubbed(_last_line(log), settings.secrets)  # the line is stored in the record and sent in notifications
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
    with open(log, "rb") as output:
        output.seek(max(0, os.fstat(output.fileno()).st_size - 4096))
        lines = output.read().decode(errors="replace").split("\n")
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing"))
