"""The table in which the app keeps its Alembic revisions: `alembic_version` unless `env.py` says otherwise.

If a database has other tables of that shape, `env.py` is run on an empty database to ask it; the answer is stored in
`backups/.state/version_table.json` until a file of the set-up changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping

from backupkit.config.alembic_setup import AlembicSetup, env_file
from backupkit.config.settings import Settings
from backupkit.fs import disk
from backupkit.migrations import alembic_child, app_process, schema
from backupkit.migrations.app_process import AppCodeFailed
from backupkit.model.events import EventListener, silence
from backupkit.model.names import printable
from backupkit.repository.flags import STATE_FOLDER
from backupkit.sqlite import database
from backupkit.sqlite.database import VERSION_TABLE, Inspection

_FILE = "version_table.json"


def at(settings: Settings, found: Inspection, emit: EventListener = silence) -> tuple[str, ...]:
    """Return the database's revisions, from the table that env.py names; none for an unversioned database.

    Raises `CannotRead` if there are several candidates and env.py cannot be asked.
    """
    return found.versions.get(name_of(settings, found.versions, emit), ())


def name_of(settings: Settings, candidates: Mapping[str, tuple[str, ...]], emit: EventListener = silence) -> str:
    """Return the table's name; `candidates` are the database's tables of that shape, with their revisions."""
    if settings.version_table:
        return settings.version_table
    setup = settings.alembic
    if setup is None or not set(candidates) - {VERSION_TABLE}:
        return VERSION_TABLE
    table = _recall(settings, setup)
    if table is None:
        table = _ask(settings, candidates, emit)
        _remember(settings, setup, table)
    return table


def of_live(settings: Settings, snapshot: sqlite3.Connection, emit: EventListener = silence) -> tuple[str, ...]:
    """Return the revisions of a snapshot of the live database, as `at` does."""
    found = database.versions(snapshot)
    return found.get(name_of(settings, found, emit), ())


def known(settings: Settings) -> str:
    """Return the table's name as far as it is known without running env.py."""
    setup = settings.alembic
    return settings.version_table or (setup and _recall(settings, setup)) or VERSION_TABLE


def _ask(settings: Settings, candidates: Mapping[str, tuple[str, ...]], emit: EventListener) -> str:
    names = ", ".join(map(printable, sorted(candidates)))
    try:
        answer = _answer(settings, emit)
    except AppCodeFailed as error:
        raise schema.CannotRead(
            f"The database has tables of revisions ({names}), and env.py could not be asked for its own: {error}.",
            hint="Set BACKUP_VERSION_TABLE to the one that the app uses.",
        ) from error
    if answer.get("schema") not in (None, "main"):
        raise schema.CannotRead(
            f"env.py keeps its revisions in another database, {printable(str(answer['schema']))}, "
            "which is in no backup.",
            hint="Leave out version_table_schema in env.py.",
        )
    return str(answer.get("table") or VERSION_TABLE)


def _answer(settings: Settings, emit: EventListener) -> Mapping[str, object]:
    with app_process.workshop(settings, None) as shop:
        request = {
            "action": "version_table",
            "url": shop.target.url(),
            "ways": alembic_child.WAYS,
            "x": [shop.target.filled(one) for one in settings.alembic_x],
        }
        return schema.answer_of(settings, request, shop.environment, schema.READING, emit)


_answers: dict[str, str] = {}  # the answers in this process, by the times of the files


def _recall(settings: Settings, setup: AlembicSetup) -> str | None:
    if table := _answers.get(str(_stamps(setup))):
        return table
    with contextlib.suppress(OSError, ValueError, RecursionError):
        told = json.loads(disk.read_plain(settings.dir / STATE_FOLDER / _FILE, disk.MOST_STATE))
        if isinstance(told, dict) and told.get("stamps") == _stamps(setup) and isinstance(told.get("table"), str):
            return str(told["table"])
    return None


def _remember(settings: Settings, setup: AlembicSetup, table: str) -> None:
    """Store the answer; if that fails, the next process asks again."""
    _answers[str(_stamps(setup))] = table
    with contextlib.suppress(OSError):
        if settings.dir.is_dir():
            disk.make_folder(settings.dir / STATE_FOLDER, 0o700)
            content = json.dumps({"table": table, "stamps": _stamps(setup)}).encode()
            disk.write_file(settings.dir / STATE_FOLDER / _FILE, content)


def _stamps(setup: AlembicSetup) -> list[list[object]]:
    files = [file for file in (setup.ini, setup.toml, env_file(setup)) if file]
    return [[str(file), os.stat(file).st_mtime_ns] for file in files]
