"""The help of the program and of each command: groups, the form of options, and an example to type.

`GROUPS` is the one table: a command that is missing there is shown below "Commands", and a test fails.
"""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from backupkit.config.deployment import program
from backupkit.model.version import VERSION

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "Back up": {
        "backup": ("backup", "backup pre_migration --note 'before the release' --pin"),
        "auto-backup": ("auto-backup",),
        "run": ("run", "run --if-needed"),
        "schedule": ("schedule --list",),
        "dump": ("dump", "dump today.sql.gz"),
        "pin": ("pin pre_migration",),
        "unpin": ("unpin pre_migration",),
        "prune": ("prune --dry-run", "prune"),
        "delete": ("delete pre_migration",),
    },
    "Restore": {
        "restore": ("restore latest --dry-run", "restore pre_migration"),
        "undo": ("undo --dry-run", "undo"),
        "restore-dump": ("restore-dump today.sql.gz --dry-run", "restore-dump today.sql.gz"),
        "migrate": ("migrate",),
        "recover": ("recover",),
    },
    "Check": {
        "list": ("list", "list --remote offsite"),
        "show": ("show latest",),
        "verify": ("verify latest --test-restore", "verify --all"),
        "status": ("status",),
        "history": ("history --since 7d --failures",),
        "report": ("report --output report.html",),
        "ui": ("ui", "ui --web"),
    },
    "Copies elsewhere": {
        "push": ("push", "push latest --remote offsite"),
        "pull": ("pull latest --remote offsite",),
        "remotes": ("remotes", "remotes --init offsite"),
        "export": ("export latest today.tar.zst",),
        "import": ("import today.tar.zst --name from_export",),
        "recovery-kit": ("recovery-kit recovery.md",),
    },
    "Set up": {
        "doctor": ("doctor",),
        "config": ("config", "config set timezone Europe/Berlin"),
        "notify-test": ("notify-test",),
        "demo": ("demo",),
    },
}
INNER = {
    "config init": ("config init",),
    "config set": ("config set timezone Europe/Berlin", "config set keep_daily 14"),
    "config unset": ("config unset timezone",),
    "config schema": ("config schema",),
}
EXAMPLES = {**INNER, **{name: typed for commands in GROUPS.values() for name, typed in commands.items()}}
_GROUP_OF = {name: group for group, commands in GROUPS.items() for name in commands}


def print_version(is_asked: bool) -> None:
    """The name and version of the toolkit, and the end: for an option that works without a command."""
    if is_asked:
        print(f"backupkit {VERSION}")
        raise typer.Exit()


class _Helpful:
    """What a command and a group of commands have in common. Typer's own classes come after it."""

    def __init__(self, name: str | None = None, **more: Any) -> None:
        super().__init__(name=name, **{**more, "rich_help_panel": _GROUP_OF.get(name or "")})  # type: ignore[call-arg]

    def get_params(self, ctx: typer.Context) -> list[Any]:
        """With a name for each value, and none for a flag: Typer would print the types of Python."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for one in found:
            if one.param_type_name == "option" and one.metavar is None:
                one.metavar = "" if one.is_flag else one.name.upper().replace("_", "-")
        return found

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:
        """`NAME` for what must be given, `[NAME]` for what may be left out."""
        return [piece.strip("{}").upper() for piece in super().collect_usage_pieces(ctx)]  # type: ignore[misc]

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:
        """With the examples last, each as the person types it, and on a line of its own that is never broken."""
        super().format_help(ctx, formatter)  # type: ignore[misc]
        if typed := EXAMPLES.get(command_name(ctx)):
            formatter.write(f"Example{'s' if len(typed) > 1 else ''}:\n")
            formatter.write("".join(f"  {program(os.environ)} {line}\n" for line in typed))


def command_name(ctx: typer.Context) -> str:
    """`config set` for the inner command; empty for the program itself."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name or "")
        ctx = ctx.parent  # type: ignore[assignment]
    return " ".join(words)


class Command(_Helpful, TyperCommand):  # type: ignore[misc]
    """A command with a group in the help, and examples."""


class Group(_Helpful, TyperGroup):  # type: ignore[misc]
    """The same for commands that hold commands, in the order of `GROUPS`."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Those of `GROUPS` in its order, and then any other."""
        return sorted(self.commands, key=[*_GROUP_OF, *self.commands].index)
