"""The pages for a browser: who is let in, that attacks fail, and that data are backed up and restored."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

import chance
import warm
from backupkit.backup.create import create_backup
from backupkit.cli.task import Task
from backupkit.config.settings import load_settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Refused
from backupkit.model.patterns import literal
from backupkit.monitoring import log
from backupkit.repository import history, store
from backupkit.web import pages, server
from backupkit.web.access import Access, form_token
from backupkit.web.pages import fix_of
from backupkit.web.site import Goto, Jobs, Page, Planned, Site, Visit
from refusals import assert_refusal
from several import extend
from small_app import COMMAND, SmallApp, clean_environment

DEADLINE = 60.0
PASSWORD, VIEWER = "correct horse battery", "only looking around"


@dataclass(frozen=True)
class Answer:
    code: int
    headers: Mapping[str, str]
    body: bytes
    every: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    @property
    def words(self) -> str:
        """The text that a person reads."""
        return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", self.text)))


@dataclass
class Browser:
    """A minimal browser: it keeps the cookie of one session, and sends the origin of its requests."""

    port: int
    base: str = ""
    cookie: str = ""
    host: str = "127.0.0.1"
    extra: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        host = f"{self.host}:{self.port}"
        sent = {"Host": host, "Origin": f"http://{host}", "Cookie": self.cookie, **self.extra, **(headers or {})}
        with contextlib.closing(connection):
            connection.request(method, path, body, {name: one for name, one in sent.items() if one})
            answer = connection.getresponse()
            every = tuple(answer.getheaders())
            return Answer(answer.status, dict(every), answer.read(), every)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", self.base + path, headers=headers)

    def post(self, asked: str, headers: Mapping[str, str] | None = None, /, **form: str) -> Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        token = form_token(self.cookie.partition("=")[2]) if self.cookie else ""
        values = {"form_token": token} | form
        return self.ask("POST", self.base + asked, urlencode(values).encode(), kind | dict(headers or {}))

    def come_in(self, **form: str) -> Answer:
        self.base = self.cookie = ""
        answer = self.post("/", **form)
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
            self.base = answer.headers["Location"].rstrip("/")
        return answer

    def done(self, asked: str, /, **form: str) -> Answer:
        """Send the form, wait until its job has ended, and return the job's page."""
        place = self.post(asked, None, **form).headers["Location"]
        assert "/job/" in place, place
        assert b'"state": "' in self.ask("GET", f"{place}/events").body  # the stream of events ends with the job
        answer = self.ask("GET", place)
        return self.ask("GET", answer.headers["Location"]) if answer.code == 303 else answer


@dataclass
class Served:
    process: warm.Started
    address: str

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    @property
    def token(self) -> str:
        return urlsplit(self.address).query.partition("=")[2]

    def browser(self, **about: Any) -> Browser:
        return Browser(self.port, **about)


@contextlib.contextmanager
def serving(app: SmallApp, *options: str, port: int = 0, **environment: str) -> Iterator[Served]:
    told = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), **environment}
    with tempfile.NamedTemporaryFile() as out:
        process = warm.start(["web", "--port", str(port), *options], told, out.fileno())
        with process.connection:
            try:
                yield Served(process, until(lambda: first_line(Path(out.name))))
            finally:
                process.terminate()
                assert process.wait(DEADLINE) in (0, 130, -signal.SIGKILL)


def first_line(file: Path) -> str:
    """Return the first line, or "" while it is not whole."""
    line, end, _ = file.read_text().partition("\n")
    return line.strip() if end else ""


@pytest.fixture
def served(app: SmallApp) -> Iterator[Served]:
    with serving(app) as found:
        yield found


@pytest.fixture
def owner(served: Served) -> Browser:
    browser = served.browser()
    assert browser.come_in(token=served.token).code == 303
    return browser


def until(condition: Callable[[], object]) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)
    return found


