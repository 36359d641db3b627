"""The place "History"."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from backupkit.faces.ui.page import Page


class HistoryPage(Page):
    """To be built."""

    place = "history"
    title = "History"

    def compose(self) -> ComposeResult:
        yield Static("History")
