"""The first place: is my data safe? One sentence, the numbers behind it, a calendar and a chart."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.events import Resize
from textual.widgets import Static

from backupkit.cli import render
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.durations import ago
from backupkit.monitoring.overview import Overview, overview
from backupkit.monitoring.status import Numbers, Status
from backupkit.ui import drawing, styles
from backupkit.ui.page import Page
from backupkit.ui.world import RepositoryState

_CHART = 6  # rows, where the window is small
_WEEKS = 13


class OverviewPage(Page):
    """Is my data safe?"""

    place = "overview"
    title = "Overview"
    DEFAULT_CSS = """
    OverviewPage { padding: 0; }
    OverviewPage #all { height: 1fr; scrollbar-size: 1 1; }
    OverviewPage #sentence { height: auto; border: round $panel; padding: 0 1; text-style: bold; }
    OverviewPage #sentence.is-fine { border: round $success; color: $success; }
    OverviewPage #sentence.is-warning { border: round $warning; color: $warning; }
    OverviewPage #sentence.is-critical { border: round $error; color: $error; }
    OverviewPage #reasons { height: auto; padding: 0 2; margin-bottom: 1; color: $foreground 85%; display: none; }
    OverviewPage #middle { height: auto; padding: 0 1; }
    OverviewPage #numbers { width: 1fr; height: auto; }
    OverviewPage #calendar { width: 35; height: auto; }
    OverviewPage #chart { height: auto; padding: 0 1; margin-top: 1; color: $primary; }
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.world: RepositoryState | None = None
        self.seen = Overview()

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="all", can_focus=True):
            yield Static("Looking …", id="sentence", markup=False)
            yield Static("", id="reasons", markup=False)
            with Horizontal(id="middle"):
                yield Static("", id="numbers")
                yield Static("", id="calendar")
            yield Static("", id="chart", markup=False)

    def show_world(self, world: RepositoryState) -> None:
        self.world = world
        self.seen = overview(self.settings, world.facts, _WEEKS)
        self._say(world.status)
        self._draw()

    def on_resize(self, _resized: Resize) -> None:
        self._draw()

    def _say(self, status: Status) -> None:
        sentence = self.query_one("#sentence", Static)
        sentence.update(f"{styles.LEVEL_SYMBOLS[status.level]} {status.sentence}")
        sentence.set_classes(f"is-{status.level}")
        reasons = self.query_one("#reasons", Static)
        reasons.display = len(status.reasons) > 1
        reasons.update("\n".join(_other_reasons(status)))

    def _draw(self) -> None:
        if self.world is None:
            return
        colours = styles.colours(self.app.theme_variables)
        numbers = Text("\n").join(_numbers(self.settings, self.world.status.numbers))
        self.query_one("#numbers", Static).update(numbers)
        calendar = Text("\n").join((drawing.calendar(self.seen.weeks, colours), drawing.legend(colours)))
        self.query_one("#calendar", Static).update(calendar)
        height = max(self.size.height - 17, _CHART)
        lines = drawing.chart(self.seen.sizes, max(self.size.width - 4, 40), min(height, 14), self.world.facts.now)
        self.query_one("#chart", Static).update("\n".join(lines))


def _other_reasons(status: Status) -> Iterator[str]:
    """What else there is, and what mends it."""
    for reason in status.reasons[1:]:
        yield f"{styles.LEVEL_SYMBOLS[reason.level]} {reason.text} Type: {reason.fix}"


def _numbers(settings: Settings, numbers: Numbers) -> Iterator[Text]:
    """A line for each, its name first."""
    times = (
        ("Last backup", numbers.last_backup_at),
        ("Checked", numbers.newest_checked_at),
        ("Proven", numbers.newest_proven_at),
    )
    yield from (_line(label, _when(settings, numbers.now, at)) for label, at in times)
    yield _line("Next run", _next_run(settings, numbers))
    kept = f"{numbers.backups:,}, {format_bytes(numbers.unique_bytes)} on disk"
    yield _line("Backups", kept)
    yield _line("", f"they grow by {format_bytes(numbers.growth_bytes_per_day)} a day")
    yield _line("Disk", _space(numbers))


def _line(label: str, text: str) -> Text:
    line = Text(f"{label:12}", style="dim", no_wrap=True, overflow="ellipsis")
    line.append(text, style="not dim")
    return line


def _when(settings: Settings, now: datetime, at: datetime | None) -> str:
    if at is None:
        return "never yet"
    return f"{ago((now - at).total_seconds())}, {settings.local(at):%b %d %H:%M}"


def _next_run(settings: Settings, numbers: Numbers) -> str:
    at = numbers.next_run_at
    return f"{settings.local(at):%Y-%m-%d %H:%M}" if at else "no scheduler is running"


def _space(numbers: Numbers) -> str:
    if numbers.free_bytes is None:
        return "not known"
    lasts = "" if numbers.days_left is None else f", full in {render.lasting(numbers.days_left)}"
    return f"{format_bytes(numbers.free_bytes)} free{lasts}"
