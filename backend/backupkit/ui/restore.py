"""The place "Restore": choose a backup, read its plan, type its name, see the proof; and take it back again."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, ContentSwitcher, DataTable, Input, Label, RadioSet, Static

from backupkit.cli.task import Task
from backupkit.cli.tasks import Wish, restoring, result_lines
from backupkit.config.deployment import in_full
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.backup import Backup, Part
from backupkit.model.errors import SchemaMismatch
from backupkit.model.names import printable
from backupkit.restore.restore import RestorePlan
from backupkit.ui import styles
from backupkit.ui.page import Page, fill
from backupkit.ui.restore_plan import plan_shown
from backupkit.ui.styles import Choice, Tick, plain_title
from backupkit.ui.world import RepositoryState

_PARTS: tuple[tuple[str, Part | None], ...] = (
    ("Everything", None),
    ("Only database", "database"),
    ("Only uploads", "uploads"),
)


class RestorePage(Page):
    """One step in view at a time: choose, mismatch, confirm, outcome."""

    place = "restore"
    title = "Restore"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "undo", "Undo the last restore"),
        Binding("escape", "choose", "Back to the list"),
    ]
    DEFAULT_CSS = """
    RestorePage ContentSwitcher { height: 1fr; }
    RestorePage .told { height: auto; padding: 0 1; margin-bottom: 1; color: $foreground 80%; }
    RestorePage .buttons { height: auto; align-horizontal: right; }
    RestorePage Button { margin-left: 2; padding: 0 2; }
    RestorePage DataTable, RestorePage VerticalScroll { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 1; }
    """

    def compose(self) -> ComposeResult:
        with ContentSwitcher(initial="choose"):
            yield Choose(id="choose")
            yield Mismatch(id="mismatch")
            yield Confirm(id="confirm")
            yield ResultStep(id="outcome")

    def show_world(self, world: RepositoryState) -> None:
        self.query_one(Choose).show(world, self.settings)
        self.query_one(Confirm).draw()

    def about(self, name: str) -> None:
        self.action_choose()
        self.query_one(Choose).choose(name)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """There is no way back from the list."""
        return action != "choose" or self.query_one(ContentSwitcher).current != "choose"

    def action_choose(self) -> None:
        """Back to the list of backups, with nothing done."""
        self._turn_to("choose")

    def action_undo(self) -> None:
        """The plan that takes the last restore back."""
        self.look(Wish())

    def _turn_to(self, step: str) -> None:
        self.query_one(ContentSwitcher).current = step
        self.query_one(f"#{step}", Step).take_focus()
        self.refresh_bindings()

    @work(exclusive=True, group="restore")
    async def look(self, wish: Wish) -> None:
        """The plan is made before the person's eyes, since every byte of the backup is verified for it."""
        title = f"Looking at {wish.name}" if wish.name else "Looking at the last restore"
        task: Task[RestorePlan | SchemaMismatch] = Task(
            title, lambda emit: wish.plan(self.settings, emit), lambda _: (), is_quick=True
        )
        found = (await self.window.carry_out(task)).result
        if isinstance(found, SchemaMismatch):
            self.query_one(Mismatch).show(wish, found)
            self._turn_to("mismatch")
        elif found:
            self.query_one(Confirm).show(found, self.settings, self._backup(found.source.name))
            self._turn_to("confirm")

    def _backup(self, name: str) -> Backup | None:
        return self.window.world.backup(name) if self.window.world else None

    @work(exclusive=True, group="restore")
    async def restore(self, plan: RestorePlan) -> None:
        """What the plan shows is done, and what came of it stays in view."""
        ended = await self.window.carry_out(restoring(self.settings, plan, self.window.clock))
        if ended.result is None:
            return self.action_choose()
        done = ended.result
        self.query_one(ResultStep).show(done.source, result_lines(self.settings, done), done.can_undo)
        self._turn_to("outcome")
        if ended.choice:
            self.action_undo()

    @on(Button.Pressed, "#look")
    def _look(self) -> None:
        if wish := self.query_one(Choose).wish:
            self.look(wish)

    @on(DataTable.RowSelected)
    def _chosen(self) -> None:
        self._look()

    @on(Button.Pressed, ".undo")
    def _undo(self) -> None:
        self.action_undo()

    @on(Button.Pressed, "#all-the-same")
    def _look_all_the_same(self) -> None:
        self.look(self.query_one(Mismatch).wish)

    @on(Button.Pressed, ".back")
    def _back(self) -> None:
        self.action_choose()

    @on(Button.Pressed, "#go")
    @on(Input.Submitted, "#typed")
    def _go(self) -> None:
        if plan := self.query_one(Confirm).confirmed:
            self.restore(plan)


