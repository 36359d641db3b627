"""Put a backup back: all of it, database and uploads, or nothing.

`plan_restore` looks: it verifies the backup, classifies its schema, counts the space and finds every difference.
`restore_backup` takes the plan and acts:

1. lock, and finish what an earlier run left
2. the safety copy: an ordinary backup of what is there now
3. stage beside the live data, check, sync: a failure up to here leaves live data untouched
4. the journal: from here there is only forward, whoever finishes it
5. apply: the database through SQLite, files by rename; then the proof, and nothing of ours stays
An error while applying goes back to the safety copy by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from backupkit.ground import disk
from backupkit.parts import journal, lock, manifest, schema, space, store, upgrade
from backupkit.parts.journal import Journal
from backupkit.parts.sources import database, delta, uploads
from backupkit.verbs import recover
from backupkit.verbs.create import clear_drafts, refuse_overlap
from backupkit.verbs.make import Clock, make_backup, utc_now
from backupkit.words.errors import BackupError, Damaged, Refused, SourceBroken
from backupkit.words.events import Listener, Notice, Progress, Step, Warned, silence
from backupkit.words.model import (
    STAGING,
    UPLOADS_FOLDER,
    Backup,
    DatabaseFacts,
    GitFacts,
    Order,
    Part,
    SchemaVerdict,
)
from backupkit.words.settings import Settings


@dataclass(frozen=True)
class Source:
    """What is restored: files that were verified. `same_owner` is whether the owners in the tree mean anything."""

    name: str
    database: Path | None
    uploads: Path | None
    facts: DatabaseFacts | None = None
    revisions: tuple[str, ...] = ()
    same_owner: bool = True
    git: GitFacts | None = None


@dataclass(frozen=True)
class Live:
    """What is there now; `trouble` says why the database could not be looked into."""

    revisions: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    size: int = 0
    encoding: str = ""
    uploads_bytes: int = 0
    trouble: str = ""


@dataclass(frozen=True)
class RestorePlan:
    """All that a restore will change, as shown and as done. Bytes; rows by table."""

    source: Source
    verdict: SchemaVerdict | None
    live: Live
    uploads: delta.Summary | None
    needs: Mapping[str, int]
    notes: tuple[str, ...] = ()
    migrate: bool = False


@dataclass(frozen=True)
class Restored:
    """What a restore did: the safety copy it left, the rows that are there now, and what it could not do."""

    source: str
    safety: str
    verdict: SchemaVerdict | None
    rows: Mapping[str, int]
    revisions: tuple[str, ...]
    uploads: delta.Summary | None
    warnings: tuple[str, ...] = ()


def plan_restore(
    settings: Settings,
    name: str,
    only: Part | None = None,
    force: bool = False,
    migrate: bool = False,
    tell: Listener = silence,
) -> RestorePlan:
    """What restoring that backup would change; the backup is verified, and nothing is written.

    With `migrate` this code's migrations will be run on the staged copy before it goes live.

    Raises `NoSuchBackup`, `Damaged` for a backup that is not as it was written, `SchemaMismatch` for one this code
    cannot go on from (unless forced), `SourceUnreadable` where the live data stays locked, `NoSpace`.
    """
    refuse_overlap(settings)
    source = _verified(settings, store.find(settings, name), only, tell)
    plan = plan_source(settings, source, force, tell)
    if migrate:
        _refuse_to_migrate(plan.verdict)
    return replace(plan, migrate=migrate)


def plan_source(settings: Settings, source: Source, force: bool, tell: Listener) -> RestorePlan:
    """The plan for a source that is verified already: a backup, or a database made from a dump."""
    verdict = None
    if source.database:
        verdict = schema.classify(source.revisions, settings.alembic_ini)
        schema.refuse_unless_restorable(verdict, source.git, force)
    live = _look_at_live(settings, source, tell)
    summary = _look_at_uploads(settings, source, tell)
    needs = _needs(settings, source, live, summary)
    _require_space(needs)
    shown = {str(folder): needed for folder, needed in needs}
    return RestorePlan(source, verdict, live, summary, shown, tuple(_notes(source, live)))


def restore_backup(settings: Settings, plan: RestorePlan, tell: Listener = silence, clock: Clock = utc_now) -> Restored:
    """The live data is as in the backup, proven, and what was there before is in a safety copy.

    Raises before anything live was touched, or after it went back by itself; either way the message says so.
    """
    with lock.held(settings.dir, f"restore of {plan.source.name}", settings.lock_timeout, tell):
        recover.recover_under_lock(settings, tell)
        clear_drafts(settings, tell)
        return restore_source(settings, plan, tell, clock)


def restore_source(settings: Settings, plan: RestorePlan, tell: Listener, clock: Clock) -> Restored:
    """`restore_backup` for a verb that holds the lock already."""
    heard: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Warned):
            heard.append(event.text)
        tell(event)  # type: ignore[arg-type]

    safety = _make_safety_copy(settings, plan.source, listen, clock)
    found = _stage(settings, plan, safety, (safety.path / UPLOADS_FOLDER,), listen, clock)
    journal.write(settings.dir, found)
    proof = _apply(settings, found, listen, clock)
    return Restored(
        source=plan.source.name,
        safety=safety.name,
        verdict=schema.classify(found.revisions, settings.alembic_ini) if found.revisions is not None else None,
        rows=proof.facts.rows if proof else {},
        revisions=(proof.revisions or ()) if proof else (),
        uploads=plan.uploads,
        warnings=tuple(heard),
    )


def _verified(settings: Settings, backup: Backup, only: Part | None, tell: Listener) -> Source:
    """The backup as a source, every byte of it compared with what was sealed."""
    metadata = store.trusted(backup)
    _refuse_altered(backup, tell)
    file = backup.path / metadata.database_file if metadata.database_file and only != "uploads" else None
    tree = backup.path / UPLOADS_FOLDER if metadata.uploads_included and only != "database" else None
    if file is None and tree is None:
        raise Damaged(f"{backup.path} holds nothing that can be restored.", hint="Try another backup: `list`.")
    if tree and (tree.is_symlink() or not tree.is_dir()):
        raise Damaged(f"{tree} is no folder, and the metadata say it is there.", hint="Try another backup: `list`.")
    source = Source(backup.name, file, tree, same_owner=backup.state != "unchecked", git=metadata.git)
    return _with_database(source, metadata.database) if file else source


def _refuse_altered(backup: Backup, tell: Listener) -> None:
    metadata = store.trusted(backup)
    if not manifest.has_checksums(backup.path):
        return tell(Notice(f"{backup.name} has no checksums (unchecked): it is restored as it lies there."))
    tell(Step("Verifying the backup", backup.size_bytes))
    problems = list(manifest.verify_checksums(backup.path, _adding_up(tell)))
    recorded = metadata.uploads and metadata.uploads.tree
    if not problems and recorded and uploads.digest(backup.path / UPLOADS_FOLDER) != recorded:
        problems.append("a folder or a link below uploads is not as it was written")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise Damaged(
            f"The backup {backup.path} is damaged: {problems[0]}{more}; nothing was changed.",
            hint="Try an older backup: `list`.",
        )


def _with_database(source: Source, recorded: DatabaseFacts | None) -> Source:
    assert source.database is not None
    if recorded and recorded.raw:
        raise Damaged(
            f"{source.database} is kept as it was found: a database that could not be read. It cannot be restored.",
            hint="Its files are there for a specialist; --only uploads restores the uploads.",
        )
    if source.database.is_symlink() or not source.database.is_file() or source.database.stat().st_size == 0:
        raise Damaged(f"{source.database} is missing, empty or a link.", hint="Try an older backup: `list`.")
    found = database.inspect(source.database)
    if found.problems:
        raise Damaged(f"{source.database} is damaged: {found.problems[0]}.", hint="Try an older backup: `list`.")
    kept = recorded or found.facts
    facts = replace(found.facts, journal_mode=kept.journal_mode, mode=kept.mode)
    return replace(source, facts=facts, revisions=found.revisions or ())


def _look_at_live(settings: Settings, source: Source, tell: Listener) -> Live:
    bytes_there = uploads.measure(settings.uploads)[1] if source.uploads and settings.uploads else 0
    if source.database is None:
        return Live(uploads_bytes=bytes_there)
    try:
        with database.snapshot(settings.database, settings.busy_timeout, tell) as moment:
            found = database.look(moment)
    except SourceBroken as error:
        return Live(uploads_bytes=bytes_there, trouble=error.message)
    return Live(found.revisions or (), found.facts.rows, found.facts.size, found.facts.encoding, bytes_there)


def _look_at_uploads(settings: Settings, source: Source, tell: Listener) -> delta.Summary | None:
    if not source.uploads or not settings.uploads:
        return None
    tell(Step("Comparing the uploads"))
    return delta.summarise(_differences(settings.uploads, source, tell))


def _differences(live: Path, source: Source, tell: Listener) -> list[delta.Difference]:
    assert source.uploads is not None
    if live.exists() and not live.is_dir():
        uploads.require(live)
    return delta.differences(live, source.uploads, source.same_owner, tell)


def _needs(settings: Settings, source: Source, live: Live, summary: delta.Summary | None) -> list[tuple[Path, int]]:
    """Bytes by folder: the safety copy; the staged database, a page-sized copy of it and its WAL; staged uploads."""
    needs = [(settings.dir, live.size + live.uploads_bytes)]
    if source.facts:
        needs.append((settings.database.parent, 3 * source.facts.size))
    if summary and settings.uploads:
        needs.append((settings.uploads, summary.bytes))
    return needs


def _require_space(needs: Iterable[tuple[Path, int]]) -> None:
    """Room for all of it, folders of one file system counted together."""
    together: dict[int, tuple[Path, int]] = {}
    for folder, needed in needs:
        place = next(path for path in (folder, *folder.parents) if path.exists())
        device = os.stat(place).st_dev
        together[device] = (folder, together.get(device, (folder, 0))[1] + needed)
    for folder, needed in together.values():
        space.require(needed, folder, "This restore")


def _notes(source: Source, live: Live) -> Iterable[str]:
    if live.trouble:
        yield f"{live.trouble} Whatever is there of it is kept in the safety copy, as it is."
    if live.encoding and source.facts and source.facts.encoding != live.encoding:
        yield f"The encoding changes from {live.encoding} to {source.facts.encoding}: restart the app afterwards."
    if source.uploads is None and source.database is not None:
        yield "The uploads stay as they are."
    if source.database is None:
        yield "The database stays as it is."


def _make_safety_copy(settings: Settings, source: Source, tell: Listener, clock: Clock) -> Backup:
    with_uploads = bool(source.uploads and settings.uploads and settings.uploads.is_dir())
    order = Order(kind="pre_restore", note=f"before the restore of {source.name}", uploads=with_uploads)
    tell(Notice("Making a safety copy of what is there now."))
    return make_backup(settings, order, tell, clock).backup


def _stage(
    settings: Settings, plan: RestorePlan, safety: Backup, copies: tuple[Path, ...], tell: Listener, clock: Clock
) -> Journal:
    """Everything that goes live lies beside it, checked and on disk; nothing live is touched. Fails tidily."""
    source = plan.source
    try:
        if source.database:
            source = stage_database(settings, source)
        if source.database and plan.migrate:
            source = _migrate_staged(settings, source, tell)
        if source.uploads and settings.uploads:
            _stage_uploads(settings.uploads, source, copies, tell)
    except BaseException:
        recover.unstage(settings)
        raise
    return Journal(
        source=source.name,
        safety=safety.name,
        started=settings.local(clock()).isoformat(sep=" "),
        database=source.database is not None,
        uploads=source.uploads is not None and settings.uploads is not None,
        facts=source.facts,
        revisions=source.revisions if source.database else None,
    )


def stage_database(settings: Settings, source: Source) -> Source:
    """The source's database lies beside the live one, of its page size, checked and on disk."""
    assert source.database is not None and source.facts is not None
    staged = recover.staged_database(settings)
    disk.make_folder(settings.database.parent)
    staged.parent.mkdir(mode=0o700)
    disk.copy_file(source.database, staged)
    if disk.hash_file(staged) != source.facts.sha256:
        raise Damaged(f"{source.database} changed while it was staged.", hint="Try again.")
    database.match_page_size(staged, settings.database, settings.busy_timeout)
    disk.give_tree(staged.parent, disk.owner_of(settings.database.parent))
    disk.sync_tree(staged.parent)
    return source


