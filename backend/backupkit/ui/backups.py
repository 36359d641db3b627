"""The place for the backups: a table of them, one in full, and what can be done with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Button, DataTable, Input, Label, Static

from backupkit.cli import render, tasks
from backupkit.cli.filters import FILTERS
from backupkit.config.settings import Settings
from backupkit.migrations import schema
from backupkit.model.backup import Backup
from backupkit.model.errors import BackupError, Refused
from backupkit.restore.undo import lost_without
from backupkit.retention.delete import deletable
from backupkit.ui import listing, styles
from backupkit.ui.dialogs import Field, Form, Message, Question, error_message
from backupkit.ui.listing import COLUMNS, Choice, Verdicts, View
from backupkit.ui.page import TablePage
from backupkit.ui.world import RepositoryState

ACTIONS = (
    ("back_up", "b", "Back up"),
    ("verify", "v", "Verify"),
    ("prove", "p", "Prove"),
    ("restore", "R", "Restore"),
    ("pin", "k", "Pin"),
    ("export", "x", "Export"),
    ("push", "u", "Push"),
    ("delete", "D", "Delete"),
)

_FIND = "part of a name, note, revision, commit, state … · Enter: to the table · Esc: show all"


class BackupsPage(TablePage):
    """The backups, newest first, and what can be done with the one under the cursor."""

    place = "backups"
    title = "Backups"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, action, label, show=False) for action, key, label in ACTIONS),
        Binding("slash", "find", "Find", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("f", "filter", "Filter"),
    ]
    DEFAULT_CSS = """
    BackupsPage { padding: 0; }
    BackupsPage #actions { height: 1; }
    BackupsPage #shown { color: $foreground 70%; height: 1; padding: 0 1; }
    BackupsPage #find { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    BackupsPage #find.shown { display: block; }
    BackupsPage #none { display: none; height: auto; padding: 1; }
    BackupsPage #summary { height: 5; border-top: solid $panel; padding: 0 1; color: $foreground 85%; }
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.choice = Choice()
        self.backups: Sequence[Backup] = ()
        self._wanted = ""
        self._drawn: tuple[Sequence[Backup], View] | None = None  # a thousand rows are not drawn anew for nothing
        self.verdicts: Verdicts = {}

    def compose(self) -> ComposeResult:
        with Horizontal(id="actions"):
            for action, key, label in ACTIONS:
                yield Button(f"[b $accent]{key}[/] {label}", id=f"do-{action}", compact=True, classes="key")
        yield Label("", id="shown", markup=False)
        yield Input(placeholder=_FIND, id="find")
        yield DataTable(cursor_type="row", zebra_stripes=True, id="table")
        yield Static("There are no backups yet. Press b to make the first one.", id="none")
        yield Static("", id="summary", markup=False)

    def on_mount(self) -> None:
        for column in COLUMNS:
            self.table.add_column(column.title, width=column.width, key=column.title)

    # What is shown.

    def show_world(self, world: RepositoryState) -> None:
        self.backups = world.backups
        self._show_rows()
        self._learn_relations()

    def about(self, name: str) -> None:
        """The cursor goes to that backup, as soon as it is there."""
        self.choice = replace(self.choice, words="", filter=FILTERS[0])
        self._wanted = name
        self._show_rows()

    @property
    def view(self) -> View:
        return View(self.settings, self.verdicts, styles.colours(self.app.theme_variables))

    def _show_rows(self) -> None:
        """All rows anew; the cursor stays on the backup it was on."""
        table, found, view = self.table, self.choice.of(self.backups), self.view
        before = self._name_under_cursor()
        if (found, view) != self._drawn:
            table.clear()
            for backup in found:
                table.add_row(*listing.cells(view, backup), key=backup.name)
            self._drawn = found, view
        self._fit()
        wanted = self._wanted if self._wanted in table.rows else before
        if wanted in table.rows:
            table.move_cursor(row=table.get_row_index(wanted))
        if wanted == self._wanted:
            self._wanted = ""
        self.query_one("#none").display = not self.backups
        self._say_what_is_shown(found)
        self._show_summary()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """Each column as wide as there is room for what is in it."""
        columns, each = self.table.ordered_columns, listing.widths(self.size.width, self.choice.of(self.backups))
        for column, width in zip(columns, each, strict=False):  # there are none before it is mounted
            column.width = width
        self.table.refresh()

    def _say_what_is_shown(self, found: Sequence[Backup]) -> None:
        of_all = "" if len(found) == len(self.backups) else f" of {len(self.backups):,}"
        words = [f"with “{self.choice.words}”"] if self.choice.words else []
        order = f"by {self.choice.column.title} {'↓' if self.choice.is_descending else '↑'}"
        caption = (f"{len(found):,}{of_all} backups", f"filter: {self.choice.filter.name}", *words, order)
        self.query_one("#shown", Label).update(" · ".join(caption))

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

    def _show_summary(self) -> None:
        backup = self.chosen
        lines = listing.summary(self.view, backup) if backup else ()
        self.query_one("#summary", Static).update("\n".join(lines))

    @on(DataTable.RowHighlighted)
    def _another_is_chosen(self) -> None:
        self._show_summary()

    def _learn_relations(self) -> None:
        """How each revision stands to this code: the migrations are read once, in a thread."""
        wanted = {one.metadata.revisions for one in self.backups if one.metadata} - set(self.verdicts)
        if not wanted:
            return

        def read() -> Verdicts:
            return {revisions: schema.classify(self.settings, revisions) for revisions in wanted}

        self.window.fetch(read, self._know_relations, "relations")

    def _know_relations(self, found: Verdicts) -> None:
        self.verdicts = {**self.verdicts, **found}
        self._show_rows()

    # Find, sort, filter.

    def action_find(self) -> None:
        find = self.query_one("#find", Input)
        find.add_class("shown")
        find.focus()

    @on(Input.Changed, "#find")
    def _find(self, changed: Input.Changed) -> None:
        if changed.value != changed.input.value:
            return  # more was typed meanwhile
        self.choice = replace(self.choice, words=changed.value)
        self._show_rows()

    @on(Input.Submitted, "#find")
    def _found(self) -> None:
        self.table.focus()

    def key_escape(self) -> None:
        """All of them are shown again."""
        find = self.query_one("#find", Input)
        find.value = ""
        find.remove_class("shown")
        self.table.focus()

    def action_sort(self) -> None:
        """By the next column."""
        place = COLUMNS.index(self.choice.column) + 1
        self._sort_by(place % len(COLUMNS))

    @on(DataTable.HeaderSelected)
    def _header_clicked(self, clicked: DataTable.HeaderSelected) -> None:
        self._sort_by(clicked.column_index)

    def _sort_by(self, place: int) -> None:
        """By that column; the other way round where it is that one already."""
        column = COLUMNS[place]
        is_same = column is self.choice.column
        self.choice = replace(self.choice, column=column, is_descending=not self.choice.is_descending or not is_same)
        self._show_rows()

    def action_filter(self) -> None:
        """The next filter."""
        place = FILTERS.index(self.choice.filter) + 1
        self.choice = replace(self.choice, filter=FILTERS[place % len(FILTERS)])
        self._show_rows()

    # What can be done.

    @on(Button.Pressed)
    async def _clicked(self, pressed: Button.Pressed) -> None:
        if pressed.button.id and pressed.button.id.startswith("do-"):
            await self.run_action(pressed.button.id.removeprefix("do-"))

    @on(DataTable.RowSelected)
    def _show_in_full(self) -> None:
        if backup := self.chosen:
            verdict = self.verdicts.get(backup.metadata.revisions) if backup.metadata else None
            schema = [f"  schema     {verdict.reason}"] if verdict else []
            inside = f"Look inside: `web`, or `files {backup.name}`, `rows {backup.name} TABLE`"
            lines = [*render.details(self.settings, backup), *schema, "", inside]
            self.app.push_screen(Message(backup.name, lines))

    @work
    async def action_back_up(self) -> None:
        name, note = "", ""
        while True:  # what was typed stays until it is done, or the person thinks better of it
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
                return self.about(ended.result.backup.name)
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

    def action_restore(self) -> None:
        if backup := self.chosen:
            self.window.go("restore", backup.name)

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
        if await self.app.push_screen_wait(Question("Delete", lines, "Delete for ever", is_dangerous=True)):
            await self.window.carry_out(tasks.delete(self.settings, found))

    @work
    async def action_export(self) -> None:
        if not (backup := self.chosen):
            return
        is_closed = bool(self.settings.export_recipients or self.settings.export_passphrase)
        typed: tuple[str, ...] = (f"{backup.name}.tar.zst{'.age' * is_closed}",)
        while True:  # as of a backup
            fields = [
                Field("File; a bare name goes to the backups folder", value=typed[0]),
                *([] if is_closed else [Field("Passphrase", "left empty, it is not encrypted", is_secret=True)]),
                *([] if is_closed else [Field("Once more", is_secret=True)]),
            ]
            asked = await self.app.push_screen_wait(Form(f"Export {backup.name}", fields, "Export"))
            if asked is None:
                return
            typed, (file, passphrase, again) = asked, (*asked, "", "")[:3]
            if passphrase != again:
                error = Refused("Nothing was typed, or not twice the same; nothing was changed.", hint="Try again.")
                await self.app.push_screen_wait(error_message(error))
                continue
            file += ".age" if passphrase and not file.endswith(".age") else ""
            if not (await self.window.carry_out(tasks.export(self.settings, backup, file, passphrase))).error:
                return

    @work
    async def action_push(self) -> None:
        if not (backup := self.chosen):
            return
        places = [f"  {name}: {table.place}" for name, table in self.settings.remotes.items()]
        lines = [f"Carry {backup.name} to:", *places]
        if not places or await self.app.push_screen_wait(Question("Push", lines, "Push")):
            await self.window.carry_out(tasks.push(self.settings, backup.name))
