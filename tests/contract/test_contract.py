"""The contract of the command line: what each command prints and where, and the fields that other programs rely on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from refusals import picture, run_here
from small_app import COMMAND, HEAD, NOON, SmallApp, clean_environment

GIT = {
    "BACKUP_GIT_COMMIT": "abc1234" + "0" * 33,
    "BACKUP_GIT_SHORT": "abc1234",
    "BACKUP_GIT_BRANCH": "feature/new list",
    "BACKUP_GIT_SUBJECT": "Add the [bold]list[/bold]",
    "BACKUP_GIT_DIRTY": "true",
    "BACKUP_GIT_TAG": "v1.2",
}
COMMANDS = [
    ("backup", "two"),
    ("backup", "--if-needed"),
    ("auto-backup",),
    ("list",),
    ("show", "good"),
    ("show", "latest"),
    ("restore", "good", "--dry-run"),
    ("restore", "good", "--force"),
    ("restore", "good", "--force", "--only", "uploads"),
    ("undo", "--dry-run"),
    ("undo", "--force"),
    ("recover",),
    ("dump",),
    ("restore-dump", "text.sql", "--force"),
    ("config",),
    ("doctor",),
]

FIELDS: dict[str, type | tuple[type, ...]] = {
    "backup_name": str,
    "timestamp": str,
    "created_at": str,
    "alembic_revision": str,
    "database_file": str,
    "uploads_included": bool,
    "backup_version": str,
    "kind": str,
    "note": str,
    "alembic_revisions": list,
    "schema_fingerprint": str,
    "database": dict,
    "uploads": dict,
    "git": dict,
    "app_id": str,
    "tool_version": str,
    "duration_seconds": float,
    "path": str,
    "size_bytes": int,
    "unique_bytes": int,
    "state": str,
    "pinned": bool,
    "checked_at": str,
    "proven_at": type(None),
}


@pytest.fixture
def used(app: SmallApp) -> SmallApp:
    """An app with a backup, a dump, and a restore that can be undone."""
    create_backup(app.settings, BackupRequest("good"))
    run_here(app, "dump", "text.sql", check=0)
    run_here(app, "restore", "good", "--force", check=0)
    return app


# Output streams


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_json_is_one_document_and_nothing_else(used: SmallApp, command: tuple[str, ...]) -> None:
    result = run_here(used, *command, "--json", check=0)
    document = json.loads(result.out, parse_constant=no_json)
    assert isinstance(document, dict | list)
    assert result.out.isascii()


def no_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@pytest.mark.parametrize(
    "command", [("backup", "two", "--json"), ("restore", "good", "--force", "--json")], ids=" ".join
)
def test_json_is_one_document_in_a_real_pipe(used: SmallApp, command: tuple[str, ...]) -> None:
    assert isinstance(used.command(*command, check=0).json, dict)


@pytest.mark.parametrize(
    "command",
    [("show", "nope"), ("backup", "../x"), ("restore", "good"), ("--none",), ("list", "--none")],
    ids=" ".join,
)
def test_an_error_leaves_stdout_empty(used: SmallApp, command: tuple[str, ...]) -> None:
    result = run_here(used, *command)
    assert result.out == "" and result.err.startswith("Error: ") and result.err.count("\n") == 2


@pytest.mark.parametrize(
    "command",
    [("show", "nope"), ("backup", "../x"), ("restore", "good"), ("list", "--none"), ("show",), ("none",), ("--none",)],
    ids=" ".join,
)
def test_an_error_is_the_one_document_with_json_and_the_same_sentence(used: SmallApp, command: tuple[str, ...]) -> None:
    result = used.command(*command, "--json")
    error = result.json["error"]
    assert error["code"] == result.code != 0 and list(error) == ["code", "message", "next"]
    assert result.err == f"Error: {error['message']}\n  Next: {error['next']}\n"


def test_where_the_result_is_a_document_an_error_adds_none(used: SmallApp) -> None:
    (used.backups / "good" / "uploads" / "1" / "letter.txt").unlink()
    result = used.command("verify", "good", "--json", check=12)
    assert result.json["state"] == "damaged" and "Error: " in result.err


def test_an_error_that_stdout_cannot_take_is_still_on_stderr(used: SmallApp) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, str(COMMAND), "show", "nope", "--json"],
            env={**clean_environment(), "BACKUP_APP_DIR": str(used.folder)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 10 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 2


def test_an_interrupt_is_a_document_too(used: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backupkit.repository.store.all_backups", interrupted)
    result = run_here(used, "list", "--json", check=130)
    assert result.json["error"] == {"code": 130, "message": result.err.strip(), "next": None}


def test_json_of_sql_text_on_stdout_is_refused(app: SmallApp) -> None:
    result = app.command("dump", "-", "--json")
    assert result.code == 2 and result.json["error"]["code"] == 2 and "--json" in result.err


def test_a_dump_on_stdout_is_sql_and_nothing_else(app: SmallApp) -> None:
    text = app.command("dump", "-", check=0).out
    shell = subprocess.run(
        [sys.executable, "-c", "import sqlite3, sys; sqlite3.connect(':memory:').executescript(sys.stdin.read())"],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stderr


@pytest.mark.parametrize("command", [*COMMANDS, ("undo",), ("migrate",), ("demo",)], ids=" ".join)
def test_help_tells_what_a_command_does(app: SmallApp, command: tuple[str, ...]) -> None:
    result = run_here(app, command[0], "--help", check=0)
    assert "Usage:" in result.out and result.err == ""


def test_without_a_command_the_help_is_shown(app: SmallApp) -> None:
    result = app.command()
    assert "restore-dump" in result.out + result.err and "Traceback" not in result.err


# Fields


def test_every_field_of_the_contract_is_there_with_its_type(app: SmallApp) -> None:
    run_here(app, "backup", "one", "--note", "x", "--pin", env=GIT, check=0)
    (one,) = run_here(app, "list", "--json", check=0).json
    for name, wanted in FIELDS.items():
        assert isinstance(one[name], wanted), name
    assert one["backup_name"] == "one" and one["path"] == str(app.backups / "one")
    assert one["state"] == "checked" and one["pinned"] is True and one["kind"] == "manual"
    assert one["size_bytes"] >= one["unique_bytes"] > 0
    assert one["created_at"].endswith("+00:00") and datetime.fromisoformat(one["created_at"])
    assert one["alembic_revision"] == HEAD and one["alembic_revisions"] == [HEAD]
    wanted_facts = {
        "size",
        "sha256",
        "page_size",
        "journal_mode",
        "user_version",
        "application_id",
        "rows",
        "sqlite_version",
    }
    assert wanted_facts <= one["database"].keys()
    assert one["database"]["rows"]["companies"] == 3
    assert {"files", "bytes", "warnings"} <= one["uploads"].keys()
    assert one["git"] == {
        "commit": GIT["BACKUP_GIT_COMMIT"],
        "short": "abc1234",
        "branch": "feature/new list",
        "subject": "Add the [bold]list[/bold]",
        "dirty": True,
        "tag": "v1.2",
    }


def test_show_is_one_of_list_and_what_is_on_disk(app: SmallApp) -> None:
    run_here(app, "backup", "one", check=0)
    (listed,) = run_here(app, "list", "--json", check=0).json
    assert run_here(app, "show", "one", "--json", check=0).json == listed
    assert run_here(app, "show", "latest", "--json", check=0).json == listed
    on_disk = json.loads((app.backups / "one" / "backup_metadata.json").read_text())
    assert on_disk.items() <= listed.items()


def test_the_list_is_newest_first(app: SmallApp) -> None:
    for name in ("one", "two", "three"):
        run_here(app, "backup", name, check=0)
    assert [one["backup_name"] for one in run_here(app, "list", "--json").json] == ["three", "two", "one"]
    assert [line.split()[0] for line in run_here(app, "list").out.splitlines()[1:]] == ["three", "two", "one"]


def test_no_line_of_a_list_is_cut_where_there_is_no_terminal(app: SmallApp) -> None:
    run_here(app, "backup", "n" * 100, "--note", "x" * 500, check=0)
    assert f"{'n' * 100} " in run_here(app, "list", env={"COLUMNS": "40"}).out
    assert "x" * 500 in app.command("list", env={"COLUMNS": "40"}).out


@pytest.mark.parametrize("note", ["Grüße 🎉", "two\nlines", "[bold]x[/]", "[/]", "", " ", "x" * 5000, "\x1b[2J"])
def test_any_note_is_kept_to_the_letter_and_shown_on_one_line(app: SmallApp, note: str) -> None:
    run_here(app, "backup", "one", "--note", note, check=0)
    assert run_here(app, "show", "one", "--json").json["note"] == note
    lines = run_here(app, "list", check=0).out.splitlines()
    assert len(lines) == 2 and lines[1].isprintable()


def test_a_note_that_this_terminal_cannot_show_stops_nothing(app: SmallApp) -> None:
    run_here(app, "backup", "one", "--note", "Grüße 🎉", check=0)
    for encoding in ("ascii", "latin-1"):
        done = subprocess.run(
            [sys.executable, str(COMMAND), "list"],
            env={**environment_of(app.folder), "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0 and b"one" in done.stdout and b"Traceback" not in done.stderr


def test_a_folder_whose_name_is_no_text_stops_nothing(app: SmallApp) -> None:
    odd = Path(os.fsdecode(os.fsencode(app.folder.parent) + b"/caf\xe9"))
    app.folder.rename(odd)
    for arguments in (
        ("backup", "one"),
        ("list", "--json"),
        ("show", "one"),
        ("restore", "one", "--force"),
        ("config",),
    ):
        done = run_raw(odd, *arguments)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr


def environment_of(folder: Path) -> dict[str, str]:
    """Return an environment like cron's: streams are buffered, and strict about characters they cannot encode."""
    kept = {name: value for name, value in clean_environment().items() if name != "PYTHONUNBUFFERED"}
    return kept | {"BACKUP_APP_DIR": os.fspath(folder), "PYTHONIOENCODING": "utf-8:strict"}


