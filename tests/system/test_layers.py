"""Imports point one way, and packages take from another feature only what it shows; broken rules are found.

`pyproject.toml` sets the direction, and `PUBLIC` in a feature's `__init__.py` what it shows.
"""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from small_app import BACKEND

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"


def lint(backend: Path) -> tuple[int, str]:
    """Return import-linter's exit code and output for the packages below this folder, by this repository's rules."""
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


# Modules that a feature does not show

FEATURES = {
    file.parent.name: importlib.import_module(f"backupkit.{file.parent.name}").PUBLIC
    for file in (BACKEND / "backupkit").glob("*/__init__.py")
    if "PUBLIC =" in file.read_text()
}


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports anywhere in it; for `from x import y`, `x.y`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{one.name}" for one in node.names)


def reaching_in(package: Path) -> list[str]:
    """Return the imports by which a package takes what another feature does not show, or a name with an underscore."""
    found = []
    for file in sorted(package.rglob("*.py")):
        own = file.relative_to(package).parts[0]
        for name in imported(file):
            feature, *inside = name.removeprefix("backupkit.").split(".")
            if (
                name.startswith("backupkit.")
                and feature in FEATURES
                and feature != own
                and not is_shown(feature, inside)
            ):
                found.append(f"{file.relative_to(package)}: {name}")
    return found


def is_shown(feature: str, inside: list[str]) -> bool:
    return not inside or (inside[0] in FEATURES[feature] and not inside[-1].startswith("_"))


def test_every_feature_says_what_others_may_import() -> None:
    layers = (BACKEND.parent / "pyproject.toml").read_text()
    assert all(name in layers for name in FEATURES) and len(FEATURES) == 10
    for name, public in FEATURES.items():
        assert [one for one in public if not list((BACKEND / "backupkit" / name).glob(f"{one}*"))] == []


def test_no_package_imports_what_is_another_feature_s_own() -> None:
    assert reaching_in(BACKEND / "backupkit") == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("retention/rules.py", "from backupkit.restore import keeping"),
        ("monitoring/status.py", "def later() -> None:\n    from backupkit.remotes.restic_program import RECENT"),
        ("cli/output.py", "import backupkit.migrations.tree"),
        ("remotes/push.py", "from backupkit.retention.rules import _secret"),
    ],
)
def test_an_import_of_what_is_another_feature_s_own_is_found(tmp_path: Path, module: str, statement: str) -> None:
    package = shutil.copytree(BACKEND / "backupkit", tmp_path / "backupkit")
    with (package / module).open("a") as code:
        code.write(f"\n\n{statement}\n")
    assert [one.partition(":")[0] for one in reaching_in(package)] == [module]
