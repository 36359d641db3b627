"""Prepare a restore without touching live data: verify its source, and stage it beside the live data."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import attributes, descriptors, disk, process, space, staging_area, tree, trust
from backupkit.fs.staging_area import AreaPart, Identity
from backupkit.migrations import schema, upgrade, version_table
from backupkit.migrations.upgrade import Rehearsed
from backupkit.model.backup import (
    CHECKSUM_FILE,
    MAIN_DATABASE,
    METADATA_FILE,
    UPLOADS_FOLDER,
    Backup,
    DatabaseFacts,
    Flaw,
    GitFacts,
    Metadata,
    SchemaVerdict,
    UploadsFacts,
)
from backupkit.model.errors import Damaged, NoSuchBackup, Refused
from backupkit.model.events import EventListener, Notice, Step, Warned, adding_up, silence
from backupkit.model.names import first_of, printable
from backupkit.model.patterns import Patterns
from backupkit.repository import files_cache, flags, integrity, lock, manifest, store, verification
from backupkit.restore import unfinished
from backupkit.restore.journal import Journal
from backupkit.sqlite import database
from backupkit.upload_files import diff, selection, walk
from backupkit.upload_files.choice import Chosen
from backupkit.upload_files.selection import Excluded

_OLDER = "Try an older backup: `list`."
_SHARED = f"{_OLDER} It may share what is damaged: `verify --all` says which are good."


class Source(Struct, frozen=True):
    """The verified files to restore, and what to restore of the tree beside their contents (`traits`).

    If the backup `has_checksums`, each file of a tree is compared with its checksum while it is staged: again, or with
    `verify_while_staging` for the first time.

    `is_sound` is whether SQLite has checked this database file here before, and found it usable. `seen` is the identity
    of the file when it was verified, to detect changes. `sealed` is the backup from which it is restored without a
    staged copy. `part` is the part of the app, empty for the main database and the uploads; `others` are the sources of
    additional ones.
    """

    name: str
    database: Path | None
    uploads: Path | None
    facts: DatabaseFacts | None = None
    revisions: tuple[str, ...] = ()
    traits: diff.Traits = diff.Traits()
    git: GitFacts | None = None
    undecided: SchemaVerdict | None = None
    is_sound: bool = False
    seen: tuple[int, ...] = ()
    metadata: tuple[Path, str] | None = None
    """The metadata file of the backup, and its checksum when the backup was verified."""
    sealed: str | None = None
    has_checksums: bool = False
    verify_while_staging: bool = False
    chosen: Chosen | None = None
    """The only uploads to restore, or None for all of them."""
    excluded: Excluded = Excluded()
    """The exclusions of the backup: live uploads that match them stay as they are."""
    mounts: tuple[str, ...] = ()
    """The places in the tree at which something was mounted when the backup was made."""
    part: str = ""
    others: tuple[Source, ...] = ()
    inside: frozenset[str] = frozenset()
    """Databases in the tree, by their paths in it, that are restored through SQLite and not as files."""
    planned: diff.Planned | None = None
    """How the live tree differed when the restore was planned, if that is little."""
    changes: diff.Summary | None = None
    """What of the tree is staged, or None before."""

    @property
    def each(self) -> tuple[Source, ...]:
        """This source and the additional ones."""
        return (self, *self.others)

    @property
    def has_trees(self) -> bool:
        """Whether it contains uploads or another tree."""
        return any(one.uploads for one in self.each)


def verified(
    settings: Settings, backup: Backup, only: str | None, emit: EventListener, verify_while_staging: bool = False
) -> Source:
    """Verify the backup, or the `only` part of it, against its checksums, and return it as a source.

    With `verify_while_staging` only its databases and the names in its trees are verified; the contents of restored
    files follow while they are staged.

    A database that was checked when it was sealed here is not checked by SQLite again; one from elsewhere is.
    """
    metadata = store.require_metadata(backup)
    sources = _sources(settings, backup, metadata, only, verify_while_staging)
    opened: list[sqlite3.Connection] = []
    checksums: dict[str, str] = {}
    size = sum(one.size for one in metadata.all_facts if one)
    with process.optional_worker(size if any(one.database for one in sources) else 0) as worker:
        pending = [worker.submit(_with_database_facts, settings, one, metadata, opened.append) for one in sources]
        try:
            known = _traits_by_tree(backup, only, checksums, emit, verify_while_staging)
            found = [
                replace(done.result(), traits=known.get(one.uploads.name if one.uploads else "", known[""]))
                for one, done in zip(sources, pending, strict=True)
            ]
            for one in found:
                _require_one_checksum(one, checksums)
            return replace(found[0], others=tuple(found[1:]))
        except BaseException:
            database.interrupt(opened)
            raise


def with_parts(
    settings: Settings, source: Source, newer: Mapping[str, Backup], emit: EventListener, verify_while_staging: bool
) -> Source:
    """Return the source with the parts of `newer` taken from those backups, verified in the same way."""
    taken: dict[str, Source] = {}
    for part, backup in newer.items():
        only = part.partition("/")[0]
        found = verified(settings, backup, only, emit, verify_while_staging)
        taken |= {one.part: one for one in found.each if one.part == part}
    first, *others = (taken.get(one.part, one) for one in source.each)
    return replace(first, others=tuple(others))


def _require_one_checksum(source: Source, checksums: dict[str, str]) -> None:
    if source.is_sound and source.facts and checksums.get(str(source.database)) != source.facts.sha256:
        text = f"{source.database} is damaged: {CHECKSUM_FILE} and the metadata do not have the same checksum of it."
        raise Damaged(text, hint=_OLDER)


def _sources(
    settings: Settings, backup: Backup, metadata: Metadata, only: str | None, verify_while_staging: bool
) -> list[Source]:
    """Return the parts of the backup that the app has a place for, or only that part; the files are not read yet."""
    patterns = _sealed_patterns(backup, metadata)
    is_known_sound = _is_known_sound(settings, backup, metadata)
    is_sealed = manifest.has_checksums(backup.path)
    sealed_as = backup.path / METADATA_FILE, disk.hash_file(backup.path / METADATA_FILE)

    def source_of(part: str) -> Source | None:
        alone = metadata.at(part)
        if alone is None or settings.at(part) is None:
            return None
        folder = part.partition("/")[0] or UPLOADS_FOLDER
        is_meant = only in (None, folder if "/" in part else part or MAIN_DATABASE)
        file = backup.path / alone.database_file if alone.database_file and is_meant else None
        has_tree = alone.uploads_included and only in (None, folder)
        tree = backup.path / folder if has_tree else None
        if tree and (tree.is_symlink() or not tree.is_dir()):
            raise Damaged(
                f"{tree} is not a folder, although the metadata says that it is there.",
                hint="Try another backup: `list`.",
            )
        excluded = Excluded(patterns, metadata.exclude_marked, alone.excluded_folders)
        source = Source(
            backup.name,
            file,
            tree,
            git=metadata.git,
            metadata=sealed_as,
            has_checksums=is_sealed,
            verify_while_staging=verify_while_staging,
            excluded=excluded,
            mounts=(alone.uploads and alone.uploads.mounts) or (),
            part=part,
        )
        return replace(source, is_sound=True, seen=_file_identity(file)) if file and is_known_sound else source

    found = [one for part in ("", *metadata.others) if (one := source_of(part))]
    found = [one for one in found if one.database or one.uploads]
    found.sort(key=lambda one: "/" in one.part)  # databases in trees come after the trees
    if not found:
        if only:
            raise not_in_backup(backup, only)
        raise Damaged(f"{backup.path} holds nothing that can be restored.", hint="Try another backup: `list`.")
    return found


def not_in_backup(backup: Backup, part: str) -> NoSuchBackup:
    """Return the error for a part that was asked for and that the backup does not hold."""
    texts = {
        MAIN_DATABASE: f"There is no database in {backup.path}.",
        UPLOADS_FOLDER: f"There are no uploads in {backup.path}.",
    }
    text = texts.get(part, f"{backup.path} holds no {printable(part)}.")
    return NoSuchBackup(text, hint=f"`show {backup.name}` says what is in it.")


def _with_database_facts(
    settings: Settings, source: Source, metadata: Metadata, opened: Callable[[sqlite3.Connection], None]
) -> Source:
    """Return the source with the facts of its database, if it has one."""
    if source.database is None:
        return source
    place, alone = settings.at(source.part), metadata.at(source.part)
    assert place is not None and alone is not None
    return _read_database(place, source, alone.database, opened)


def _sealed_patterns(backup: Backup, metadata: Metadata) -> tuple[str, ...]:
    """Return the exclude patterns of the backup; raise `Damaged` if they are invalid."""
    try:
        Patterns(metadata.exclude) if metadata.exclude else None
    except Refused as error:
        text = f"{backup.path / METADATA_FILE} cannot be trusted: exclude: {error.message}"
        raise Damaged(text, hint=_OLDER) from error
    return metadata.exclude


def _is_known_sound(settings: Settings, backup: Backup, metadata: Metadata) -> bool:
    if metadata.database is None or metadata.is_raw or not manifest.has_checksums(backup.path):
        return False
    return backup.just_built or verification.is_known_sound(settings.dir, backup.name, metadata.database_checksum)


def _file_identity(file: Path) -> tuple[int, ...]:
    """Return the facts that change when the file is written to or replaced; empty if it is missing."""
    try:
        facts = os.lstat(file)
    except OSError:
        return ()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def refuse_other_backup(source: Source) -> None:
    """Raise `Damaged` if a backup of the source was removed, or made anew, since it was verified."""
    for file, checksum in filter(None, (one.metadata for one in source.each)):
        if not file.is_file() or disk.hash_file(file) != checksum:
            raise Damaged(f"{file.parent} changed since it was verified.", hint="Try again.")


def is_restored_from_its_place(settings: Settings, source: Source, migrate: bool, page_size: int) -> bool:
    """Return whether the sealed database needs no staged copy, because a live one has its page size."""
    return bool(
        source.database
        and source.facts
        and source.is_sound
        and not migrate
        and source.database.is_relative_to(settings.dir / source.name)
        and source.facts.page_size == page_size
    )


def _traits_by_tree(
    backup: Backup, only: str | None, checksums: dict[str, str], emit: EventListener, verify_while_staging: bool
) -> dict[str, diff.Traits]:
    """Verify the backup; return the traits of each tree by folder (empty: of any other), and fill `checksums`."""
    metadata = store.require_metadata(backup)
    if not manifest.has_checksums(backup.path):
        emit(Notice(f"{backup.name} has no checksums (unchecked): it is restored as it lies there."))
        return {"": diff.Traits(owners=False)}
    found: dict[str, walk.Survey] = {}
    _refuse_altered(backup, metadata, only, found.__setitem__, checksums, emit, verify_while_staging)
    trees, missing = metadata.tree_facts, _missing_rights(backup) if found else ()
    known = {"": diff.Traits()} | {name: _traits(trees[name], survey) for name, survey in found.items()}
    if missing:
        return {name: replace(one, owners=False, missing_rights=missing) for name, one in known.items()}
    return known


def _missing_rights(backup: Backup) -> tuple[str, ...]:
    """Return what the disk of the backup, or the remote it was pulled from, does not keep of modes and owners."""
    folder = backup.path.parent
    return tuple(sorted({*attributes.missing_rights(folder), *flags.missing_rights(folder, backup.name)}))


def _traits(recorded: UploadsFacts | None, found: walk.Survey) -> diff.Traits:
    if not recorded or recorded.attributes is None:
        return diff.Traits()
    lost = integrity.lost(recorded, found)
    is_linked = bool(recorded.hard_links) if integrity.keeps_hard_links(recorded, found) else None
    keeps_attributes = integrity.keeps_attributes(recorded, found)
    return diff.Traits(True, keeps_attributes, is_linked, lost, has_attributes=found.attributes > 0)


def _refuse_altered(
    backup: Backup,
    metadata: Metadata,
    only: str | None,
    on_survey: Callable[[str, walk.Survey], None],
    checksums: dict[str, str],
    emit: EventListener,
    verify_while_staging: bool,
) -> None:
    size = _database_bytes(metadata, only) if verify_while_staging else backup.size_bytes
    emit(Step("Verifying the backup", size))
    digests, databases = integrity.Digests(adding_up(emit)), {f"{backup.path}/{one}" for one in metadata.database_files}
    trees = tuple(f"{backup.path}/{name}/" for name in metadata.tree_facts)

    def digest(path: str, facts: os.stat_result) -> str | None:
        if path in databases:
            return checksums.setdefault(path, digests(path, facts))
        return None if verify_while_staging and path.startswith(trees) else digests(path, facts)

    flaws = list(integrity.file_flaws(backup.path, metadata, digest, only, on_survey))
    if flaws:
        hint = _damage_hint(backup, {_part_of(flaw) for flaw in flaws}) if only is None else _SHARED
        raise _damaged(backup.path, first_of([flaw.text for flaw in flaws]), hint)
    left_out = metadata.left_out(only)
    earlier = [flaw for flaw in backup.flaws if _part_of(flaw) not in left_out]
    if earlier:
        emit(Notice(f"The last verify of {backup.name} found: {earlier[0].text}. What is restored is verified again."))


def _database_bytes(metadata: Metadata, only: str | None) -> int | None:
    left_out = metadata.left_out(only)
    sizes = [one.size for name, one in metadata.database_files.items() if one and name not in left_out]
    return sum(sizes) or None


def _damaged(folder: Path, what: str, hint: str) -> Damaged:
    return Damaged(f"The backup {folder} is damaged: {what}; nothing was changed.", hint=hint)


def _part_of(flaw: Flaw) -> str:
    return flaw.path.split("/")[0]


def _damage_hint(backup: Backup, damaged: set[str]) -> str:
    metadata = store.require_metadata(backup)
    if damaged <= {*metadata.tree_facts} and metadata.database_file and not metadata.others:
        return _database_alone(backup.name)
    return f"`verify {backup.name}` names all of it. {_SHARED}"


def _database_alone(name: str) -> str:
    return f"Its database is as written: `restore {name} --only database`. {_SHARED}"


def _read_database(
    settings: Settings, source: Source, recorded: DatabaseFacts | None, opened: Callable[[sqlite3.Connection], None]
) -> Source:
    """Return the source with the facts of its database; the recorded checksum is compared in parallel, not here."""
    assert source.database is not None
    if recorded and recorded.raw:
        raise Damaged(
            f"{source.database} is kept as it was found: a database that could not be read. It cannot be restored.",
            hint=f"What can be read of it: `salvage {source.name}`. --only uploads restores the uploads.",
        )
    if source.database.is_symlink() or not source.database.is_file() or source.database.stat().st_size == 0:
        raise Damaged(f"{source.database} is missing, empty or a link.", hint=_OLDER)
    if recorded and source.is_sound:
        found = database.Inspection(recorded, database.versions_in(source.database), "")
        return at_its_revisions(settings, replace(source, facts=recorded), found)
    check = database.check_for(source.database.stat().st_size)
    found = database.examine(source.database, check, opened=opened)
    if found.problems:
        raise Damaged(f"{source.database} is damaged: {found.problems[0]}.", hint=_SHARED)
    kept = recorded or replace(found.facts, sha256=disk.hash_file(source.database))
    flaws = found.facts.index_flaws or kept.index_flaws
    mode = recorded.journal_mode if recorded else database.header_mode(source.database)
    facts = replace(found.facts, sha256=kept.sha256, journal_mode=mode, mode=kept.mode, index_flaws=flaws)
    return at_its_revisions(settings, replace(source, facts=facts), found)


def at_its_revisions(settings: Settings, source: Source, found: database.Inspection) -> Source:
    """Return the source with the revisions of its database, or with why these cannot be compared."""
    try:
        return replace(source, revisions=version_table.at(settings, found))
    except schema.CannotRead as error:
        undecided = SchemaVerdict("unreadable", (), (), reason=error.message, needs=error.hint)
        return replace(source, revisions=found.revisions or (), undecided=undecided)


def claimed(settings: Settings, emit: EventListener) -> AbstractContextManager[None]:
    """Return a context that keeps other restores off this live data, whatever their backups folder is."""
    return lock.claimed(unfinished.live_folders(settings), settings.lock_timeout, emit)


def stage(
    settings: Settings,
    source: Source,
    identity: Identity,
    migrated: Collection[str],
    copies: tuple[Path, ...],
    emit: EventListener = silence,
    unchanged: Collection[str] = (),
) -> Source:
    """Stage everything beside the live data, checked and synced; no live data is touched, and an error leaves nothing.

    A sealed database that can be read from its backup is not copied; the result's `sealed` names that backup. `copies`
    are backups that hold the live data: only what they hold may be replaced. Databases that are live already (the parts
    `unchanged`) are not staged. Return what was staged: the parts `migrated` are at another revision than the source.
    The caller has claimed the live data.
    """
    try:
        done = [
            _stage_part(place_of(settings, one), one, identity, one.part in migrated, copies, emit, unchanged)
            for one in source.each
        ]
    except BaseException:
        unstage(settings, identity.id)
        raise
    return replace(done[0], others=tuple(done[1:]))


def as_live(settings: Settings, source: Source) -> Source:
    """Return the source with each database in a tree to be restored through SQLite, or as a file of the tree.

    It goes through SQLite if the live file is a database too, so that open connections keep working.
    """
    inside = [one for one in source.others if "/" in one.part]
    live = {one.part for one in inside if _is_live_database(settings, source, one)}

    def tree_of(one: Source) -> Source:
        folder = one.part or UPLOADS_FOLDER
        below = (part.partition("/") for part in live)
        return replace(one, inside=frozenset(path for name, _, path in below if name == folder))

    others = [tree_of(one) for one in source.others if "/" not in one.part or one.part in live]
    return replace(tree_of(source), others=tuple(others))


def _is_live_database(settings: Settings, source: Source, one: Source) -> bool:
    """Return whether a live database at that path, without links on the way, is part of the restore."""
    folder, _, path = one.part.partition("/")
    holder = next((tree for tree in source.each if tree.uploads and (tree.part or UPLOADS_FOLDER) == folder), None)
    root = settings.tree(folder)
    if holder is None or root is None or (holder.chosen and path not in holder.chosen.leaves):
        return False
    place = settings.at("" if folder == UPLOADS_FOLDER else folder)
    there = tree.look(root, path)
    if place is None or there is None or there.form != "file":
        return False
    if selection.of(place, holder.excluded).leaves_out_wanted(path, is_folder=False):
        return False
    try:
        trust.require_alone_in((root / path).parent, root)
    except trust.Untrusted:
        return False
    if not database.has_plain_files(root / path):
        return False
    is_database = bool(database.page_size_of(root / path, settings.busy_timeout))
    if holder.chosen and not is_database and tree.look(root, f"{path}-wal"):
        raise Refused(
            f"{root / path}-wal would be mixed into {printable(path)}, and the live file is not a sound database.",
            hint=f"Move both aside first, or restore all: `restore {source.name} --only {folder}`",
        )
    return is_database


def place_of(settings: Settings, source: Source) -> Settings:
    """Return the settings of the source's part of the app."""
    place = settings.at(source.part)
    assert place is not None  # else there would be no source
    return place


