"""Boxes in front of everything: yes or no, some text, an error. Escape is no."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
    """A title, lines to read, what a kind of dialog has of its own, and its buttons."""

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
            box.border_title = Text(printable_text(self._title))  # a string would be taken for markup
            if self._lines:
                with VerticalScroll(classes="lines"):
                    yield Static(said(self._lines), markup=False)
            yield from self.own()
            with Horizontal(classes="buttons"):
                yield from self.buttons()

    def own(self) -> ComposeResult:
        """What is between the lines and the buttons."""
        yield from ()

    def buttons(self) -> ComposeResult:
        """From left to right."""
        yield Button("Close", variant="primary", id="close")

    def action_leave(self) -> None:
        """The dialog goes, and nothing is done."""
        self.dismiss(None)


def said(lines: Iterable[str]) -> str:
    """The lines, the commands in backticks as they are typed here; nothing in them is a command to the terminal."""
    return printable_lines(in_full("\n".join(lines)))


class Question(Dialog[bool]):
    """Yes or no. The safe answer has the keyboard."""

    def __init__(self, title: str, lines: Iterable[str], yes: str) -> None:
        super().__init__(title, lines)
        self._yes = yes

    def buttons(self) -> ComposeResult:
        yield Button("No, leave it", id="no")
        yield Button(Content(printable_text(self._yes)), variant="error", id="yes")

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        self.dismiss(pressed.button.id == "yes")


class Message(Dialog[None]):
    """Lines to read, which the arrows scroll, and a button to go on."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,enter", "leave", show=False)]

    def on_mount(self) -> None:
        self.query_one(".lines").focus()

    def on_button_pressed(self) -> None:
        self.dismiss()


def error_message(error: BackupError) -> Message:
    """The sentence and the hint of the command line."""
    return Message("✗ It failed", [error.message, *([f"Next: {error.hint}"] if error.hint else [])], "badly")


@dataclass(frozen=True)
class Field:
    """One thing to type: its label, and what is said in it while it is empty."""

    label: str
    placeholder: str = ""
    value: str = ""


class Form(Dialog[tuple[str, ...] | None]):
    """Some text, a line for each field; None where the person thought better of it."""

    def __init__(self, title: str, fields: Iterable[Field], yes: str) -> None:
        super().__init__(title)
        self._fields, self._yes = list(fields), yes

    def own(self) -> ComposeResult:
        for field in self._fields:
            yield Label(field.label, classes="label", markup=False)
            yield Input(field.value, field.placeholder)

    def buttons(self) -> ComposeResult:
        yield Button("Cancel", id="no")
        yield Button(Content(printable_text(self._yes)), variant="primary", id="yes")

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        self._end() if pressed.button.id == "yes" else self.dismiss(None)

    def on_input_submitted(self, submitted: Input.Submitted) -> None:
        """Enter goes to the next field; from the last one it is done."""
        fields = list(self.query(Input))
        place = fields.index(submitted.input)
        fields[place + 1].focus() if place + 1 < len(fields) else self._end()

    def _end(self) -> None:
        self.dismiss(tuple(field.value.strip() for field in self.query(Input)))
