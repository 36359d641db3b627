"""The place "Look inside": tables and uploads of a backup; a file or a row put back, rows compared with live."""

from __future__ import annotations

import os
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, ContentSwitcher, DataTable, Select, Static
from textual.widgets.tree import TreeNode

from backupkit.cli import render, row_text
from backupkit.cli.task import Task
from backupkit.cli.tasks import bringing_back, putting_back
from backupkit.fs.space import format_bytes
from backupkit.model.backup import Backup
from backupkit.model.events import EventListener
from backupkit.model.names import printable, printable_text
from backupkit.model.patterns import literal
from backupkit.restore.extract import plan_extract
from backupkit.restore.rescue import RescuePlan, plan_rescue
from backupkit.sqlite import row_rescue
from backupkit.sqlite.rows import Comparison, Key, Row
from backupkit.sqlite.rows import RowPage as Rows
from backupkit.ui.dialogs import Field, Form, Message, Question
from backupkit.ui.inside_rows import PAGE, RowsView, row_lines, title_of
from backupkit.ui.inside_tree import Contents, ContentsTree, Spot, described, read_contents
from backupkit.ui.page import Page
from backupkit.ui.world import RepositoryState
from backupkit.verify import browse


class InsidePage(Page):
    """On the left what there is, on the right what of it is looked at."""

    place = "inside"
    title = "Look inside"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "take_out", "Take out"),
        Binding("b", "put_back", "Put back"),
        Binding("c", "compare", "Compare"),
        Binding("n", "turn(1)", "Later rows"),
        Binding("p", "turn(-1)", "Earlier"),
    ]
    DEFAULT_CSS = """
    InsidePage #which { margin-bottom: 1; }
    InsidePage #tree-box { width: 2fr; max-width: 44; border-right: solid $primary 40%; }
    InsidePage #seen { width: 3fr; padding-left: 1; }
    InsidePage #hint { color: $foreground 60%; padding: 1; }
    InsidePage #file { height: auto; }
    InsidePage #file-buttons { height: auto; }
    InsidePage #file-buttons Button { width: auto; margin-right: 2; }
    """

    def compose(self) -> ComposeResult:
        yield Select[str]([], prompt="Which backup?", compact=True, id="which")
        with Horizontal():
            with Vertical(id="tree-box"):
                yield ContentsTree()
            with ContentSwitcher(initial="hint", id="seen"):
                yield Static("Open a folder or a table on the left. Nothing in it can be changed.", id="hint")
                with Vertical(id="file"):
                    yield Static("", id="facts")
                    with Horizontal(id="file-buttons"):
                        yield Button("Take it out …", id="take", variant="primary", compact=True)
                        yield Button("Put it back …", id="put-back", compact=True)
                yield RowsView(id="table")

    # Which backup.

    _known: tuple[str, ...] = ()
    _wanted = ""
    _name = ""

    def show_world(self, world: RepositoryState) -> None:
        names = tuple(backup.name for backup in world.backups)
        if names == self._known:
            return
        self._known = names
        which = self.query_one("#which", Select)
        with self.prevent(Select.Changed):
            which.set_options([(self._label(backup), backup.name) for backup in world.backups])
        known = [name for name in (self._wanted, self._name, *names[:1]) if name in names]
        if known:
            self._choose(known[0])

    def about(self, name: str) -> None:
        self._choose(name)

    def take_focus(self) -> None:
        self.query_one(ContentsTree).focus()

    def _choose(self, name: str) -> None:
        """That backup is looked at; as soon as it is known, where it is not yet."""
        self._wanted = name
        if name not in self._known:
            return
        self._wanted = ""
        with self.prevent(Select.Changed):
            self.query_one("#which", Select).value = name
        if name != self._name:
            self._open(name)

    def _label(self, backup: Backup) -> Text:
        made = f"{self.settings.local(backup.metadata.created_at):%Y-%m-%d %H:%M}" if backup.metadata else "damaged"
        return Text(printable_text(f"{backup.name}  ·  {made}  ·  {format_bytes(backup.size_bytes)}"))

    @on(Select.Changed, "#which")
    def _chosen(self, changed: Select.Changed) -> None:
        if isinstance(changed.value, str):
            self._open(changed.value)

    def _open(self, name: str) -> None:
        self._name = name
        self._turn_to("hint")
        self.window.fetch(lambda: read_contents(self.settings, name), self._fill, "inside")

    def _fill(self, contents: Contents) -> None:
        if contents.name == self._name:
            self.query_one(ContentsTree).fill(contents)

    def _turn_to(self, what: str) -> None:
        self.query_one("#seen", ContentSwitcher).current = what
        self.refresh_bindings()

    # The tree.

    @on(ContentsTree.NodeExpanded)
    def _expanded(self, event: ContentsTree.NodeExpanded[Spot]) -> None:
        node = event.node
        if node.data and node.data.kind == "folder" and node.data.path and not node.children:
            self._read_folder(node, node.data.path, 0)

    @on(ContentsTree.NodeSelected)
    def _selected(self, event: ContentsTree.NodeSelected[Spot]) -> None:
        spot = event.node.data
        if spot is None:
            return
        if spot.kind == "more":
            self._read_folder(event.node, spot.path, spot.start)
        elif spot.kind == "table":
            self._read_rows(spot.path, spot.rows)
        elif spot.kind == "item":
            self._show_item(spot)

    def _read_folder(self, node: TreeNode[Spot], path: str, start: int) -> None:
        name = self._name

        def add(folder: browse.Folder) -> None:
            if name == self._name:
                self.query_one(ContentsTree).add_items(node, folder)

        self.window.fetch(lambda: browse.look_into(self.settings, name, path, start), add, f"folder {path}")

    def _show_item(self, spot: Spot) -> None:
        self._spot = spot
        self.query_one("#facts", Static).update(described(self.settings, spot))
        self.query_one("#take").display = self._can_be_taken
        self.query_one("#put-back").display = self._can_be_put_back
        self._turn_to("file")

    # A file.

    _spot = Spot("note")

    @property
    def _can_be_taken(self) -> bool:
        return bool(self._spot.item and self._spot.item.form == "file")

    @property
    def _can_be_put_back(self) -> bool:
        return bool(self._spot.item and self._spot.item.form in ("file", "link") and self.settings.uploads)

    @on(Button.Pressed, "#put-back")
    @on(Button.Pressed, "#bring")
    def _put_back(self) -> None:
        self.action_put_back()

    @work(exclusive=True, group="put-back")
    async def action_put_back(self) -> None:
        """The file or the row in view is live again: a plan, a question, a safety copy, as of any restore."""
        if self.query_one("#seen", ContentSwitcher).current == "table":
            await self._bring_row_back()
        else:
            await self._put_file_back()

    async def _bring_row_back(self) -> None:
        name, table, key = self._name, self._rows.table, self._rows.key
        if key is None:
            return
        title = f"Bringing {title_of(table, key)} back"

        def look(emit: EventListener) -> RescuePlan:
            return plan_rescue(self.settings, name, table, row_rescue.Choice(rows=(key,)), emit=emit)

        looking = Task(f"Looking for {title_of(table, key)}", look, lambda _: (), is_quick=True)
        plan = (await self.window.carry_out(looking)).result
        if plan is None:
            return
        if not plan.found.writes:
            await self.window.push_screen_wait(Message(title, row_text.rescue_plan(plan)))
        elif await self.window.push_screen_wait(Question(title, row_text.rescue_plan(plan), "Bring it back")):
            await self.window.carry_out(bringing_back(self.settings, title, plan, self.window.clock))

    async def _put_file_back(self) -> None:
        name, path = self._name, self._spot.path
        title = f"Putting {printable(os.path.basename(path))} back"
        looking = Task(
            f"Looking at {printable(path)}",
            lambda emit: plan_extract(self.settings, name, [literal(path)], emit=emit),
            lambda _: (),
            is_quick=True,
        )
        plan = (await self.window.carry_out(looking)).result
        if plan is None:
            return
        if await self.window.push_screen_wait(Question(title, render.plan(plan), "Put it back")):
            await self.window.carry_out(putting_back(self.settings, title, plan, self.window.clock))

    @on(Button.Pressed, "#take")
    def _take(self) -> None:
        self.action_take_out()

    @work(exclusive=True, group="take-out")
    async def action_take_out(self) -> None:
        """The file that is in view, put where the person says."""
        name, path = self._name, self._spot.path
        lines = [f"A copy of {printable(path)}, as it is in {name}.", f"A bare name goes to {self.settings.dir}."]
        told: tuple[str, ...] | None = (os.path.basename(path),)
        while told:  # what was typed stays where it is refused
            form = Form("Take a file out", [Field("Where to", value=told[0])], "Take it out", lines)
            told = await self.window.push_screen_wait(form)
            if not told or not told[0]:
                return
            target = browse.target_for(self.settings, told[0])
            task = Task(
                f"Taking {printable(os.path.basename(path))} out",
                lambda emit, target=target: browse.take_out(self.settings, name, path, target, emit),  # type: ignore[misc]
                lambda done: [f"It is in {printable(str(done))}, as it was sealed."],
            )
            if not (await self.window.carry_out(task)).error:
                return

    # A table.

    @property
    def _rows(self) -> RowsView:
        return self.query_one(RowsView)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """What can be done with what is in view."""
        seen = self.query_one("#seen", ContentSwitcher).current
        if action == "take_out":
            return seen == "file" and self._can_be_taken
        if action == "put_back":
            return self._rows.key is not None if seen == "table" else seen == "file" and self._can_be_put_back
        if action == "compare":
            return seen == "table" and not self._rows.is_comparison
        if action == "turn" and seen == "table" and self._rows.page:
            return self._rows.page.has_later if parameters == (1,) else self._rows.page.has_earlier
        return action != "turn"

    def _read_rows(
        self, table: str, total: int, start: int = 0, after: Key | None = None, before: Key | None = None
    ) -> None:
        name = self._name

        def show(page: Rows) -> None:
            if name == self._name:
                self._rows.show_page(table, total, start if page.has_earlier else 0, page)
                self._turn_to("table")

        self.window.fetch(lambda: browse.read_page(self.settings, name, table, PAGE, after, before), show, "rows")

    def action_turn(self, direction: int) -> None:
        """The rows behind those in view, or before them."""
        rows, page = self._rows, self._rows.page
        if page is None or not page.rows:
            return
        if direction > 0:
            self._read_rows(rows.table, rows.total, rows.start + len(page.rows), after=page.rows[-1].key)
        else:
            self._read_rows(rows.table, rows.total, max(0, rows.start - PAGE), before=page.rows[0].key)

    def action_compare(self) -> None:
        """What differs from the live table."""
        name, table = self._name, self._rows.table

        def show(found: Comparison) -> None:
            if name == self._name:
                self._rows.show_comparison(table, found)
                self._turn_to("table")

        self.window.fetch(lambda: browse.compare_table(self.settings, name, table), show, "rows")

    @on(Button.Pressed, "#earlier")
    def _earlier(self) -> None:
        self.action_turn(-1)

    @on(Button.Pressed, "#later")
    def _later(self) -> None:
        self.action_turn(1)

    @on(Button.Pressed, "#compare")
    def _compare(self) -> None:
        self.action_compare()

    @on(Button.Pressed, "#rows")
    def _back_to_rows(self) -> None:
        self._read_rows(self._rows.table, self._rows.total)

    @on(DataTable.RowSelected)
    def _row_selected(self) -> None:
        """One row in full."""
        name, table, key, page = self._name, self._rows.table, self._rows.key, self._rows.page
        if key is None or page is None:
            return

        def show(row: Row | None) -> None:
            if row:
                self.app.push_screen(Message(title_of(table, row.key), row_lines(page.columns, row.cells)))

        self.window.fetch(lambda: browse.read_row(self.settings, name, table, key), show, "row")
