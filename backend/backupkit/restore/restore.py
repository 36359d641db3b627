"""Restore a backup, database and uploads, completely or not at all.

`plan_restore` verifies the backup, classifies its schema, computes the space and finds every difference.
`restore_backup` carries out the plan:

1. lock, and finish what an earlier run left
2. make a safety copy: an ordinary backup of the live data
3. stage beside the live data, compare with the checksums, sync: a failure up to here leaves live data untouched. A
   sealed database that needs no change is not copied, but read from the backup
4. write the journal: from here on the restore is finished, by this run or a later one, or rolled back
5. apply: the database through SQLite, files by rename; then prove the result and clean up
What the app commits after the safety copy goes into another one, made once the app can no longer write (`keeping`).
An error while applying rolls back to the safety copy automatically.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from backupkit.backup import references
from backupkit.backup.create import refuse_overlap
from backupkit.backup.make import make_backup
from backupkit.config.settings import Settings
from backupkit.fs import disk, mounts, process, space, staging_area
from backupkit.fs.staging_area import Identity
from backupkit.migrations import schema, upgrade, version_table
from backupkit.model.backup import (
    MAIN_DATABASE,
    UPLOADS_FOLDER,
    Backup,
    BackupRequest,
    DatabaseFacts,
    Metadata,
    SchemaVerdict,
)
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, Locked, Refused, SourceBroken, SourceUnreadable, way_to_look
from backupkit.model.events import EventListener, Notice, Step, Warned, collecting, silence
from backupkit.model.names import few, first_of, printable
from backupkit.repository import files_cache, hooks, manifest, reliable, store
from backupkit.repository.operation import locked_operation
from backupkit.restore import journal, keeping, recovery, staging, unfinished
from backupkit.restore.journal import Journal
from backupkit.restore.staging import Source
from backupkit.sqlite import app_migrations, database, rows
from backupkit.sqlite.rows import Changes
from backupkit.upload_files import diff, selection, walk


class Live(Struct, frozen=True):
    """The live data before a restore; `error` is why the database could not be read, or empty.

    `unsaved` is the bytes that the newest backup lacks, `is_wanted` whether the database is the wanted one already.
    `changes` are the row changes of each table that could be compared within the time limit.
    """

    revisions: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    size: int = 0
    encoding: str = ""
    page_size: int = 0
    unsaved: int = 0
    is_wanted: bool = False
    error: str = ""
    changes: Mapping[str, Changes] = field(default_factory=dict)


class RestorePlan(Struct, frozen=True):
    """Everything that a restore will change, as shown and as done: `needs` in bytes, `rows_after` by table."""

    source: Source
    verdict: SchemaVerdict | None
    live: Live
    uploads: diff.Summary | None
    needs: Mapping[str, int]
    notes: tuple[str, ...] = ()
    migrate: bool = False
    revisions_after: tuple[str, ...] = ()
    """The Alembic revisions of the database after the restore, migrated or not."""
    rows_after: Mapping[str, int] = field(default_factory=dict)
    rehearsed: upgrade.Rehearsed | None = None
    can_undo: bool = True
    """False if it replaces a database that is missing or broken."""
    others: tuple[RestorePlan, ...] = ()
    """The plans for additional databases and trees."""

    @property
    def differing_tables(self) -> tuple[str, ...]:
        """The tables whose rows will change, as far as they were compared, or whose number of rows will."""
        now, after = self.live.rows, self.rows_after
        changed = {name for name, one in self.live.changes.items() if one.total}
        names = sorted({*now, *after})
        return tuple(name for name in names if name in changed or now.get(name) != after.get(name))

    @property
    def each(self) -> tuple[RestorePlan, ...]:
        """This plan, and those for additional databases and trees."""
        return (self, *self.others)


class Restored(Struct, frozen=True):
    """The result of a restore: its safety copy, the rows now live, and warnings of what it could not do.

    `kept` are the raw files of a database that was too broken to be copied. `can_undo` is False if the restore replaced
    a broken database, or none. `has_same_pages` is whether the live database was compared with the backup's page by
    page; otherwise SQLite checked it.
    """

    source: str
    safety: str
    verdict: SchemaVerdict | None
    rows: Mapping[str, int]
    revisions: tuple[str, ...]
    uploads: diff.Summary | None
    warnings: tuple[str, ...] = ()
    can_undo: bool = True
    kept: tuple[Path, ...] = ()
    has_same_pages: bool = False
    parts: Mapping[str, RestoredPart] = field(default_factory=dict)
    """The results for additional databases and trees, by name."""


class RestoredPart(Struct, frozen=True):
    """The restored state of an additional database or tree."""

    database: bool
    rows: Mapping[str, int]
    uploads: diff.Summary | None


def plan_restore(
    settings: Settings,
    name: str,
    only: str | None = None,
    force: bool = False,
    migrate: bool = False,
    emit: EventListener = silence,
    expect_loss: Collection[str] = (),
    notes: tuple[str, ...] = (),
    verify_while_staging: bool = False,
) -> RestorePlan:
    """Verify a backup and return what restoring it would change; nothing stays written.

    With `verify_while_staging` only its databases and the names of its uploads are verified; `restore_backup` verifies
    the contents of restored uploads while it stages them, before it changes anything: for plans without a prompt.

    With `migrate` this code's migrations will run on the staged copy before it goes live. They are rehearsed for the
    plan; raise `LossRefused` if they lose data of a table that is not in `expect_loss`.

    Raise `NoSuchBackup`, `Damaged` for a backup that is not as it was written, `SchemaMismatch` for a schema that this
    code cannot use and `Refused` for another app's backup (unless forced), `SourceUnreadable` if the live data stays
    locked, `NoSpace`.
    """
    found = store.resolve(settings, name)
    backup, notes = found.backup, (*notes, *found.sentences)
    return plan_backup(
        settings, backup, only, force, migrate, emit, expect_loss, notes, verify_while_staging=verify_while_staging
    )


def plan_backup(
    settings: Settings,
    backup: Backup,
    only: str | None = None,
    force: bool = False,
    migrate: bool = False,
    emit: EventListener = silence,
    expect_loss: Collection[str] = (),
    notes: tuple[str, ...] = (),
    newer: Mapping[str, Backup] | None = None,
    verify_while_staging: bool = False,
) -> RestorePlan:
    """Return the plan for a given backup, as `plan_restore`; the parts in `newer` come from those backups."""
    refuse_overlap(settings)
    refuse_another_app(settings, backup, force)
    _require_part(settings, only)
    source = staging.verified(settings, backup, only, emit, verify_while_staging)
    if newer:
        source = staging.with_parts(settings, source, newer, emit, verify_while_staging)
    plan = plan_source(settings, source, force, emit, migrate)
    more = (*_part_notes(settings, backup, only), *plan.notes, *_reference_notes(source, backup))
    plan = replace(plan, migrate=migrate, notes=(*notes, *more))
    return _rehearse_all(settings, plan, expect_loss, emit) if migrate else plan


def _require_part(settings: Settings, only: str | None) -> None:
    """Raise `Refused` if the name is not that of a database or tree of this app."""
    names = (MAIN_DATABASE, UPLOADS_FOLDER, *settings.others)
    if only is not None and only not in names:
        raise Refused(f"This app has no database or tree {printable(only)}.", hint=f"There are: {', '.join(names)}.")


def _part_notes(settings: Settings, backup: Backup, only: str | None) -> Iterable[str]:
    """Yield notes on parts that only the backup has, or only the app."""
    metadata = store.require_metadata(backup)
    if only is not None:
        return
    yield from left_in_backup(settings, metadata)
    for name in settings.others:
        if metadata.at(name) is None:
            yield f"{name} stays as it is: it is not in this backup."


def left_in_backup(settings: Settings, metadata: Metadata) -> Iterator[str]:
    """Yield a note on each database or tree that only the backup has."""
    for name in metadata.others:
        if settings.at(name) is None and "/" not in name:
            yield f"{name} stays in the backup: the settings name no place for it, in [databases] or [trees]."


def _rehearse_all(
    settings: Settings, plan: RestorePlan, expect_loss: Collection[str], emit: EventListener
) -> RestorePlan:
    done = _rehearse(staging.place_of(settings, plan.source), plan, expect_loss, emit)
    others = (
        _rehearse(staging.place_of(settings, one.source), replace(one, migrate=True), expect_loss, emit)
        if one.verdict and one.verdict.relation == "behind"
        else one
        for one in plan.others
    )
    return replace(done, others=tuple(others))


def _reference_notes(source: Source, backup: Backup) -> Iterable[str]:
    """Yield notes on rows and uploads that did not match when the backup was made, if both are restored."""
    if source.database and source.uploads and backup.metadata and backup.metadata.references:
        for sentence in references.sentences(backup.metadata.references):
            yield f"In this backup {sentence}."


def _rehearse(settings: Settings, plan: RestorePlan, expect_loss: Collection[str], emit: EventListener) -> RestorePlan:
    _refuse_to_migrate(settings, plan.verdict)
    if plan.verdict is None or plan.verdict.relation == "same":
        return plan
    with staging.rehearsed(settings, plan.source, plan.verdict.target, emit) as (migrated, rehearsed):
        upgrade.refuse_loss(rehearsed, expect_loss)
        live = plan.live if plan.live.error else replace(plan.live, changes=_changes_to(settings, migrated, emit))
    lost = tuple(f"The migration loses {one.text}, as expected." for one in rehearsed.losses)
    return replace(
        plan,
        live=live,
        rehearsed=rehearsed,
        revisions_after=version_table.at(settings, rehearsed.found, emit),
        rows_after=rehearsed.found.facts.rows,
        notes=(*plan.notes, *lost),
    )


def _changes_to(settings: Settings, source: Source, emit: EventListener) -> Mapping[str, Changes]:
    with database.snapshot(settings.database, settings.busy_timeout, emit) as snapshot:
        return _compare_rows(settings, snapshot, database.count_rows(snapshot), source, False, emit)


def refuse_another_app(settings: Settings, backup: Backup, force: bool) -> None:
    """Raise `Refused` for a backup of another app, unless forced."""
    metadata = backup.metadata
    if force or metadata is None or reliable.is_own(settings, metadata):
        return
    owner = printable(reliable.owner_of(metadata))
    raise Refused(
        f"{backup.path} is a backup of another app: {owner}, and this is {settings.app_id}.",
        hint="--force restores it all the same. BACKUP_APP_ID says which backups are this app's.",
    )


def plan_source(
    settings: Settings, source: Source, force: bool, emit: EventListener, migrate: bool = False
) -> RestorePlan:
    """Return the plan for a source that is already verified: a backup, or a database made from a dump."""
    source = staging.as_live(settings, source)
    places = [staging.place_of(settings, one) for one in source.each]
    for place, one in zip(places, source.each, strict=True):
        require_writable(place, one)
    plans, needs = [], list[tuple[Path, int]]()
    for place, one in zip(places, source.each, strict=True):
        plan, needed = _plan_part(place, one, force, emit, migrate and one.part == source.part)
        plans.append(plan)
        needs += needed
    _require_space(needs)
    by_folder = Counter[str]()
    for folder, size in needs:
        by_folder[str(folder)] += size
    first = plans[0]
    return replace(
        first,
        source=replace(first.source, others=tuple(one.source for one in plans[1:])),
        needs=by_folder,
        notes=(*first.notes, *_untouched_notes(settings, source)),
        can_undo=all(one.can_undo for one in plans),
        others=tuple(plans[1:]),
    )


def _plan_part(
    settings: Settings, source: Source, force: bool, emit: EventListener, migrate: bool
) -> tuple[RestorePlan, list[tuple[Path, int]]]:
    """Return the plan for one part, and the bytes that it needs by folder."""
    verdict = None
    if source.database and "/" not in source.part:
        verdict = source.undecided or schema.classify(settings, source.revisions, emit)
    live = _look_at_live(settings, source, emit)
    if verdict and verdict.relation == "no_migrations":
        verdict = replace(verdict, reason=_schemas_compared(settings, source, live, emit))
    if verdict:
        schema.refuse_unless_restorable(verdict, live.revisions, source.git, force)
    summary, planned = _look_at_uploads(settings, source, emit)
    is_staged = not staging.is_restored_from_its_place(settings, source, migrate, live.page_size)
    needs = _needs(settings, source, live, summary, is_staged)
    notes = (*_notes(settings, source, live, verdict), *_upload_notes(settings, source, summary))
    plan = RestorePlan(
        replace(source, planned=planned),
        verdict,
        live,
        summary,
        {},
        notes,
        revisions_after=source.revisions,
        rows_after=source.facts.rows if source.facts else {},
        can_undo=not (source.database and live.error) or database.is_optional_and_absent(settings),
    )
    return plan, needs


def restore_backup(
    settings: Settings,
    plan: RestorePlan,
    emit: EventListener = silence,
    clock: Clock = utc_now,
    before: Callable[[EventListener], None] = lambda _emit: None,
) -> Restored:
    """Restore the planned backup and prove the result; a safety copy holds the earlier state.

    An error is raised before live data was touched, or after an automatic rollback; the message says which. `before` is
    called under the lock.
    """
    with (
        hooks.of(settings, "restore", emit) as hook,
        locked_operation(settings, f"restore of {plan.source.name}", emit, clock, [plan.source.name]) as work,
    ):
        if plan.source.chosen:
            work.concerning(plan.source.name, note=f"{len(plan.source.chosen.leaves)} uploads put back")
        recovery.recover_under_lock(settings, work.emit)
        with hook.around(work):
            before(work.emit)
            done = restore_source(settings, plan, work.emit, clock)
        return replace(done, warnings=(*done.warnings, *hook.warnings))


def restore_source(settings: Settings, plan: RestorePlan, emit: EventListener, clock: Clock) -> Restored:
    """Restore as `restore_backup` does, for a caller that holds the lock."""
    warnings: list[str] = []
    listen = collecting(emit, warnings)
    with staging.claimed(settings, emit), _report_interrupt(settings, emit), contextlib.ExitStack() as watched:
        _refuse_staged(settings)
        staging.refuse_other_backup(plan.source)
        live = {one.source.part: staging.place_of(settings, one.source).database for one in plan.each}
        commits = {part: watched.enter_context(database.watching(file)) for part, file in live.items()}
        safety = _make_safety_copy(settings, plan.source, listen, clock)
        staged, found = _stage_with_journal(settings, plan, safety, listen, clock)
        proofs, found = _apply(settings, found, commits, listen, clock)
    for one in plan.each:
        _share_with_restored(staging.place_of(settings, one.source), one, safety)
        _warn_of_indexes(settings, found.at(one.source.part), listen)
    left = store.read(settings, found.safety or safety.name)
    copies = {part.name: store.read(settings, part.safety or left.name) for part in found.parts}
    databases = [one.source.part for one in plan.each if one.source.database]
    replaced_raw = [(copies[part], part) for part in databases if _was_replaced_raw(copies[part], part)]
    proof, first = proofs.get(plan.source.part), found.at(plan.source.part)
    changes = {one.source.part: _changes_made(one, done) for one, done in zip(plan.each, staged.each, strict=True)}
    return Restored(
        source=plan.source.name,
        safety=left.name,
        verdict=_schema_verdict(staging.place_of(settings, plan.source), plan, first, emit),
        rows=proof.facts.rows if proof else {},
        revisions=(first.revisions or ()) if proof else (),
        uploads=changes[plan.source.part],
        warnings=tuple(warnings),
        can_undo=not replaced_raw,
        kept=tuple(path for one in replaced_raw for path in _raw_files(settings, *one)),
        has_same_pages=bool(proof and proof.has_same_pages),
        parts={one.source.part: _restored_part(one, proofs, changes) for one in plan.others},
    )


@contextlib.contextmanager
def _report_interrupt(settings: Settings, emit: EventListener) -> Iterator[None]:
    """Report on Ctrl-C whether the restore is unfinished or nothing was restored."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if unfinished.describe(settings):
            emit(Warned(f"{recovery.NEITHER_WAY} Type: `recover`"))
            interrupt.add_note(recovery.NEITHER_WAY)
        elif recovery.NOT_ALL_BACK not in getattr(interrupt, "__notes__", ()):
            emit(Notice("Nothing was restored: everything is as it was before."))
        raise


