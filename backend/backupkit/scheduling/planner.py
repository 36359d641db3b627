"""The next runs, their times and reasons, from the settings, the past runs and the time. Pure.

The calendar in the configured zone says when a run is due; what is on disk says whether it was done. So a missed run is
made up and a finished run is not repeated, whatever was switched off, changed or killed in between.

At a change of the clock, a fixed time that is skipped runs at the end of the gap, and one that occurs twice runs the
first time. An expression whose minute or hour begins with `*` follows the clock.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct, field

from backupkit.config import cron
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, Metadata
from backupkit.model.operation import Operation
from backupkit.repository import reliable

Rules = tuple[str, ...]  # cron expressions
Task = Literal["backup", "test restore"]
TASKS: tuple[Task, ...] = ("backup", "test restore")  # their order if both are due
_COMMANDS: dict[Task, str] = {"backup": "backup", "test restore": "test-restore"}  # their names in the history
_FIRST_PAUSE = timedelta(minutes=15)  # before the retry after a failure; doubled after each further one
_RECENT = timedelta(hours=1)  # no backup at the start of the scheduler if there is one this young
_CLOCKS_DIFFER = timedelta(hours=1)  # times further in the future than this are ignored
_A_WEEK = timedelta(days=8)  # a week and a day, so that every weekday counts whatever the hour


class RunHistory(Struct, frozen=True):
    """The past runs: the time of the last one of each task, and of the failed attempts since, oldest first.

    `started` is when the scheduler began. `seed` makes the jitter differ from that of other backups folders.
    """

    last: Mapping[Task, datetime] = field(default_factory=dict)
    failed: Mapping[Task, Sequence[datetime]] = field(default_factory=dict)
    started: datetime | None = None
    seed: str = ""


class DueRun(Struct, frozen=True):
    """A task, the time it is due (UTC, maybe in the past), and the reason."""

    task: Task
    at: datetime
    why: str


def run_history_of(
    settings: Settings, backups: Iterable[Backup], operations: Sequence[Operation], now: datetime, seed: str = ""
) -> RunHistory:
    """Collect the past runs from disk and history; a scheduled backup counts only while it exists and is usable."""
    backups = tuple(backups)
    made = [
        one.metadata.created_at for one in backups if one.metadata and _is_scheduled_backup(settings, one, one.metadata)
    ]
    tested = [one.proven_at for one in backups if one.proven_at]
    tested += [one.started_at for one in operations if _is_over(one)]
    last: dict[Task, datetime] = {}
    for task, moments in zip(TASKS, (made, tested), strict=True):
        if credible := [moment for moment in moments if is_credible(moment, now)]:
            last[task] = max(credible)
    return RunHistory(last, {task: _failures(operations, task, last.get(task)) for task in TASKS}, seed=seed)


def is_credible(moment: datetime, now: datetime) -> bool:
    """Return whether a time is not in the future, since a date from a wrong clock must not stop the schedule for years.

    The clock may differ by an hour.
    """
    return moment <= now + _CLOCKS_DIFFER


def _is_scheduled_backup(settings: Settings, backup: Backup, metadata: Metadata) -> bool:
    return metadata.kind == "scheduled" and reliable.is_own(settings, metadata) and backup.is_usable


def _is_over(operation: Operation) -> bool:
    """Return whether it is a test restore that ended; a failed one counts, as the next one takes another backup."""
    return operation.command == "test-restore" and operation.outcome in ("success", "warning", "failure")


def _failures(operations: Sequence[Operation], task: Task, since: datetime | None) -> tuple[datetime, ...]:
    """Return the times of a scheduler's failed attempts, oldest first; `operations` has the newest first."""
    return tuple(
        one.started_at
        for one in reversed(operations)
        if one.command == _COMMANDS[task]
        and one.who.through == "scheduler"
        and one.has_failed
        and (since is None or one.started_at > since)
    )


def next_due(settings: Settings, past: RunHistory, now: datetime) -> list[DueRun]:
    """Return the next run of each scheduled task, the earliest first."""
    found = [due for task in TASKS if (due := _next_of(settings, past, now, task))]
    return sorted(found, key=lambda due: max(due.at, now))


