"""The order in which backups were made, as the history tells it: a wrong clock gives them dates in another order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from backupkit.config.settings import Settings
from backupkit.model.backup import Backup
from backupkit.model.operation import Operation
from backupkit.repository import history, reliable

_MAKERS = ("backup", "migrate")
_CORRECTION = timedelta(hours=1)  # a clock that is set right by less than that confuses nobody


def made_later(
    settings: Settings, backups: Iterable[Backup], operations: Sequence[Operation], now: datetime
) -> dict[str, Backup]:
    """Return the backups of this app that were made after one with a later date, the last made first, each with that.

    `operations` are the history, newest first; of a backup that none of them made nothing is said. One dated in the
    future is not compared with.
    """
    found: dict[str, Backup] = {}
    last: Backup | None = None
    for backup in _as_made(settings, backups, operations):
        if last and backup.made_at < last.made_at - _CORRECTION:
            found[backup.name] = last
        elif backup.made_at <= now + reliable.CLOCKS_DIFFER and (last is None or backup.made_at > last.made_at):
            last = backup
    return dict(reversed(found.items()))


def reasons_to_keep(settings: Settings, backups: Iterable[Backup], now: datetime) -> dict[str, str]:
    """Return by name why retention must keep the backups that are newer than their dates say; reads the history."""
    later = made_later(settings, backups, history.read(settings.dir).operations, now)
    return {name: f"made after {other.name}, which has a later date" for name, other in later.items()}


def _as_made(settings: Settings, backups: Iterable[Backup], operations: Sequence[Operation]) -> Iterator[Backup]:
    own = {one.name: one for one in backups if one.metadata and reliable.is_own(settings, one.metadata)}
    for operation in reversed(operations):
        for name in operation.backups if operation.command in _MAKERS else ():
            if (backup := own.get(name)) and _has_made(operation, backup):
                yield backup


def _has_made(operation: Operation, backup: Backup) -> bool:
    """Return whether it was made during the operation: another backup of the same name was not."""
    return operation.ended_at is not None and operation.started_at <= backup.made_at <= operation.ended_at
