"""A live app that never rests: commits a row, pauses a millisecond, until its standard input ends. Run as a program.

At the end one line of JSON: how many commits, which errors, and the longest a single commit took, in seconds.
"""

from __future__ import annotations

import json
import select
import sqlite3
import sys
import time

PAUSE = 0.001  # seconds between two commits
PATIENCE = 30  # seconds for a locked database, as an app would have it


def write_until_told(database: str) -> None:
    live = sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)
    commit(live)
    print("writing", flush=True)
    commits, errors, longest = 1, set[str](), 0.0
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        started = time.perf_counter()
        try:
            commit(live)
            commits += 1
        except sqlite3.Error as error:
            errors.add(str(error))
        longest = max(longest, time.perf_counter() - started)
    live.close()
    print(json.dumps({"commits": commits, "errors": sorted(errors), "longest": longest}))


def commit(live: sqlite3.Connection) -> None:
    live.execute("INSERT INTO reminders (application_id, due_on, what) VALUES (1, '2026-06-15', 'live')")


if __name__ == "__main__":
    write_until_told(sys.argv[1])
