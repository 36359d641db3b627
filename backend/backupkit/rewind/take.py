"""Take points: check whether the data changed, and write the difference.

The check of change stamps is cheap and writes nothing. If they differ, a snapshot of the database is compared with the
newest point page by page, then the uploads file by file; the difference becomes one sealed file. Several databases and
trees are read in one snapshot, and share one file. The state needed for this is kept in memory, and rebuilt from the
base backup and the points when a scheduler starts.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import own_folder
from backupkit.model.backup import APART, Backup, Metadata
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import FULL, BackupError, Damaged, Locked, NoSpace
from backupkit.repository import files_cache, lock, reliable, store
from backupkit.repository.operation import recorded
from backupkit.restore import unfinished
from backupkit.rewind import chain, point, thin, uploads
from backupkit.rewind.chain import FOLDER, Moment, Point
from backupkit.rewind.point import COMPRESSION, DatabaseChange, Header, Packed, PartChange, Writer
from backupkit.rewind.state import State, of_backup, parts_of, seal_of
from backupkit.sqlite import changed_pages, database
from backupkit.sqlite.changed_pages import Known, PagesChanged
from backupkit.sqlite.pages import HASH
from backupkit.upload_files import walk

Looked = Literal["same", "taken", "busy", "waiting", "outdated"]
_FULL_SCAN_INTERVAL = 3600  # seconds until all uploads are compared again, even if no folder changed
SHARE = 0.05  # of one processor: the most that taking points may use
_MAX_INTERVAL = 3600.0
_ATTEMPTS = 3
_DRAFT = ".draft-point"


@dataclass
class _Chain:
    """The chain that the next point goes to, and its newest state; `seen` is when the live data was last seen in it."""

    base: Backup
    seal: str
    base_state: str
    state: State
    name: str
    number: int
    newest: datetime
    seen: datetime
    files: list[str]
    size: int
    parts: dict[str, _Part]
    before: datetime | None = None
    others: int = 0
    has_begun: bool = False
    bad: frozenset[str] = frozenset()
    looked_at: float = 0.0


@dataclass
class _Part:
    """One database and tree as last seen: change stamps of database and folders, and the base's files by checksum."""

    settings: Settings
    in_base: dict[str, str]
    stamp: changed_pages.Stamp | None = None
    folders: dict[str, str] = field(default_factory=dict)


