#!/usr/bin/env python3
"""Write what follows from the program's own commands and settings: .venv/bin/python docs/make_reference.py [--check]

The reference of commands and settings, below a marker (what is above it is written by hand), and the reference app's
backup.toml and its schema. `--check` changes nothing and ends with 1 if a file is not what the program says.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

REFERENCE = Path(__file__).resolve().parent / "reference"
BACKEND = REFERENCE.parent.parent / "backend"
sys.path.insert(0, str(BACKEND))

from typer.main import get_command  # noqa: E402

import backup_restore  # noqa: E402
from backupkit.config.remotes import TABLE_TYPES, RemoteTable  # noqa: E402
from backupkit.config.schema import SCHEMA_FILE, allowed, default_in_words, json_schema, template  # noqa: E402
from backupkit.config.settings import SETTINGS_FILE, Settings, secret_names  # noqa: E402
from backupkit.config.table import Field, fields  # noqa: E402

MARKER = "<!-- Generated below this line by docs/make_reference.py from the program's own help. -->"
READ_MORE = {
    "backup": "../../BACKUP_GUIDE.md#2-first-set-up",
    "auto-backup": "../../BACKUP_GUIDE.md#2-first-set-up",
    "run": "../schedule-and-retention.md#by-cron",
    "rewind": "../schedule-and-retention.md#rewind",
    "show": "../../BACKUP_GUIDE.md#3-is-my-backup-good",
    "files": "../../BACKUP_GUIDE.md#one-file-back",
    "list": "../../BACKUP_GUIDE.md#3-is-my-backup-good",
    "verify": "../../BACKUP_GUIDE.md#3-is-my-backup-good",
    "restore": "../../BACKUP_GUIDE.md#1-restore-now",
    "extract": "../../BACKUP_GUIDE.md#one-file-back",
    "clone": "../copies-elsewhere.md#a-clone-for-a-colleague",
    "undo": "../../BACKUP_GUIDE.md#undo",
    "recover": "../../BACKUP_GUIDE.md#what-a-restore-does",
    "migrate": "../migrations.md",
    "dump": "../copies-elsewhere.md#sql-text",
    "restore-dump": "../copies-elsewhere.md#sql-text",
    "export": "../copies-elsewhere.md#one-backup-as-one-file",
    "import": "../copies-elsewhere.md#one-backup-as-one-file",
    "delete": "../schedule-and-retention.md#retention",
    "prune": "../schedule-and-retention.md#retention",
    "pin": "../schedule-and-retention.md#retention",
    "unpin": "../schedule-and-retention.md#retention",
    "push": "../copies-elsewhere.md",
    "pull": "../copies-elsewhere.md#the-new-machine",
    "remotes": "../copies-elsewhere.md",
    "history": "../monitoring.md#history",
    "status": "../monitoring.md#status",
    "report": "../monitoring.md#the-report-page",
    "schedule": "../schedule-and-retention.md#the-scheduler",
    "recovery-kit": "../copies-elsewhere.md#the-recovery-sheet",
    "doctor": "../../BACKUP_GUIDE.md#2-first-set-up",
    "notify-test": "../monitoring.md#notifications",
    "ui": "../interface.md",
    "config": "settings.md",
}


def main() -> None:
    """Write the files, or with `--check` compare them."""
    stale = [path for path, content in files().items() if path.read_text(encoding="utf-8") != content]
    if "--check" in sys.argv and stale:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"Out of date: {names}. Run: .venv/bin/python docs/make_reference.py")
    for path in stale:
        path.write_text(files()[path], encoding="utf-8")


def files() -> dict[Path, str]:
    """What each generated file is to hold."""
    return {
        REFERENCE / "commands.md": page("commands.md", commands()),
        REFERENCE / "settings.md": page("settings.md", settings()),
        BACKEND / SCHEMA_FILE: json.dumps(json_schema(), indent=2) + "\n",
        BACKEND / SETTINGS_FILE: template(BACKEND),
    }


def page(name: str, lines: Iterator[str]) -> str:
    """The page as it is above the marker, with these lines below it."""
    above = (REFERENCE / name).read_text(encoding="utf-8").partition(MARKER)[0]
    return above + "\n".join([MARKER, "", *lines]).rstrip() + "\n"


# Commands.


def commands() -> Iterator[str]:
    """A section for each command, in the order of `--help`."""
    for name, command in commands_of(get_command(backup_restore.app)):
        yield f"## `{' '.join([name, *map(argument_form, parameters(command, 'argument'))])}`"
        yield ""
        yield one_line(command.help)
        yield ""
        if rows := [
            *map(argument_row, parameters(command, "argument")),
            *map(option_row, parameters(command, "option")),
        ]:
            yield from table(("argument or option", "meaning"), rows)
            yield ""
        yield from ["```sh", *(f"./backup.sh {line}" for line in command.examples), "```", ""]
        if name in READ_MORE:
            yield f"[Read more]({READ_MORE[name]})"
            yield ""


def commands_of(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        yield before + word, command
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{word} ")


def parameters(command: Any, kind: str) -> list[Any]:
    return [one for one in command.params if one.param_type_name == kind and not getattr(one, "hidden", False)]


def argument_form(argument: Any) -> str:
    name = argument.name.upper()
    return name if argument.required else f"[{name}]"


def argument_row(argument: Any) -> tuple[str, str]:
    return f"`{argument.name.upper()}`", one_line(argument.help)


def option_row(option: Any) -> tuple[str, str]:
    value = "" if option.is_flag else " " + value_form(option)
    form = ", ".join(f"`{one}{value}`" for one in sorted(option.opts, key=len, reverse=True))
    return form, one_line(option.help) + default_of(option)


def value_form(option: Any) -> str:
    choices = literals(option.type_descriptor.annotation)
    return "|".join(choices) or option.metavar or option.name.upper().replace("_", "-")


def literals(annotation: object) -> list[str]:
    """The words of a `Literal`, also within a union."""
    found = [[one] if isinstance(one, str) else literals(one) for one in get_args(annotation)]
    return [word for words in found for word in words]


def default_of(option: Any) -> str:
    shown = option.default if isinstance(option.default, int | str) and not option.is_flag else ""
    return f" Default: {shown}." if shown else ""


# Settings.


def settings() -> Iterator[str]:
    """A table of all settings, one of the keys that every remote has, and one of the keys of each type."""
    yield "## All settings"
    yield ""
    yield from table(("setting", "default", "values", "meaning"), map(setting_row, fields(Settings)))
    for title, names, kind in remote_types():
        yield ""
        yield f"## {title}"
        yield ""
        yield from table(("key", "default", "meaning"), (key_row(name, fields(kind)[name]) for name in names))


def setting_row(name: str) -> tuple[str, str, str, str]:
    declared, described = fields(Settings)[name], json_schema()["properties"].get(name, {})
    default = default_in_words(name) or ("" if described.get("type") == "object" else code(described.get("default")))
    secret = f" A secret: better in a file that `BACKUP_{name.upper()}_FILE` names." if name in secret_names() else ""
    values = re.sub("^a (whole )?number (from )?", "", allowed(name))
    return f"`BACKUP_{name.upper()}`", default or "none", values, one_line(declared.description) + secret


def remote_types() -> Iterator[tuple[str, list[str], type[RemoteTable]]]:
    """The heading, the keys and the class of each table of a remote."""
    shared = list(fields(RemoteTable))
    yield "A remote of any type", shared, RemoteTable
    for name, kind in TABLE_TYPES.items():
        yield f"A remote of type `{name}`", [one for one in fields(kind) if one not in [*shared, "type"]], kind


def key_row(name: str, declared: Field) -> tuple[str, str, str]:
    default = "required" if declared.is_required else code(declared.default) or "none"
    return f"`{name}`", default, one_line(declared.description)


def code(value: object) -> str:
    """A default as it is written in backup.toml; nothing where there is none."""
    if isinstance(value, list | tuple):
        value = ", ".join(value)
    if isinstance(value, bool):
        value = str(value).lower()
    return "" if value in (None, "") else f"`{str(value).removesuffix('.0')}`"


def table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    main()