class Step(Vertical):
    """One step of the page; what the keyboard goes to when it comes into view."""

    first: ClassVar[str] = ""

    def take_focus(self) -> None:
        self.query_one(self.first).focus()


class Choose(Step):
    """Which backup, which half of it, and whether this code's migrations are run on it first."""

    first = "DataTable"
    DEFAULT_CSS = """
    Choose DataTable { height: 1fr; }
    Choose #how { height: auto; margin: 1 0; }
    Choose RadioSet { layout: horizontal; width: auto; height: 1; border: none; padding: 0; background: transparent; }
    Choose RadioSet > Choice { width: auto; margin-right: 2; }
    Choose Tick { width: auto; padding-left: 2; }
    """

    _names: tuple[str, ...] = ()
    _wanted = ""
    _drawn: object = None

    def compose(self) -> ComposeResult:
        yield Static("Choose a backup. Nothing changes before you have typed its name.", classes="told")
        yield DataTable[Text](cursor_type="row", zebra_stripes=True)
        with Horizontal(id="how"):
            with RadioSet(compact=True, id="part"):
                for number, (words, _) in enumerate(_PARTS):
                    yield Choice(words, number == 0, compact=True)
            yield Tick("Migrate it", compact=True, id="migrate")
        with Horizontal(classes="buttons"):
            yield Button("Undo the last restore", classes="undo", compact=True)
            yield Button("Show the plan", variant="primary", id="look", compact=True)

    @property
    def wish(self) -> Wish | None:
        """What is chosen; nothing where there is no backup."""
        row = self.query_one(DataTable).cursor_row
        if not 0 <= row < len(self._names):
            return None
        part = _PARTS[max(0, self.query_one(RadioSet).pressed_index)][1]
        return Wish(self._names[row], part, self.query_one(Tick).value)

    def show(self, world: RepositoryState, settings: Settings) -> None:
        """Every backup, newest first; the one that was chosen stays so, whatever came or went."""
        chosen = self.wish.name if self.wish else ""
        colours = styles.colours(self.app.theme_variables)
        if (world.backups, settings.zone, colours) != self._drawn:
            self._drawn = (world.backups, settings.zone, colours)
            rows = [_row(settings, backup, colours) for backup in world.backups]
            fill(self.query_one(DataTable), ("Backup", "Made", "Size", "State", "Note"), rows)
        self._names = tuple(backup.name for backup in world.backups)
        self._move_to(self._wanted) or self._move_to(chosen)
        self.query_one("#look", Button).disabled = not self._names

    def choose(self, name: str) -> None:
        """The cursor goes to that backup; as soon as it is there, where it is not yet."""
        self._wanted = name
        self._move_to(name)

    def _move_to(self, name: str) -> bool:
        if name not in self._names:
            return False
        self.query_one(DataTable).move_cursor(row=self._names.index(name))
        self._wanted = "" if name == self._wanted else self._wanted
        return True


class Mismatch(Step):
    """The schema is not one that this code can go on from: the sentence of the command line, and its way on."""

    first = ".back"
    DEFAULT_CSS = """
    Mismatch #why { border: round $warning; padding: 1 2; height: auto; border-title-style: bold; margin-bottom: 1; }
    """
    wish = Wish()

    def compose(self) -> ComposeResult:
        yield Static("", id="why", markup=False)
        with Horizontal(classes="buttons"):
            yield Button("Back", classes="back", variant="primary", compact=True)
            yield Button("Go on all the same", variant="error", id="all-the-same", compact=True)

    def show(self, wish: Wish, error: SchemaMismatch) -> None:
        self.wish = replace(wish, force=True)
        why = self.query_one("#why", Static)
        why.border_title = "! Another schema"
        next_step = in_full(f"Next: {error.hint}")
        why.update(f"{error.message}\n\n{next_step}\n\nTo go on all the same shows the plan first, as always.")


