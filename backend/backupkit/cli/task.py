"""Long work that somebody watches: a function in a thread, what it tells, how it is cancelled, and how it ended.

A thread cannot be interrupted from outside. It is asked to end: the next event that the verb tells raises `Cancelled`,
which a verb takes for what it is, a `KeyboardInterrupt`, and tidies up as it does after Ctrl-C.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from backupkit.cli.console import sentences
from backupkit.fs.space import format_bytes
from backupkit.model.durations import span
from backupkit.model.errors import CANCELLED, BackupError, explained
from backupkit.model.events import Event, EventListener, Finished, Progress, Step, StillWaiting, Waiting
from backupkit.monitoring import log

Result = TypeVar("Result")
_SURE = 2.0  # seconds that a step has to last, before its end can be told


@dataclass(frozen=True)
class Task(Generic[Result]):
    """What is to be done: `act` is the verb with all but its listener, `result_lines` makes lines of its result.

    From the steps in `steps_to_finish` on there is only forward: it is not cancelled any more. `choices` are what may
    be done next, a button each, where it went well. One that `is_quick` needs nobody to close its dialog then.
    """

    title: str
    act: Callable[[EventListener], Result]
    result_lines: Callable[[Result], Iterable[str]]
    steps_to_finish: frozenset[str] = frozenset()
    choices: tuple[str, ...] = ()
    is_quick: bool = False


@dataclass(frozen=True)
class Ended(Generic[Result]):
    """How it ended: well, with a result; with an error in words; or cancelled, with neither."""

    state: Literal["done", "failed", "cancelled"]
    result: Result | None = None
    error: BackupError | None = None
    choice: str = ""


class Cancelled(KeyboardInterrupt):
    """A person cancelled it."""

    def __init__(self) -> None:
        super().__init__(CANCELLED)


class Run(Generic[Result]):
    """One task at work: its thread writes what it tells, and the screen reads that when it looks."""

    def __init__(self, task: Task[Result]) -> None:
        self.task = task
        self.step, self.done = Step(task.title), 0
        self.waiting = ""
        self.said: list[str] = []
        self.began = self._step_began = time.monotonic()
        self.wants_to_end = False
        self._is_past_return = False
        self._lock = threading.Lock()
        self._sentences = sentences(self.said.append)

    @property
    def seconds_left(self) -> float | None:
        """How long the step under way may take yet, if it goes on as so far; None where that cannot be said."""
        total, took = self.step.total or 0, time.monotonic() - self._step_began
        if took < _SURE or not 0 < self.done <= total:
            return None
        return took * (total - self.done) / self.done

    @property
    def can_be_cancelled(self) -> bool:
        """Whether it has not come to where there is only forward; what follows on that is no way back."""
        return not self._is_past_return

    def carry_out(self) -> Ended[Result]:
        """The task, done; for a thread. Raises nothing."""
        try:
            return Ended("done", self.task.act(self.listen))
        except BaseException as raised:
            if self._is_cancelled(raised):
                log.error("cancelled")
                return Ended("cancelled")
            return Ended("failed", error=in_words(raised))

    def cancel(self) -> None:
        """It ends at the next event, where that is safe."""
        with self._lock:
            self.wants_to_end = True

    def listen(self, event: Event) -> None:
        """What the verb tells; `Cancelled` once, where a person asked for it."""
        if isinstance(event, Step):
            self._is_past_return |= event.name in self.task.steps_to_finish
            self.step, self.done, self._step_began = event, 0, time.monotonic()
        elif isinstance(event, Progress):
            self.done = event.done
        if not isinstance(event, StillWaiting):
            self.waiting = event.what if isinstance(event, Waiting) else ""
        self._sentences(event)
        if not isinstance(event, Finished):
            self._end_if_asked()

    def _end_if_asked(self) -> None:
        with self._lock:
            if not self.wants_to_end or not self.can_be_cancelled:
                return
            self.wants_to_end = False  # what tidies up tells events too
        raise Cancelled

    def _is_cancelled(self, raised: BaseException) -> bool:
        """Also where a thread of the verb's, or a library, made something else of it."""
        seen: BaseException | None = raised
        while seen is not None:
            if isinstance(seen, KeyboardInterrupt):
                return True
            seen = seen.__cause__ or seen.__context__
        return False


def in_words(raised: BaseException) -> BackupError:
    """The same sentence and hint as on the command line; of a bug, what there is to report, with the log having all."""
    error = explained(raised)
    if error is None:
        log.error("".join(traceback.format_exception(raised)))
        error = BackupError(f"This is a bug: {type(raised).__name__}: {raised}.", hint="The log has where it happened.")
    else:
        log.error(f"failed with exit code {error.code}: {error.message}")
    return error


def how_far(run: Run[Any]) -> str:
    """How far the step under way has come, and how long it may take yet; empty where it does not say."""
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
