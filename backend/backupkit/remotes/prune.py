"""Remove backups from a remote by its own retention rules; the decision is made as for the backups here."""

from __future__ import annotations

from datetime import timedelta

from backupkit.config.settings import Settings
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener, Step, Warned, silence
from backupkit.remotes import checks, listing_cache
from backupkit.remotes.base import WHOLE, DamagedThere, Tidying, open_remote, retry_while_away
from backupkit.remotes.pull import list_remote
from backupkit.remotes.push import as_backups, context_of
from backupkit.repository import store
from backupkit.repository.operation import recorded
from backupkit.retention import rules
from backupkit.retention.prune import Pruned, PrunePlan, check_counted_on, plan_prune, refuse_many

_CHECKED_WITHIN = timedelta(days=7)


def plan_remote_prune(
    settings: Settings, remote: str, emit: EventListener = silence, clock: Clock = utc_now, takes_all: bool = False
) -> PrunePlan:
    """Plan which backups to remove there and which to keep, with reasons; raise `Refused` if it has no rules.

    Copies that were never in this backups folder stay and do not count, unless `takes_all`.
    """
    open_remote(settings, remote)
    policy = rules.policy_of_remote(settings.remotes[remote])
    if not policy.of_routine:
        raise Refused(
            f"The remote {remote} has no rules of its own, and keeps everything.",
            hint=f"Set keep_daily or the like in [remotes.{remote}].",
        )
    here = {one.name: one for one in store.all_backups(settings)}
    found = as_backups(settings, remote, list_remote(settings, remote, emit, clock), here)
    decision = rules.decide(policy, found, context_of(settings, remote, found, clock, takes_all))
    stopped = decision.stopped or _known_doubt(settings, remote)
    stopped = stopped or plan_prune(settings, clock).stopped  # also while the newest backup here is in doubt
    verdicts = tuple(
        rules.Verdict(one.backup, True, (*one.reasons, "nothing is removed now")) if stopped and not one.keep else one
        for one in decision.verdicts
    )
    return PrunePlan(policy, verdicts, stopped, settings.prune_limit)


def prune_remote(
    settings: Settings,
    remote: str,
    plan: PrunePlan,
    force: bool = False,
    emit: EventListener = silence,
    clock: Clock = utc_now,
) -> Pruned:
    """Remove exactly what the plan shows, oldest first. Raises `Refused` beyond the limit.

    Remove nothing, and return a warning, if a backup that must remain is in doubt. With `force`, all copies that
    remain there count as this app's own from then on.
    """
    refuse_many(plan, force)
    doubt = plan.removals and (
        check_counted_on(settings, emit, clock)
        or plan_prune(settings, clock).stopped
        or _doubt_there(settings, remote, plan, emit, clock)
    )
    if doubt:
        warned = Warned(f"Nothing is removed: {doubt.rstrip('.')}.")
        emit(warned)
        return Pruned(warnings=(warned.text,))
    going = tuple(reversed(plan.removals))
    names = [backup.name for backup in going]
    with recorded(settings, "prune", emit, clock) as work:
        work.concerning(note=f"on {remote}")
        if names:
            with listing_cache.one_at_a_time(settings.dir, remote, "prune", settings.lock_timeout, work.emit):
                _remove(settings, remote, names, work.emit)
        work.concerning(*names)
    list_remote(settings, remote, emit, clock)
    if force:
        listing_cache.adopt(settings, remote)
    return Pruned(going)


def _known_doubt(settings: Settings, remote: str) -> str:
    flaw = checks.recall(settings, remote).flaws.get(WHOLE)
    return f"the last check of {remote} found: {flaw}" if flaw else ""


def _doubt_there(settings: Settings, remote: str, plan: PrunePlan, emit: EventListener, clock: Clock) -> str:
    """Return the damage of a copy that must remain; empty if none. Check now unless all were checked in a week."""
    found = [one.backup for one in plan.verdicts]
    counted = rules.counted_on(found, context_of(settings, remote, found, clock))
    sound_at, now = checks.recall(settings, remote).sound_at, clock()
    moments = [sound_at.get(one.name) for one in counted]
    if all(at and timedelta(0) <= now - at <= _CHECKED_WITHIN for at in moments):
        return ""
    try:
        checks.check(settings, open_remote(settings, remote), [one.name for one in counted], emit, clock)
    except DamagedThere as error:
        return error.message
    return ""


def _remove(settings: Settings, remote: str, names: list[str], emit: EventListener) -> None:
    """Remove all of them in one call, since some remotes are rewritten for it, and free their space."""
    opened, seconds = open_remote(settings, remote), settings.remotes[remote].retry_for
    emit(Step(f"Removing from {remote}: {len(names)}"))
    retry_while_away(lambda: opened.remove(names), seconds, emit)
    if isinstance(opened, Tidying):
        retry_while_away(lambda: opened.tidy(emit), seconds, emit)
