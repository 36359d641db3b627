"""Golden files in `tests/contract/`: the keys and types, not the values, that people and other programs rely on.

`tests/run tests/contract/test_golden.py --write-golden` rewrites them. Read the difference before you commit it: a key
may be added, but none may be removed or changed without a new `schema_version`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "contract"
_TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d|Z))?")
_WIDTH = 120
_BY_NAME = ("rows", "rows_before", "rows_after", "changes", "needs", "by_kind", "by_state", "versions")


def shape(*values: Any) -> Any:
    """Return the keys and types of all these JSON values together.

    `?` after a key: its value is null in some. `*`: any key, a name that depends on the data.
    """
    known = [one for one in values if one is not None]
    if not known:
        return "null"
    if all(isinstance(one, dict) for one in known):
        keys = dict.fromkeys(key for one in known for key in one)
        return {_marked(key, known): _field(key, [one[key] for one in known if key in one]) for key in keys}
    if all(isinstance(one, list) for one in known):
        items = [item for one in known for item in one]
        return [shape(*items)] if items else []
    return " or ".join(sorted({_kind(one) for one in known}))


def folded(value: Any, backup: Collection[str]) -> Any:
    """Return the value with one entry in place of all the keys of a backup, which `backup` names."""
    if isinstance(value, list):
        return [folded(one, backup) for one in value]
    if not isinstance(value, dict):
        return value
    own = backup if all(key in value for key in backup) else ()
    rest = {key: folded(one, backup) for key, one in value.items() if key not in own}
    return {"(every key of show)": ""} | rest if own else rest


def _field(key: str, values: list[Any]) -> Any:
    by_name = [one for one in values if isinstance(one, dict)] if key in _BY_NAME else []
    return {"*": shape(*(value for one in by_name for value in one.values()))} if by_name else shape(*values)


def _marked(key: str, known: list[dict[str, Any]]) -> str:
    missing = sum(one.get(key) is None for one in known)
    return key + "?" * (0 < missing < len(known))


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "time" if _TIME.fullmatch(value) else "string"
    return {bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}[type(value)]


def compare(name: str, found: Any, write: bool) -> None:
    """Assert that `found` equals the golden file of that name; with `write`, write the file first."""
    path, text = FOLDER / f"{name}.json", pretty(found) + "\n"
    if write:
        path.write_text(text, encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    difference = difflib.unified_diff(
        before.splitlines(), text.splitlines(), f"contract/{path.name}", "now", lineterm=""
    )
    assert text == before, "\n".join(
        ("What others rely on has changed (tests/golden.py says what to do):", *difference)
    )


def pretty(value: Any, indent: str = "") -> str:
    """Return JSON for people: a value that fits on a line is on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= _WIDTH or not isinstance(value, dict | list):
        return flat
    deeper = indent + "  "
    items = value.items() if isinstance(value, dict) else enumerate(value)
    lines = (
        f"{deeper}{json.dumps(key) + ': ' if isinstance(value, dict) else ''}{pretty(one, deeper)}"
        for key, one in items
    )
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n" + ",\n".join(lines) + f"\n{indent}{last}"
