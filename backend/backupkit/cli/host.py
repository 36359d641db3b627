"""Facts about the host that `backup.sh` passes in the environment: git's facts, and the machine."""

from __future__ import annotations

import os

from msgspec import Struct

from backupkit.model.backup import BackupRequest, GitFacts

PREFIX = "BACKUP_GIT_"


def git_facts() -> GitFacts | None:
    """Return the checked-out commit, as `backup.sh` collected it, or None without git or outside a repository."""
    told = {name.removeprefix(PREFIX).lower(): value for name, value in os.environ.items() if name.startswith(PREFIX)}
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


def scheduled_backup() -> BackupRequest:
    """Return the request for a backup that nobody asks for by hand."""
    return BackupRequest(kind="scheduled", git=git_facts())


def why_no_git() -> str:
    """Return a sentence that says why a backup that should have git's facts has none."""
    reason = os.environ.get(f"{PREFIX}MISSING") or "backup.sh, which collects them, did not hand any over"
    return f"No facts from git in this backup: {reason}."


class Host(Struct, frozen=True):
    """The machine that `backup.sh` runs on: its name, the project's folder, the URL the code was cloned from."""

    name: str = ""
    folder: str = ""
    origin: str = ""


def host() -> Host:
    """Return what `backup.sh` passed about its machine."""
    return Host(*(os.environ.get(f"BACKUP_HOST_{name}", "") for name in ("NAME", "FOLDER", "ORIGIN")))
