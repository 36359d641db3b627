"""The place "Schedule": what an edit would bring is seen at once, and `backup.toml` says what was saved, no less."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.deployment import in_full
from backupkit.config.editor import set_value
from backupkit.config.settings import load_settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Refused
from backupkit.ui import plan
from backupkit.ui.plan_entry import Entry
from backupkit.ui.window import BackupApp
from hands import LARGE, SMALL, Person, at_the_window
from small_app import NOON, SmallApp

OWN = """\
# Ours since the spring.
timezone = "Europe/Berlin"   # where we are
keep_daily = 9
"""


@pytest.fixture
def file(app: SmallApp) -> Path:
    """A `backup.toml` that somebody wrote, and a week of backups."""
    path = app.folder / "backup.toml"
    path.write_text(OWN)
    for day in range(7, 0, -1):
        at = NOON - timedelta(days=day)
        create_backup(app.settings, BackupRequest(f"day{day}", kind="scheduled"), clock=lambda at=at: at)  # type: ignore[misc]
    return path


def entry(person: Person, name: str) -> Entry:
    return person.window.screen.query_one(f"#entry-{name}", Entry)


async def edits(person: Person, **texts: str) -> None:
    for name, text in texts.items():
        entry(person, name).type(text)


def at_the_plan(app: SmallApp, story: object, size: tuple[int, int] = LARGE) -> None:
    at_the_window(app, story, "plan", size, load_settings(app.folder), lambda: NOON)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "120x40"])
def test_what_a_policy_would_remove_is_seen_before_anything_is_saved(
    app: SmallApp, file: Path, size: tuple[int, int]
) -> None:
    async def story(person: Person) -> None:
        await person.sees("Of 7 backups: 7 stay, 0 go")
        await edits(person, keep_daily="4", keep_weekly="0", keep_monthly="0")
        await person.sees("Of 7 backups: 4 stay, 3 go", "✗ goes day5", "no rule keeps it", "3 edits, not saved yet.")
        assert file.read_text() == OWN
        assert len(list(app.backups.glob("day*"))) == 7

    at_the_plan(app, story, size)


def test_it_is_typed_saved_and_in_force_with_the_comments_kept(app: SmallApp, file: Path) -> None:
    async def story(person: Person) -> None:
        await person.sees("Of 7 backups")
        field = entry(person, "keep_daily").query_one("Input")
        field.focus()
        await person.press("home", "delete")
        await person.types("25")
        await person.sees("1 edit, not saved yet.")
        await edits(person, backup_time="4:05", enabled="false")
        await person.sees("3 edits", "Nothing is scheduled.")
        await person.click("#save")
        await person.sees("✓ Saved in backup.toml.")
        await person.until(lambda: not person.can_click("#save"), "nothing more to save")
        assert person.window.settings.keep_daily == 25
        assert entry(person, "backup_time").text == "04:05"

    at_the_plan(app, story)
    assert file.read_text() == OWN.replace("= 9", "= 25") + 'enabled = false\nbackup_time = "4:05"\n'


def test_the_next_runs_follow_what_is_typed(app: SmallApp, file: Path) -> None:
    async def story(person: Person) -> None:
        await edits(person, test_schedule="", backup_time="13:37")
        await person.sees("13:37 backup 37 13 * * *")
        await edits(person, schedule="11 22 * * sat")
        await person.sees("22:11", "11 22 * * sat")
        assert "13:37 backup" not in person.screen

    at_the_plan(app, story)


@pytest.mark.parametrize(
    ("name", "text"), [("backup_time", "25:00"), ("timezone", "Mars/Olympus"), ("schedule", "61 * * * *")]
)
def test_a_wrong_value_says_so_at_its_field_as_config_set_does_and_cannot_be_saved(
    app: SmallApp, file: Path, name: str, text: str
) -> None:
    with pytest.raises(Refused) as refused:
        set_value(app.folder, False, name, text)

    async def story(person: Person) -> None:
        await person.sees("Of 7 backups")
        await edits(person, **{name: text})
        error = entry(person, name).query_one(".trouble")
        await person.until(lambda: error.display and error.region.height, "the sentence at the field")
        assert str(error.render()) == in_full(f"{refused.value.message} {refused.value.hint}")
        await person.sees("1 edit, not saved yet; wrong: 1.")
        assert not person.can_click("#save")
        await person.press("ctrl+s")
        await person.sees("✗ It failed", refused.value.message)
        await person.click("#close")
        await edits(person, **{name: entry(person, name).original})
        await person.until(lambda: not error.display, "the sentence gone")

    at_the_plan(app, story)
    assert file.read_text() == OWN


def test_edits_are_discarded(app: SmallApp, file: Path) -> None:
    async def story(person: Person) -> None:
        await edits(person, keep_daily="2", enabled="false")
        await person.sees("2 edits, not saved yet.")
        await person.click("#discard")
        await person.until(lambda: "not saved" not in person.screen, "nothing edited")
        assert entry(person, "keep_daily").text == "9"

    at_the_plan(app, story)
    assert file.read_text() == OWN


def test_what_the_environment_says_is_shown_as_fixed(
    app: SmallApp, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_KEEP_DAILY", "33")
    monkeypatch.setenv("BACKUP_ENABLED", "false")

    async def story(person: Person) -> None:
        await person.sees("33", "fixed by BACKUP_KEEP_DAILY", "fixed by BACKUP_ENABLED")
        assert entry(person, "keep_daily").query_one("Input").disabled
        assert entry(person, "enabled").query_one("Tick").disabled

    at_the_plan(app, story)


def test_a_file_that_cannot_be_written_is_the_verbs_own_sentence_and_the_edits_stay(
    app: SmallApp, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_RUNNER_IN_USE", "exec")  # a container into which the file is not mounted

    async def story(person: Person) -> None:
        await edits(person, keep_daily="4")
        await person.click("#save")
        await person.sees("is part of the image", "Next: ")
        await person.click("#close")
        await person.sees("1 edit, not saved yet.")

    at_the_plan(app, story)
    assert file.read_text() == OWN


def test_who_leaves_while_a_preview_is_read_sees_no_error(
    app: SmallApp, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, shown = threading.Event(), threading.Event()
    close, preview = BackupApp._close_all, plan.preview

    async def close_first(window: BackupApp) -> None:
        await close(window)
        gone.set()
        while not shown.is_set():
            await asyncio.sleep(0.01)

    def preview_later(*given: Any) -> Any:
        found = preview(*given)
        gone.wait(60)
        threading.Timer(0.2, shown.set).start()
        return found

    async def story(person: Person) -> None:
        monkeypatch.setattr(plan, "preview", preview_later)
        monkeypatch.setattr(BackupApp, "_close_all", close_first)
        person.window.query_one(plan.PlanPage).action_discard()

    at_the_plan(app, story)
