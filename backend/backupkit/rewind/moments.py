"""Find the point for a time, and build database and uploads of it in a folder that is restored like any backup.

The folder is temporary: it exists while the restore is prepared. Every byte in it is compared with a sealed checksum:
content from points here, content from the base backup when the restore verifies what it uses.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import descriptors, disk, held, process, space, tree
from backupkit.fs.attributes import Keeper
from backupkit.migrations import version_table
from backupkit.migrations.schema import CannotRead
from backupkit.model import times
from backupkit.model.backup import (
    MAIN_DATABASE,
    METADATA_FILE,
    UPLOADS_FOLDER,
    Backup,
    DatabaseFacts,
    Metadata,
    SealedDatabase,
    SealedTree,
    UploadsFacts,
)
from backupkit.model.errors import Damaged, NoSuchBackup, Refused
from backupkit.model.events import EventListener, Step, silence
from backupkit.model.names import STAMP
from backupkit.repository import manifest, reliable, store
from backupkit.rewind import chain, point
from backupkit.rewind.chain import Moment, Point, Timeline
from backupkit.rewind.point import DatabaseChange, Header, PartChange
from backupkit.rewind.state import KnownUpload, State, base_backup, of_backup, seal_of
from backupkit.scheduling import scheduler_lock
from backupkit.sqlite import changed_pages, database
from backupkit.sqlite.pages import HASH
from backupkit.upload_files import walk

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
POINT = "point_"
_HINT = "`rewind` shows what can be restored."
_CHECK_ATTEMPTS = 5  # attempts of a check if points are merged meanwhile


class Chosen(Struct, frozen=True):
    """The choice for a time: a point, or a newer backup (`moment` is None then); and a sentence that explains it."""

    moment: Moment | None
    backup: str
    at: datetime
    sentence: str


def timeline(settings: Settings) -> Timeline:
    """Return all moments that can be restored, judged by the headers of the points and damage found earlier."""
    moments, lost, size = list[Moment](), list[chain.Lost](), 0
    for name in chain.chains(settings.dir):
        points, broken = chain.read(settings.dir, name)
        size += sum(one.size for one in points)
        lost += broken
        backup = base_backup(settings, name)
        if backup is None:
            lost += [chain.Lost(name, one.name, f"the backup {name} is gone or damaged", one.header) for one in points]
            continue
        bad = chain.damaged(settings.dir, name)
        found, without = chain.moments_of(points, seal_of(backup), backup.made_at, bad)
        moments += found
        lost += without
    return Timeline(chain.sorted_by_time(moments), tuple(lost), size)


def check(settings: Settings, emit: EventListener = silence, only: str = "") -> list[chain.Lost]:
    """Read every byte of all points, or of those after the backup `only`; return those that cannot be restored.

    Each point is applied to the state before it. Damage is stored, so that `timeline` counts these points as lost.
    """
    lost = list[chain.Lost]()
    for name in chain.chains(settings.dir):
        if only not in ("", name):
            continue
        emit(Step(f"Checking the points after {name}"))
        backup = base_backup(settings, name)
        if backup is None:
            points, broken = chain.read(settings.dir, name)
            lost += broken + [chain.Lost(name, one.name, f"the backup {name} is gone or damaged") for one in points]
            continue
        lost += _check_until_stable(settings, backup)
    return lost


def _check_until_stable(settings: Settings, backup: Backup) -> list[chain.Lost]:
    """Check one chain again until none of its points is merged or removed meanwhile; return the lost points."""
    lost = list[chain.Lost]()
    for _ in range(_CHECK_ATTEMPTS):
        points, broken = chain.read(settings.dir, backup.name)
        bad = dict[str, str]()
        lost = sorted((*broken, *_check_chain(settings, backup, points, bad)), key=lambda one: one.name)
        if not bad or chain.are_there(settings.dir, points):
            chain.remember_damaged(settings.dir, backup.name, bad)
            return lost
    return lost  # no damage is stored: good points would stay marked as damaged


def _check_chain(
    settings: Settings, backup: Backup, points: list[chain.Point], bad: dict[str, str]
) -> Iterator[chain.Lost]:
    """Apply the points of one chain in order; yield the lost ones, and add the damaged ones and why to `bad`."""
    try:
        state = of_backup(backup)
    except OSError:  # `verify` names the missing files of the backup
        yield from (chain.Lost(backup.name, one.name, f"the backup {backup.name} is gone or damaged") for one in points)
        return
    at, known = state.name, chain.by_header(points, seal_of(backup))
    with chain.opened(settings.dir, backup.name) as folder:
        for one in points if folder else ():
            assert folder is not None
            _, lost = chain.parents_of([other for other in points if other.name not in bad], seal_of(backup))
            if unreachable := next((other for other in lost if other.name == one.name), None):
                yield chain.maybe_restorable(unreachable, known)
                continue
            try:
                if one.header.parent != at:  # an earlier point is lost, or a merge was killed
                    state = _state_before(folder, backup, points, one, bad)
                state.apply(folder / one.name, one.header)
                at = one.header.state
            except Damaged as error:
                bad[one.name] = error.message
                state, at = of_backup(backup), ""
                yield chain.Lost(backup.name, one.name, error.message, one.header)


def _state_before(
    folder: Path, backup: Backup, points: list[chain.Point], wanted: chain.Point, bad: dict[str, str]
) -> State:
    """Return the state before the point."""
    before, _ = chain.parents_of([one for one in points if one.name not in bad], seal_of(backup))
    state = of_backup(backup)
    for one in chain.points_to(wanted, before)[:-1]:
        state.apply(folder / one.name, one.header)
    return state


def choose_by_words(settings: Settings, text: str, now: datetime) -> tuple[Chosen, tuple[str, ...]]:
    """Parse a time as typed, or raise `Refused`; return the choice of `choose`, and the sentences to show."""
    at, said = times.moment(text, now, settings.zone)
    chosen = choose(settings, at, now)
    return chosen, tuple(filter(None, (said, chosen.sentence)))


def choose(settings: Settings, at: datetime, now: datetime) -> Chosen:
    """Return the newest point at or before that time, or a backup if it is newer than that point.

    Raises `Refused` for a time in the future, unless the clock was ahead and has a point of then, in a gap (the error
    names both sides), or after the last look; `Damaged` if the newest point until then is lost; `NoSuchBackup` for a
    time before everything.
    """
    found = timeline(settings)
    moment = found.before(at)
    if at > now + timedelta(seconds=1) and (moment is None or moment.at <= now):
        raise Refused(f"{_local(settings, at)} is in the future: it is {_local(settings, now)}.", hint=_HINT)
    newest = _newest_backup(settings, at)
    backup = newest.backup if newest else None
    if (unusual := _newest_unusual(settings, found, at, now)) and (not backup or unusual.made_at > backup.made_at):
        backup = unusual
    if lost := _newest_lost(found, at, moment, backup):
        return _chosen_after_damage(settings, found, at, lost)
    is_known = moment is not None and _was_unchanged(found, at, moment)
    if not is_known and (sides := found.in_gap(at)):
        _refuse_gap(settings, at, *sides)
    if moment and not is_known and not found.after(at):
        _require_watched(settings, at, moment, now, backup)
    if moment and moment.point and (backup is None or moment.at >= backup.made_at):
        return _chosen_point(settings, found, moment, at, now)
    if backup is None:
        good = [one.made_at for one in store.own_backups(settings) if not reliable.why_not_latest(settings, one, now)]
        first = min((*good, *(one.at for one in found.moments)), default=None)
        told = f" The first is of {_local(settings, first)}." if first else ""
        raise NoSuchBackup(
            f"There is no backup in {settings.dir} made until {_local(settings, at)}, and no point of rewind.{told}",
            hint="`list` shows all backups, `rewind` all points.",
        )
    sentence = f"The newest until then is the backup {backup.name}."
    if backup is unusual:
        sentence = f"{sentence[:-1]}, which is unusual: {'; '.join(backup.unusual)}."
    elif newest and newest.passed_over:
        sentence += f" Passed over: {newest.passed_over}."
    return Chosen(None, backup.name, backup.made_at, sentence)


def _chosen_point(settings: Settings, found: Timeline, moment: Moment, at: datetime, now: datetime) -> Chosen:
    assert moment.point is not None
    later = found.after(moment.at)
    after = f"; the next one is of {_local(settings, later.at)}" if later else ", the newest"
    sentence = f"The point of {_local(settings, moment.at)}{after}. What was written after it is not in it."
    if moment.at > now + timedelta(seconds=1):
        sentence += " That time is still to come: the clock was ahead."
    if other := found.other(moment, at):
        sentence += (
            f' The clock was set back: that time came twice. The other: --at "{typed_time(settings, other.at)}".'
        )
    return Chosen(moment, moment.chain, moment.at, sentence)


def _newest_unusual(settings: Settings, found: Timeline, at: datetime, now: datetime) -> Backup | None:
    """Return the newest backup that `latest` skips as unusual: a person who asks for a time wants it all the same."""
    for one in store.own_backups(settings) if found.moments else ():
        if (
            one.unusual
            and times.is_until(one.made_at, at)
            and reliable.why_not_latest(settings, one, now).startswith("unusual")
        ):
            return one
    return None


def _newest_backup(settings: Settings, at: datetime) -> store.Latest | None:
    try:
        return store.latest(settings, until=at)
    except NoSuchBackup:
        return None


def _refuse_gap(settings: Settings, at: datetime, before: Moment, after: Moment) -> None:
    raise Refused(
        f"The data at {_local(settings, at)} is unknown: there is a gap from {_local(settings, before.at)} to "
        f"{_local(settings, after.at)}.",
        hint="Choose one side of the gap: "
        + " or ".join(f'--at "{typed_time(settings, one.at)}"' for one in (before, after)),
    )


def _newest_lost(found: Timeline, at: datetime, moment: Moment | None, backup: Backup | None) -> chain.Lost | None:
    """Return the newest lost point until then, if it is newer than the moment and the backup, and any other is good."""
    until = [*((moment.at,) if moment else ()), *((backup.made_at,) if backup else ())]
    since = max(until, default=datetime.min.replace(tzinfo=at.tzinfo))
    lost = [(one.header.at, one) for one in found.lost if one.header and since < one.header.at <= at]
    return max(lost, key=lambda one: one[0])[1] if lost and (until or found.after(at)) else None


def _chosen_after_damage(settings: Settings, found: Timeline, at: datetime, lost: chain.Lost) -> Chosen:
    """Return the choice of a point that is sound itself, if the data was as in it then; else raise `Damaged`."""
    moment = lost.moment
    if moment and (at <= moment.at + moment.tolerance or _was_unchanged(found, at, moment)):
        sentence = (
            f"The point of {_local(settings, moment.at)}, after a damaged one: it is restored only if it needs nothing "
            "of that. Every byte is compared."
        )
        return Chosen(moment, moment.chain, moment.at, sentence)
    raise Damaged(
        f"The data at {_local(settings, at)} cannot be restored: the point {lost.name} is lost, because "
        f"{lost.why.rstrip('.')}.",
        hint=_other_times(settings, found, at, moment),
    )


def _other_times(settings: Settings, found: Timeline, at: datetime, perhaps: Moment | None = None) -> str:
    """Return a hint that names the good moments or backups on both sides of that time, and one that may be good."""
    newest, moment = _newest_backup(settings, at), found.before(at)
    until = [*((moment.at,) if moment else ()), *((newest.backup.made_at,) if newest else ())]
    good = [*sorted(until)[-1:], *((perhaps.at,) if perhaps else ())]
    good += [later.at] if (later := found.after(at)) else []
    if not good:
        return _HINT
    return "Choose a time before or after it: " + " or ".join(f'--at "{typed_time(settings, one)}"' for one in good)


def _was_unchanged(found: Timeline, at: datetime, moment: Moment) -> bool:
    """Return whether the next point, itself lost, records that the data was still as in `moment` at that time."""
    headers = (one.header for one in found.lost if one.chain == moment.chain and one.header)
    after = min((one for one in headers if one.at > moment.at), key=lambda one: one.at, default=None)
    if after is None:
        return False
    state = moment.point.header.state if moment.point else after.base_state
    return moment.at <= at <= after.since and state == after.parent


def _require_watched(settings: Settings, at: datetime, moment: Moment, now: datetime, backup: Backup | None) -> None:
    """Raise `Refused` if the time is after the last look, and the data changed since or its change stamp is unknown."""
    if at <= moment.at + moment.tolerance or (backup and backup.made_at > moment.at):
        return
    looked = scheduler_lock.last_look(settings.dir)
    if looked and at <= min(now, looked + moment.tolerance):
        return
    stamp = moment.point.header.stamp if moment.point else ""
    if stamp and stamp == changed_pages.stamps_of(_live_databases(settings, moment)):
        return
    is_on = scheduler_lock.is_running_for(settings.dir)
    unwatched = "the scheduler has not looked since." if is_on else "no scheduler is running."
    raise Refused(
        f"The data at {_local(settings, at)} is unknown: the last point is of {_local(settings, moment.at)}, and "
        + (f"the scheduler last looked at {_local(settings, looked)}." if looked else unwatched),
        hint=f'Choose the last point: --at "{typed_time(settings, moment.at)}". To save the live data: `backup`',
    )


def _live_databases(settings: Settings, moment: Moment) -> list[Path]:
    """Return the live files of the databases in the point; empty if the settings lack one of them."""
    parts = [one.name for one in moment.point.header.parts if one.database] if moment.point else []
    found = [settings.at(part) for part in parts]
    return [one.database for one in found if one] if all(found) else []


def _local(settings: Settings, at: datetime) -> str:
    return f"{settings.local(at):%Y-%m-%d %H:%M:%S %Z}"


def typed_time(settings: Settings, at: datetime) -> str:
    """Return the time as it can be typed, rounded up to a whole second."""
    at += timedelta(microseconds=-at.microsecond % 1_000_000)
    return settings.local(at).isoformat()


def choose_for_test(settings: Settings, choose: Callable[[Sequence[Moment | None]], Moment | None]) -> Moment | None:
    """Let `choose` pick a restorable point for a test restore, or None with even odds; None if there is no point."""
    points = [one for one in timeline(settings).moments if one.point] if settings.rewind else []
    return choose([*points, *[None] * len(points)]) if points else None


def name_of(settings: Settings, moment: Moment) -> str:
    """Return the name of a point as a temporary backup, and in the history."""
    return f"{POINT}{settings.local(moment.at).strftime(STAMP)}"


@contextlib.contextmanager
def built(settings: Settings, moment: Moment, emit: EventListener = silence) -> Iterator[Backup]:
    """Build the moment as a backup in a temporary folder; delete the folder when the block ends.

    Raises `Damaged` if the base backup or a point on the way is not as it was written; `NoSpace`.
    """
    base = store.read(settings, moment.chain)
    metadata = store.require_metadata(base)
    assert moment.point and metadata.database and metadata.database_file
    emit(Step(f"Building the point of {_local(settings, moment.at)}"))
    new = sum(change.entry.size for one in moment.way for change in one.header.changed_files if change.entry)
    space.require(moment.point.header.database_bytes + new, settings.dir, "It")
    with store.work_folder(settings, "rewind", "restore of a point") as work:
        folder = work / name_of(settings, moment)
        folder.mkdir(mode=0o700)
        with chain.opened(settings.dir, moment.chain) as points:
            if points is None:
                raise Damaged(f"The points of {moment.chain} are gone.", _HINT)
            _build(_Building(settings, moment, points, base, metadata, folder), emit)
        yield replace(store.read_at(folder, settings.zone), just_built=True)


class _Building(Struct, frozen=True):
    """A moment that is being built as a backup in `folder`; `points` is the folder of its chain."""

    settings: Settings
    moment: Moment
    points: Path
    base: Backup
    metadata: Metadata
    folder: Path

    @property
    def point(self) -> Point:
        """The point of the moment."""
        assert self.moment.point is not None
        return self.moment.point

    @property
    def header(self) -> Header:
        """The header of the point."""
        return self.point.header

    def file_of(self, part: str) -> Path:
        """Return the path of the part's database in the new folder."""
        found = self._of(part)
        assert found.database_file
        return self.folder / found.database_file

    def facts_of(self, part: str) -> DatabaseFacts:
        """Return the facts that the base backup records on the part's database."""
        found = self._of(part)
        assert found.database
        return found.database

    def _of(self, part: str) -> Metadata:
        if (found := self.metadata.at(part)) is None:
            raise Damaged(f"The backup {self.base.path} has no {part}.", _HINT)
        return found


