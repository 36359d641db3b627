"""The user's own command, run against a restored copy: that it opens is one thing, that the app can use it another.

It is told of the copy in every usual way, so that an app that reads its settings from the environment does not take
the live database.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from backupkit.words.errors import BackupError
from backupkit.words.names import shown


class NotProven(BackupError):
    """The backup was restored into a scratch folder, and the result does not stand the test."""


def run(command: str, timeout: float, folder: Path, database: Path, uploads: Path, log: Path) -> None:
    """The command ended with 0 within `timeout` seconds, or `NotProven` with its last line. Nothing of it goes on.

    It runs in `folder`; what it says goes into `log`.
    """
    with open(log, "wb") as said:
        child = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=folder,
            env=_environment(database, uploads),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise NotProven(
                f"{command!r} did not end within {timeout:g} s.", hint="Set BACKUP_TEST_TIMEOUT."
            ) from error
        finally:
            _end(child)
    if code:
        raise NotProven(
            f"{command!r} ended with {code} on the restored copy: {_last_line(log)}", hint="Try it by hand."
        )


def _environment(database: Path, uploads: Path) -> dict[str, str]:
    return {
        **os.environ,
        "BACKUP_TEST_DATABASE": str(database),
        "BACKUP_TEST_UPLOADS": str(uploads),
        "BACKUP_DATABASE": str(database),
        "BACKUP_UPLOADS": str(uploads),
        "DATABASE_URL": f"sqlite:///{database}",
    }


def _end(child: subprocess.Popen[bytes]) -> None:
    """Neither it nor what it started is running, as far as that stayed in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_line(log: Path) -> str:
    with open(log, "rb") as said:
        said.seek(max(0, os.fstat(said.fileno()).st_size - 4096))
        lines = said.read().decode(errors="replace").split("\n")
    return shown(next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing"))
