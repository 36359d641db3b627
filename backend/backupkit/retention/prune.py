"""Remove the backups that the policy does not keep. Each loses its name first, in one step, and then its content."""

from __future__ import annotations

import contextlib
import errno
from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, Refused
from backupkit.model.events import EventListener, Notice, Step, Warned, collecting, silence
from backupkit.remotes.push import unpushed
from backupkit.repository import brought, flags, integrity, order, store
from backupkit.repository.operation import locked_operation
from backupkit.restore.recovery import recover_under_lock
from backupkit.restore.undo import needed
from backupkit.retention import rules
from backupkit.retention.rules import Policy, RetentionContext, Verdict
from backupkit.rewind import chain, thin
from backupkit.verify.verify import verify_backups

_CHECKED_WITHIN = timedelta(days=1)


class PrunePlan(Struct, frozen=True):
    """A verdict for each backup, newest first.

    `stopped` is why nothing may be removed now, or empty. `limit` is how many one run removes without `force`; 0: all.
    """

    policy: Policy
    verdicts: tuple[Verdict, ...]
    stopped: str
    limit: int

    @property
    def removals(self) -> tuple[Backup, ...]:
        """The backups to remove, newest first."""
        return tuple(verdict.backup for verdict in self.verdicts if not verdict.keep)

    @property
    def needs_force(self) -> bool:
        """Whether there are more removals than the limit."""
        return 0 < self.limit < len(self.removals)


class Pruned(Struct, frozen=True):
    """The backups that were removed, and the warnings of the run."""

    removed: tuple[Backup, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_prune(settings: Settings, clock: Clock = utc_now, looks_always: bool = True) -> PrunePlan:
    """Return which backups would be removed now, which not, and why; change nothing.

    The file sizes of the backups that are counted on are checked; without `looks_always` only if any would be removed.
    """
    found, policy, now = store.all_backups(settings), rules.policy_of(settings), clock()
    context = RetentionContext(
        app_id=settings.app_id,
        now=now,
        zone=settings.zone,
        reserved=order.reasons_to_keep(settings, found, now)
        | dict.fromkeys(chain.chains(settings.dir), "points of rewind need it")
        | brought.reasons_to_keep(settings.dir, now)
        | unpushed(settings)
        | dict.fromkeys(needed(settings), "undo needs it"),
        undated={
            backup.name: changed for backup in found if not backup.metadata for changed in store.last_changed(backup)
        },
    )
    decision = None if looks_always else rules.decide(policy, found, context)
    if decision is None or not all(verdict.keep for verdict in decision.verdicts):
        decision = rules.decide(policy, _with_size_flaws(found, context), context)
    return PrunePlan(policy, decision.verdicts, decision.stopped, settings.prune_limit)


def _with_size_flaws(found: list[Backup], context: RetentionContext) -> list[Backup]:
    """Return the backups; one that is counted on is marked damaged if its file sizes are not as sealed."""
    wrong: dict[str, Backup] = {}
    for backup in rules.counted_on(found, context):
        assert backup.metadata
        with contextlib.suppress(FileNotFoundError):  # somebody removed the backup meanwhile
            if flaws := tuple(integrity.size_flaws(backup.path, backup.metadata)):
                wrong[backup.name] = replace(backup, state="damaged", flaws=flaws)
    return [wrong.get(backup.name, backup) for backup in found]


def check_counted_on(settings: Settings, emit: EventListener = silence, clock: Clock = utc_now) -> str:
    """Verify every byte of the backups that are counted on when others go, unless checked within a day.

    The results are recorded, so that the next plan sees them. Return why one could not be checked, or an empty string.
    """
    context = RetentionContext(settings.app_id, clock(), settings.zone)
    counted = rules.counted_on(store.all_backups(settings), context)
    stale = [one for one in counted if not one.checked_at or clock() - one.checked_at > _CHECKED_WITHIN]
    done = verify_backups(settings, stale, emit=emit, clock=clock) if stale else []
    return next((f"{one.backup.name} could not be checked: {one.failure.message}" for one in done if one.failure), "")


def prune_backups(
    settings: Settings, plan: PrunePlan, force: bool = False, emit: EventListener = silence, clock: Clock = utc_now
) -> Pruned:
    """Remove the backups that the plan removes, and no others; a killed run leaves each one complete or nameless.

    The backups that are counted on are verified first. The decision is made again under the lock, and a backup with a
    reason to stay by then stays. Raise `Refused` for more removals than the limit, unless `force`; and `Locked`.
    """
    refuse_many(plan, force)
    if not plan.verdicts:
        return Pruned()
    warnings: list[str] = []
    doubt = check_counted_on(settings, emit, clock) if plan.removals else ""
    with locked_operation(settings, "prune", emit, clock) as work:
        listener = collecting(work.emit, warnings)
        recover_under_lock(settings, listener)
        agreed = _confirmed_removals(plan, plan_prune(settings, clock), doubt, listener)
        removed = tuple(backup for backup in agreed if _remove(settings, backup, listener))
        work.about(*removed)
        if thinned := _thin(settings, clock, listener):
            work.concerning(*(one.name for one in removed), note=f"{thinned} points of rewind were merged or removed")
        flags.forget_all_but(settings.dir, store.taken_names(settings))
    return Pruned(removed, tuple(warnings))


def _thin(settings: Settings, clock: Clock, emit: EventListener) -> int:
    """Thin the points of rewind by their own rules and return how many went; a failure is only a warning."""
    try:
        return thin.thin(settings, clock())
    except (OSError, BackupError) as error:
        emit(Warned(f"The points of rewind could not be thinned: {getattr(error, 'strerror', None) or error}"))
        return 0


def refuse_many(plan: PrunePlan, force: bool) -> None:
    """Raise `Refused` if the plan removes more than its limit, unless `force` is set."""
    if plan.needs_force and not force:
        raise Refused(
            f"{len(plan.removals)} backups would be removed at once, and the limit is {plan.limit};"
            " nothing was removed.",
            hint="Read the table, then: `prune --force`. BACKUP_PRUNE_LIMIT sets the limit.",
        )


def accept(settings: Settings, name: str, emit: EventListener = silence) -> Backup:
    """Accept an unusual backup: it no longer stops retention, and later backups are compared with it. Return it."""
    with locked_operation(settings, f"accept {name}", emit, names=[name]) as work:
        recover_under_lock(settings, work.emit)
        backup = store.find(settings, name)
        flags.add(settings.dir, flags.ACCEPTED, backup.name)
        return store.read(settings, backup.name)


def _confirmed_removals(plan: PrunePlan, now: PrunePlan, doubt: str, emit: EventListener) -> list[Backup]:
    """Return the backups that both plans remove, oldest first: an error in the middle then costs the least."""
    if stopped := now.stopped or doubt.rstrip("."):
        emit(Warned(f"Nothing is removed: {stopped}."))
    if doubt and not now.stopped:
        return []
    shown, current = ({backup.name for backup in one.removals} for one in (plan, now))
    for verdict in now.verdicts:
        if verdict.keep and verdict.backup.name in shown:
            emit(Notice(f"{verdict.backup.name} stays after all: {', '.join(verdict.reasons)}."))
    return [backup for backup in reversed(plan.removals) if backup.name in current]


def _remove(settings: Settings, backup: Backup, emit: EventListener) -> bool:
    emit(Step(f"removing {backup.name}"))
    try:
        store.discard(settings, backup, emit)
    except OSError as error:
        where = f": {error.filename}" if error.errno == errno.EBUSY else ""  # it is mounted below the backup
        emit(Warned(f"{backup.path} could not be removed: {error.strerror}{where}."))
        return False
    return True
