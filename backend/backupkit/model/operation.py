"""One operation of the toolkit, from its start to its end, and who ran it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from backupkit.model.errors import CANCELLED

AwareDatetime = Annotated[datetime, Meta(tz=True)]
Outcome = Literal["running", "success", "warning", "failure", "refused", "interrupted"]
Through = Literal["wrapper", "command", "scheduler", "web", "library"]


class Who(Struct, frozen=True):
    """A process, as another person can find it. `born` tells it from a later one with the same pid."""

    user: str
    pid: int
    host: str
    through: Through = "library"
    born: str = ""


class TimedStep(Struct, frozen=True):
    """A step of an operation, as it was announced, and the seconds from it to the next one."""

    name: str
    seconds: float


class Operation(Struct, frozen=True):
    """One run of an operation. Bytes and seconds; None if they are not known, or not known yet.

    `refused` means that the request was wrong and nothing was done; `interrupted`, that it was asked to end, or was
    killed and never recorded its end. `backups` are the names of the backups concerned, `note` is what else there is to
    say in a few words.
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
        """Whether a person should be told of it: not of a refusal, nor of what its own user cancelled."""
        return self.outcome == "failure" or (self.outcome == "interrupted" and self.error != CANCELLED)

    @property
    def has_succeeded(self) -> bool:
        """Whether it did what was asked, perhaps with warnings."""
        return self.outcome in ("success", "warning")
