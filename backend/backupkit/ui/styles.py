"""Symbols and colours for levels, states and outcomes. Nothing is told by a colour alone."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

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
# Those of a terminal: Textual draws them as its theme, dark or light, has them.
_COLOURS: Mapping[str, str] = {"★": "green", "✓": "green", "✗": "red", "○": "yellow", "!": "yellow"}


def state_text(state: str, words: str) -> Text:
    """The state of a backup: symbol and words, in its colour."""
    return _coloured(STATE_SYMBOLS[state], words)


def outcome_text(outcome: str) -> Text:
    """How an operation ended: symbol and word, in its colour."""
    return _coloured(OUTCOME_SYMBOLS[outcome], outcome)


def _coloured(symbol: str, words: str) -> Text:
    return Text(f"{symbol} {words}", style=_COLOURS.get(symbol, ""))
