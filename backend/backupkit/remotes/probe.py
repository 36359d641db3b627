"""Check whether each remote can be used now: all at the same time, with a limit of a few seconds."""

from __future__ import annotations

import time
from threading import Thread

from backupkit.config.remotes import ResticTable
from backupkit.config.settings import Settings
from backupkit.model.errors import BackupError, RemoteAway, explained
from backupkit.remotes.base import open_remote

SECONDS = 20.0
_Answers = dict[str, BackupError | None]


def try_remotes(settings: Settings, seconds: float = SECONDS) -> _Answers:
    """Return for each remote why it cannot be used, or None; `RemoteAway` if it does not answer within `seconds`.

    A folder on a dead server can block without end: its thread is left running, and ends with the process.
    """
    tables = {name: table.limited_to(seconds / 2) for name, table in settings.remotes.items()}
    limited = settings.replaced(remotes=tables)
    answers: _Answers = {}
    threads = [Thread(target=_ask, args=(limited, name, answers), daemon=True) for name in tables]
    for one in threads:
        one.start()
    deadline = time.monotonic() + seconds
    for one in threads:
        one.join(max(0.0, deadline - time.monotonic()))
    return {name: answers[name] if name in answers else _no_answer(name, seconds) for name in tables}


def old_restic(settings: Settings) -> str:
    """Return a sentence if the installed restic is too old to say what is wrong; empty if not, or if none is used."""
    from backupkit.remotes import restic_program

    if not any(isinstance(table, ResticTable) for table in settings.remotes.values()):
        return ""
    version = restic_program.installed_version()
    if not version or version >= restic_program.RECENT:
        return ""
    found, needed = (".".join(map(str, one)) for one in (version, restic_program.RECENT))
    return f"restic is {found}: since {needed} its exit code says what is wrong."


def _ask(settings: Settings, name: str, answers: _Answers) -> None:
    try:
        open_remote(settings, name).check()
        answers[name] = None
    except Exception as raised:
        answers[name] = explained(raised) or BackupError(f"The remote {name} failed: {raised!r}.", hint="`remotes`")


def _no_answer(name: str, seconds: float) -> BackupError:
    return RemoteAway(
        f"The remote {name} did not answer within {seconds:g} s.", hint="Is its disk, or its network, there?"
    )