def test_it_starts_in_an_interpreter_of_its_own_and_tells_a_pipe_its_address(app: SmallApp) -> None:
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder)}
    command = [sys.executable, str(COMMAND), "web", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = urlsplit(process.stdout.readline().strip())
        assert Browser(address.port or 0).come_in(token=address.query.partition("=")[2]).code == 303
        process.terminate()
        assert process.wait(DEADLINE) in (0, 130)


# Access


def test_without_a_password_the_link_lets_one_browser_in_once(served: Served) -> None:
    first, second = served.browser(), served.browser()
    assert "Come in" in first.get(f"/?token={served.token}").words  # a GET does not use up the link
    given = first.come_in(token=served.token).headers["Set-Cookie"]
    assert "HttpOnly" in given and "SameSite=Strict" in given and f"Path={first.base}/" in given
    assert first.get("/").code == 200
    assert second.come_in(token=served.token).code == 403
    assert second.come_in(token="guessed").code == 403
    assert second.come_in(password="guessed").code == 403


def test_a_stranger_gets_the_door_and_nothing_else(app: SmallApp, served: Served, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    stranger = served.browser()
    for place in ("guessed", owner.base.strip("/")):
        for path in ("/", "/backups", "/backup/kept", "/download/kept", "/uploads/kept/file?path=1/letter.txt"):
            answer = stranger.get(f"/{place}{path}")
            assert (answer.code, answer.headers.get("Location")) == (303, "/?out=1"), path
        assert stranger.post(f"/{place}/do/back-up", name="theirs").code == 303
        assert stranger.get(f"/{place}/job/1/events").code == 403
    assert [one.name for one in store.all_backups(app.settings)] == ["kept"]


def test_who_was_sent_the_cookie_on_another_port_knows_no_path_to_use_it_on(served: Served, owner: Browser) -> None:
    """A browser sends a cookie to every port of the host, but this one only to paths that nobody else knows."""
    other = served.browser(cookie=owner.cookie)
    for path in ("/", "/backups", "/guessed/backups", "/static/page.js"):
        assert owner.base.strip("/") not in other.get(path).text
    assert owner.base.strip("/") not in owner.cookie


@pytest.mark.parametrize(
    ("host", "code"), [("localhost", 200), ("127.0.0.1", 200), ("[::1]", 200), ("evil.example", 403), ("", 403)]
)
def test_a_strangers_name_that_points_here_is_refused(owner: Browser, host: str, code: int) -> None:
    owner.host = host
    assert owner.get("/").code == code


def test_a_name_that_was_given_is_taken(app: SmallApp) -> None:
    with serving(app, BACKUP_WEB_HOST="backups.example") as served:
        browser = served.browser(host="backups.example")
        answer = browser.ask(
            "POST", "/", urlencode({"token": served.token}).encode(),
            {"Origin": f"https://backups.example:{served.port}", "Content-Type": "application/x-www-form-urlencoded"},
        )  # fmt: skip
        assert answer.code == 303 and "Secure" in answer.headers["Set-Cookie"]


def test_another_site_and_a_form_without_its_token_do_nothing(app: SmallApp, owner: Browser) -> None:
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{owner.port + 1}", "http://127.0.0.1"):
        assert owner.post("/do/back-up", {"Origin": origin}, name="theirs").code == 403, origin
    for site in ("cross-site", "same-site"):
        assert owner.get("/backups", Origin="", **{"Sec-Fetch-Site": site}).code == 403
        assert owner.post("/do/back-up", {"Origin": "", "Sec-Fetch-Site": site}, name="theirs").code == 403
    assert owner.post("/do/back-up", {"Origin": ""}, name="theirs").code == 403
    assert owner.post("/do/back-up", form_token="guessed", name="theirs").code == 403
    assert owner.get("/do/back-up?name=theirs").code == 405
    assert store.all_backups(app.settings) == []


def test_each_page_forbids_the_browser_all_that_it_does_not_need(owner: Browser) -> None:
    answer = owner.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Frame-Options"] == "DENY"
    assert re.findall(r"(?:https?|wss?)://[^\"'/]*", answer.text) == []


# Passwords, sessions, accounts


def test_a_password_is_set_and_opens_and_is_never_kept_or_printed(app: SmallApp) -> None:
    run = app.command("web", "--set-password", input=f"{PASSWORD}\n", check=0)
    assert PASSWORD not in run.out + run.err
    kept = [path for path in app.backups.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert kept == []
    with serving(app) as served:
        assert "token" not in served.address
        browser = served.browser()
        assert browser.come_in(password="another one").code == 403
        assert browser.come_in(password=PASSWORD).code == 303
        assert browser.get("/").code == 200
    with serving(app, port=browser.port):  # a session outlives the server
        assert browser.get("/").code == 200
    app.command("web", "--set-password", input=f"{PASSWORD} 2\n", check=0)
    with serving(app, port=browser.port):  # and ends when the password changes
        assert browser.get("/").code == 303


def test_a_short_password_is_refused(app: SmallApp) -> None:
    assert "shorter than 10" in app.command("web", "--set-password", input="short\n", check=2).err


@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_address_is_refused_and_not_every_address(app: SmallApp, host: str) -> None:
    assert_refusal(app.command("web", "--host", host, "--port", "0"), 2, "--host is empty", "Leave --host out")


def test_the_option_for_the_viewers_password_alone_is_refused(app: SmallApp) -> None:
    assert_refusal(
        app.command("web", "--viewer"), 2, "--viewer goes with --set-password", "web --set-password --viewer"
    )


def test_a_password_may_be_in_a_file(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    with serving(app, BACKUP_WEB_PASSWORD_FILE=str(tmp_path / "secret")) as served:
        browser = served.browser()
        assert browser.come_in(password=PASSWORD).code == 303
        assert PASSWORD not in browser.get("/settings").text


def test_another_password_ends_the_sessions_of_a_server_that_runs(app: SmallApp) -> None:
    app.command("web", "--set-password", input=f"{PASSWORD}\n", check=0)
    with serving(app) as served:
        browser = served.browser()
        browser.come_in(password=PASSWORD)
        app.command("web", "--set-password", input=f"{PASSWORD} 2\n", check=0)
        assert browser.get("/").code == 303
        assert served.browser().come_in(password=f"{PASSWORD} 2").code == 303
        assert browser.get("/").code == 303


def test_another_password_in_the_settings_ends_the_sessions_and_the_same_one_does_not(app: SmallApp) -> None:
    with serving(app, BACKUP_WEB_PASSWORD=PASSWORD) as served:
        browser = served.browser()
        browser.come_in(password=PASSWORD)
    with serving(app, port=browser.port, BACKUP_WEB_PASSWORD=PASSWORD):
        assert browser.get("/").code == 200
    with serving(app, port=browser.port, BACKUP_WEB_PASSWORD=f"{PASSWORD} 2"):
        assert browser.get("/").code == 303


def test_a_cookie_that_another_port_has_set_keeps_nobody_out(owner: Browser) -> None:
    owner.cookie, mine = f"{owner.cookie}; backupkit=theirs", owner.cookie
    assert owner.get("/").code == 200
    owner.cookie = f"backupkit=theirs; {mine}"
    assert owner.get("/").code == 200


def test_what_stalls_holds_no_lock_leaves_no_file_and_keeps_no_server_from_ending(app: SmallApp) -> None:
    app.write_upload("large", random.Random(1).randbytes(16_000_000))
    create_backup(app.settings, BackupRequest("kept"))
    with serving(app) as served, contextlib.ExitStack() as opened:
        browser = served.browser()
        browser.come_in(token=served.token)
        address = (
            f"Host: 127.0.0.1:{served.port}\r\nCookie: {browser.cookie}\r\nOrigin: http://127.0.0.1:{served.port}\r\n"
        )
        parts = (
            f'--x\r\nContent-Disposition: form-data; name="form_token"\r\n\r\n{form_token(browser.cookie[10:])}\r\n'
            '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        )
        for request in (
            f"GET {browser.base}/download/kept HTTP/1.1\r\n{address}\r\n",  # the client does not read the answer
            f"POST {browser.base}/upload HTTP/1.1\r\n{address}Content-Type: multipart/form-data; boundary=x\r\n"
            f"Content-Length: 1000000\r\n\r\n{parts}{'x' * 300_000}",
        ):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            connection.sendall(request.encode())
        assert "Done" in browser.done("/do/back-up", name="meanwhile").words
        began = time.monotonic()
        served.process.terminate()
        served.process.wait(DEADLINE)
        assert time.monotonic() - began < 45
    assert {one.name for one in store.all_backups(app.settings)} == {"kept", "meanwhile"}
    assert [one for one in (app.backups / ".state").glob("tmp*")] == []


def test_a_browser_that_was_let_in_before_waits_for_its_own_guesses_alone(app: SmallApp) -> None:
    now = [0.0]
    app.backups.mkdir(exist_ok=True)
    access = Access(app.settings, lambda: now[0])
    access.set_password("owner", PASSWORD)
    mark = access.new_mark("owner")
    for _ in range(5):
        access.sign_in("guessed", "a mark of nobody's")
    with pytest.raises(Refused, match="in 2 seconds"):
        access.sign_in(PASSWORD, f"{mark}x")
    assert access.sign_in(PASSWORD, mark)
    assert Access(app.settings).is_mark(mark, "owner")  # marks outlive the server
    for _ in range(5):
        access.sign_in("guessed", mark)
    with pytest.raises(Refused, match="in 2 seconds"):
        access.sign_in(PASSWORD, mark)
    with serving(app) as served:
        known = served.browser()
        sent = known.come_in(password=PASSWORD)
        cookies = [value for name, value in sent.every if name == "Set-Cookie"]
        mark = next(one for one in cookies if one.startswith("backupkit-known=")).partition(";")[0]
        for _ in range(5):
            served.browser().come_in(password="guessed")
        assert served.browser().come_in(password=PASSWORD).code == 429
        assert served.browser(cookie=mark).post("/", password=PASSWORD).code == 303


def test_passwords_of_the_settings_that_are_short_are_refused(app: SmallApp) -> None:
    for name in ("BACKUP_WEB_PASSWORD", "BACKUP_WEB_VIEWER_PASSWORD"):
        said = app.command("web", env={name: "short"}, check=2).err
        assert "shorter than 10" in said and "short." not in said


def test_broken_settings_are_shown_to_the_owner_alone(app: SmallApp, owner: Browser, served: Served) -> None:
    (app.folder / "backup.toml").write_text('export_passphrase = ["hidden"]\nkeep_daily = "a secret of its own"\n')
    for path in ("/", "/?token=x", "/guessed/backups"):
        stranger = served.browser()
        assert "hidden" not in stranger.get(path).text and "secret" not in stranger.get(path).text, path
    assert "keep_daily" in owner.get("/").text


def test_no_secret_is_on_a_page_however_it_is_spelled_in_html(app: SmallApp) -> None:
    secret = "correct <horse> & 'battery'"
    create_backup(app.settings, BackupRequest("one", note=f"it was {secret}"))
    with serving(app, BACKUP_EXPORT_PASSPHRASE=secret) as served:
        owner = served.browser()
        owner.come_in(token=served.token)
        for path in ("backups", "backup/one", "restore", "settings"):
            page = owner.get(f"/{path}").text
            assert "horse" not in page, path
        assert "it was ***" in owner.get("/backups").text


def test_guessing_is_slowed_down_and_a_right_password_is_not_let_by_meanwhile(app: SmallApp) -> None:
    now = [0.0]
    app.backups.mkdir(exist_ok=True)
    access = Access(app.settings, lambda: now[0])
    access.set_password("owner", PASSWORD)
    for _ in range(5):
        assert access.sign_in("guessed") is None
    with pytest.raises(Refused, match="in 2 seconds"):
        access.sign_in(PASSWORD)
    now[0] += 2.1
    assert access.sign_in("guessed") is None
    with pytest.raises(Refused, match="in 4 seconds"):
        access.sign_in(PASSWORD)
    now[0] += 4.1
    assert access.sign_in(PASSWORD)
    assert access.sign_in("guessed") is None  # the count starts again
    assert access.sign_in(PASSWORD)


def test_whoever_has_the_viewers_password_waits_between_guesses_of_the_owners(app: SmallApp) -> None:
    now = [0.0]
    app.backups.mkdir(exist_ok=True)
    access = Access(app.settings, lambda: now[0])
    access.set_password("owner", PASSWORD)
    access.set_password("viewer", "only looks on")
    for _ in range(4):
        assert access.sign_in("guessed") is None
    entered = access.sign_in("only looks on")
    assert entered and entered[0].role == "viewer"
    assert access.sign_in("guessed") is None
    for attempt in ("guessed", PASSWORD):
        with pytest.raises(Refused, match="in 2 seconds"):
            access.sign_in(attempt)
    assert access.sign_in("only looks on")  # the viewer does not have to wait
    now[0] += 2.1
    assert access.sign_in("guessed") is None
    with pytest.raises(Refused, match="in 4 seconds"):
        access.sign_in(PASSWORD)
    now[0] += 4.1
    owner = access.sign_in(PASSWORD)
    assert owner and owner[0].role == "owner"


def test_a_browser_that_a_viewer_came_in_with_has_no_count_of_its_own_for_the_owners_password(app: SmallApp) -> None:
    with serving(app, BACKUP_WEB_PASSWORD=PASSWORD, BACKUP_WEB_VIEWER_PASSWORD="only looks on") as served:
        codes = []
        for _ in range(2):
            sent = served.browser().come_in(password="only looks on")
            cookies = [value for name, value in sent.every if name == "Set-Cookie"]
            mark = next(one for one in cookies if one.startswith("backupkit-known=")).partition(";")[0]
            codes += [served.browser(cookie=mark).post("/", password="guessed").code for _ in range(3)]
        assert codes == [403] * 5 + [429]


def test_signing_out_everywhere_ends_every_session(app: SmallApp) -> None:
    with serving(app, BACKUP_WEB_PASSWORD=PASSWORD) as served:
        one, other = served.browser(), served.browser()
        one.come_in(password=PASSWORD), other.come_in(password=PASSWORD)
        one.post("/sign-out")
        assert (one.get("/").code, other.get("/").code) == (303, 200)
        one.come_in(password=PASSWORD)
        one.post("/sign-out", every="1")
        assert (one.get("/").code, other.get("/").code) == (303, 303)


OF_THE_OWNER = [path for path in server.GET if path.startswith(("uploads/", "tables/", "rows/"))]


def test_an_account_that_only_looks_changes_nothing_and_takes_nothing_with_it(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    before = sorted(path.name for path in app.backups.iterdir())
    with serving(app, BACKUP_WEB_PASSWORD=PASSWORD, BACKUP_WEB_VIEWER_PASSWORD=VIEWER) as served:
        viewer = served.browser()
        viewer.come_in(password=VIEWER)
        for path in server.POST:
            named = path.replace("{name}", "kept").replace("{remote}", "nas").replace("{number}", "1")
            answer = viewer.post(f"/{named}", name="theirs", typed="kept", keep_last="1")
            assert answer.code == 400 and "This account only looks" in answer.words, path
        for path in (*OF_THE_OWNER, "download/{name}", "recovery-sheet", "restore/plan/1", "rescue/plan/1"):
            answer = viewer.get(f"/{path.replace('{name}', 'kept')}")
            assert answer.code == 400 and "only looks" in answer.text, path
        for path in ("/", "/backups", "/backup/kept", "/history", "/settings", "/schedule"):
            assert viewer.get(path).code == 200
        viewer.post("/sign-out", every="1")  # ends only the viewer's session
    assert sorted(path.name for path in app.backups.iterdir()) == before


# Actions


def test_a_backup_is_made_and_the_history_says_by_whom(app: SmallApp, owner: Browser) -> None:
    assert "Backup by_page" in owner.done("/do/back-up", name="by_page", note="from the office").words
    made = store.find(app.settings, "by_page")
    assert made.metadata and made.metadata.note == "from the office"
    (operation,) = [one for one in history.read(app.backups).operations if one.command == "backup"]
    assert (operation.who.through, operation.who.user) == ("web", "owner at 127.0.0.1")
    page, steps = owner.get("/history").words, [one.name for one in operation.steps]
    assert steps and all(one in page for one in steps)
    assert sum(one.seconds for one in operation.steps) <= (operation.duration_seconds or 0)
    again = owner.done("/do/back-up", name="by_page")
    assert "It failed" in again.words and "The name is taken: " in again.words


def test_the_history_ends_with_the_end_of_the_log(app: SmallApp, owner: Browser, tmp_path: Path) -> None:
    file = tmp_path / "backup.log"
    file.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert log.tail(file, 3) == ["line 9997", "line 9998", "line 9999"]
    (app.folder / "backup.toml").write_text(f'log_file = "{file}"\n')
    page = owner.get("/history").words
    assert "line 9999" in page and "line 9000 " not in page


def test_lost_data_are_got_back_with_the_name_typed_and_the_restore_undone(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    before = app.contents()
    app.execute("DELETE FROM documents")
    lost = app.contents()
    plan = owner.done("/restore/plan", name="kept")
    assert "Restoring kept will change" in plan.words and app.contents() == lost
    (go,) = re.findall(r'action="[^"]*(/restore/plan/\d+)"', plan.text)
    refused = owner.post(go, typed="something else")
    assert refused.code == 400 and app.contents() == lost
    result = owner.done(go, typed="kept")
    assert "Done" in result.words and "Undo this restore" in result.words and app.contents() == before
    plan = owner.done("/restore/undo")
    (go,) = re.findall(r'action="[^"]*(/restore/plan/\d+)"', plan.text)
    (name,) = re.findall(r'data-must-be="([^"]+)"', plan.text)
    owner.done(go, typed=name)
    assert app.contents() == lost


def test_the_data_of_a_time_between_two_backups_are_got_back(app: SmallApp) -> None:
    from rewind.test_commands import Past

    Past(app)
    rows = app.rows("companies")
    with serving(app, BACKUP_REWIND="7d") as served:
        browser = served.browser()
        browser.come_in(token=served.token)
        assert browser.post("/restore/plan", name="base", at="yesteryear").code == 400
        plan = browser.done("/restore/plan", name="base", at="75 minutes ago")
        (go,) = re.findall(r'action="[^"]*(/restore/plan/\d+)"', plan.text)
        (name,) = re.findall(r'data-must-be="([^"]+)"', plan.text)
        assert name.startswith("point_") and app.rows("companies") == rows
        assert "Done" in browser.done(go, typed=name).words
        offered = re.findall(r'<option value="([^"]+)">', browser.get("/restore").text)
        plan = browser.done("/restore/plan", name="base", moment=html.unescape(offered[-1]))
        assert "Restoring base will change" in plan.words  # the earliest moment is the backup itself
    assert {path.name for path in (app.uploads / "at").iterdir()} == {"119", "90"}
    assert len(app.rows("companies")) == len(rows) - 3


def test_a_new_machine_begins_with_a_backup_from_elsewhere(app: SmallApp, tmp_path: Path) -> None:
    (app.folder / "backup.toml").write_text(f'[remotes.nas]\ntype = "folder"\npath = "{tmp_path / "nas"}"\n')
    (tmp_path / "nas").mkdir()
    before = app.contents()
    app.command("backup", "kept", check=0)
    with serving(app) as served:
        browser = served.browser()
        browser.come_in(token=served.token)
        assert "not prepared" in browser.done("/do/push/kept").words
        assert "Prepare nas" in browser.get("/settings").words
        assert "nas can be used" in browser.done("/do/prepare/nas").words
        assert "Done" in browser.done("/do/push/kept").words
        sealed = app.backups / "kept" / "uploads" / "1" / "letter.txt"
        sealed.write_bytes(b"rotten")
        app.command("verify", "kept", check=12)
        assert "Fetch the copy from nas" in browser.get("/backup/kept").words
        assert "Done" in browser.done("/do/pull/nas/kept").words
        assert sealed.read_bytes() != b"rotten" and "Fetch the copy" not in browser.get("/backup/kept").words
        shutil.rmtree(app.backups)
        app.backups.mkdir()
        app.database.unlink()
        shutil.rmtree(app.uploads)
        assert "Fetch kept" not in browser.get("/").words
        browser.done("/do/remotes")
        assert "Fetch kept" in browser.get("/").words
        browser.done("/do/pull/nas/kept")
        plan = browser.done("/restore/plan", name="kept")
        (go,) = re.findall(r'action="[^"]*(/restore/plan/\d+)"', plan.text)
        browser.done(go, typed="kept")
    assert app.contents() == before


def test_one_upload_is_found_looked_at_and_put_back(app: SmallApp, owner: Browser) -> None:
    app.write_upload("1/über [1] *.txt", b"precious")
    app.write_upload("1/other.txt", b"as it was")
    create_backup(app.settings, BackupRequest("kept"))
    (app.uploads / "1" / "über [1] *.txt").unlink()
    app.write_upload("1/other.txt", b"newer")
    assert "missing" in owner.get("/uploads/kept/find?" + urlencode({"find": "ber [1]"})).words
    path = {"path": "1/über [1] *.txt"}
    assert owner.get("/uploads/kept/file?" + urlencode(path)).body == b"precious"
    plan = owner.done("/restore/put-back", name="kept", **path)
    (go,) = re.findall(r'action="[^"]*(/restore/plan/\d+)"', plan.text)
    assert "Done" in owner.done(go).words
    assert (app.uploads / path["path"]).read_bytes() == b"precious"
    assert (app.uploads / "1/other.txt").read_bytes() == b"newer"


def as_sent(page: Answer, action: str) -> Iterator[dict[str, str]]:
    """Yield the hidden fields of each form with this action as a browser sends them: line breaks become CR LF."""
    for form in re.findall(rf'<form [^>]*action="[^"]*{action}"[^>]*>(.*?)</form>', page.body.decode(), re.DOTALL):
        found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form)
        yield {name: re.sub(r"\r\n|\r|\n", "\r\n", html.unescape(value)) for name, value in found}


@pytest.mark.parametrize(
    "raw",
    chance.cases(
        [b"nl\nx", b"cr\rx", b"crlf\r\nx", b"\xff\xfebad", b"100%25", b"%ff+ &x", "über 🎉".encode(), b"q\"uote'<"],
        "odd names in the pages",
    ),
    ids=repr,
)
@pytest.mark.parametrize("place", ["/uploads/kept?path=odd", "/uploads/kept/find?find=tail"])
def test_an_upload_of_any_name_is_looked_at_and_put_back_by_what_the_page_holds(
    app: SmallApp, owner: Browser, raw: bytes, place: str
) -> None:
    path = app.uploads / "odd" / os.fsdecode(raw + b"tail")
    path.parent.mkdir()
    path.write_bytes(b"precious")
    create_backup(app.settings, BackupRequest("kept"))
    path.unlink()
    page = owner.get(place)
    links = {html.unescape(one) for one in re.findall(r'href="[^"]*(/uploads/kept/file\?[^"]*)"', page.text)}
    assert links and all(owner.get(link).body == b"precious" for link in links)
    (form,) = as_sent(page, "/restore/put-back")
    plan = owner.done("/restore/put-back", **form)
    (go,) = re.findall(r'action="[^"]*(/restore/plan/\d+)"', plan.text)
    assert "Done" in owner.done(go).words
    assert path.read_bytes() == b"precious"


def test_a_folder_and_a_table_of_any_name_are_opened_by_what_the_page_holds(app: SmallApp, owner: Browser) -> None:
    folder = app.uploads / os.fsdecode(b"\xfe\nfolder")
    folder.mkdir()
    (folder / "in it.txt").write_text("x")
    app.execute('CREATE TABLE "two\nlines%0A" (id INTEGER PRIMARY KEY, name TEXT)')
    app.execute("INSERT INTO \"two\nlines%0A\" VALUES (1, 'the row')")
    create_backup(app.settings, BackupRequest("kept"))
    (inner,) = re.findall(r'href="[^"]*(/uploads/kept\?path=[^"]*folder)"', owner.get("/uploads/kept").text)
    page = owner.get(html.unescape(inner))
    assert "in it.txt" in page.words
    above = re.findall(r'href="[^"]*(/uploads/kept\?path=[^"]*)"', page.text)
    assert "in it.txt" in owner.get(html.unescape(above[0])).words
    app.execute('DELETE FROM "two\nlines%0A"')
    (rows,) = re.findall(r'href="[^"]*(/rows/kept\?[^"]*two[^"]*)"', owner.get("/tables/kept").text)
    page = owner.get(html.unescape(rows))
    assert "the row" in page.words
    (form,) = as_sent(page, "/rescue")
    assert "the row" in owner.done("/rescue", **form, which="missing").words


def test_rows_are_shown_page_by_page_by_condition_and_beside_the_live_ones(app: SmallApp, owner: Browser) -> None:
    app.execute("CREATE TABLE many (id INTEGER PRIMARY KEY, name TEXT)")
    app.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120) "
        "INSERT INTO many SELECT i, 'row ' || i FROM n"
    )
    create_backup(app.settings, BackupRequest("kept"))
    app.execute("DELETE FROM many WHERE id = 7")
    first = owner.get("/rows/kept?table=many")
    assert "row 50" in first.words and "row 51 " not in first.words
    (later,) = re.findall(r'href="[^"]*(/rows/kept\?[^"]*after=[^"]+)"', first.text)
    assert "row 51 " in owner.get(html.unescape(later)).words
    assert "1 row" in owner.get("/rows/kept?" + urlencode({"table": "many", "where": "name = 'row 7'"})).words
    assert "1 gone" in owner.get("/rows/kept/compare?table=many").words
    for where in ("1); DELETE FROM many", "load_extension('x')", "nonsense("):
        assert owner.get("/rows/kept?" + urlencode({"table": "many", "where": where})).code == 400, where


def test_each_of_several_databases_is_looked_into(app: SmallApp) -> None:
    app = extend(app)
    create_backup(app.settings, BackupRequest("kept"))
    with contextlib.closing(sqlite3.connect(app.cache)) as live, live:
        live.execute("DELETE FROM entries")
    with serving(app) as served:
        browser = served.browser()
        browser.come_in(token=served.token)
        assert "entries" in browser.get("/tables/kept?database=cache").words
        assert browser.get("/rows/kept?table=entries&database=cache").code == 200
        assert browser.get("/rows/kept?table=entries").code == 404
        assert "has no database" in browser.get("/tables/kept?database=nosuch").words
        plan = browser.done("/rescue", name="kept", table="entries", database="cache", which="missing")
        assert "Done" in browser.done(where_agreed(plan), typed="kept").words
        assert app.values(app.cache) == ["before"]


def boxes(page: Answer) -> list[str]:
    """Return the names of the checkboxes of rows, in the order of the rows."""
    return [html.unescape(one) for one in re.findall(r'form="rescue" name="([^"]+)"', page.text)]


def where_agreed(page: Answer) -> str:
    """Return the address that confirms the plan of a rescue."""
    return str(re.findall(r'action="[^"]*(/rescue/plan/\d+)"', page.text)[0])


def test_a_row_that_is_ticked_comes_back_with_what_it_names_and_undo_takes_it_back(app: SmallApp) -> None:
    (app.folder / "backup.toml").write_text('[references]\n"documents.path" = "uploads/{value}"\n')
    create_backup(app.settings, BackupRequest("kept"))
    before = app.rows("documents"), app.rows("companies"), app.rows("applications")
    for statement in ("documents", "applications WHERE id = 2", "companies WHERE id = 2"):
        app.execute(f"DELETE FROM {statement}")
    (app.uploads / "2/letter.txt").unlink()
    lost = app.contents()
    with serving(app) as served:
        owner = served.browser()
        owner.come_in(token=served.token)
        rows = {"name": "kept", "table": "documents", "database": "database"}
        assert "No row was ticked" in owner.post("/rescue", None, **rows, which="ticked").words
        page = owner.get("/rows/kept?table=documents")
        plan = owner.done("/rescue", **rows, **{boxes(page)[1]: "1"}, which="ticked")
        assert "documents : 1 row comes back" in plan.words and "companies : 1 row comes back" in plan.words
        assert "1 come s back : 2/letter.txt" in plan.words.replace("comes", "come s")
        go = where_agreed(plan)
        assert owner.post(go, typed="another").code == 400 and app.contents() == lost
        result = owner.done(go, typed="kept")
        assert "Done" in result.words and "Undo this restore" in result.words
        assert (app.rows("companies"), app.rows("applications")) == before[1:]
        assert app.rows("documents") == before[0][1:] and (app.uploads / "2/letter.txt").exists()
        assert "/job/" in owner.get(go).headers["Location"]
        whole = owner.done("/restore/undo")
        (name,) = re.findall(r'data-must-be="([^"]+)"', whole.text)
        owner.done(re.findall(r'action="[^"]*(/restore/plan/\d+)"', whole.text)[0], typed=name)
        assert app.contents() == lost
    (done, _) = [one for one in history.read(app.backups).operations if one.command != "backup"][-2:]
    assert done.who.user == "owner at 127.0.0.1"


def test_a_live_row_that_is_another_one_stays_until_it_is_said_to_be_replaced(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    before = app.rows("companies")
    app.execute("UPDATE companies SET name = 'newer' WHERE id = 1")
    compared = owner.get("/rows/kept/compare?table=companies")
    (box,) = boxes(compared)
    rows = {"name": "kept", "table": "companies"}
    plan = owner.done("/rescue", **rows, **{box: "1"}, which="ticked")
    assert "stays as it is" in plan.words and "Nothing is to be brought back." in plan.words
    refused = owner.post(where_agreed(plan), typed="kept")
    assert refused.code == 400 and app.rows("companies") != before
    plan = owner.done(f"{where_agreed(plan)}/again", overwrite="1")
    assert "replaced by the backup's" in plan.words and "newer" in plan.words
    assert "Done" in owner.done(where_agreed(plan), typed="kept").words and app.rows("companies") == before


def test_all_rows_that_are_missing_or_found_come_back(app: SmallApp, owner: Browser) -> None:
    app.execute("CREATE TABLE many (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
    app.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120) "
        "INSERT INTO many SELECT 'row <' || i || '>', x'00ff' FROM n"
    )
    create_backup(app.settings, BackupRequest("kept"))
    before, rows = app.rows("many"), {"name": "kept", "table": "many"}
    app.execute("DELETE FROM many WHERE name > 'row <5'")
    plan = owner.done("/rescue", **rows, which="found", where="name LIKE 'row <9%'")
    assert "many : 11 rows come back" in plan.words and "row <99>" in plan.words and "<99>" not in plan.text
    owner.done(where_agreed(plan), typed="kept")
    found = owner.get("/rows/kept?" + urlencode({"table": "many", "where": "name LIKE 'row <8%'"}))
    plan = owner.done("/rescue", **rows, **dict.fromkeys(boxes(found)[:2], "1"), which="ticked")
    assert "many : 2 rows come back" in plan.words
    plan = owner.done("/rescue", **rows, which="missing")
    assert "44 rows come back" in plan.words
    owner.done(where_agreed(plan), typed="kept")
    assert app.rows("many") == before
    for where in ("1); DELETE FROM many", "nonsense("):
        assert "It failed" in owner.done("/rescue", **rows, which="found", where=where).words
    for wrong in ({"table": "nosuch"}, {"name": "nosuch"}, {"name": "../etc"}):
        assert "It failed" in owner.done("/rescue", **{**rows, **wrong}, which="missing").words
    for key in ("[[1]]", "5", "[1, 2]", "[1]", "[null]"):
        box = "key." + base64.urlsafe_b64encode(key.encode()).decode()
        answer = owner.post("/rescue", None, **rows, **{box: "1"}, which="ticked")
        said = answer.words if answer.code == 400 else owner.done("/rescue", **rows, **{box: "1"}, which="ticked").words
        assert answer.code == 400 or ("It failed" in said and "bug" not in said), key


def test_a_plan_of_rows_is_not_carried_out_when_the_rows_or_the_settings_are_others(
    app: SmallApp, owner: Browser
) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    before = app.rows("companies")
    app.execute("UPDATE companies SET name = 'newer' WHERE id = 1")
    go = where_agreed(owner.done("/rescue", name="kept", table="companies", which="found", where="id = 1"))
    go = where_agreed(owner.done(f"{go}/again", overwrite="1"))
    app.execute("UPDATE companies SET name = 'newest' WHERE id = 1")
    assert "It failed" in owner.done(go, typed="kept").words
    go = where_agreed(owner.done(f"{go}/again", overwrite="1"))
    (app.folder / "backup.toml").write_text("keep_last = 7\n")
    refused = owner.post(go, typed="kept")
    assert refused.code == 400 and "settings were changed" in refused.words
    assert [row for row in app.rows("companies") if "newest" in row] and app.rows("companies") != before


def test_only_the_last_plans_of_rows_are_kept_for_they_are_large(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    app.execute("DELETE FROM documents")
    plans = [where_agreed(owner.done("/rescue", name="kept", table="documents", which="missing")) for _ in range(4)]
    assert owner.get(plans[0]).code == 404 and "Choose the rows again" in owner.post(plans[0], typed="kept").words
    assert app.rows("documents") == []
    assert "Done" in owner.done(plans[3], typed="kept").words and len(app.rows("documents")) == 2


def test_a_backup_goes_out_as_a_file_and_comes_in_from_one(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    answer = owner.get("/download/kept")
    assert answer.code == 200 and "kept.tar.zst" in answer.headers["Content-Disposition"]
    assert "Imported" in uploaded(owner, answer.body, name="again").words or store.find(app.settings, "again")
    assert store.find(app.settings, "again").state == "checked" or store.find(app.settings, "again").is_usable


def uploaded(browser: Browser, content: bytes, name: str = "", token: str | None = None) -> Answer:
    mark = "----------------boundary"
    token = form_token(browser.cookie.partition("=")[2]) if token is None else token
    fields = {"form_token": token, "name": name, "passphrase": ""}
    about = "Content-Disposition: form-data; name"
    parts = [f'--{mark}\r\n{about}="{key}"\r\n\r\n{one}\r\n' for key, one in fields.items()]
    head = f'--{mark}\r\n{about}="file"; filename="x.tar"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    answer = browser.ask("POST", f"{browser.base}/upload", body, kind)
    if answer.code != 303:
        return answer
    browser.ask("GET", answer.headers["Location"] + "/events")
    return browser.ask("GET", answer.headers["Location"])


def test_hostile_archives_and_files_that_are_none_are_refused(app: SmallApp, owner: Browser) -> None:
    escaping = io.BytesIO()
    with tarfile.open(fileobj=escaping, mode="w") as tar:
        entry = tarfile.TarInfo("../../escaped")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    for content in (b"", b"no archive", b"\0" * 10_000_000, escaping.getvalue()):
        assert "It failed" in uploaded(owner, content).words
    assert uploaded(owner, b"x", token="guessed").code == 403
    assert owner.ask("POST", f"{owner.base}/upload", b"a=1", {"Content-Type": "text/plain"}).code == 400
    assert [one for one in store.all_backups(app.settings)] == []
    assert not list(app.folder.rglob("escaped")) and not list(app.backups.glob(".draft-*"))


def test_schedule_and_retention_show_what_an_edit_brings_before_it_is_saved(app: SmallApp, owner: Browser) -> None:
    for number in range(6):
        create_backup(app.settings, BackupRequest(f"daily_{number}", kind="scheduled"))
    form = {"enabled": "true", "automatic_daily": "true", "backup_time": "03:30", "keep_last": "3", "min_keep": "1"}
    rules = {name: "0" for name in ("keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")} | {"keep_within": ""}
    assert "Saved in" not in owner.post("/schedule/look", **form, **rules).words
    before = load_settings(app.folder)
    assert before.keep_last != 3
    asked = owner.post("/schedule", **form, **rules)
    if "I agree" in asked.words:
        assert load_settings(app.folder).keep_last == before.keep_last
        asked = owner.post("/schedule", **form, **rules, agreed="1")
    assert "Saved in backup.toml" in asked.words
    now = load_settings(app.folder)
    assert (now.keep_last, now.backup_time) == (3, "03:30")
    shown = owner.get("/schedule")
    was = re.findall(r'name="was" value="([^"]+)"', shown.text)[0]
    toml = app.folder / "backup.toml"
    toml.write_text(toml.read_text().replace("keep_last = 3", "keep_last = 365"))
    assert owner.post("/schedule", **form, **rules, agreed="1", was=was).code == 400
    assert load_settings(app.folder).keep_last == 365
    toml.write_text(toml.read_text().replace("keep_last = 365", "keep_last = 3"))
    wrong = owner.post("/schedule", **{**form, "keep_last": "-4"}, **rules, was=was)
    assert "Saved" not in wrong.words and load_settings(app.folder).keep_last == 3


def test_a_backup_is_pinned_and_deleted_with_its_name_typed(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    create_backup(app.settings, BackupRequest("other"))
    owner.post("/do/pin/kept")
    assert store.find(app.settings, "kept").pinned
    assert "It failed" in owner.done("/do/delete/kept", typed="kept").words
    owner.post("/do/pin/kept")
    assert "not typed as it stands" in owner.post("/do/delete/kept", typed="other").words
    owner.done("/do/delete/kept", typed="kept")
    assert [one.name for one in store.all_backups(app.settings)] == ["other"]


def test_two_people_restore_at_once_and_the_data_are_those_of_one_backup(app: SmallApp, served: Served) -> None:
    app.execute("CREATE TABLE mark (value TEXT)")
    app.execute("INSERT INTO mark VALUES ('one')")
    create_backup(app.settings, BackupRequest("one"))
    app.execute("UPDATE mark SET value = 'two'")
    create_backup(app.settings, BackupRequest("two"))
    first = served.browser()
    first.come_in(token=served.token)
    gates = []
    for name in ("one", "two"):
        plan = first.done("/restore/plan", name=name)
        gates.append((name, *re.findall(r'action="[^"]*(/restore/plan/\d+)"', plan.text)))
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda name=name, go=go: results.append(first.done(go, typed=name).words))
        for name, go in gates
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any("Done" in one for one in results)
    with contextlib.closing(sqlite3.connect(app.database)) as connection:
        assert connection.execute("SELECT value FROM mark").fetchall() in ([("one",)], [("two",)])
    assert "is not finished" not in first.get("/").words


def planned(browser: Browser, name: str) -> str:
    """Return the address that confirms the plan of a restore."""
    return str(re.findall(r'action="[^"]*(/restore/plan/\d+)"', browser.done("/restore/plan", name=name).text)[0])


def marked(app: SmallApp, value: str) -> None:
    app.execute("CREATE TABLE IF NOT EXISTS mark (value TEXT)")
    app.execute("DELETE FROM mark")
    app.execute("INSERT INTO mark VALUES (?)", (value,))


def test_a_second_click_does_not_take_the_way_back(app: SmallApp, owner: Browser) -> None:
    marked(app, "old")
    create_backup(app.settings, BackupRequest("kept"))
    marked(app, "precious")
    go = planned(owner, "kept")
    assert owner.post(go, typed="kept").headers["Location"] == owner.post(go, typed="kept").headers["Location"]
    assert "Done" in owner.done(go, typed="kept").words
    assert "/job/" in owner.get(go).headers["Location"]
    page = owner.done("/restore/undo")
    (name,) = re.findall(r'data-must-be="([^"]+)"', page.text)
    owner.done(re.findall(r'action="[^"]*(/restore/plan/\d+)"', page.text)[0], typed=name)
    assert app.rows("mark") == [("precious",)]


def test_a_plan_is_not_carried_out_under_other_settings(app: SmallApp, owner: Browser) -> None:
    marked(app, "old")
    create_backup(app.settings, BackupRequest("kept"))
    marked(app, "new")
    go = planned(owner, "kept")
    other = app.database.with_name("other.db")
    other.write_bytes(b"")
    (app.folder / "backup.toml").write_text(f'database = "{other}"\n')
    answer = owner.post(go, typed="kept")
    assert answer.code == 400 and "settings were changed" in answer.words
    assert other.read_bytes() == b"" and app.rows("mark") == [("new",)]


def test_what_is_no_key_of_a_row_is_refused_and_no_bug(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    for key in (
        "[[1]]",
        '[{"bytes": 1}]',
        "[1, 2, 3]",
        '{"bytes": "00"}',
        f"[{10**30}]",
        "[" * 3000,
        '["\\ud800"]',
        "5",
        "!",
    ):
        text = base64.urlsafe_b64encode(key.encode()).decode()
        answer = owner.get(f"/rows/kept?table=documents&after={text}")
        assert answer.code in (200, 400) and "bug" not in answer.words, key


def test_a_backup_says_what_changed_since_the_one_before(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("first"))
    assert "Since the one before" not in owner.get("/backup/first").words
    app.execute("DELETE FROM documents")
    app.write_upload("1/more.txt", b"more")
    create_backup(app.settings, BackupRequest("second"))
    said = owner.get("/backup/second").words
    assert "Since the one before, first" in said and "rows of documents 2 0" in said and "uploads 2 files" in said
    create_backup(app.settings, BackupRequest("third"))
    assert "No number of rows or files differs, nor any upload." in owner.get("/backup/third").words


def test_the_backup_that_is_offered_is_the_one_that_latest_means(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("whole"))
    create_backup(app.settings.replaced(uploads=None), BackupRequest("of_the_database"))
    assert store.latest(app.settings).backup.name == "whole"
    [offered] = re.findall(r'value="([^"]*)"[^>]* checked', owner.get("/restore").text)[:1]
    assert offered == "whole"


def test_a_part_that_is_not_known_is_not_taken_for_all_of_it(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    assert owner.post("/restore/plan", name="kept", only="cache").code == 400


def test_with_several_databases_the_plan_shows_each_and_the_settings_name_them(app: SmallApp, owner: Browser) -> None:
    cache = app.folder / "data" / "cache.db"
    with contextlib.closing(sqlite3.connect(cache)) as connection, connection:
        connection.execute("CREATE TABLE visits (at TEXT)")
    (app.folder / "backup.toml").write_text('[databases.cache]\npath = "data/cache.db"\n')
    owner.done("/do/back-up", name="kept")
    with contextlib.closing(sqlite3.connect(cache)) as connection, connection:
        connection.execute("INSERT INTO visits VALUES ('later')")
    assert "visits 1 0 -1" in owner.done("/restore/plan", name="kept").words
    assert "cache (" in owner.get("/settings").words


def test_what_went_live_is_not_said_to_be_cancelled(app: SmallApp, owner: Browser) -> None:
    marked(app, "old")
    create_backup(app.settings, BackupRequest("kept"))
    marked(app, "new")
    hook = app.folder / "after.sh"
    hook.write_text("#!/bin/sh\nsleep 2\n")
    hook.chmod(0o755)
    (app.folder / "backup.toml").write_text(f'after_restore = "{hook}"\n')
    place = owner.post(planned(owner, "kept"), typed="kept").headers["Location"]
    until(lambda: app.rows("mark") == [("old",)])
    owner.post(f"{place.removeprefix(owner.base)}/cancel")
    owner.ask("GET", f"{place}/events")
    said = owner.ask("GET", place).words
    assert "Done" in said and "Undo this restore" in said


# Attacks


@pytest.mark.parametrize(
    "path",
    ["../../backup_metadata.json", "/etc/passwd", "..", "1/../../pats.db", "1/letter.txt/..", "", "a\0b", "no/such"],
)
def test_a_path_that_leaves_the_uploads_gets_nothing(app: SmallApp, owner: Browser, path: str) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    for place in ("uploads/kept/file", "uploads/kept"):
        answer = owner.get(f"/{place}?" + urlencode({"path": path}))
        assert answer.code in (200, 400, 404) and b"root:" not in answer.body and b"backup_version" not in answer.body
        assert answer.code != 200 or (place == "uploads/kept" and path == "")


@pytest.mark.parametrize("name", ["..%2F..%2Fetc", "%2e%2e", ".state", "-x", "a%00b", "kept%0a"])
def test_a_name_that_is_none_gets_nothing(owner: Browser, name: str) -> None:
    for path in (f"/backup/{name}", f"/download/{name}", f"/uploads/{name}", f"/tables/{name}"):
        assert owner.get(path).code in (303, 400, 404), path
    for path in (f"/do/delete/{name}", f"/do/verify/{name}", f"/do/pin/{name}"):
        assert owner.post(path, typed=name).code in (400, 404), path


MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 12345679 * 9 }}"


def test_markup_in_names_and_notes_stays_text(app: SmallApp, owner: Browser) -> None:
    app.write_upload(f"1/{MARKUP.replace('/', '')}.txt", b"x")
    app.execute(f'CREATE TABLE "{MARKUP.replace(chr(34), "")}" (value TEXT)')
    create_backup(app.settings, BackupRequest("kept", note=MARKUP))
    for path in (
        "/backups",
        "/backup/kept",
        "/uploads/kept?path=1",
        "/tables/kept",
        "/history",
        f"/backups?find={MARKUP[:8]}",
    ):
        answer = owner.get(path)
        assert answer.code == 200, path
        for wrong in ("<script>alert", "<img src=x", "111111111"):
            assert wrong not in answer.text, path


def test_a_name_that_is_no_text_spoils_no_page(app: SmallApp, owner: Browser) -> None:
    (app.uploads / os.fsdecode(b"\xff.bin")).write_bytes(b"x")
    create_backup(app.settings, BackupRequest("kept"))
    for path in ("/uploads/kept", "/uploads/kept/find?find=bin"):
        answer = owner.get(path)
        assert answer.code == 200 and ".bin" in answer.text
    assert owner.get("/job/%C2%B2").code == 404


def test_a_file_of_a_backup_is_shown_in_a_sandbox_or_saved(app: SmallApp, owner: Browser) -> None:
    app.write_upload("1/page.html", b"<script>alert(1)</script>")
    app.write_upload("1/plain.txt", b"<script>alert(1)</script>")
    create_backup(app.settings, BackupRequest("kept"))
    page = owner.get("/uploads/kept/file?path=1/page.html&show=1")
    assert page.headers["Content-Type"] == "application/octet-stream"
    assert page.headers["Content-Disposition"].startswith("attachment")
    plain = owner.get("/uploads/kept/file?path=1/plain.txt&show=1")
    assert plain.headers["Content-Type"] == "text/plain" and "sandbox" in plain.headers["Content-Security-Policy"]


def test_hundreds_of_connections_and_half_requests_do_not_keep_the_owner_out(served: Served, owner: Browser) -> None:
    opened = []
    for _ in range(500):
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", served.port), timeout=5)
            connection.send(b"GET / HTTP/1.1\r\nHost: 127")
            opened.append(connection)
    for connection in opened:
        connection.close()
    assert until(lambda: still_served(owner))


@pytest.mark.parametrize(
    "start",
    [
        "GET / HTTP/1.1\r\nHost: {host}\r\n",
        "POST / HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 1000\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\npassword=",
        "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ],
    ids=["half a head", "half a form", "nothing more"],
)
def test_strangers_who_keep_all_connections_open_keep_nobody_out(owner: Browser, start: str) -> None:
    with holding(owner.port, start.format(host=f"127.0.0.1:{owner.port}").encode()) as renewed:
        assert renewed.wait(DEADLINE)
        for _ in range(20):
            assert owner.get("/").code == 200
            time.sleep(0.05)


def test_the_owner_can_sign_in_while_strangers_keep_all_connections_open(app: SmallApp) -> None:
    with serving(app, BACKUP_WEB_PASSWORD=PASSWORD) as served, holding(served.port, b"GET / HTTP/1.1\r\n") as renewed:
        assert renewed.wait(DEADLINE)
        for _ in range(3):
            assert served.browser().come_in(password=PASSWORD).code == 303


def test_an_upload_goes_on_while_strangers_keep_all_connections_open(owner: Browser) -> None:
    head = (
        f"POST {owner.base}/upload HTTP/1.1\r\nHost: 127.0.0.1:{owner.port}\r\nCookie: {owner.cookie}\r\n"
        f"Origin: http://127.0.0.1:{owner.port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 10\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", owner.port), timeout=DEADLINE) as upload:
        upload.sendall(head.encode() + b"--x")
        assert owner.get("/").code == 200  # so that the head was read
        with holding(owner.port, b"GET / HTTP/1.1\r\n") as renewed:
            assert renewed.wait(DEADLINE)
        upload.sendall(b"--\r\n\r\n\r")
        assert upload.recv(12) == b"HTTP/1.1 400"  # no file in it


@contextlib.contextmanager
def holding(port: int, start: bytes, count: int = 66) -> Iterator[threading.Event]:
    """Keep so many connections open that sent this, and renew what is closed; set the event once each was renewed."""
    ends, renewed = threading.Event(), threading.Event()

    def hold() -> None:
        held: list[socket.socket] = []
        opened = 0
        while not ends.is_set():
            held = [one for one in held if not is_closed(one)]
            while len(held) < count:
                opened += 1
                with contextlib.suppress(OSError):  # it is closed already
                    held.append(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE))
                    held[-1].send(start)
            if opened > 2 * count:
                renewed.set()
            time.sleep(0.01)
        for one in held:
            one.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        yield renewed
    finally:
        ends.set()
        holder.join()


def is_closed(connection: socket.socket) -> bool:
    try:
        return select.select([connection], [], [], 0)[0] and not connection.recv(1 << 16)
    except OSError:
        return True


@pytest.mark.parametrize("kind", ["multipart/form-data", "application/x-www-form-urlencoded; charset=bogus"])
def test_a_form_that_is_none_is_refused(served: Served, kind: str) -> None:
    browser = served.browser()
    assert browser.ask("POST", "/", b"password=%ff", {"Content-Type": kind}).code == 400
    assert served.browser(host="[").ask("GET", "/").code == 403


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x"]
)
def test_an_upload_that_is_no_form_is_refused(owner: Browser, kind: str) -> None:
    assert owner.ask("POST", f"{owner.base}/upload", b"xx", {"Content-Type": kind}).code == 400


def still_served(browser: Browser) -> bool:
    with contextlib.suppress(OSError, HTTPException):
        return browser.get("/").code == 200
    return False


def test_a_huge_form_is_refused(owner: Browser) -> None:
    assert owner.post("/do/back-up", name="x", note="n" * 5_000_000).code == 413
    assert owner.get("/").code == 200


def test_work_is_cancelled_where_that_is_safe_and_its_page_says_so(app: SmallApp, owner: Browser) -> None:
    for number in range(3000):
        app.write_upload(f"many/{number}", b"x" * 200)
    place = owner.post("/do/back-up", name="long").headers["Location"]
    owner.post(f"{place.removeprefix(owner.base)}/cancel")
    owner.ask("GET", f"{place}/events")
    said = owner.ask("GET", place).words
    names = [one.name for one in store.all_backups(app.settings)]
    assert ("Cancelled" in said and names == []) or ("Done" in said and names == ["long"])
    assert not list(app.backups.glob(".draft-*"))


def test_work_that_ends_while_its_page_is_made_is_not_said_to_be_done_without_its_plan(app: SmallApp) -> None:
    site, ends = Site(app.folder, Access(app.settings)), threading.Event()
    session, key = site.access.follow_link(site.access.new_link()) or pytest.fail("not let in")
    job = site.jobs.start(
        Task("Looking", lambda _: Planned(app.settings, None, ends.wait(DEADLINE)), lambda _: ()), "owner", "plan"
    )
    visit = Visit(site, app.settings, session, key, "owner", {"number": str(job.number)}, {}, {})
    page = pages.show_job(visit)
    assert isinstance(page, Page)
    ends.set()
    until(lambda: job.ended)
    made = site.page(visit, page)
    assert "data-events" in made and "Done" not in made
    assert isinstance(pages.show_job(visit), Goto)


def test_work_that_has_ended_holds_nothing_that_it_worked_on() -> None:
    large = type("Large", (), {})()
    seen, jobs = weakref.ref(large), Jobs()
    job = jobs.start(Task("Reading", lambda _, large=large: None, lambda _: ()), "owner")  # type: ignore[misc]
    del large
    until(lambda: job.ended)
    until(lambda: seen() is None)


def test_a_server_that_is_told_to_end_ends_its_work_first(app: SmallApp) -> None:
    for number in range(3000):
        app.write_upload(f"many/{number}", b"x" * 200)
    with serving(app) as served:
        browser = served.browser()
        browser.come_in(token=served.token)
        browser.post("/do/back-up", name="long")
    assert not list(app.backups.glob(".draft-*"))
    assert [one.name for one in store.all_backups(app.settings)] in ([], ["long"])


def test_a_pattern_made_of_a_path_means_that_path_alone() -> None:
    assert literal("a b/[x]*?.txt") == "/a\\ b/\\[x\\]\\*\\?.txt"


def test_the_buttons_of_the_overview_do_what_status_names(app: SmallApp, owner: Browser) -> None:
    said = owner.get("/")
    assert "Make the first backup" in said.words
    paths = re.findall(r'action="[^"]*/(do/[^"]+)"', said.text)
    assert "do/back-up" in paths
    create_backup(app.settings, BackupRequest("kept"))
    assert "Done" in owner.done("/do/test-restore/kept").words
    assert store.find(app.settings, "kept").state == "proven"


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("backup", "do/back-up"),
        ("recover", "do/recover"),
        ("verify --test-restore", "do/test-restore/latest"),
        ("verify kept", "do/verify/kept"),
        ("verify kept --accept", "do/accept/kept"),
        ("show kept", "backup/kept"),
        ("push --remote nas", "do/push/"),
        ("pull kept --remote nas", "do/pull/nas/kept"),
        ("restore latest --only uploads", "restore?name=latest"),
        ("history --failures", "history?failures=1"),
        ("doctor", ""),
        ("config set keep_last 'x", ""),
    ],
)
def test_what_status_says_to_type_is_a_button_where_a_page_can_do_it(app: SmallApp, command: str, path: str) -> None:
    found = fix_of(app.settings, app.settings.deployment.tool(command))
    assert (found.path if found else "") == path


def test_the_pages_read_each_backup_once_and_no_upload(app: SmallApp) -> None:
    """Pages stay fast with a thousand backups; `opened` holds the paths in the backups folder that each page opens."""
    for number in range(12):
        create_backup(app.settings, BackupRequest(f"kept{number}"))
    with subprocess.Popen(
        [sys.executable, "-c", OPENED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "PYTHONPATH": str(COMMAND.parent)},
    ) as process:  # fmt: skip
        said = process.communicate(timeout=DEADLINE)[0]
    opened: dict[str, list[str]] = json.loads(said)
    assert opened and set(opened) == {"", "backups", "restore", "schedule", "history", "settings"}
    for place, paths in opened.items():
        read = [path for path in paths if path.endswith("/backup_metadata.json")]
        assert len(read) == len(set(read)) == (12 if place == "" else 0), place  # the first page has read all of them
        assert not [path for path in paths if "/uploads/" in path], place


OPENED = """
import json, os, sys
from types import SimpleNamespace
from backupkit.cli.task import Task
from backupkit.config.settings import load_settings
from backupkit.fs import stamps
from backupkit.web import pages, server
from backupkit.web.access import Access
from backupkit.web.site import Site
from pathlib import Path
folder = Path(os.environ["BACKUP_APP_DIR"])
access = Access(load_settings(folder))
found = access.follow_link(access.new_link())
made = server.Server(Site(folder, access))
opened, now = {}, []
stamps.time = SimpleNamespace(time_ns=lambda: 1 << 62)  # the backups are older than a tick of the clock
def heard(event, arguments):
    if event == "open" and str(arguments[0]).startswith(str(folder / "backups")):
        now.append(str(arguments[0]))
sys.addaudithook(heard)
for place in ("", "backups", "restore", "schedule", "history", "settings"):
    now.clear()
    request = SimpleNamespace(remote="here", match_info={}, query={}, method="GET")
    answer = made._answer(server.GET[place], made._visit(request, *found), "GET")
    assert answer.status == 200, answer.text
    opened[place] = list(now)
print(json.dumps(opened))
"""


# In a real browser


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Any]:
    from browser import chromium

    with chromium(tmp_path / "profile") as driver:
        yield driver


AXE = """
axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
  .then(arguments[arguments.length - 1])
"""
PLACES = (
    "", "backups", "backup/kept", "backup/kept/delete", "restore", "schedule", "history", "settings",
    "uploads/kept", "uploads/kept?path=1", "tables/kept", "rows/kept?table=documents",
    "rows/kept/compare?table=documents", "uploads/kept/find?find=letter",
)  # fmt: skip


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_every_place_fits_a_phone_and_a_screen_and_axe_finds_nothing(
    app: SmallApp, served: Served, driver: Any
) -> None:
    from browser import console, look

    app.write_upload(f"1/{'ä' * 60}文件اسم{'x' * 60}.txt", b"x")
    app.write_upload("1/letter.txt", b"x")
    create_backup(app.settings, BackupRequest("kept", note=f"Grüße {'lang' * 30} 日本語 עברית"))
    create_backup(app.settings, BackupRequest("n" * 100))
    base = enter(driver, served)
    for width, scheme in ((1280, "light"), (390, "dark")):
        look(driver, width, 844, scheme)
        for place in PLACES:
            driver.get(f"{base}/{place}")
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width, (place, width)
            assert found_by_axe(driver) == [], (place, width)
    assert console(driver) == []


def enter(driver: Any, served: Served) -> str:
    driver.get(served.address)
    driver.find_element("css selector", "button").click()
    until(lambda: driver.find_elements("css selector", "nav"))
    base: str = driver.execute_script("return location.origin + document.body.dataset.session")
    return base


def text_of(driver: Any) -> str:
    """Return the visible text; empty while one page replaces another."""
    from selenium.common.exceptions import WebDriverException

    with contextlib.suppress(WebDriverException):
        return str(driver.find_element("css selector", "body").text)
    return ""


def press_in(driver: Any, text: str) -> None:
    """Press the button, or the link that looks like one, with that text."""
    buttons = driver.find_elements("css selector", "button, a.button")
    next(one for one in buttons if one.text.strip() == text).click()


def says_in(driver: Any, text: str) -> bool:
    return text in text_of(driver)


def found_by_axe(driver: Any) -> list[tuple[str, list[str]]]:
    """Return axe's findings on the page: each rule, and the first elements that break it."""
    driver.execute_script(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = driver.execute_async_script(AXE)["violations"]
    return [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in found]


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_who_has_only_the_page_on_a_phone_backs_up_and_gets_lost_data_back(
    app: SmallApp, served: Served, driver: Any
) -> None:
    from browser import console, look, requests

    press, says = partial(press_in, driver), partial(says_in, driver)
    look(driver, 390, 844)
    enter(driver, served)
    driver.find_element("name", "name").send_keys("on_the_way")
    driver.find_element("css selector", "button.primary").click()
    until(lambda: says("✓ Done"))
    before = app.contents()
    app.execute("DELETE FROM documents")
    app.write_upload("1/letter.txt", b"overwritten")
    press("To the overview")
    until(lambda: says("Get data back"))
    press("Get data back")
    until(lambda: says("Choose a backup"))
    press("Show the plan")
    until(lambda: says("To restore it, type its name"))
    restore = next(one for one in driver.find_elements("css selector", "button") if one.text == "Restore")
    assert not restore.is_enabled() and app.contents() != before
    driver.find_element("name", "typed").send_keys("on_the_way")
    press("Restore")
    until(lambda: says("✓ Done"))
    assert app.contents() == before
    driver.get(f"http://127.0.0.1:{served.port}/")  # the bare address leads a signed-in browser back in
    until(lambda: says("Get data back"))
    assert console(driver) == []
    asked = {urlsplit(one).netloc for one in requests(driver) if one.startswith("http")}
    assert asked == {f"127.0.0.1:{served.port}"}


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_rows_are_ticked_and_brought_back_on_a_screen_and_on_a_phone(
    app: SmallApp, served: Served, driver: Any
) -> None:
    from browser import console, look

    press, says = partial(press_in, driver), partial(says_in, driver)
    create_backup(app.settings, BackupRequest("kept"))
    before = app.contents()
    base = enter(driver, served)
    for width in (1280, 390):
        look(driver, width, 844)
        app.execute("DELETE FROM documents WHERE id = 1")
        app.execute("UPDATE documents SET name = 'newer' WHERE id = 2")
        driver.get(f"{base}/rows/kept/compare?table=documents")
        for box in driver.find_elements("css selector", "td input"):
            box.click()
        press("Bring the ticked ones back …")
        until(lambda: says("1 row comes back") and says("stays as it is"))
        driver.find_element("name", "overwrite").click()
        press("Show the plan again")
        until(lambda: says("replaced by the backup"))
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert found_by_axe(driver) == [], width
        bring = next(one for one in driver.find_elements("css selector", "button") if one.text == "Bring back")
        assert not bring.is_enabled()
        driver.find_element("name", "typed").send_keys("kept")
        press("Bring back")
        until(lambda: says("✓ Done"))
        assert says("Undo this restore") and app.contents() == before
    assert console(driver) == []


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_a_moment_is_chosen_on_a_line_of_time(app: SmallApp, driver: Any) -> None:
    from browser import console, look
    from rewind.test_commands import Past

    Past(app)
    with serving(app, BACKUP_REWIND="7d") as served:
        base = enter(driver, served)
        look(driver, 390, 844)
        driver.get(f"{base}/restore")
        line = driver.find_element("css selector", "input[type=range]")
        choice = driver.find_element("name", "moment")
        assert choice.get_property("value") == "" and line.get_property("value") == line.get_property("max")
        line.send_keys("\ue012\ue012")  # two steps to the left
        assert choice.get_property("selectedIndex") == 2
        chosen = choice.find_elements("tag name", "option")[2]
        assert "of the database" in chosen.text
        assert found_by_axe(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        press_in(driver, "Show the plan")
        until(lambda: "point_" in text_of(driver) and "will change" in text_of(driver))
        assert console(driver) == []


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_a_browser_puts_uploads_of_any_name_back(app: SmallApp, driver: Any) -> None:
    shutil.rmtree(app.uploads)
    paths = [app.uploads / os.fsdecode(raw) for raw in (b"nl\nx", b"\xff\xfebad")]
    app.uploads.mkdir()
    for path in paths:
        path.write_bytes(b"precious")
    create_backup(app.settings, BackupRequest("kept"))
    with serving(app) as served:
        base = enter(driver, served)
        for path in paths:
            path.unlink()
            driver.get(f"{base}/uploads/kept/find?find={path.name[-1]}")
            press_in(driver, "Put it back …")
            until(lambda: says_in(driver, "will change"))
            press_in(driver, "Put it back")
            until(lambda: says_in(driver, "✓ Done"))
            assert path.read_bytes() == b"precious"


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_it_can_be_used_without_a_script(app: SmallApp, served: Served, driver: Any) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(served.address)
    driver.find_element("css selector", "button").click()
    until(lambda: driver.find_elements("css selector", "nav"))
    driver.find_element("name", "name").send_keys("plain")
    driver.find_element("css selector", "button.primary").click()
    until(lambda: "✓ Done" in text_of(driver))
    assert store.find(app.settings, "plain")


def test_json_of_a_job_is_what_its_page_shows(owner: Browser) -> None:
    place = owner.post("/do/back-up", name="one").headers["Location"]
    told = [json.loads(line[6:]) for line in owner.ask("GET", f"{place}/events").text.split("\n\n") if line]
    assert told[-1]["state"] == "done"
    assert set(told[-1]) == {"state", "step", "amount", "share", "seconds", "said", "can_be_cancelled"}
