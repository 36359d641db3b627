"""The restore dialogs: show the plan, ask for the backup's name, show the result, and offer to undo it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Button, Input, Label

from backupkit.cli import render
from backupkit.cli.task import Task
from backupkit.cli.tasks import RestoreRequest, restoring
from backupkit.model.errors import SchemaMismatch
from backupkit.restore.restore import RestorePlan
from backupkit.ui.dialogs import Dialog, Question

if TYPE_CHECKING:
    from backupkit.ui.window import BackupApp

PARTS = (("Everything", None), ("Only database", "database"), ("Only uploads", "uploads"))


async def restore(window: BackupApp, request: RestoreRequest) -> None:
    """Plan and carry out a restore; repeat while the person asks for another one. Await it in a worker."""
    wanted: RestoreRequest | None = request
    while wanted:
        wanted = await _one_restore(window, wanted)


async def _one_restore(window: BackupApp, request: RestoreRequest) -> RestoreRequest | None:
    """Show the plan, and restore once the name is typed; return what the person wants instead or next, or None."""
    title = f"Looking at {request.name}" if request.name else "Looking at the last restore"
    plan_task: Task[RestorePlan | SchemaMismatch] = Task(
        title, lambda emit: request.plan(window.settings, emit), lambda _: (), is_quick=True
    )
    found = (await window.carry_out(plan_task)).result
    if isinstance(found, SchemaMismatch):
        lines = [found.message, "", f"Next: {found.hint}", "", "If you continue, the plan is shown first."]
        is_confirmed = await window.push_screen_wait(Question("! Another schema", lines, "Continue anyway"))
        return replace(request, force=True) if is_confirmed else None
    if found is None:
        return None
    answer = await window.push_screen_wait(PlanDialog(found, request))
    if not isinstance(answer, RestorePlan):
        return answer
    ended = await window.carry_out(restoring(window.settings, answer, window.clock))
    return RestoreRequest() if ended.choice else None


class PlanDialog(Dialog[RestorePlan | RestoreRequest | None]):
    """The plan, and a field for the backup's name, so that a wrong key cannot start a restore."""

    AUTO_FOCUS = "#typed"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup,up", "page(-1)", show=False),
        Binding("pagedown,down", "page(1)", show=False),
    ]
    DEFAULT_CSS = """
    PlanDialog .box { width: 100; }
    PlanDialog Input { background: $panel; padding: 0 1; }
    PlanDialog Button { min-width: 0; margin-left: 1; }
    """

    def __init__(self, plan: RestorePlan, request: RestoreRequest) -> None:
        name, others = plan.source.name, list(_others(plan, request))
        self.plan, self._others = plan, {f"other-{number}": other for number, (_, other) in enumerate(others)}
        label = Label(f"To restore it, type its name: {name}", classes="label", markup=False)
        field = Input(placeholder=name, id="typed", compact=True)
        buttons = (
            *(Button(label, id=f"other-{number}", compact=True) for number, (label, _) in enumerate(others)),
            Button("Back", id="back", compact=True),
            Button("Restore", variant="error", id="go", disabled=True, compact=True),
        )
        super().__init__(f"Restoring {name}", render.plan(plan), body=(label, field), buttons=buttons)

    @property
    def confirmed(self) -> RestorePlan | None:
        """The plan if the person has typed the name of its backup, else None."""
        return self.plan if self.query_one(Input).value.strip() == self.plan.source.name else None

    def on_input_changed(self) -> None:
        self.query_one("#go", Button).disabled = self.confirmed is None

    def on_input_submitted(self) -> None:
        if self.confirmed:
            self.dismiss(self.confirmed)

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        self.dismiss(self.confirmed if pressed.button.id == "go" else self._others.get(pressed.button.id or ""))

    def action_page(self, direction: int) -> None:
        """Scroll the plan, since the focus stays in the field below it."""
        lines = self.query_one(VerticalScroll)
        lines.scroll_page_down() if direction > 0 else lines.scroll_page_up()


def _others(plan: RestorePlan, request: RestoreRequest) -> Iterator[tuple[str, RestoreRequest]]:
    """Yield the other ways to restore this backup, with their labels: another part, or with or without migrations."""
    if not request.name:
        return
    yield from ((label, replace(request, only=part)) for label, part in PARTS if part != request.only)
    if request.migrate or (plan.verdict and plan.verdict.pending):
        yield "Do not migrate" if request.migrate else "Migrate first", replace(request, migrate=not request.migrate)
