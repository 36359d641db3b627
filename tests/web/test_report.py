"""The report opens in a real browser, shows the numbers of `status`, and treats hostile names as text."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backupkit.backup.create import create_backup
from backupkit.cli import json_, render
from backupkit.config.secrets import Secret
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, BackupRequest, Flaw, Metadata
from backupkit.model.operation import Operation, Who
from backupkit.monitoring.overview import Size, TestRestore, overview
from backupkit.monitoring.report_facts import Report, report
from backupkit.monitoring.status import Facts, Reason, judge
from backupkit.repository import history
from backupkit.retention import rules
from backupkit.scheduling import scheduler_lock
from backupkit.verify.verify import verify_backups
from backupkit.web.charts import curves, scale
from backupkit.web.report import ROWS, page
from refusals import refused, refused_to_user, run_here
from small_app import COMMAND, NOON, SmallApp, clean_environment

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
HOSTILE = [
    "<script>document.title='harmed'</script>",
    "<img src=x onerror=\"document.title='harmed'\">",
    "\"'><svg onload=alert(1)>",
    "</title></style></table><h1>harmed</h1>",
    "&lt;b&gt; &amp; <!-- -->]]>",
    "\u202ereversed\x00\x1b[31m\r\nnewline\ud800",
    "javascript:alert(1)",
    "日本語 ☃ e\u0301",
]


# Content, without a browser


class Read(HTMLParser):
    """A page as a strict parser reads it: every element is closed, and text is text."""

    VOID = frozenset({"meta", "link", "br", "hr", "img"})

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.numbers: dict[str, str] = {}
        self.declarations: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == [], self.open

    def handle_decl(self, decl: str) -> None:
        self.declarations.append(decl)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        assert len(facts) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append((tag, facts))
        if name := facts.get("data-number"):
            assert name not in self.numbers, f"{name} is there twice"
            self.numbers[name] = facts["value"] or ""
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"{tag} ends inside {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [facts for name, facts in self.tags if name == tag]


def flat(document: dict[str, Any]) -> dict[str, str]:
    """Return the numbers of `status --json` by name, as a page shows them; without unknown ones."""
    beside = ("level", "exit_code", "sentence", "reasons", "lacking", "remotes")
    plain = {name: value for name, value in document.items() if name not in beside}
    counts = {f"{name}.{key}": n for name in ("by_kind", "by_state") for key, n in plain.pop(name).items()}
    return {name: spelled(value) for name, value in (plain | counts).items() if value is not None}


def spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def lived_in(app: SmallApp) -> datetime:
    """Make a week's backups in various states; return the moment after the last one."""
    now = datetime.now(UTC)
    for age in (6, 5, 3, 1):
        moment = now - age * DAY
        app.add_rows(age)
        create_backup(app.settings, BackupRequest(f"day_{age}", kind="scheduled"), clock=lambda moment=moment: moment)
    proven = [report(app.settings).backups[1]]
    verify_backups(app.settings, proven, test_restore=True, clock=lambda: now - 2 * DAY)
    (app.backups / "day_5" / "pats.db").write_bytes(b"overwritten")
    verify_backups(app.settings, [one for one in report(app.settings).backups if one.name == "day_5"])
    history.write(app.backups, Operation("x", "backup", now - HOUR, Who("anna", 1, "host"), now - HOUR, "failure"))
    shutil.copytree(app.backups / "day_3", app.backups / "no_metadata")
    (app.backups / "no_metadata" / "backup_metadata.json").write_text("{}")
    return now


def made_up(settings: Settings, backups: tuple[Backup, ...], now: datetime = NOON) -> Report:
    facts = Facts(now, backups)
    policy = rules.policy_of(settings)
    return Report(judge(settings, facts), overview(settings, facts), backups, (), False, policy)


def backup(name: str, moment: datetime, note: str = "", **changes: Any) -> Backup:
    metadata = Metadata(name, "", moment, None, "pats.db", True, kind="scheduled", note=note, app_id="pats")
    return Backup(Path("/srv/app/backups") / name, metadata, "checked", 10**6, 10**5, **changes)


def test_the_numbers_are_those_of_the_status(app: SmallApp) -> None:
    now = lived_in(app)
    with scheduler_lock.on(app.backups, 1):
        found = report(app.settings, lambda: now)
    told = json.loads(json.dumps(json_.status(found.status), default=json_._plain))
    assert Read(page(app.settings, found)).numbers == flat(told)
    assert told["level"] == "warning" and told["next_run_at"] and told["by_state"]["damaged"] == 2


