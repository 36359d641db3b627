"""The backups page: a table, a summary of one backup, and the actions on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Input, Label, Static

from backupkit.cli import render, tasks
from backupkit.cli.filters import has_words
from backupkit.cli.task import Task
from backupkit.cli.tasks import RestoreRequest
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, Metadata, SchemaVerdict
from backupkit.model.errors import BackupError
from backupkit.model.names import printable
from backupkit.restore.undo import lost_without
from backupkit.retention.delete import deletable
from backupkit.ui.dialogs import Form, Message, Question, error_lines
from backupkit.ui.pages import STATE_SYMBOLS, Page, RepositoryState, coloured
from backupkit.ui.restore import restore

_COLUMNS = ("Made", "State", "Name", "Size", "Adds", "Kind", "Schema", "Note")
_FIND = "part of a name, note, revision, commit, state, pinned … · Enter: to the table · Esc: show all"
_RELATIONS: Mapping[str, str] = {
    "same": "= this code",
    "behind": "< behind",
    "unknown": "> ahead",
    "unreadable": "? unread",
    "unversioned": "? none",
    "no_migrations": "-",
}
_TASKS: Mapping[str, Callable[[Settings, Backup], Task[Any]]] = {
    "verify": tasks.verify,
    "prove": partial(tasks.verify, test_restore=True),
    "pin": tasks.pin,
}


class BackupsPage(Page):
    """The page with the table of backups and the actions on the one under the cursor."""

    place = "backups"
    title = "Backups"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "back_up", "Back up", tooltip="back up now, with a name and a note"),
        Binding("R", "restore", "Restore", tooltip="restore: the plan first, then its name is typed"),
        Binding("u", "undo", show=False, tooltip="take the last restore back, in the same way"),
        Binding("v", "carry_out('verify')", "Verify", tooltip="verify: every byte is read and compared"),
        Binding("p", "carry_out('prove')", "Prove", tooltip="prove: a test restore, in a scratch folder"),
        Binding("k", "carry_out('pin')", "Pin", tooltip="keep: pin it, or unpin it"),
        Binding("D", "delete", "Delete", tooltip="delete it, after a question"),
        Binding("/", "find", "Find", tooltip="find by name, note, revision, commit, state; Esc shows all again"),
        Binding("escape", "show_all", show=False),
    ]
    DEFAULT_CSS = """
    BackupsPage #shown { color: $foreground 70%; height: 1; padding: 0 1; }
    BackupsPage #find { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    BackupsPage #find.shown { display: block; }
    BackupsPage #summary { height: 5; border-top: solid $panel; padding: 0 1; color: $foreground 85%; }
    """
    state: RepositoryState | None = None
    found: Sequence[Backup] = ()
    """The backups in the table, in the order of its rows."""

    def compose(self) -> ComposeResult:
        yield Label("", id="shown", markup=False)
        yield Input(placeholder=_FIND, id="find")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Static("", id="summary", markup=False)

    # Table

    def show_state(self, state: RepositoryState) -> None:
        self.state = state
        self._show_rows()

    def move_cursor_to(self, name: str) -> None:
        """Move the cursor to that backup, if it is listed."""
        for row, one in enumerate(self.found):
            if one.name == name:
                self.table.move_cursor(row=row)

    @on(Input.Changed)
    def _show_rows(self) -> None:
        """Show the backups that match; keep the cursor on its backup."""
        if not self.state:
            return
        before, words = self.chosen, self.query_one("#find", Input).value
        self.found = [one for one in self.state.report.backups if has_words(one, words.lower().split())]
        rows = {one.name: tuple(_cells(self.settings, one, self.state.verdict(one))) for one in self.found}
        self.show_rows(_COLUMNS, rows)
        if before:
            self.move_cursor_to(before.name)
        self._show_caption(len(self.found), len(self.state.report.backups), words)
        self._show_summary()

    def _show_caption(self, found: int, total: int, words: str) -> None:
        of_all = "" if found == total else f" of {total:,}"
        caption = f"{found:,}{of_all} backups{f' · with “{words}”' if words else ''}"
        none = "There are no backups yet. Press b to make the first one."
        self.query_one("#shown", Label).update(caption if total else none)

    @property
    def chosen(self) -> Backup | None:
        """The backup under the cursor."""
        return self.found[self.table.cursor_row] if self.found else None

    @on(DataTable.RowHighlighted)
    def _show_summary(self) -> None:
        backup, state = self.chosen, self.state
        lines = _summary(backup, state.verdict(backup)) if backup and state else ()
        self.query_one("#summary", Static).update("\n".join(lines))

    # Find

    def action_find(self) -> None:
        find = self.query_one("#find", Input)
        find.add_class("shown")
        find.focus()

    @on(Input.Submitted)
    def _leave_search(self) -> None:
        self.table.focus()

    def action_show_all(self) -> None:
        """Clear the search, and show all backups."""
        find = self.query_one("#find", Input)
        find.value = ""
        find.remove_class("shown")
        self.table.focus()
        self._show_rows()

    # Actions

    @on(DataTable.RowSelected)
    def _show_in_full(self) -> None:
        if (backup := self.chosen) and self.state:
            schema = [f"  schema     {verdict.reason}"] if (verdict := self.state.verdict(backup)) else []
            inside = f"Look inside: `web`, or `files {backup.name}`, `rows {backup.name} TABLE`"
            lines = [*render.details(self.settings, backup), *schema, "", inside]
            self.app.push_screen(Message(backup.name, lines))

    @work
    async def action_back_up(self) -> None:
        name, note = "", ""
        while True:  # keep the typed text after an error, until the backup is made or cancelled
            fields = {
                "Name": Input(name, "made from the time where left empty"),
                "Note": Input(note, "a few words to find it by"),
            }
            asked = await self.app.push_screen_wait(Form("Back up now", fields, "Back up"))
            if asked is None:
                return
            name, note = asked
            ended = await self.window.carry_out(tasks.back_up(self.settings, name, note))
            if ended.result:
                self.action_show_all()
                return self.move_cursor_to(ended.result.backup.name)
            if not ended.error:
                return

    @work
    async def action_carry_out(self, task: str) -> None:
        """Carry out this one of `_TASKS` on the backup under the cursor."""
        if backup := self.chosen:
            await self.window.carry_out(_TASKS[task](self.settings, backup))

    @work
    async def action_restore(self) -> None:
        if backup := self.chosen:
            await restore(self.window, RestoreRequest(backup.name))

    @work
    async def action_undo(self) -> None:
        await restore(self.window, RestoreRequest())

    @work
    async def action_delete(self) -> None:
        if not (self.state and (backup := self.chosen)):
            return
        try:
            found = deletable(self.settings, backup.name)
        except BackupError as error:
            await self.app.push_screen(Message("✗ It failed", error_lines(error), "badly"))
            return
        lost = [one] if (one := lost_without(self.settings, found.name)) else []
        lines = [f"Delete {found.path} for ever?", *lost, "", *_summary(found, self.state.verdict(found))]
        if await self.app.push_screen_wait(Question("Delete", lines, "Delete for ever")):
            await self.window.carry_out(tasks.delete(self.settings, found))


def _cells(settings: Settings, backup: Backup, verdict: SchemaVerdict | None) -> Iterator[Text]:
    """Yield the cells of one row; the time without its seconds."""
    name, made, kind, size, adds, _, _, note = render.backup_row(settings, backup)
    marks = f"{'◆' if backup.pinned else ''}{'!' if backup.unusual else ''}"
    state = coloured(STATE_SYMBOLS[backup.state], f"{backup.state} {marks}".rstrip())
    yield from (Text(made[:16]), state, Text(printable(name)))
    yield from (Text(size, justify="right"), Text(adds, justify="right"), Text(kind))
    yield from (Text(_RELATIONS[verdict.relation] if verdict else "-"), Text(printable(note)))


def _summary(backup: Backup, verdict: SchemaVerdict | None) -> Iterator[str]:
    """Yield a summary of one backup in a few lines."""
    metadata = backup.metadata
    if metadata is None:
        yield f"{printable(backup.name)}: {printable(backup.error)}"
        return
    yield f"{printable(backup.name)}{f' · {printable(metadata.note)}' if metadata.note else ''}"
    yield _contents(metadata)
    if verdict:
        yield verdict.reason
    why = [flaw.text for flaw in backup.flaws[:1]] or [backup.error or backup.not_proven]
    yield from (f"! {printable(text)}" for text in (*why, *backup.unusual[:1]) if text)


def _contents(metadata: Metadata) -> str:
    facts, uploads = metadata.database, metadata.uploads
    parts = [f"{len(facts.rows)} tables, {sum(facts.rows.values()):,} rows"] if facts else []
    parts += [f"{uploads.files:,} uploads"] if uploads else [] if metadata.uploads_included else ["no uploads"]
    parts += [f"{len(uploads.warnings)} warnings"] if uploads and uploads.warnings else []
    return " · ".join(parts)
