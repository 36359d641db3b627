"""Events that a feature emits while it works, for a progress bar, a log or another interface."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from backupkit.model.operation import Operation


PROGRESS_STEP = 1 << 18
"""Bytes between two events of progress over many files: an event costs as much as the copy of a very small file."""


class Step(Struct, frozen=True):
    """The beginning of a piece of work: `total` is in `unit`, or None if it is not known."""

    name: str
    total: int | None = None
    unit: Literal["bytes", "files", "pages", "rows"] = "bytes"


class Progress(Struct, frozen=True):
    """The amount that the current step has `done` of its total."""

    done: int


class Notice(Struct, frozen=True):
    """Something that the user should know, and need not act on."""

    text: str


class Warned(Struct, frozen=True):
    """Something that should be in the result and is not, or a following step that failed: exit code 3."""

    text: str


class Kept(Warned, frozen=True):
    """A warning of something that is not lost: a backup has it."""


class Waiting(Struct, frozen=True):
    """The beginning of a wait: `what` says for what, for whom, and until when."""

    what: str


class StillWaiting(Struct, frozen=True):
    """A wait that goes on. Emitted several times a second, so that a listener can end the run by raising."""


class Finished(Struct, frozen=True):
    """The end of an operation, good or bad: its last event, emitted when the lock is free again."""

    operation: Operation


Event = Step | Progress | Notice | Warned | Waiting | StillWaiting | Finished
EventListener = Callable[[Event], None]


def silence(_event: Event) -> None:
    """Ignore the event."""


def adding_up(emit: EventListener, step: int = 0) -> Callable[[int], None]:
    """Return a function that takes each count that is done, and emits the sum when it has grown by `step`."""
    done = next_one = 0

    def add(count: int) -> None:
        nonlocal done, next_one
        done += count
        if done >= next_one:
            next_one = done + step
            emit(Progress(done))

    return add


class Together:
    """One step that several threads advance: the bytes that each has done are added up."""

    def __init__(self, emit: EventListener, step: Step) -> None:
        self._emit, self._lock = emit, threading.Lock()
        self._done: dict[int, int] = {}
        emit(step)

    def part(self, size: int = 1) -> EventListener:
        """Return a listener for one thread, whose units are of `size` bytes; its own steps are not passed on."""
        number = len(self._done)
        self._done[number] = 0

        def listen(event: Event) -> None:
            with self._lock:
                if isinstance(event, Progress):
                    self._done[number] = event.done * size
                    self._emit(Progress(sum(self._done.values())))
                elif not isinstance(event, Step):
                    self._emit(event)

        return listen


def without(emit: EventListener, *kinds: type[Event]) -> EventListener:
    """Return a listener that passes on every event but those of these kinds."""

    def listen(event: Event) -> None:
        if not isinstance(event, kinds):
            emit(event)

    return listen


def collecting(emit: EventListener, warnings: list[str]) -> EventListener:
    """Return a listener that passes every event on, and collects the warnings for the result."""

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.text)
        emit(event)

    return listen
