"""Bad input gives one clear sentence that names its cause, a hint and the right exit code, and changes nothing."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import golden
from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from refusals import another_process, as_user, assert_refusal, picture, refused, refused_to_user, run_here
from small_app import INITIAL, SmallApp

HOLD = """
import sqlite3
live = sqlite3.connect(sys.argv[1], isolation_level=None)
live.execute("PRAGMA locking_mode=EXCLUSIVE")
live.execute("BEGIN EXCLUSIVE")
live.execute("CREATE TABLE held (x)")
"""

STRANGE_NAMES = [
    "../x",
    "a/b",
    "/tmp/x",
    "-x",
    ".x",
    "..",
    ".",
    "",
    "line\nbreak",
    "x\n",
    "x" * 101,
    "a b",
    "é",
    "x\\y",
]


@pytest.fixture
def backed_up(app: SmallApp) -> SmallApp:
    """An app with one backup, `good`, that has changed since."""
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(1)
    app.write_upload("later.txt", b"later")
    return app


# Options


def options_of_one_value() -> list[tuple[str, str]]:
    """Return each command with each of its options that takes one value."""
    commands = json.loads((golden.FOLDER / "commands.json").read_text())
    of_one = (
        (name, re.fullmatch(r"\[(--[a-z-]+)(?:, -.)? [A-Z]+\]", one)) for name in commands for one in commands[name]
    )
    return [(name, found[1]) for name, found in of_one if found]


@pytest.mark.parametrize(("command", "option"), options_of_one_value())
def test_an_option_of_one_value_is_refused_where_it_is_typed_twice(app: SmallApp, command: str, option: str) -> None:
    """The last one would win, and the first, a remote or a condition, would silently not count."""
    names, hint = f"Option '{option}' was typed twice, but takes one value.", f"`{command} --help`"
    refused(app, *command.split(), option, "1", f"{option}=2", code=2, names=names, hint=hint)


def test_a_flag_may_be_typed_twice_and_an_option_of_several_values_too(app: SmallApp) -> None:
    run_here(app, "backup", "one", "--quiet", "-q", "--json", "--json", check=0)
    keys = ("--recipient", "age1x", "-r", "age1y")
    refused(app, "export", "one", "x.tar.age", *keys, code=2, names="age1x", hint="")


# Names


def test_a_slip_in_a_name_is_told_with_the_right_one_first(backed_up: SmallApp) -> None:
    for number in range(4):
        create_backup(backed_up.settings, BackupRequest(f"later{number}"))
    refused(backed_up, "restore", "godo", "--yes", code=10, names="godo", hint="There are: good, ")
    refused(backed_up, "rows", "good", "messages", code=10, names="messages", hint="There are: ")


def test_an_unknown_subcommand_is_one_json_document_too(app: SmallApp) -> None:
    told = run_here(app, "config", "get", "timezone", "--json", check=2)
    assert json.loads(told.out)["error"]["code"] == 2


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_a_strange_name_is_refused_for_a_new_backup(app: SmallApp, name: str) -> None:
    refused(app, "backup", "--", name, code=2, names=repr(name), hint="1 to 100 letters")


@pytest.mark.parametrize("name", ["../other", "/other", ".draft-good", "", "good\n", "x" * 101])
def test_a_strange_name_is_refused_for_a_restore(backed_up: SmallApp, name: str) -> None:
    refused(backed_up, "restore", "--force", "--", name, code=2, names=repr(name), hint="1 to 100 letters")


@pytest.mark.parametrize("path", ["good/", "../good", "backups/good", "/srv/backups/good/"])
def test_a_path_in_the_place_of_a_name_is_told_the_name(backed_up: SmallApp, path: str) -> None:
    refused(backed_up, "restore", path, "--yes", code=2, names=f"{path!r} is not a name", hint="the name alone: good$")


@pytest.mark.parametrize("command", ["show", "restore"])
def test_an_option_in_the_place_of_a_name_is_refused(backed_up: SmallApp, command: str) -> None:
    before = picture(backed_up)
    result = run_here(backed_up, command, "-x")
    assert result.code == 2 and "-x" in result.err and "Traceback" not in result.err
    assert picture(backed_up) == before


@pytest.mark.parametrize(("length", "code"), [(100, 0), (101, 2)])
def test_a_name_has_at_most_a_hundred_letters(app: SmallApp, length: int, code: int) -> None:
    assert run_here(app, "backup", "n" * length).code == code


def test_a_name_that_is_taken_is_refused_and_not_overwritten(backed_up: SmallApp) -> None:
    refused(backed_up, "backup", "good", code=2, names=f"{backed_up.backups}/good is there already.", hint="`list`")


def test_the_name_of_anything_in_the_backups_folder_is_taken(app: SmallApp) -> None:
    (app.backups / "dump.sql").write_text("SELECT 1;")
    (app.backups / "dangling").symlink_to("/nowhere/at/all")
    for name in ("dump.sql", "dangling"):
        refused(app, "backup", name, code=2, names=name, hint="another name")


def test_latest_is_not_a_name(app: SmallApp) -> None:
    refused(app, "backup", "latest", code=2, names="latest", hint="another name")


@pytest.mark.parametrize(
    "command", [("show", "nope"), ("restore", "nope", "--force"), ("restore", "nope", "--dry-run")]
)
def test_a_backup_that_is_not_there_is_told_with_those_that_are(backed_up: SmallApp, command: tuple[str, ...]) -> None:
    result = refused(backed_up, *command, code=10, names=f"named nope in {backed_up.backups}", hint="`list`")
    assert "good" in result.err


def test_a_dump_or_an_archive_that_is_named_as_a_backup_is_told_as_what_it_is(backed_up: SmallApp) -> None:
    run_here(backed_up, "dump", "text.sql.gz", check=0)
    run_here(backed_up, "export", "good", "whole.tar.gz", check=0)
    refused(backed_up, "restore", "text.sql.gz", code=10, names="named text.sql.gz", hint="`restore-dump text.sql.gz`")
    run_here(backed_up, "restore-dump", "text.sql.gz", "--yes", check=0)
    refused(backed_up, "verify", "whole.tar.gz", code=10, names="named whole.tar.gz", hint="`import whole.tar.gz`")
    run_here(backed_up, "import", "whole.tar.gz", "--name", "again", check=0)


@pytest.mark.parametrize("command", [("show", "latest"), ("restore", "latest", "--force"), ("undo", "--force")])
def test_without_any_backup_there_is_nothing_to_restore(app: SmallApp, command: tuple[str, ...]) -> None:
    refused(app, *command, code=10, names=str(app.backups), hint="`")


# The live database


def make_missing(app: SmallApp) -> None:
    app.database.unlink()


def make_empty(app: SmallApp) -> None:
    app.database.write_bytes(b"")


def make_text(app: SmallApp) -> None:
    app.database.write_text("This is no database, but it is longer than a header of one hundred bytes. " * 100)


def make_truncated(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    app.database.write_bytes(app.database.read_bytes()[: 5 * 4096 + 100])


def make_corrupt(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(app.database.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
    app.database.write_bytes(content)


def make_corrupt_schema(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(app.database.read_bytes())
    content[100:4096] = os.urandom(3996)
    app.database.write_bytes(content)


def make_without_tables(app: SmallApp) -> None:
    app.database.unlink()
    with closing(sqlite3.connect(app.database)) as fresh, fresh:
        fresh.execute("PRAGMA user_version=3")


def make_folder(app: SmallApp) -> None:
    app.database.unlink()
    app.database.mkdir()


BREAKS = [
    make_missing,
    make_empty,
    make_text,
    make_truncated,
    make_corrupt,
    make_corrupt_schema,
    make_without_tables,
    make_folder,
]


@pytest.mark.parametrize("break_it", BREAKS)
def test_a_broken_database_is_no_backup(backed_up: SmallApp, break_it: Callable[[SmallApp], None]) -> None:
    break_it(backed_up)
    refused(backed_up, "backup", "second", code=13, names=str(backed_up.database), hint="`|BACKUP_DATABASE")


@pytest.mark.parametrize("break_it", [make_missing, make_empty, make_text, make_without_tables])
def test_a_broken_database_makes_no_dump(backed_up: SmallApp, break_it: Callable[[SmallApp], None]) -> None:
    break_it(backed_up)
    refused(backed_up, "dump", "text.sql", code=13, names=str(backed_up.database), hint="`|BACKUP_DATABASE")


def test_a_setting_that_names_another_file_is_not_answered_with_a_restore_over_that_file(app: SmallApp) -> None:
    file = app.write_upload("letter", b"Dear company, " * 1000)
    hint = "If it is another file, correct BACKUP_DATABASE: `config`. If not: Put a backup back"
    refused(app, "backup", code=13, names=str(file), hint=hint, env={"BACKUP_DATABASE": str(file)})


def test_a_database_that_is_a_link_to_nothing_is_told_of(app: SmallApp) -> None:
    app.database.unlink()
    app.database.symlink_to("/nowhere/at/all")
    refused(app, "backup", code=13, names="no database at", hint="BACKUP_DATABASE")


def test_a_missing_database_is_not_made(app: SmallApp) -> None:
    make_missing(app)
    refused(app, "backup", code=13, names=f"no database at {app.database}", hint="BACKUP_DATABASE")
    assert not app.database.exists()


@pytest.mark.parametrize("command", [("backup", "second"), ("dump", "text.sql"), ("restore", "good", "--force")])
def test_a_database_that_stays_locked_ends_the_wait(backed_up: SmallApp, command: tuple[str, ...]) -> None:
    backed_up.execute("PRAGMA journal_mode=DELETE")
    with another_process(HOLD, backed_up.database) as holder:
        before = picture(backed_up)
        result = run_here(backed_up, *command, env={"BACKUP_BUSY_TIMEOUT": "0.3"})
        assert_refusal(result, 13, str(backed_up.database), "Stop the app")
        assert f"pid {holder.pid}" in result.err
        assert "Waiting up to 0.3 s" in result.err
        assert picture(backed_up) == before


def test_a_restore_that_is_kept_from_writing_leaves_everything_as_it_was(backed_up: SmallApp) -> None:
    with another_process(
        """