def _stage_part(
    settings: Settings,
    source: Source,
    identity: Identity,
    migrate: bool,
    copies: tuple[Path, ...],
    emit: EventListener,
    unchanged: Collection[str],
) -> Source:
    is_wanted = source.database and source.part not in unchanged
    if is_wanted:
        _make_area(settings.staging_home, "database", identity)
    if source.uploads and settings.uploads:
        _make_missing_folder(settings.uploads, source.uploads, source.traits)
        _make_area(settings.uploads, "uploads", identity)
    with process.optional_worker(source.facts.size if source.facts else 0) as worker:
        staging = worker.submit(_prepare_database, settings, source, identity, migrate) if is_wanted else None
        changes = None
        if source.uploads and settings.uploads:
            changes = _stage_uploads(settings, settings.uploads, source, identity, copies, emit)
        source = replace(staging.result() if staging else source, changes=changes)
    return _migrate_staged(settings, source, emit) if source.database and migrate else source


def stage_database(settings: Settings, source: Source, identity: Identity) -> Source:
    """Stage only the source's database, as `stage` does."""
    try:
        _make_area(settings.staging_home, "database", identity)
        return _stage_database(settings, source, identity.id)
    except BaseException:
        unstage(settings, identity.id)
        raise


def _make_missing_folder(live: Path, wanted: Path, traits: diff.Traits) -> None:
    """Make the folder of a tree with mode and owner as in the backup; the owner can write to it: the restore has to."""
    if live.is_dir():
        return
    disk.make_folder(live.parent)
    live.mkdir(mode=0o700)
    facts, times = wanted.lstat(), live.stat()
    owner = (facts.st_uid, facts.st_gid) if traits.owners else disk.owner_of(live.parent)
    mode = 0o755 if "modes" in traits.missing_rights else stat.S_IMODE(facts.st_mode) | stat.S_IRWXU
    descriptors.set_owner_mode_times(live, owner, mode, (times.st_atime_ns, times.st_mtime_ns))
    disk.sync_folder(live.parent)


