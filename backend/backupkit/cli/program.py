"""The program, assembled from groups of commands, with one error boundary."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from backupkit.cli import session
from backupkit.cli.errors import (
    boundary,
    end_at_once_on_signals,
    end_on_signals,
    open_missing_streams,
    printing_help,
    usage_error,
)
from backupkit.cli.help import Command, Group, print_version
from backupkit.cli.output import flush_streams, out
from backupkit.config import deployment

_Function = TypeVar("_Function", bound=Callable[..., Any])


class CommandGroup:
    """The commands below one heading of `--help`, in the order of their registration."""

    def __init__(self, heading: str | None = None) -> None:
        self.heading = heading
        self.typer = typer.Typer(cls=Group)

    def command(self, name: str, examples: Sequence[str]) -> Callable[[_Function], _Function]:
        """Return a decorator that registers a function as the command `name`, with these examples in its help."""
        self._register_name(name)
        return self.typer.command(name, cls=Command, rich_help_panel=self.heading, epilog="\n".join(examples))

    def add_group(self, name: str, group: CommandGroup, examples: Sequence[str]) -> None:
        """Register a subgroup: its commands are typed after `name`."""
        self._register_name(name)
        self.typer.add_typer(group.typer, name=name, rich_help_panel=self.heading, epilog="\n".join(examples))

    def _register_name(self, name: str) -> None:
        if self.heading:  # a subcommand is not typed by its name alone
            deployment.know_command(name)


class _Program(Group):
    """The root group with the error boundary. It runs inside Typer's interrupt handling, which would hide the code."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **others: Any) -> Any:
        """Parse as Typer does, but report a usage error like any other error."""
        typed = tuple(args)  # parsing consumes them
        try:
            return super().make_context(info_name, args, *more, **others)
        except Exception as raised:
            if not typed or usage_error(raised) is None:  # without arguments, Typer shows the help
                raise
            out.begin(is_json="--json" in typed)
            with boundary():
                raise

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        out.begin(is_json="--json" in ctx.args)
        with boundary():
            end_on_signals()  # not earlier: so far there is nothing to clean up
            return super().invoke(ctx)


def assembled(script: Path, *groups: CommandGroup) -> typer.Typer:
    """Return the Typer program of the file `script`, with the commands of these groups."""
    session.script = script.resolve()
    logging.getLogger("backupkit").addHandler(
        logging.NullHandler()
    )  # else Python's last-resort handler would print records that `say` prints already
    app = typer.Typer(
        cls=_Program,
        name="backup-restore",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # importing Rich for a frame around the help takes a third of the time of `--help`
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    for group in groups:
        app.registered_commands += group.typer.registered_commands
        app.registered_groups += group.typer.registered_groups
    return app


def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Back up and restore the app: its SQLite database and its uploads."""


def run(app: typer.Typer) -> None:
    """Run the program once, with the arguments of this process."""
    open_missing_streams()
    if sys.argv[1:] in (["--help"], ["-h"]):
        _leave_out_options(app)
    else:
        _keep_only(app, sys.argv[1:2])
    try:
        with printing_help():
            app(prog_name=os.environ.get("BACKUP_HOST_COMMAND") or None)
    finally:
        flush_streams()
        end_at_once_on_signals()  # from here on there is nothing to clean up


def _keep_only(app: typer.Typer, first_word: Sequence[str]) -> None:
    """Register only the command that was typed: reading the options of all takes longer than most commands run."""
    commands = [one for one in app.registered_commands if one.name in first_word]
    groups = [one for one in app.registered_groups if one.name in first_word]
    if commands or groups:  # else keep all, for the help or for a suggestion of a similar command
        app.registered_commands, app.registered_groups = commands, groups


def _leave_out_options(app: typer.Typer) -> None:
    """Leave out the options of all commands, which the help of the program does not show: to read them takes long."""
    for one in app.registered_commands:
        one.help, one.callback = inspect.getdoc(one.callback), _nothing
    for group in app.registered_groups:
        assert group.typer_instance is not None
        group.typer_instance.registered_commands = []


def _nothing() -> None:
    """Stand for a command without options."""
