"""What a command asks before it goes on."""

from __future__ import annotations

from backupkit.cli.console import ask, at_terminal
from backupkit.model.errors import Declined, Refused

_HINT = "Add --yes to go ahead, or --dry-run to see the plan."


def require_person(answered: bool, hint: str = _HINT) -> None:
    """Refuse where the question is not answered yet and cannot be asked."""
    if not answered and not at_terminal():
        raise Refused("There is no terminal to ask at; nothing was changed.", hint)


def require_yes(question: str, answered: bool, hint: str = _HINT) -> None:
    """Go on only if the answer is yes: `Refused` where nobody can be asked, `Declined` for a no."""
    require_person(answered, hint)
    if not answered and not ask(question):
        raise Declined("Nothing was changed.")