def _make_area(live: Path, part: AreaPart, identity: Identity) -> None:
    disk.make_folder(live)
    staging_area.make(live, identity)
    staging_area.add(live, part, identity)


def _prepare_database(settings: Settings, source: Source, identity: Identity, migrate: bool) -> Source:
    live_size = database.page_size_of(settings.database, settings.busy_timeout)
    if not is_restored_from_its_place(settings, source, migrate, live_size):
        return _stage_database(settings, source, identity.id)
    assert source.database is not None and source.facts is not None
    if _file_identity(source.database) != source.seen and disk.hash_file(source.database) != source.facts.sha256:
        raise Damaged(f"{source.database} changed since it was verified.", hint="Try again.")
    return replace(source, sealed=source.name)


def wanted_database(settings: Settings, found: Journal) -> Path:
    """Return the database file that the journal restores: that of the backup in `sealed`, or the staged copy.

    Raise `NoSuchBackup` or `Damaged` if that backup is missing, or records another checksum.
    """
    if found.sealed is None:
        return staged_database(settings)
    backup = store.find(settings, found.sealed)
    metadata, wanted = store.require_metadata(backup).at(found.name), found.facts.sha256 if found.facts else ""
    if not metadata or not metadata.database_file or not metadata.database or metadata.database.sha256 != wanted:
        raise Damaged(f"{backup.path} is not the backup that the restore began with.", hint=_OLDER)
    return backup.path / metadata.database_file


