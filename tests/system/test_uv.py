"""A real uv installs the ranges of the README in its own environment, and `backup.sh` makes one with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from small_app import BACKEND, SmallApp, clean_environment

ROOT = BACKEND.parent
pytestmark = pytest.mark.xdist_group("uv")  # so that uv is fetched once
UV = "uv==0.13.9"
NOT_CLONED = shutil.ignore_patterns("data", "uploads", "__pycache__", "*.egg-info")


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    """Return what the command printed; it must succeed."""
    done = subprocess.run(command, cwd=cwd, env=clean_environment() | more, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables that find uv and the index that pip knows; skip or fail if there is no index."""
    home = tmp_path_factory.mktemp("uv")
    venv.create(home / "venv", with_pip=False)
    command = [sys.executable, "-m", "pip", "--python", str(home / "venv" / "bin" / "python"), "install", "--quiet", UV]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        stop = pytest.fail if os.environ.get("BACKUP_TESTS_REQUIRE_ALL") == "1" else pytest.skip
        stop(f"needs an index of packages: {UV} could not be installed:\n{done.stderr[-500:]}")
    found = {"PATH": f"{home / 'venv' / 'bin'}:/usr/bin:/bin", "UV_CACHE_DIR": str(home / "cache")}
    for ours, pips in (("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), ("SSL_CERT_FILE", "PIP_CERT")):
        if pips in os.environ:
            found[ours] = os.environ[pips]
    yield found
    shutil.rmtree(home)


def ranges() -> str:
    """Return the packages that a person is told to add to the requirements."""
    found = re.search(r"```text\n(SQLAlchemy.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_ranges_are_installed_and_the_toolkit_works_on_them(
    settings: dict[str, str], app: SmallApp, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text(ranges())
    run("uv", "venv", "--python", ">=3.11", "home", cwd=tmp_path, **settings)
    run("uv", "pip", "install", "--python", "home/bin/python", "-r", "requirements.txt", cwd=tmp_path, **settings)
    python = tmp_path / "home" / "bin" / "python"
    run("uv", "pip", "check", "--python", python, cwd=tmp_path, **settings)
    tool = (python, BACKEND / "backup_restore.py")
    where = {"BACKUP_APP_DIR": str(app.folder)}
    run(*tool, "doctor", cwd=app.folder, **where)
    before = app.contents()
    run(*tool, "backup", "good", cwd=app.folder, **where)
    app.execute("DELETE FROM documents")
    run(*tool, "verify", "good", "--test-restore", cwd=app.folder, **where)
    run(*tool, "restore", "good", "--yes", cwd=app.folder, **where)
    assert app.contents() == before


def test_backup_sh_makes_its_environment_with_it(settings: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(BACKEND, tmp_path / "backend", ignore=NOT_CLONED)
    shutil.copy(ROOT / "backup.sh", tmp_path)
    told = run(tmp_path / "backup.sh", "config", "--json", cwd=tmp_path, BACKUP_RUNNER="local", **settings)
    assert json.loads(told)["timezone"]["value"] == "UTC"
    (made,) = (tmp_path / ".backup-venv").glob("made.*/venv/pyvenv.cfg")
    assert "\nuv = " in made.read_text()
