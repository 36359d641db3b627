"""Some of the uploads, chosen by patterns: they alone are looked at, taken out or put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backupkit.fs import tree
from backupkit.fs.tree import Entry
from backupkit.model.errors import NoSuchBackup
from backupkit.model.names import few
from backupkit.model.patterns import Patterns

Pair = tuple[Entry | None, Entry | None]


@dataclass(frozen=True)
class Chosen:
    """Paths of a tree: those that were chosen, files and links among them as `leaves`, and the folders `above` them."""

    paths: frozenset[str]
    leaves: frozenset[str]
    above: frozenset[str]
    bytes: int

    def pairs(self, found: Iterable[Pair]) -> Iterator[Pair]:
        """Of live entries beside wanted ones those that count; a folder that is there stays as it is."""
        return (pair for pair in found if self._counts(*pair))

    def _counts(self, live: Entry | None, wanted: Entry | None) -> bool:
        if wanted is None:
            return bool(live and any(path in self.leaves for path in tree.with_parents(live.path)))
        if wanted.form != "folder":
            return wanted.path in self.leaves
        is_there = live is not None and live.form == "folder"
        return not is_there and (wanted.path in self.paths or wanted.path in self.above)


def of_paths(root: Path, paths: Iterable[str]) -> Chosen:
    """Those of the paths that are files or links in the tree."""
    there = (tree.look(root, path) for path in paths)
    entries = [one for one in there if one and one.form in ("file", "link")]
    leaves = frozenset(one.path for one in entries)
    return Chosen(leaves, leaves, _above(leaves), sum(tree.content_size(one.facts) for one in entries))


def _above(leaves: Iterable[str]) -> frozenset[str]:
    return frozenset(path for leaf in leaves for path in tree.with_parents(leaf) if path != leaf)


def choose(root: Path, lines: Iterable[str], where: str) -> Chosen:
    """What the patterns mean of the tree; all of it without any. `NoSuchBackup` for one that means nothing `where`."""
    lines = tuple(lines)
    patterns = Patterns(lines)
    there = (one for one in tree.walk(root) if one.form != "special")
    entries = [one for one in there if not lines or patterns.match(one.path, one.form == "folder")]
    if missing := patterns.unmatched or ([] if entries else list(lines)):
        raise NoSuchBackup(
            f"Nothing in the {root.name} of {where} matches {few(missing)}.",
            hint=f"`files {where}` lists what is in it.",
        )
    leaves = frozenset(one.path for one in entries if one.form != "folder")
    size = sum(tree.content_size(one.facts) for one in entries if one.form == "file")
    return Chosen(frozenset(one.path for one in entries), leaves, _above(leaves), size)