def _build(building: _Building, emit: EventListener) -> None:
    if seal_of(building.base) != building.header.seal:
        raise Damaged(f"The backup {building.base.path} is not the one that the point was made after.", _HINT)
    state = of_backup(building.base, with_pages=False)
    in_base = {name: dict(one.uploads) for name, one in state.parts.items()}
    _apply_points(building, state)
    with closing(manifest.ChecksumWriter(building.folder)) as checksums:
        found = {
            one.name: _finish_part(building, one, state.parts[one.name], in_base[one.name], checksums)
            for one in building.header.parts
        }
        _seal(building, found, checksums, emit)


class _FinishedPart(Struct, frozen=True):
    """A finished part: the inspection of its database, and the facts on its tree."""

    database: database.Inspection | None = None
    tree: UploadsFacts | None = None


def _finish_part(
    building: _Building,
    one: PartChange,
    state: State,
    in_base: dict[str, KnownUpload],
    checksums: manifest.ChecksumWriter,
) -> _FinishedPart:
    """Check the database of that part, and build its tree; `in_base` are the files of the tree in the base backup."""
    if one.database is None:
        _require_uploads_digest(building, one, state)
        return _FinishedPart(tree=_build_tree(building, one.name, state, in_base, checksums))
    file = building.file_of(one.name)
    with process.optional_worker(file.stat().st_size) as beside:
        as_stored = _use_rollback_journal(file)
        inspecting = beside.submit(database.inspect, file)
        with _name_damaged_point(building.settings, building.moment):
            _require_database_digest(building, one, file, as_stored)
            _require_uploads_digest(building, one, state)
        is_tree = not one.name and building.metadata.uploads_included
        tree = _build_tree(building, one.name, state, in_base, checksums) if is_tree else None
        return _FinishedPart(inspecting.result(), tree)


