"""An environment with the real apps, and the migrations of two that are too large to install. pip makes it once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / ".venv-real"
PYTHON = FOLDER / "bin" / "python"
TREES = FOLDER / "trees"
PINS = (HERE / "requirements.txt", HERE / "wheels.txt")
# What is extracted from the wheels into `trees`: these folders with everything below them, and this file.
TAKEN = ("galaxy/model/migrations/", "open_webui/migrations/", "open_webui/alembic.ini")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "1", "--timeout", "20")


class NotToBeHad(Exception):
    """The packages cannot be installed here; the message is pip's own."""


def make() -> None:
    """Make the environment as the pins say, if it is not there; raise `NotToBeHad` without a package index."""
    with _alone():
        pins = "".join(file.read_text() for file in PINS)
        marker = FOLDER / "installed.txt"
        if marker.is_file() and marker.read_text() == pins:
            return
        shutil.rmtree(FOLDER, ignore_errors=True)
        with tempfile.TemporaryDirectory() as wheels:
            _fill(Path(wheels))
        marker.write_text(pins)


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process make the environment while others wait."""
    folder = os.open(HERE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _fill(wheels: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", FOLDER], check=True)
    only = ("--no-deps", "--only-binary", ":all:", "--python-version", "3.11")
    download = subprocess.Popen(
        [*PIP, "download", *only, "--dest", wheels, "-r", PINS[1]], stderr=subprocess.PIPE, text=True
    )
    install = subprocess.run(
        [*PIP, "--python", PYTHON, "install", "--no-deps", "-r", PINS[0]],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    said = download.communicate()[1]
    if install.returncode or download.returncode:
        lines = (install.stderr if install.returncode else said).strip().splitlines()
        raise NotToBeHad(lines[-1] if lines else "pip said nothing")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(TREES, [one for one in archive.namelist() if one.startswith(TAKEN)])


def plain_environment() -> dict[str, str]:
    """Return the environment without variables that would lead an app or the toolkit to other data."""
    leading = ("BACKUP_", "DATABASE_", "FLASK_", "DJANGO_", "MLFLOW_", "PYTHONPATH")
    known = {name: value for name, value in os.environ.items() if not name.startswith(leading)}
    return {**known, "MLFLOW_DISABLE_TELEMETRY": "true"}


def activated() -> dict[str, str]:
    """Return the environment of a person who works on such an app: its programs come first on the path."""
    known = plain_environment()
    return {**known, "PATH": os.pathsep.join((str(PYTHON.parent), known.get("PATH", os.defpath)))}
