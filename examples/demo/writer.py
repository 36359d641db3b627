"""The demo's second process: commits a row every few milliseconds until its standard input ends.

A line on standard input is answered by one line of JSON: how many transactions were committed, and which errors were
seen. It is run as a file and imports nothing of ours: to the toolkit it is a stranger, as an app is.
"""

from __future__ import annotations

import json
import select
import sqlite3
import sys

PAUSE = 0.003  # seconds between two transactions
PATIENCE = 30  # seconds for a locked database, as an app would have it


def write_until_told(database: str) -> None:
    """Every transaction is whole: in any one moment of the database the total is the number of visits."""
    live = sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)
    committed, errors = 0, set[str]()
    while goes_on(committed, errors):
        try:
            add_visit(live, committed + 1)
            committed += 1
        except sqlite3.Error as error:
            errors.add(str(error))


def goes_on(committed: int, errors: set[str]) -> bool:
    """Whether to write another row; answers first, where there is a question."""
    if not select.select([sys.stdin], [], [], PAUSE)[0]:
        return True
    if not sys.stdin.readline():
        return False
    print(json.dumps({"committed": committed, "errors": sorted(errors)}), flush=True)
    return True


def add_visit(live: sqlite3.Connection, number: int) -> None:
    """One visit and its count, together or not at all."""
    live.execute("BEGIN IMMEDIATE")
    with live:
        live.execute("INSERT INTO visits (number) VALUES (?)", (number,))
        live.execute("UPDATE visit_total SET total = total + 1")


if __name__ == "__main__":
    write_until_told(sys.argv[1])
