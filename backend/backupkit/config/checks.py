"""What a setting may be, beyond its type and its limits: functions that `settings` names at each setting.

Each gets a value and the values of the settings above it, and returns the value, as it was or in its usual form. It
raises `ValueError`, whose text continues a sentence about the setting, for one that is not allowed.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from backupkit.config.cron import check_cron, parse_time
from backupkit.config.places import RESERVED, DatabaseTable, TreeTable, colliding, tables
from backupkit.config.secrets import SECRET_KEY, SecretUrl
from backupkit.config.table import Earlier
from backupkit.fs import trust
from backupkit.model.errors import Refused
from backupkit.model.patterns import Patterns

WRAPPER = "backup.sh"
# Any of these marks the top folder of a project.
_PROJECT = (".git", "docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml", WRAPPER)
_QUOTED = r"""'[^']*'|\\."""
_ADDRESS = "[A-Za-z][A-Za-z0-9+.-]*://"
_SAMPLE_UPLOADS = ("q7f3w9", "q7f3w9/x5k2m8", "q7f3w9/x5k2m8.h4d6")  # only patterns for everything match all three


# Before a value is converted


def path_in_url(value: object, earlier: Earlier) -> object:
    return path_of(value, earlier["app_dir"])


def empty_is_none(value: object, _: Earlier) -> object:
    return None if value == "" else value


def dot_is_app_folder(value: object, earlier: Earlier) -> object:
    """Return the app folder for `.`, which as a path is the same as nothing, and would be the default."""
    is_dot = isinstance(value, str) and value.strip() and not Path(value.strip()).parts
    return str(earlier["app_dir"]) if is_dot else value


def words(value: object, _: Earlier) -> object:
    return _split(value, r"[\s,]+")


def addresses(value: object, _: Earlier) -> object:
    # A URL may contain a comma: only a comma before another URL separates the two.
    return _split(value, rf"[\s,]+(?={_ADDRESS})|\s+")


def expressions(value: object, _: Earlier) -> object:
    return [one.strip() for one in re.split(r"[;\n]", value) if one.strip()] if isinstance(value, str) else value


def shell_words(value: object, _: Earlier) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def command_without_shell(value: object, _: Earlier) -> object:
    if not isinstance(value, str):
        return value
    bare = re.sub(_QUOTED, "", value)
    if re.search(r"[$`]", bare) or re.search(r"[|&;<>()*?\n]", re.sub(r'"[^"]*"', "", bare)):
        _fail('contains shell syntax, but runs without a shell; to use one: ["sh", "-c", "…"]')
    return tuple(shlex.split(value))


def databases_by_name(value: object, earlier: Earlier) -> dict[str, DatabaseTable]:
    folder = earlier["app_dir"]
    found = {name: _absolute_database(table, folder) for name, table in tables(value, DatabaseTable).items()}
    paths = [str(earlier["database"]), *(one.path for one in found.values())]
    if len(set(paths)) < len(paths):
        _fail("names one database twice")
    _require_distinct([Path(one).name for one in paths], [])
    return found


def _absolute_database(table: DatabaseTable, folder: Path) -> DatabaseTable:
    path = os.path.realpath(absolute_path(folder, Path(str(path_of(table.path, folder)))))
    ini = str(absolute_path(folder, Path(table.alembic_ini))) if table.alembic_ini else ""
    return table.replaced(path=path, alembic_ini=ini)


def trees_by_name(value: object, earlier: Earlier) -> dict[str, TreeTable]:
    folder = earlier["app_dir"]
    given = tables(value, TreeTable)
    found = {name: table.replaced(path=str(absolute_path(folder, Path(table.path)))) for name, table in given.items()}
    taken = [earlier["dir"], *([earlier["uploads"]] if earlier["uploads"] else [])]
    for tree in (Path(os.path.realpath(one.path)) for one in found.values()):
        real = (Path(os.path.realpath(one)) for one in taken)
        if other := next((one for one in real if one in (tree, *tree.parents) or tree in one.parents), None):
            _fail(f"overlap: {tree} and {other}")
        taken.append(tree)
    names = [earlier["database"].name, *(Path(one.path).name for one in earlier["databases"].values())]
    _require_distinct(names, list(found))
    return found


def _require_distinct(databases: list[str], folders: list[str]) -> None:
    if two := colliding(databases, folders):
        _fail(f"cannot be in one backup: {two} would have the same name there")


# After it


def absolute(value: Path | None, earlier: Earlier) -> Path | None:
    return value and absolute_path(earlier["app_dir"], value)


def file_itself(value: Path, _: Earlier) -> Path:
    mine = os.geteuid()  # root becomes the owner of the data later, and looks again
    if mine != 0 and os.path.islink(value) and not trust.is_trusted(owner := os.lstat(value).st_uid):
        _fail(f"is a link of user {owner}, who could lead it to any file of user {mine}")
    # SQLite keeps its -wal beside the file that a link leads to.
    value = Path(os.path.realpath(value))
    if value.name in RESERVED:
        _fail("has a name that is reserved in every backup")
    return value


def backups_folder(value: Path, earlier: Earlier) -> Path:
    folder: Path = earlier["app_dir"]
    return absolute_path(folder, value) if value.parts else default_backups(folder)


