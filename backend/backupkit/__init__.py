"""Back up and restore an app that is a SQLite database, Alembic migrations and a folder of uploads.

A *backup* is a folder under `backups/`. *Sources* fill it, a *manifest* seals it, the *store* finds it
again, the *verbs* act on it, and the *faces* let people and machines use the verbs.

The rooms, in the one direction in which imports go (`tests/test_layers.py` holds it):

    faces    print, ask, exit: the console, the demo, the calls for programs
    verbs    one module a verb: create, restore, recover, undo, verify, prune, push, pull, dump, export, run, doctor,
             status
    parts    manifest, journal, lock, history, retention, schema, store, index, the sources: database, uploads,
             sql; and the remotes: folder, restic
    ground   disk and process: the only modules that change the world; durable when they return
    words    settings, model, errors, events, names: values; import nothing of ours

What a program may rely on is `__all__`; a name is imported from its room when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from backupkit.words.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from backupkit.faces.api import AppFolder as AppFolder
    from backupkit.faces.api import PlainDatabase as PlainDatabase
    from backupkit.faces.api import create_backup_if_needed as create_backup_if_needed
    from backupkit.faces.api import create_backup_now as create_backup_now
    from backupkit.faces.api import get_last_backup_display as get_last_backup_display
    from backupkit.faces.api import list_backups as list_backups
    from backupkit.faces.api import restore_backup as restore_backup
    from backupkit.faces.protected import Operation as Operation
    from backupkit.faces.protected import protected as protected
    from backupkit.verbs.create import create_backup as create_backup
    from backupkit.verbs.guard import back_up_before_upgrade as back_up_before_upgrade
    from backupkit.verbs.make import Created as Created
    from backupkit.verbs.restore import Restored as Restored
    from backupkit.verbs.restore import RestorePlan as RestorePlan
    from backupkit.verbs.restore import plan_restore as plan_restore
    from backupkit.verbs.undo import plan_undo as plan_undo
    from backupkit.words.errors import BackupError as BackupError
    from backupkit.words.errors import Damaged as Damaged
    from backupkit.words.errors import Locked as Locked
    from backupkit.words.errors import NoSpace as NoSpace
    from backupkit.words.errors import NoSuchBackup as NoSuchBackup
    from backupkit.words.errors import Refused as Refused
    from backupkit.words.errors import SchemaMismatch as SchemaMismatch
    from backupkit.words.errors import SourceUnreadable as SourceUnreadable
    from backupkit.words.events import Event as Event
    from backupkit.words.events import Listener as Listener
    from backupkit.words.events import Notice as Notice
    from backupkit.words.events import Progress as Progress
    from backupkit.words.events import Step as Step
    from backupkit.words.events import Waiting as Waiting
    from backupkit.words.events import Warned as Warned
    from backupkit.words.model import Backup as Backup
    from backupkit.words.model import Metadata as Metadata
    from backupkit.words.model import Order as Order
    from backupkit.words.plain import MAX_BACKUPS as MAX_BACKUPS
    from backupkit.words.settings import Settings as Settings
    from backupkit.words.settings import load_settings as load_settings

_ROOMS = {
    "faces.api": (
        "AppFolder",
        "PlainDatabase",
        "create_backup_if_needed",
        "create_backup_now",
        "get_last_backup_display",
        "list_backups",
        "restore_backup",
    ),
    "faces.protected": (
        "Operation",
        "protected",
    ),
    "verbs.create": ("create_backup",),
    "verbs.guard": ("back_up_before_upgrade",),
    "verbs.make": ("Created",),
    "verbs.restore": (
        "Restored",
        "RestorePlan",
        "plan_restore",
    ),
    "verbs.undo": ("plan_undo",),
    "words.errors": (
        "BackupError",
        "Damaged",
        "Locked",
        "NoSpace",
        "NoSuchBackup",
        "Refused",
        "SchemaMismatch",
        "SourceUnreadable",
    ),
    "words.events": (
        "Event",
        "Listener",
        "Notice",
        "Progress",
        "Step",
        "Waiting",
        "Warned",
    ),
    "words.model": (
        "Backup",
        "Metadata",
        "Order",
    ),
    "words.plain": ("MAX_BACKUPS",),
    "words.settings": (
        "Settings",
        "load_settings",
    ),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = list(_ROOM_OF)


def __getattr__(name: str) -> object:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'backupkit' has no attribute {name!r}")
    return getattr(import_module(f"backupkit.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
