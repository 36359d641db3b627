"""Background jobs: each runs in a thread and has a number, by which any page can watch and cancel it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from backupkit.cli.task import Ended, Run, Task, how_far
from backupkit.config.deployment import in_full
from backupkit.config.secrets import Secret, scrubbed
from backupkit.model.events import EventListener
from backupkit.model.names import printable_lines, printable_text
from backupkit.repository import operation

_KEPT = 50  # jobs that are remembered
_LARGE = "rescue"  # the kind whose results hold many rows
_KEPT_LARGE = 3


@dataclass
class Job:
    """One task, running or ended. `kind` decides which page follows once it is done."""

    number: int
    kind: str
    run: Run[Any]
    actor: str
    ended: Ended[Any] | None = None
    took: float = 0.0
    led_to: Job | None = None
    """For a plan: the job that carried it out."""

    @property
    def title(self) -> str:
        return self.run.task.title

    @property
    def state(self) -> str:
        """`running`, `done`, `failed` or `cancelled`."""
        return self.ended.state if self.ended else "running"

    @property
    def lines(self) -> list[str]:
        """The lines of the result, or the error and its hint; none while it runs or if it was cancelled."""
        if self.ended is None or self.ended.state == "cancelled":
            return []
        if error := self.ended.error:
            return [printable_lines(in_full(one)) for one in (error.message, error.hint) if one]
        return [printable_lines(in_full(one)) for one in self.run.task.result_lines(self.ended.result)]

    def document(self, secrets: Iterable[Secret] = ()) -> dict[str, object]:
        """Return the progress as JSON values for a page, without these secrets."""
        step, done = self.run.step, self.run.done
        return {
            "state": self.state,
            "step": printable_text(scrubbed(self.run.waiting or step.name, secrets)),
            "amount": how_far(self.run),
            "share": min(done / step.total, 1.0) if step.total else None,
            "seconds": round(time.monotonic() - self.run.began),
            "said": [printable_lines(scrubbed(in_full(one), secrets)) for one in self.run.said[-20:]],
            "can_be_cancelled": self.run.can_be_cancelled and not self.run.wants_to_end,
        }


class Jobs:
    """The jobs of one server, newest last. Each runs in a thread of its own."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._once = threading.Lock()

    def start(self, task: Task[Any], actor: str, kind: str = "") -> Job:
        """Start the task in a thread and forget the oldest ended jobs; the history names `actor` as who did it."""
        job = Job(next(self._numbers), kind, Run(task), actor)
        self._jobs[job.number] = job
        large = [number for number, one in self._jobs.items() if one.kind == _LARGE]
        for number in (*list(self._jobs)[:-_KEPT], *large[:-_KEPT_LARGE]):
            if number in self._jobs and self._jobs[number].ended:
                del self._jobs[number]
        threading.Thread(target=self._carry_out, args=(job,), name=f"job {job.number}", daemon=False).start()
        return job

    def carry_out(self, planned: Job, task: Task[Any], actor: str, kind: str = "") -> Job:
        """Start the planned work once; return the same job if asked again, for example by a double click."""
        with self._once:
            planned.led_to = planned.led_to or self.start(task, actor, kind)
            return planned.led_to

    def find(self, number: str) -> Job | None:
        """Return the job of the number in the URL, or None if it is unknown or forgotten."""
        return self._jobs.get(int(number)) if number.isdecimal() and len(number) < 10 else None

    @property
    def running(self) -> list[Job]:
        """The jobs that have not ended, oldest first."""
        return [job for job in self._jobs.values() if job.ended is None]

    def cancel_all(self) -> None:
        """Ask every running job to end; each ends at the next event at which that is safe."""
        for job in self.running:
            job.run.cancel()

    def _carry_out(self, job: Job) -> None:
        with operation.acting_as(job.actor):
            ended = job.run.carry_out()
        job.took = time.monotonic() - job.run.began
        job.run.task = replace(job.run.task, act=_done)  # frees the memory that the old closure held
        job.ended = ended


def _done(_emit: EventListener) -> None:
    """Do nothing: stands in for the action of an ended task."""
