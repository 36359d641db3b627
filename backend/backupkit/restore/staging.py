"""What a restore prepares before it touches anything live: a source, verified, and its staging beside the live data."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import disk, process, space, staging_area, tree, trust
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
from backupkit.model.errors import Damaged, Refused
from backupkit.model.events import EventListener, Notice, Step, Warned, adding_up, silence
from backupkit.model.names import first_of, printable
from backupkit.model.patterns import Patterns
from backupkit.repository import files_cache, integrity, lock, manifest, store, verification
from backupkit.restore import unfinished
from backupkit.restore.journal import Journal
from backupkit.sqlite import database
from backupkit.upload_files import diff, selection, walk
from backupkit.upload_files.choice import Chosen
from backupkit.upload_files.selection import Excluded

_OLDER = "Try an older backup: `list`."


@dataclass(frozen=True)
class Source:
    """What is restored: files that were verified, and what of the tree is meant beside their contents.

    Each file of a tree is compared with its checksum while it is staged, where it `has_checksums`: anew, or with
    `verify_while_staging` for the first time.

    `is_sound`: SQLite has checked this very database file here before, and found that the app can use it. `seen` is how
    the file looked when it was verified. `sealed` is the backup it is restored from without a staged copy.
    `part` is the part of the app that it is of, empty for the first database and the uploads; `others` are the sources
    of further ones.
    """

    name: str
    database: Path | None
    uploads: Path | None
    facts: DatabaseFacts | None = None
    revisions: tuple[str, ...] = ()
    meaning: diff.Meaning = diff.Meaning()  # noqa: RUF009 - it is frozen
    git: GitFacts | None = None
    undecided: SchemaVerdict | None = None
    is_sound: bool = False
    seen: tuple[int, ...] = ()
    sealed: str | None = None
    has_checksums: bool = False
    verify_while_staging: bool = False
    chosen: Chosen | None = None
    """The uploads that alone are restored; None for all of them."""
    excluded: Excluded = Excluded()  # noqa: RUF009 - it is frozen
    """The uploads that were left out when it was made: what that means stays as it is."""
    part: str = ""
    others: tuple[Source, ...] = ()
    inside: frozenset[str] = frozenset()
    """Databases in the tree, by their paths in it, that are restored through SQLite, and so not as files."""

    @property
    def each(self) -> tuple[Source, ...]:
        """This source, and the further ones."""
        return (self, *self.others)

    @property
    def has_trees(self) -> bool:
        """Whether there are uploads, or another tree, in it."""
        return any(one.uploads for one in self.each)


def verified(
    settings: Settings, backup: Backup, only: str | None, emit: EventListener, verify_while_staging: bool = False
) -> Source:
    """The backup, or the one part of it, as a source: every byte of that compared with what was sealed.

    With `verify_while_staging` only its databases are, and of its trees every name: those files of them that come back
    are compared while they are staged.

    A database that was checked when it was sealed here is not checked again; one that came from elsewhere is.
    """
    metadata = store.require_metadata(backup)
    sources = _sources(settings, backup, metadata, only, verify_while_staging)
    opened: list[sqlite3.Connection] = []
    checksums: dict[str, str] = {}
    size = sum(one.size for one in metadata.all_facts if one)
    with process.optional_worker(size if any(one.database for one in sources) else 0) as beside:
        looking = [beside.submit(_looked_into, settings, one, metadata, opened.append) for one in sources]
        try:
            meanings = _meanings(backup, only, checksums, emit, verify_while_staging)
            found = [
                replace(done.result(), meaning=meanings.get(one.uploads.name if one.uploads else "", meanings[""]))
                for one, done in zip(sources, looking, strict=True)
            ]
            for one in found:
                _require_one_checksum(one, checksums)
            return replace(found[0], others=tuple(found[1:]))
        except BaseException:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it has ended already
                for connection in opened:
                    connection.interrupt()
            raise


def with_parts(
    settings: Settings, source: Source, newer: Mapping[str, Backup], emit: EventListener, verify_while_staging: bool
) -> Source:
    """The source, where the parts that `newer` names come from those backups, verified as the rest is."""
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
    """What of the backup, and of that part of it, this app has a place for; not looked into yet."""
    patterns = _sealed_patterns(backup, metadata)
    is_known_sound = _is_known_sound(settings, backup, metadata)
    is_sealed = manifest.has_checksums(backup.path)

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
            raise Damaged(f"{tree} is no folder, and the metadata say it is there.", hint="Try another backup: `list`.")
        excluded = Excluded(patterns, metadata.exclude_marked, alone.excluded_folders)
        source = Source(
            backup.name,
            file,
            tree,
            git=metadata.git,
            has_checksums=is_sealed,
            verify_while_staging=verify_while_staging,
            excluded=excluded,
            part=part,
        )
        return replace(source, is_sound=True, seen=_looks(file)) if file and is_known_sound else source

    found = [one for part in ("", *metadata.others) if (one := source_of(part))]
    found = [one for one in found if one.database or one.uploads]
    found.sort(key=lambda one: "/" in one.part)  # a database in a tree comes behind its tree
    if not found:
        if only and metadata.others:
            raise Damaged(
                f"{backup.path} holds no {printable(only)}.", hint=f"`show {backup.name}` says what is in it."
            )
        raise Damaged(f"{backup.path} holds nothing that can be restored.", hint="Try another backup: `list`.")
    return found


def _looked_into(
    settings: Settings, source: Source, metadata: Metadata, opened: Callable[[sqlite3.Connection], None]
) -> Source:
    """The source, with what its database holds, where it has one."""
    if source.database is None:
        return source
    place, alone = settings.at(source.part), metadata.at(source.part)
    assert place is not None and alone is not None
    return _with_database(place, source, alone.database, opened)


def _sealed_patterns(backup: Backup, metadata: Metadata) -> tuple[str, ...]:
    """The patterns of what was left out; `Damaged` where they are none."""
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


def _looks(file: Path) -> tuple[int, ...]:
    """What changes when somebody writes to the file, or puts another in its place; nothing where it is missing."""
    try:
        facts = os.lstat(file)
    except OSError:
        return ()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def is_restored_from_its_place(settings: Settings, source: Source, migrate: bool, page_size: int) -> bool:
    """Whether the sealed database needs no staged copy: a live one of that page size takes it as it is."""
    return bool(
        source.database
        and source.facts
        and source.is_sound
        and not migrate
        and source.database.is_relative_to(settings.dir / source.name)
        and source.facts.page_size == page_size
    )


def _meanings(
    backup: Backup, only: str | None, checksums: dict[str, str], emit: EventListener, verify_while_staging: bool
) -> dict[str, diff.Meaning]:
    """What of each of the backup's trees is meant, by its folder, once it was compared with what was sealed.

    Empty stands for a tree of which nothing is known. `checksums` gets those of the files beside the trees, by path.
    """
    metadata = store.require_metadata(backup)
    if not manifest.has_checksums(backup.path):
        emit(Notice(f"{backup.name} has no checksums (unchecked): it is restored as it lies there."))
        return {"": diff.Meaning(owners=False)}
    found: dict[str, walk.Survey] = {}
    _refuse_altered(backup, metadata, only, found.__setitem__, checksums, emit, verify_while_staging)
    trees = metadata.tree_facts
    return {"": diff.Meaning()} | {name: _meaning(trees[name], survey) for name, survey in found.items()}


def _meaning(recorded: UploadsFacts | None, found: walk.Survey) -> diff.Meaning:
    if not recorded or recorded.attributes is None:
        return diff.Meaning()
    lost = integrity.lost(recorded, found)
    is_linked = bool(recorded.hard_links) if integrity.keeps_hard_links(recorded, found) else None
    return diff.Meaning(True, integrity.keeps_attributes(recorded, found), is_linked, lost)


def _refuse_altered(
    backup: Backup,
    metadata: Metadata,
    only: str | None,
    hear: Callable[[str, walk.Survey], None],
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

    flaws = list(integrity.file_flaws(backup.path, metadata, digest, only, hear))
    if flaws:
        hint = _way_out(backup, {_part_of(flaw) for flaw in flaws}) if only is None else _OLDER
        raise _damaged(backup.path, first_of([flaw.text for flaw in flaws]), hint)
    left_out = metadata.left_out(only)
    told = [flaw for flaw in backup.flaws if _part_of(flaw) not in left_out]
    if told:
        emit(Notice(f"The last verify of {backup.name} found: {told[0].text}. What is restored is compared anew."))


def _database_bytes(metadata: Metadata, only: str | None) -> int | None:
    left_out = metadata.left_out(only)
    sizes = [one.size for name, one in metadata.database_files.items() if one and name not in left_out]
    return sum(sizes) or None


def _damaged(folder: Path, what: str, hint: str) -> Damaged:
    return Damaged(f"The backup {folder} is damaged: {what}; nothing was changed.", hint=hint)


def _part_of(flaw: Flaw) -> str:
    return flaw.path.split("/")[0]


def _way_out(backup: Backup, damaged: set[str]) -> str:
    metadata = store.require_metadata(backup)
    if damaged <= {*metadata.tree_facts} and metadata.database_file and not metadata.others:
        return _database_alone(backup.name)
    return f"`verify {backup.name}` names all of it. {_OLDER}"


def _database_alone(name: str) -> str:
    return f"Its database is as written: `restore {name} --only database`. An older backup: `list`."


def _with_database(
    settings: Settings, source: Source, recorded: DatabaseFacts | None, opened: Callable[[sqlite3.Connection], None]
) -> Source:
    """The source with what its database holds; its checksum is the recorded one, which is compared beside this."""
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
        raise Damaged(f"{source.database} is damaged: {found.problems[0]}.", hint=_OLDER)
    kept = recorded or replace(found.facts, sha256=disk.hash_file(source.database))
    flaws = found.facts.index_flaws or kept.index_flaws
    mode = recorded.journal_mode if recorded else database.header_mode(source.database)
    facts = replace(found.facts, sha256=kept.sha256, journal_mode=mode, mode=kept.mode, index_flaws=flaws)
    return at_its_revisions(settings, replace(source, facts=facts), found)


def at_its_revisions(settings: Settings, source: Source, found: database.Inspection) -> Source:
    """The source, with where its database is, or with why that is undecided."""
    try:
        return replace(source, revisions=version_table.at(settings, found))
    except schema.CannotRead as error:
        undecided = SchemaVerdict("unreadable", (), (), reason=error.message, needs=error.hint)
        return replace(source, revisions=found.revisions or (), undecided=undecided)


def claimed(settings: Settings, emit: EventListener) -> AbstractContextManager[None]:
    """No other restore is at work on this live data until the block ends, whatever its backups folder is."""
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
    """Everything that goes live lies beside it, checked and on disk; nothing live is touched. Fails tidily.

    A sealed database that can be restored from where it lies is not copied: the result then names its backup.
    `copies` are backups that hold what is live: only what they have may be replaced. Databases that are live already
    (the parts `unchanged`) are not staged. Returns what was staged: of the parts `migrated` that is at another revision
    than the source. The caller has claimed the live data.
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
    """The source, with the databases that lie in trees as what they are restored as.

    Where the live file is a database too, it is restored through SQLite, so that open connections go on; else as a
    file.
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
    """Whether there is a live database of that path, below no link, which the restore is of."""
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
        trust.require_roots((root / path).parent)
    except trust.Untrusted:
        return False
    is_database = bool(database.page_size_of(root / path, settings.busy_timeout))
    if holder.chosen and not is_database and tree.look(root, f"{path}-wal"):
        raise Refused(
            f"{root / path}-wal would be mixed into {printable(path)}, and the live file is no sound database.",
            hint=f"Move both aside first, or restore all: `restore {source.name} --only {folder}`",
        )
    return is_database


def place_of(settings: Settings, source: Source) -> Settings:
    """The settings of the part of the app that the source is of."""
    place = settings.at(source.part)
    assert place is not None  # or there would be no source
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
        _make_area(settings.uploads, "uploads", identity)
    with process.optional_worker(source.facts.size if source.facts else 0) as beside:
        staging = beside.submit(_prepare_database, settings, source, identity, migrate) if is_wanted else None
        if source.uploads and settings.uploads:
            _stage_uploads(settings, settings.uploads, source, identity, copies, emit)
        source = staging.result() if staging else source
    return _migrate_staged(settings, source, emit) if source.database and migrate else source


def stage_database(settings: Settings, source: Source, identity: Identity) -> Source:
    """The source's database lies beside the live one, as `stage` leaves it. Fails tidily."""
    try:
        _make_area(settings.staging_home, "database", identity)
        return _stage_database(settings, source, identity.id)
    except BaseException:
        unstage(settings, identity.id)
        raise


