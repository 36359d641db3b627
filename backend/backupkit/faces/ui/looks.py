"""How things look: words, symbols and colours for levels and states. A symbol and a word always go with a colour."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text
from textual.theme import Theme

# Symbols of one cell that the fonts of terminals have; the words beside them carry the meaning.
LEVEL_SYMBOLS: Mapping[str, str] = {"fine": "✓", "warning": "!", "critical": "✗"}
LEVEL_WORDS: Mapping[str, str] = {"fine": "SAFE", "warning": "LOOK AT THIS", "critical": "AT RISK"}
STATE_SYMBOLS: Mapping[str, str] = {"proven": "★", "checked": "✓", "unchecked": "·", "damaged": "✗"}
OUTCOME_SYMBOLS: Mapping[str, str] = {
    "success": "✓",
    "warning": "!",
    "failure": "✗",
    "refused": "-",
    "interrupted": "✗",
    "running": "…",
}
# As Rich knows colours: the sixteen of the terminal, so that they fit a dark and a light background.
STATE_STYLES: Mapping[str, str] = {"proven": "bold green", "checked": "green", "unchecked": "", "damaged": "bold red"}
OUTCOME_STYLES: Mapping[str, str] = {
    "success": "green",
    "warning": "yellow",
    "failure": "bold red",
    "refused": "dim",
    "interrupted": "bold red",
    "running": "cyan",
}

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


def state_text(state: str, words: str) -> Text:
    """The state of a backup: symbol and words, in its colour."""
    return Text(f"{STATE_SYMBOLS[state]} {words}", style=STATE_STYLES[state])


def outcome_text(outcome: str) -> Text:
    """How an operation ended: symbol and word, in its colour."""
    return Text(f"{OUTCOME_SYMBOLS[outcome]} {outcome}", style=OUTCOME_STYLES[outcome])
