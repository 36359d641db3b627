"""A mismatch of index and table is reported wherever it is met, is repaired by one line, and costs no row."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.repository import manifest, store
from backupkit.sqlite import database
from backupkit.verify.verify import verify_backups
from refusals import run_here
from small_app import NOON, SmallApp


def check(path: Path, kind: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as opened:
        return [row[0] for row in opened.execute(f"PRAGMA {kind}")]


def flip_a_row(app: SmallApp) -> None:
    """Change one letter of a row, so that its index has another value, like a bit that rotted on the disk."""
    with contextlib.closing(app.connect()) as live, live:
        live.execute("PRAGMA journal_mode=DELETE")
        live.execute("CREATE TABLE IF NOT EXISTS pairs (a TEXT, b INTEGER)")
        live.execute("CREATE INDEX IF NOT EXISTS by_a ON pairs (a)")
        live.executemany("INSERT INTO pairs VALUES (?, ?)", [(f"pair {number:03}", number) for number in range(50)])
    content = app.database.read_bytes()
    with contextlib.closing(app.connect()) as live:
        (root,) = live.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'pairs'").fetchone()
        (page,) = live.execute("PRAGMA page_size").fetchone()
    place = content.index(b"pair 017", (root - 1) * page)
    app.database.write_bytes(content[:place] + b"P" + content[place + 1 :])
    assert check(app.database, "quick_check") == ["ok"] and "index by_a" in check(app.database, "integrity_check")[0]


def fix(said: str) -> None:
    """Run the command that was printed."""
    line = said.partition("Rebuild it: ")[2].splitlines()[0]
    words = shlex.split(line)
    subprocess.run([sys.executable, *words[words.index("python3") + 1 :]], check=True)  # no container here


@pytest.fixture
def flawed(app: SmallApp) -> SmallApp:
    """An app with a good backup; since then an index of its database does not match its table."""
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    flip_a_row(app)
    return app


def test_a_backup_of_it_is_made_and_says_so_and_how_to_mend_it(flawed: SmallApp) -> None:
    before = flawed.contents()
    said = run_here(flawed, "backup", "flawed", check=3)
    assert "an index does not match its table" in said.err and "by_a" in said.err and "REINDEX" in said.err
    assert "does not match its table: row" in run_here(flawed, "show", "flawed").out
    shown = run_here(flawed, "show", "flawed", "--json").json
    assert shown["state"] == "checked" and "by_a" in shown["database"]["index_flaws"][0]
    fix(said.err)
    assert check(flawed.database, "integrity_check") == ["ok"]
    assert flawed.contents() == before
    assert run_here(flawed, "backup", "mended", check=0)
    assert run_here(flawed, "show", "mended", "--json").json["database"]["index_flaws"] == []


def test_each_backup_says_it_again_until_it_is_mended(flawed: SmallApp) -> None:
    for name in ("one", "two"):  # the second links to the first, so nothing is read
        assert "REINDEX" in run_here(flawed, "backup", name, check=3).err


def test_a_verify_says_it_and_looks_whether_the_live_database_has_it(flawed: SmallApp) -> None:
    run_here(flawed, "backup", "flawed", check=3)
    said = run_here(flawed, "verify", "flawed", check=3)
    assert "An index of flawed does not match its table" in said.err
    assert f"In {flawed.database} an index does not match its table" in said.err
    assert store.read(flawed.settings, "flawed").state == "checked"
    fix(said.err)
    said = run_here(flawed, "verify", "flawed", check=3)
    assert f"{flawed.database} has no such damage: make a new one" in said.err
    flawed.database.unlink()
    assert "could not be found out" in run_here(flawed, "verify", "flawed", check=3).err


def test_a_restore_of_it_brings_every_row_and_says_it(flawed: SmallApp) -> None:
    before = flawed.contents()
    run_here(flawed, "backup", "flawed", check=3)
    run_here(flawed, "restore", "good", "--force", check=0)  # no warning: the flawed database is replaced
    assert "by_a" in run_here(flawed, "restore", "flawed", "--dry-run", check=0).out
    said = run_here(flawed, "restore", "flawed", "--force", check=3)
    assert flawed.contents() == before
    fix(said.err)
    assert check(flawed.database, "integrity_check") == ["ok"]


def test_a_test_restore_of_it_passes_and_says_it(flawed: SmallApp) -> None:
    run_here(flawed, "backup", "flawed", check=3)
    said = run_here(flawed, "verify", "flawed", "--test-restore", check=3)
    assert "does not match its table" in said.err
    assert store.read(flawed.settings, "flawed").state == "proven"


def test_nothing_is_pruned_while_the_newest_backup_is_of_such_a_database(flawed: SmallApp) -> None:
    keep = {"BACKUP_KEEP_LAST": "1"}
    create_backup(flawed.settings, BackupRequest("older", kind="scheduled"), clock=lambda: NOON)
    run_here(flawed, "backup", "flawed", check=3)
    said = run_here(flawed, "prune", env=keep, check=3)
    assert "Nothing is removed" in said.out + said.err and "does not match its table" in said.out + said.err


def test_the_doctor_says_it(flawed: SmallApp) -> None:
    said = run_here(flawed, "doctor")
    assert "an index does not match its table" in said.out
    fix(said.out)
    assert "passed a full check" in run_here(flawed, "doctor").out


def test_the_doctor_says_that_a_database_is_damaged(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(app.database.read_bytes())
    with contextlib.closing(app.connect()) as live:
        (root,) = live.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'applications'").fetchone()
        (page,) = live.execute("PRAGMA page_size").fetchone()
    content[(root - 1) * page : (root - 1) * page + 8] = b"\xff" * 8
    app.database.write_bytes(content)
    said = run_here(app, "doctor", check=1)
    assert "is damaged" in said.out and "put a backup back" in said.out


def test_the_doctor_says_that_a_database_cannot_be_written_any_more(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    content = app.database.read_bytes()
    app.database.write_bytes(content[:18] + b"\x03" + content[19:])
    assert "only a later SQLite may write it" in run_here(app, "doctor", check=1).out


def test_in_a_copy_that_was_made_by_hand_it_is_damage(flawed: SmallApp) -> None:
    """Nobody knows who copied it, and whether the copy is complete."""
    folder = flawed.backups / "hand"
    folder.mkdir()
    shutil.copy(flawed.database, folder)
    facts = {"timestamp": "20260615_120000", "database_file": flawed.database.name, "uploads_included": False}
    (folder / "backup_metadata.json").write_text(json.dumps(facts))
    assert "by_a" in run_here(flawed, "verify", "hand", check=12).err


def test_a_database_that_is_too_large_is_checked_in_full_by_a_verify(
    flawed: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FULL_UP_TO", 4096)
    run_here(flawed, "backup", "flawed", check=0)
    said = run_here(flawed, "verify", "flawed", check=3)
    assert "does not match its table" in said.err and "could not be found out" in said.err
    assert "not checked in full" in run_here(flawed, "doctor").out


def reseal(folder: Path) -> None:
    """Write checksums that fit the present files."""
    (folder / "SHA256SUMS").unlink()
    writer = manifest.ChecksumWriter(folder)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != "SHA256SUMS":
            writer.record_file(str(path.relative_to(folder)))
    writer.close()


def test_a_backup_that_was_damaged_when_it_was_made_sends_nobody_to_make_another_such(app: SmallApp) -> None:
    """A page counts free bytes that it does not have, which no check of an earlier version noticed."""
    app.execute("PRAGMA journal_mode=DELETE")
    created = create_backup(app.settings, BackupRequest("one"), clock=lambda: NOON)
    sealed = created.backup.path / app.database.name
    content = bytearray(sealed.read_bytes())
    with contextlib.closing(app.connect()) as live:
        (root,) = live.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'applications'").fetchone()
        (page,) = live.execute("PRAGMA page_size").fetchone()
    content[(root - 1) * page + 7] = 60  # fragmented bytes that do not exist
    sealed.write_bytes(content)
    reseal(created.backup.path)
    (verified,) = verify_backups(app.settings, [store.read(app.settings, "one")])
    assert verified.flaws and "has no such damage: make a new one" in verified.hint
    app.database.write_bytes(content)
    (verified,) = verify_backups(app.settings, [store.read(app.settings, "one")])
    assert "is damaged too" in verified.hint and "older backup" in verified.hint
    assert "older backup" in run_here(app, "verify", "one", check=12).err


# Tables that only the app can read: the rest is checked all the same


def lacking(app: SmallApp, table: str, sql: str) -> None:
    """Give the table a definition that needs something SQLite does not have without the app."""
    with contextlib.closing(app.connect()) as live, live:
        live.execute("PRAGMA writable_schema = 1")
        live.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))


def test_a_collation_of_the_apps_own_hides_no_damage_of_other_tables(flawed: SmallApp) -> None:
    with contextlib.closing(flawed.connect()) as live, live:
        live.execute("CREATE TABLE sorted (a TEXT COLLATE NOCASE UNIQUE)")
    lacking(flawed, "sorted", "CREATE TABLE sorted (a TEXT COLLATE mine UNIQUE)")
    said = run_here(flawed, "backup", "flawed", check=3)
    assert "only be checked in part" in said.err and "by_a" in said.err


def test_a_tokenizer_of_the_apps_own_is_no_damage(app: SmallApp) -> None:
    """SQLite from 3.44 on opens such a table when it checks the database, and reports: SQL logic error."""
    with contextlib.closing(app.connect()) as live, live:
        live.execute("CREATE VIRTUAL TABLE words USING fts5(body)")
        live.execute("INSERT INTO words VALUES ('some words')")
    lacking(app, "words", "CREATE VIRTUAL TABLE words USING fts5(body, tokenize='mine')")
    run_here(app, "backup", "one", check=0)
    run_here(app, "verify", "one", check=0)
    run_here(app, "restore", "one", "--force", check=0)


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 44), reason="an older SQLite does not look into a search index")
@pytest.mark.parametrize("damage", ["DELETE FROM words_data WHERE id > 10", "DELETE FROM words_docsize WHERE id = 3"])
def test_a_search_index_that_is_damaged_is_built_anew_from_its_text(app: SmallApp, damage: str) -> None:
    with contextlib.closing(app.connect()) as live, live:
        live.execute("CREATE VIRTUAL TABLE words USING fts5(body)")
        live.executemany("INSERT INTO words VALUES (?)", [(f"some words {number}",) for number in range(50)])
    app.execute(damage)
    said = run_here(app, "backup", "flawed", check=3)
    assert "words" in said.err and "rebuild" in said.err
    fix(said.err)
    assert check(app.database, "integrity_check") == ["ok"]