def _warn_of_indexes(settings: Settings, found: Journal, emit: EventListener) -> None:
    place = settings.at(found.name)
    if place and found.facts and found.facts.index_flaws:
        emit(Warned(database.index_sentence(place, found.facts.index_flaws)))


def _changes_made(plan: RestorePlan, staged: Source) -> diff.Summary | None:
    """Return what changed in the tree: as it was staged, since others may have written after the plan was made."""
    if plan.uploads is None or staged.changes is None:
        return None
    return replace(staged.changes, unreadable=plan.uploads.unreadable, in_use=plan.uploads.in_use)


def _restored_part(
    plan: RestorePlan, proofs: recovery.Proofs, changes: Mapping[str, diff.Summary | None]
) -> RestoredPart:
    part = plan.source.part
    proof = proofs.get(part)
    return RestoredPart(plan.source.database is not None, proof.facts.rows if proof else {}, changes[part])


def holds_database(backup: Backup, part: str) -> bool:
    """Return whether the backup can restore that database: it holds it, and not as the raw files of a broken one."""
    metadata = backup.metadata and backup.metadata.at(part)
    return bool(metadata and metadata.database_file and not metadata.is_raw)


def _was_replaced_raw(safety: Backup, part: str) -> bool:
    """Return whether the replaced database cannot be restored; False if it was optional and missing."""
    is_held = safety.metadata is None or safety.metadata.at(part) is not None
    return is_held and not holds_database(safety, part)


