"""How the copies elsewhere stand: can each remote be reached, what is missing there, is it 3-2-1?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from backupkit.parts import store
from backupkit.parts.remotes import open_remote
from backupkit.parts.remotes.remote import Preparable
from backupkit.verbs.make import Clock, utc_now
from backupkit.verbs.pull import list_remote
from backupkit.verbs.push import missing
from backupkit.verbs.recording import recorded
from backupkit.words.errors import BackupError, Refused, explained
from backupkit.words.events import Listener, silence
from backupkit.words.remotes import FolderTable
from backupkit.words.settings import Settings


@dataclass(frozen=True)
class RemoteState:
    """A remote as it is now: what is there, and how many backups are still to be carried; or why it cannot be told.

    `other_disk` says that it is on another medium than the backups here.
    """

    name: str
    type: str
    elsewhere: bool
    other_disk: bool
    backups: int = 0
    newest: str | None = None
    newest_at: datetime | None = None
    behind: int = 0
    failure: BackupError | None = None

    @property
    def is_current(self) -> bool:
        """Whether a copy of every backup that should be there is."""
        return self.failure is None and not self.behind and self.backups > 0


@dataclass(frozen=True)
class Copies:
    """All remotes, and the rule: three copies, on two media, one of them elsewhere. `lacking` says what is not."""

    remotes: tuple[RemoteState, ...]
    copies: int
    media: int
    elsewhere: int

    @property
    def lacking(self) -> tuple[str, ...]:
        """What keeps it from being 3-2-1; nothing where it is."""
        short = (
            ("a third copy", self.copies < 3),
            ("a second medium", self.media < 2),
            ("a copy in another place", self.elsewhere < 1),
        )
        return tuple(text for text, lacks in short if lacks)


def look_at_remotes(settings: Settings, tell: Listener = silence, clock: Clock = utc_now) -> Copies:
    """Each remote asked now. The live data are one copy, the backups here another, if there are any."""
    states = tuple(_state(settings, name, tell, clock) for name in settings.remotes)
    current = [one for one in states if one.is_current]
    here = 1 if store.all_backups(settings) else 0
    media = 1 + sum(1 for one in current if one.other_disk)
    return Copies(states, 1 + here + len(current), media, sum(1 for one in current if one.elsewhere))


def refuse_unreachable(found: Copies) -> None:
    """The failure of the first remote that cannot be used."""
    if failure := next((one.failure for one in found.remotes if one.failure), None):
        raise failure


def prepare_remote(settings: Settings, name: str, tell: Listener = silence, clock: Clock = utc_now) -> None:
    """The remote can be used from now on. Raises `RemoteFailed`, and `Refused` where there is none of that name."""
    remote = open_remote(settings, name)
    store.require(settings.dir)
    with recorded(settings, "remotes", tell, clock) as work:
        work.concerning(note=f"init of {name}")
        if isinstance(remote, Preparable):
            remote.prepare()
        else:
            remote.check()


def _state(settings: Settings, name: str, tell: Listener, clock: Clock) -> RemoteState:
    table = settings.remotes[name]
    state = RemoteState(name, table.type, table.is_elsewhere, table.is_elsewhere or _is_other_disk(settings, name))
    try:
        there = list_remote(settings, name, tell, clock)
    except (BackupError, OSError) as raised:
        failure = explained(raised)
        return RemoteState(name, state.type, state.elsewhere, state.other_disk, failure=failure)
    newest = there[0] if there else None
    behind = len(missing(settings, name, there))
    at = newest.created_at if newest else None
    named = newest.name if newest else None
    return RemoteState(name, state.type, state.elsewhere, state.other_disk, len(there), named, at, behind)


def _is_other_disk(settings: Settings, name: str) -> bool:
    table = settings.remotes[name]
    if not isinstance(table, FolderTable):
        return False
    try:
        there = os.stat(settings.app_dir / os.path.expanduser(table.path))
        return there.st_dev != os.stat(settings.dir).st_dev
    except OSError:
        return False


def refuse_without(settings: Settings) -> None:
    """`Refused` where there is no remote at all."""
    if not settings.remotes:
        raise Refused("There is no remote.", hint="Set one up: a table [remotes.NAME] in backup.toml.")
