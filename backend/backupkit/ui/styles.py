"""Symbols and colours for levels, states and outcomes. No meaning depends on a colour alone."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

# One-cell symbols that terminal fonts have; the words beside them carry the meaning.
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
# ANSI colour names, which Textual maps to its dark or light theme.
_COLOURS: Mapping[str, str] = {"★": "green", "✓": "green", "✗": "red", "○": "yellow", "!": "yellow"}


def coloured(symbol: str, words: str) -> Text:
    """Return the words after the symbol, in its colour."""
    return Text(f"{symbol} {words}", style=_COLOURS.get(symbol, ""))
