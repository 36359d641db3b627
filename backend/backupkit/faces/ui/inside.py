"""The place "Look inside"."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from backupkit.faces.ui.page import Page


class InsidePage(Page):
    """To be built."""

    place = "inside"
    title = "Look inside"

    def compose(self) -> ComposeResult:
        yield Static("Look inside")
