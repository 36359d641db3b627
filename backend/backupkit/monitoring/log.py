"""The backup log: commands and their results, in a file separate from the app's log.

It has plain lines or JSON lines, and any number of processes may write to it. If it cannot be written, a warning is
printed once and work goes on. The last lines are also kept in memory, for notifications.
"""

from __future__ import annotations

import contextlib
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

if TYPE_CHECKING:  # imported only here, so that `--help` stays fast
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
    """A handler that appends each line in one write; with `RotatingFileHandler`, two processes would rotate twice."""

    def __init__(self, path: Path, form: LogFormat) -> None:
        super().__init__()
        self.path, self.has_failed = path, False
        self.setFormatter(_JsonFormatter() if form == "json" else logging.Formatter(_PLAIN_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        from backupkit.fs import append_log

        if self.has_failed:
            return
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
            append_log.append(self.path, line, _BYTES, _FILES, mode=0o644, durable=False)
        except OSError as error:
            self.has_failed = True
            _warn_not_written(self.path, error)


def say(line: str) -> None:
    """Print a line on stderr. It is no result: one that cannot be written, as on a full disk, stops no work."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _warn_not_written(path: Path, error: OSError) -> None:
    say(f"Warning: the log {printable_text(str(path))} cannot be written: {error.strerror}.")


_PLAIN_FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(message)s"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        return json.dumps(entry | getattr(record, "facts", {}), default=str)


def open_log(path: Path, form: LogFormat = "plain") -> None:
    """Log to this file from now on; it is rotated at one megabyte, and five old files are kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _warn_not_written(path, error)
    for earlier in [one for one in _log.handlers if isinstance(one, _File)]:
        _log.removeHandler(earlier)
    _log.addHandler(_File(path, form))
    _log.setLevel(logging.INFO)
    _log.propagate = False
    info("started: " + " ".join(sys.argv[1:]))


def mask(secrets: Iterable[Secret]) -> None:
    """Remove these secrets from every line from now on."""
    global _secrets
    _secrets = tuple(secrets)


def tail(path: Path, count: int) -> list[str]:
    """Return at most the last `count` lines of the log file, oldest first; none if there is no file yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def last_lines() -> tuple[str, ...]:
    """Return the last lines of this process, oldest first, whether or not there is a log file."""
    return tuple(_recent)


def info(text: str) -> None:
    """Log a success."""
    _log_line(logging.INFO, text)


def error(text: str) -> None:
    """Log an error."""
    _log_line(logging.ERROR, text)


def operation(done: Operation) -> None:
    """Log a finished operation; a JSON line also has its full entry of the history."""
    from backupkit.model import documents  # imported here, so that `--help` stays fast

    words = [done.command, *done.backups, done.outcome, f"in {done.duration_seconds or 0:.1f} s"]
    sizes = [f"{done.size_bytes} bytes"] if done.size_bytes is not None else []
    said = [f"by {done.who.user}", *([done.error] if done.error else [])]
    facts = {"operation": documents.operation(done)}
    _log_line(_LEVELS.get(done.outcome, logging.INFO), ", ".join([" ".join(words), *sizes, *said]), facts)


def _log_line(level: int, text: str, facts: Mapping[str, object] | None = None) -> None:
    from backupkit.config.secrets import scrubbed  # imported here, so that `--help` stays fast

    line = printable_text(scrubbed(text, _secrets))
    _recent.append(f"{datetime.now():%H:%M:%S} {line}")
    _log.log(level, "%s", line, extra={"facts": facts or {}})
