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
from textual.widgets import Button, Input, Label, Static

from backupkit.config.deployment import in_full
from backupkit.model.errors import BackupError
from backupkit.model.names import printable_lines, printable_text

Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer], Generic[Answer]):
    """A modal dialog: a title, lines of text, the widgets of the subclass, and buttons."""

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

    def __init__(self, title: str, lines: Iterable[str] = (), colour: str = "") -> None:
        super().__init__()
        self._title, self._lines, self._colour = title, list(lines), colour

    def compose(self) -> ComposeResult:
        with Vertical(classes=f"box {self._colour}") as box:
            box.border_title = Text(printable_text(self._title))  # a plain string would be parsed as markup
            if self._lines:
                with VerticalScroll(classes="lines"):
                    yield Static(said(self._lines), markup=False)
            yield from self.compose_body()
            with Horizontal(classes="buttons"):
                yield from self.buttons()

    def compose_body(self) -> ComposeResult:
        """Yield the widgets between the lines and the buttons."""
        yield from ()

    def buttons(self) -> ComposeResult:
        """Yield the buttons, from left to right."""
        yield Button("Close", variant="primary", id="close")

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
        super().__init__(title, lines)
        self._yes = yes

    def buttons(self) -> ComposeResult:
        yield Button("No, leave it", id="no")
        yield Button(Content(printable_text(self._yes)), variant="error", id="yes")

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
        super().__init__(title)
        self._fields, self._yes = fields, yes

    def compose_body(self) -> ComposeResult:
        for label, field in self._fields.items():
            yield Label(label, classes="label", markup=False)
            yield field

    def buttons(self) -> ComposeResult:
        yield Button("Cancel", id="no")
        yield Button(Content(printable_text(self._yes)), variant="primary", id="yes")

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        self._end() if pressed.button.id == "yes" else self.dismiss(None)

    def on_input_submitted(self, submitted: Input.Submitted) -> None:
        """Move to the next field on Enter; submit the form from the last one."""
        self._end() if submitted.input is list(self._fields.values())[-1] else self.focus_next(Input)

    def _end(self) -> None:
        self.dismiss(tuple(field.value.strip() for field in self._fields.values()))
