"""Push backups to the remotes, including those that an earlier run missed; a repeated push does nothing.

A push does not take the lock of backups and restores: a sealed backup does not change, and an upload may take hours.
A remote that fails harms no backup here, and does not stop the push to other remotes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import trust
from backupkit.model.backup import Backup, Metadata
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, Refused, RemoteFailed, explained
from backupkit.model.events import EventListener, Warned, collecting, silence
from backupkit.model.names import few
from backupkit.remotes import checks, listing_cache
from backupkit.remotes.base import (
    HoldsPoints,
    Remote,
    RemoteBackup,
    copy_points,
    open_remote,
    refuse_without,
    retry_while_away,
)
from backupkit.repository import order, reliable, store
from backupkit.repository.operation import recorded
from backupkit.retention import rules
from backupkit.retention.rules import RetentionContext
from backupkit.rewind import chain

_APART = "Give each app its own BACKUP_APP_ID, and each machine its own place on the remote."
_HINT = "The backups here are not touched by that. `remotes` shows how things stand; the next run tries again."


class Pushed(Struct, frozen=True):
    """What one remote got in this run, and how many it has now; or why it failed, and what it got before that.

    `points` and `points_there` are the same numbers for rewind points.
    """

    remote: str
    backups: tuple[str, ...] = ()
    there: int = 0
    failure: BackupError | None = None
    points: int = 0
    points_there: int = 0


def push_backups(
    settings: Settings,
    name: str | None = None,
    remote: str | None = None,
    emit: EventListener = silence,
    clock: Clock = utc_now,
) -> list[Pushed]:
    """Push one backup, or all that are missing, to one remote or to each; newest first, to git oldest first.

    Raises `Refused` if there is no such remote, or none at all, and `NoSuchBackup`. A failure of a remote is in its
    result.
    """
    trust.require_roots(settings.dir)
    if remote is None:
        refuse_without(settings)
    opened = [open_remote(settings, one) for one in (settings.remotes if remote is None else [remote])]
    wanted = store.find(settings, name, emit) if name is not None else None
    if wanted:
        store.require_metadata(wanted)
    return [_push_to(settings, one, wanted, emit, clock) for one in opened]


def refuse_failed(done: Sequence[Pushed]) -> None:
    """Raise the failure of the remote that failed; if several did, an error that names them."""
    failed = [one for one in done if one.failure]
    if len(failed) == 1 and (failure := failed[0].failure):
        raise failure
    if failed:
        names = ", ".join(one.remote for one in failed)
        raise RemoteFailed(f"Of {len(done)} remotes these failed: {names}.", hint=_HINT)


def push_after(settings: Settings, emit: EventListener, clock: Clock = utc_now) -> tuple[list[Pushed], tuple[str, ...]]:
    """Push everything missing to every remote, after another operation: a remote's failure is only a warning."""
    warnings: list[str] = []
    listen = collecting(emit, warnings)
    done = push_backups(settings, emit=listen, clock=clock)
    for one in done:
        if one.failure:
            listen(Warned(f"The push to {one.remote} failed: {one.failure.message}"))
    return done, tuple(warnings)


def missing(
    settings: Settings, remote: str, there: Sequence[RemoteBackup], known: Sequence[Backup] | None = None
) -> list[Backup]:
    """Return this app's backups that the remote should have and lacks, newest first, without safety copies.

    If the remote has rules of its own, backups that they would remove there are not missing. Asks no remote; reads the
    backups folder unless `known` gives its backups.
    """
    held = {(one.name, one.created_at) for one in there}
    found = store.all_backups(settings) if known is None else known
    here = [one for one in found if _should_push(settings, one)]
    absent = [one for one in here if one.metadata and (one.name, one.metadata.created_at) not in held]
    table = settings.remotes[remote]
    own = listing_cache.own(settings, remote, there) if table.newest_only else ()
    absent = _new_enough(absent, [one for one in there if one.name in own], table.newest_only)
    policy = rules.policy_of_remote(table)
    if not policy.of_routine:
        return absent
    every = [*as_backups(settings, remote, there, {one.name: one for one in found}), *absent]
    verdicts = rules.decide(policy, every, context_of(settings, remote, every)).verdicts
    kept = {one.backup.path for one in verdicts if one.keep}
    return [one for one in absent if one.path in kept]


def _new_enough(absent: list[Backup], there: Sequence[RemoteBackup], limit: int) -> list[Backup]:
    """Return those that would be among the newest `limit` there; all if `limit` is 0."""
    coming = [one.metadata.created_at for one in absent if one.metadata]
    moments = sorted([*coming, *(one.created_at for one in there)], reverse=True)
    if not limit or len(moments) <= limit:
        return absent
    return [one for one in absent if one.metadata and one.metadata.created_at >= moments[limit - 1]]


def context_of(
    settings: Settings, remote: str, found: Sequence[Backup], clock: Clock = utc_now, takes_all: bool = False
) -> RetentionContext:
    """Return the context of a decision on these copies there; it sets strangers apart unless `takes_all`."""
    strangers = () if takes_all else listing_cache.recall(settings.dir, remote).strangers
    reason = "it was never in this backups folder; --force treats it as this app's"
    apart = dict.fromkeys((one.name for one in strangers), reason)
    now = clock()
    reserved = order.reasons_to_keep(settings, found, now)
    return RetentionContext(app_id=settings.app_id, now=now, zone=settings.zone, reserved=reserved, apart=apart)


