"""The help of the program and of each command: headings, the form of options, and examples to type."""

from __future__ import annotations

import os
import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from backupkit.cli.output import CannotPrint
from backupkit.cli.values import convert_only_what_must_be
from backupkit.config.deployment import program
from backupkit.model.version import VERSION


def print_version(is_asked: bool) -> None:
    """Print the name and version of the toolkit and exit: the callback of `--version`, which needs no command."""
    if is_asked:
        print(f"backupkit {VERSION}")
        raise typer.Exit()


_ALIKE = 0.75  # --databse and --database; not --force and --note
_NO_BRACES = str.maketrans("", "", "{}")


class _WithExamples:
    """A mixin for commands and groups, before Typer's own class. Its epilog is the examples, which Typer would join."""

    def __init__(self, *, epilog: str | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.examples = (epilog or "").splitlines()

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **others: Any) -> Any:
        """Parse as Typer does, which prints the help; raise `CannotPrint` if it cannot be written."""
        try:
            return super().make_context(info_name, args, *more, **others)  # type: ignore[misc]
        except OSError as error:
            raise CannotPrint(error) from error

    def get_params(self, ctx: typer.Context) -> list[Any]:
        """Return the parameters, with a metavar for each value and none for a flag: Typer would show Python types."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        convert_only_what_must_be(found)
        for one in found:
            if one.metavar is None:
                one.metavar = "" if getattr(one, "is_flag", False) else one.name.upper().replace("_", "-")
            if one.param_type_name == "argument":
                one.display_type_rich = _no_type
        return found

    def make_parser(self, ctx: typer.Context) -> Any:
        """Return a parser that refuses an option of one value that is typed twice: else the last one would win."""
        parser: Any = super().make_parser(ctx)  # type: ignore[misc]
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            try:
                found = parse(args=args)
            except Exception as error:
                _say_what_is_meant(ctx, error)
                raise
            _refuse_repeated(ctx, found[2])
            return found

        parser.parse_args = parse_once
        return parser

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:
        """Return `NAME` for each required argument and `[NAME]` for each optional one."""
        pieces = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [piece.translate(_NO_BRACES).upper() for piece in pieces]

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:
        """Write the help, and the examples at the end: as the person types them, on lines that are never wrapped."""
        super().format_help(ctx, formatter)  # type: ignore[misc]
        if self.examples:
            formatter.write(f"\nExample{'s' if len(self.examples) > 1 else ''}:\n")
            formatter.write("".join(f"  {program(os.environ)} {line}\n" for line in self.examples))


def _say_what_is_meant(ctx: typer.Context, error: Any) -> None:
    """Add to a usage error its command, and what may be meant by an option that the command does not have."""
    if getattr(error, "ctx", ctx) is None:
        error.ctx = ctx
    typed = error.option_name if hasattr(error, "possibilities") else ""
    if not typed:
        return
    import difflib  # only an error needs it

    error.possibilities = difflib.get_close_matches(typed, error.possibilities or (), cutoff=_ALIKE)
    if re.match(r"-\d", typed):
        error.message += "; a value that begins with - comes behind --"
    elif typed == "--latest" and any(one.name == "name" for one in ctx.command.params):
        error.message += "; the newest backup is latest, without the two dashes"


def _refuse_repeated(ctx: typer.Context, typed: list[Any]) -> None:
    """Fail with a usage error if one of the parameters, in the order typed, takes one value and is there twice."""
    single = [one for one in typed if one.param_type_name == "option" and not one.is_flag and not one.multiple]
    repeated = next((one for place, one in enumerate(single) if one in single[:place]), None)
    if repeated and not ctx.resilient_parsing:
        ctx.fail(f"Option '{max(repeated.opts, key=len)}' was typed twice, but takes one value.")


def _no_type(ctx: typer.Context) -> None:
    """Show no type beside the name of an argument in its help."""


def command_name(ctx: typer.Context) -> str:
    """Return the command's full name, such as `config set`; empty for the program itself."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name or "")
        ctx = ctx.parent  # type: ignore[assignment]
    return " ".join(words)


class Command(_WithExamples, TyperCommand):  # type: ignore[misc]
    """A command with examples in its help."""


class Group(_WithExamples, TyperGroup):  # type: ignore[misc]
    """A group of commands below their headings, with examples in its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as Typer does; `help list` is `list --help`."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        found: list[str] = super().parse_args(ctx, args)
        return found

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write one section per heading, in order, with the whole first paragraph of each command's help."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if not command.hidden:
                lines = sections.setdefault(command.rich_help_panel or "Commands", [])
                lines.append((name, command.help.partition("\n\n")[0]))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
