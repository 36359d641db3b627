"""The report as one self-contained HTML page: no script, no network, no further file."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from backupkit.config.settings import Settings
from backupkit.monitoring.report_facts import Report
from backupkit.web import html

ROWS, TEST_RESTORES = 150, 6  # at most on the page; `list` and `history` show them all
WAY_BACK = (
    ("restore latest --dry-run", "What would it change? Nothing is touched."),
    ("restore latest", "Put the newest back; a copy of what is there now is made first."),
    ("restore NAME", "Another one, by its name in the table above."),
    ("undo", "Take the restore back."),
)


def page(settings: Settings, found: Report) -> str:
    """Return the whole page, without any secret."""
    css = stylesheet()
    worst = found.status.reasons[0].text if found.status.reasons else ""
    return html.render_page(
        "report.html",
        settings,
        {
            "found": found,
            "numbers": found.status.numbers,
            "headline": found.status.sentence.partition(worst)[0].strip() if worst else found.status.sentence,
            "copies": {one.name: one for one in found.status.numbers.copies.remotes},
            "backups": found.backups[:ROWS],
            "test_restores": found.overview.test_restores[:TEST_RESTORES],
            "way_back": WAY_BACK,
            "css": css,
            "css_checksum": b64encode(sha256(css.encode()).digest()).decode(),
        },
    )


def stylesheet() -> str:
    """Return the CSS of the report and the pages."""
    return files("backupkit.web").joinpath("static", "style.css").read_text(encoding="utf-8")
