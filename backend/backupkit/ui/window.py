"""The app: its pages and keys, and the state of the backups folder."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from typing import ClassVar, TypeVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.filter import LineFilter
from textual.widgets import Footer, Label, TabbedContent, TabPane

from backupkit.cli.task import Ended, Task, in_words
from backupkit.config.settings import Settings
from backupkit.model.clock import Clock, utc_now
from backupkit.ui import pages
from backupkit.ui.backups import BackupsPage
from backupkit.ui.dialogs import Message
from backupkit.ui.pages import HistoryPage, OverviewPage, Page, RepositoryState
from backupkit.ui.terminal import PrintableFilter, TerminalDriver
from backupkit.ui.work import WorkScreen

Found = TypeVar("Found")
PLACES: tuple[type[Page], ...] = (OverviewPage, BackupsPage, HistoryPage)
_CHECK_INTERVAL = 2.0  # seconds between two checks for changes by other processes
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

HELP = """\
Tab     next element; arrows move, Enter selects
Enter   in a table: one of them in full
Esc     closes a dialog; cancels a running task, where that is safe
"""
LEGEND = """
★ proven by a test restore   ✓ checked   · unchecked   ✗ damaged
◆ pinned   ! unusual

Everything here is a command too, and more: ./backup.sh --help
Files and rows in a backup: ./backup.sh web, or files NAME, rows NAME TABLE
Copies elsewhere: ./backup.sh web, or push NAME, export NAME FILE
Schedule and retention: ./backup.sh web, or config set
"""
_PRINTABLE = PrintableFilter()


class BackupApp(App[None]):
    """The terminal interface; tests pass a clock."""

    TITLE = "Backups"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(key), f"go('{one.place}')", show=False, tooltip=one.place) for key, one in enumerate(PLACES, 1)),
        Binding("?", "show_help", "Help", tooltip="this page"),
        Binding("r", "look", show=False, tooltip="look again now; what others do shows by itself in seconds"),
        Binding("q", "quit", "Quit", tooltip="quit"),
    ]
    CSS = """
    #top { height: 1; background: $panel; padding: 0 1; }
    #whose { width: auto; text-style: bold; }
    #where { width: 1fr; color: $foreground 70%; padding-left: 2; }
    #level { width: auto; text-style: bold; }
    .level-fine { color: $success; }
    .level-warning { color: $warning; }
    .level-critical { color: $error; }
    #at-work { height: 1; padding: 0 1; background: $accent 20%; display: none; }
    #at-work.shown { display: block; }
    TabbedContent { height: 1fr; }
    DataTable { height: 1fr; scrollbar-size: 1 1; background: $background; }
    TabPane { padding: 0; height: 1fr; }
    """

    def get_line_filters(self) -> Sequence[LineFilter]:
        return (*super().get_line_filters(), _PRINTABLE)

    def __init__(self, settings: Settings, clock: Clock = utc_now, place: str = PLACES[0].place) -> None:
        super().__init__(driver_class=TerminalDriver)
        self.settings, self.clock, self._first = settings, clock, place
        self.state: RepositoryState | None = None
        self._fingerprint: tuple[object, ...] = ()
        self._looking = asyncio.Lock()

    def compose(self) -> ComposeResult:
        with Horizontal(id="top"):
            yield Label(f"Backups of {self.settings.app_id}", id="whose", markup=False)
            yield Label(str(self.settings.dir), id="where", markup=False)
            yield Label("…", id="level")
        with TabbedContent(initial=self._first):
            for key, page in enumerate(PLACES, 1):
                with TabPane(f"{key} {page.title}", id=page.place):
                    yield page(self.settings)
        yield Label("", id="at-work", markup=False)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        if not self.is_headless:
            for number in _SIGNALS:
                asyncio.get_running_loop().add_signal_handler(number, self._exit_on_signal)
        self._keep_looking()

    # Pages

    @property
    def page(self) -> Page:
        """The page in view."""
        return self.query_one(f"#page-{self.query_one(TabbedContent).active}", Page)

    def action_go(self, place: str) -> None:
        """Show that page."""
        self.query_one(TabbedContent).active = place

    def on_tabbed_content_tab_activated(self) -> None:
        self.page.query("DataTable, VerticalScroll").first().focus(scroll_visible=False)
        if self.state:
            self.page.show_state(self.state)

    # State

    async def action_look(self) -> None:
        """Read the state from disk now, changed or not."""
        await self._look(anyway=True)

    @work
    async def _keep_looking(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(_CHECK_INTERVAL)

    async def _look(self, anyway: bool = False) -> None:
        """Read and show the state if it changed; in a thread, since a slow disk may hold thousands of backups."""
        try:
            async with self._looking:  # one at a time: an older state must not take the place of a newer one
                seen = await asyncio.to_thread(pages.fingerprint, self.settings)
                if anyway or seen != self._fingerprint:
                    state = await asyncio.to_thread(pages.read_state, self.settings, self.clock)
                    if self.is_running:  # else the app has ended meanwhile, and the widgets are gone
                        self._show(state, seen)
        except OSError as error:
            self.notify(in_words(error).message, severity="error")

    def _show(self, state: RepositoryState, seen: tuple[object, ...]) -> None:
        self.state, self._fingerprint = state, seen
        level, label = state.report.status.level, self.query_one("#level", Label)
        label.update(f"{pages.LEVEL_SYMBOLS[level]} {pages.LEVEL_WORDS[level]}")
        label.set_classes(f"level-{level}")
        at_work = self.query_one("#at-work", Label)
        at_work.update(f"At work now: {state.at_work}")
        at_work.set_class(bool(state.at_work), "shown")
        self.page.show_state(state)

    async def carry_out(self, task: Task[Found]) -> Ended[Found]:
        """Run the task in a dialog that shows its progress; return how it ended. Await it in a worker."""
        ended: Ended[Found] = await self.push_screen_wait(WorkScreen(task))
        await self.action_look()
        return ended

    def action_show_help(self) -> None:
        """Show every key, and what the symbols mean."""
        self.push_screen(Message("Help", [*HELP.splitlines(), *_keys(), *LEGEND.splitlines()]))

    # Exit

    def _exit_on_signal(self) -> None:
        """Exit on a signal: the terminal is gone or the container stops. Cancel a running task where that is safe."""
        for screen in self.screen_stack:
            if isinstance(screen, WorkScreen):
                screen.run.cancel()
        self.exit()

    async def action_quit(self) -> None:
        """Exit, unless a task is running, which would continue unseen."""
        if any(isinstance(screen, WorkScreen) and not screen.ended for screen in self.screen_stack):
            self.notify("Cancel the running task first, or wait until it ends.", severity="warning")
        else:
            self.exit()


def _keys() -> Iterator[str]:
    """Yield each key and what it does: those of every page, then those of one."""
    for title, keys in (("", BackupApp.BINDINGS), ("Backups", BackupsPage.BINDINGS)):
        yield from ["", title] if title else []
        yield from (f"{one.key:7} {one.tooltip}" for one in keys if isinstance(one, Binding) and one.tooltip)
