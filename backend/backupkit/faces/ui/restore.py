"""The place "Restore"."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from backupkit.faces.ui.page import Page


class RestorePage(Page):
    """To be built."""

    place = "restore"
    title = "Restore"

    def compose(self) -> ComposeResult:
        yield Static("Restore")