def _raw_files(settings: Settings, safety: Backup, part: str) -> tuple[Path, ...]:
    """Return the raw files that the safety copy keeps of a database that could not be copied."""
    place = settings.at(part)
    lives = [place.database, *database.sidecars(place.database)] if place else []
    return tuple(path for path in (safety.path / live.name for live in lives) if path.exists())


def _schema_verdict(settings: Settings, plan: RestorePlan, found: Journal, emit: EventListener) -> SchemaVerdict | None:
    """Return how the live schema compares with this code, or None if unknown, as after the app's migrate command."""
    if found.revisions is None or (plan.migrate and plan.verdict and plan.verdict.relation == "no_migrations"):
        return None
    return plan.source.undecided or schema.classify(settings, found.revisions, emit)


def _refuse_other_outcome(plan: RestorePlan, staged: Source) -> None:
    """Raise `MigrationFailed` if the migration gave other row counts than in the rehearsal, which the plan showed."""
    is_other = any(
        one.rehearsed and (done.facts is None or done.facts.rows != one.rows_after)
        for one, done in zip(plan.each, staged.each, strict=True)
    )
    if is_other:
        raise upgrade.MigrationFailed(
            "The migration gave other rows than in the rehearsal; nothing was changed.", hint="Try again."
        )


def _refuse_staged(settings: Settings) -> None:
    """Raise `Locked` if another restore has staged something since earlier runs were finished."""
    for folder in unfinished.live_folders(settings):
        if staging_area.owner_of_area(folder):
            raise Locked(f"Another restore began in {folder} just now; nothing was changed.", hint="Type: `recover`")