def _migrate_staged(settings: Settings, source: Source, tell: Listener) -> Source:
    """The staged database, brought to this code's revision and checked; the live one was not opened."""
    assert source.facts is not None
    tell(Step("Migrating the staged copy"))
    staged = recover.staged_database(settings)
    upgrade.upgrade(settings.alembic_ini, staged, "head", forbidden=settings.database)
    found = upgraded(settings, staged, "head")
    disk.give_tree(staged.parent, disk.owner_of(settings.database.parent))
    disk.sync_tree(staged.parent)
    facts = replace(found.facts, journal_mode=source.facts.journal_mode, mode=source.facts.mode)
    return replace(source, facts=facts, revisions=found.revisions or ())


def upgraded(settings: Settings, copy: Path, target: str) -> database.Inspection:
    """What a migrated copy holds; `MigrationFailed` where it is not sound, or not where it should be."""
    database.seal(copy)
    found = database.inspect(copy)
    if found.problems:
        raise upgrade.MigrationFailed(f"The migrated copy is not sound: {found.problems[0]}.")
    if left := schema.pending(found.revisions or (), target, settings.alembic_ini):
        raise upgrade.MigrationFailed(
            f"The migrations ran, and {len(left)} are still to be run on the copy: env.py took another database.",
            hint="Let env.py take its URL from sqlalchemy.url, BACKUP_DATABASE or DATABASE_URL.",
        )
    return found


