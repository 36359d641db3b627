"""Results on stdout, as the options of the command ask for: as text, or as one JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from backupkit.config.deployment import in_full
from backupkit.model.names import printable_text
from backupkit.monitoring.notify import run_report

if TYPE_CHECKING:
    from backupkit.cli.tables import Terminal


class Output:
    """The output of a command. The options `--json`, `--quiet` and `--wide` set its form through their callbacks.

    A command hands over both forms of its result, text and document, and does not check which is printed.
    """

    def __init__(self) -> None:
        self.begin(is_json=False)

    def begin(self, is_json: bool) -> None:
        """Reset for a new command; the callbacks of its options set the rest."""
        self.is_json, self.is_quiet, self.is_wide = is_json, False, False
        self.has_document = False

    def result(self, lines: Iterable[str], document: object, versioned: bool = True) -> None:
        """Print the result in the form asked for; add its text to the run report in either case."""
        if not self.is_json:
            lines = list(lines)
        run_report.add_result(lines)
        self.lines(lines)
        self.document(document, versioned)

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of text; print nothing with `--json`. Control characters do not reach the terminal."""
        from backupkit.cli.tables import Drawn

        for line in () if self.is_json else lines:
            print(line if isinstance(line, Drawn) else printable_text(in_full(line)))

    def document(self, document: object, versioned: bool = True) -> None:
        """Print the one JSON document; print nothing without `--json`. An iterator becomes a list."""
        if self.is_json:
            from backupkit.cli import json_

            print(json_.text(list(document) if isinstance(document, Iterator) else document, versioned))
            self.has_document = True

    def text(self, text: str) -> None:
        """Print the text unchanged, with or without `--json`: the content of a file requested on stdout."""
        print(text, end="", flush=True)

    def screen(self) -> Terminal | None:
        """Return the terminal that tables are fitted to, or None if stdout is a pipe or a file."""
        from backupkit.cli import tables

        return tables.terminal(self.is_wide)

    # Callbacks of the options; each returns the value that the command gets.

    def use_json(self, is_asked: bool) -> bool:
        """Choose JSON. A group whose own `--json` was not given leaves alone what was typed for its command."""
        self.is_json = is_asked or self.is_json
        return is_asked

    def use_all_columns(self, is_asked: bool) -> bool:
        """Choose between all columns of a table and those that fit."""
        self.is_wide = is_asked
        return is_asked

    def be_quiet(self, is_asked: bool) -> bool:
        """Hide or show progress and notices."""
        self.is_quiet = is_asked
        return is_asked


out = Output()
