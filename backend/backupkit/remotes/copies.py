"""How the copies elsewhere stand, by what each remote held when it was last asked. Asks nobody.

The rule is 3-2-1: three copies, on two media, one of them in another place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.errors import BackupError
from backupkit.remotes import checks, listing_cache
from backupkit.remotes.listing_cache import CachedListing
from backupkit.remotes.push import missing
from backupkit.repository import reliable


@dataclass(frozen=True)
class RemoteState:
    """A remote: what is there, and how many backups are still to be pushed; or why it cannot be told.

    `other_disk` says that it is on another medium than the backups here; `asked_at` is when it last answered, None
    where it never did.
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
    """What the last check of it found damaged."""

    @property
    def is_current(self) -> bool:
        """Whether a copy of every backup that should be there is, and none is known to be damaged."""
        return self.failure is None and not self.behind and not self.flaws and self.backups > 0


@dataclass(frozen=True)
class Copies:
    """All remotes, and the rule: three copies, on two media, one of them elsewhere. `lacking` says what is not."""

    remotes: tuple[RemoteState, ...] = ()
    copies: int = 1
    media: int = 1
    elsewhere: int = 0

    @property
    def lacking(self) -> tuple[str, ...]:
        """What keeps it from being 3-2-1; nothing where it is."""
        short = (
            ("a third copy", self.copies < 3),
            ("a second medium", self.media < 2),
            ("a copy in another place", self.elsewhere < 1),
        )
        return tuple(text for text, lacks in short if lacks)


def known_copies(settings: Settings, here: Sequence[Backup]) -> Copies:
    """Every remote as it was when it was last asked, and the backups here as they are now."""
    seen = {name: listing_cache.recall(settings.dir, name) for name in settings.remotes}
    own = [one for one in here if one.metadata and reliable.is_own(settings, one.metadata)]
    return count([state_of(settings, name, one, own) for name, one in seen.items()], own)


def state_of(settings: Settings, name: str, seen: CachedListing, here: Sequence[Backup]) -> RemoteState:
    """The remote, where that was seen there."""
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
    )


def count(states: Sequence[RemoteState], here: Sequence[Backup]) -> Copies:
    """The live data are one copy, the backups here another if one is usable; so is each remote that lacks none."""
    current = [one for one in states if one.is_current]
    copies = 1 + any(one.is_usable for one in here) + len(current)
    media = 1 + sum(1 for one in current if one.other_disk)
    return Copies(tuple(states), copies, media, sum(1 for one in current if one.elsewhere))
