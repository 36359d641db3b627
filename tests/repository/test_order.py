"""A clock that was wrong: what was made later is not lost, although its date is earlier."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from backupkit.archive.export import export_backup, import_backup
from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings, load_settings
from backupkit.model.backup import BackupRequest
from backupkit.monitoring.status import Reason, status
from backupkit.remotes.prune import plan_remote_prune
from backupkit.remotes.push import push_backups
from backupkit.repository import store
from backupkit.retention.delete import delete_backup, set_pin
from backupkit.retention.prune import plan_prune, prune_backups
from refusals import run_here
from small_app import NOON, SmallApp

DAY = timedelta(days=1)
A_YEAR_BACK = NOON - 364 * DAY
RULES = {"keep_last": 2, "keep_daily": 2, "keep_weekly": 0, "keep_monthly": 0, "min_keep": 2}
NOTE = "latest is d. Made later, although dated earlier: y, x."


def back_up(app: SmallApp, *names: str, start: datetime, step: timedelta = DAY) -> None:
    for number, name in enumerate(names):
        when = start + number * step
        create_backup(app.settings, BackupRequest(name, kind="auto"), clock=lambda when=when: when)  # type: ignore[misc]


def with_clock_set_back(app: SmallApp) -> Settings:
    """Make a to d, then x and y with a clock that is a year behind; the last really made is y."""
    back_up(app, "a", "b", "c", "d", start=NOON)
    back_up(app, "x", "y", start=A_YEAR_BACK)
    return app.settings.replaced(**RULES)


def after(days: int) -> datetime:
    return NOON + days * DAY


def warnings(settings: Settings) -> list[Reason]:
    found = status(settings, lambda: after(4)).reasons
    return [one for one in found if "dated earlier" in one.text]


def test_prune_keeps_what_was_made_after_one_with_a_later_date(app: SmallApp) -> None:
    settings = with_clock_set_back(app)
    plan = plan_prune(settings, lambda: after(4))
    reasons = {one.backup.name: one.reasons for one in plan.verdicts}
    assert reasons["x"] == reasons["y"] == ("made after d, which has a later date",)
    removed = prune_backups(settings, plan, clock=lambda: after(4)).removed
    assert [one.name for one in removed] == ["a", "b"]


def test_status_warns_of_it_until_it_is_pinned_or_deleted(app: SmallApp) -> None:
    settings = with_clock_set_back(app)
    [warning] = warnings(settings)
    assert warning.text == (
        "Made after d, although dated earlier: y, x. The clock was wrong."
        " Look at each, then pin or delete it: `pin y`, `delete y`."
        " If the clock was ahead when d was made, `delete d` ends it for all of them."
    )
    assert warning.level == "warning" and warning.fix.endswith("show y")
    set_pin(settings, "y", True)
    assert warnings(settings)[0].fix.endswith("show x")
    delete_backup(settings, "x")
    assert warnings(settings) == []


def test_the_one_of_a_clock_that_was_ahead_ends_it_when_it_is_deleted(app: SmallApp) -> None:
    back_up(app, "a", start=NOON)
    back_up(app, "ahead", start=after(3))
    back_up(app, "b", "c", start=after(1))
    [warning] = warnings(app.settings)
    assert "Made after ahead, although dated earlier: c, b." in warning.text
    assert "`delete ahead` ends it for all of them" in warning.text
    delete_backup(app.settings, "ahead")
    assert warnings(app.settings) == []


def test_a_restore_of_latest_names_what_was_made_later(app: SmallApp) -> None:
    with_clock_set_back(app)
    assert NOTE in run_here(app, "restore", "latest", "--dry-run", check=0).out
    assert NOTE in run_here(app, "restore", "latest", "--dry-run", "--json", check=0).json["notes"]
    assert NOTE in run_here(app, "show", "latest", check=0).err
    to = ("--to", str(app.folder.parent / "beside"))
    assert NOTE in run_here(app, "restore", "latest", *to, "--dry-run", check=0).out


def test_a_backup_made_since_then_is_the_latest_and_nothing_is_noted(app: SmallApp) -> None:
    settings = with_clock_set_back(app)
    back_up(app, "e", start=after(4))
    assert store.resolve(settings, "latest").sentences == ()


def test_it_ends_when_the_one_with_the_later_date_is_gone(app: SmallApp) -> None:
    settings = with_clock_set_back(app)
    for name in ("a", "b", "c", "d"):
        delete_backup(settings, name)
    assert warnings(settings) == [] and store.resolve(settings, "latest").backup.name == "y"


def test_one_dated_in_the_future_makes_no_other_doubtful(app: SmallApp) -> None:
    back_up(app, "ahead", start=after(900))
    back_up(app, "a", "b", "c", start=NOON)
    settings = app.settings.replaced(**RULES)
    assert warnings(settings) == [] and store.resolve(settings, "latest").made_later == ()
    assert [one.name for one in plan_prune(settings, lambda: after(4)).removals] == ["a"]


@pytest.mark.parametrize("back", [timedelta(seconds=5), timedelta(minutes=59)])
def test_a_small_correction_of_the_clock_is_nothing_to_tell(app: SmallApp, back: timedelta) -> None:
    back_up(app, "a", "b", start=NOON, step=-back)
    assert warnings(app.settings) == [] and store.resolve(app.settings, "latest").sentences == ()


def test_another_time_zone_is_nothing_to_tell(app: SmallApp) -> None:
    east, west = (timezone(timedelta(hours=hours)) for hours in (12, -11))
    back_up(app, "a", start=NOON.astimezone(east))
    settings = app.settings.replaced(timezone="Pacific/Honolulu")
    create_backup(settings, BackupRequest("b"), clock=lambda: (NOON + timedelta(hours=1)).astimezone(west))
    assert warnings(settings) == [] and store.resolve(settings, "latest").sentences == ()


def test_nothing_is_said_of_an_imported_backup_nor_of_one_made_under_a_name_that_was_free_again(
    app: SmallApp, tmp_path: Path
) -> None:
    back_up(app, "old", "same", start=A_YEAR_BACK)
    export_backup(app.settings, "old", tmp_path / "old.tar")
    delete_backup(app.settings, "same")
    back_up(app, "a", "same", start=NOON)
    import_backup(app.settings, tmp_path / "old.tar", name="again")
    assert warnings(app.settings) == [] and store.resolve(app.settings, "latest").sentences == ()


def test_the_rules_of_a_remote_keep_it_too(app: SmallApp, tmp_path: Path) -> None:
    place = f'[remotes.nas]\ntype = "folder"\npath = "{tmp_path}"\nkeep_last = 2\nmin_keep = 1\n'
    (app.folder / "backup.toml").write_text(place)
    run_here(app, "remotes", "--init", "nas", check=0)
    with_clock_set_back(app)
    settings = load_settings(app.folder)
    push_backups(settings, clock=lambda: after(4))
    plan = plan_remote_prune(settings, "nas", clock=lambda: after(4))
    assert {one.backup.name for one in plan.verdicts if one.keep} >= {"c", "d", "x", "y"}
