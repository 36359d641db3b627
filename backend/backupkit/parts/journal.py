"""The journal of a restore: without it nothing live was touched; with it everything staged is whole and on disk.

It says where the staged things lie and how far the restore came, so that whoever finds it can finish.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from backupkit.ground import disk
from backupkit.words.errors import FULL, BackupError
from backupkit.words.model import DatabaseFacts

JOURNAL_FILE = ".journal"


@dataclass(frozen=True)
class Journal:
    """A restore under way: `source` is restored, `safety` is the copy of what was there before.

    Without a `safety` it is a way back, from a restore that failed or a migration that was interrupted.
    Paths are not in it, since a container and its host call the same folder by two names. `database` is whether the
    staged database still has to go live, `keep` whether what it replaces is to be kept first,
    `back` whether it failed and what was there before is to be staged and restored; `facts` and
    `revisions` are of what is staged, None where that is uploads only.
    """

    source: str
    safety: str | None
    started: str
    database: bool
    uploads: bool
    keep: bool = field(default=False, kw_only=True)
    back: bool = field(default=False, kw_only=True)
    facts: DatabaseFacts | None
    revisions: tuple[str, ...] | None


@cache
def _form() -> TypeAdapter[Journal]:
    return TypeAdapter(Journal)


def write(backups: Path, journal: Journal) -> None:
    """From when this returns there is only forward."""
    values: dict[str, Any] = _form().dump_python(journal, mode="json")
    disk.write_file(backups / JOURNAL_FILE, json.dumps(values, indent=2).encode())


def read(backups: Path) -> Journal | None:
    """The restore that was not finished; None where there is none."""
    path = backups / JOURNAL_FILE
    try:
        return _form().validate_json(disk.read_plain(path, disk.MOST_STATE))
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise  # of the disk, not of the journal
        raise BackupError(
            f"The journal {path} of an interrupted restore cannot be read: {type(error).__name__}.",
            hint="Restore the newest safety copy by hand (its RESTORE.md says how), then remove that file.",
        ) from error


def exists(backups: Path) -> bool:
    """Whether a restore was not finished, or is under way."""
    return (backups / JOURNAL_FILE).exists()


def remove(backups: Path) -> None:
    """The restore is over."""
    disk.remove(backups / JOURNAL_FILE)
