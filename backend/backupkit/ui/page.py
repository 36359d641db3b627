"""The base class of the pages. How to write a page is in `ui/__init__.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Vertical

from backupkit.config.settings import Settings

if TYPE_CHECKING:
    from backupkit.ui.window import BackupApp
    from backupkit.ui.world import RepositoryState


class Page(Vertical):
    """A page that a person opens by its key or its tab."""

    place: ClassVar[str] = ""
    """The id of its tab, for `window.action_go(place)`."""
    title: ClassVar[str] = ""
    """The title of its tab."""
    first: ClassVar[str] = ""
    """The CSS selector of the widget that gets the focus when the page comes into view."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(id=f"page-{self.place}")
        self.settings = settings

    @property
    def window(self) -> BackupApp:
        from backupkit.ui.window import BackupApp

        assert isinstance(self.app, BackupApp)
        return self.app

    def show_world(self, world: RepositoryState) -> None:
        """Show this state; called when the page comes into view, and when something changed while it is."""

    def take_focus(self) -> None:
        """Focus the first widget; called when the page comes into view."""
        self.query_one(self.first).focus(scroll_visible=False)
