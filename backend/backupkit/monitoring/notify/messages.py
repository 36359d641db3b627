"""The content and the addresses of notifications: how a run ended, in words, and the pings of a dead man's switch."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

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


def addresses(settings: Settings, outcome: ReportOutcome, pinged: bool) -> tuple[Address, ...]:
    """Return where to send a report: to people by `notify_on`, and to the dead man's switch always, if `pinged`."""
    people = [Address(url) for url in settings.notify_urls if outcome in settings.notify_on]
    signal = "fail" if outcome == "failure" else ""
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


def message_of(settings: Settings, command: str, outcome: ReportOutcome, lines: Iterable[str]) -> Message:
    """Return the message on how a command ended, with all secrets removed."""
    subject = f"{_app_and_host(settings)}: {command} {_OUTCOME_WORDS[outcome]}"
    body = scrubbed("\n".join(lines), settings.secrets)
    return Message(subject, body, "info" if outcome == "nothing" else outcome)


def test_message(settings: Settings) -> Message:
    """Return the message of `notify-test`."""
    told_of = ", ".join(settings.notify_on) or "nothing"
    return Message(f"{_app_and_host(settings)}: test message", f"Messages arrive here. They will tell of: {told_of}.")


def _app_and_host(settings: Settings) -> str:
    """Return app and host; the wrapper passes the host's name to a container, which knows only its own id."""
    return f"{settings.app_id} on {os.environ.get('BACKUP_HOST_NAME') or socket.gethostname()}"
