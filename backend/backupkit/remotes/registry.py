"""Ask each remote whether it can be reached and what it lacks; prepare a remote."""

from __future__ import annotations

from collections.abc import Sequence

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, explained
from backupkit.model.events import EventListener, silence
from backupkit.remotes import checks, listing_cache
from backupkit.remotes.base import Preparable, open_remote
from backupkit.remotes.copies import Copies, RemoteState, count, state_of
from backupkit.repository import store
from backupkit.repository.operation import recorded


def look_at_remotes(settings: Settings, emit: EventListener = silence, clock: Clock = utc_now) -> Copies:
    """Ask each remote now, and count the copies by the 3-2-1 rule."""
    here = store.own_backups(settings)
    return count([_state(settings, name, here, emit, clock) for name in settings.remotes], here)


def refuse_unreachable(found: Copies, only: str | None = None) -> None:
    """Raise the failure of the first remote that cannot be used, or of `only`, if any."""
    if failure := next((one.failure for one in found.remotes if one.failure and only in (None, one.name)), None):
        raise failure


def prepare_remote(settings: Settings, name: str, emit: EventListener = silence, clock: Clock = utc_now) -> None:
    """Make the remote usable. Raises `RemoteFailed`, and `Refused` if there is none of that name."""
    remote = open_remote(settings, name)
    store.require(settings.dir)
    with recorded(settings, "remotes", emit, clock) as work:
        work.concerning(note=f"init of {name}")
        if isinstance(remote, Preparable):
            remote.prepare()
        else:
            remote.check()


def _state(settings: Settings, name: str, here: Sequence[Backup], emit: EventListener, clock: Clock) -> RemoteState:
    try:
        return state_of(settings, name, checks.ask(settings, open_remote(settings, name), emit, clock), here)
    except (BackupError, OSError) as raised:
        known, table = listing_cache.recall(settings.dir, name), settings.remotes[name]
        other_disk = table.is_elsewhere or known.other_disk
        failure = explained(raised)
        return RemoteState(name, table.type, table.is_elsewhere, other_disk, asked_at=known.at, failure=failure)
