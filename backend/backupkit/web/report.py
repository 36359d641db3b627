"""Two files that need nothing else: the report, an HTML page without script, and the recovery sheet, to print."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files

from backupkit.cli.host import Host
from backupkit.config.secrets import scrubbed
from backupkit.config.settings import Settings
from backupkit.model.backup import GitFacts
from backupkit.monitoring.recovery_kit import RecoveryKit
from backupkit.monitoring.report_facts import Report
from backupkit.web import html

ROWS, TEST_RESTORES = 150, 6  # at most on the page; `list` and `history` show them all


def page(settings: Settings, found: Report) -> str:
    """Return the report as a page, without any secret."""
    css = files("backupkit.web").joinpath("static", "style.css").read_text(encoding="utf-8")
    worst = found.status.reasons[0].text if found.status.reasons else ""
    return html.render(
        "report.html",
        settings,
        found=found,
        headline=found.status.sentence.partition(worst)[0].strip() if worst else found.status.sentence,
        copies={one.name: one for one in found.status.numbers.copies.remotes},
        backups=found.backups[:ROWS],
        test_restores=found.overview.test_restores[:TEST_RESTORES],
        css=css,
        css_checksum=b64encode(sha256(css.encode()).digest()).decode(),
    )


def sheet(kit: RecoveryKit, host: Host, git: GitFacts | None) -> Iterator[str]:
    """Yield the lines of the sheet as Markdown, without any secret; its reader may never have seen this tool."""
    facts = kit.newest.metadata.git if kit.newest and kit.newest.metadata and kit.newest.metadata.git else git
    found = html.render(
        "recovery-sheet.md",
        kit.settings,
        kit=kit,
        host=host,
        origin=shlex.quote(scrubbed(host.origin) or "ADDRESS-OF-THE-REPOSITORY"),
        folder=shlex.quote(host.folder.rsplit("/", 1)[-1] or "app"),
        commit=facts.commit if facts else "",
    )
    yield from found.splitlines()
