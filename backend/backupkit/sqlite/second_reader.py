"""A second process that reads the same moment of the database, because SQLite's memory keeps threads from being faster.

It is a help and no more: where there is one processor, a small database, or no way to the same moment, there is none,
and where it ends before its time the dump goes on alone.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backupkit.fs import process
from backupkit.sqlite import database
from backupkit.sqlite.sql_rows import RowRun, prepare, read_run

_WORTH_IT = 32 * 1024 * 1024  # bytes of database; below, a process takes longer to start than it saves
_ATTEMPTS = 10


class Reader:
    """The process, as the one that started it sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ask(self, query: str, place: float, size: int, count: int) -> None:
        """It begins to read these pages."""
        self._send(("run", (query, place, size, count)))

    def answer(self) -> list[RowRun] | None:
        """The pages asked for; None where the process is gone."""
        found: list[RowRun] | None = self._receive()
        return found

    def has_moved(self) -> bool:
        """It goes on to the newest moment, and tells whether that is another; yes, if it does not answer."""
        self._send(("move", ()))
        return bool(self._receive() is not False)

    def is_ready(self) -> bool:
        """Whether it holds a moment of the database."""
        return bool(self._receive() == "ready")

    def _send(self, message: Any) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError):  # it has gone: then there is no answer either
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def _receive(self) -> Any:
        assert self._process.stdout
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            return None


@contextlib.contextmanager
def beside(snapshot: sqlite3.Connection, live: Path) -> Iterator[Reader | None]:
    """A reader in another process that sees what this moment sees; None where that is not to be had, or not worth it.

    In WAL mode the moment may go on to a newer one on the way.
    """
    if database.live_size(snapshot) < _WORTH_IT or _processors() < 2 or not sys.executable:
        yield None
        return
    child = process.start_module(__name__, str(live))
    try:
        reader = Reader(child)
        yield reader if reader.is_ready() and _see_the_same(snapshot, reader) else None
    finally:
        child.kill()
        child.communicate()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has not


def _see_the_same(snapshot: sqlite3.Connection, reader: Reader) -> bool:
    """One moves and has not been elsewhere before: then the other, who began in between, sees the same."""
    if database.journal_mode(snapshot) != "wal":
        return True  # whoever reads keeps all others from committing
    return any(not _has_moved(snapshot) or not reader.has_moved() for _ in range(_ATTEMPTS))


def _has_moved(snapshot: sqlite3.Connection) -> bool:
    before = _version(snapshot)
    snapshot.execute("ROLLBACK")
    snapshot.execute("BEGIN")
    return _version(snapshot) != before


def _version(snapshot: sqlite3.Connection) -> int:
    snapshot.execute("SELECT count(*) FROM sqlite_master").fetchone()  # BEGIN alone does not begin to read
    return int(snapshot.execute("PRAGMA data_version").fetchone()[0])


def _serve(live: Path) -> None:
    """What the process does until nobody asks any more."""
    with database.snapshot(live, 0) as snapshot:
        prepare(snapshot)
        _say("ready")
        while True:
            kind, arguments = pickle.load(sys.stdin.buffer)
            _say(list(read_run(snapshot, *arguments)) if kind == "run" else _has_moved(snapshot))


def _say(message: Any) -> None:
    pickle.dump(message, sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(EOFError, OSError):
        _serve(Path(sys.argv[1]))
