"""A point of several databases and trees is one moment of all of them, and is restored as a whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import chance
from backupkit.backup.create import create_backup
from backupkit.cli.daemon import Daemon
from backupkit.config.settings import Settings, load_settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import ExitCode
from backupkit.remotes.push import push_backups
from backupkit.remotes.registry import prepare_remote
from backupkit.repository import store
from backupkit.rewind import chain, moments, point, thin
from backupkit.rewind.take import Rewinder
from backupkit.scheduling import run as scheduled
from quick_restic import put_repository
from refusals import run_here
from rewind.a_day import START, Clock, comparable
from rewind.test_killed import calls_of, run
from several import SeveralApp, extend
from small_app import SmallApp, tree

Copy = dict[str, object]
DAYS = {"BACKUP_REWIND": "30d"}
COUNT = """
import select, sqlite3, sys
lives = [sqlite3.connect(path, timeout=30, isolation_level=None) for path in sys.argv[1:]]
number = 0
while not select.select([sys.stdin], [], [], 0.01)[0]:
    number += 1
    for live in lives:
        live.execute("INSERT INTO entries (value) VALUES (?)", (str(number),))
    if number == 1:
        print("counting", flush=True)
"""


@dataclass
class Past:
    """An app with points, and the true copy of each moment."""

    app: SeveralApp
    clock: Clock
    kept: dict[datetime, Copy] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        create_backup(self.settings, BackupRequest(name="base"), clock=self.clock)
        self.rewinder = Rewinder(self.settings, self.clock)

    @property
    def settings(self) -> Settings:
        return self.app.settings.replaced(rewind="30d")

    @property
    def points(self) -> list[Path]:
        return sorted((self.app.backups / ".rewind" / "base").glob("*.point"))

    def change(self) -> None:
        """Change some of the databases and trees, in turns."""
        self.count += 1
        turn = self.count % 4
        if turn != 0:
            self.app.add_rows(3)
        if turn != 1:
            self.app.put(self.app.cache, f"{self.count} {'x' * 900}")
            (self.app.media / "deep" / f"{self.count}").write_bytes(os.urandom(400))
        if turn != 2:
            self.app.put(self.app.queue, f"{self.count}")
            self.app.write_upload(f"{turn}/{self.count}", b"u" * self.count)
        if turn == 3:
            (self.app.media / "deep" / f"{self.count - 1}").rename(self.app.media / f"moved{self.count}")

    def take(self, number: int = 1, minutes: int = 20) -> None:
        for _ in range(number):
            self.change()
            self.clock.forward(minutes=minutes)
            assert self.rewinder.look() == "taken"
            self.kept[self.clock.now] = self.now()

    def now(self) -> Copy:
        """Return each database as SQLite copies it, and each tree."""
        app = self.app
        lives = {path.name: _true_copy(path) for path in (app.database, app.cache, app.queue) if path.exists()}
        return {**lives, "uploads": tree(app.uploads), "media": tree(app.media)}

    def assert_all(self) -> None:
        found = moments.timeline(self.settings)
        assert not found.lost and not moments.check(self.settings)
        for one in found.moments[1:]:
            assert_builds(self.settings, one.at, self.kept[one.at])


def _true_copy(path: Path) -> bytes:
    copied = path.with_name("true-copy")
    with (
        contextlib.closing(sqlite3.connect(path, timeout=30)) as live,
        contextlib.closing(sqlite3.connect(copied)) as to,
    ):
        live.backup(to)
        to.execute("PRAGMA journal_mode=DELETE").fetchone()
    found = comparable(copied)
    copied.unlink()
    return found


def assert_builds(settings: Settings, at: datetime, copy: Copy) -> None:
    moment = moments.timeline(settings).before(at)
    assert moment and moment.point and moment.at == at
    with moments.built(settings, moment) as backup:
        for name, wanted in copy.items():
            there = backup.path / name
            assert (comparable(there) if isinstance(wanted, bytes) else tree(there)) == wanted, (at, name)


@pytest.fixture
def past(app: SmallApp) -> Past:
    several = extend(app)
    several.inner.unlink()  # points hold a database without a setting as a file
    for left in several.media.glob("inner.sqlite3-*"):
        left.unlink()
    return Past(several, Clock())


# One moment


def test_every_point_is_what_all_of_it_was_at_its_moment_also_after_thinning(past: Past) -> None:
    past.take(24)
    past.rewinder = Rewinder(past.settings, past.clock)  # the scheduler restarts
    past.take(24)
    past.assert_all()
    past.clock.forward(days=3)
    thin.thin(past.settings, past.clock.now)
    assert 5 < len(past.points) < 20
    past.assert_all()
    past.rewinder = Rewinder(past.settings, past.clock)
    past.take(2)
    past.assert_all()


def test_what_one_database_changed_is_all_that_a_point_holds(past: Past) -> None:
    past.take()
    past.app.put(past.app.cache, "alone")
    past.clock.forward(minutes=1)
    assert past.rewinder.look() == "taken"
    header = point.read_header(past.points[-1])
    assert [(one.name, one.database and one.database.changed > 0) for one in header.parts] == [
        ("", False),
        ("cache", True),
        ("queue", False),
        ("media", None),
    ]
    assert not header.changed_files and header.gap_ms == 0
    past.clock.forward(minutes=1)
    assert past.rewinder.look() == "same"
    time.sleep(2.1)  # sooner, a change may leave the times as they were
    assert past.rewinder.look() == "same"
    before = {path: path.lstat().st_ctime_ns for path in past.app.folder.rglob("*")}
    used = time.process_time()
    assert past.rewinder.look() == "same"
    assert time.process_time() - used < 0.02
    assert {path: path.lstat().st_ctime_ns for path in past.app.folder.rglob("*")} == before
    (past.app.media / "title.txt").unlink()
    assert past.rewinder.look() == "taken"


def test_further_databases_grow_shrink_and_change_their_page_size(past: Past) -> None:
    app = past.app
    for size in (8192, 8192, 1024, 4096):
        with contextlib.closing(sqlite3.connect(app.queue)) as live:
            live.execute(f"PRAGMA page_size={size}")
            live.execute("VACUUM")
        with contextlib.closing(sqlite3.connect(app.cache)) as live, live:
            live.execute("DELETE FROM entries WHERE id % 2")
            live.executemany("INSERT INTO entries (value) VALUES (?)", [("x" * size,)] * 30)
        with contextlib.closing(sqlite3.connect(app.cache)) as live:
            live.execute("VACUUM")
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        past.take()
    with contextlib.closing(sqlite3.connect(app.cache)) as live, live:
        live.execute("DELETE FROM entries")
    with contextlib.closing(sqlite3.connect(app.cache)) as live:
        live.execute("VACUUM")
    past.take()
    past.assert_all()
    past.clock.forward(days=20)
    thin.thin(past.settings, past.clock.now)
    assert len(past.points) == 1
    past.assert_all()


@contextlib.contextmanager
def counting(*databases: Path) -> Iterator[None]:
    """Let another process write the same numbers into each database in turn, during the block."""
    command = [sys.executable, "-c", COUNT, *map(str, databases)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout and process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.write("end\n")
            process.stdin.close()
            assert process.wait(60) == 0


def test_two_databases_that_count_together_come_back_as_of_one_moment(past: Past) -> None:
    app, number = past.app, 12
    for path in (app.cache, app.queue):
        with contextlib.closing(sqlite3.connect(path)) as live, live:
            live.execute("DELETE FROM entries")
            live.execute("PRAGMA journal_mode=WAL" if path == app.cache else "PRAGMA journal_mode=DELETE")
    for lives in ((app.cache, app.queue), (app.queue, app.cache)):
        with counting(*lives):
            for _ in range(number):
                time.sleep(random.Random(number).random() / 20)
                past.clock.forward(minutes=1)
                assert past.rewinder.look() == "taken"
    points = [point.read_header(path) for path in past.points]
    assert sum(one.gap_ms == 0 for one in points) > number  # most of them, even on a busy machine
    for place, one in enumerate(points):
        done = run_here(app, "restore", "--at", one.at.isoformat(), "--yes", env=DAYS)
        assert done.code == 0, done.err
        first, second = (app.cache, app.queue) if place < number else (app.queue, app.cache)
        ahead = [len(app.values(path) or []) for path in (first, second)]
        assert one.gap_ms or ahead[0] - ahead[1] in (0, 1), (place, ahead)


def test_a_database_in_wal_mode_is_looked_for_again_where_somebody_commits_between_two_looks(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backupkit.sqlite import changed_pages

    app, original = past.app, changed_pages._are_newest
    for path in (app.database, app.queue):
        with contextlib.closing(sqlite3.connect(path)) as live:
            live.execute("PRAGMA journal_mode=WAL")
    late: list[str] = []

    def committed_meanwhile(readers: list[object]) -> bool:
        if len(late) < 3:
            late.append(str(len(late)))
            app.put(app.cache, late[-1])
            app.put(app.queue, late[-1])
        return original(readers)

    monkeypatch.setattr(changed_pages, "_are_newest", committed_meanwhile)
    past.take()
    assert point.read_header(past.points[-1]).gap_ms == 0
    assert (app.values(app.cache) or [])[-1] == (app.values(app.queue) or [])[-1] == "2"
    past.assert_all()
    late.clear()
    monkeypatch.setattr(changed_pages, "_TRIES", 2)
    past.clock.forward(minutes=1)
    assert past.rewinder.look() == "taken"
    assert point.read_header(past.points[-1]).gap_ms > 0


# Commands


def test_a_restore_to_a_time_can_be_undone_and_takes_one_part_alone(past: Past) -> None:
    app = past.app
    past.take(5)
    at, wanted = list(past.kept.items())[1]
    before = past.now()
    plan = run_here(app, "restore", "--at", at.isoformat(), "--dry-run", "--json", env=DAYS, check=0).json
    assert "The point of" in plan["notes"][0] and past.now() == before
    run_here(app, "restore", "--at", at.isoformat(), "--yes", env=DAYS, check=0)
    assert past.now() == wanted
    run_here(app, "undo", "--yes", env=DAYS, check=0)
    assert past.now() == before
    for part, name in (("cache", "cache.sqlite3"), ("media", "media")):
        run_here(app, "restore", "--at", at.isoformat(), "--only", part, "--yes", env=DAYS, check=0)
        before[name] = wanted[name]
        assert past.now() == before
    target = app.folder.parent / "look"
    run_here(app, "restore", "--at", at.isoformat(), "--to", str(target), env=DAYS, check=0)
    assert tree(target / "media") == wanted["media"]


def test_the_lists_of_points_count_all_databases_and_trees(past: Past) -> None:
    past.take(2)
    shown = run_here(past.app, "show", "--at", past.clock.now.isoformat(), "--json", env=DAYS, check=0).json
    header = point.read_header(past.points[-1])
    assert shown["changed_pages"] == sum(one.changed for one in header.databases) > header.database.changed
    assert shown["changed_uploads"] == 2
    sizes = [path.stat().st_size for path in (past.app.cache, past.app.queue)]
    assert shown["database_bytes"] >= sum(sizes)
    listed = run_here(past.app, "rewind", "--json", env=DAYS, check=0).json
    assert [one["point"] for one in listed["points"]] == [path.name for path in past.points]
    assert run_here(past.app, "status", "--json", env=DAYS).json["rewind_points"] == 2
    assert run_here(past.app, "verify", "base", "--test-restore", env=DAYS).code == 0


def test_the_schedulers_test_restore_takes_a_point(past: Past) -> None:
    past.take(2)
    before = past.now()
    (done,) = scheduled.run_steps(scheduled.test_steps(past.settings, past.clock, lambda able: able[0]))
    assert done.code == ExitCode.DONE and "So did that of point_" in done.sentence
    assert past.now() == before and not list(past.app.backups.glob(".draft*"))


# Damage


@pytest.mark.parametrize("name", ["database", "cache", "queue"])
def test_a_damaged_page_is_named_by_its_database(past: Past, name: str) -> None:
    past.take()
    past.app.add_rows(2)
    past.app.put(past.app.cache, "c" * 3000)
    past.app.put(past.app.queue, "q" * 3000)
    past.clock.forward(minutes=1)
    assert past.rewinder.look() == "taken"
    path = past.points[-1]
    header = point.read_header(path)
    (part,) = [one for one in header.parts if one.title == f"database {name}"]
    assert part.database and part.database.changed
    content = bytearray(path.read_bytes())
    content[part.offset + part.database.length // 2] ^= 1
    path.write_bytes(content)
    done = run_here(past.app, "restore", "--at", header.at.isoformat(), "--yes", env=DAYS)
    assert done.code == 12 and f"the pages of the database {name} in it" in done.err
    verified = run_here(past.app, "verify", "--all", env=DAYS)
    assert verified.code == 12 and f"database {name}" in verified.err + verified.out
    assert [one.name for one in moments.timeline(past.settings).lost] == [path.name]
    assert_builds(past.settings, *next(iter(past.kept.items())))


@pytest.mark.parametrize(("name", "file"), [("database", "pats.db"), ("cache", "cache.sqlite3")])
def test_a_damaged_page_of_the_backup_below_is_named_by_its_database(past: Past, name: str, file: str) -> None:
    past.take()
    sealed = past.app.backups / "base" / file
    (part,) = [one for one in point.read_header(past.points[0]).parts if one.title == f"database {name}"]
    assert part.database
    changed = {number for number, _ in point.pages(past.points[0], part.database, offset=part.offset)}
    page = max({*range(2, part.database.pages + 1)} - changed)  # one that no point has
    content = bytearray(sealed.read_bytes())
    content[page * part.database.page_size - 1] ^= 1
    sealed.write_bytes(content)
    done = run_here(past.app, "restore", "--at", past.clock.now.isoformat(), "--yes", env=DAYS)
    assert done.code == 12 and f"the database {name}" in done.err, done.err
    assert past.now() == past.kept[past.clock.now]


def test_a_point_with_fewer_or_other_parts_is_refused(past: Past) -> None:
    past.take(2)
    path = past.points[-1]
    header = point.read_header(path)
    for change in (
        {"others": header.others[1:]},
        {"others": (*header.others, header.others[0])},
        {"others": (), "format": 1},
        {"format": 1},
    ):
        writer = point.Writer(path.with_name("draft"))
        writer.add_page(1, bytes(4096))
        writer.end_pages()
        writer.finish(point.replace(header, **change), path)
        assert [one.name for one in moments.check(past.settings)] == [path.name], change


# Kills


@pytest.mark.needs("strace")
@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC"])
@pytest.mark.parametrize("what", ["take", "thin"])
def test_no_point_is_torn_at_any_call(past: Past, tmp_path: Path, what: str, fault: str) -> None:
    past.take(8)
    past.change()
    past.clock.forward(minutes=20)
    at = past.clock.now + timedelta(days=2 * (what == "thin"))
    past.kept[at] = past.now()
    home, template = past.app.folder, tmp_path / "template"
    shutil.copytree(home, template, symlinks=True)
    calls = calls_of(home, what, at, tmp_path)
    assert len(calls) > 8
    for name, number in chance.some(calls, 12, f"several {what} {fault}"):
        shutil.rmtree(home)
        shutil.copytree(template, home, symlinks=True)
        inject = f"inject={name}:{fault}:when={number}"
        done = run(home, what, at, "-o", "/dev/null", "-e", f"trace={name}", "-e", inject)
        assert fault != "signal=KILL" or done.returncode != 0, (name, number)
        past.assert_all()
        assert run(home, what, at).returncode == 0, (name, number)
        past.assert_all()
        assert not list(past.app.backups.rglob(".draft*"))


@pytest.mark.needs("strace")
def test_a_restore_to_a_point_leaves_all_databases_and_trees_old_or_new(past: Past, tmp_path: Path) -> None:
    past.take(6)
    at, wanted = list(past.kept.items())[2]
    before, home, template = past.now(), past.app.folder, tmp_path / "template"
    shutil.copytree(home, template, symlinks=True)
    calls = calls_of(home, "restore", at, tmp_path, "/app/")
    assert past.now() == wanted and len(calls) > 50
    for name, number in chance.some(calls, 25, "several restored to a point"):
        shutil.rmtree(home)
        shutil.copytree(template, home, symlinks=True)
        inject = ("-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
        done = run(home, "restore", at, "-o", "/dev/null", *inject)
        assert done.returncode != 0, (name, number)
        assert run(home, "recover", at).returncode == 0, (name, number)
        assert past.now() in (before, wanted), (name, number)
        assert not moments.check(past.settings) and not list(home.rglob(".draft*")), (name, number)


# Databases that come or go


def test_a_database_that_comes_or_goes_begins_points_anew_with_a_backup_and_says_so(
    past: Past, capsys: pytest.CaptureFixture[str]
) -> None:
    past.take(2)
    settings = past.settings.replaced(schedule=(), automatic_daily=False)
    daemon = Daemon(settings, lambda: settings, clock=past.clock)
    past.clock.forward(minutes=5)
    daemon._look_for_changes()
    capsys.readouterr()
    past.app.queue.unlink()
    for _ in range(3):
        daemon._next_look = 0.0
        daemon._look_for_changes()
    said = capsys.readouterr().err
    assert said.count("queue is gone since the backup base: points continue from a new backup.") == 1
    assert said.count("A full backup is made now") == 1
    newest = store.own_backups(past.settings)[0]
    assert newest.kind == "scheduled" and "queue" not in [one.name for one in (newest.metadata.databases)]
    assert chain.chains(past.app.backups) == sorted(["base", newest.name])
    with contextlib.closing(sqlite3.connect(past.app.queue)) as live, live:
        live.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, value TEXT)")
    daemon._next_look = 0.0
    daemon._look_for_changes()
    said = capsys.readouterr().err
    assert f"queue came since the backup {newest.name}" in said and "full backup" not in said  # at most one an hour
    daemon._next_look = daemon._next_base_backup = 0.0
    daemon._look_for_changes()
    assert "queue" in [one.name for one in store.own_backups(past.settings)[0].metadata.databases]
    past.rewinder = Rewinder(past.settings, past.clock)
    for at, copy in past.kept.items():
        assert_builds(past.settings, at, copy)  # the earlier points


def test_other_settings_wait_for_a_backup_made_with_them(past: Past) -> None:
    past.take()
    (past.app.folder / "backup.toml").write_text('[databases.cache]\npath = "data/cache.sqlite3"\n')
    fewer = load_settings(past.app.folder, busy_timeout=5, lock_timeout=1, rewind="30d")
    assert Rewinder(fewer, past.clock).look() == "waiting"


# Remotes


@pytest.mark.parametrize("kind", ["folder", pytest.param("restic", marks=pytest.mark.needs("restic"))])
def test_points_come_back_from_a_remote_with_all_that_they_have(past: Past, tmp_path: Path, kind: str) -> None:
    nas = tmp_path / "nas"
    if kind == "folder":
        nas.mkdir()
        table = f"path = {json.dumps(str(nas))}"
    else:
        put_repository(nas, "sesame", tmp_path)
        table = f'repository = {json.dumps(str(nas))}\npassword = "sesame"'
    settings_file = past.app.folder / "backup.toml"
    settings_file.write_text(f'{settings_file.read_text()}\n[remotes.nas]\ntype = "{kind}"\n{table}\n')
    if kind == "folder":
        prepare_remote(past.settings, "nas")
    past.take(4)
    push_backups(past.settings)
    past.app.backups.rename(past.app.folder / "lost")
    past.app.backups.mkdir()
    done = run_here(past.app, "pull", "base", "--remote", "nas", check=0)
    assert "4 points of rewind pulled too" in done.out
    past.assert_all()


def test_what_runs_with_rights_in_a_further_tree_is_not_pulled(past: Past, tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    nas.mkdir()
    settings_file = past.app.folder / "backup.toml"
    table = f'[remotes.nas]\ntype = "folder"\npath = {json.dumps(str(nas))}\n'
    settings_file.write_text(f"{settings_file.read_text()}\n{table}")
    prepare_remote(past.settings, "nas")
    past.take()
    (past.app.media / "title.txt").chmod(0o4755)
    past.take()
    push_backups(past.settings)
    shutil.rmtree(past.app.backups)
    past.app.backups.mkdir()
    done = run_here(past.app, "pull", "base", "--remote", "nas", check=3)
    assert "media/title.txt" in done.err
    assert len(past.points) == 1
    run_here(past.app, "pull", "base", "--remote", "nas", "--trust", check=0)
    past.assert_all()


def test_doctor_says_that_a_database_without_a_table_is_in_points_as_a_file(app: SmallApp) -> None:
    several = extend(app)
    said = run_here(several, "doctor", env=DAYS).out
    assert re.search(r"Points of rewind have inner.sqlite3 in \S+/media as files.*name them in \[databases\]", said)
    assert "Points of rewind have" not in run_here(several, "doctor").out
    text = (several.folder / "backup.toml").read_text()
    (several.folder / "backup.toml").write_text(f'{text}\n[databases.inner]\npath = "media/inner.sqlite3"\n')
    assert "Points of rewind have" not in run_here(several, "doctor", env=DAYS).out
    past = Past(several, Clock())
    several.put(several.inner, "in a point")
    past.take()
    moment = moments.timeline(past.settings).moments[-1]
    with moments.built(past.settings, moment) as backup:
        assert several.values(backup.path / "inner.sqlite3") == ["before", "in a point"]
        assert not list((backup.path / "media").glob("inner*"))


# The format for one database


def test_points_of_an_app_with_one_database_are_as_they_always_were(app: SmallApp, tmp_path: Path) -> None:
    """Points written before an app could have several databases are read, continued and merged."""
    with tarfile.open(Path(__file__).with_name("points_of_one.tar.gz")) as packed:
        packed.extractall(app.backups, filter="tar")
    settings = app.settings.replaced(rewind="30d")
    old = sorted((app.backups / ".rewind" / "base").glob("*.point"))
    for number, (path, uploads) in enumerate(
        zip(old, (["1", "b.txt", "n0"], ["1", "n0", "n1"], ["1", "n0", "n1", "n2"]), strict=True)
    ):
        moment = moments.timeline(settings).before(START + timedelta(minutes=20 * (number + 1)))
        assert moment and moment.point and moment.point.name == path.name
        with moments.built(settings, moment) as backup:
            file = f"{(backup.path / 'pats.db').as_uri()}?immutable=1"
            with contextlib.closing(sqlite3.connect(file, uri=True)) as built:
                assert built.execute("SELECT count(*) FROM companies").fetchone() == (240 + 40 * number,)
            assert sorted(one.name for one in (backup.path / "uploads").iterdir()) == uploads
            assert backup.metadata and not backup.metadata.databases and not backup.metadata.trees
    assert not moments.check(settings) and not moments.timeline(settings).lost
    now = START + timedelta(hours=2)
    assert Rewinder(settings, lambda: now).look() == "taken"
    new = sorted((app.backups / ".rewind" / "base").glob("*.point"))[-1]
    assert [*_header_of(new)] == [*_header_of(old[-1])]
    assert [*_header_of(new)["database"]] == [*_header_of(old[-1])["database"]]
    assert _header_of(new)["parent"] == _header_of(old[-1])["state"] and _header_of(new)["format"] == 1
    thin.thin(settings, now + timedelta(days=3))
    assert len(list((app.backups / ".rewind" / "base").glob("*.point"))) < 4 and not moments.check(settings)


def _header_of(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    length = int.from_bytes(content[-72:-64], "big")
    found: dict[str, object] = json.loads(content[-72 - length : -72])
    return found
