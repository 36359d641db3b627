"""The preview shows what edited settings would do before they are saved, and refuses what `config set` refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.editor import set_value, set_values
from backupkit.config.settings import load_settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Refused
from backupkit.monitoring.preview import preview
from refusals import picture
from small_app import NOON, SmallApp

OWN = """\
# Ours since the spring.
timezone = "Europe/Berlin"   # where we are
keep_daily = 9
"""


def days_of_backups(app: SmallApp, days: int) -> None:
    for day in range(days, 0, -1):
        at = NOON - timedelta(days=day)
        create_backup(app.settings, BackupRequest(f"day{day}", kind="scheduled"), clock=lambda at=at: at)  # type: ignore[misc]


def removals(app: SmallApp, **typed: str) -> list[str]:
    found = preview(app.settings, typed, lambda: NOON)
    assert not found.troubles
    return sorted(backup.name for backup in found.prune.removals)


@pytest.fixture
def file(app: SmallApp) -> Path:
    path = app.folder / "backup.toml"
    path.write_text(OWN)
    return path


def test_what_a_policy_would_remove_is_told_with_nothing_removed_or_saved(app: SmallApp, file: Path) -> None:
    days_of_backups(app, 6)
    before = picture(app)
    assert removals(app) == []
    assert removals(app, keep_daily="4", keep_weekly="0", keep_monthly="0") == ["day5", "day6"]
    assert removals(app, keep_daily="4", keep_weekly="0", keep_monthly="0", min_keep="5") == ["day6"]
    assert picture(app) == before
    assert file.read_text() == OWN


def test_the_next_runs_follow_the_edited_timetable(app: SmallApp, file: Path) -> None:
    def moments(**typed: str) -> list[datetime]:
        found = preview(app.settings, {"test_schedule": "", **typed}, lambda: NOON)
        return [due.at for due in found.runs[1:3]]  # the first is overdue, as there is no backup yet

    first = NOON.replace(hour=3, minute=30) + timedelta(days=1)  # 04:30 in winter or 05:30 in summer, in Berlin
    at = first.astimezone(load_settings(app.folder).zone).strftime("%H:%M")
    assert moments(backup_time=at) == [first, first + timedelta(days=1)]
    assert moments(schedule="0 * * * *")[1] - moments(schedule="0 * * * *")[0] == timedelta(hours=1)
    assert moments(backup_time="03:30", timezone="UTC")[0] == datetime.combine(first.date(), first.time(), UTC)
    assert moments(enabled="false") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("backup_time", "25:00"),
        ("timezone", "Mars/Olympus"),
        ("schedule", "61 * * * *"),
        ("keep_daily", "many"),
        ("keep_daily", ""),
        ("keep_within", "7 lightyears"),
        ("enabled", "perhaps"),
    ],
)
def test_a_wrong_value_has_the_sentence_of_config_set_and_hides_no_other(
    app: SmallApp, file: Path, name: str, text: str
) -> None:
    found = preview(app.settings, {name: text, "keep_monthly": "7"}, lambda: NOON)
    with pytest.raises(Refused) as refused:
        set_value(app.folder, name, text)
    assert {key: (one.message, one.hint) for key, one in found.troubles.items()} == {
        name: (refused.value.message, refused.value.hint)
    }
    assert found.settings.keep_monthly == 7
    assert file.read_text() == OWN


def test_a_variable_stays_stronger_than_what_is_typed(
    app: SmallApp, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_KEEP_DAILY", "30")
    assert preview(app.settings, {"keep_daily": "2"}, lambda: NOON).settings.keep_daily == 30


def test_max_backups_alone_makes_the_default_rules_yield_in_the_preview_too(app: SmallApp) -> None:
    days_of_backups(app, 6)
    assert removals(app, max_backups="4") == ["day5", "day6"]


def test_several_values_are_saved_at_once_with_the_comments_kept(app: SmallApp, file: Path) -> None:
    assert set_values(app.folder, {"keep_daily": "5", "backup_time": "4:05", "enabled": "false"}) == file
    assert file.read_text() == OWN.replace("= 9", "= 5") + 'backup_time = "4:05"\nenabled = false\n'
    told = load_settings(app.folder)
    assert (told.keep_daily, told.backup_time, told.enabled, told.timezone) == (5, "04:05", False, "Europe/Berlin")


def test_of_several_values_none_is_saved_if_one_is_wrong(app: SmallApp, file: Path) -> None:
    with pytest.raises(Refused, match="backup_time"):
        set_values(app.folder, {"keep_daily": "5", "backup_time": "late"})
    assert file.read_text() == OWN
