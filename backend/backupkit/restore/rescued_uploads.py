"""The uploads that rescued rows name, by the setting `references`: which of them are missing and come back, too.

They come before the rows, as a restore of these paths alone: so no row names a file that did not come. A kill in
between leaves files that no row names yet; `undo` removes them, and the same rescue goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from backupkit.backup import references
from backupkit.config.settings import Settings
from backupkit.fs import tree
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock
from backupkit.model.events import EventListener, Notice
from backupkit.model.names import few
from backupkit.repository import flags, store
from backupkit.restore import staging
from backupkit.restore.restore import RestorePlan, plan_source, restore_source
from backupkit.sqlite.engine import folded
from backupkit.sqlite.row_rescue import Found
from backupkit.upload_files import choice


@dataclass(frozen=True)
class NamedUploads:
    """`plan` brings those that are missing, if any are; `differ` are others now, and stay; `lacking` are nowhere."""

    plan: RestorePlan | None = None
    paths: tuple[str, ...] = ()
    differ: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    def notes(self) -> Iterator[str]:
        """What the person should know of those that do not come."""
        if self.differ:
            yield f"Uploads that these rows name are others now, and stay as they are: {few(self.differ)}."
        if self.lacking:
            yield f"Uploads that these rows name are neither live nor in the backup: {few(self.lacking)}."


def look(settings: Settings, backup: Backup, found: Found, emit: EventListener) -> NamedUploads:
    """What the rows that would be written name; their uploads are verified where any has to come."""
    named = set(_places(settings, found))
    if not named or settings.uploads is None or settings.part:  # the setting is for the main database
        return NamedUploads()
    live = settings.uploads
    missing = {path for path in named if tree.look(live, path) is None}
    if not store.require_metadata(backup).uploads_included:
        return NamedUploads(lacking=tuple(sorted(missing)))
    source = staging.verified(settings, backup, "uploads", emit)
    sealed = source.uploads
    assert sealed
    source = replace(source, chosen=choice.of_paths(sealed, named))
    assert source.chosen
    changes = {one.path: one.action for one in staging.differences(settings, source, lambda _path, _error: None, emit)}
    bring = sorted(path for path in source.chosen.leaves if changes.get(path) == "add")
    differ = sorted(path for path in source.chosen.leaves if changes.get(path) == "change")
    lacking = tuple(sorted(missing - set(bring)))
    if not bring:
        return NamedUploads(None, (), tuple(differ), lacking)
    source = replace(source, chosen=choice.of_paths(sealed, bring))
    return NamedUploads(plan_source(settings, source, True, emit), tuple(bring), tuple(differ), lacking)


def bring(settings: Settings, named: NamedUploads, emit: EventListener, clock: Clock) -> str:
    """The missing ones are live; the name of the safety copy, which has the database and the uploads before."""
    assert named.plan
    return restore_source(settings, named.plan, emit, clock).safety


def take_back(
    settings: Settings,
    named: NamedUploads,
    safety: str,
    before: flags.LastRestore | None,
    emit: EventListener,
    clock: Clock,
) -> None:
    """The rows did not come, so neither did these; `undo` goes back to what it would have before."""
    source = staging.verified(settings, store.find(settings, safety), "uploads", emit)
    assert named.plan and named.plan.source.chosen
    source = replace(source, chosen=named.plan.source.chosen)
    restore_source(settings, plan_source(settings, source, True, emit), emit, clock)
    if before:
        flags.remember_restore(settings.dir, *before)
    emit(Notice("The uploads that had come with these rows are taken back."))


def _places(settings: Settings, found: Found) -> Iterator[str]:
    """The paths that the rows name, each below the uploads."""
    for column, paths in settings.references.items():
        table, _, name = column.rpartition(".")
        for row in found.writes:
            if folded(row.table) != folded(table):
                continue
            values = dict(zip(map(folded, found.columns[row.table]), row.backup, strict=True))
            if (value := values.get(folded(name))) in (None, "", b""):
                continue
            text = value if isinstance(value, bytes) else os.fsencode(str(value))
            yield from (os.fsdecode(one) for path in paths if (one := references.place_of(path, text)))
