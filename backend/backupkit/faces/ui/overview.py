"""The place "Overview"."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from backupkit.faces.ui.page import Page


class OverviewPage(Page):
    """To be built."""

    place = "overview"
    title = "Overview"

    def compose(self) -> ComposeResult:
        yield Static("Overview")
