"""Results as JSON documents, with the same values as the text output.

One function per document. Every key is written out, so that renaming a field of a class does not rename the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backupkit.config.deployment import in_full, on_host
from backupkit.config.remotes import RemoteTable
from backupkit.config.secrets import Secret
from backupkit.model import documents
from backupkit.model.backup import Backup
from backupkit.model.documents import Document

if TYPE_CHECKING:
    from backupkit.archive.export import Exported, Imported
    from backupkit.backup.make import Created
    from backupkit.backup.salvage import Salvaged, SalvagedTable
    from backupkit.config.editor import Changed
    from backupkit.migrations.migrate import Migrated
    from backupkit.migrations.upgrade import Rehearsed
    from backupkit.monitoring.doctor import Finding
    from backupkit.monitoring.notify.sender import Delivery
    from backupkit.monitoring.overview import Day, Size, TestRestore
    from backupkit.monitoring.report_facts import Report
    from backupkit.monitoring.status import Numbers, Status
    from backupkit.remotes.base import RemoteBackup
    from backupkit.remotes.copies import Copies, RemoteState
    from backupkit.remotes.push import Pushed
    from backupkit.restore.journal import Journal
    from backupkit.restore.lay_out import LaidOut, Layout
    from backupkit.restore.restore import Live, Restored, RestoredPart, RestorePlan
    from backupkit.restore.staging import Source
    from backupkit.retention.prune import Pruned, PrunePlan
    from backupkit.scheduling.planner import DueRun
    from backupkit.scheduling.run import StepResult
    from backupkit.upload_files.diff import Summary
    from backupkit.verify.files import ListedFile
    from backupkit.verify.verify import Verified, VerifiedFile


SCHEMA_VERSION = 1  # of docs/reference/schemas; increase it when a key is removed or changed


def text(document: Any, versioned: bool = True) -> str:
    """Return the document as text to print: ASCII only, so that undecodable bytes in names survive."""
    return json.dumps(_versioned(document) if versioned else document, indent=2, default=_plain)


def _versioned(document: Any) -> Any:
    """Return the document, or each document of a list, with the schema version."""
    if isinstance(document, list):
        return [_versioned(one) for one in document]
    return {"schema_version": SCHEMA_VERSION, **document} if document else document


def error(code: int, message: str, following: str) -> Document:
    """Return the error of a failed command: its exit code, its message, and what to do next, or null."""
    return {"error": {"code": code, "message": in_full(message), "next": in_full(following) or None}}


def backup(found: Backup) -> Document:
    """Return every field of the metadata, and the state of the backup; null for what a damaged backup does not tell."""
    return {
        **(documents.metadata(found.metadata) if found.metadata else documents.no_metadata()),
        "backup_name": found.name,
        "path": str(found.path),
        "size_bytes": found.size_bytes,
        "unique_bytes": found.unique_bytes,
        "state": found.state,
        "pinned": found.pinned,
        "checked_at": found.checked_at,
        "proven_at": found.proven_at,
        "trouble": found.error or None,
        "anomalies": list(found.metadata.anomalies) if found.metadata else [],
        "accepted": found.accepted,
        "recovery_seconds": found.recovery_seconds,
        "not_proven": found.not_proven or None,
        "flaws": documents.flaws(found.flaws),
    }


def verified(done: Verified) -> Document:
    """Return the backup after the check, and the flaws found in it."""
    return {
        **backup(done.backup),
        "flaws": documents.flaws(done.flaws),
        "more_flaws": done.more,
        "warnings": list(done.warnings),
        "failure": done.failure.message if done.failure else None,
        **({"references": documents.references(done.references)} if done.references else {}),
    }


def verified_file(found: VerifiedFile) -> Document:
    """Return the rows and revisions of a plain database file, and its flaws."""
    return {
        "path": found.path,
        "flaws": documents.flaws(found.flaws),
        "rows": found.rows,
        "revisions": list(found.revisions),
        "verdict": documents.verdict(found.verdict) if found.verdict else None,
    }


def created(made: Created | Imported) -> Document:
    """Return the backup that was made or imported, and the warnings of that."""
    return {**backup(made.backup), "warnings": list(made.warnings)}


def salvaged(done: Salvaged) -> Document:
    """Return what could be read, table by table, the backup that holds it (null for a dry run), and what to restore."""
    return {
        "source": done.source,
        "backup": backup(done.created.backup) if done.created else None,
        "compared_with": done.compared_with or None,
        "tables": [_salvaged_table(one) for one in done.tables],
        "recommended": (done.recommended or None) if done.created or done.recommended == done.compared_with else None,
        "advice": done.advice,
        "warnings": list(done.warnings),
    }


def _salvaged_table(one: SalvagedTable) -> Document:
    return {
        "name": one.name,
        "found": one.found,
        "in_backup": one.in_backup,
        "missing": one.missing,
        "changed": one.changed,
        "new": one.new,
        "lost_pages": one.lost_pages,
        "lost_rows": one.lost_rows,
        "odd_pages": one.odd_pages,
        "not_taken": one.not_taken,
    }


def prune_plan(found: PrunePlan) -> Document:
    """Return a verdict for each backup, newest first, and the reason if nothing is removed now."""
    return {
        "stopped": found.stopped or None,
        "limit": found.limit,
        "verdicts": [{**backup(one.backup), "keep": one.keep, "reasons": list(one.reasons)} for one in found.verdicts],
    }


def pruned(found: PrunePlan, done: Pruned) -> Document:
    """Return the plan, and the names of the removed backups."""
    names = [one.name for one in done.removed]
    return {**prune_plan(found), "removed": names, "warnings": list(done.warnings)}


def exported(done: Exported) -> Document:
    """Return the file, and the name of the backup in it."""
    file = {"path": done.path, "size_bytes": done.size_bytes, "encrypted": done.encrypted}
    return {**file, "backup_name": done.backup.name, "warnings": list(done.warnings)}


def plan(found: RestorePlan) -> Document:
    """Return what a restore would change."""
    return {
        "source": _source(found.source),
        "verdict": documents.verdict(found.verdict) if found.verdict else None,
        "live": _live(found.live),
        "uploads": _differences(found.uploads) if found.uploads else None,
        "needs": dict(found.needs),
        "notes": list(found.notes),
        "migrate": found.migrate,
        "revisions_after": list(found.revisions_after),
        "rows_after": dict(found.rows_after),
        "rehearsed": _rehearsed(found.rehearsed) if found.rehearsed else None,
        "can_undo": found.can_undo,
        **({"others": [_further_plan(one) for one in found.others]} if found.others else {}),
    }


def _further_plan(found: RestorePlan) -> Document:
    """Return what a restore would change of a further database or tree."""
    document = plan(found)
    return {"name": found.source.part, **{key: document[key] for key in _OF_A_PART}}


_OF_A_PART = ("source", "verdict", "live", "uploads", "notes", "migrate", "revisions_after", "rows_after")


def _source(found: Source) -> Document:
    traits = found.traits
    return {
        "name": found.name,
        "database": found.database,
        "uploads": found.uploads,
        "facts": documents.database(found.facts) if found.facts else None,
        "revisions": list(found.revisions),
        "meaning": {
            "owners": traits.owners,
            "attributes": traits.attributes,
            "hard_links": traits.hard_links,
            "lost": traits.lost,
        },
        "git": documents.git(found.git) if found.git else None,
        "undecided": documents.verdict(found.undecided) if found.undecided else None,
        "chosen": sorted(found.chosen.paths) if found.chosen else None,
    }


def _live(found: Live) -> Document:
    return {
        "revisions": list(found.revisions),
        "rows": dict(found.rows),
        "size": found.size,
        "encoding": found.encoding,
        "unsaved": found.unsaved,
        "is_wanted": found.is_wanted,
        "trouble": found.error,
        "changes": {
            table: {"added": one.added, "changed": one.changed, "removed": one.removed}
            for table, one in found.changes.items()
        },
    }


def _differences(found: Summary) -> Document:
    return {
        "added": found.added,
        "changed": found.changed,
        "removed": found.removed,
        "bytes": found.bytes,
        "unreadable": list(found.unreadable),
    }


def _rehearsed(done: Rehearsed) -> Document:
    found = done.found
    return {
        "found": {
            "facts": documents.database(found.facts),
            "versions": dict(found.versions),
            "fingerprint": found.fingerprint,
            "problems": list(found.problems),
            "migrations": documents.app_migrations(found.migrations) if found.migrations else None,
        },
        "way": done.way,
        "losses": [{"table": one.table, "text": one.text} for one in done.losses],
        "cascading": list(done.cascading),
    }


def restored(done: Restored) -> Document:
    """Return what a restore did."""
    return {
        "source": done.source,
        "safety": done.safety,
        "verdict": documents.verdict(done.verdict) if done.verdict else None,
        "rows": dict(done.rows),
        "revisions": list(done.revisions),
        "uploads": _differences(done.uploads) if done.uploads else None,
        "warnings": list(done.warnings),
        "can_undo": done.can_undo,
        "kept": list(done.kept),
        **({"others": [_further(name, one) for name, one in done.parts.items()]} if done.parts else {}),
    }


def _further(name: str, done: RestoredPart) -> Document:
    return {"name": name, "rows": dict(done.rows), "uploads": _differences(done.uploads) if done.uploads else None}


def listed_file(found: ListedFile) -> Document:
    """Return a file or link of a backup, and whether the live one is the same, changed or missing."""
    return {
        "path": found.path,
        "form": found.form,
        "size_bytes": found.size_bytes,
        "changed_at": found.changed_at,
        "target": found.target or None,
        "live": found.live,
    }


def layout(found: Layout) -> Document:
    """Return where the parts of a backup would be laid out; null for a part that would not."""
    others = {name: on_host(str(found.target / path)) for name, path in found.others.items()}
    return {
        "source": found.backup.name,
        "target": on_host(str(found.target)),
        "database": on_host(str(found.database_file)) if found.database_file else None,
        "uploads": on_host(str(found.uploads_folder)) if found.uploads_folder else None,
        "needs": found.needs,
        "notes": list(found.notes),
        "mask": found.mask.file if found.mask else None,
        **({"others": others} if others else {}),
    }


def layout_from(found: RemoteBackup, target: Path) -> Document:
    """Return the same for a backup on a remote; its paths are null, because they are unknown until it is fetched."""
    known = {"source": found.name, "target": on_host(str(target)), "database": None, "uploads": None}
    return {**known, "needs": found.size_bytes, "notes": [], "mask": None}


def laid_out(done: LaidOut) -> Document:
    """Return the layout, and the rows and files that were laid out."""
    return {
        **layout(done.layout),
        "rows": dict(done.rows),
        "files": done.files,
        "verdict": documents.verdict(done.verdict) if done.verdict else None,
        "warnings": list(done.warnings),
    }


def recovered(found: Journal | None) -> Document:
    """Return the name of the backup whose restore was finished, or null."""
    return {"recovered": found.source if found else None}


def migrated(done: Migrated | None) -> Document | None:
    """Return what was migrated, or only rehearsed if `backup` is null; None if there was nothing to do."""
    if done is None:
        return None
    return {
        "backup": done.backup,
        "migrations": documents.migrations(done.migrations),
        "rows_before": dict(done.rows_before),
        "rows_after": dict(done.rows_after),
        "rehearsal_seconds": done.rehearsal_seconds,
        "seconds": done.seconds,
    }


def dumped(path: Path, tables: int, rows: int) -> Document:
    """Return the dump file, its size, and how many tables and rows are in it."""
    return {"path": path, "tables": tables, "rows": rows, "size_bytes": path.stat().st_size}


def run(results: Sequence[StepResult]) -> Document:
    """Return each step of a run, in order, and the exit code of the run."""
    from backupkit.scheduling.run import worst

    return {"steps": [_step(one) for one in results], "exit_code": int(worst(results))}


def _step(result: StepResult) -> Document:
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


def pushed(done: Pushed) -> Document:
    """Return what was pushed to one remote, and the reason if the push failed."""
    return {
        "remote": done.remote,
        "pushed": list(done.backups),
        "backups": done.there,
        "points": done.points,
        "points_there": done.points_there,
        "failure": done.failure.message if done.failure else None,
        "exit_code": int(done.failure.code) if done.failure else 0,
    }


def copies(found: Copies) -> Document:
    """Return each remote, and how the copies meet the 3-2-1 rule: three copies, two media, one elsewhere."""
    counted = {"copies": found.copies, "media": found.media, "elsewhere": found.elsewhere}
    return {"remotes": [_remote(one) for one in found.remotes], **counted, "lacking": list(found.lacking)}


def _remote(state: RemoteState) -> Document:
    return {
        "name": state.name,
        "type": state.type,
        "elsewhere": state.elsewhere,
        "other_disk": state.other_disk,
        "backups": state.backups,
        "points": state.points,
        "newest": state.newest,
        "newest_at": state.newest_at,
        "behind": state.behind,
        "damaged": len(state.flaws),
        "asked_at": state.asked_at,
        "failure": state.failure.message if state.failure else None,
    }


def remote_verified(remote: str) -> Document:
    """Return the result for a remote in which no flaw was found."""
    return {"remote": remote, "sound": True}


def delivery(found: Delivery) -> Document:
    """Return whether a message was sent to one address, and the error if not."""
    return {
        "kind": found.address.kind,
        "url": str(found.address.url),
        "sent": not found.error,
        "trouble": found.error or None,
    }


def status(found: Status) -> Document:
    """Return the level and its exit code, the reasons, the numbers, and the copies on remotes."""
    from backupkit.monitoring.status import LEVELS

    return {
        "level": found.level,
        "exit_code": LEVELS.index(found.level),
        "sentence": found.sentence,
        "reasons": [{"level": one.level, "text": one.text, "mend": one.fix} for one in found.reasons],
        **_numbers(found.numbers),
        **copies(found.numbers.copies),
    }


def _numbers(found: Numbers) -> Document:
    return {
        "now": found.now,
        "last_backup": found.last_backup,
        "last_backup_at": found.last_backup_at,
        "last_backup_age_seconds": found.last_backup_age_seconds,
        "last_whole": found.last_whole,
        "last_whole_at": found.last_whole_at,
        "expected_interval_seconds": found.expected_interval_seconds,
        "newest_checked": found.newest_checked,
        "newest_checked_at": found.newest_checked_at,
        "newest_proven": found.newest_proven,
        "newest_proven_at": found.newest_proven_at,
        "last_proof_at": found.last_proof_at,
        "next_run_at": found.next_run_at,
        "backups": found.backups,
        "by_kind": dict(found.by_kind),
        "by_state": dict(found.by_state),
        "oldest_at": found.oldest_at,
        "newest_at": found.newest_at,
        "total_bytes": found.total_bytes,
        "unique_bytes": found.unique_bytes,
        "growth_bytes_per_day": found.growth_bytes_per_day,
        "free_bytes": found.free_bytes,
        "days_left": found.days_left,
        "unfinished_restore": found.unfinished_restore,
        "drafts": found.drafts,
        "failures_since_success": found.failures_since_success,
        "references": documents.references(found.references) if found.references else None,
        "copies": found.copies.copies,
        "rewind_points": found.rewind_points,
        "rewind_bytes": found.rewind_bytes,
        "rewind_from": found.rewind_from,
        "rewind_to": found.rewind_to,
        "rewind_interval_seconds": found.rewind_interval_seconds,
        "rewind_tested": found.rewind_tested,
        "sqlite_version": found.sqlite_version,
        "sqlite_wal_reset_bug": found.sqlite_wal_reset_bug,
    }


def report(found: Report) -> Document:
    """Return the content of the report: status, calendar, sizes, test restores and next runs."""
    return {
        **status(found.status),
        "days": [_day(one) for one in found.overview.days],
        "sizes": [_size(one) for one in found.overview.sizes],
        "test_restores": [_test_restore(one) for one in found.overview.test_restores],
        "next_runs": [due(one) for one in found.runs],
    }


def _day(one: Day) -> Document:
    return {
        "date": one.date,
        "mark": one.mark,
        "backups": list(one.backups),
        "removed": one.removed,
        "damaged": one.damaged,
        "proven": one.proven,
        "failures": one.failures,
    }


def _size(one: Size) -> Document:
    return {
        "at": one.at,
        "backup": one.backup,
        "size_bytes": one.size_bytes,
        "total_bytes": one.total_bytes,
        "unique_bytes": one.unique_bytes,
    }


def _test_restore(one: TestRestore) -> Document:
    return {
        "at": one.at,
        "backups": list(one.backups),
        "outcome": one.outcome,
        "seconds": one.seconds,
        "error": one.error,
    }


def due(one: DueRun) -> Document:
    """Return a future run of the scheduler."""
    return {"task": one.task, "at": one.at, "why": one.why}


def finding(found: Finding) -> Document:
    """Return one finding of `doctor`."""
    return {"level": found.level, "text": found.text, "mend": found.fix}


def config(values: Mapping[str, tuple[object, str]]) -> Document:
    """Return the value and the origin of each setting, by its name."""
    return {name: {"value": value, "origin": origin} for name, (value, origin) in values.items()}


def setting(done: Changed) -> Document:
    """Return a setting as the file has it now, and the variable that overrides it, if any."""
    return {"setting": done.setting, "value": done.value, "file": done.file, "overridden_by": done.overridden_by}


def settings_file(path: Path) -> Document:
    """Return the path of a new settings file."""
    return {"file": path}


def _plain(value: object) -> Any:
    if isinstance(value, date):  # includes datetime
        return value.isoformat()
    if isinstance(value, Path | Secret):
        return str(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    if isinstance(value, RemoteTable):
        return {name: _whole(one) for name, one in value.values().items()}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _whole(value: object) -> object:
    """Return a number without a fraction as an integer, as it is written in backup.toml."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
