"""Backup and restore make no needless and no repeated system call per upload; with many files each call costs time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small_app import COMMAND, SmallApp, clean_environment

MANY = 60


@pytest.mark.needs("strace")
def test_of_each_upload_nothing_is_asked_in_vain_or_twice(app: SmallApp, tmp_path: Path) -> None:
    for number in range(MANY):
        app.write_upload(f"many/{number % 4}/{number}.bin", f"{number} ".encode() * (number + 1))
    before = app.contents()

    made = calls(app, tmp_path / "trace", "backup", "good")
    named = [call for call in made if ".bin" in call]
    assert len([call for call in named if call.startswith("openat")]) == 2 * MANY, "a file and its copy, opened once"
    assert len([call for call in named if "FICLONE" in call and "= -1" in call]) <= 1

    shutil.rmtree(app.uploads)
    app.uploads.mkdir()
    made = calls(app, tmp_path / "trace", "restore", "good", "--yes")
    staged = [call for call in made if re.search(r"^openat\(\d+<.*\.backupkit-staging/uploads.*O_CREAT", call)]
    files = [path for path in app.uploads.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) <= len(staged) <= len(files) + 2, "a staged file is opened once"
    assert len([call for call in made if "FICLONE" in call and "= -1" in call]) <= 2, "by the backup's and by the app's"
    assert app.contents() == before


@pytest.mark.needs("strace")
def test_after_small_damage_each_upload_is_looked_at_six_times(app: SmallApp, tmp_path: Path) -> None:
    for number in range(MANY):
        app.write_upload(f"many/{number}.bin", b"content")
    time.sleep(2.1)  # until the change of a file shows in its times
    app.command("backup", "good", check=0)
    (app.uploads / "many" / "7.bin").unlink()
    made = calls(app, tmp_path / "trace", "restore", "good", "--yes", of="newfstatat")
    # Verify, the space for the safety copy, and twice each, live and sealed: in the plan and in the safety copy.
    assert len([call for call in made if ".bin" in call]) <= 6 * MANY + 10


def calls(app: SmallApp, trace: Path, *argv: str, of: str = "openat,ioctl") -> list[str]:
    """Return these system calls of the command, without the process number."""
    traced = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-e", f"trace={of}", "-e", "signal=none"]
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder)}
    command = [*traced, "-o", str(trace), sys.executable, str(COMMAND), *argv]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return [line.partition(" ")[2].lstrip() for line in trace.read_text(errors="replace").splitlines()]
