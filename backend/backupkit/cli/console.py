"""Progress, notices and questions on stderr. A terminal gets a progress bar and sentences, a pipe only sentences."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from backupkit.cli.output import out
from backupkit.config.deployment import in_full
from backupkit.model.errors import Declined, Refused
from backupkit.model.events import Event, EventListener, Finished, Notice, Progress, Step, Waiting, Warned
from backupkit.model.names import printable_lines, printable_text
from backupkit.monitoring import log
from backupkit.monitoring.notify import run_report

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


_ADD_YES = "Add --yes to go ahead, or --dry-run to see the plan."
_showing: Bars | None = None


def say(text: str = "") -> None:
    """Print one line on stderr, for anything but a result. Control characters do not reach the terminal."""
    log.say(printable_lines(in_full(text)))


def say_notice(text: str) -> None:
    """Print a line that needs no action; print nothing with `--quiet`."""
    if not out.is_quiet:
        say(text)


@contextmanager
def listening(with_bar: bool = True) -> Iterator[EventListener]:
    """Yield a listener that shows a bar on a terminal, with notices and warnings above it. `--quiet`: warnings only."""
    if out.is_quiet or not with_bar or not sys.stderr.isatty():
        yield sentences(say, say_notice)
        return
    global _showing
    with _bars() as _showing:
        try:
            yield _with_bar(_showing)
        finally:
            _showing = None


def sentences(put: Callable[[str], None], put_notice: Callable[[str], None] | None = None) -> EventListener:
    """Return a listener that logs events, passes warnings to `put`, and notices and waits to `put_notice` (or `put`).

    It adds warnings to the run report too.
    """
    put_notice = put_notice or put

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            log.error(f"warning: {event.text}")
            run_report.warned(event.text)
            put(f"Warning: {event.text}")
        elif isinstance(event, Finished):
            log.operation(event.operation)
        elif isinstance(event, Notice):
            log.info(event.text)
            put_notice(event.text)
        elif isinstance(event, Waiting):
            put_notice(event.what)

    return listen


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _with_bar(bars: Bars) -> EventListener:
    def say_above(text: str) -> None:
        with suppress(OSError):  # the terminal is gone
            bars.console.print(printable_lines(in_full(text)), markup=False, highlight=False, soft_wrap=True)

    emit = sentences(say_above)
    task = None

    def listen(event: Event) -> None:
        nonlocal task
        if isinstance(event, Step):
            if task is not None:
                bars.remove_task(task)
            task = bars.add_task(printable_text(event.name), total=event.total)
        elif isinstance(event, Progress) and task is not None:
            bars.update(task, completed=event.done)
        else:
            emit(event)

    return listen


def ask(question: str) -> bool:
    """Ask the question, and return whether the person typed yes; anything else, and the end of input, is no."""
    if _showing:
        _showing.stop()  # else the bar would keep drawing over the question
    try:
        print(f"{printable_text(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    except OSError as error:
        text = f"The question cannot be written to stderr: {error.strerror}; nothing was changed."
        raise Refused(text, _ADD_YES) from error
    answer = sys.stdin.readline().strip().lower() in ("y", "yes")
    if _showing:
        _showing.start()
    return answer


def require_person(answered: bool, hint: str = _ADD_YES) -> None:
    """Raise `Refused` if the question is not answered yet and there is no terminal to ask on."""
    if not answered and not at_terminal():
        raise Refused("There is no terminal to ask on; nothing was changed.", hint)


def require_yes(question: str, answered: bool, hint: str = _ADD_YES) -> None:
    """Return only if the answer is yes: raise `Refused` if nobody can be asked, `Declined` if the answer is no."""
    require_person(answered, hint)
    if not answered and not ask(question):
        raise Declined("Nothing was changed.")


def ask_secret(question: str, twice: bool = False) -> str:
    """Return what the person typed, without echo.

    Raise `Refused` if there is no terminal, if nothing was typed, or if the repetition (`twice`) differs.
    """
    from getpass import getpass

    if not at_any_terminal():
        raise Refused(
            f"{question}: there is no terminal to ask on.",
            hint="Set BACKUP_EXPORT_PASSPHRASE_FILE, or BACKUP_EXPORT_PASSPHRASE.",
        )
    if _showing:
        _showing.stop()
    answer = getpass(f"{question}: ", stream=sys.stderr)
    again = getpass("Once more: ", stream=sys.stderr) if twice else answer
    if _showing:
        _showing.start()
    if answer and answer == again:
        return answer
    raise Refused("Nothing was typed, or the two entries differ; nothing was changed.", hint="Try again.")


def at_any_terminal() -> bool:
    """Return whether there is a terminal to ask on, even if stdin is not one."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return at_terminal()
    return True


def at_terminal() -> bool:
    """Return whether stdin is a terminal, so that a person can be asked."""
    return sys.stdin.isatty()
