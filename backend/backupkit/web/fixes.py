"""Buttons and links for the commands that fix a problem, if a page can do what the command does."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from backupkit.config.settings import Settings


@dataclass(frozen=True)
class Fix:
    """A button: its caption, and the path it posts a form to, or links to if `is_link`."""

    caption: str
    path: str
    is_link: bool = False


_BY_LINE = {
    "backup": Fix("Back up now", "do/back-up"),
    "run": Fix("Back up, verify and prune now", "do/run"),
    "recover": Fix("Finish the restore", "do/recover"),
    "verify": Fix("Verify the newest", "do/verify/latest"),
    "verify --test-restore": Fix("Test restore now", "do/test-restore/latest"),
    "verify --latest --test-restore": Fix("Test restore now", "do/test-restore/latest"),
    "history": Fix("Open the history", "history", is_link=True),
    "history --failures": Fix("See what failed", "history?failures=1", is_link=True),
    "list": Fix("Open the backups", "backups", is_link=True),
    "remotes": Fix("Ask the remotes", "do/remotes"),
}


def fix_of(settings: Settings, command: str) -> Fix | None:
    """Return the button for a command that `status` names, or None if the command can only be typed."""
    line = command.removeprefix(settings.reach.tool("")).strip()
    if found := _BY_LINE.get(line):
        return found
    words = _words(line)
    match words:
        case ["show", name]:
            return Fix(f"Look at {name}", f"backup/{name}", is_link=True)
        case ["verify", name]:
            return Fix(f"Verify {name}", f"do/verify/{name}")
        case ["verify", name, "--test-restore"]:
            return Fix(f"Test restore of {name}", f"do/test-restore/{name}")
        case ["verify", name, "--accept"]:
            return Fix("Accept what is unusual", f"do/accept/{name}")
        case ["push", "--remote", _] | ["push"]:
            return Fix("Push now", "do/push/")
        case ["pull", name, "--remote", remote]:
            return Fix(f"Fetch {name} from {remote}", f"do/pull/{remote}/{name}")
        case ["restore", name, *_]:
            return Fix(f"Restore {name}", f"restore?name={name}", is_link=True)
    return None


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []
