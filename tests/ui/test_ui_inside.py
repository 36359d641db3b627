"""The place "Look inside": what is shown and taken out is as it was sealed, and nothing is changed."""

from __future__ import annotations

import pytest
from textual.widgets import Input, Select, Tree

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.retention.delete import delete_backup
from backupkit.ui.inside_tree import Spot
from backupkit.verify import browse
from hands import LARGE, Person, at_the_window
from refusals import picture
from small_app import SmallApp


@pytest.fixture
def kept(app: SmallApp) -> SmallApp:
    """An app with a backup `kept` of sixty companies and two letters."""
    app.add_rows(57)
    create_backup(app.settings, BackupRequest("kept"))
    return app


async def goes_to(person: Person, label: str) -> None:
    """The tree's line of that label is under the cursor."""
    tree = person.window.screen.query_one(Tree)
    await person.until(lambda: any(plain(person, line).startswith(label) for line in range(tree.last_line + 1)), label)
    tree.cursor_line = next(line for line in range(tree.last_line + 1) if plain(person, line).startswith(label))
    tree.focus()


def plain(person: Person, line: int) -> str:
    node = person.window.screen.query_one(Tree[Spot]).get_node_at_line(line)
    return str(node.label) if node else ""


async def opens(person: Person, *labels: str) -> None:
    """One line of the tree after the other."""
    for label in labels:
        await goes_to(person, label)
        await person.press("enter")


@pytest.mark.parametrize("size", [(80, 24), LARGE], ids=["80x24", "120x40"])
def test_rows_are_read_a_page_at_a_time_as_they_were_kept(kept: SmallApp, size: tuple[int, int]) -> None:
    kept.execute("UPDATE companies SET name = 'changed since ' || id")

    async def story(person: Person) -> None:
        await opens(person, "companies")
        await person.sees("rows 1 to 50 of 60", "Company 1")
        await person.press("n")
        await person.sees("rows 51 to 60 of 60", "Company 51")
        assert not person.can_click("#later")
        await person.press("p")
        await person.sees("rows 1 to 50 of 60")
        await person.click("#later")
        await person.sees("rows 51 to 60 of 60")
        assert "changed since" not in person.screen

    at_the_window(kept, story, "inside", size)


def test_one_row_is_shown_in_full(kept: SmallApp) -> None:
    kept.execute("UPDATE companies SET name = ? WHERE id = 1", ("first line\n" + "x" * 90,))
    create_backup(kept.settings, BackupRequest("later"))

    async def story(person: Person) -> None:
        await opens(person, "companies")
        await person.sees("rows 1 to 50 of 60")
        person.window.screen.query_one("#page-inside DataTable").focus()
        await person.press("enter")
        await person.sees("companies, 1", r"name: first line\n" + "x" * 90, "website: null")

    at_the_window(kept, story, "inside")


def test_a_file_is_taken_out_as_it_was_kept(kept: SmallApp) -> None:
    letter = kept.uploads / "2" / "letter.txt"
    was = letter.read_bytes()
    letter.write_bytes(b"changed since")

    async def story(person: Person) -> None:
        before = picture(kept)
        await opens(person, "2", "letter.txt")
        await person.sees("2/letter.txt", "15 bytes")
        await person.press("x")
        await person.sees("Take a file out", f"A bare name goes to {kept.backups}")
        field = person.window.screen.query_one(Input)
        assert field.value == "letter.txt"
        field.value = str(kept.folder / "again.txt")
        await person.click("#yes")
        await person.sees("✓ Done", f"{kept.folder / 'again.txt'}, as it was sealed")
        assert picture(kept) == before

    at_the_window(kept, story, "inside")
    assert (kept.folder / "again.txt").read_bytes() == was


def test_a_file_is_put_back_after_the_plan_and_a_question(kept: SmallApp) -> None:
    letter, odd = kept.uploads / "2" / "letter.txt", kept.write_upload("2/!odd [1]*.txt", b"odd")
    was = letter.read_bytes()
    create_backup(kept.settings, BackupRequest("later"))
    letter.write_bytes(b"changed since")
    odd.unlink()

    async def story(person: Person) -> None:
        before = picture(kept)
        await opens(person, "2", "letter.txt")
        await person.sees("2/letter.txt", "15 bytes")
        await person.press("b")
        await person.sees("Restoring 1 upload of later will change", "Put it back")
        assert picture(kept) == before
        await person.click("#yes")
        await person.sees("✓ Done", "Put back from later: 1 changed")
        await person.press("enter")
        await opens(person, "!odd")
        await person.click("#put-back")
        await person.sees("Put it back")
        await person.click("#yes")
        await person.sees("✓ Done", "1 restored")

    at_the_window(kept, story, "inside")
    assert (letter.read_bytes(), odd.read_bytes()) == (was, b"odd")


def test_a_row_is_brought_back_after_the_plan_and_a_question(kept: SmallApp) -> None:
    before = kept.rows("companies")
    kept.execute("DELETE FROM companies WHERE id = 1")

    async def story(person: Person) -> None:
        await opens(person, "companies")
        await person.sees("rows 1 to 50 of 60")
        await person.press("b")
        await person.sees("companies: 1 row to bring back", "Bring it back")
        assert kept.rows("companies") != before
        await person.click("#yes")
        await person.sees("✓ Done", "companies: 1 row brought back", "undo")
        await person.press("enter")
        await person.click("#bring")
        await person.sees("live already")

    at_the_window(kept, story, "inside")
    assert kept.rows("companies") == before


