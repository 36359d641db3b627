"""One place of the window. How to write one is in `ui/__init__.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Vertical

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
    first: ClassVar[str] = ""
    """What the keyboard goes to when it comes into view."""

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

    def take_focus(self) -> None:
        """The page came into view by a key or a click."""
        self.query_one(self.first).focus(scroll_visible=False)