def _apply_points(building: _Building, state: State) -> None:
    """Write the databases as of the point; apply the upload changes to the state, but write no upload yet."""
    moment = building.moment
    for one in moment.way:
        for part, found in state.paired_parts(one.name, one.header):
            found.change(one.name, part.changes)
    for last in building.header.parts:
        if last.database is None:
            continue
        facts, file = building.facts_of(last.name), building.file_of(last.name)
        disk.copy_file(building.base.path / file.name, file)
        way = [(one.name, part) for one in moment.way for part in one.header.parts if part.name == last.name]
        with _name_damaged_point(building.settings, moment):
            _write_pages(building.points, way, facts.page_size, file)


@contextlib.contextmanager
def _name_damaged_point(settings: Settings, moment: Moment) -> Iterator[None]:
    """On `Damaged`, check the whole chain, and raise the error of the first damaged point on the way, if any.

    The hint names the good moments on both sides.
    """
    try:
        yield
    except Damaged:
        check(settings, only=moment.chain)
        bad = chain.damaged(settings.dir, moment.chain)
        if found := next((bad[one.name] for one in moment.way if one.name in bad), ""):
            raise Damaged(found, _other_times(settings, timeline(settings), moment.at)) from None
        raise


def _write_pages(points: Path, way: Sequence[tuple[str, PartChange]], page_size: int, file: Path) -> None:
    """Write each changed page once, from the newest point that has it."""
    counting = point.of_last_page_size(way)
    last = counting[-1][1]
    with disk.Opened(file, os.O_RDWR | os.O_NOFOLLOW) as handle:
        if page_size != last.page_size or len(counting) < len(way):
            os.ftruncate(handle, 0)
        most = max(one.pages for _, one, _ in counting)
        written = bytearray(last.pages + 1) + b"\1" * (most - last.pages)  # pages beyond the final end count as written
        for name, one, offset in reversed(counting):
            for number, content in point.pages(points / name, one, written, offset):
                os.pwrite(handle, content, (number - 1) * last.page_size)
                written[number] = 1
        os.ftruncate(handle, last.pages * last.page_size)


