"""The contract that every kind of remote keeps, and the commands that people run on remotes."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import backupkit
import chance
import servers
from backupkit import AppFolder, protected
from backupkit.archive.export import export_backup, import_backup
from backupkit.backup.create import create_backup
from backupkit.cli import tasks
from backupkit.config.remotes import ResticTable
from backupkit.config.settings import Settings, load_settings
from backupkit.fs import disk
from backupkit.model.backup import CHECKSUM_FILE, METADATA_FILE, Backup, BackupRequest
from backupkit.model.errors import Damaged, NoSuchBackup, Refused, RemoteAway, RemoteFailed
from backupkit.model.events import Event, Notice, Progress, Step, Waiting, Warned, silence
from backupkit.monitoring.status import status
from backupkit.remotes import checks, listing_cache, restic_program
from backupkit.remotes.base import Preparable, Remote, Tidying, open_remote, retry_while_away
from backupkit.remotes.folder import MARKER
from backupkit.remotes.prune import plan_remote_prune, prune_remote
from backupkit.remotes.pull import lay_out_from, list_remote, prove_remote, pull_backup, verify_remote
from backupkit.remotes.push import push_backups, refuse_failed
from backupkit.remotes.registry import look_at_remotes, prepare_remote
from backupkit.repository import store
from backupkit.retention.prune import plan_prune
from disk_images import until_unmounted
from quick_restic import put_repository
from refusals import assert_refusal, picture
from servers import Line
from small_app import NOON, SmallApp, tree

Table = dict[str, Any]
PASSWORD = "correct horse"


@dataclass
class Place:
    """A remote for one test: its table, and how to lose it and bring it back."""

    table: Table
    lose: Callable[[], None]
    """Make it unreachable."""
    back: Callable[[], None]
    """Make it reachable again, with its content."""


def mount(path: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return functions that take the folder away, and bring it back."""
    aside = path.with_name(f"{path.name}-aside")

    def back() -> None:
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)

    return lambda: os.rename(path, aside), back


def folder_place(folder: Path) -> Iterator[Place]:
    path = folder / "nas"
    path.mkdir()
    yield Place({"type": "folder", "path": str(path)}, *mount(path))


def restic_place(folder: Path) -> Iterator[Place]:
    path = put_repository(folder / "repository", PASSWORD, folder.parent)
    table = {"type": "restic", "repository": str(path), "password": PASSWORD, "stall": 20}
    yield Place(table, *mount(path))


def rest_place(folder: Path) -> Iterator[Place]:
    """Provide restic over HTTP, through a real server behind a relay that can be cut."""
    put_repository(folder / "served", PASSWORD, folder.parent)
    with servers.rest(folder) as port, Line.to(port) as line:
        table = {"type": "restic", "repository": f"rest:http://127.0.0.1:{line.port}/", "password": PASSWORD}
        yield Place({**table, "stall": 20}, line.cut, line.fix)


def s3_place(folder: Path) -> Iterator[Place]:
    """Provide restic on a real server of the S3 API."""
    pytest.importorskip("moto.server")
    with servers.s3() as port, Line.to(port) as line:
        repository = f"s3:http://127.0.0.1:{line.port}/backups/pats"
        table = {"type": "restic", "repository": repository, "password": PASSWORD}
        yield Place({**table, "stall": 20}, line.cut, line.fix)


def sftp_place(folder: Path) -> Iterator[Place]:
    """Provide restic over SSH, through a real sshd."""
    with servers.ssh(folder / "sshd") as server, Line.to(server.port) as line, pytest.MonkeyPatch.context() as patch:
        known = server.keys_for(folder / "ssh")
        ssh_with(patch, folder / "bin", known, "HostKeyAlias", f"[127.0.0.1]:{server.port}")
        put_repository(folder / "repository", PASSWORD, folder.parent)
        repository = f"sftp://{server.user}@127.0.0.1:{line.port}/{folder}/repository"
        table = {"type": "restic", "repository": repository, "password": PASSWORD}
        yield Place({**table, "stall": 20}, line.cut, line.fix)


def ssh_with(patch: pytest.MonkeyPatch, folder: Path, keys: Path, *option: str) -> None:
    """Make `ssh` use the keys in that folder, and not those of the user who runs the tests."""
    settings = [("IdentityFile", keys / "id_ed25519"), ("UserKnownHostsFile", keys / "known_hosts"), option]
    folder.mkdir()
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in filter(None, settings)))
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{folder}/config" "$@"\n')
    (folder / "ssh").chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def git_place(folder: Path) -> Iterator[Place]:
    path = folder / "host.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
    # As hosts allow it. The tests of git cover a host that sends no partial clones.
    subprocess.run(["git", "-C", str(path), "config", "uploadpack.allowFilter", "true"], check=True)
    include = ["dump", "metadata", "database", "uploads"]
    person = {"user_name": "Backup", "user_email": "backup@example.com"}
    yield Place({"type": "git", "url": str(path), "include": include, **person}, *mount(path))


# A new kind of remote takes one line here: how a test gets one, and the tools that it needs.
PLACES: dict[str, tuple[Callable[[Path], Iterator[Place]], tuple[str, ...]]] = {
    "folder": (folder_place, ()),
    "restic": (restic_place, ("restic",)),
    "rest": (rest_place, ("restic", "rclone")),
    "s3": (s3_place, ("restic",)),
    "sftp": (sftp_place, ("restic", "ssh", "sshd")),
    "git": (git_place, ("git",)),
}
# Tests of failures that only a network has, and of round trips, run on these too.
NETWORKS = chance.cases(("rest", "s3", "sftp"), "ways to restic over a network")
everywhere = pytest.mark.parametrize("place", ["folder", "git", "restic", *NETWORKS], indirect=True)


