"""How the app uses Alembic: its configuration, the folder in which its paths start, and the command that users type."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

# The environment that backup.sh makes for itself: users do not type the commands in it.
_PRIVATE_ENVIRONMENT = ".backup-venv"
_PYPROJECT = "pyproject.toml"


class AlembicSetup(Struct, frozen=True):
    """Alembic's configuration. `folder` is where its relative paths start, and where its commands are typed.

    `script_location` is set if the configuration names none. `runs` is the command that upgrades, if it is not
    Alembic's own; `types` is what a user types before `upgrade head`.
    """

    folder: Path
    ini: Path | None = None
    toml: Path | None = None
    script_location: str = ""
    runs: tuple[str, ...] = ()
    types: str = "alembic"

    @property
    def file(self) -> Path:
        """The file that messages name."""
        return self.ini or self.toml or self.folder


def find_alembic(
    app_dir: Path, alembic_ini: Path, python: str = "", command: str = "", x: tuple[str, ...] = ()
) -> AlembicSetup | None:
    """Return the app's setup, or None if it uses no Alembic. Read files only, and never fail over their content.

    If the default alembic.ini is missing, use `[tool.alembic]` in pyproject.toml, or the folder `migrations` of
    Flask-Migrate. `x` is what a user types with -x.
    """
    file = _configuration(app_dir, alembic_ini)
    if file is None:
        return None
    ini, toml = (None, file) if file.suffix == ".toml" else (file, None)
    location = _location(ini, toml)
    folder = _starting_folder(app_dir, file, location)
    if ini and (folder / _PYPROJECT).is_file():
        toml = folder / _PYPROJECT
        location = location or _location(None, toml)
    beside = str(file.parent) if not location and (file.parent / "env.py").is_file() else ""
    is_flask = bool(beside) and "current_app" in _text(file.parent / "env.py")
    return AlembicSetup(
        folder=folder,
        ini=ini,
        toml=toml,
        script_location=beside,
        runs=_upgrade_command(python, command, is_flask),
        types=command or (_flask_command(python) if is_flask else _alembic_command(folder, ini, python, x)),
    )


def app_python(python: str) -> list[str]:
    """Return the command that is the app's Python; this Python's, if no other is set."""
    return shlex.split(python) or [sys.executable or "python3"]


def _configuration(app_dir: Path, alembic_ini: Path) -> Path | None:
    if alembic_ini.is_file():
        return alembic_ini
    if alembic_ini != app_dir / "alembic.ini":
        return None  # the user has named another file, which is missing
    if _location(None, app_dir / _PYPROJECT):
        return app_dir / _PYPROJECT
    flask = app_dir / "migrations" / "alembic.ini"
    return flask if flask.is_file() and (flask.parent / "env.py").is_file() else None


def _location(ini: Path | None, toml: Path | None) -> str:
    """Return `script_location` from the file, with `%(here)s` filled in."""
    file = ini or toml
    value = _ini_section(ini).get("script_location", "") if ini else _toml_section(toml).get("script_location", "")
    here = str(file.parent) if file else ""
    return str(value).replace("%(here)s", here).replace("%%", "%")


def _ini_section(ini: Path | None) -> Mapping[str, str]:
    return _section_of(_text(ini))


@lru_cache(maxsize=16)  # a command asks a dozen times
def _section_of(text: str) -> Mapping[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
        return MappingProxyType(dict(parser.items("alembic")))
    except configparser.Error:
        return MappingProxyType({})


def _toml_section(toml: Path | None) -> Mapping[str, Any]:
    try:
        section = tomllib.loads(_text(toml)).get("tool", {}).get("alembic", {})
    except (tomllib.TOMLDecodeError, AttributeError, RecursionError):
        return {}
    return section if isinstance(section, dict) else {}


def ini_option(setup: AlembicSetup, name: str) -> str:
    """Return an option of the ini file as it is written; empty if there is none."""
    return _ini_section(setup.ini).get(name, "") if setup.ini else ""


def env_file(setup: AlembicSetup) -> Path | None:
    """Return the app's env.py, or None if the configuration does not say plainly where it is."""
    location = _scripts_location(setup)
    file = setup.folder / location / "env.py"
    return file if location and file.is_file() else None


def _scripts_location(setup: AlembicSetup) -> str:
    return setup.script_location or _location(setup.ini, None) or _location(None, setup.toml)


def plain_version_folders(setup: AlembicSetup) -> tuple[Path, ...]:
    """Return the folders that hold the migrations; empty if only Alembic itself can tell."""
    raw = {**_toml_section(setup.toml), **_ini_section(setup.ini)}
    location = _scripts_location(setup)
    places = _version_locations(raw, setup.ini or setup.toml) or [f"{location}/versions"]
    is_special = "sourceless" in raw or "recursive_version_locations" in raw or not location
    if is_special or any(":" in one or "%" in one for one in places):
        return ()
    return tuple(setup.folder / one for one in places)


def _version_locations(raw: Mapping[str, Any], file: Path | None) -> list[str]:
    value, here = raw.get("version_locations", ""), str(file.parent) if file else ""
    if isinstance(value, str):
        between = str(raw.get("path_separator") or raw.get("version_path_separator") or "")
        names = {"os": os.pathsep, "space": " ", "newline": "\n"}
        pattern = re.escape(names.get(between, between)) if between else "[, ]+"
        value = [one.strip() for one in re.split(pattern, value) if one.strip()]
    return [str(one).replace("%(here)s", here) for one in value]


def _starting_folder(app_dir: Path, file: Path, location: str) -> Path:
    """Return the folder in which to type the command: there the relative location leads to something."""
    is_relative = bool(location) and ":" not in location and not os.path.isabs(location)
    for folder in (app_dir, *file.parents):  # file.parents: the ini may be in an installed package
        if is_relative and (folder / location).is_dir():
            return folder
    return app_dir if file.is_relative_to(app_dir) else file.parent


def _upgrade_command(python: str, command: str, is_flask: bool) -> tuple[str, ...]:
    if command:
        return tuple(shlex.split(command))
    return (*app_python(python), "-m", "flask", "db") if is_flask else ()


def _flask_command(python: str) -> str:
    return f"{python} -m flask db" if python else "flask db"


def _alembic_command(folder: Path, ini: Path | None, python: str, x: tuple[str, ...]) -> str:
    alembic = f"{python} -m alembic" if python else _alembic_of_this_python()
    alembic = " ".join([alembic, *(f"-x {shlex.quote(one)}" for one in x)])
    if ini is None or ini == folder / "alembic.ini":
        return alembic
    name = os.path.relpath(ini, folder) if ini.is_relative_to(folder) else str(ini)
    return f"{alembic} -c {shlex.quote(name)}"


def _alembic_of_this_python() -> str:
    if not sys.executable:
        return "alembic"
    beside = os.path.join(os.path.dirname(sys.executable), "alembic")
    if _PRIVATE_ENVIRONMENT in Path(sys.executable).parts or shutil.which("alembic") == beside:
        return "alembic"
    return shlex.quote(beside) if os.path.exists(beside) else f"{shlex.quote(sys.executable)} -m alembic"


def _text(file: Path | None) -> str:
    try:
        return file.read_text(errors="replace") if file else ""
    except OSError:
        return ""
