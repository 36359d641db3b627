"""The pages: what they show (the state of the backups folder, and symbols), their base class, overview and history."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from msgspec import Struct
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import DataTable, Static

from backupkit.cli import render
from backupkit.config.settings import Settings
from backupkit.migrations import schema
from backupkit.model.backup import Backup, SchemaVerdict
from backupkit.model.clock import Clock
from backupkit.model.operation import Operation
from backupkit.monitoring.report_facts import Report, report
from backupkit.repository import flags, history, lock
from backupkit.ui.dialogs import Message, said

if TYPE_CHECKING:
    from backupkit.ui.window import BackupApp

_COLUMNS = ("Started", "Command", "Result", "Took", "Size", "By", "What")
_LOG = "The end of the log is in `web`."
_MOST = 500  # operations that are listed
_ELSEWHERE = "Schedule and retention are edited in `web`, or by `config set`; a calendar and charts are in `report`."
# One-cell symbols that terminal fonts have; the words beside them carry the meaning.
LEVEL_SYMBOLS: Mapping[str, str] = {"fine": "✓", "warning": "!", "critical": "✗"}
LEVEL_WORDS: Mapping[str, str] = {"fine": "SAFE", "warning": "LOOK AT THIS", "critical": "AT RISK"}
STATE_SYMBOLS: Mapping[str, str] = {"proven": "★", "checked": "✓", "unchecked": "·", "damaged": "✗", "raw": "○"}
OUTCOME_SYMBOLS = {"success": "✓", "warning": "!", "failure": "✗", "refused": "-", "interrupted": "✗", "running": "…"}
# ANSI colour names, which Textual maps to its dark or light theme.
_COLOURS: Mapping[str, str] = {"★": "green", "✓": "green", "✗": "red", "○": "yellow", "!": "yellow"}


def coloured(symbol: str, words: str) -> Text:
    """Return the words after the symbol, in its colour."""
    return Text(f"{symbol} {words}", style=_COLOURS.get(symbol, ""))


class RepositoryState(Struct, frozen=True):
    """The report, and the run that holds the lock, in words (`at_work`, empty if none does)."""

    report: Report
    at_work: str
    verdicts: Mapping[tuple[str, ...], SchemaVerdict]
    """How each set of revisions in the backups relates to this code."""

    def verdict(self, backup: Backup) -> SchemaVerdict | None:
        """Return how the backup's revisions relate to this code, or None if they are unknown."""
        return self.verdicts.get(backup.metadata.revisions) if backup.metadata else None


def read_state(settings: Settings, clock: Clock) -> RepositoryState:
    """Read the state: two small files of each backup, and the history. It does not wait for a running backup."""
    found = report(settings, clock)
    return RepositoryState(found, _at_work(settings), schema.classify_each(settings, found.backups))


def fingerprint(settings: Settings) -> tuple[object, ...]:
    """Return a value that changes with the backups, their flags, the history, or the run that holds the lock."""
    marks = (flags.PINNED, flags.HELD, flags.ACCEPTED, flags.PROOFS)
    watched = (history.path_of(settings.dir), *(settings.dir / flags.STATE_FOLDER / mark for mark in marks))
    return (*map(_changed_at, (settings.dir, *watched)), _at_work(settings))


def _at_work(settings: Settings) -> str:
    return lock.holder(settings.dir / lock.LOCK_FILE) if lock.is_held(settings.dir) else ""


def _changed_at(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


class Page(Vertical):
    """A page that a person opens by its key or its tab."""

    place: ClassVar[str] = ""
    """The id of its tab, for `window.action_go(place)`."""
    title: ClassVar[str] = ""
    """The title of its tab."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(id=f"page-{self.place}")
        self.settings = settings

    @property
    def window(self) -> BackupApp:
        """The app, with its services for pages."""
        return cast("BackupApp", self.app)

    @property
    def table(self) -> DataTable[Text]:
        """The table of a page that has one."""
        return self.query_one(DataTable)

    def show_rows(self, titles: Sequence[str], rows: Mapping[str, Sequence[Text]]) -> None:
        """Show these rows, by their keys; each column is as wide as its longest cell.

        Cells are `Text`, since a table parses brackets in strings as markup.
        """
        self.table.clear(columns=True)
        for place, title in enumerate(titles):  # widths that the table finds by itself come after it is drawn
            width = max(len(title), *(row[place].cell_len for row in rows.values()), 0)
            self.table.add_column(title, width=width, key=title)
        for key, row in rows.items():
            self.table.add_row(*row, key=key)

    def show_state(self, state: RepositoryState) -> None:
        """Show this state; called when the page comes into view, and when something changed while it is."""


class OverviewPage(Page):
    """The page that shows whether the data is safe: the status, the next runs, and the retention rules."""

    place = "overview"
    title = "Overview"
    DEFAULT_CSS = """
    OverviewPage VerticalScroll { scrollbar-size: 1 1; }
    OverviewPage #sentence { border: round $panel; padding: 0 1; text-style: bold; }
    OverviewPage #rest { padding: 0 2; }
    """

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static("Looking …", id="sentence", markup=False)
            yield Static("", id="rest", markup=False)

    def show_state(self, state: RepositoryState) -> None:
        found = state.report
        sentence, *rest = render.status(self.settings, found.status)
        level = found.status.level
        self.query_one("#sentence", Static).update(f"{LEVEL_SYMBOLS[level]} {sentence}")
        self.query_one("#sentence").set_classes(f"level-{level}")
        runs = ["", "Next runs", *render.due(self.settings, found.runs)]
        kept = ["", "What retention keeps", *render.policy(found.policy)]
        self.query_one("#rest", Static).update(said([*rest, *runs, *kept, "", _ELSEWHERE]))


class HistoryPage(Page):
    """The page with the operations, newest first."""

    place = "history"
    title = "History"
    DEFAULT_CSS = """
    HistoryPage Static { padding: 0 1; }
    """
    operations: Sequence[Operation] = ()

    def compose(self) -> ComposeResult:
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Static("", markup=False)

    def show_state(self, state: RepositoryState) -> None:
        self.operations = state.report.history.operations[:_MOST]
        trouble = state.report.history.error
        self.query_one(Static).update(said([trouble, _LOG] if trouble else [_LOG]))
        self.show_rows(_COLUMNS, {one.id: tuple(_cells(self.settings, one)) for one in self.operations})

    @on(DataTable.RowSelected)
    def _show_in_full(self, selected: DataTable.RowSelected) -> None:
        operation = self.operations[selected.cursor_row]
        lines = [f"{label:9} {text}" for label, text in render.operation(self.settings, operation)]
        self.app.push_screen(Message(operation.command, lines))


def _cells(settings: Settings, operation: Operation) -> Iterator[Text]:
    """Yield the cells of one row; the time without its seconds."""
    started, command, _, took, size, by, what = render.operation_row(settings, operation)
    result = coloured(OUTCOME_SYMBOLS[operation.outcome], operation.outcome)
    yield from (Text(started[:16]), Text(command), result, Text(took, justify="right"), Text(size, justify="right"))
    yield from (Text(by), Text(what))
