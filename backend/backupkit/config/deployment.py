"""How the person at the keyboard reaches this code: the commands that are printed for them are ones they can type."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backupkit.config.alembic_setup import AlembicSetup

_SCRIPT = "python backup_restore.py"
_MOUNTED = "/mnt/backup-target"  # by the wrapper: a folder of the host that something is laid out in
_IN_BACKTICKS = re.compile(r"`([a-z-]+(?: [^`]*)?)`")
_commands: set[str] = set()  # by which a command in backticks is told from a file's name


@dataclass(frozen=True)
class Deployment:
    """The Compose command and service on the way here, or none of them: then this is the machine itself.

    `app_service` is the app's, where commands run in another one. With `has_own_command` the app is migrated by a
    command of its own, not by Alembic's.
    """

    service: str
    app_dir: Path
    compose: str = ""
    wrapper: str = _SCRIPT
    setup: AlembicSetup | None = None
    app_service: str = ""
    has_own_command: bool = False

    @property
    def in_container(self) -> bool:
        return bool(self.compose)

    def alembic(self, arguments: str, is_kept: bool = False) -> str:
        """A line that runs Alembic in the folder where its paths start.

        One that `is_kept`, and read much later, names the program without the environment it is in now.
        """
        folder, types = (self.setup.folder, self.setup.types) if self.setup else (self.app_dir, "alembic")
        if is_kept:
            program, *options = shlex.split(types)
            types = shlex.join([os.path.basename(program), *options])
        line = f"cd {shlex.quote(str(folder))} && {types} {arguments}"
        return f"{self.compose} exec {self.service} bash -c {_quoted(line)}" if self.in_container else line

    def tool(self, arguments: str) -> str:
        """A line that runs this toolkit."""
        return f"{self.wrapper} {arguments}".rstrip()

    def sql(self, database: Path, statement: str) -> str:
        """A line that runs a statement on a database; where the app runs, nothing but Python is sure to be there."""
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2])"
        line = f"python3 -c {shlex.quote(code)} {shlex.quote(str(database))} {shlex.quote(statement)}"
        return f"{self.compose} exec {self.service} {line}" if self.in_container else line

    def shell(self, folder: Path) -> str:
        """A line that leads into that folder, where the app's paths are as this toolkit sees them."""
        if self.in_container:
            return (
                f"{self.compose} run --rm --no-deps --workdir {shlex.quote(str(folder))} --entrypoint sh {self.service}"
            )
        return f"cd {shlex.quote(str(folder))}"

    def restart(self) -> str:
        """A line that restarts the app; empty where only the person knows how."""
        return f"{self.compose} restart {self.app_service or self.service}" if self.in_container else ""


def reach_from(
    environment: Mapping[str, str],
    service: str,
    app_dir: Path,
    setup: AlembicSetup | None = None,
    app_service: str = "",
    has_own_command: bool = False,
) -> Deployment:
    """What the wrapper told in the environment; without it nobody knows of a Compose, in a bare container neither."""
    compose = environment.get("BACKUP_COMPOSE", "docker compose") if is_contained(environment) else ""
    return Deployment(service, app_dir, compose, program(environment), setup, app_service, has_own_command)


def program(environment: Mapping[str, str]) -> str:
    """What a person types before a command: the wrapper, the installed program, or the script."""
    if named := environment.get("BACKUP_HOST_COMMAND"):
        return named
    if is_contained(environment):
        return "./backup.sh"
    is_installed = Path(__file__).resolve().parents[2].name in ("site-packages", "dist-packages")
    return "backup-restore" if is_installed else _SCRIPT


def know_command(name: str) -> None:
    """The program has this command: a hint that names it is completed from here on."""
    _commands.add(name)


def on_host(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with paths below the folder that the wrapper mounted, for `--to`, as they are on the host."""
    folder = environment.get("BACKUP_HOST_MOUNT", "") if is_contained(environment) else ""
    return text.replace(_MOUNTED, folder.rstrip("/")) if folder else text


def in_full(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with each command in backticks as it is typed: `undo` becomes `./backup.sh undo`; and `on_host`."""

    def completed(found: re.Match[str]) -> str:
        return f"`{program(environment)} {found[1]}`" if found[1].split()[0] in _commands else found[0]

    return _IN_BACKTICKS.sub(completed, on_host(text, environment))


def as_root(*words: str, environment: Mapping[str, str] = os.environ) -> str:
    """A line by which root runs a program on the paths that this process sees, typed where the person is."""
    line = shlex.join(words)
    if not is_contained(environment):
        return f"As root: {line}"
    compose, service = environment.get("BACKUP_COMPOSE", "docker compose"), environment.get("BACKUP_SERVICE", "backend")
    program, _, rest = line.partition(" ")
    return f"{compose} run --rm --no-deps --user root --entrypoint {program} {service} {rest}"


def unseen_variables(environment: Mapping[str, str]) -> list[str]:
    """Settings that a compose file has, as the wrapper saw, and that this process was not given."""
    return sorted({name for name in environment.get("BACKUP_HOST_COMPOSE_SETS", "").split() if name not in environment})


def is_contained(environment: Mapping[str, str]) -> bool:
    """Whether the wrapper says that this is a container."""
    return environment.get("BACKUP_RUNNER_IN_USE", "local") != "local"


def _quoted(line: str) -> str:
    """The line as one word, in double quotes where they change nothing in it."""
    return shlex.quote(line) if set(line) & set('"$`\\!') else f'"{line}"'