def stage_sealed(settings: Settings, found: Journal) -> None:
    """Stage a copy of the sealed database, for a live one that cannot be overwritten through SQLite."""
    staged = staged_database(settings)
    with staging_area.opened(settings.staging_home, "database", found.id) as area:
        for name in (staged.name, f"{staged.name}-journal", f"{staged.name}.paged"):  # left by a killed run
            descriptors.unlink(name, area.folder)
    source = Source(found.source, wanted_database(settings, found), None, found.facts, part=found.name)
    _stage_database(settings, source, found.id)


def _stage_database(settings: Settings, source: Source, restore: str) -> Source:
    assert source.database is not None and source.facts is not None
    staged = staged_database(settings)
    with staging_area.opened(settings.staging_home, "database", restore) as area:
        checksum = disk.copy_and_hash(source.database, staged.name, area.folder)
    if checksum != source.facts.sha256:
        raise Damaged(f"{source.database} changed while it was staged.", hint="Try again.")
    database.require_usable(staged, source.database)
    # A database in WAL mode would set that mode in the live one too.
    database.seal(staged)
    database.match_page_size(staged, settings.database, settings.busy_timeout)
    disk.sync_tree(staged.parent)
    return source


@contextlib.contextmanager
def rehearsed(
    settings: Settings, source: Source, target: str, emit: EventListener
) -> Iterator[tuple[Source, Rehearsed]]:
    """Migrate a copy of the source; yield the migrated source and the result, and remove the copy afterwards."""
    assert source.database is not None and source.facts is not None
    emit(Step("Rehearsing the migration on a copy"))
    space.require(2 * source.facts.size, settings.dir, "The rehearsal of the migration")
    with store.work_folder(settings, "rehearsal", f"rehearsal of {source.name}") as folder:
        copy = folder / settings.database.name
        disk.copy_file(source.database, copy)
        done = upgrade.migrate_copy(settings, copy, target, emit=emit)
        yield replace(source, database=copy, facts=done.found.facts), done


