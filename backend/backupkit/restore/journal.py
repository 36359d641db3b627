"""The journal of a restore: without it nothing live was touched; with it everything staged is complete and on disk.

It records which staging areas belong to the restore and how far it came, so that the next run can finish it. It is
untrusted input: a journal that others may write to, or of another form than we write, is refused.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import fields, replace

from backupkit.fs import descriptors, disk
from backupkit.model import documents
from backupkit.model.backup import STAGING, DatabaseFacts
from backupkit.model.documents import Document
from backupkit.model.errors import FULL, BackupError
from backupkit.model.names import NAME, is_name
from backupkit.repository.store import JOURNAL_FILE

OF_MIGRATION = " (a migration was interrupted)"
"""Ends the `source` of a journal that undoes a migration."""
_MOST = 16 << 20  # bytes


Name = Annotated[str, Meta(pattern=rf"\A{NAME}\Z")]
Origin = Annotated[str, Meta(pattern=rf"\A({re.escape(disk.DRAFT_PREFIX)}\w+-\w+/)?{NAME}\Z")]


class JournalPart(Struct, frozen=True):
    """An additional database or tree of a restore under way; the fields are as in `Journal`.

    `safety` is the backup that holds the earlier state of this part: the app may have written to it in between.
    """

    name: str
    safety: Name | None
    database: bool
    uploads: bool
    sealed: Name | None
    facts: DatabaseFacts | None
    revisions: tuple[str, ...] | None


class Journal(Struct, frozen=True):
    """A restore under way. It stores names, not paths: a container and its host may see a folder at different paths.

    `source` is restored, `safety` holds the earlier state. Without a `safety` the restore is a rollback, of a
    failed restore or an interrupted migration. `id` marks its staging areas. `database` and `uploads` are whether
    the staged database and uploads still have to go live. `back` is whether the restore failed, and the earlier
    state has to be staged and restored. `facts` and `revisions` are those of the staged database, or None for
    uploads alone. `part` is the one part that was restored alone. `copies` are the backups that held the live data
    when it was staged, `kept` those of what the app wrote since. `sealed` is the backup whose database file is read
    directly, with the checksum in `facts`; without it a staged copy is. `origins` are the folders below the backups
    folder that it takes from, beside the backup `source`: other backups, or the draft in which a moment of rewind
    was built. `name` is the part that these fields describe, empty for the main database and its uploads; `others`
    are the additional parts.
    """

    source: str
    safety: Name | None
    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    started: str
    database: bool
    uploads: bool
    facts: DatabaseFacts | None
    revisions: tuple[str, ...] | None
    back: bool = False
    part: str | None = None
    copies: tuple[Name, ...] = ()
    kept: tuple[Name, ...] = ()
    sealed: Name | None = None
    origins: tuple[Origin, ...] = ()
    name: str = ""
    others: tuple[JournalPart, ...] = ()

    @property
    def is_of_migration(self) -> bool:
        """Whether it undoes a migration: then the live database has what that migration wrote."""
        return self.source.endswith(OF_MIGRATION)

    @property
    def backups(self) -> frozenset[str]:
        """The names of all backups that are needed to finish this restore or to take it back."""
        of_parts = (name for one in self.parts for name in (one.safety, one.sealed))
        return frozenset(name for name in (self.source, *self.copies, *self.kept, *self.origins, *of_parts) if name)

    @property
    def held_by(self) -> tuple[str, ...]:
        """The folders below the backups folder that hold what was live before this restore, or what it put there."""
        source = (self.source,) if is_name(self.source) else ()
        return tuple(dict.fromkeys((*self.copies, *self.kept, *source, *self.origins)))

    def holders(self, backups: Path) -> tuple[Path, ...]:
        """Return the paths of these folders, of those that are there."""
        return tuple(folder for name in self.held_by if os.path.isdir(folder := backups / name))

    @property
    def parts(self) -> tuple[Journal, ...]:
        """One journal for each part, as if it were the only one."""
        return tuple(self.at(name) for name in (self.name, *(one.name for one in self.others)))

    def at(self, name: str) -> Journal:
        """Return the journal as if that part were the only one."""
        alone = replace(self, others=())
        for one in self.others:
            if one.name == name:
                return replace(alone, **{key: getattr(one, key) for key in _PART_FIELDS})
        return alone

    def with_part(self, part: Journal) -> Journal:
        """Return the journal with the fields of that part replaced."""
        if part.name == self.name:
            return replace(part, others=self.others)
        return replace(self, others=tuple(_part_of(part) if one.name == part.name else one for one in self.others))

    def all_done(self) -> Journal:
        """Return the journal of a restore whose parts are all in place, so that only the clean-up is left."""
        others = tuple(replace(one, database=False, uploads=False) for one in self.others)
        return replace(self, database=False, uploads=False, others=others)


_PART_FIELDS = tuple(one.name for one in fields(JournalPart))


def _part_of(alone: Journal) -> JournalPart:
    return JournalPart(**{key: getattr(alone, key) for key in _PART_FIELDS})


def joined(parts: Sequence[Journal]) -> Journal:
    """Return one journal of all of these parts."""
    return replace(parts[0], others=tuple(map(_part_of, parts[1:])))


def write(backups: Path, journal: Journal) -> None:
    """Write and sync the journal; once this returns, the restore must be completed.

    Raise `ValueError`, and write nothing, if it could not be read again.
    """
    content = json.dumps(_document(journal), indent=2).encode()
    _checked(content)
    disk.write_file(backups / JOURNAL_FILE, content, is_ours=True)


def _document(journal: Journal) -> Document:
    document: Document = {
        "source": journal.source,
        "safety": journal.safety,
        "id": journal.id,
        "started": journal.started,
        "database": journal.database,
        "uploads": journal.uploads,
        "back": journal.back,
        "part": journal.part,
        "copies": list(journal.copies),
        "kept": list(journal.kept),
        "sealed": journal.sealed,
        "facts": documents.database(journal.facts) if journal.facts else None,
        "revisions": None if journal.revisions is None else list(journal.revisions),
    }
    if journal.origins:
        document["origins"] = list(journal.origins)
    if journal.name:
        document["name"] = journal.name
    if journal.others:
        document["others"] = [_part_document(one) for one in journal.others]
    return document


def _part_document(one: JournalPart) -> Document:
    return {
        "name": one.name,
        "safety": one.safety,
        "database": one.database,
        "uploads": one.uploads,
        "sealed": one.sealed,
        "facts": documents.database(one.facts) if one.facts else None,
        "revisions": None if one.revisions is None else list(one.revisions),
    }


def read(backups: Path) -> Journal | None:
    """Return the journal of an unfinished restore, or None. Raise `BackupError` if it cannot be trusted."""
    path = backups / JOURNAL_FILE
    try:
        return _checked(_content(path))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise  # the disk is full; the journal may be sound
        raise _unusable(path, f"cannot be read: {type(error).__name__}") from error


def _checked(content: bytes) -> Journal:
    """Return the journal; raise `ValueError` if it is not of the form that we write, or a part has an invalid name."""
    values = msgspec.json.decode(content)
    found = msgspec.convert(values, Journal)
    names = [found.name, *(one.name for one in found.others)]
    if _has_unknown_keys(values, found) or not all(map(_is_part_name, names)):
        raise ValueError("is not of the form that we write")
    return found


def _has_unknown_keys(values: Any, found: object) -> bool:
    """Return whether there are keys, at any depth, that are not fields of what was made of these values."""
    if isinstance(found, tuple):
        return any(map(_has_unknown_keys, values, found))
    if not isinstance(found, Struct):
        return False
    is_unknown = not set(found.__struct_fields__) >= values.keys()
    return is_unknown or any(_has_unknown_keys(values[key], getattr(found, key)) for key in values)


def _is_part_name(name: str) -> bool:
    """Return whether the name of a part stays inside its tree; it may be a path in a tree."""
    return not name or not ({"", ".", "..", STAGING} & {*name.split("/")} or "\0" in name)


def _content(path: Path) -> bytes:
    with descriptors.opened(path, descriptors.FILE) as handle:
        if why := descriptors.why_not_ours(handle):
            raise BackupError(
                f"The journal {path} of an interrupted restore cannot be trusted: {why}; nothing was touched.",
                hint=f"Run as the user who began the restore (ls -l {path}). If nobody began one, remove that file.",
            )
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _unusable(path, "is not a file")
        return os.read(handle, _MOST)


def _unusable(path: Path, why: str) -> BackupError:
    return BackupError(
        f"The journal {path} of an interrupted restore {why}.",
        hint="Restore the newest safety copy by hand (its RESTORE.md says how), then remove that file.",
    )


def exists(backups: Path) -> bool:
    """Return whether a restore is unfinished or under way."""
    return os.path.lexists(backups / JOURNAL_FILE)


def remove(backups: Path) -> None:
    """Remove the journal: the restore is over."""
    disk.remove(backups / JOURNAL_FILE)
