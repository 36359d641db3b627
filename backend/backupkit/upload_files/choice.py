"""Uploads chosen by patterns, to list, extract or restore only those."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from backupkit.fs import tree
from backupkit.fs.tree import Entry
from backupkit.model.errors import NoSuchBackup
from backupkit.model.names import few
from backupkit.model.patterns import Patterns

Pair = tuple[Entry | None, Entry | None]


class Chosen(Struct, frozen=True):
    """The chosen paths of a tree; `leaves` are the files and links among them, `above` the folders above those.

    `bytes` is the size of the files on disk.
    """

    paths: frozenset[str]
    leaves: frozenset[str]
    above: frozenset[str]
    bytes: int

    @classmethod
    def of(cls, entries: Collection[Entry]) -> Chosen:
        """Return the choice of these entries."""
        leaves = frozenset(one.path for one in entries if one.form != "folder")
        size = sum(tree.content_size(one.facts) for one in entries if one.form == "file")
        return cls(frozenset(one.path for one in entries), leaves, _above(leaves), size)

    def leads_to(self, folder: str) -> bool:
        """Return whether a walk must enter the folder: it is chosen, above a chosen leaf, or in the way of one."""
        return folder in self.above or folder in self.paths or self._is_in_leaf(folder)

    def _is_in_leaf(self, path: str) -> bool:
        """Return whether the path is that of a chosen file or link, or below it."""
        return any(one in self.leaves for one in tree.with_parents(path))

    def pairs(self, found: Iterable[Pair]) -> Iterator[Pair]:
        """Yield the pairs of live and wanted entries that the choice affects; an existing folder stays as it is."""
        return (pair for pair in found if self._affects(*pair))

    def _affects(self, live: Entry | None, wanted: Entry | None) -> bool:
        if wanted is None:
            return live is not None and self._is_in_leaf(live.path)
        if wanted.form != "folder":
            return wanted.path in self.leaves
        is_there = live is not None and live.form == "folder"
        return not is_there and (wanted.path in self.paths or wanted.path in self.above)


def of_paths(root: Path, paths: Iterable[str]) -> Chosen:
    """Return the choice of those paths that are files or links in the tree."""
    there = (tree.look(root, path) for path in paths)
    return Chosen.of([one for one in there if one and one.form in ("file", "link")])


def _above(leaves: Iterable[str]) -> frozenset[str]:
    return frozenset(path for leaf in leaves for path in tree.with_parents(leaf) if path != leaf)


def choose(root: Path, lines: Iterable[str], where: str) -> Chosen:
    """Return the choice of what the patterns match in the tree, or of everything if there are none.

    Raise `NoSuchBackup` if a pattern matches nothing; `where` is the backup's name for the message.
    """
    return Chosen.of(matching(root, lines, where))


def matching(root: Path, lines: Iterable[str], where: str) -> list[Entry]:
    """Return the matching entries in the order of a walk; as `choose`."""
    lines = tuple(lines)
    patterns = Patterns(lines)
    found = _matching_entries(root, patterns) if lines else tree.walk(root)
    entries = [one for one in found if one.form != "special"]
    if missing := patterns.unmatched or ([] if entries else list(lines)):
        raise NoSuchBackup(
            f"Nothing in the {root.name} of {where} matches {few(missing)}.",
            hint=f"`files {where}` lists what is in it.",
        )
    return entries


def _matching_entries(root: Path, patterns: Patterns) -> Iterator[Entry]:
    with closing(tree.Parents(root)) as parents:
        for path, is_folder in tree.paths(root):
            if patterns.match(path, is_folder) and (entry := parents.look(path)):
                yield entry
