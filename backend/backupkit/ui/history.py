"""The place for what was done: the operations with their statistics, and the end of the log."""

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
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Label, Static

from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.names import printable
from backupkit.model.operation import Operation
from backupkit.monitoring import log
from backupkit.ui import styles
from backupkit.ui.dialogs import Message
from backupkit.ui.page import TablePage
from backupkit.ui.world import RepositoryState

_COLUMNS = (("Started", 16), ("Command", 12), ("Result", 13), ("Took", 8), ("Size", 9), ("By", 16), ("What", 60))
_MOST, _DAYS, _LINES = 500, 30, 100


class HistoryPage(TablePage):
    """What was done, newest first; those that failed alone where wanted."""

    place = "history"
    title = "History"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "filter", "Failures only/all")]
    DEFAULT_CSS = """
    HistoryPage { padding: 0; }
    HistoryPage #statistics { height: auto; padding: 0 1; }
    HistoryPage #listed { color: $foreground 70%; height: 1; padding: 0 1; }
    HistoryPage #log-box {
        height: 6; padding: 0 1; scrollbar-size: 1 1;
        border-top: solid $panel; border-title-color: $foreground 70%;
    }
    HistoryPage #log { color: $foreground 70%; width: auto; }
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.operations: Sequence[Operation] = ()
        self.listed: Sequence[Operation] = ()
        self.failures_only = False

    def compose(self) -> ComposeResult:
        yield Static("", id="statistics", markup=False)
        yield Label("", id="listed", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=True)
        with VerticalScroll(id="log-box") as box:
            box.border_title = "Log"
            yield Static("", id="log", markup=False)

    def on_mount(self) -> None:
        for title, width in _COLUMNS:
            self.table.add_column(title, width=width, key=title)

    def show_world(self, world: RepositoryState) -> None:
        self.operations = world.operations
        lines = statistics_of(self.operations, world.facts.now)
        self.query_one("#statistics", Static).update("\n".join([*lines, *filter(None, [world.facts.history.error])]))
        self._show_rows()
        self.window.fetch(self._read_log, self._show_log, "log")

    def action_filter(self) -> None:
        """What failed alone, or all."""
        self.failures_only = not self.failures_only
        self._show_rows()

    def _show_rows(self) -> None:
        found = [one for one in self.operations if one.has_failed or not self.failures_only]
        self.listed = found[:_MOST]
        self.table.clear()
        colours = styles.colours(self.app.theme_variables)
        for operation in self.listed:
            self.table.add_row(*_cells(self.settings, colours, operation), key=operation.id)
        what = "failed or interrupted" if self.failures_only else "operations"
        older = f", the newest {_MOST}" if len(found) > _MOST else ""
        self.query_one("#listed", Label).update(f"{len(found):,} {what}{older} · newest first · Enter: in full")

    @on(DataTable.RowSelected)
    def _show_in_full(self, selected: DataTable.RowSelected) -> None:
        operation = self.listed[selected.cursor_row]
        self.app.push_screen(Message(operation.command, in_full(self.settings, operation)))

    def _read_log(self) -> Sequence[str]:
        if self.settings.log_file is None:
            return ["There is no log file (BACKUP_LOG_FILE names one). Of this session:", *log.last_lines()]
        return log.tail(self.settings.log_file, _LINES) or [f"There is nothing in {self.settings.log_file} yet."]

    def _show_log(self, lines: Sequence[str]) -> None:
        self.query_one("#log", Static).update("\n".join(map(printable, lines)))
        self.query_one("#log-box", VerticalScroll).scroll_end(animate=False)


def statistics_of(operations: Sequence[Operation], now: datetime) -> Iterator[str]:
    """What the last month came to, in two lines."""
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
    """All that the history has of one operation."""
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


def _cells(settings: Settings, colours: styles.Colours, one: Operation) -> Iterator[Text]:
    yield Text(f"{settings.local(one.started_at):%Y-%m-%d %H:%M}")
    yield Text(printable(one.command))
    yield styles.outcome_text(colours, one.outcome)
    yield Text(f"{one.duration_seconds:.1f} s" if one.duration_seconds is not None else "-", justify="right")
    yield Text(format_bytes(one.size_bytes) if one.size_bytes is not None else "-", justify="right")
    yield Text(printable(f"{one.who.user} ({one.who.through})"))
    yield Text("; ".join(printable(part) for part in (", ".join(one.backups[:3]), one.note, one.error) if part))
