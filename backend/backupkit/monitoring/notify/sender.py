"""Messages to services outside, sent by a process of its own: `python -m backupkit.monitoring.notify.sender`.

Whatever a service, its library or a name server does, or does not do, ends with that process, at the deadline. The
addresses are secrets: they go through a pipe, and are on no command line.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from backupkit.config.secrets import Secret, SecretUrl, scrubbed
from backupkit.fs import process


@dataclass(frozen=True)
class Message:
    """What is to be said, and how loudly: services have a colour or a sound for it."""

    subject: str
    body: str
    level: Literal["info", "success", "warning", "failure"] = "info"


@dataclass(frozen=True)
class Address:
    """A service that Apprise knows; or a ping: a page that gets the body, at `signal` below its address."""

    url: SecretUrl
    kind: Literal["notification", "ping"] = "notification"
    signal: str = ""

    def __str__(self) -> str:
        return f"{self.kind} to {self.url}"


@dataclass(frozen=True)
class Delivery:
    """What became of a message at one address; `error` is empty where it was accepted."""

    address: Address
    error: str = ""


class Underway:
    """A message that is being sent while other work goes on."""

    def __init__(self, message: Message, addresses: Sequence[Address], seconds: float) -> None:
        """Begin; `seconds` later it is over, whatever has come of it."""
        self._addresses, self._seconds, self._deadline = addresses, seconds, time.monotonic() + seconds
        self._trouble = "its process ended without an answer"
        self._process = _started()
        self._hand_over({"message": asdict(message), "addresses": [_plain(one) for one in addresses], "for": seconds})

    def _hand_over(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(json.dumps(order))
        self._process.stdin = None  # or `communicate` would flush what is closed

    def deliveries(self) -> tuple[Delivery, ...]:
        """What became of it, as soon as all addresses have answered, and at the deadline at the latest."""
        told = dict(json.loads(line) for line in self._answers().splitlines() if line.endswith("]"))
        return tuple(Delivery(one, told.get(n, self._trouble)) for n, one in enumerate(self._addresses))

    def _answers(self) -> str:
        try:
            return self._process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))[0]
        except subprocess.TimeoutExpired:
            self._trouble = f"no answer within {self._seconds:g} seconds"
        except KeyboardInterrupt:
            self._trouble = "interrupted"
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # one that has ended by itself may not be ours any more
        return self._process.communicate()[0]


def _started() -> subprocess.Popen[str]:
    search = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [process.python(), "-m", "backupkit.monitoring.notify.sender"],
        env={**os.environ, "PYTHONPATH": search},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a Ctrl-C is for us: we decide what becomes of the message
    )


def _plain(address: Address) -> dict[str, str]:
    return {"url": address.url.get_secret_value(), "kind": address.kind, "signal": address.signal}


# In the process of its own.


def main() -> None:
    """Send what stdin says to each address at once, and say on stdout what became of it, a line for each."""
    order = json.load(sys.stdin)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, order["for"])  # also where nobody is left who waits for it
    message = Message(**order["message"])
    addresses = [Address(SecretUrl(one["url"]), one["kind"], one["signal"]) for one in order["addresses"]]
    threads = [threading.Thread(target=_deliver, args=(n, one, message)) for n, one in enumerate(addresses)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # Apprise's own threads may still wait for something


def _deliver(number: int, address: Address, message: Message) -> None:
    try:
        problem = _ping(address, message) if address.kind == "ping" else _notify(address, message)
    except Exception as error:  # a service's library may raise anything, and its words may hold the address
        problem = f"{type(error).__name__} in sending it"
    os.write(1, (json.dumps([number, problem]) + "\n").encode())  # in one piece, whatever other threads write


def _notify(address: Address, message: Message) -> str:
    try:
        import apprise
    except ImportError:
        return "the package apprise is not installed (pip install apprise)"
    # Redirected, a POST becomes a GET: the message would be lost, and said to be sent.
    asset = apprise.AppriseAsset(async_mode=False, http_redirects=False, app_id="backupkit")
    service = apprise.Apprise(asset=asset)
    if not service.add(address.url.get_secret_value()):
        return "it is no address that Apprise understands"
    sent = service.notify(message.body, message.subject, notify_type=message.level, body_format="text")
    return "" if sent else _reason(address, [entry.message for entry in sent.logs()])


def _reason(address: Address, said: list[str]) -> str:
    """The service's own words, without any piece of its address."""
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
