"""Operations: each one is recorded in the history, whatever called it, and ends with a `Finished` event.

    with locked_operation(settings, "backup", emit, clock) as work:
        created = make_backup(settings, request, work.emit, clock)
        work.about(created.backup)

If the history cannot be written, that is a warning; the operation goes on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path

from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import disk, process, trust
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, ExitCode, Refused, explained
from backupkit.model.events import Event, EventListener, Finished, Step, Warned, silence
from backupkit.model.names import STAMP
from backupkit.model.operation import Operation, Outcome, Through, TimedStep, Who
from backupkit.repository import history, lock, separate_disk

_WARNINGS, _STEPS, _LENGTH = 20, 30, 1000  # limits of one entry (the last in characters); the log has all warnings


class Work:
    """An operation in progress. Its code sends events through `emit` and names its backups with `about`."""

    handle = -1
    """File descriptor of the lock, which a child process can inherit; -1 without a lock."""

    def __init__(self, settings: Settings, command: str, emit: EventListener, clock: Clock) -> None:
        self._settings, self._clock, self._listener = settings, clock, emit
        self._since = time.monotonic()
        self._steps: list[tuple[str, float]] = []  # name and start time of each
        self._is_writable = True
        at = clock()
        identifier = f"{at.strftime(STAMP)}_{secrets.token_hex(4)}"
        self.operation = Operation(identifier, command, at, who_is_at_work(os.environ, sys.argv))

    def emit(self, event: Event) -> None:
        """Pass an event on to the listener, and keep warnings and steps for the history."""
        if isinstance(event, Step) and len(self._steps) < _STEPS:
            self._steps.append((_shortened(event.name), time.monotonic()))
        if isinstance(event, Warned) and len(self.operation.warnings) < _WARNINGS:
            self.operation = replace(self.operation, warnings=(*self.operation.warnings, _shortened(event.text)))
        self._listener(event)

    def about(self, *backups: Backup) -> None:
        """Record the backups that were made, checked, pushed or removed, with their sizes."""
        size, unique = sum(one.size_bytes for one in backups), sum(one.unique_bytes for one in backups)
        self.operation = replace(self.operation, size_bytes=size, unique_bytes=unique)
        self.concerning(*(one.name for one in backups))

    def concerning(self, *names: str, note: str = "", size_bytes: int | None = None) -> None:
        """Record what the operation handles by name only (a dump, a backup not read yet), and a short note."""
        known = self.operation
        self.operation = replace(
            known,
            backups=tuple(map(_shortened, names)),
            note=_shortened(note) or known.note,
            size_bytes=known.size_bytes if size_bytes is None else size_bytes,
        )

    def write(self) -> None:
        """Write the operation's present state to the history. If that fails, warn once and stop writing."""
        backups = self._settings.dir
        if not self._is_writable or not backups.is_dir():
            return
        try:
            history.write(backups, self.operation)
        except (OSError, BackupError) as error:
            self._is_writable = False
            reason = (
                error.message.rstrip(".") if isinstance(error, BackupError) else error.strerror or type(error).__name__
            )
            self._listener(Warned(f"The history {history.path_of(backups)} cannot be written: {reason}."))

    def end(self, error: BaseException | None) -> None:
        """Write to the history how the operation ended: with this error, or without one."""
        self.operation = replace(
            self.operation,
            ended_at=self._clock(),
            outcome=outcome_of(error, self.operation.warnings),
            exit_code=exit_code_of(error, self.operation.warnings),
            duration_seconds=round(time.monotonic() - self._since, 3),
            free_bytes=_free_space(self._settings.dir),
            error=error_of(error),
            steps=self._timed_steps(time.monotonic()),
        )
        self.write()

    def _timed_steps(self, now: float) -> tuple[TimedStep, ...]:
        ends = [*(began for _, began in self._steps[1:]), now]
        return tuple(
            TimedStep(name, round(end - began, 3)) for (name, began), end in zip(self._steps, ends, strict=False)
        )


