"""The interface in a browser: who is let in, and what a real browser does with it; the result is looked for on disk."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.repository import store
from backupkit.ui import web
from small_app import COMMAND, SmallApp, clean_environment

DEADLINE = 60.0
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def until(condition: Callable[[], object]) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)
    return found


@dataclass
class Served:
    """A running server, and what is known of it."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    @property
    def way_in(self) -> str:
        """The path with the token."""
        return f"/?{urlsplit(self.address).query}"

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        connection.request("GET", path, headers={"Host": f"127.0.0.1:{self.port}", **(headers or {})})
        return connection.getresponse()

    def code(self, path: str, headers: Mapping[str, str] | None = None) -> int:
        return self.get(path, headers).status

    def cookie(self) -> dict[str, str]:
        """Let in by the token."""
        return self.let_in()[0]

    def let_in(self) -> tuple[dict[str, str], str]:
        """Let in by the token: the cookie, and the path of the connection."""
        answer = self.get(self.way_in)
        assert answer.status == 200
        key = re.search(r'data-key="([\w-]+)"', answer.read().decode())
        assert key
        return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}, f"/ws/{key[1]}"

    @property
    def origin(self) -> dict[str, str]:
        return {"Origin": f"http://127.0.0.1:{self.port}"}

    def sessions(self) -> list[int]:
        """The processes that it started."""
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(word) for word in listed.stdout.split()]


@contextlib.contextmanager
def serving(app: SmallApp, *options: str, **environment: str) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, str(COMMAND), "ui", "--web", "--port", "0", *options],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    try:
        yield Served(process, process.stdout.readline().strip())
    finally:
        process.terminate()
        # 130: told to end before it served anybody.
        assert process.wait(DEADLINE) in (0, 130, -signal.SIGKILL)
        process.stdout.close()


@pytest.fixture
def served(app: SmallApp) -> Iterator[Served]:
    with serving(app) as found:
        yield found


# Who is let in.


def test_without_the_token_nothing_is_shown_to_anybody(served: Served) -> None:
    for path in ("/", "/?token=", "/?token=guessed", "/page.js", "/static/js/textual.js", "/download/x", "/other"):
        answer = served.get(path)
        assert answer.status == 403, path
        assert b"Open the address that" in answer.read()
    for path in ("/ws", "/ws/", "/ws/guessed"):
        assert served.code(path, WEBSOCKET | served.origin) == 403
    assert served.sessions() == []


def test_the_token_lets_one_browser_in_once_and_then_opens_nothing(served: Served) -> None:
    answer = served.get(served.way_in)
    given = answer.headers["Set-Cookie"]
    assert answer.status == 200 and "HttpOnly" in given and "SameSite=Strict" in given and "Path=/" in given
    assert served.code(served.way_in) == 403
    cookie = {"Cookie": given.partition(";")[0]}
    for path in ("/", "/page.js", "/enter.js", "/static/js/textual.js", "/static/css/xterm.css"):
        assert served.code(path, cookie) == 200, path
    assert served.code("/static/", cookie) != 200  # no list of files
    assert served.code("/", {"Cookie": given.partition("=")[0] + "=guessed"}) == 403


@pytest.mark.parametrize(("host", "code"), [("localhost", 200), ("[::1]", 200), ("evil.example", 403), ("", 403)])
def test_a_strangers_name_that_points_here_is_refused(served: Served, host: str, code: int) -> None:
    cookie = served.cookie()
    assert served.code("/", cookie | {"Host": f"{host}:{served.port}"}) == code
    assert served.code("/", cookie | {"Host": host}) == code


def test_the_connection_is_for_our_own_page_alone(served: Served) -> None:
    cookie, path = served.let_in()
    headers = cookie | WEBSOCKET
    assert served.code(path, headers) == 403
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{served.port + 1}", "http://127.0.0.1"):
        assert served.code(path, headers | {"Origin": origin}) == 403, origin
    assert served.sessions() == []
    assert served.code(path, headers | served.origin) == 101


def test_who_was_sent_the_cookie_on_another_port_sees_no_data_and_gets_no_connection(served: Served) -> None:
    """A browser sends a cookie to every port of the host, to whatever else is served there."""
    cookie, path = served.let_in()
    key = path.rpartition("/")[2]
    for other in ("/", "/page.js", "/enter.js"):
        answer = served.get(other, cookie)
        assert key not in answer.read().decode() + str(answer.headers)
    for other in ("/ws", "/ws/", "/ws/guessed", "/ws/null"):
        assert served.code(other, cookie | WEBSOCKET | served.origin) in (403, 404), other
    assert served.sessions() == []


