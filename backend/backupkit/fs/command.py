"""A command of the user's, run without a shell and with a deadline; nothing of its process group goes on."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backupkit.fs import process

_LOOK = 0.1  # seconds between two looks at the deadline
_PIECE = 64 * 1024
_MOST_LINES, _LONGEST = 200, 1000  # of one command's output: the log is for reading


def run(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout: float,
    say: Callable[[str], None],
    tick: Callable[[], None],
) -> int:
    """The exit code of the command, run in that folder; raises `TimeoutError` at the deadline, `OSError` without it.

    Whatever ends the wait, also what `tick` raises, ends the command and what it started in its process group.
    """
    child = subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches us, and we end it
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
                    child.wait(_LOOK)
            elif selector.select(_LOOK):
                output.take()


class _Lines:
    """What comes out of a pipe, line by line; of very much only the beginning."""

    def __init__(self, pipe: int, say: Callable[[str], None]) -> None:
        self.pipe, self.is_over = pipe, False
        self._say, self._rest, self._count = say, b"", 0
        os.set_blocking(pipe, False)

    def take(self) -> bool:
        """Whether there was something to read."""
        try:
            piece = os.read(self.pipe, _PIECE)
        except BlockingIOError:
            return False
        self.is_over = not piece
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[:_PIECE]
        for line in lines:
            self._put(line)
        return bool(piece)

    def finish(self) -> None:
        """What is in the pipe now is the end: something that left the group may hold it open."""
        for _ in range(_MOST_LINES):
            if not self.take():
                break
        self._put(self._rest)
        if self._count > _MOST_LINES:
            self._say(f"… and {self._count - _MOST_LINES} more lines")

    def _put(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if not text:
            return
        self._count += 1
        if self._count <= _MOST_LINES:
            self._say(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
