"""`protected`: back up before a critical operation, record how it ended, and roll back if that was asked for.

with protected("bulk import", rollback=True):
    import_everything()

@protected("bulk import", database="app.db")
def import_everything(): ...
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, Unpack

from backupkit.api.calls import Options, Place, Protectable, place
from backupkit.model.clock import utc_now
from backupkit.model.errors import BackupError
from backupkit.repository import flags

P = ParamSpec("P")
R = TypeVar("R")
Outcome = Literal["running", "succeeded", "failed", "rolled back", "not rolled back"]

_log = logging.getLogger("backupkit.api")


@dataclass
class Operation:
    """A critical operation: the backup made before it, and how it ended, or that it is still running."""

    name: str
    backup: Path
    started: datetime
    ended: datetime | None = None
    outcome: Outcome = "running"
    error: str = ""


class protected:
    """A `with` block or decorator that makes a backup first; if that fails, `BackupError` is raised and nothing runs.

    How the operation ended is recorded in `.state/operations/BACKUP.json` in the backups folder; if it still says
    `running` once the program is gone, the program was killed. With `rollback` the backup is restored if the block
    raises; then the error goes on, with a note that says so. Beside the `name` it takes what `create_backup_now` takes,
    or `on`, a `PlainDatabase` or an `AppFolder`.

    For coroutines use `async with`, or the decorator; backup and rollback run in a thread of their own.
    """

    def __init__(
        self,
        name: str,
        database: Place | None = None,
        *,
        rollback: bool = False,
        on: Protectable | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._name = name
        self._rollback = rollback
        self._on = on or place(database, **options)
        self._operation: Operation | None = None

    def __enter__(self) -> Operation:
        if self._operation:
            raise RuntimeError(f"{self._name} is under way already: each block needs a protected(…) of its own.")
        backup = self._on.back_up(note=f"before {self._name}")
        self._operation = Operation(self._name, backup, utc_now())
        _write_down(self._on.folder, self._operation)
        return self._operation

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        operation, self._operation = self._operation, None
        assert operation is not None
        operation.outcome = self._outcome(operation, error)
        operation.error = f"{type(error).__name__}: {error}" if error else ""
        operation.ended = utc_now()
        _write_down(self._on.folder, operation)

    async def __aenter__(self) -> Operation:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator: put `with protected(…)` inside it.")
        if inspect.iscoroutinefunction(function):
            return self._around_coroutine(function)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._again():
                return function(*args, **kwargs)

        return run

    def _around_coroutine(self, function: Callable[P, Any]) -> Callable[P, Any]:
        @functools.wraps(function)
        async def run(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with self._again():
                return await function(*args, **kwargs)

        return run

    def _again(self) -> protected:
        """Return a new object for each call, because calls may overlap."""
        return protected(self._name, rollback=self._rollback, on=self._on)

    def _outcome(self, operation: Operation, error: BaseException | None) -> Outcome:
        if error is None:
            return "succeeded"
        if not self._rollback:
            return "failed"
        try:
            self._on.put_back(operation.backup, force=True)
        except Exception as why:
            reason = why.message if isinstance(why, BackupError) else str(why)
            return _noted(error, "not rolled back", f"It could not be rolled back to {operation.backup}: {reason}")
        return _noted(error, "rolled back", f"Rolled back to {operation.backup}.")


def _noted(error: BaseException, outcome: Outcome, text: str) -> Outcome:
    error.add_note(text)
    _log.error("%s", text)
    return outcome


def _write_down(backups: Path, operation: Operation) -> None:
    try:
        flags.remember_operation(backups, operation.backup.name, json.dumps(_as_json(operation), indent=2))
    except OSError as error:
        _log.warning("How %s ended could not be recorded: %s", operation.name, error)


def _as_json(operation: Operation) -> dict[str, Any]:
    return {
        "operation": operation.name,
        "backup": operation.backup.name,
        "started": operation.started.isoformat(timespec="seconds"),
        "ended": operation.ended.isoformat(timespec="seconds") if operation.ended else None,
        "outcome": operation.outcome,
        "error": operation.error,
    }
