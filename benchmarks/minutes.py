"""A day of rewind, as the scheduler has it: each minute 100 rows change, and a point is taken. A program of its own.

    python minutes.py BACKEND POINTS

It prints as JSON what was measured: seconds of processor and bytes of each point, seconds of quiet looks; and a time at
which the last point is the newest.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROWS = 100
_QUIET = 20  # looks: one is short


def main(backend: str, points: int) -> None:
    """The points stand on the newest backup of the app in the environment."""
    sys.path.insert(0, backend)
    from backupkit.config.settings import load_settings
    from backupkit.rewind.take import Rewinder

    settings = load_settings(Path(os.environ["BACKUP_APP_DIR"])).replaced(rewind="2d")
    chance, rewinder = random.Random(points), Rewinder(settings)
    _change(str(settings.database), chance)
    _measured(rewinder.look, "taken")  # it reads what the others compare with
    taken = [_minute(str(settings.database), chance, rewinder.look) for _ in range(points)]
    last = datetime.now(UTC) + timedelta(seconds=1)
    quiet = [_measured(rewinder.look, "same") for _ in range(_QUIET)]
    sizes = [path.stat().st_size for path in sorted(settings.dir.glob(".rewind/*/*.point"))[1:]]
    time.sleep(2)  # so that this time is past
    print(json.dumps({"taken": taken, "quiet": quiet, "sizes": sizes, "last": f"{last:%Y-%m-%d %H:%M:%S}"}))


def _minute(database: str, chance: random.Random, look) -> float:  # type: ignore[no-untyped-def]
    _change(database, chance)
    return _measured(look, "taken")


def _change(database: str, chance: random.Random) -> None:
    with closing(sqlite3.connect(database)) as live, live:
        (last,) = live.execute("SELECT max(id) FROM applications").fetchone()
        for _ in range(ROWS):
            values = (f"seen again {chance.random()}", chance.randint(1, last))
            live.execute("UPDATE applications SET notes = ? WHERE id = ?", values)


def _measured(look, expected: str) -> float:  # type: ignore[no-untyped-def]
    started = _processor()
    found = look()
    if found != expected:
        sys.exit(f"a look ended with {found!r} instead of {expected!r}")
    return _processor() - started


def _processor() -> float:
    """Seconds of processor so far, also of processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
