"""Long work in a window: its progress in front of everything, a button to cancel it, and how it ended."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar, Generic

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Label, ProgressBar, Static

from backupkit.cli.task import Ended, Result, Run, Task, how_far
from backupkit.config.deployment import in_full
from backupkit.model.names import printable_lines
from backupkit.ui.styles import plain_title

_LOOK = 0.1  # seconds between two looks at what the thread has told


class WorkScreen(ModalScreen[Ended[Result]], Generic[Result]):
    """A task at work, in front of everything: its progress, and then how it ended."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel or close", show=False)]
    DEFAULT_CSS = """
    WorkScreen { align: center middle; background: $background 60%; }
    WorkScreen #work {
        width: 74; max-width: 96%; height: auto; max-height: 92%;
        border: round $primary; border-title-style: bold; border-title-color: $foreground;
        background: $surface; padding: 1 2;
    }
    WorkScreen #work.well { border: round $success; }
    WorkScreen #work.badly { border: round $error; }
    WorkScreen #step { color: $foreground; }
    WorkScreen ProgressBar { margin: 1 0; width: 100%; }
    WorkScreen Bar { width: 1fr; }
    WorkScreen #said-box { height: auto; max-height: 50vh; scrollbar-size: 1 1; }
    WorkScreen #said { color: $foreground 80%; }
    WorkScreen #ended { height: auto; }
    WorkScreen #buttons { height: auto; align-horizontal: right; margin-top: 1; }
    WorkScreen Button { margin-left: 2; }
    """

    def __init__(self, task: Task[Result]) -> None:
        super().__init__()
        self.run: Run[Result] = Run(task)
        self.ended: Ended[Result] | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="work") as box:
            box.border_title = plain_title(self.run.task.title)
            yield Label(f"{self.run.task.title} …", id="step", markup=False)
            yield ProgressBar(id="bar", show_eta=False)
            with VerticalScroll(id="said-box"):
                yield Static("", id="said", markup=False)
                yield Static("", id="ended", markup=False)
            with Horizontal(id="buttons"):
                yield Button("Cancel", id="cancel")

    def on_mount(self) -> None:
        self.query_one("#cancel").focus()
        self.set_interval(_LOOK, self._show_progress)
        self._carry_out()

    @work(thread=True)
    def _carry_out(self) -> None:
        ended = self.run.carry_out()
        self.app.call_from_thread(self._show_ended, ended)

    def _show_progress(self) -> None:
        if self.ended is not None:
            return
        step, done = self.run.step, self.run.done
        self.query_one("#step", Label).update(self.run.waiting or f"{step.name} {how_far(self.run)}".rstrip())
        self.query_one(ProgressBar).update(total=step.total or None, progress=min(done, step.total or 0))
        self._show_said()
        cancel = self.query_one("#cancel", Button)
        cancel.disabled = self.run.wants_to_end or not self.run.can_be_cancelled
        cancel.label = "Cancelling …" if self.run.wants_to_end and self.run.can_be_cancelled else "Cancel"

    def _show_ended(self, ended: Ended[Result]) -> None:
        self.ended = ended
        if ended.state == "done" and self.run.task.is_quick:
            if lines := [*self._lines(ended)[1:], *self.run.said]:
                self.app.notify(printable_lines(in_full("\n".join(lines))), markup=False)
            self.dismiss(ended)
            return
        box, is_well = self.query_one("#work"), ended.state == "done"
        box.add_class("well" if is_well else "badly")
        self.query_one(ProgressBar).display = False
        self._show_said()
        self.query_one("#step", Label).update(self._verdict(ended))
        self.query_one("#ended", Static).update(printable_lines(in_full("\n".join(self._lines(ended)))))
        buttons = self.query_one("#buttons")
        buttons.remove_children()
        for number, choice in enumerate(self.run.task.choices if is_well else ()):
            buttons.mount(Button(choice, id=f"choice-{number}"))
        close = Button("Close", variant="primary", id="close")
        buttons.mount(close)
        self.call_after_refresh(close.focus)

    def _show_said(self) -> None:
        said = self.query_one("#said", Static)
        said.display = bool(self.run.said)
        said.update(printable_lines(in_full("\n".join(self.run.said))))

    def _verdict(self, ended: Ended[Result]) -> str:
        took = f"after {time.monotonic() - self.run.began:.1f} s"
        if ended.state == "failed":
            return f"✗ It failed {took}."
        return f"✓ Done {took}." if ended.state == "done" else f"- Cancelled {took}; nothing is left half done."

    def _lines(self, ended: Ended[Result]) -> list[str]:
        if ended.error:
            return ["", ended.error.message, *([f"Next: {ended.error.hint}"] if ended.error.hint else [])]
        return ["", *self.run.task.result_lines(ended.result)] if ended.state == "done" else []  # type: ignore[arg-type]

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        if pressed.button.id == "cancel":
            self.run.cancel()
        elif self.ended is not None:
            choice = "" if pressed.button.id == "close" else str(pressed.button.label)
            self.dismiss(replace(self.ended, choice=choice))

    def action_leave(self) -> None:
        """Escape cancels what goes on, and closes what has ended."""
        if self.ended is not None:
            self.dismiss(self.ended)
        elif self.run.can_be_cancelled:
            self.run.cancel()
