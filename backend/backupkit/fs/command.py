"""A user's command, run without a shell and with a deadline; at the end its process group is killed."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backupkit.fs import process

_CHECK_INTERVAL = 0.1  # seconds between two checks of the deadline
_PIECE = 64 * 1024
_MAX_LINES, _MAX_LINE_LENGTH = 200, 1000  # lines, and characters of a line, that go to the log


def run(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout: float,
    say: Callable[[str], None],
    tick: Callable[[], None],
) -> int:
    """Run the command in the folder, and return its exit code; raise `TimeoutError` at the deadline.

    `say` gets each line of its output; `tick` is called several times a second. Raise `OSError` if the command cannot
    be started. Whatever ends the wait, an error raised by `tick` included, kills the command and its process group.
    """
    child = subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches only this process, which then kills the command
    )
    assert child.stdout
    output = _Lines(child.stdout.fileno(), say)
    try:
        _wait(child, output, time.monotonic() + timeout, tick)
        return child.returncode
    finally:
        process.end_group(child)
        output.finish()
        child.stdout.close()


def _wait(child: subprocess.Popen[bytes], output: _Lines, until: float, tick: Callable[[], None]) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(output.pipe, selectors.EVENT_READ)
        while child.poll() is None:
            if time.monotonic() > until:
                raise TimeoutError
            tick()
            if output.is_over:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_CHECK_INTERVAL)
            elif selector.select(_CHECK_INTERVAL):
                output.take()


class _Lines:
    """A pipe's output, line by line; of a long output only the beginning."""

    def __init__(self, pipe: int, say: Callable[[str], None]) -> None:
        self.pipe, self.is_over = pipe, False
        self._say, self._rest, self._count = say, b"", 0
        os.set_blocking(pipe, False)

    def take(self) -> bool:
        """Read what the pipe holds, and return whether it held anything."""
        try:
            piece = os.read(self.pipe, _PIECE)
        except BlockingIOError:
            return False
        self.is_over = not piece
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[:_PIECE]
        for line in lines:
            self._pass_on(line)
        return bool(piece)

    def finish(self) -> None:
        """Read what the pipe holds now, and stop: a process that left the group may keep it open."""
        for _ in range(_MAX_LINES):
            if not self.take():
                break
        self._pass_on(self._rest)
        if self._count > _MAX_LINES:
            self._say(f"… and {self._count - _MAX_LINES} more lines")

    def _pass_on(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if not text:
            return
        self._count += 1
        if self._count <= _MAX_LINES:
            self._say(text if len(text) <= _MAX_LINE_LENGTH else f"{text[:_MAX_LINE_LENGTH]}…")