def _use_rollback_journal(file: Path) -> bytes:
    """Switch the file to a rollback journal, so that opening it leaves no -wal; return its first bytes from before."""
    with disk.Opened(file, os.O_RDWR | os.O_NOFOLLOW) as handle:
        first = os.pread(handle, changed_pages.LARGEST_PAGE, 0)
        os.pwrite(handle, b"\x01\x01", 18)
    return first


def _require_database_digest(building: _Building, one: PartChange, file: Path, as_stored: bytes) -> None:
    """Raise `Damaged` unless the database has the digest in the point; `as_stored` replaces its first page in that."""
    assert one.database
    with disk.open_plain(file, 1 << 62) as opened:
        hashes = changed_pages.hashes_of(opened, one.database.page_size, one.database.pages)
    hashes[:HASH] = changed_pages.hash_of(as_stored[: one.database.page_size])
    if State(0, hashes).root != one.database.root:
        what = one.title if building.header.others else "database"
        raise Damaged(f"The points up to {building.point.name} do not give the {what} that they recorded.", _HINT)


def _require_uploads_digest(building: _Building, one: PartChange, state: State) -> None:
    """Raise `Damaged` unless the list of uploads has the digest in the point."""
    if one.uploads and state.uploads_digest() != one.uploads:
        what = one.name or UPLOADS_FOLDER
        raise Damaged(f"The points up to {building.point.name} do not give the {what} that they recorded.", _HINT)