def _make_area(live: Path, part: AreaPart, identity: Identity) -> None:
    disk.make_folder(live)
    staging_area.make(live, identity)
    staging_area.add(live, part, identity)


def _prepare_database(settings: Settings, source: Source, identity: Identity, migrate: bool) -> Source:
    live_size = database.page_size_of(settings.database, settings.busy_timeout)
    if not is_restored_from_its_place(settings, source, migrate, live_size):
        return _stage_database(settings, source, identity.id)
    assert source.database is not None and source.facts is not None
    if _looks(source.database) != source.seen and disk.hash_file(source.database) != source.facts.sha256:
        raise Damaged(f"{source.database} changed since it was verified.", hint="Try again.")
    return replace(source, sealed=source.name)


def wanted_database(settings: Settings, found: Journal) -> Path:
    """What the journal wants the live database to be: the file in the backup that it names, or the staged copy.

    Raises `NoSuchBackup` or `Damaged` where that backup is not there, or says of its database something else.
    """
    if found.sealed is None:
        return staged_database(settings)
    backup = store.find(settings, found.sealed)
    metadata, wanted = store.require_metadata(backup).at(found.name), found.facts.sha256 if found.facts else ""
    if not metadata or not metadata.database_file or not metadata.database or metadata.database.sha256 != wanted:
        raise Damaged(f"{backup.path} is not the backup that the restore began with.", hint=_OLDER)
    return backup.path / metadata.database_file


