"""Buttons and links for the commands that fix a problem, if a page can do what the command does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from backupkit.config.settings import Settings


@dataclass(frozen=True)
class Fix:
    """A button: its caption, and the path it posts a form to, or links to if `is_link`."""

    caption: str
    path: str

    @property
    def is_link(self) -> bool:
        """Whether the path only shows a page."""
        return not self.path.startswith("do/")


# By the command: the caption and the path, in which {0} and {1} are its words in brackets. The first that fits counts.
_FIXES: Mapping[str, tuple[str, str]] = {
    r"backup": ("Back up now", "do/back-up"),
    r"run": ("Back up, verify and prune now", "do/run"),
    r"recover": ("Finish the restore", "do/recover"),
    r"verify": ("Verify the newest", "do/verify/latest"),
    r"verify(?: --latest)? --test-restore": ("Test restore now", "do/test-restore/latest"),
    r"verify (\S+)": ("Verify {0}", "do/verify/{0}"),
    r"verify (\S+) --test-restore": ("Test restore of {0}", "do/test-restore/{0}"),
    r"verify (\S+) --accept": ("Accept what is unusual", "do/accept/{0}"),
    r"history": ("Open the history", "history"),
    r"history --failures": ("See what failed", "history?failures=1"),
    r"list": ("Open the backups", "backups"),
    r"show (\S+)": ("Look at {0}", "backup/{0}"),
    r"remotes": ("Ask the remotes", "do/remotes"),
    r"push(?: --remote \S+)?": ("Push now", "do/push/"),
    r"pull (\S+) --remote (\S+)": ("Fetch {0} from {1}", "do/pull/{1}/{0}"),
    r"restore (\S+).*": ("Restore {0}", "restore?name={0}"),
}


def fix_of(settings: Settings, command: str) -> Fix | None:
    """Return the button for a command that `status` names, or None if the command can only be typed."""
    line = command.removeprefix(settings.reach.tool("")).strip()
    for pattern, (caption, path) in _FIXES.items():
        if found := re.fullmatch(pattern, line):
            return Fix(caption.format(*found.groups()), path.format(*found.groups()))
    return None
