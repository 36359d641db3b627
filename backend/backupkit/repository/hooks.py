"""Hooks: the user's commands from `backup.toml`, run before and after a backup or restore, and on failure.

    with hooks.of(settings, "backup", emit) as hook:
        with locked_operation(settings, "backup", emit) as work, hook.around(work):
            ...

`before_…` and `after_…` run under the lock, so hooks of different operations never overlap. A `before_…` that fails or
times out stops the operation; a failing `after_…` or `on_error` is only a warning. If the operation is killed, no
further hook runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from backupkit.config.secrets import scrubbed
from backupkit.config.settings import PREFIX, SETTINGS_FILE, Settings
from backupkit.fs import command, trust
from backupkit.model.errors import BackupError, Refused
from backupkit.model.events import EventListener, Step, StillWaiting, Warned
from backupkit.model.names import printable, printable_text
from backupkit.repository import store
from backupkit.repository.operation import Work, error_of, exit_code_of, outcome_of

Around = Literal["backup", "restore"]
_NO_BACKUP = ". So no backup was made, and nothing was changed."
_NO_RESTORE = ". So nothing was restored, and nothing was changed."
_log = logging.getLogger("backupkit.hooks")
_SCRIPTS_RUN_BY = ("sh", "bash", "dash", "zsh", "ksh", "python", "python3", "perl", "ruby", "node", "php")


class HookFailed(BackupError):
    """A hook failed, timed out, could not be run, or is not trusted because another user can change it."""


@contextlib.contextmanager
def of(settings: Settings, around: Around | None, emit: EventListener) -> Iterator[Hooks]:
    """Yield the hooks of one operation (none with `around=None`), and run `on_error` if the block raises.

    That includes failures before the operation began, but not `Refused`, because then the request itself was wrong.
    """
    hooks = Hooks(settings, around, emit)
    try:
        yield hooks
    except Refused:
        raise
    except BaseException as error:
        hooks.tell_error(error)
        raise


class Hooks:
    """The hooks of one operation. `warnings` has the failures of hooks that do not stop it."""

    def __init__(self, settings: Settings, around: Around | None, emit: EventListener) -> None:
        self.warnings: list[str] = []
        self._settings, self._around, self._emit = settings, around, emit
        self._command: str = around or ""
        self._name, self._is_told = "", False

    @contextlib.contextmanager
    def around(self, work: Work) -> Iterator[None]:
        """Run `before_…`, the block, then `after_…`; if anything raises, run `on_error` instead of `after_…`."""
        self._emit, self._command = work.emit, work.operation.command
        self._name = _first(work.operation.backups)
        try:
            self._before()
            yield
            self._name = self._name or _first(work.operation.backups)
        except BaseException as error:
            self.tell_error(error)
            raise
        self._run_with_result(f"after_{self._around}", None, work.operation.warnings)

    def tell_error(self, error: BaseException) -> None:
        """Run `on_error`, at most once per operation."""
        if not self._is_told:
            self._is_told = True
            self._run_with_result("on_error", error)

    def _before(self) -> None:
        hook = f"before_{self._around}"
        try:
            self._run(hook, self._facts())
        except HookFailed as error:
            stopped = _NO_BACKUP if self._around == "backup" else _NO_RESTORE
            raise HookFailed(f"{error.message.rstrip('.')}{stopped}", error.hint) from error

    def _run_with_result(self, hook: str, error: BaseException | None, warnings: Sequence[str] = ()) -> None:
        facts = self._facts(
            RESULT=outcome_of(error, warnings),
            EXIT_CODE=str(exit_code_of(error, warnings)),
            ERROR=error_of(error),
        )
        try:
            self._run(hook, facts)
        except HookFailed as failed:
            self.warnings.append(failed.message)
            self._emit(Warned(failed.message))

    def _facts(self, **more: str) -> dict[str, str]:
        path = (
            self._settings.dir / self._name if self._name and store.is_backup(self._settings.dir / self._name) else ""
        )
        known = {"COMMAND": self._command, "NAME": self._name, "PATH": str(path), "RESULT": "", "ERROR": ""}
        secrets = self._settings.secrets
        return {
            name: printable_text(scrubbed(text, secrets)) for name, text in {**known, "EXIT_CODE": "", **more}.items()
        }

    def _run(self, hook: str, facts: dict[str, str]) -> None:
        """Run the hook, if it is set. Raise `HookFailed`."""
        words: tuple[str, ...] = getattr(self._settings, hook) if self._around else ()
        if not words:
            return
        self._emit(Step(f"Running {hook}"))
        output = _Output(hook, self._settings)
        variables = {PREFIX + name: value for name, value in {"HOOK": hook, **facts}.items()}
        try:
            _require_own(words, self._settings.app_dir)
            limits = (self._settings.hook_timeout, output.line, lambda: self._emit(StillWaiting()))
            code = command.run(words, self._settings.app_dir, {**os.environ, **variables}, *limits)
        except TimeoutError:
            late = self._failed(hook, f"did not end within {self._settings.hook_timeout:g} s")
            raise HookFailed(late.message, f"Raise hook_timeout, or: {late.hint}") from None
        except trust.Untrusted as error:
            raise self._failed(hook, f"is not run: {error.message.rstrip('.')}") from error
        except OSError as error:
            raise self._failed(hook, f"cannot be run: {error.strerror}: {printable(str(error.filename))}") from error
        if code:
            raise self._failed(hook, f"ended with {code}: {output.last.rstrip('.') or 'it said nothing'}")

    def _failed(self, hook: str, how: str) -> HookFailed:
        words = shlex.join(scrubbed(word, self._settings.secrets) for word in getattr(self._settings, hook))
        once = f"To do without it once, put {PREFIX}{hook.upper()}= before the command."
        hint = f"Try it by hand: {printable(words)}. {once}"
        return HookFailed(f"{hook} of {self._settings.app_dir / SETTINGS_FILE} {how}.", hint)


class _Output:
    """The output of a hook: each line goes to the log, and the last one is kept for the error."""

    def __init__(self, hook: str, settings: Settings) -> None:
        self.last = ""
        self._hook, self._settings = hook, settings

    def line(self, text: str) -> None:
        self.last = printable_text(scrubbed(text, self._settings.secrets))
        _log.info("%s: %s", self._hook, self.last)


def why_not_run(settings: Settings, hook: str) -> str:
    """Return why the hook could not be run; empty if it could, or if none is set. Nothing is executed."""
    words: tuple[str, ...] = getattr(settings, hook)
    if not words:
        return ""
    program = settings.app_dir / words[0] if "/" in words[0] else shutil.which(words[0])
    if program is None or not Path(program).exists():
        return f"there is no program {printable(words[0])}"
    if not os.access(program, os.X_OK) or Path(program).is_dir():
        return f"{printable(str(program))} is not executable"
    try:
        _require_own(words, settings.app_dir)
    except trust.Untrusted as error:
        return error.message.rstrip(".")
    return ""


def _first(names: Sequence[str]) -> str:
    return names[0] if names else ""


def _require_own(words: Sequence[str], folder: Path) -> None:
    """Raise `Untrusted` if another user can change the program, or the script that an interpreter would run."""
    program = folder / words[0] if "/" in words[0] else shutil.which(words[0])
    files = [Path(program)] if program else []
    if Path(words[0]).name in _SCRIPTS_RUN_BY:
        files += [folder / word for word in words[1:] if not word.startswith("-")][:1]
    for file in files:
        if file.is_file():
            trust.require_trusted_program(file)
