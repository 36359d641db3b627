"""The backup log: what was asked for, what came of it, in a file of its own, apart from the app's.

A log that cannot be written is said once, and stops nothing.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

_log = logging.getLogger("backupkit")
_log.addHandler(logging.NullHandler())  # without a log file Python would print errors by itself
_BYTES, _FILES = 1_000_000, 5


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


def info(text: str) -> None:
    """One line of what went well."""
    _log.info(_one_line(text))


def error(text: str) -> None:
    """One line of what did not."""
    _log.error(_one_line(text))


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
