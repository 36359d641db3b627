"""The tables `[databases.NAME]` and `[trees.NAME]` of `backup.toml`: what an app has beside the first of both."""

from __future__ import annotations

import re
from typing import TypeVar

from backupkit.config.table import CheckedTable, Invalid, parsed, setting
from backupkit.model.backup import CHECKSUM_FILE, GUIDE_FILE, MAIN_DATABASE, METADATA_FILE, UPLOADS_FOLDER
from backupkit.model.names import printable

AnyTable = TypeVar("AnyTable", bound=CheckedTable)
NAME = re.compile(r"[a-z][a-z0-9_-]{0,29}")
_SIDECARS = ("", "-wal", "-shm", "-journal")
RESERVED = (UPLOADS_FOLDER, METADATA_FILE, CHECKSUM_FILE, GUIDE_FILE)


class DatabaseTable(CheckedTable):
    """Another database of the app, copied at the same moment as the first."""

    path: str = setting("The database: a path, or a URL that begins with sqlite:///.", min_length=1)
    alembic_ini: str = setting("Its Alembic configuration. Empty: it has no migrations here.", default="")
    optional: bool = setting("Whether it may be missing when a backup is made.", default=False)


class TreeTable(CheckedTable):
    """Another folder of files."""

    path: str = setting("The folder.", min_length=1)
    optional: bool = setting("Whether it may be missing when a backup is made.", default=False)


def tables(value: object, kind: type[AnyTable]) -> dict[str, AnyTable]:
    """Return the tables from the file, or from JSON in the environment; raise `ValueError` for one that is invalid."""
    value = parsed(value)
    if not isinstance(value, dict):
        raise ValueError("is not a table of tables")
    for name in value:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"holds {printable(name)}, which is not a name: a lower-case letter, then letters, digits, - or _"
            )
        if name in (MAIN_DATABASE, UPLOADS_FOLDER):
            raise ValueError(f"holds {name}, which is the name of what the setting {name} names")
    return {name: one if isinstance(one, kind) else _table(name, one, kind) for name, one in value.items()}


def _table(name: str, value: object, kind: type[AnyTable]) -> AnyTable:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a table")
    try:
        return kind(**value)
    except Invalid as error:
        raise ValueError(f"{name}.{printable(error.name)} {error.reason}") from error


def colliding(databases: list[str], folders: list[str]) -> str:
    """Return two names that cannot both be in one backup, as some file systems ignore case; empty if none collide."""
    taken = {name.casefold(): name for name in RESERVED}
    for name in folders:
        if ((other := taken.setdefault(name.casefold(), name)) and other != name) or name in RESERVED[1:]:
            return f"{printable(name)} and {printable(other)}"
    for name in databases:
        for suffix in _SIDECARS:
            if (key := f"{name}{suffix}".casefold()) in taken:
                return f"{printable(name)} and {printable(taken[key])}"
            taken[key] = name
    return ""
