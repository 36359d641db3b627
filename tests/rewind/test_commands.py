"""`rewind`, `restore --at` and `show --at` as typed, and what they say of times that they cannot restore."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Refused
from backupkit.model.times import moment
from backupkit.rewind import moments
from backupkit.rewind.take import Rewinder
from backupkit.scheduling import scheduler_lock
from backupkit.scheduling.run import regular_steps, run_steps
from refusals import run_here
from rewind.a_day import true_copy
from small_app import SmallApp, tree

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 26, 13, 32, 10, tzinfo=UTC)  # 14:32:10 in Berlin
ON = {"BACKUP_REWIND": "7d"}


class Past:
    """An app with a backup and points of the last two hours, without a look between 60 and 30 minutes ago."""

    def __init__(self, app: SmallApp) -> None:
        self.app, self.now = app, datetime.now(UTC).replace(microsecond=0)
        self.at = self.now - timedelta(minutes=120)
        create_backup(app.settings, BackupRequest(name="base"), clock=lambda: self.at)
        self.rewinder = Rewinder(app.settings.replaced(rewind="7d"), lambda: self.at)
        for minutes in (119, 90, 60, 30, 1):
            self.app.add_rows(1)
            app.write_upload(f"at/{minutes}", b"x")
            self.look(minutes)
            if minutes != 60:  # as if it had looked until the next point
                self.rewinder._chain.seen = self.now - timedelta(minutes={119: 91, 90: 61, 30: 2, 1: 1}[minutes])

    def look(self, minutes: int) -> None:
        self.at = self.now - timedelta(minutes=minutes)
        assert self.rewinder.look() == "taken"


@pytest.fixture
def past(app: SmallApp) -> Past:
    return Past(app)


def test_a_restore_to_a_time_can_be_undone(past: Past) -> None:
    app = past.app
    before, rows = tree(app.uploads), app.rows("companies")
    done = run_here(app, "restore", "--at", "75 minutes ago", "--yes", "--json", env=ON, check=0)
    assert done.json["source"].startswith("point_")
    assert {path.name for path in (app.uploads / "at").iterdir()} == {"119", "90"}
    assert len(app.rows("companies")) == len(rows) - 3
    run_here(app, "undo", "--yes", env=ON, check=0)
    assert tree(app.uploads) == before and app.rows("companies") == rows
    assert not list(app.backups.glob(".draft-*"))


def test_a_dry_run_changes_nothing_and_names_the_point(past: Past) -> None:
    before = true_copy(past.app), tree(past.app.uploads), sorted(past.app.backups.iterdir())
    plan = run_here(past.app, "restore", "--at", "75 minutes ago", "--dry-run", "--json", env=ON, check=0).json
    assert "The point of" in plan["notes"][0] and "the next one is of" in plan["notes"][0]
    assert before == (true_copy(past.app), tree(past.app.uploads), sorted(past.app.backups.iterdir()))


def test_it_is_laid_out_beside_the_app_and_one_half_is_restored(past: Past, tmp_path: Path) -> None:
    app, target = past.app, tmp_path / "look"
    run_here(app, "restore", "--at", "75 minutes ago", "--to", str(target), env=ON, check=0)
    assert {path.name for path in (target / "uploads" / "at").iterdir()} == {"119", "90"}
    run_here(app, "restore", "latest", "--at", "75 minutes ago", "--only", "database", "--yes", env=ON, check=0)
    assert len(list((app.uploads / "at").iterdir())) == 5


def test_a_backup_is_taken_where_it_is_the_nearest(past: Past) -> None:
    between = past.now - timedelta(minutes=119, seconds=30)
    assert (
        run_here(past.app, "show", "--at", between.isoformat(), "--json", env=ON, check=0).json["backup_name"] == "base"
    )
    found = run_here(past.app, "show", "--at", "75 minutes ago", "--json", env=ON, check=0).json
    assert found["backup"] == "base" and found["changed_uploads"] > 0


def test_a_backup_that_is_unusual_is_what_was_there_at_its_time(app: SmallApp, tmp_path: Path) -> None:
    """`latest` skips it; a time just after it once led past all points, to the backup before them."""
    now = datetime.now(UTC).replace(microsecond=0)
    at = now - timedelta(seconds=60)
    rewinder = Rewinder(app.settings.replaced(rewind="7d"), lambda: at)
    app.add_rows(50)
    create_backup(app.settings, BackupRequest(name="many"), clock=lambda: at)
    app.add_rows(1)
    at = now - timedelta(seconds=50)
    assert rewinder.look() == "taken"
    app.execute("DELETE FROM companies WHERE id > 5")
    at = now - timedelta(seconds=40)
    assert create_backup(app.settings, BackupRequest(name="few"), clock=lambda: at).backup.unusual
    just_after = (now - timedelta(seconds=39)).isoformat()
    assert run_here(app, "show", "--at", just_after, "--json", env=ON, check=0).json["backup_name"] == "few"
    app.add_rows(1)
    at = now - timedelta(seconds=20)
    assert rewinder.look() == "taken"
    assert run_here(app, "show", "--at", just_after, "--json", env=ON, check=0).json["backup_name"] == "few"
    plan = run_here(app, "restore", "--at", just_after, "--dry-run", "--json", env=ON, check=0).json
    assert plan["source"]["name"] == "few" and "few, which is unusual: table " in plan["notes"][0]
    run_here(app, "restore", "--at", just_after, "--to", str(tmp_path / "look"), env=ON, check=0)
    run_here(app, "restore", "--at", just_after, "--yes", env=ON, check=0)
    assert len(app.rows("companies")) == 5


def test_a_backup_that_is_passed_over_for_a_time_is_named(app: SmallApp) -> None:
    now = datetime.now(UTC)
    create_backup(app.settings, BackupRequest(name="whole"), clock=lambda: now - timedelta(hours=3))
    partial = BackupRequest(name="partial", uploads=False)
    create_backup(app.settings, partial, clock=lambda: now - timedelta(hours=2))
    shown = run_here(app, "show", "--at", "1 hour ago", "--json", check=0)
    assert shown.json["backup_name"] == "whole" and "Passed over: partial (without the uploads)" in shown.err
    plan = run_here(app, "restore", "--at", "1 hour ago", "--dry-run", "--json", check=0).json
    assert "Passed over: partial (without the uploads)" in " ".join(plan["notes"])


def test_rewind_shows_stretches_gaps_and_cost(past: Past) -> None:
    found = run_here(past.app, "rewind", "--json", env=ON, check=0).json
    assert [one["points"] for one in found["stretches"]] == [3, 2]
    gap = {"from": past.now - timedelta(minutes=60), "to": past.now - timedelta(minutes=30)}
    assert found["gaps"] == [{key: at.isoformat() for key, at in gap.items()}]
    assert found["size_bytes"] == sum(one["size_bytes"] for one in found["points"])
    words = run_here(past.app, "rewind", env=ON, check=0).out
    assert "Gap: the data is unknown from" in words and "5 points" in words


def test_what_rewind_says_to_type_leads_to_the_newest_point(app: SmallApp) -> None:
    """All within one minute: cut to minutes, that time was before all of them."""
    at = datetime.now(UTC).replace(second=5) - timedelta(minutes=10)
    create_backup(app.settings, BackupRequest(name="before"), clock=lambda: at - timedelta(hours=2))
    create_backup(app.settings, BackupRequest(name="base"), clock=lambda: at)
    rewinder = Rewinder(app.settings.replaced(rewind="7d"), lambda: at)
    for _ in range(2):
        app.add_rows(1)
        at += timedelta(seconds=10)
        assert rewinder.look() == "taken"
    told = run_here(app, "rewind", env=ON, check=0).out
    typed = shlex.split(told.rpartition("Restore one: ")[2])[2:]
    found = run_here(app, *typed, "--dry-run", "--json", env=ON, check=0).json
    assert found["notes"][0].startswith(f"The point of {at:%Y-%m-%d %H:%M:%S}")
    assert "A look every" in told and "A look every" not in run_here(app, "rewind", check=0).out
    refusal = run_here(app, "restore", "latest", "--at", "1d", "--yes", env=ON, check=10).err
    assert f"The first is of {at - timedelta(hours=2, seconds=20):%Y-%m-%d %H:%M:%S}" in refusal


def test_times_that_lead_nowhere_are_refused_with_the_way_out(past: Past) -> None:
    for at, code, words in (
        ("45 minutes ago", 2, "there is a gap from"),
        ("3 hours ago", 10, "The first is of"),
        ((past.now + timedelta(hours=1)).isoformat(), 2, "is in the future"),
        ("yesteryear", 2, "is not a time"),
    ):
        done = run_here(past.app, "restore", "--at", at, "--yes", "--json", env=ON, check=code)
        assert words in done.json["error"]["message"], at
    hint = run_here(past.app, "restore", "--at", "45 minutes ago", "--yes", "--json", env=ON).json["error"]["next"]
    assert (past.now - timedelta(minutes=60)).isoformat() in hint
    assert (past.now - timedelta(minutes=30)).isoformat() in hint
    run_here(past.app, "restore", "--at", (past.now - timedelta(minutes=60)).isoformat(), "--dry-run", env=ON, check=0)


def test_behind_the_last_look_nobody_claims_to_know(app: SmallApp) -> None:
    at = datetime.now(UTC) - timedelta(hours=2)
    create_backup(app.settings, BackupRequest(), clock=lambda: at)
    Rewinder(app.settings.replaced(rewind="7d"), lambda: at).look()
    app.add_rows(1)
    done = run_here(app, "restore", "--at", "1 hour ago", "--yes", "--json", env=ON, check=2)
    assert "no scheduler is running" in done.json["error"]["message"]


def test_a_scheduler_that_does_not_look_claims_nothing(app: SmallApp) -> None:
    """For example, changed settings allow no point, while rows are written."""
    at = datetime.now(UTC) - timedelta(hours=2)
    create_backup(app.settings, BackupRequest(), clock=lambda: at)
    Rewinder(app.settings.replaced(rewind="7d"), lambda: at).look()
    app.add_rows(1)
    with scheduler_lock.on(app.backups, 1):
        arguments = ("restore", "--at", "1 hour ago", "--dry-run", "--json")
        done = run_here(app, *arguments, env=ON, check=2)
        assert "the scheduler has not looked since" in done.json["error"]["message"]
        found = run_here(app, "status", "--json", env=ON).json
        assert any("Rewind has not looked at the data since" in one["text"] for one in found["reasons"])
        scheduler_lock.looked(app.backups, datetime.now(UTC))
        run_here(app, *arguments, env=ON, check=0)
        found = run_here(app, "status", "--json", env=ON).json
        assert not any("Rewind has not" in one["text"] for one in found["reasons"])


def test_a_backup_that_points_stand_on_stays(past: Past) -> None:
    app = past.app
    run_here(app, "delete", "base", "--yes", env=ON, check=2)
    kept = run_here(app, "prune", "--dry-run", "--json", env={**ON, "BACKUP_MAX_BACKUPS": "1"}, check=0).json
    assert any("points of rewind need it" in one["reasons"] for one in kept["verdicts"])
    run_here(app, "delete", "base", "--yes", check=0)  # rewind is off
    assert not list((app.backups / ".rewind").iterdir())


def test_a_lost_backup_costs_its_points_and_says_so(past: Past) -> None:
    shutil.rmtree(past.app.backups / "base")
    found = run_here(past.app, "rewind", "--json", env=ON, check=0).json
    assert len(found["lost"]) == 5 and not found["points"]
    words = run_here(past.app, "rewind", env=ON, check=0).out
    assert words.count("the backup base is gone or damaged") == 5 and "no points yet" not in words
    assert "Of 5 points none can be restored. The next backup begins new ones: `" in words
    run_here(past.app, "restore", "--at", "75 minutes ago", "--yes", env=ON, check=10)


def test_a_backup_without_its_database_is_damaged_also_where_points_stand_on_it(past: Past) -> None:
    next((past.app.backups / "base").glob("*.db")).unlink()
    for words in (["base"], ["--all"]):
        done = run_here(past.app, "verify", *words, env=ON, check=12)
        assert "base: damaged" in done.out and "No such file" not in done.err


def test_verify_all_names_each_point_that_is_lost(past: Past) -> None:
    run_here(past.app, "verify", "--all", env=ON, check=0)
    files = sorted((past.app.backups / ".rewind" / "base").iterdir())
    content = bytearray(files[2].read_bytes())
    content[20] ^= 1
    files[2].write_bytes(content)
    run_here(past.app, "restore", "--at", "1 minute ago", "--yes", env=ON, check=12)
    for scope in (("--all",), ("base",), ()):
        done = run_here(past.app, "verify", *scope, env=ON, check=12)
        assert all(path.name in done.err for path in files[2:]) and files[1].name not in done.err
    assert run_here(past.app, "restore", "--at", "75 minutes ago", "--dry-run", env=ON, check=0)
    found = run_here(past.app, "status", "--json", env=ON).json
    assert found["rewind_points"] == 2
    counted = "1 point of rewind cannot be restored, and 2 after that only if they need nothing of it"
    assert any(counted in one["text"] for one in found["reasons"])


def test_a_chain_goes_on_behind_a_damaged_point_and_both_sides_of_the_hole_are_named(past: Past) -> None:
    app = past.app
    files = sorted((app.backups / ".rewind" / "base").iterdir())
    files[2].write_bytes(files[2].read_bytes()[:20] + b"?" + files[2].read_bytes()[21:])
    results = {one.name: one for one in run_steps(regular_steps(app.settings, BackupRequest(uploads=False)))}
    assert any(files[2].name in one for one in results["verify"].warnings)
    past.look(0)
    error = run_here(app, "restore", "--at", "20 minutes ago", "--yes", "--json", env=ON, check=12).json["error"]
    assert files[2].name in error["message"]  # the point of that time needs something of it
    for minutes in (90, 0):
        assert (past.now - timedelta(minutes=minutes)).isoformat() in error["next"]
    app.add_rows(4)
    run_here(app, "restore", "--at", past.now.isoformat(), "--only", "database", "--yes", env=ON, check=0)
    assert len(app.rows("companies")) == 3 + 5


def test_a_point_behind_a_damaged_one_is_restored_where_it_needs_nothing_of_it(app: SmallApp, tmp_path: Path) -> None:
    """Also once `verify` has found the damage. Each of these points has all pages of the database anew."""
    at = [start := datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)]
    create_backup(app.settings, BackupRequest(name="base"), clock=lambda: at[0])
    rewinder, kept = Rewinder(app.settings.replaced(rewind="7d"), lambda: at[0]), {}
    for minutes, size in ((10, 1024), (20, 2048), (30, 8192), (40, 8192)):
        with contextlib.closing(app.connect()) as live:
            live.executescript(f"PRAGMA journal_mode=DELETE; PRAGMA page_size={size}; VACUUM")
        app.add_rows(1)
        app.write_upload(f"at/{minutes}", b"x")
        at[0] = start + timedelta(minutes=minutes)
        assert rewinder.look() == "taken"
        kept[minutes] = true_copy(app), tree(app.uploads)
    _, second, *_ = sorted((app.backups / ".rewind" / "base").iterdir())
    content = bytearray(second.read_bytes())
    content[20] ^= 1
    second.write_bytes(content)
    (app.uploads / "at" / "20").unlink()
    for look in ((), ("verify", "--all"), ("verify", "--all")):
        if look:
            done = run_here(app, *look, env=ON, check=12)
            assert f"{second.name} after base cannot be restored" in done.err and "may not come back" in done.err
            assert "1 point of rewind cannot be restored, and 2 after that only if" in done.err
        when = (start + timedelta(minutes=40)).isoformat()
        target = tmp_path / f"to {len(look)} {len(list(tmp_path.iterdir()))}"
        run_here(app, "restore", "--at", when, "--to", str(target), env=ON, check=0)
        assert tree(target / "uploads").keys() == kept[40][1].keys()
    words = run_here(app, "rewind", env=ON, check=0).out
    assert "Perhaps: 2 points of these" in words
    error = run_here(app, "restore", "--at", (start + timedelta(minutes=20)).isoformat(), "--yes", "--json", env=ON)
    assert error.code == 12 and second.name in error.json["error"]["message"]


def test_status_says_how_far_back_it_reaches(past: Past) -> None:
    found = run_here(past.app, "status", "--json", env=ON).json
    assert found["rewind_points"] == 5 and found["rewind_bytes"] > 0
    assert found["rewind_from"] == (past.now - timedelta(minutes=120)).isoformat()
    assert any("no scheduler is running: no points" in one["text"] for one in found["reasons"])
    assert "  rewind     " in run_here(past.app, "status", env=ON).out
    assert "backupkit_rewind_points" in run_here(past.app, "status", "--prometheus", "-", env=ON).out
    assert run_here(past.app, "status", "--json").json["rewind_points"] == 0


def test_a_point_of_an_unfinished_restore_is_not_taken(past: Past) -> None:
    (past.app.backups / ".journal").write_text(json.dumps({}))
    past.app.add_rows(1)
    assert past.rewinder.look() == "busy"


def test_a_clock_that_was_set_back_bridges_nothing(app: SmallApp) -> None:
    at = [datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)]
    start = at[0]
    create_backup(app.settings, BackupRequest(name="base"), clock=lambda: at[0])
    rewinder = Rewinder(app.settings.replaced(rewind="7d"), lambda: at[0])
    for minutes in (1, 31, 32, 33, 11, 12, 13, 34, 35):  # after the fourth the clock is set back by 22 minutes
        at[0] = start + timedelta(minutes=minutes)
        if rewinder._chain and minutes == 31:
            rewinder._chain.seen = start + timedelta(minutes=30)
        app.add_rows(1)
        assert rewinder.look() == "taken"
    found = run_here(app, "rewind", "--json", env=ON, check=0).json
    gaps = [
        tuple((datetime.fromisoformat(gap[end]) - start).total_seconds() / 60 for end in ("from", "to"))
        for gap in found["gaps"]
    ]
    assert gaps == [(1, 11), (13, 31), (33, 34)] and not found["lost"]
    done = run_here(app, "restore", "--at", (start + timedelta(minutes=20)).isoformat(), "--yes", "--json", env=ON)
    assert done.code == 2
    for minutes in (13, 31):
        assert (start + timedelta(minutes=minutes)).isoformat() in done.json["error"]["next"]
    twice = (start + timedelta(minutes=12, seconds=30)).isoformat()
    notes = run_here(app, "restore", "--at", twice, "--dry-run", "--json", env=ON, check=0).json["notes"]
    assert any("came twice" in one and (start + timedelta(minutes=1)).isoformat() in one for one in notes)


def test_a_point_that_was_taken_while_the_clock_was_ahead_is_restored_by_its_time(app: SmallApp) -> None:
    start = datetime.now(UTC).replace(microsecond=0)
    at = [start - timedelta(minutes=10)]
    create_backup(app.settings, BackupRequest(name="base"), clock=lambda: at[0])
    rewinder, rows = Rewinder(app.settings.replaced(rewind="7d"), lambda: at[0]), {}
    for minutes in (-9, 60 * 24, 60 * 24 + 1, -1):  # ahead by a day for two points, then set back
        at[0] = start + timedelta(minutes=minutes)
        app.add_rows(1)
        assert rewinder.look() == "taken"
        rows[minutes] = app.rows("companies")
    last = run_here(app, "rewind", env=ON, check=0).out.splitlines()[-1]
    typed = last.partition('--at "')[2].rstrip('"')
    for when, minutes in ((typed, None), ((start + timedelta(days=1)).isoformat(), 60 * 24)):
        plan = run_here(app, "restore", "--at", when, "--dry-run", "--json", env=ON, check=0).json
        assert any("clock was ahead" in one for one in plan["notes"])
        run_here(app, "restore", "--at", when, "--only", "database", "--yes", env=ON, check=0)
        assert minutes is None or app.rows("companies") == rows[minutes]
    for wrong in (timedelta(hours=1), timedelta(days=30)):
        done = run_here(app, "restore", "--at", (start + wrong).isoformat(), "--yes", "--json", env=ON, check=2)
        assert "future" in done.json["error"]["message"] or "--at" in done.json["error"]["next"]


def test_a_clock_that_was_set_back_across_a_backup_mixes_no_two_chains(app: SmallApp) -> None:
    """After ten minutes the clock is set back by five; the points of the next backup lie between earlier ones."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
    at = [start]
    settings = app.settings.replaced(rewind="7d")
    rewinder = Rewinder(settings, lambda: at[0])

    def after(minutes: float) -> datetime:
        return start + timedelta(minutes=minutes)

    points = {0: range(1, 11), 5.25: (5.5, 6.5, 7.5), 10.25: (11, 12, 13), 13.25: (14,)}
    for base, minutes in points.items():
        at[0] = after(base)
        create_backup(app.settings, BackupRequest(name=f"at_{base}"), clock=lambda: at[0])
        for one in minutes:
            at[0] = after(one)
            app.add_rows(1)
            assert rewinder.look() == "taken"
    found = moments.timeline(settings).moments
    apart = [(one.at - start).total_seconds() / 60 for one in found if one.is_after_gap]
    assert apart == [0, 5.25, 6, 6.5, 7, 7.5, 8, 10.25]
    for when, before, behind in ((5.75, 5.5, 6), (6.75, 6.5, 7), (10.1, 10, 10.25)):
        done = run_here(app, "restore", "--at", after(when).isoformat(), "--yes", "--json", env=ON, check=2)
        assert all(after(one).isoformat() in done.json["error"]["next"] for one in (before, behind))
    done = run_here(app, "restore", "--at", after(6.5).isoformat(), "--dry-run", "--json", env=ON, check=0)
    assert any("came twice" in one and after(6).isoformat() in one for one in done.json["notes"])
    done = run_here(app, "restore", "--at", after(13.1).isoformat(), "--dry-run", "--json", env=ON, check=0)
    assert not any("came twice" in one for one in done.json["notes"])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("14:32", "2026-11-26T14:32:00+01:00"),
        ("9:05", "2026-11-26T09:05:00+01:00"),
        ("14:32:05", "2026-11-26T14:32:05+01:00"),
        ("today 00:00", "2026-11-26T00:00:00+01:00"),
        ("yesterday 18:00", "2026-11-25T18:00:00+01:00"),
        ("2026-11-25 14:32", "2026-11-25T14:32:00+01:00"),
        ("2026-11-25T14:32:00+00:00", "2026-11-25T14:32:00+00:00"),
        ("10 minutes ago", "2026-11-26T14:22:10+01:00"),
        ("an hour ago", "2026-11-26T13:32:10+01:00"),
        ("2h", "2026-11-26T12:32:10+01:00"),
        ("now", "2026-11-26T14:32:10+01:00"),
        ("2026-11-21", "2026-11-21T00:00:00+01:00"),
    ],
)
def test_times_are_read_as_people_say_them(text: str, meant: str) -> None:
    assert moment(text, NOW, BERLIN) == (datetime.fromisoformat(meant), "")


@pytest.mark.parametrize(
    "text", ["", "yesteryear", "25:00", "yesterday", "10 apples ago", "999999 weeks ago", "0001-01-01"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is not a time"):
        moment(text, NOW, BERLIN)


def test_a_time_that_comes_twice_or_never_says_which_is_meant() -> None:
    at, said = moment("2026-10-25 02:30", NOW, BERLIN)
    assert at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert said.startswith("02:30 comes twice on 2026-10-25: the first, 02:30 CEST, is used.") and "+01:00" in said
    at, said = moment("2026-03-29 02:30", NOW, BERLIN)
    assert at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert said == "There is no 02:30 on 2026-03-29, when the clock is set forward: 03:30 CEST is used."
