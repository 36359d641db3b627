"""A database from SQL text, built in a process of its own: whatever the text does to that, it does to nothing else.

The process gets the text from a pipe and answers with one line. It writes below one folder, and has bounds on its
memory, its processor time and its files that grow with what it has read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, BinaryIO

from backupkit.fs import confinement, process
from backupkit.model import errors
from backupkit.model.errors import BackupError, Damaged, NoSpace
from backupkit.model.events import EventListener, Progress, Step, silence
from backupkit.sqlite import sql_load
from backupkit.sqlite.allowance import Allowance
from backupkit.sqlite.guard import TOO_MUCH_WORK
from backupkit.sqlite.sql_load import HINT

_BLOCK = 256 * 1024
_LONGEST_MESSAGE = 2000  # of an error that quotes the text; the pipe holds more, so that nobody waits for the other
_ERRORS: dict[str, type[BackupError]] = {one.__name__: one for one in (BackupError, Damaged, NoSpace)}
_EXCESS = {
    signal.SIGXCPU: TOO_MUCH_WORK,
    signal.SIGXFSZ: "it makes a far larger file than there is text",
}


def load_dump(text: BinaryIO, target: Path, emit: EventListener = silence) -> None:
    """The same as `sql_load.load_dump`, where no text can harm this process or take more than its share.

    Where no process can be started (Python lies where this user may not go), it is done in this one, with the bounds
    that SQLite has: on steps, values and rows.
    """
    name = sql_load.name_of(text)
    emit(Step("Loading the SQL text"))
    with sql_load.removed_on_failure(target):
        child = _start(target, name)
        if child is None:
            return sql_load.fill(text, name, target, emit)
        try:
            _feed(child, text, emit)
            assert child.stdout
            answer = child.stdout.read()
            ended = child.wait()
        finally:
            process.end_group(child)
            _close(child)
        _raise_unless_loaded(name, answer, ended)


def _start(target: Path, name: str) -> subprocess.Popen[bytes] | None:
    temporary = {"SQLITE_TMPDIR": str(target.absolute().parent)}
    with contextlib.suppress(OSError):
        return process.start_module(__name__, str(target), name, **temporary)
    return None


def _feed(child: subprocess.Popen[bytes], text: BinaryIO, emit: EventListener) -> None:
    """It has the whole text, or has ended before."""
    assert child.stdin
    _widen(child.stdin)
    fed = 0
    with contextlib.suppress(BrokenPipeError):
        while piece := text.read(_BLOCK):
            child.stdin.write(piece)
            fed += len(piece)
            emit(Progress(fed))
        child.stdin.close()


def _widen(pipe: IO[bytes]) -> None:
    """The pipe holds a whole block, so that the two processes change places less often."""
    with contextlib.suppress(AttributeError, OSError):  # macOS cannot, and a user may have all the room that is allowed
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _BLOCK)


def _close(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(BrokenPipeError):
            if pipe:
                pipe.close()


def _raise_unless_loaded(name: str, answer: bytes, ended: int) -> None:
    if -ended in _EXCESS:
        raise Damaged(f"{name} cannot be loaded: {_EXCESS[signal.Signals(-ended)]}.", hint=HINT)
    try:
        kind, message, hint = json.loads(answer)
    except ValueError as error:
        how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
        raise BackupError(f"The process that loads {name} came to an end too early ({how}).", hint=HINT) from error
    if kind:
        raise _ERRORS[kind](message, hint=hint)


def _serve(target: Path, name: str) -> None:
    """What the process does: loads what it reads, and answers with the kind of error, its message and its hint."""
    confinement.die_of_limits()
    confinement.write_below_only(target.absolute().parent)
    answer = ("", "", "")
    try:
        sql_load.fill(sys.stdin.buffer, name, target, confine=_confine)
    except MemoryError:
        answer = ("Damaged", f"{name} cannot be loaded: it needs more memory than a text of its length may.", HINT)
    except Exception as error:
        told = errors.explained(error) or BackupError(f"{name} cannot be loaded: {error!r}.", hint=HINT)
        kind = type(told).__name__
        answer = (kind if kind in _ERRORS else "BackupError", told.message[:_LONGEST_MESSAGE], told.hint)
    print(json.dumps(answer))


def _confine(allowance: Allowance, page_size: int) -> None:
    confinement.limit(resource.RLIMIT_AS, allowance.memory_bytes)
    confinement.limit(resource.RLIMIT_FSIZE, allowance.file_bytes(page_size))
    confinement.limit(resource.RLIMIT_CPU, allowance.seconds)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
