"""The content and the addresses of notifications: how a run ended, in words, and the pings of a dead man's switch."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from backupkit.config.deployment import in_full
from backupkit.config.secrets import scrubbed
from backupkit.config.settings import Settings
from backupkit.model.errors import Refused
from backupkit.monitoring.notify.sender import Address, Delivery, Message, PendingMessage

ReportOutcome = Literal["success", "warning", "failure", "nothing"]
_OUTCOME_WORDS: Mapping[ReportOutcome, str] = {
    "success": "done",
    "warning": "done, with warnings",
    "failure": "FAILED",
    "nothing": "nothing to do",
}


class Report(Struct, frozen=True):
    """How a command ended. `lines` are its result as shown to a person; `log` are the last lines of the log."""

    command: str
    outcome: ReportOutcome
    seconds: float
    error: str = ""
    hint: str = ""
    warnings: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


def addresses(settings: Settings, report: Report, pinged: bool) -> tuple[Address, ...]:
    """Return where to send this report: to people by `notify_on`, and to the dead man's switch always, if `pinged`."""
    people = [Address(url) for url in settings.notify_urls if report.outcome in settings.notify_on]
    signal = "fail" if report.outcome == "failure" else ""
    return (*people, *_ping(settings, signal, pinged))


def _ping(settings: Settings, signal: str, wanted: bool = True) -> Iterator[Address]:
    if settings.ping_url and wanted:
        yield Address(settings.ping_url, "ping", signal)


def begin_ping(settings: Settings, command: str) -> PendingMessage:
    """Send the start ping to the dead man's switch in the background."""
    message = Message("", f"{_app_and_host(settings)}: {command} begins\n")
    return PendingMessage(message, tuple(_ping(settings, "start")), settings.notify_timeout)


def send(settings: Settings, message: Message, to: Sequence[Address]) -> tuple[Delivery, ...]:
    """Send the message and return the result for each address, no later than `notify_timeout`. Raises nothing."""
    if not to:
        return ()
    try:
        return PendingMessage(message, to, settings.notify_timeout).deliveries()
    except OSError as error:
        return tuple(Delivery(one, error.strerror or type(error).__name__) for one in to)


def send_test(settings: Settings) -> tuple[Delivery, ...]:
    """Send a test message to all addresses; raise `Refused` if there is none.

    The ping has the signal `log`, which does not count as a sign of life.
    """
    to = (*map(Address, settings.notify_urls), *_ping(settings, "log"))
    if not to:
        raise Refused("No notification address is set.", hint="Set BACKUP_NOTIFY_URLS or BACKUP_PING_URL.")
    return send(settings, test_message(settings), to)


def message_of(settings: Settings, report: Report) -> Message:
    """Return the message for a report, with all secrets removed."""
    subject = f"{_app_and_host(settings)}: {report.command} {_OUTCOME_WORDS[report.outcome]}"
    body = scrubbed("\n".join(_body(report)), settings.secrets)
    return Message(subject, body, "info" if report.outcome == "nothing" else report.outcome)


def test_message(settings: Settings) -> Message:
    """Return the message of `notify-test`."""
    told_of = ", ".join(settings.notify_on) or "nothing"
    return Message(f"{_app_and_host(settings)}: test message", f"Messages arrive here. They will tell of: {told_of}.")


def _app_and_host(settings: Settings) -> str:
    """Return app and host; the wrapper passes the host's name to a container, which knows only its own id."""
    return f"{settings.app_id} on {os.environ.get('BACKUP_HOST_NAME') or socket.gethostname()}"


def _body(report: Report) -> Iterator[str]:
    if report.error:
        yield f"Error: {report.error}"
    if report.hint:
        yield in_full(f"Next: {report.hint}")
    yield from (in_full(f"Warning: {warning}") for warning in report.warnings)
    yield from map(in_full, report.lines)
    yield f"It took {report.seconds:.1f} seconds."
    if report.log:
        yield from ("", "The last lines of the log:", *(f"  {line[:500]}" for line in report.log))
