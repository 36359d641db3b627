"""systemd and cron accept the files in deploy/, and the commands in these files exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import backup_restore
from small_app import BACKEND

DEPLOY = BACKEND.parent / "deploy"
UNITS = ["backup.service", "backup.timer", "scheduler.service"]
CALLS = re.compile(r"(?:backup\.sh|backup_restore\.py) ([a-z-]+)((?: --[a-z-]+)*)")


def at(folder: Path, name: str) -> Path:
    """Copy the file, changed as a person would for a project in that folder."""
    copy = folder / name
    copy.write_text((DEPLOY / name).read_text().replace("/srv/pats", str(folder)).replace("User=pats", "User=root"))
    return copy


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "backup.sh").write_text("#!/bin/sh\n")
    (tmp_path / "backup.sh").chmod(0o755)
    for name in UNITS:
        at(tmp_path, name)
    return tmp_path


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_to_say_about_a_unit(project: Path, name: str) -> None:
    done = subprocess.run(["systemd-analyze", "verify", project / name], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if name in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.needs("systemd-analyze")
def test_systemd_does_see_a_slip(project: Path) -> None:
    (project / "backup.timer").write_text((project / "backup.timer").read_text().replace("02:00:00", "26:00:00"))
    done = subprocess.run(
        ["systemd-analyze", "verify", project / "backup.timer"], capture_output=True, text=True, check=False
    )
    assert "backup.timer" in done.stderr


@pytest.mark.needs("crontab")
def test_cron_takes_the_crontab(tmp_path: Path) -> None:
    good, bad = at(tmp_path, "crontab"), tmp_path / "bad"
    bad.write_text(good.read_text().replace("15 * * * *", "75 * * * *"))
    assert [subprocess.run(["crontab", "-n", path], check=False).returncode for path in (good, bad)] == [0, 1]


def test_no_path_inside_the_wrapper_s_environment_is_typed() -> None:
    """Its name changes with requirements.txt: only backup.sh knows it."""
    root = BACKEND.parent
    files = [*DEPLOY.iterdir(), *root.glob("*.md"), *(root / "docs").rglob("*.md")]
    assert not [str(path) for path in files if re.search(r"\.backup-venv/\w", path.read_text())]


def test_cron_s_jobs_write_their_log_where_the_owner_of_the_project_may() -> None:
    """A shell that cannot open the log starts nothing, and cron cannot tell anybody."""
    documents = (BACKEND.parent / "docs").rglob("*.md")
    logs = [log for path in (DEPLOY / "crontab", *documents) for log in re.findall(r">>(/\S+)", path.read_text())]
    assert len(logs) == 5
    assert all(log.startswith("/srv/pats/") for log in logs)


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_what_is_called_is_a_command_with_these_options(path: Path) -> None:
    from typer.main import get_command

    commands = get_command(backup_restore.app).commands  # type: ignore[attr-defined]
    calls = CALLS.findall(path.read_text())
    assert calls or path.suffix == ".timer"
    for command, options in calls:
        known = {option for one in commands[command].params for option in one.opts}
        assert set(options.split()) <= known