def _seal(
    building: _Building, found: dict[str, _FinishedPart], checksums: manifest.ChecksumWriter, emit: EventListener
) -> None:
    settings, folder, moment, header = building.settings, building.folder, building.moment, building.header
    databases = [
        _sealed_database(building, one, one.database, read, emit)
        for one in header.parts
        if one.database and (read := found[one.name].database)
    ]
    trees = [
        SealedTree(one.name or UPLOADS_FOLDER, tree, one.excluded_folders)
        for one in header.parts
        if (tree := found[one.name].tree)
    ]
    first = databases[0]
    metadata = replace(
        building.metadata,
        backup_name=folder.name,
        timestamp=settings.local(moment.at).strftime(STAMP),
        created_at=settings.local(moment.at),
        alembic_revision=first.alembic_revision,
        alembic_revisions=first.alembic_revisions,
        version_table=first.version_table,
        migrations=first.migrations,
        schema_fingerprint=first.schema_fingerprint,
        note="a point of rewind",
        database=first.database,
        uploads=found[""].tree,
        duration_seconds=None,
        linked_from=None,
        added_bytes=None,
        anomalies=(),
        references=None,
        excluded_folders=header.excluded_folders,
        databases=tuple(databases) if databases[1:] else (),
        trees=tuple(trees) if [one.name for one in trees] not in ([], [UPLOADS_FOLDER]) else (),
        databases_gap_ms=header.gap_ms if databases[1:] else None,
    )
    manifest.write_metadata(folder, metadata)
    for one in databases:
        assert one.database and one.database_file
        checksums.record(one.database_file, one.database.sha256)
    checksums.record_file(METADATA_FILE)


