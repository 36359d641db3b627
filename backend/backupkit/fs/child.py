"""A module of ours run in a child process: fed through a pipe, answering in lines of JSON, and watched."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, NoReturn

from backupkit.fs import process
from backupkit.model import errors
from backupkit.model.errors import BackupError, Damaged, NoSpace, SourceBroken

BLOCK = 256 * 1024
STANDSTILL = 60.0  # seconds without processor time after which a process counts as stuck
_CHECK_INTERVAL = 1.0  # seconds between two checks of the processor time
_LONGEST_LINE = 64 << 20
_LONGEST_MESSAGE = 2000  # characters of an error, which may quote its input
_ERRORS: dict[str, type[BackupError]] = {one.__name__: one for one in (BackupError, Damaged, NoSpace, SourceBroken)}
TIME, SPACE = "processor time", "disk space"
_EXCESS = {signal.SIGXCPU: TIME, signal.SIGXFSZ: SPACE}


class Child:
    """A module that runs in a child process, which is killed when the block ends.

    Raises `OSError` if no process can be started. `what` says what it does, for messages: "loads app.sql".
    """

    def __init__(self, what: str, module: str, *arguments: str, **environment: str) -> None:
        self._what = what
        self._process = process.start_module(module, *arguments, **environment)
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process.end_group(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def feed(self, stream: BinaryIO, progress: Callable[[int], None]) -> None:
        """Write the whole stream to the process, unless it ends before; pass the bytes written so far to `progress`."""
        _enlarge_pipe(self._input)
        os.set_blocking(self._input, False)
        fed = 0
        with contextlib.suppress(BrokenPipeError):
            while piece := stream.read(BLOCK):
                self._write(piece)
                fed += len(piece)
                progress(fed)
        self.close_input()

    def close_input(self) -> None:
        """Close the process's input, so that it reads the end of the file."""
        assert self._process.stdin
        self._process.stdin.close()

    def _write(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            try:
                left = left[os.write(self._input, left) :]
            except BlockingIOError:
                self._wait(self._input, selectors.EVENT_WRITE)

    def answers(self) -> Iterator[Any]:
        """Yield each line of its output, parsed, until it closes that; raise `BackupError` for what is not JSON."""
        line = b""
        while piece := self._read():
            *whole, line = (line + piece).split(b"\n")
            for one in whole:
                yield self._parsed(one)
            if len(line) > _LONGEST_LINE:
                raise self._failure("an answer that is too long")
        if line:
            raise self._failure("half an answer")

    def _read(self) -> bytes:
        self._wait(self._output, selectors.EVENT_READ)
        return os.read(self._output, BLOCK)

    def _parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            raise self._failure("an invalid answer") from error

    def excess(self) -> str:
        """Return which limit it exceeded after its last answer: `TIME` or `SPACE`; empty if none."""
        return _EXCESS.get(signal.Signals(-self._ended()), "") if self._ended() < 0 else ""

    def ended_early(self) -> BackupError:
        """Return the error for a process that ended before the expected answer."""
        ended = self._ended()
        return self._failure(f"signal {-ended}" if ended < 0 else f"exit code {ended}")

    def _failure(self, how: str) -> BackupError:
        return BackupError(f"The process that {self._what} ended too early ({how}).", "Try again.")

    def _ended(self) -> int:
        try:
            return self._process.wait(STANDSTILL)
        except subprocess.TimeoutExpired as error:
            raise self._stuck_error() from error

    def _stuck_error(self) -> BackupError:
        message = (
            f"The process that {self._what} (pid {self.pid}) did nothing for {STANDSTILL:.0f} seconds, and was ended."
        )
        return BackupError(message, "Somebody stopped it, or a disk does not answer. Try again.")

    def _wait(self, pipe: int, event: int) -> None:
        """Wait until the pipe is ready; raise `BackupError` if the process stands still meanwhile.

        This counts checks, not seconds, because this process may have been frozen together with the child.
        """
        used, checks = None, 0
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            while not selector.select(_CHECK_INTERVAL):
                before, used = used, process.processor_time(self.pid)
                checks = checks + 1 if used and used == before else 0
                if checks * _CHECK_INTERVAL >= STANDSTILL:
                    raise self._stuck_error()


def _enlarge_pipe(pipe: int) -> None:
    """Let the pipe hold a whole block, so that the two processes switch less often."""
    with contextlib.suppress(AttributeError, OSError):  # macOS cannot, and the user's quota for pipes may be used up
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, BLOCK)


# In the child process


def answer(*line: object) -> None:
    """Send the line to the process that started this one."""
    print(json.dumps(line), flush=True)


def answer_error(error: BaseException, failed: str) -> None:
    """Send the error, which the parent raises with `raise_error`; `failed` begins the message for a bug."""
    known = errors.explained(error) or BackupError(f"{failed}: {error!r}.")
    kind = type(known).__name__
    answer("error", kind if kind in _ERRORS else "BackupError", known.message[:_LONGEST_MESSAGE], known.hint)


def raise_error(kind: str, message: str, hint: str) -> NoReturn:
    """Raise the error that the child sent."""
    raise _ERRORS.get(kind, BackupError)(message, hint)