def test_two_commands_say_the_same(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    seen = Read(run_here(app, "report", check=0).out).numbers
    told = flat(run_here(app, "status", "--json").json)
    passing = {"schema_version", "now", "last_backup_age_seconds", "free_bytes", "days_left"}
    assert {k: v for k, v in seen.items() if k not in passing} == {k: v for k, v in told.items() if k not in passing}
    assert {"total_bytes", "unique_bytes", "newest_checked_at", "by_kind.manual"} <= seen.keys()


def test_the_copies_elsewhere_stand_there_each_by_its_name(app: SmallApp, tmp_path: Path) -> None:
    (app.folder / "backup.toml").write_text(f'[remotes.nas]\ntype = "folder"\npath = "{tmp_path}/nas"\n')
    create_backup(app.settings, BackupRequest("one"))
    assert "nas: 0 there, 1 still to be pushed, never reached" in Read(run_here(app, "report", check=0).out).words
    (tmp_path / "nas").mkdir()
    run_here(app, "remotes", "--init", "nas", check=0)
    run_here(app, "push", "--remote", "nas", "--force", check=0)
    words = Read(run_here(app, "report", check=0).out).words
    assert "nas: 1 there, 0 still to be pushed, asked 2" in words and "a copy in another place" in words


def test_every_reason_stands_there_with_the_command_that_mends_it(app: SmallApp) -> None:
    now = lived_in(app)
    found = report(app.settings, lambda: now)
    words = Read(page(app.settings, found)).words
    assert len(found.status.reasons) >= 2
    for reason in found.status.reasons:
        assert reason.text in words and reason.fix in words
    assert "Your data is backed up, with a warning." in words


def test_it_tells_of_backups_test_restores_runs_rules_and_the_way_back(app: SmallApp) -> None:
    now = lived_in(app)
    words = Read(page(app.settings, report(app.settings, lambda: now))).words
    for name in ("day_1", "day_3", "day_5", "day_6", "no_metadata"):
        assert name in words
    assert "✓ proven" in words and "✕ damaged" in words
    assert all(rule in words for rule in render.policy(rules.policy_of(app.settings)))
    assert "restore latest --dry-run" in words and "undo" in words
    assert "No scheduler is running" in words and "test restore" in words


def test_an_empty_folder_and_one_that_is_not_there_make_a_page(app: SmallApp) -> None:
    words = Read(run_here(app, "report", check=0).out).words
    assert "Your data is at risk." in words and "There are none yet. Make one:" in words
    app.backups.rmdir()
    assert "Your data is at risk." in Read(page(app.settings, report(app.settings))).words


def test_a_folder_that_cannot_be_read_is_told_on_the_page(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backupkit.repository.store.all_backups", refuse)
    assert "cannot be read: Input/output error." in Read(page(app.settings, report(app.settings))).words


def refuse(settings: Settings) -> list[Backup]:
    raise OSError(5, "Input/output error", str(settings.dir))


# No markup but our own


def test_whatever_is_in_a_name_is_text(app: SmallApp) -> None:
    plain = Read(page(app.settings, hostile_report(app.settings, ["a note"] * len(HOSTILE))))
    seen = Read(page(app.settings, hostile_report(app.settings, HOSTILE)))
    assert [tag for tag, _ in seen.tags] == [tag for tag, _ in plain.tags]
    assert {name for _, facts in seen.tags for name in facts} == {name for _, facts in plain.tags for name in facts}
    for text in (*HOSTILE[:5], HOSTILE[7]):
        assert " ".join(text.split()) in seen.words


def hostile_report(settings: Settings, texts: list[str]) -> Report:
    """Return a report with these texts wherever a stranger's text can appear."""
    backups = [backup(f"b{n}", NOON - n * HOUR, text) for n, text in enumerate(texts)]
    backups += [replace(one, flaws=(Flaw("x", text),)) for one, text in zip(backups, texts, strict=True)]
    backups += [
        Backup(settings.dir / text.replace("/", "_").replace("\x00", ""), None, "damaged", error=text) for text in texts
    ]
    found = made_up(settings, tuple(backups))
    tests = tuple(TestRestore(NOON, (text,), "failure", 1.0, text) for text in texts)
    reasons = tuple(Reason("critical", text, text) for text in texts)
    status = replace(found.status, sentence=f"Look. {texts[0]} Type: x", reasons=reasons)
    return replace(found, status=status, overview=replace(found.overview, test_restores=tests))


def test_no_secret_is_on_the_page(app: SmallApp) -> None:
    settings = app.settings.replaced(export_passphrase=Secret("correct <horse> & battery"))
    found = made_up(settings, (backup("one", NOON, "correct <horse> & battery, ftp://anna:pw@example.org/x"),))
    content = page(settings, found)
    assert "horse" not in content and "pw@" not in content and "***" in Read(content).words


def test_the_page_runs_nothing_and_names_no_other_place(app: SmallApp) -> None:
    now = lived_in(app)
    content = page(app.settings, report(app.settings, lambda: now))
    seen = Read(content)
    assert seen.declarations == ["doctype html"]
    assert {tag for tag, _ in seen.tags}.isdisjoint({"script", "img", "link", "iframe", "object", "form", "a", "base"})
    assert not {name for _, facts in seen.tags for name in facts if name.startswith("on") or name in ("href", "src")}
    assert not re.search(r"https?://|url\(|@import", content)
    (policy,) = (one["content"] for one in seen.named("meta") if one.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy


# Size


def test_a_thousand_backups_are_a_small_page_that_says_what_it_leaves_out(app: SmallApp) -> None:
    long = "x" * 90
    backups = tuple(backup(f"b{n:04}_{long}", NOON - n * HOUR * 6, f"A note of some length {n}") for n in range(1000))
    content = page(app.settings, made_up(app.settings, backups))
    seen = Read(content)
    assert len(content.encode()) < 200_000
    assert f"These are the newest {ROWS} of 1,000." in seen.words
    assert f"b{ROWS - 1:04}_" in content and f"b{ROWS:04}_" not in content
    assert seen.numbers["backups"] == "1000"


@given(st.integers(0, 2**50))  # a petabyte
def test_a_scale_reaches_the_largest_in_a_few_round_steps(largest: int) -> None:
    top, step = scale(largest)
    assert top >= largest and 1 <= round(top / step) <= 4
    assert f"{step:e}"[:3] in ("1.0", "2.0", "2.5", "5.0")


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 2**62)), min_size=2, max_size=400))
def test_every_curve_stays_in_its_frame(points: list[tuple[int, int]]) -> None:
    sizes = [Size(NOON + timedelta(seconds=at), "x", size, size, size) for at, size in sorted(points)]
    for curve in curves(sizes, lambda moment: moment):
        places = [tuple(map(float, pair.split(","))) for pair in curve.line.split()]
        assert len(places) <= 200 and places == sorted(places, key=lambda place: place[0])
        assert all(0 <= x <= 520 and 0 <= y <= 180 for x, y in places)


