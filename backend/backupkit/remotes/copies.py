"""The state of all copies, from what each remote held when it was last asked. Contacts no remote.

The rule is 3-2-1: three copies, on two media, one of them off-site.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.errors import BackupError
from backupkit.remotes import checks, listing_cache
from backupkit.remotes.listing_cache import CachedListing
from backupkit.remotes.push import missing
from backupkit.repository import reliable


class RemoteState(Struct, frozen=True):
    """A remote: what it holds and how many backups are still to be pushed, or `failure` if it could not be asked.

    `other_disk`: whether it is on another medium than the backups here. `asked_at`: when it last answered, or None.
    """

    name: str
    type: str
    elsewhere: bool
    other_disk: bool
    backups: int = 0
    newest: str | None = None
    newest_at: datetime | None = None
    behind: int = 0
    asked_at: datetime | None = None
    failure: BackupError | None = None
    points: int = 0
    flaws: tuple[str, ...] = ()
    """The damage that its last check found."""
    gone: tuple[str, ...] = ()
    """The copies that were there the last time that any was, if there is none now."""

    @property
    def is_current(self) -> bool:
        """Whether it answered, holds every backup that it should and at least one, and has no known damage."""
        return self.failure is None and not self.behind and not self.flaws and self.backups > 0


class Copies(Struct, frozen=True):
    """All remotes, and how many copies, media and off-site copies there are by the 3-2-1 rule."""

    remotes: tuple[RemoteState, ...] = ()
    copies: int = 1
    media: int = 1
    elsewhere: int = 0

    @property
    def lacking(self) -> tuple[str, ...]:
        """What is missing for 3-2-1; empty if nothing is."""
        short = (
            ("a third copy", self.copies < 3),
            ("a second medium", self.media < 2),
            ("a copy in another place", self.elsewhere < 1),
        )
        return tuple(text for text, lacks in short if lacks)


def known_copies(settings: Settings, here: Sequence[Backup]) -> Copies:
    """Return the state of every remote as last asked, compared with the backups here now."""
    seen = {name: listing_cache.recall(settings.dir, name) for name in settings.remotes}
    own = [one for one in here if one.metadata and reliable.is_own(settings, one.metadata)]
    return count([state_of(settings, name, one, own) for name, one in seen.items()], own)


def state_of(settings: Settings, name: str, seen: CachedListing, here: Sequence[Backup]) -> RemoteState:
    """Return the state of the remote, given its listing and the backups here."""
    table = settings.remotes[name]
    newest = seen.backups[0] if seen.backups else None
    return RemoteState(
        name,
        table.type,
        table.is_elsewhere,
        table.is_elsewhere or seen.other_disk,
        len(seen.backups),
        newest.name if newest else None,
        newest.created_at if newest else None,
        len(missing(settings, name, seen.backups, here)),
        seen.at,
        points=sum(one.points for one in seen.backups),
        flaws=tuple(checks.recall(settings, name).flaws.values()),
        gone=seen.gone,
    )


def count(states: Sequence[RemoteState], here: Sequence[Backup]) -> Copies:
    """Count the copies: the live data, the backups here if one is usable, and each remote that is current."""
    current = [one for one in states if one.is_current]
    copies = 1 + any(one.is_usable for one in here) + len(current)
    media = 1 + sum(1 for one in current if one.other_disk)
    return Copies(tuple(states), copies, media, sum(1 for one in current if one.elsewhere))
