"""Filters of the list of backups: named ones, and a search for words in a backup's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from backupkit.model.backup import Backup

FILTERS: Mapping[str, Callable[[Backup], bool]] = {
    "all": lambda one: True,
    "made by hand": lambda one: one.kind in ("manual", "salvaged"),
    "made by itself": lambda one: one.kind in ("auto", "scheduled"),
    "safety copies": lambda one: one.kind in ("pre_restore", "pre_migration"),
    "pinned": lambda one: one.pinned,
    "proven": lambda one: one.state == "proven",
    "damaged or unusual": lambda one: not one.is_usable or bool(one.unusual),
}


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
