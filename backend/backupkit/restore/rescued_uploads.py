"""Restore the missing uploads that rescued rows name, by the setting `references`.

They are restored before the rows, as a restore of these paths alone, so that no row names a missing file. A kill in
between leaves files that no row names yet; `undo` removes them, and the same rescue can be run again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

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


class NamedUploads(Struct, frozen=True):
    """The uploads that rescued rows name: the missing ones are restored by `plan` and listed in `paths`.

    The live files of `differ` have changed, and stay. `lacking` are neither live nor in the backup.
    """

    plan: RestorePlan | None = None
    paths: tuple[str, ...] = ()
    differ: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    def notes(self) -> Iterator[str]:
        """Yield sentences about the uploads that are not restored."""
        if self.differ:
            yield f"Uploads that these rows name are others now, and stay as they are: {few(self.differ)}."
        if self.lacking:
            yield f"Uploads that these rows name are neither live nor in the backup: {few(self.lacking)}."


def find_named(settings: Settings, backup: Backup, found: Found, emit: EventListener) -> NamedUploads:
    """Return the uploads that the rows to be written name; verify the backup's uploads if there are any."""
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
    returning = sorted(path for path in source.chosen.leaves if changes.get(path) == "add")
    differ = sorted(path for path in source.chosen.leaves if changes.get(path) == "change")
    lacking = tuple(sorted(missing - set(returning)))
    if not returning:
        return NamedUploads(None, (), tuple(differ), lacking)
    source = replace(source, chosen=choice.of_paths(sealed, returning))
    return NamedUploads(plan_source(settings, source, True, emit), tuple(returning), tuple(differ), lacking)


def remove_restored(
    settings: Settings,
    named: NamedUploads,
    safety: str,
    before: flags.LastRestore | None,
    emit: EventListener,
    clock: Clock,
) -> None:
    """Remove the restored uploads again after the rows failed, and let `undo` revert the same restore as before."""
    source = staging.verified(settings, store.find(settings, safety), "uploads", emit)
    assert named.plan and named.plan.source.chosen
    source = replace(source, chosen=named.plan.source.chosen)
    restore_source(settings, plan_source(settings, source, True, emit), emit, clock)
    if before:
        flags.remember_restore(settings.dir, *before)
    emit(Notice("The uploads that had come with these rows are taken back."))


def _places(settings: Settings, found: Found) -> Iterator[str]:
    """Yield the paths that the rows name, relative to the uploads."""
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
