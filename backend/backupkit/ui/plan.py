"""The place "Schedule": when backups are made and which stay; what an edit would bring is seen before it is saved."""

from __future__ import annotations

import os
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.timer import Timer
from textual.widgets import Button, DataTable, Static

from backupkit.cli.render import counted
from backupkit.config.deployment import is_contained
from backupkit.config.editor import set_values
from backupkit.config.settings import load_settings
from backupkit.model.errors import BackupError, explained
from backupkit.model.names import shown
from backupkit.monitoring.preview import Preview, preview
from backupkit.retention.rules import Verdict
from backupkit.ui import styles
from backupkit.ui.dialogs import error_message
from backupkit.ui.page import TablePage, fill
from backupkit.ui.plan_entry import Entry
from backupkit.ui.world import RepositoryState

_WHEN = (
    ("enabled", "Runs by itself"),
    ("automatic_daily", "Every day"),
    ("backup_time", "  at"),
    ("schedule", "or, as cron"),
    ("test_schedule", "Test restore, cron"),
    ("timezone", "Time zone"),
)
_WHAT = (
    ("keep_last", "The last"),
    ("keep_daily", "One each day"),
    ("keep_weekly", "One each week"),
    ("keep_monthly", "One each month"),
    ("keep_yearly", "One each year"),
    ("keep_within", "All within"),
    ("keep_pre_restore", "Safety copies"),
    ("keep_pre_migration", "Before migrations"),
    ("keep_safety_within", "Both, all within"),
    ("max_backups", "At most, of all"),
    ("min_keep", "Good ones, always"),
)
_PAUSE = 0.2  # seconds after the last key
_RUNS = 5


