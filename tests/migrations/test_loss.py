"""A migration that loses data is refused unless the loss is expected, and a plan shows the result of a migration."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.migrations.loss import Filled, losses
from backupkit.migrations.migrate import migrate
from backupkit.migrations.upgrade import LossRefused, MigrationFailed
from backupkit.model.backup import BackupRequest
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from other_apps import ENV, OtherApp

NOTES = Filled(10, {"id": 10, "text": 8})

# Contents before and after, and the losses.
CASES = {
    "nothing changed": ({"notes": NOTES}, {"notes": NOTES}, []),
    "a new table and a new column": (
        {"notes": NOTES},
        {"notes": Filled(10, {"id": 10, "text": 8, "colour": 0}), "tags": Filled(0)},
        [],
    ),
    "rows": ({"notes": NOTES}, {"notes": Filled(7, {"id": 7, "text": 6})}, ["3 of 10 rows of notes"]),
    "all rows": ({"notes": NOTES}, {"notes": Filled(0, {"id": 0, "text": 0})}, ["10 of 10 rows of notes"]),
    "a table": ({"notes": NOTES}, {}, ["notes and its 10 rows"]),
    "an empty table": ({"notes": Filled(0)}, {}, []),
    "a renamed table": ({"notes": NOTES}, {"remarks": NOTES}, []),
    "a renamed table with a renamed column": ({"notes": NOTES}, {"remarks": Filled(10, {"id": 10, "body": 8})}, []),
    "a table replaced by a smaller one": (
        {"notes": NOTES},
        {"remarks": Filled(4, {"id": 4})},
        ["notes and its 10 rows"],
    ),
    "a table replaced by one of other columns": (
        {"notes": NOTES},
        {"sizes": Filled(10, {"width": 10, "height": 10})},
        ["notes and its 10 rows"],
    ),
    "two tables for one new": (
        {"notes": NOTES, "others": NOTES},
        {"remarks": NOTES},
        ["others and its 10 rows"],
    ),
    "a column": ({"notes": NOTES}, {"notes": Filled(10, {"id": 10})}, ["8 of 8 values of notes.text"]),
    "a column that held nothing": ({"notes": Filled(10, {"id": 10, "text": 0})}, {"notes": Filled(10, {"id": 10})}, []),
    "a renamed column": ({"notes": NOTES}, {"notes": Filled(10, {"id": 10, "body": 8})}, []),
    "a column renamed half": (
        {"notes": NOTES},
        {"notes": Filled(10, {"id": 10, "body": 3})},
        ["8 of 8 values of notes.text"],
    ),
    "two columns for one new": (
        {"notes": Filled(10, {"first": 10, "last": 10})},
        {"notes": Filled(10, {"name": 10})},
        ["10 of 10 values of notes.last"],
    ),
    "values": ({"notes": NOTES}, {"notes": Filled(10, {"id": 10, "text": 2})}, ["6 of 8 values of notes.text"]),
    "values beyond those of the lost rows": (
        {"notes": NOTES},
        {"notes": Filled(9, {"id": 9, "text": 2})},
        ["1 of 10 rows of notes", "5 of 8 values of notes.text"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_there_and_is_nowhere_is_a_loss(case: str) -> None:
    before, after, told = CASES[case]
    assert [one.text for one in losses(before, after)] == told


# Foreign keys that cascade, and a batch migration, which drops the table

WITH_KEYS = ENV.replace(
    "with context",
    "connection.exec_driver_sql('PRAGMA foreign_keys=ON')\n    with context",
)
BATCH = """
with op.batch_alter_table("notes", recreate="always") as batch:
    batch.add_column(sa.Column("colour", sa.Text))
"""


@pytest.fixture
def other(tmp_path: Path) -> OtherApp:
    """An app whose next migration deletes the comments: they refer to notes, and are deleted with them."""
    app = OtherApp.usual(tmp_path / "other", env=WITH_KEYS)
    app.migration("b2", BATCH, "a1")
    app.query("CREATE TABLE comments (id INTEGER PRIMARY KEY, note INTEGER REFERENCES notes (id) ON DELETE CASCADE)")
    app.query("INSERT INTO comments (note) SELECT id FROM notes")
    return app


def test_the_usual_batch_migration_does_delete_the_rows_without_the_gate(other: OtherApp) -> None:
    """Without SQLite's cascade the tests below would prove nothing."""
    done = other.typed(f"cd {other.folder} && alembic upgrade head")
    assert done.returncode == 0, done.stderr
    assert other.query("SELECT * FROM comments") == []


def test_a_migration_that_deletes_rows_by_cascade_is_refused(other: OtherApp) -> None:
    done = other.command("migrate")
    assert done.code == 1
    assert "3 of 3 rows of comments" in done.err
    assert "--expect-loss comments" in done.err and "foreign_keys" in done.err
    assert other.revisions() == {"a1"} and len(other.query("SELECT * FROM comments")) == 3


