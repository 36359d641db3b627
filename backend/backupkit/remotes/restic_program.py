"""Run the restic program and parse its output. It is stopped when we stop, or when it shows no progress."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

from backupkit.model.errors import RemoteAway
from backupkit.model.events import EventListener, Progress
from backupkit.model.names import printable

OLDEST = (0, 12)
ANY_TARGETS = (0, 16)  # since then it keeps the target of a link that is not UTF-8
RECENT = (0, 17)  # since then its exit code tells a locked repository, a missing one and a wrong password apart
NO_BUCKET = "specified bucket does not exist"  # restic retries this for 15 minutes
_BY_SSH = "subprocess ssh: "
_STACK_TRACE_LINE = re.compile(r"\s*(\S+\.(go|s):\d+|(main|runtime|github\.com|golang\.org)[./]\S+)$")


def installed_version() -> tuple[int, int] | None:
    """Return the version of the installed restic; None if there is none, or it does not say."""
    return version_in(version_output()) if shutil.which("restic") else None


def version_in(output: str) -> tuple[int, int] | None:
    """Return the version in the output of `restic version`, or None."""
    found = re.search(r"restic (\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2])) if found else None


def version_output() -> str:
    return subprocess.run(["restic", "version"], capture_output=True, text=True, timeout=60, check=False).stdout


class Done(Struct, frozen=True):
    """restic's exit code, the JSON that it printed, and its other output."""

    code: int
    printed: tuple[Any, ...]
    said: str


def run(
    words: Sequence[str],
    environment: Mapping[str, str],
    folder: Path | None,
    emit: EventListener,
    stall: float,
    name: str,
) -> Done:
    """Run restic to its end. Stop it if this process is interrupted; raise `RemoteAway` after `stall` idle seconds."""
    process = subprocess.Popen(
        ["restic", *words],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
    )
    assert process.stdout and process.stderr
    with process:
        watch = _Watch(process, stall)
        said: list[str] = []
        listening = threading.Thread(target=_collect, args=(process, said), daemon=True)
        listening.start()
        try:
            printed = tuple(_parse_output(process.stdout, emit, watch.alive))
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            watch.over()
        listening.join(10)
    if watch.ended:
        raise RemoteAway(
            f"The remote {name} showed no progress for {stall:g} s, and restic was ended.",
            hint="Is the network up? What was sent so far is not sent again.",
        )
    plain = [one for one in printed if isinstance(one, str)]
    return Done(code, tuple(one for one in printed if not isinstance(one, str)), "\n".join((*plain, *said)))


class _Watch:
    """A watchdog that stops a process after `seconds` without a sign of life."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self.ended = False
        self._process, self._seconds = process, seconds
        self._last, self._over = time.monotonic(), threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def alive(self) -> None:
        self._last = time.monotonic()

    def over(self) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self._seconds)):
            if time.monotonic() - self._last > self._seconds:
                self.ended = True
                return _end(self._process)


def _end(process: subprocess.Popen[str]) -> None:
    """Stop the process with SIGINT, so that it removes its lock; kill it after 10 s."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _collect(process: subprocess.Popen[str], lines: list[str]) -> None:
    """Collect the messages on stderr; stop the process if it waits for a bucket to appear."""
    for line in process.stderr or ():
        lines.append(_message(line))
        if NO_BUCKET in line:
            _end(process)


def _message(line: str) -> str:
    """Return the line as plain text; with --json, restic since 0.17 prints its fatal error as JSON."""
    try:
        return str(json.loads(line)["message"]).rstrip("\n")
    except (ValueError, TypeError, KeyError):
        return line.rstrip("\n")


def _parse_output(stream: IO[str], emit: EventListener, alive: Callable[[], None]) -> Iterator[Any]:
    """Yield each line that restic prints, parsed if it is JSON; emit its progress instead of yielding it."""
    last = -1.0
    for line in stream:
        try:
            found = json.loads(line)
        except ValueError:
            alive()
            yield line.rstrip("\n")
            continue
        if not isinstance(found, dict) or found.get("message_type") != "status":
            alive()
            yield found
            continue
        done = found.get("bytes_done", 0)
        if (share := found.get("percent_done", 0) + done) != last:
            last = share
            alive()
            emit(Progress(done))


def reason_in(text: str) -> str:
    """Return the line that gives the reason: restic's fatal one, or ssh's if ssh ended; else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _STACK_TRACE_LINE.match(line)]
    telling = [line for line in lines if line.startswith("Fatal: ")]
    if "unable to start the sftp session" in text or "ssh command exited" in text:
        telling = [line for line in lines if line.startswith(_BY_SSH)] or telling
    last = (telling or lines or ["it said nothing"])[-1]
    return printable(last.removeprefix("Fatal: ").removeprefix(_BY_SSH)[:300])