def _stage_with_journal(
    settings: Settings, plan: RestorePlan, safety: Backup, emit: EventListener, clock: Clock
) -> tuple[Source, Journal]:
    """Stage everything and write the journal; on an error remove both."""
    identity = staging_area.identify(settings.dir, safety.name)
    try:
        staged, found = _stage(settings, plan, safety, identity, emit, clock)
        journal.write(settings.dir, found)
        return staged, found
    except BaseException:  # else the next command would continue the restore
        _discard_restore(settings, identity.id)
        raise


def _discard_restore(settings: Settings, restore: str) -> None:
    """Remove the journal and what is staged, for a restore that left live data unchanged."""
    journal.remove(settings.dir)
    staging.unstage(settings, restore)


def _stage(
    settings: Settings, plan: RestorePlan, safety: Backup, identity: Identity, emit: EventListener, clock: Clock
) -> tuple[Source, Journal]:
    unchanged = [one.source.part for one in plan.each if _is_already_live(one, safety)]
    migrated = [one.source.part for one in plan.each if one.migrate]
    staged = staging.stage(settings, plan.source, identity, migrated, (safety.path,), emit, unchanged)
    _refuse_other_outcome(plan, staged)
    found = recovery.journal_of(settings, staged, identity, [safety.name], clock)
    for name in unchanged:
        what = f"The database {name}" if name else "The database"
        emit(Notice(f"{what} is as in the backup already: it stays as it is."))
        found = found.with_part(replace(found.at(name), database=False))
    return staged, found