def _migrate_staged(settings: Settings, source: Source, emit: EventListener) -> Source:
    """Migrate the staged database to this code's revision, check it, and return the source with its new facts."""
    assert source.facts is not None
    emit(Step("Migrating the staged copy"))
    staged = staged_database(settings)
    target = schema.classify(settings, source.revisions).target
    found = upgrade.migrate_copy(settings, staged, target, emit=emit).found
    disk.sync_tree(staged.parent)
    facts = replace(found.facts, journal_mode=source.facts.journal_mode, mode=source.facts.mode)
    return at_its_revisions(settings, replace(source, facts=facts), found)


def _stage_uploads(
    settings: Settings, live: Path, source: Source, identity: Identity, copies: tuple[Path, ...], emit: EventListener
) -> diff.Summary:
    assert source.uploads is not None
    owner = None if source.traits.owners else disk.owner_of(live)
    kept = tuple(one / settings.sealed_folder for one in copies)
    places = diff.DiffPaths(live, source.uploads, kept, owner, source.traits.has_attributes)
    if source.traits.lost:
        emit(Warned(f"{source.uploads} has {source.traits.lost}: what is live keeps its own."))

    def stays(path: str, error: OSError) -> None:
        emit(Warned(f"{printable(path)} cannot be read ({error.strerror}), and stays as it is."))

    found = _as_planned(settings, source, copies) or differences(settings, source, stays, silence)
    with refusing_altered(source):
        changes = diff.stage(found, places, identity.id, emit=emit)
    disk.sync_tree(staging_area.place_of(live, "uploads"))
    return changes


