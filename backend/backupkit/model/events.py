"""What a verb tells while it works, to whoever listens: a progress bar, a log, an interface."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from backupkit.model.operation import Operation


@dataclass(frozen=True)
class Step:
    """A piece of work begins: `total` is in `unit`, None where it is not known."""

    name: str
    total: int | None = None
    unit: Literal["bytes", "files", "pages", "rows"] = "bytes"


@dataclass(frozen=True)
class Progress:
    """The step under way has come to `done` of its total."""

    done: int


@dataclass(frozen=True)
class Notice:
    """Something the person should know, and need not act on."""

    text: str


@dataclass(frozen=True)
class Warned:
    """Something that should be in the result and is not, or a following step that failed: exit code 3."""

    text: str


@dataclass(frozen=True)
class Waiting:
    """The run waits: `what` says for what, on whom, and until when."""

    what: str


@dataclass(frozen=True)
class StillWaiting:
    """It goes on waiting. Told several times a second: raising from the listener is how to end a run from outside."""


@dataclass(frozen=True)
class Finished:
    """An operation is over, well or badly; the last that is told of it, when the lock is free again."""

    operation: Operation


Event = Step | Progress | Notice | Warned | Waiting | StillWaiting | Finished
EventListener = Callable[[Event], None]


def silence(_event: Event) -> None:
    """The listener that hears nothing."""


def adding_up(emit: EventListener) -> Callable[[int], None]:
    """A function that is told each count that is done, and emits the sum."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        emit(Progress(done))

    return add


class Together:
    """One step that several threads advance: what each has done is added up, in bytes."""

    def __init__(self, emit: EventListener, step: Step) -> None:
        self._tell, self._lock = emit, threading.Lock()
        self._done: dict[int, int] = {}
        emit(step)

    def part(self, size: int = 1) -> EventListener:
        """A listener for one of them, whose units are of `size` bytes; its own steps are not told."""
        number = len(self._done)
        self._done[number] = 0

        def listen(event: Event) -> None:
            with self._lock:
                if isinstance(event, Progress):
                    self._done[number] = event.done * size
                    self._tell(Progress(sum(self._done.values())))
                elif not isinstance(event, Step):
                    self._tell(event)

        return listen


def collecting(emit: EventListener, warnings: list[str]) -> EventListener:
    """A listener that passes everything on, and keeps the warnings for the result."""

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.text)
        emit(event)

    return listen
