"""No point is torn if taking or merging points is killed or refused at any system call that changes something."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import chance
import warm
from backupkit.model.backup import Backup
from backupkit.repository import store
from backupkit.rewind import moments, thin
from backupkit.rewind.take import Rewinder
from rewind.a_day import START, Uploads, assert_restores, rewinding, true_copy
from small_app import SmallApp, clean_environment, tree

CALLS = "write pwrite64 ftruncate fsync rename unlink unlinkat mkdir mkdirat openat rmdir"
WORK = """
import sys
from datetime import datetime
from pathlib import Path
from backupkit.config.settings import load_settings
from backupkit.repository import lock
from backupkit.restore import recovery
from backupkit.restore.restore import plan_backup, restore_backup
from backupkit.rewind import moments, take, thin
app, what, at = Path(sys.argv[1]), sys.argv[2], datetime.fromisoformat(sys.argv[3])
settings = load_settings(app, rewind="30d")
if what == "restore":
    chosen = moments.choose(settings, at, at)
    with moments.built(settings, chosen.moment) as backup:
        restore_backup(settings, plan_backup(settings, backup, force=True))
elif what == "recover":
    recovery.recover(settings)
elif what == "take":
    assert take.Rewinder(settings, lambda: at).look() in ("taken", "same")  # there already
else:
    with lock.held(settings.dir, "rewind", 0):
        thin.thin(settings, at)
"""
Kept = dict[datetime, tuple[bytes, Uploads]]


def world(app: SmallApp) -> tuple[Kept, Rewinder, datetime]:
    """Return the true copies of twelve points within four hours, the `Rewinder` that took them, and the time."""
    rewinder, clock = rewinding(app)
    kept: Kept = {}
    for number in range(12):
        app.add_rows(3)
        app.write_upload(f"{number % 3}/f{number}", b"x" * number)
        clock.forward(minutes=20)
        assert rewinder.look() == "taken"
        kept[clock.now] = true_copy(app), tree(app.uploads)
    app.add_rows(30)
    app.write_upload("new/one", b"1" * 5000)
    clock.forward(minutes=1)
    return kept, rewinder, clock.now


def run(app: Path, what: str, at: datetime, *strace: str) -> subprocess.CompletedProcess[str]:
    """Do one thing of `WORK` in its own process, traced by strace with these options."""
    return warm.run([str(app), what, at.isoformat()], clean_environment(), program=WORK, strace=strace)


def calls_of(app: Path, what: str, at: datetime, place: Path, below: str = "/backups") -> list[tuple[str, int]]:
    """Return the run's calls in such a folder, each by its name and its number among the calls of that name."""
    trace = place / "trace"
    traced = ",".join(f"?{name}" for name in CALLS.split())
    whole_names = ("-s", "4096")  # or strace cuts the paths that are renamed and removed
    done = run(app, what, at, "-y", *whole_names, "-o", str(trace), "-e", f"trace={traced}")
    assert done.returncode == 0, done.stderr
    found, counted = [], Counter[tuple[str, str]]()
    for line in trace.read_text(errors="replace").splitlines():
        if match := re.match(r"(\d+) +(\w+)\((.*)", line):
            counted[match[1], match[2]] += 1
            is_there = below in match[3] or "/proc/self/fd/" in match[3]  # by the handle of one of our folders
            is_ours = is_there and (match[2] != "openat" or "O_CREAT" in match[3])
            if is_ours:
                found.append((match[2], counted[match[1], match[2]]))
    return found


def assert_whole(app: SmallApp, kept: Kept, at: datetime, thinned: bool) -> None:
    """Assert that no point is damaged, and that the oldest and the newest hold what was live."""
    found = moments.timeline(app.settings)
    assert not found.lost and not moments.check(app.settings)
    for one in (found.moments[1], found.moments[-1]):
        if one.at in kept:
            assert_restores(app, one.at, *kept[one.at])
    if not thinned:
        assert {one.at for one in found.moments} >= kept.keys()


