"""A guard that an app calls in its own `alembic/env.py` before it connects:

    from backupkit import back_up_before_upgrade

    back_up_before_upgrade(context, url)

A bare `alembic upgrade head` then makes a backup first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings, load_settings
from backupkit.fs import process
from backupkit.fs.other_user import run_as
from backupkit.migrations import app_process, version_table
from backupkit.model.backup import Backup, BackupRequest
from backupkit.model.errors import SourceBroken
from backupkit.repository import store
from backupkit.sqlite import database


def back_up_before_upgrade(context: Any, url: object, app_dir: Path | None = None) -> Backup | None:
    """Make a backup of kind `pre_migration` if this run of Alembic will change the live database.

    `context` is `alembic.context`. `url` is what env.py connects to: a string, a path or SQLAlchemy's URL. `app_dir` is
    the app's folder, by default that of `alembic.ini`.

    Return the backup, or None if none is made: for commands other than upgrade and downgrade, in offline mode, for
    another database than the live one, for a new one without tables, if there is nothing to run, inside the toolkit's
    own rehearsal and migration, and if the setting `backup_before_migrations` is off. A backup that fails raises, and
    so stops the upgrade.
    """
    if os.environ.get(app_process.REHEARSAL) or context.is_offline_mode():
        return None
    ini = Path(context.config.config_file_name or "alembic.ini").absolute()
    settings = load_settings(app_dir or ini.parent)
    path = _file_of(url)
    if not settings.backup_before_migrations or path is None or path.resolve() != settings.database.resolve():
        return None
    if not _has_work(context, settings):
        return None
    return store.find(settings, _back_up(settings))


def _back_up(settings: Settings) -> str:
    """Make the backup and return its name; root makes it as the owner of the database's folder, like every command."""

    def act() -> str:
        request = BackupRequest(kind="pre_migration", note="before alembic upgrade", pin_until_next=True)
        return create_backup(settings, request, push=False).backup.name  # a migration must not wait for an upload

    if os.geteuid() == 0 and (owner := process.owner_of_place(settings.database.parent))[0]:
        return run_as(owner, act)
    return act()


def _has_work(context: Any, settings: Settings) -> bool:
    # Alembic gives env.py a function that turns the database's heads into the steps to run: call it.
    steps = context._proxy.context_opts["fn"]
    if steps.__name__ not in ("upgrade", "downgrade"):
        return False
    try:
        with database.snapshot(settings.database, settings.busy_timeout) as snapshot:
            found = database.versions(snapshot)
            return bool(list(steps(found.get(version_table.known(settings), ()), None)))
    except SourceBroken:
        return False  # a new database, which Alembic will create


def _file_of(url: object) -> Path | None:
    path = str(getattr(url, "database", None) or url)
    if "://" in path:
        from sqlalchemy.engine import make_url  # the caller has imported it; works with 1.4 too

        path = make_url(path).database or ""
    return Path(path).absolute() if path and path != ":memory:" else None
