"""The app: its pages and keys, and the state of the backups folder."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
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
from backupkit.model.errors import BackupError
from backupkit.ui import styles
from backupkit.ui.backups import BackupsPage
from backupkit.ui.dialogs import Message, error_message
from backupkit.ui.history import HistoryPage
from backupkit.ui.overview import OverviewPage
from backupkit.ui.page import Page
from backupkit.ui.terminal import PrintableFilter, TerminalDriver
from backupkit.ui.work import WorkScreen
from backupkit.ui.world import RepositoryState, fingerprint, read_state

Found = TypeVar("Found")
PLACES: tuple[type[Page], ...] = (OverviewPage, BackupsPage, HistoryPage)
_CHECK_INTERVAL = 2.0  # seconds between two checks for changes by other processes
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

HELP = """\
1 to 3  overview, backups, history
Tab     next element; arrows move, Enter selects
Esc     closes a dialog; cancels a running task, where that is safe
t       dark or light
r       look again now; what others do shows by itself in seconds
?       this page
q       quit

Backups
Enter   one of them in full
b       back up now, with a name and a note
R       restore: the plan first, then its name is typed
u       take the last restore back, in the same way
v       verify: every byte is read and compared
p       prove: a test restore, in a scratch folder
k       keep: pin it, or unpin it
D       delete it, after a question
/       find by name, note, revision, commit, state; Esc shows all again
s       sort by the next column; or click on a heading

History
Enter   an operation in full
f       failures only, or all

★ proven by a test restore   ✓ checked   · unchecked   ✗ damaged
◆ pinned   ! unusual

Everything here is a command too, and more: ./backup.sh --help
Files and rows in a backup: ./backup.sh web, or files NAME, rows NAME TABLE
Copies elsewhere: ./backup.sh web, or push NAME, export NAME FILE
Schedule and retention: ./backup.sh web, or config set
"""
_THEMES = ("textual-dark", "textual-light")
_PRINTABLE = PrintableFilter()


class BackupApp(App[None]):
    """The terminal interface; tests pass a clock."""

    TITLE = "Backups"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(key), f"go('{page.place}')", page.title, show=False) for key, page in enumerate(PLACES, 1)),
        Binding("question_mark", "show_help", "Help", key_display="?"),
        Binding("t", "toggle_theme", "Dark/light", show=False),
        Binding("r", "look", "Look again", show=False),
        Binding("q", "quit", "Quit"),
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
        self.world: RepositoryState | None = None
        self._fingerprint: tuple[object, ...] = ()
        self.theme = _THEMES[0]

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
        self._look_if_changed()
        self.set_interval(_CHECK_INTERVAL, self._look_if_changed)

    # Pages

    @property
    def page(self) -> Page:
        """The page in view."""
        return self.query_one(f"#page-{self.query_one(TabbedContent).active}", Page)

    def action_go(self, place: str) -> None:
        """Show that page."""
        self.query_one(TabbedContent).active = place

    def on_tabbed_content_tab_activated(self) -> None:
        self.page.take_focus()
        self._show_current()

    # State

    def action_look(self) -> None:
        """Read the state from disk now, changed or not."""
        self._fingerprint = ()
        self._look_if_changed()

    @work(thread=True, exclusive=True, group="look")
    def _look_if_changed(self) -> None:
        """Read and show the state if it changed; in a thread, since a slow disk may hold thousands of backups."""
        try:
            seen = fingerprint(self.settings)
            if seen != self._fingerprint:
                world = read_state(self.settings, self.clock)
                self.call_from_thread(self._if_running, lambda: self._show(world, seen))
        except OSError as error:
            words = in_words(error).message
            self.call_from_thread(self._if_running, lambda: self.notify(words, severity="error"))

    def _if_running(self, show: Callable[[], object]) -> None:
        """Call `show`, unless the app has ended meanwhile and the widgets are gone."""
        if self.is_running:
            show()

    def _show(self, world: RepositoryState, seen: tuple[object, ...]) -> None:
        self.world, self._fingerprint = world, seen
        level = self.query_one("#level", Label)
        level.update(f"{styles.LEVEL_SYMBOLS[world.status.level]} {styles.LEVEL_WORDS[world.status.level]}")
        level.set_classes(f"level-{world.status.level}")
        at_work = self.query_one("#at-work", Label)
        at_work.update(f"At work now: {world.at_work}")
        at_work.set_class(bool(world.at_work), "shown")
        self.page.show_world(world)

    def _show_current(self) -> None:
        """Show the current state on the page in view."""
        if self.world:
            self.page.show_world(self.world)

    # Services for pages

    async def carry_out(self, task: Task[Found]) -> Ended[Found]:
        """Run the task in a dialog that shows its progress; return how it ended. Await it in a worker."""
        ended: Ended[Found] = await self.push_screen_wait(WorkScreen(task))
        self.action_look()
        return ended

    def show_error(self, error: BackupError) -> None:
        """Show the message and the hint of the error, as on the command line."""
        self.push_screen(error_message(error))

    def action_show_help(self) -> None:
        self.push_screen(Message("Help", HELP.splitlines()))

    def action_toggle_theme(self) -> None:
        self.theme = _THEMES[self.theme == _THEMES[0]]

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
