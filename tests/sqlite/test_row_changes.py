"""A restore's plan counts the rows that differ as far as time allows, and names the tables it could not compare."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from backupkit.backup.create import create_backup
from backupkit.backup.sql_dump import dump
from backupkit.model.backup import BackupRequest
from backupkit.restore.restore import RestorePlan, plan_restore
from backupkit.sqlite import rows
from backupkit.sqlite.rows import Changes
from hands import Person, at_the_window
from refusals import run_here
from small_app import SmallApp


def plan(app: SmallApp, name: str = "good") -> RestorePlan:
    return plan_restore(app.settings, name)


def test_rows_that_were_all_changed_are_told_though_there_are_as_many(app: SmallApp) -> None:
    app.add_rows(22)
    create_backup(app.settings, BackupRequest("good"))
    app.execute("UPDATE companies SET name = name || '!'")
    assert plan(app).live.changes["companies"] == Changes(changed=25)
    said = run_here(app, "restore", "good", "--dry-run", check=0).out
    assert "companies: 25 -> 25 (25 changed)" in said
    assert "unchanged: 6 tables" in said and "interviews" not in said


def test_rows_that_come_back_change_and_go_are_told_apart(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(5)
    app.execute("UPDATE companies SET name = 'x' WHERE id = 1")
    app.execute("DELETE FROM documents")
    changes = plan(app).live.changes
    assert changes["companies"] == Changes(added=0, changed=1, removed=5)
    assert changes["documents"] == Changes(added=2, changed=0, removed=0)
    said = run_here(app, "restore", "good", "--dry-run", check=0).out
    assert "companies: 8 -> 3 (1 changed, 5 removed)" in said
    assert "documents: 0 -> 2 (2 restored)" in said
    document = run_here(app, "restore", "good", "--dry-run", "--json", check=0).json
    assert document["live"]["changes"]["documents"] == {"added": 2, "changed": 0, "removed": 0}


@pytest.mark.parametrize("value", ["'A'", "x'0041'", "NULL", "1.5", "'a '"])
def test_a_value_that_differs_in_case_kind_or_space_is_a_change(app: SmallApp, value: str) -> None:
    app.execute("CREATE TABLE odd (id INTEGER PRIMARY KEY, what TEXT COLLATE NOCASE)")
    app.execute("INSERT INTO odd VALUES (1, 'a')")
    create_backup(app.settings, BackupRequest("good"))
    assert plan(app).live.changes["odd"] == Changes()
    app.execute(f"UPDATE odd SET what = {value}")
    assert plan(app).live.changes["odd"] == Changes(changed=1)


def test_tables_with_whatever_names_and_keys_are_compared(app: SmallApp) -> None:
    app.execute('CREATE TABLE "a FROM b; --" ("x FROM y" PRIMARY KEY, "WHERE") WITHOUT ROWID')
    app.execute('CREATE TABLE "no key" (rowid TEXT, x)')
    for table in ("a FROM b; --", "no key"):
        app.execute(f"INSERT INTO \"{table}\" VALUES ('k', 1), ('l', 2)")
    create_backup(app.settings, BackupRequest("good"))
    app.execute('UPDATE "a FROM b; --" SET "WHERE" = 3 WHERE "x FROM y" = \'k\'')
    app.execute('DELETE FROM "no key" WHERE x = 2')
    changes = plan(app).live.changes
    assert changes["a FROM b; --"] == Changes(changed=1)
    assert changes["no key"] == Changes(added=1)


def test_what_takes_too_long_is_named_and_the_small_tables_come_first(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.execute("CREATE TABLE large (id INTEGER PRIMARY KEY, x)")
    with contextlib.closing(app.connect()) as live, live:
        live.executemany("INSERT INTO large (x) VALUES (?)", ((f"row {n}",) for n in range(200_000)))
    create_backup(app.settings, BackupRequest("good"))
    app.execute("UPDATE large SET x = x || '!' WHERE id % 2")
    app.execute("UPDATE companies SET name = 'x' WHERE id = 1")
    monkeypatch.setattr(rows, "time", SimpleNamespace(monotonic=itertools.count().__next__))  # each reading adds 1
    found = plan_restore(app.settings.replaced(compare_timeout=150), "good")
    assert "large" not in found.live.changes and found.live.changes["companies"] == Changes(changed=1)
    said = run_here(app, "restore", "good", "--dry-run", env={"BACKUP_COMPARE_TIMEOUT": "150"}, check=0).out
    assert (
        "not compared row by row (other columns, or the time was over): large" in said
        and "large: 200000 -> 200000\n" in said
    )


def test_a_table_of_another_shape_is_not_called_unchanged(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.execute("ALTER TABLE reminders ADD COLUMN more TEXT")
    said = run_here(app, "restore", "good", "--dry-run", check=0).out
    assert (
        "not compared row by row (other columns, or the time was over): reminders" in said
        and "unchanged: 6 tables" in said
    )


def test_a_hundred_and_eighty_unchanged_tables_are_one_line(app: SmallApp) -> None:
    with contextlib.closing(app.connect()) as live, live:
        for number in range(180):
            live.execute(f"CREATE TABLE t{number} (x)")
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(1)
    said = run_here(app, "restore", "good", "--dry-run", check=0).out
    assert "unchanged: 185 tables" in said and len(said.splitlines()) < 15


def test_a_database_that_is_the_wanted_one_already_is_not_read_again(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    dump(app.settings, app.backups / "text.sql")
    assert set(plan(app).live.changes.values()) == {Changes()}
    said = run_here(app, "restore-dump", "text.sql", "--dry-run", check=0).out
    assert "unchanged: 7 tables" in said


def test_a_live_database_in_another_encoding_is_compared_by_numbers_alone(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    for leftover in app.database.parent.glob("pats.db*"):
        leftover.unlink()
    with contextlib.closing(app.connect()) as live:
        live.execute("PRAGMA encoding = 'UTF-16le'")
        live.execute("CREATE TABLE companies (id INTEGER PRIMARY KEY, name)")
        live.commit()
    found = plan(app)
    assert found.live.changes == {} and found.live.rows == {"companies": 0}


def test_the_window_shows_rows_that_differ(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.execute("UPDATE companies SET name = name || '!'")

    async def story(person: Person) -> None:
        await person.sees("good")
        await person.press("R")
        await person.sees("companies", "3 changed", "unchanged: 6 tables")

    at_the_window(app, story, place="backups", size=(120, 40))


@pytest.mark.parametrize(
    "shape",
    [
        "id INTEGER PRIMARY KEY, a, b",
        "id INTEGER PRIMARY KEY DESC, a, b",
        "id INT PRIMARY KEY, a, b",
        "id TEXT PRIMARY KEY, a, b",
        "id TEXT COLLATE NOCASE PRIMARY KEY, a, b) WITHOUT ROWID --",
        "id, a, b, PRIMARY KEY (id, a)",
        'id INTEGER PRIMARY KEY, "a WHERE b" AS (1), a, b',
    ],
)
def test_changes_are_counted_alike_whatever_the_key_is(tmp_path: Path, shape: str) -> None:
    files = [tmp_path / name for name in ("now.db", "past.db")]
    for number, file in enumerate(files):
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute(f'CREATE TABLE "t WHERE" ({shape})')
            for key in range(200):
                if key % (7 + number):
                    values = (key, key % 3, f"{key} {number if key % 5 == 0 else ''}")
                    connection.execute('INSERT INTO "t WHERE" (id, a, b) VALUES (?, ?, ?)', values)
            connection.commit()
    keys = [{key for key in range(200) if key % (7 + number)} for number in range(2)]
    now, past = keys
    changed = sum(key % 5 == 0 for key in now & past)
    with contextlib.closing(sqlite3.connect(files[0].as_uri(), uri=True)) as connection:
        found = rows.count_changes(connection, ["t WHERE"], files[1], 60)
    assert found == {"t WHERE": Changes(len(past - now), changed, len(now - past))}


def test_rows_without_a_key_are_not_taken_for_one(tmp_path: Path) -> None:
    """A primary key that is not the row id may be NULL in several rows."""
    files = [tmp_path / name for name in ("now.db", "past.db")]
    for file in files:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE t (id INT PRIMARY KEY, a)")
            connection.executemany("INSERT INTO t VALUES (NULL, ?)", [("x",), ("x",)])
            connection.commit()
    with contextlib.closing(sqlite3.connect(files[0].as_uri(), uri=True)) as connection:
        assert rows.count_changes(connection, ["t"], files[1], 60) == {"t": Changes()}