def require_urls(value: tuple[SecretUrl, ...], _: Earlier) -> tuple[SecretUrl, ...]:
    if any(not re.match(rf"{_ADDRESS}\S", one.get_secret_value()) for one in value):
        _fail("contains something that is not a URL")
    return value


def require_web_page(value: SecretUrl | None, _: Earlier) -> SecretUrl | None:
    if value and not re.fullmatch(r"https?://[^\s/]+\S*", value.get_secret_value()):
        _fail("is not a web address (http or https)")
    return value


def require_zone(value: str, _: Earlier) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        _fail("is not a time zone; use a name like Europe/Berlin or UTC")
    return value


def require_program(value: tuple[str, ...], _: Earlier) -> tuple[str, ...]:
    if value and not value[0]:
        _fail("names no program")
    if any("\0" in word for word in value):
        _fail("contains a NUL character")
    return value


def require_variables(value: tuple[str, ...], _: Earlier) -> tuple[str, ...]:
    if wrong := [one for one in value if not re.match(r"[A-Za-z_][A-Za-z0-9_]*(=|$)", one)]:
        _fail(f"holds {wrong[0]!r}, which is not a variable")
    return value


def require_public_keys(value: str, _: Earlier) -> str:
    if SECRET_KEY.search(value):
        _fail("holds a secret key of age; the public key is printed by `age-keygen -y KEYFILE`")
    return value


def require_words(value: str, _: Earlier) -> str:
    shlex.split(value)  # a quotation that does not end is a ValueError
    return value


def time_of_day(value: str, _: Earlier) -> str:
    return f"{parse_time(value):%H:%M}"


def require_some_uploads(value: tuple[str, ...], earlier: Earlier) -> tuple[str, ...]:
    if not value:
        return value
    try:
        patterns = Patterns(value)
    except Refused as error:
        raise ValueError(f"cannot be: {error.message.rstrip('.')}") from error
    if all(patterns.match(path, is_folder=False) for path in _SAMPLE_UPLOADS):
        _fail("excludes every upload; empty BACKUP_UPLOADS for backups without them")
    uploads, database = earlier["uploads"], earlier["database"]
    if uploads and database.is_relative_to(os.path.realpath(uploads)):
        inside = database.relative_to(os.path.realpath(uploads))
        if patterns.match(str(inside), is_folder=False):
            _fail(f"excludes the database {database}, which is in each backup")
    return value


def require_file_names(value: tuple[str, ...], _: Earlier) -> tuple[str, ...]:
    if wrong := [one for one in value if one in ("", ".", "..") or "/" in one or "\0" in one]:
        _fail(f"holds {wrong[0]!r}, which is not a name of a file")
    return value


def cron_expressions(value: tuple[str, ...], _: Earlier) -> tuple[str, ...]:
    return tuple(check_cron(one) for one in value)


def cron_or_empty(value: str, _: Earlier) -> str:
    return check_cron(value) if value.strip() else ""


def require_not_below_warning(value: float | None, earlier: Earlier) -> float | None:
    if value is not None and value < (earlier["warning_age"] or 0):
        _fail("is below BACKUP_WARNING_AGE")
    return value


def require_not_above_warning(value: float, earlier: Earlier) -> float:
    if value > earlier["warning_free_days"]:
        _fail("is above BACKUP_WARNING_FREE_DAYS")
    return value


def named_after_database(value: str, earlier: Earlier) -> str:
    database: Path = earlier["database"]
    return value or database.stem


def path_of(database: object, folder: Path) -> object:
    """Return the path as it was given, alone or in a URL; raise `ValueError` if it is none."""
    scheme, mark, rest = str(database).partition("://")
    if not mark:
        return database or _fail("is empty")
    if scheme.split("+")[0] != "sqlite":
        _fail(f"is a {scheme} URL, and only sqlite:/// can be backed up")
    path = rest.partition("?")[0].removeprefix("/")
    if not (folder / path).exists():
        path = unquote(path)  # as newer versions of SQLAlchemy read it
    return path if path and path != ":memory:" else _fail("names no file")


def absolute_path(folder: Path, path: Path) -> Path:
    """Return the path as seen from the folder; `~` is the home. Raise `ValueError` if it is none."""
    if "\0" in str(path):
        _fail("is not a path")
    try:
        return Path(os.path.abspath(folder / path.expanduser()))
    except RuntimeError:
        raise ValueError("begins with a user who does not exist") from None


def default_backups(folder: Path) -> Path:
    """Return `backups` in the app folder; or beside it, if that is still inside the project: apps share no folder."""
    inside = folder / "backups"
    return inside if inside.is_dir() or not _is_project(folder.parent, folder) else folder.parent / "backups"


def _is_project(folder: Path, app: Path) -> bool:
    """Return whether the app's folder is a part of the project in `folder`, judged by files and not by its place."""
    if os.path.lexists(folder / WRAPPER):
        return True
    if folder in (Path("/"), Path(os.path.expanduser("~"))) or any(os.path.lexists(app / mark) for mark in _PROJECT):
        return False
    return any(os.path.lexists(folder / mark) for mark in _PROJECT)


def _split(value: object, between: str) -> object:
    if not isinstance(value, str):
        return value
    return tuple(word for word in re.split(between, value.strip(" \t\r\n,")) if word)


def _fail(reason: str) -> NoReturn:
    raise ValueError(reason)
