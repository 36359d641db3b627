"""List the uploads of a backup, each compared with the live file of its path. Only reads, without the lock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from msgspec import Struct

from backupkit.config.settings import Settings
from backupkit.fs import tree
from backupkit.model.events import EventListener, Step, silence
from backupkit.repository import files_cache, store
from backupkit.upload_files import choice, diff, selection
from backupkit.upload_files.choice import Chosen
from backupkit.verify import browse

Standing = Literal["same", "changed", "missing", "unreadable"]


class ListedFile(Struct, frozen=True):
    """A file or link of a backup; `live` is how the content of the live one at its path compares with it."""

    path: str
    form: tree.Form
    size_bytes: int
    changed_at: datetime
    live: Standing
    target: str = ""


def list_files(
    settings: Settings, name: str, patterns: Sequence[str] = (), emit: EventListener = silence
) -> tuple[str, list[ListedFile]]:
    """Return the backup's name, and its files and links in order, all or those that match the patterns.

    Raise `NoSuchBackup` if the backup does not exist, has no uploads, or a pattern matches nothing.
    """
    backup = store.find(settings, name, emit)
    top = browse.uploads_of(settings, backup)
    entries = choice.matching(top, patterns, backup.name)
    emit(Step("Comparing with the live uploads"))
    standings = _standings(settings, top, Chosen.of(entries))
    return backup.name, [
        ListedFile(one.path, one.form, one.facts.st_size, one.changed_at, standings.get(one.path, "same"), one.target)
        for one in entries
        if one.form != "folder"
    ]


def _standings(settings: Settings, top: Path, chosen: Chosen) -> dict[str, Standing]:
    """Return the state of each live file that differs, by path."""
    if settings.uploads is None or not settings.uploads.is_dir():
        return dict.fromkeys(chosen.leaves, "missing")
    standings: dict[str, Standing] = {}
    with files_cache.newest(settings, with_uploads=True) as earlier:
        found = diff.differences(
            settings.uploads,
            top,
            diff.Traits(owners=False),
            selection.of(settings.replaced(exclude=(), exclude_marked=())),  # compare files that are excluded now, too
            lambda path, _error: _mark_unreadable(standings, path, chosen),
            earlier,
            chosen=chosen,
        )
        for one in found:
            if one.path in chosen.leaves and one.action in ("add", "change"):
                standings[one.path] = "missing" if one.live is None else "changed"
    return standings


def _mark_unreadable(standings: dict[str, Standing], path: str, chosen: Chosen) -> None:
    """Mark as unreadable every chosen file at or below a live path that cannot be read."""
    standings.update((one, "unreadable") for one in chosen.leaves if path in tree.with_parents(one))
