"""Modal dialogs: questions, forms, messages and errors. Escape cancels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Generic, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Input, Label, Static

from backupkit.config.deployment import in_full
from backupkit.model.errors import BackupError
from backupkit.model.names import printable_lines, printable_text

Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer], Generic[Answer]):
    """A modal dialog: a title, lines of text, the widgets of `body`, and buttons, by default one to close it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False)]
    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 60%; }
    Dialog .box {
        width: 76; max-width: 96%; height: auto; max-height: 92%;
        border: round $primary; border-title-style: bold; background: $surface; padding: 1 2;
    }
    Dialog .box.well { border: round $success; }
    Dialog .box.badly { border: round $error; }
    Dialog .lines { height: auto; max-height: 50vh; scrollbar-size: 1 1; }
    Dialog .label { margin-top: 1; }
    Dialog .buttons { height: auto; align-horizontal: right; margin-top: 1; }
    Dialog Button { margin-left: 2; }
    """

    def __init__(
        self,
        title: str,
        lines: Iterable[str] = (),
        colour: str = "",
        body: Iterable[Widget] = (),
        buttons: Iterable[Button] = (),
    ) -> None:
        super().__init__()
        self._title, self._lines, self._colour = title, list(lines), colour
        self._body, self._buttons = body, list(buttons) or [Button("Close", variant="primary", id="close")]

    def compose(self) -> ComposeResult:
        with Vertical(classes=f"box {self._colour}") as box:
            box.border_title = Text(printable_text(self._title))  # a plain string would be parsed as markup
            if self._lines:
                with VerticalScroll(classes="lines"):
                    yield Static(said(self._lines), markup=False)
            yield from self._body
            yield Horizontal(*self._buttons, classes="buttons")

    def action_leave(self) -> None:
        """Close the dialog without an answer."""
        self.dismiss(None)


def said(lines: Iterable[str]) -> str:
    """Return the lines as printable text, with commands in backticks expanded to what is typed in this deployment."""
    return printable_lines(in_full("\n".join(lines)))


class Question(Dialog[bool]):
    """A yes-or-no question; the safe answer has the focus."""

    AUTO_FOCUS = "#no"

    def __init__(self, title: str, lines: Iterable[str], yes: str) -> None:
        go_on = Button(Content(printable_text(yes)), variant="error", id="yes")
        super().__init__(title, lines, buttons=[Button("No, leave it", id="no"), go_on])

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        self.dismiss(pressed.button.id == "yes")


class Message(Dialog[None]):
    """A message that the arrow keys scroll, and a button to close it."""

    AUTO_FOCUS = ".lines"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,enter", "leave", show=False)]

    def on_button_pressed(self) -> None:
        self.dismiss()


def error_lines(error: BackupError) -> list[str]:
    """Return the message and the hint of the error, as on the command line."""
    return [error.message, *([f"Next: {error.hint}"] if error.hint else [])]


class Form(Dialog[tuple[str, ...] | None]):
    """A form of fields by their labels; the answer is their text, stripped, or None if the person cancelled."""

    def __init__(self, title: str, fields: Mapping[str, Input], yes: str) -> None:
        self._fields = list(fields.values())
        body = [one for label, field in fields.items() for one in (Label(label, classes="label", markup=False), field)]
        go_on = Button(Content(printable_text(yes)), variant="primary", id="yes")
        super().__init__(title, body=body, buttons=[Button("Cancel", id="no"), go_on])

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        self._end() if pressed.button.id == "yes" else self.dismiss(None)

    def on_input_submitted(self, submitted: Input.Submitted) -> None:
        """Move to the next field on Enter; submit the form from the last one."""
        self._end() if submitted.input is self._fields[-1] else self.focus_next(Input)

    def _end(self) -> None:
        self.dismiss(tuple(field.value.strip() for field in self._fields))