def _refuse_to_migrate(verdict: SchemaVerdict | None) -> None:
    if verdict is None or verdict.relation in ("same", "behind"):
        return
    raise Refused(f"--migrate has no way from here: {verdict.reason}", hint="Restore without --migrate.")


def _stage_uploads(live: Path, source: Source, copies: tuple[Path, ...], tell: Listener) -> None:
    assert source.uploads is not None
    disk.make_folder(live)
    owner = None if source.same_owner else disk.owner_of(live)
    places = delta.Places(live, source.uploads, copies, owner)
    delta.stage(_differences(live, source, silence), places, tell)
    disk.sync_tree(live / STAGING)
    disk.sync_folder(live)


def _apply(settings: Settings, found: Journal, tell: Listener, clock: Clock) -> database.Inspection | None:
    try:
        if found.database:
            recover.replace_database(settings, found, tell)
    except BaseException:
        # SQLite took its transaction back, and the uploads were not begun: nothing live was changed.
        journal.remove(settings.dir)
        recover.unstage(settings)
        raise
    try:
        return recover.finish_uploads(settings, recover.database_is_done(settings, found), tell)
    except BaseException as error:
        _go_back(settings, found, tell, clock, error)
        raise


def _go_back(settings: Settings, found: Journal, tell: Listener, clock: Clock, error: BaseException) -> None:
    """The live data is as the safety copy has it; where that fails too, the journal stays for `recover`."""
    tell(Warned(f"The restore failed ({error}); going back to what was there before."))
    safety = store.find(settings, found.safety or "")
    metadata = store.trusted(safety)
    if metadata.database and metadata.database.raw:
        raise BackupError(f"The restore failed: {error}.", hint="Type: recover") from error
    source = _verified(settings, safety, None, silence)
    recover.unstage(settings)
    copies = (safety.path / UPLOADS_FOLDER, settings.dir / found.source / UPLOADS_FOLDER)
    back = _stage(settings, RestorePlan(source, None, Live(), None, {}), safety, copies, tell, clock)
    back = replace(back, safety=None)  # nothing to undo: it never happened
    journal.write(settings.dir, back)
    recover.finish(settings, back, tell)
    tell(Notice("Everything is as it was before the restore."))


def _adding_up(tell: Listener) -> Callable[[int], None]:
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        tell(Progress(done))

    return add
