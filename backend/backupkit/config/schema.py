"""What `backup.toml` may hold: as a JSON schema, in a few words, and as a file with every setting."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from backupkit.config.secrets import IN_FILE
from backupkit.config.settings import SETTINGS_FILE, Settings, secret_names
from backupkit.config.table import CheckedTable, Field, fields

SCHEMA_FILE = "backup.schema.json"
_WIDTH = 120
# These defaults are found out, or follow from another setting.
_DEFAULT_IN_WORDS = {
    "dir": "backups in the app's folder; if it has none, ../backups if .. is the project's folder",
    "app_id": "the database's name",
    "warning_age": "1.25 x expected_interval",
    "critical_age": "2 x warning_age if that is set, else 2.25 x expected_interval",
    "proven_within": "2.25 x the interval of test_schedule while a scheduler runs, else never",
    "carried_within": "2.25 x expected_interval",
}
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "min_length": "minLength"}
_COLUMN = {"type": ["array", "string", "object"], "items": {"type": "string"}}  # a list, one text, or a table's columns
_HEAD = """\
The settings of the backups. Each line shows a default; remove the # before it, and it is in force.
The environment overrides this file: BACKUP_TIMEZONE there is timezone here. `config` shows every value and its origin;
`config set timezone Europe/Berlin` changes this file. Relative paths start in the folder of this file.
"""


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the file, for editors that complete and check it. It is cached: do not change it."""
    properties: dict[str, Any] = {}
    for name, declared in fields(Settings).items():
        if name == "app_dir":
            continue
        properties[name] = _described(name, declared)
        if name in secret_names():
            text = f"The file that holds {name}: {declared.description}"
            properties[name + IN_FILE] = {"type": "string", "description": text}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": SETTINGS_FILE,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _described(name: str, declared: Field) -> dict[str, Any]:
    """Return the schema of one setting, without what TOML cannot express."""
    found: dict[str, Any] = {"description": declared.description} if declared.description else {}
    if not (declared.is_required or declared.default in (None, "") or name in _DEFAULT_IN_WORDS):
        default = declared.default
        found["default"] = str(default) if isinstance(default, Path) else default
    found |= {_LIMITS[key]: limit for key, limit in declared.limits.items()}
    found |= {"type": "object", "additionalProperties": _COLUMN} if name == "references" else _form(declared.type)
    return dict(sorted(found.items()))


def _form(kind: Any) -> dict[str, Any]:
    """Return the schema of a type; None beside another type is a setting that is not set."""
    inner = [one for one in get_args(kind) if one is not NoneType]
    if get_origin(kind) is Literal:
        return {**({"const": inner[0]} if len(inner) == 1 else {"enum": inner}), "type": "string"}
    if get_origin(kind) is tuple:
        return {"items": _form(inner[0]), "type": ["array", "string"]}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _form(inner[1])}
    if len(inner) > 1:
        return {"oneOf": [_form(one) for one in inner]}
    kind = inner[0] if inner else kind
    if issubclass(kind, CheckedTable):
        return _table(kind)
    return {"type": {bool: "boolean", int: "integer", float: "number"}.get(kind, "string")}


def _table(kind: type[CheckedTable]) -> dict[str, Any]:
    listed = fields(kind)
    return {
        "additionalProperties": False,
        "description": kind.__doc__,
        "properties": {name: _described(name, one) for name, one in listed.items()},
        "required": [name for name, one in listed.items() if one.is_required],
        "type": "object",
    }


def default_in_words(name: str) -> str:
    """Return where the default comes from, for a setting whose default is not a fixed value; else empty."""
    return _DEFAULT_IN_WORDS.get(name, "")


def allowed(name: str) -> str:
    """Return what the setting may be, in a few words; empty if it may be any text."""
    described = json_schema()["properties"].get(name, {})
    words = described.get("enum") or described.get("items", {}).get("enum")
    if words:
        return f"{'a list of ' if 'items' in described else ''}{', '.join(words[:-1])} or {words[-1]}"
    kind = described.get("type")
    if kind == "boolean":
        return "true or false"
    if kind in ("integer", "number"):
        above = described.get("exclusiveMinimum")
        low = f"from {described['minimum']:g}" if above is None else f"above {above:g}"
        return f"a {'whole ' if kind == 'integer' else ''}number {low} to {described['maximum']:,.15g}"
    return ""


def template(folder: Path) -> str:
    """Return a `backup.toml` with every setting commented out: what it means, what it may be, and its default."""
    lines = ["#:schema ./" + SCHEMA_FILE, ""] if (folder / SCHEMA_FILE).exists() else []
    lines += _comment(_HEAD)
    properties = json_schema()["properties"]
    for name, described in sorted(properties.items(), key=lambda one: one[1].get("type") == "object"):
        if name in fields(Settings):
            lines += ["", *_setting(name, described)]
    return "\n".join(lines) + "\n"


def _setting(name: str, described: dict[str, Any]) -> Iterator[str]:
    text = described.get("description", "")
    may = allowed(name)
    if may and may not in text:
        text += f" It may be {may}."
    if name in _DEFAULT_IN_WORDS:
        text += f" Without it: {_DEFAULT_IN_WORDS[name]}."
    yield from _comment(text)
    if described.get("type") == "object":
        yield f"# [{name}]"
    elif name in secret_names():
        yield f'# {name}{IN_FILE} = ""'
    else:
        default = json.dumps(described.get("default", ""), ensure_ascii=False)  # JSON and TOML write it alike
        yield f"# {name} = {default}"


def _comment(text: str) -> list[str]:
    lines = (wrapped for line in text.splitlines() for wrapped in textwrap.wrap(line, _WIDTH - 2))
    return [f"# {line}" for line in lines]
