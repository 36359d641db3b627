"""Signals that ask a process to end, or to read its settings again; received while it waits and while it works."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator

_TO_END = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The signals received so far. `ending` is the first one that asked to end, or 0; the caller clears `reread`."""

    def __init__(self) -> None:
        self.ending = 0
        self.reread = False
        self._is_working = False
        self._patience: float | None = None
        self._wake_reader, self._wake_writer = -1, -1

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Receive signals during the block. A pipe wakes the waiting code: a signal may come just before it waits."""
        self._wake_reader, self._wake_writer = os.pipe()
        for end in (self._wake_reader, self._wake_writer):
            os.set_blocking(end, False)
        numbers = (*_TO_END, signal.SIGHUP, signal.SIGALRM)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def wait(self, seconds: float) -> None:
        """Wait at most that many seconds, or until a signal comes."""
        if select.select([self._wake_reader], [], [], seconds)[0]:
            os.read(self._wake_reader, 1024)

    @contextlib.contextmanager
    def interrupting(self, patience: float | None = None) -> Iterator[None]:
        """Raise `KeyboardInterrupt` in the block on a signal to end: at once, or after `patience` seconds.

        Only the first signal is delayed, and only if it is SIGTERM. If one came before the block, its seconds begin
        now.
        """
        self._is_working, self._patience = True, patience
        try:
            if self.ending and patience is not None:
                signal.setitimer(signal.ITIMER_REAL, patience)
            yield
        finally:
            self._is_working = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _receive(self, number: int, _frame: object) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full, so it wakes the waiter anyway
            os.write(self._wake_writer, b".")
        if number == signal.SIGHUP:
            self.reread = True
            return
        is_first, self.ending = not self.ending, self.ending or number
        if not self._is_working:
            return
        if is_first and number == signal.SIGTERM and self._patience is not None:
            signal.setitimer(signal.ITIMER_REAL, self._patience)
        else:
            raise KeyboardInterrupt
