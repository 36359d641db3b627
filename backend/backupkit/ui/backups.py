"""The backups page: a table, the details of one backup, and the actions on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Input, Label, Static

from backupkit.cli import render, tasks
from backupkit.cli.tasks import Wish
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.errors import BackupError
from backupkit.restore.undo import lost_without
from backupkit.retention.delete import deletable
from backupkit.ui import listing
from backupkit.ui.dialogs import Field, Form, Message, Question
from backupkit.ui.listing import COLUMNS, Choice, View
from backupkit.ui.page import Page
from backupkit.ui.restore import restore
from backupkit.ui.world import RepositoryState

_FIND = "part of a name, note, revision, commit, state, pinned … · Enter: to the table · Esc: show all"


class BackupsPage(Page):
    """The page with the table of backups and the actions on the one under the cursor."""

    place = "backups"
    title = "Backups"
    first = "DataTable"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "back_up", "Back up"),
        Binding("R", "restore", "Restore"),
        Binding("u", "undo", "Undo", show=False),
        Binding("v", "verify", "Verify"),
        Binding("p", "prove", "Prove"),
        Binding("k", "pin", "Pin"),
        Binding("D", "delete", "Delete"),
        Binding("slash", "find", "Find", key_display="/"),
        Binding("s", "sort", "Sort", show=False),
        Binding("escape", "show_all", show=False),
    ]
    DEFAULT_CSS = """
    BackupsPage #shown { color: $foreground 70%; height: 1; padding: 0 1; }
    BackupsPage #find { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    BackupsPage #find.shown { display: block; }
    BackupsPage #summary { height: 5; border-top: solid $panel; padding: 0 1; color: $foreground 85%; }
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.choice = Choice()
        self.backups: Sequence[Backup] = ()
        self._wanted = ""
        self._drawn: tuple[Sequence[Backup], View] | None = None  # avoids needless redraws of many rows
        self.view = View(settings, {})

    def compose(self) -> ComposeResult:
        yield Label("", id="shown", markup=False)
        yield Input(placeholder=_FIND, id="find")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Static("", id="summary", markup=False)

    def on_mount(self) -> None:
        for column in COLUMNS:
            self.table.add_column(column.title, width=column.width, key=column.title)

    # Table

    @property
    def table(self) -> DataTable[object]:
        return self.query_one(DataTable)

    def show_world(self, world: RepositoryState) -> None:
        self.backups = world.backups
        self.view = View(self.settings, world.verdicts)
        self._show_rows()

    def move_cursor_to(self, name: str) -> None:
        """Clear the search, and move the cursor to the backup once it is listed."""
        self._wanted = name
        self.show_choice(replace(self.choice, words=""))

    def show_choice(self, choice: Choice) -> None:
        """Show the backups that match, sorted."""
        self.choice = choice
        self._show_rows()

    def _show_rows(self) -> None:
        """Redraw the rows if they changed; keep the cursor on its backup, or move it to the wanted one."""
        table, found = self.table, self.choice.of(self.backups)
        before = self._name_under_cursor()
        if (found, self.view) != self._drawn:
            table.clear()
            for backup in found:
                table.add_row(*listing.cells(self.view, backup), key=backup.name)
            self._drawn = found, self.view
        self._set_widths()
        wanted = self._wanted if self._wanted in table.rows else before
        if wanted in table.rows:
            table.move_cursor(row=table.get_row_index(wanted))
        if wanted == self._wanted:
            self._wanted = ""
        self._show_caption(found)
        self._show_summary()

    def on_resize(self) -> None:
        self._set_widths()

    def _set_widths(self) -> None:
        """Set the column widths by content and room."""
        columns, each = self.table.ordered_columns, listing.widths(self.size.width, self.choice.of(self.backups))
        for column, width in zip(columns, each, strict=False):  # no columns exist before the page is mounted
            column.width = width
        self.table.refresh()

    def _show_caption(self, found: Sequence[Backup]) -> None:
        of_all = "" if len(found) == len(self.backups) else f" of {len(self.backups):,}"
        words = [f"with “{self.choice.words}”"] if self.choice.words else []
        order = f"by {self.choice.column.title} {'↓' if self.choice.is_descending else '↑'}"
        caption = " · ".join((f"{len(found):,}{of_all} backups", *words, order))
        none = "There are no backups yet. Press b to make the first one."
        self.query_one("#shown", Label).update(caption if self.backups else none)

    def _name_under_cursor(self) -> str:
        table = self.table
        if not table.row_count:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    @property
    def chosen(self) -> Backup | None:
        """The backup under the cursor."""
        name = self._name_under_cursor()
        return next((one for one in self.backups if one.name == name), None)

    @on(DataTable.RowHighlighted)
    def _show_summary(self) -> None:
        backup = self.chosen
        lines = listing.summary(self.view, backup) if backup else ()
        self.query_one("#summary", Static).update("\n".join(lines))

    # Find and sort

    def action_find(self) -> None:
        find = self.query_one("#find", Input)
        find.add_class("shown")
        find.focus()

    @on(Input.Changed)
    def _find(self, changed: Input.Changed) -> None:
        if changed.value == changed.input.value:  # else it is outdated: more was typed meanwhile
            self.show_choice(replace(self.choice, words=changed.value))

    @on(Input.Submitted)
    def _leave_search(self) -> None:
        self.table.focus()

    def action_show_all(self) -> None:
        """Clear the search, and show all backups."""
        find = self.query_one("#find", Input)
        find.value = ""
        find.remove_class("shown")
        self.table.focus()

    def action_sort(self) -> None:
        """Sort by the next column."""
        place = COLUMNS.index(self.choice.column) + 1
        self.show_choice(self.choice.sorted_by(place % len(COLUMNS)))

    @on(DataTable.HeaderSelected)
    def _header_clicked(self, clicked: DataTable.HeaderSelected) -> None:
        self.show_choice(self.choice.sorted_by(clicked.column_index))

    # Actions

    @on(DataTable.RowSelected)
    def _show_in_full(self) -> None:
        if backup := self.chosen:
            schema = [f"  schema     {verdict.reason}"] if (verdict := self.view.verdict(backup)) else []
            inside = f"Look inside: `web`, or `files {backup.name}`, `rows {backup.name} TABLE`"
            lines = [*render.details(self.settings, backup), *schema, "", inside]
            self.app.push_screen(Message(backup.name, lines))

    @work
    async def action_back_up(self) -> None:
        name, note = "", ""
        while True:  # keep the typed text after an error, until the backup is made or cancelled
            fields = [
                Field("Name", "made from the time where left empty", name),
                Field("Note", "a few words to find it by", note),
            ]
            asked = await self.app.push_screen_wait(Form("Back up now", fields, "Back up"))
            if asked is None:
                return
            name, note = asked
            ended = await self.window.carry_out(tasks.back_up(self.settings, name, note))
            if ended.result:
                return self.move_cursor_to(ended.result.backup.name)
            if not ended.error:
                return

    @work
    async def action_verify(self) -> None:
        if backup := self.chosen:
            await self.window.carry_out(tasks.verify(self.settings, backup))

    @work
    async def action_prove(self) -> None:
        if backup := self.chosen:
            await self.window.carry_out(tasks.verify(self.settings, backup, test_restore=True))

    @work
    async def action_restore(self) -> None:
        if backup := self.chosen:
            await restore(self.window, Wish(backup.name))

    @work
    async def action_undo(self) -> None:
        await restore(self.window, Wish())

    @work
    async def action_pin(self) -> None:
        if backup := self.chosen:
            await self.window.carry_out(tasks.pin(self.settings, backup))

    @work
    async def action_delete(self) -> None:
        if not (backup := self.chosen):
            return
        try:
            found = deletable(self.settings, backup.name)
        except BackupError as error:
            return self.window.show_error(error)
        lost = [one] if (one := lost_without(self.settings, found.name)) else []
        lines = [f"Delete {found.path} for ever?", *lost, "", *listing.summary(self.view, found)]
        if await self.app.push_screen_wait(Question("Delete", lines, "Delete for ever")):
            await self.window.carry_out(tasks.delete(self.settings, found))
