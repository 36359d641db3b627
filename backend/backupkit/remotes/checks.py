"""The last check results for the copies on each remote, stored in `backups/.state/remotes/NAME/checked.json`.

A copy found damaged does not count as a copy until a later check finds it sound, or it is gone from the remote.
Losing the file loses no backup: the results are unknown until the next check.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec
from msgspec import Struct, field

from backupkit.config.settings import Settings
from backupkit.model.clock import Clock, utc_now
from backupkit.model.events import EventListener, Warned, silence
from backupkit.remotes import listing_cache
from backupkit.remotes.base import WHOLE, DamagedThere, Remote, retry_while_away

_FILE = "checked.json"
_LOOK = "Look at its address and BACKUP_APP_ID. `push` copies what is here."


class Checks(Struct, frozen=True):
    """When each copy was last found sound, and what is wrong with damaged ones; both by name."""

    sound_at: Mapping[str, datetime] = field(default_factory=dict)
    flaws: Mapping[str, str] = field(default_factory=dict)


class _Sound(Struct, frozen=True):
    name: str
    at: datetime


class _Damaged(Struct, frozen=True):
    name: str
    text: str


class _Written(Struct, frozen=True):
    """The content of the file."""

    sound: tuple[_Sound, ...] = ()
    damaged: tuple[_Damaged, ...] = ()


def recall(settings: Settings, remote: str) -> Checks:
    """Return what the last checks found; empty if that is unknown."""
    try:
        found = msgspec.convert(listing_cache.read_document(settings.dir, remote, _FILE) or {}, _Written)
    except (OSError, ValueError, RecursionError):
        return Checks()
    sound_at = {one.name: one.at for one in found.sound if one.at.tzinfo}
    return Checks(sound_at, {one.name: one.text for one in found.damaged})


def check(
    settings: Settings,
    remote: Remote,
    names: Collection[str] = (),
    emit: EventListener = silence,
    clock: Clock = utc_now,
) -> None:
    """Have the remote check these copies, or all if none is named, and store the result. Raises `DamagedThere`."""
    try:
        retry_while_away(lambda: remote.verify(emit, names), settings.remotes[remote.name].retry_for, emit)
    except DamagedThere as error:
        known = recall(settings, remote.name)
        if not names:  # nothing is known to be sound any more; what only a fetch finds remains damaged
            known = Checks(flaws={} if remote.reads_copies else known.flaws)
        remember_damaged(settings, remote.name, error.flaws, known)
        raise
    checked = names or [one.name for one in listing_cache.recall(settings.dir, remote.name).backups]
    remember_sound(settings, remote.name, checked, (*checked, WHOLE) if remote.reads_copies else (WHOLE,), clock)


def remember_damaged(settings: Settings, remote: str, flaws: Mapping[str, str], known: Checks | None = None) -> None:
    """Store what is wrong with these copies, beside what is `known` of the others: the last results, if not given."""
    known = known or recall(settings, remote)
    sound_at = {name: at for name, at in known.sound_at.items() if name not in flaws}
    _write(settings, remote, Checks(sound_at, {**known.flaws, **flaws}))


def remember_sound(
    settings: Settings, remote: str, names: Collection[str], read: Collection[str], clock: Clock = utc_now
) -> None:
    """Store that these copies are sound, and drop the flaws of those that were `read`; other flaws remain."""
    known = recall(settings, remote)
    flaws = {name: text for name, text in known.flaws.items() if name not in read}
    sound_at = dict.fromkeys((name for name in names if name not in flaws), clock())
    _write(settings, remote, Checks({**known.sound_at, **sound_at}, flaws))


def ask(
    settings: Settings, remote: Remote, emit: EventListener = silence, clock: Clock = utc_now
) -> listing_cache.CachedListing:
    """List the remote now, and store the listing; drop the check results of copies that are gone.

    Warn if all are.
    """
    damaged = recall(settings, remote.name).flaws
    there = retry_while_away(lambda: remote.list(emit), settings.remotes[remote.name].retry_for, emit)
    _forget(settings, remote.name, [one.name for one in there])
    seen = listing_cache.remember(settings, remote.name, there, clock(), damaged)
    if seen.gone:
        emit(Warned(f"{listing_cache.gone_text(remote.name, seen.gone)} {_LOOK}"))
    return seen


def _forget(settings: Settings, remote: str, held: Collection[str]) -> None:
    """Drop the check results of copies that the remote does not hold."""
    known = recall(settings, remote)
    kept = Checks(
        {name: at for name, at in known.sound_at.items() if name in held},
        {name: text for name, text in known.flaws.items() if name in held or name == WHOLE},
    )
    if kept != known:
        _write(settings, remote, kept)


def _write(settings: Settings, remote: str, found: Checks) -> None:
    sound = [{"name": name, "at": at} for name, at in found.sound_at.items()]
    document = {"sound": sound, "damaged": [{"name": name, "text": text} for name, text in found.flaws.items()]}
    listing_cache.write_document(settings, remote, _FILE, document)
