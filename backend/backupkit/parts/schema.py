"""Alembic's view of a backup: how its revisions stand to this code's, read from the migration files alone.

`env.py` is never run for this: it may connect to the live database.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backupkit.words.errors import Refused, SchemaMismatch
from backupkit.words.model import GitFacts, Migration, SchemaVerdict

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def classify(revisions: tuple[str, ...], alembic_ini: Path) -> SchemaVerdict:
    """The backup's relation to this code's heads, with the reason; the cases are those of the restore guide."""
    if not alembic_ini.is_file():
        return SchemaVerdict("no_migrations", revisions, (), reason=f"There is no {alembic_ini}: no schema to compare.")
    try:
        scripts = _scripts(alembic_ini)
        heads = tuple(sorted(scripts.get_heads()))
        known = {script.revision: script for script in scripts.walk_revisions()}
    except Exception as error:  # a migration file is code: it can fail in any way
        reason = f"The migrations of {alembic_ini} cannot be read: {error}."
        return SchemaVerdict("unknown", revisions, (), reason=reason)
    if not revisions:
        return SchemaVerdict("unversioned", revisions, heads, reason="The backup has no Alembic revision.")
    if strange := [revision for revision in revisions if revision not in known]:
        reason = f"This code does not know revision {', '.join(strange)}: the backup is newer, or of another branch."
        return SchemaVerdict("unknown", revisions, heads, reason=reason)
    if set(revisions) == set(heads):
        return SchemaVerdict("same", revisions, heads, reason="The backup is at this code's revision.")
    return _related(scripts, revisions, heads)


def refuse_unless_restorable(verdict: SchemaVerdict, git: GitFacts | None, force: bool) -> None:
    """`SchemaMismatch` for a revision this code cannot go on from, unless forced; says which code could."""
    if verdict.relation not in ("unknown", "branched") or force:
        return
    where = f"git checkout {git.commit}" if git else "Check out the code that made it"
    raise SchemaMismatch(
        f"{verdict.reason} Nothing was changed.", hint=f"{where}, then restore; or --force to restore anyway."
    )


def pending(revisions: tuple[str, ...], target: str, alembic_ini: Path) -> tuple[Migration, ...]:
    """The migrations an upgrade from these revisions to the target would run, oldest first.

    Raises `Refused` for a target that Alembic does not know, `SchemaMismatch` for revisions it does not know.
    """
    from alembic.script.revision import RevisionError
    from alembic.util import CommandError

    if not alembic_ini.is_file():
        raise Refused(f"There is no {alembic_ini}: nothing to migrate with.", hint="Set BACKUP_ALEMBIC_INI.")
    refuse_unless_restorable(classify(revisions, alembic_ini), None, force=False)
    scripts = _scripts(alembic_ini)
    try:
        done = {script.revision for script in scripts.iterate_revisions(revisions, "base")} if revisions else set()
        asked = list(scripts.iterate_revisions(target, "base"))
    except (CommandError, RevisionError) as error:
        raise Refused(f"{target!r} is no revision to migrate to: {error}", hint="Try: alembic history") from error
    return tuple(Migration(one.revision, one.doc or "") for one in reversed(asked) if one.revision not in done)


def load() -> None:
    """Alembic is loaded: a third of a second, which another thread can spend before it is asked."""
    import alembic.script  # noqa: F401


def _scripts(alembic_ini: Path) -> ScriptDirectory:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(alembic_ini)
    location = config.get_main_option("script_location") or "alembic"
    # A relative location is meant from the app folder, wherever the caller stands; `package:path` is Alembic's own.
    if ":" not in location:
        config.set_main_option("script_location", str(alembic_ini.parent / location).replace("%", "%%"))
    return ScriptDirectory.from_config(config)


def _related(scripts: ScriptDirectory, revisions: tuple[str, ...], heads: tuple[str, ...]) -> SchemaVerdict:
    ancestors = {script.revision for script in scripts.iterate_revisions(heads, "base")}
    done = {script.revision for script in scripts.iterate_revisions(revisions, "base")}
    if not set(revisions) <= ancestors:
        reason = f"The backup is at {', '.join(revisions)}, on another branch than {', '.join(heads)}."
        return SchemaVerdict("branched", revisions, heads, reason=reason)
    waiting = [script for script in scripts.iterate_revisions(heads, "base") if script.revision not in done]
    pending = tuple(Migration(script.revision, script.doc or "") for script in reversed(waiting))
    reason = f"The backup is {len(pending)} migration{'s' * (len(pending) != 1)} behind this code."
    return SchemaVerdict("behind", revisions, heads, pending, reason)
