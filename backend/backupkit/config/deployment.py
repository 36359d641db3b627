"""How users reach this code, so that the commands printed for them are ones that they can type."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from backupkit.config.alembic_setup import AlembicSetup

_SCRIPT = "python backup_restore.py"
_TARGET_MOUNT = "/mnt/backup-target"  # where the wrapper mounts the folder of the host that `--to` names
_IN_BACKTICKS = re.compile(r"`([a-z-]+(?: [^`]*)?)`")
_commands: set[str] = set()  # names of commands, to tell a command in backticks from a file's name


class Deployment(Struct, frozen=True):
    """The Compose command and service through which users come here; if both are missing, this is the machine itself.

    `app_service` is the app's service, if commands run in another one. `has_own_command` means that the app is migrated
    by a command of its own, not by Alembic's.
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
        """Return a line that runs Alembic in the folder where its paths start.

        If the line `is_kept`, and read much later, it names the program without the environment that it is in now.
        """
        folder, types = (self.setup.folder, self.setup.types) if self.setup else (self.app_dir, "alembic")
        if is_kept:
            program, *options = shlex.split(types)
            types = shlex.join([os.path.basename(program), *options])
        line = f"cd {shlex.quote(str(folder))} && {types} {arguments}"
        return f"{self.compose} exec {self.service} bash -c {_quoted(line)}" if self.in_container else line

    def tool(self, arguments: str) -> str:
        """Return a line that runs this toolkit."""
        return f"{self.wrapper} {arguments}".rstrip()

    def sql(self, database: Path, statement: str) -> str:
        """Return a line that runs a statement on a database; it uses Python, which is sure to be where the app runs."""
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2])"
        line = f"python3 -c {shlex.quote(code)} {shlex.quote(str(database))} {shlex.quote(statement)}"
        return f"{self.compose} exec {self.service} {line}" if self.in_container else line

    def shell(self, folder: Path) -> str:
        """Return a line that leads into that folder, where the app's paths are as this toolkit sees them."""
        if self.in_container:
            return (
                f"{self.compose} run --rm --no-deps --workdir {shlex.quote(str(folder))} --entrypoint sh {self.service}"
            )
        return f"cd {shlex.quote(str(folder))}"

    def restart(self) -> str:
        """Return a line that restarts the app; empty if only the user knows how."""
        return f"{self.compose} restart {self.app_service or self.service}" if self.in_container else ""


def deployment_from(
    environment: Mapping[str, str],
    service: str,
    app_dir: Path,
    setup: AlembicSetup | None = None,
    app_service: str = "",
    has_own_command: bool = False,
) -> Deployment:
    """Return the deployment from what the wrapper put into the environment.

    Without the wrapper no Compose is known, in a bare container neither.
    """
    compose = environment.get("BACKUP_COMPOSE", "docker compose") if is_contained(environment) else ""
    return Deployment(service, app_dir, compose, program(environment), setup, app_service, has_own_command)


def program(environment: Mapping[str, str]) -> str:
    """Return what a user types before a command: the wrapper, the installed program, or the script."""
    if named := environment.get("BACKUP_HOST_COMMAND"):
        return named
    if is_contained(environment):
        return "./backup.sh"
    is_installed = Path(__file__).resolve().parents[2].name in ("site-packages", "dist-packages")
    return "backup-restore" if is_installed else _SCRIPT


def know_command(name: str) -> None:
    """Register a command of the program, so that a hint that names it is completed (`in_full`)."""
    _commands.add(name)


def on_host(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the text with paths below the folder that the wrapper mounted, for `--to`, as they are on the host."""
    folder = environment.get("BACKUP_HOST_MOUNT", "") if is_contained(environment) else ""
    return text.replace(_TARGET_MOUNT, folder.rstrip("/")) if folder else text


def in_full(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the text with each command in backticks as it is typed, and paths as `on_host`.

    For example `undo` becomes `./backup.sh undo`.
    """

    def completed(found: re.Match[str]) -> str:
        return f"`{program(environment)} {found[1]}`" if found[1].split()[0] in _commands else found[0]

    return _IN_BACKTICKS.sub(completed, on_host(text, environment))


def as_root(*words: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a line with which root runs a program on the paths that this process sees, typed where the user is."""
    line = shlex.join(words)
    if not is_contained(environment):
        return f"As root: {line}"
    compose, service = environment.get("BACKUP_COMPOSE", "docker compose"), environment.get("BACKUP_SERVICE", "backend")
    program, _, rest = line.partition(" ")
    return f"{compose} run --rm --no-deps --user root --entrypoint {program} {service} {rest}"


def unseen_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the settings that the wrapper saw in a compose file and that this process was not given."""
    return sorted({name for name in environment.get("BACKUP_HOST_COMPOSE_SETS", "").split() if name not in environment})


def is_contained(environment: Mapping[str, str]) -> bool:
    """Return whether the wrapper says that this is a container."""
    return environment.get("BACKUP_RUNNER_IN_USE", "local") != "local"


def _quoted(line: str) -> str:
    """Return the line as one word for a shell, in double quotes if they change nothing in it."""
    return shlex.quote(line) if set(line) & set('"$`\\!') else f'"{line}"'
