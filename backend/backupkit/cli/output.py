"""Results on stdout, as the options of the command ask for: as text, or as one JSON document."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from backupkit.config.deployment import in_full
from backupkit.model.errors import BackupError, Refused
from backupkit.model.names import printable_text
from backupkit.monitoring.notify import run_report

if TYPE_CHECKING:
    from backupkit.cli.tables import Terminal


class CannotPrint(BackupError):
    """Stdout does not take what the command prints; `is_unread` if its reader has closed the pipe, as `head` does."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The result cannot be written to stdout: {error.strerror}.", "Send it elsewhere.")
        self.is_unread = error.errno == errno.EPIPE


class Output:
    """The output of a command. The options `--json`, `--quiet` and `--wide` set its form through their callbacks.

    A command hands over both forms of its result, text and document, and does not check which is printed.
    What cannot be printed stops no command: `unprinted` is the reason, which counts when the command has ended.
    """

    def __init__(self) -> None:
        self.is_missing = False
        """Whether the program was started without a stdout."""
        self.begin(is_json=False)

    def begin(self, is_json: bool) -> None:
        """Reset for a new command; the callbacks of its options set the rest."""
        self.is_json, self.is_quiet, self.is_wide = is_json, False, False
        self.has_document = False
        self.is_of_work = False
        """Whether the result tells of work that is done: then the work counts, and not that it was printed."""
        self.unprinted: CannotPrint | None = None

    def result(self, lines: Iterable[str], document: object, versioned: bool = True, of_work: bool = False) -> None:
        """Print the result in the form asked for; add its text to the run report in either case.

        `of_work`: it tells of work that is done.
        """
        self.is_of_work = self.is_of_work or of_work
        if not self.is_json:
            lines = list(lines)
        run_report.add_result(lines)
        self.lines(lines)
        self.document(document, versioned)

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of text; print nothing with `--json`. Control characters do not reach the terminal."""
        from backupkit.cli.tables import Drawn

        for line in () if self.is_json else lines:
            self._print(line if isinstance(line, Drawn) else printable_text(in_full(line)))

    def document(self, document: object, versioned: bool = True) -> None:
        """Print the one JSON document; print nothing without `--json`. An iterator becomes a list."""
        if self.is_json:
            from backupkit.cli import json_

            self._print(json_.text(list(document) if isinstance(document, Iterator) else document, versioned))
            self.has_document = True

    def text(self, text: str) -> None:
        """Print the text unchanged, with or without `--json`: the content of a file requested on stdout."""
        self._print(text, end="")
        self.flush()

    @contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """Yield stdout for the bytes of a file; raise `CannotPrint` where it takes none, `Refused` if it is closed."""
        if self.is_missing:
            raise Refused("There is no stdout: it is closed.", "Name a file instead of -.")
        stdout = cast("BinaryIO", _Stdout())
        yield stdout
        stdout.flush()

    def flush(self) -> None:
        """Write what waits to be printed; if that fails, drop it, or Python would try again at its exit."""
        try:
            sys.stdout.flush()
        except OSError as error:
            self.unprinted = self.unprinted or CannotPrint(error)
            _replace(sys.stdout.fileno())

    def _print(self, text: str, end: str = "\n") -> None:
        try:
            print(text, end=end)
        except OSError as error:
            self.unprinted = self.unprinted or CannotPrint(error)

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


class _Stdout(io.RawIOBase):
    """Stdout, whose errors are not taken for those of a file that is read meanwhile."""

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        try:
            return sys.stdout.buffer.write(content)
        except OSError as error:
            raise CannotPrint(error) from error

    def flush(self) -> None:
        try:
            sys.stdout.buffer.flush()
        except OSError as error:
            raise CannotPrint(error) from error


def _replace(handle: int) -> None:
    """Let a stream that takes nothing more lead nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, handle)
    os.close(nowhere)


out = Output()


def flush_streams() -> None:
    """Write all that waits to be printed; what cannot be written is dropped, without a word of Python's at its exit."""
    out.flush()
    try:
        sys.stderr.flush()
    except OSError:
        _replace(sys.stderr.fileno())