def stage_sealed(settings: Settings, found: Journal) -> None:
    """A copy of the sealed database lies beside the live one after all, where that cannot be written through SQLite."""
    staged = staged_database(settings)
    with staging_area.opened(settings.staging_home, "database", found.id) as area:
        for name in (staged.name, f"{staged.name}-journal", f"{staged.name}.paged"):  # of a run that was killed here
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=area.folder)
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
    # One that a person copied may say WAL, and would make the live one say so too.
    database.seal(staged)
    database.match_page_size(staged, settings.database, settings.busy_timeout)
    disk.sync_tree(staged.parent)
    return source


@contextlib.contextmanager
def rehearsed(
    settings: Settings, source: Source, target: str, emit: EventListener
) -> Iterator[tuple[Source, Rehearsed]]:
    """The source as it is after the migration, which was run on a copy; the copy is gone when the block ends."""
    assert source.database is not None and source.facts is not None
    emit(Step("Rehearsing the migration on a copy"))
    space.require(2 * source.facts.size, settings.dir, "The rehearsal of the migration")
    with store.work_folder(settings, "rehearsal", f"rehearsal of {source.name}") as folder:
        copy = folder / settings.database.name
        disk.copy_file(source.database, copy)
        done = upgrade.migrate_copy(settings, copy, target, emit=emit)
        yield replace(source, database=copy, facts=done.found.facts), done


