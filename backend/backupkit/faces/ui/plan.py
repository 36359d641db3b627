"""The place "Schedule"."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from backupkit.faces.ui.page import Page


class PlanPage(Page):
    """To be built."""

    place = "plan"
    title = "Schedule"

    def compose(self) -> ComposeResult:
        yield Static("Schedule")
