"""The program: the groups of commands put together, with one boundary for their errors."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from backupkit.cli import session
from backupkit.cli.errors import boundary, end_at_once_on_signals, end_on_signals, open_missing_streams, usage_error
from backupkit.cli.help import Command, Group, print_version
from backupkit.cli.output import out
from backupkit.config import deployment

_Function = TypeVar("_Function", bound=Callable[..., Any])


class CommandGroup:
    """The commands below one heading of `--help`, in the order in which they are added."""

    def __init__(self, heading: str | None = None) -> None:
        self.heading = heading
        self.typer = typer.Typer(cls=Group)

    def command(self, name: str, examples: Sequence[str]) -> Callable[[_Function], _Function]:
        """Add the decorated function as the command of that name; the examples are typed as they stand."""
        self._know(name)
        return self.typer.command(name, cls=Command, rich_help_panel=self.heading, epilog="\n".join(examples))

    def add_group(self, name: str, group: CommandGroup, examples: Sequence[str]) -> None:
        """Add commands below a word of their own."""
        self._know(name)
        self.typer.add_typer(group.typer, name=name, rich_help_panel=self.heading, epilog="\n".join(examples))

    def _know(self, name: str) -> None:
        if self.heading:  # one below another word is not typed by its name alone
            deployment.know_command(name)


class _Program(Group):
    """The one error boundary. It is inside Typer's handling of interrupts, which would hide the exit code."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **others: Any) -> Any:
        """Parse as Typer does, but report an option that it does not know like any other error."""
        typed = tuple(args)  # parsing consumes them
        try:
            return super().make_context(info_name, args, *more, **others)
        except Exception as raised:
            if not typed or usage_error(raised) is None:  # with no word at all, the help is shown
                raise
            out.begin(is_json="--json" in typed)
            with boundary():
                raise

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        out.begin(is_json="--json" in ctx.args)
        with boundary():
            end_on_signals()  # not before: until here there is nothing to tidy up
            return super().invoke(ctx)


def assembled(script: Path, *groups: CommandGroup) -> typer.Typer:
    """Assemble the program of that file from groups of commands."""
    session.script = script.resolve()
    logging.getLogger("backupkit").addHandler(
        logging.NullHandler()
    )  # else Python prints to stderr what we print there ourselves
    app = typer.Typer(
        cls=_Program,
        name="backup-restore",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # Rich would be imported for a frame around the help: a third of its time
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
    _keep_only(app, sys.argv[1:2])
    try:
        app(prog_name=os.environ.get("BACKUP_HOST_COMMAND") or None)
    finally:
        end_at_once_on_signals()  # from here on there is nothing to tidy up


def _keep_only(app: typer.Typer, first_word: Sequence[str]) -> None:
    """Leave only the command that is meant: to read the options of all of them takes longer than most commands run."""
    commands = [one for one in app.registered_commands if one.name in first_word]
    groups = [one for one in app.registered_groups if one.name in first_word]
    if commands or groups:  # else the help, or a hint at a word that is like it, names all of them
        app.registered_commands, app.registered_groups = commands, groups
