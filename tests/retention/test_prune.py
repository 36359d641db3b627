"""`prune` removes what its table shows and nothing else; anything unusual stops it until a person has looked."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, BackupRequest, DatabaseFacts, Kind, Metadata, UploadsFacts
from backupkit.model.errors import Refused
from backupkit.model.events import Event, Notice, Warned
from backupkit.repository import flags, store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from backupkit.retention.anomaly import unusual
from backupkit.retention.delete import delete_backup, set_pin
from backupkit.retention.prune import accept, plan_prune, prune_backups
from small_app import NOON, SmallApp, tree

DAY = timedelta(days=1)


def at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


def with_policy(app: SmallApp, **rules: object) -> Settings:
    """Return the app's settings with these rules and a floor of one, and no other rules."""
    plain = {"keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0, "keep_safety_within": "", "min_keep": 1}
    return Settings(**{**app.settings.values(), **plain, **rules})  # type: ignore[arg-type]


def back_up(app: SmallApp, *names: str, start: datetime = NOON, kind: Kind = "auto") -> None:
    """Make one backup a day, in the order of these names."""
    for day, name in enumerate(names):
        create_backup(app.settings, BackupRequest(name, kind=kind), clock=at(start + day * DAY))


def prune(settings: Settings, moment: datetime = NOON + 99 * DAY, force: bool = False) -> list[str]:
    plan = plan_prune(settings, at(moment))
    return [backup.name for backup in prune_backups(settings, plan, force, clock=at(moment)).removed]


def names(app: SmallApp) -> list[str]:
    return sorted(backup.name for backup in store.all_backups(app.settings))


# What is removed


def test_what_the_plan_shows_is_removed_and_the_rest_stays_as_it_is(app: SmallApp) -> None:
    back_up(app, "a", "b", "c", "d")
    before = {name: tree(app.backups / name) for name in ("c", "d")}
    settings = with_policy(app, keep_last=2)
    plan = plan_prune(settings, at(NOON + 9 * DAY))
    assert [backup.name for backup in plan.removals] == ["b", "a"]
    assert names(app) == ["a", "b", "c", "d"]
    prune_backups(settings, plan, clock=at(NOON + 9 * DAY))
    assert {name: tree(app.backups / name) for name in names(app)} == before
    assert not list(app.backups.glob(".draft*"))


def test_the_command_prints_what_it_does_and_a_dry_run_does_nothing(app: SmallApp) -> None:
    back_up(app, "a", "b", "c", "d")
    rules = {"BACKUP_MAX_BACKUPS": "2"}
    looked = app.command("prune", "--dry-run", env=rules, check=0)
    assert names(app) == ["a", "b", "c", "d"]
    assert "2 backups to remove, 2 backups to keep." in looked.out
    done = app.command("prune", env=rules, check=0)
    assert done.out.startswith(looked.out) and "Removed 2 backups" in done.out
    assert names(app) == ["c", "d"]
    assert "Nothing was removed." in app.command("prune", env=rules, check=0).out


def test_as_json_each_verdict_has_its_reasons(app: SmallApp) -> None:
    back_up(app, "a", "b", "c")
    looked = app.command("prune", "--dry-run", "--json", env={"BACKUP_MAX_BACKUPS": "1"}, check=0).json
    assert [(one["backup_name"], one["keep"]) for one in looked["verdicts"]] == [
        ("c", True),
        ("b", False),
        ("a", False),
    ]
    assert looked["stopped"] is None and looked["verdicts"][0]["reasons"] == [
        "the newest",
        "good 1 of 1",
        "newest 1 of 1",
    ]
    done = app.command("prune", "--json", env={"BACKUP_MAX_BACKUPS": "1"}, check=0).json
    assert done["verdicts"] == looked["verdicts"] and sorted(done["removed"]) == ["a", "b"]


@pytest.mark.parametrize("brings", ["import", "pull"])
def test_what_was_brought_here_to_be_restored_stays_for_a_week(app: SmallApp, tmp_path: Path, brings: str) -> None:
    back_up(app, "old", "b", "c")
    toml = f'[remotes.offsite]\ntype = "folder"\npath = "{tmp_path}"\n'
    (app.folder / "backup.toml").write_text(toml)
    if brings == "import":
        app.command("export", "old", str(tmp_path / "old.tar"), check=0)
        how = ["import", str(tmp_path / "old.tar")]
    else:
        app.command("remotes", "--init", "offsite", check=0)
        app.command("push", check=0)
        how = ["pull", "old"]
    app.command("delete", "old", "--yes", check=0)
    brought = app.command(*how, check=0)
    assert "keeps it for 7 days" in brought.out and "pin old" in brought.out
    settings, now = with_policy(app, keep_last=1), datetime.now(UTC)
    verdicts = {one.backup.name: one for one in plan_prune(settings, at(now)).verdicts}
    assert verdicts["old"].reasons == (f"brought here by {brings}, less than 7 days ago",)
    assert prune(settings, now + 6 * DAY) == ["b"]
    assert prune(settings, now + 8 * DAY) == ["old"]


def test_the_default_policy_keeps_a_month_of_days_and_all_that_is_manual(app: SmallApp) -> None:
    back_up(app, "a", "b", "c", kind="manual")
    for hour in range(5):
        create_backup(
            app.settings, BackupRequest(f"auto{hour}", kind="auto"), clock=at(NOON + 3 * DAY + hour * DAY / 48)
        )
    app.command("prune", check=0)
    assert names(app) == ["a", "auto2", "auto3", "auto4", "b", "c"]  # today's newest, and three good ones


def test_an_empty_policy_removes_nothing(app: SmallApp) -> None:
    back_up(app, "a", "b", "c")
    assert prune(with_policy(app)) == []


def test_there_is_nothing_to_prune_where_there_are_no_backups(app: SmallApp) -> None:
    assert "There are no backups" in app.command("prune", check=0).out
    shutil.rmtree(app.backups)
    app.command("prune", check=0, env={"BACKUP_DIR": str(app.backups)})
    assert not app.backups.exists()


# What is never removed


def test_pinned_and_held_backups_and_the_way_back_of_undo_stay(app: SmallApp) -> None:
    settings = with_policy(app, max_backups=1)
    back_up(app, "good")
    safety = restore_backup(app.settings, plan_restore(app.settings, "good"), clock=at(NOON + DAY)).safety
    back_up(app, "pinned", "plain", "newest", start=NOON + 2 * DAY)
    set_pin(app.settings, "pinned", True)
    assert sorted(prune(settings)) == ["good", "plain"]
    assert plan_undo(app.settings, force=True).source.name == safety


def test_without_its_state_the_newest_safety_copy_stays(app: SmallApp) -> None:
    back_up(app, "good")
    safety = restore_backup(app.settings, plan_restore(app.settings, "good"), clock=at(NOON + DAY)).safety
    back_up(app, "newest", start=NOON + 2 * DAY)
    shutil.rmtree(app.backups / ".state")
    assert prune(with_policy(app, max_backups=1)) == ["good"]
    assert names(app) == sorted(["newest", safety])


@pytest.mark.parametrize("newest", ["metadata", "checksums"])
def test_nothing_is_removed_while_the_newest_is_damaged(app: SmallApp, newest: str) -> None:
    back_up(app, "a", "b", "c")
    if newest == "metadata":
        (app.backups / "c" / "backup_metadata.json").write_text("{")
    else:
        (app.backups / "c" / "SHA256SUMS").unlink()
    result = app.command("prune", env={"BACKUP_MAX_BACKUPS": "1"}, check=3)
    assert "Nothing is removed: " in result.out and "c is damaged" in result.err
    assert names(app) == ["a", "b", "c"]


def harm(path: Path, how: str) -> None:
    """Damage the backup in a way that no check has found yet."""
    if how == "truncated":
        os.truncate(path / "pats.db", 4096)
    elif how == "gone":
        (path / "pats.db").unlink()
    elif how == "an upload is gone":
        (path / "uploads/1/letter.txt").unlink()
    elif how == "an upload is cut short":
        os.truncate(path / "uploads/2/letter.txt", 3)
    else:
        with open(path / "pats.db", "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"flipped")


@pytest.mark.parametrize("uploads", [True, False], ids=["whole", "of the database alone"])
@pytest.mark.parametrize("how", ["truncated", "gone", "an upload is gone", "an upload is cut short"])
def test_a_newest_one_of_the_wrong_size_stops_it_though_nobody_verified_it(
    app: SmallApp, how: str, uploads: bool
) -> None:
    if not uploads and "upload" in how:
        pytest.skip("it has none")
    back_up(app, "a", "b", "c")
    create_backup(app.settings, BackupRequest("d", kind="auto", uploads=uploads), clock=at(NOON + 4 * DAY))
    harm(app.backups / "d", how)
    looked = plan_prune(with_policy(app, keep_last=1), at(NOON + 4 * DAY))
    assert not looked.removals and looked.stopped == "the newest backup d is damaged"
    assert prune(with_policy(app, keep_last=1), NOON + 4 * DAY) == []
    assert names(app) == ["a", "b", "c", "d"]


def test_a_flipped_byte_in_the_newest_is_found_before_anything_is_removed(app: SmallApp) -> None:
    back_up(app, "a", "b", "c")
    harm(app.backups / "c", "a byte is flipped")
    told: list[Event] = []
    settings, moment = with_policy(app, keep_last=1), NOON + 9 * DAY
    done = prune_backups(settings, plan_prune(settings, at(moment)), emit=told.append, clock=at(moment))
    assert not done.removed and "Nothing is removed: the newest backup c is damaged." in done.warnings
    assert names(app) == ["a", "b", "c"] and store.read(app.settings, "c").state == "damaged"


def test_what_was_checked_within_a_day_is_not_read_again(app: SmallApp) -> None:
    back_up(app, "a", "b", "c")
    before = store.read(app.settings, "c").checked_at
    assert prune(with_policy(app, keep_last=2), NOON + 2.5 * DAY) == ["a"]
    assert store.read(app.settings, "c").checked_at == before
    assert prune(with_policy(app, keep_last=1), NOON + 4 * DAY) == ["b"]
    assert store.read(app.settings, "c").checked_at == NOON + 4 * DAY


def test_uploads_that_are_links_sparse_or_empty_have_the_size_they_should(app: SmallApp) -> None:
    os.link(app.uploads / "1/letter.txt", app.uploads / "1/the same")
    (app.uploads / "nothing").touch()
    with open(app.uploads / "sparse", "wb") as file:
        file.truncate(1 << 20)
    back_up(app, "a", "b")
    assert prune(with_policy(app, keep_last=1), NOON + DAY) == ["a"]


def test_an_older_damaged_one_and_strange_folders_are_left_alone(app: SmallApp) -> None:
    back_up(app, "bad", "a", "b", "c")
    (app.backups / "bad" / "backup_metadata.json").write_text("{")
    long_ago = (NOON - 99 * DAY).timestamp()
    os.utime(app.backups / "bad", (long_ago, long_ago))
    (app.backups / "photos").mkdir()
    theirs = shutil.copytree(app.backups / "a", app.backups / "theirs") / "backup_metadata.json"
    theirs.write_text(json.dumps({**json.loads(theirs.read_text()), "app_id": "crm"}))
    assert sorted(prune(with_policy(app, max_backups=1))) == ["a", "b"]
    assert sorted(path.name for path in app.backups.iterdir() if path.name[0] != ".") == [
        "bad",
        "c",
        "photos",
        "theirs",
    ]


# The limit


def test_more_than_the_limit_needs_force(app: SmallApp) -> None:
    back_up(app, "a", "b", "c", "d")
    rules = {"BACKUP_MAX_BACKUPS": "1", "BACKUP_PRUNE_LIMIT": "2"}
    result = app.command("prune", env=rules, check=2)
    assert "3 backups would be removed at once, and the limit is 2; nothing was removed." in result.err
    assert "--force" in result.err and "REMOVE" in result.out
    assert names(app) == ["a", "b", "c", "d"]
    app.command("prune", "--force", env=rules, check=0)
    assert names(app) == ["d"]


def test_a_limit_of_zero_is_none(app: SmallApp) -> None:
    back_up(app, "a", "b", "c", "d")
    assert len(prune(with_policy(app, max_backups=1, prune_limit=0))) == 3


@pytest.mark.parametrize(
    ("setting", "value"),
    [("KEEP_DAILY", "-1"), ("MAX_BACKUPS", "-5"), ("KEEP_WITHIN", "-7d"), ("KEEP_WITHIN", "a week"), ("MIN_KEEP", "0")],
)
def test_nonsense_is_refused_before_anything_is_touched(app: SmallApp, setting: str, value: str) -> None:
    back_up(app, "a", "b")
    result = app.command("prune", env={f"BACKUP_{setting}": value}, check=2)
    assert f"BACKUP_{setting}" in result.err
    assert names(app) == ["a", "b"]


# Concurrent changes


def test_what_has_a_reason_to_stay_by_the_time_of_the_lock_stays(app: SmallApp) -> None:
    back_up(app, "a", "b", "c", "d")
    settings = with_policy(app, keep_last=1)
    plan = plan_prune(settings, at(NOON + 9 * DAY))
    set_pin(app.settings, "b", True)
    delete_backup(app.settings, "d")
    heard: list[Event] = []
    done = prune_backups(settings, plan, emit=heard.append, clock=at(NOON + 9 * DAY))
    assert [backup.name for backup in done.removed] == ["a"]
    assert names(app) == ["b", "c"]
    told = {event.text for event in heard if isinstance(event, Notice)}
    assert any("b stays after all: pinned" in text for text in told)
    assert any("c stays after all: the newest" in text for text in told)


def test_what_may_go_by_the_time_of_the_lock_but_was_not_shown_stays(app: SmallApp) -> None:
    back_up(app, "a", "b", "c")
    settings = with_policy(app, keep_last=2)
    plan = plan_prune(settings, at(NOON + 9 * DAY))
    back_up(app, "d", start=NOON + 3 * DAY)
    prune_backups(settings, plan, clock=at(NOON + 9 * DAY))
    assert names(app) == ["b", "c", "d"]


def test_a_doubt_that_arises_before_the_lock_stops_it(app: SmallApp) -> None:
    back_up(app, "a", "b", "c")
    settings = with_policy(app, keep_last=1)
    plan = plan_prune(settings, at(NOON + 9 * DAY))
    (app.backups / "c" / "SHA256SUMS").unlink()
    done = prune_backups(settings, plan, clock=at(NOON + 9 * DAY))
    assert done.removed == () and "Nothing is removed" in done.warnings[0]
    assert names(app) == ["a", "b", "c"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make what another user cannot remove")
def test_one_that_we_may_not_remove_keeps_its_name_and_the_others_go(templates: Path) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        app = SmallApp.create(Path(open_to_all, "app"), templates)
        back_up(app, "a", "b", "c")
        for path in (app.folder, *app.folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.chown(app.backups / "a" / "uploads", 0, 0)
        assert as_nobody(lambda: told_by_prune(app)) == ["b", f"{app.backups / 'a'} could not be removed: {REASON}."]
        assert names(app) == ["a", "c"] and not list(app.backups.glob(".draft*"))


NOBODY = 65534
REASON = os.strerror(errno.EPERM)


def told_by_prune(app: SmallApp) -> list[str]:
    settings = with_policy(app, keep_last=1)
    done = prune_backups(settings, plan_prune(settings, at(NOON + 9 * DAY)), clock=at(NOON + 9 * DAY))
    return [*(backup.name for backup in done.removed), *done.warnings]


def as_nobody(act: Callable[[], list[str]]) -> list[str]:
    """Return the result of the act, run as a user who owns only what was given to them."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        said = ["it failed"]
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = act()
        finally:
            os.write(theirs, json.dumps(said).encode())
            os._exit(0)
    os.close(theirs)
    with open(ours) as report:
        said = json.load(report)
    os.waitpid(child, 0)
    return list(said)


def test_what_is_said_of_backups_that_are_gone_is_forgotten(app: SmallApp) -> None:
    back_up(app, "a", "b")
    for mark in (flags.PINNED, flags.HELD, flags.ACCEPTED):
        for name in ("b", "gone"):
            flags.add(app.backups, mark, name)
    prune(with_policy(app, keep_last=1))
    left = {str(path.relative_to(app.backups / ".state")) for path in (app.backups / ".state").glob("*/*")}
    assert left == {"pinned/b", "held/b", "accepted/b", "index/b", "proofs/b", "sound/b"}


# Unusual backups


def test_a_backup_with_half_the_rows_is_unusual_everywhere_and_stops_pruning(app: SmallApp) -> None:
    app.add_rows(100)
    back_up(app, "a", "b", start=NOON - DAY)
    app.execute("DELETE FROM applications WHERE id > 20")
    made = app.command("backup", "c", check=0)
    assert "Unusual: table applications: 20 rows, down from 103 rows." in made.err
    assert "checked, unusual" in app.command("list", check=0).out
    assert "unusual    table applications" in app.command("show", "c", check=0).out
    for told in (app.command("show", "c", "--json").json, app.command("list", "--json").json[0]):
        assert told["anomalies"] == ["table applications: 20 rows, down from 103 rows"]
    assert app.command("prune", env={"BACKUP_MAX_BACKUPS": "1"}).code == 3
    assert names(app) == ["a", "b", "c"]


def test_an_accepted_one_stops_nothing_and_is_what_later_ones_are_measured_by(app: SmallApp) -> None:
    app.add_rows(100)
    back_up(app, "a", "b")
    app.execute("DELETE FROM applications WHERE id > 20")
    back_up(app, "c", start=NOON + 2 * DAY)
    back_up(app, "d", start=NOON + 3 * DAY)
    assert [bool(backup.unusual) for backup in store.all_backups(app.settings)] == [True, True, False, False]
    assert not accept(app.settings, "d").unusual
    assert "(accepted)" in app.command("show", "d", check=0).out
    back_up(app, "e", start=NOON + 4 * DAY)
    assert store.find(app.settings, "e").unusual == ()
    assert sorted(prune(with_policy(app, max_backups=1))) == ["a", "b", "c", "d"]


def test_acceptance_is_not_inherited_by_a_later_backup_of_that_name(app: SmallApp) -> None:
    app.add_rows(100)
    back_up(app, "a", "c")
    flags.add(app.backups, flags.ACCEPTED, "c")
    delete_backup(app.settings, "c")
    app.execute("DELETE FROM applications WHERE id > 20")
    back_up(app, "c", start=NOON + 2 * DAY)
    assert store.find(app.settings, "c").unusual


def test_a_usual_one_after_it_lets_pruning_go_on(app: SmallApp) -> None:
    for number in range(40):
        app.write_upload(f"photos/{number}.jpg", bytes(100))
    back_up(app, "a", "b")
    app.uploads.rename(app.folder / "elsewhere")
    app.uploads.mkdir()
    back_up(app, "c", start=NOON + 2 * DAY)
    assert store.find(app.settings, "c").unusual == ("uploads: 0 files, down from 42 files",)
    app.uploads.rmdir()
    (app.folder / "elsewhere").rename(app.uploads)
    back_up(app, "d", start=NOON + 3 * DAY)
    assert sorted(prune(with_policy(app, max_backups=1))) == ["a", "b", "c"]


# The comparison


def found(day: float, kind: Kind = "auto", files: int | None = 100, accepted: bool = False, **rows: int) -> Backup:
    """Return a backup dated that many days after noon, with these tables."""
    uploads = None if files is None else UploadsFacts(files, files * 100_000)
    facts = DatabaseFacts(4096 * (1 + sum(rows.values())), "0" * 64, rows=rows)
    moment = NOON + day * DAY
    metadata = Metadata(f"day{day}", "", moment, "1", "pats.db", uploads is not None, kind=kind, app_id="pats")
    path = Path("/backups", f"day{day}")
    return Backup(path, replace(metadata, database=facts, uploads=uploads), "checked", accepted=accepted)


def told(new: Backup, *earlier: Backup, drop: int = 50) -> tuple[str, ...]:
    assert new.metadata
    return unusual(new.metadata, earlier, drop)


def judged(days: list[Backup]) -> list[bool]:
    """Return which of them are unusual, each compared with the earlier ones as they were judged."""
    past: list[Backup] = []
    for backup in days:
        assert backup.metadata
        metadata = replace(backup.metadata, anomalies=unusual(backup.metadata, past, 50))
        past.insert(0, replace(backup, metadata=metadata))
    return [bool(backup.metadata and backup.metadata.anomalies) for backup in reversed(past)]


def test_the_first_backup_and_one_that_grew_are_usual() -> None:
    assert told(found(0, a=100)) == ()
    assert told(found(1, a=500), found(0, a=100)) == ()


@pytest.mark.parametrize(
    ("rows", "drop", "is_unusual"), [(50, 50, False), (49, 50, True), (0, 99, True), (0, 100, False)]
)
def test_the_threshold_is_a_percentage(rows: int, drop: int, is_unusual: bool) -> None:
    assert bool(told(found(1, a=rows), found(0, a=100), drop=drop)) is is_unusual


def test_little_is_too_little_to_say_anything_by() -> None:
    assert told(found(1, files=0, a=0), found(0, files=9, a=19)) == ()


def test_a_table_that_is_gone_is_told_unless_a_migration_did_it() -> None:
    migrated = found(1, b=100)
    assert migrated.metadata
    assert told(migrated, found(0, a=100)) == ("table a: 0 rows, down from 100 rows",)
    migrated = replace(migrated, metadata=replace(migrated.metadata, alembic_revision="2"))
    assert told(migrated, found(0, a=100)) == ()


def test_a_table_that_comes_and_goes_is_usual() -> None:
    assert told(found(5, a=0), found(4, a=100), found(3, a=2), found(2, a=100)) == ()


def test_uploads_are_measured_by_backups_that_have_them() -> None:
    parts = [found(number, files=None, a=100) for number in range(6, 1, -1)]
    assert told(found(7, files=3, a=100), *parts, found(1, a=100)) == (
        "uploads: 3 files, down from 100 files",
        "uploads: 300.0 kB, down from 10.0 MB",
    )
    assert told(found(7, files=None, a=100), *parts, found(1, a=100)) == ()


def with_mounts(backup: Backup, *places: str) -> Backup:
    assert backup.metadata and backup.metadata.uploads
    return replace(backup, metadata=replace(backup.metadata, uploads=replace(backup.metadata.uploads, mounts=places)))


def test_a_disk_in_the_uploads_that_is_not_mounted_is_told() -> None:
    before, now = with_mounts(found(1), "scans", "videos"), with_mounts(found(2), "scans")
    assert told(now, before) == ("uploads: nothing is mounted at videos, where something was",)
    assert told(now, replace(before, accepted=True)) == told(now, before)
    assert told(before, now) == told(before, before) == told(now, before, drop=100) == ()


def test_where_no_mounts_are_known_nothing_is_told_of_them() -> None:
    before = with_mounts(found(1), "videos")
    assert told(found(2), before) == told(with_mounts(found(2)), found(1)) == ()
    assert told(with_mounts(found(3)), found(2), before) != (), "the newest that knows is compared"


def test_a_disk_that_is_gone_is_told_for_a_fortnight_or_until_that_is_accepted() -> None:
    days = [with_mounts(found(day), *(["videos"] if day < 3 else [])) for day in range(40)]
    assert [day for day, alarm in enumerate(judged(days)) if alarm] == list(range(3, 17))
    days[4] = replace(days[4], accepted=True)
    assert [day for day, alarm in enumerate(judged(days)) if alarm] == [3, 4]


def test_uploads_excluded_otherwise_are_not_compared_by_their_disks() -> None:
    now = with_mounts(found(2))
    assert now.metadata
    now = replace(now, metadata=replace(now.metadata, exclude=("videos",)))
    assert told(now, with_mounts(found(1), "videos")) == ()


def test_a_safety_copy_is_no_measure_and_never_unusual() -> None:
    assert told(found(1, "pre_restore", a=1), found(0, a=100)) == ()
    assert told(found(2, a=100), found(1, "pre_restore", a=9999)) == ()


def test_after_a_drop_each_is_unusual_for_a_fortnight_and_no_longer() -> None:
    days = [found(day, a=100 if day < 3 else 10) for day in range(40)]
    alarms = [day for day, alarm in enumerate(judged(days)) if alarm]
    assert alarms == list(range(3, 17))


def test_after_a_drop_that_was_accepted_none_is_unusual() -> None:
    days = [found(day, a=100 if day < 3 else 10, accepted=day == 4) for day in range(40)]
    assert [day for day, alarm in enumerate(judged(days)) if alarm] == [3, 4]


def test_the_notice_is_no_warning(app: SmallApp) -> None:
    app.add_rows(100)
    back_up(app, "a")
    app.execute("DELETE FROM applications")
    heard: list[Event] = []
    create_backup(app.settings, BackupRequest("b"), heard.append, at(NOON + DAY))
    assert any(isinstance(event, Notice) and "Unusual" in event.text for event in heard)
    assert not any(isinstance(event, Warned) for event in heard)


def test_settings_that_ask_for_max_backups_alone_get_just_that(app: SmallApp) -> None:
    back_up(app, *"abcde", kind="manual")
    assert "newest 2 of 2" in app.command("prune", env={"BACKUP_MAX_BACKUPS": "2"}, check=0).out
    assert names(app) == ["d", "e"]


def test_a_refusal_of_the_limit_is_raised_before_the_lock(app: SmallApp) -> None:
    back_up(app, "a", "b", "c")
    settings = with_policy(app, keep_last=1, prune_limit=1)
    with pytest.raises(Refused):
        prune(settings)
    assert len(prune(settings, force=True)) == 2
