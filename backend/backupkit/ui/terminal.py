"""What draws on the terminal; also when that terminal is gone, so that the process can end."""

from __future__ import annotations

import contextlib
from typing import IO, Any

from textual.drivers.linux_driver import LinuxDriver


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
