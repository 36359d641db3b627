"""The help lists the commands in groups, and has examples for each command that can be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command

import backup_restore
from backupkit.model.version import VERSION
from refusals import run_here
from small_app import SmallApp

WRAPPED = {"BACKUP_HOST_COMMAND": "./backup.sh"}


def commands_of(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield before + name, command
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{name} ")


COMMANDS = dict(commands_of(get_command(backup_restore.app)))
each_command = pytest.mark.parametrize("command", COMMANDS)


def test_the_version_is_told_without_an_app_and_without_a_command(app: SmallApp) -> None:
    result = app.command("--version", env={"BACKUP_APP_DIR": "/nowhere"}, check=0)
    assert (result.out, result.err) == (f"backupkit {VERSION}\n", "")


HEADINGS = ["Back up", "Restore", "Check", "Copies elsewhere", "Set up"]
GROUPS = {
    heading: [name for name, one in COMMANDS.items() if " " not in name and one.rich_help_panel == heading]
    for heading in HEADINGS
}


def test_every_command_has_a_heading() -> None:
    assert [name for name, one in COMMANDS.items() if " " not in name and one.rich_help_panel not in HEADINGS] == []


def test_the_help_has_the_groups_in_order_and_each_command_in_its_own(app: SmallApp) -> None:
    said = app.command("--help", check=0).out
    places = [said.index(f"\n{group}:\n") for group in GROUPS]
    assert places == sorted(places)
    for group, after, before in zip(GROUPS.values(), places, [*places[1:], len(said)], strict=True):
        assert all(f"\n  {name} " in said[after:before] for name in group)


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_the_help_without_the_options_of_the_commands_is_that_of_the_whole_program(app: SmallApp, asked: str) -> None:
    assert app.command(asked, check=0).out == run_here(app, asked, check=0).out


@each_command
def test_the_help_of_a_command_names_what_is_typed_and_no_type_of_python(app: SmallApp, command: str) -> None:
    said = run_here(app, *command.split(), "--help", env=WRAPPED, check=0).out
    assert f" {command} [OPTIONS]" in said
    assert not any(word in said for word in ("<bool>", "<str>", "<list", "[list", "{", "}"))


def test_under_the_wrapper_the_help_names_the_wrapper(app: SmallApp) -> None:
    assert "Usage: ./backup.sh restore [OPTIONS] [NAME]" in app.command("restore", "-h", env=WRAPPED, check=0).out


@each_command
def test_every_command_has_an_example_that_it_understands(command: str) -> None:
    assert COMMANDS[command].examples
    for line in COMMANDS[command].examples:
        words = shlex.split(line)
        assert " ".join(words[: len(command.split())]) == command or command == "config"
        with typer.Context(get_command(backup_restore.app)) as program:
            group: Any = program.command
            while words and hasattr(group, "commands") and words[0] in group.commands:
                group = group.commands[words.pop(0)]
            group.make_context(command, words, parent=program)  # raises on a usage error


@pytest.mark.parametrize(
    ("environment", "typed"), [(WRAPPED, "./backup.sh"), ({}, "python backup_restore.py")], ids=["wrapper", "script"]
)
def test_an_example_is_the_last_line_of_the_help_as_it_is_typed(
    app: SmallApp, environment: dict[str, str], typed: str
) -> None:
    lines = app.command("restore", "--help", env={**environment, "COLUMNS": "40"}, check=0).out.splitlines()
    wanted = ["Examples:", *(f"  {typed} {one}" for one in COMMANDS["restore"].examples)]
    assert lines[-len(wanted) :] == wanted
    assert app.command("recover", "-h", env=environment, check=0).out.endswith(f"Example:\n  {typed} recover\n")