def _as_planned(settings: Settings, source: Source, copies: tuple[Path, ...]) -> tuple[diff.Difference, ...]:
    """Return the planned differences if a copy has found the same live files as the plan; none if it has not."""
    if source.planned is None:
        return ()
    with files_cache.newest(settings, with_uploads=True) as copy:
        is_same = copy and copy.folder in copies and walk.seen_by(copy) == source.planned.seen
    return source.planned.differences if is_same else ()


def differences(
    settings: Settings,
    source: Source,
    unreadable: tree.Unreadable,
    emit: EventListener,
    stays: Callable[[str], None] = lambda _path: None,
    met: Callable[[tree.Entry], None] = lambda _live: None,
) -> Iterator[diff.Difference]:
    """Yield how the live uploads differ from the source's; raise `Damaged` if a file is not as it was sealed."""
    assert settings.uploads is not None and source.uploads is not None
    if settings.uploads.exists() and not settings.uploads.is_dir():
        walk.require(settings.uploads)
    with files_cache.newest(settings, with_uploads=True) as earlier, refusing_altered(source):
        yield from diff.differences(
            settings.uploads,
            source.uploads,
            source.traits,
            selection.of(settings, source.excluded),
            unreadable,
            earlier,
            emit,
            source.chosen,
            source.inside,
            stays,
            sealed_files(source),
            met,
            reads_all=source.chosen is not None,
        )


