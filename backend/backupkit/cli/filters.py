"""Filters of the list of backups: named ones, and a search for words in a backup's metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from backupkit.model.backup import Backup


class Filter(Struct, frozen=True):
    """A named filter; `lets` returns whether a backup passes it."""

    name: str
    lets: Callable[[Backup], bool]


FILTERS: tuple[Filter, ...] = (
    Filter("all", lambda one: True),
    Filter("made by hand", lambda one: one.kind in ("manual", "salvaged")),
    Filter("made by itself", lambda one: one.kind in ("auto", "scheduled")),
    Filter("safety copies", lambda one: one.kind in ("pre_restore", "pre_migration")),
    Filter("pinned", lambda one: one.pinned),
    Filter("proven", lambda one: one.state == "proven"),
    Filter("damaged or unusual", lambda one: not one.is_usable or bool(one.unusual)),
)


def has_words(backup: Backup, words: Sequence[str]) -> bool:
    """Return whether each word is in the backup's name, note, kind, revisions, git facts, state or date.

    The words must be lower case; the backup's text is compared in lower case.
    """
    return not words or all(word in _text_of(backup) for word in words)


def _text_of(backup: Backup) -> str:
    metadata = backup.metadata
    found = [backup.name, backup.state, "pinned" if backup.pinned else ""]
    if metadata:
        found += [metadata.note, metadata.kind, *metadata.revisions, metadata.created_at.date().isoformat()]
        found += [metadata.git.commit, metadata.git.branch or "", metadata.git.subject] if metadata.git else []
    return " ".join(found).lower()
