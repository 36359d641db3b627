"""The state of the backups folder, and a cheap check whether another process changed it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.migrations import schema
from backupkit.model.backup import Backup, SchemaVerdict
from backupkit.model.clock import Clock
from backupkit.monitoring.report_facts import Report, report
from backupkit.repository import flags, history, lock


@dataclass(frozen=True)
class RepositoryState:
    """The report, and the run that holds the lock, in words (`at_work`, empty if none does)."""

    report: Report
    at_work: str
    verdicts: Mapping[tuple[str, ...], SchemaVerdict]
    """How each set of revisions in the backups relates to this code."""

    def verdict(self, backup: Backup) -> SchemaVerdict | None:
        """Return how the backup's revisions relate to this code, or None if they are unknown."""
        return self.verdicts.get(backup.metadata.revisions) if backup.metadata else None


def read_state(settings: Settings, clock: Clock) -> RepositoryState:
    """Read the state: two small files of each backup, and the history. It does not wait for a running backup."""
    found = report(settings, clock)
    return RepositoryState(found, _at_work(settings), schema.classify_each(settings, found.backups))


def fingerprint(settings: Settings) -> tuple[object, ...]:
    """Return a value that changes with the backups, their flags, the history, or the run that holds the lock."""
    return (*(_changed_at(path) for path in _watched(settings)), _at_work(settings))


def _at_work(settings: Settings) -> str:
    return lock.holder(settings.dir / lock.LOCK_FILE) if lock.is_held(settings.dir) else ""


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
