"""What is to be done next, and when, and why: by the settings, by what was done, and by the time. Pure.

The calendar of the configured zone says when a run is due; what is on disk says whether it has been. So a run that was
missed is made up, and one that was made is not made again, whatever was switched off, changed or killed in between.

A fixed time that the clock leaps over comes at the end of the leap. One that the clock comes by twice counts the first
time. An expression whose minute or hour begins with a star follows the clock.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

from backupkit.config import cron
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, Metadata
from backupkit.model.operation import Operation
from backupkit.repository import reliable

Rules = tuple[str, ...]  # expressions of cron
Task = Literal["backup", "test restore"]
TASKS: tuple[Task, ...] = ("backup", "test restore")  # in the order in which they are done when both are due
_COMMANDS: dict[Task, str] = {"backup": "backup", "test restore": "test-restore"}  # as the history names them
_FIRST_PAUSE = timedelta(minutes=15)  # after a failure; twice as long after each further one
_RECENT = timedelta(hours=1)  # a backup this young need not be made again because the scheduler starts
_CLOCKS_DIFFER = timedelta(hours=1)  # what is dated later than this from now says nothing
_A_WEEK = timedelta(days=8)  # whatever the hour


@dataclass(frozen=True)
class RunHistory:
    """What was done so far: the moment of the last of each task, and the failed attempts since, oldest first.

    `started` is when the scheduler began. `seed` makes the jitter of this place another than that of the next.
    """

    last: Mapping[Task, datetime] = field(default_factory=dict)
    failed: Mapping[Task, Sequence[datetime]] = field(default_factory=dict)
    started: datetime | None = None
    seed: str = ""


@dataclass(frozen=True)
class DueRun:
    """A task, the moment it is to be done (UTC; it may have passed), and why then."""

    task: Task
    at: datetime
    why: str


def past_of(
    settings: Settings, backups: Iterable[Backup], operations: Sequence[Operation], now: datetime, seed: str = ""
) -> RunHistory:
    """What the backups on disk and the history tell: a scheduled backup counts as long as it is there and sound."""
    backups = tuple(backups)
    made = [one.metadata.created_at for one in backups if one.metadata and _counts(settings, one, one.metadata)]
    tested = [one.proven_at for one in backups if one.proven_at]
    tested += [one.started_at for one in operations if _is_over(one)]
    last: dict[Task, datetime] = {}
    for task, moments in zip(TASKS, (made, tested), strict=True):
        if credible := [moment for moment in moments if is_credible(moment, now)]:
            last[task] = max(credible)
    return RunHistory(last, {task: _failures(operations, task, last.get(task)) for task in TASKS}, seed=seed)


def is_credible(moment: datetime, now: datetime) -> bool:
    """Whether something can have been done then: a clock that was wrong must not stop the timetable for years."""
    return moment <= now + _CLOCKS_DIFFER


def _counts(settings: Settings, backup: Backup, metadata: Metadata) -> bool:
    return metadata.kind == "scheduled" and reliable.is_own(settings, metadata) and backup.is_usable


def _is_over(operation: Operation) -> bool:
    """A test restore that came to an end, good or bad: a bad one was told, and the next takes another backup."""
    return operation.command == "test-restore" and operation.outcome in ("success", "warning", "failure")


def _failures(operations: Sequence[Operation], task: Task, since: datetime | None) -> tuple[datetime, ...]:
    """Attempts of a scheduler's that came to nothing; the history has the newest first."""
    return tuple(
        one.started_at
        for one in reversed(operations)
        if one.command == _COMMANDS[task]
        and one.who.through == "scheduler"
        and one.has_failed
        and (since is None or one.started_at > since)
    )


def next_due(settings: Settings, past: RunHistory, now: datetime) -> list[DueRun]:
    """The next run of each task, the earliest first; nothing where nothing is to be done by itself."""
    found = [due for task in TASKS if (due := _next_of(settings, past, now, task))]
    return sorted(found, key=lambda due: max(due.at, now))


def upcoming(settings: Settings, past: RunHistory, now: datetime, count: int) -> list[DueRun]:
    """The next so many runs, if each goes well and takes no time."""
    found: list[DueRun] = []
    for due in next_due(settings, past, now):
        at = max(due.at, now)
        found.append(DueRun(due.task, at, due.why))
        for _ in range(count - 1):
            later = _regular(settings, past, at, due.task)
            if later is None:
                break
            found.append(later)
            at = later.at
    return sorted(found, key=lambda due: due.at)[:count]


def longest_gap(settings: Settings, now: datetime, task: Task = "backup") -> timedelta | None:
    """The longest time from one run of the task to the next; None where there is no timetable for it."""
    moments: list[datetime] = []
    for moment in _moments(rules_for(settings, task), settings.zone, now):
        moments.append(moment)
        if len(moments) > 2 and moment > now + _A_WEEK:
            break
    return max((later - earlier for earlier, later in pairwise(moments)), default=None)


def rules_for(settings: Settings, task: Task) -> Rules:
    """The times at which it is due by the settings; an expression of cron stands instead of the daily time."""
    if not settings.enabled:
        return ()
    if task == "test restore":
        return (settings.test_schedule,) if settings.test_schedule else ()
    if settings.schedule or not settings.automatic_daily:
        return settings.schedule
    at = cron.parse_time(settings.backup_time)
    return (f"{at.minute} {at.hour} * * *",)


def _next_of(settings: Settings, past: RunHistory, now: datetime, task: Task) -> DueRun | None:
    owed = _owed(settings, past, now, task)
    regular = _regular(settings, past, now, task)
    if owed is None or (regular and regular.at <= owed.at):
        return regular
    return owed


def _owed(settings: Settings, past: RunHistory, now: datetime, task: Task) -> DueRun | None:
    """What has come due and was not done, or not well."""
    rules, last = rules_for(settings, task), past.last.get(task)
    slot, why = preceding(rules, settings.zone, now), ", ".join(rules)
    at = slot and _jittered(settings, rules, slot, past.seed)
    if last is None:
        why = "there was none yet"
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
    """Not if there is one of just before: a container that crashes in a loop would make one each time."""
    if not (settings.enabled and settings.backup_on_start and past.started):
        return False
    last = past.last.get("backup")
    return last is None or last < past.started - _RECENT


def _regular(settings: Settings, past: RunHistory, now: datetime, task: Task) -> DueRun | None:
    rules = rules_for(settings, task)
    slot = following(rules, settings.zone, now)
    if slot is None:
        return None
    return DueRun(task, _jittered(settings, rules, slot, past.seed), ", ".join(rules))


def _jittered(settings: Settings, rules: Rules, slot: datetime, seed: str) -> datetime:
    """The moment, later by a part of the jitter that is always the same for it, and before the next one."""
    after = following(rules, settings.zone, slot)
    room = (after - slot).total_seconds() / 2 if after else settings.jitter
    part = int.from_bytes(hashlib.sha256(f"{seed} {slot.isoformat()}".encode()).digest()[:4]) / 2**32
    return slot + timedelta(seconds=int(part * min(settings.jitter, room)))


def following(rules: Rules, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The first moment after now at which one of the rules comes."""
    return next(_moments(rules, zone, now), None)


def preceding(rules: Rules, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The last moment, now included, at which one of the rules came."""
    return next(_moments(rules, zone, now, reverse=True), None)


def _moments(rules: Rules, zone: ZoneInfo, now: datetime, reverse: bool = False) -> Iterator[datetime]:
    return heapq.merge(*(cron.times(rule, zone, now, reverse) for rule in rules), reverse=reverse)
