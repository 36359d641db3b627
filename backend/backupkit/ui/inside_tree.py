"""What is in a backup, as a tree: its tables, and its uploads, each folder read when it is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.text import Text
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.errors import BackupError
from backupkit.model.names import printable
from backupkit.verify.browse import Folder, Item, Table, look_into, tables


@dataclass(frozen=True)
class Spot:
    """What a line of the tree stands for: a folder or something in one, by its path; or a table by its name.

    `more` stands for the rest of a folder, from the place `start` on.
    """

    kind: Literal["tables", "table", "folder", "item", "more", "note"]
    path: str = ""
    item: Item | None = None
    rows: int = 0
    start: int = 0


@dataclass(frozen=True)
class Contents:
    """What a backup has in it, as far as it is shown at first; or why it has none of it."""

    name: str
    tables: tuple[Table, ...] | BackupError
    uploads: Folder | BackupError


def read_contents(settings: Settings, name: str) -> Contents:
    """The names of the tables, and what lies at the top of the uploads. For a thread."""
    found: list[object] = []
    for read in (tables, look_into):
        try:
            found.append(read(settings, name))
        except BackupError as error:
            found.append(error)
    return Contents(name, *found)  # type: ignore[arg-type]


class ContentsTree(Tree[Spot]):
    """A tree that is filled as it is opened; the page reads for it, and hands it what was read."""

    DEFAULT_CSS = """
    ContentsTree { background: transparent; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 1; padding: 0; }
    """

    def __init__(self) -> None:
        super().__init__("")
        self.show_root, self.guide_depth = False, 2

    def fill(self, contents: Contents) -> None:
        """The tree of another backup, both of its branches open."""
        self.clear()
        self._add_tables(contents.tables)
        if isinstance(contents.uploads, BackupError):
            self._add_note("Uploads: none", contents.uploads)
        else:
            top = self.root.add(Text("Uploads", style="bold"), Spot("folder"), expand=True)
            self.add_items(top, contents.uploads)
        self.cursor_line = 0

    def add_items(self, node: TreeNode[Spot], folder: Folder) -> None:
        """What was read of a folder, below its line or in place of the line for its rest."""
        if node.data and node.data.kind == "more" and node.parent:
            rest, node = node, node.parent
            rest.remove()
        for item in folder.items:
            spot = Spot("folder" if item.form == "folder" else "item", _below(folder.path, item.name), item)
            label = Text(printable(item.name), no_wrap=True)
            node.add(label, spot) if item.form == "folder" else node.add_leaf(self._with_size(label, item), spot)
        seen = folder.start + len(folder.items)
        if seen < folder.total:
            text = Text(f"… {folder.total - seen:,} more", style="italic")
            node.add_leaf(text, Spot("more", folder.path, start=seen))
        if not folder.total:
            node.add_leaf(Text("empty", style="dim italic"), Spot("note"))

    def _add_tables(self, found: Iterable[Table] | BackupError) -> None:
        if isinstance(found, BackupError):
            return self._add_note("Tables: none", found)
        node = self.root.add(Text("Tables", style="bold"), Spot("tables"), expand=True)
        for table in found:
            label = Text(printable(table.name), no_wrap=True)
            label.append(f"  {table.rows:,}", style="dim")
            node.add_leaf(label, Spot("table", table.name, rows=table.rows))

    def _add_note(self, title: str, error: BackupError) -> None:
        node = self.root.add(Text(title, style="bold"), Spot("note"), expand=True)
        node.add_leaf(Text(error.message, style="dim"), Spot("note"))

    def _with_size(self, label: Text, item: Item) -> Text:
        caption = {"file": format_bytes(item.size_bytes), "link": f"→ {printable(item.target)}", "special": "special"}
        return label.append(f"  {caption[item.form]}", style="dim")


def described(settings: Settings, spot: Spot) -> Text:
    """What is known of a name in the uploads."""
    item = spot.item
    assert item
    lines = [("Path", printable(spot.path)), ("Kind", item.form)]
    if item.form == "file":
        lines.append(
            ("Size", f"{item.size_bytes:,} bytes" if item.size_bytes > 1000 else format_bytes(item.size_bytes))
        )
    if item.target:
        lines.append(("Leads to", printable(item.target)))
    lines.append(("Changed", f"{settings.local(item.changed_at):%Y-%m-%d %H:%M:%S %Z}"))
    text = Text()
    for label, value in lines:
        text.append(f"{label:<10}", style="bold").append(f"{value}\n")
    return text


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
