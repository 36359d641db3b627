"""What was done: one operation of a verb, from its start to its end, and who did it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import AwareDatetime

from backupkit.model.errors import CANCELLED

Outcome = Literal["running", "success", "warning", "failure", "refused", "interrupted"]
Through = Literal["wrapper", "command", "scheduler", "web", "library"]


@dataclass(frozen=True)
class Who:
    """A process, as another person can find it. `born` tells it from a later one of the same number."""

    user: str
    pid: int
    host: str
    through: Through = "library"
    born: str = ""


@dataclass(frozen=True)
class TimedStep:
    """A part of an operation, as it was announced, and how many seconds it took until the next one."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Operation:
    """One run of a verb. Bytes and seconds; None where they are not known, or not known yet.

    `refused` means that the request was wrong and nothing was done; `interrupted` that it was told to end, or was
    killed and never ended. `backups` are the names it was about, `note` what else there is to say in a few words.
    """

    id: str
    command: str
    started_at: AwareDatetime
    who: Who
    ended_at: AwareDatetime | None = None
    outcome: Outcome = "running"
    exit_code: int | None = None
    backups: tuple[str, ...] = ()
    size_bytes: int | None = None
    unique_bytes: int | None = None
    free_bytes: int | None = None
    duration_seconds: float | None = None
    note: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()
    steps: tuple[TimedStep, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether a person should know: a refusal is told to the one who asked, and who cancels knows it."""
        return self.outcome == "failure" or (self.outcome == "interrupted" and self.error != CANCELLED)

    @property
    def has_succeeded(self) -> bool:
        """Whether it did what was asked, if with warnings."""
        return self.outcome in ("success", "warning")
