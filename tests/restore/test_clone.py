"""`clone` lays a backup out elsewhere, and masks its personal data before anybody can read them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from refusals import assert_refusal, picture, run_here
from small_app import COMMAND, SmallApp, clean_environment, tree

MASK = """\
-- allow: applications.*
-- allow: documents.path
-- allow: documents.created_at
-- allow: reminders.*
UPDATE companies SET name = 'Company ' || hex(randomblob(4)), website = NULL;
UPDATE documents SET name = 'document ' || id;
"""
ENDLESS = "(WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT max(x) FROM n)"
SECRET = "Erika Mustermann"


@pytest.fixture
def app(app: SmallApp) -> SmallApp:
    """An app whose companies have private names, and its backup `good`."""
    app.execute("UPDATE companies SET name = ? || id", (SECRET,))
    run_here(app, "backup", "good", check=0)
    return app


@pytest.fixture
def target(app: SmallApp) -> Path:
    return app.folder.parent / "staging"


def mask(app: SmallApp, text: str = MASK, name: str = "mask.sql") -> str:
    (app.folder / name).write_text(text)
    return name


def rows(target: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(target / "data" / "pats.db")) as database:
        return database.execute(sql).fetchall()


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_clone_has_masked_rows_and_no_trace_of_the_others(app: SmallApp, target: Path) -> None:
    before = picture(app)
    done = run_here(app, "clone", str(target), "--mask", mask(app), check=0)
    assert "masked     by" in done.out and "Nothing live was touched" in done.out
    assert [name.startswith("Company ") for (name,) in rows(target, "SELECT name FROM companies")] == [True] * 3
    assert SECRET.encode() not in bytes_below(target)
    assert SECRET.encode() in (app.backups / "good" / "pats.db").read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    (app.folder / "mask.sql").unlink()
    assert picture(app) == before
    assert [path.name for path in target.parent.iterdir() if path.name.startswith(".draft")] == []


def test_without_a_mask_it_is_all_there(app: SmallApp, target: Path) -> None:
    run_here(app, "clone", str(target), "--from", "good", check=0)
    assert tree(target / "uploads") == tree(app.backups / "good" / "uploads")
    assert len(rows(target, "SELECT * FROM documents")) == 2
    run_here(app, "clone", str(target.with_name("two")), "--no-uploads", check=0)
    assert not (target.with_name("two") / "uploads").exists()


def test_uploads_go_along_with_a_mask_only_where_it_says_so(app: SmallApp, target: Path) -> None:
    done = run_here(app, "clone", str(target), "--mask", mask(app), "--json", check=0).json
    assert done["uploads"] is None and "-- uploads: keep" in done["notes"][0] and not (target / "uploads").exists()
    two = target.with_name("two")
    run_here(app, "clone", str(two), "--mask", mask(app, f"-- uploads: keep\n{MASK}"), check=0)
    assert (two / "uploads" / "1" / "letter.txt").exists()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("-- allow: documents.path\n", "documents.path is not masked: 2 values are as before."),
        ("UPDATE documents SET name = 'document ' || id;\n", "documents.name is not masked: 2 values"),
    ],
)
def test_a_column_that_is_neither_changed_nor_allowed_is_refused_by_name(
    app: SmallApp, target: Path, line: str, names: str
) -> None:
    name = mask(app, MASK.replace(line, ""))
    result = run_here(app, "clone", str(target), "--mask", name)
    assert_refusal(result, 2, names, "-- allow: documents")
    assert not target.exists() and bytes_below(target.parent / ".draft-staging") == b""


def test_a_mask_that_misses_a_row_is_refused(app: SmallApp, target: Path) -> None:
    name = mask(app, MASK.replace("website = NULL;", "website = NULL WHERE id > 1;"))
    assert_refusal(
        run_here(app, "clone", str(target), "--mask", name), 2, "companies.name is not masked: 1 val", "allow"
    )


@pytest.mark.parametrize(
    "moving",
    [
        "UPDATE companies SET id = id + 1000;",
        "UPDATE companies SET id = -id; UPDATE companies SET id = 4 + id;",
        "INSERT OR REPLACE INTO companies (id, name) SELECT id + 1000, name FROM companies;",
    ],
    ids=["all new keys", "keys of other rows", "copied rows"],
)
def test_a_row_that_got_another_key_still_has_its_texts(app: SmallApp, target: Path, moving: str) -> None:
    unmasked = MASK.replace(MASK[MASK.index("UPDATE companies") : MASK.index("UPDATE documents")], "")
    app.execute("DELETE FROM applications")
    app.execute("DELETE FROM documents")
    run_here(app, "backup", "alone", check=0)
    refused = run_here(app, "clone", str(target), "--mask", mask(app, unmasked + moving))
    assert_refusal(refused, 2, "companies.name is not masked: 3 values are as before", "-- allow: companies.name")
    masked = "UPDATE companies SET name = 'Company ' || hex(randomblob(4)), website = NULL;"
    run_here(app, "clone", str(target), "--mask", mask(app, unmasked + moving + masked), check=0)
    assert SECRET.encode() not in bytes_below(target)


def test_the_only_row_that_is_left_must_be_masked_too(app: SmallApp, target: Path) -> None:
    for table in ("applications", "documents", "reminders"):
        app.execute(f"DELETE FROM {table}")
    run_here(app, "backup", "alone", check=0)
    text = "-- allow: companies.website\nDELETE FROM companies WHERE id > 1;"
    assert_refusal(
        run_here(app, "clone", str(target), "--mask", mask(app, text)),
        2,
        "companies.name is not masked: 1 val",
        "allow",
    )
    done = run_here(app, "clone", str(target), "--mask", mask(app, f"{text} UPDATE companies SET name = 'x';"), check=0)
    assert done.code == 0 and rows(target, "SELECT name FROM companies") == [("x",)]


def test_texts_that_are_kept_beside_boxes_are_compared(app: SmallApp, target: Path) -> None:
    app.execute("CREATE VIRTUAL TABLE places USING rtree (id, x0, x1, +owner TEXT)")
    app.execute("INSERT INTO places VALUES (1, 0, 1, ?)", (SECRET,))
    run_here(app, "backup", "boxes", check=0)
    assert_refusal(run_here(app, "clone", str(target), "--mask", mask(app)), 2, "places.owner is not masked", "allow")
    run_here(app, "clone", str(target), "--mask", mask(app, f"{MASK}UPDATE places SET owner = 'x';"), check=0)
    assert SECRET.encode() not in bytes_below(target)


def test_every_column_that_stayed_is_named(app: SmallApp, target: Path) -> None:
    err = run_here(app, "clone", str(target), "--mask", mask(app, "DELETE FROM reminders;")).err
    assert all(name in err for name in ("companies.name", "documents.name", "documents.path", "applications.position"))
    assert "alembic_version" not in err


def test_rows_that_were_deleted_before_are_in_no_free_page(app: SmallApp, target: Path) -> None:
    with contextlib.closing(app.connect()) as live, live:
        live.execute("PRAGMA secure_delete = OFF")
        live.execute("INSERT INTO companies (name) VALUES (?)", ("deleted long ago " * 50,))
        live.commit()
        live.execute("DELETE FROM companies WHERE name LIKE 'deleted%'")
    run_here(app, "backup", "later", check=0)
    assert b"deleted long ago" in (app.backups / "later" / "pats.db").read_bytes()
    run_here(app, "clone", str(target), "--mask", mask(app), check=0)
    assert b"deleted long ago" not in bytes_below(target)


def test_triggers_keep_nothing_of_what_was_masked_and_are_there_afterwards(app: SmallApp, target: Path) -> None:
    app.execute("CREATE TABLE audit (old TEXT)")
    app.execute("CREATE TRIGGER keep AFTER UPDATE ON companies BEGIN INSERT INTO audit VALUES (old.name); END")
    run_here(app, "backup", "later", check=0)
    run_here(app, "clone", str(target), "--mask", mask(app), check=0)
    assert rows(target, "SELECT * FROM audit") == [] and SECRET.encode() not in bytes_below(target)
    assert rows(target, "SELECT name FROM sqlite_master WHERE type = 'trigger'") == [("keep",)]


def test_search_indexes_are_made_of_the_masked_text(app: SmallApp, target: Path) -> None:
    app.execute("CREATE VIRTUAL TABLE found USING fts5(name, content='companies', content_rowid='id')")
    app.execute("INSERT INTO found (found) VALUES ('rebuild')")
    app.execute("CREATE VIRTUAL TABLE own USING fts5(body)")
    app.execute("INSERT INTO own VALUES (?)", (f"a letter to {SECRET}",))
    run_here(app, "backup", "later", check=0)
    assert_refusal(run_here(app, "clone", str(target), "--mask", mask(app)), 2, "own.body is not masked", "allow")
    run_here(app, "clone", str(target), "--mask", mask(app, f"{MASK}UPDATE own SET body = 'a letter';"), check=0)
    assert rows(target, "SELECT count(*) FROM found WHERE found MATCH 'mustermann'") == [(0,)]
    assert rows(target, "SELECT count(*) FROM found WHERE found MATCH 'company'") == [(3,)]
    assert b"mustermann" not in bytes_below(target).lower()


def test_a_search_index_without_content_is_refused(app: SmallApp, target: Path) -> None:
    app.execute("CREATE VIRTUAL TABLE words USING fts5(name, content='')")
    app.execute("INSERT INTO words (rowid, name) VALUES (1, ?)", (SECRET,))
    run_here(app, "backup", "later", check=0)
    assert_refusal(run_here(app, "clone", str(target), "--mask", mask(app)), 2, "The search index words", "drop")
    assert not target.exists()


def test_samples_that_analyze_kept_are_gone(app: SmallApp, target: Path) -> None:
    app.execute("CREATE INDEX by_name ON companies (name)")
    app.execute("ANALYZE")
    run_here(app, "backup", "later", check=0)
    run_here(app, "clone", str(target), "--mask", mask(app), check=0)
    assert SECRET.encode() not in bytes_below(target)


HOSTILE = (
    ("ATTACH 'x.db' AS x;", "it asks for ATTACH"),
    ("PRAGMA writable_schema = ON;", "it asks for PRAGMA writable_schema"),
    ("SELECT load_extension('x');", "load_extension"),
    ("SELECT writefile('x', 'y');", "writefile"),
    ("CREATE TABLE copied AS SELECT * FROM companies;", "cannot be run"),
    ("CREATE TRIGGER t AFTER UPDATE ON companies BEGIN SELECT 1; END;", "cannot be run"),
    ("DROP TABLE companies;", "cannot be run"),
    ("COMMIT;", "cannot be run"),
    ("UPDATE sqlite_master SET sql = '';", "cannot be run"),
    ("VACUUM INTO 'x.db';", "cannot be run"),
    ("UPDATE missing SET a = 1;", "no such table: missing"),
    ("this is not SQL;", "syntax error"),
    ("UPDATE companies SET name = 1", "its last statement does not end"),
    (".shell touch x", "does not end"),
    ("UPDATE applications SET company_id = 999;", "FOREIGN KEY"),
    ("-- allow: companies", "which is not a column"),
)


@pytest.mark.parametrize(("text", "names"), HOSTILE, ids=[text for text, _ in HOSTILE])
def test_a_mask_that_asks_for_more_than_rows_or_is_no_sql_is_refused(
    app: SmallApp, target: Path, text: str, names: str
) -> None:
    before = {path.name for path in app.folder.rglob("*")}
    result = run_here(app, "clone", str(target), "--mask", mask(app, text))
    assert_refusal(result, 12, names, ".")
    assert not target.exists() and {path.name for path in app.folder.rglob("*")} - before <= {"mask.sql", ".state"}


def test_a_mask_that_never_ends_is_ended(app: SmallApp, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backupkit.sqlite import mask as masks

    monkeypatch.setattr(masks.apply, "__defaults__", (0.5,))
    endless = f"UPDATE companies SET name = {ENDLESS};"
    assert_refusal(
        run_here(app, "clone", str(target), "--mask", mask(app, endless)), 12, "not done after 0.5 s", "mask"
    )


def test_a_mask_that_is_not_there_or_no_text(app: SmallApp, target: Path) -> None:
    assert_refusal(run_here(app, "clone", str(target), "--mask", "no.sql"), 10, "no mask at", "app's folder")
    assert_refusal(run_here(app, "clone", str(target), "--mask", "data"), 2, "is a folder", "Name a file")
    (app.folder / "x.sql").write_bytes(b"\xff\xfe")
    assert_refusal(run_here(app, "clone", str(target), "--mask", "x.sql"), 12, "not UTF-8", "Save it")


def test_a_target_in_live_data_or_not_empty_is_refused(app: SmallApp, target: Path) -> None:
    target.mkdir()
    (target / "x").touch()
    for wrong in (target, app.uploads / "x", app.backups / "x", app.database.parent):
        assert_refusal(run_here(app, "clone", str(wrong), "--mask", mask(app)), 2, str(wrong), "Name")


def test_a_dry_run_reads_the_mask_and_writes_nothing(app: SmallApp, target: Path) -> None:
    done = run_here(app, "clone", str(target), "--mask", mask(app), "--dry-run", check=0)
    assert "2 statements" in done.out and not target.exists()
    assert run_here(app, "clone", str(target), "--mask", mask(app, "no end"), "--dry-run").code == 12


def test_killed_while_it_masks_nothing_has_the_name_and_the_next_run_clears(app: SmallApp, target: Path) -> None:
    slow = f"{MASK}UPDATE companies SET website = {ENDLESS};"
    child = subprocess.Popen(
        [sys.executable, str(COMMAND), "clone", str(target), "--mask", mask(app, slow)],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    draft, until = target.with_name(".draft-staging"), time.monotonic() + 60
    while not list(draft.glob("whole/data/*-journal")) and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not target.exists() and stat.S_IMODE(os.stat(draft).st_mode) == 0o700
    run_here(app, "clone", str(target), "--mask", mask(app), check=0)
    assert not draft.exists() and SECRET.encode() not in bytes_below(target)


def test_further_databases_stay_behind_where_there_is_a_mask(app: SmallApp, target: Path) -> None:
    """A mask covers the main database only, even if it keeps the uploads."""
    with contextlib.closing(sqlite3.connect(app.database.with_name("cache.db"))) as further, further:
        further.execute("CREATE TABLE people (name TEXT)")
        further.execute("INSERT INTO people VALUES (?)", (SECRET,))
    (app.folder / "backup.toml").write_text('[databases.cache]\npath = "data/cache.db"\n')
    run_here(app, "backup", "both", check=0)
    for text in (MASK, f"-- uploads: keep\n{MASK}"):
        done = run_here(app, "clone", str(target), "--mask", mask(app, text), check=0)
        assert SECRET.encode() not in bytes_below(target) and not list(target.rglob("cache.db*"))
        assert "left out: cache." in done.out
        shutil.rmtree(target)