def run_raw(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(COMMAND), *arguments],
        env=environment_of(folder),
        **{"capture_output": True, "check": False, "stdin": subprocess.DEVNULL, "timeout": 60} | options,
    )


# Missing streams


def test_a_reader_that_stops_early_gets_no_traceback(app: SmallApp) -> None:
    for number in range(3):
        create_backup(app.settings, BackupRequest(f"b{number}", note="x" * 100_000))
    app.add_rows(3000)
    for arguments in ("list", "list --json", "show b1", "dump -", "config"):
        command = f'"$0" "$1" {arguments} | true; exit "${{PIPESTATUS[0]}}"'
        done = subprocess.run(
            ["bash", "-c", command, sys.executable, str(COMMAND)],
            env=environment_of(app.folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr, f"{arguments}: {done.stderr}"
        assert done.returncode in (0, 1), arguments


def test_output_that_cannot_be_written_is_an_error_and_no_traceback(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    for arguments in (("list",), ("list", "--json"), ("dump", "-")):
        with open("/dev/full", "wb") as full:
            done = run_raw(app.folder, *arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1, arguments
        assert b"Error: " in done.stderr
        assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_stops_no_backup(app: SmallApp, closed: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"$0" "$1" backup one {closed}', sys.executable, str(COMMAND)],
        env=environment_of(app.folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    shown = run_here(app, "restore", "one", "--dry-run", check=0).out
    assert "Restoring one" in shown


def test_a_closed_stdin_is_no_terminal(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    done = subprocess.run(
        ["bash", "-c", '"$0" "$1" restore one <&-', sys.executable, str(COMMAND)],
        env=environment_of(app.folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "terminal" in done.stderr and "Traceback" not in done.stderr


# The meaning of commands


def test_the_time_zone_is_in_the_name_the_stamp_and_the_time(app: SmallApp) -> None:
    settings = app.settings.replaced(timezone="Asia/Kolkata")
    made = create_backup(settings, BackupRequest(), clock=lambda: NOON).backup
    assert made.name == "backup_20260615_173000"
    values = json.loads((made.path / "backup_metadata.json").read_text())
    assert values["timestamp"] == "20260615_173000"
    assert values["created_at"] == "2026-06-15T17:30:00+05:30"


def test_if_needed_makes_one_a_day(app: SmallApp) -> None:
    first = run_here(app, "backup", "--if-needed", "--json", check=0).json
    before = picture(app)
    again = run_here(app, "backup", "--if-needed", "--json", check=0)
    assert again.json["backup_name"] == first["backup_name"]
    assert first["backup_name"] in again.err
    assert picture(app) == before
    assert run_here(app, "backup", "--if-needed", check=0).code == 0


def test_one_of_the_database_alone_or_of_another_app_is_not_the_backup_of_today(app: SmallApp) -> None:
    run_here(app, "backup", "part", "--no-uploads", check=0)
    create_backup(app.settings.replaced(app_id="another"), BackupRequest("theirs"))
    assert run_here(app, "backup", "--if-needed", "--no-uploads", "--json", check=0).json["backup_name"] == "part"
    assert run_here(app, "run", "--if-needed", "--json", check=0).json["steps"][0]["state"] == "done"
    assert len(run_here(app, "list", "--json").json) == 3


def test_a_safety_copy_is_not_the_backup_of_today(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("safety", kind="pre_restore"))
    run_here(app, "backup", "--if-needed", check=0)
    assert len(run_here(app, "list", "--json").json) == 2


def test_a_pin_is_shown(app: SmallApp) -> None:
    run_here(app, "backup", "one", "--pin", check=0)
    run_here(app, "backup", "two", check=0)
    assert [one["pinned"] for one in run_here(app, "list", "--json").json] == [False, True]
    assert "pinned" in run_here(app, "list").out and "pinned" in run_here(app, "show", "one").out


def test_a_backup_without_uploads_says_so_and_restores(app: SmallApp) -> None:
    made = run_here(app, "backup", "one", "--no-uploads", "--json", check=0).json
    assert made["uploads_included"] is False and made["uploads"] is None
    app.write_upload("later", b"x")
    run_here(app, "restore", "one", "--force", check=0)
    assert (app.uploads / "later").exists()


def test_an_automatic_backup_is_named_after_the_code(app: SmallApp) -> None:
    made = run_here(app, "auto-backup", "--json", env=GIT, check=0).json
    assert made["backup_name"].startswith("auto_feature-new-list_abc1234_20")
    assert made["backup_name"].endswith("_dirty")
    assert made["kind"] == "auto" and made["git"]["branch"] == "feature/new list"
    assert "feature/new list" in run_here(app, "show", "latest").out


@pytest.mark.parametrize("branch", ["", "release/1.0", "..", "-x", "a b", "é", "x" * 300, "[/]", "$(id)", "a\nb"])
def test_an_automatic_backup_works_on_any_branch(app: SmallApp, branch: str) -> None:
    made = run_here(app, "auto-backup", "--json", env=GIT | {"BACKUP_GIT_BRANCH": branch}, check=0).json
    assert made["git"]["branch"] == (branch or None)
    assert run_here(app, "show", made["backup_name"], check=0).out


def test_a_subject_that_is_no_utf_8_stops_nothing(app: SmallApp) -> None:
    made = run_here(app, "auto-backup", "--json", env=GIT | {"BACKUP_GIT_SUBJECT": "caf\udce9"}, check=0).json
    assert made["state"] == "checked" and "caf" in made["git"]["subject"]
    assert "caf" in run_here(app, "show", "latest", check=0).out


def test_an_automatic_backup_without_git_works_and_says_so(app: SmallApp) -> None:
    result = run_here(app, "auto-backup", "--json", env={"BACKUP_GIT_MISSING": "there is no git here"}, check=0)
    assert result.json["git"] is None and result.json["backup_name"].startswith("auto_20")
    assert "there is no git here" in result.err
    assert "backup.sh" in run_here(app, "auto-backup", check=0).err


def test_nothing_of_ours_stays_in_the_apps_folders(used: SmallApp) -> None:
    run_here(used, "undo", "--force", check=0)
    run_here(used, "restore-dump", "text.sql", "--force", check=0)
    assert sorted(path.name for path in used.database.parent.iterdir()) == ["pats.db"]
    assert sorted(path.name for path in used.uploads.iterdir()) == ["1", "2", "empty", "latest"]
    assert not [path for path in used.backups.iterdir() if path.name.startswith((".draft", ".journal"))]


def test_a_restore_of_latest_is_not_the_safety_copy_of_the_last_one(used: SmallApp) -> None:
    assert run_here(used, "restore", "latest", "--dry-run", "--json", check=0).json["source"]["name"] == "good"


def test_a_moved_app_still_restores(used: SmallApp) -> None:
    moved = SmallApp(used.folder.with_name("moved"), used.templates)
    shutil.move(used.folder, moved.folder)
    before = moved.contents()
    moved.add_rows(2)
    run_here(moved, "restore", "good", "--force", check=0)
    assert moved.contents() == before
