"""The help of the program and of each command: groups, and the form of options.

`GROUPS` is the one table: a command that is missing there is shown below "Commands", and a test fails.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from backupkit.model.version import VERSION

GROUPS = {
    "Back up": ("backup", "auto-backup", "run", "schedule", "dump", "pin", "unpin", "prune", "delete"),
    "Restore": ("restore", "undo", "restore-dump", "migrate", "recover"),
    "Check": ("list", "show", "verify", "status", "history", "report", "ui"),
    "Copies elsewhere": ("push", "pull", "remotes", "export", "import", "recovery-kit"),
    "Set up": ("doctor", "config", "notify-test", "demo"),
}
_GROUP_OF = {name: group for group, commands in GROUPS.items() for name in commands}


def print_version(is_asked: bool) -> None:
    """The name and version of the toolkit, and the end: for an option that works without a command."""
    if is_asked:
        print(f"backupkit {VERSION}")
        raise typer.Exit()


class _Helpful:
    """What a command and a group of commands have in common. Typer's own classes come after it."""

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


class Command(_Helpful, TyperCommand):  # type: ignore[misc]
    """A command with a group in the help."""

    def __init__(self, name: str | None, **more: Any) -> None:
        super().__init__(name, **{**more, "rich_help_panel": _GROUP_OF.get(name or "")})


class Group(_Helpful, TyperGroup):  # type: ignore[misc]
    """The same for commands that hold commands, in the order of `GROUPS`."""

    def __init__(self, *, name: str | None = None, **more: Any) -> None:
        super().__init__(name=name, **{**more, "rich_help_panel": _GROUP_OF.get(name or "")})

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Those of `GROUPS` in its order, and then any other."""
        return sorted(self.commands, key=[*_GROUP_OF, *self.commands].index)
