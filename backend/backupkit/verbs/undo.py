"""Take the last restore back: restore the safety copy it made. That makes one itself, so it can be taken back too."""

from __future__ import annotations

from backupkit.parts import marks, store
from backupkit.verbs.restore import RestorePlan, plan_restore
from backupkit.words.errors import NoSuchBackup
from backupkit.words.events import Listener, silence
from backupkit.words.model import Part
from backupkit.words.settings import Settings


def plan_undo(settings: Settings, force: bool = False, tell: Listener = silence) -> RestorePlan:
    """The plan that takes the last restore back; `NoSuchBackup` where there is no safety copy to go back to."""
    if last := goes_back_to(settings):
        backup = store.find(settings, last)
        # A migration touched the database alone: uploads that came since stay.
        only: Part | None = "database" if store.trusted(backup).kind == "pre_migration" else None
        return plan_restore(settings, last, only, force=force, tell=tell)
    raise NoSuchBackup(f"No restore left a safety copy in {settings.dir}.", hint="`list` shows the backups there are.")


def goes_back_to(settings: Settings) -> str | None:
    """The name of the safety copy that `undo` restores, if there ever was one."""
    return marks.last_restore(settings.dir) or _newest_safety_copy(settings)


def _newest_safety_copy(settings: Settings) -> str | None:
    """What is left to go by where the state was lost."""
    for backup in store.all_backups(settings):
        if backup.metadata and backup.metadata.kind == "pre_restore":
            return backup.name
    return None
