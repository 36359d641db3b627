"""A terminal shows a bar, a question and tables that fit; a pipe gets whole lines without control characters."""

from __future__ import annotations

import contextlib
import os
import re

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest, GitFacts
from refusals import picture, run_here
from small_app import INITIAL, SmallApp
from terminal import at_a_terminal


@pytest.fixture
def backed_up(app: SmallApp) -> SmallApp:
    """An app with one backup, that has changed since."""
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(1)
    return app


# The bar


def grow(app: SmallApp) -> None:
    with contextlib.closing(app.connect()) as live, live:
        live.execute("CREATE TABLE large (content BLOB)")
        live.executemany("INSERT INTO large VALUES (zeroblob(100000))", (() for _ in range(300)))
    app.write_upload("large", os.urandom(20_000_000))


def test_a_bar_is_shown_on_a_terminal_and_is_gone_afterwards(app: SmallApp) -> None:
    grow(app)
    seen = at_a_terminal(app, "backup", "one")
    assert seen.code == 0
    assert "Backing up" in seen.text
    assert "━" in seen.text
    last = seen.raw.rsplit("Copying", 1)[-1]
    assert "\x1b[2K" in last  # the bar's line was erased before the result was printed
    assert "Backup one:" in last


def test_a_pipe_sees_no_bar_and_no_control_character(app: SmallApp) -> None:
    grow(app)
    for command in (("backup", "one"), ("restore", "one", "--force"), ("dump", "text.sql")):
        result = app.command(*command, check=0)
        assert (result.out + result.err).replace("\n", "").isprintable()
        assert "Copying" not in result.out + result.err


def test_a_terminal_that_can_do_nothing_gets_no_traceback(app: SmallApp) -> None:
    for name, value in (("TERM", "dumb"), ("NO_COLOR", "1"), ("COLUMNS", "1"), ("TERM", "no-such-terminal")):
        seen = at_a_terminal(app, "backup", **{name: value})
        assert seen.code == 0 and "Traceback" not in seen.text


# --quiet


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_shows_no_bar_and_no_notice_but_the_result(app: SmallApp, option: str) -> None:
    grow(app)
    seen = at_a_terminal(app, "backup", "one", option)
    assert seen.code == 0 and "Copying" not in seen.raw and "━" not in seen.raw
    assert seen.text.startswith("Backup one:")
    loud = app.command("restore", "one", "--yes", check=0)
    assert "Making a safety copy" in loud.err
    quiet = app.command("restore", "one", "--yes", option, check=0)
    assert quiet.err == "" and "Restored one." in quiet.out


def test_quiet_still_shows_warnings_and_errors_and_the_question(backed_up: SmallApp) -> None:
    os.mkfifo(backed_up.uploads / "fifo")
    warned = backed_up.command("backup", "two", "-q", check=3)
    assert warned.err.startswith("Warning: ") and "fifo" in warned.err
    assert backed_up.command("backup", "two", "-q", check=2).err.startswith("Error: ")
    asked = at_a_terminal(backed_up, "restore", "good", "-q", answer=b"n\n")
    assert asked.code == 4 and "Restoring good will change" in asked.text and "[y/N]" in asked.text


def test_quiet_ends_with_its_command(app: SmallApp) -> None:
    run_here(app, "backup", "one", "-q", check=0)
    assert "There is a backup of today already" not in run_here(app, "backup", "--if-needed", "-q", check=0).err
    assert "There is a backup of today already" in run_here(app, "backup", "--if-needed", check=0).err
    run_here(app, "backup", "two", "-q", check=0)
    assert "No scheduler is running" in run_here(app, "schedule", "--list", check=0).err


# The question


@pytest.mark.parametrize("yes", [b"y\n", b"yes\n", b"Y\n", b" YES \n"])
def test_yes_restores(backed_up: SmallApp, yes: bytes) -> None:
    before = len(backed_up.rows("companies"))
    seen = at_a_terminal(backed_up, "restore", "good", answer=yes)
    assert seen.code == 0 and "Restored good." in seen.text
    assert seen.text.index("Restoring good will change") < seen.text.index("[y/N]")
    assert len(backed_up.rows("companies")) == before - 1


@pytest.mark.parametrize("no", [b"n\n", b"\n", b"\x04", b"no\n", b"perhaps\n", b"j\n"])
def test_anything_but_yes_changes_nothing(backed_up: SmallApp, no: bytes) -> None:
    before = picture(backed_up)
    seen = at_a_terminal(backed_up, "restore", "good", answer=no)
    assert "Nothing was changed." in seen.text and "Error" not in seen.text
    assert seen.code == 4
    assert picture(backed_up) == before


