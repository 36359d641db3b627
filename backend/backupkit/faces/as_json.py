"""Results as JSON documents: the same values that people are shown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backupkit.parts import manifest
from backupkit.words.model import Backup, Metadata
from backupkit.words.reach import in_full
from backupkit.words.remotes import RemoteTable
from backupkit.words.secrets import Secret

if TYPE_CHECKING:
    from backupkit.faces.courier import Delivery
    from backupkit.verbs.copies import Copies, RemoteState
    from backupkit.verbs.export import Exported, Imported
    from backupkit.verbs.make import Created
    from backupkit.verbs.prune import Pruned, PrunePlan
    from backupkit.verbs.push import Pushed
    from backupkit.verbs.report import Report
    from backupkit.verbs.restore import Restored, RestorePlan
    from backupkit.verbs.run import StepResult
    from backupkit.verbs.status import Status
    from backupkit.verbs.verify import Verified, VerifiedFile
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
        "anomalies": list(found.metadata.anomalies) if found.metadata else [],
        "accepted": found.accepted,
        "recovery_seconds": found.recovery_seconds,
        "not_proven": found.not_proven or None,
        "flaws": [dataclasses.asdict(flaw) for flaw in found.flaws],
    }
    return {**described, "backup_name": found.name, **folder}


def verified(done: Verified) -> dict[str, Any]:
    """The backup as it is known now, and what is wrong with it."""
    return {
        **backup(done.backup),
        "flaws": [dataclasses.asdict(flaw) for flaw in done.flaws],
        "more_flaws": done.more,
        "warnings": list(done.warnings),
        "failure": done.failure.message if done.failure else None,
    }


def verified_file(found: VerifiedFile) -> dict[str, Any]:
    """What a plain database file holds, and what is wrong with it."""
    return dataclasses.asdict(found)


def created(made: Created) -> dict[str, Any]:
    """The new backup, and the warnings of making it."""
    return {**backup(made.backup), "warnings": list(made.warnings)}


def prune_plan(found: PrunePlan) -> dict[str, Any]:
    """A verdict for each backup, newest first, and why nothing is removed now, where that is so."""
    return {
        "stopped": found.stopped or None,
        "limit": found.limit,
        "verdicts": [{**backup(one.backup), "keep": one.keep, "reasons": list(one.reasons)} for one in found.verdicts],
    }


def pruned(found: PrunePlan, done: Pruned) -> dict[str, Any]:
    """The plan, and the names of what was removed."""
    names = [one.name for one in done.removed]
    return {**prune_plan(found), "removed": names, "warnings": list(done.warnings)}


def exported(done: Exported) -> dict[str, Any]:
    """The file, and the backup in it."""
    file = {"path": done.path, "size_bytes": done.size_bytes, "encrypted": done.encrypted}
    return {**file, "backup_name": done.backup.name, "warnings": list(done.warnings)}


def imported(done: Imported) -> dict[str, Any]:
    """The backup that is here now, and the warnings of importing it."""
    return {**backup(done.backup), "warnings": list(done.warnings)}


def plan(found: RestorePlan) -> dict[str, Any]:
    """What a restore would change."""
    return dataclasses.asdict(found)


def restored(done: Restored) -> dict[str, Any]:
    """What a restore did."""
    return dataclasses.asdict(done)


def run(results: Sequence[StepResult]) -> dict[str, Any]:
    """Each step of a run, in order, and the exit code of it all."""
    from backupkit.verbs.run import worst

    return {"steps": [_step(one) for one in results], "exit_code": int(worst(results))}


def _step(result: StepResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "state": result.state,
        "exit_code": int(result.code),
        "sentence": result.sentence,
        "hint": in_full(result.error.hint if result.error else "") or None,
        "warnings": list(result.warnings),
        "backup": result.backup,
        "seconds": result.seconds,
    }


def pushed(done: Pushed) -> dict[str, Any]:
    """What one remote got, and why it failed, where it did."""
    return {
        "remote": done.remote,
        "pushed": list(done.backups),
        "backups": done.there,
        "failure": done.failure.message if done.failure else None,
        "exit_code": int(done.failure.code) if done.failure else 0,
    }


def copies(found: Copies) -> dict[str, Any]:
    """Each remote, and how it stands with three copies, two media, one elsewhere."""
    counted = {"copies": found.copies, "media": found.media, "elsewhere": found.elsewhere}
    return {"remotes": [_remote(one) for one in found.remotes], **counted, "lacking": list(found.lacking)}


def _remote(state: RemoteState) -> dict[str, Any]:
    plain = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {**plain, "failure": state.failure.message if state.failure else None}


def delivery(found: Delivery) -> dict[str, Any]:
    """What became of a message at one address."""
    return {
        "kind": found.address.kind,
        "url": str(found.address.url),
        "sent": not found.trouble,
        "trouble": found.trouble or None,
    }


def operation(one: Operation) -> dict[str, Any]:
    """One line of the history."""
    return dataclasses.asdict(one)


def status(found: Status) -> dict[str, Any]:
    """How things stand: the level and its exit code, the reasons, and every number beside them."""
    from backupkit.verbs.status import LEVELS

    said = {
        "level": found.level,
        "exit_code": LEVELS.index(found.level),
        "sentence": found.sentence,
        "reasons": [dataclasses.asdict(reason) for reason in found.reasons],
    }
    numbers = {field.name: getattr(found.numbers, field.name) for field in dataclasses.fields(found.numbers)}
    return {**said, **numbers, **copies(found.numbers.copies)}


def report(found: Report) -> dict[str, Any]:
    """What the report says: the status, and beside it the calendar, the sizes, the test restores and what comes."""
    runs = [dataclasses.asdict(run) for run in found.runs]
    return {**status(found.status), **dataclasses.asdict(found.overview), "next_runs": runs}


def _plain(value: object) -> Any:
    if isinstance(value, date):  # and so a datetime
        return value.isoformat()
    if isinstance(value, Path | Secret):
        return str(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    if isinstance(value, RemoteTable):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} has no JSON form")
