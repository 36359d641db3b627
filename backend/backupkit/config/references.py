"""The setting `references`: by table and column, the paths of the uploads that the column's values name."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from backupkit.config.table import Earlier, parsed
from backupkit.model.backup import UPLOADS_FOLDER
from backupkit.model.names import printable

_VALUE = "{value}"


def paths_by_column(value: object, _: Earlier) -> dict[str, tuple[str, ...]]:
    """Return the paths by `table.column`; a table may be nested, as TOML reads `documents.path = …` without quotes.

    Raise `ValueError`, which says what is wrong with which column.
    """
    value = parsed(value)
    if not isinstance(value, dict):
        raise ValueError("is not a table of columns")
    return {column: _paths(column, paths) for column, paths in _flat(value, "")}


def _flat(value: dict[str, object], above: str) -> Iterator[tuple[str, object]]:
    for name, one in value.items():
        if isinstance(one, dict) and not above:
            yield from _flat(one, f"{name}.")
        else:
            yield f"{above}{name}", one


def _paths(column: str, value: object) -> tuple[str, ...]:
    table, _, name = column.rpartition(".")
    if not table or not name:
        raise ValueError(f"has {printable(column)}, which is not a table and a column, such as documents.path")
    paths = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not paths:
        raise ValueError(f"has no path for {printable(column)}")
    for path in paths:
        _check(column, path)
    return paths


def _check(column: str, path: object) -> None:
    if not isinstance(path, str) or _VALUE not in path:
        raise ValueError(f"has a path without {_VALUE} for {printable(column)}")
    if not posixpath.normpath(path.replace(_VALUE, "x")).startswith(f"{UPLOADS_FOLDER}/"):
        raise ValueError(f"has a path that is not below {UPLOADS_FOLDER}/ for {printable(column)}: {printable(path)}")