@pytest.mark.parametrize(
    "command",
    [("restore", "good"), ("undo",), ("restore-dump", "text.sql"), ("delete", "good")],
    ids=lambda one: one[0],
)
def test_no_has_an_exit_code_of_its_own_and_yes_can_be_said_before(
    backed_up: SmallApp, command: tuple[str, ...]
) -> None:
    run_here(backed_up, "restore", "good", "--yes", check=0)
    run_here(backed_up, "dump", "text.sql", check=0)
    before = picture(backed_up)
    seen = at_a_terminal(backed_up, *command, answer=b"n\n")
    assert seen.code == 4 and picture(backed_up) == before
    for yes in ("-y", "--yes") if command[0] != "delete" else ("--yes",):
        seen = at_a_terminal(backed_up, *command, yes)
        assert seen.code == 0 and "[y/N]" not in seen.text


def test_yes_overrides_no_refusal(backed_up: SmallApp) -> None:
    run_here(backed_up, "pin", "good", check=0)
    assert run_here(backed_up, "delete", "good", "--yes").code == 2
    backed_up.at_revision(INITIAL)
    for file in (backed_up.folder / "alembic" / "versions").glob("*.py"):
        if INITIAL not in file.name:
            file.unlink()
    assert run_here(backed_up, "restore", "good", "--yes").code == 14


@pytest.mark.parametrize("command", [("restore", "good"), ("restore-dump", "text.sql")], ids=lambda command: command[0])
def test_ctrl_c_at_the_question_changes_nothing(backed_up: SmallApp, command: tuple[str, ...]) -> None:
    run_here(backed_up, "dump", "text.sql", check=0)
    before = picture(backed_up)
    seen = at_a_terminal(backed_up, *command, answer=b"\x03")
    assert seen.code == 130 and "Traceback" not in seen.text
    assert picture(backed_up) == before


def test_the_question_is_asked_about_a_dump_too(backed_up: SmallApp) -> None:
    run_here(backed_up, "dump", "text.sql", check=0)
    before = picture(backed_up)
    assert "Nothing was changed." in at_a_terminal(backed_up, "restore-dump", "text.sql", answer=b"n\n").text
    assert picture(backed_up) == before
    assert at_a_terminal(backed_up, "restore-dump", "text.sql", answer=b"y\n").code == 0


def test_force_asks_nothing(backed_up: SmallApp) -> None:
    seen = at_a_terminal(backed_up, "restore", "good", "--force")
    assert seen.code == 0 and "[y/N]" not in seen.text


def test_an_unknown_revision_is_refused_before_any_question(backed_up: SmallApp) -> None:
    backed_up.execute(f"UPDATE alembic_version SET version_num = '{INITIAL}'")
    for file in (backed_up.folder / "alembic" / "versions").glob("*.py"):
        if INITIAL not in file.name:
            file.unlink()
    before = picture(backed_up)
    seen = at_a_terminal(backed_up, "restore", "good")
    assert seen.code == 14 and "[y/N]" not in seen.text
    assert picture(backed_up) == before


# Tables


@pytest.fixture
def many(app: SmallApp) -> SmallApp:
    """An app with a long note on a backup, a damaged backup, some history, and two remotes, one of them lost."""
    (app.folder / "backup.toml").write_text(
        'keep_last = 1\n[remotes.disk]\ntype = "folder"\npath = "disk"\nretry_for = 0\n'
        '[remotes.lost]\ntype = "folder"\npath = "nowhere"\nretry_for = 0\n'
    )
    (app.folder / "disk").mkdir()
    app.command("remotes", "--init", "disk", check=0)
    app.command("backup", "noted", "--note", "x" * 300, check=0)
    app.command("backup", "damaged", check=0)
    app.command("verify", "noted", "--test-restore", check=0)
    (app.backups / "damaged" / "backup_metadata.json").write_text("{")
    return app


FIRST = {
    "list": "NAME AGE SIZE STATE",
    "history": "COMMAND AGE SIZE RESULT",
    "prune --dry-run": "NAME AGE SIZE VERDICT WHY",
    "remotes": "REMOTE STATE BACKUPS BEHIND",
    "config": "SETTING VALUE FROM",
}
each_table = pytest.mark.parametrize("command", FIRST)


def table(text: str, command: str) -> list[str]:
    """Return the lines of the table, without the text around it."""
    lines = text.splitlines()
    head = next(number for number, line in enumerate(lines) if FIRST[command].split()[0] in line.split())
    return [line for line in lines[head:] if "  " in line.strip()]


@each_table
@pytest.mark.parametrize("width", [80, 200])
def test_a_table_fits_the_terminal_with_what_matters_first(many: SmallApp, command: str, width: int) -> None:
    lines = table(at_a_terminal(many, *command.split(), COLUMNS=str(width)).text, command)
    assert len(lines) > 2 and max(map(len, lines)) <= width
    assert " ".join(lines[0].split()).startswith(FIRST[command])
    if command == "list":
        assert ("REVISION" in lines[0]) == (width == 200)


def test_a_narrow_terminal_shows_the_values_of_settings(many: SmallApp) -> None:
    database = {"BACKUP_DATABASE": str(many.database), "COLUMNS": "80"}
    assert str(many.database)[:35] in at_a_terminal(many, "config", **database).text
    assert table(at_a_terminal(many, "config", COLUMNS="40").text, "config")[0].split() == ["SETTING", "VALUE"]