def _is_already_live(plan: RestorePlan, safety: Backup) -> bool:
    """Return whether the live database, by the checksum in the safety copy, is the wanted one."""
    kept = safety.metadata.at(plan.source.part) if safety.metadata else None
    return bool(plan.source.facts and not plan.migrate and _has_database(kept, plan.source.facts))


def _share_with_restored(settings: Settings, plan: RestorePlan, safety: Backup) -> None:
    """Let the next backup link to the restored one, not to the safety copy, if more came back than was there."""
    if plan.source.chosen:
        return
    metadata = safety.metadata.at(settings.part) if safety.metadata else None
    kept = metadata.uploads.bytes if metadata and metadata.uploads else 0
    backup = settings.dir / plan.source.name
    if settings.uploads and plan.uploads and plan.uploads.bytes > kept and manifest.has_checksums(backup):
        files_cache.follow_restore(settings, backup, settings.uploads, selection.of(settings).leaves_out)


def require_writable(settings: Settings, source: Source) -> None:
    """Raise `SourceUnreadable`, before anything is done, if live paths are read-only, or missing and cannot be made."""
    wanted = [settings.database, settings.database.parent] if source.database else []
    folders = [settings.staging_home] if source.database else []
    folders += [settings.uploads] if source.uploads and settings.uploads else []
    for path in (*wanted, *folders):
        if path.exists() and not os.access(path, os.W_OK):
            raise _not_writable(path)
    for folder in folders:
        _require_makeable(folder)


def _require_makeable(folder: Path) -> None:
    disk.refuse_dangling(folder)
    above = disk.nearest(folder)
    if above == folder or os.access(above, os.W_OK | os.X_OK):
        return
    if mounts.is_read_only(above):
        raise _not_writable(above)
    raise SourceUnreadable(
        f"{folder} is missing, and {process.user()} cannot make it in {above}; nothing was changed.",
        hint=f"Make it: {process.line_that_makes(folder, os.geteuid(), os.getegid())}",
    )


def _database_alone(source: Source) -> str:
    """Return the end of a hint: the command that leaves the uploads as they are, if there is a database too."""
    is_one = source.database and not source.part
    return f" The database alone: `restore {source.name} --only database`." if is_one else ""


