"""Try again what a remote could not do just now, with longer and longer pauses, until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from backupkit.model.errors import RemoteAway
from backupkit.model.events import EventListener, Waiting

T = TypeVar("T")
_FIRST, _LONGEST = 2.0, 60.0  # seconds


def retry_while_away(
    act: Callable[[], T], seconds: float, emit: EventListener, sleep: Callable[[float], None] = time.sleep
) -> T:
    """What `act` returns at last; its own `RemoteAway` where it goes on failing for so long."""
    deadline, pause = time.monotonic() + seconds, _FIRST
    while True:
        try:
            return act()
        except RemoteAway as error:
            if time.monotonic() + pause > deadline:
                raise
            emit(Waiting(f"{error.message} Trying again in {pause:g} s."))
        sleep(pause)
        pause = min(2 * pause, _LONGEST)
