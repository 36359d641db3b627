"""The backup log: what was asked for, what came of it, in a file of its own, apart from the app's.

Plain lines or JSON lines; any number of processes write to it. A log that cannot be written is said once, and stops
nothing. The last lines are also kept in memory, for messages.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backupkit.model.names import printable_text

if TYPE_CHECKING:  # `--help` needs none of it
    from backupkit.config.secrets import Secret
    from backupkit.config.settings import LogFormat
    from backupkit.model.operation import Operation

_log = logging.getLogger("backupkit")
_BYTES, _FILES = 1_000_000, 5
_TAIL = 64_000  # bytes
_LEVELS = {"failure": logging.ERROR, "interrupted": logging.ERROR, "warning": logging.WARNING}
_recent: deque[str] = deque(maxlen=30)
_secrets: tuple[Secret, ...] = ()


class _File(logging.Handler):
    """Appends each line in one piece. `RotatingFileHandler` would not do: two processes turn its file over twice."""

    def __init__(self, path: Path, form: LogFormat) -> None:
        super().__init__()
        self.path, self.has_failed = path, False
        self.setFormatter(_AsJson() if form == "json" else logging.Formatter(_PLAIN))

    def emit(self, record: logging.LogRecord) -> None:
        from backupkit.fs import append_log

        if self.has_failed:
            return
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
            append_log.append(self.path, line, _BYTES, _FILES, mode=0o644, durable=False)
        except OSError as error:
            self.has_failed = True
            _say_not_written(self.path, error)


def _say_not_written(path: Path, error: OSError) -> None:
    print(f"Warning: the log {printable_text(str(path))} cannot be written: {error.strerror}.", file=sys.stderr)


_PLAIN = "%(asctime)s %(levelname)s [%(process)d] %(message)s"


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        return json.dumps(entry | getattr(record, "facts", {}), default=str)


def open_log(path: Path, form: LogFormat = "plain") -> None:
    """From here on what is logged goes to the file, which is turned over at a megabyte; five old ones are kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _say_not_written(path, error)
    for earlier in [one for one in _log.handlers if isinstance(one, _File)]:
        _log.removeHandler(earlier)
    _log.addHandler(_File(path, form))
    _log.setLevel(logging.INFO)
    _log.propagate = False
    info("started: " + " ".join(sys.argv[1:]))


def hide(secrets: Iterable[Secret]) -> None:
    """From here on these are in no line."""
    global _secrets
    _secrets = tuple(secrets)


def tail(path: Path, count: int) -> list[str]:
    """The last lines of the log file, so many at most, the oldest first; none where there is no file yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def last_lines() -> tuple[str, ...]:
    """The last lines of this process, the oldest first, whether or not there is a log file."""
    return tuple(_recent)


def info(text: str) -> None:
    """One line of what went well."""
    _put(logging.INFO, text)


def error(text: str) -> None:
    """One line of what did not."""
    _put(logging.ERROR, text)


def operation(done: Operation) -> None:
    """One line of an operation that is over; as JSON, with all that the history has of it."""
    from backupkit.model import documents  # pydantic is behind it too

    words = [done.command, *done.backups, done.outcome, f"in {done.duration_seconds or 0:.1f} s"]
    sizes = [f"{done.size_bytes} bytes"] if done.size_bytes is not None else []
    said = [f"by {done.who.user}", *([done.error] if done.error else [])]
    facts = {"operation": documents.operation(done)}
    _put(_LEVELS.get(done.outcome, logging.INFO), ", ".join([" ".join(words), *sizes, *said]), facts)


def _put(level: int, text: str, facts: Mapping[str, object] | None = None) -> None:
    from backupkit.config.secrets import scrubbed  # pydantic is behind it: `--help` does without

    line = printable_text(scrubbed(text, _secrets))
    _recent.append(f"{datetime.now():%H:%M:%S} {line}")
    _log.log(level, "%s", line, extra={"facts": facts or {}})
