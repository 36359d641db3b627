"""Load SQL text into a new database in a child process, so that no text can harm anything else.

The process reads the text from a pipe and answers with one line. It writes only below one folder. The limits on its
memory, its processor time and its files grow with what it has read.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import BinaryIO

from backupkit.fs import child, confinement
from backupkit.fs.child import Child
from backupkit.model.errors import Damaged
from backupkit.model.events import EventListener, Progress, Step, silence
from backupkit.sqlite import sql_load
from backupkit.sqlite.allowance import Allowance
from backupkit.sqlite.guard import TOO_MUCH_WORK
from backupkit.sqlite.sql_load import HINT

_EXCESS = {child.TIME: TOO_MUCH_WORK, child.SPACE: "it makes a far larger file than there is text"}


def load_dump(text: BinaryIO, target: Path, emit: EventListener = silence) -> None:
    """Do what `sql_load.load_dump` does, but so that no text can harm this process or take more than its share.

    If no process can be started (this user may not read Python's folder), load in this one, within the limits that
    SQLite itself has: on steps, values and rows.
    """
    name = sql_load.name_of(text)
    emit(Step("Loading the SQL text"))
    with sql_load.removed_on_failure(target):
        started = _start(target, name)
        if started is None:
            return sql_load.fill(text, name, target, emit)
        with started:
            started.feed(text, lambda fed: emit(Progress(fed)))
            _raise_unless_loaded(started, name)


def _start(target: Path, name: str) -> Child | None:
    temporary = {"SQLITE_TMPDIR": str(target.absolute().parent)}
    with contextlib.suppress(OSError):
        return Child(f"loads {name}", __name__, str(target), name, **temporary)
    return None


def _raise_unless_loaded(started: Child, name: str) -> None:
    for kind, *words in started.answers():
        if kind == "error":
            child.raise_error(*words)
        return
    if excess := started.excess():
        raise Damaged(f"{name} cannot be loaded: {_EXCESS[excess]}.", hint=HINT)
    raise started.ended_early()


def _serve(target: Path, name: str) -> None:
    """Load the text from the standard input in the child process, and answer that it is done or what went wrong."""
    confinement.die_of_limits()
    confinement.write_below_only(target.absolute().parent)
    try:
        sql_load.fill(sys.stdin.buffer, name, target, confine=_confine)
    except MemoryError:
        reason = f"{name} cannot be loaded: it needs more memory than a text of its length may."
        child.answer_error(Damaged(reason, HINT), "")
    except Exception as error:
        child.answer_error(error, f"{name} cannot be loaded")
    else:
        child.answer("done")


def _confine(allowance: Allowance, page_size: int) -> None:
    confinement.limit(resource.RLIMIT_AS, allowance.memory_bytes)
    confinement.limit(resource.RLIMIT_FSIZE, allowance.file_bytes(page_size))
    confinement.limit(resource.RLIMIT_CPU, allowance.seconds)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
