"""Options and arguments that several commands share, each with its help text."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from backupkit.cli.output import out
from backupkit.model.errors import Refused


def listed(text: str) -> tuple[str, ...]:
    """Return the comma-separated values: `a, b` is `a` and `b`."""
    return tuple(one.strip() for one in text.split(",") if one.strip())


def not_empty(param: typer.CallbackParam, value: Any) -> Any:
    """Raise `Refused` for an empty value: a path would be the current folder, another one would choose nothing.

    It is the callback of whatever names a thing or chooses something.
    """
    if value == "" or (isinstance(value, list) and "" in value):
        name = max(param.opts, key=len)
        typed = name if name.startswith("-") else param.metavar or name.upper()
        raise Refused(f"{typed} is empty.", hint="Give it a value. Perhaps a variable of the shell is not set.")
    return value


# The callbacks change `out`, so a command with one of these options need not use its value.
Json = Annotated[
    bool,
    typer.Option("--json", callback=out.use_json, help="Print one JSON document on stdout, and nothing else there."),
]
Wide = Annotated[
    bool,
    typer.Option(
        "--wide", callback=out.use_all_columns, help="Show all columns, also where the terminal is too narrow."
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=out.be_quiet, help="Show no progress and no notices, only warnings.")
]
Name = Annotated[str, typer.Argument(help="The backup's name, or 'latest'.")]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="NAME",
        callback=not_empty,
        help="Which database, if the app has several: a name of [databases].",
    ),
]
Tree = Annotated[
    str | None,
    typer.Option(
        "--tree", metavar="NAME", callback=not_empty, help="Which folder, if the app has several: a name of [trees]."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer the question with yes.")]
OldForce = Annotated[bool, typer.Option("--force", "-f", hidden=True, help="The old name of --yes.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")]
ExpectLoss = Annotated[
    list[str] | None,
    typer.Option(
        "--expect-loss",
        metavar="TABLE",
        callback=not_empty,
        help="A table that may lose data in the migrations; may be given several times.",
    ),
]
RemoteName = Annotated[
    str | None, typer.Option("--remote", callback=not_empty, help="The name of a remote in the settings.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Accept setuid files, and links that leave the uploads. Your own backups only.")
]