def _not_writable(path: Path, otherwise: str = "") -> SourceUnreadable:
    if mounts.is_read_only(path):
        return SourceUnreadable(
            f"{path} is mounted read-only; nothing was changed.", hint="Mount it so that it can be written to."
        )
    hint = f"Run as the user who owns it (ls -ld {path}), or see `doctor`"
    if os.geteuid() in (0, path.stat().st_uid):
        hint = way_to_look(path)
    return SourceUnreadable(
        f"{path} cannot be written; nothing was changed.", f"{hint}.{otherwise}" if otherwise else hint
    )


def _look_at_live(settings: Settings, source: Source, emit: EventListener) -> Live:
    with _newest_comparable(settings, source) as earlier:
        skip = selection.of(settings).leaves_out if source.uploads and settings.uploads else None
        unsaved = walk.measure(settings.uploads, skip, earlier)[1] if skip and settings.uploads else 0
        is_saved = bool(earlier and earlier.database and earlier.database == database.signature(settings.database))
        is_wanted = bool(is_saved and earlier and source.facts and _has_database(earlier.metadata, source.facts))
    if source.database is None:
        return Live(unsaved=unsaved)
    try:
        with database.snapshot(settings.database, settings.busy_timeout, emit) as snapshot:
            found = database.look(snapshot)
            changes = _compare_rows(settings, snapshot, found.facts.rows, source, is_wanted, emit)
    except SourceBroken as error:
        return Live(unsaved=unsaved, error=error.message)
    unsaved += 0 if is_saved else found.facts.size
    at, facts = _revisions(settings, found, emit), found.facts
    return Live(at, facts.rows, facts.size, facts.encoding, facts.page_size, unsaved, is_wanted, changes=changes)


@contextlib.contextmanager
def _newest_comparable(settings: Settings, source: Source) -> Iterator[files_cache.ParentBackup | None]:
    """Yield the newest backup that can be compared with the live state of that part, or None."""
    is_tree = source.uploads is not None
    with files_cache.newest(settings if is_tree else settings.whole, is_tree) as earlier:
        yield earlier if is_tree or earlier is None else earlier.at(settings.part)


def _schemas_compared(settings: Settings, source: Source, live: Live, emit: EventListener) -> str:
    """Return a sentence that compares the two schemas and their last migrations, for an app without Alembic."""
    assert source.database is not None
    if not settings.database.exists():
        return "There is no database yet to compare its schema with."
    if live.error:
        return "The live database cannot be read, so the schemas are not compared."
    with (
        database.open_sealed(source.database) as sealed,
        database.snapshot(settings.database, settings.busy_timeout) as snapshot,
    ):
        other = app_migrations.differing(app_migrations.schema_of(sealed), app_migrations.schema_of(snapshot))
        at, now = app_migrations.facts(sealed), app_migrations.facts(snapshot)
    said = "The backup has the schema of the live database."
    if other:
        said = f"The schema differs from the live one: {few(other, 10)}."
    if at and now:
        said += f" The last migration of {at.tool} in it is {printable(at.last)}; live it is {printable(now.last)}."
    return said


def _revisions(settings: Settings, found: database.Inspection, emit: EventListener) -> tuple[str, ...]:
    """Return the revisions of the live database; none if `env.py` cannot name the version table."""
    try:
        return version_table.at(settings, found, emit)
    except schema.CannotRead:
        return ()


def _compare_rows(
    settings: Settings,
    snapshot: sqlite3.Connection,
    now: Mapping[str, int],
    source: Source,
    is_same: bool,
    emit: EventListener,
) -> Mapping[str, Changes]:
    """Return how the rows of each table will change; small tables first, so that most fit into the time limit."""
    after = source.facts.rows if source.facts else {}
    both = sorted(now.keys() & after.keys(), key=lambda name: (max(now[name], after[name]), name))
    if is_same or source.database is None:
        return dict.fromkeys(both, Changes())
    emit(Step("Comparing the rows"))
    return rows.count_changes(snapshot, both, source.database, settings.compare_timeout)


def _has_database(kept: Metadata | None, wanted: DatabaseFacts) -> bool:
    """Return whether a backup's database is the wanted one, by checksum."""
    return bool(kept and kept.database and not kept.database.raw and kept.database.sha256 == wanted.sha256)


