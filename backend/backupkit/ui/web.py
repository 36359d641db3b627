"""The interface in a browser: each visit runs it in a process of its own, and the browser draws what that draws.

Who may come in. The address that is printed holds a token, which lets one browser in, once: it gets a cookie that no
script reads and no other site can send, and everything else needs that cookie. But the browser sends a cookie to every
port of the host, and so to any other program that is served there. So the connection that carries keys and screens
needs a second key: the browser gets it together with the cookie, keeps it in the storage of this one port, and it is in
no page after that. A host that is a name nobody gave (a stranger's name that was made to point here) and a request that
another site made are refused before that. Nothing on the page comes from elsewhere: it works without a network.

Who sends no whole request, or takes no answer, is closed at a deadline; connections and visits are bounded.
"""

from __future__ import annotations

import asyncio
import errno
import html
import ipaddress
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import web
from textual_serve.server import Server

from backupkit.model.errors import Refused

DEFAULT_PORT = 8765
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/css/xterm.css">
<style>
@font-face {{ font-family: "Roboto Mono"; font-weight: 100 700;
  src: url("/static/fonts/RobotoMono-VariableFont_wght.ttf"); }}
@font-face {{ font-family: "Roboto Mono"; font-weight: 100 700; font-style: italic;
  src: url("/static/fonts/RobotoMono-Italic-VariableFont_wght.ttf"); }}