class Rewinder:
    """Takes points of one app, one look at a time; `interval` is the time between looks in force, in seconds."""

    def __init__(self, settings: Settings, clock: Clock = utc_now) -> None:
        self.settings, self._clock = settings, clock
        self.interval = settings.rewind_interval
        self._chain: _Chain | None = None
        self._backups: tuple[int, ...] = ()
        self._base: Backup | None = None
        self._last_seen: datetime | None = None
        self.unreadable: tuple[str, ...] = ()
        """Uploads that could not be read at the last full comparison; no point holds their current content."""
        self.outdated = ""
        """A sentence on databases or trees added or removed since the newest backup, which no point can build on."""

    def use(self, settings: Settings) -> None:
        """Use these settings from now on."""
        if settings != self.settings:
            self.settings, self.interval = settings, settings.rewind_interval
            self._chain, self._backups = None, ()

    def look(self) -> Looked:
        """Take a point if the data changed since the newest one; return `taken`, or else why not.

        `same`: nothing changed; `waiting`: there is no base backup; `outdated`: a new backup is needed first; `busy`:
        another run holds the lock, or a restore is unfinished. Raises what a backup raises. No error changes existing
        points.
        """
        base = self._newest_backup()
        if base is None:
            return "waiting"
        if outdated := _changed_parts(self.settings, base):
            self.outdated = outdated
            return "outdated"
        if self._chain and self._chain.base.name == base.name and self._is_unchanged(self._chain):
            self._chain.seen = self._last_seen = self._clock()
            return "same"
        try:
            with lock.held(self.settings.dir, "rewind", 0):
                if unfinished.exists(self.settings):
                    return "busy"
                self._require_room(base)
                looked = self._take_point(base)
                if looked == "taken" and self._chain:
                    if self._chain.number == 1:
                        self._record("rewind-start", base.name, note="a chain of points begins")
                    self._keep_within_limits(self._chain)
                return looked
        except Locked:
            return "busy"
        except OSError as error:
            self._chain = None
            if error.errno in FULL:
                raise NoSpace(
                    f"The disk is full: no point of rewind could be written to {self.settings.dir}.",
                    hint="Make room there: `list` shows the backups and their sizes.",
                ) from error
            raise

    def _record(self, command: str, *names: str, note: str) -> None:
        """Add an entry to the history; an error there does not stop the taking of points."""
        with contextlib.suppress(BackupError, OSError), recorded(self.settings, command, clock=self._clock) as work:
            work.concerning(*names, note=note)

    def _newest_backup(self) -> Backup | None:
        """Return the newest backup that can be a base; search again only after the backups folder changed."""
        facts = os.stat(self.settings.dir)
        looks = (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
        if looks != self._backups:
            usable = (one for one in store.own_backups(self.settings) if is_base(self.settings, one))
            self._base = next(usable, None)
            self._backups = looks if time.time_ns() - facts.st_mtime_ns > 2_000_000_000 else ()
        return self._base

    def _is_unchanged(self, known: _Chain) -> bool:
        if not all(_is_database_unchanged(one) for one in known.parts.values()):
            return False
        if not self._has_no_new_damage(known):
            return False
        trees = [(one.settings.uploads, one.folders) for one in known.parts.values()]
        if not any(live for live, _ in trees):
            return True
        if time.monotonic() - known.looked_at > _FULL_SCAN_INTERVAL:
            return False
        return all(uploads.folders_are_as(live, folders) for live, folders in trees if live)

    def _take_point(self, base: Backup) -> Looked:
        before, was_known = os.times(), self._chain is not None
        try:
            with own_folder.made(self.settings.dir, FOLDER, base.name) as folder:
                known = self._chain
                if known is None or known.base.name != base.name or not self._is_current(known, folder):
                    self._chain = known = self._load_chain(base, folder)
                return self._write_point(known, folder)
        except BaseException:
            self._chain = None  # the state in memory may be half changed
            raise
        finally:
            after = os.times()
            cost = sum(after[:4]) - sum(before[:4])
            if was_known:  # the first look at a chain reads everything, so its cost is not typical
                self.interval = min(max(self.settings.rewind_interval, cost / SHARE), _MAX_INTERVAL)

    def _is_current(self, known: _Chain, folder: Path) -> bool:
        """Return whether the files are those that this process knows, and no new damage was found in them."""
        return known.files == chain.files(folder) and self._has_no_new_damage(known)

    def _has_no_new_damage(self, known: _Chain) -> bool:
        """Return whether no point was found damaged since the chain was read; the newest point may build on it."""
        return known.bad >= chain.damaged(self.settings.dir, known.base.name).keys()

    def _load_chain(self, base: Backup, folder: Path) -> _Chain:
        """Read the chain, up to the state of its newest restorable point; remember the points found damaged."""
        (folder / _DRAFT).unlink(missing_ok=True)
        seal, metadata = seal_of(base), store.require_metadata(base)
        points, lost = chain.read(self.settings.dir, base.name)
        bad = {**{one.name: one.why for one in lost}, **chain.damaged(self.settings.dir, base.name)}
        number = max((point.number_of(name) or 0 for name in chain.files(folder)), default=0)
        while True:
            state = of_backup(base)
            parts = {
                part: _Part(its_own, dict(uploads.by_checksum(one.uploads)))
                for part, one in state.parts.items()
                if (its_own := self.settings.at(part))
            }
            base_state = state.name
            moments, _ = chain.moments_of(points, seal, metadata.created_at, bad)
            way = _way_to_newest(moments, base_state)
            wrong = _apply(state, way, folder)
            if not wrong:
                break
            bad |= wrong
            chain.remember_damaged(self.settings.dir, base.name, bad)
        last = way[-1] if way else None
        at = last.at if last else metadata.created_at
        size = sum(one.size for one in points)
        before = self._last_seen if not points else None
        found = _Chain(
            base, seal, base_state, state, state.name, number, at, at, chain.files(folder), size, parts, before
        )
        found.has_begun, found.bad = bool(way), frozenset(bad)
        return found

    def _require_room(self, base: Backup) -> None:
        most, known = self.settings.rewind_max_bytes, self._chain
        if known and known.base.name == base.name and 0 < most < known.size + known.others:
            raise BackupError(
                f"The points in {self.settings.dir} take more than rewind_max_bytes, {most:,}: no more are taken until "
                "the next backup.",
                hint="Raise it: `config set rewind_max_bytes`",
            )

    def _keep_within_limits(self, known: _Chain) -> None:
        """Thin older points when a chain begins, and whenever all points take more than `rewind_max_bytes`."""
        most = self.settings.rewind_max_bytes
        if known.number > 1 and not 0 < most < known.size + known.others:
            return
        gone = thin.thin(self.settings, self._clock(), known.base.name)
        if gone > 0:
            self._record("rewind-thin", note=f"{gone} points were merged or removed")
        points = [chain.read(self.settings.dir, name)[0] for name in chain.chains(self.settings.dir)]
        known.others = sum(one.size for found in points for one in found if one.chain != known.base.name)
        known.size = sum(one.size for found in points for one in found if one.chain == known.base.name)
        with chain.opened(self.settings.dir, known.base.name) as folder:
            known.files = chain.files(folder) if folder else []

    def _write_point(self, known: _Chain, folder: Path) -> Looked:
        writer = Writer(folder / _DRAFT)
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    return self._write_difference(known, folder, writer)
                except PagesChanged:
                    writer.abandon()
                    writer = Writer(folder / _DRAFT)
                    if attempt == _ATTEMPTS - 1:
                        lives = ", ".join(str(one.settings.database) for one in _databases(known).values())
                        raise BackupError(
                            f"{lives} could not be read as of one moment.", hint="See `doctor`."
                        ) from None
        finally:
            writer.abandon()
        raise AssertionError

    def _write_difference(self, known: _Chain, folder: Path, writer: Writer) -> Looked:
        at = self._clock()
        found, gap = self._read_pages(known, writer)
        scans = {part: self._scan(part, one, known, writer) for part, one in known.parts.items()}
        self.unreadable = tuple(path for scan in scans.values() for path in scan.unreadable)
        is_same = all(one.is_same for one in found.values()) and not any(scan.changes for scan in scans.values())
        if is_same and known.has_begun:
            self._mark_seen(known, scans, found, at)
            return "same"
        known.number += 1
        name = point.name_of(known.number, at)
        new = _new_state(known.state, found, scans, name)
        first, *others = (_part_change(part, new.parts[part], found.get(part), scans[part]) for part in scans)
        is_set_back = at <= known.newest
        stamps = [one.stamp for one in found.values()]
        assert first.database
        header = Header(
            at=at,
            since=chain.SET_BACK if is_set_back else known.seen,
            interval=self.interval,
            base=known.base.name,
            seal=known.seal,
            base_state=known.base_state,
            parent=known.name,
            state=new.name,
            database=first.database,
            uploads=first.uploads,
            changes=first.changes,
            before=known.before,
            excluded_folders=first.excluded_folders,
            stamp="; ".join(map(str, stamps)) if all(stamps) else "",
            packed=first.packed if others else "",
            gap_ms=gap,
            others=tuple(others),
            format=2 if others else 1,
        )
        known.size += writer.finish(header, folder / name)
        known.state, known.name, known.newest, known.has_begun = new, header.state, at, True
        known.files = chain.files(folder)
        self._mark_seen(known, scans, found, at)
        return "taken"

    def _read_pages(self, known: _Chain, writer: Writer) -> tuple[dict[str, _DatabaseRead], float]:
        """Write the changed pages of each database to the point; also return the snapshots' distance in ms."""
        parts = _databases(known)
        before = {part: changed_pages.stamp_of(one.settings.database) for part, one in parts.items()}
        states = known.state.parts
        wanted = [
            Known(one.settings.database, states[part].page_size, bytes(states[part].hashes), part)
            for part, one in parts.items()
        ]
        with changed_pages.changed(wanted, self.settings.busy_timeout) as (found, gap):
            opened = {part: changed_pages.stamp_of(one.settings.database) for part, one in parts.items()}
            stamps = {part: one if one.is_as(before[part]) and one.is_settled else None for part, one in opened.items()}
            read = {
                part: _read_database(states[part], one, writer, stamps[part])
                for part, one in zip(parts, found, strict=True)
            }
        return read, gap

    def _mark_seen(
        self, known: _Chain, scans: dict[str, uploads.Scan], found: dict[str, _DatabaseRead], at: datetime
    ) -> None:
        for part, scan in scans.items():
            listed, one = known.state.parts[part].uploads, known.parts[part]
            for path, seen in scan.stamps.items():
                listed[path] = listed[path]._replace(stamp=seen)
            one.folders = scan.folders
            if part in found:
                one.stamp = found[part].stamp
        known.seen = self._last_seen = at
        known.looked_at = time.monotonic()

    def _scan(self, part: str, one: _Part, known: _Chain, writer: Writer) -> uploads.Scan:
        with self._base_cache(one, known) as earlier:
            live = one.settings.uploads
            scan = uploads.Scan(live or Path(), known.state.parts[part].uploads, writer, earlier, one.in_base)
            if live:
                walk.require(live, part)
                scan.run(one.settings)
        if part:
            scan.unreadable = [f"{part}/{path}" for path in scan.unreadable]
        return scan

    @contextlib.contextmanager
    def _base_cache(self, one: _Part, known: _Chain) -> Iterator[files_cache.ParentBackup | None]:
        """Yield the files cache of the base backup; None if it is lost, or if the live files were compared before."""
        if known.looked_at or one.settings.uploads is None:
            yield None
            return
        with files_cache.newest(one.settings, with_uploads=True) as found:
            yield found if found and found.folder.name == known.base.name else None


class _DatabaseRead(Struct, frozen=True):
    """One database in the new snapshot: its state, and the facts on its changed pages in the point."""

    state: State
    packed: Packed
    journal_mode: str
    is_same: bool
    stamp: changed_pages.Stamp | None


def _read_database(
    state: State, found: changed_pages.Changed, writer: Writer, stamp: changed_pages.Stamp | None
) -> _DatabaseRead:
    new = State(found.page_size, state.hashes[:] if found.page_size == state.page_size else bytearray())
    new.resize(found.pages)
    for number, content in found.found:
        writer.add_page(number, content)
        new.hashes[(number - 1) * HASH : number * HASH] = changed_pages.hash_of(content)
    packed = writer.end_pages()
    return _DatabaseRead(new, packed, found.journal_mode, not packed.changed and new.hashes == state.hashes, stamp)


def _way_to_newest(moments: Sequence[Moment], base_state: str) -> tuple[Point, ...]:
    """Return the points from the base backup to the newest moment of a chain that begins in that state."""
    fitting = [one for one in moments if one.point is None or one.point.header.base_state == base_state]
    newest = max(fitting, key=lambda one: one.point.number if one.point else 0, default=None)
    return newest.way if newest else ()


def _apply(state: State, way: Sequence[Point], folder: Path) -> dict[str, str]:
    """Apply the points to the state; return the first damaged one with the reason, where that ends it."""
    for one in way:
        try:
            state.apply(folder / one.name, one.header)
        except Damaged as error:
            return {one.name: error.message}
    return {}


def _databases(known: _Chain) -> dict[str, _Part]:
    """Return the parts that have a database."""
    return {part: one for part, one in known.parts.items() if known.state.parts[part].page_size}


def _new_state(state: State, found: dict[str, _DatabaseRead], scans: dict[str, uploads.Scan], name: str) -> State:
    """Return the state after the new point of that name."""
    parts = {
        part: replace(found[part].state if part in found else State(0, bytearray()), uploads=dict(before.uploads))
        for part, before in state.parts.items()
    }
    for part, scan in scans.items():
        parts[part].change(name, scan.changes)
    new = parts.pop("")
    new.others = parts
    return new


def _part_change(part: str, new: State, found: _DatabaseRead | None, scan: uploads.Scan) -> PartChange:
    made = PartChange(
        part, uploads=new.signature(part)[-1], changes=tuple(scan.changes), excluded_folders=scan.excluded
    )
    if found is None:
        return made
    packed = found.packed
    change = DatabaseChange(
        new.page_size, new.pages, new.root, packed.changed, packed.length, COMPRESSION, found.journal_mode
    )
    return replace(made, database=change, offset=packed.offset, packed=packed.sha256)


def _is_database_unchanged(one: _Part) -> bool:
    """Return whether the database has its last change stamp; a further tree has no database, so nothing changed."""
    if one.settings.part in one.settings.whole.trees:
        return True
    return one.stamp is not None and one.stamp == changed_pages.stamp_of(one.settings.database)


# Base backup


def _changed_parts(settings: Settings, base: Backup) -> str:
    """Return a sentence on the databases and trees that differ between app and backup; empty if none do."""
    known, there = set(parts_of(store.require_metadata(base))), set(_present_parts(settings))
    came = [f"{name} came" for name in sorted(there - known)]
    gone = [f"{name} is gone" for name in sorted(known - there)]
    if not came and not gone:
        return ""
    return f"{', '.join(came + gone)} since the backup {base.name}: points continue from a new backup."


def _present_parts(settings: Settings) -> Iterator[str]:
    """Yield the further databases and trees, except optional ones that are missing."""
    for one in settings.parts[1:]:
        is_absent = one.is_optional and one.uploads is not None and not os.path.lexists(one.uploads)
        if not (is_absent or (one.uploads is None and database.is_optional_and_absent(one))):
            yield one.part


def is_base(settings: Settings, backup: Backup) -> bool:
    """Return whether a chain can begin with this backup: complete, of this app, and made with the same settings."""
    metadata = backup.metadata
    return bool(
        metadata
        and backup.state in ("checked", "proven")
        and metadata.kind not in APART
        and metadata.database
        and metadata.database_file == settings.database.name
        and all(_matches_settings(settings.at(name), metadata.at(name)) for name in parts_of(metadata))
        and all(one.is_optional or metadata.at(one.part) for one in settings.parts[1:])
        and metadata.uploads_included == (settings.uploads is not None)
        and (settings.uploads is None or _excludes(metadata) == _excludes(settings))
        and reliable.is_own(settings, metadata)
    )


def _matches_settings(part: Settings | None, metadata: Metadata | None) -> bool:
    """Return whether a part of a backup matches the settings: both are a tree, or a database of the same file name."""
    if part is None or metadata is None:
        return False
    if part.uploads is not None:
        return metadata.uploads_included
    return bool(metadata.database) and metadata.database_file == part.database.name


def _excludes(one: Settings | Metadata) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the exclude rules for the uploads."""
    return tuple(one.exclude), tuple(one.exclude_marked)
