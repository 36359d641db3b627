"""The scheduler: it waits until something is due, does it, and goes on, whatever became of it.

What is due is decided by `scheduling/planner.py` from what is on disk, each time anew. One thing is done at a time, in
the main thread.

Told to end (SIGTERM), it ends at once: a run under way is interrupted as by Ctrl-C, and leaves nothing half done. With
`backup_on_shutdown` a backup is made first, or the one under way is finished, within `shutdown_timeout`. SIGHUP has the
settings read again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from backupkit.cli import render
from backupkit.cli.console import listening, say
from backupkit.cli.errors import say_error
from backupkit.cli.host import git_facts
from backupkit.config.settings import SETTINGS_FILE, Settings
from backupkit.fs.signals import Signals
from backupkit.model.backup import BackupRequest
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, ExitCode, Locked, explained
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

_ANEW = 3600  # seconds between two backups that are made because databases or trees came or went
_WAITING = "Rewind waits for a backup that its points can begin with: a whole one, made with these settings."
TICK = 5.0  # seconds in which changed settings are seen, and a clock that was set
_LOOK_AGAIN = timedelta(minutes=10)  # by then it is seen what others did to the backups
_REPORTED: dict[Task, str] = {"backup": "run", "test restore": "verify"}  # what messages call it

Wait = Callable[[float], None]


class Daemon:
    """One scheduler. `load` reads the settings anew; the clock and the waiting are parameters."""

    def __init__(
        self, settings: Settings, load: Callable[[], Settings], clock: Clock = utc_now, wait: Wait | None = None
    ) -> None:
        self.settings, self._load, self._clock = settings, load, clock
        self._signals = Signals()
        self._wait = wait or self._signals.wait
        self._expected: list[DueRun] = []
        self._file, self._complaint = _content(settings), ""
        self._looked_at: datetime | None = None
        self._announced: list[str] = []
        self._own = RunHistory(started=clock())  # what it did itself: it knows even where the disk cannot be written
        self._has_last_backup = False
        self._rewinder: Rewinder | None = None
        self._next_look = self._next_anew = 0.0
        self._rewind_complaint = ""
        self._has_no_points = False

    def serve(self) -> ExitCode:
        """Until it is told to end; the code of the backup at the end, where there is to be one.

        Raises `Locked` where another scheduler is at work for this backups folder.
        """
        store.require(self.settings.dir)
        with (
            listening(with_bar=False) as emit,  # a bar would stand there for ever
            scheduler_lock.on(self.settings.dir, self.settings.lock_timeout, emit),
            self._signals.listening(),
        ):
            self.begin()
            while not self._signals.ending:
                self.turn()
            return self._end()

    def begin(self) -> None:
        """Say that it is there, and finish a restore that was interrupted."""
        self._own = replace(self._own, seed=scheduler_lock.seed(self.settings.dir))
        _put(f"The scheduler is running for {self.settings.dir}, in the time zone {self.settings.timezone}.")
        self._survive(self._recover)

    def turn(self) -> None:
        """Look whether anything has changed, do what is due, wait for the next."""
        self._read_settings_if_changed()
        if self._looked_at is None or not self._looked_at <= self._clock() < self._looked_at + _LOOK_AGAIN:
            self._survive(self._plan)
        if self._signals.ending:
            return
        seconds = (self._expected[0].at - self._clock()).total_seconds() if self._expected else TICK
        if seconds <= 0:
            self._on_time(self._expected.pop(0).task)
        else:
            self._look_for_changes()
            self._wait(min(seconds, TICK))

    # Rewind.

    def _look_for_changes(self) -> None:
        """A point is taken where it is time to look and something changed."""
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
                    self._tell_of_points(None)
                missing = f"In no point of rewind, since it cannot be read: {first_of(lost)}." if lost else ""
                reasons = {"waiting": _WAITING, "outdated": self._rewinder.outdated}
                self._complain(reasons.get(looked, missing))
            if looked == "outdated":
                self._begin_anew()
        except KeyboardInterrupt:
            return
        except Exception as error:  # the next look may do better
            found = explained(error) or BackupError(f"{type(error).__name__}: {error}")
            self._complain(f"No point of rewind was taken: {found.message}")
            self._tell_of_points(found)

    def _begin_anew(self) -> None:
        """A backup is made that has the app's databases and trees as they are now; once an hour at the most."""
        if time.monotonic() < self._next_anew:
            return
        self._next_anew = time.monotonic() + _ANEW
        _put("A full backup is made now, for points to begin with.")
        self._carry_out("backup", [backup_step(self.settings, _order(), clock=self._clock)])
        self._looked_at = None
        self._next_look = 0.0

    def _tell_of_points(self, cause: BackupError | None) -> None:
        """The history, and who wants to be told, has it once that no point can be taken, and once that it is over."""
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

    def _complain(self, text: str) -> None:
        """Said once, until it is over."""
        if text and text != self._rewind_complaint:
            _put(text)
        self._rewind_complaint = text

    def _end(self) -> ExitCode:
        code = ExitCode.DONE
        asked = self.settings.enabled and self.settings.backup_on_shutdown and self._signals.ending == signal.SIGTERM
        if asked and not self._has_last_backup:
            _put("Making a backup before the end.")
            code = self._carry_out("backup", [backup_step(self.settings, _order(), clock=self._clock)])
            if code == ExitCode.INTERRUPTED:
                seconds = f"{self.settings.shutdown_timeout:g} s"
                _put(f"It had {seconds}: see BACKUP_SHUTDOWN_TIMEOUT, and the container's grace period.")
        _put("The scheduler has ended.")
        return code

    # What is due.

    def _plan(self) -> ExitCode:
        """The next run of each task is waited for."""
        now = self._looked_at = self._clock()
        self._expected = due = planner.next_due(self.settings, self._past(), now)
        later = [self._words(one) for one in due if one.at > now]
        self._announce(later if due else ["Nothing is scheduled."])
        return ExitCode.DONE

    def _words(self, due: DueRun) -> str:
        return f"Next {due.task}: {self.settings.local(due.at):%Y-%m-%d %H:%M:%S %Z} ({due.why})."

    def _announce(self, lines: list[str]) -> None:
        for line in lines:
            if line not in self._announced:
                _put(line)
        self._announced = lines

    def _past(self) -> RunHistory:
        """As it is on disk, with what this process knows besides."""
        now = self._clock()
        backups, operations = store.all_backups(self.settings), history.read(self.settings.dir).operations
        known = planner.past_of(self.settings, backups, operations, now)
        own = {task: at for task, at in self._own.last.items() if planner.is_credible(at, now)}
        last = {task: max(one[task] for one in (known.last, own) if task in one) for task in {*known.last, *own}}
        return replace(self._own, last=last, failed={**known.failed, **self._own.failed})

    def _on_time(self, task: Task) -> None:
        self._looked_at = None
        self._survive(lambda: self._do_if_due(task))

    def _do_if_due(self, task: Task) -> ExitCode:
        """By what is on disk and in the settings now: somebody may have done it, or changed his mind."""
        self._read_settings()
        now = self._clock()
        for due in planner.next_due(self.settings, self._past(), now):
            if due.task == task and due.at <= now:
                _put(f"Due now: {task} ({due.why}).")
                return self._carry_out(task, _steps(self.settings, task, self._clock))
        return ExitCode.DONE

    def _carry_out(self, task: Task, steps: Sequence[RunStep]) -> ExitCode:
        began, before, results = self._clock(), self._past().failed.get(task, ()), list[StepResult]()
        patience = self.settings.shutdown_timeout if task == "backup" and self.settings.backup_on_shutdown else None
        code = self._survive(lambda: _run(self.settings, task, steps, results), patience)
        # A test restore that failed was told of, and the next one takes another backup: it is not tried again.
        is_done = bool(results) and results[0].state != ("failed" if task == "backup" else "nothing")
        if is_done:
            self._own = replace(self._own, last={**self._own.last, task: began})
            self._has_last_backup = task == "backup" and bool(self._signals.ending)
        failed = () if is_done else (*before, began)
        self._own = replace(self._own, failed={**self._own.failed, task: failed})
        return code

    def _recover(self) -> ExitCode:
        with listening() as emit, suppress(Locked):  # then it is the work of another
            recover(self.settings, emit, timeout=0)
        return ExitCode.DONE

    def _survive(self, act: Callable[[], ExitCode], patience: float | None = None) -> ExitCode:
        try:
            with self._signals.interrupting(patience):
                return act()
        except KeyboardInterrupt:
            _put("It was interrupted; nothing is left half done.")
            return ExitCode.INTERRUPTED
        except Exception as error:  # a bug would end this run, and must not end all later ones
            found = explained(error) or BackupError(f"{type(error).__name__}: {error}")
            say_error(found)
            return found.code

    # The settings.

    def _read_settings_if_changed(self) -> None:
        content = _content(self.settings)
        if content != self._file or self._signals.reread:
            self._file, self._signals.reread = content, False
            self._read_settings()

    def _read_settings(self) -> None:
        """As they are now; where they cannot be right, the last good ones, and that is said once."""
        try:
            found = self._load()
        except BackupError as error:
            if error.message != self._complaint:
                say_error(error)
                _put("The scheduler goes on with the settings that it has.")
            self._complaint = error.message
            return
        self._complaint = ""
        if found != self.settings:
            self.settings, self._looked_at = found, None
            _put("The settings have changed.")


