"""The report as one HTML page: complete without a script, a network or a file beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from xml.etree.ElementTree import Element

from backupkit.cli import render
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.backup import Backup, State
from backupkit.model.names import few
from backupkit.model.operation import Outcome
from backupkit.model.version import VERSION
from backupkit.monitoring.overview import Overview, TestRestore
from backupkit.monitoring.report_facts import Report
from backupkit.monitoring.status import Level, Numbers, Status
from backupkit.remotes.copies import Copies, RemoteState
from backupkit.web.report import charts
from backupkit.web.report.elements import Child, element, scrub, written
from backupkit.web.report.numbers import moment_of, tiles
from backupkit.web.report.style import CSS

ROWS, TEST_RESTORES = 150, 6  # that the page shows; `list` and `history` have them all
_LEVELS: dict[Level, str] = {"fine": "Fine", "warning": "Warning", "critical": "Critical"}
_STATES: dict[State, tuple[str, str]] = {
    "proven": ("good", "✓ "),
    "checked": ("good", ""),
    "unchecked": ("soft", ""),
    "damaged": ("bad", "✕ "),
    "raw": ("doubtful", "! "),
}
_OUTCOMES: dict[Outcome, tuple[str, str]] = {
    "success": ("good", "✓ proven"),
    "warning": ("doubtful", "! proven, with warnings"),
    "failure": ("bad", "✕ failed"),
    "interrupted": ("doubtful", "! interrupted"),
}


def page(settings: Settings, found: Report) -> str:
    """The whole page, without any secret."""
    tree = element("html", _head(settings, found), _body(settings, found), lang="en")
    scrub(tree, settings.secrets)
    tree[0].append(_style())  # whose checksum is in the policy: nothing may change it
    return written(tree)


def _head(settings: Settings, found: Report) -> Element:
    # A browser loads nothing and runs nothing, whatever a name or a note in it says.
    checksum = b64encode(sha256(CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{checksum}'; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=f"backupkit report {VERSION}"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="robots", content="noindex"),
        element("title", f"{_LEVELS[found.status.level]}: backups of {settings.app_id}"),
    )


def _style() -> Element:
    style = element("style")
    style.text = CSS
    return style


def _body(settings: Settings, found: Report) -> Element:
    numbers = found.status.numbers
    charts_of_days = element("div", _calendar(found), _sizes(settings, found), class_="two")
    tests_and_runs = element("div", _test_restores(settings, found), _runs(settings, found), class_="two")
    rules_and_way_back = element("div", _retention(found), _way_back(settings), class_="two")
    return element(
        "body",
        element(
            "main",
            _header(settings, numbers),
            _status(found.status),
            tiles(settings, numbers),
            charts_of_days,
            tests_and_runs,
            _copies(settings, numbers.copies),
            _backups(settings, found),
            rules_and_way_back,
            element("footer", f"backupkit {VERSION}. The backups are in {settings.dir}."),
        ),
    )


def _header(settings: Settings, numbers: Numbers) -> Element:
    made = moment_of(settings, "now", numbers.now)
    told = element("span", "As of ", made, f" ({settings.timezone})", class_="soft")
    return element("header", element("h1", f"Backups of {settings.app_id}"), told)


def _status(found: Status) -> Element:
    worst = found.reasons[0].text if found.reasons else ""
    headline = found.sentence.partition(worst)[0].strip() if worst else found.sentence
    reasons = (
        element("li", element("p", reason.text), element("code", reason.fix, class_="type")) for reason in found.reasons
    )
    said = element(
        "div",
        element("p", _LEVELS[found.level], class_="level"),
        element("h2", headline),
        element("ul", *reasons) if worst else None,
    )
    return element("div", charts.level_mark(found.level), said, class_=f"status {found.level}")


# The drawings.


def _calendar(found: Report) -> Element:
    days = found.overview.days
    marks = [mark for mark in charts.MEANINGS if any(day.mark == mark for day in days)]
    legend = (element("li", charts.day_mark(mark), charts.MEANINGS[mark]) for mark in marks if mark != "before")
    return element(
        "section",
        element("h2", "Days with and without a backup"),
        charts.calendar(found.overview),
        element("ul", *legend, class_="legend"),
        element("p", _days_without(found.overview), class_="soft"),
    )


def _days_without(found: Overview) -> str:
    missing = [f"{day}" for day in found.days_without]
    if not missing:
        has_any = any(day.mark not in ("before", "open") for day in found.days)
        return "No day has been without a backup." if has_any else "There is no backup yet."
    more = f" and {len(missing) - 5} earlier" if len(missing) > 5 else ""
    return f"{render.counted(len(missing), 'day')} without a backup: {', '.join(missing[:-6:-1])}{more}."


def _sizes(settings: Settings, found: Report) -> Element:
    drawn = list(charts.size_charts(found.overview.sizes, settings.local))
    none_yet = None if drawn else element("p", "There is something to draw when there are two backups.", class_="soft")
    return element("section", element("h2", "Size over time"), *drawn, none_yet)


# The tables.


def _table(heads: Iterable[tuple[str, str]], rows: Iterable[Element]) -> Element:
    cells = (element("th", title, scope="col", class_=kind or None) for title, kind in heads)
    head = element("thead", element("tr", *cells))
    return element("div", element("table", head, element("tbody", *rows)), class_="wide")


def _row(*cells: tuple[Child, str]) -> Element:
    return element("tr", *(element("td", child, class_=kind or None) for child, kind in cells))


def _plainly(settings: Settings, at: datetime) -> str:
    return f"{settings.local(at):%Y-%m-%d %H:%M}"


def _test_restores(settings: Settings, found: Report) -> Element:
    heads = (("Backup", ""), ("When", ""), ("Took", "number"), ("Result", ""))
    rows = [_test_restore(settings, one) for one in found.overview.test_restores[:TEST_RESTORES]]
    fix = settings.reach.tool("verify --latest --test-restore")
    none = (element("p", "None yet. Prove that your backups can be restored:"), element("code", fix, class_="type"))
    title = element("h2", "Last test restores")
    return element("section", title, *((_table(heads, rows),) if rows else none))


def _test_restore(settings: Settings, one: TestRestore) -> Element:
    kind, words = _OUTCOMES.get(one.outcome, ("soft", one.outcome))
    took = f"{one.seconds:.1f} s" if one.seconds is not None else ""
    result = element("span", element("span", words, class_=kind), f" {one.error}" if one.error else None)
    return _row((few(one.backups, 2), ""), (_plainly(settings, one.at), "moment"), (took, "number"), (result, ""))


def _runs(settings: Settings, found: Report) -> Element:
    heads = (("What", ""), ("When", ""), ("Why", ""))
    rows = [
        _row((run.task, ""), (f"{settings.local(run.at):%a %Y-%m-%d %H:%M}", "moment"), (run.why, "soft last"))
        for run in found.runs
    ]
    told = "" if found.is_scheduled else "No scheduler is running; these would be its runs."
    none = "Nothing is scheduled: see the settings enabled, automatic_daily and schedule."
    return element(
        "section",
        element("h2", "Next runs"),
        element("p", told if rows else none, class_="soft") if told or not rows else None,
        _table(heads, rows) if rows else None,
    )


def _copies(settings: Settings, known: Copies) -> Element | None:
    heads = (("Remote", ""), ("Place", ""), ("Backups", "number"), ("Newest", ""), ("Last asked", ""))
    states = {one.name: one for one in known.remotes}
    rows = [_copy(settings, name, table.place, states.get(name)) for name, table in settings.remotes.items()]
    return element("section", element("h2", "Copies elsewhere"), _table(heads, rows)) if rows else None


def _copy(settings: Settings, remote: str, place: str, state: RemoteState | None) -> Element:
    asked_at = state.asked_at if state else None
    return _row(
        (remote, ""),
        (place, ""),
        (f"{state.backups:,}" if state and asked_at else "not known", "number"),
        (state.newest if state else None, ""),
        (_plainly(settings, asked_at) if asked_at else "never", "moment"),
    )


def _backups(settings: Settings, found: Report) -> Element:
    heads = (
        ("Name", ""),
        ("Made", ""),
        ("Kind", ""),
        ("Size", "number"),
        ("Adds", "number"),
        ("Revision", ""),
        ("State", ""),
        ("Note", ""),
    )
    rows = [_backup(settings, one) for one in found.backups[:ROWS]]
    none = element("p", "There are none yet. Make one: ", element("code", settings.reach.tool("backup"), class_="type"))
    return element(
        "section",
        element("h2", "Backups"),
        _table(heads, rows) if rows else none,
        _left_out(settings, len(found.backups)),
        class_="long",
    )


def _left_out(settings: Settings, number: int) -> Element | None:
    if number <= ROWS:
        return None
    command = element("code", settings.reach.tool("list"), class_="type")
    return element("p", f"These are the newest {ROWS} of {number:,}. All of them: ", command, class_="soft")


def _backup(settings: Settings, backup: Backup) -> Element:
    metadata = backup.metadata
    if metadata is None:
        error = element("td", element("span", "✕ damaged ", class_="bad"), backup.error, class_="last", colspan=7)
        return element("tr", element("td", backup.name), error)
    return _row(
        (backup.name, ""),
        (_plainly(settings, metadata.created_at), "moment"),
        (metadata.kind, ""),
        (format_bytes(backup.size_bytes), "number"),
        (format_bytes(backup.unique_bytes), "number adds"),
        (metadata.schema_name, ""),
        (_state(settings, backup), ""),
        (render.remark(backup), "soft last"),
    )


def _state(settings: Settings, backup: Backup) -> Element:
    kind, mark = _STATES[backup.state]
    marks = ", unusual" * bool(backup.unusual) + ", pinned" * backup.pinned
    return element("span", element("span", f"{mark}{render.state_and_day(settings, backup)}", class_=kind), marks)


# What is to be known beside.


def _retention(found: Report) -> Element:
    rules = (element("li", line) for line in render.policy(found.policy))
    return element("section", element("h2", "What is kept"), element("ul", *rules, class_="kept"))


def _way_back(settings: Settings) -> Element:
    steps = (
        ("restore latest --dry-run", "What would it change? Nothing is touched."),
        ("restore latest", "Put the newest back; a copy of what is there now is made first."),
        ("restore NAME", "Another one, by its name in the table above."),
        ("undo", "Take the restore back."),
    )
    told = (
        element(
            "li", element("code", settings.reach.tool(words), class_="type"), element("span", meaning, class_="soft")
        )
        for words, meaning in steps
    )
    return element("section", element("h2", "Getting data back"), element("ul", *told, class_="steps"))
