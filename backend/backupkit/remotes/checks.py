"""The last check results for the copies on each remote, stored in `backups/.state/remotes/NAME/checked.json`.

A copy found damaged does not count as a copy until a later check finds it sound, or it is gone from the remote.
Losing the file loses no backup: the results are unknown until the next check.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from pydantic import TypeAdapter

from backupkit.config.settings import Settings
from backupkit.model.clock import Clock, utc_now
from backupkit.model.events import EventListener, silence
from backupkit.remotes import listing_cache
from backupkit.remotes.base import WHOLE, DamagedThere, Remote, retry_while_away

_FILE = "checked.json"


@dataclass(frozen=True)
class Checks:
    """When each copy was last found sound, and what is wrong with damaged ones; both by name."""

    sound_at: Mapping[str, datetime] = field(default_factory=dict)
    flaws: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sound:
    name: str
    at: datetime


@dataclass(frozen=True)
class _Damaged:
    name: str
    text: str


@dataclass(frozen=True)
class _Written:
    """The content of the file."""

    sound: tuple[_Sound, ...] = ()
    damaged: tuple[_Damaged, ...] = ()


@cache
def _form() -> TypeAdapter[_Written]:
    return TypeAdapter(_Written)


def recall(settings: Settings, remote: str) -> Checks:
    """Return what the last checks found; empty if that is unknown."""
    try:
        found = _form().validate_python(listing_cache.read_document(settings.dir, remote, _FILE) or {})
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
    known = recall(settings, remote.name)
    try:
        retry_while_away(lambda: remote.verify(emit, names), settings.remotes[remote.name].retry_for, emit)
    except DamagedThere as error:
        sound = {name: at for name, at in known.sound_at.items() if names and name not in error.flaws}
        _write(settings, remote.name, Checks(sound, {**(known.flaws if names else {}), **error.flaws}))
        raise
    checked = names or [one.name for one in listing_cache.recall(settings.dir, remote.name).backups]
    looked_at = (*checked, WHOLE) if remote.reads_copies else (WHOLE,)
    left = {name: text for name, text in known.flaws.items() if name not in looked_at}
    sound = dict.fromkeys((name for name in checked if name not in left), clock())
    _write(settings, remote.name, Checks({**known.sound_at, **sound}, left))


def remember_fetched(settings: Settings, remote: str, name: str, flaw: str, clock: Clock = utc_now) -> None:
    """Store what fetching a whole copy showed: what is wrong with it, or an empty `flaw` if it is sound."""
    known = recall(settings, remote)
    sound = {one: at for one, at in known.sound_at.items() if one != name}
    flaws = {one: text for one, text in known.flaws.items() if one != name}
    if flaw:
        flaws[name] = flaw
    else:
        sound[name] = clock()
    _write(settings, remote, Checks(sound, flaws))


def ask(
    settings: Settings, remote: Remote, emit: EventListener = silence, clock: Clock = utc_now
) -> listing_cache.CachedListing:
    """List the remote now, and store the listing; drop the check results of copies that are gone."""
    there = retry_while_away(remote.list, settings.remotes[remote.name].retry_for, emit)
    _forget(settings, remote.name, [one.name for one in there])
    return listing_cache.remember(settings, remote.name, there, clock())


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
