"""The history page: past operations and their statistics."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.names import printable
from backupkit.model.operation import Operation
from backupkit.ui.dialogs import Message, said
from backupkit.ui.page import Page
from backupkit.ui.styles import outcome_text
from backupkit.ui.world import RepositoryState

_COLUMNS = (("Started", 16), ("Command", 12), ("Result", 13), ("Took", 8), ("Size", 9), ("By", 16), ("What", 60))
_MOST, _DAYS = 500, 30


class HistoryPage(Page):
    """The page with all operations, newest first, or only the failed ones."""

    place = "history"
    title = "History"
    first = "DataTable"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "filter", "Failures only/all")]
    DEFAULT_CSS = """
    HistoryPage Static { padding: 0 1; }
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.operations: Sequence[Operation] = ()
        self.listed: Sequence[Operation] = ()
        self.failures_only = False

    def compose(self) -> ComposeResult:
        yield Static("", id="statistics", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Static(said(["The end of the log is in `web`."]), markup=False)

    def on_mount(self) -> None:
        for title, width in _COLUMNS:
            self.query_one(DataTable).add_column(title, width=width, key=title)

    def show_world(self, world: RepositoryState) -> None:
        self.operations = world.operations
        lines = statistics_of(self.operations, world.facts.now)
        self.query_one("#statistics", Static).update(said([*lines, *filter(None, [world.facts.history.error])]))
        self._show_rows()

    def action_filter(self) -> None:
        """Switch between failed operations and all."""
        self.failures_only = not self.failures_only
        self._show_rows()

    def _show_rows(self) -> None:
        self.listed = [one for one in self.operations if one.has_failed or not self.failures_only][:_MOST]
        table = self.query_one(DataTable)
        table.clear()
        for operation in self.listed:
            table.add_row(*_cells(self.settings, operation), key=operation.id)

    @on(DataTable.RowSelected)
    def _show_in_full(self, selected: DataTable.RowSelected) -> None:
        operation = self.listed[selected.cursor_row]
        self.app.push_screen(Message(operation.command, in_full(self.settings, operation)))


def statistics_of(operations: Sequence[Operation], now: datetime) -> Iterator[str]:
    """Yield one or two lines of statistics on the last 30 days."""
    recent = [one for one in operations if now - one.started_at <= timedelta(days=_DAYS)]
    failed = [one for one in recent if one.has_failed]
    counts = Counter(one.command for one in recent).most_common(4)
    kinds = ", ".join(f"{command} {number:,}" for command, number in counts) or "nothing was done"
    last = f", the last on {failed[0].started_at:%Y-%m-%d}" if failed else ""
    yield f"The last {_DAYS} days: {kinds} · {len(failed):,} failed{last}"
    backups = [one for one in recent if one.command == "backup" and one.has_succeeded]
    took = [one.duration_seconds for one in backups if one.duration_seconds is not None]
    added = sum(one.unique_bytes or 0 for one in backups)
    if took:
        times = f"A backup takes {statistics.median(took):.1f} s, at most {max(took):.1f} s"
        yield f"{times} · they added {format_bytes(added)}"


def in_full(settings: Settings, operation: Operation) -> Iterator[str]:
    """Yield lines with all details of one operation."""
    ended = settings.local(operation.ended_at) if operation.ended_at else "not ended"
    yield f"started   {settings.local(operation.started_at)}"
    yield f"ended     {ended}"
    yield f"result    {operation.outcome}{f' ({operation.exit_code})' if operation.exit_code else ''}"
    yield f"by        {printable(operation.who.user)}, through the {operation.who.through}, process {operation.who.pid}"
    yield from (f"backup    {printable(name)}" for name in operation.backups)
    if operation.size_bytes is not None:
        yield f"size      {format_bytes(operation.size_bytes)}"
    for label, text in (("note", operation.note), ("error", operation.error)):
        if text:
            yield f"{label:9} {printable(text)}"
    yield from (f"warning   {printable(warning)}" for warning in operation.warnings)


def _cells(settings: Settings, one: Operation) -> Iterator[Text]:
    yield Text(f"{settings.local(one.started_at):%Y-%m-%d %H:%M}")
    yield Text(printable(one.command))
    yield outcome_text(one.outcome)
    yield Text(f"{one.duration_seconds:.1f} s" if one.duration_seconds is not None else "-", justify="right")
    yield Text(format_bytes(one.size_bytes) if one.size_bytes is not None else "-", justify="right")
    yield Text(printable(f"{one.who.user} ({one.who.through})"))
    yield Text("; ".join(printable(part) for part in (", ".join(one.backups[:3]), one.note, one.error) if part))
