"""The values of this package as documents: what is written into files, and what `--json` prints of them.

Every key is written out, so that a field can be renamed and its key stays. Others rely on the keys: a key may be added,
never removed or changed (`tests/contract/test_golden.py`). Times and paths are not formatted here; the caller does
that. Files are read back by the names of the fields: a field whose key stays is renamed where its file is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from backupkit.model.backup import (
    AppMigrations,
    DatabaseFacts,
    Flaw,
    GitFacts,
    Metadata,
    Migration,
    References,
    SchemaVerdict,
    SealedDatabase,
    SealedTree,
    UploadsFacts,
)
from backupkit.model.operation import Operation, Who

Document = dict[str, Any]


def as_line(document: Document) -> bytes:
    """Return the document as JSON on one line, its times as text."""
    return msgspec.json.encode(document)


def plain(document: Document) -> Document:
    """Return the document with its times as text."""
    values: Document = msgspec.to_builtins(document)
    return values


def metadata(found: Metadata) -> Document:
    """Return the content of `backup_metadata.json`."""
    document: Document = {
        "backup_name": found.backup_name,
        "timestamp": found.timestamp,
        "created_at": found.created_at.isoformat(),
        "alembic_revision": found.alembic_revision,
        "database_file": found.database_file,
        "uploads_included": found.uploads_included,
        "backup_version": found.backup_version,
        "kind": found.kind,
        "note": found.note,
        "alembic_revisions": list(found.alembic_revisions),
        "version_table": found.version_table,
        "migrations": app_migrations(found.migrations) if found.migrations else None,
        "schema_fingerprint": found.schema_fingerprint,
        "database": database(found.database) if found.database else None,
        "uploads": _uploads(found.uploads) if found.uploads else None,
        "git": git(found.git) if found.git else None,
        "app_id": found.app_id,
        "tool_version": found.tool_version,
        "duration_seconds": found.duration_seconds,
        "linked_from": found.linked_from,
        "added_bytes": found.added_bytes,
        "anomalies": list(found.anomalies),
        "exclude": list(found.exclude),
        "exclude_marked": list(found.exclude_marked),
        "excluded_folders": list(found.excluded_folders),
        "references": references(found.references) if found.references else None,
    }
    if found.databases:
        document |= {"databases": [_sealed(one) for one in found.databases], "databases_gap_ms": found.databases_gap_ms}
    if found.trees:
        document["trees"] = [_tree(one) for one in found.trees]
    return document


def references(found: References) -> Document:
    """Return which uploads rows name."""
    return {
        "columns": [
            {
                "column": one.column,
                "path": one.path,
                "rows": one.rows,
                "missing": one.missing,
                "outside": one.outside,
                "left_out": one.left_out,
                "examples": list(one.examples),
                "error": one.error,
            }
            for one in found.columns
        ],
        "unnamed": found.unnamed,
        "unnamed_examples": list(found.unnamed_examples),
    }


def _tree(one: SealedTree) -> Document:
    return {"name": one.name, "uploads": _uploads(one.uploads), "excluded_folders": list(one.excluded_folders)}


def _sealed(one: SealedDatabase) -> Document:
    return {
        "name": one.name,
        "database_file": one.database_file,
        "alembic_revision": one.alembic_revision,
        "alembic_revisions": list(one.alembic_revisions),
        "version_table": one.version_table,
        "migrations": app_migrations(one.migrations) if one.migrations else None,
        "schema_fingerprint": one.schema_fingerprint,
        "database": database(one.database) if one.database else None,
    }


def no_metadata() -> Document:
    """Return the keys of the metadata without values, for a backup whose own cannot be trusted."""
    return dict.fromkeys(metadata(Metadata("", "", datetime.min, None, None, False)))


def database(facts: DatabaseFacts) -> Document:
    """Return what was read from a copy of the database."""
    return {
        "size": facts.size,
        "sha256": facts.sha256,
        "page_size": facts.page_size,
        "journal_mode": facts.journal_mode,
        "encoding": facts.encoding,
        "user_version": facts.user_version,
        "application_id": facts.application_id,
        "rows": dict(facts.rows),
        "foreign_key_violations": facts.foreign_key_violations,
        "index_flaws": list(facts.index_flaws),
        "sqlite_version": facts.sqlite_version,
        "mode": facts.mode,
        "raw": facts.raw,
    }


def _uploads(facts: UploadsFacts) -> Document:
    return {
        "files": facts.files,
        "bytes": facts.bytes,
        "folders": facts.folders,
        "links": facts.links,
        "links_out": facts.links_out,
        "attributes": facts.attributes,
        "hard_links": facts.hard_links,
        "tree": facts.tree,
        "warnings": list(facts.warnings),
        "mounts": None if facts.mounts is None else list(facts.mounts),
    }


def app_migrations(found: AppMigrations) -> Document:
    """Return what Django or Rails recorded of its migrations."""
    return {"tool": found.tool, "last": found.last, "count": found.count}


def git(facts: GitFacts) -> Document:
    """Return the commit of the code."""
    return {
        "commit": facts.commit,
        "short": facts.short,
        "branch": facts.branch,
        "subject": facts.subject,
        "dirty": facts.dirty,
        "tag": facts.tag,
    }


def flaws(found: Sequence[Flaw]) -> list[Document]:
    """Return what is wrong with a backup."""
    return [{"path": one.path, "text": one.text} for one in found]


def verdict(found: SchemaVerdict) -> Document:
    """Return how a backup's schema relates to the code."""
    return {
        "relation": found.relation,
        "backup": list(found.backup),
        "code": list(found.code),
        "pending": migrations(found.pending),
        "reason": found.reason,
        "needs": found.needs,
    }


def migrations(found: Sequence[Migration]) -> list[Document]:
    """Return steps of the schema, in order."""
    return [{"revision": one.revision, "title": one.title} for one in found]


def operation(done: Operation) -> Document:
    """Return one operation of the history."""
    return {
        "id": done.id,
        "command": done.command,
        "started_at": done.started_at,
        "who": _who(done.who),
        "ended_at": done.ended_at,
        "outcome": done.outcome,
        "exit_code": done.exit_code,
        "backups": list(done.backups),
        "size_bytes": done.size_bytes,
        "unique_bytes": done.unique_bytes,
        "free_bytes": done.free_bytes,
        "duration_seconds": done.duration_seconds,
        "note": done.note,
        "error": done.error,
        "warnings": list(done.warnings),
        "steps": [{"name": one.name, "seconds": one.seconds} for one in done.steps],
    }


def _who(one: Who) -> Document:
    return {"user": one.user, "pid": one.pid, "host": one.host, "through": one.through, "born": one.born}
