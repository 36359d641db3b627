"""Remove from a remote what its own rules let go: the same decision as here, by other rules."""

from __future__ import annotations

from backupkit.parts import carried, retention, store
from backupkit.parts.remotes import open_remote
from backupkit.parts.remotes.remote import Tidying
from backupkit.parts.retention import Known
from backupkit.verbs.make import Clock, utc_now
from backupkit.verbs.patience import patiently
from backupkit.verbs.prune import Pruned, PrunePlan, refuse_many
from backupkit.verbs.pull import list_remote
from backupkit.verbs.push import as_backup, policy_of
from backupkit.verbs.recording import recorded
from backupkit.words.errors import Refused
from backupkit.words.events import Listener, Step, silence
from backupkit.words.settings import Settings


def plan_remote_prune(settings: Settings, remote: str, tell: Listener = silence, clock: Clock = utc_now) -> PrunePlan:
    """Which backups would be removed there now, which not, and why. `Refused` where it has no rules of its own."""
    open_remote(settings, remote)
    table = settings.remotes[remote]
    if not table.has_policy:
        raise Refused(
            f"The remote {remote} has no rules of its own, and keeps everything.",
            hint=f"Set keep_daily or the like in [remotes.{remote}].",
        )
    found = [as_backup(settings, remote, one) for one in list_remote(settings, remote, tell, clock)]
    known = Known(app_id=settings.app_id, now=clock(), zone=settings.zone)
    decision = retention.decide(policy_of(table), found, known)
    stopped = decision.stopped or _doubt_here(settings, known)
    verdicts = tuple(
        retention.Verdict(one.backup, True, (*one.reasons, "nothing goes now")) if stopped and not one.keep else one
        for one in decision.verdicts
    )
    return PrunePlan(policy_of(table), verdicts, stopped, settings.prune_limit)


def prune_remote(
    settings: Settings,
    remote: str,
    plan: PrunePlan,
    force: bool = False,
    tell: Listener = silence,
    clock: Clock = utc_now,
) -> Pruned:
    """What the plan shows is removed there, the oldest first, and nothing else. Raises `Refused` beyond the limit."""
    refuse_many(plan, force)
    opened, table = open_remote(settings, remote), settings.remotes[remote]
    removed = []
    with recorded(settings, "prune", tell, clock) as work:
        with carried.one_at_a_time(settings.dir, remote, "prune", settings.lock_timeout, work.tell):
            for backup in reversed(plan.removals):
                work.tell(Step(f"removing {backup.name} from {remote}"))
                patiently(lambda: opened.remove(backup.name), table.retry_for, work.tell)  # noqa: B023 - called at once
                removed.append(backup)
            if removed and isinstance(opened, Tidying):
                tidying = opened
                patiently(lambda: tidying.tidy(work.tell), table.retry_for, work.tell)
        work.concerning(*(one.name for one in removed), note=f"on {remote}")
    list_remote(settings, remote, tell, clock)
    return Pruned(tuple(removed))


def _doubt_here(settings: Settings, known: Known) -> str:
    """While the newest backup here is damaged or unusual, nothing goes there either."""
    return retention.decide(retention.policy_of(settings), store.all_backups(settings), known).stopped
