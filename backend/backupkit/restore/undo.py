"""Undo the last restore: restore its safety copy. That makes another one, so an undo can be undone too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backupkit.config.settings import Settings
from backupkit.model.backup import MAIN_DATABASE, Backup, Metadata
from backupkit.model.errors import Damaged, NoSuchBackup
from backupkit.model.events import EventListener, silence
from backupkit.model.names import printable
from backupkit.repository import flags, reliable, store
from backupkit.repository.flags import LastRestore
from backupkit.restore.restore import RestorePlan, holds_database, plan_backup


def plan_undo(
    settings: Settings, force: bool = False, emit: EventListener = silence, verify_while_staging: bool = False
) -> RestorePlan:
    """Return the plan that undoes the last restore, of the same parts; verified as by `plan_restore`.

    Raise `NoSuchBackup` if there is no safety copy to go back to, and `Damaged` if it holds no usable database, because
    that was missing or broken.
    """
    last = _last_restore(settings)
    if last is None:
        hint = "`list` shows the backups there are."
        raise NoSuchBackup(f"No restore left a safety copy in {settings.dir}.", hint=hint)
    name, part, later = last
    backup = store.find(settings, name)
    metadata = store.require_metadata(backup)
    # A migration changed only the database: later uploads stay.
    part = part or MAIN_DATABASE if metadata.kind == "pre_migration" else part
    if part not in metadata.tree_facts and not _holds(backup, metadata, part):
        only = f" Its uploads: `restore {name} --only uploads`." if metadata.uploads_included else ""
        first = metadata.database
        left = f" What can be read of that database: `salvage {name}`." if first and first.raw else ""
        whole = [
            one or MAIN_DATABASE
            for one in ("", *metadata.others)
            if metadata.others and "/" not in one and holds_database(backup, one)  # one in a tree belongs to the tree
        ]
        left += f" What it holds whole: `restore {name} --only {whole[0]}`" if whole else ""
        left += f"; so too {', '.join(whole[1:])}." if whole[1:] else "." if whole else ""
        raise Damaged(
            f"The last restore cannot be taken back: it replaced a database that was missing or broken. "
            f"{backup.path} keeps what was left of it.",
            hint=f"Restore another backup: `list`.{left}{only}",
        )
    wanted = {of: one for of, one in later.items() if settings.at(of) is not None}
    newer = {of: store.find(settings, one) for of, one in wanted.items() if store.is_backup(settings.dir / one)}
    gone = {of: one for of, one in wanted.items() if of not in newer}
    notes = (*_newer_notes(newer), *_missing_notes(gone, name))
    return plan_backup(
        settings, backup, part, force, emit=emit, notes=notes, newer=newer, verify_while_staging=verify_while_staging
    )


def _newer_notes(newer: Mapping[str, Backup]) -> Iterable[str]:
    for part, backup in newer.items():
        yield f"{printable(part)} comes from {backup.name}, which has what the app wrote to it last."


def _missing_notes(gone: Mapping[str, str], safety: str) -> Iterable[str]:
    for part, name in gone.items():
        what = f"{name} is gone, and with it what the app wrote to that part last"
        yield f"{printable(part)} goes back to {safety}: {what}."


def lost_without(settings: Settings, name: str) -> str:
    """Return a sentence on what `undo` cannot restore without that backup, or an empty string."""
    last = _last_restore(settings)
    if last and name == last.safety:
        return "The last restore cannot be taken back without it."
    parts = [printable(part) for part, later in last.later.items() if later == name] if last else []
    if not last or not parts:
        return ""
    return f"An undo takes {', '.join(parts)} from it; without it they go back to {last.safety}, which is older."


def _holds(backup: Backup, metadata: Metadata, part: str | None) -> bool:
    """Return whether the backup holds the replaced databases in usable form: that of the part, or all if None."""
    if part is None:
        return holds_database(backup, "") and not metadata.is_raw
    return holds_database(backup, "" if part == MAIN_DATABASE else part)


def safety_copy_to_restore(settings: Settings) -> str | None:
    """Return the name of the safety copy that `undo` restores, or None."""
    last = _last_restore(settings)
    return last.safety if last else None


def needed(settings: Settings) -> frozenset[str]:
    """Return the names of all safety copies that `undo` restores something from."""
    last = _last_restore(settings)
    return frozenset([last.safety, *last.later.values()] if last else [])


def _last_restore(settings: Settings) -> LastRestore | None:
    last = flags.last_restore(settings.dir)
    if last and not _is_another_apps(settings, last.safety):
        return last
    # The record of the last restore was lost, or is another app's.
    newest = next((one.name for one in store.own_backups(settings) if one.kind == "pre_restore"), None)
    return LastRestore(newest) if newest else None


def _is_another_apps(settings: Settings, name: str) -> bool:
    """Return whether the last restore in this folder was made by another app that shares it."""
    metadata = store.read(settings, name).metadata if store.is_backup(settings.dir / name) else None
    return metadata is not None and not reliable.is_own(settings, metadata)