# Output


def test_it_goes_to_stdout_or_into_a_file_and_takes_the_place_of_an_earlier_one(app: SmallApp) -> None:
    target = app.folder / "page.html"
    for _ in range(2):
        create_backup(app.settings, BackupRequest())
        assert str(target) in run_here(app, "report", "--output", str(target), check=0).out
        assert Read(target.read_text()).numbers["backups"] == str(len(report(app.settings).backups))
    assert [path.name for path in app.folder.iterdir() if "page" in path.name] == ["page.html"]
    run_here(app, "report", "-o", "bare.html", check=0)
    assert (app.backups / "bare.html").read_text().startswith("<!doctype html>")
    assert run_here(app, "report", "--output", "-", check=0).out.startswith("<!doctype html>")


def test_who_may_read_it_the_umask_says_and_a_person_after_that(app: SmallApp) -> None:
    page = app.backups / "page.html"
    before = os.umask(0o027)
    try:
        run_here(app, "report", "-o", "page.html", check=0)
        assert page.stat().st_mode & 0o777 == 0o640
        page.chmod(0o604)
        run_here(app, "report", "-o", "page.html", check=0)
    finally:
        os.umask(before)
    assert page.stat().st_mode & 0o777 == 0o604


def test_nothing_but_a_report_is_replaced(app: SmallApp) -> None:
    refused(app, "report", "--output", str(app.database), code=2, names=str(app.database), hint="another name")
    (app.folder / "link.html").symlink_to(app.database)
    refused(app, "report", "-o", str(app.folder / "link.html"), code=2, names="link.html", hint="another name")
    refused(app, "report", "-o", str(app.uploads), code=2, names=str(app.uploads), hint="another name")
    refused(app, "report", "-o", str(app.folder / "no" / "where"), code=2, names="no", hint="bare")
    refused(app, "report", "-o", ".x.html", code=2, names=".x.html", hint="letters")
    refused(app, "report", "-o", "x", "--json", code=2, names="--json", hint="--output")


