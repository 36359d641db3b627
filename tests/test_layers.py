"""Imports point one way. The rules are in pyproject.toml; here they are kept, and shown to bite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from small_app import BACKEND

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"


def lint(backend: Path) -> tuple[int, str]:
    """Import-linter's verdict on the packages below this folder, under this repository's rules."""
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=BACKEND.parent,
        env={**os.environ, "PYTHONPATH": str(backend)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_import_points_the_right_way() -> None:
    code, said = lint(BACKEND)
    assert code == 0, said


@pytest.mark.parametrize(
    ("module", "statement", "broken"),
    [
        ("model/errors.py", "import backupkit.fs.disk", "Imports point down BROKEN"),
        ("repository/store.py", "import backupkit.backup.make", "Imports point down BROKEN"),
        ("verify/verify.py", "import backupkit.cli.console", "Imports point down BROKEN"),
        (
            "sqlite/database.py",
            "import backupkit.upload_files.walk",
            "SQLite and the uploads know nothing of each other BROKEN",
        ),
        ("fs/disk.py", "def later() -> None:\n    import rich", "Only what people touch speaks to the screen BROKEN"),
        ("backup/__init__.py", "import backup_restore", "The library does without its script"),
        ("stray.py", "", "Imports point down"),
    ],
)
def test_an_import_that_points_the_wrong_way_is_found(tmp_path: Path, module: str, statement: str, broken: str) -> None:
    package = shutil.copytree(BACKEND / "backupkit", tmp_path / "backupkit")
    with (package / module).open("a") as code:
        code.write(f"\n\n{statement}\n")
    exit_code, said = lint(tmp_path)
    assert exit_code == 1
    assert broken in said
