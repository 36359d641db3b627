"""Results as JSON documents: the same values that people are shown."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from backupkit.parts import manifest
from backupkit.verbs.make import Created
from backupkit.verbs.restore import Restored, RestorePlan
from backupkit.verbs.status import LEVELS, Status
from backupkit.words.model import Backup, Metadata
from backupkit.words.operation import Operation


def put(document: Any) -> None:
    """The one JSON document on stdout, plain ASCII so that any bytes in names survive."""
    print(json.dumps(document, indent=2, default=_plain))


def backup(found: Backup) -> dict[str, Any]:
    """Every field of the metadata, and what is known of the folder; null where a damaged one says nothing."""
    names = [field.name for field in dataclasses.fields(Metadata)]
    described = manifest.to_json(found.metadata) if found.metadata else dict.fromkeys(names)
    folder = {
        "path": str(found.path),
        "size_bytes": found.size_bytes,
        "unique_bytes": found.unique_bytes,
        "state": found.state,
        "pinned": found.pinned,
        "checked_at": found.checked_at,
        "proven_at": found.proven_at,
        "trouble": found.trouble or None,
    }
    return {**described, "backup_name": found.name, **folder}


def created(made: Created) -> dict[str, Any]:
    """The new backup, and the warnings of making it."""
    return {**backup(made.backup), "warnings": list(made.warnings)}


def plan(found: RestorePlan) -> dict[str, Any]:
    """What a restore would change."""
    return dataclasses.asdict(found)


def restored(done: Restored) -> dict[str, Any]:
    """What a restore did."""
    return dataclasses.asdict(done)


def operation(one: Operation) -> dict[str, Any]:
    """One line of the history."""
    return dataclasses.asdict(one)


def status(found: Status) -> dict[str, Any]:
    """How things stand: the level and its exit code, the reasons, and every number beside them."""
    said = {
        "level": found.level,
        "exit_code": LEVELS.index(found.level),
        "sentence": found.sentence,
        "reasons": [dataclasses.asdict(reason) for reason in found.reasons],
    }
    return {**said, **dataclasses.asdict(found.numbers)}


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
