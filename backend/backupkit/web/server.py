"""The HTTP server: routes, checks of host and origin, sessions, security headers, and an orderly end.

Every path but the sign-in page's and the static files' begins with that of a session (`access.py`). Requests with an
unknown host name, or made by another site, are refused before anything else. A client that sends no complete request,
or does not read its answer, is cut off at a deadline; the number of connections is limited (`connections.py`). Handlers
that read or write files run in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import BodyPartReader, web
from msgspec.structs import replace

from backupkit.cli.task import in_words
from backupkit.model.errors import BackupError, Damaged, Locked, NoSuchBackup, Refused
from backupkit.monitoring import log
from backupkit.repository import store
from backupkit.web import archives, html, inside, pages, plan, restoring
from backupkit.web.access import COOKIE, MARK_COOKIE, SESSION_SECONDS, Session, is_form_token
from backupkit.web.connections import ANSWERED, SIGNED_IN, WAITS, BoundedSocket, Rank
from backupkit.web.site import Answer, Content, Goto, Handler, OwnerOnly, Page, Site, Visit, owner_only, require_owner

Visited = Callable[[web.Request, Visit], Awaitable[web.StreamResponse]]
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
# Files in a backup are untrusted: the browser may show them, but must not run them.
_UNTRUSTED = {"Content-Security-Policy": "sandbox; default-src 'none'; img-src 'self'"}
_REQUEST_SECONDS, _ANSWER_SECONDS = 15.0, 90.0  # seconds for a request to arrive, and for an answer to be made
_MARK_SECONDS = 365 * 24 * 3600.0  # seconds
_SHUTDOWN_SECONDS = 5.0  # seconds for open transfers to finish at shutdown
_MOST_FORM = 64 * 1024  # bytes
_POLL_SECONDS = 0.3  # seconds between two checks of a job
_STATUS = {NoSuchBackup: 404, Refused: 400, Locked: 409, Damaged: 422}


class Server:
    """The routes of a site. `name` is a further host name to accept, beside localhost and IP addresses."""

    def __init__(self, site: Site, name: str = "", listening: BoundedSocket | None = None) -> None:
        self.site, self._name, self._listening = site, name.lower(), listening

    def application(self) -> web.Application:
        """Return the aiohttp application with all routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=_MOST_FORM)
        app.router.add_get("/", self._show_sign_in)
        app.router.add_post("/", self._sign_in)
        app.router.add_static("/static/", Path(__file__).with_name("static"))
        for path, handler in GET.items():
            app.router.add_get("/{session}/" + path, self._page(handler))
        for path, handler in POST.items():
            app.router.add_post("/{session}/" + path, self._page(owner_only(handler)))
        app.router.add_post("/{session}/sign-out", self._page(pages.sign_out))
        app.router.add_get("/{session}/job/{number}/events", self._job_events)
        app.router.add_get("/{session}/download/{name}", self._signed_in(self._download))
        app.router.add_post("/{session}/upload", self._signed_in(self._upload))
        app.on_response_prepare.append(_add_headers)
        app.on_shutdown.append(self._end_jobs)
        return app

    # Access checks

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[..., Awaitable[Any]]) -> web.StreamResponse:
        if not self._is_known_host(request) or not self._is_same_origin(request):
            return web.Response(status=403, text="Not here. Open the address that `web` printed.")
        self._note(request, self._rank(request))
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except web.HTTPException as error:
            return web.Response(status=error.status, text=error.reason)
        except BackupError as error:
            log.error(f"web: {error.message}")
            return web.Response(status=_status(error), text=self._error_text(request, error))
        finally:
            self._note(request, WAITS)

    def _rank(self, request: web.Request) -> Rank:
        if any(self.site.access.knows(_path_of(request), key) for key in _cookies(request, COOKIE)):
            return SIGNED_IN
        return WAITS if request.body_exists else ANSWERED

    def _note(self, request: web.Request, rank: Rank) -> None:
        if self._listening and request.transport:  # it is connected
            self._listening.note(request.transport.get_extra_info("socket").fileno(), rank)

    def _error_text(self, request: web.Request, error: BackupError) -> str:
        """Return the error for the owner, and a general sentence for anybody else (settings, say, are private)."""
        found = self._session(request)
        if isinstance(error, OwnerOnly) or (found and found[0].role == "owner"):
            return f"{error.message} {error.hint}".strip()
        return "This cannot be shown now; the log of `web` says why."

    def _is_known_host(self, request: web.Request) -> bool:
        """Return whether the host is localhost, an IP address or `name`: any other may be DNS rebinding."""
        try:
            name = (urlsplit(f"//{request.host}").hostname or "").lower()
            return (name != "" and name in ("localhost", self._name)) or bool(ipaddress.ip_address(name))
        except ValueError:  # neither a host nor an address
            return False

    def _is_same_origin(self, request: web.Request) -> bool:
        """Return whether one of these pages, or the person directly, made the request, and no other site did."""
        if origin := request.headers.get("Origin"):
            try:
                parts = urlsplit(origin)
            except ValueError:
                return False
            return parts.scheme in ("http", "https") and parts.netloc.lower() == request.host.lower()
        if request.method != "GET":
            return request.headers.get("Sec-Fetch-Site") == "same-origin"
        is_asked_for = request.headers.get("Sec-Fetch-Mode") == "navigate" and request.path == "/"
        return is_asked_for or request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")

    def _session(self, request: web.Request) -> tuple[Session, str] | None:
        for key in _cookies(request, COOKIE):
            if found := self.site.access.session(_path_of(request), key):
                return found, key
        return None

    # Sign-in page

    async def _show_sign_in(self, request: web.Request, status: int = 200, error: str = "") -> web.Response:
        def made() -> str:
            has_password, query = self.site.access.has_password(), request.query
            about: dict[str, Any] = {"token": query.get("token", ""), "was_out": "out" in query, "error": error}
            return html.render("sign-in.html", self.site.settings(), has_password=has_password, **about)

        return web.Response(status=status, text=await asyncio.to_thread(made), content_type="text/html")

    async def _sign_in(self, request: web.Request) -> web.Response:
        form = await _read_form(request)
        self._note(request, ANSWERED)
        access, token, password = self.site.access, str(form.get("token", "")), str(form.get("password", ""))
        mark = access.mark_of(_cookies(request, MARK_COOKIE))
        try:
            found = access.follow_link(token) if token else await asyncio.to_thread(access.sign_in, password, mark)
        except Refused as error:
            return await self._show_sign_in(request, 429, error.message)
        if found is None:
            said = (
                "This link was used already. Start `web` again for another." if token else "That is not the password."
            )
            log.error(f"web: {request.remote} was not let in")
            return await self._show_sign_in(request, 403, said)
        session, key = found
        log.info(f"web: the {session.role} signed in from {request.remote}")
        response = _goto(f"/{session.path}/")
        is_secure = request.headers.get("Origin", "").startswith("https:")
        is_known = access.is_mark(mark, "owner") or access.is_mark(mark, session.role)
        for name, value, path, lasts in (
            (MARK_COOKIE, mark if is_known else access.new_mark(session.role), "/", _MARK_SECONDS),
            (COOKIE, key, f"/{session.path}/", SESSION_SECONDS),
        ):
            response.set_cookie(
                name, value, path=path, httponly=True, samesite="Strict", secure=is_secure, max_age=int(lasts)
            )
        return response

    # Pages

    def _signed_in(self, handler: Visited) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return a handler that makes a visit of the request, or sends a stranger to sign in."""

        async def answer(request: web.Request) -> web.StreamResponse:
            found = await asyncio.to_thread(self._session, request)  # it reads the passwords
            if found is None:
                return _goto("/?out=1")
            return await handler(request, await asyncio.to_thread(self._visit, request, *found))

        return answer

    def _visit(self, request: web.Request, session: Session, key: str) -> Visit:
        actor = f"{session.role} at {request.remote}"
        place = {name: value for name, value in request.match_info.items() if name != "session"}
        return Visit(self.site, self.site.settings(), session, key, actor, place, dict(request.query))

    def _page(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request, visit: Visit) -> web.StreamResponse:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if request.method == "POST":
                    visit = replace(visit, form=await _session_form(request, visit.key))
                return await asyncio.to_thread(self._answer, handler, visit, request.method)

        return self._signed_in(answer)

    def _answer(self, handler: Handler, visit: Visit, method: str) -> web.Response:
        """Return what the handler answers, as a response; an error becomes a page."""
        answer: Answer
        try:
            with store.reading_once() if method == "GET" else contextlib.nullcontext():
                answer = handler(visit)
        except Exception as raised:
            error = in_words(raised)
            answer = Page("error.html", _status(error), error=error)
        if isinstance(answer, Goto):
            return _goto(f"/{visit.session.path}/{answer.path}")
        if isinstance(answer, Content):
            kind = "inline" if answer.is_shown else _attachment(answer.name)
            headers = {**_UNTRUSTED, "Content-Disposition": kind, "Content-Type": answer.type}
            return web.Response(body=answer.bytes, headers=headers)
        body = self.site.page(visit, answer).encode(errors="replace")  # file names may contain undecodable bytes
        return web.Response(status=answer.code, body=body, content_type="text/html", charset="utf-8")

    # Event streams, downloads, uploads

    async def _job_events(self, request: web.Request) -> web.StreamResponse:
        """Send the job's progress as server-sent events until it ends or the browser disconnects."""
        if await asyncio.to_thread(self._session, request) is None:
            raise web.HTTPForbidden
        job = self.site.jobs.find(request.match_info["number"])
        if job is None:
            raise web.HTTPNotFound
        secrets = tuple(self.site.settings().secrets)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            while True:
                document = job.document(secrets)
                await response.write(f"data: {json.dumps(document)}\n\n".encode())
                if document["state"] != "running":
                    break
                await asyncio.sleep(_POLL_SECONDS)
        return response

    async def _download(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        """Send a backup as one file, packed while it is sent."""
        require_owner(visit)
        name, chunks = await asyncio.to_thread(archives.packed, visit, visit.place["name"])
        headers = {"Content-Type": "application/octet-stream", "Content-Disposition": _attachment(name)}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            while chunk := await asyncio.to_thread(next, chunks, b""):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await response.write(chunk)
        finally:
            with contextlib.suppress(ValueError):  # at shutdown a thread may still be running the generator
                chunks.close()
        await response.write_eof()
        return response

    async def _upload(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        """Receive an uploaded backup and start importing it. The form's fields must come before its file."""
        form: dict[str, str] = {}
        async for part in _parts(request):
            if not isinstance(part, BodyPartReader):
                raise web.HTTPBadRequest(reason="A form within a form.")
            if part.filename is None:
                form[part.name or ""] = (await part.read(decode=False))[:_MOST_FORM].decode(errors="replace")
                continue
            _require_token(form, visit.key)
            require_owner(visit)
            path = await archives.import_upload(replace(visit, form=form), _read_chunks(part))
            return _goto(f"/{visit.session.path}/{path}")
        raise web.HTTPBadRequest(reason="No file was chosen.")

    async def _end_jobs(self, _app: web.Application) -> None:
        """Cancel running jobs where that is safe, and wait until all have ended."""
        for job in self.site.jobs.running:
            job.run.cancel()
        while self.site.jobs.running:
            await asyncio.sleep(_POLL_SECONDS)


GET: Mapping[str, Handler] = {**pages.GET, **restoring.GET, **inside.GET, **plan.GET}
POST: Mapping[str, Handler] = {**pages.POST, **restoring.POST, **inside.POST, **plan.POST}


@contextlib.asynccontextmanager
async def _arriving(seconds: float) -> AsyncIterator[None]:
    """Raise `HTTPRequestTimeout` if what the block waits for does not arrive in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error


async def _read_form(request: web.Request) -> Mapping[str, Any]:
    """Return the posted form; raise `HTTPRequestTimeout` if it comes too late, `HTTPBadRequest` if it is malformed."""
    try:
        async with _arriving(_REQUEST_SECONDS):
            return await request.post()
    except (ValueError, LookupError, AssertionError) as error:
        raise web.HTTPBadRequest(reason="This is not a form.") from error


async def _parts(request: web.Request) -> AsyncIterator[object]:
    """Yield the parts of the posted form; raise `HTTPBadRequest` if it is malformed."""
    try:
        async for part in await request.multipart():
            yield part
    except (ValueError, AssertionError) as error:
        raise web.HTTPBadRequest(reason="This is not a form.") from error


async def _session_form(request: web.Request, key: str) -> Mapping[str, str]:
    """Return the posted text fields; raise `HTTPForbidden` if they did not come from a form of this session."""
    form = {name: value for name, value in (await _read_form(request)).items() if isinstance(value, str)}
    _require_token(form, key)
    return form


def _require_token(form: Mapping[str, str], key: str) -> None:
    if not is_form_token(form.get("form_token", ""), key):
        raise web.HTTPForbidden(reason="This form is of an earlier session. Open the page again.")


async def _read_chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    """Yield the content of the part; raise `HTTPRequestTimeout` if a chunk does not arrive in time."""
    while not part.at_eof():
        async with _arriving(_ANSWER_SECONDS):
            chunk = await part.read_chunk(256 * 1024)
        yield chunk


def _cookies(request: web.Request, wanted: str) -> list[str]:
    """Return all cookies of that name: another program on this host may have set one too, to shadow ours."""
    pairs = (one.strip().partition("=") for one in request.headers.get("Cookie", "").split(";"))
    return [value for name, _, value in pairs if name == wanted and value.isascii()]


def _path_of(request: web.Request) -> str:
    """Return the path of the session that the request is for."""
    return request.match_info.get("session", "")


def _goto(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


def _attachment(name: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def _status(error: BackupError) -> int:
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)


def listen(host: str, port: int) -> BoundedSocket:
    """Return a socket that listens at the address; raise `Refused` if that is not possible."""
    if not host.strip():  # the system takes it for every address
        raise Refused(
            "There is no address to serve the pages at: --host is empty.",
            hint="Leave --host out: the pages are for this machine alone then.",
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return BoundedSocket(socket.create_server((host, port), family=family))
    except OSError as error:
        is_of_the_system = bool(error.errno and error.errno > 0)  # else the code is the resolver's
        reason = os.strerror(error.errno or 0) if is_of_the_system else error.strerror
        raise Refused(
            f"The pages cannot be served at {host}, port {port}: {reason}.",
            hint="Choose another with --host or --port.",
        ) from error


def address(host: str, port: int) -> str:
    """Return the URL to open in a browser on this machine."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


def serve(site: Site, listening: BoundedSocket, name: str = "") -> None:
    """Serve the pages until the process gets a signal to end."""
    app = Server(site, name, listening).application()
    web.run_app(
        app,
        sock=listening,
        print=None,
        access_log=None,
        keepalive_timeout=_REQUEST_SECONDS,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