def test_a_folder_that_may_not_be_written_is_an_error_in_one_sentence(app: SmallApp) -> None:
    (app.folder / "closed").mkdir(mode=0o555)
    refused_to_user(app, "report", "-o", str(app.folder / "closed" / "x.html"), code=1, names="closed", hint=".")


def test_a_link_to_an_earlier_report_stays_a_link(app: SmallApp) -> None:
    target, link = app.folder / "page.html", app.folder / "link.html"
    link.symlink_to(target)
    for _ in range(2):
        run_here(app, "report", "-o", str(link), check=0)
    assert link.is_symlink() and target.read_text().startswith("<!doctype html>")


def test_at_a_terminal_it_goes_into_the_backups_folder(app: SmallApp) -> None:
    handle, terminal = pty.openpty()
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder)}
    done = subprocess.run([sys.executable, COMMAND, "report"], env=environment, stdout=terminal, check=True)
    os.close(terminal)
    assert done.returncode == 0 and str(app.backups / "report.html") in os.read(handle, 5000).decode()
    assert (app.backups / "report.html").read_text().startswith("<!doctype html>")
    assert run_here(app, "list", "--json", check=0).json == []


def test_as_json_it_says_the_same(app: SmallApp) -> None:
    now = lived_in(app)
    told = run_here(app, "report", "--json", check=0).json
    assert flat({name: told[name] for name in run_here(app, "status", "--json").json}).keys()
    found = report(app.settings, lambda: now)
    assert [day["mark"] for day in told["days"]] == [day.mark for day in found.overview.days]
    assert told["days"][-1]["date"] == now.date().isoformat()
    assert [one["backup"] for one in told["sizes"]] == ["day_6", "day_5", "day_3", "day_1"]
    assert told["test_restores"][0]["backups"] == ["day_3"] and told["next_runs"]


# In a browser

IN_A_BROWSER = pytest.mark.needs("chromium", "chromedriver")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from browser import chromium

    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """A served folder, its address, and the requested paths."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path)

    folder = tmp_path / "www"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def opened(driver: Any, address: str) -> None:
    from browser import console, requests

    console(driver), requests(driver)
    driver.get(address)


@IN_A_BROWSER
@pytest.mark.parametrize("width", [1200, 380])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_a_complaint_and_asks_for_nothing_else(
    app: SmallApp, driver: Any, served: tuple[Path, str, list[str]], width: int, scheme: str
) -> None:
    from browser import console, look, requests

    folder, address, asked = served
    now = lived_in(app)
    (folder / "report.html").write_text(page(app.settings, report(app.settings, lambda: now)))
    look(driver, width, scheme=scheme)
    opened(driver, f"{address}/report.html")
    assert console(driver) == []
    assert {one for one in requests(driver) if not one.startswith("data:")} == {f"{address}/report.html"}
    assert asked == ["/report.html"]
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.execute_script("return getComputedStyle(document.querySelector('main')).display") == "grid"
    shade = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", shade)[:3])) < 150) is (scheme == "dark")
    assert driver.find_element("css selector", "h2").text == "Your data is backed up, with a warning."
    assert driver.execute_script("return [...document.querySelectorAll('svg')].every(one => one.getBBox().width > 5)")


@IN_A_BROWSER
def test_hostile_names_do_no_harm_in_a_browser(app: SmallApp, driver: Any, tmp_path: Path) -> None:
    from browser import console, look, requests

    (tmp_path / "page.html").write_text(page(app.settings, hostile_report(app.settings, HOSTILE)))
    look(driver, 380)
    opened(driver, f"file://{tmp_path}/page.html")
    assert driver.title == "Warning: backups of pats"
    assert console(driver) == [] and requests(driver) == [f"file://{tmp_path}/page.html"]
    assert HOSTILE[0] in driver.find_element("css selector", "table").text
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 380


@IN_A_BROWSER
def test_should_anything_slip_through_the_browser_still_neither_runs_nor_fetches_it(
    app: SmallApp, driver: Any, served: tuple[Path, str, list[str]]
) -> None:
    from browser import console

    folder, address, asked = served
    harm = f"<script>document.title='harmed'</script><img src='{address}/x' onerror=\"document.title='harmed'\">"
    content = page(app.settings, made_up(app.settings, ())).replace("<main>", f"<main>{harm}")
    (folder / "page.html").write_text(content)
    opened(driver, f"{address}/page.html")
    assert driver.title == "Critical: backups of pats" and asked == ["/page.html"]
    assert any("Content Security Policy" in one for one in console(driver))
