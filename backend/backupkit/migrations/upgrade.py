"""Run the app's migrations on one database file: Alembic's upgrade, or the app's own command, in a separate process.

The app's `env.py` decides what it connects to, so it gets the file in every usual way, and while a copy is migrated
the process cannot open the live database, nor change the live uploads.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from backupkit.config.settings import Settings
from backupkit.migrations import alembic_child, app_process, loss, schema, version_table
from backupkit.migrations.app_process import AppCodeFailed, Workshop
from backupkit.migrations.loss import Loss
from backupkit.model.errors import BackupError, Refused, SourceUnreadable
from backupkit.model.events import EventListener, silence
from backupkit.model.names import few, printable
from backupkit.sqlite import database

_MOST_LOSSES = 10  # how many an error lists
_HINT_ON_URL = (
    "Let env.py take its URL from sqlalchemy.url, DATABASE_URL or BACKUP_DATABASE; or set BACKUP_MIGRATE_ENVIRONMENT"
    " to the variable that it reads, BACKUP_ALEMBIC_X to what it takes with -x, or BACKUP_MIGRATE_COMMAND."
)

_HINT_ON_REVISION = (
    "The database has no Alembic revision, so the migrations ran from the first on. Only if you know which one its"
    " tables are at:"
)


class MigrationFailed(BackupError):
    """An error of a migration; the migration's own error is in the message."""


class LossRefused(MigrationFailed):
    """The error for a migration that would lose data which the user did not expect to lose."""


class Rehearsed(Struct, frozen=True):
    """A migrated copy: its content, the way in which env.py found it, and what was lost."""

    found: database.Inspection
    way: str
    losses: tuple[Loss, ...] = ()
    cascading: tuple[str, ...] = ()


def migrate_copy(
    settings: Settings,
    copy: Path,
    target: str,
    wanted: Iterable[str] | None = None,
    emit: EventListener = silence,
    uploads: Path | None = None,
) -> Rehearsed:
    """Migrate the copy to the target, and check that it is sound and one file; raise `MigrationFailed` otherwise.

    Also raise it if the live database was opened or changed. `wanted` are the revisions that the copy must include
    then; None means all of this code's. `uploads` is the copy of the uploads that goes with it, if there is one.
    """
    filled, version = loss.measure(copy), _schema_version(settings)
    with _explaining(settings, copy, emit), app_process.workshop(settings, copy, uploads) as shop:
        way = _upgrade(settings, shop, target, alembic_child.WAYS, emit)
    if version is not None and _schema_version(settings) not in (version, None):
        raise MigrationFailed(
            f"The migration changed the live database {settings.database} instead of the copy.",
            hint=f"Restore the backup made before it: `list`. {_HINT_ON_URL}",
        )
    found = _inspect_migrated(settings, copy, wanted)
    lost = loss.losses(filled, loss.measure(copy))
    cascading = loss.cascades(copy) & {one.table for one in lost}
    return Rehearsed(found, way, lost, tuple(sorted(cascading)))


def refuse_loss(rehearsed: Rehearsed, expected: Collection[str]) -> None:
    """Raise `LossRefused` if the migration loses data of a table that is not in `expected`."""
    unexpected = [one for one in rehearsed.losses if one.table not in expected]
    if not unexpected:
        return
    text = few([one.text for one in unexpected], _MOST_LOSSES, "; ")
    tables = dict.fromkeys(one.table for one in unexpected)
    hint = f"If that is meant, type it again with {' '.join(f'--expect-loss {shlex.quote(one)}' for one in tables)}"
    if rehearsed.cascading:
        hint += (
            f". If it is not: rows of {', '.join(map(printable, rehearsed.cascading))} go with the rows that they refer"
            " to. A batch migration drops tables, and takes them along if env.py has PRAGMA foreign_keys on."
        )
    raise LossRefused(f"The migration loses data: {text}. Nothing was changed.", hint)


def migrate_live(
    settings: Settings, target: str, way: str, emit: EventListener = silence, lock: int | None = None
) -> None:
    """Migrate the live database to the target in the way that worked in the rehearsal. Raises `MigrationFailed`.

    The child inherits the descriptor `lock`, so that the lock lasts until the migration ends even if this process is
    killed.
    """
    with app_process.workshop(settings, settings.database) as shop:
        _upgrade(settings, shop, target, (way,), emit, lock)


