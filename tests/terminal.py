"""Run a command on a new terminal, and record its output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from small_app import COMMAND, SmallApp, clean_environment

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Seen:
    """A terminal's output, with and without its control sequences, and the exit code."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        return ESCAPE.sub("", self.raw)


def at_a_terminal(app: SmallApp, *arguments: str, answer: bytes | None = None, **environment: str) -> Seen:
    """Run the command on a new terminal; type the answer once a `[y/N]` question appears."""
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(COMMAND), *arguments],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "TERM": "xterm", **environment},
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: take_terminal(inner),
    )
    os.close(inner)
    seen, deadline = b"", time.monotonic() + 120
    with contextlib.suppress(OSError):  # reading from a terminal fails once its last program has ended
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 65536)
            if answer is not None and b"[y/N]" in seen:
                os.write(terminal, answer)
                answer = None
    os.close(terminal)
    try:
        return Seen(process.wait(120), seen.decode())
    finally:
        process.kill()


def after_a_tab(typed: str, folder: Path, **environment: str) -> str:
    """Return what zsh shows when Tab is pressed after these words, up to the resulting line in angle brackets."""
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-d", "-i"], {**clean_environment(), "TERM": "dumb", "PS1": "$ ", **environment})
    seen, deadline = b"", time.monotonic() + 60
    os.write(terminal, typed.encode() + b"\t\x07")
    while not re.search(rb"<[^>]*>", seen) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 65536)
    os.close(terminal)
    os.waitpid(child, 0)
    return ESCAPE.sub("", seen.decode())


def take_terminal(handle: int) -> None:
    """Make this the controlling terminal of the process, so that Ctrl-C reaches it."""

    fcntl.ioctl(handle, termios.TIOCSCTTY, 0)
