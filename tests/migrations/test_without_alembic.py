"""Without Alembic the schema itself is compared, and the last migration of Django or Rails is shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.migrations.migrate import migrate
from backupkit.migrations.upgrade import LossRefused, MigrationFailed
from backupkit.model.backup import AppMigrations, BackupRequest
from backupkit.model.errors import Refused
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from other_apps import OtherApp

DJANGO = "CREATE TABLE django_migrations (id INTEGER PRIMARY KEY, app TEXT, name TEXT, applied TEXT)"

# A small migration tool like Django's: it runs and records the migrations that its table lacks.
MANAGE = """
import os, sqlite3
live = sqlite3.connect(os.environ["ITS_DATABASE"], isolation_level=None)
done = {{row[0] for row in live.execute("SELECT name FROM django_migrations")}}
for name, statement in (
    ("0001_initial", ""),
    ("0002_colour", "ALTER TABLE notes ADD COLUMN colour TEXT"),
    {more}
):
    if name not in done:
        live.execute(statement)
        live.execute("INSERT INTO django_migrations (app, name) VALUES ('blog', ?)", (name,))
"""


@pytest.fixture
def plain(tmp_path: Path) -> OtherApp:
    """An app with three notes, and no tool for migrations."""
    app = OtherApp(tmp_path / "plain")
    app.query("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    app.query("CREATE TABLE tags (id INTEGER PRIMARY KEY)")
    app.query("INSERT INTO notes (text) VALUES ('one'), ('two'), ('three')")
    return app


@pytest.fixture
def django(plain: OtherApp) -> OtherApp:
    """The same app with Django's table, which holds the first migration."""
    plain.query(DJANGO)
    plain.query("INSERT INTO django_migrations (app, name) VALUES ('blog', '0001_initial')")
    plain.write("manage.py", MANAGE.format(more=""))
    return plain


COMMAND = {"migrate_command": f"{sys.executable} manage.py", "migrate_environment": ("ITS_DATABASE={path}",)}


def said_of(app: OtherApp) -> str:
    return app.command("restore", "old", "--dry-run", check=0).out


def test_the_same_schema_is_said_to_be_the_same(plain: OtherApp) -> None:
    create_backup(plain.settings(), BackupRequest("old"))
    plain.query("ANALYZE")
    plain.query("DELETE FROM notes")
    assert "The backup has the schema of the live database." in said_of(plain)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER TABLE notes ADD COLUMN colour TEXT", "notes"),
        ("CREATE INDEX by_text ON notes (text)", "notes"),
        ("DROP TABLE tags", "tags"),
        ("CREATE TABLE more (id INTEGER)", "more"),
        ("CREATE VIEW all_notes AS SELECT * FROM notes", "all_notes"),
    ],
)
def test_tables_that_differ_are_named(plain: OtherApp, change: str, named: str) -> None:
    create_backup(plain.settings(), BackupRequest("old"))
    plain.query(change)
    assert f"The schema differs from the live one: {named}." in said_of(plain)
    plain.command("restore", "old", "--force", check=0)
    assert "has the schema of the live database" in said_of(plain)


def test_djangos_last_migration_is_in_the_metadata_and_in_the_list(django: OtherApp) -> None:
    done = create_backup(django.settings(), BackupRequest("old"))
    assert done.backup.metadata
    assert done.backup.metadata.migrations == AppMigrations("django", "blog.0001_initial", 1)
    assert "django blog.0001_initial" in django.command("list", check=0).out
    assert "django blog.0001_initial" in django.command("show", "old", check=0).out
    django.query("INSERT INTO django_migrations (app, name) VALUES ('blog', '0002_colour')")
    assert "in it is blog.0001_initial; live it is blog.0002_colour" in said_of(django)


def test_railss_last_migration_is_too(plain: OtherApp) -> None:
    plain.query("CREATE TABLE schema_migrations (version VARCHAR NOT NULL PRIMARY KEY)")
    plain.query("INSERT INTO schema_migrations VALUES ('20240102030405'), ('20231231235959')")
    create_backup(plain.settings(), BackupRequest("old"))
    assert "rails 20240102030405" in plain.command("list", check=0).out
    create_backup(plain.settings(), BackupRequest("again"))  # linked from the first
    assert plain.command("list", check=0).out.count("rails 20240102030405") == 2


def test_a_table_that_only_has_the_name_is_none_of_theirs(plain: OtherApp) -> None:
    plain.query("CREATE TABLE schema_migrations (id INTEGER)")
    done = create_backup(plain.settings(), BackupRequest("old"))
    assert done.backup.metadata and done.backup.metadata.migrations is None


def test_migrate_without_a_command_says_what_to_set(django: OtherApp) -> None:
    with pytest.raises(Refused) as refused:
        migrate(django.settings())
    assert "BACKUP_MIGRATE_COMMAND" in refused.value.hint


def test_the_apps_own_command_goes_all_the_way(django: OtherApp) -> None:
    settings = django.settings(**COMMAND)
    create_backup(settings, BackupRequest("old"))
    environment = {"BACKUP_MIGRATE_COMMAND": str(COMMAND["migrate_command"])}
    environment["BACKUP_MIGRATE_ENVIRONMENT"] = "ITS_DATABASE={path}"
    django.command("verify", "old", "--test-restore", env=environment, check=0)
    said = django.command("migrate", env=environment, check=0).out
    assert "blog.0002_colour" in said
    assert [row[1] for row in django.query("PRAGMA table_info(notes)")] == ["id", "text", "colour"]
    plan = django.command("restore", "old", "--migrate", "--dry-run", env=environment, check=0).out
    assert "django_migrations: 2 -> 2" in plan or "unchanged" in plan
    django.query("DELETE FROM notes")
    restore_backup(settings, plan_restore(settings, "old", migrate=True))
    assert django.query("SELECT id, text, colour FROM notes") == [
        (1, "one", None),
        (2, "two", None),
        (3, "three", None),
    ]
    django.command("undo", "--force", env=environment, check=0)
    assert django.query("SELECT * FROM notes") == []


def test_with_nothing_to_migrate_nothing_is_made(django: OtherApp) -> None:
    settings = django.settings(**COMMAND)
    migrate(settings)
    count = len(store.all_backups(settings))
    assert migrate(settings) is None
    assert len(store.all_backups(settings)) == count
    with pytest.raises(Refused, match="newest revision only"):
        migrate(settings, "0001")


def test_a_command_that_fails_or_loses_data_leaves_the_live_database(django: OtherApp) -> None:
    django.write("manage.py", MANAGE.format(more='("0003_wrong", "SELECT nonsense"),'))
    with pytest.raises(MigrationFailed, match="no such column: nonsense"):
        migrate(django.settings(**COMMAND))
    django.write("manage.py", MANAGE.format(more='("0003_loses", "DELETE FROM notes"),'))
    with pytest.raises(LossRefused, match="3 of 3 rows of notes"):
        migrate(django.settings(**COMMAND))
    assert len(django.query("SELECT * FROM notes")) == 3
    assert django.query("SELECT name FROM django_migrations") == [("0001_initial",)]


def test_a_command_that_cannot_be_led_away_from_the_live_database_is_refused(django: OtherApp) -> None:
    script = (django.folder / "manage.py").read_text()
    django.write("manage.py", script.replace('os.environ["ITS_DATABASE"]', repr(str(django.database))))
    with pytest.raises(MigrationFailed, match="opened the live database"):
        migrate(django.settings(**COMMAND))
    assert [row[1] for row in django.query("PRAGMA table_info(notes)")] == ["id", "text"]