def _migrate_staged(settings: Settings, source: Source, emit: EventListener) -> Source:
    """The staged database, brought to this code's revision and checked; the live one was not opened."""
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
) -> None:
    assert source.uploads is not None
    owner = None if source.meaning.owners else disk.owner_of(live)
    places = diff.DiffPaths(live, source.uploads, tuple(one / settings.sealed_folder for one in copies), owner)

    if source.meaning.lost:
        emit(Warned(f"{source.uploads} has {source.meaning.lost}: what is live keeps its own."))

    def stays(path: str, error: OSError) -> None:
        emit(Warned(f"{printable(path)} cannot be read ({error.strerror}), and stays as it is."))

    with _refusing_altered(source):
        diff.stage(differences(settings, source, stays, silence), places, identity.id, emit=emit)
    disk.sync_tree(staging_area.place_of(live, "uploads"))


def differences(
    settings: Settings,
    source: Source,
    unreadable: tree.Unreadable,
    emit: EventListener,
    stays: Callable[[str], None] = lambda _path: None,
) -> Iterator[diff.Difference]:
    """What the live uploads differ in from the source's; what an index tells is not read, nor what was sealed.

    Raises `Damaged` where a file was not sealed.
    """
    assert settings.uploads is not None and source.uploads is not None
    if settings.uploads.exists() and not settings.uploads.is_dir():
        walk.require(settings.uploads)
    with files_cache.newest(settings, with_uploads=True) as earlier, _refusing_altered(source):
        yield from diff.differences(
            settings.uploads,
            source.uploads,
            source.meaning,
            selection.of(settings, source.excluded),
            unreadable,
            earlier,
            emit,
            source.chosen,
            source.inside,
            stays,
            sealed_files(source),
        )


def sealed_files(source: Source) -> diff.Sealed | None:
    """What each file of the source's tree was sealed with; None where it never had checksums."""
    if source.uploads is None or not source.has_checksums:
        return None
    backup, below = source.uploads.parent, source.uploads.name
    if not manifest.has_checksums(backup):
        raise _damaged(backup, f"{CHECKSUM_FILE} {manifest.MISSING}", _OLDER)
    sealed = manifest.checksums_in_order(backup)
    return lambda path: sealed(f"{below}/{path}")


@contextlib.contextmanager
def _refusing_altered(source: Source) -> Iterator[None]:
    """`Damaged` for a file of the tree that turns out not to be as it was sealed."""
    try:
        yield
    except diff.Altered as error:
        assert source.uploads is not None
        what = f"{printable(f'{source.uploads.name}/{error.path}')} {error.what}"
        hint = _database_alone(source.name) if source.database and not source.others else _OLDER
        raise _damaged(source.uploads.parent, what, hint) from error


def unstage(settings: Settings, restore: str | None) -> None:
    """Nothing that the restore with that id staged is left in the app's folders, nor the beginning of it."""
    for folder in unfinished.live_folders(settings):
        staging_area.remove(folder, restore)


def staged_database(settings: Settings) -> Path:
    """Where the database to be restored is prepared: in the same mount as the live one."""
    is_plain = "/" not in settings.part
    name = settings.database.name if is_plain else hashlib.sha256(os.fsencode(settings.part)).hexdigest()[:32]
    return staging_area.place_of(settings.staging_home, "database") / name
