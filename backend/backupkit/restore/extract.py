"""Put some uploads of a backup back in place: a restore of these paths alone, which `undo` can revert.

Paths that were not chosen, and existing folders, stay as they are. The safety copy holds what a chosen file replaces,
including the contents of a folder that has taken its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from backupkit.backup.create import refuse_overlap
from backupkit.config.settings import Settings
from backupkit.model.errors import NoSuchBackup, Refused
from backupkit.model.events import EventListener, silence
from backupkit.model.names import few
from backupkit.repository import store
from backupkit.restore import staging
from backupkit.restore.restore import RestorePlan, plan_source, refuse_another_app
from backupkit.restore.staging import Source
from backupkit.upload_files import choice, selection


def plan_extract(
    settings: Settings,
    name: str,
    patterns: Sequence[str],
    force: bool = False,
    emit: EventListener = silence,
    verify_while_staging: bool = False,
) -> RestorePlan:
    """Return what putting these uploads back would change, verified as by `plan_restore`; `restore_backup` does it.

    The settings may be those of another tree. Raise `NoSuchBackup` if a pattern matches nothing or the backup has no
    uploads; `Refused` if the app has none, for excluded paths, or for another app's backup (unless forced); `Damaged`
    and `NoSpace` as a restore.
    """
    refuse_overlap(settings)
    if settings.uploads is None:
        raise Refused("This app has no uploads folder.", hint="Add --to DIR.")
    found = store.resolve(settings, name)
    refuse_another_app(settings, found.backup, force)
    metadata, tree = store.require_metadata(found.backup).at(settings.part), settings.sealed_folder
    if not (metadata and metadata.uploads_included):
        raise NoSuchBackup(f"There are no {tree} in {found.backup.path}.", hint="`list` shows the backups there are.")
    source = staging.verified(settings, found.backup, tree, emit, verify_while_staging)
    assert source.uploads is not None
    source = replace(source, chosen=choice.choose(source.uploads, patterns, found.backup.name))
    _refuse_excluded(settings, source)
    plan = plan_source(settings.whole, source, force, emit)
    return replace(plan, notes=(*found.sentences, *plan.notes))


def _refuse_excluded(settings: Settings, source: Source) -> None:
    """Raise `Refused` if a chosen path is excluded: no safety copy would hold what it replaces."""
    selected = selection.of(settings, source.excluded)
    chosen = source.chosen.leaves if source.chosen else ()
    if excluded := sorted(path for path in chosen if selected.leaves_out_wanted(path, is_folder=False)):
        raise Refused(
            f"{few(excluded)}: excluded by the settings, so nothing of that is put back.",
            hint="Take it out with --to DIR, or change exclude, exclude_marked: `config`",
        )
