"""Processes that copy and hash files, as many as there are processors; what they do is in `file_worker`.

They have the rights of whoever started them, and the folders that are handed to them open. Nobody forks: the caller may
be a program with threads. Where they cannot be started the caller does the work itself, as it does what they leave.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backupkit.fs import file_worker, process
from backupkit.model.errors import BackupError

# Below this a process costs more than it brings: each takes 15 ms to start. Measured on two processors.
WORTH_FILES, WORTH_BYTES = 300, 64 << 20
PATIENCE = 300.0  # seconds without a sign of life: a disk may stall for long
_PATIENCE_AT_START = 10.0
_MOST = 8  # processes, of 10 MB each
_BATCH_FILES, _BATCH_BYTES = 64, 4 << 20
_AHEAD = 3  # batches that a process has at a time, so that it never waits
_ROOM = 1 << 18  # of a socket: more than these batches and their answers, so that nobody waits for the other to read
_LOOK = 0.2  # seconds after which whoever waits hears of it
_PROGRAM = Path(file_worker.__file__)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a file was when it was copied, and the SHA-256 of the copy."""

    facts: os.stat_result
    checksum: str


Answer = Callable[[Copied | None], None]
"""Hears of one file; None where it is left to the caller, and nothing is there of the copy."""


@dataclass
class _Batch:
    """Files that are to go to one process together. The folders are held open until then."""

    jobs: list[file_worker.Job] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    size: int = 0
    folder: str | None = None

    def close(self) -> None:
        for handle in self.handles:
            os.close(handle)
        self.handles.clear()


class _Worker:
    """One process, what it was given and has not answered yet, and when it last said something."""

    def __init__(self, patience: float) -> None:
        ours, its = socket.socketpair()
        try:
            for one in (ours, its):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            self.child = subprocess.Popen(
                [process.python(), "-I", "-S", str(_PROGRAM), str(os.getpid())],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the one who started it
            )
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        ours.settimeout(patience)
        self.socket, self.asked, self.heard = ours, deque[list[Answer]](), 0.0

    def ask(self, batch: _Batch) -> None:
        if not self.asked:
            self.heard = time.monotonic()
        content = marshal.dumps(batch.jobs)
        socket.send_fds(self.socket, [len(content).to_bytes(8, "big")], batch.handles)
        self.socket.sendall(content)
        self.asked.append(batch.answers)

    def answer(self) -> Any:
        self.heard = time.monotonic()
        return marshal.loads(self._receive(int.from_bytes(self._receive(8), "big")))

    def _receive(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            if not (piece := self.socket.recv(count - len(content))):
                raise ConnectionError
            content += piece
        return bytes(content)

    def end(self) -> None:
        self.socket.close()
        process.end_group(self.child)


class FileWorkers:
    """Processes that copy files for this one. An answer may come in any later call."""

    def __init__(self, shown: Path, idle: Callable[[], None], patience: float = PATIENCE) -> None:
        self._shown, self._idle, self._patience = shown, idle, patience
        self._workers: list[_Worker] = []
        self._batch = _Batch()
        self._files = self._bytes = 0
        self._can_start = True

    def pay(self, size: int) -> bool:
        """Whether there are processes that can copy a file of that size; they start when so much came that they pay."""
        self._files, self._bytes = self._files + 1, self._bytes + size
        if self._can_start and (self._files > WORTH_FILES or self._bytes > WORTH_BYTES):
            self._can_start = False
            self._start()
        return bool(self._workers)

    def copy(
        self,
        folder: str,
        source: tuple[int, str],
        target: tuple[int, str],
        size: int,
        answer: Answer,
        unless: int,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """A plain file of about that size becomes a new file with the same mode and times, and its owner or the given.

        Both are a name in an open folder; `folder` is its path. The file is left to the caller where it changes
        meanwhile, or is one of what `unless` says (`file_worker`).
        """
        batch = self._batch
        if batch.folder != folder:
            batch.folder = folder
            batch.handles.append(os.dup(source[0]))
            batch.handles.append(os.dup(target[0]))
        at = len(batch.handles) - 2
        batch.jobs.append((at, os.fsencode(source[1]), at + 1, os.fsencode(target[1]), owner, unless))
        batch.answers.append(answer)
        batch.size += size
        is_full = len(batch.jobs) >= _BATCH_FILES or len(batch.handles) >= file_worker.MOST_FOLDERS
        if is_full or batch.size >= _BATCH_BYTES:
            self._send()

    def wait(self) -> None:
        """One more answer is there; what was not sent yet is."""
        self._send()
        self._hear(self._patience)

    def drain(self) -> None:
        """Everything is answered."""
        self._send()
        while any(worker.asked for worker in self._workers):
            self._hear(self._patience)

    def close(self) -> None:
        """No process is left, whatever it was doing."""
        self._batch.close()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _start(self) -> None:
        """Where one cannot be started, or is not what it should be (a program with Python in it), there is none."""
        try:
            while len(self._workers) < number():
                self._workers.append(_Worker(_PATIENCE_AT_START))
            for worker in self._workers:
                worker.answer()
                worker.socket.settimeout(self._patience)
        except (OSError, EOFError, ValueError, TypeError):
            for worker in self._workers:
                worker.end()
            self._workers.clear()

    def _send(self) -> None:
        batch, self._batch = self._batch, _Batch()
        try:
            if batch.jobs:
                while not (free := [one for one in self._workers if len(one.asked) < _AHEAD]):
                    self._hear(self._patience)
                chosen = min(free, key=lambda worker: len(worker.asked))
                with self._dying(chosen):
                    chosen.ask(batch)
        finally:
            batch.close()
        self._hear(0)

    def _hear(self, patience: float) -> None:
        """What processes have said by now; where there is time, at least one thing."""
        busy = [worker for worker in self._workers if worker.asked]
        while busy:
            ready = _ready(busy, _LOOK if patience else 0)
            for worker in ready:
                self._take(worker)
            if ready or not patience:
                return
            self._idle()
            if late := [worker for worker in busy if time.monotonic() - worker.heard > patience]:
                raise self._silent(late[0])

    def _take(self, worker: _Worker) -> None:
        with self._dying(worker):
            said = worker.answer()
        if isinstance(said, int):
            return self._idle()
        for answer, done in zip(worker.asked.popleft(), said, strict=True):
            answer(Copied(os.stat_result(*done[0]), done[1]) if done else None)

    @contextlib.contextmanager
    def _dying(self, worker: _Worker) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self._silent(worker) from error
        except (ConnectionError, EOFError, ValueError, TypeError) as error:
            worker.end()
            ended = worker.child.returncode
            how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
            raise self._failed(f"came to an end too early ({how})") from error

    def _silent(self, worker: _Worker) -> BackupError:
        return self._failed(f"has said nothing for {self._patience:g} s (pid {worker.child.pid})")

    def _failed(self, what: str) -> BackupError:
        return BackupError(
            f"A process that copies files from {self._shown} {what}.",
            hint="Type the command again. If that comes again, the system's log may say why: too little memory, say.",
        )


def _ready(workers: list[_Worker], seconds: float) -> list[_Worker]:
    """Those that have said something."""
    looking = select.poll()  # `select` knows no handle above 1023, and a program may have many
    for worker in workers:
        looking.register(worker.socket, select.POLLIN)
    found = {handle for handle, _ in looking.poll(seconds * 1000)}
    return [worker for worker in workers if worker.socket.fileno() in found]


def number() -> int:
    """How many processes there should be: none on one processor."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        count = os.cpu_count() or 1
    return min(count, _MOST) if count > 1 else 0
