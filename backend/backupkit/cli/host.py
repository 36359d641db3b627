"""What the wrapper tells in the environment about the host: git's facts, and which machine it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backupkit.model.backup import GitFacts

PREFIX = "BACKUP_GIT_"


def git_facts(environment: Mapping[str, str]) -> GitFacts | None:
    """The commit the code stands at, as `backup.sh` collected it; None without git or outside a repository."""
    told = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    if not told.get("commit"):
        return None
    return GitFacts(
        commit=told["commit"],
        short=told.get("short") or told["commit"][:7],
        branch=told.get("branch") or None,
        subject=told.get("subject", ""),
        dirty=told.get("dirty") == "true",
        tag=told.get("tag") or None,
    )


def why_no_git(environment: Mapping[str, str]) -> str:
    """One sentence for a backup that was to have git's facts and has none."""
    reason = environment.get(f"{PREFIX}MISSING") or "backup.sh, which collects them, did not hand any over"
    return f"No facts from git in this backup: {reason}."


@dataclass(frozen=True)
class Host:
    """The machine the wrapper runs on: its name, the project's folder, where the code was cloned from."""

    name: str = ""
    folder: str = ""
    origin: str = ""


def host(environment: Mapping[str, str]) -> Host:
    """What the wrapper told of the machine."""
    return Host(*(environment.get(f"BACKUP_HOST_{name}", "") for name in ("NAME", "FOLDER", "ORIGIN")))
