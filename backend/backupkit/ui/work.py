"""The dialog for a running task: its progress, a button to cancel it, and its result."""

from __future__ import annotations

import time
from typing import Generic

from msgspec.structs import replace
from textual import work
from textual.containers import VerticalScroll
from textual.widgets import Button, Label, ProgressBar, Static

from backupkit.cli.task import Ended, Result, Run, Task, how_far
from backupkit.ui.dialogs import Dialog, error_lines, said

_UPDATE_INTERVAL = 0.1  # seconds between two updates of the progress shown


class WorkScreen(Dialog[Ended[Result]], Generic[Result]):
    """A dialog that runs a task in a thread; it shows the progress, then the result or the error."""

    AUTO_FOCUS = "#cancel"
    DEFAULT_CSS = """
    WorkScreen ProgressBar { margin: 1 0; width: 100%; }
    WorkScreen Bar { width: 1fr; }
    """

    def __init__(self, task: Task[Result]) -> None:
        told = VerticalScroll(
            Static("", id="said", markup=False), Static("", id="ended", markup=False), classes="lines"
        )
        body = (Label(f"{task.title} …", id="step", markup=False), ProgressBar(show_eta=False), told)
        super().__init__(task.title, body=body, buttons=[Button("Cancel", id="cancel")])
        self.run: Run[Result] = Run(task)
        self.ended: Ended[Result] | None = None

    def on_mount(self) -> None:
        self.set_interval(_UPDATE_INTERVAL, self._show_progress)
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
        is_well = ended.state == "done"
        if is_well and self.run.task.is_quick:
            if lines := [*self._result_lines(ended)[1:], *self.run.said]:
                self.app.notify(said(lines), markup=False)
            self.dismiss(ended)
            return
        self.query_one(".box").add_class("well" if is_well else "badly")
        self.query_one(ProgressBar).display = False
        self._show_said()
        self.query_one("#step", Label).update(self._verdict(ended))
        self.query_one("#ended", Static).update(said(self._result_lines(ended)))
        buttons = self.query_one(".buttons")
        buttons.remove_children()
        for number, choice in enumerate(self.run.task.choices if is_well else ()):
            buttons.mount(Button(choice, id=f"choice-{number}"))
        close = Button("Close", variant="primary", id="close")
        buttons.mount(close)
        self.call_after_refresh(close.focus)

    def _show_said(self) -> None:
        lines = self.query_one("#said", Static)
        lines.display = bool(self.run.said)
        lines.update(said(self.run.said))

    def _verdict(self, ended: Ended[Result]) -> str:
        took = f"after {time.monotonic() - self.run.began:.1f} s"
        if ended.state == "failed":
            return f"✗ It failed {took}."
        return f"✓ Done {took}." if ended.state == "done" else f"- Cancelled {took}; nothing is left half done."

    def _result_lines(self, ended: Ended[Result]) -> list[str]:
        if ended.error:
            return ["", *error_lines(ended.error)]
        return ["", *self.run.task.result_lines(ended.result)] if ended.state == "done" else []  # type: ignore[arg-type]

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        if pressed.button.id == "cancel":
            self.run.cancel()
        elif self.ended is not None:
            choice = "" if pressed.button.id == "close" else str(pressed.button.label)
            self.dismiss(replace(self.ended, choice=choice))

    def action_leave(self) -> None:
        """Cancel a running task, or close the dialog of one that has ended."""
        if self.ended is not None:
            self.dismiss(self.ended)
        elif self.run.can_be_cancelled:
            self.run.cancel()
