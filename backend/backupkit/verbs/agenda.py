"""What a scheduler will do next. Looks only."""

from __future__ import annotations

from dataclasses import replace

from backupkit.parts import duty, history, store, timetable
from backupkit.parts.timetable import Due
from backupkit.words.clock import Clock, utc_now
from backupkit.words.settings import Settings

_COUNT = 10


def next_runs(settings: Settings, clock: Clock = utc_now) -> tuple[list[Due], bool]:
    """The next ten runs, what is overdue first; and whether there is a scheduler at work to do them."""
    now = clock()
    past = timetable.past_of(settings, store.all_backups(settings), history.read(settings.dir).operations, now)
    past = replace(past, seed=duty.seed(settings.dir))
    return timetable.upcoming(settings, past, now, _COUNT), duty.is_anyone_on(settings.dir)
