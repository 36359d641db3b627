"""The scheduler process: it waits until a task is due, runs it, and continues even if it failed.

`scheduling/planner.py` decides what is due, each time anew, from what is on disk. Tasks run one at a time, in the main
thread.

On SIGTERM the process ends at once: a running task is interrupted as by Ctrl-C, and leaves nothing half done. With
`backup_on_shutdown` it first makes a backup, or finishes the running one, within `shutdown_timeout`. On SIGHUP it reads
the settings again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from msgspec.structs import replace

from backupkit.cli import render
from backupkit.cli.console import listening, say
from backupkit.cli.errors import say_error
from backupkit.cli.host import scheduled_backup
from backupkit.config.settings import SETTINGS_FILE, Settings
from backupkit.fs.signals import Signals
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, ExitCode, Locked, explained, left_by_interrupt
from backupkit.model.names import first_of
from backupkit.monitoring import log
from backupkit.monitoring.notify import run_report
from backupkit.repository import history, store
from backupkit.repository.operation import recorded
from backupkit.restore.recovery import recover
from backupkit.scheduling import planner, scheduler_lock
from backupkit.scheduling.planner import DueRun, RunHistory, Task
from backupkit.scheduling.run import RunStep, StepResult, backup_step, regular_steps, run_steps, test_steps, worst

if TYPE_CHECKING:
    from backupkit.rewind.take import Rewinder

_BASE_BACKUP_INTERVAL = 3600  # least seconds between two backups made because databases or trees were added or removed
_NO_BASE_BACKUP = "Rewind waits for a full backup that was made with the present settings."
TICK = 5.0  # most seconds until changed settings, or a clock that was set, are noticed
_PLAN_AGAIN_AFTER = timedelta(minutes=10)  # after that, plan anew: other processes may have made or removed backups
_REPORTED_AS: dict[Task, str] = {"backup": "run", "test restore": "verify"}  # the command that notifications name

Wait = Callable[[float], None]


class Daemon:
    """One scheduler. `load` reads the settings anew; tests replace `clock` and `wait`."""

    def __init__(
        self, settings: Settings, load: Callable[[], Settings], clock: Clock = utc_now, wait: Wait | None = None
    ) -> None:
        self.settings, self._load, self._clock = settings, load, clock
        self._signals = Signals()
        self._wait = wait or self._signals.wait
        self._due_runs: list[DueRun] = []
        self._last_content, self._last_settings_error = _read_settings_file(settings), ""
        self._planned_at: datetime | None = None
        self._announced_lines: list[str] = []
        self._own_runs = RunHistory(started=clock())  # its own runs, known even if the history cannot be written
        self._has_last_backup = False
        self._rewinder: Rewinder | None = None
        self._next_look = self._next_base_backup = 0.0
        self._last_said = ""
        self._has_no_points = False

    def serve(self) -> ExitCode:
        """Run until a signal to end; return the exit code of the final backup, or DONE if none was to be made.

        Raise `Locked` if another scheduler runs for this backups folder.
        """
        store.require(self.settings.dir)
        with (
            listening(with_bar=False) as emit,  # a bar would never go away
            scheduler_lock.on(self.settings.dir, self.settings.lock_timeout, emit),
            self._signals.listening(),
        ):
            self.begin()
            while not self._signals.ending:
                self.turn()
            return self._end()

    def begin(self) -> None:
        """Announce the scheduler, and finish an interrupted restore."""
        self._own_runs = replace(self._own_runs, seed=scheduler_lock.seed(self.settings.dir))
        _say_and_log(f"The scheduler is running for {self.settings.dir}, in the time zone {self.settings.timezone}.")
        self._run_safely(self._recover)

    def turn(self) -> None:
        """Read changed settings, run one due task, or wait up to `TICK` seconds for the next."""
        self._read_settings_if_changed()
        if self._planned_at is None or not self._planned_at <= self._clock() < self._planned_at + _PLAN_AGAIN_AFTER:
            self._run_safely(self._plan)
        if self._signals.ending:
            return
        seconds = (self._due_runs[0].at - self._clock()).total_seconds() if self._due_runs else TICK
        if seconds <= 0:
            task, self._planned_at = self._due_runs.pop(0).task, None
            self._run_safely(lambda: self._run_if_due(task))
        else:
            self._look_for_changes()
            self._wait(min(seconds, TICK))

    # Rewind

    def _look_for_changes(self) -> None:
        """Take a point of rewind if the interval is over and the data changed."""
        if not (self.settings.enabled and self.settings.rewind):
            self._rewinder = None
            return
        if time.monotonic() < self._next_look:
            return
        if self._rewinder is None:
            from backupkit.rewind.take import Rewinder

            self._rewinder = Rewinder(self.settings, self._clock)
            known = (one for one in history.read(self.settings.dir).operations if one.command == "rewind")
            self._has_no_points = any(one.has_failed for one in islice(known, 1))  # the newest comes first
        self._rewinder.use(self.settings)
        self._next_look = time.monotonic() + self._rewinder.interval
        try:
            with self._signals.interrupting(None):
                looked, lost = self._rewinder.look(), self._rewinder.unreadable
                if looked in ("same", "taken"):
                    scheduler_lock.looked(self.settings.dir, self._clock())
                    self._report_points(None)
                missing = f"In no point of rewind, since it cannot be read: {first_of(lost)}." if lost else ""
                reasons = {"waiting": _NO_BASE_BACKUP, "outdated": self._rewinder.outdated}
                self._say_once(reasons.get(looked, missing))
            if looked == "outdated":
                self._make_base_backup()
        except KeyboardInterrupt:
            return
        except Exception as error:  # the next look may do better
            found = explained(error) or BackupError(f"{type(error).__name__}: {error}")
            what_next = f" Next: {found.hint}" if found.hint else ""
            self._say_once(f"No point of rewind was taken: {found.message}{what_next}")
            self._report_points(found)

    def _make_base_backup(self) -> None:
        """Make a backup of the app's current databases and trees, for new points to start from; at most hourly."""
        if time.monotonic() < self._next_base_backup:
            return
        self._next_base_backup = time.monotonic() + _BASE_BACKUP_INTERVAL
        _say_and_log("A full backup is made now, as the base of new points of rewind.")
        self._carry_out("backup", [backup_step(self.settings, scheduled_backup(), clock=self._clock)])
        self._planned_at = None
        self._next_look = 0.0

    def _report_points(self, cause: BackupError | None) -> None:
        """Record in the history, and notify, once when points can no longer be taken, and once when they can again."""
        if bool(cause) == self._has_no_points:
            return
        self._has_no_points = bool(cause)
        run_report.begin(self.settings, "rewind", watched=False)
        with suppress(BackupError, OSError), recorded(self.settings, "rewind", clock=self._clock) as work:
            if cause:
                raise cause
            work.concerning(note="points are taken again")
            run_report.add_result(["Points of rewind are taken again."])
        run_report.end(cause.code if cause else ExitCode.DONE, cause)

    def _say_once(self, text: str) -> None:
        """Print the text unless it is the same as last time; an empty text resets that."""
        if text and text != self._last_said:
            _say_and_log(text)
        self._last_said = text

    def _end(self) -> ExitCode:
        code = ExitCode.DONE
        asked = self.settings.enabled and self.settings.backup_on_shutdown and self._signals.ending == signal.SIGTERM
        if asked and not self._has_last_backup:
            _say_and_log("Making a backup before the end.")
            code = self._carry_out("backup", [backup_step(self.settings, scheduled_backup(), clock=self._clock)])
            if code == ExitCode.INTERRUPTED:
                seconds = f"{self.settings.shutdown_timeout:g} s"
                _say_and_log(
                    f"The backup did not end within {seconds}: see BACKUP_SHUTDOWN_TIMEOUT and the grace period."
                )
        _say_and_log("The scheduler has ended.")
        return code

    # Due tasks

    def _plan(self) -> ExitCode:
        """Find the next run of each task, and announce those that changed."""
        now = self._planned_at = self._clock()
        self._due_runs = due = planner.next_due(self.settings, self._run_history(), now)
        later = [self._sentence_on(one) for one in due if one.at > now]
        self._announce(later if due else ["Nothing is scheduled."])
        return ExitCode.DONE

    def _sentence_on(self, due: DueRun) -> str:
        return f"Next {due.task}: {self.settings.local(due.at):%Y-%m-%d %H:%M:%S %Z} ({due.why})."

    def _announce(self, lines: list[str]) -> None:
        for line in lines:
            if line not in self._announced_lines:
                _say_and_log(line)
        self._announced_lines = lines

    def _run_history(self) -> RunHistory:
        """Return the runs so far: those on disk, and those that only this process knows of."""
        now = self._clock()
        backups, operations = store.all_backups(self.settings), history.read(self.settings.dir).operations
        known = planner.run_history_of(self.settings, backups, operations, now)
        own = {task: at for task, at in self._own_runs.last.items() if planner.is_credible(at, now)}
        last = {task: max(one[task] for one in (known.last, own) if task in one) for task in {*known.last, *own}}
        return replace(self._own_runs, last=last, failed={**known.failed, **self._own_runs.failed})

    def _run_if_due(self, task: Task) -> ExitCode:
        """Run the task if disk and settings still say that it is due: it may have been run or disabled meanwhile."""
        self._read_settings()
        now = self._clock()
        for due in planner.next_due(self.settings, self._run_history(), now):
            if due.task == task and due.at <= now:
                _say_and_log(f"Due now: {task} ({due.why}).")
                return self._carry_out(task, _steps(self.settings, task, self._clock))
        return ExitCode.DONE

    def _carry_out(self, task: Task, steps: Sequence[RunStep]) -> ExitCode:
        began, before, results = self._clock(), self._run_history().failed.get(task, ()), list[StepResult]()
        patience = self.settings.shutdown_timeout if task == "backup" and self.settings.backup_on_shutdown else None
        code = self._run_safely(lambda: _run(self.settings, task, steps, results), patience)
        # A failed test restore was reported, and the next one takes another backup: so it is not repeated.
        is_done = bool(results) and results[0].state != ("failed" if task == "backup" else "nothing")
        if is_done:
            self._own_runs = replace(self._own_runs, last={**self._own_runs.last, task: began})
            self._has_last_backup = task == "backup" and bool(self._signals.ending)
        failed = () if is_done else (*before, began)
        self._own_runs = replace(self._own_runs, failed={**self._own_runs.failed, task: failed})
        return code

    def _recover(self) -> ExitCode:
        with listening() as emit, suppress(Locked):  # then another process does it
            recover(self.settings, emit, timeout=0)
        return ExitCode.DONE

    def _run_safely(self, act: Callable[[], ExitCode], patience: float | None = None) -> ExitCode:
        try:
            with self._signals.interrupting(patience):
                return act()
        except KeyboardInterrupt as interrupt:
            _say_and_log(f"It was interrupted; {left_by_interrupt(interrupt)}.")
            return ExitCode.INTERRUPTED
        except Exception as error:  # a bug would end this run, and must not end all later ones
            found = explained(error) or BackupError(f"{type(error).__name__}: {error}")
            say_error(found)
            return found.code

    # Settings

    def _read_settings_if_changed(self) -> None:
        content = _read_settings_file(self.settings)
        if content != self._last_content or self._signals.reread:
            self._last_content, self._signals.reread = content, False
            self._read_settings()

    def _read_settings(self) -> None:
        """Read the settings again; if they are invalid, keep the last good ones, and print the error once."""
        try:
            found = self._load()
        except BackupError as error:
            if error.message != self._last_settings_error:
                say_error(error)
                _say_and_log("The scheduler goes on with the settings that it has.")
            self._last_settings_error = error.message
            return
        self._last_settings_error = ""
        if found != self.settings:
            self.settings, self._planned_at = found, None
            _say_and_log("The settings have changed.")