@pytest.fixture(params=["folder", "restic", "git"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: Any
) -> Iterator[Place]:
    make, tools = PLACES[request.param]
    needs(*tools)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with contextlib.contextmanager(make)(tmp_path) as found:
        yield found


def with_remote(app: SmallApp, table: Table, **more: Any) -> Settings:
    """Return the app's settings with one remote named `there`, ready for use."""
    settings = with_table(app, table, **more)
    prepare_remote(settings, "there")
    return settings


def with_table(app: SmallApp, table: Table, **more: Any) -> Settings:
    return Settings(
        app_dir=app.folder,
        database=app.database,
        uploads=app.uploads,
        dir=app.backups,
        lock_timeout=1,
        remotes={"there": {"retry_for": 0, **table, **more}},
    )


def made(app: SmallApp, name: str, days: int = 0, kind: Any = "manual") -> Path:
    """Make a backup dated that many days after noon."""
    create_backup(app.settings, BackupRequest(name, kind=kind), clock=lambda: NOON + timedelta(days=days))
    return app.backups / name


def push(settings: Settings, name: str | None = None) -> tuple[str, ...]:
    done = push_backups(settings, name)
    refuse_failed(done)
    return done[0].backups


def there(settings: Settings) -> list[str]:
    return [one.name for one in open_remote(settings, "there").list()]


def everything(folder: Path) -> dict[str, object]:
    """Return every entry of the backup with its owner; of the files about the backup itself, without the times."""
    owners = {str(path.relative_to(folder)): path.lstat().st_uid for path in folder.rglob("*")}
    found = {
        name: (*facts[:2], *facts[3:]) if name in ("RESTORE.md", METADATA_FILE, CHECKSUM_FILE) else facts
        for name, facts in tree(folder).items()
    }
    return {"tree": found, "owners": owners}


# The contract


def test_a_pushed_backup_is_listed_with_its_facts_newest_first(app: SmallApp, place: Place) -> None:
    settings = with_remote(app, place.table)
    assert there(settings) == []
    made(app, "one", kind="scheduled"), made(app, "two", days=1)
    assert push(settings) == (("one", "two") if place.table["type"] == "git" else ("two", "one"))
    remote: Remote = open_remote(settings, "there")
    remote.check()
    two, one = remote.list()
    local = store.find(settings, "one")
    assert (two.name, one.name, one.kind, one.created_at, one.app_id) == ("two", "one", "scheduled", NOON, "pats")
    assert local.metadata and one.revision == local.metadata.alembic_revision
    assert one.size_bytes >= local.size_bytes and one.uploads


@everywhere
def test_a_new_machine_pulls_the_latest_and_has_all_of_it_again(
    app: SmallApp, place: Place, tmp_path: Path, templates: Path
) -> None:
    app.write_upload(os.fsdecode(b"odd/\xff\xfe name \\ here"), b"x")
    app.write_upload("secret", b"s").chmod(0o400)
    os.utime(app.uploads / "1", ns=(0, 987_654_321_000))
    if os.geteuid() == 0:
        os.chown(app.uploads / "secret", 1234, 4321)
    settings = with_remote(app, place.table)
    source = made(app, "one")
    push(settings)
    new = SmallApp.create(tmp_path / "new", templates)
    shutil.rmtree(new.uploads)
    new.uploads.mkdir()
    new.backups.rmdir()
    with_it = with_table(new, place.table)
    new.backups.mkdir()
    pulled = pull_backup(with_it, "latest", "there")
    assert pulled.fetched and pulled.backup.state == "checked"
    assert everything(pulled.backup.path) == everything(source)
    assert stat.S_IMODE(pulled.backup.path.stat().st_mode) == 0o700
    new.command("restore", "latest", "--force", check=0)
    assert new.contents() == app.contents()


def test_pushing_twice_does_nothing_and_tells_how_far_it_is(app: SmallApp, place: Place) -> None:
    settings = with_remote(app, place.table)
    app.write_upload("large", os.urandom(3 << 20))
    made(app, "one")
    events: list[object] = []
    push_backups(settings, emit=events.append)
    assert any(isinstance(one, Step) and "one" in one.name for one in events)
    assert push(settings) == () and push(settings, "one") == ()
    backup = store.find(settings, "one")
    assert backup.metadata
    open_remote(settings, "there").push(backup.path, backup.metadata, silence)
    assert there(settings) == ["one"]


def test_another_backup_of_the_same_name_is_not_overwritten(app: SmallApp, place: Place) -> None:
    settings = with_remote(app, place.table)
    made(app, "one")
    push(settings)
    before = open_remote(settings, "there").list()
    shutil.rmtree(app.backups / "one")
    made(app, "one", days=1)
    with pytest.raises((RemoteFailed, Refused), match=r"another (one on the remote there|backup named one)"):
        push(settings, "one")
    assert open_remote(settings, "there").list() == before


def renamed(app: SmallApp, folder: Path, name: str) -> Path:
    """Make a backup under another name and import it under this one."""
    moved(app, made(app, "before_move"), folder, name)
    return app.backups / name


def moved(app: SmallApp, backup: Path, folder: Path, name: str | None = None) -> Backup:
    """Export the backup, delete it here, and import it again."""
    archive = folder / f"{backup.name}.tar"
    export_backup(app.settings, backup.name, archive)
    shutil.rmtree(backup)
    return import_backup(app.settings, archive, name=name).backup


def test_a_backup_with_another_name_than_it_was_made_with_is_pushed_once_and_comes_back(
    app: SmallApp, place: Place, tmp_path: Path
) -> None:
    settings = with_remote(app, place.table)
    source = renamed(app, tmp_path, "from_old")
    before = everything(source)
    assert push(settings) == ("from_old",) and push(settings) == () and push(settings, "from_old") == ()
    assert there(settings) == ["from_old"]
    state = look_at_remotes(settings).remotes[0]
    assert state.is_current and state.newest == "from_old"
    (proven,) = prove_remote(settings, "from_old", "there")
    assert proven.took and not proven.flaws and not proven.failure
    for wanted in ("from_old", "latest"):
        shutil.rmtree(source)
        assert pull_backup(settings, wanted, "there").backup.path == source
        assert everything(source) == before
    look = tmp_path / "look"
    lay_out_from(settings, "from_old", "there", look)
    (copy,) = look.rglob("pats.db")
    assert dump_of(copy) == dump_of(source / "pats.db")
    assert tree(look / "uploads") == tree(source / "uploads")
    assert not pull_backup(settings, "from_old", "there").fetched
    assert moved(app, source, tmp_path).name == "from_old" and everything(source) == before
    assert push(settings) == ()


def dump_of(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return [*opened.iterdump()]


@pytest.mark.parametrize("place", ["git"], indirect=True)
def test_a_backup_with_another_name_comes_back_from_its_text_too(app: SmallApp, place: Place, tmp_path: Path) -> None:
    settings = with_remote(app, place.table, include=["dump", "metadata"])
    before = app.contents()
    source = renamed(app, tmp_path, "from_old")
    push(settings)
    shutil.rmtree(source)
    pull_backup(settings, "from_old", "there")
    app.add_rows(3)
    app.command("restore", "from_old", "--force", check=0)
    assert app.contents().rows == before.rows


def test_another_backup_than_was_asked_for_is_not_taken(
    app: SmallApp, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_remote(app, place.table)
    for number, name in enumerate(("one", "two")):
        made(app, name, days=number)
    push(settings)
    kind = type(open_remote(settings, "there"))
    fetch = kind.pull
    monkeypatch.setattr(kind, "pull", lambda remote, _name, target, emit: fetch(remote, "two", target, emit))
    shutil.rmtree(app.backups / "one")
    with pytest.raises(Damaged, match="one arrived damaged from there: it is another backup than the list says"):
        pull_backup(settings, "one", "there")
    assert sorted(path.name for path in app.backups.iterdir() if path.name[0] != ".") == ["two"]


def test_a_backup_made_by_hand_comes_back_on_a_machine_of_another_time_zone(
    app: SmallApp, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made(app, "by_hand")
    (source / CHECKSUM_FILE).unlink()
    facts = {
        "timestamp": "20260101_120000",
        "database_file": "pats.db",
        "backup_name": "hand",
        "uploads_included": True,
    }
    (source / METADATA_FILE).write_text(json.dumps(facts))
    settings = with_remote(app, place.table)
    push(settings)
    shutil.rmtree(source)
    monkeypatch.setenv("BACKUP_TIMEZONE", "Asia/Tokyo")
    assert pull_backup(with_table(app, place.table), "by_hand", "there").fetched


def test_another_backup_of_the_same_name_is_behind_and_not_here(app: SmallApp, place: Place) -> None:
    settings = with_remote(app, place.table)
    made(app, "one")
    push(settings)
    assert look_at_remotes(settings).remotes[0].is_current
    shutil.rmtree(app.backups / "one")
    made(app, "one", days=-1)
    state = look_at_remotes(settings).remotes[0]
    assert state.behind == 1 and not state.is_current


def test_what_is_removed_is_gone_and_the_others_are_whole(app: SmallApp, place: Place) -> None:
    settings = with_remote(app, place.table)
    for number, name in enumerate(("one", "two", "three")):
        made(app, name, days=number)
    push(settings)
    remote = open_remote(settings, "there")
    remote.remove(["one", "three"])
    remote.remove(["one", "none"])
    if isinstance(remote, Tidying):
        remote.tidy(silence)
    assert there(settings) == ["two"]
    remote.verify(silence)
    shutil.rmtree(app.backups / "two")
    assert pull_backup(settings, "two", "there").fetched


def test_a_backup_there_passes_a_real_test_restore(app: SmallApp, place: Place) -> None:
    settings = with_remote(app, place.table)
    made(app, "one")
    push(settings)
    verify_remote(settings, "there")
    before = sorted(os.listdir(app.backups))
    (proven,) = prove_remote(settings, "latest", "there")
    assert proven.took and not proven.flaws and not proven.failure
    assert sorted(os.listdir(app.backups)) == before
    with pytest.raises(NoSuchBackup, match="no backup other on the remote there"):
        prove_remote(settings, "other", "there")


@everywhere
def test_a_lost_remote_harms_no_backup_and_is_caught_up_when_it_is_back(app: SmallApp, place: Place) -> None:
    settings = with_remote(app, place.table)
    made(app, "one")
    push(settings)
    place.lose()
    source = made(app, "two", days=1)
    before = everything(source)
    (failed,) = push_backups(settings)
    assert isinstance(failed.failure, RemoteFailed) and failed.failure.hint
    assert everything(source) == before
    reasons = {one.backup.name: one.reasons for one in plan_prune(settings).verdicts}
    assert "not yet on there" in reasons["two"] and "not yet on there" not in reasons["one"]
    state = look_at_remotes(settings).remotes[0]
    assert state.failure and not state.is_current
    place.back()
    assert push(settings) == ("two",)
    assert there(settings) == ["two", "one"]


@pytest.mark.parametrize(
    ("place", "moment"),
    chance.cases(
        [
            ("folder", Step),
            ("folder", Progress),
            ("git", Step),
            ("git", Progress),
            ("restic", Step),
            pytest.param("rest", Progress, marks=pytest.mark.slow),
            ("sftp", Progress),
        ],
        "remotes lost in a push",
    ),
    indirect=["place"],
)
def test_a_remote_lost_during_a_push_is_readable_when_it_is_back_and_the_next_push_completes_it(
    app: SmallApp, place: Place, moment: type
) -> None:
    settings = with_remote(app, place.table)
    made(app, "one")
    push(settings)
    for number in range(100):  # so that the push takes longer than the half second after which restic shows progress
        app.write_upload(f"many/{number}", os.urandom(400_000))
    source = made(app, "two", days=1)
    lost: list[object] = []

    def losing(event: object) -> None:
        if isinstance(event, moment) and not lost:
            place.lose()
            lost.append(event)

    # `stall` also limits how long restic goes on trying.
    impatient = with_table(app, place.table | ({"stall": 8} if "stall" in place.table else {}))
    (failed,) = push_backups(impatient, emit=losing)
    assert lost and (isinstance(failed.failure, RemoteFailed) or moment is Progress)
    if isinstance(settings.remotes["there"], ResticTable) and moment is Progress:
        assert failed.failure is None or isinstance(failed.failure, RemoteAway)  # the network may recover
    place.back()
    assert set(there(settings)) <= {"one", "two"}
    push(settings)
    verify_remote(settings, "there")
    before = everything(source)
    shutil.rmtree(source)
    assert everything(pull_backup(settings, "two", "there").backup.path) == before


@pytest.mark.parametrize("place", ["folder", "restic", "s3"], indirect=True)
def test_a_remote_that_was_not_made_ready_is_not_filled_by_accident(
    app: SmallApp, place: Place, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "repository", ignore_errors=True)
    settings = with_table(app, place.table)
    made(app, "one")
    (failed,) = push_backups(settings)
    assert isinstance(failed.failure, RemoteFailed)
    assert "remotes --init there" in failed.failure.hint
    assert isinstance(open_remote(settings, "there"), Preparable)
    prepare_remote(settings, "there")
    assert push(settings) == ("one",)
    prepare_remote(settings, "there")
    assert there(settings) == ["one"]


@pytest.fixture
def orphans_come_here() -> Iterator[None]:
    """Make orphaned processes children of the tests, so that `kill_all` can wait for them, whatever process 1 does."""
    become_reaper = 36
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(become_reaper, 1)
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(become_reaper, 0)


def kill_all(leader: subprocess.Popen[bytes]) -> None:
    """Kill the process group and wait until all are gone: restic respects the lock of a live process."""
    os.killpg(leader.pid, signal.SIGKILL)
    leader.communicate()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-leader.pid, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("orphans_come_here")
@pytest.mark.parametrize(
    ("place", "after"),
    chance.cases(
        [("folder", 0.05), ("folder", 0.4), ("git", 0.4), ("git", 0.9), ("restic", 0.4), ("restic", 0.9)],
        "pushes that are killed",
    ),
    indirect=["place"],
)
def test_a_push_that_is_killed_leaves_the_remote_readable_and_the_next_completes_it(
    app: SmallApp, place: Place, after: float
) -> None:
    settings = with_remote(app, place.table)
    made(app, "one")
    push(settings)
    for number in range(40):
        app.write_upload(f"many/{number}", os.urandom(200_000))
    source = made(app, "two", days=1)
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from backupkit.config.settings import Settings;"
        "from backupkit.remotes.push import push_backups; import json, pathlib;"
        "told = json.loads(sys.argv[3]); print('ready', flush=True);"
        "push_backups(Settings(**{k: pathlib.Path(v) if isinstance(v, str) else v for k, v in told.items()}))"
    )
    told = {"app_dir": str(app.folder), "database": str(app.database), "uploads": str(app.uploads)}
    told |= {"dir": str(app.backups), "remotes": {"there": {"retry_for": 0, **place.table}}}  # type: ignore[dict-item]
    child = subprocess.Popen(
        [sys.executable, "-c", code, *sys.path[:2], json.dumps(told)],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout and child.stdout.readline() == b"ready\n"
    time.sleep(after)
    kill_all(child)
    assert set(there(settings)) <= {"one", "two"}
    push(settings)
    assert there(settings) == ["two", "one"]
    verify_remote(settings, "there")
    before = everything(source)
    shutil.rmtree(source)
    assert everything(pull_backup(settings, "two", "there").backup.path) == before


def warned(act: Callable[[Callable[[Event], None]], object]) -> str:
    """Return the warnings of a call that takes a listener."""
    heard: list[Event] = []
    act(heard.append)
    return " ".join(one.text for one in heard if isinstance(one, Warned))


def test_a_remote_that_has_lost_all_of_its_copies_is_not_a_new_one(app: SmallApp, place: Place) -> None:
    settings = with_remote(app, place.table)
    assert not warned(lambda emit: list_remote(settings, "there", emit))
    for day in range(2):
        made(app, f"day{day}", days=day)
    push(settings)
    open_remote(settings, "there").remove(["day0", "day1"])  # as somebody else may
    said = "The copies that were on the remote there are gone: day1, day0."
    for _ in range(2):
        assert said in warned(lambda emit: list_remote(settings, "there", emit))
    assert said in said_by_status(settings)
    assert said in warned(lambda emit: push_backups(settings, "day1", emit=emit))
    assert there(settings) == ["day1"] and said not in said_by_status(settings)
    assert not warned(lambda emit: push_backups(settings, emit=emit))


def test_a_damaged_copy_that_is_removed_is_not_said_to_be_gone(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    made(app, "one")
    push(settings)
    rotten_letter(tmp_path / "nas/one")
    with pytest.raises(Damaged):
        verify_remote(settings, "there")
    shutil.rmtree(tmp_path / "nas/one")
    assert not warned(lambda emit: push_backups(settings, emit=emit))


# Retention on the remote


def test_a_remote_keeps_what_its_own_rules_keep_and_gets_nothing_else_again(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    table = {"type": "folder", "path": str(tmp_path / "nas")}
    everywhere = with_remote(app, table)
    for day in range(5):
        made(app, f"day{day}", days=day, kind="scheduled")
    push(everywhere)
    with pytest.raises(Refused, match="no rules of its own"):
        plan_remote_prune(everywhere, "there")
    settings = with_table(app, table, keep_last=2, min_keep=1)

    def later() -> Any:
        return NOON + timedelta(days=9)

    plan = plan_remote_prune(settings, "there", clock=later)
    done = prune_remote(settings, "there", plan, clock=later)
    assert [one.name for one in done.removed] == ["day0", "day1", "day2"]
    assert there(settings) == ["day4", "day3"]
    assert push(settings) == ()
    assert len(store.all_backups(settings)) == 5
    assert look_at_remotes(settings).remotes[0].behind == 0


def test_nothing_goes_there_while_the_newest_backup_here_is_damaged(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")}, keep_last=1, min_keep=1)
    for day in range(2):
        made(app, f"day{day}", days=day, kind="scheduled")
        push(settings)
    (made(app, "day2", days=2, kind="scheduled") / "SHA256SUMS").unlink()
    plan = plan_remote_prune(settings, "there", clock=lambda: NOON + timedelta(days=9))
    assert plan.stopped and not plan.removals


def days_later() -> Any:
    return NOON + timedelta(days=9)


def five_days_there(app: SmallApp, table: dict[str, Any]) -> Settings:
    """Push five scheduled backups to a remote that keeps only the newest and at least two good ones."""
    settings = with_remote(app, table, keep_last=1, min_keep=2)
    for day in range(5):
        app.add_rows(1)
        made(app, f"day{day}", days=day, kind="scheduled")
        push(settings)
    return settings


def five_days_in_a_folder(app: SmallApp, nas: Path) -> Settings:
    nas.mkdir()
    return five_days_there(app, {"type": "folder", "path": str(nas)})


def test_copies_that_verify_found_damaged_are_not_counted_on(app: SmallApp, tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    settings = five_days_in_a_folder(app, nas)
    for name in ("day2", "day3"):
        (nas / name / "pats.db").write_bytes(b"")
    with pytest.raises(Damaged, match="day2"):
        verify_remote(settings, "there", clock=days_later)
    plan = plan_remote_prune(settings, "there", clock=days_later)
    kept = {one.backup.name: one.reasons for one in plan.verdicts if one.keep}
    assert set(kept) == {"day4", "day3", "day2", "day1"}  # day4 and day1 are good, the others damaged
    assert "good 2 of 2" in kept["day1"] and "damaged: look at it, then delete it" in kept["day3"]
    assert [one.name for one in prune_remote(settings, "there", plan, clock=days_later).removed] == ["day0"]
    (state,) = look_at_remotes(settings).remotes
    assert len(state.flaws) == 2 and not state.is_current
    assert "The remote there holds something damaged: day2: " in said_by_status(settings)
    shutil.rmtree(nas / "day2")
    shutil.rmtree(nas / "day3")
    assert push(settings) == ("day3",)  # the second good one is pushed again; the remote's rules would remove day2
    assert look_at_remotes(settings).remotes[0].flaws == () and "damaged" not in said_by_status(settings)


def said_by_status(settings: Settings) -> str:
    return " ".join(one.text for one in status(settings).reasons)


@pytest.mark.parametrize("is_found", [True, False])
def test_nothing_goes_there_while_the_newest_copy_is_damaged(app: SmallApp, tmp_path: Path, is_found: bool) -> None:
    nas = tmp_path / "nas"
    settings = five_days_in_a_folder(app, nas)
    plan = plan_remote_prune(settings, "there", clock=days_later)
    (nas / "day4" / "pats.db").write_bytes(b"")
    if is_found:
        with pytest.raises(Damaged):
            verify_remote(settings, "there", clock=days_later)
        assert "day4 is damaged" in plan_remote_prune(settings, "there", clock=days_later).stopped
    done = prune_remote(settings, "there", plan, clock=days_later)
    assert not done.removed and "day4" in done.warnings[0]
    assert set(there(settings)) == {f"day{day}" for day in range(5)}


@pytest.mark.parametrize(("hours", "goes"), [(6 * 24, 3), (7 * 24 + 1, 0)])
def test_a_copy_that_was_found_sound_is_not_read_again_within_a_week(
    app: SmallApp, tmp_path: Path, hours: int, goes: int
) -> None:
    nas = tmp_path / "nas"
    settings = five_days_in_a_folder(app, nas)
    verify_remote(settings, "there", clock=days_later)
    (nas / "day4" / "pats.db").write_bytes(b"")
    plan = plan_remote_prune(settings, "there", clock=days_later)
    done = prune_remote(settings, "there", plan, clock=lambda: days_later() + timedelta(hours=hours))
    assert len(done.removed) == goes


def test_a_repository_that_lost_a_pack_loses_no_snapshot_to_retention(app: SmallApp, tmp_path: Path) -> None:
    repository = put_repository(tmp_path / "repository", PASSWORD, tmp_path)
    settings = five_days_there(app, {"type": "restic", "repository": str(repository), "password": PASSWORD})
    plan = plan_remote_prune(settings, "there", clock=days_later)
    # A pack of file content: for a missing pack of folders, restic searches again and again for most of a minute.
    max(repository.glob("data/*/*"), key=lambda path: path.stat().st_size).unlink()
    done = prune_remote(settings, "there", plan, clock=days_later)
    assert not done.removed and "The remote there holds something damaged" in done.warnings[0]
    assert "the last check of there found: " in plan_remote_prune(settings, "there", clock=days_later).stopped
    assert set(there(settings)) == {f"day{day}" for day in range(5)}


def another_machine(settings: Settings, folder: Path) -> Settings:
    """Return the settings of another machine: the same app, by its id, with its own backups."""
    (folder / "other").mkdir()
    return settings.replaced(dir=folder / "other")


def test_the_copies_of_another_app_of_the_same_id_are_left_alone(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    table = {"type": "folder", "path": str(tmp_path / "nas")}
    shop = with_remote(app, table)
    for day in range(3):
        made(app, f"shop{day}", days=day, kind="scheduled")
    push(shop)
    wiki = another_machine(with_table(app, table, keep_last=1, min_keep=1), tmp_path)
    for day in (4, 5):
        create_backup(wiki, BackupRequest(f"wiki{day}", kind="scheduled"), clock=lambda: NOON + timedelta(days=day))  # noqa: B023
        push(wiki)
    plan = plan_remote_prune(wiki, "there", clock=days_later)
    assert [one.name for one in plan.removals] == ["wiki4"]
    strange = next(one for one in plan.verdicts if one.backup.name == "shop2")
    assert "it was never in this backups folder" in strange.reasons[0]
    prune_remote(wiki, "there", plan, clock=days_later)
    heard: list[Event] = []
    (done,) = push_backups(shop, emit=heard.append)
    assert not done.failure and any(isinstance(one, Warned) and "wiki5" in one.text for one in heard)
    assert pull_backup(shop, "latest", "there", heard.append).backup.name == "shop2"
    assert Notice("latest is shop2. Passed over: wiki5 (from elsewhere).") in heard
    forced = plan_remote_prune(wiki, "there", clock=days_later, takes_all=True)
    assert {one.name for one in forced.removals} == {"shop0", "shop1", "shop2"}


def test_a_new_machine_takes_what_is_there_for_its_own_only_by_force(app: SmallApp, tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    old = five_days_in_a_folder(app, nas)
    new = another_machine(old, tmp_path)
    assert pull_backup(new, "latest", "there").backup.name == "day4"
    assert not plan_remote_prune(new, "there", clock=days_later).removals
    create_backup(new, BackupRequest("new", kind="scheduled"), clock=lambda: NOON + timedelta(days=5))
    heard: list[Event] = []
    push_backups(new, emit=heard.append)
    assert not [one for one in heard if isinstance(one, Warned)]  # copies that were there first are not reported
    forced = plan_remote_prune(new, "there", clock=days_later, takes_all=True)
    assert [one.name for one in forced.removals] == ["day3", "day2", "day1", "day0"]
    prune_remote(new, "there", forced, force=True, clock=days_later)
    assert set(there(new)) == {"new", "day4"} and not listing_cache.recall(new.dir, "there").strangers


def test_a_lost_state_makes_nobody_of_what_is_there(app: SmallApp, tmp_path: Path) -> None:
    """No copy that is missing here is removed, and no push warns that copies come from elsewhere."""
    nas = tmp_path / "nas"
    settings = five_days_in_a_folder(app, nas)
    shutil.rmtree(app.backups / ".state")
    shutil.rmtree(app.backups / "day1")
    made(app, "day5", days=5, kind="scheduled")
    heard: list[Event] = []
    push_backups(settings, emit=heard.append)
    assert not [one for one in heard if isinstance(one, Warned)]
    plan = plan_remote_prune(settings, "there", clock=days_later)
    assert [one.name for one in plan.removals] == ["day3", "day2", "day0"]


def a_branch_that_keeps_two(app: SmallApp, folder: Path) -> Settings:
    host = folder / "host.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(host)], check=True)
    table = {"type": "git", "url": str(host), "keep": 2, "user_name": "A", "user_email": "a@example.com"}
    return with_remote(app, table)


def push_days(settings: Settings, name: str, days: range) -> None:
    """Make a backup for each of these days after noon, and push it."""
    for day in days:
        create_backup(settings, BackupRequest(f"{name}{day}"), clock=lambda: NOON + timedelta(days=day))  # noqa: B023
        push(settings)


@pytest.mark.needs("git")
def test_a_branch_that_gets_backups_from_elsewhere_loses_none_of_them(app: SmallApp, tmp_path: Path) -> None:
    shop = a_branch_that_keeps_two(app, tmp_path)
    push_days(shop, "shop", range(1))
    wiki = another_machine(shop, tmp_path)
    push_days(wiki, "wiki", range(1, 8))
    assert "shop0" in there(wiki) and {"wiki6", "wiki7"} < set(there(wiki)) and "wiki1" not in there(wiki)
    made(app, "shop8", days=8)
    heard: list[Event] = []
    (done,) = push_backups(shop, emit=heard.append)
    assert done.backups == ("shop8",) and not done.failure
    assert [one for one in heard if isinstance(one, Warned) and "also gets backups from another app" in one.text]
    of_wiki = [name for name in there(wiki) if "wiki" in name]
    push_days(shop, "shop", range(9, 14))
    assert [name for name in there(wiki) if "wiki" in name] == of_wiki
    assert {"shop12", "shop13"} < set(there(wiki)) and "shop0" not in there(wiki)


@pytest.mark.needs("git")
def test_a_new_machine_removes_no_backup_of_the_old_one_from_a_branch(app: SmallApp, tmp_path: Path) -> None:
    old = a_branch_that_keeps_two(app, tmp_path)
    push_days(old, "old", range(3))
    new = another_machine(old, tmp_path)
    assert pull_backup(new, "old2", "there").fetched
    push_days(new, "new", range(3, 8))
    assert {"old0", "old1", "new6", "new7"} <= set(there(new))
    assert not {"old2", "new3"} & set(there(new))  # its own by the pull, and beyond `keep`


@pytest.mark.needs("git")
def test_copies_from_elsewhere_keep_no_older_backup_off_a_branch(app: SmallApp, tmp_path: Path) -> None:
    shop = a_branch_that_keeps_two(app, tmp_path)
    push_days(another_machine(shop, tmp_path), "wiki", range(5, 8))
    made(app, "shop0")
    assert push(shop) == ("shop0",) and look_at_remotes(shop).remotes[0].behind == 0


def test_a_listing_of_an_earlier_version_is_of_copies_that_were_here(app: SmallApp, tmp_path: Path) -> None:
    settings = five_days_in_a_folder(app, tmp_path / "nas")
    seen = app.backups / ".state/remotes/there/seen.json"
    document = json.loads(seen.read_text())
    document.pop("own")
    seen.write_text(json.dumps(document))
    for day in range(4):
        shutil.rmtree(app.backups / f"day{day}")
    plan = plan_remote_prune(settings, "there", clock=days_later)
    assert [one.name for one in plan.removals] == ["day2", "day1", "day0"]


def test_latest_there_passes_over_what_verify_found_damaged(app: SmallApp, tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    settings = five_days_in_a_folder(app, nas)
    (nas / "day4" / "pats.db").write_bytes(b"")
    with pytest.raises(Damaged):
        verify_remote(settings, "there")
    shutil.rmtree(app.backups / "day3")
    heard: list[Event] = []
    assert pull_backup(settings, "latest", "there", heard.append).backup.name == "day3"
    assert Notice("latest is day3. Passed over: day4 (damaged).") in heard
    shutil.rmtree(app.backups / "day2")
    pull_backup(settings, "day2", "there", heard.append)
    assert sum("Passed over" in one.text for one in heard if isinstance(one, Notice)) == 1


def rot(pack: Path) -> None:
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)


@pytest.mark.parametrize("damage", [rot, Path.unlink])
def test_a_copy_that_arrived_damaged_counts_no_more_until_it_is_fetched_whole(
    app: SmallApp, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    repository = put_repository(tmp_path / "repository", PASSWORD, tmp_path)
    settings = with_remote(app, {"type": "restic", "repository": str(repository), "password": PASSWORD})
    made(app, "first")
    push(settings)
    before = set(repository.glob("data/*/*"))
    app.write_upload("large", os.urandom(200_000))
    made(app, "second", days=1)
    push(settings)
    pack = max(set(repository.glob("data/*/*")) - before, key=lambda path: path.stat().st_size)
    whole = pack.read_bytes()
    damage(pack)
    with pytest.raises(Damaged, match="The remote there holds something damaged: ignoring error for /"):
        prove_remote(settings, "second", "there")
    if damage is rot:
        verify_remote(settings, "there")  # restic's own check reads no file of a copy
        another = max(before, key=lambda path: path.stat().st_size)  # of content: for one of folders restic waits long
        lost = another.read_bytes()
        another.unlink()
        with pytest.raises(Damaged):
            verify_remote(settings, "there")
        assert set(checks.recall(settings, "there").flaws) == {"second", checks.WHOLE}  # it did not read `second`
        another.write_bytes(lost)
        verify_remote(settings, "there")
    assert "The remote there holds something damaged" in said_by_status(settings)
    shutil.rmtree(app.backups / "first")
    assert pull_backup(settings, "latest", "there").backup.name == "first"
    pack.unlink(missing_ok=True)
    pack.write_bytes(whole)
    shutil.rmtree(app.backups / "second")
    assert pull_backup(settings, "second", "there").fetched
    assert "holds something damaged" not in said_by_status(settings)


def test_a_backup_of_the_database_alone_never_takes_the_place_of_a_whole_one_there(
    app: SmallApp, tmp_path: Path
) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")}, keep_last=1, min_keep=1)
    made(app, "whole", kind="scheduled")
    order = BackupRequest("part", kind="scheduled", uploads=False)
    create_backup(app.settings, order, clock=lambda: NOON + timedelta(days=1))
    push(settings)
    assert there(settings) == ["part", "whole"]
    for name in ("part", "whole"):
        shutil.rmtree(app.backups / name)  # so that only the remote holds them
    assert not plan_remote_prune(settings, "there", clock=lambda: NOON + timedelta(days=2)).removals


# The folder remote


def test_a_mark_that_is_no_file_is_not_waited_for(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    (tmp_path / "nas" / MARKER).unlink()
    os.mkfifo(tmp_path / "nas" / MARKER)
    with pytest.raises(RemoteFailed, match="The remote there failed: it is not a plain file"):
        list_remote(settings, "there")


def test_an_empty_mount_point_is_refused_and_stays_empty(app: SmallApp, tmp_path: Path) -> None:
    mount = tmp_path / "nas"
    mount.mkdir()
    settings = with_table(app, {"type": "folder", "path": str(mount)})
    made(app, "one")
    (failed,) = push_backups(settings)
    assert failed.failure and "not prepared" in failed.failure.message and not list(mount.iterdir())
    mount.rmdir()
    (failed,) = push_backups(settings)
    assert failed.failure and f"The folder {mount}" in failed.failure.message and "Mount" in failed.failure.hint
    with pytest.raises(RemoteFailed, match="is not there"):
        prepare_remote(settings, "there")
    assert not mount.exists()


def test_a_folder_of_another_app_is_refused(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / MARKER).write_text('{"app_id": "shop"}')
    with pytest.raises(RemoteFailed, match="another app: shop"):
        with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})


def test_unchanged_files_are_linked_in_a_folder_and_changed_ones_are_not(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    made(app, "one")
    push(settings)
    before = (app.uploads / "2/letter.txt").stat().st_mtime_ns
    os.utime(app.write_upload("2/letter.txt", b"Dear company 3\n"), ns=(before, before))  # same size and time
    made(app, "two", days=1)
    push(settings)
    one, two = (tmp_path / "nas" / name / "uploads" for name in ("one", "two"))
    assert (one / "1/letter.txt").samefile(two / "1/letter.txt")
    assert not (one / "2/letter.txt").samefile(two / "2/letter.txt")
    assert (one / "2/letter.txt").read_bytes() == b"Dear company 2\n"


def test_a_push_to_a_full_folder_leaves_nothing_there(app: SmallApp, tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    nas.mkdir()
    app.write_upload("large", os.urandom(3 << 20))
    made(app, "one")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", nas], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        settings = with_remote(app, {"type": "folder", "path": str(nas), "keep_daily": "7"})
        (failed,) = push_backups(settings)
        assert failed.failure and "has no room" in failed.failure.message
        assert "nothing was changed" in failed.failure.message and os.listdir(nas) == [MARKER]
        assert "prune" not in failed.failure.hint and f"df -h {nas}" in failed.failure.hint
    finally:
        subprocess.run(["umount", nas], check=True)


def test_a_damaged_backup_is_not_copied_and_leaves_nothing(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    source = made(app, "one")
    torn = source / "uploads/1/letter.txt"
    torn.write_bytes(b"dear company 1\n")
    (failed,) = push_backups(settings)
    assert isinstance(failed.failure, Damaged) and "uploads/1/letter.txt" in failed.failure.message
    assert os.listdir(tmp_path / "nas") == [MARKER]


def test_a_backup_is_laid_out_from_a_remote_and_never_comes_into_the_backups_folder(
    app: SmallApp, place: Place, tmp_path: Path
) -> None:
    settings = with_remote(app, place.table)
    source = made(app, "one")
    sealed = everything(source / "uploads")
    push(settings)
    shutil.rmtree(source)
    shutil.rmtree(app.uploads)
    app.database.unlink()
    before, target = sorted(os.listdir(app.backups)), tmp_path / "look"
    done = lay_out_from(settings, "latest", "there", target)
    assert (done.layout.backup.name, done.rows["documents"]) == ("one", 2)
    assert sorted(os.listdir(app.backups)) == before
    assert [name for name in os.listdir(tmp_path) if name.startswith(".draft")] == []
    assert (target / "data" / "pats.db").exists()
    if place.table["type"] != "git":  # git keeps no modes and times
        assert everything(target / "uploads") == sealed
    lay_out_from(settings, "one", "there", tmp_path / "half", "database")
    assert not (tmp_path / "half" / "uploads").exists()
    with pytest.raises(NoSuchBackup, match="no backup other"):
        lay_out_from(settings, "other", "there", tmp_path / "other")
    assert not (tmp_path / "other").exists() and not (tmp_path / ".draft-other").exists()


def test_what_rots_on_a_remote_is_not_laid_out(app: SmallApp, nas: Path, tmp_path: Path) -> None:
    run = (app.command, ("restore", "one", "--to", str(tmp_path / "look"), "--remote", "nas"))
    app.command("backup", "one", check=0)
    app.command("push", check=0)
    (file,) = nas.glob("**/one/uploads/1/letter.txt")
    file.write_bytes(b"Dear nobody 1\n")
    failed = run[0](*run[1], check=12)
    assert "arrived damaged from nas" in failed.err and not (tmp_path / "look").exists()
    assert_refusal(
        app.command("restore", "one", "--remote", "nas"), 2, "--remote goes with --to", "pull one --remote nas"
    )
    planned = app.command(*run[1], "--dry-run", check=0)  # --dry-run fetches nothing
    assert "Restoring one from nas to" in planned.out and "Nothing live is touched" in planned.out
    at_once = ("restore", "--to", str(tmp_path / "look"), "--remote", "nas", "--dry-run", "--at")
    assert app.command(*at_once, "0 seconds ago", "--json", check=0).json["source"] == "one"
    assert_refusal(app.command(*at_once, "3 days ago"), 10, "made until", "list --remote nas")
    assert not (tmp_path / "look").exists()


def test_what_rots_in_a_folder_is_found_by_verify_and_never_pulled(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    shutil.copytree(made(app, "one"), tmp_path / "safe")
    push(settings)
    (tmp_path / "nas/one/uploads/1/letter.txt").write_bytes(b"dear company 1\n")
    with pytest.raises(Damaged, match=r"holds something damaged: one: uploads/1/letter\.txt"):
        verify_remote(settings, "there")
    shutil.rmtree(app.backups / "one")
    shutil.rmtree(app.backups / ".state" / "remotes")
    with pytest.raises(Damaged, match="arrived damaged from there"):
        pull_backup(settings, "one", "there")
    assert not [name for name in os.listdir(app.backups) if "one" in name]


def rotten_letter(copy: Path) -> None:
    """Change the content of a file below its time, as a bad sector does."""
    letter = copy / "uploads/1/letter.txt"
    facts = letter.stat()
    letter.write_bytes(b"?" * facts.st_size)
    os.utime(letter, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def has_rotted(copy: Path) -> bool:
    return (copy / "uploads/1/letter.txt").read_bytes().startswith(b"?")


def two_that_share_a_rotten_file(app: SmallApp, nas: Path) -> Settings:
    """Push two backups that share a file, which then rots there."""
    nas.mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(nas)})
    for day in range(2):
        app.add_rows(1)
        made(app, f"day{day}", days=day)
        push(settings)
    rotten_letter(nas / "day0")
    assert has_rotted(nas / "day1")
    return settings


def test_a_damaged_copy_is_linked_into_no_other_and_is_mended_as_the_hint_says(app: SmallApp, tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    settings = two_that_share_a_rotten_file(app, nas)
    with pytest.raises(Damaged, match="day0: uploads/1/letter") as raised:
        verify_remote(settings, "there")
    app.add_rows(1)
    made(app, "day2", days=2)
    assert push(settings) == ("day2",) and not has_rotted(nas / "day2")
    shutil.rmtree(nas / "day0")
    assert push(settings) == ("day0",) and not has_rotted(nas / "day0")
    assert (nas / "day0/uploads/1/letter.txt").stat().st_nlink == 2  # linked to a good one
    line = raised.value.hint.rpartition("`push`: ")[2]
    assert line == f"rm -r {nas}/day0 {nas}/day1"
    subprocess.run(line, shell=True, check=True)
    assert push(settings) == ("day1", "day0")
    verify_remote(settings, "there")


def test_what_a_damaged_copy_shares_with_another_is_read_before_it_is_linked(app: SmallApp, tmp_path: Path) -> None:
    """A pull finds one copy damaged, and says nothing of the others that have the same file."""
    nas = tmp_path / "nas"
    settings = two_that_share_a_rotten_file(app, nas)
    shutil.rmtree(app.backups / "day1")
    with pytest.raises(Damaged, match="day1 arrived damaged"):
        pull_backup(settings, "day1", "there")
    made(app, "day2", days=2)
    assert push(settings) == ("day2",) and not has_rotted(nas / "day2")
    assert (nas / "day2/uploads/2/letter.txt").stat().st_nlink == 3


@contextlib.contextmanager
def cut_short(folder: Path, backup: Path) -> Iterator[None]:
    """Put the backup on a disk that has lost its end, and with it that of `big.bin`, until the block ends."""
    image, place = folder / "image", folder / "disk"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(40_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", image], check=True)
    with until_unmounted("ext4", ["mount", "-o", "loop", image, place]):
        subprocess.run(["cp", "-a", f"{backup}/.", place], check=True)
        with until_unmounted("bind", ["mount", "--bind", place, backup]):
            shutil.rmtree(place / "lost+found")
            with open(backup / "uploads/big.bin", "rb") as big:
                os.sync()
                os.posix_fadvise(big.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.truncate(image, 10_000_000)
            yield


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a disk")
def test_a_backup_that_cannot_be_read_here_is_no_failure_of_the_remote(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    made(app, "one")
    app.write_upload("big.bin", os.urandom(25_000_000))
    made(app, "two", 1)
    with cut_short(tmp_path, app.backups / "two"):
        (done,) = push_backups(settings)
    assert done.backups == ("one",) and there(settings) == ["one"]  # it keeps no other back
    assert isinstance(done.failure, Damaged) and "/two/uploads/big.bin" in done.failure.message
    assert "remote" not in done.failure.message and done.failure.hint == "Its disk fails. `verify two` reads all of it."
    assert not [name for name in os.listdir(tmp_path / "nas") if name.startswith(disk.DRAFT_PREFIX)]


def plant_in(app: SmallApp, copy: Path, plant: Callable[[Path], object]) -> None:
    """Plant something in a backup on the remote, as an attacker does who also seals it again; delete the local one."""
    plant(copy)
    metadata = json.loads((copy / METADATA_FILE).read_text())
    metadata["uploads"].pop("tree")
    (copy / METADATA_FILE).write_text(json.dumps(metadata))
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != CHECKSUM_FILE)
    sums = [f"{disk.hash_file(path)}  {path.relative_to(copy)}\n" for path in files if not path.is_symlink()]
    (copy / CHECKSUM_FILE).write_text("".join(sums))
    shutil.rmtree(app.backups / copy.name)


def set_user_id(copy: Path) -> None:
    (copy / "uploads" / "1" / "letter.txt").chmod(0o4755)


def set_user_id_of_the_database(copy: Path) -> None:
    (copy / "pats.db").chmod(0o4755)


def link_out(copy: Path) -> None:
    (copy / "uploads" / "out").symlink_to("/etc")


def link_to_nothing_of_ours(copy: Path) -> None:
    (copy / "pats.db").unlink()
    (copy / "pats.db").symlink_to("/etc/shadow")


@pytest.mark.parametrize(
    ("plant", "says", "is_own_affair"),
    [
        (set_user_id, "uploads/1/letter.txt is a setuid or setgid file", True),
        (set_user_id_of_the_database, "pats.db is a setuid or setgid file", True),
        (link_out, "uploads/out is a link that leads out of the uploads", True),
        (link_to_nothing_of_ours, "pats.db is a link, where a backup has a file", False),
        (lambda copy: (copy / "more").mkdir(), "more was added after the backup was made", False),
        (lambda copy: os.mkfifo(copy / "uploads" / "fifo"), "is a socket, a fifo or a device", False),
    ],
)
def test_a_hostile_remote_brings_nothing_that_an_archive_may_not(
    app: SmallApp, tmp_path: Path, plant: Callable[[Path], object], says: str, is_own_affair: bool
) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    made(app, "good")
    push(settings)
    plant_in(app, tmp_path / "nas" / "good", plant)
    with pytest.raises(Damaged, match=says) as refused:
        pull_backup(settings, "good", "there")
    assert ("--trust" in refused.value.hint) == is_own_affair
    assert not (app.backups / "good").exists() and not list(app.backups.glob(".draft*"))
    if is_own_affair:
        assert pull_backup(settings, "good", "there", trust=True).fetched
    else:
        with pytest.raises(Damaged):
            pull_backup(settings, "good", "there", trust=True)


def test_a_copy_that_was_cut_short_is_taken_up_again(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    app.write_upload("first", b"a" * 100_000)
    source = made(app, "one")
    draft = tmp_path / "nas" / f"{disk.DRAFT_PREFIX}one"
    shutil.copytree(source, draft, symlinks=True)
    for path in source.rglob("*"):
        os.lchown(draft / path.relative_to(source), path.lstat().st_uid, path.lstat().st_gid)
    kept = (draft / "uploads/first").stat().st_ino
    (draft / "uploads/1/letter.txt").write_bytes(b"torn")
    (draft / "uploads/stranger").write_bytes(b"not in it")
    assert there(settings) == []
    push(settings)
    final = tmp_path / "nas/one"
    assert everything(final) == everything(source) and (final / "uploads/first").stat().st_ino == kept


def test_a_copy_that_ends_at_any_file_is_completed_by_the_next(
    app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    source, real, cut = made(app, "one"), disk.copy_open, 0
    for last in range(1, 20):
        left = iter(range(last))

        def failing(one: int, two: int, facts: os.stat_result) -> int:
            if next(left, None) is None:  # noqa: B023 - used before it changes
                raise KeyboardInterrupt
            return real(one, two, facts)

        monkeypatch.setattr(disk, "copy_open", failing)
        with contextlib.suppress(KeyboardInterrupt):
            push(settings)
            break
        cut += 1
        assert there(settings) == []
    assert cut and everything(tmp_path / "nas/one") == everything(source)


# restic


@pytest.fixture
def repository(app: SmallApp, tmp_path: Path, needs: Any) -> Settings:
    needs("restic")
    path = put_repository(tmp_path / "repository", PASSWORD, tmp_path.parent)
    table = {"type": "restic", "repository": str(path), "password": PASSWORD}
    return with_remote(app, table)


def restic(tmp_path: Path, *words: str) -> Any:
    environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": str(tmp_path / "repository")}
    done = subprocess.run(["restic", *words, "--json"], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_snapshot_is_found_by_its_tags_and_has_the_time_of_the_backup(
    app: SmallApp, repository: Settings, tmp_path: Path
) -> None:
    made(app, "one")
    push(repository)
    (snapshot,) = restic(tmp_path, "snapshots")
    assert snapshot["time"] == "2026-06-15T12:00:00Z"
    assert {"backupkit", "app=pats", "name=one", "kind=manual"} <= set(snapshot["tags"])
    assert any(tag.startswith("revision=") and len(tag) > 12 for tag in snapshot["tags"])


def test_apps_share_a_repository_and_see_their_own(app: SmallApp, repository: Settings, tmp_path: Path) -> None:
    made(app, "one")
    push(repository)
    other = repository.replaced(app_id="the, other app")
    assert there(other) == []
    restic(tmp_path, "backup", str(app.uploads), "--tag", "backupkit", "--tag", "app=pats")
    assert there(repository) == ["one"]


def test_a_wrong_password_is_said_in_a_sentence(app: SmallApp, repository: Settings, tmp_path: Path) -> None:
    table = {"type": "restic", "repository": str(tmp_path / "repository"), "password": "wrong sesame"}
    with pytest.raises(RemoteFailed, match="password of the remote there is wrong") as raised:
        there(with_table(app, table))
    assert "sesame" not in raised.value.message + raised.value.hint
    assert "BACKUP_REMOTE_THERE_PASSWORD" in raised.value.hint


@pytest.mark.needs("restic")
@pytest.mark.parametrize("wrong", ["key", "secret", "rights"])
def test_keys_that_are_wrong_are_no_missing_repository(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    pytest.importorskip("moto.server")
    with servers.guarded_s3() as (port, key, secret):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another" if wrong == "key" else key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another" if wrong == "secret" else secret)
        table = {"type": "restic", "repository": f"s3:http://127.0.0.1:{port}/backups/pats", "password": PASSWORD}
        settings = with_table(app, table)
        for act in (lambda: there(settings), lambda: prepare_remote(settings, "there")):
            with pytest.raises(RemoteFailed, match="The remote there denied access: ") as raised:
                act()
            assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in raised.value.hint
            assert "--init" not in raised.value.hint and not isinstance(raised.value, RemoteAway)


@pytest.mark.needs("restic")
def test_a_remote_that_can_be_made_ready_but_not_listed_ends_with_its_failure(
    app: SmallApp, repository: Settings, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    refusal = 'case "$*" in *snapshots*) echo "Fatal: Stat: Access Denied." >&2; exit 1 ;; esac'
    (programs / "restic").write_text(f'#!/bin/sh\n{refusal}\nexec {shutil.which("restic")} "$@"\n')
    (programs / "restic").chmod(0o755)
    address, lost = repository.remotes["there"].place, f'[remotes.lost]\ntype = "folder"\npath = "{tmp_path}/lost"\n'
    cloud = f'[remotes.cloud]\ntype = "restic"\nrepository = "{address}"\npassword = "{PASSWORD}"\n'
    (app.folder / "backup.toml").write_text(lost + cloud)
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    failed = app.command("remotes", "--init", "cloud", env=path, check=16)
    assert "The remote cloud denied access: " in failed.err and "cloud" in failed.out
    app.command("remotes", "--init", "cloud", check=0)  # whatever the other remote is like


@pytest.mark.needs("restic", "rclone")
def test_a_repository_that_only_grows_takes_a_push_and_loses_nothing(app: SmallApp, tmp_path: Path) -> None:
    """Someone with all keys of this machine cannot delete the copies; see docs/security.md."""
    put_repository(tmp_path / "served", PASSWORD, tmp_path)
    with servers.rest(tmp_path, "--append-only") as port:
        table = {"type": "restic", "repository": f"rest:http://127.0.0.1:{port}/", "password": PASSWORD}
        settings = with_remote(app, table)
        made(app, "one")
        push(settings)
        made(app, "two", 1)
        push(settings)
        with pytest.raises(RemoteFailed, match=r"403 Forbidden|did not remove"):
            open_remote(settings, "there").remove(["one"])
        assert there(settings) == ["two", "one"]
        shutil.rmtree(app.backups / "one")
        assert pull_backup(settings, "one", "there").fetched


def test_a_stale_lock_is_taken_away_and_one_in_use_is_waited_for(
    app: SmallApp, repository: Settings, tmp_path: Path
) -> None:
    made(app, "one")
    push(repository)
    (lock,) = [locked(tmp_path)]
    os.kill(lock.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RemoteAway, match="locked: already locked"):
            open_remote(repository, "there").verify(silence)
    finally:
        os.kill(lock.pid, signal.SIGKILL)
        lock.wait()
    assert os.listdir(tmp_path / "repository/locks")
    open_remote(repository, "there").verify(silence)


def locked(tmp_path: Path) -> subprocess.Popen[bytes]:
    """Start a restic that holds a lock, because it waits for the end of its input."""
    environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": str(tmp_path / "repository")}
    child = subprocess.Popen(["restic", "backup", "--stdin"], env=environment, stdin=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not any(len(name) == 64 for name in os.listdir(tmp_path / "repository/locks")):  # a draft's name is longer
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return child


@pytest.mark.parametrize(
    ("script", "says"),
    [(None, "restic is not installed"), ("echo restic 0.9.6 compiled with go", "too old: restic 0.9.6")],
    ids=["missing", "old"],
)
def test_without_a_usable_restic_it_says_what_to_install(
    app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, says: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if script:
        (programs / "restic").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    settings = with_table(app, {"type": "restic", "repository": "/nowhere", "password": PASSWORD})
    with pytest.raises(RemoteFailed, match=says) as raised:
        there(settings)
    assert "nstall" in raised.value.hint


@pytest.mark.parametrize("repository", ["rest:http://127.0.0.1:9/", "s3:http://127.0.0.1:9/backups"])
def test_no_network_is_worth_another_try(
    app: SmallApp, repository: str, needs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("restic")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    table = {"type": "restic", "repository": repository, "password": PASSWORD, "stall": 15}
    with pytest.raises(RemoteAway):
        there(with_table(app, table))


def test_a_server_that_says_nothing_is_given_up(app: SmallApp, needs: Any) -> None:
    needs("restic")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        repository = f"rest:http://127.0.0.1:{silent.getsockname()[1]}/"
        table = {"type": "restic", "repository": repository, "password": PASSWORD, "stall": 1}
        with pytest.raises(RemoteAway, match="no progress for 1 s"):
            there(with_table(app, table))


@pytest.mark.needs("restic", "ssh", "sshd")
def test_a_host_that_is_not_known_or_does_not_know_us_is_no_passing_trouble(
    app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.ssh(tmp_path / "sshd") as server:
        keys = server.keys_for(tmp_path / "ssh")
        ssh_with(monkeypatch, tmp_path / "bin", keys)
        table = {"type": "restic", "repository": f"sftp://{server.address}//nowhere", "password": PASSWORD}
        settings = with_table(app, table, retry_for=60)  # ssh's last message is sometimes lost
        with pytest.raises(RemoteFailed, match="no repository of restic at"):
            list_remote(settings, "there")
        (keys / "known_hosts").write_text("")
        with pytest.raises(RemoteFailed, match="ssh cannot log in to the remote there: Host key verif") as raised:
            list_remote(settings, "there")
        assert not isinstance(raised.value, RemoteAway) and "known_hosts" in raised.value.hint
        server.keys_for(tmp_path / "other").joinpath("known_hosts").rename(keys / "known_hosts")
        (server.folder / "id_ed25519.pub").write_text("")
        with pytest.raises(RemoteFailed, match=r"ssh cannot log in to .*: .* denied \(publickey\)\."):
            list_remote(settings, "there")


@pytest.mark.needs("restic")
@pytest.mark.parametrize(("address", "program"), [("sftp:host:/x", "ssh"), ("rclone:nas:x", "rclone")])
def test_what_restic_itself_needs_is_named_where_it_is_missing(
    app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, program: str
) -> None:
    (tmp_path / "restic").symlink_to(shutil.which("restic") or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    table = {"type": "restic", "repository": address, "password": PASSWORD}
    with pytest.raises(RemoteFailed, match=f"^{program} is not installed, and the remote there needs it"):
        there(with_table(app, table))


def test_the_password_is_on_no_command_line(app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    script = f'#!/bin/sh\necho "$*" >> {tmp_path}/seen\n[ "$1" = version ] && echo restic 0.14.0 && exit\necho "[]"\n'
    (programs / "restic").write_text(script)
    (programs / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    secret = "rest:http://user:sesame@127.0.0.1:9/"
    table = {"type": "restic", "repository": secret, "password": "open sesame"}
    settings = with_table(app, table)
    assert there(settings) == []
    assert "snapshots" in (tmp_path / "seen").read_text() and "sesame" not in (tmp_path / "seen").read_text()
    assert str(settings.remotes["there"].repository) == "rest:http://***@127.0.0.1:9/"  # type: ignore[union-attr]


def test_snapshots_that_cannot_be_listed_are_not_none(
    app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """restic 0.14 says so, prints an empty list, and ends with 0: the words are its own, after a minute of tries."""
    programs = tmp_path / "bin"
    programs.mkdir()
    said = "could not load snapshots: open /r/snapshots: permission denied"
    script = f'[ "$1" = version ] && echo restic 0.14.0 && exit\necho "[]"; echo "{said}" >&2'
    (programs / "restic").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(RemoteFailed, match=r"denied access.*permission denied"):
        there(with_table(app, {"type": "restic", "repository": "/r", "password": PASSWORD}))


def test_a_file_that_cannot_be_read_is_not_left_out_silently(
    app: SmallApp, repository: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(app, "one")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "letter" not in str(path) and real(path, mode))
    (failed,) = push_backups(repository)
    assert isinstance(failed.failure, RemoteFailed) and "letter.txt cannot be read" in failed.failure.message
    assert there(repository) == []


# Retries


def test_a_link_that_this_restic_cannot_keep_is_named_and_its_backup_not_sent(
    app: SmallApp, repository: Settings, tmp_path: Path
) -> None:
    made(app, "one")
    os.symlink(b"\xff", os.fsencode(app.uploads / "odd"))
    odd = everything(made(app, "odd", 1))
    (app.uploads / "odd").unlink()
    made(app, "three", 2)
    (done,) = push_backups(repository)
    if (restic_program.installed_version() or (0, 0)) >= (0, 16):  # since then it keeps such a target
        assert not done.failure and done.backups == ("three", "odd", "one")
        shutil.rmtree(app.backups / "odd")
        assert everything(pull_backup(repository, "odd", "there").backup.path) == odd
        return
    assert done.backups == ("three", "one") == tuple(there(repository))  # it keeps no other back
    assert isinstance(done.failure, Refused) and "the link uploads/odd (its target is not UTF-8)" in str(done.failure)
    assert "Install restic 0.16" in done.failure.hint and look_at_remotes(repository).remotes[0].behind == 1


def test_a_passing_trouble_is_tried_again_with_longer_pauses_until_the_deadline() -> None:
    pauses: list[float] = []
    told: list[object] = []
    answers = iter([RemoteAway("Gone."), RemoteAway("Gone."), RemoteAway("Gone."), None])

    def act() -> str:
        if error := next(answers):
            raise error
        return "there"

    assert retry_while_away(act, 3600, told.append, pauses.append) == "there"
    assert pauses == [2, 4, 8]
    assert told[0] == Waiting("Gone. Trying again in 2 s.")
    with pytest.raises(RemoteAway):
        retry_while_away(lambda: (_ for _ in ()).throw(RemoteAway("Gone.")), 0, silence, pauses.append)
    assert pauses == [2, 4, 8]


def test_what_will_not_pass_is_not_tried_again() -> None:
    pauses: list[float] = []
    with pytest.raises(RemoteFailed):
        retry_while_away(lambda: (_ for _ in ()).throw(RemoteFailed("Wrong password.")), 3600, silence, pauses.append)
    assert not pauses


# The commands


@pytest.fixture
def nas(app: SmallApp, tmp_path: Path) -> Path:
    """A folder remote in `backup.toml`, ready for use."""
    folder = tmp_path / "nas"
    folder.mkdir()
    (app.folder / "backup.toml").write_text(f'[remotes.nas]\ntype = "folder"\npath = "{folder}"\nretry_for = 0\n')
    app.command("remotes", "--init", "nas", check=0)
    return folder


def test_run_carries_the_new_backup_away_and_a_lost_remote_is_a_warning(app: SmallApp, nas: Path) -> None:
    done = app.command("run", "--json", check=0).json
    assert [step["name"] for step in done["steps"]] == ["backup", "verify", "prune", "push"]
    assert (nas / done["steps"][0]["backup"] / "SHA256SUMS").is_file()
    nas.rename(nas.with_name("unmounted"))
    result = app.command("run", check=3)
    assert "Warning: The push to nas failed: " in result.err
    assert len(store.all_backups(app.settings)) == 2
    nas.with_name("unmounted").rename(nas)
    app.command("run", check=0)
    assert len(app.command("list", "--remote", "nas", "--json", check=0).json) == 3


def test_a_backup_is_carried_away_at_once_where_the_settings_say_so(app: SmallApp, nas: Path) -> None:
    app.command("backup", "one", check=0)
    assert not (nas / "one").exists()
    app.command("backup", "two", env={"BACKUP_PUSH_AFTER_BACKUP": "true"}, check=0)
    assert (nas / "one").exists() and (nas / "two").exists()
    nas.rename(nas.with_name("unmounted"))
    result = app.command("backup", "three", "--json", env={"BACKUP_PUSH_AFTER_BACKUP": "true"}, check=3)
    assert result.json["backup_name"] == "three" and "The push to nas failed" in result.json["warnings"][0]


BY: dict[str, Callable[[Settings], str]] = {
    "the call": lambda settings: str(getattr(AppFolder(settings=settings).create_backup_now(), "name", None)),
    "one a day": lambda settings: str(getattr(AppFolder(settings=settings).create_backup_if_needed(), "name", None)),
    "the library": lambda settings: backupkit.create_backup(settings, BackupRequest("by_library")).backup.name,
    "the interface": lambda settings: tasks.back_up(settings, "by_interface", "").act(silence).backup.name,
    "protected": lambda settings: _in_protected(settings),
}


def _in_protected(settings: Settings) -> str:
    with protected("import", on=AppFolder(settings=settings)) as operation:
        return operation.backup.name


@pytest.mark.parametrize("make", BY.values(), ids=BY)
def test_whoever_makes_a_backup_it_is_pushed_where_the_settings_say_so(
    app: SmallApp, nas: Path, make: Callable[[Settings], str]
) -> None:
    with (app.folder / "backup.toml").open("a") as file:
        file.write('[remotes.lost]\ntype = "folder"\npath = "nowhere"\nretry_for = 0\n')
    settings = load_settings(app.folder)
    name = make(settings.replaced(push_after_backup=True))
    assert (app.backups / name / "SHA256SUMS").is_file() and (nas / name / "SHA256SUMS").is_file()


def test_remotes_says_how_far_behind_and_ends_with_it(app: SmallApp, nas: Path) -> None:
    app.command("backup", "one", check=0)
    assert "with the live data, on 1 medium, 0 in another place" in app.command("remotes", check=3).out
    document = app.command("remotes", "--json", check=3).json
    assert document["remotes"][0]["behind"] == 1 and "a third copy" in document["lacking"]
    app.command("push", check=0)
    document = app.command("remotes", "--json", check=0).json  # the 3-2-1 rule is not met, but nothing is behind
    assert document["copies"] == 3 and document["lacking"][-1] == "a copy in another place"
    text = (app.folder / "backup.toml").read_text()
    (app.folder / "backup.toml").write_text(text + "offsite = true\n")
    assert "satisfied" in app.command("remotes", check=0).out
    nas.rename(nas.with_name("unmounted"))
    result = app.command("remotes", check=16)
    assert "FAILED" in result.out and result.err.startswith("Error: ")


def test_a_damaged_backup_is_replaced_by_its_copy_which_verify_status_and_doctor_name(app: SmallApp, nas: Path) -> None:
    app.command("backup", "one", check=0)
    app.command("push", check=0)
    sealed = app.backups / "one" / "pats.db"
    good = tree(app.backups / "one")
    sealed.write_bytes(sealed.read_bytes()[:-10] + b"0123456789")
    for command in (("verify", "one"), ("verify", "--all")):
        assert "backup_restore.py pull one --remote nas`" in app.command(*command, check=12).err
    assert "a copy of one on nas" in (said := app.command("status").out) and "pull one --remote nas" in said
    assert "pull one --remote nas" in app.command("doctor").out
    app.command("pull", "one", "--remote", "nas", check=0)
    assert {path: facts[3] for path, facts in tree(app.backups / "one").items()} == {
        path: facts[3] for path, facts in good.items()
    }
    app.command("verify", "one", check=0)
    assert not list(app.backups.glob(".draft*"))


def test_a_damaged_backup_stays_where_its_copy_is_damaged_too(app: SmallApp, nas: Path) -> None:
    app.command("backup", "one", check=0)
    app.command("push", check=0)
    for folder in (app.backups, nas):
        (folder / "one" / "uploads/1/letter.txt").write_bytes(b"altered")
    app.command("verify", "one", check=12)
    before = tree(app.backups / "one")
    app.command("pull", "one", "--remote", "nas", check=12)
    assert tree(app.backups / "one") == before


def test_no_copy_of_a_damaged_backup_is_named_where_none_is_known(app: SmallApp, nas: Path) -> None:
    app.command("backup", "one", check=0)
    (app.backups / "one" / "uploads/1/letter.txt").write_bytes(b"altered")
    assert "pull" not in app.command("verify", "one", check=12).err
    assert "pull" not in app.command("status").out


def test_push_alone_ends_with_16_and_changes_nothing_here(app: SmallApp, nas: Path) -> None:
    app.command("backup", "one", check=0)
    nas.rename(nas.with_name("unmounted"))
    before = picture(app)
    result = app.command("push")
    assert result.code == 16 and f"mkdir -p {nas}" in result.err and "Traceback" not in result.err
    assert f"nas: FAILED: The folder {nas} of the remote nas is not there" in result.out
    assert {path: facts for path, facts in picture(app).items() if ".state" not in path} == {
        path: facts for path, facts in before.items() if ".state" not in path
    }


def test_pull_leaves_what_is_here_and_refuses_another_of_that_name(app: SmallApp, nas: Path) -> None:
    app.command("backup", "one", check=0)
    app.command("push", check=0)
    assert "nothing was pulled" in app.command("pull", "latest", check=0).out
    app.command("delete", "one", "--force", check=0)
    app.command("backup", "one", check=0)
    assert_refusal(app.command("pull", "one"), 2, "one", "show")
    assert_refusal(app.command("pull", "none"), 10, "none", "list --remote nas")


def test_a_list_says_which_copies_are_here_by_name_and_moment(app: SmallApp, nas: Path) -> None:
    def says() -> dict[str, str]:
        rows = [line.split() for line in app.command("list", "--remote", "nas", check=0).out.splitlines()[1:]]
        return {row[0]: row[-1] for row in rows}

    for name in ("one", "two", "three"):
        app.command("backup", name, check=0)
    app.command("push", check=0)
    assert says() == {"one": "yes", "two": "yes", "three": "yes"}
    shutil.rmtree(app.backups / "one")
    shutil.rmtree(app.backups / "two")
    app.command("backup", "two", check=0)
    (app.backups / "three" / METADATA_FILE).write_bytes(b"unreadable")
    assert says() == {"one": "no", "two": "another", "three": "another"}
    assert "behind  " in app.command("remotes", check=3).out
    assert "another two" in app.command("push", check=16).err


def test_safety_copies_stay_here(app: SmallApp, nas: Path) -> None:
    app.command("backup", "one", check=0)
    app.command("restore", "one", "--force", check=0)
    app.command("push", check=0)
    assert sorted(path.name for path in nas.iterdir()) == [MARKER, "one"]


@pytest.fixture
def git_remote(app: SmallApp, tmp_path: Path, needs: Any) -> str:
    """The name of a git remote in `backup.toml` that keeps two backups."""
    needs("git")
    host = tmp_path / "host.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(host)], check=True)
    (app.folder / "backup.toml").write_text(
        f'[remotes.branch]\ntype = "git"\nurl = "{host}"\nuser_name = "B"\nuser_email = "b@example.com"\nkeep = 2\n'
    )
    return "branch"


def test_a_push_to_git_by_hand_asks_first_and_run_does_not(app: SmallApp, git_remote: str) -> None:
    app.command("backup", "one", check=0)
    assert_refusal(app.command("push"), 2, "asks first", "--yes")
    assert app.command("list", "--remote", git_remote, "--json", check=0).json == []
    app.command("push", "--yes", check=0)
    assert [one["name"] for one in app.command("list", "--remote", git_remote, "--json", check=0).json] == ["one"]
    assert app.command("run", "--json", check=0).json["steps"][-1]["state"] == "done"


def test_a_stray_commit_on_a_branch_of_git_is_a_warning_for_who_reads_and_stops_a_push(
    app: SmallApp, git_remote: str, tmp_path: Path
) -> None:
    app.command("backup", "one", check=0)
    app.command("push", "--yes", check=0)
    clone = tmp_path / "clone"
    author = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    subprocess.run(["git", "clone", "--quiet", "--branch", "backup", tmp_path / "host.git", clone], check=True)
    subprocess.run(["git", "-C", clone, *author, "commit", "--quiet", "--allow-empty", "-m", "Hello"], check=True)
    subprocess.run(["git", "-C", clone, "push", "--quiet"], check=True)
    app.command("delete", "one", "--force", check=0)
    for words in (("list", "--remote"), ("remotes",), ("verify", "--remote"), ("pull", "one", "--remote")):
        said = app.command(*words, *([git_remote] if words != ("remotes",) else []), check=3)
        assert "(Hello); it is passed over" in said.err, words
    assert (app.backups / "one" / METADATA_FILE).is_file()
    app.command("backup", "two", check=0)
    said = app.command("push", "--yes", check=16)
    assert "(Hello); it is left as it is" in said.out and "git push --force-with-lease" in said.err


def test_a_branch_of_git_gets_the_oldest_first_so_that_its_head_is_the_newest(
    app: SmallApp, git_remote: str, tmp_path: Path
) -> None:
    for number in range(2):
        made(app, f"day_{number}", days=number)
    done = app.command("push", "--yes", "--json", check=0).json
    assert done[0]["pushed"] == ["day_0", "day_1"]
    log = ["git", "-C", str(tmp_path / "host.git"), "log", "--format=%s", "backup"]
    newest, oldest = subprocess.run(log, check=True, capture_output=True, text=True).stdout.splitlines()
    assert "day_1" in newest and "day_0" in oldest


def test_a_push_to_git_that_is_interrupted_goes_on_where_it_ended(
    app: SmallApp, git_remote: str, tmp_path: Path
) -> None:
    for number in range(3):
        made(app, f"day_{number}", days=number)
    host = tmp_path / "host.git"
    hook = host / "hooks" / "post-receive"  # the connection is lost when the first backup is there
    hook.write_text(f'#!/bin/sh\nmv "{host}" "{host}.aside"\n')
    hook.chmod(0o755)
    with (app.folder / "backup.toml").open("a") as table:
        table.write("retry_for = 0\n")
    app.command("push", "--yes", check=16)
    host.with_name("host.git.aside").rename(host)
    hook.unlink()
    app.command("push", "--yes", check=0)
    log = subprocess.run(["git", "-C", str(host), "log", "--format=%s", "backup"], check=True, capture_output=True)
    assert re.findall(r"day_\d", log.stdout.decode()) == ["day_2", "day_1"]


def test_a_backup_that_cannot_be_pushed_keeps_no_newer_one_back(app: SmallApp, git_remote: str) -> None:
    made(app, "day_0")
    app.add_rows(1)  # else both have the same file
    made(app, "day_1", days=1)
    with sqlite3.connect(app.backups / "day_0" / "pats.db") as database:
        database.execute("CREATE TABLE later (x)")
    assert "day_0" in app.command("push", "--yes", check=12).err
    assert [one["name"] for one in app.command("list", "--remote", git_remote, "--json", check=0).json] == ["day_1"]


def test_what_is_older_than_a_branch_of_git_keeps_is_not_missing_there(app: SmallApp, git_remote: str) -> None:
    for number in range(4):
        made(app, f"day_{number}", days=number)
    app.command("push", "--force", check=0)
    listed = app.command("list", "--remote", git_remote, "--json", check=0).json
    assert [one["name"] for one in listed] == ["day_3", "day_2"]
    assert app.command("push", "--force", "--json", check=0).json[0]["pushed"] == []
    assert app.command("remotes", "--json").json["remotes"][0]["behind"] == 0


@pytest.mark.parametrize(
    "typed",
    [
        ("pull", "latest"),
        ("verify", "--test-restore"),
        ("restore", "latest", "--to", "look"),
        ("restore", "latest", "--to", "look", "--dry-run", "--at", "2026-06-16 12:00"),
    ],
    ids=["pull", "verify", "to", "at"],
)
def test_copies_without_the_uploads_are_none_of_them_latest_and_the_newest_is_named(
    app: SmallApp, git_remote: str, tmp_path: Path, typed: tuple[str, ...]
) -> None:
    for day, name in enumerate(("one", "two")):
        made(app, name, days=day)
    app.command("push", "--yes", check=0)
    words = [str(tmp_path / one) if one == "look" else one for one in typed]
    result = app.command(*words, "--remote", git_remote)
    newest = "`.*pull two --remote branch`"
    assert_refusal(result, 10, "Passed over: two, one (without the uploads).", f"instead of `latest`.*{newest}")
    assert not (tmp_path / "look").exists()
    for name in ("one", "two"):
        shutil.rmtree(app.backups / name)
    assert "all of it compared" in app.command("pull", "two", "--remote", git_remote, check=0).out
    app.command("restore", "two", "--yes", check=0)


def test_two_pushes_at_once_do_not_meet(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    settings = with_remote(app, {"type": "folder", "path": str(tmp_path / "nas")})
    made(app, "one")
    with listing_cache.one_at_a_time(settings.dir, "there", "push", 1, silence):
        (failed,) = push_backups(settings)
        assert failed.failure and failed.failure.code == 11
        made(app, "two", days=1)  # a push does not block backups
    assert push(settings) == ("two", "one")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('type = "folder"\npth = "/x"', "nas.pth is not a setting"),
        ('type = "floppy"', "nas has the type 'floppy', which there is not; set it to one of: folder, "),
        ('path = "x"', "nas has no type; set it to one of: folder, "),
        ('type = "folder"', "nas.path is missing"),
        ('type = "restic"\nrepository = "x"\npassword = "sesame"\npassword_file = "x"', "are both set"),
        ('type = "folder"\npath = "x"\nkeep_within = "soon"', "is not a length of time"),
        ('type = "folder"\npath = "x"\nkeep_last = -1', "must be a whole number of at least 0"),
    ],
    ids=["key", "type", "none", "missing", "twice", "span", "negative"],
)
def test_a_wrong_table_is_refused_with_its_name(app: SmallApp, line: str, says: str) -> None:
    (app.folder / "backup.toml").write_text(f"[remotes.nas]\n{line}\n")
    result = app.command("list")
    assert result.code == 2 and says in result.err and "sesame" not in result.err


@pytest.mark.parametrize(
    "value",
    ["{", "[1]", '{"a b": {}}', '{"nas": 7}', "[" * 100_000],
    ids=["torn", "list", "name", "number", "deep"],
)
def test_remotes_in_the_environment_are_json(app: SmallApp, value: str) -> None:
    assert_refusal(app.command("list", env={"BACKUP_REMOTES": value}), 2, "BACKUP_REMOTES", "unset BACKUP_REMOTES")
    good = json.dumps({"nas": {"type": "folder", "path": "x"}})
    document = app.command("config", "--json", env={"BACKUP_REMOTES": good}, check=0).json
    assert document["remotes"]["origin"] == "environment BACKUP_REMOTES"


def test_a_secret_of_no_remote_is_refused_and_that_of_one_is_shown_nowhere(app: SmallApp) -> None:
    table = '[remotes.far-away]\ntype = "restic"\nrepository = "rest:https://u:sesame@x/"\npassword_file = "none"\n'
    (app.folder / "backup.toml").write_text(table)
    variable = "BACKUP_REMOTE_FAR_AWAY_PASSWORD"
    for options in ((), ("--json",)):
        result = app.command("config", *options, env={variable: "sesame"}, check=0)
        assert "sesame" not in result.out + result.err
    result = app.command("list", env={"BACKUP_REMOTE_FARAWAY_PASSWORD": "sesame"})
    assert_refusal(result, 2, "BACKUP_REMOTE_FARAWAY_PASSWORD", "far-away")
    app.command("backup", "one", check=0)  # backups work although the remote's password file is missing
