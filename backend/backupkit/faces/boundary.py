"""The one place where an error becomes a sentence, a hint and an exit code. A traceback is a bug."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from backupkit.faces import log
from backupkit.words.errors import BackupError, ExitCode, explained


def open_missing_streams() -> None:
    """Every stream is there, and can print any text: a daemon may have closed them, a terminal may know ASCII only."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue  # a file opened later would get the number of the missing stream, and our words with it
    os.close(handle)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
        if number:
            getattr(sys, name).reconfigure(errors="backslashreplace")


def end_on_signals() -> None:
    """Being told to end (docker stop, a lost connection) tidies up like Ctrl-C does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def boundary() -> Iterator[None]:
    """Whatever is raised within ends the program with its exit code, said once on stderr."""
    try:
        with _flushed():
            yield
        log.info("done")
    except SystemExit as ended:
        log.info(f"ended with exit code {ended.code}")
        raise
    except KeyboardInterrupt:
        log.error("interrupted")
        print("\nInterrupted; nothing is left half done.", file=sys.stderr)
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        raise SystemExit(ExitCode.FAILED) from None  # whoever read our output stopped reading: say nothing
    except (BackupError, OSError, sqlite3.Error) as error:
        fail(explained(error))


@contextmanager
def _flushed() -> Iterator[None]:
    """Results that cannot be written are an error here, not a complaint of Python's at its end."""
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


def fail(error: BackupError) -> None:
    """The sentence and the hint on stderr, then the exit code."""
    log.error(f"failed with exit code {error.code}: {error.message}")
    print(f"Error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  Next: {error.hint}", file=sys.stderr)
    raise SystemExit(error.code)
