"""Database and uploads of one moment, laid out as a backup: so they are restored as any backup is.

The folder is a draft: it is there as long as the restore is prepared. Every byte in it is compared with what was
sealed, in the points here, and in the backup when the restore verifies what it uses.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from backupkit.config.settings import Settings
from backupkit.fs import descriptors, disk, space, tree
from backupkit.fs.attributes import Keeper
from backupkit.migrations import version_table
from backupkit.migrations.schema import CannotRead
from backupkit.model import times
from backupkit.model.backup import METADATA_FILE, UPLOADS_FOLDER, Backup, Metadata, UploadsFacts
from backupkit.model.errors import Damaged, NoSuchBackup, Refused
from backupkit.model.events import EventListener, Step, silence
from backupkit.model.names import STAMP
from backupkit.repository import manifest, store
from backupkit.rewind import chain, point
from backupkit.rewind.chain import Moment, Timeline
from backupkit.rewind.point import Entry
from backupkit.rewind.state import Known, State, of_backup, seal_of
from backupkit.scheduling import scheduler_lock
from backupkit.sqlite import changed_pages, database
from backupkit.upload_files import walk

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_OTHER = "`rewind` shows what can be restored."


@dataclass(frozen=True)
class Chosen:
    """What a time leads to: a point, or a backup where no point is as near; and a sentence on it."""

    moment: Moment | None
    backup: str
    at: datetime
    sentence: str


def timeline(settings: Settings) -> Timeline:
    """All moments that can be restored, by what the headers of the points say."""
    moments, lost, size = list[Moment](), list[chain.Lost](), 0
    for name in chain.chains(settings.dir):
        points, broken = chain.read(settings.dir, name)
        size += sum(one.size for one in points)
        lost += broken
        backup = store.read(settings, name) if store.is_backup(settings.dir / name) else None
        if backup is None or backup.metadata is None or not manifest.has_checksums(backup.path):
            lost += [chain.Lost(name, one.name, f"the backup {name} is gone or damaged") for one in points]
            continue
        found, without = chain.moments_of(points, seal_of(backup), backup.made_at)
        moments += found
        lost += without
    return Timeline(tuple(sorted(moments, key=lambda one: one.at)), tuple(lost), size)


def check(settings: Settings, emit: EventListener = silence) -> list[chain.Lost]:
    """Each point that cannot be restored, with why: every byte of all of them is read, and followed to its end."""
    lost = list[chain.Lost]()
    for name in chain.chains(settings.dir):
        emit(Step(f"Checking the points after {name}"))
        points, broken = chain.read(settings.dir, name)
        backup = store.read(settings, name) if store.is_backup(settings.dir / name) else None
        if backup is None or backup.metadata is None or not manifest.has_checksums(backup.path):
            lost += broken + [chain.Lost(name, one.name, f"the backup {name} is gone or damaged") for one in points]
            continue
        lost += sorted((*broken, *_check_chain(settings, backup, points)), key=lambda one: one.name)
    return lost


def _check_chain(settings: Settings, backup: Backup, points: list[chain.Point]) -> Iterator[chain.Lost]:
    """The points of one chain are followed in their order, from the backup on; those that lead nowhere."""
    state = of_backup(backup)
    at, bad = state.name, set[str]()
    with chain.opened(settings.dir, backup.name) as folder:
        assert folder is not None
        for one in points:
            _, lost = chain.ways([other for other in points if other.name not in bad], seal_of(backup))
            if unreachable := next((other for other in lost if other.name == one.name), None):
                yield unreachable
                continue
            try:
                if one.header.parent != at:  # an earlier one was lost, or a merge was killed before its end
                    state = _state_before(folder, backup, points, one, bad)
                state.apply(folder / one.name, one.header)
                at = one.header.state
            except Damaged as error:
                bad.add(one.name)
                state, at = of_backup(backup), ""
                yield chain.Lost(backup.name, one.name, error.message)


def _state_before(folder: Path, backup: Backup, points: list[chain.Point], wanted: chain.Point, bad: set[str]) -> State:
    """What the point leads from."""
    before, _ = chain.ways([one for one in points if one.name not in bad], seal_of(backup))
    state = of_backup(backup)
    for one in chain.way_to(wanted, before)[:-1]:
        state.apply(folder / one.name, one.header)
    return state


def choose_by_words(settings: Settings, text: str, now: datetime) -> tuple[Chosen, datetime, tuple[str, ...]]:
    """What `choose` finds for a time as people say it; that time, and what is to be said of it and of the choice.

    Raises as `choose` does, and `Refused` for what is no time.
    """
    at, said = times.moment(text, now, settings.zone)
    chosen = choose(settings, at, now)
    return chosen, at, tuple(filter(None, (said, chosen.sentence)))


def choose(settings: Settings, at: datetime, now: datetime) -> Chosen:
    """The newest moment at that time or before: a point, or a backup that is newer than the newest point.

    Raises `Refused` for a time in the future, or one in a gap, with both sides named; `NoSuchBackup` for one before
    everything.
    """
    found = timeline(settings)
    if at > now + timedelta(seconds=1):
        raise Refused(f"{_said(settings, at)} is in the future: it is {_said(settings, now)}.", hint=_OTHER)
    if sides := found.in_gap(at):
        _refuse_gap(settings, at, *sides)
    moment = found.before(at)
    backup = _newest_backup(settings, at)
    if moment and not found.after(at):
        _require_watched(settings, at, moment, now, backup)
    if moment and moment.point and (backup is None or moment.at >= backup.made_at):
        return _with_point(settings, found, moment)
    if backup is None:
        first = f" The first is of {_said(settings, found.moments[0].at)}." if found.moments else ""
        raise NoSuchBackup(
            f"There is no backup in {settings.dir} made until {_said(settings, at)}, and no point of rewind.{first}",
            hint="`list` shows all backups, `rewind` all points.",
        )
    return Chosen(None, backup.name, backup.made_at, f"The newest until then is the backup {backup.name}.")


def _with_point(settings: Settings, found: Timeline, moment: Moment) -> Chosen:
    assert moment.point is not None
    later = found.after(moment.at)
    after = f"; the next one is of {_said(settings, later.at)}" if later else ", the newest"
    sentence = f"The point of {_said(settings, moment.at)}{after}. What was written after it is not in it."
    return Chosen(moment, moment.chain, moment.at, sentence)


def _newest_backup(settings: Settings, at: datetime) -> Backup | None:
    try:
        return store.latest(settings, until=at).backup
    except NoSuchBackup:
        return None


def _refuse_gap(settings: Settings, at: datetime, before: Moment, after: Moment) -> None:
    raise Refused(
        f"Nobody looked at the data at {_said(settings, at)}: there is a gap from {_said(settings, before.at)} to "
        f"{_said(settings, after.at)}.",
        hint=f'Take one side of it: --at "{_typed(settings, before.at)}" or --at "{_typed(settings, after.at)}"',
    )


def _require_watched(settings: Settings, at: datetime, moment: Moment, now: datetime, backup: Backup | None) -> None:
    """`Refused` where the time is behind the last look, and the data changed since."""
    if at <= moment.at + moment.tolerance or (backup and backup.made_at > moment.at):
        return
    looked = scheduler_lock.last_look(settings.dir)
    if looked and at <= min(now, looked + moment.tolerance):
        return
    stamp = moment.point.header.stamp if moment.point else ""
    if stamp and stamp == str(changed_pages.stamp_of(settings.database)):
        return
    is_on = scheduler_lock.is_anyone_on(settings.dir)
    unwatched = "the scheduler has not looked since." if is_on else "no scheduler is at work."
    raise Refused(
        f"Nobody looked at the data at {_said(settings, at)}: the last point is of {_said(settings, moment.at)}, and "
        + (f"the scheduler last looked at {_said(settings, looked)}." if looked else unwatched),
        hint=f'Take that one: --at "{_typed(settings, moment.at)}". What is live now is in no point: `backup`',
    )


def _said(settings: Settings, at: datetime) -> str:
    return f"{settings.local(at):%Y-%m-%d %H:%M:%S %Z}"


def _typed(settings: Settings, at: datetime) -> str:
    """The time as it can be typed, by the next whole second."""
    at += timedelta(microseconds=-at.microsecond % 1_000_000)
    return settings.local(at).isoformat()


@contextlib.contextmanager
def built(settings: Settings, moment: Moment, emit: EventListener = silence) -> Iterator[Backup]:
    """The moment as a backup in a folder of its own, which is gone when the block ends.

    Raises `Damaged` where a point that leads there, or the backup, is not as it was written; `NoSpace`.
    """
    base = store.read(settings, moment.chain)
    metadata = store.require_metadata(base)
    assert moment.point and metadata.database and metadata.database_file
    emit(Step(f"Building the point of {_said(settings, moment.at)}"))
    new = sum(change.entry.size for one in moment.way for change in one.header.changes if change.entry)
    space.require(moment.point.header.database.pages * moment.point.header.database.page_size + new, settings.dir, "It")
    with store.work_folder(settings, "rewind", "restore of a point") as work:
        folder = work / f"point_{settings.local(moment.at).strftime(STAMP)}"
        folder.mkdir(mode=0o700)
        with chain.opened(settings.dir, moment.chain) as points:
            if points is None:
                raise Damaged(f"The points of {moment.chain} are gone.", _OTHER)
            state = _follow(points, base, metadata, moment, folder / metadata.database_file)
            with closing(manifest.ChecksumWriter(folder)) as checksums:
                facts = _lay_uploads(points, base, state, folder, checksums) if metadata.uploads_included else None
                _seal(settings, folder, metadata, moment, facts, checksums, emit)
        yield store.read_at(folder, settings.zone)


def _follow(points: Path, base: Backup, metadata: Metadata, moment: Moment, file: Path) -> State:
    """The database is in the file, page by page as it was; the uploads as they are to be."""
    assert moment.point and metadata.database and metadata.database_file
    if seal_of(base) != moment.point.header.seal:
        raise Damaged(f"The backup {base.path} is not the one that the point was made after.", _OTHER)
    state = of_backup(base, with_pages=False)
    disk.copy_file(base.path / metadata.database_file, file)
    size = metadata.database.page_size
    with disk.Opened(file, os.O_RDWR | os.O_NOFOLLOW) as handle:
        for one in moment.way:
            point.verify(points / one.name)
            header = one.header.database
            if header.page_size != size:
                os.ftruncate(handle, 0)
                size = header.page_size
            for number, content in point.pages(points / one.name, header):
                os.pwrite(handle, content, (number - 1) * size)
            os.ftruncate(handle, header.pages * size)
            state.change(one.name, one.header.changes)
    _require_right(file, state, moment)
    return state


def _require_right(file: Path, state: State, moment: Moment) -> None:
    """Database and list of uploads are those that the point leads to, and the file is one that nothing lies beside."""
    assert moment.point is not None
    header = moment.point.header
    with disk.open_plain(file, 1 << 62) as opened:
        found = State(0, changed_pages.hashes_of(opened, header.database.page_size, header.database.pages))
    if found.root != header.database.root:
        raise Damaged(f"The points up to {moment.point.name} do not lead to the database that they name.", _OTHER)
    if state.uploads_digest() != header.uploads:
        raise Damaged(f"The points up to {moment.point.name} do not lead to the uploads that they name.", _OTHER)
    with disk.Opened(file, os.O_RDWR | os.O_NOFOLLOW) as handle:
        os.pwrite(handle, b"\x01\x01", 18)  # a rollback journal: opening it must leave no -wal


def _seal(
    settings: Settings,
    folder: Path,
    base: Metadata,
    moment: Moment,
    uploads: UploadsFacts | None,
    checksums: manifest.ChecksumWriter,
    emit: EventListener,
) -> None:
    assert moment.point and base.database and base.database_file
    file = folder / base.database_file
    file.chmod(base.database.mode)
    found = database.inspect(file, emit)
    if found.problems:
        raise Damaged(f"The database was damaged at that time: {found.problems[0]}.", "Take an earlier point: `rewind`")
    facts = replace(found.facts, journal_mode=moment.point.header.database.journal_mode, mode=base.database.mode)
    try:
        table = version_table.name_of(settings, found.versions, emit)
    except CannotRead:
        table = database.VERSION_TABLE
    revisions = found.versions.get(table, ())
    metadata = replace(
        base,
        backup_name=folder.name,
        timestamp=settings.local(moment.at).strftime(STAMP),
        created_at=settings.local(moment.at),
        alembic_revision=revisions[0] if revisions else None,
        alembic_revisions=revisions,
        version_table=table,
        migrations=found.migrations,
        schema_fingerprint=found.fingerprint,
        note="a point of rewind",
        database=facts,
        uploads=uploads,
        duration_seconds=None,
        linked_from=None,
        added_bytes=None,
        anomalies=(),
        references=None,
        excluded_folders=moment.point.header.excluded_folders,
        databases=(),
        trees=(),
        databases_gap_ms=None,
    )
    manifest.write_metadata(folder, metadata)
    checksums.record(base.database_file, facts.sha256)
    checksums.record_file(METADATA_FILE)


# The uploads.


def _lay_uploads(
    points: Path, base: Backup, state: State, folder: Path, checksums: manifest.ChecksumWriter
) -> UploadsFacts:
    """The tree, its unchanged files linked from the backup."""
    listed = sorted(state.uploads.items(), key=lambda one: one[0].split("/") if one[0] else [])
    _require_tree(state)
    root = folder / UPLOADS_FOLDER
    root.mkdir(mode=0o700)
    laying = _Laying(points, base, root, of_backup(base, with_pages=False).uploads)
    files = size = attributes = 0
    with closing(tree.Parents(root)) as parents, closing(tree.Parents(base.path / UPLOADS_FOLDER)) as sealed:
        for path, known in listed:
            if path:
                with parents.of(path) as (within, name):
                    laying.lay(known, path, name, within, sealed)
            if known.entry.form == "file":
                checksums.record(f"{UPLOADS_FOLDER}/{path}", known.entry.sha256)
                files, size = files + 1, size + known.entry.size
            attributes += len(known.entry.attributes)
        for path, known in reversed(listed):
            if known.entry.form == "folder":
                laying.finish_folder(parents.go(path), known.entry, path)
    return UploadsFacts(
        files=files,
        bytes=size,
        folders=sum(one.entry.form == "folder" and path != "" for path, one in listed),
        links=sum(one.entry.form == "link" for _, one in listed),
        attributes=attributes,
        tree=walk.digest(root),
    )


def _require_tree(state: State) -> None:
    """Each path lies in a folder of the list: nothing is written through a link."""
    for path, known in state.uploads.items():
        above = state.uploads.get(path.rpartition("/")[0])
        if path and (above is None or above.entry.form != "folder"):
            raise Damaged(f"The points have an upload {path!r} in no folder.", _OTHER)
        if not path and known.entry.form != "folder":
            raise Damaged("The points have uploads that are no folder.", _OTHER)


@dataclass
class _Laying:
    points: Path
    base: Backup
    root: Path
    in_base: dict[str, Known]

    def __post_init__(self) -> None:
        self._keeper = Keeper()

    def lay(self, known: Known, path: str, name: str, within: int, sealed: tree.Parents) -> None:
        """One entry is there."""
        entry = known.entry
        if entry.form == "folder":
            os.mkdir(name, 0o700, dir_fd=within)
        elif entry.form == "link":
            os.symlink(entry.target, name, dir_fd=within)
            owner = entry.owner or (os.geteuid(), os.getegid())
            descriptors.set_link_attributes(name, within, owner, (entry.changed, entry.changed))
        elif isinstance(known.place, str):
            self._from_base(known, path, name, within, sealed)
        else:
            with disk.Opened(name, _NEW, within) as target:
                point.copy_content(self.points / known.place[0], known.place[1], entry, target)
                self._dress(target, entry, path)

    def _from_base(self, known: Known, path: str, name: str, within: int, sealed: tree.Parents) -> None:
        source = self.in_base.get(str(known.place))
        if source is None or source.entry.sha256 != known.entry.sha256:
            raise Damaged(f"The backup {self.base.path} has no upload {known.place!r}.", _OTHER)
        with sealed.of(str(known.place)) as (folder, original):
            if source.entry == known.entry:
                with contextlib.suppress(OSError):
                    os.link(original, name, src_dir_fd=folder, dst_dir_fd=within, follow_symlinks=False)
                    return
            disk.copy_file(original, name, within=(folder, within))
        with disk.Opened(name, os.O_RDWR | os.O_NOFOLLOW, within) as target:
            self._dress(target, known.entry, path)

    def finish_folder(self, handle: int, entry: Entry, path: str) -> None:
        """What is in the folder is there: it gets its attributes."""
        self._dress(handle, entry, path)

    def _dress(self, handle: int, entry: Entry, path: str) -> None:
        owner = entry.owner or (os.geteuid(), os.getegid())
        times = (entry.changed, entry.changed)
        disk.set_owner_mode_times(handle, owner, entry.mode, times)
        self._keeper.give(handle, {name: bytes.fromhex(value) for name, value in entry.attributes}, path)
        disk.set_owner_mode_times(handle, owner, entry.mode, times)