def upcoming(settings: Settings, past: RunHistory, now: datetime, count: int) -> list[DueRun]:
    """Return the next `count` runs, supposing that each succeeds and takes no time."""
    found: list[DueRun] = []
    for due in next_due(settings, past, now):
        at = max(due.at, now)
        found.append(DueRun(due.task, at, due.why))
        for _ in range(count - 1):
            later = _next_regular(settings, past, at, due.task)
            if later is None:
                break
            found.append(later)
            at = later.at
    return sorted(found, key=lambda due: due.at)[:count]


def longest_gap(settings: Settings, now: datetime, task: Task = "backup") -> timedelta | None:
    """Return the longest time between two runs of the task, or None if it is not scheduled."""
    moments: list[datetime] = []
    for moment in _moments(rules_for(settings, task), settings.zone, now):
        moments.append(moment)
        if len(moments) > 2 and moment > now + _A_WEEK:
            break
    return max((later - earlier for earlier, later in pairwise(moments)), default=None)


def rules_for(settings: Settings, task: Task) -> Rules:
    """Return the cron expressions of a task; configured ones replace the daily time. Empty if it is not scheduled."""
    if not settings.enabled:
        return ()
    if task == "test restore":
        return (settings.test_schedule,) if settings.test_schedule else ()
    if settings.schedule or not settings.automatic_daily:
        return settings.schedule
    at = cron.parse_time(settings.backup_time)
    return (f"{at.minute} {at.hour} * * *",)


def _next_of(settings: Settings, past: RunHistory, now: datetime, task: Task) -> DueRun | None:
    owed = _overdue(settings, past, now, task)
    regular = _next_regular(settings, past, now, task)
    if owed is None or (regular and regular.at <= owed.at):
        return regular
    return owed


def _overdue(settings: Settings, past: RunHistory, now: datetime, task: Task) -> DueRun | None:
    """Return the run that is overdue or failed, or None."""
    rules, last = rules_for(settings, task), past.last.get(task)
    slot, why = preceding(rules, settings.zone, now), ", ".join(rules)
    at = slot and _jittered(settings, rules, slot, past.seed)
    if last is None:
        why = "there is no scheduled one yet"
    elif at and at < now - timedelta(minutes=1):
        why = f"missed at {settings.local(at):%Y-%m-%d %H:%M}"
    if task == "backup" and _wanted_at_start(settings, past):
        slot = at = past.started
        why = "at the start"
    if slot is None or at is None or (last is not None and last >= slot):
        return None
    if failed := [moment for moment in past.failed.get(task, ()) if slot <= moment <= now]:
        at = failed[-1] + _FIRST_PAUSE * 2 ** min(len(failed) - 1, 10)
        why = f"again, after {len(failed)} that failed"
    return DueRun(task, at, why)


def _wanted_at_start(settings: Settings, past: RunHistory) -> bool:
    """Return whether to back up at the start; not after a recent one, or a container in a crash loop makes many."""
    if not (settings.enabled and settings.backup_on_start and past.started):
        return False
    last = past.last.get("backup")
    return last is None or last < past.started - _RECENT


def _next_regular(settings: Settings, past: RunHistory, now: datetime, task: Task) -> DueRun | None:
    rules = rules_for(settings, task)
    slot = following(rules, settings.zone, now)
    if slot is None:
        return None
    return DueRun(task, _jittered(settings, rules, slot, past.seed), ", ".join(rules))


def _jittered(settings: Settings, rules: Rules, slot: datetime, seed: str) -> datetime:
    """Return the slot delayed by its jitter: always the same for this slot, and less than half way to the next one."""
    after = following(rules, settings.zone, slot)
    room = (after - slot).total_seconds() / 2 if after else settings.jitter
    part = int.from_bytes(hashlib.sha256(f"{seed} {slot.isoformat()}".encode()).digest()[:4]) / 2**32
    return slot + timedelta(seconds=int(part * min(settings.jitter, room)))


def following(rules: Rules, zone: ZoneInfo, now: datetime) -> datetime | None:
    """Return the first time after `now` at which one of the rules is due, or None."""
    return next(_moments(rules, zone, now), None)


def preceding(rules: Rules, zone: ZoneInfo, now: datetime) -> datetime | None:
    """Return the last time up to and including `now` at which one of the rules was due, or None."""
    return next(_moments(rules, zone, now, reverse=True), None)


def _moments(rules: Rules, zone: ZoneInfo, now: datetime, reverse: bool = False) -> Iterator[datetime]:
    return heapq.merge(*(cron.times(rule, zone, now, reverse) for rule in rules), reverse=reverse)
