"""A plain database: one SQLite file of a program that has no app folder. Where its backups go, and how many stay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

MAX_BACKUPS = 20


@dataclass(frozen=True)
class SingleFileConfig:
    """What is to be backed up and where to, paths absolute; `zone` is None for the machine's own, times in seconds."""

    database: Path
    backups: Path
    settings_file: Path
    max_backups: int
    zone: tzinfo | None
    timeout: float

    def local(self, moment: datetime) -> datetime:
        """The moment in the zone, to the second."""
        return moment.astimezone(self.zone).replace(microsecond=0)