def _look_at_uploads(
    settings: Settings, source: Source, emit: EventListener
) -> tuple[diff.Summary | None, diff.Planned | None]:
    """Return what will change, and the differences themselves if they are few."""
    if not source.uploads or not settings.uploads:
        return None, None
    emit(Step("Comparing the uploads"))
    unreadable: list[str] = []
    in_use: list[str] = []
    kept, seeing = list[diff.Difference](), walk.Seeing()
    found = staging.differences(
        settings, source, lambda path, _error: unreadable.append(path), emit, in_use.append, seeing.add
    )
    summary, closed = diff.summarise(diff.remembering(found, kept), settings.uploads, source.traits.owners)
    if closed:
        raise _not_writable(closed, _database_alone(source))
    databases = tuple(path for path in in_use if not path.endswith(database.SIDECARS))
    is_whole = len(kept) <= diff.MOST_PLANNED and not unreadable
    planned = diff.Planned(tuple(kept), seeing.seen()) if is_whole else None
    return replace(summary, unreadable=tuple(unreadable), in_use=databases), planned


def _needs(
    settings: Settings, source: Source, live: Live, summary: diff.Summary | None, is_staged: bool
) -> list[tuple[Path, int]]:
    """Return the bytes needed by folder: for safety copy, WAL or journal, staged uploads and staged databases."""
    needs = [(settings.dir, live.unsaved)]
    if source.facts and not live.is_wanted:
        size = source.facts.size
        needs.append((settings.staging_home, 3 * size if is_staged else max(size, live.size)))
    if summary and settings.uploads:
        needs += [(settings.uploads, summary.bytes), *summary.in_mounts]
    return needs


def _require_space(needs: Iterable[tuple[Path, int]]) -> None:
    """Raise `NoSpace` unless each file system has room for all its folders together."""
    together: dict[int, tuple[Path, int]] = {}
    for folder, needed in needs:
        device = os.stat(disk.nearest(folder)).st_dev
        together[device] = (folder, together.get(device, (folder, 0))[1] + needed)
    for folder, needed in together.values():
        space.require(needed, folder, "This restore")


def _kept_of(live: Path) -> str:
    if not database.has_files(live):
        return "Nothing of it is there to be kept: `undo` cannot bring it back."
    return "What is there of it is kept in the safety copy, as files that `undo` cannot restore."


def _notes(settings: Settings, source: Source, live: Live, verdict: SchemaVerdict | None) -> Iterable[str]:
    if verdict and verdict.relation == "unreadable":
        yield f"The schema cannot be compared with this code. {verdict.needs}"
    if live.error and database.is_optional_and_absent(settings):
        yield f"There is no {settings.part} now: `undo` does not take away again what comes."
    elif live.error:
        yield f"{live.error} {_kept_of(settings.database)}"
    if live.encoding and source.facts and source.facts.encoding != live.encoding:
        yield f"The encoding changes from {live.encoding} to {source.facts.encoding}: restart the app afterwards."
    if source.facts and source.facts.index_flaws:
        yield f"An index of this backup does not match its table: {source.facts.index_flaws[0]}. All rows are there."
    if source.uploads and settings.uploads is None:
        yield "The backup's uploads stay in it: BACKUP_UPLOADS names no folder to put them back to."
    if excluded := _exclusions(settings, source) if source.uploads else []:
        yield f"Excluded uploads stay as they are: {few(excluded, 10)}."


def _untouched_notes(settings: Settings, source: Source) -> Iterable[str]:
    """Yield notes on the parts of the app that the restore leaves as they are."""
    if source.uploads is None and source.database is not None and not source.has_trees:
        yield "The uploads stay as they are."
    if all(one.database is None for one in source.each if "/" not in one.part):
        yield "The databases stay as they are." if settings.databases else "The database stays as it is."


def _exclusions(settings: Settings, source: Source) -> list[str]:
    """Return the exclusions to show: patterns and marking files, of settings and backup, and the backup's folders."""
    patterns = (*settings.exclude, *source.excluded.patterns)
    marks = (f"folders with {one}" for one in (*settings.exclude_marked, *source.excluded.marks))
    return list(dict.fromkeys((*patterns, *marks, *(f"{one}/" for one in source.excluded.folders))))


def _unmounted(uploads: Path, source: Source) -> list[str]:
    there = walk.mounted(uploads) if source.mounts else None
    return [] if there is None else [one for one in source.mounts if one not in there]


def _upload_notes(settings: Settings, source: Source, summary: diff.Summary | None) -> Iterable[str]:
    if summary and settings.uploads and (missing := _unmounted(settings.uploads, source)):
        yield f"Nothing is mounted at {few(missing, 10)} in {settings.uploads}; at the backup's time something was."
    if source.traits.lost:
        yield f"The backup's uploads have {source.traits.lost}: what is live keeps its own."
    if "modes" in source.traits.missing_rights:
        yield "A disk that holds or held this backup keeps no modes and owners: live uploads keep their modes."
        yield "New uploads get the owner of the uploads folder, and of its mode what fits a file or a folder."
    elif source.traits.missing_rights:
        yield "A disk that holds or held this backup keeps no owners: what is restored gets that of the uploads folder."
    if paths := summary.unreadable if summary else ():
        yield f"What cannot be read stays as it is: {first_of(paths)}."
    if summary and summary.new_rights:
        rights = "mode and owner" if os.geteuid() == 0 else "mode"
        what = f"the first is {summary.new_rights}"
        yield f"Uploads and folders that get the {rights} of the backup: {summary.with_new_rights}; {what}."
    if summary and summary.with_new_owner:
        yield (
            f"Uploads of other users that come back as {process.user()}'s: {summary.with_new_owner}. "
            "Only root can give files to their owners."
        )
    if paths := summary.in_use if summary else ():
        yield f"Databases in use that the backup does not hold stay as they are: {first_of(paths)}."