def test_what_is_longer_than_its_place_is_cut_with_a_mark(many: SmallApp) -> None:
    assert "xxx…" in at_a_terminal(many, "list", COLUMNS="80").text
    assert "…" not in at_a_terminal(many, "list", "--wide", COLUMNS="80").text


@each_table
def test_wide_shows_every_column_whole(many: SmallApp, command: str) -> None:
    narrow = table(at_a_terminal(many, *command.split(), COLUMNS="80").text, command)
    wide = table(at_a_terminal(many, *command.split(), "--wide", COLUMNS="80").text, command)
    piped = table(many.command(*command.split()).out, command)
    aged = {"AGE"} if "AGE" in FIRST[command] else set()
    assert set(wide[0].split()) == {*piped[0].split(), *aged} >= set(narrow[0].split())
    assert max(map(len, wide)) > 80 and not any("…" in line for line in wide)


def test_a_name_is_never_cut_because_it_is_typed(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("n" * 90))
    assert "n" * 90 in at_a_terminal(app, "list", COLUMNS="40").text


def test_numbers_end_at_the_right(many: SmallApp) -> None:
    grow(many)
    many.command("backup", "large", check=0)
    head, *rows = at_a_terminal(many, "list", COLUMNS="100").text.splitlines()
    end = head.index("SIZE") + len("SIZE")
    assert {row[end - 1 : end + 1] for row in rows} == {"B ", "- "}


def test_a_state_is_a_word_and_a_colour_but_not_where_colours_are_unwanted(many: SmallApp) -> None:
    seen = at_a_terminal(many, "list")
    assert re.search(r"\x1b\[32mproven", seen.raw) and re.search(r"\x1b\[31mdamaged", seen.raw)
    seen = at_a_terminal(many, "remotes")
    assert re.search(r"\x1b\[33mbehind", seen.raw) and re.search(r"\x1b\[31mFAILED", seen.raw)
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        plain = at_a_terminal(many, "list", **{name: value})
        assert "\x1b" not in plain.raw and "proven" in plain.raw and "damaged" in plain.raw


def test_a_pipe_gets_the_same_whole_lines_as_ever(many: SmallApp) -> None:
    for options in ((), ("--wide",)):
        head, *rows = many.command("list", *options, env={"COLUMNS": "40"}, check=0).out.splitlines()
        assert head.split() == ["NAME", "MADE", "KIND", "SIZE", "ADDS", "REVISION", "STATE", "NOTE"]
        assert any(row.endswith("x" * 300) for row in rows)


# Text that looks like markup

MARKUP = ["[bold]x", "[/]", "[/bold]", "[red]x[/red]", ":smile:", "[link=x]", "\\[", "{task.description}"]


def test_what_looks_like_markup_is_printed_as_it_is(app: SmallApp) -> None:
    app.write_upload("[bold]/[bold]x", b"x")
    os.mkfifo(app.uploads / "[bold]fifo")
    note = " ".join(MARKUP)
    git = {"BACKUP_GIT_COMMIT": "abc1234", "BACKUP_GIT_BRANCH": "[/]", "BACKUP_GIT_SUBJECT": note}
    seen = at_a_terminal(app, "backup", "one", "--note", note, **git)
    assert seen.code == 3 and "[bold]fifo is a" in seen.text, seen.text
    shown = at_a_terminal(app, "show", "one")
    assert shown.text.count(note) == 2
    assert note in at_a_terminal(app, "list", "--wide").text
    app.execute('CREATE TABLE "[/]" (x)')
    restored = at_a_terminal(app, "restore", "one", answer=b"y\n")
    assert restored.code in (0, 3) and "[/]: 0 -> -" in restored.text, restored.text


@pytest.mark.parametrize("name", ["[/]", "[bold]x", ":smile:"])
def test_an_error_prints_what_looks_like_markup_as_it_is(app: SmallApp, name: str) -> None:
    for arguments in (("backup", name), ("restore-dump", f"./{name}", "--force"), (name,), ("list", f"--{name}")):
        seen = at_a_terminal(app, *arguments)
        assert name in seen.text and "Traceback" not in seen.text, seen.text
        assert seen.code in (2, 10)


def test_control_characters_reach_no_terminal(app: SmallApp) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07"
    app.write_upload(hostile, b"x")
    os.mkfifo(app.uploads / f"{hostile}fifo")
    app.execute(f'CREATE TABLE "{hostile}" (x)')
    git = GitFacts("abc1234", hostile, hostile, hostile, tag=hostile)
    create_backup(app.settings, BackupRequest("one", note=hostile, git=git))
    app.execute(f'DROP TABLE "{hostile}"')
    for arguments in (("list",), ("show", "one"), ("restore", "one", "--dry-run")):
        result = run_here(app, *arguments, check=0)
        assert (result.out + result.err).replace("\n", "").isprintable(), arguments
