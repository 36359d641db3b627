"""The error boundary of the command line: it prints an error as a sentence and a hint, and sets the exit code.

A traceback is a bug.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from backupkit.cli.console import say, say_notice
from backupkit.cli.help import command_name
from backupkit.cli.output import CannotPrint, out
from backupkit.config.deployment import program
from backupkit.model.errors import CANCELLED, BackupError, Declined, ExitCode, Refused, explained, left_by_interrupt
from backupkit.monitoring import log
from backupkit.monitoring.notify import run_report

_NOTICE_AFTER = 1.0  # seconds


def open_missing_streams() -> None:
    """Open closed standard streams on /dev/null, and let stdout and stderr print any text.

    A daemon may have closed the streams; a terminal may accept ASCII only.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue  # else a file opened later would get the descriptor of a missing stream, and our output
    os.close(handle)
    out.is_missing = sys.stdout is None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
        if number:
            getattr(sys, name).reconfigure(errors="backslashreplace")


def end_on_signals() -> None:
    """Make SIGTERM (docker stop) and SIGHUP (a lost connection) raise `KeyboardInterrupt`, as Ctrl-C does."""
    global _interrupted, _warned
    _interrupted = _warned = False
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _interrupt)
    sys.unraisablehook = _repeat_lost_interrupt


def end_at_once_on_signals() -> None:
    """Restore the default action of signals: a handler of ours would only print into the interpreter's shutdown."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        while signal.getsignal(number) is _interrupt:
            with suppress(KeyboardInterrupt):  # it comes now, when all is done
                signal.signal(number, signal.SIG_DFL)


_interrupted = _warned = False
_slow_end_notice: threading.Timer | None = None
_REPEAT_AFTER = 0.05  # seconds


def end_with_warnings(warnings: object) -> None:
    """End the current command with exit code 3 instead of 0 if there are any warnings."""
    global _warned
    _warned = _warned or bool(warnings)


def _interrupt(number: int, _frame: object) -> None:
    global _interrupted
    if not _interrupted:
        _interrupted = True
        _announce_slow_end()
    raise KeyboardInterrupt(*([CANCELLED] if number == signal.SIGINT else []))


def _repeat_lost_interrupt(lost: sys.UnraisableHookArgs) -> None:
    """Repeat an interrupt that Python could not raise, as inside a finalizer or a callback of native code."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    number = signal.SIGINT if lost.exc_value.args else signal.SIGTERM
    again = threading.Timer(_REPEAT_AFTER, _repeat_interrupt, [number])
    again.daemon = True
    again.start()


def _repeat_interrupt(number: signal.Signals) -> None:
    if callable(signal.getsignal(number)):  # else the default action is restored: the command has ended
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _announce_slow_end() -> None:
    """Print a notice if cleaning up takes longer than `_NOTICE_AFTER`."""
    global _slow_end_notice
    _slow_end_notice = threading.Timer(
        _NOTICE_AFTER, say_notice, ["Interrupted. Cleaning up before the command ends …"]
    )
    _slow_end_notice.daemon = True
    _slow_end_notice.start()


@contextmanager
def boundary() -> Iterator[None]:
    """Turn any error of the block into the exit code of the program; print it once on stderr, and report it.

    With `--json`, print it on stdout too, as a document, unless a result was printed there. Raise a bug again.
    """
    cause: BaseException | None = None
    try:
        yield
        out.flush()
        code = _code_of_result()
        log.info(f"ended with exit code {code}" if code else "done")
    except BaseException as raised:
        code, cause = _print_error(raised), raised
    if code := run_report.end(code, cause):
        raise SystemExit(code)


def _code_of_result() -> int:
    """Return the exit code of a command that did what it was asked; raise `CannotPrint` if all it does is to print."""
    code = (ExitCode.WARNINGS if _warned else ExitCode.DONE).value
    if out.unprinted is None:
        return code
    if not out.is_of_work:
        raise out.unprinted
    if out.unprinted.is_unread:
        return code
    text = f"{out.unprinted.message} What it tells of is done."
    run_report.warned(text)
    say(f"Warning: {text}")
    return ExitCode.WARNINGS


def _print_error(raised: BaseException) -> int:
    """Print the error and return its exit code; raise it again if it is a bug."""
    if _slow_end_notice:
        _slow_end_notice.cancel()
    out.flush()
    if isinstance(raised, SystemExit):
        log.info(f"ended with exit code {raised.code}")
        return raised.code if isinstance(raised.code, int) else int(bool(raised.code))
    if isinstance(raised, CannotPrint) and raised.is_unread:
        return ExitCode.FAILED  # the reader of our output has closed the pipe: print nothing
    error = usage_error(raised) or explained(raised)
    # A library may have replaced the interrupt by its own error: sqlite3 does in a callback.
    if isinstance(raised, KeyboardInterrupt) or (_interrupted and error is None):
        log.error("interrupted")
        said = f"Interrupted; {left_by_interrupt(raised)}."
        say(f"\n{said}")
        _print_error_document(ExitCode.INTERRUPTED, said, "")
        return ExitCode.INTERRUPTED
    if error:
        say_error(error)
        _print_error_document(error.code, error.message, error.hint)
        return error.code
    _print_error_document(ExitCode.FAILED, f"{type(raised).__name__}: {raised}", "")
    run_report.end(ExitCode.FAILED, raised)
    raise raised


@contextmanager
def printing_help() -> Iterator[None]:
    """Exit with an error if what Typer prints itself, such as the help, cannot be written."""
    try:
        yield
        return
    except CannotPrint as error:
        unprinted = error
    except SystemExit:
        told = out.unprinted
        out.flush()
        if out.unprinted is None or out.unprinted is told:
            raise
        unprinted = out.unprinted
    if not unprinted.is_unread:
        say_error(unprinted)
    raise SystemExit(ExitCode.FAILED)


def usage_error(raised: BaseException) -> Refused | None:
    """Return a usage error of Typer as `Refused`, or None for any other error.

    Recognized by its attributes, because Typer's versions do not share a name for the class.
    """
    if not hasattr(raised, "ctx") or not hasattr(raised, "format_message"):
        return None
    message = raised.format_message()
    typed = f"{program(os.environ)} {command_name(raised.ctx) if raised.ctx else ''}".rstrip()
    return Refused(message if message[-1:] in ".?" else f"{message}.", f"`{typed} --help` shows what it takes.")


def _print_error_document(code: ExitCode, message: str, following: str) -> None:
    """Print the error as the one JSON document on stdout; where that fails, stderr has the sentence."""
    if not out.is_json or out.has_document:
        return
    from backupkit.cli import json_

    out.document(json_.error(code, message, following))
    out.flush()


def say_error(error: BackupError) -> None:
    """Print the sentence and the hint on stderr and log them; without "Error:" for `Declined`, which is an answer."""
    log.error(f"failed with exit code {error.code}: {error.message}")
    say(error.message if isinstance(error, Declined) else f"Error: {error.message}")
    if error.hint:
        say(f"  Next: {error.hint}")