def _make_safety_copy(settings: Settings, source: Source, emit: EventListener, clock: Clock) -> Backup:
    with_uploads = any(
        place.uploads and place.uploads.is_dir()
        for place in (staging.place_of(settings, one) for one in source.each if one.uploads)
    )
    request = BackupRequest(kind="pre_restore", note=f"before the restore of {source.name}", uploads=with_uploads)
    emit(Notice("Making a safety copy of what is there now."))
    return make_backup(settings, request, emit, clock).backup


def _refuse_to_migrate(settings: Settings, verdict: SchemaVerdict | None) -> None:
    if verdict is None or verdict.relation in ("same", "behind"):
        return
    if not verdict.migrates_by_itself(settings.migrate_command):
        raise Refused(f"--migrate cannot be used: {verdict.reason}", hint="Restore without --migrate.")


def _apply(
    settings: Settings, found: Journal, commits: Mapping[str, database.Watch], emit: EventListener, clock: Clock
) -> tuple[recovery.Proofs, Journal]:
    compared: dict[str, database.Comparison | None] = {}
    done, maybe_written, is_all_done = found, list[str](), False
    try:
        for name in [part.name for part in found.parts if part.facts]:
            if found.at(name).database:
                maybe_written.append(name)  # before it is written to: an interrupt may come at any line
            try:
                done, compared[name] = _replace_database(settings, done, name, commits[name], emit, clock)
            except BaseException as error:
                if name in maybe_written and _is_untouched(error, commits[name]):
                    maybe_written.remove(name)
                raise
            done = recovery.database_is_done(settings, done, name)
        is_all_done = True
        return recovery.finish_uploads(settings, done, emit, compared), done
    except BaseException as error:
        failed = _with_written_names(settings, found)
        if is_all_done:
            recovery.roll_back(settings, failed, error, emit, clock)
        elif maybe_written:
            recovery.roll_back(settings, _only_changed(failed, maybe_written), error, emit, clock)
        else:
            _discard_restore(settings, found.id)
        raise


def _only_changed(found: Journal, changed: Collection[str]) -> Journal:
    """Return the journal of the changed databases alone: a rollback spares the others, and no tree was touched yet."""
    for part in found.parts:
        facts = part.facts if part.name in changed else None
        found = found.with_part(replace(part, facts=facts, database=part.database and bool(facts), uploads=False))
    return found


def _with_written_names(settings: Settings, found: Journal) -> Journal:
    """Return the journal with the safety copies that the one on disk names by now."""
    with contextlib.suppress(BackupError, OSError):
        if written := journal.read(settings.dir):
            for part in found.parts:
                found = found.with_part(replace(part, safety=written.at(part.name).safety))
            return replace(found, kept=written.kept)
    return found


def _replace_database(
    settings: Settings, found: Journal, name: str, commits: database.Watch, emit: EventListener, clock: Clock
) -> tuple[Journal, database.Comparison | None]:
    place = settings.at(name)
    assert place is not None
    if not found.at(name).database:  # the safety copy has just been checked, and has the same bytes
        return found, database.Comparison(commits.is_as_before() or None, commits.file)

    def keep() -> None:
        nonlocal found
        if commits.lock() and keeping.live_state(place, found.at(name)) == "unknown":
            found = keeping.keep(settings, found, False, emit, clock)

    compared = recovery.replace_database(place, found.at(name), keep, emit)
    return found, compared


def _is_untouched(error: BaseException, commits: database.Watch) -> bool:
    """Return whether the live database certainly is as it was, after this error."""
    if _is_of_the_disk(error):
        return False  # the commit may be in the WAL all the same, and the next connection would replay it
    # SQLite does nothing that it refuses; an interrupt may come just after its commit.
    return isinstance(error, BackupError) or commits.is_untouched()


def _is_of_the_disk(error: BaseException) -> bool:
    code = getattr(error.__cause__, "sqlite_errorname", "")
    return isinstance(error, OSError) or code.startswith(("SQLITE_IOERR", "SQLITE_FULL"))