def _read_settings_file(settings: Settings) -> bytes | None:
    """Return the settings file's content, or None if unreadable; dates would not do: a restored file may have any."""
    try:
        return (settings.app_dir / SETTINGS_FILE).read_bytes()
    except OSError:
        return None


def _steps(settings: Settings, task: Task, clock: Clock) -> list[RunStep]:
    if task == "test restore":
        return test_steps(settings, clock)
    return regular_steps(settings, scheduled_backup(), clock=clock)


def _run(settings: Settings, task: Task, steps: Sequence[RunStep], results: list[StepResult]) -> ExitCode:
    """Run the steps, append their results to `results`, and print, log and report each; return the worst exit code."""
    run_report.begin(settings, _REPORTED_AS[task], watched=False)
    code = ExitCode.FAILED
    cause: BaseException | None = None
    try:
        with listening() as emit:
            for result in run_steps(steps, emit):
                results.append(result)
                if result.error:
                    say_error(result.error)
        code, cause = worst(results), next((one.error for one in results if one.error), None)
        _report_results(results)
    except BaseException as raised:
        code, cause = (ExitCode.FAILED if isinstance(raised, Exception) else ExitCode.INTERRUPTED), raised
        raise
    finally:
        run_report.end(code, cause)
    return code


def _report_results(results: Sequence[StepResult]) -> None:
    lines = list(render.run(results))
    run_report.add_result(lines)
    if all(result.state == "nothing" for result in results):
        run_report.nothing_to_do()
    for line in lines:
        _say_and_log(line)


def _say_and_log(text: str) -> None:
    say(text)
    log.info(text)
