"""Ask each remote whether it can be used and what it lacks; prepare a remote."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Thread

from backupkit.config.remotes import ResticTable
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.errors import BackupError, RemoteAway, explained
from backupkit.model.events import EventListener, silence
from backupkit.remotes import checks, listing_cache
from backupkit.remotes.base import Preparable, open_remote
from backupkit.remotes.copies import Copies, RemoteState, count, state_of
from backupkit.repository import store
from backupkit.repository.operation import recorded

_PROBE_SECONDS = 20.0
_Answers = dict[str, BackupError | None]


def look_at_remotes(settings: Settings, emit: EventListener = silence) -> Copies:
    """Ask each remote now, and count the copies by the 3-2-1 rule."""
    here = store.own_backups(settings)
    return count([_state(settings, name, here, emit) for name in settings.remotes], here)


def refuse_unreachable(found: Copies, only: str | None = None) -> None:
    """Raise the failure of the first remote that cannot be used, or of `only`, if any."""
    if failure := next((one.failure for one in found.remotes if one.failure and only in (None, one.name)), None):
        raise failure


def prepare_remote(settings: Settings, name: str, emit: EventListener = silence) -> None:
    """Make the remote usable. Raises `RemoteFailed`, and `Refused` if there is none of that name."""
    remote = open_remote(settings, name)
    store.require(settings.dir)
    with recorded(settings, "remotes", emit) as work:
        work.concerning(note=f"init of {name}")
        if isinstance(remote, Preparable):
            remote.prepare()
        else:
            remote.check()


def _state(settings: Settings, name: str, here: Sequence[Backup], emit: EventListener) -> RemoteState:
    try:
        return state_of(settings, name, checks.ask(settings, open_remote(settings, name), emit), here)
    except (BackupError, OSError) as raised:
        known, table = listing_cache.recall(settings.dir, name), settings.remotes[name]
        other_disk = table.is_elsewhere or known.other_disk
        failure = explained(raised)
        return RemoteState(name, table.type, table.is_elsewhere, other_disk, asked_at=known.at, failure=failure)


def try_remotes(settings: Settings, seconds: float = _PROBE_SECONDS) -> _Answers:
    """Return for each remote why it cannot be used, or None; `RemoteAway` if it does not answer within `seconds`.

    All are asked at the same time. A folder on a dead server can block without end: its thread is left running, and
    ends with the process.
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