def test_another_site_gets_nothing_from_a_browser_that_was_let_in(served: Served) -> None:
    cookie = served.cookie()
    for site in ("cross-site", "same-site"):
        assert served.code("/page.js", cookie | {"Sec-Fetch-Site": site}) == 403
    assert served.code("/", cookie | {"Origin": "http://evil.example"}) == 403
    assert served.code("/page.js", cookie | {"Sec-Fetch-Site": "same-origin"}) == 200


def test_a_link_in_another_page_leads_in_all_the_same(served: Served) -> None:
    assert served.code(served.way_in, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}) == 200


def test_the_page_asks_nothing_of_anybody_else_and_says_so(served: Served) -> None:
    answer = served.get("/", served.cookie())
    page = answer.read().decode()
    assert re.findall(r"(?:https?|wss?)://[^\"'/]*", page) == []
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_it_is_served_for_this_machine_alone(served: Served) -> None:
    assert served.address.startswith("http://127.0.0.1:")
    with pytest.raises(ConnectionRefusedError):  # an address of this machine too, and not the one
        socket.create_connection(("127.0.0.2", served.port), timeout=DEADLINE)


def test_the_address_that_is_printed_is_the_one_outside_the_container(app: SmallApp) -> None:
    with serving(app, "--host", "0.0.0.0", BACKUP_HOST_ADDRESS="backups.example") as found:
        assert found.address.startswith(f"http://backups.example:{found.port}/?token=")
        assert found.code("/", found.cookie() | {"Host": f"backups.example:{found.port}"}) == 200


def test_what_is_downloaded_is_a_file_to_be_saved_whatever_it_is_called() -> None:
    class Downloads:
        async def get_download_metadata(self, key: str) -> Any:
            if key != "known":
                raise KeyError(key)
            facts = {"file_name": 'a"; b\r\nX: <b>.html', "mime_type": "text/html", "open_method": "browser"}
            return type("Download", (), facts)

        async def download(self, _key: str) -> Any:
            yield b"<script>"

    async def visit() -> None:
        door = web.Door("127.0.0.1")
        server = web.GuardedServer(["false"], door, "Backups")
        server.download_manager = Downloads()  # type: ignore[assignment]
        async with TestClient(TestServer(await server._make_app())) as client:
            assert (await client.get("/download/known")).status == 403
            assert (await client.get("/", params={"token": door.token})).status == 200
            answer = await client.get("/download/known")
            assert answer.headers["Content-Type"] == "application/octet-stream"
            name = "attachment; filename*=UTF-8''a%22%3B%20b%0D%0AX%3A%20%3Cb%3E.html"
            assert answer.headers["Content-Disposition"] == name
            assert (await client.get("/download/other")).status == 403

    asyncio.run(visit())


# Who keeps it busy.


def opened(served: Served, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=DEADLINE)
    connection.sendall(sent)
    return connection


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: ", b"GET /static/js/textual.js"], ids=repr)
def test_who_sends_no_whole_request_is_closed(served: Served, sent: bytes) -> None:
    with opened(served, sent) as slow:
        began = time.monotonic()
        assert slow.recv(1) == b""
        assert 10 < time.monotonic() - began < DEADLINE


def test_connections_are_bounded_and_free_again_when_they_end(served: Served) -> None:
    cookie = served.cookie()
    with contextlib.ExitStack() as opening:
        many = [opening.enter_context(opened(served)) for _ in range(2 * web._CONNECTIONS)]
        until(lambda: len(select.select(many, [], [], 0)[0]) >= web._CONNECTIONS)  # closed there
    until(lambda: is_served(served, cookie))


def is_served(served: Served, cookie: dict[str, str]) -> bool:
    with contextlib.suppress(OSError, HTTPException):
        return served.code("/", cookie) == 200
    return False


def test_visits_are_bounded(served: Served) -> None:
    cookie, path = served.let_in()
    headers = cookie | WEBSOCKET | served.origin
    answers = [served.get(path, headers) for _ in range(web._VISITS + 1)]
    assert [one.status for one in answers] == [101] * web._VISITS + [503]


# Begin and end.