def _sealed_database(
    building: _Building, one: PartChange, change: DatabaseChange, found: database.Inspection, emit: EventListener
) -> SealedDatabase:
    """Return the metadata of the part's database; raise `Damaged` if its integrity check failed."""
    file, mode = building.file_of(one.name), building.facts_of(one.name).mode
    file.chmod(mode)
    if found.problems:
        what = one.title if building.header.others else "database"
        raise Damaged(f"The {what} was damaged at that time: {found.problems[0]}.", "Take an earlier point: `rewind`")
    table = _version_table(building.settings.at(one.name), found, emit)
    revisions = found.versions.get(table, ())
    return SealedDatabase(
        name=one.name or MAIN_DATABASE,
        database_file=file.name,
        alembic_revision=revisions[0] if revisions else None,
        alembic_revisions=revisions,
        version_table=table,
        migrations=found.migrations,
        schema_fingerprint=found.fingerprint,
        database=replace(found.facts, journal_mode=change.journal_mode, mode=mode),
    )


def _version_table(settings: Settings | None, found: database.Inspection, emit: EventListener) -> str:
    """Return the name of Alembic's version table; the usual one if the settings do not tell."""
    try:
        return version_table.name_of(settings, found.versions, emit) if settings else database.VERSION_TABLE
    except CannotRead:
        return database.VERSION_TABLE


# Uploads


