"""What draws on the terminal: only what can be printed; and nothing where it is gone, so that the process can end."""

from __future__ import annotations

import contextlib
from typing import IO, Any

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.drivers.linux_driver import LinuxDriver
from textual.filter import LineFilter

from backupkit.model.names import printable_text


class PrintableFilter(LineFilter):
    """Nothing that a terminal could take for a command is drawn, whatever names and notes hold."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.control or segment.text.isprintable() else _harmless(segment) for segment in segments
        ]


def _harmless(segment: Segment) -> Segment:
    # As many cells as before, or the line would be longer than its place.
    letters = (letter if printable_text(letter) == letter else " " * cell_len(letter) for letter in segment.text)
    return Segment("".join(letters), segment.style)


class _Lasting:
    """A terminal to write to, where what cannot be written any more is lost, and no error.

    Textual writes in a thread, from a short queue. Were that thread to end, whoever draws would wait for ever.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file, self.fileno = file, file.fileno

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


class TerminalDriver(LinuxDriver):
    """Textual's own, which goes on where nobody looks any more."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._file: Any = _Lasting(self._file)