@contextlib.contextmanager
def _explaining(settings: Settings, copy: Path, emit: EventListener) -> Iterator[None]:
    """Give a migration that fails on a table that is there already the reason: no revision says that it ran."""
    has_revision = _has_revision(settings, copy, emit)
    try:
        yield
    except MigrationFailed as error:
        if has_revision or "already exists" not in error.message:
            raise
        stamp = settings.deployment.alembic("stamp THAT_REVISION")
        raise MigrationFailed(error.message, f"{_HINT_ON_REVISION} {stamp}") from error


def _has_revision(settings: Settings, copy: Path, emit: EventListener) -> bool:
    """Return whether the copy is at a revision; True if Alembic is not what migrates it."""
    if settings.alembic is None or settings.migrate_command:
        return True
    with database.open_sealed(copy) as connection:
        return bool(version_table.of_live(settings, connection, emit))


def _upgrade(
    settings: Settings, shop: Workshop, target: str, ways: tuple[str, ...], emit: EventListener, lock: int | None = None
) -> str:
    try:
        if command := _command(settings, target):
            _run(settings, command, shop, emit, lock)
            return ways[0]
        request = {
            "action": "upgrade",
            "target": target,
            "url": shop.target.url(),
            "ways": ways,
            "x": [shop.target.filled(one) for one in settings.alembic_x],
        }
        answer = schema.answer_of(settings, request, shop.environment, settings.migrate_timeout, emit, lock)
        return str(answer["way"])
    except AppCodeFailed as error:
        hint = _hint(settings, error.refused)
        raise MigrationFailed(f"The migration to {target} failed: {error}", hint) from error


def _hint(settings: Settings, refused: str) -> str:
    """Return what to do about a migration that failed, or was kept from the live data."""
    if refused == alembic_child.REFUSAL_OF_UPLOADS:
        by_hand = settings.migrate_command or settings.deployment.alembic("upgrade head")
        return (
            "A rehearsal must not change them. Run that migration by hand: `backup before_it`, then"
            f" `{by_hand}`; `restore before_it` brings database and uploads back."
        )
    return _HINT_ON_URL if refused else "Correct that migration, then try again."


def _command(settings: Settings, target: str) -> list[str]:
    """Return the app's own command that migrates; empty if Alembic is called directly."""
    if settings.migrate_command:
        if target not in ("head", "heads"):
            raise Refused(
                f"BACKUP_MIGRATE_COMMAND migrates to the newest revision only, not to {target}.",
                hint="Leave the revision out.",
            )
        return ["/bin/sh", "-c", settings.migrate_command]
    return [*settings.alembic.runs, "upgrade", target] if settings.alembic and settings.alembic.runs else []


def _run(settings: Settings, command: list[str], shop: Workshop, emit: EventListener, lock: int | None) -> None:
    folder = settings.alembic.folder if settings.alembic and not settings.migrate_command else settings.app_dir
    done = app_process.run(command, folder, shop.environment, settings.migrate_timeout, lock)
    app_process.say(done.out, emit)
    if done.code:
        refused = alembic_child.refused_in(done.err)
        lines = [line for line in done.err.splitlines() if refused and refused in line]
        raise AppCodeFailed(lines[-1] if lines else done.last_words, refused=refused)


def _inspect_migrated(settings: Settings, copy: Path, wanted: Iterable[str] | None) -> database.Inspection:
    """Return what the migrated copy holds; raise `MigrationFailed` if it is not sound, or not at the target."""
    database.seal(copy)
    found = database.inspect(copy)
    if found.problems:
        raise MigrationFailed(f"The migrated copy is not sound: {found.problems[0]}.")
    tree = schema.tree_if_needed(settings)
    if tree is None:
        return found
    if left := tree.missing_from(version_table.at(settings, found), wanted):
        raise MigrationFailed(
            f"The migrations ran, but {len(left)} are missing on the copy: env.py used another database.",
            hint=_HINT_ON_URL,
        )
    return found


def _schema_version(settings: Settings) -> int | None:
    """Return the live schema's version, which changes with every change of it; None if it cannot be read."""
    try:
        with database.snapshot(settings.database, 1) as snapshot:
            return database.schema_version(snapshot)
    except SourceUnreadable:
        return None
