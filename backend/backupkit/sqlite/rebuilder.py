"""Rebuild a broken database in a child process, so that nothing in the file can harm anything else.

The process only reads the broken file and writes only below the new file's folder. The limits on its memory, its
processor time and its files grow with the size of the broken file.
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from backupkit.fs import child, confinement
from backupkit.fs.child import Child
from backupkit.model.errors import SourceBroken
from backupkit.model.events import Event, EventListener, Progress, Step, silence
from backupkit.model.names import printable_text
from backupkit.sqlite import database, engine
from backupkit.sqlite import rebuild as rebuilding
from backupkit.sqlite.allowance import Allowance
from backupkit.sqlite.check import reported
from backupkit.sqlite.guard import Guard, Meter, harden
from backupkit.sqlite.rebuild import Rebuilt

_TIMES = 4  # times the processor time for a dump of that size: Python reads the pages, at most twice


def rebuild(
    broken: Path, target: Path, known: Path | None, include_free: bool = False, emit: EventListener = silence
) -> Rebuilt:
    """Do what `rebuild.rebuild` does, in a confined child process if one can be started.

    If no damage is found, SQLite opens the broken file too, to check it, and may write to it: pass a copy.
    Raises `sqlite3.DatabaseError` if the new database cannot be written, and `SourceBroken` if the broken one needs
    more than a file of its size may use.
    """
    started = _start(broken, target, known, include_free)
    if started is None:
        return _rebuild_and_check(broken, target, known, include_free, emit)
    with started:
        started.close_input()
        for kind, *words in started.answers():
            if kind == "rebuilt":
                return msgspec.convert(words[0], Rebuilt)
            _act_on(kind, words, emit)
        if excess := started.excess():
            raise SourceBroken(f"{broken.name} asks for more {excess} than a file of its size may.", database.PUT_BACK)
        raise started.ended_early()


def _start(broken: Path, target: Path, known: Path | None, include_free: bool) -> Child | None:
    temporary = {"SQLITE_TMPDIR": str(target.absolute().parent)}
    arguments = (str(broken), str(target), str(known or ""), "1" if include_free else "")
    with contextlib.suppress(OSError):
        return Child(f"reads {broken.name}", __name__, *arguments, **temporary)
    return None


def _act_on(kind: str, words: list[Any], emit: EventListener) -> None:
    if kind == "step":
        emit(Step(*words))
    elif kind == "progress":
        emit(Progress(*words))
    elif kind == "not written":
        raise sqlite3.DatabaseError(*words)
    else:
        child.raise_error(*words)


# The child process


def _rebuild_and_check(
    broken: Path, target: Path, known: Path | None, include_free: bool, emit: EventListener
) -> Rebuilt:
    found = rebuilding.rebuild(broken, target, known, include_free, emit)
    if not found.is_whole:
        return found
    emit(Step("Checking the database"))
    note = _sqlite_check_note(broken)
    return replace(found, notes=(note,)) if note else found


def _sqlite_check_note(file: Path) -> str:
    """Return a sentence on the first damage that SQLite's own check finds, or on why it fails; empty if sound."""
    try:
        with contextlib.closing(engine.connect(file)) as connection:
            harden(connection)
            Guard(connection, trusts_pragmas=True)
            Meter(connection).allow(_allowance(file))
            found = reported(connection, "integrity_check(1)")
    except sqlite3.Error as error:
        if not engine.has_damage_code(error):
            return f"SQLite itself cannot check it: {printable_text(str(error))}."
        found = [str(error)]
    return f"SQLite's own check finds damage that cost no row: {printable_text(found[0])}." if found else ""


def _allowance(file: Path) -> Allowance:
    size = sum(path.stat().st_size for path in database.raw_files(file))
    return Allowance(size, longest=size)


def _serve(broken: Path, target: Path, known: Path | None, include_free: bool) -> None:
    _confine(broken, target)
    try:
        rebuilt = _rebuild_and_check(broken, target, known, include_free, _tell)
    except (MemoryError, sqlite3.DatabaseError) as error:
        if isinstance(error, sqlite3.DatabaseError) and "out of memory" not in str(error):
            return child.answer("not written", str(error))
        reason = f"{broken.name} asks for more memory than a file of its size may."
        child.answer_error(SourceBroken(reason, database.PUT_BACK), "")
    except Exception as error:
        child.answer_error(error, f"{broken.name} cannot be read")
    else:
        child.answer("rebuilt", msgspec.to_builtins(rebuilt))


def _confine(broken: Path, target: Path) -> None:
    allowance = _allowance(broken)
    confinement.die_of_limits()
    confinement.write_below_only(target.absolute().parent)
    confinement.limit(resource.RLIMIT_AS, allowance.memory_bytes)
    confinement.limit(resource.RLIMIT_FSIZE, allowance.file_bytes(0))
    confinement.limit(resource.RLIMIT_CPU, _TIMES * allowance.seconds)


def _tell(event: Event) -> None:
    if isinstance(event, Step):
        child.answer("step", event.name, event.total, event.unit)
    elif isinstance(event, Progress):
        child.answer("progress", event.done)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3] else None, bool(sys.argv[4]))
