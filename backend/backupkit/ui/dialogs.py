"""Questions in front of everything: yes or no, some text, an error. Escape is no."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from backupkit.config.deployment import in_full
from backupkit.model.errors import BackupError
from backupkit.model.names import printable_lines, printable_text
from backupkit.ui.styles import plain_title

BOX = """
{name} {{ align: center middle; background: $background 60%; }}
{name} .box {{
    width: 70; max-width: 96%; height: auto; max-height: 92%;
    border: round $primary; border-title-style: bold; background: $surface; padding: 1 2;
}}
{name} .lines {{ height: auto; max-height: 50vh; scrollbar-size: 1 1; }}
{name} .label {{ margin-top: 1; color: $foreground 80%; }}
{name} .buttons {{ height: auto; align-horizontal: right; margin-top: 1; }}
{name} Button {{ margin-left: 2; }}
"""


class Question(ModalScreen[bool]):
    """Yes or no. The safe answer has the keyboard."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(False)", show=False)]
    DEFAULT_CSS = BOX.format(name="Question")

    def __init__(self, title: str, lines: Iterable[str], yes: str, is_dangerous: bool = False) -> None:
        super().__init__()
        self._title, self._lines, self._yes, self._is_dangerous = title, list(lines), yes, is_dangerous

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = plain_title(self._title)
            with VerticalScroll(classes="lines"):
                yield Static(printable_lines(in_full("\n".join(self._lines))), markup=False)
            with Horizontal(classes="buttons"):
                yield Button("No, leave it", id="no")
                yield Button(
                    Content(printable_text(self._yes)), variant="error" if self._is_dangerous else "primary", id="yes"
                )

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        self.dismiss(pressed.button.id == "yes")


class Message(ModalScreen[None]):
    """Lines to read, which the arrows scroll, and a button to go on."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", show=False)]
    DEFAULT_CSS = (
        BOX.format(name="Message") + "Message .box { width: 76; }\nMessage .box.error { border: round $error; }"
    )

    def __init__(self, title: str, lines: Iterable[str], is_error: bool = False) -> None:
        super().__init__()
        self._title, self._lines, self._is_error = title, list(lines), is_error

    def compose(self) -> ComposeResult:
        with Vertical(classes="box error" if self._is_error else "box") as box:
            box.border_title = plain_title(self._title)
            with VerticalScroll(classes="lines"):
                yield Static(printable_lines(in_full("\n".join(self._lines))), markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Close", variant="primary", id="close")

    def on_mount(self) -> None:
        self.query_one(".lines").focus()

    def on_button_pressed(self) -> None:
        self.dismiss()


def error_message(error: BackupError) -> Message:
    """The sentence and the hint of the command line."""
    return Message("✗ It failed", [error.message, *([f"Next: {error.hint}"] if error.hint else [])], is_error=True)


@dataclass(frozen=True)
class Field:
    """One thing to type: its label, and what is said in it while it is empty."""

    label: str
    placeholder: str = ""
    value: str = ""
    is_secret: bool = False


class Form(ModalScreen[tuple[str, ...] | None]):
    """Some text, a line for each field; None where the person thought better of it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]
    DEFAULT_CSS = BOX.format(name="Form")

    def __init__(self, title: str, fields: Iterable[Field], yes: str, lines: Iterable[str] = ()) -> None:
        super().__init__()
        self._title, self._fields, self._yes, self._lines = title, list(fields), yes, list(lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = plain_title(self._title)
            if self._lines:
                yield Static(printable_lines(in_full("\n".join(self._lines))), markup=False)
            for number, field in enumerate(self._fields):
                yield Label(field.label, classes="label", id=f"label-{number}", markup=False)
                yield Input(field.value, field.placeholder, password=field.is_secret, id=f"field-{number}")
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no")
                yield Button(Content(printable_text(self._yes)), variant="primary", id="yes")

    def on_button_pressed(self, pressed: Button.Pressed) -> None:
        self._end() if pressed.button.id == "yes" else self.dismiss(None)

    def on_input_submitted(self, submitted: Input.Submitted) -> None:
        """Enter goes to the next field; from the last one it is done."""
        fields = list(self.query(Input))
        place = fields.index(submitted.input)
        fields[place + 1].focus() if place + 1 < len(fields) else self._end()

    def on_descendant_focus(self) -> None:
        """Which field has the keyboard is seen without colours too."""
        for number, field in enumerate(self._fields):
            mark = "▸ " if self.query_one(f"#field-{number}").has_focus else ""
            self.query_one(f"#label-{number}", Label).update(f"{mark}{field.label}")

    def _end(self) -> None:
        self.dismiss(tuple(field.value.strip() for field in self.query(Input)))