@contextlib.contextmanager
def locked_operation(
    settings: Settings, command: str, emit: EventListener = silence, clock: Clock = utc_now, names: Sequence[str] = ()
) -> Iterator[Work]:
    """Hold the lock while the block runs, and record the block as an operation named by the first word of `command`.

    Raise `Locked`, which is recorded too, and `Refused` if the backups folder's own disk is not mounted.
    """
    trust.require_roots(settings.dir)
    separate_disk.require(settings)
    work = Work(settings, command.split()[0], emit, clock)
    work.concerning(*names)
    with (
        _emitting_finish(work, emit),
        _recording_end(work),
        lock.held(settings.dir, command, settings.lock_timeout, emit) as work.handle,
    ):
        work.write()
        with _recording_end(work):  # before the lock is released, or a reader would think it was killed
            yield work


@contextlib.contextmanager
def recorded(
    settings: Settings, command: str, emit: EventListener = silence, clock: Clock = utc_now, names: Sequence[str] = ()
) -> Iterator[Work]:
    """Record the block as an operation, without taking the lock."""
    trust.require_roots(settings.dir)
    work = Work(settings, command, emit, clock)
    work.concerning(*names)
    with _emitting_finish(work, emit), _recording_end(work):
        work.write()
        yield work


@contextlib.contextmanager
def _recording_end(work: Work) -> Iterator[None]:
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        if not work.operation.ended_at:
            work.end(error)


@contextlib.contextmanager
def _emitting_finish(work: Work, emit: EventListener) -> Iterator[None]:
    try:
        yield
    finally:
        emit(Finished(work.operation))


_actor: ContextVar[str] = ContextVar("actor", default="")


@contextlib.contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Record the operations of this block under the name of the person who started them in a browser."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def who_is_at_work(environment: Mapping[str, str], arguments: Sequence[str]) -> Who:
    """Return this process and its user: the browser's user, else the host's user from the wrapper, else its own."""
    pid = os.getpid()
    if actor := _actor.get():
        return Who(_shortened(actor), pid, process.host(), "web", process.start_time_of(pid))
    person = environment.get("BACKUP_HOST_USER") or process.user()
    return Who(_shortened(person), pid, process.host(), _through(environment, arguments), process.start_time_of(pid))


def _through(environment: Mapping[str, str], arguments: Sequence[str]) -> Through:
    program = Path(arguments[0]).stem if arguments else ""
    if program not in ("backup_restore", "backup-restore"):
        return "library"
    if "schedule" in arguments[1:2]:
        return "scheduler"
    return "wrapper" if "BACKUP_RUNNER_IN_USE" in environment else "command"


def outcome_of(error: BaseException | None, warnings: Sequence[str]) -> Outcome:
    """Return how an operation ended, as the history records it."""
    if error is None:
        return "warning" if warnings else "success"
    if isinstance(error, Refused):
        return "refused"
    return "failure" if isinstance(error, Exception) else "interrupted"


def exit_code_of(error: BaseException | None, warnings: Sequence[str]) -> int:
    """Return the exit code of a command that runs only this operation."""
    if error is None:
        return ExitCode.WARNINGS if warnings else ExitCode.DONE
    return int(_explained(error).code) if isinstance(error, Exception) else ExitCode.INTERRUPTED


def error_of(error: BaseException | None) -> str:
    """Return the message of the error, or an empty string."""
    if isinstance(error, KeyboardInterrupt):
        return _shortened(str(error))
    return _shortened(_explained(error).message) if isinstance(error, Exception) else ""


def _explained(error: Exception) -> BackupError:
    return explained(error) or BackupError(f"{type(error).__name__}: {error}")


def _free_space(folder: Path) -> int | None:
    try:
        return disk.free_space(folder)
    except OSError:
        return None


def _shortened(text: str) -> str:
    """Return the text as valid UTF-8 of at most `_LENGTH` characters, since a file name may hold any bytes."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= _LENGTH else f"{plain[:_LENGTH]}…"
