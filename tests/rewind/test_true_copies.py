"""Each point equals a true copy of what was live at its moment, byte for byte, before and after thinning.

Compared are every page as SQLite gives it, but for the counters in the header that it raises when it writes
(`pages.without_counters`), and every upload with its content, mode and time.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import chance
from backupkit.fs.tree import Entry, Skip, Unreadable
from backupkit.model.errors import BackupError
from backupkit.rewind import chain, moments, thin
from backupkit.rewind import uploads as live_uploads
from backupkit.rewind.point import Header
from backupkit.rewind.state import State
from backupkit.rewind.take import Rewinder
from rewind.a_day import assert_restores, rewinding, true_copy
from small_app import SmallApp, tree


class Life:
    """The changes of an app, random but the same each time."""

    def __init__(self, app: SmallApp, seed: int) -> None:
        self.app, self.random = app, random.Random(seed)
        self.live: sqlite3.Connection | None = app.connect()
        self.count = 0

    def open(self) -> sqlite3.Connection:
        if self.live is None:
            self.live = self.app.connect()
        return self.live

    def step(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.random.choice(
                (
                    self.insert,
                    self.insert,
                    self.delete,
                    self.update,
                    self.vacuum,
                    self.new_table,
                    self.drop_table,
                    self.truncate,
                    self.close,
                    self.keep_times,
                    self.upload,
                    self.upload,
                    self.change_upload,
                    self.remove_upload,
                    self.rename_folder,
                    self.nothing,
                )
            )()

    def insert(self) -> None:
        live = self.open()
        with live:
            for _ in range(self.random.randint(1, 60)):
                self.count += 1
                name = f"{self.count} {'x' * self.random.randint(0, 3000)}"
                live.execute("INSERT INTO companies (name) VALUES (?)", (name,))

    def delete(self) -> None:
        live = self.open()
        with live:
            live.execute("PRAGMA foreign_keys=OFF")
            live.execute("DELETE FROM companies WHERE id > 3 AND id % ? = 0", (self.random.randint(2, 5),))

    def update(self) -> None:
        live = self.open()
        with live:
            live.execute("UPDATE companies SET name = name || '!' WHERE id = (SELECT max(id) FROM companies)")

    def vacuum(self) -> None:
        self.open().execute("VACUUM")

    def new_table(self) -> None:
        self.count += 1
        self.open().execute(f"CREATE TABLE t{self.count} (a, b)")

    def drop_table(self) -> None:
        found = self.open().execute("SELECT name FROM sqlite_schema WHERE name GLOB 't[0-9]*' LIMIT 1").fetchone()
        if found:
            self.open().execute(f"DROP TABLE {found[0]}")

    def truncate(self) -> None:
        self.open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        if self.live is not None:
            self.live.close()
            self.live = None

    def keep_times(self) -> None:
        """Commit, then give file and WAL the times that they had."""
        files = [path for path in self.app.database.parent.iterdir() if not path.name.endswith("-shm")]
        before = {path: path.stat() for path in files}
        self.update()
        for path, facts in before.items():
            if path.exists():
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def upload(self) -> None:
        self.count += 1
        self.app.write_upload(f"{self.random.randint(1, 4)}/f{self.count}", os.urandom(self.random.randint(0, 4000)))

    def _any(self) -> Path | None:
        found = sorted(path for path in self.app.uploads.rglob("*") if path.is_file() and not path.is_symlink())
        return self.random.choice(found) if found else None

    def change_upload(self) -> None:
        if path := self._any():
            path.write_bytes(path.read_bytes()[::-1])
            path.chmod(self.random.choice((0o600, 0o644)))

    def remove_upload(self) -> None:
        if path := self._any():
            path.unlink()

    def rename_folder(self) -> None:
        folders = sorted(path for path in self.app.uploads.iterdir() if path.is_dir())
        if folders:
            self.count += 1
            self.random.choice(folders).rename(self.app.uploads / f"d{self.count}")

    def nothing(self) -> None:
        """Change nothing: some minutes are quiet."""


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_every_point_is_what_was_live_at_its_moment_also_after_thinning(app: SmallApp, mode: str) -> None:
    with contextlib.closing(app.connect()) as live:
        live.execute(f"PRAGMA journal_mode={mode}")
    rewinder, clock = rewinding(app)
    life, kept = Life(app, seed=7), dict[datetime, tuple[bytes, dict[str, tuple[str, int, int, bytes]]]]()
    for _ in range(500 if chance.is_thorough() else 80):
        life.step()
        clock.forward(minutes=20)
        if rewinder.look() == "taken":
            kept[clock.now] = true_copy(app), tree(app.uploads)
        if life.random.random() < 0.05:
            rewinder = Rewinder(rewinder.settings, clock)  # the scheduler restarts
    life.close()
    assert len(kept) > 60
    for at, (copy, uploads) in kept.items():
        assert_restores(app, at, copy, uploads)
    clock.forward(days=4)
    thin.thin(rewinder.settings, clock.now)
    left = [one.at for one in chain.read(app.backups, chain.chains(app.backups)[0])[0]]
    assert 5 < len(left) < len(kept) / 2
    for at in left:
        assert_restores(app, at, *kept[at])


def test_a_point_under_a_busy_writer_is_of_one_moment(app: SmallApp) -> None:
    rewinder, clock = rewinding(app)
    with app.writer() as writer:
        for _ in range(8):
            count = len(app.rows("companies"))
            while len(app.rows("companies")) == count:  # on a busy machine the writer may have to wait
                time.sleep(0.01)
            clock.forward(seconds=60)
            assert rewinder.look() == "taken"
    assert not writer.errors
    found, before = moments.timeline(app.settings), 0
    for moment in found.moments[1:]:
        with moments.built(app.settings, moment) as backup:  # SQLite checks it here
            file = backup.path / app.database.name
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as copy:
                rows = [name for (name,) in copy.execute("SELECT name FROM companies WHERE name LIKE 'writer%'")]
        assert sorted(int(name.rpartition("-")[2]) for name in rows) == list(range(len(rows)))
        assert len(rows) > before
        before = len(rows)


def test_points_go_on_where_a_link_takes_the_place_of_the_database(app: SmallApp) -> None:
    """SQLite keeps the WAL beside the file that the link leads to; the settings were read before."""
    rewinder, clock = rewinding(app)
    assert rewinder.look() == "taken"
    real = app.folder / "disk" / app.database.name
    real.parent.mkdir()
    app.database.rename(real)
    app.database.symlink_to(real)
    time.sleep(2.1)  # sooner, a change may leave the times as they were
    with contextlib.closing(app.connect()) as live:
        live.execute("PRAGMA journal_mode=WAL")
        for number in range(2):
            clock.forward(seconds=60)
            with live:
                live.execute("INSERT INTO companies (name) VALUES (?)", (f"new {number}",))
            assert rewinder.look() == "taken" and real.with_name(f"{real.name}-wal").stat().st_size
            assert_restores(app, clock.now, true_copy(app), tree(app.uploads))


def test_another_page_size_is_a_state_like_any_other(app: SmallApp) -> None:
    with contextlib.closing(app.connect()) as live:
        live.execute("PRAGMA journal_mode=DELETE")
    rewinder, clock = rewinding(app)
    kept = {}
    for size in (4096, 8192, 8192, 1024):
        with contextlib.closing(app.connect()) as live:
            live.execute(f"PRAGMA page_size={size}")
            live.execute("VACUUM")
        app.add_rows(40)
        clock.forward(minutes=20)
        assert rewinder.look() == "taken"
        kept[clock.now] = true_copy(app), tree(app.uploads)
    for at, one in kept.items():
        assert_restores(app, at, *one)
    thin.thin(rewinder.settings, clock.now + timedelta(days=20))
    assert len(chain.read(app.backups, chain.chains(app.backups)[0])[0]) == 1
    assert_restores(app, clock.now, *kept[clock.now])


def test_a_quiet_minute_costs_nothing_and_writes_nothing(app: SmallApp) -> None:
    rewinder, clock = rewinding(app)
    assert rewinder.look() == "taken"
    time.sleep(2.1)  # sooner, a change may leave the times as they were
    clock.forward(seconds=60)
    assert rewinder.look() == "same"
    before = {path: path.lstat().st_ctime_ns for path in app.folder.rglob("*")}
    clock.forward(seconds=60)
    used = time.process_time()
    assert rewinder.look() == "same"
    assert time.process_time() - used < 0.02
    assert {path: path.lstat().st_ctime_ns for path in app.folder.rglob("*")} == before
    (first,) = app.backups.glob(".rewind/*/*.point")
    first.write_bytes(first.read_bytes()[:9] + b"?" + first.read_bytes()[10:])
    assert [one.name for one in moments.check(app.settings)] == [first.name]
    clock.forward(seconds=60)
    assert rewinder.look() == "taken"  # a new point has the live data again
    assert_restores(app, clock.now, true_copy(app), tree(app.uploads))


def test_the_largest_size_is_kept_by_merging_the_oldest_and_then_by_taking_no_more(app: SmallApp) -> None:
    rewinder, clock = rewinding(app)
    rewinder.use(rewinder.settings.replaced(rewind_max_bytes=100_000))
    for number in range(8):  # files that came and went meanwhile can be merged away
        app.write_upload(f"f{number}", os.urandom(20_000))
        (app.uploads / f"f{number - 1}").unlink(missing_ok=True)
        clock.forward(minutes=1)
        assert rewinder.look() == "taken"
        kept = clock.now, true_copy(app), tree(app.uploads)
    assert len(chain.read(app.backups, chain.chains(app.backups)[0])[0]) < 8
    assert moments.timeline(app.settings).size <= 100_000
    with pytest.raises(BackupError, match="rewind_max_bytes"):
        for number in range(8):  # files that are still there cannot
            app.write_upload(f"g{number}", os.urandom(20_000))
            clock.forward(minutes=1)
            if rewinder.look() == "taken":
                kept = clock.now, true_copy(app), tree(app.uploads)
    assert_restores(app, *kept)


def test_a_folder_that_cannot_be_read_for_a_minute_is_not_gone(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    rewinder, clock = rewinding(app)
    before = tree(app.uploads)
    walk = live_uploads.tree.walk

    def closed(root: Path, skip: Skip | None = None, unreadable: Unreadable | None = None) -> Iterator[Entry]:
        """Yield what the system shows an ordinary user: the folder with its new mode, and nothing in it."""
        for entry in walk(root, skip=skip):
            if unreadable is None or not entry.path.startswith("1/"):
                yield entry
        if unreadable:
            unreadable("1", PermissionError())

    app.add_rows(1)
    with monkeypatch.context() as patched:
        patched.setattr(live_uploads.tree, "walk", closed)
        (app.uploads / "1").chmod(0)
        assert rewinder.look() == "taken"
        (app.uploads / "1").chmod(before["1"][1])
    assert rewinder.unreadable == ("1",)
    assert_restores(app, clock.now, true_copy(app), before)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who knows owners")
def test_points_of_root_and_of_another_user_are_one_chain(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who cannot give files away records no owners, and may own every file of copied backups."""
    rewinder, clock = rewinding(app)
    kept = {}
    for number, user in enumerate((0, 65534, 0, 65534)):
        for path in (*app.backups.glob("*/uploads/**/*"), app.uploads / "1"):
            os.chown(path, number, user, follow_symlinks=False)
        app.add_rows(1)
        app.write_upload(f"f{number}", b"x")
        clock.forward(seconds=60)
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda user=user: user)
            assert Rewinder(rewinder.settings, clock).look() == "taken"
        kept[clock.now] = true_copy(app), tree(app.uploads)
    for user in (0, 65534):
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda user=user: user)
            found = moments.timeline(app.settings)
            assert not found.lost and not moments.check(app.settings) and len(found.moments) == 5
            new = [[change.content for change in one.point.header.changes] for one in found.moments if one.point]
            assert all(one.count("here") == 1 for one in new)
            for at, one in kept.items():
                assert_restores(app, at, *one)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_points_that_are_merged_while_they_are_checked_are_not_called_damaged(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    rewinder, clock = rewinding(app)
    settings = rewinder.settings
    for forward in (*[30] * 5, 3 * 24 * 3600):
        app.add_rows(1)
        assert rewinder.look() == "taken"
        clock.forward(seconds=forward)
    app.add_rows(1)
    assert rewinder.look() == "taken"
    copy, uploads = true_copy(app), tree(app.uploads)
    (name,) = chain.chains(settings.dir)
    newest = sorted((settings.dir / ".rewind" / name).glob("*.point"))[-1]
    if is_damaged:
        content = bytearray(newest.read_bytes())
        content[20] ^= 1
        newest.write_bytes(content)
    apply = State.apply

    def thinned_first(state: State, path: Path, header: Header) -> None:
        monkeypatch.setattr(State, "apply", apply)
        thin.thin(settings, clock(), name)
        apply(state, path, header)

    monkeypatch.setattr(State, "apply", thinned_first)
    lost = moments.check(settings)
    assert [one.name for one in lost] == [newest.name] * is_damaged
    assert list(chain.damaged(settings.dir, name)) == [newest.name] * is_damaged
    found = moments.timeline(settings)
    assert len(found.moments) == 3 - is_damaged and len(found.lost) == is_damaged
    if not is_damaged:
        assert_restores(app, clock(), copy, uploads)
