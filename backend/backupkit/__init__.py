"""Back up and restore an app that is a SQLite database, Alembic migrations and a folder of uploads.

A *backup* is a folder under `backups/`. Each package imports only from those below it; import-linter checks that, and
`tests/system/test_layers.py` checks that it does:

    cli api ui web      what people and programs use: only these print, ask or exit
    backup restore verify retention migrations remotes archive scheduling monitoring rewind
                        the features: they raise, return and emit events
    repository sqlite upload_files
                        the backups folder, the database, the uploads folder
    config              settings
    fs                  files, folders and processes
    model               values; they import nothing of ours

`__all__` is the public interface; a name is imported from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from backupkit.model.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from backupkit.api.calls import AppFolder as AppFolder
    from backupkit.api.calls import PlainDatabase as PlainDatabase
    from backupkit.api.calls import create_backup_if_needed as create_backup_if_needed
    from backupkit.api.calls import create_backup_now as create_backup_now
    from backupkit.api.calls import get_last_backup_display as get_last_backup_display
    from backupkit.api.calls import list_backups as list_backups
    from backupkit.api.calls import restore_backup as restore_backup
    from backupkit.api.protected import Operation as Operation
    from backupkit.api.protected import protected as protected
    from backupkit.backup.create import create_backup as create_backup
    from backupkit.backup.make import Created as Created
    from backupkit.backup.single_file import MAX_BACKUPS as MAX_BACKUPS
    from backupkit.config.settings import Settings as Settings
    from backupkit.config.settings import load_settings as load_settings
    from backupkit.migrations.guard import back_up_before_upgrade as back_up_before_upgrade
    from backupkit.model.backup import Backup as Backup
    from backupkit.model.backup import BackupRequest as BackupRequest
    from backupkit.model.backup import Metadata as Metadata
    from backupkit.model.errors import BackupError as BackupError
    from backupkit.model.errors import Damaged as Damaged
    from backupkit.model.errors import Locked as Locked
    from backupkit.model.errors import NoSpace as NoSpace
    from backupkit.model.errors import NoSuchBackup as NoSuchBackup
    from backupkit.model.errors import Refused as Refused
    from backupkit.model.errors import SchemaMismatch as SchemaMismatch
    from backupkit.model.errors import SourceUnreadable as SourceUnreadable
    from backupkit.model.events import Event as Event
    from backupkit.model.events import EventListener as EventListener
    from backupkit.model.events import Notice as Notice
    from backupkit.model.events import Progress as Progress
    from backupkit.model.events import Step as Step
    from backupkit.model.events import Waiting as Waiting
    from backupkit.model.events import Warned as Warned
    from backupkit.restore.restore import Restored as Restored
    from backupkit.restore.restore import RestorePlan as RestorePlan
    from backupkit.restore.restore import plan_restore as plan_restore
    from backupkit.restore.undo import plan_undo as plan_undo

_HOMES = {
    "api.calls": (
        "AppFolder",
        "PlainDatabase",
        "create_backup_if_needed",
        "create_backup_now",
        "get_last_backup_display",
        "list_backups",
        "restore_backup",
    ),
    "api.protected": (
        "Operation",
        "protected",
    ),
    "backup.create": ("create_backup",),
    "migrations.guard": ("back_up_before_upgrade",),
    "backup.make": ("Created",),
    "restore.restore": (
        "Restored",
        "RestorePlan",
        "plan_restore",
    ),
    "restore.undo": ("plan_undo",),
    "model.errors": (
        "BackupError",
        "Damaged",
        "Locked",
        "NoSpace",
        "NoSuchBackup",
        "Refused",
        "SchemaMismatch",
        "SourceUnreadable",
    ),
    "model.events": (
        "Event",
        "EventListener",
        "Notice",
        "Progress",
        "Step",
        "Waiting",
        "Warned",
    ),
    "model.backup": (
        "Backup",
        "Metadata",
        "BackupRequest",
    ),
    "backup.single_file": ("MAX_BACKUPS",),
    "config.settings": (
        "Settings",
        "load_settings",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = list(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'backupkit' has no attribute {name!r}")
    return getattr(import_module(f"backupkit.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