class PlanPage(TablePage):
    """On the left what can be edited, on the right what it brings."""

    place = "plan"
    title = "Schedule"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save"),
        Binding("escape", "discard", "Discard"),
    ]
    DEFAULT_CSS = """
    PlanPage #form { width: 38; border-right: solid $primary 40%; padding-right: 1; scrollbar-size: 1 1; }
    PlanPage .heading { text-style: bold; color: $primary; }
    PlanPage #what { margin-top: 1; }
    PlanPage #brings { width: 1fr; padding-left: 1; }
    PlanPage #runs { height: auto; margin-bottom: 1; }
    PlanPage #sum { height: auto; }
    PlanPage DataTable { height: 1fr; }
    PlanPage #bottom { height: 1; margin-top: 1; }
    PlanPage #edits { width: 1fr; color: $foreground 80%; }
    PlanPage Button { margin-left: 2; }
    """

    def compose(self) -> ComposeResult:
        with Horizontal():
            with VerticalScroll(id="form", can_focus=False):
                yield Static("When", classes="heading")
                yield from (Entry(name, words, self.settings) for name, words in _WHEN)
                yield Static("What stays", classes="heading", id="what")
                yield from (Entry(name, words, self.settings) for name, words in _WHAT)
            with Vertical(id="brings"):
                yield Static("Next runs", classes="heading")
                yield Static("", id="runs")
                yield Static("", id="sum", classes="heading", markup=False)
                yield DataTable[Text](cursor_type="row", zebra_stripes=True)
        with Horizontal(id="bottom"):
            yield Static("", id="edits", markup=False)
            yield Button("Discard", id="discard", compact=True, disabled=True)
            yield Button("Save", id="save", variant="primary", compact=True, disabled=True)

    def show_world(self, world: RepositoryState) -> None:
        self._preview()

    # What is edited.

    @property
    def typed(self) -> dict[str, str]:
        """The settings that were edited, as they were typed."""
        return {entry.setting: entry.text for entry in self.query(Entry) if entry.is_edited}

    _pause: Timer | None = None

    @on(Entry.Changed)
    def _edited(self) -> None:
        """Not at each key: where there are many backups a preview takes a moment."""
        if self._pause:
            self._pause.stop()
        self.query_one("#save", Button).disabled = True  # until it is known to be right
        self._pause = self.set_timer(_PAUSE, self._preview)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Only what was edited can be saved or discarded."""
        return bool(self.typed) if action in ("save", "discard") else True

    # What it brings.

    def _preview(self) -> None:
        """What is typed now, read in a thread; out of view nobody needs it."""
        if self.window.page is not self:
            return
        settings, typed, clock = self.settings, self.typed, self.window.clock

        def show(found: Preview) -> None:
            if typed == self.typed:
                self._show(found)

        self.window.fetch(lambda: preview(settings, typed, clock), show, "preview")

    def _show(self, found: Preview) -> None:
        for entry in self.query(Entry):
            entry.say(found.troubles.get(entry.setting))
        self._show_edits(found)
        self._show_runs(found)
        self._show_verdicts(found)
        self.refresh_bindings()

    def _show_edits(self, found: Preview) -> None:
        edits, wrong = len(self.typed), len(found.troubles)
        not_yet = f"{counted(edits, 'edit')}, not saved yet" + (f"; wrong: {wrong}." if wrong else ".")
        self.query_one("#edits", Static).update(not_yet if edits else self._saved)
        self.query_one("#discard", Button).disabled = not edits
        self.query_one("#save", Button).disabled = not edits or bool(wrong)

    def _show_runs(self, found: Preview) -> None:
        self.query_one("#runs", Static).update(_runs_shown(found))

    def _show_verdicts(self, found: Preview) -> None:
        plan, colours = found.prune, styles.colours(self.app.theme_variables)
        go, stay = len(plan.removals), len(plan.verdicts) - len(plan.removals)
        caption = f"Of {counted(len(plan.verdicts), 'backup')}: {stay:,} stay, {go:,} {'go' if go != 1 else 'goes'}"
        self.query_one("#sum", Static).update(
            f"{caption}. Nothing goes now: {plan.stopped}" if plan.stopped else caption
        )
        if (plan.verdicts, colours) != self._drawn:
            self._drawn = (plan.verdicts, colours)
            rows = [_judged(verdict, colours) for verdict in sorted(plan.verdicts, key=lambda one: one.keep)]
            fill(self.query_one(DataTable), ("", "Backup", "Why"), rows)

    _drawn: object = None

    # Saved, or not.

    @on(Button.Pressed, "#save")
    def action_save(self) -> None:
        """What was edited is in `backup.toml`, with its comments kept, and in force here; or nothing is changed."""
        if not (typed := self.typed):
            return
        try:
            set_values(self.settings.app_dir, is_contained(os.environ), typed)
            self.window.take_settings(load_settings(self.settings.app_dir))
        except (BackupError, OSError) as error:
            caption = explained(error)
            assert caption
            self.app.push_screen(error_message(caption))
        else:
            self._begin_again("✓ Saved in backup.toml.")

    @on(Button.Pressed, "#discard")
    def action_discard(self) -> None:
        """Everything stands here as it is in force."""
        self._begin_again()

    _saved = ""

    def _begin_again(self, saved: str = "") -> None:
        self._saved = saved
        for entry in self.query(Entry):
            entry.begin(self.settings)
        self._preview()


def _runs_shown(found: Preview) -> RenderableType:
    """A line for each, however narrow it is; and whether there is anybody to do them."""
    if not found.runs:
        return Text("Nothing is scheduled.")
    table = Table.grid(padding=(0, 2), expand=True)
    for is_last in (False, False, True):
        table.add_column(no_wrap=True, ratio=1 if is_last else None, overflow="ellipsis")
    for due in found.runs[:_RUNS]:
        table.add_row(f"{found.settings.local(due.at):%a %d %b %H:%M}", due.task, Text(due.why, style="dim"))
    if found.is_at_work:
        return table
    return Group(table, Text("No scheduler is running; these would be its runs.", "dim italic"))


def _judged(verdict: Verdict, colours: styles.Colours) -> tuple[Text, Text, Text]:
    mark = Text("✓ stays", style=colours["success"]) if verdict.keep else Text("✗ goes", style=colours["error"])
    return mark, Text(verdict.backup.name, no_wrap=True), Text(shown(", ".join(verdict.reasons)))
