"""The place "Backups"."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from backupkit.faces.ui.page import Page


class BackupsPage(Page):
    """To be built."""

    place = "backups"
    title = "Backups"

    def compose(self) -> ComposeResult:
        yield Static("Backups")
