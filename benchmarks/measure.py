"""One measurement: whole processes, from their start until everything they wrote is on disk."""

from __future__ import annotations

import ctypes
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_FOREIGN = ("BACKUP_", "BORG_", "DATABASE_URL", "RESTIC_", "RSYNC_", "TAR_OPTIONS", "ZSTD_", "PYTHON")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
_SHOWN = 4000


class Failed(Exception):
    """A measured command failed, or its result is not what it must be: the benchmark ends."""


class TooLate(Exception):
    """A measured command was ended because it took longer than it was allowed."""


@dataclass(frozen=True)
class Step:
    """One process to run: its arguments, where, and with what on its standard streams."""

    arguments: tuple[str, ...]
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    reads: Path | None = None
    writes: Path | None = None


@dataclass(frozen=True)
class Measured:
    """Seconds from the first process to the last byte on disk, and the most memory any of the processes had."""

    seconds: float
    peak_bytes: int


def step(*arguments: object, folder: Path | None = None, **environment: str) -> Step:
    """A process without anything on its standard streams."""
    return Step(tuple(map(str, arguments)), folder, environment)


def run(steps: Iterable[Step], scratch: Path, limit: float | None = None, durable: bool = True) -> Measured:
    """Runs one after the other and syncs the file system; `Failed` with what a process said, `TooLate` after `limit`.

    What others left to write before is on disk when the clock starts.
    """
    sync(scratch)
    started = time.perf_counter()
    peak = max((_run_one(each, scratch / "said", limit) for each in steps), default=0)
    if durable:
        sync(scratch)
    return Measured(time.perf_counter() - started, peak)


def prepare(steps: Iterable[Step], scratch: Path) -> None:
    """The same without a clock."""
    for each in steps:
        _run_one(each, scratch / "said", None)


def sync(folder: Path) -> None:
    """Everything written to the folder's file system is on disk."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return os.sync()
    handle = os.open(folder, os.O_RDONLY)
    try:
        if library.syncfs(handle):
            raise OSError(ctypes.get_errno(), "syncfs", folder)
    finally:
        os.close(handle)


def own_peak() -> int:
    """The most memory this program had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours without what would point a tool at other data or change its ways."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)} | dict(extra)


def _run_one(each: Step, said: Path, limit: float | None) -> int:
    """The process's peak memory, in bytes; its own children count."""
    with open(said, "wb") as output, _opened(each.reads, "rb") as reads, _opened(each.writes, "wb") as writes:
        child = subprocess.Popen(
            each.arguments,
            cwd=each.folder,
            env=environment(each.environment),
            stdin=reads,
            stdout=writes if each.writes else output,
            stderr=output,
        )
        code, peak = _wait(child, limit)
    if code == -signal.SIGKILL and limit is not None:
        raise TooLate(f"did not end within {limit:.0f} s")
    if code:
        told = said.read_bytes()[-_SHOWN:].decode(errors="replace")
        raise Failed(f"{shlex.join(each.arguments)}\nended with {code} and said:\n{told}")
    return peak


def _opened(path: Path | None, mode: str) -> IO[bytes]:
    return open(path or os.devnull, mode)


def _wait(child: subprocess.Popen[bytes], limit: float | None) -> tuple[int, int]:
    """Exit code and peak memory; killed at the limit."""
    guard = threading.Timer(limit, child.kill) if limit else None
    if guard:
        guard.start()
    try:
        _, status, usage = os.wait4(child.pid, 0)
    except BaseException:
        child.kill()
        raise
    finally:
        if guard:
            guard.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_maxrss * _RSS_UNIT
