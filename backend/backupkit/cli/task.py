"""Long work that a person watches: a function in a thread, its progress, its cancellation and its result.

A thread cannot be interrupted from outside. To cancel, the listener raises `Cancelled` at the next event that the
function emits. This is a `KeyboardInterrupt`, so the function cleans up as it does after Ctrl-C.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from backupkit.cli.console import sentences
from backupkit.fs.space import format_bytes
from backupkit.model.durations import span
from backupkit.model.errors import CANCELLED, BackupError, explained
from backupkit.model.events import Event, EventListener, Finished, Progress, Step, StillWaiting, Waiting
from backupkit.monitoring import log

Result = TypeVar("Result")
_ESTIMATE_AFTER = 2.0  # seconds that a step must have run before its end is estimated


class Task(Struct, Generic[Result], frozen=True):
    """Work to do: `act` does it, given a listener; `result_lines` makes lines of its result.

    Once a step in `steps_to_finish` has begun, it cannot be cancelled. `choices` are the buttons for what to do next
    after success. If `is_quick`, the dialog closes by itself after success.
    """

    title: str
    act: Callable[[EventListener], Result]
    result_lines: Callable[[Result], Iterable[str]]
    steps_to_finish: frozenset[str] = frozenset()
    choices: tuple[str, ...] = ()
    is_quick: bool = False


class Ended(Struct, Generic[Result], frozen=True):
    """How a task ended: done with a result, failed with an error, or cancelled with neither."""

    state: Literal["done", "failed", "cancelled"]
    result: Result | None = None
    error: BackupError | None = None
    choice: str = ""


class Cancelled(KeyboardInterrupt):
    """Raised in a task that a person cancelled."""

    def __init__(self) -> None:
        super().__init__(CANCELLED)


class Run(Generic[Result]):
    """One task under way: its thread writes the progress, and the screen reads it from time to time."""

    def __init__(self, task: Task[Result]) -> None:
        self.task = task
        self.step, self.done = Step(task.title), 0
        self.waiting = ""
        self.said: list[str] = []
        self.began = self._step_began = time.monotonic()
        self.wants_to_end = False
        self.can_be_cancelled = True
        """Whether no step of `steps_to_finish` has begun yet."""
        self._lock = threading.Lock()
        self._sentences = sentences(self.said.append)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the current step ends, at its speed so far; None if that is unknown."""
        total, took = self.step.total or 0, time.monotonic() - self._step_began
        if took < _ESTIMATE_AFTER or not 0 < self.done <= total:
            return None
        return took * (total - self.done) / self.done

    def carry_out(self) -> Ended[Result]:
        """Do the task, in the calling thread, and return how it ended. Raise nothing."""
        try:
            return Ended("done", self.task.act(self.listen))
        except BaseException as raised:
            if self._is_cancelled(raised):
                log.error("cancelled")
                return Ended("cancelled")
            return Ended("failed", error=in_words(raised))

    def cancel(self) -> None:
        """Cancel at the next event at which that is safe."""
        with self._lock:
            self.wants_to_end = True

    def listen(self, event: Event) -> None:
        """Record the event; raise `Cancelled`, once, if a person asked for that and it is safe."""
        if isinstance(event, Step):
            self.can_be_cancelled = self.can_be_cancelled and event.name not in self.task.steps_to_finish
            self.step, self.done, self._step_began = event, 0, time.monotonic()
        elif isinstance(event, Progress):
            self.done = event.done
        if not isinstance(event, StillWaiting):
            self.waiting = event.what if isinstance(event, Waiting) else ""
        self._sentences(event)
        if not isinstance(event, Finished):
            self._raise_if_cancelled()

    def _raise_if_cancelled(self) -> None:
        with self._lock:
            if not self.wants_to_end or not self.can_be_cancelled:
                return
            self.wants_to_end = False  # cleaning up emits events too
        raise Cancelled

    def _is_cancelled(self, raised: BaseException) -> bool:
        """Return whether an interrupt is the cause, even if a thread or a library replaced it by another error."""
        seen: BaseException | None = raised
        while seen is not None:
            if isinstance(seen, KeyboardInterrupt):
                return True
            seen = seen.__cause__ or seen.__context__
        return False


def in_words(raised: BaseException) -> BackupError:
    """Return the error with the sentence and hint of the command line, and log it; for a bug, log the traceback."""
    error = explained(raised)
    if error is None:
        log.error("".join(traceback.format_exception(raised)))
        error = BackupError(f"This is a bug: {type(raised).__name__}: {raised}.", hint="The log has where it happened.")
    else:
        log.error(f"failed with exit code {error.code}: {error.message}")
    return error


def how_far(run: Run[Any]) -> str:
    """Return how far the current step has come and how long it may still take; empty if its total is unknown."""
    step, done = run.step, run.done
    if not step.total:
        return ""
    in_bytes = f"{format_bytes(done)} of {format_bytes(step.total)}"
    return f"· {in_bytes if step.unit == 'bytes' else f'{done:,} of {step.total:,} {step.unit}'}{_left(run)}"


def _left(run: Run[Any]) -> str:
    seconds = run.seconds_left
    if seconds is None:
        return ""
    return f" · about {span(seconds) if seconds >= 60 else f'{seconds:.0f} s'} left"