import sqlite3
live = sqlite3.connect(sys.argv[1], isolation_level=None)
live.execute("BEGIN IMMEDIATE")
""",
        backed_up.database,
    ) as holder:
        before = backed_up.contents()
        result = run_here(backed_up, "restore", "good", "--force", env={"BACKUP_BUSY_TIMEOUT": "0.3"})
        assert_refusal(result, 13, str(backed_up.database), "Stop the app")
        assert f"pid {holder.pid}" in result.err
        assert backed_up.contents() == before
        assert not (backed_up.backups / ".journal").exists()
    assert "Finishing" not in run_here(backed_up, "list", check=0).err


def test_a_lock_that_ends_in_time_is_waited_for(backed_up: SmallApp) -> None:
    backed_up.execute("PRAGMA journal_mode=DELETE")
    release = "import threading, os\nthreading.Timer(1.0, lambda: os._exit(0)).start()"
    with another_process(f"{HOLD}\n{release}", backed_up.database):
        assert run_here(backed_up, "backup", "second", check=0).out


def test_a_database_that_may_not_be_read_is_told_of(backed_up: SmallApp) -> None:
    backed_up.database.chmod(0)
    refused_to_user(backed_up, "backup", "second", code=13, names=str(backed_up.database), hint="`doctor`")


def test_a_database_whose_folder_is_closed_is_told_of(backed_up: SmallApp) -> None:
    backed_up.database.parent.chmod(0)
    refused_to_user(backed_up, "backup", "second", code=13, names=str(backed_up.database), hint="`doctor`")


def test_a_database_that_may_not_be_written_is_not_restored(backed_up: SmallApp) -> None:
    backed_up.database.chmod(0o444)
    before = backed_up.contents()
    result = as_user(backed_up, "restore", "good", "--force")
    assert_refusal(result, 13, str(backed_up.database), "lsattr -d")
    assert backed_up.contents() == before
    assert not list(backed_up.folder.rglob(".backupkit*"))
    assert as_user(backed_up, "list").code == 0


# The uploads


def test_missing_uploads_are_no_empty_backup(app: SmallApp) -> None:
    shutil.rmtree(app.uploads)
    refused(app, "backup", "one", code=13, names=str(app.uploads), hint="BACKUP_UPLOADS")
    assert not app.uploads.exists()


@pytest.mark.parametrize("command", [("backup", "second"), ("restore", "good", "--force")])
def test_uploads_that_are_a_file_are_refused(backed_up: SmallApp, command: tuple[str, ...]) -> None:
    shutil.rmtree(backed_up.uploads)
    backed_up.uploads.write_text("a file")
    refused(backed_up, *command, code=13, names=str(backed_up.uploads), hint="BACKUP_UPLOADS")


def test_uploads_that_may_not_be_read_are_told_of(backed_up: SmallApp) -> None:
    backed_up.uploads.chmod(0)
    refused_to_user(backed_up, "backup", "second", code=13, names=str(backed_up.uploads), hint="ls -ld")


# The backups folder


def test_a_missing_backups_folder_is_made(app: SmallApp) -> None:
    elsewhere = app.folder.parent / "deep" / "elsewhere"
    run_here(app, "backup", "one", env={"BACKUP_DIR": str(elsewhere)}, check=0)
    assert (elsewhere / "one" / "pats.db").is_file()


@pytest.mark.parametrize("command", [("list",), ("show", "x"), ("restore", "x", "--force"), ("config",), ("doctor",)])
def test_what_only_looks_makes_no_backups_folder(app: SmallApp, command: tuple[str, ...]) -> None:
    elsewhere = app.folder.parent / "elsewhere"
    result = run_here(app, *command, env={"BACKUP_DIR": str(elsewhere)})
    assert "Traceback" not in result.err
    assert not elsewhere.exists()


def test_a_read_only_backups_folder_is_told_of(backed_up: SmallApp) -> None:
    backed_up.backups.chmod(0o500)
    refused_to_user(
        backed_up, "backup", "two", code=1, names=f"{backed_up.backups} cannot be written", hint="BACKUP_DIR"
    )
    refused_to_user(backed_up, "dump", code=1, names=f"{backed_up.backups} cannot be written", hint="BACKUP_DIR")
    assert "good" in as_user(backed_up, "list").out


def test_a_restore_without_room_for_a_safety_copy_changes_nothing(backed_up: SmallApp) -> None:
    backed_up.backups.chmod(0o500)
    refused_to_user(backed_up, "restore", "good", "--force", code=1, names=str(backed_up.backups), hint="")


def test_one_backup_that_may_not_be_read_does_not_hide_the_others(backed_up: SmallApp) -> None:
    shutil.copytree(backed_up.backups / "good", backed_up.backups / "closed")
    (backed_up.backups / "closed").chmod(0)
    result = as_user(backed_up, "list")
    assert result.code == 0, result.err
    assert "good" in result.out


@pytest.mark.parametrize("command", ["backup", "list", "prune", "verify"])
def test_a_backups_folder_that_is_a_file_or_a_device_is_refused(app: SmallApp, command: str) -> None:
    file = app.write_upload("a file", b"")
    for one in (str(file), "/dev/null"):  # which root must not be told to give away
        there = {"BACKUP_DIR": one, "BACKUP_UPLOADS": ""}
        refused(app, command, code=2, names=f"{one} is not a folder", hint="Set BACKUP_DIR", env=there)


def test_a_backups_folder_that_cannot_be_made_is_not_to_be_given_away(app: SmallApp) -> None:
    there = {"BACKUP_DIR": "/proc/backups"}
    refused(
        app, "backup", code=1, names="/proc/backups cannot be made", hint="Set BACKUP_DIR .*ls -ld /proc", env=there
    )


def test_a_backups_folder_that_may_not_be_made_can_be_made_as_the_hint_says(app: SmallApp) -> None:
    app.backups.rmdir()
    app.folder.chmod(0o555)
    result = as_user(app, "backup")
    app.folder.chmod(0o755)
    assert f"cannot be made: Permission denied.\n  Next: As root: install -d -o {os.geteuid()}" in result.err
    subprocess.run(
        shlex.split(result.err.rpartition("As root: ")[2].removesuffix(" (or set BACKUP_DIR)\n")), check=True
    )
    app.command("backup", check=0)


def test_backups_inside_uploads_are_refused(app: SmallApp) -> None:
    inside = {"BACKUP_DIR": str(app.uploads / "backups")}
    refused(app, "backup", "one", code=2, names=str(app.uploads), hint="BACKUP_DIR", env=inside)


def test_uploads_inside_backups_are_refused(app: SmallApp) -> None:
    inside = {"BACKUP_UPLOADS": str(app.backups / "uploads")}
    (app.backups / "uploads").mkdir()
    refused(app, "backup", "one", code=2, names=str(app.backups), hint="BACKUP_DIR", env=inside)


def test_a_link_does_not_hide_that_backups_lie_inside_uploads(app: SmallApp) -> None:
    (app.uploads / "inner").mkdir()
    link = app.folder.parent / "link"
    link.symlink_to(app.uploads / "inner")
    refused(app, "backup", "one", code=2, names=str(link), hint="BACKUP_DIR", env={"BACKUP_DIR": str(link)})


def test_backups_that_are_the_uploads_are_refused(app: SmallApp) -> None:
    same = {"BACKUP_DIR": str(app.uploads)}
    refused(app, "backup", "one", code=2, names=str(app.uploads), hint="BACKUP_DIR", env=same)


def test_a_restore_refuses_folders_that_lie_one_in_the_other(backed_up: SmallApp) -> None:
    inside = {"BACKUP_UPLOADS": str(backed_up.backups / "good" / "uploads")}
    refused(
        backed_up, "restore", "good", "--force", code=2, names=str(backed_up.backups), hint="BACKUP_DIR", env=inside
    )


# Metadata that cannot be trusted


def write_metadata(app: SmallApp, **changes: Any) -> Path:
    """Change the metadata of `good` as in an edited hand-made backup, without checksums; return the file."""
    file = app.backups / "good" / "backup_metadata.json"
    (app.backups / "good" / "SHA256SUMS").unlink(missing_ok=True)
    seven = ("backup_name", "timestamp", "created_at", "alembic_revision", "database_file", "uploads_included")
    values = {name: value for name, value in json.loads(file.read_text()).items() if name in seven}
    values |= {"backup_version": "1.0"} | changes
    file.write_text(json.dumps(values))
    return file


UNTRUSTED = {
    "a later format": {"backup_version": "2.0"},
    "a much later format": {"backup_version": "10.3"},
    "no format": {"backup_version": "new"},
    "a digit that is none": {"backup_version": "²"},
    "an escape in the format": {"backup_version": "2.0\x1b[2J\nError: x."},
    "a path upwards": {"database_file": "../x"},
    "an absolute path": {"database_file": "/etc/passwd"},
    "a path downwards": {"database_file": "uploads/x"},
    "an empty path": {"database_file": ""},
    "the parent": {"database_file": ".."},
    "the folder itself": {"database_file": "."},
    "a NUL": {"database_file": "pats.db\0"},
    "a list for a name": {"database_file": ["pats.db"]},
    "a number for a name": {"database_file": 7},
    "uploads that are a word": {"uploads_included": "perhaps"},
    "a revision that is an object": {"alembic_revision": {"a": 1}},
    "no date at all": {"created_at": None, "timestamp": None},
    "a date that is none": {"created_at": "yesterday", "timestamp": "20241301_250000"},
    "a date that is a list": {"created_at": [2024, 12, 1]},
    "an unknown kind": {"kind": "hostile"},
    "a database that is a word": {"database": "big"},
    "a size that is a word": {"database": {"size": "big", "sha256": ""}},
}


@pytest.mark.parametrize("changes", UNTRUSTED.values(), ids=UNTRUSTED)
def test_metadata_that_cannot_be_trusted_are_refused(backed_up: SmallApp, changes: dict[str, Any]) -> None:
    file = write_metadata(backed_up, **changes)
    refused(backed_up, "restore", "good", "--force", code=12, names=str(file), hint="")
    listed = run_here(backed_up, "list", check=0)
    assert "damaged" in listed.out and str(file) in listed.out
    assert "\x1b" not in listed.out and listed.out.count("\n") == 2


CONTENTS = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "binary": bytes(range(256)),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a huge number": b'{"timestamp": ' + b"9" * 10_000 + b"}",
    "nothing but a brace": b"{}",
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_metadata_that_are_no_object_are_refused(backed_up: SmallApp, content: bytes) -> None:
    file = backed_up.backups / "good" / "backup_metadata.json"
    file.write_bytes(content)
    refused(backed_up, "restore", "good", "--force", code=12, names=str(file), hint="`list`")
    assert "damaged" in run_here(backed_up, "list", check=0).out


def test_missing_metadata_are_told_of(backed_up: SmallApp) -> None:
    (backed_up.backups / "good" / "backup_metadata.json").unlink()
    refused(backed_up, "restore", "good", "--force", code=12, names="backup_metadata.json", hint="`list`")
    assert "damaged" in run_here(backed_up, "list", check=0).out


def test_a_folder_in_the_place_of_metadata_is_told_of(backed_up: SmallApp) -> None:
    file = backed_up.backups / "good" / "backup_metadata.json"
    file.unlink()
    file.mkdir()
    refused(backed_up, "restore", "good", "--force", code=12, names=str(file), hint="`list`")


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59"])
def test_a_date_at_the_edge_of_time_stops_no_command(backed_up: SmallApp, created: str) -> None:
    write_metadata(backed_up, created_at=created)
    for command in (("list",), ("list", "--json"), ("show", "good"), ("backup", "--if-needed"), ("show", "latest")):
        for zone in ("Pacific/Kiritimati", "Pacific/Niue"):
            result = run_here(backed_up, *command, env={"BACKUP_TIMEZONE": zone})
            assert "Traceback" not in result.err
            assert result.code in (0, 10, 12), result.err


# A backup that was changed after it was sealed


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte of the database": lambda backup: flip(backup / "pats.db"),
    "a byte of an upload": lambda backup: flip(backup / "uploads" / "1" / "letter.txt"),
    "a word in the metadata": lambda backup: (backup / "backup_metadata.json").write_text(
        (backup / "backup_metadata.json").read_text().replace('"manual"', '"auto"')
    ),
    "a byte of the page": lambda backup: flip(backup / "RESTORE.md"),
    "one more file": lambda backup: (backup / "extra").write_text("x"),
    "one more upload": lambda backup: (backup / "uploads" / "extra").write_text("x"),
    "an empty upload more": lambda backup: (backup / "uploads" / "extra").write_text(""),
    "one upload less": lambda backup: (backup / "uploads" / "1" / "letter.txt").unlink(),
    "no database": lambda backup: (backup / "pats.db").unlink(),
    "an empty database": lambda backup: (backup / "pats.db").write_bytes(b""),
    "no page": lambda backup: (backup / "RESTORE.md").unlink(),
    "no checksums": lambda backup: (backup / "SHA256SUMS").unlink(),
    "one more link": lambda backup: (backup / "uploads" / "evil").symlink_to("/etc"),
    "a link that leads elsewhere": lambda backup: (
        (backup / "uploads" / "latest").unlink(),
        (backup / "uploads" / "latest").symlink_to("/etc/passwd"),
    ),
    "a link in the place of a file": lambda backup: (
        (backup / "uploads" / "1" / "letter.txt").rename(backup.parent / "moved"),
        (backup / "uploads" / "1" / "letter.txt").symlink_to(backup.parent / "moved"),
    ),
    "a link in the place of the database": lambda backup: (
        (backup / "pats.db").rename(backup.parent / "moved"),
        (backup / "pats.db").symlink_to(backup.parent / "moved"),
    ),
    "a link in the place of the uploads": lambda backup: (
        (backup / "uploads").rename(backup.parent / "moved"),
        (backup / "uploads").symlink_to(backup.parent / "moved"),
    ),
    "an empty folder less": lambda backup: (backup / "uploads" / "empty").rmdir(),
    "an empty folder more": lambda backup: (backup / "uploads" / "another").mkdir(),
    "no uploads": lambda backup: shutil.rmtree(backup / "uploads"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_backup_edited_after_sealing_is_refused(backed_up: SmallApp, what: str) -> None:
    backup = backed_up.backups / "good"
    CHANGES[what](backup)
    refused(backed_up, "restore", "good", "--dry-run", code=12, names=str(backup), hint="`list`")
    refused(backed_up, "restore", "good", "--force", code=12, names=str(backup), hint="`list`")


LISTS = {
    "nothing": b"",
    "garbage": b"\xff\xfe\0\1 garbage\n",
    "a path upwards": b"0" * 64 + b"  ../../x\n",
    "an absolute path": b"0" * 64 + b"  /etc/passwd\n",
    "a path upwards, hidden": b"\\" + b"0" * 64 + b"  a/../../x\\n\n",
    "a checksum too short": b"abc  pats.db\n",
    "no path": b"0" * 64 + b"  \n",
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_a_list_of_checksums_that_is_not_sound_is_refused(backed_up: SmallApp, content: bytes) -> None:
    backup = backed_up.backups / "good"
    (backup / "SHA256SUMS").write_bytes(content)
    refused(backed_up, "restore", "good", "--force", code=12, names=str(backup), hint="`list`")


def test_a_checksum_given_twice_is_refused(backed_up: SmallApp) -> None:
    sums = backed_up.backups / "good" / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes() + sums.read_bytes().splitlines(keepends=True)[0])
    refused(backed_up, "restore", "good", "--force", code=12, names="good is damaged: SHA256SUMS names", hint="`list`")


def test_more_paths_hidden_in_a_sound_list_are_refused(backed_up: SmallApp) -> None:
    sums = backed_up.backups / "good" / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes() + b"0" * 64 + b"  uploads/../../../etc/passwd\n")
    refused(backed_up, "restore", "good", "--force", code=12, names="good is damaged: SHA256SUMS line", hint="`list`")


def test_a_hand_made_backup_whose_database_is_a_link_is_refused(backed_up: SmallApp) -> None:
    write_metadata(backed_up)
    outside = backed_up.folder.parent / "outside.db"
    (backed_up.backups / "good" / "pats.db").rename(outside)
    (backed_up.backups / "good" / "pats.db").symlink_to(outside)
    refused(backed_up, "restore", "good", "--force", code=12, names="pats.db", hint="`list`")


def test_a_hand_made_backup_whose_uploads_are_a_link_is_refused(backed_up: SmallApp) -> None:
    write_metadata(backed_up)
    outside = backed_up.folder.parent / "outside"
    (backed_up.backups / "good" / "uploads").rename(outside)
    (backed_up.backups / "good" / "uploads").symlink_to(outside)
    refused(backed_up, "restore", "good", "--force", code=12, names="uploads", hint="`list`")


def test_a_hand_made_backup_with_a_broken_database_is_refused(backed_up: SmallApp) -> None:
    write_metadata(backed_up)
    sealed = backed_up.backups / "good" / "pats.db"
    content = bytearray(sealed.read_bytes())
    content[4096 * 2 : 4096 * 3] = os.urandom(4096)
    sealed.write_bytes(content)
    refused(backed_up, "restore", "good", "--force", code=12, names=str(sealed), hint="`list`")


def test_a_backup_that_is_a_link_is_no_backup(backed_up: SmallApp) -> None:
    (backed_up.backups / "good").rename(backed_up.folder.parent / "moved")
    (backed_up.backups / "good").symlink_to(backed_up.folder.parent / "moved")
    refused(backed_up, "restore", "good", "--force", code=10, names="good", hint="")


# Commands, options and arguments


def test_an_unknown_command_is_refused(app: SmallApp) -> None:
    for word in ("frobnicate", "[/]", "[bold]x"):
        before = picture(app)
        result = run_here(app, word)
        assert (result.code == 2 and word in result.err and "--help" in result.err) or "-h" in result.err
        assert "Traceback" not in result.err and result.out == ""
        assert picture(app) == before


@pytest.mark.parametrize("command", ["backup", "list", "restore", "dump", "restore-dump", "show", "doctor", "undo"])
def test_an_unknown_option_is_refused(app: SmallApp, command: str) -> None:
    before = picture(app)
    result = run_here(app, command, "--frobnicate")
    assert result.code == 2 and "--frobnicate" in result.err
    assert "Traceback" not in result.err and result.out == ""
    assert picture(app) == before


@pytest.mark.parametrize(
    ("words", "names", "hint"),
    [
        (
            "config set keep_daily -1",
            "No such option: -1; a value that begins with - comes behind --.",
            "`config set --help`",
        ),
        ("restore --latest", "No such option: --latest; the newest backup is latest, without the", "`restore --help`"),
        ("backup --force", "No such option: --force.", "`backup --help`"),
        ("dump --databse x", "No such option: --databse (Possible options: --database).", "`dump --help`"),
        ("backup --note", "Option '--note' requires an argument.", "`backup --help`"),
        ("config set", "Missing argument 'KEY'.", "`config set --help`"),
    ],
)
def test_what_is_wrong_with_an_option_is_told_with_its_command(
    app: SmallApp, words: str, names: str, hint: str
) -> None:
    refused(app, *words.split(), code=2, names=names, hint=hint)


def test_a_value_that_begins_with_a_dash_goes_behind_two(app: SmallApp) -> None:
    refused(app, "config", "set", "--", "keep_daily", "-1", code=2, names="keep_daily = '-1': must be", hint="")


@pytest.mark.parametrize("words", ["", "list", "config set"])
def test_help_is_a_word_too(app: SmallApp, words: str) -> None:
    wanted = run_here(app, *words.split(), "--help", check=0).out
    assert run_here(app, "help", *words.split(), check=0).out == wanted


def test_more_rows_than_sqlite_can_count_are_refused(backed_up: SmallApp) -> None:
    words = ("rows", "good", "companies", "--limit", "99999999999999999999")
    refused(backed_up, *words, code=2, names="'--limit'", hint="`rows --help`")


@pytest.mark.parametrize("command", [("restore", "good"), ("undo",), ("restore-dump", "text.sql")])
def test_without_a_terminal_nothing_is_restored_that_nobody_said_yes_to(
    backed_up: SmallApp, command: tuple[str, ...]
) -> None:
    run_here(backed_up, "restore", "good", "--force", check=0)
    run_here(backed_up, "dump", "text.sql", check=0)
    refused(backed_up, *command, code=2, names="terminal", hint="--yes")


def test_a_dump_is_looked_at_before_it_is_loaded(backed_up: SmallApp) -> None:
    run_here(backed_up, "dump", "text.sql", check=0)
    backed_up.add_rows(2)
    before = picture(backed_up)
    looked = run_here(backed_up, "restore-dump", "text.sql", "--dry-run", check=0)
    assert "Restoring text.sql will change:" in looked.out and "companies" in looked.out
    assert run_here(backed_up, "restore-dump", "text.sql", "--dry-run", "--json", check=0).json["source"]["name"]
    (backed_up.backups / "bad.sql").write_text("ATTACH 'x' AS y;")
    assert run_here(backed_up, "restore-dump", "bad.sql", "--dry-run").code == 12
    (backed_up.backups / "bad.sql").unlink()
    assert picture(backed_up) == before


def test_half_a_restore_that_does_not_exist_is_refused(backed_up: SmallApp) -> None:
    before = picture(backed_up)
    result = run_here(backed_up, "restore", "good", "--force", "--only", "schema")
    assert result.code == 2 and "schema" in result.err and "Traceback" not in result.err
    assert picture(backed_up) == before


# The schema


def forget_migrations(app: SmallApp) -> None:
    """Make the code know the first migration only, and set the database to its revision."""
    app.execute(f"UPDATE alembic_version SET version_num = '{INITIAL}'")
    for file in (app.folder / "alembic" / "versions").glob("*.py"):
        if INITIAL not in file.name:
            file.unlink()


@pytest.mark.parametrize("command", [("restore", "good"), ("restore", "good", "--dry-run"), ("undo",)])
def test_a_revision_this_code_does_not_know_is_refused(backed_up: SmallApp, command: tuple[str, ...]) -> None:
    if command == ("undo",):
        run_here(backed_up, "restore", "good", "--yes", check=0)
    forget_migrations(backed_up)
    refused(backed_up, *command, code=14, names="revision", hint="then type it again; or anyway, with --force")


def test_a_revision_this_code_does_not_know_is_restored_when_forced(backed_up: SmallApp) -> None:
    forget_migrations(backed_up)
    result = run_here(backed_up, "restore", "good", "--force", check=0)
    assert "does not know" in result.out
    assert not (backed_up.uploads / "later.txt").exists()


def test_migrations_that_cannot_be_read_are_told_of_before_the_question(backed_up: SmallApp) -> None:
    backed_up.execute(f"UPDATE alembic_version SET version_num = '{INITIAL}'")
    next((backed_up.folder / "alembic" / "versions").glob("*.py")).write_text("this is no Python")
    planned = run_here(backed_up, "restore", "good", "--dry-run", check=0).out
    assert f"The migrations of {backed_up.folder / 'alembic.ini'} cannot be read: SyntaxError" in planned
    refused(backed_up, "restore", "good", code=2, names="terminal", hint="--yes")


# SQL text

DUMPS = {
    "no SQL": b"This is a letter, and no SQL.\n",
    "binary": bytes(range(256)) * 10,
    "nothing": b"",
    "nothing but a comment": b"-- nothing\n",
    "a transaction of nothing": b"BEGIN TRANSACTION;\nCOMMIT;\n",
    "no end": b"BEGIN TRANSACTION;\nCREATE TABLE a (b);\nINSERT INTO a VALUES (1);\n",
    "half a statement": b"BEGIN TRANSACTION;\nCREATE TABLE a (b);\nINSERT INTO a VALUES ('x",
    "another file": b"BEGIN TRANSACTION;\nATTACH '/tmp/hostile.db' AS other;\nCREATE TABLE other.a (b);\nCOMMIT;\n",
    "a dot-command": b"BEGIN TRANSACTION;\n.shell id\nCREATE TABLE a (b);\nCOMMIT;\n",
    "an extension": b"BEGIN TRANSACTION;\nCREATE TABLE a (b);\nINSERT INTO a VALUES (load_extension('x'));\nCOMMIT;\n",
    "a copy elsewhere": b"BEGIN TRANSACTION;\nCREATE TABLE a (b);\nCOMMIT;\nVACUUM INTO '/tmp/hostile.db';\n",
    "a pragma that reaches outside": b"PRAGMA temp_store_directory='/tmp';\nBEGIN;\nCREATE TABLE a (b);\nCOMMIT;\n",
    "compressed garbage": b"\x1f\x8b" + b"garbage" * 20,
    "half of it, compressed": gzip.compress(b"BEGIN TRANSACTION;\nCREATE TABLE a (b);\nCOMMIT;\n" * 50)[:-12],
}


@pytest.mark.parametrize("content", DUMPS.values(), ids=DUMPS)
def test_a_dump_that_is_refused_changes_nothing(app: SmallApp, content: bytes) -> None:
    (app.backups / "text.sql").write_bytes(content)
    refused(app, "restore-dump", "text.sql", "--force", code=12, names="text.sql", hint="")
    assert not Path("/tmp/hostile.db").exists()


def test_a_dump_that_is_not_there_is_told_of(app: SmallApp) -> None:
    refused(
        app,
        "restore-dump",
        "nope.sql",
        "--force",
        code=10,
        names=str(app.backups / "nope.sql"),
        hint="A bare name is looked for",
    )
    refused(
        app, "restore-dump", "/nope/x.sql", "--force", code=10, names="/nope/x.sql", hint="A bare name is looked for"
    )


def test_a_folder_is_no_dump(backed_up: SmallApp) -> None:
    (backed_up.backups / "other").mkdir()
    refused(backed_up, "restore-dump", "other", "--force", code=2, names="other", hint="`restore NAME`")


@pytest.mark.parametrize("command", ["import", "restore-dump"])
def test_a_backup_in_the_place_of_a_file_is_called_one(backed_up: SmallApp, command: str) -> None:
    refused(backed_up, command, "good", code=2, names="good is not a file.", hint="It is a backup: `restore good`")


def test_a_dump_is_never_overwritten(app: SmallApp) -> None:
    run_here(app, "dump", "text.sql", check=0)
    refused(app, "dump", "text.sql", code=2, names=f"{app.backups / 'text.sql'} exists already.", hint="another name")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("dump", "FILE"),
        ("restore-dump --yes", "FILE"),
        ("salvage", "FILE"),
        ("export good", "FILE"),
        ("import", "FILE"),
        ("recovery-kit", "FILE"),
        ("clone", "DIR"),
        ("clone new --mask", "--mask"),
        ("report --output", "--output"),
        ("status --prometheus", "--prometheus"),
        ("restore good --to", "--to"),
        ("extract good x --to", "--to"),
        ("export good x.tar.age --recipients-file", "--recipients-file"),
        ("import x.tar.age --identity", "--identity"),
        ("rows good companies --where", "--where"),
        ("rows good companies --columns", "--columns"),
        ("rescue good companies --missing --yes --where", "--where"),
        ("rescue good companies --missing --yes --key", "--key"),
        ("rows good", "TABLE"),
        ("rescue good --missing --yes", "TABLE"),
        ("files good", "PATTERN"),
        ("extract good --yes", "PATTERN"),
        ("restore good --yes --only", "--only"),
        ("restore good --yes --expect-loss", "--expect-loss"),
        ("restore good --yes --at", "--at"),
        ("dump --database", "--database"),
        ("files good --tree", "--tree"),
        ("verify --remote", "--remote"),
        ("restore good --to new --remote", "--remote"),
        ("remotes --init", "--init"),
        ("migrate", "REVISION"),
        ("config unset", "KEY"),
    ],
)
def test_what_is_empty_is_refused_and_no_default(backed_up: SmallApp, words: str, named: str) -> None:
    refused(backed_up, *words.split(), "", code=2, names=f"Error: {named} is empty.", hint="variable of the shell")


def test_a_file_to_verify_that_is_not_there_is_called_a_file(backed_up: SmallApp) -> None:
    refused(backed_up, "verify", "../x.db", code=10, names="no file and no backup at /", hint="`list`")


@pytest.mark.parametrize("command", ["dump", "salvage", "import"])
def test_a_strange_name_of_a_file_is_told_as_one(app: SmallApp, command: str) -> None:
    names = "'my dump.sql' is not a name for a file in the backups folder."
    refused(app, command, "my dump.sql", code=2, names=names, hint=r"its path: \./NAME")


@pytest.mark.parametrize("file", ["/nope/x.sql", "..", "-x.sql", ".x.sql", "", "a\nb"])
def test_a_dump_goes_nowhere_strange(app: SmallApp, file: str) -> None:
    refused(app, "dump", "--", file, code=2, hint="")


def test_a_dump_with_a_folder_in_its_name_is_taken_from_where_the_person_stands(app: SmallApp) -> None:
    app.command("dump", "--", "../x.sql", check=0)
    assert (app.folder.parent.parent / "x.sql").is_file()
