"""The app's migrations as a graph, and a reader that parses simple migration files without running them."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from backupkit.config.alembic_setup import AlembicSetup, plain_version_folders
from backupkit.model.backup import Migration

_FACTS = ("revision", "down_revision", "depends_on", "branch_labels")


class Tree(Struct, frozen=True):
    """The app's migrations, newest first; `below` maps each revision to those that it depends on.

    `files` are the files it was read from, with their modification times in nanoseconds.
    """

    heads: tuple[str, ...]
    migrations: tuple[Migration, ...]
    below: Mapping[str, tuple[str, ...]]
    files: tuple[tuple[str, int], ...] = ()

    @property
    def target(self) -> str:
        """The argument with which `alembic upgrade` runs all of them."""
        return "heads" if len(self.heads) > 1 else "head"

    def included(self, revisions: Iterable[str]) -> set[str]:
        """Return these revisions and all that they depend on; leave out unknown ones."""
        found: set[str] = set()
        waiting = [one for one in revisions if one in self.below]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self.below[one]
        return found

    def missing_from(self, revisions: Iterable[str], wanted: Iterable[str] | None = None) -> tuple[Migration, ...]:
        """Return the wanted migrations (default: all) that a database at these revisions lacks, oldest first."""
        lacking = set(self.below if wanted is None else wanted) - self.included(revisions)
        return tuple(one for one in reversed(self.migrations) if one.revision in lacking)


class _Script(Struct, frozen=True):
    """The facts in one migration file."""

    revision: str
    below: tuple[str, ...]
    depends: tuple[str, ...]
    title: str


class _NeedsRunning(Exception):
    """A migration file that must be run to be understood."""


def read_plainly(setup: AlembicSetup) -> Tree | None:
    """Return the migrations without running anything; None if they must be run to be understood."""
    folders = plain_version_folders(setup)
    try:
        names = [folder / name for folder in folders for name in sorted(os.listdir(folder))]
        files = [file for file in names if re.fullmatch(r"(?!\.#|__init__).*\.py", file.name)]
        stamps = [(str(one), os.stat(one).st_mtime_ns) for one in (*folders, *files)]
        return _tree([_script(file) for file in files], stamps)
    except (_NeedsRunning, OSError, ValueError, SyntaxError, RecursionError):
        return None


def _tree(scripts: list[_Script], stamps: Iterable[tuple[str, int]]) -> Tree:
    known = {one.revision: one for one in scripts}
    named = {name for one in scripts for name in (*one.below, *one.depends)}
    if not scripts or len(known) != len(scripts) or not named <= set(known):
        raise _NeedsRunning  # a duplicate, a partial id or a branch label, which only Alembic can resolve
    below = {one.revision: (*one.below, *(name for name in one.depends if name not in one.below)) for one in scripts}
    heads = set(known) - {name for one in scripts for name in one.below}
    ordered = list(_oldest_first(below))
    return Tree(
        heads=tuple(sorted(heads)),
        migrations=tuple(Migration(name, known[name].title) for name in reversed(ordered)),
        below=below,
        files=tuple(stamps),
    )


def _oldest_first(below: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    done: set[str] = set()
    while len(done) < len(below):
        ready = sorted(name for name, needs in below.items() if name not in done and done.issuperset(needs))
        if not ready:
            raise _NeedsRunning  # a cycle
        yield from ready
        done.update(ready)


def _script(file: Path) -> _Script:
    module = ast.parse(file.read_bytes())
    facts = _facts(module)
    revision = facts.get("revision")
    if not isinstance(revision, str):
        raise _NeedsRunning
    title = (ast.get_docstring(module, clean=False) or "").strip().split("\n\n")[0]
    return _Script(revision, _names(facts.get("down_revision")), _names(facts.get("depends_on")), title)


def _facts(module: ast.Module) -> dict[str, Any]:
    """Return the literal that each fact is set to, once, at the top level of the module."""
    found: dict[str, Any] = {}
    stored = [one.id for one in ast.walk(module) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
    for name, value in _assignments(module):
        if name in _FACTS:
            if stored.count(name) != 1 or value is None:
                raise _NeedsRunning
            found[name] = ast.literal_eval(value)
    if any(name in stored and name not in found for name in _FACTS):
        raise _NeedsRunning
    return found


def _assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield each name set at the top level of the module: `a = 1`, `a: int = 1`, `a, b = 1, 2`, `a = b = None`."""
    for statement in module.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else ()
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
            if isinstance(target, ast.Name):
                yield target.id, value
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                pairs = zip(target.elts, value.elts, strict=True)
                yield from ((one.id, given) for one, given in pairs if isinstance(one, ast.Name))


def _names(value: object) -> tuple[str, ...]:
    """Return revisions in the form in which a migration names them: none, one, or several."""
    names = (value,) if isinstance(value, str) else value or ()
    if not isinstance(names, list | tuple | set) or not all(isinstance(one, str) for one in names):
        raise _NeedsRunning
    return tuple(names)
