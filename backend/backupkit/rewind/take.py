"""Take points: look whether the data changed, and write what did.

A look at stamps costs next to nothing and writes nothing. Where they differ, one moment of the database is compared
with the newest point page by page, then the uploads file by file; what differs becomes one sealed file. What is needed
for that is kept in memory, and made anew from the backup and the points when a scheduler begins.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from backupkit.config.settings import Settings
from backupkit.fs import own_folder
from backupkit.model.backup import APART, Backup, Metadata
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import FULL, BackupError, Damaged, Locked, NoSpace
from backupkit.repository import files_cache, lock, reliable, store
from backupkit.repository.operation import recorded
from backupkit.restore import unfinished
from backupkit.rewind import chain, point, thin, uploads
from backupkit.rewind.chain import FOLDER
from backupkit.rewind.point import DatabaseChange, Header, Writer
from backupkit.rewind.state import State, of_backup, seal_of
from backupkit.sqlite import changed_pages
from backupkit.sqlite.changed_pages import Unsettled
from backupkit.sqlite.pages import HASH
from backupkit.upload_files import walk

Looked = Literal["same", "taken", "busy", "waiting"]
_WHOLE = 3600  # seconds until all uploads are looked at, whatever their folders say
SHARE = 0.05  # of a processor that points may cost
_LONGEST = 3600.0
_ATTEMPTS = 3
_DRAFT = ".draft-point"


@dataclass
class _Chain:
    """The chain that the next point goes to, and the state of its newest one; `seen` is when that was last live."""

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
    in_base: dict[str, str]
    before: datetime | None = None
    others: int = 0
    has_begun: bool = False
    bad: frozenset[str] = frozenset()
    stamp: changed_pages.Stamp | None = None
    folders: dict[str, str] = field(default_factory=dict)
    looked_at: float = 0.0


class Rewinder:
    """Takes points of one app, one look at a time; `interval` is in force, in seconds."""

    def __init__(self, settings: Settings, clock: Clock = utc_now) -> None:
        self.settings, self._clock = settings, clock
        self.interval = settings.rewind_interval
        self._chain: _Chain | None = None
        self._backups: tuple[int, ...] = ()
        self._base: Backup | None = None
        self._last_seen: datetime | None = None
        self.unreadable: tuple[str, ...] = ()
        """Uploads that could not be read at the last whole look: they are in no point."""

    def use(self, settings: Settings) -> None:
        """From now on by these settings."""
        if settings != self.settings:
            self.settings, self.interval = settings, settings.rewind_interval
            self._chain, self._backups = None, ()

    def look(self) -> Looked:
        """Whether the data are as in the newest point, or a point of them was taken.

        `waiting` where there is no backup to begin with, `busy` where another run is at work. Raises what a backup
        raises; points that are there stay as they are, whatever happens.
        """
        base = self._newest_backup()
        if base is None:
            return "waiting"
        if self._chain and self._chain.base.name == base.name and self._is_as_before(self._chain):
            self._chain.seen = self._last_seen = self._clock()
            return "same"
        try:
            with lock.held(self.settings.dir, "rewind", 0):
                if unfinished.exists(self.settings):
                    return "busy"
                self._require_room(base)
                looked = self._take(base)
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
                    f"The disk is full: no point of rewind could be written to {self.settings.dir}."
                ) from error
            raise

    def _record(self, command: str, *names: str, note: str) -> None:
        """The history has it; that it cannot be written costs no point."""
        with contextlib.suppress(BackupError, OSError), recorded(self.settings, command, clock=self._clock) as work:
            work.concerning(*names, note=note)

    def _newest_backup(self) -> Backup | None:
        """The newest whole backup of this app; looked for when something came or went."""
        facts = os.stat(self.settings.dir)
        looks = (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
        if looks != self._backups:
            usable = (one for one in store.own_backups(self.settings) if is_base(self.settings, one))
            self._base = next(usable, None)
            self._backups = looks if time.time_ns() - facts.st_mtime_ns > 2_000_000_000 else ()
        return self._base

    def _is_as_before(self, known: _Chain) -> bool:
        if known.stamp is None or known.stamp != changed_pages.stamp_of(self.settings.database):
            return False
        if not self._knows_damage(known):
            return False
        if self.settings.uploads is None:
            return True
        if time.monotonic() - known.looked_at > _WHOLE:
            return False
        return uploads.folders_are_as(self.settings.uploads, known.folders)

    def _take(self, base: Backup) -> Looked:
        before, was_known = os.times(), self._chain is not None
        try:
            with own_folder.made(self.settings.dir, FOLDER, base.name) as folder:
                known = self._chain
                if known is None or known.base.name != base.name or not self._is_current(known, folder):
                    self._chain = known = self._load(base, folder)
                return self._write(known, folder)
        except BaseException:
            self._chain = None  # what is known may be half changed
            raise
        finally:
            after = os.times()
            cost = sum(after[:4]) - sum(before[:4])
            if was_known:  # the first look at a chain reads more than all others
                self.interval = min(max(self.settings.rewind_interval, cost / SHARE), _LONGEST)

    def _is_current(self, known: _Chain, folder: Path) -> bool:
        """Whether the points are those that this run took and found, and it leads on from a good one."""
        return known.files == chain.files(folder) and self._knows_damage(known)

    def _knows_damage(self, known: _Chain) -> bool:
        """Whether nobody found a damaged point since the chain was read: the newest may stand on it."""
        return known.bad >= chain.damaged(self.settings.dir, known.base.name).keys()

    def _load(self, base: Backup, folder: Path) -> _Chain:
        """What the newest point that can be restored leads to."""
        (folder / _DRAFT).unlink(missing_ok=True)
        seal, metadata = seal_of(base), store.require_metadata(base)
        points, lost = chain.read(self.settings.dir, base.name)
        bad = {**{one.name: one.why for one in lost}, **chain.damaged(self.settings.dir, base.name)}
        number = max((point.number_of(name) or 0 for name in chain.files(folder)), default=0)
        while True:
            state = of_backup(base)
            in_base = dict(uploads.by_checksum(state.uploads))
            base_state = state.name
            moments, _ = chain.moments_of(points, seal, metadata.created_at, bad)
            moments = [one for one in moments if one.point is None or one.point.header.base_state == base_state]
            newest = max(moments, key=lambda one: one.point.number if one.point else 0, default=None)
            way = newest.way if newest else ()
            for one in way:
                try:
                    state.apply(folder / one.name, one.header)
                except Damaged as error:
                    bad[one.name] = error.message
                    chain.remember_damaged(self.settings.dir, base.name, bad)
                    break
            else:
                break
        last = way[-1] if way else None
        at = last.at if last else metadata.created_at
        size = sum(one.size for one in points)
        before = self._last_seen if not points else None
        found = _Chain(
            base, seal, base_state, state, state.name, number, at, at, chain.files(folder), size, in_base, before
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
        """Older points are thinned when a chain begins, and where all of them take too much room."""
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

    def _write(self, known: _Chain, folder: Path) -> Looked:
        writer = Writer(folder / _DRAFT)
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    return self._compare(known, folder, writer)
                except Unsettled:
                    writer.abandon()
                    writer = Writer(folder / _DRAFT)
                    if attempt == _ATTEMPTS - 1:
                        raise BackupError(
                            f"{self.settings.database} could not be read as of one moment.", hint="See `doctor`."
                        ) from None
        finally:
            writer.abandon()
        raise AssertionError

    def _compare(self, known: _Chain, folder: Path, writer: Writer) -> Looked:
        at = self._clock()
        settings, state = self.settings, known.state
        before = changed_pages.stamp_of(settings.database)
        with changed_pages.changed(
            settings.database, state.page_size, bytes(state.hashes), settings.busy_timeout
        ) as found:
            opened = changed_pages.stamp_of(settings.database)
            stamp = opened if opened.is_as(before) and opened.is_settled else None
            new = State(found.page_size, state.hashes[:] if found.page_size == state.page_size else bytearray())
            new.resize(found.pages)
            for number, content in found.found:
                writer.add_page(number, content)
                new.hashes[(number - 1) * HASH : number * HASH] = changed_pages.hash_of(content)
        writer.end_pages()
        scan = self._scan(known, writer)
        is_same = not writer.changed and not scan.changes and new.hashes == state.hashes
        if is_same and known.has_begun:
            self._settle(known, scan, stamp, at)
            return "same"
        change = DatabaseChange(
            new.page_size, new.pages, new.root, writer.changed, writer.length, writer.compression, found.journal_mode
        )
        known.number += 1
        name = point.name_of(known.number, at)
        new.uploads = dict(state.uploads)
        new.change(name, scan.changes)
        is_set_back = at <= known.newest
        header = Header(
            at=at,
            since=chain.SET_BACK if is_set_back else known.seen,
            interval=self.interval,
            base=known.base.name,
            seal=known.seal,
            base_state=known.base_state,
            parent=known.name,
            state=new.name,
            database=change,
            uploads=new.uploads_digest(),
            changes=tuple(scan.changes),
            before=known.before,
            excluded_folders=scan.excluded,
            stamp=str(stamp or ""),
        )
        known.size += writer.finish(header, folder / name)
        known.state, known.name, known.newest, known.has_begun = new, header.state, at, True
        known.files = chain.files(folder)
        self._settle(known, scan, stamp, at)
        return "taken"

    def _settle(self, known: _Chain, scan: uploads.Scan, stamp: changed_pages.Stamp | None, at: datetime) -> None:
        for path, seen in scan.stamps.items():
            known.state.uploads[path] = known.state.uploads[path]._replace(stamp=seen)
        known.seen = self._last_seen = at
        known.stamp, known.folders, known.looked_at = stamp, scan.folders, time.monotonic()

    def _scan(self, known: _Chain, writer: Writer) -> uploads.Scan:
        with self._cache(known) as earlier:
            live = self.settings.uploads
            scan = uploads.Scan(live or Path(), known.state.uploads, writer, earlier, known.in_base)
            if live:
                walk.require(live)
                scan.run(self.settings)
        self.unreadable = tuple(scan.unreadable)
        return scan

    @contextlib.contextmanager
    def _cache(self, known: _Chain) -> Iterator[files_cache.ParentBackup | None]:
        """What the backup at the beginning saw of the live uploads; None where that is known already, or lost."""
        if known.looked_at or self.settings.uploads is None:
            yield None
            return
        with files_cache.newest(self.settings, with_uploads=True) as found:
            yield found if found and found.folder.name == known.base.name else None


def is_base(settings: Settings, backup: Backup) -> bool:
    """Whether a chain can begin with this backup: a whole one of this app, made by these settings."""
    metadata = backup.metadata
    return bool(
        metadata
        and backup.state in ("checked", "proven")
        and metadata.kind not in APART
        and not any("/" not in name for name in metadata.others)
        and metadata.database
        and metadata.database_file == settings.database.name
        and metadata.uploads_included == (settings.uploads is not None)
        and (settings.uploads is None or _excludes(metadata) == _excludes(settings))
        and reliable.is_own(settings, metadata)
    )


def _excludes(one: Settings | Metadata) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What of the uploads is left out."""
    return tuple(one.exclude), tuple(one.exclude_marked)
