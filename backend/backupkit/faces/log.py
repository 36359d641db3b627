"""The backup log: what was asked for, what came of it, in a file of its own, apart from the app's.

A log that cannot be written is said once, and stops nothing. The last lines are also kept in memory, for messages.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from backupkit.words.secrets import Secret, scrubbed

_log = logging.getLogger("backupkit")
_log.addHandler(logging.NullHandler())  # without a log file Python would print errors by itself
_BYTES, _FILES = 1_000_000, 5
_recent: deque[str] = deque(maxlen=30)
_secrets: tuple[Secret, ...] = ()


def open_log(path: Path) -> None:
    """From here on what is logged goes to the file, which is turned over at a megabyte; five old ones are kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8")
    except OSError as error:
        print(f"Warning: the log {path} cannot be written: {error.strerror}.", file=sys.stderr)
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    info("started: " + " ".join(sys.argv[1:]))


def hide(secrets: Iterable[Secret]) -> None:
    """From here on these are in no line."""
    global _secrets
    _secrets = tuple(secrets)


def last_lines() -> tuple[str, ...]:
    """The last lines of this process, the oldest first, whether or not there is a log file."""
    return tuple(_recent)


def info(text: str) -> None:
    """One line of what went well."""
    _put(logging.INFO, text)


def error(text: str) -> None:
    """One line of what did not."""
    _put(logging.ERROR, text)


def _put(level: int, text: str) -> None:
    line = scrubbed(text, _secrets).replace("\r", "\\r").replace("\n", "\\n")
    _recent.append(f"{datetime.now():%H:%M:%S} {line}")
    _log.log(level, line)