def test_a_file_is_never_written_over(kept: SmallApp) -> None:
    (kept.backups / "letter.txt").write_text("mine")

    async def story(person: Person) -> None:
        await opens(person, "2", "letter.txt")
        await person.click("#take")
        await person.sees("Where to")
        await person.click("#yes")
        await person.sees("✗ It failed", "There is a ", "/backups/letter.txt already.")

    at_the_window(kept, story, "inside")
    assert (kept.backups / "letter.txt").read_text() == "mine"


def test_a_table_is_compared_with_the_live_one(kept: SmallApp) -> None:
    kept.execute("UPDATE companies SET name = 'Renamed' WHERE id = 5")
    kept.execute("INSERT INTO companies (id, name) VALUES (900, 'New')")
    kept.execute("DELETE FROM applications WHERE company_id = 7")
    kept.execute("DELETE FROM companies WHERE id = 7")

    async def story(person: Person) -> None:
        await opens(person, "companies")
        await person.sees("rows 1 to 50")
        await person.click("#compare")
        await person.sees("Since this backup: 1 gone, 1 came, 1 changed.")
        await person.sees("- gone 7 Company 7", "+ came 900 New", "~ changed 5 Company 5 → Renamed")
        await person.click("#rows")
        await person.sees("rows 1 to 50")
        await opens(person, "documents")
        await person.sees("rows 1 to 2 of 2")
        await person.press("c")
        await person.sees("The live table has the same rows.")

    at_the_window(kept, story, "inside", LARGE)


def test_a_comparison_that_cannot_be_made_is_the_verbs_own_sentence(kept: SmallApp) -> None:
    kept.execute("DROP TABLE reminders")

    async def story(person: Person) -> None:
        await opens(person, "reminders")
        await person.sees("no rows")
        await person.press("c")
        await person.sees("There is no table reminders in", "Next: ")

    at_the_window(kept, story, "inside")


def test_only_the_folder_that_is_opened_is_read_and_of_a_large_one_a_part(
    kept: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(450):
        kept.write_upload(f"many/{number:03}.txt", b"x")
    kept.write_upload("other/deep/file.txt", b"x")
    create_backup(kept.settings, BackupRequest("large"))
    read: list[tuple[str, int]] = []
    real = browse.look_into

    def watched(settings: object, name: str, path: str = "", start: int = 0) -> browse.Folder:
        read.append((path, start))
        return real(settings, name, path, start)  # type: ignore[arg-type]

    monkeypatch.setattr(browse, "look_into", watched)

    async def story(person: Person) -> None:
        await opens(person, "many", "… 250 more")
        await opens(person, "… 50 more")
        await goes_to(person, "449.txt")

    at_the_window(kept, story, "inside")
    assert read == [("many", 0), ("many", 200), ("many", 400)]


def test_another_backup_is_chosen_by_hand_or_comes_from_elsewhere(kept: SmallApp) -> None:
    kept.add_rows(5)
    create_backup(kept.settings, BackupRequest("newer"))

    async def story(person: Person) -> None:
        await goes_to(person, "companies 65".replace(" ", "  "))
        person.window.go("inside", "kept")
        await goes_to(person, "companies  60")
        person.window.screen.query_one("#which", Select).value = "newer"
        await goes_to(person, "companies  65")
        create_backup(kept.settings, BackupRequest("newest"))
        await person.until(lambda: person.window.world and person.window.world.backup("newest"), "the newest")
        await goes_to(person, "companies  65")
        assert person.window.screen.query_one("#which", Select).value == "newer"

    at_the_window(kept, story, "inside")


def test_when_the_backup_in_view_is_deleted_elsewhere_another_one_comes(kept: SmallApp) -> None:
    kept.add_rows(5)
    create_backup(kept.settings, BackupRequest("newer"))

    async def story(person: Person) -> None:
        await goes_to(person, "companies  65")
        delete_backup(kept.settings, "newer")
        await goes_to(person, "companies  60")
        assert person.window.screen.query_one("#which", Select).value == "kept"

    at_the_window(kept, story, "inside")


def test_what_a_backup_has_not_is_said(kept: SmallApp) -> None:
    create_backup(kept.settings, BackupRequest("rows_only", uploads=False))

    async def story(person: Person) -> None:
        await person.sees("Uploads: none", "There are no uploads in")
        await opens(person, "companies")
        await person.sees("rows 1 to 50 of 60")

    at_the_window(kept, story, "inside")


def test_hostile_names_and_values_are_shown_as_text(kept: SmallApp) -> None:
    kept.execute('CREATE TABLE "[red]t\x1b[2J" ("[b]c\n" TEXT)')
    kept.execute('INSERT INTO "[red]t\x1b[2J" VALUES (?)', ("[link=x]v\x1b[31m",))
    kept.write_upload("[red]f\x1b.txt", b"x")
    create_backup(kept.settings, BackupRequest("odd"))

    async def story(person: Person) -> None:
        await opens(person, r"'[red]t\x1b[2J'")
        await person.sees(r"'[b]c\n'", r"[link=x]v\x1b[31m")
        await goes_to(person, r"'[red]f\x1b.txt'")

    at_the_window(kept, story, "inside")
