"""How things look: words, symbols and colours for levels and states, and ticks. Nothing is told by a colour alone."""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import cell_len
from rich.segment import Segment
from rich.text import Text
from textual.color import Color
from textual.content import Content
from textual.filter import LineFilter
from textual.theme import Theme
from textual.widgets import Checkbox, RadioButton

from backupkit.model.names import printable_text

# Symbols of one cell that the fonts of terminals have; the words beside them carry the meaning.
LEVEL_SYMBOLS: Mapping[str, str] = {"fine": "✓", "warning": "!", "critical": "✗"}
LEVEL_WORDS: Mapping[str, str] = {"fine": "SAFE", "warning": "LOOK AT THIS", "critical": "AT RISK"}
STATE_SYMBOLS: Mapping[str, str] = {"proven": "★", "checked": "✓", "unchecked": "·", "damaged": "✗", "raw": "○"}
OUTCOME_SYMBOLS: Mapping[str, str] = {
    "success": "✓",
    "warning": "!",
    "failure": "✗",
    "refused": "-",
    "interrupted": "✗",
    "running": "…",
}
# Which of the theme's colours.
_STATE_COLOURS: Mapping[str, str] = {"proven": "success", "checked": "success", "damaged": "error", "raw": "warning"}
_OUTCOME_COLOURS: Mapping[str, str] = {
    "success": "success",
    "warning": "warning",
    "failure": "error",
    "interrupted": "error",
    "running": "primary",
}
Colours = Mapping[str, str]


class PrintableFilter(LineFilter):
    """Nothing that a terminal could take for a command is drawn, whatever names and notes hold."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.control or segment.text.isprintable() else _harmless(segment) for segment in segments
        ]


def _harmless(segment: Segment) -> Segment:
    # As many cells as before, or the line would be longer than its place.
    letters = (letter if printable_text(letter) == letter else " " * cell_len(letter) for letter in segment.text)
    return Segment("".join(letters), segment.style)


def plain_title(text: str) -> Text:
    """A title in which brackets are brackets: as a string it would be taken for markup."""
    return Text(printable_text(text))


DARK = Theme(
    name="backupkit-dark",
    primary="#5fb3b3",
    secondary="#7aa2c9",
    accent="#e0b36a",
    success="#7fbf7f",
    warning="#e0b36a",
    error="#e07a7a",
    foreground="#d8dee4",
    background="#14191e",
    surface="#1b2229",
    panel="#242d36",
    dark=True,
)
LIGHT = Theme(
    name="backupkit-light",
    primary="#1f6f70",
    secondary="#35618e",
    accent="#8a5a00",
    success="#2b6e2b",
    warning="#8a5a00",
    error="#a82626",
    foreground="#1d2329",
    background="#fbfaf7",
    surface="#f1efe9",
    panel="#e4e1d8",
    dark=False,
)


def colours(variables: Mapping[str, str]) -> Colours:
    """The theme's colours by their names, for text that is drawn cell by cell."""
    return {name: variables.get(name, "") for name in ("success", "warning", "error", "primary", "accent")}


def state_text(colours: Colours, state: str, words: str) -> Text:
    """The state of a backup: symbol and words, in its colour."""
    return Text(f"{STATE_SYMBOLS[state]} {words}", style=colours.get(_STATE_COLOURS.get(state, ""), ""))


def outcome_text(colours: Colours, outcome: str) -> Text:
    """How an operation ended: symbol and word, in its colour."""
    return Text(f"{OUTCOME_SYMBOLS[outcome]} {outcome}", style=colours.get(_OUTCOME_COLOURS.get(outcome, ""), ""))


class Tick(Checkbox):
    """`✓` where it is ticked, nothing where not."""

    def render(self) -> Content:
        self.BUTTON_INNER = "✓" if self.value else " "
        return super().render()


class Choice(RadioButton):
    """`●` where it is chosen, `○` where not."""

    def render(self) -> Content:
        self.BUTTON_INNER = "●" if self.value else "○"
        return super().render()