def _build_tree(
    building: _Building, part: str, state: State, in_base: dict[str, KnownUpload], checksums: manifest.ChecksumWriter
) -> UploadsFacts:
    """Build the tree, with hard links to unchanged files of the base backup; record its checksums."""
    listed = sorted(state.uploads.items(), key=lambda one: one[0].split("/") if one[0] else [])
    _require_tree(state)
    of_tree = part or UPLOADS_FOLDER
    root = building.folder / of_tree
    root.mkdir(mode=0o700)
    builder = _TreeBuilder(building.points, building.base, root, in_base)
    files = size = attributes = 0
    with closing(tree.Parents(root)) as parents, closing(tree.Parents(building.base.path / of_tree)) as sealed:
        for path, known in listed:
            if path:
                with (
                    parents.of(path) as (within, name),
                    held.making(building.settings.dir, building.folder, f"{of_tree}/{path}", known.entry.form),
                ):
                    builder.create(known, path, name, within, sealed)
            if known.entry.form == "file":
                checksums.record(f"{of_tree}/{path}", known.entry.sha256)
                files, size = files + 1, size + known.entry.size
            attributes += len(known.entry.attributes)
        for path, known in reversed(listed):
            if known.entry.form == "folder":
                builder.set_attributes(parents.go(path), known, path)
    return UploadsFacts(
        files=files,
        bytes=size,
        folders=sum(one.entry.form == "folder" and path != "" for path, one in listed),
        links=sum(one.entry.form == "link" for _, one in listed),
        attributes=attributes,
        tree=walk.digest(root),
    )


def _require_tree(state: State) -> None:
    """Raise `Damaged` unless each path lies in a folder of the list, so that nothing is written through a symlink."""
    for path, known in state.uploads.items():
        above = state.uploads.get(path.rpartition("/")[0])
        if path and (above is None or above.entry.form != "folder"):
            raise Damaged(f"The points have an upload {path!r} in no folder.", _HINT)
        if not path and known.entry.form != "folder":
            raise Damaged("The points have uploads that are not a folder.", _HINT)


@dataclass
class _TreeBuilder:
    points: Path
    base: Backup
    root: Path
    in_base: dict[str, KnownUpload]
    keeper: Keeper = field(default_factory=Keeper)

    def create(self, known: KnownUpload, path: str, name: str, within: int, sealed: tree.Parents) -> None:
        """Create one entry."""
        entry = known.entry
        if entry.form == "folder":
            os.mkdir(name, 0o700, dir_fd=within)
        elif entry.form == "link":
            os.symlink(entry.target, name, dir_fd=within)
            with descriptors.keeping_what_it_can():
                descriptors.set_link_attributes(name, within, known.owner_to_restore, (entry.changed, entry.changed))
        elif isinstance(known.place, str):
            self._from_base(known, path, name, within, sealed)
        else:
            with disk.Opened(name, _NEW, within) as target:
                point.copy_content(self.points / known.place[0], known.place[1], entry, target)
                self.set_attributes(target, known, path)

    def _from_base(self, known: KnownUpload, path: str, name: str, within: int, sealed: tree.Parents) -> None:
        source = self.in_base.get(str(known.place))
        if source is None or source.entry.sha256 != known.entry.sha256:
            raise Damaged(f"The backup {self.base.path} has no upload {known.place!r}.", _HINT)
        with sealed.of(str(known.place)) as (folder, original):
            if source.entry == known.entry:
                with contextlib.suppress(OSError):
                    os.link(original, name, src_dir_fd=folder, dst_dir_fd=within, follow_symlinks=False)
                    return
            disk.copy_file(original, name, within=(folder, within))
        with disk.Opened(name, os.O_RDWR | os.O_NOFOLLOW, within) as target:
            self.set_attributes(target, known, path)

    def set_attributes(self, handle: int, known: KnownUpload, path: str) -> None:
        """Set owner, mode, times and extended attributes of an entry whose content is complete."""
        entry, owner = known.entry, known.owner_to_restore
        times = (entry.changed, entry.changed)
        descriptors.set_what_it_keeps(handle, owner, entry.mode, times)
        self.keeper.set(handle, {name: bytes.fromhex(value) for name, value in entry.attributes}, path)
        descriptors.set_what_it_keeps(handle, owner, entry.mode, times)
