"""Confirmation questions that a command asks before it acts."""

from __future__ import annotations

from backupkit.cli.console import ask, at_terminal
from backupkit.model.errors import Declined, Refused

_HINT = "Add --yes to go ahead, or --dry-run to see the plan."


def require_person(answered: bool, hint: str = _HINT) -> None:
    """Raise `Refused` if the question is not answered yet and there is no terminal to ask on."""
    if not answered and not at_terminal():
        raise Refused("There is no terminal to ask on; nothing was changed.", hint)


def require_yes(question: str, answered: bool, hint: str = _HINT) -> None:
    """Return only if the answer is yes: raise `Refused` if nobody can be asked, `Declined` if the answer is no."""
    require_person(answered, hint)
    if not answered and not ask(question):
        raise Declined("Nothing was changed.")
