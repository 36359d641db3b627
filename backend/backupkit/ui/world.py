"""The state of the backups folder, and a cheap check whether another process changed it."""

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
    """The facts, the status, and the run that holds the lock, in words (`at_work`, empty if none does)."""

    facts: Facts
    status: Status
    at_work: str = ""
    runs: tuple[DueRun, ...] = ()
    """The next runs of the schedule."""
    verdicts: Mapping[tuple[str, ...], SchemaVerdict] = field(default_factory=dict)
    """How each set of revisions in the backups relates to this code."""

    @property
    def backups(self) -> tuple[Backup, ...]:
        """Every backup, newest first."""
        return self.facts.backups

    @property
    def operations(self) -> tuple[Operation, ...]:
        """All operations of the history, newest first."""
        return self.facts.history.operations


def read_state(settings: Settings, clock: Clock) -> RepositoryState:
    """Read the state: two small files of each backup, and the history. It does not wait for a running backup."""
    facts = look(settings, clock)
    seed = scheduler_lock.seed(settings.dir)
    past = planner.past_of(settings, facts.backups, facts.history.operations, facts.now, seed)
    runs = planner.upcoming(settings, past, facts.now, _RUNS)
    revisions = {one.metadata.revisions for one in facts.backups if one.metadata}
    verdicts = {one: schema.classify(settings, one) for one in revisions}
    return RepositoryState(facts, judge(settings, facts), lock_holder_in_words(settings), tuple(runs), verdicts)


def lock_holder_in_words(settings: Settings) -> str:
    """Return the run that holds the lock, in words, or an empty string."""
    return lock.holder(settings.dir / lock.LOCK_FILE) if lock.is_held(settings.dir) else ""


def fingerprint(settings: Settings) -> tuple[object, ...]:
    """Return a value that changes with the backups, their flags, the history, or the run that holds the lock."""
    return (*(_changed_at(path) for path in _watched(settings)), lock_holder_in_words(settings))


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
