"""Changes to `backup.toml`: create it, set a value, remove one. A value that is not allowed is refused.

Comments, order and everything else in the file stay.
"""

from __future__ import annotations

import errno
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomlkit
from msgspec import Struct

from backupkit.config import schema
from backupkit.config.deployment import is_contained
from backupkit.config.secrets import IN_FILE
from backupkit.config.settings import (
    SETTINGS_FILE,
    Settings,
    check_file,
    known_name,
    overriding_variable,
    parse_file,
    read_text,
    secret_names,
)
from backupkit.fs import disk
from backupkit.model.errors import FULL, BackupError, Locked, NoSpace, Refused


class Changed(Struct, frozen=True):
    """A setting as it is in the file now (None: not in it), and the variable that overrides it, if there is one."""

    setting: str
    value: object
    file: Path
    overridden_by: str = ""
    is_as_before: bool = False


def begin_file(folder: Path) -> Path:
    """Create a `backup.toml` with every setting, commented out; raise `Refused` if there is one."""
    path = folder / SETTINGS_FILE
    if os.path.lexists(path):
        raise Refused(
            f"{path} exists already; it was not changed.",
            hint="`config set KEY VALUE` changes it; `config init --stdout` shows a fresh one.",
        )
    _write(path, schema.template(folder))
    return path


def set_value(folder: Path, key: str, text: str) -> Changed:
    """Set the setting to the typed value, in the file; raise `Refused`, and change nothing, if it is not allowed."""
    name = _settable(key)
    before = read_text(folder)
    return _change(folder, name, before, _edited(folder, before, name, text))


def set_values(folder: Path, typed: Mapping[str, str]) -> Path:
    """Do the same for several settings, all of them or none; return the file's path."""
    before = read_text(folder)
    _write_if_unchanged(folder, before, edited(folder, before, typed))
    return folder / SETTINGS_FILE


def as_typed(value: object) -> str:
    """Return a setting's value as a user types it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)


def edited(folder: Path, text: str, typed: Mapping[str, str]) -> str:
    """Return the file's text with these values in it; raise `Refused` for the first that is not allowed."""
    for key, value in typed.items():
        text = _edited(folder, text, _settable(key), value)
    return text


def _edited(folder: Path, before: str, name: str, text: str) -> str:
    raw = parse_file(folder, before)
    if name in secret_names() and text:
        raise Refused(
            f"{name} is a secret: typed here it would stay in the shell's history and be seen by other users.",
            hint=f"Write it into a file, and type: `config set {name}{IN_FILE} PATH`",
        )
    typed = check_file(folder, _text_with(before, raw, name, text), typed=name)
    return _text_with(before, raw, name, _as_written(name, typed, text))


def unset_value(folder: Path, key: str) -> Changed:
    """Remove the setting from the file; a setting that is not in it is not an error."""
    name = known_name(key)
    before = read_text(folder)
    if name not in parse_file(folder, before):
        return Changed(name, None, folder / SETTINGS_FILE, overriding_variable(name), is_as_before=True)
    document = tomlkit.parse(before)
    document.remove(name)
    return _change(folder, name, before, tomlkit.dumps(document))


def _settable(key: str) -> str:
    name = known_name(key)
    if name == "app_dir":
        raise Refused("app_dir is where this file is, and cannot be in it.", hint="Set BACKUP_APP_DIR.")
    if schema.json_schema()["properties"][name].get("type") == "object":
        raise Refused(f"{name} is a table of its own.", hint=f"Edit {SETTINGS_FILE}; `config init --stdout` shows how.")
    return name


def _change(folder: Path, name: str, before: str, after: str) -> Changed:
    _write_if_unchanged(folder, before, after)
    value = tomllib.loads(after).get(name)
    return Changed(name, value, folder / SETTINGS_FILE, overriding_variable(name.removesuffix(IN_FILE)))


def _write_if_unchanged(folder: Path, before: str, after: str) -> None:
    check_file(folder, after)
    path = folder / SETTINGS_FILE
    with disk.try_lock_dir(folder) as alone:
        if not alone or read_text(folder) != before:
            raise Locked(f"Another process is changing {path}; nothing was changed.", hint="Type it again.")
        if after != before:
            _write(path, after)


def _as_written(name: str, typed: Settings, text: str) -> object:
    """Return what was typed, as the kind of value that the setting is."""
    value = getattr(typed, name, text)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, bool | int | float) else text


def _text_with(before: str, raw: dict[str, object], name: str, value: object) -> str:
    """Return the file with that value: in its old place, else below the comment for it, else behind the others."""
    if name not in raw:
        line = f"{name} = {tomlkit.item(value).as_string()}\n"
        below = re.sub(rf"^# {name} = .*\n", lambda found: found[0] + line, before, count=1, flags=re.M)
        if _parses_to(below, {**raw, name: value}):
            return below
    document = tomlkit.parse(before)
    document[name] = value
    return tomlkit.dumps(document)


def _parses_to(text: str, raw: dict[str, object]) -> bool:
    try:
        return tomllib.loads(text) == raw
    except tomllib.TOMLDecodeError:
        return False


def _write(path: Path, text: str) -> None:
    mount = (
        f"In the compose file, mount the one beside the code: ./backend/{SETTINGS_FILE}:{path}"
        " (where there is none: BACKUP_RUNNER=local ./backup.sh config init)"
    )
    if is_contained(os.environ) and disk.mounts().isdisjoint(map(str, (path, *path.parents[:-1]))):
        raise Refused(f"{path} is part of the image: what is written there is lost with the container.", mount)
    try:
        disk.rewrite_file(path, text.encode())
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(f"The disk is full: {path} is as it was.", "Make room there, then try again.") from error
        hint = f"As its owner, or as root? ls -ld {path.parent} {path}"
        if error.errno == errno.EROFS:
            hint = "It is mounted read-only. Type it on the host: ./backup.sh config set KEY VALUE"
        raise BackupError(f"{path} cannot be written: {error.strerror}.", hint) from error
