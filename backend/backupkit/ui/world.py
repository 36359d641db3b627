"""What is on disk at one moment, and a cheap look at whether that changed: a backup may be made elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.migrations import schema
from backupkit.model.backup import Backup, SchemaVerdict
from backupkit.model.clock import Clock
from backupkit.model.operation import Operation
from backupkit.monitoring.status import Facts, Status, judge, look
from backupkit.repository import flags, history, lock
from backupkit.scheduling import planner, scheduler_lock
from backupkit.scheduling.planner import DueRun

_RUNS = 3


@dataclass(frozen=True)
class RepositoryState:
    """The facts, what they come to, and who is at work in the backups folder; empty where nobody is."""

    facts: Facts
    status: Status
    at_work: str = ""
    runs: tuple[DueRun, ...] = ()
    """What the scheduler does next."""
    verdicts: Mapping[tuple[str, ...], SchemaVerdict] = field(default_factory=dict)
    """How each revision of the backups stands to this code."""

    @property
    def backups(self) -> tuple[Backup, ...]:
        """Every backup, newest first."""
        return self.facts.backups

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was done, newest first."""
        return self.facts.history.operations


def look_around(settings: Settings, clock: Clock) -> RepositoryState:
    """The world at this moment: two small files are read for each backup, and the history. It waits for no lock."""
    facts = look(settings, clock)
    seed = scheduler_lock.seed(settings.dir)
    past = planner.past_of(settings, facts.backups, facts.history.operations, facts.now, seed)
    runs = planner.upcoming(settings, past, facts.now, _RUNS)
    revisions = {one.metadata.revisions for one in facts.backups if one.metadata}
    verdicts = {one: schema.classify(settings, one) for one in revisions}
    return RepositoryState(facts, judge(settings, facts), who_is_at_work(settings), tuple(runs), verdicts)


def who_is_at_work(settings: Settings) -> str:
    """The run that holds the lock at this moment, in words; empty where none does."""
    return lock.holder(settings.dir / lock.LOCK_FILE) if lock.is_held(settings.dir) else ""


def fingerprint(settings: Settings) -> tuple[object, ...]:
    """Another one whenever a backup came or went, or something was said of one: a handful of times of change."""
    return (*(_changed_at(path) for path in _watched(settings)), who_is_at_work(settings))


def _watched(settings: Settings) -> Iterator[Path]:
    state = settings.dir / flags.STATE_FOLDER
    yield settings.dir
    yield history.path_of(settings.dir)
    yield from (state / mark for mark in (flags.PINNED, flags.HELD, flags.ACCEPTED, flags.PROOFS))


def _changed_at(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
