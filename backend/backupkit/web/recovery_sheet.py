"""The recovery sheet: Markdown to print, for a reader who may never have seen this tool."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from backupkit.cli.host import Host
from backupkit.config.secrets import scrubbed
from backupkit.model.backup import GitFacts
from backupkit.monitoring.recovery_kit import RecoveryKit
from backupkit.web import html


def sheet(kit: RecoveryKit, host: Host, git: GitFacts | None) -> Iterator[str]:
    """Yield the lines of the sheet, without any secret."""
    facts = kit.newest.metadata.git if kit.newest and kit.newest.metadata and kit.newest.metadata.git else git
    values = {
        "kit": kit,
        "host": host,
        "origin": shlex.quote(scrubbed(host.origin) or "ADDRESS-OF-THE-REPOSITORY"),
        "folder": shlex.quote(host.folder.rsplit("/", 1)[-1] or "app"),
        "commit": facts.commit if facts else "",
    }
    yield from html.render_text("recovery-sheet.md", kit.settings, values).splitlines()
