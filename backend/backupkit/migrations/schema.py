"""How the Alembic revisions of a database compare with this code's, read from the migration files alone.

Simple files are parsed without being run; otherwise the app's Python runs them in a separate process
(`alembic_child`). `env.py` is never run for this.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from backupkit.config.alembic_setup import AlembicSetup
from backupkit.config.settings import Settings
from backupkit.migrations import alembic_child, app_process
from backupkit.migrations.app_process import AppCodeFailed
from backupkit.migrations.tree import Tree, read_plainly
from backupkit.model.backup import Backup, GitFacts, Migration, SchemaVerdict
from backupkit.model.errors import BackupError, Refused, SchemaMismatch
from backupkit.model.events import EventListener, silence

READING = 60  # seconds
_CHILD = str(Path(alembic_child.__file__))
_PACKAGES = str(Path(__file__).resolve().parents[2])


class CannotRead(BackupError):
    """The error for migrations that cannot be read here; the hint says what is needed."""


def classify(settings: Settings, revisions: tuple[str, ...], emit: EventListener = silence) -> SchemaVerdict:
    """Return how these revisions compare with this code's heads, with the reason."""
    if settings.alembic is None:
        return SchemaVerdict("no_migrations", revisions, (), reason=f"There is no {settings.alembic_ini}.")
    try:
        return _compare(read(settings, emit), revisions)
    except CannotRead as error:
        return SchemaVerdict("unreadable", revisions, (), reason=error.message, needs=error.hint)


def classify_each(settings: Settings, backups: Iterable[Backup]) -> dict[tuple[str, ...], SchemaVerdict]:
    """Return how each set of revisions in the backups compares with this code; compare each set only once."""
    return {one: classify(settings, one) for one in {one.metadata.revisions for one in backups if one.metadata}}


def tree_if_needed(settings: Settings, emit: EventListener = silence) -> Tree | None:
    """Return the app's migrations; None if its own command migrates and they cannot be read beforehand."""
    if settings.migrate_command and settings.alembic is None:
        return None
    try:
        return read(settings, emit)
    except CannotRead:
        if not settings.migrate_command:
            raise
        return None


def plain_target(settings: Settings, revisions: tuple[str, ...]) -> str:
    """Return the argument of an upgrade to this code, as far as the migrations say it without being run."""
    tree = read_plainly(settings.alembic) if settings.alembic else None
    return tree.target if tree else ("heads" if len(revisions) > 1 else "head")


def _compare(tree: Tree, revisions: tuple[str, ...]) -> SchemaVerdict:
    if not revisions:
        return SchemaVerdict("unversioned", revisions, tree.heads, reason="The backup has no Alembic revision.")
    if strange := [one for one in revisions if one not in tree.below]:
        reason = f"This code does not know revision {', '.join(strange)}: the backup is newer, or of another branch."
        return SchemaVerdict("unknown", revisions, tree.heads, reason=reason)
    pending = tree.missing_from(revisions)
    if not pending:
        return SchemaVerdict("same", revisions, tree.heads, reason="The backup is at this code's revision.")
    count = len(pending)
    reason = f"The backup is {count} migration{'s' * (count != 1)} behind this code."
    return SchemaVerdict("behind", revisions, tree.heads, pending, reason)


def refuse_unless_restorable(
    verdict: SchemaVerdict, live: tuple[str, ...], git: GitFacts | None, force: bool = False
) -> None:
    """Raise `SchemaMismatch` for a revision that this code does not know, unless forced; name the code that does.

    A backup at the live database's own revision can always be restored, and so can one that cannot be compared.
    """
    if verdict.relation != "unknown" or force or (live and set(live) == set(verdict.backup)):
        return
    where = f"git checkout {git.commit}" if git else "Check out the code that made it"
    raise SchemaMismatch(
        f"{verdict.reason} Nothing was changed.", hint=f"{where}, then type it again; or anyway, with --force."
    )


def read(settings: Settings, emit: EventListener = silence) -> Tree:
    """Return the app's migrations; read them again only if one of their files changed. Raises `CannotRead`."""
    setup = _require(settings)
    key = (setup, settings.python)
    with _reading:
        if key not in _known or not _is_current(_known[key]):
            _known[key] = _read(settings, setup, emit)
        return _known[key]


_known: dict[tuple[AlembicSetup, str], Tree] = {}
_reading = threading.Lock()


def _is_current(tree: Tree) -> bool:
    try:
        return all(os.stat(file).st_mtime_ns == changed for file, changed in tree.files)
    except OSError:
        return False


def _read(settings: Settings, setup: AlembicSetup, emit: EventListener) -> Tree:
    configuration = tuple((str(file), os.stat(file).st_mtime_ns) for file in (setup.ini, setup.toml) if file)
    tree = read_plainly(setup) or _read_by_running(settings, setup, emit)
    if not tree.heads:
        raise CannotRead(
            f"{setup.file} leads to no migration.", hint="Set BACKUP_ALEMBIC_INI to the one that the app uses."
        )
    return replace(tree, files=(*configuration, *tree.files))