def _content(settings: Settings) -> bytes | None:
    """Not its date: a file that was put back, or is mounted from elsewhere, may have any."""
    try:
        return (settings.app_dir / SETTINGS_FILE).read_bytes()
    except OSError:
        return None


def _order() -> BackupRequest:
    return BackupRequest(kind="scheduled", git=git_facts(os.environ))


def _steps(settings: Settings, task: Task, clock: Clock) -> list[RunStep]:
    return test_steps(settings, clock) if task == "test restore" else regular_steps(settings, _order(), clock=clock)


def _run(settings: Settings, task: Task, steps: Sequence[RunStep], results: list[StepResult]) -> ExitCode:
    """What each step came to is said, logged, and told to whom it concerns."""
    run_report.begin(settings, _REPORTED[task], watched=False)
    code = ExitCode.FAILED
    cause: BaseException | None = None
    try:
        with listening() as emit:
            for result in run_steps(steps, emit):
                results.append(result)
                if result.error:
                    say_error(result.error)
        code, cause = worst(results), next((one.error for one in results if one.error), None)
        _tell(results)
    except BaseException as raised:
        code, cause = (ExitCode.FAILED if isinstance(raised, Exception) else ExitCode.INTERRUPTED), raised
        raise
    finally:
        run_report.end(code, cause)
    return code


def _tell(results: Sequence[StepResult]) -> None:
    lines = list(render.run(results))
    run_report.add_result(lines)
    if all(result.state == "nothing" for result in results):
        run_report.nothing_to_do()
    for line in lines:
        _put(line)


def _put(text: str) -> None:
    say(text)
    log.info(text)
