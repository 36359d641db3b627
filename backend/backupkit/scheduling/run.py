"""The regular maintenance run: a list of steps. If one fails, the others still run.

A step that needs another is skipped if that one failed or was skipped. So no old backup is pruned when no new one could
be made.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from backupkit.backup.create import backup_of_today, create_backup, create_backup_if_needed
from backupkit.config.settings import Settings
from backupkit.fs import space
from backupkit.model.backup import Backup, BackupRequest
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, ExitCode, explained
from backupkit.model.events import EventListener, Warned, silence
from backupkit.remotes.prune import plan_remote_prune, prune_remote
from backupkit.remotes.push import push_after
from backupkit.repository import store
from backupkit.repository.operation import recorded
from backupkit.retention.prune import plan_prune, prune_backups
from backupkit.retention.rules import policy_of_remote
from backupkit.rewind import chain, moments
from backupkit.rewind.chain import Moment
from backupkit.verify.verify import Verified, can_be_proven, choose_for_test, refuse_bad, verify_backups

State = Literal["done", "nothing", "warnings", "failed", "skipped"]


class StepReport(Struct, frozen=True):
    """The outcome of a step in one sentence. `idle`: there was nothing to do. `backup` is the one it made or found."""

    sentence: str
    warnings: tuple[str, ...] = ()
    idle: bool = False
    backup: Backup | None = None


class RunStep(Struct, frozen=True):
    """One step: `act` gets the reports of the earlier steps; `needs` names those that must have succeeded."""

    name: str
    act: Callable[[Mapping[str, StepReport], EventListener], StepReport]
    needs: tuple[str, ...] = ()


class StepResult(Struct, frozen=True):
    """How a step ended, and after how many seconds. `error` is set if it failed."""

    name: str
    state: State
    sentence: str
    warnings: tuple[str, ...] = ()
    error: BackupError | None = None
    backup: str | None = None
    seconds: float = 0.0

    @property
    def code(self) -> ExitCode:
        """Exit code of a command that runs only this step."""
        if self.error:
            return self.error.code
        return ExitCode.WARNINGS if self.warnings else ExitCode.DONE


def run_steps(steps: Sequence[RunStep], emit: EventListener = silence) -> Iterator[StepResult]:
    """Run the steps in order and yield each result as the step ends. Raise only for a bug or an interrupt."""
    done: dict[str, StepReport] = {}
    for step in steps:
        if missing := [name for name in step.needs if name not in done]:
            yield StepResult(step.name, "skipped", f"It needs {missing[0]}, which did not succeed.")
        else:
            yield _run_step(step, done, emit)


def worst(results: Sequence[StepResult]) -> ExitCode:
    """Return the exit code of the first step that failed, else 3 if one has warnings, else 0."""
    codes = [result.code for result in results if result.code != ExitCode.DONE]
    return next((code for code in codes if code != ExitCode.WARNINGS), codes[0] if codes else ExitCode.DONE)


def backup_step(settings: Settings, request: BackupRequest, if_needed: bool = False, clock: Clock = utc_now) -> RunStep:
    """Return the step that makes a backup; with `if_needed`, only if there is none of today."""

    def act(_done: Mapping[str, StepReport], emit: EventListener) -> StepReport:
        make = create_backup_if_needed if if_needed else create_backup
        made = make(settings, request, emit, clock, push=False)  # pushing is a separate step
        if made is None:
            there = backup_of_today(settings, clock, request.uploads)
            name = f": {there.name}" if there else ""
            return StepReport(f"There is a backup of today already{name}.", idle=True, backup=there)
        sentence = f"{made.backup.name} is checked and on disk: {space.format_bytes(made.backup.size_bytes)}."
        return StepReport(sentence, made.warnings, backup=made.backup)

    return RunStep("backup", act)


def verify_step(settings: Settings, clock: Clock = utc_now) -> RunStep:
    """Return the step that reads the new backup from disk again, verifies it, and checks all points of rewind."""

    def act(done: Mapping[str, StepReport], emit: EventListener) -> StepReport:
        new = done["backup"].backup
        if new is None or done["backup"].idle:
            return StepReport("There is no new backup.", idle=True)
        found = verify_backups(settings, [new], emit=emit, clock=clock)
        refuse_bad(settings, found)
        return StepReport(f"{new.name} is as it was written.", (*found[0].warnings, *_lost_points(settings, emit)))

    return RunStep("verify", act, needs=("backup",))


def _lost_points(settings: Settings, emit: EventListener) -> Iterator[str]:
    """Yield one sentence if points of rewind cannot be restored."""
    if lost := moments.check(settings, emit):
        yield f"{chain.counted_lost(lost)}. The first is {lost[0].name}: {lost[0].why}"


def prune_step(settings: Settings, clock: Clock = utc_now) -> RunStep:
    """Return the step that deletes old backups by the retention rules."""

    def act(_done: Mapping[str, StepReport], emit: EventListener) -> StepReport:
        pruned = prune_backups(settings, plan_prune(settings, clock), False, emit, clock)
        count = len(pruned.removed)
        return StepReport(f"Backups removed: {count}.", pruned.warnings, idle=not count)

    return RunStep("prune", act, needs=("backup", "verify"))


def push_step(settings: Settings, clock: Clock = utc_now) -> RunStep:
    """Return the step that pushes missing backups to the remotes, and prunes each remote by its own rules.

    It needs no other step, since older backups may still have to be pushed. A failing remote is a warning.
    """

    def act(_done: Mapping[str, StepReport], emit: EventListener) -> StepReport:
        done, warnings = push_after(settings, emit, clock)
        for one in done:
            if not one.failure and policy_of_remote(settings.remotes[one.remote]).of_routine:
                warnings += _prune_remote(settings, one.remote, emit, clock)
        count = sum(len(one.backups) for one in done)
        return StepReport(f"Backups pushed: {count}.", warnings, idle=not count)

    return RunStep("push", act)


def _prune_remote(settings: Settings, remote: str, emit: EventListener, clock: Clock) -> tuple[str, ...]:
    try:
        plan = plan_remote_prune(settings, remote, emit, clock)
        return prune_remote(settings, remote, plan, False, emit, clock).warnings
    except (BackupError, OSError) as raised:
        error = explained(raised) or BackupError(str(raised))
        warned = Warned(f"Nothing more is removed from {remote}: {error.message}")
        emit(warned)
        return (warned.text,)


def regular_steps(
    settings: Settings, request: BackupRequest, if_needed: bool = False, clock: Clock = utc_now
) -> list[RunStep]:
    """Return the steps of the maintenance run, in order; the push only if there are remotes."""
    made = [backup_step(settings, request, if_needed, clock), verify_step(settings, clock), prune_step(settings, clock)]
    return [*made, push_step(settings, clock)] if settings.remotes else made


def test_steps(
    settings: Settings, clock: Clock = utc_now, choose: Callable[[Sequence[Any]], Any] = random.choice
) -> list[RunStep]:
    """Return the step that test-restores a backup that had none for long, and sometimes a point of rewind."""

    def act(_done: Mapping[str, StepReport], emit: EventListener) -> StepReport:
        if not any(can_be_proven(one) for one in store.own_backups(settings)):
            return StepReport("There is no backup yet that could be restored.", idle=True)
        (found,) = verify_backups(settings, [choose_for_test(settings, choose)], True, emit, clock)
        refuse_bad(settings, [found])
        text, warnings = f"Test restore of {found.backup.name} passed.", found.warnings
        if moment := moments.choose_for_test(settings, choose):
            point = _test_point(settings, moment, emit, clock)
            text, warnings = f"{text} So did that of {point.backup.name}.", (*warnings, *point.warnings)
        return StepReport(text, warnings, backup=found.backup)

    return [RunStep("test", act)]


def _test_point(settings: Settings, moment: Moment, emit: EventListener, clock: Clock) -> Verified:
    """Test-restore a point of rewind. The history records the attempt even if the point cannot be built."""
    with contextlib.ExitStack() as building:
        try:
            backup = building.enter_context(moments.built(settings, moment, emit))
        except (BackupError, OSError):
            with recorded(settings, "test-restore", emit, clock, [moments.name_of(settings, moment)]):
                raise
        (found,) = verify_backups(settings, [backup], True, emit, clock)
    refuse_bad(settings, [found])
    return found


def _run_step(step: RunStep, done: dict[str, StepReport], emit: EventListener) -> StepResult:
    began = time.monotonic()
    try:
        outcome = done[step.name] = step.act(done, emit)
    except Exception as raised:
        error = explained(raised)
        if error is None:
            raise
        return StepResult(step.name, "failed", error.message, error=error, seconds=_since(began))
    state: State = "warnings" if outcome.warnings else "nothing" if outcome.idle else "done"
    name = outcome.backup.name if outcome.backup else None
    return StepResult(step.name, state, outcome.sentence, outcome.warnings, None, name, _since(began))


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
