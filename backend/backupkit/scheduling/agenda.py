"""The next scheduled runs. Only reads."""

from __future__ import annotations

from backupkit.config.settings import Settings
from backupkit.model.clock import Clock, utc_now
from backupkit.repository import history, store
from backupkit.scheduling import planner, scheduler_lock
from backupkit.scheduling.planner import DueRun

_COUNT = 10


def next_runs(settings: Settings, clock: Clock = utc_now) -> tuple[list[DueRun], bool]:
    """Return the next ten runs, overdue ones first, and whether a scheduler is running to do them."""
    now = clock()
    operations, seed = history.read(settings.dir).operations, scheduler_lock.seed(settings.dir)
    past = planner.run_history_of(settings, store.all_backups(settings), operations, now, seed)
    return planner.upcoming(settings, past, now, _COUNT), scheduler_lock.is_running_for(settings.dir)
