"""The help of the program and of each command: headings, the form of options, and examples to type."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from backupkit.config.deployment import program
from backupkit.model.version import VERSION


def print_version(is_asked: bool) -> None:
    """The name and version of the toolkit, and the end: for an option that works without a command."""
    if is_asked:
        print(f"backupkit {VERSION}")
        raise typer.Exit()


class _Helpful:
    """What a command and a group of commands have in common. Typer's own classes come after it.

    The examples arrive as the epilog, a line each: Typer would run them together.
    """

    def __init__(self, *, epilog: str | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.examples = (epilog or "").splitlines()

    def get_params(self, ctx: typer.Context) -> list[Any]:
        """With a name for each value, and none for a flag: Typer would print the types of Python."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for one in found:
            if one.metavar is None:
                one.metavar = "" if getattr(one, "is_flag", False) else one.name.upper().replace("_", "-")
            if one.param_type_name == "argument":
                one.display_type_rich = _no_type
        return found

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:
        """`NAME` for what must be given, `[NAME]` for what may be left out."""
        return [piece.strip("{}").upper() for piece in super().collect_usage_pieces(ctx)]  # type: ignore[misc]

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:
        """With the examples last, each as the person types it, and on a line of its own that is never broken."""
        super().format_help(ctx, formatter)  # type: ignore[misc]
        if self.examples:
            formatter.write(f"\nExample{'s' if len(self.examples) > 1 else ''}:\n")
            formatter.write("".join(f"  {program(os.environ)} {line}\n" for line in self.examples))


def _no_type(ctx: typer.Context) -> None:
    """What stands beside the name of an argument in its help: nothing."""


def command_name(ctx: typer.Context) -> str:
    """`config set` for the inner command; empty for the program itself."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name or "")
        ctx = ctx.parent  # type: ignore[assignment]
    return " ".join(words)


class Command(_Helpful, TyperCommand):  # type: ignore[misc]
    """A command with examples in its help."""


class Group(_Helpful, TyperGroup):  # type: ignore[misc]
    """The same for commands that hold commands, below their headings."""

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """One section for each heading, in order; a description is never cut short."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if not command.hidden:
                lines = sections.setdefault(command.rich_help_panel or "Commands", [])
                lines.append((name, command.help.partition("\n\n")[0]))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
