"""The database as SQL text: dumped for a commit, loaded again, and compared with what was backed up."""

from __future__ import annotations

import re
from pathlib import Path

from backupkit.fs import disk
from backupkit.model.backup import DatabaseFacts, Metadata
from backupkit.model.errors import Damaged
from backupkit.model.events import EventListener
from backupkit.remotes.git import layout
from backupkit.remotes.git.layout import Stored
from backupkit.repository import manifest
from backupkit.sqlite import database, sql, sql_loader


def name_of(name: str) -> str:
    """Return the file name of that database's SQL text; the first database's name is empty."""
    return layout.dump_file(layout.dump_part(name))


def write(backup: Path, metadata: Metadata, target: Path, emit: EventListener) -> Stored:
    """Dump the sealed database into a new file; raise `Damaged` if it is not as it was sealed."""
    sealed = backup / (metadata.database_file or "")
    expected = manifest.sound_checksums(backup).get(sealed.name) if manifest.has_checksums(backup) else None
    if expected is not None and disk.hash_file(sealed) != expected:
        raise layout.altered(sealed)
    with database.open_sealed(sealed) as at, open(target, "wb") as out:
        sql.write_dump(at, out, emit)
    return Stored(target.name, target, target.stat().st_size, target.name)


def make(text: Path, target: Path, emit: EventListener) -> database.Inspection:
    """Load the text into a new database `target` and inspect it; raise `Damaged` if it cannot be loaded."""
    with open(text, "rb") as stream:
        sql_loader.load_dump(stream, target, emit)
    return database.inspect(target)


def fault(recorded: Metadata, found: database.Inspection) -> str:
    """Return what is wrong with the loaded database; empty if its content is what was backed up."""
    if found.problems:
        return f"makes no sound database: {found.problems[0]}"
    why = _differing(recorded, found)
    return f"makes other {why} than were backed up" if why else ""


def refusal(text: Path, recorded: Metadata, emit: EventListener) -> str:
    """Load the text on trial; return a sentence that says why a pull could not use it, or empty if it can."""
    trial = text.with_suffix(".trial")
    try:
        found = fault(recorded, make(text, trial, emit))
    except Damaged as error:
        reason = re.sub(r"^.*?(?:, line \d+)?: ", "", error.message.removeprefix(str(text)))
        return reason[0].upper() + reason[1:]
    finally:
        trial.unlink(missing_ok=True)
    return f"It {found}." if found else ""


def _differing(recorded: Metadata, found: database.Inspection) -> str:
    """Return the first fact that differs from what was recorded; empty if none does."""
    if tuple(sorted(recorded.revisions)) != found.versions.get(recorded.version_table, ()):
        return "revisions"
    facts: DatabaseFacts | None = recorded.database
    for name in ("rows", "user_version", "application_id", "encoding") if facts else ():
        if getattr(facts, name) != getattr(found.facts, name):
            return name
    return ""