def _read_by_running(settings: Settings, setup: AlembicSetup, emit: EventListener) -> Tree:
    try:
        answer = ask(settings, {"action": "read"}, emit)
    except AppCodeFailed as error:
        raise _cannot_read(settings, setup, error) from error
    return Tree(
        heads=tuple(sorted(answer["heads"])),
        migrations=tuple(Migration(revision, title) for revision, _, title in answer["revisions"]),
        below={revision: tuple(below) for revision, below, _ in answer["revisions"]},
        files=tuple((file, changed) for file, changed in answer["files"]),
    )


def _cannot_read(settings: Settings, setup: AlembicSetup, error: AppCodeFailed) -> CannotRead:
    hint = f"The same error should come from: {settings.deployment.alembic('history')}"
    if error.missing:
        python = " ".join(app_process.python(settings))
        hint = f"Set BACKUP_PYTHON to the app's Python, or install {error.missing} where {python} finds it."
    return CannotRead(f"The migrations of {setup.file} cannot be read: {str(error).rstrip('.')}.", hint)


def steps_to(
    settings: Settings, revisions: tuple[str, ...], target: str, emit: EventListener = silence
) -> tuple[Migration, ...]:
    """Return the migrations that `alembic upgrade TARGET` would run from these revisions, oldest first.

    Raises `Refused` for a target that Alembic does not know or that would be a downgrade, `SchemaMismatch` for
    revisions that this code does not know, and `CannotRead`.
    """
    tree = read(settings, emit)
    if strange := [one for one in revisions if one not in tree.below]:
        raise SchemaMismatch(
            f"This code does not know revision {', '.join(strange)} of the database. Nothing was changed.",
            hint="Check out the code that knows it, then migrate; or restore a backup that this code knows: `list`",
        )
    if target == "head" and tree.target == "heads":
        raise Refused(f"There are {len(tree.heads)} heads: {', '.join(tree.heads)}.", hint="`migrate heads`")
    if target in ("head", "heads"):
        return tree.missing_from(revisions)
    try:
        answer = ask(settings, {"action": "read", "revisions": revisions, "target": target}, emit)
    except AppCodeFailed as error:
        raise _cannot_read(settings, _require(settings), error) from error
    if refusal := answer.get("refusal"):
        raise _not_a_target(settings, target, refusal)
    asked = set(answer["asked"])
    if not answer["steps"] and not asked & set(revisions) and asked < tree.included(revisions):
        raise Refused(
            f"The database is at {', '.join(revisions)}, which is after {target}: that would be a downgrade.",
            hint=f"`undo` takes the last migration back; or type: {settings.deployment.alembic(f'downgrade {target}')}",
        )
    titles = {one.revision: one for one in tree.migrations}
    return tuple(titles[revision] for revision in answer["steps"])


def _not_a_target(settings: Settings, target: str, refusal: str) -> Refused:
    if target.startswith("-"):
        command = settings.deployment.alembic(f"downgrade -- {target}")
        hint = f"`undo` takes the last migration back; or type: {command}"
        return Refused(f"{target} would be a downgrade, which can lose data.", hint)
    return Refused(
        f"{target!r} is not a revision to migrate to: {refusal.rstrip('.')}.",
        hint=f"These are known: {settings.deployment.alembic('history')}",
    )


def _require(settings: Settings) -> AlembicSetup:
    if settings.alembic is None:
        raise Refused(
            f"There is no {settings.alembic_ini}: nothing to migrate with.",
            hint="Set BACKUP_ALEMBIC_INI, or BACKUP_MIGRATE_COMMAND for an app without Alembic.",
        )
    return settings.alembic


def ask(settings: Settings, request: dict[str, Any], emit: EventListener) -> dict[str, Any]:
    """Return the child's answer about the migrations; it gets a missing database instead of the live one."""
    with app_process.workshop(settings, None) as shop:
        # Reading must leave nothing behind, not even bytecode in the app's folder.
        environment = {**shop.environment, "PYTHONDONTWRITEBYTECODE": "1"}
        return answer_of(settings, request, environment, READING, emit)


def answer_of(
    settings: Settings,
    request: dict[str, Any],
    environment: dict[str, str],
    timeout: float,
    emit: EventListener,
    lock: int | None = None,
) -> dict[str, Any]:
    """Run the child and return its answer; emit what the app's code printed. Raises `AppCodeFailed` if it failed."""
    setup = _require(settings)
    whole = {
        "ini": str(setup.ini) if setup.ini else None,
        "toml": str(setup.toml) if setup.toml else None,
        "script_location": setup.script_location,
        "search": [_PACKAGES] if app_process.is_own_python(settings) else [],
        **request,
    }
    command = [*app_process.python(settings), _CHILD, json.dumps(whole)]
    done = app_process.run(command, setup.folder, environment, timeout, lock)
    lines = done.out.splitlines()
    app_process.say("\n".join(one for one in lines if not one.startswith(alembic_child.MARK)), emit)
    answers = [one.removeprefix(alembic_child.MARK) for one in lines if one.startswith(alembic_child.MARK)]
    answer: dict[str, Any] = json.loads(answers[-1]) if answers else {"error": done.last_words}
    if "error" in answer:
        where = f" (in {answer['file']})" if answer.get("file") else ""
        raise AppCodeFailed(answer["error"] + where, answer.get("missing", ""), answer.get("refused", ""))
    return answer
