"""The wheel holds the toolkit, it works where it is installed, and its dependencies are pinned completely."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import chance
from examples import examples
from other_apps import INI, OtherApp
from small_app import BACKEND, SmallApp, clean_environment

ROOT = BACKEND.parent
SCRIPTS = [
    "backup.sh",
    "backend/entrypoint.sh",
    "backend/with_scheduler.sh",
    "backend/newer_sqlite.sh",
    "tests/run",
    "benchmarks/run",
    ".ci/run",
]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a copy of the sources because a build leaves files behind."""
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
    """A fresh environment with the wheel and only its dependencies, linked from ours so that no network is needed."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    for name in needed({canonicalize_name(one.name) for one in dependencies()}):
        lend(name, packages)
    return home


def lend(name: str, packages: Path) -> None:
    """Link that package of ours into another environment."""
    lender = distribution(name)
    for top in {file.parts[0] for file in lender.files or []} - {"..", "__pycache__"}:
        if not (packages / top).exists():
            (packages / top).symlink_to(str(lender.locate_file(top)))


def test_the_wheel_holds_the_toolkit_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    pages = (*(BACKEND / "backupkit/web/templates").iterdir(), *(BACKEND / "backupkit/web/static").iterdir())
    ours = {str(path.relative_to(BACKEND)) for path in (*(BACKEND / "backupkit").rglob("*.py"), *pages)}
    assert {name for name in names if ".dist-info/" not in name} == ours | {"backup_restore.py", "backupkit/py.typed"}


def test_the_installed_command_runs(installed: Path) -> None:
    for command in ("backup", "restore", "dump"):
        assert command in run(installed / "bin" / "backup-restore", "--help", cwd=installed)


def test_the_installed_library_is_the_wheels_own_and_its_modules_import(installed: Path) -> None:
    where = run(installed / "bin" / "python", "-c", "import backupkit; print(backupkit.__file__)", cwd=installed)
    assert Path(where.strip()).is_relative_to(installed)


def test_the_base_is_all_there_is_in_that_environment(installed: Path) -> None:
    code = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    names = ["pytest", "mypy", "packaging", "typer", "backupkit"]
    assert run(installed / "bin" / "python", "-c", code, *names, cwd=installed) == "['typer', 'backupkit']\n"


def test_every_module_of_the_toolkit_imports_with_the_base_alone(installed: Path) -> None:
    files = [path.relative_to(BACKEND).with_suffix("") for path in (BACKEND / "backupkit").rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in files if not path.stem.endswith("writer")]
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    run(installed / "bin" / "python", "-c", code, *names, cwd=installed)


def test_the_installed_command_and_library_work_with_the_base_alone(installed: Path, app: SmallApp) -> None:
    code = "import backupkit; print(backupkit.create_backup_now())"
    made = Path(run(installed / "bin" / "python", "-c", code, cwd=app.folder).strip())
    assert made.parent == app.backups
    assert made.name in run(installed / "bin" / "backup-restore", "list", cwd=app.folder)
    before = app.contents()
    app.execute("DELETE FROM documents")
    said = run(installed / "bin" / "backup-restore", "restore", made.name, "--force", cwd=app.folder)
    assert "backup-restore undo" in said and "backup_restore.py" not in said and "docker" not in said
    assert app.contents() == before


def test_installed_with_pip_and_called_by_cron_a_migration_and_the_printed_commands_work(
    installed: Path, tmp_path: Path
) -> None:
    """The commands run at `/` with cron's small environment, and the configuration is in a folder of its own."""
    other = OtherApp.usual(tmp_path / "other", ini=INI.replace("= alembic", "= conf/alembic"))
    (other.folder / "conf").mkdir()
    for name in ("alembic", "alembic.ini"):
        (other.folder / name).rename(other.folder / "conf" / name)
    settings = {"database": "data/app.db", "alembic_ini": "conf/alembic.ini"}
    other.write("backup.toml", "\n".join(f'{name} = "{value}"' for name, value in settings.items()))

    def typed(*command: str | Path, **more: str) -> str:
        cron = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", **more}
        done = subprocess.run(command, cwd="/", env=cron, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tool, where = installed / "bin" / "backup-restore", {"BACKUP_APP_DIR": str(other.folder)}
    typed(tool, "backup", "old", **where)
    typed(tool, "migrate", **where)
    assert other.revisions() == {"b2"}
    lines = typed(tool, "restore", "old", "--yes", **where).splitlines()
    assert other.revisions() == {"a1"} and "    backup-restore migrate" in lines
    printed = [line.strip() for line in lines if line.startswith("    cd ")]
    assert ["stamp" in printed[0], "upgrade" in printed[1]] == [True, True]
    for line in printed:
        typed("sh", "-c", line)
    assert other.revisions() == {"b2"}


@pytest.mark.slow
def test_the_installed_library_has_types_for_a_strict_checker(installed: Path, tmp_path: Path) -> None:
    wrong = "from backupkit import create_backup_now\nmade: int = create_backup_now('app.db', max_backups='many')\n"
    for number, example in enumerate([*examples(), wrong]):
        (tmp_path / f"example_{number}.py").write_text(example)
    # An example may leave out the annotations of its own functions.
    lenient = ["--allow-untyped-defs", "--allow-untyped-calls", "--allow-untyped-decorators"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *lenient, "--python-executable", installed / "bin" / "python", "."],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.partition(":")[0] for line in done.stdout.splitlines() if ": error:" in line]
    assert found == [f"example_{len(examples())}.py"] * 2, done.stdout


