"""Send messages to external services in a child process: `python -m backupkit.monitoring.notify.sender`.

If a service, its library or a name server hangs, the process is killed at the deadline. The addresses are secrets: they
are passed through a pipe, and never on a command line.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from msgspec import Struct, to_builtins

from backupkit.config.secrets import Secret, SecretUrl, scrubbed
from backupkit.fs import process


class Message(Struct, frozen=True):
    """A message; services show its level by a colour or a sound."""

    subject: str
    body: str
    level: Literal["info", "success", "warning", "failure"] = "info"


class Address(Struct, frozen=True):
    """An Apprise address; or a ping: a URL that the body is posted to, with `signal` appended to its path."""

    url: SecretUrl
    kind: Literal["notification", "ping"] = "notification"
    signal: str = ""

    def __str__(self) -> str:
        return f"{self.kind} to {self.url}"


class Delivery(Struct, frozen=True):
    """The result for one address; `error` is empty if the message was accepted."""

    address: Address
    error: str = ""


class PendingMessage:
    """A message that is being sent in the background."""

    def __init__(self, message: Message, addresses: Sequence[Address], seconds: float) -> None:
        """Start sending; it ends after `seconds` at the latest."""
        self._addresses, self._seconds, self._deadline = addresses, seconds, time.monotonic() + seconds
        self._default_error = "its process ended without an answer"
        self._process = _start_child()
        self._write_order(
            {"message": to_builtins(message), "addresses": [_plain_address(one) for one in addresses], "for": seconds}
        )

    def _write_order(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(json.dumps(order))
        self._process.stdin = None  # else `communicate` would flush the closed pipe

    def deliveries(self) -> tuple[Delivery, ...]:
        """Wait until all addresses have answered, or for the deadline; return the result for each."""
        told = dict(json.loads(line) for line in self._answers().splitlines() if line.endswith("]"))
        return tuple(Delivery(one, told.get(n, self._default_error)) for n, one in enumerate(self._addresses))

    def _answers(self) -> str:
        try:
            return self._process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))[0]
        except subprocess.TimeoutExpired:
            self._default_error = f"no answer within {self._seconds:g} seconds"
        except KeyboardInterrupt:
            self._default_error = "interrupted"
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # an ended process's pid may be reused
        return self._process.communicate()[0]


def _start_child() -> subprocess.Popen[str]:
    search = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [process.python(), "-m", "backupkit.monitoring.notify.sender"],
        env={**os.environ, "PYTHONPATH": search},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C reaches only the parent, which decides when to stop sending
    )


def _plain_address(address: Address) -> dict[str, str]:
    return {"url": address.url.get_secret_value(), "kind": address.kind, "signal": address.signal}


# Child process


def main() -> None:
    """Read a message and addresses from stdin, send to all in parallel, and print one JSON result per line."""
    order = json.load(sys.stdin)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, order["for"])  # ends this process even if the parent is gone
    message = Message(**order["message"])
    addresses = [Address(SecretUrl(one["url"]), one["kind"], one["signal"]) for one in order["addresses"]]
    threads = [threading.Thread(target=_deliver, args=(n, one, message)) for n, one in enumerate(addresses)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # Apprise's own threads may still be running


def _deliver(number: int, address: Address, message: Message) -> None:
    try:
        problem = _ping(address, message) if address.kind == "ping" else _notify(address, message)
    except Exception as error:  # a library may raise anything, and its text may contain the address
        problem = f"{type(error).__name__} in sending it"
    os.write(1, (json.dumps([number, problem]) + "\n").encode())  # one write: lines of threads stay apart


def _notify(address: Address, message: Message) -> str:
    try:
        import apprise
    except ImportError:
        return "the package apprise is not installed (pip install apprise)"
    # A redirect turns the POST into a GET: the message would be lost, but count as sent.
    asset = apprise.AppriseAsset(async_mode=False, http_redirects=False, app_id="backupkit")
    service = apprise.Apprise(asset=asset)
    if not service.add(address.url.get_secret_value()):
        return "it is not an address that Apprise understands"
    sent = service.notify(message.body, message.subject, notify_type=message.level, body_format="text")
    return "" if sent else _reason(address, [entry.message for entry in sent.logs()])


def _reason(address: Address, said: list[str]) -> str:
    """Return the error text of the service, with all pieces of its address removed."""
    pieces = re.split(r"[/:@?&=,\s]+", address.url.get_secret_value())[1:]
    hidden = [Secret(spelling) for piece in pieces for spelling in (piece, unquote(piece))]
    return scrubbed(said[0], hidden).rstrip(".") if said else "it was not accepted"


def _ping(address: Address, message: Message) -> str:
    parts = urlsplit(address.url.get_secret_value())
    path = f"{parts.path.rstrip('/')}/{address.signal}" if address.signal else parts.path
    page = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, parts.query, ""))
    request = urllib.request.Request(page, message.body.encode(), _headers(parts))
    try:
        with urllib.request.build_opener(_NoRedirects).open(request) as answer:
            said = answer.read(100).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        is_redirected = 300 <= error.code < 400
        return f"it redirects to another address (HTTP {error.code})" if is_redirected else f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return str(getattr(error.reason, "strerror", None) or type(error.reason).__name__)
    # Healthchecks answers 200 for a check it does not know: OK (not found).
    return f"it says {said}" if said.startswith("OK (") else ""


def _headers(parts: SplitResult) -> dict[str, str]:
    plain = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "backupkit"}
    if parts.username is None:
        return plain
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {**plain, "Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


if __name__ == "__main__":
    main()
