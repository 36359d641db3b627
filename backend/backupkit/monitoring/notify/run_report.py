"""The report of a run: collect its results and warnings, and send the notifications at its end.

A command calls `begin` once it has its settings, and the error boundary calls `end`; the Python API uses `reported`.
Results and warnings are added in between. A person at a terminal sees how a command ended, so only unattended runs
are reported.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from backupkit.config.deployment import in_full
from backupkit.model.errors import ExitCode, explained, left_by_interrupt
from backupkit.model.events import Event, EventListener, Warned, silence
from backupkit.model.names import printable_text
from backupkit.monitoring import log

if TYPE_CHECKING:
    from backupkit.config.settings import Settings
    from backupkit.monitoring.notify.messages import ReportOutcome
    from backupkit.monitoring.notify.sender import Delivery, PendingMessage

# A dead man's switch monitors backups: a ping of any other command would be a false sign of life.
_PINGED = ("backup", "auto-backup", "run")


class RunReport:
    """The report of a running command or call. `is_idle`: there was nothing to do."""

    def __init__(self, settings: Settings, command: str, emit: EventListener = silence) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.is_idle = False
        self._settings, self._command, self._emit = settings, command, emit
        self._began = time.monotonic()
        self._ping = _begin_ping(settings, command)

    def emit(self, event: Event) -> None:
        """Record a warning, and pass every event on."""
        if isinstance(event, Warned):
            self.warnings.append(event.text)
        self._emit(event)

    def send_all(self, code: int, cause: BaseException | None) -> list[str]:
        """Send all notifications of the end; return a sentence for each that was not sent."""
        return [f"The {one.address} was not sent: {one.error}." for one in self._deliver(code, cause) if one.error]

    def _deliver(self, code: int, cause: BaseException | None) -> tuple[Delivery, ...]:
        """Send the notifications; wait for the start ping first, so that it cannot arrive after the end ping."""
        from backupkit.monitoring.notify import messages

        outcome = _outcome(code, self.is_idle)
        message = messages.message_of(self._settings, self._command, outcome, self._body(cause))
        to = messages.addresses(self._settings, outcome, self._command in _PINGED)
        began = self._ping.deliveries() if self._ping else ()
        return (*began, *messages.send(self._settings, message, to))

    def _body(self, cause: BaseException | None) -> Iterator[str]:
        error, hint = _error_and_hint(cause)
        if error:
            yield f"Error: {error}"
        if hint:
            yield in_full(f"Next: {hint}")
        yield from (in_full(f"Warning: {warning}") for warning in self.warnings)
        yield from map(in_full, self.lines)
        yield f"It took {time.monotonic() - self._began:.1f} seconds."
        if lines := log.last_lines():
            yield from ("", "The last lines of the log:", *(f"  {line[:500]}" for line in lines))


_current: RunReport | None = None


def begin(settings: Settings, command: str, watched: bool) -> None:
    """Start the report of a command, unless a person watches it, or no address is set."""
    global _current
    _current = RunReport(settings, command) if _is_wanted(settings) and not watched else None


def add_result(lines: Iterable[str]) -> None:
    """Add lines to the result of the command."""
    if _current:
        _current.lines.extend(lines)


def warned(text: str) -> None:
    """Add a warning of the command."""
    if _current:
        _current.warnings.append(text)


def nothing_to_do() -> None:
    """Record that there was nothing to do: the outcome is `nothing`, and a ping is still sent."""
    if _current:
        _current.is_idle = True


def end(code: int, cause: BaseException | None) -> int:
    """Send the report, and return the exit code: 3 (warnings) if a message could not be sent and it was 0."""
    global _current
    report, _current = _current, None
    failures = report.send_all(code, cause) if report else []
    for text in failures:
        log.error(f"warning: {text}")
        log.say(f"Warning: {printable_text(text)}")
    return ExitCode.WARNINGS if failures and code == ExitCode.DONE else code


@contextlib.contextmanager
def reported(settings: Settings, command: str, emit: EventListener) -> Iterator[RunReport]:
    """Report the end of an API call, as of an unattended command; yield the report.

    The call emits its events to the report, which passes them on. Each message that was not sent is a warning event.
    """
    report = RunReport(settings, command, emit)
    cause: BaseException | None = None
    try:
        yield report
    except BaseException as raised:
        cause = raised
        raise
    finally:
        if _is_wanted(settings):
            for text in report.send_all(_code(report, cause), cause):
                emit(Warned(text))


def _code(report: RunReport, cause: BaseException | None) -> int:
    if cause is None:
        return ExitCode.WARNINGS if report.warnings else ExitCode.DONE
    error = explained(cause)
    return error.code if error else ExitCode.FAILED


def _is_wanted(settings: Settings) -> bool:
    return bool(settings.notify_urls or settings.ping_url)


def _begin_ping(settings: Settings, command: str) -> PendingMessage | None:
    from backupkit.monitoring.notify import messages

    if not settings.ping_url or command not in _PINGED:
        return None
    try:
        return messages.begin_ping(settings, command)
    except OSError as error:
        log.error(f"the ping of the beginning was not sent: {error.strerror}")
        return None


def _error_and_hint(cause: BaseException | None) -> tuple[str, str]:
    if isinstance(cause, KeyboardInterrupt):
        return f"It was interrupted; {left_by_interrupt(cause)}.", ""
    if cause is None or isinstance(cause, SystemExit):
        return "", ""
    error = explained(cause)
    return (error.message, error.hint) if error else (f"{type(cause).__name__}: {cause}", "")


def _outcome(code: int, is_idle: bool) -> ReportOutcome:
    if code == ExitCode.DONE:
        return "nothing" if is_idle else "success"
    return "warning" if code == ExitCode.WARNINGS else "failure"
