"""One place of the window. How to write one is in `ui/__init__.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.containers import Vertical
from textual.widgets import DataTable

from backupkit.config.settings import Settings

if TYPE_CHECKING:
    from backupkit.ui.window import BackupApp
    from backupkit.ui.world import RepositoryState


class Page(Vertical):
    """A place a person can go to by its key or its tab."""

    place: ClassVar[str] = ""
    """Its name in the code, and its id: `window.go(place)`."""
    title: ClassVar[str] = ""
    """What its tab says."""

    DEFAULT_CSS = """
    Page { padding: 0 1; }
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(id=f"page-{self.place}")
        self.settings = settings

    @property
    def window(self) -> BackupApp:
        from backupkit.ui.window import BackupApp

        assert isinstance(self.app, BackupApp)
        return self.app

    def show_world(self, world: RepositoryState) -> None:
        """Show what is on disk now: the page came into view, or something changed while it was."""

    def about(self, name: str) -> None:
        """A person came here for the backup of that name."""

    def take_focus(self) -> None:
        """The page came into view by a key or a click: the keyboard goes to what is used first."""
        for widget in self.query("*"):
            if widget.focusable:
                widget.focus(scroll_visible=False)
                return


class TablePage(Page):
    """A place with one table, which the keyboard goes to first."""

    @property
    def table(self) -> DataTable[object]:
        return self.query_one(DataTable)

    def take_focus(self) -> None:
        self.table.focus()


def fill(table: DataTable[Text], heads: Sequence[Text | str], rows: Sequence[Sequence[Text]]) -> None:
    """These rows and no others, each column as wide as the widest that is in it.

    The widths are told: a table measures by itself only when it is idle, and cuts what was filled in twice before.
    """
    table.clear(columns=True)
    for number, head in enumerate(heads):
        widest = max(row[number].cell_len for row in rows) if rows else 0
        table.add_column(head, width=max(widest, len(head), 1))
    table.add_rows(rows)