def as_backups(
    settings: Settings, remote: str, there: Sequence[RemoteBackup], here: Mapping[str, Backup]
) -> list[Backup]:
    """Return the remote's backups as `Backup` objects; damaged if the last check of the remote found that."""
    flaws = checks.recall(settings, remote).flaws
    found = (_as_backup(remote, one, here.get(one.name)) for one in there)
    return [replace(one, state="damaged") if one.name in flaws else one for one in found]


def _as_backup(remote: str, one: RemoteBackup, here: Backup | None) -> Backup:
    """Return the remote's backup as a `Backup`, with the facts of `here` if that is the same one and not damaged."""
    path = Path(remote) / one.name
    if here and here.metadata and here.metadata.created_at == one.created_at and here.state != "damaged":
        return replace(here, path=path, unique_bytes=0)
    metadata = Metadata(
        backup_name=one.name,
        timestamp=f"{one.created_at:%Y%m%d_%H%M%S}",
        created_at=one.created_at,
        alembic_revision=one.revision or None,
        database_file=None,
        uploads_included=one.uploads,
        kind=one.kind,  # type: ignore[arg-type]  # as recorded there; an unknown kind has no rule, so it is kept
        app_id=one.app_id,
    )
    return Backup(path, metadata, "checked", one.size_bytes)


def unpushed(settings: Settings) -> dict[str, str]:
    """Return the newest backup and the newest with uploads that each remote lacks, and why to keep it. Ask nothing."""
    found: dict[str, str] = {}
    for name in settings.remotes:
        flaws = checks.recall(settings, name).flaws
        sound = [one for one in listing_cache.recall(settings.dir, name).backups if one.name not in flaws]
        to_carry = missing(settings, name, sound)
        whole = [one for one in to_carry if one.metadata and one.metadata.uploads_included]
        found |= {one.name: f"not yet on {name}" for one in (*to_carry[:1], *whole[:1])}
    return found


def _push_to(settings: Settings, remote: Remote, wanted: Backup | None, emit: EventListener, clock: Clock) -> Pushed:
    names: list[str] = []
    points: list[int] = []
    failure: BackupError | None = None
    there: list[RemoteBackup] = []
    try:
        with recorded(settings, "push", emit, clock) as work:
            work.concerning(note=f"to {remote.name}")
            with listing_cache.one_at_a_time(settings.dir, remote.name, "push", settings.lock_timeout, work.emit):
                there = _push_missing(settings, remote, wanted, names, points, work.emit, clock)
            work.concerning(*names)
    except Exception as raised:
        failure = explained(raised)
        if failure is None:
            raise
    held = sum(one.points for one in there)
    return Pushed(remote.name, tuple(names), len(there), failure, sum(points), held)


def _push_missing(
    settings: Settings,
    remote: Remote,
    wanted: Backup | None,
    names: list[str],
    points: list[int],
    emit: EventListener,
    clock: Clock,
) -> list[RemoteBackup]:
    """Push, and return the listing at the end; append each complete backup to `names`, its new points to `points`."""
    seconds = settings.remotes[remote.name].retry_for

    def ask() -> list[RemoteBackup]:
        return [*checks.ask(settings, remote, emit, clock).backups]

    there = ask()
    _warn_of_arrivals(settings, remote.name, emit)
    held = {(one.name, one.created_at) for one in there}
    failures: list[BackupError] = []  # of one backup each; they stop no other, and the first is raised at the end
    coming = [wanted] if wanted else missing(settings, remote.name, there)
    # The newest is safe first. A branch shows the order of pushes: there it comes last, so that it is the head.
    for backup in reversed(coming) if remote.is_history else coming:
        metadata = store.require_metadata(backup)
        if (backup.name, metadata.created_at) in held:
            continue
        try:
            retry_while_away(lambda: _push_one(remote, backup, metadata, emit), seconds, emit)  # noqa: B023 - called at once
        except (Refused, Damaged, NoSuchBackup) as error:  # of this backup: the next run would meet it again
            failures.append(error)
            continue
        names.append(backup.name)
        there = ask()
    if isinstance(remote, HoldsPoints):
        for one in _with_points(settings, wanted, there):
            points.append(copy_points(partial(remote.push_points, one, emit), one, seconds, emit))
        if any(points):
            there = ask()
    if failures:
        raise failures[0]
    return there


def _warn_of_arrivals(settings: Settings, remote: str, emit: EventListener) -> None:
    """Warn if something else pushes there too."""
    if arrivals := listing_cache.recall(settings.dir, remote).arrivals:
        names = few([one.name for one in arrivals], 2)
        also = f"The remote {remote} also gets backups from another app or machine with the app id {settings.app_id}"
        emit(Warned(f"{also}: {names}. {_APART}"))


def _with_points(settings: Settings, wanted: Backup | None, there: Sequence[RemoteBackup]) -> Iterator[Backup]:
    """Yield the backups here that have points and are on the remote, newest first."""
    names = set(chain.chains(settings.dir)) if wanted is None else {wanted.name}
    for one in there:
        backup = listing_cache.local_original(settings, one) if one.name in names else None
        if backup and backup.is_usable:
            yield backup


def _push_one(remote: Remote, backup: Backup, metadata: Metadata, emit: EventListener) -> None:
    try:
        remote.push(backup.path, metadata, emit)
    except (BackupError, OSError) as error:
        if not backup.path.exists():
            raise NoSuchBackup(
                f"{backup.path} was removed while it was pushed to {remote.name}.", hint="`list` shows what is there."
            ) from error
        raise


def _should_push(settings: Settings, backup: Backup) -> bool:
    metadata = backup.metadata
    return (
        metadata is not None
        and metadata.kind != "pre_restore"
        and backup.is_usable
        and reliable.is_own(settings, metadata)
    )