def sealed_files(source: Source) -> diff.Sealed | None:
    """Return a function for the sealed checksum of each file in the source's tree, or None if it never had any."""
    if source.uploads is None or not source.has_checksums:
        return None
    backup, below = source.uploads.parent, source.uploads.name
    if not manifest.has_checksums(backup):
        raise _damaged(backup, f"{CHECKSUM_FILE} {manifest.MISSING}", _OLDER)
    sealed = manifest.checksums_in_order(backup)
    return lambda path: sealed(f"{below}/{path}")


@contextlib.contextmanager
def refusing_altered(source: Source) -> Iterator[None]:
    """Translate `Altered`, for a file that is not as it was sealed, to `Damaged`."""
    try:
        yield
    except diff.Altered as error:
        assert source.uploads is not None
        what = f"{printable(f'{source.uploads.name}/{error.path}')} {error.what}"
        hint = _database_alone(source.name) if source.database and not source.others else _SHARED
        raise _damaged(source.uploads.parent, what, hint) from error


def unstage(settings: Settings, restore: str | None) -> None:
    """Remove everything that the restore with this id has staged in the app's folders, complete or not."""
    for folder in unfinished.live_folders(settings):
        staging_area.remove(folder, restore)


def staged_database(settings: Settings) -> Path:
    """Return the path of the staged database, in the same mount as the live one."""
    is_plain = "/" not in settings.part
    name = settings.database.name if is_plain else hashlib.sha256(os.fsencode(settings.part)).hexdigest()[:32]
    return staging_area.place_of(settings.staging_home, "database") / name