class Confirm(Step):
    """The plan; and the backup's name to be typed, so that no slip of a finger restores anything."""

    first = "#typed"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]
    DEFAULT_CSS = """
    Confirm #plan-box { height: 1fr; border: round $primary; border-title-style: bold; padding: 0 1; }
    Confirm #plan { height: auto; }
    Confirm #ask { height: auto; margin-bottom: 1; }
    Confirm #typed { width: 1fr; background: $panel; padding: 0 1; }
    Confirm #question { padding: 0 1; margin-top: 1; }
    """
    plan: RestorePlan | None = None
    _settings: Settings | None = None
    _backup: Backup | None = None

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="plan-box"):
            yield Static("", id="plan")
        yield Label("", id="question", markup=False)
        with Horizontal(id="ask"):
            yield Input(id="typed", compact=True)
            yield Button("Restore", variant="error", id="go", disabled=True, compact=True)
            yield Button("Back", classes="back", compact=True)

    def show(self, plan: RestorePlan, settings: Settings, backup: Backup | None) -> None:
        """The plan of a backup, which may have gone meanwhile, or be a safety copy."""
        self.plan, self._settings, self._backup = plan, settings, backup
        self.draw()
        self.query_one("#plan-box").border_title = plain_title(f"Restoring {plan.source.name} will change")
        self.query_one("#question", Label).update(f"To restore it, type its name: {plan.source.name}")
        typed = self.query_one("#typed", Input)
        typed.value, typed.placeholder = "", plan.source.name
        self.query_one("#plan-box").scroll_home(animate=False)

    def draw(self) -> None:
        """The plan, in the colours of the theme."""
        if self.plan and self._settings:
            colours = styles.colours(self.app.theme_variables)
            self.query_one("#plan", Static).update(plan_shown(self._settings, self.plan, self._backup, colours))

    @property
    def confirmed(self) -> RestorePlan | None:
        """The plan, where the person typed the name of what it restores."""
        typed = self.query_one("#typed", Input).value.strip()
        return self.plan if self.plan and typed == self.plan.source.name else None

    def on_input_changed(self) -> None:
        self.query_one("#go", Button).disabled = self.confirmed is None

    def action_page(self, direction: int) -> None:
        """The plan scrolls, while the keyboard is in the field below it."""
        box = self.query_one("#plan-box")
        box.scroll_page_down() if direction > 0 else box.scroll_page_up()


class ResultStep(Step):
    """What was restored, its proof, and what is left to type."""

    first = ".back"
    DEFAULT_CSS = """
    ResultStep #came { height: auto; border: round $success; border-title-style: bold; padding: 1 2; }
    ResultStep VerticalScroll { height: 1fr; }
    ResultStep .buttons { margin-top: 1; }
    """

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static("", id="came", markup=False)
        with Horizontal(classes="buttons"):
            yield Button("Undo this restore", classes="undo", compact=True)
            yield Button("Back to the list", variant="primary", classes="back", compact=True)

    def show(self, name: str, lines: list[str], can_undo: bool) -> None:
        self.query_one(".undo", Button).display = can_undo
        came = self.query_one("#came", Static)
        came.border_title = plain_title(f"✓ {name} is restored")
        came.update("\n".join(lines))


def _row(settings: Settings, backup: Backup, colours: styles.Colours) -> tuple[Text, ...]:
    made = settings.local(backup.metadata.created_at) if backup.metadata else None
    return (
        Text(backup.name, no_wrap=True),
        Text(f"{made:%Y-%m-%d %H:%M}" if made else "-"),
        Text(format_bytes(backup.size_bytes) if backup.metadata else "-", justify="right"),
        styles.state_text(colours, backup.state, backup.state),
        Text(printable(backup.metadata.note) if backup.metadata else ""),
    )
