"""Whether what came back is what was there: every table's rows, the schema, every file's path, mode, time and bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import App
from benchmarks.measure import Failed

Prints = dict[str, str]
"""Fingerprints by what they are of: `schema`, `table NAME`, `uploads FOLDER`."""


@dataclass(frozen=True)
class Copy:
    """A database file and a folder of uploads, wherever they lie."""

    database: Path
    uploads: Path


def of(app: App) -> Prints:
    """The live data, read through SQLite."""
    with contextlib.closing(sqlite3.connect(app.database)) as live:
        return _of_database(live) | _of_uploads(app.uploads)


def of_copy(copy: Copy) -> Prints:
    """A copy that nobody writes to; nothing is left beside it."""
    return of_database(copy.database) | _of_uploads(copy.uploads)


def of_database(path: Path) -> Prints:
    """A closed database by itself."""
    if not path.is_file():
        raise Failed(f"{path} is missing.")
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as closed:
        return _of_database(closed)


def rows_of(prints: Prints) -> Prints:
    """The database's share."""
    return {name: value for name, value in prints.items() if not name.startswith("uploads")}


def compare(who: str, found: Prints, expected: Prints) -> None:
    """`Failed`, naming what differs."""
    names = sorted(found.keys() | expected.keys())
    different = [name for name in names if found.get(name) != expected.get(name)]
    if different:
        raise Failed(f"The result of {who} is not what it must be; these differ: {', '.join(different[:8])}.")


def require_sound(who: str, database: Path) -> None:
    """`Failed` where SQLite finds the file broken or empty."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        found = opened.execute("PRAGMA quick_check(1)").fetchone()[0]
        rows = opened.execute("SELECT count(*) FROM applications").fetchone()[0]
    if found != "ok" or not rows:
        raise Failed(f"The database that {who} left is not sound: {found}, {rows} applications.")


def _of_database(opened: sqlite3.Connection) -> Prints:
    statement = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
    schema = opened.execute(statement).fetchall()
    tables = [name for kind, name, _ in schema if kind == "table"]
    prints = {f"table {name}": _digest(repr(row) for row in opened.execute(f"SELECT * FROM {name}")) for name in tables}
    return prints | {"schema": _digest(map(repr, schema))}


def _of_uploads(folder: Path) -> Prints:
    """One print for each folder directly below, so that a million files take no memory here."""
    if not folder.is_dir():
        return {"uploads": "missing"}
    return {f"uploads {top.name}": _digest(_facts(top)) for top in sorted(folder.iterdir())}


def _facts(path: Path) -> Iterator[str]:
    facts = path.lstat()
    if stat.S_ISDIR(facts.st_mode):
        yield f"{path.name} {facts.st_mode:o}"
        for name in sorted(os.listdir(path)):
            yield from _facts(path / name)
    else:
        # Whole seconds: some of the peers keep no finer time.
        yield f"{path.name} {facts.st_mode:o} {facts.st_size} {facts.st_mtime_ns // 10**9} {_hash(path)}"


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode(errors="surrogatepass") + b"\n")
    return digest.hexdigest()
