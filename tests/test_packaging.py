"""The toolkit as a package: what is in the wheel, that it works where it is installed, and that the pins are whole."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from small_app import BACKEND, clean_environment

ROOT = BACKEND.parent
SCRIPTS = ["backup.sh", "backend/entrypoint.sh", "tests/run", "benchmarks/run", ".ci/run"]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a copy of the sources, for a build leaves things behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, source)
    shutil.copytree(BACKEND, source / "backend", ignore=shutil.ignore_patterns("data", "uploads", "__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", source, cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; what it depends on is lent by ours, so that no network is needed."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def test_the_wheel_holds_the_toolkit_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    ours = {str(path.relative_to(BACKEND)) for path in (BACKEND / "backupkit").rglob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == ours | {"backup_restore.py", "backupkit/py.typed"}


def test_the_installed_command_runs(installed: Path) -> None:
    for command in ("backup", "restore", "dump"):
        assert command in run(installed / "bin" / "backup-restore", "--help", cwd=installed)


def test_the_installed_library_is_the_wheels_own_and_its_modules_import(installed: Path) -> None:
    where = run(installed / "bin" / "python", "-c", "import backupkit; print(backupkit.__file__)", cwd=installed)
    assert Path(where.strip()).is_relative_to(installed)


# The pins.


def pins() -> dict[str, str]:
    lines = (BACKEND / "requirements.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def needed(names: set[str]) -> set[str]:
    """These packages and all they need here, as the installed packages say it."""
    todo, found = set(names), set[str]()
    while todo:
        name = todo.pop()
        found.add(name)
        wanted = (Requirement(line) for line in requires(name) or [])
        todo |= {canonicalize_name(one.name) for one in wanted if not one.marker or one.marker.evaluate()} - found
    return found


def dependencies() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def test_every_dependency_is_pinned_to_a_version_in_its_range() -> None:
    versions = pins()
    for one in dependencies():
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), one


def test_the_pins_are_all_that_the_dependencies_need_and_no_more() -> None:
    assert set(pins()) == needed({canonicalize_name(one.name) for one in dependencies()})


def imported(file: Path) -> set[str]:
    """The top-level names this file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}}


def test_the_toolkit_imports_nothing_but_its_dependencies() -> None:
    files = [BACKEND / "backup_restore.py", *(BACKEND / "backupkit").rglob("*.py")]
    names = set[str]().union(*map(imported, files)) - set(sys.stdlib_module_names)
    assert names <= {one.name.lower().replace("-", "_") for one in dependencies()} | {"pydantic", "backupkit"}


# The scripts.


@pytest.mark.parametrize("script", ["backup.sh", "tests/run", "benchmarks/run", ".ci/run"])
def test_every_script_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.needs("shellcheck")
def test_every_script_passes_shellcheck() -> None:
    run("shellcheck", *SCRIPTS, cwd=ROOT)