body {{ margin: 0; background: #14191e; color: #d8dee4; font-family: "Roboto Mono", monospace; }}
.dialog-container {{ position: absolute; inset: 0; display: flex; align-items: center; justify-content: center;
  z-index: 10; background: #14191e; }}
a {{ color: #5fb3b3; }}
body.-first-byte .intro-dialog, .closed-dialog {{ display: none; }}
body.-closed .closed-dialog {{ display: flex; }}
</style>
<script src="/static/js/textual.js"></script>
<script src="/page.js" defer></script>
</head>
<body>
<div class="dialog-container intro-dialog"><p>{title} …</p></div>
<div class="dialog-container closed-dialog"><p>This is the end of the session. <a href="/">Begin again</a></p></div>
<div id="terminal" class="textual-terminal" data-font-size="16"></div>
</body>
</html>
"""
# Before everything is loaded, and textual.js connects. Then the keyboard goes to the interface, without a click.
_SCRIPT = """
const key = localStorage.getItem("backupkit");
document.getElementById("terminal").dataset.sessionWebsocketUrl = `ws://${location.host}/ws/${key}`;
new MutationObserver((_, observer) => {
  const input = document.querySelector(".xterm-helper-textarea");
  if (!input || !document.body.classList.contains("-first-byte")) return;
  input.focus();
  observer.disconnect();
}).observe(document, { attributes: true, childList: true, subtree: true });
"""
# Not a redirect: after a click in another program's page the browser would not send the new cookie along.
_WELCOME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Welcome</title>
<script src="/enter.js" defer></script>
</head>
<body data-key="{key}"><a href="/">Go on</a></body>
</html>
"""
_ENTER = """
localStorage.setItem("backupkit", document.body.dataset.key);
location.replace("/");
"""
_NO_ENTRY = (
    "Not here. Open the address that `ui --web` printed; it lets one browser in, once. Start it again for another."
)

_PATIENCE = 15.0  # seconds for a request to be whole
_LONGEST = 60.0  # seconds for an answer to be taken
_CONNECTIONS, _VISITS = 64, 8  # a browser needs six and one

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """Who may come in. The token opens once; the two keys that it is changed for stay as long as the server."""

    def __init__(self, host: str) -> None:
        self.token: str = secrets.token_urlsafe(32)
        self.socket_key: str = secrets.token_urlsafe(32)
        self._key = secrets.token_urlsafe(32)
        self._cookie = f"backupkit-{secrets.token_hex(4)}"  # another server on another port has another one
        self._host = host.lower()

    def is_known_host(self, request: web.Request) -> bool:
        """Whether the browser came by an address or a name that is ours: any other name may be a stranger's."""
        name = (urlsplit(f"//{request.host}").hostname or "").lower()
        return name in ("localhost", self._host) or _is_address(name)

    def is_of_this_page(self, request: web.Request) -> bool:
        """Whether our own page made the request, or the person did; no page of another site."""
        origin = request.headers.get("Origin")
        if origin is None:
            # A browser names it with every websocket.
            return not request.path.startswith("/ws") and self._is_asked_for(request)
        parts = urlsplit(origin)
        return parts.scheme == "http" and parts.netloc.lower() == request.host.lower()

    def _is_asked_for(self, request: web.Request) -> bool:
        """Whether a person came, perhaps by a link elsewhere, or our own page asked."""
        is_visit = request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        return is_visit or request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")

    def has_key(self, request: web.Request) -> bool:
        """Whether the browser was let in before."""
        return _same(request.cookies.get(self._cookie, ""), self._key)

    def opens_socket(self, request: web.Request) -> bool:
        """Whether it was this very page that was let in, and not another program that was sent the cookie."""
        return _same(request.match_info["key"], self.socket_key)

    def let_in(self, request: web.Request) -> bool:
        """Whether the request brings the token, which from then on opens nothing any more."""
        is_right = bool(self.token) and _same(request.query.get("token", ""), self.token)
        if is_right:
            self.token = ""
        return is_right

    def give_key(self, response: web.Response) -> None:
        """The browser has the key, as a cookie."""
        response.set_cookie(self._cookie, self._key, httponly=True, samesite="Strict", path="/")


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class GuardedServer(Server):
    """Serves the interface to whom the door lets in; its own page, with nothing from elsewhere."""

    def __init__(self, command: Sequence[str], door: Door, title: str) -> None:
        super().__init__("exec " + shlex.join(command), title=title)
        self.door = door
        self._sessions: set[asyncio.Task[object]] = set()

    async def _make_app(self) -> web.Application:
        served = web.Application(middlewares=[self._guard])
        served.add_routes(
            [
                web.get("/", self.handle_page),
                web.get("/page.js", _script(_SCRIPT)),
                web.get("/enter.js", _script(_ENTER)),
                web.get("/ws/{key}", self.handle_websocket),
                web.get("/download/{key}", self.handle_download),
                web.static("/static", self.statics_path),
            ]
        )
        served.on_shutdown.append(self.on_shutdown)
        return served

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self.door.is_known_host(request) or not self.door.is_of_this_page(request):
            return _refused()
        if not self.door.has_key(request):
            if request.path != "/" or not self.door.let_in(request):
                return _refused()
            welcome = _WELCOME.format(key=self.door.socket_key)
            answer = web.Response(text=welcome, content_type="text/html", headers=_HEADERS)
            self.door.give_key(answer)
            return answer
        if request.path.startswith("/ws/"):
            return await handler(request)
        async with asyncio.timeout(_LONGEST):
            return await handler(request)

    async def handle_page(self, request: web.Request) -> web.Response:
        """The page that draws the interface."""
        page = _PAGE.format(title=html.escape(self.title))
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One visit: as long as it lasts it can be ended with the server."""
        if not self.door.opens_socket(request):
            raise web.HTTPForbidden(text=_NO_ENTRY, headers=_HEADERS)
        if len(self._sessions) >= _VISITS:
            raise web.HTTPServiceUnavailable(text="Too many pages are open. Close one.", headers=_HEADERS)
        visit = asyncio.current_task()
        assert visit is not None
        self._sessions.add(visit)
        try:
            return await super().handle_websocket(request)
        finally:
            self._sessions.discard(visit)

    async def handle_download(self, request: web.Request) -> web.StreamResponse:
        """A file that was taken out of a backup: always as a file to be saved, never as a page to be shown."""
        key = request.match_info["key"]
        try:
            wanted = await self.download_manager.get_download_metadata(key)
        except KeyError:
            return _refused()
        name = f"attachment; filename*=UTF-8''{quote(wanted.file_name, safe='')}"
        headers = {"Content-Type": "application/octet-stream", "Content-Disposition": name}
        response = web.StreamResponse(headers=_HEADERS | headers)
        await response.prepare(request)
        async for chunk in self.download_manager.download(key):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def on_shutdown(self, app: web.Application) -> None:
        """Every visit ends; what a verb does meanwhile is cancelled where that is safe, else waited for."""
        visits = list(self._sessions)
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)


def _script(text: str) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/javascript", headers=_HEADERS)

    return handle


def _refused() -> web.Response:
    return web.Response(status=403, text=_NO_ENTRY, headers=_HEADERS)


class BoundedSocket(socket.socket):
    """A listening socket that has so many connections open at most, and closes any other at once."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.family, listening.type, listening.proto, listening.detach())
        self._accepted: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        connection, peer = super().accept()
        self._accepted = [one for one in self._accepted if one.fileno() >= 0]
        if len(self._accepted) >= _CONNECTIONS:
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "too many connections")
        self._accepted.append(connection)
        return connection, peer


def listen(host: str, port: int) -> socket.socket:
    """The port is ours; `Refused` where that cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return BoundedSocket(socket.create_server((host, port), family=family))
    except OSError as error:
        is_of_the_system = bool(error.errno and error.errno > 0)  # else it is the resolver's own
        reason = os.strerror(error.errno or 0) if is_of_the_system else error.strerror
        raise Refused(
            f"The address {host} with port {port} cannot be served at: {reason}.",
            hint="Choose another with --host or --port.",
        ) from error


def address(host: str, port: int, token: str) -> str:
    """What to open in a browser on this machine."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/?token={token}"


def serve(program: str, host: str, port: int, outside: str, title: str, say: Callable[[str], None]) -> None:
    """The interface in a browser, until the program is told to end.

    `outside` is the host by which a person comes here, where that is not the one that is listened at. `say` is told
    the address to open.
    """
    door = Door(outside or host)
    with listen(host, port) as listening:
        say(address(outside or host, listening.getsockname()[1], door.token))
        server = GuardedServer([sys.executable, program, "ui"], door, title)
        web.run_app(
            server._make_app(),
            sock=listening,
            print=lambda *_: None,
            access_log=None,
            keepalive_timeout=_PATIENCE,
        )
