"""Results as JSON documents: the same values that people are shown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backupkit.parts import manifest
from backupkit.verbs.make import Created
from backupkit.verbs.restore import Restored, RestorePlan
from backupkit.verbs.run import StepResult, worst
from backupkit.words.model import Backup, Metadata
from backupkit.words.secrets import Secret

if TYPE_CHECKING:
    from backupkit.faces.courier import Delivery


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


def run(results: Sequence[StepResult]) -> dict[str, Any]:
    """Each step of a run, in order, and the exit code of it all."""
    return {"steps": [_step(one) for one in results], "exit_code": int(worst(results))}


def _step(result: StepResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "state": result.state,
        "exit_code": int(result.code),
        "sentence": result.sentence,
        "hint": (result.error.hint if result.error else "") or None,
        "warnings": list(result.warnings),
        "backup": result.backup,
        "seconds": result.seconds,
    }


def delivery(found: Delivery) -> dict[str, Any]:
    """What became of a message at one address."""
    return {
        "kind": found.address.kind,
        "url": str(found.address.url),
        "sent": not found.trouble,
        "trouble": found.trouble or None,
    }


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path | Secret):
        return str(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
