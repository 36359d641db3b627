"""The one hook around the commands that do work: it remembers what is to be told, and tells it when they have ended.

A command says `begin` once it has its settings; the boundary says `end`. In between come results and warnings. A
person at a terminal sees for themselves how it ends, so only what nobody watches is reported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backupkit.model.errors import ExitCode, explained
from backupkit.model.events import Warned
from backupkit.model.names import printable
from backupkit.monitoring import log

if TYPE_CHECKING:
    from backupkit.config.settings import Settings
    from backupkit.monitoring.notify.messages import Outcome, Report
    from backupkit.monitoring.notify.sender import Delivery, Underway

# A dead man's switch waits for backups: any other command would be a false sign of life.
_PINGED = ("backup", "auto-backup", "run")


@dataclass
class _Work:
    """A command under way, and what there is to tell of it so far."""

    settings: Settings
    command: str
    ping: Underway | None
    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    idle: bool = False


_work: _Work | None = None


def begin(settings: Settings, command: str, watched: bool) -> None:
    """From here on the command's end is reported, unless a person watches it, or nobody wants to be told."""
    global _work
    _work = None
    if watched or not (settings.notify_urls or settings.ping_url):
        return
    _work = _Work(settings, command, _begin_ping(settings, command))


def add_result(lines: Iterable[str]) -> None:
    """What the command came to."""
    if _work:
        _work.lines.extend(lines)


def warned(text: str) -> None:
    """Something the command warned of."""
    if _work:
        _work.warnings.append(text)


def nothing_to_do() -> None:
    """The command found its work done: no news for people, and a sign of life all the same."""
    if _work:
        _work.idle = True


def end(code: int, cause: BaseException | None) -> int:
    """Tell of the end; the exit code, which a message that could not be sent makes 3 where all else was done."""
    global _work
    work, _work = _work, None
    if work is None:
        return code
    troubles = [one for one in _told(work, code, cause) if one.trouble]
    for one in troubles:
        _say(Warned(f"The {one.address} was not sent: {one.trouble}."))
    return ExitCode.WARNINGS if troubles and code == ExitCode.DONE else code


def _say(warning: Warned) -> None:
    log.error(f"warning: {warning.text}")
    print(f"Warning: {printable(warning.text)}", file=sys.stderr)


def _begin_ping(settings: Settings, command: str) -> Underway | None:
    from backupkit.monitoring.notify import messages

    if not settings.ping_url or command not in _PINGED:
        return None
    try:
        return messages.begin_ping(settings, command)
    except OSError as error:
        log.error(f"the ping of the beginning was not sent: {error.strerror}")
        return None


def _told(work: _Work, code: int, cause: BaseException | None) -> tuple[Delivery, ...]:
    """The ping of the beginning is waited for first, so that it does not come after that of the end."""
    from backupkit.monitoring.notify import messages

    report = _report(work, code, cause)
    to = messages.addresses(work.settings, report, work.command in _PINGED)
    began = work.ping.deliveries() if work.ping else ()
    return (*began, *messages.send(work.settings, messages.message_of(work.settings, report), to))


def _report(work: _Work, code: int, cause: BaseException | None) -> Report:
    from backupkit.monitoring.notify.messages import Report

    error, hint = _in_words(cause)
    return Report(
        command=work.command,
        outcome=_outcome(work, code),
        seconds=time.monotonic() - work.began,
        error=error,
        hint=hint,
        warnings=tuple(work.warnings),
        lines=tuple(work.lines),
        log=log.last_lines(),
    )


def _in_words(cause: BaseException | None) -> tuple[str, str]:
    if isinstance(cause, KeyboardInterrupt):
        return "It was interrupted; nothing is left half done.", ""
    if cause is None or isinstance(cause, SystemExit):
        return "", ""
    error = explained(cause)
    return (error.message, error.hint) if error else (f"{type(cause).__name__}: {cause}", "")


def _outcome(work: _Work, code: int) -> Outcome:
    if code == ExitCode.DONE:
        return "nothing" if work.idle else "success"
    return "warning" if code == ExitCode.WARNINGS else "failure"
