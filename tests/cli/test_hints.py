"""Every hint can be typed: it names the program in use, an existing command, and options of that command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import backup_restore
from backupkit.config.deployment import deployment_from, in_full, program
from small_app import BACKEND, SmallApp

WRAPPED = {"BACKUP_HOST_COMMAND": "./backup.sh", "BACKUP_RUNNER_IN_USE": "local"}
CONTAINED = {"BACKUP_HOST_COMMAND": "./backup.sh", "BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker compose"}

commands = get_command(backup_restore.app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", commands)
def test_every_command_is_known_to_the_hints(name: str) -> None:
    assert in_full(f"Try `{name} --help`.", {}) == f"Try `python backup_restore.py {name} --help`."


@pytest.mark.parametrize(
    ("environment", "typed"),
    [(WRAPPED, "./backup.sh"), (CONTAINED, "./backup.sh"), ({}, "python backup_restore.py")],
    ids=["the wrapper", "the wrapper, in a container", "no wrapper"],
)
def test_a_hint_names_the_program_that_is_there(app: SmallApp, environment: dict[str, str], typed: str) -> None:
    said = app.command("show", "nothing", env=environment, check=10).err
    assert f"`{typed} backup`" in said
    app.command("backup", "one", env=environment, check=0)
    assert f"`{typed} undo` takes the restore back" in app.command("restore", "one", "--force", env=environment).err


def test_compose_is_named_only_where_it_is() -> None:
    """The tests may run in a bare container, which has `/.dockerenv`."""
    for environment in ({}, WRAPPED):
        deployment = deployment_from(environment, "backend", Path("/app"))
        assert not deployment.in_container and "docker" not in deployment.alembic("upgrade head") + deployment.restart()
    assert deployment_from(CONTAINED, "backend", Path("/app")).alembic("upgrade head") == (
        'docker compose exec backend bash -c "cd /app && alembic upgrade head"'
    )


def test_nothing_but_a_command_in_backticks_is_completed() -> None:
    text = "`undo` or `restore x --only uploads`; `backup.toml`, `undone`, `git status`, undo"
    assert in_full(text, WRAPPED) == text.replace("`undo`", "`./backup.sh undo`").replace(
        "`restore x", "`./backup.sh restore x"
    )
    assert program({"BACKUP_RUNNER_IN_USE": "run"}) == "./backup.sh"


def texts() -> Iterator[tuple[str, str]]:
    """Yield every string of the program with its place; `{}` stands for formatted values."""
    for file in sorted([BACKEND / "backup_restore.py", *(BACKEND / "backupkit").rglob("*.py")]):
        module = ast.parse(file.read_text())
        parts = {id(part) for one in ast.walk(module) if isinstance(one, ast.JoinedStr) for part in one.values}
        for one in ast.walk(module):
            if isinstance(one, ast.JoinedStr):
                filled = (part.value if isinstance(part, ast.Constant) else "{}" for part in one.values)
                yield f"{file.name}:{one.lineno}", "".join(map(str, filled))
            elif isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in parts:
                yield f"{file.name}:{one.lineno}", one.value


def named_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in the text: in backticks, or a text that is one as a whole."""
    for found in re.findall(r"`([^`\n]+)`", text):
        if found.split()[0] in commands:
            yield found.split()
    if re.fullmatch(r"[a-z-]+( (--[a-z-]+|\{\}|[a-z]+))+", text) and text.split()[0] in commands:
        yield text.split()


def test_no_hint_names_an_option_that_its_command_lacks() -> None:
    seen, wrong = 0, []
    for place, text in texts():
        for words in named_commands(text):
            command = commands[words[0]]
            inner = getattr(command, "commands", {}).get(" ".join(words[1:2]))
            options = {name for one in (inner or command).params for name in one.opts} | {"--help", "-h"}
            seen += 1
            wrong += [(place, words) for word in words if word.startswith("--") and word not in options]
    assert seen > 80 and wrong == []


def test_no_hint_names_a_command_without_backticks() -> None:
    """The hints would not complete such a command."""
    bare = re.compile(rf"\b(?:[Tt]ype|[Tt]ry|[Rr]un|then): ({'|'.join(commands)})\b")
    assert [(place, text) for place, text in texts() if bare.search(text)] == []


@pytest.mark.parametrize("words", ["restore one", "undo", "restore-dump it.sql", "delete one"])
def test_where_nobody_can_be_asked_the_options_that_are_named_are_the_commands_own(app: SmallApp, words: str) -> None:
    app.command("backup", "one", check=0)
    app.command("dump", "it.sql", check=0)
    app.command("restore", "one", "--yes", check=0)
    said = app.command(*words.split(), check=2).err
    known = {name for one in commands[words.split()[0]].params for name in one.opts}
    named = set(re.findall(r"--[a-z-]+", said))
    assert named and named <= known
