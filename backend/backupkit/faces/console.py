"""What a person at a terminal sees while a verb works: one bar, and sentences. A pipe gets the sentences only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backupkit.faces import log
from backupkit.words.events import Event, Finished, Listener, Notice, Progress, Step, Waiting, Warned

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


_showing: Bars | None = None


def say(text: str = "") -> None:
    """One line on stderr: anything but a result."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def listening(quiet: bool = False) -> Iterator[Listener]:
    """A listener that shows a bar on a terminal, and prints notices and warnings above it."""
    if quiet or not sys.stderr.isatty():
        yield _sentences(say)
        return
    global _showing
    with _bars() as _showing:
        try:
            yield _with_bar(_showing)
        finally:
            _showing = None


def _sentences(put: Callable[[str], None]) -> Listener:
    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            log.error(f"warning: {event.text}")
            put(f"Warning: {event.text}")
        elif isinstance(event, Finished):
            log.operation(event.operation)
        elif isinstance(event, Notice):
            put(event.text)
        elif isinstance(event, Waiting):
            put(event.what)

    return listen


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _with_bar(bars: Bars) -> Listener:
    sentences = _sentences(lambda text: bars.console.print(text, markup=False, highlight=False, soft_wrap=True))
    task = None

    def listen(event: Event) -> None:
        nonlocal task
        if isinstance(event, Step):
            if task is not None:
                bars.remove_task(task)
            task = bars.add_task(event.name, total=event.total)
        elif isinstance(event, Progress) and task is not None:
            bars.update(task, completed=event.done)
        else:
            sentences(event)

    return listen


def ask(question: str) -> bool:
    """Whether the person typed yes; anything else, and the end of input, is no."""
    if _showing:
        _showing.stop()  # or it would draw over the question for ever
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip().lower() in ("y", "yes")
    if _showing:
        _showing.start()
    return answer


def at_terminal() -> bool:
    """Whether there is a person to ask."""
    return sys.stdin.isatty()