def test_a_loss_that_is_expected_goes_ahead_and_can_be_undone(other: OtherApp) -> None:
    with pytest.raises(LossRefused):
        migrate(other.settings(), expect_loss=("notes",))
    other.command("migrate", "--expect-loss", "comments", check=0)
    assert other.revisions() == {"b2"} and other.query("SELECT * FROM comments") == []
    other.command("undo", "--force", check=0)
    assert len(other.query("SELECT * FROM comments")) == 3


def test_restore_migrate_refuses_a_loss_before_anything_is_made(other: OtherApp) -> None:
    create_backup(other.settings(), BackupRequest("old"))
    for more in ((), ("--dry-run",), ("--force",)):
        done = other.command("restore", "old", "--migrate", *more)
        assert done.code == 1 and "3 of 3 rows of comments" in done.err and "--expect-loss comments" in done.err
    assert [one.name for one in store.all_backups(other.settings())] == ["old"]
    assert [one.name for one in other.backups.iterdir() if one.name.startswith(".draft")] == []
    assert "goes with --migrate" in other.command("restore", "old", "--expect-loss", "comments", "--yes", check=2).err
    done = other.command("restore", "old", "--migrate", "--expect-loss", "comments", "--force", check=0)
    assert "3 of 3 rows of comments" in done.err  # the plan shows it
    assert other.revisions() == {"b2"} and other.query("SELECT * FROM comments") == []


def test_a_dropped_column_with_values_is_refused(other: OtherApp) -> None:
    other.migration("b2", "op.execute('ALTER TABLE notes DROP COLUMN text')", "a1")
    with pytest.raises(LossRefused, match=r"3 of 3 values of notes\.text"):
        migrate(other.settings())
    assert migrate(other.settings(), expect_loss=("notes",))


def test_a_table_of_two_thousand_columns_is_counted(other: OtherApp) -> None:
    other.migration("b2", "op.execute('UPDATE wide SET c1999 = NULL')", "a1")
    other.query(f"CREATE TABLE wide ({', '.join(f'c{number}' for number in range(2000))})")
    other.query("INSERT INTO wide (c1999) VALUES (1)")
    with pytest.raises(LossRefused, match=r"1 of 1 value of wide\.c1999"):
        migrate(other.settings())


def test_a_test_restore_says_what_the_migration_would_lose(other: OtherApp) -> None:
    create_backup(other.settings(), BackupRequest("old"))
    done = other.command("verify", "old", "--test-restore", check=3)
    assert "3 of 3 rows of comments" in done.err


# What the plan shows


def test_the_plan_shows_revision_and_rows_after_the_migration(other: OtherApp) -> None:
    other.migration("b2", "op.execute('CREATE TABLE tags AS SELECT id FROM notes')", "a1")
    create_backup(other.settings(), BackupRequest("old"))
    said = other.command("restore", "old", "--migrate", "--dry-run", check=0).out
    assert "revision a1 -> b2" in said and "tags: - -> 3" in said
    plan = other.command("restore", "old", "--migrate", "--dry-run", "--json", check=0).json
    assert (plan["revisions_after"], plan["rows_after"]["tags"]) == (["b2"], 3)
    assert other.revisions() == {"a1"}
    assert "revision a1 -> a1" in other.command("restore", "old", "--dry-run", check=0).out


def test_what_was_not_shown_is_not_done(other: OtherApp) -> None:
    counting = "__import__('pathlib').Path('times').open('a').write('x')\nx = len(open('times').read())\n"
    other.migration("b2", counting + "op.execute(f'DELETE FROM comments WHERE id < {x}')", "a1")
    create_backup(other.settings(), BackupRequest("old"))
    plan = plan_restore(other.settings(), "old", migrate=True, expect_loss=("comments",))
    with pytest.raises(MigrationFailed, match="other rows than in the rehearsal"):
        restore_backup(other.settings(), plan)
    assert len(other.query("SELECT * FROM comments")) == 3 and other.revisions() == {"a1"}


def test_the_plan_counts_what_differs_after_the_migration_and_folds_the_rest(other: OtherApp) -> None:
    for number in range(180):
        other.query(f"CREATE TABLE same_{number:03} (id INTEGER PRIMARY KEY)")
    other.migration("b2", 'op.execute("UPDATE comments SET note = 1 WHERE id = 3")', "a1")
    create_backup(other.settings(), BackupRequest("old"))
    said = other.command("restore", "old", "--migrate", "--dry-run", check=0).out
    assert "comments: 3 -> 3 (1 changed)" in said and "unchanged: 18" in said
    assert "same_" not in said
