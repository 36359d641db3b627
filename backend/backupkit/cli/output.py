"""Results on stdout: in words for people, or as one JSON document."""

from __future__ import annotations

from collections.abc import Iterable

from backupkit.monitoring.notify import run_report


def put_result(lines: Iterable[str], document: object, json: bool) -> None:
    """What the command came to, in words or as JSON; the words go into the report in either case."""
    from backupkit.cli import json_

    lines = list(lines)
    run_report.add_result(lines)
    json_.put(document) if json else put_lines(lines)


def put_lines(lines: Iterable[str]) -> None:
    """Print results, a line each. No control character in them reaches the terminal, but the colours of a table."""
    from backupkit.cli.tables import Drawn
    from backupkit.config.deployment import in_full
    from backupkit.model.names import printable

    for line in lines:
        print(line if isinstance(line, Drawn) else printable(in_full(line)))
