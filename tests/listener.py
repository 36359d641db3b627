"""A real web server on this machine that records its requests, and answers as their paths say."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Heard:
    """One recorded request."""

    method: str
    path: str
    body: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Service:
    """The requests so far. `hang` in a path delays the answer to the end of the test; `500` and `redirect` set it."""

    port: int = 0
    heard: list[Heard] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def notify(self, path: str = "", user: str = "") -> str:
        """Return Apprise's URL of this server."""
        return f"json://{user}127.0.0.1:{self.port}/{path}"

    def page(self, path: str = "check", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}/{path}"

    @property
    def messages(self) -> list[Any]:
        """The messages that Apprise sent, in order."""
        return [one.json for one in self.heard if one.headers["content-type"] == "application/json"]

    @property
    def pings(self) -> list[str]:
        """The pinged paths, in order."""
        return [one.path for one in self.heard if one.headers["content-type"].startswith("text/plain")]


@contextlib.contextmanager
def listening_service() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            service.heard.append(Heard(self.command, self.path, body, headers))
            if "hang" in self.path:
                service.over.wait(120)
            code = next((code for word, code in (("500", 500), ("redirect", 302)) if word in self.path), 200)
            with contextlib.suppress(OSError):  # the client may be gone
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", f"http://127.0.0.1:{service.port}/landed")
                self.end_headers()
                self.wfile.write(b"OK (not found)" if "unknown" in self.path else b"OK")

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        service.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield service
        finally:
            service.over.set()
            server.shutdown()
