"""Terminal output: only printable text; write errors are ignored if the terminal is gone, so that the process ends."""

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
    """A filter against control sequences in names and notes, which a terminal would obey."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [one if one.control or one.text.isprintable() else _printable(one) for one in segments]


def _printable(segment: Segment) -> Segment:
    # Keep the width in cells, so that the layout fits.
    letters = (letter if printable_text(letter) == letter else " " * cell_len(letter) for letter in segment.text)
    return Segment("".join(letters), segment.style)


class _FailsafeFile:
    """A terminal file that ignores write errors: one would end Textual's writing thread, and drawing would block."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self.fileno = file, file.fileno

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


class TerminalDriver(LinuxDriver):
    """Textual's driver, which keeps running if the terminal is gone."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._file: Any = _FailsafeFile(self._file)
