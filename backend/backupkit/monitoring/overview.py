"""Data for charts: days with and without a backup, sizes over time, the last test restores.

`overview` uses the facts that `status` gathered, and reads nothing from disk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal

from msgspec import Struct

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.operation import Operation, Outcome
from backupkit.monitoring.status import Facts, is_own

WEEKS, TEST_RESTORES = 13, 10
Mark = Literal["before", "open", "missed", "failed", "damaged", "removed", "made", "proven"]


class Day(Struct, frozen=True):
    """A day in the configured zone: the existing backups made on it, and how many were removed since.

    `damaged` and `proven` count existing backups; `failures` counts failed attempts.
    """

    date: date
    mark: Mark
    backups: tuple[str, ...] = ()
    removed: int = 0
    damaged: int = 0
    proven: int = 0
    failures: int = 0


class Size(Struct, frozen=True):
    """The size of an existing backup in bytes; the sums of it and all older ones, as full size and as space on disk."""

    at: datetime
    backup: str
    size_bytes: int
    total_bytes: int
    unique_bytes: int


class TestRestore(Struct, frozen=True):
    """A test restore: its time, backups and outcome, its duration if known, and its error."""

    __test__ = False  # keeps pytest from collecting it as a test

    at: datetime
    backups: tuple[str, ...]
    outcome: Outcome
    seconds: float | None = None
    error: str = ""


class Overview(Struct, frozen=True):
    """The days, oldest first, from a Monday to today; the sizes, oldest first; the test restores, newest first."""

    days: tuple[Day, ...] = ()
    sizes: tuple[Size, ...] = ()
    test_restores: tuple[TestRestore, ...] = ()

    @property
    def weeks(self) -> tuple[tuple[Day, ...], ...]:
        """The days grouped by week, Monday first; the last week ends today."""
        return tuple(self.days[place : place + 7] for place in range(0, len(self.days), 7))

    @property
    def days_without(self) -> tuple[date, ...]:
        """Past days without a backup, oldest first: missed ones since the first backup, and ones with failures only."""
        return tuple(one.date for one in self.days[:-1] if one.mark in ("missed", "failed"))


def overview(settings: Settings, facts: Facts, weeks: int = WEEKS) -> Overview:
    """Return the overview of the last `weeks` weeks, including this one. Pure."""
    return Overview(_calendar(settings, facts, weeks), _sizes(facts.backups), _test_restores(facts))


@dataclass
class _DayFacts:
    """The existing backups, removed backups and failures of a day."""

    there: list[Backup] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    failures: int = 0


def _calendar(settings: Settings, facts: Facts, weeks: int) -> tuple[Day, ...]:
    found = _by_day(settings, facts)
    today = settings.local(facts.now).date()
    first = today - timedelta(days=today.weekday(), weeks=weeks - 1)
    began = min((day for day, one in found.items() if one.there or one.removed), default=None)
    days = (first + timedelta(days=number) for number in range((today - first).days + 1))
    return tuple(_day(day, found.get(day, _DayFacts()), began, today) for day in days)


def _by_day(settings: Settings, facts: Facts) -> dict[date, _DayFacts]:
    """Group backups and attempts by day; safety copies and other apps' backups do not count."""
    found: dict[date, _DayFacts] = defaultdict(_DayFacts)
    there = {backup.name for backup in facts.backups}
    for backup in facts.backups:
        if backup.metadata and is_own(settings, backup.metadata):
            found[settings.local(backup.metadata.created_at).date()].there.append(backup)
    for operation in facts.history.operations:
        if operation.command == "backup":
            _count(found[settings.local(operation.started_at).date()], operation, there)
    return found


def _count(day: _DayFacts, operation: Operation, there: set[str]) -> None:
    if operation.has_failed:
        day.failures += 1
    elif operation.has_succeeded:
        day.removed |= set(operation.backups) - there


def _day(day: date, found: _DayFacts, began: date | None, today: date) -> Day:
    damaged = sum(backup.state == "damaged" for backup in found.there)
    proven = sum(backup.state == "proven" for backup in found.there)
    names = tuple(backup.name for backup in found.there)
    mark = _mark(found, damaged, proven) or _mark_of_empty_day(day, began, today)
    return Day(day, mark, names, len(found.removed), damaged, proven, found.failures)


def _mark(found: _DayFacts, damaged: int, proven: int) -> Mark | None:
    """Return the best mark of the day, or None if it has neither a backup nor an attempt."""
    if proven:
        return "proven"
    if len(found.there) > damaged:
        return "made"
    if found.there:
        return "damaged"
    if found.removed:
        return "removed"
    return "failed" if found.failures else None


def _mark_of_empty_day(day: date, began: date | None, today: date) -> Mark:
    if began is None or day < began:
        return "before"
    return "open" if day == today else "missed"


def _sizes(backups: Sequence[Backup]) -> tuple[Size, ...]:
    """Return the sizes, oldest first; the last has the sums of all. Backups without a date count as the oldest."""
    undated = [backup for backup in backups if not backup.metadata]
    total, unique = sum(one.size_bytes for one in undated), sum(one.unique_bytes for one in undated)
    found = []
    dated = (backup for backup in backups if backup.metadata)
    for backup in sorted(dated, key=lambda one: (one.made_at, one.name)):
        total, unique = total + backup.size_bytes, unique + backup.unique_bytes
        found.append(Size(backup.made_at, backup.name, backup.size_bytes, total, unique))
    return tuple(found)


def _test_restores(facts: Facts) -> tuple[TestRestore, ...]:
    """Return the test restores from the history; if it was lost, those recorded with each backup."""
    restores = [
        _test_restore_of(one) for one in facts.history.operations if one.command == "test-restore" and _is_over(one)
    ]
    named = {name for one in restores if one.outcome in ("success", "warning") for name in one.backups}
    kept = [
        _test_restore_of_backup(backup) for backup in facts.backups if backup.proven_at and backup.name not in named
    ]
    newest_first = sorted((*restores, *kept), key=lambda one: one.at, reverse=True)
    return tuple(newest_first[:TEST_RESTORES])


def _is_over(operation: Operation) -> bool:
    return operation.outcome not in ("running", "refused")


def _test_restore_of(operation: Operation) -> TestRestore:
    at, seconds = operation.ended_at or operation.started_at, operation.duration_seconds
    return TestRestore(at, operation.backups, operation.outcome, seconds, operation.error)


def _test_restore_of_backup(backup: Backup) -> TestRestore:
    assert backup.proven_at
    return TestRestore(backup.proven_at, (backup.name,), "success", backup.recovery_seconds)