@pytest.mark.needs("strace")
@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC"])
@pytest.mark.parametrize("what", ["take", "thin"])
def test_nothing_is_torn_at_any_call(app: SmallApp, tmp_path: Path, what: str, fault: str) -> None:
    kept, rewinder, now = world(app)
    at = now if what == "take" else now + timedelta(days=2)
    home, template = app.folder, tmp_path / "template"
    shutil.copytree(home, template, symlinks=True)

    def fresh() -> None:
        shutil.rmtree(home)
        shutil.copytree(template, home, symlinks=True)

    calls = calls_of(home, what, at, tmp_path)
    assert len(calls) > 8
    for name, number in chance.some(calls, 30, f"{what} {fault}"):
        fresh()
        inject = f"inject={name}:{fault}:when={number}"
        done = run(home, what, at, "-o", "/dev/null", "-e", f"trace={name}", "-e", inject)
        assert fault != "signal=KILL" or done.returncode != 0, (name, number)
        assert_whole(app, kept, at, what == "thin")
        assert run(home, what, at).returncode == 0, (name, number)
        assert_whole(app, kept, at, what == "thin")
        assert not list(app.backups.rglob(".draft*"))
        if what == "take":
            assert Rewinder(rewinder.settings, lambda: at).look() == "same"


@pytest.mark.needs("strace")
def test_a_point_that_is_restored_is_live_whole_or_not_at_all(app: SmallApp, tmp_path: Path) -> None:
    kept, _, _ = world(app)
    at, wanted = list(kept.items())[5]
    before, home, template = (true_copy(app), tree(app.uploads)), app.folder, tmp_path / "template"
    shutil.copytree(home, template, symlinks=True)
    calls = calls_of(home, "restore", at, tmp_path, "/app/")
    assert (true_copy(app), tree(app.uploads)) == wanted and len(calls) > 50
    for name, number in chance.some(calls, 40, "a point restored"):
        shutil.rmtree(home)
        shutil.copytree(template, home, symlinks=True)
        inject = ("-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
        assert run(home, "restore", at, "-o", "/dev/null", *inject).returncode != 0, (name, number)
        assert run(home, "recover", at).returncode == 0, (name, number)
        assert (true_copy(app), tree(app.uploads)) in (before, wanted), (name, number)
        assert not moments.check(app.settings) and not list(app.folder.rglob(".draft*")), (name, number)


def base_of(app: SmallApp) -> Backup:
    return store.all_backups(app.settings)[-1]


@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_a_flipped_byte_costs_only_the_moments_behind_it(app: SmallApp, part: float) -> None:
    kept, rewinder, now = world(app)
    points = sorted((app.backups / ".rewind" / base_of(app).name).iterdir())
    broken = points[5]
    content = bytearray(broken.read_bytes())
    content[int(len(content) * part)] ^= 1
    broken.write_bytes(content)
    found = moments.timeline(app.settings)
    for one in found.moments:
        if one.point and one.point.number <= 5:
            assert_restores(app, one.at, *kept[one.at])
    lost = moments.check(rewinder.settings)
    assert [one.name for one in lost] == [path.name for path in points[5:]]
    assert Rewinder(rewinder.settings, lambda: now).look() == "taken"  # it continues from the newest good one
    copy = true_copy(app), tree(app.uploads)
    assert_restores(app, now, *copy)
    assert moments.timeline(app.settings).in_gap(now - timedelta(minutes=5))


def test_points_before_stay_good_when_the_clock_is_set_back(app: SmallApp) -> None:
    kept, rewinder, _ = world(app)
    back = START + timedelta(minutes=30)
    assert Rewinder(rewinder.settings, lambda: back).look() == "taken"
    copy = true_copy(app), tree(app.uploads)
    for at, one in kept.items():
        assert_restores(app, at, *one)
    assert_restores(app, back, *copy)


def test_thinning_keeps_the_last_of_each_hour_and_then_of_each_day() -> None:
    zone = ZoneInfo("Europe/Berlin")
    points = [(str(n), START + timedelta(minutes=20 * n)) for n in range(72 * 3)]
    last = points[-1][1]
    assert thin.kept(points, last, zone) >= {name for name, at in points if last - at <= timedelta(days=1)}
    after_two = thin.kept(points, last + timedelta(days=2), zone)
    assert len(after_two) in range(72, 75)
    assert len(thin.kept(points, last + timedelta(days=20), zone)) == 4
    assert points[-1][0] in thin.kept(points, last + timedelta(days=400), zone)
