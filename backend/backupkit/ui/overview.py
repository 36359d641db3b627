"""The overview page: the status, the next runs, and the retention rules."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from backupkit.cli import render
from backupkit.retention.rules import policy_of
from backupkit.ui import styles
from backupkit.ui.dialogs import said
from backupkit.ui.page import Page
from backupkit.ui.world import RepositoryState

_ELSEWHERE = "Schedule and retention are edited in `web`, or by `config set`; a calendar and charts are in `report`."


class OverviewPage(Page):
    """The page that shows whether the data is safe."""

    place = "overview"
    title = "Overview"
    first = "VerticalScroll"
    DEFAULT_CSS = """
    OverviewPage VerticalScroll { scrollbar-size: 1 1; }
    OverviewPage #sentence { border: round $panel; padding: 0 1; text-style: bold; }
    OverviewPage #sentence.is-fine { border: round $success; color: $success; }
    OverviewPage #sentence.is-warning { border: round $warning; color: $warning; }
    OverviewPage #sentence.is-critical { border: round $error; color: $error; }
    OverviewPage #rest { padding: 0 2; }
    """

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static("Looking …", id="sentence", markup=False)
            yield Static("", id="rest", markup=False)

    def show_world(self, world: RepositoryState) -> None:
        sentence, *rest = render.status(self.settings, world.status)
        level = world.status.level
        self.query_one("#sentence", Static).update(f"{styles.LEVEL_SYMBOLS[level]} {sentence}")
        self.query_one("#sentence").set_classes(f"is-{level}")
        runs = ["", "Next runs", *render.due(self.settings, world.runs)]
        kept = ["", "What retention keeps", *render.policy(policy_of(self.settings))]
        self.query_one("#rest", Static).update(said([*rest, *runs, *kept, "", _ELSEWHERE]))
