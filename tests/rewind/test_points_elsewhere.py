"""Points go to a remote with the backup they depend on, come back with it, and are removed with it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import chance
import warm
from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import RemoteAway
from backupkit.model.events import Step, silence
from backupkit.remotes.base import HoldsPoints, open_remote
from backupkit.remotes.push import push_backups
from backupkit.remotes.registry import prepare_remote
from backupkit.repository import lock, store
from backupkit.rewind import moments, thin
from quick_restic import put_repository
from refusals import run_here
from rewind.a_day import Uploads, assert_restores, rewinding, true_copy
from small_app import SmallApp, clean_environment, tree

COPY = """
import sys
from pathlib import Path
from zoneinfo import ZoneInfo
from backupkit.repository import store
from backupkit.rewind import copies
source, target = Path(sys.argv[1]), Path(sys.argv[2])
copies.copy(source, target, store.read_at(next(source.glob("backup_*")), ZoneInfo("UTC")))
"""


class Two:
    """An app with points, the true copy of each, and a remote; it can lose its backups, as on another machine."""

    def __init__(self, app: SmallApp, nas: Path, table: dict[str, str]) -> None:
        self.app, self.nas, self.table = app, nas, {**table, "retry_for": 0}
        self.rewinder, self.clock = rewinding(app)
        self.kept: dict[datetime, tuple[bytes, Uploads]] = {}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.table.items())
        (app.folder / "backup.toml").write_text(f"[remotes.nas]\n{text}")

    @property
    def settings(self) -> Settings:
        places = {"database": self.app.database, "uploads": self.app.uploads, "dir": self.app.backups}
        return Settings(app_dir=self.app.folder, rewind="30d", remotes={"nas": self.table}, **places)

    def take(self, number: int) -> None:
        for _ in range(number):
            self.app.add_rows(2)
            self.app.write_upload(f"{len(self.kept) % 3}/{len(self.kept)}", b"x" * 100)
            self.clock.forward(minutes=20)
            assert self.rewinder.look() == "taken"
            self.kept[self.clock.now] = true_copy(self.app), tree(self.app.uploads)

    def lose(self) -> None:
        """Replace the backups folder by an empty one."""
        self.app.backups.rename(self.app.folder / "lost")
        self.app.backups.mkdir()

    def there(self) -> list[Path]:
        return sorted(self.nas.glob(".rewind/*/*"))

    def points_there(self) -> list[int]:
        return [one.points for one in open_remote(self.settings, "nas").list()]

    def assert_all(self) -> None:
        found = moments.timeline(self.settings)
        assert not found.lost and not moments.check(self.settings)
        assert {one.at for one in found.moments} >= self.kept.keys()
        for at, one in self.kept.items():
            assert_restores(self.app, at, *one)


@pytest.fixture
def two(app: SmallApp, tmp_path: Path) -> Two:
    nas = tmp_path / "nas"
    nas.mkdir()
    made = Two(app, nas, {"type": "folder", "path": str(nas)})
    prepare_remote(made.settings, "nas")
    return made


@pytest.fixture
def by_restic(app: SmallApp, tmp_path: Path) -> Two:
    nas = put_repository(tmp_path / "nas", "sesame", tmp_path)
    return Two(app, nas, {"type": "restic", "repository": str(nas), "password": "sesame"})


@pytest.fixture(params=["two", pytest.param("by_restic", marks=pytest.mark.needs("restic"))])
def anywhere(request: pytest.FixtureRequest) -> Two:
    found: Two = request.getfixturevalue(request.param)
    return found


def test_another_machine_goes_back_to_each_moment_that_was_pushed(anywhere: Two) -> None:
    anywhere.take(3)
    done = run_here(anywhere.app, "push", "--json", check=0).json[0]
    assert (done["points"], done["points_there"]) == (3, 3)
    anywhere.take(2)
    assert "got 2 points; 1 backup, 5 points there" in run_here(anywhere.app, "push", check=0).out
    before = files_in(anywhere.nas)
    assert "had everything already" in run_here(anywhere.app, "push", check=0).out and files_in(anywhere.nas) == before
    assert run_here(anywhere.app, "remotes", "--json", check=0).json["remotes"][0]["points"] == 5
    assert "1 + 5 points" in run_here(anywhere.app, "remotes", check=0).out
    anywhere.lose()
    assert "5 points of rewind pulled too" in run_here(anywhere.app, "pull", "latest", check=0).out
    anywhere.assert_all()
    anywhere.take(1)
    anywhere.assert_all()


def test_points_on_a_backup_that_import_gave_another_name_come_along(anywhere: Two, tmp_path: Path) -> None:
    anywhere.take(1)
    run_here(anywhere.app, "export", "latest", str(tmp_path / "x.tar"), check=0)
    shutil.rmtree(anywhere.app.backups)
    anywhere.app.backups.mkdir()
    run_here(anywhere.app, "import", str(tmp_path / "x.tar"), "--name", "moved", check=0)
    anywhere.kept.clear()
    anywhere.take(2)
    assert [path.parent.name for path in sorted(anywhere.app.backups.glob(".rewind/*/*"))] == ["moved", "moved"]
    run_here(anywhere.app, "push", check=0)
    assert "had everything already" in run_here(anywhere.app, "push", check=0).out and anywhere.points_there() == [2]
    anywhere.lose()
    assert "2 points of rewind pulled too" in run_here(anywhere.app, "pull", "moved", check=0).out
    anywhere.assert_all()


def test_a_pull_brings_the_points_that_came_since_and_none_that_were_merged_here(anywhere: Two) -> None:
    anywhere.take(4)
    run_here(anywhere.app, "push", check=0)
    anywhere.lose()
    run_here(anywhere.app, "pull", "latest", check=0)
    here = sorted(anywhere.app.backups.glob(".rewind/*/*"))
    for gone in here[2:]:
        gone.unlink()
    assert "2 points of rewind pulled too" in run_here(anywhere.app, "pull", "latest", check=0).out
    anywhere.assert_all()
    thinned(anywhere)
    merged = sorted(anywhere.app.backups.glob(".rewind/*/*"))
    assert len(merged) < 4
    run_here(anywhere.app, "pull", "latest", check=0)
    assert sorted(anywhere.app.backups.glob(".rewind/*/*")) == merged


def test_what_was_merged_here_leads_on_from_what_is_there(anywhere: Two) -> None:
    anywhere.take(4)
    run_here(anywhere.app, "push", check=0)
    anywhere.take(4)
    thinned(anywhere)
    anywhere.take(2)
    run_here(anywhere.app, "push", check=0)
    assert not moments.check(anywhere.settings)
    shutil.rmtree(anywhere.app.backups)
    anywhere.app.backups.mkdir()
    run_here(anywhere.app, "pull", "latest", check=0)
    found = moments.timeline(anywhere.settings)
    assert not found.lost and not moments.check(anywhere.settings)
    for one in found.moments[1:]:
        assert_restores(anywhere.app, one.at, *anywhere.kept[one.at])
    assert {*list(anywhere.kept)[:4], *list(anywhere.kept)[-2:]} <= {one.at for one in found.moments}


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def thinned(two: Two) -> None:
    with lock.held(two.settings.dir, "rewind", 0):
        thin.thin(two.settings, two.clock.now + timedelta(days=2))


@pytest.mark.needs("strace")
@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC"])
def test_a_copy_that_is_cut_off_at_any_call_is_no_point(two: Two, tmp_path: Path, fault: str) -> None:
    two.take(2)
    there, trace = tmp_path / "copies", tmp_path / "trace"
    calls = "openat copy_file_range write sendfile ioctl fsync rename fchmodat mkdirat chmod unlink"
    (name,) = (path.name for path in (two.app.backups / ".rewind").iterdir())

    def run(*strace: str) -> int:
        words = [str(two.app.backups), str(there)]
        return warm.run(words, clean_environment(), program=COPY, strace=strace).returncode

    def fresh() -> None:
        shutil.rmtree(there, ignore_errors=True)
        there.mkdir()

    fresh()
    traced = ",".join(f"?{one}" for one in calls.split())
    assert run("-y", "-s", "4096", "-o", str(trace), "-e", f"trace={traced}") == 0
    counted: dict[str, int] = {}
    found: list[tuple[str, int]] = []
    for line in trace.read_text(errors="replace").splitlines():
        call = line.partition("(")[0].split()[-1]
        counted[call] = counted.get(call, 0) + 1
        if f"{there}/" in line or f"{there}>" in line:
            found.append((call, counted[call]))
    assert len(found) > 10
    whole = {path.name: path.read_bytes() for path in (there / ".rewind" / name).iterdir()}
    assert len(whole) == 2
    for call, number in chance.some(found, 20, f"copied points {fault}"):
        fresh()
        run("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}")
        for path in there.glob(".rewind/*/*.point"):
            assert path.read_bytes() == whole[path.name], (call, number)
        assert run() == 0, (call, number)
        assert {path.name: path.read_bytes() for path in (there / ".rewind" / name).iterdir()} == whole, (call, number)


@pytest.mark.needs("restic")
def test_points_that_are_merged_while_restic_sends_them_are_no_half_snapshot(by_restic: Two) -> None:
    by_restic.take(3)

    def merge(event: object) -> None:
        if isinstance(event, Step) and event.name.startswith("Sending the points"):
            thinned(by_restic)

    (done,) = push_backups(by_restic.settings, emit=merge)
    assert isinstance(done.failure, RemoteAway) and "were merged while they were sent to nas" in done.failure.message
    assert by_restic.points_there() == [0]
    (done,) = push_backups(by_restic.settings)
    assert done.failure is None and by_restic.points_there() == [2]
    by_restic.lose()
    run_here(by_restic.app, "pull", "latest", check=0)
    assert not moments.check(by_restic.settings) and len(moments.timeline(by_restic.settings).moments) == 3


@pytest.mark.needs("restic")
def test_points_of_a_backup_of_the_same_name_made_later_are_not_mixed_with_the_first(by_restic: Two) -> None:
    by_restic.take(2)
    run_here(by_restic.app, "push", check=0)
    (backup,) = by_restic.app.backups.glob("backup_*")
    metadata = json.loads((backup / "backup_metadata.json").read_text())
    metadata["created_at"] = metadata["created_at"].replace("2026", "2025")
    (backup / "backup_metadata.json").write_text(json.dumps(metadata))
    found = store.read_at(backup, by_restic.settings.zone)
    remote = open_remote(by_restic.settings, "nas")
    assert isinstance(remote, HoldsPoints)
    shutil.rmtree(by_restic.app.backups / ".rewind")
    assert remote.pull_points(found, silence, lambda _point: None).points == 0


def broken(path: Path, part: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * part)] ^= 1
    path.write_bytes(content)


def test_a_damaged_point_stays_here_and_is_named(anywhere: Two) -> None:
    anywhere.take(4)
    broken(sorted(anywhere.app.backups.glob(".rewind/*/*"))[2], 0.01)
    done = run_here(anywhere.app, "push", check=3)
    assert "were left out of the copy: The point 00000003-" in done.err
    assert anywhere.points_there() == [2]


def test_a_point_that_rots_there_is_named_is_not_pulled_and_is_copied_again(two: Two) -> None:
    two.take(4)
    run_here(two.app, "push", check=0)
    rotten = two.there()[2]
    broken(rotten, 0.01)
    error = run_here(two.app, "verify", "--remote", "nas", "--json", check=12).json["error"]
    assert f"/{rotten.name}: " in error["message"] and error["next"].endswith(f"rm -r {rotten}")
    two.app.backups.rename(two.app.folder / "aside")
    two.app.backups.mkdir()
    assert "left out of the copy: The point 00000003-" in run_here(two.app, "pull", "latest", check=3).err
    assert len(moments.timeline(two.settings).moments) == 3 and not moments.check(two.settings)
    shutil.rmtree(two.app.backups)
    (two.app.folder / "aside").rename(two.app.backups)
    rotten.unlink()
    run_here(two.app, "push", check=0)
    run_here(two.app, "verify", "--remote", "nas", check=0)


def test_points_go_there_with_their_backup(anywhere: Two) -> None:
    anywhere.take(2)
    run_here(anywhere.app, "push", check=0)
    anywhere.clock.forward(days=1)
    first = open_remote(anywhere.settings, "nas").list()[0].name
    create_backup(anywhere.settings, BackupRequest(kind="auto"), clock=anywhere.clock)
    anywhere.take(1)
    run_here(anywhere.app, "push", check=0)
    assert anywhere.points_there() == [1, 2]
    open_remote(anywhere.settings, "nas").remove([first])
    assert anywhere.points_there() == [1]
    assert not any(first in path.name for path in anywhere.nas.rglob("*"))


def set_user_id(path: Path) -> object:
    return path.chmod(0o4755)


def link_out(path: Path) -> object:
    path.unlink()
    return path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("plant", [set_user_id, link_out])
def test_a_point_brings_nothing_that_a_backup_there_may_not(anywhere: Two, plant: Callable[[Path], object]) -> None:
    anywhere.take(1)
    plant(anywhere.app.write_upload("planted", b"x"))
    anywhere.take(1)
    run_here(anywhere.app, "push", check=0)
    anywhere.lose()
    done = run_here(anywhere.app, "pull", "latest", check=3)
    assert "planted" in done.err and len(list(anywhere.app.backups.glob(".rewind/*/*"))) == 1
    run_here(anywhere.app, "pull", "latest", "--trust", check=0)
    anywhere.assert_all()


def test_a_link_in_the_place_of_the_folder_of_points_is_not_followed(two: Two, tmp_path: Path) -> None:
    two.take(1)
    outside = tmp_path / "outside"
    outside.mkdir()
    (two.nas / ".rewind").symlink_to(outside)
    assert ".rewind is a link or a file" in run_here(two.app, "push", check=1).err
    assert not os.listdir(outside)
