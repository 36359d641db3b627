"""Being told to end, or to read the settings again: heard while a process waits, and while it works."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator

_TO_END = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """What was heard so far. `ending` is the signal to end, 0 for none; `reread` is for the hearer to clear."""

    def __init__(self) -> None:
        self.ending = 0
        self.reread = False
        self._is_working = False
        self._patience: float | None = None
        self._ear, self._mouth = -1, -1

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """From here on. A pipe wakes whoever waits: a signal may come just before the waiting begins."""
        self._ear, self._mouth = os.pipe()
        for end in (self._ear, self._mouth):
            os.set_blocking(end, False)
        numbers = (*_TO_END, signal.SIGHUP, signal.SIGALRM)
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._ear)
            os.close(self._mouth)

    def wait(self, seconds: float) -> None:
        """At most so long; a signal ends it."""
        if select.select([self._ear], [], [], seconds)[0]:
            os.read(self._ear, 1024)

    @contextlib.contextmanager
    def interrupting(self, patience: float | None = None) -> Iterator[None]:
        """Within, being told to end raises `KeyboardInterrupt`: at once, or when so many seconds of patience are over.

        Patience is for SIGTERM, and the first one only. Where that came before, its seconds begin now.
        """
        self._is_working, self._patience = True, patience
        try:
            if self.ending and patience is not None:
                signal.setitimer(signal.ITIMER_REAL, patience)
            yield
        finally:
            self._is_working = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _hear(self, number: int, _frame: object) -> None:
        with contextlib.suppress(BlockingIOError):  # full: then whoever waits is woken already
            os.write(self._mouth, b".")
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
