"""One setting that can be edited: its words, its value, and what is wrong with what was typed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Label, Static

from backupkit.config.deployment import in_full
from backupkit.config.editor import as_typed
from backupkit.config.settings import Settings, overriding_variable
from backupkit.model.errors import Refused
from backupkit.ui.styles import Tick


class Entry(Vertical):
    """A line of the form. What the environment says cannot be edited here, and says so."""

    class Changed(Message):
        """Something was typed, or ticked."""

    DEFAULT_CSS = """
    Entry { height: auto; }
    Entry Horizontal { height: 1; }
    Entry Label { width: 19; }
    Entry Input { width: 1fr; background: $panel; padding: 0 1; }
    Entry Tick { width: auto; }
    Entry .trouble { color: $error; display: none; padding-bottom: 1; }
    Entry .fixed { color: $foreground 60%; padding-left: 2; }
    Entry.wrong .trouble { display: block; }
    Entry.wrong Input { background: $error 30%; }
    """

    def __init__(self, name: str, words: str, settings: Settings) -> None:
        super().__init__(id=f"entry-{name}")
        self.setting, self._words, self._variable = name, words, overriding_variable(name)
        self.original = as_typed(getattr(settings, name))
        self.text = self.original
        """What is typed, or ticked, now."""
        self._trouble = Static("", classes="trouble", markup=False)  # a preview may come before it stands there
        self._is_switch = isinstance(getattr(settings, name), bool)

    def compose(self) -> ComposeResult:
        is_fixed = bool(self._variable)
        with Horizontal():
            yield Label(self._words)
            if self._is_switch:
                yield Tick("", self.original == "true", compact=True, disabled=is_fixed)
            else:
                yield Input(self.original, compact=True, disabled=is_fixed)
        if is_fixed:
            yield Static(f"fixed by {self._variable}", classes="fixed", markup=False)
        yield self._trouble

    def type(self, text: str) -> None:
        """As if a person had typed it, or ticked."""
        if self._is_switch:
            self.query_one(Tick).value = text == "true"
        else:
            self.query_one(Input).value = text
        self.text = text.strip()

    @property
    def is_edited(self) -> bool:
        return self.text != self.original

    def begin(self, settings: Settings) -> None:
        """What is in force now is what edits are measured by, and what stands here."""
        self.original = as_typed(getattr(settings, self.setting))
        self.type(self.original)
        self.say(None)

    def say(self, error: Refused | None) -> None:
        """The sentence of the command line, below the value it is about."""
        self.set_class(error is not None, "wrong")
        self._trouble.update(in_full(f"{error.message} {error.hint}") if error else "")

    def on_input_changed(self, changed: Input.Changed) -> None:
        self.text = changed.value.strip()
        self.post_message(self.Changed())

    def on_checkbox_changed(self, changed: Tick.Changed) -> None:
        self.text = as_typed(changed.value)
        self.post_message(self.Changed())
