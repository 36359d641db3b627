"""Every operation is in the history, whoever called the verb; and whoever listens is told when it is over.

    with locked_operation(settings, "backup", emit, clock) as work:
        created = make_backup(settings, order, work.emit, clock)
        work.about(created.backup)

A history that cannot be written is a warning, and never fails an operation.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import disk, process, trust
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, ExitCode, Refused, explained
from backupkit.model.events import Event, EventListener, Finished, Step, Warned, silence
from backupkit.model.names import STAMP
from backupkit.model.operation import Operation, Outcome, Through, TimedStep, Who
from backupkit.repository import history, lock

_WARNINGS, _STEPS, _LENGTH = 20, 30, 1000  # what one entry keeps; of warnings the log has all


class Work:
    """An operation under way. The verb tells its events through `emit`, and says what they are `about`."""

    handle = -1
    """The lock's handle, for work under the lock: a child process can inherit it."""

    def __init__(self, settings: Settings, command: str, emit: EventListener, clock: Clock) -> None:
        self._settings, self._clock, self._listener = settings, clock, emit
        self._since = time.monotonic()
        self._steps: list[tuple[str, float]] = []  # each with when it began
        self._is_writable = True
        at = clock()
        mark = f"{at.strftime(STAMP)}_{secrets.token_hex(4)}"
        self.operation = Operation(mark, command, at, who_is_at_work(os.environ, sys.argv))

    def emit(self, event: Event) -> None:
        """A listener like the one the verb was given; warnings and steps are kept for the history."""
        if isinstance(event, Step) and len(self._steps) < _STEPS:
            self._steps.append((_kept(event.name), time.monotonic()))
        if isinstance(event, Warned) and len(self.operation.warnings) < _WARNINGS:
            self.operation = replace(self.operation, warnings=(*self.operation.warnings, _kept(event.text)))
        self._listener(event)

    def about(self, *backups: Backup) -> None:
        """These were made, checked, carried away or removed."""
        size, unique = sum(one.size_bytes for one in backups), sum(one.unique_bytes for one in backups)
        self.operation = replace(self.operation, size_bytes=size, unique_bytes=unique)
        self.concerning(*(one.name for one in backups))

    def concerning(self, *names: str, note: str = "", size_bytes: int | None = None) -> None:
        """What is known by its name only: a dump, a backup still to be found; and a few words beside it."""
        known = self.operation
        self.operation = replace(
            known,
            backups=tuple(map(_kept, names)),
            note=_kept(note) or known.note,
            size_bytes=known.size_bytes if size_bytes is None else size_bytes,
        )

    def write(self) -> None:
        """The history has the operation as it is now; where that cannot be, it is said once."""
        backups = self._settings.dir
        if not self._is_writable or not backups.is_dir():
            return
        try:
            history.write(backups, self.operation)
        except OSError as error:
            self._is_writable = False
            reason = error.strerror or type(error).__name__
            self._listener(Warned(f"The history {history.path_of(backups)} cannot be written: {reason}."))

    def end(self, error: BaseException | None) -> None:
        """The history has how it ended: by this error, or well."""
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
    """The lock is ours until the block ends, and the history has what was done under it, by its first word.

    Raises `Locked`, which the history has too.
    """
    trust.require_roots(settings.dir)
    work = Work(settings, command.split()[0], emit, clock)
    work.concerning(*names)
    with (
        _reported(work, emit),
        _ended(work),
        lock.held(settings.dir, command, settings.lock_timeout, emit) as work.handle,
    ):
        work.write()
        with _ended(work):  # before the lock is free: nobody may take it for one that was killed
            yield work


@contextlib.contextmanager
def recorded(
    settings: Settings, command: str, emit: EventListener = silence, clock: Clock = utc_now, names: Sequence[str] = ()
) -> Iterator[Work]:
    """The same for work that takes no lock, or is under one that is held already."""
    trust.require_roots(settings.dir)
    work = Work(settings, command, emit, clock)
    work.concerning(*names)
    with _reported(work, emit), _ended(work):
        work.write()
        yield work


@contextlib.contextmanager
def _ended(work: Work) -> Iterator[None]:
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
def _reported(work: Work, emit: EventListener) -> Iterator[None]:
    try:
        yield
    finally:
        emit(Finished(work.operation))


_actor: ContextVar[str] = ContextVar("actor", default="")


@contextlib.contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """What this thread does until the block ends, a person did in a browser; the history has that name."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def who_is_at_work(environment: Mapping[str, str], arguments: Sequence[str]) -> Who:
    """This process; the person's name on the host, where the wrapper handed it over, or who came by a browser."""
    pid = os.getpid()
    if actor := _actor.get():
        return Who(_kept(actor), pid, process.host(), "web", process.born(pid))
    person = environment.get("BACKUP_HOST_USER") or process.user()
    return Who(_kept(person), pid, process.host(), _through(environment, arguments), process.born(pid))


def _through(environment: Mapping[str, str], arguments: Sequence[str]) -> Through:
    program = Path(arguments[0]).stem if arguments else ""
    if program not in ("backup_restore", "backup-restore"):
        return "library"
    if "schedule" in arguments[1:2]:
        return "scheduler"
    return "wrapper" if "BACKUP_RUNNER_IN_USE" in environment else "command"


def outcome_of(error: BaseException | None, warnings: Sequence[str]) -> Outcome:
    """How an operation ended, in one word."""
    if error is None:
        return "warning" if warnings else "success"
    if isinstance(error, Refused):
        return "refused"
    return "failure" if isinstance(error, Exception) else "interrupted"


def exit_code_of(error: BaseException | None, warnings: Sequence[str]) -> int:
    """The exit code of a command that is this operation alone."""
    if error is None:
        return ExitCode.WARNINGS if warnings else ExitCode.DONE
    return int(_explained(error).code) if isinstance(error, Exception) else ExitCode.INTERRUPTED


def error_of(error: BaseException | None) -> str:
    """The sentence of the error, where it has one."""
    if isinstance(error, KeyboardInterrupt):
        return _kept(str(error))
    return _kept(_explained(error).message) if isinstance(error, Exception) else ""


def _explained(error: Exception) -> BackupError:
    return explained(error) or BackupError(f"{type(error).__name__}: {error}")


def _free_space(folder: Path) -> int | None:
    try:
        return disk.free_space(folder)
    except OSError:
        return None


def _kept(text: str) -> str:
    """The text in one short line, whatever bytes are in it: a name may hold any."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= _LENGTH else f"{plain[:_LENGTH]}…"