def test_a_port_that_is_taken_is_one_sentence(app: SmallApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = app.command("ui", "--web", "--port", str(taken.getsockname()[1]), check=2)
    assert "cannot be served at: Address already in use." in done.err and "Next: " in done.err
    assert done.out == ""


@pytest.mark.parametrize("options", [["--host", "127.0.0.1"], ["--port", "1"]], ids=" ".join)
def test_a_host_or_a_port_without_a_browser_is_refused(app: SmallApp, options: list[str]) -> None:
    assert "Add --web." in app.command("ui", *options, check=2).err


def connected(served: Served) -> socket.socket:
    """A browser's connection, whose session has drawn something."""
    cookie, path = served.let_in()
    headers = cookie | WEBSOCKET | served.origin | {"Host": f"127.0.0.1:{served.port}"}
    browser = socket.create_connection(("127.0.0.1", served.port), timeout=DEADLINE)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    browser.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
    assert browser.recv(12) == b"HTTP/1.1 101"
    until(lambda: b"Overview" in browser.recv(65536))
    return browser


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("how", ["browser", "SIGTERM", "SIGKILL"])
def test_a_session_ends_with_its_browser_and_with_the_server(served: Served, how: str) -> None:
    with connected(served) as browser:
        (session,) = served.sessions()
        if how == "browser":
            browser.close()
        else:
            served.process.send_signal(signal.Signals[how])
        until(lambda: is_gone(session))
    assert how == "browser" or served.process.wait(DEADLINE) in (0, -signal.SIGKILL)


# A real browser.


class Browser:
    """Chromium at the page, and somebody at its keyboard."""

    def __init__(self, driver: Any, served: Served) -> None:
        self.driver, self.served, self.said = driver, served, ""
        self.asked: set[str] = set()
        driver.get(served.address)
        self.until_it_says("Overview")

    def _listen(self) -> None:
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.webSocketFrameReceived":
                frame = event["params"]["response"]
                content = base64.b64decode(frame["payloadData"]) if frame["opcode"] == 2 else b""
                self.said += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", content.decode("utf-8", "replace"))
            elif event["method"] == "Network.requestWillBeSent":
                self.asked.add(urlsplit(event["params"]["request"]["url"]).netloc)

    def until_it_says(self, text: str) -> None:
        """What is drawn from now on has this in it."""

        def is_said() -> bool:
            self._listen()
            return text in self.said

        try:
            until(is_said)
        except AssertionError:
            raise AssertionError(f"{text!r} was not drawn; last was:\n{self.said[-2000:]}") from None
        self.said = self.said.partition(text)[2]

    def types(self, keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def fills_in(self, label: str, text: str) -> None:
        """A field, as soon as it has the keyboard; and on to the next."""
        self.until_it_says(f"▸ {label}")
        self.types(text)
        self.until_it_says(text)
        self.types(ENTER)


@pytest.fixture
def browser(served: Served, tmp_path: Path) -> Iterator[Browser]:
    from browser import chromium

    with chromium(tmp_path / "profile") as driver:
        yield Browser(driver, served)


ENTER, ESCAPE = "\ue007", "\ue00c"


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_a_backup_is_made_in_a_browser(app: SmallApp, browser: Browser) -> None:
    browser.types("2")
    browser.until_it_says("There are no backups yet.")
    browser.types("b")
    browser.until_it_says("Back up now")
    browser.fills_in("Name", "by_browser")
    browser.fills_in("Note", "from the office")
    until(lambda: "by_browser" in {one.name for one in store.all_backups(app.settings)})
    browser.until_it_says("Backup by_browser")
    made = store.find(app.settings, "by_browser")
    assert made.metadata and made.metadata.note == "from the office"
    assert {netloc for netloc in browser.asked if "." in netloc} == {f"127.0.0.1:{browser.served.port}"}
    complaints = [one["message"] for one in browser.driver.get_log("browser") if one["level"] == "SEVERE"]
    assert complaints == []


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_a_restore_is_carried_out_in_a_browser(app: SmallApp, browser: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    before = app.contents()
    app.execute("DELETE FROM documents")
    app.write_upload("1/letter.txt", b"changed since")
    browser.types("3")
    browser.until_it_says("kept")
    browser.types(ENTER)
    browser.until_it_says("To restore it, type its name: kept")
    browser.types("kept")
    browser.until_it_says("kept")
    assert app.contents() != before
    browser.types(ENTER)
    browser.until_it_says("✓ Done")
    browser.until_it_says("writable, every page as restored")
    assert app.contents() == before
