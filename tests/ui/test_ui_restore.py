"""Restores at the window: the plan, the typed name, the check afterwards; the disk must hold what the window says."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from backupkit.backup.create import create_backup
from backupkit.cli.task import Run
from backupkit.cli.tasks import restoring
from backupkit.model.backup import BackupRequest
from backupkit.model.clock import utc_now
from backupkit.model.events import Event, EventListener
from backupkit.repository import lock
from backupkit.restore.restore import Restored, plan_restore
from backupkit.retention.delete import delete_backup
from backupkit.ui.backups import BackupsPage
from hands import LARGE, Person, at_the_window
from refusals import picture
from small_app import HEAD, REMINDERS, SALARY, Contents, SmallApp


@pytest.fixture
def before(app: SmallApp) -> Contents:
    """The content when the backup `kept` was made; afterwards rows and files were added, changed and removed."""
    create_backup(app.settings, BackupRequest("kept", note="as it was"))
    contents = app.contents()
    app.add_rows(4)
    app.execute("DELETE FROM documents")
    app.write_upload("1/letter.txt", b"changed since")
    app.write_upload("new.txt", b"new")
    (app.uploads / "2" / "letter.txt").unlink()
    return contents


async def restored(person: Person, name: str = "kept") -> None:
    """Restore the chosen backup from the list, and wait for the success."""
    await person.press("R")
    await person.sees(f"Restoring {name} will change")
    await person.types(name)
    await person.press("enter")
    await person.sees("✓ Done")


@pytest.mark.parametrize("size", [(80, 24), LARGE], ids=["80x24", "120x40"])
def test_the_plan_is_read_the_name_typed_and_everything_is_as_it_was(
    app: SmallApp, before: Contents, size: tuple[int, int]
) -> None:
    async def story(person: Person) -> None:
        unchanged = picture(app)
        await person.sees("kept", "as it was")
        await person.press("R")
        await person.sees(
            "Restoring kept will change", "companies: 7 -> 3 (4 removed)", "documents: 0 -> 2 (2 restored)"
        )
        await person.sees("unchanged: 4 tables", "1 restored, 1 changed, 1 removed")
        await person.press("pagedown")
        await person.sees("A safety copy is made first")
        assert picture(app) == unchanged
        await person.types("kept")
        await person.click("#go")
        await person.sees("✓ Done", "writable, every page as restored")
        await person.sees("kept in pre_restore_")
        await person.click("#close")
        await person.sees("2 backups")

    at_the_window(app, story, "backups", size)
    assert app.contents() == before


def test_without_the_very_name_nothing_is_restored(app: SmallApp, before: Contents) -> None:
    async def story(person: Person) -> None:
        await person.press("R")
        await person.sees("Restoring kept will change")
        unchanged = picture(app)
        for typed in ("", "kep", "kept2"):
            person.the("#typed").value = typed  # type: ignore[attr-defined]
            await person.press("enter")
            assert not person.can_click("#go")
        await person.press("escape")
        await person.sees("1 backups")
        assert picture(app) == unchanged

    at_the_window(app, story, "backups")
    assert app.contents() != before


@pytest.mark.parametrize("way", ["from its proof", "by its key"])
def test_a_restore_is_taken_back(app: SmallApp, before: Contents, way: str) -> None:
    since = app.contents()

    async def story(person: Person) -> None:
        await restored(person)
        assert app.contents() == before
        if way == "from its proof":
            await person.click("#choice-0")
        else:
            await person.press("escape", "u")
        await person.sees("Restoring pre_restore_", "type its name")
        name = next(path.name for path in app.backups.glob("pre_restore_*"))
        await person.types(name)
        await person.press("enter")
        await person.sees(f"Restored {name}", "✓ Done")

    at_the_window(app, story, "backups")
    assert app.contents() == since


def test_one_half_is_restored_and_the_plan_says_so(app: SmallApp, before: Contents) -> None:
    rows = app.contents().rows

    async def story(person: Person) -> None:
        await person.press("R")
        await person.sees("companies: 7 -> 3", "Only database", "Only uploads")
        await person.types("ke")
        await person.click("#other-1")
        await person.sees("The database stays as it is.", "Everything", "Only database")
        assert "companies" not in person.screen
        await person.types("kept")
        await person.press("enter")
        await person.sees("✓ Done")

    at_the_window(app, story, "backups")
    assert app.contents().uploads == before.uploads
    assert app.contents().rows == rows


def test_a_backup_that_is_behind_shows_what_is_pending_and_is_migrated_where_asked(app: SmallApp) -> None:
    app.at_revision(SALARY)
    create_backup(app.settings, BackupRequest("old"))
    app.at_revision(HEAD)

    async def story(person: Person) -> None:
        await person.press("R")
        await person.sees("to run afterwards", REMINDERS, "Migrate first")
        await person.click("#other-2")
        await person.sees("to run on the copy, before it goes live", REMINDERS, "Do not migrate")
        await person.types("old")
        await person.press("enter")
        await person.sees("✓ Done")

    at_the_window(app, story, "backups")
    assert app.revisions() == {HEAD}


def test_another_schema_is_refused_in_the_words_of_the_command_line_with_its_way_on(app: SmallApp) -> None:
    app.execute("UPDATE alembic_version SET version_num = 'feedbeef0000'")
    create_backup(app.settings, BackupRequest("later"))
    app.at_revision(HEAD)
    said = app.command("restore", "later", check=14).err
    sentence, hint = (line.split(": ", 1)[1] for line in said.splitlines())

    async def story(person: Person) -> None:
        await person.press("R")
        await person.sees("Another schema", sentence, hint)
        assert app.revisions() == {HEAD}
        await person.press("enter")  # the safe answer has the focus
        await person.until(lambda: len(person.window.screen_stack) == 1)
        await person.press("R")
        await person.click("#yes")
        await person.sees("Restoring later will change", "feedbeef0000")
        await person.types("later")
        await person.press("enter")
        await person.sees("✓ Done", "The code may not work with it.")

    at_the_window(app, story, "backups", LARGE)
    assert app.revisions() == {"feedbeef0000"}


def test_a_damaged_backup_is_refused_and_nothing_is_changed(app: SmallApp, before: Contents) -> None:
    (app.backups / "kept" / "uploads" / "1" / "letter.txt").write_bytes(b"Dear company !\n")
    unchanged = app.contents()

    async def story(person: Person) -> None:
        await person.press("R")
        await person.sees("✗ It failed", "is damaged: uploads/1/letter.txt is not as it was written", "Next: ")
        await person.sees("`python backup_restore.py list`")
        await person.click("#close")
        await person.sees("1 backups")

    at_the_window(app, story, "backups")
    assert app.contents() == unchanged


def test_a_backup_made_elsewhere_comes_into_the_list_and_takes_nobodys_place(app: SmallApp, before: Contents) -> None:
    async def story(person: Person) -> None:
        await person.sees("kept")
        create_backup(app.settings, BackupRequest("made_elsewhere"))
        await person.sees("made_elsewhere")
        await restored(person)

    at_the_window(app, story, "backups")
    assert app.contents() == before


def test_a_backup_deleted_elsewhere_leaves_the_list_and_later_choices_stay(app: SmallApp, before: Contents) -> None:
    for number in range(3):
        create_backup(app.settings, BackupRequest(f"other{number}"))

    async def story(person: Person) -> None:
        page = person.window.query_one(BackupsPage)
        await person.until(lambda: page.table.row_count == 4, "the list")
        page.move_cursor_to("other2")
        delete_backup(app.settings, "other2")
        await person.until(lambda: page.table.row_count == 3, "the list without it")
        page.move_cursor_to("kept")
        create_backup(app.settings, BackupRequest("newest"))
        await person.until(lambda: page.table.row_count == 4, "the list with another")
        await restored(person)

    at_the_window(app, story, "backups")
    assert app.contents() == before


def test_a_table_with_a_hostile_name_is_shown_as_text(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    app.execute('CREATE TABLE "[red]\x1b[31mevil[/]" (n)')

    async def story(person: Person) -> None:
        await person.press("R")
        await person.sees(r"'[red]\x1b[31mevil[/]': 0 -> ")

    at_the_window(app, story, "backups")


def test_what_is_coloured_follows_the_theme(app: SmallApp, before: Contents) -> None:
    async def story(person: Person) -> None:
        def colour() -> str:
            strips = person.window.screen._compositor.render_strips()
            return next(str(one.style) for strip in strips for one in strip if "checked" in one.text).split(" on ")[0]

        await person.sees("checked")
        dark = colour()
        person.window.theme = "textual-light"  # as TEXTUAL_THEME sets it
        await person.until(lambda: colour() != dark, "the colour of the light theme")

    at_the_window(app, story, "backups")


def test_a_restore_cancelled_at_any_event_changed_nothing(app: SmallApp, before: Contents) -> None:
    since, number, state = app.contents(), 0, "cancelled"
    while state == "cancelled":
        number += 1
        assert app.contents() == since
        assert not list(app.folder.rglob(".backupkit-staging"))
        state = cancelled_at(number, app)
    assert (state, app.contents() == before) == ("done", True)
    assert number > 5  # cancelled during the safety copy and the staging; afterwards a restore only goes forward


def cancelled_at(number: int, app: SmallApp) -> str:
    """Cancel a restore, as a person does, at its event of that number; return how it ended."""
    task, heard = restoring(app.settings, plan_restore(app.settings, "kept"), utc_now), 0

    def counting(emit: EventListener) -> Restored:
        def listen(event: Event) -> None:
            nonlocal heard
            heard += 1
            if heard == number:
                run.cancel()
            emit(event)

        return task.act(listen)

    run = Run(replace(task, act=counting))
    return run.carry_out().state


def test_another_run_at_work_is_named_and_nothing_is_changed(app: SmallApp, before: Contents) -> None:
    async def story(person: Person) -> None:
        await person.press("R")
        await person.sees("will change")
        unchanged = picture(app)
        with lock.held(app.backups, "backup of tonight", 1):
            await person.types("kept")
            await person.press("enter")
            await person.sees("✗ It failed", "is at work in", "nothing was changed")
        await person.click("#close")
        await person.sees("1 backups")
        assert picture(app) == unchanged

    at_the_window(app, story, "backups")
    assert app.contents() != before


def test_where_there_is_no_restore_to_take_back_it_is_said(app: SmallApp) -> None:
    async def story(person: Person) -> None:
        await person.press("u")
        await person.sees("No restore left a safety copy")

    at_the_window(app, story, "backups")