def test_every_extra_that_the_code_names_is_one_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("optional-dependencies", {})
    files = [BACKEND / "backup_restore.py", *(BACKEND / "backupkit").rglob("*.py")]
    calls = [node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    named = {ast.literal_eval(one.args[0]) for one in calls if getattr(one.func, "id", "") == "from_extra"}
    assert named <= set(declared)


# The pins


def pins(file: Path = BACKEND / "requirements.txt") -> dict[str, str]:
    lines = [line.partition(" #")[0] for line in file.read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith(("#", "-r"))]
    return {canonicalize_name(name): version for name, version in pairs}


def needed(names: set[str]) -> set[str]:
    """Return these packages and all they need here, as the installed packages declare it."""
    todo, found = {Requirement(name) for name in names}, set[Requirement]()
    while todo:
        asked = todo.pop()
        found.add(asked)
        for one in map(Requirement, requires(asked.name) or []):
            if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in ("", *asked.extras)):
                todo |= {Requirement(f"{one.name}[{','.join(sorted(one.extras))}]")} - found
    return {canonicalize_name(one.name) for one in found}


def dependencies() -> list[Requirement]:
    """Return what every installation needs, and what the extras add."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]


def test_every_dependency_is_pinned_to_a_version_in_its_range() -> None:
    versions = pins()
    for one in dependencies():
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), one


def test_the_pins_are_all_that_the_dependencies_need_and_no_more() -> None:
    assert set(pins()) == needed({canonicalize_name(one.name) for one in dependencies()})


MACHINES = [
    {"python_version": version, "python_full_version": f"{version}.1", "sys_platform": system, "platform_system": name}
    for version in ("3.11", "3.12", "3.13", "3.14")
    for system, name in (("linux", "Linux"), ("darwin", "Darwin"))
]
NOT_INSTALLED = {"playwright"}  # axe-playwright-python asks for it; of that package only a file is read


def asked_for(name: str) -> set[str]:
    """Return what this installed package asks for on any of the machines, without its extras."""
    asked = map(Requirement, requires(name) or [])
    return {
        canonicalize_name(one.name)
        for one in asked
        if not one.marker or any(one.marker.evaluate({**machine, "extra": ""}) for machine in MACHINES)
    }


def test_the_pins_of_the_tests_are_all_that_they_need_on_every_machine() -> None:
    """They are installed without a look at what they ask for."""
    found = pins() | pins(ROOT / "requirements-dev.txt")
    assert set[str]().union(*map(asked_for, found)) - set(found) == NOT_INSTALLED


def imported(file: Path) -> set[str]:
    """Return the top-level names that this file imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}}


def test_the_tests_import_nothing_but_what_is_pinned() -> None:
    files = [file for place in ("tests", "benchmarks", "docs") for file in (ROOT / place).rglob("*.py")]
    found = packages_distributions()
    used = {one for file in files for name in imported(file) for one in found.get(name, ())}
    pinned = pins() | pins(ROOT / "requirements-dev.txt")
    assert {canonicalize_name(one) for one in used} - set(pinned) - {"pats", "backupkit"} == set()


def test_the_toolkit_imports_nothing_but_its_dependencies() -> None:
    files = [BACKEND / "backup_restore.py", *(BACKEND / "backupkit").rglob("*.py")]
    names = set[str]().union(*map(imported, files)) - set(sys.stdlib_module_names)
    ours = {"backupkit", "demo"}
    assert names <= {one.name.lower().replace("-", "_") for one in dependencies()} | ours


# The scripts


@pytest.mark.parametrize("script", ["backup.sh", "tests/run", "benchmarks/run", ".ci/run"])
def test_every_script_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.needs("shellcheck")
def test_every_script_passes_shellcheck() -> None:
    run("shellcheck", *SCRIPTS, cwd=ROOT)


@pytest.mark.skipif(not chance.is_thorough(), reason="asks for the wheels of other machines: --thorough")
@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_pinned_package_has_a_wheel_for_alpine(version: str, processor: str, tmp_path: Path) -> None:
    options = ["--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--target", str(tmp_path)]
    options += [f"--platform=musllinux_1_{minor}_{processor}" for minor in (1, 2)]
    options += [
        "--implementation=cp",
        f"--python-version={version}",
        "--requirement",
        str(BACKEND / "requirements.txt"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stdout
