"""Results on stdout, as the command's options want them: in words, or as one JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from backupkit.config.deployment import in_full
from backupkit.model.names import printable_text
from backupkit.monitoring.notify import run_report

if TYPE_CHECKING:
    from backupkit.cli.tables import Terminal


class Output:
    """What a command shows, and how: `--json`, `--quiet` and `--wide` set it by themselves.

    A command hands over both forms of its result and never asks which is wanted.
    """

    def __init__(self) -> None:
        self.begin(is_json=False)

    def begin(self, is_json: bool) -> None:
        """A command begins; more is known once its options are read."""
        self.is_json, self.is_quiet, self.is_wide = is_json, False, False
        self.has_document = False

    def result(self, lines: Iterable[str], document: object, versioned: bool = True) -> None:
        """Show what the command came to; its words go into the report in either case."""
        if not self.is_json:
            lines = list(lines)
        run_report.add_result(lines)
        self.lines(lines)
        self.document(document, versioned)

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines for people; nothing with `--json`. Control characters do not reach the terminal."""
        from backupkit.cli.tables import Drawn

        for line in () if self.is_json else lines:
            print(line if isinstance(line, Drawn) else printable_text(in_full(line)))

    def document(self, document: object, versioned: bool = True) -> None:
        """Print the one JSON document; nothing without `--json`. An iterator becomes a list."""
        if self.is_json:
            from backupkit.cli import json_

            print(json_.text(list(document) if isinstance(document, Iterator) else document, versioned))
            self.has_document = True

    def text(self, text: str) -> None:
        """Print what is a result in any case, as it is: the content of a file that was asked for on stdout."""
        print(text, end="", flush=True)

    def screen(self) -> Terminal | None:
        """The terminal that tables are fitted to; None for a pipe or a file."""
        from backupkit.cli import tables

        return tables.terminal(self.is_wide)

    # The callbacks of the options: each returns what the command gets.

    def use_json(self, is_asked: bool) -> bool:
        """Results are JSON, or not."""
        self.is_json = is_asked
        return is_asked

    def use_all_columns(self, is_asked: bool) -> bool:
        """Tables have all their columns, or those that fit."""
        self.is_wide = is_asked
        return is_asked

    def be_quiet(self, is_asked: bool) -> bool:
        """No progress and no notice is shown, or both are."""
        self.is_quiet = is_asked
        return is_asked


out = Output()
