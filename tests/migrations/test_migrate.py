"""A migration has a backup, a rehearsal and a way back, and a backup can be migrated before it goes live."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.migrations.migrate import migrate
from backupkit.migrations.upgrade import MigrationFailed
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.model.errors import Refused, SchemaMismatch
from backupkit.monitoring.doctor import examine
from backupkit.repository import store
from backupkit.restore import journal
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from others import USER, give, python_for_all
from small_app import BACKEND, COMMAND, DOCUMENTS, HEAD, MERGED, Contents, SmallApp, clean_environment

DEFAULT_ENV = """
from alembic import context
from sqlalchemy import create_engine
with create_engine(context.config.get_main_option("sqlalchemy.url")).connect() as connection:
    context.configure(connection=connection, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
"""

BROKEN = '''
"""Halfway."""
import os, pathlib, signal, time
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "badbadbadbad", "{head}", None, None

def upgrade():
    live = not os.path.islink(os.environ["BACKUP_DATABASE"])
    op.create_table("halfway", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("UPDATE companies SET name = name || ' migrated'")
    op.create_table("halfway_there", sa.Column("id", sa.Integer, primary_key=True))
    {then}
'''


def add_migration(app: SmallApp, then: str, env: str = DEFAULT_ENV) -> None:
    """Add a migration whose last line is `then`; in it, `live` says whether it runs on the live database."""
    text = BROKEN.format(head=HEAD, then=then)
    (app.folder / "alembic" / "versions" / "badbadbadbad_halfway.py").write_text(text)
    if env:
        (app.folder / "alembic" / "env.py").write_text(env)


def assert_nothing_is_left(app: SmallApp) -> None:
    assert not (app.database.parent / STAGING).exists()
    assert not journal.exists(app.backups)
    assert [path.name for path in app.backups.iterdir() if path.name.startswith(".draft")] == []


def rows_only(contents: Contents) -> Contents:
    return Contents(contents.schema, contents.rows, {})


def test_the_live_database_is_migrated_and_the_backup_held(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    before = app.contents()
    done = migrate(app.settings)
    assert done
    assert app.revisions() == {HEAD}
    assert len(done.migrations) == 4 and all(one.title for one in done.migrations)
    assert done.rows_before["companies"] == done.rows_after["companies"] == len(before.rows["companies"])
    backup = store.find(app.settings, done.backup)
    assert backup.pinned and backup.metadata and backup.metadata.kind == "pre_migration"
    assert_nothing_is_left(app)
    create_backup(app.settings, BackupRequest("next"))
    assert not store.find(app.settings, done.backup).pinned


def test_a_migration_can_be_undone(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    before = app.contents()
    migrate(app.settings)
    kept = app.write_upload("since then", b"x")
    restore_backup(app.settings, plan_undo(app.settings))
    assert rows_only(app.contents()) == rows_only(before)
    assert kept.exists()
    restore_backup(app.settings, plan_undo(app.settings))
    assert app.revisions() == {HEAD}


def test_with_nothing_to_migrate_nothing_is_made(app: SmallApp) -> None:
    assert migrate(app.settings) is None
    assert store.all_backups(app.settings) == []
    assert app.command("migrate", check=0).out == "The database is at head already: nothing to migrate.\n"
    (app.folder / "alembic.ini").unlink()
    said = app.command("migrate", "--if-any", check=0).out
    assert said == "This app has neither Alembic nor BACKUP_MIGRATE_COMMAND: nothing to migrate.\n"


def test_one_step_and_an_unknown_one(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    migrate(app.settings, MERGED)
    assert app.revisions() == {MERGED}
    with pytest.raises(Refused, match="nonsense"):
        migrate(app.settings, "nonsense")
    app.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    with pytest.raises(SchemaMismatch, match="feedfacecafe of the database") as refused:
        migrate(app.settings)
    assert "--force" not in refused.value.hint, "`migrate` has no such option"


def test_a_migration_that_fails_in_the_rehearsal_never_touches_the_live_database(app: SmallApp) -> None:
    add_migration(app, "raise ValueError('this migration is wrong')")
    before = app.contents()
    inode = app.database.stat().st_ino
    result = app.command("migrate")
    assert result.code == 1
    assert "rehearsal" in result.err and "ValueError: this migration is wrong" in result.err
    assert "Traceback" not in result.err
    assert (app.contents(), app.database.stat().st_ino) == (before, inode)
    assert_nothing_is_left(app)


def test_a_migration_that_is_interrupted_says_so(app: SmallApp) -> None:
    add_migration(app, "live and (os.kill(os.getppid(), 15), __import__('time').sleep(20))")
    before = app.contents()
    result = app.command("migrate")
    assert "rolled back: it was interrupted" in " ".join(result.err.split()), result.err
    assert app.contents() == before


@pytest.mark.parametrize("env", [DEFAULT_ENV, ""], ids=["the usual env.py", "the reference app's"])
def test_a_migration_that_fails_halfway_on_the_live_database_is_taken_back(app: SmallApp, env: str) -> None:
    add_migration(app, "assert not live, 'only there'", env)
    before = app.contents()
    result = app.command("migrate")
    assert result.code == 1
    assert "AssertionError: only there" in result.err and "as it was before the migration" in result.err
    assert app.contents() == before
    assert_nothing_is_left(app)


def test_the_usual_env_py_does_leave_half_a_migration_behind_without_the_net(app: SmallApp) -> None:
    """If SQLite rolled back DDL by itself, the test above would prove nothing."""
    add_migration(app, "raise ValueError('halfway')")
    app.execute("PRAGMA journal_mode=DELETE")
    script = (
        "import sys; from alembic import command; from alembic.config import Config; c = Config('alembic.ini');"
        "c.set_main_option('sqlalchemy.url', 'sqlite:///' + sys.argv[1]); command.upgrade(c, 'head')"
    )
    environment = {**clean_environment(), "BACKUP_DATABASE": str(app.database)}
    subprocess.run(
        [sys.executable, "-c", script, str(app.database)], cwd=app.folder, env=environment, capture_output=True
    )
    assert "halfway" in app.tables()


def test_a_migration_that_is_killed_on_the_live_database_is_taken_back_by_the_next_command(app: SmallApp) -> None:
    add_migration(app, "live and os.kill(os.getppid(), signal.SIGKILL); live and time.sleep(0.5)")
    before = app.contents()
    child = subprocess.run(
        [sys.executable, str(COMMAND), "migrate"],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        capture_output=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    assert journal.exists(app.backups)
    # Waits for the orphan, which has the lock.
    ended = app.command("recover", env={"BACKUP_LOCK_TIMEOUT": "20"}, check=3)
    said = " ".join(ended.err.split())
    assert "What the unfinished migration wrote, and the app since it began, is kept in" in said, said
    assert "The database was written to since" not in said
    assert app.contents() == before
    assert_nothing_is_left(app)
    (kept,) = [one for one in store.all_backups(app.settings) if one.metadata and one.metadata.kind == "pre_restore"]
    assert "the unfinished migration wrote" in (kept.metadata.note if kept.metadata else "")


def test_an_env_py_that_insists_on_the_live_database_is_stopped(app: SmallApp) -> None:
    insisting = DEFAULT_ENV.replace(
        'context.config.get_main_option("sqlalchemy.url")', repr(f"sqlite:///{app.database}")
    )
    add_migration(app, "pass", insisting)
    before = app.contents()
    with pytest.raises(MigrationFailed, match="opened the live database"):
        migrate(app.settings)
    assert app.contents() == before


@pytest.mark.parametrize(
    "change",
    [
        "(uploads / '1' / 'letter.txt').unlink()",
        "(uploads / '1' / 'letter.txt').write_text('')",
        "(uploads / '1' / 'letter.txt').chmod(0)",
        "(uploads / '1').rename(uploads / 'moved')",
        "os.rename(os.environ['BACKUP_DATABASE'], uploads / 'moved')",
        "os.truncate(uploads / '1' / 'letter.txt', 0)",
        "__import__('shutil').rmtree(uploads)",
        "__import__('shutil').rmtree(uploads / '1', ignore_errors=False)",
        "os.unlink('letter.txt', dir_fd=os.open(uploads / '1', os.O_RDONLY))",
        "os.symlink('/', uploads / 'link')",
        "os.utime(uploads / '1' / 'letter.txt', (0, 0))",
    ],
)
def test_a_migration_that_changes_uploads_is_not_rehearsed_on_the_live_ones(app: SmallApp, change: str) -> None:
    app.write_upload("1/letter.txt", b"of somebody")
    app.command("backup", "old", check=0)
    add_migration(app, f"uploads = pathlib.Path({str(app.uploads)!r})\n    if not live:\n        {change}")
    before = app.contents()
    for command in (["migrate", "--dry-run"], ["migrate"], ["restore", "old", "--migrate", "--yes"]):
        refused = app.command(*command, check=1)
        assert "changed the live uploads" in refused.err and "Run that migration by hand: " in refused.err
    assert "changed the live uploads" in app.command("verify", "old", "--test-restore").err
    assert app.contents() == before
    assert_nothing_is_left(app)


def test_a_migration_that_reads_uploads_and_asks_for_folders_that_are_there_is_rehearsed(app: SmallApp) -> None:
    reading = (
        "uploads.mkdir(exist_ok=True); (uploads / '1').mkdir(exist_ok=True); (uploads / '1/letter.txt').read_text()"
    )
    add_migration(app, f"uploads = pathlib.Path({str(app.uploads)!r}); {reading}")
    migrate(app.settings)
    assert app.revisions() == {"badbadbadbad"}


def test_an_env_py_that_takes_yet_another_database_is_noticed(app: SmallApp, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    add_migration(
        app, "pass", DEFAULT_ENV.replace('context.config.get_main_option("sqlalchemy.url")', repr(f"sqlite:///{other}"))
    )
    with pytest.raises(MigrationFailed):
        migrate(app.settings)
    assert app.revisions() == {HEAD}


def old_backup(app: SmallApp, revision: str = DOCUMENTS) -> None:
    app.at_revision(revision)
    create_backup(app.settings, BackupRequest("old"))
    app.at_revision(HEAD, rows=9)


def test_restore_migrate_brings_the_staged_copy_to_this_code_before_it_goes_live(app: SmallApp) -> None:
    old_backup(app)
    result = app.command("restore", "old", "--force", "--migrate", check=0)
    assert "to run on the copy" in result.err
    assert "Schema mismatch" not in result.out
    assert app.revisions() == {HEAD}
    assert len(app.rows("applications")) == 3
    assert names(app) == names_at_head(app)
    assert_nothing_is_left(app)


def names(app: SmallApp) -> list[object]:
    return [row[:3] for row in app.contents().schema]  # Alembic writes a table's constraints in any order


def names_at_head(app: SmallApp) -> list[object]:
    app.at_revision(HEAD)
    return names(app)


def test_restore_migrate_with_a_failing_migration_leaves_the_live_data(app: SmallApp) -> None:
    old_backup(app)
    add_migration(app, "raise ValueError('wrong again')")
    before = app.contents()
    result = app.command("restore", "old", "--force", "--migrate")
    assert result.code == 1
    assert "ValueError: wrong again" in result.err
    assert app.contents() == before
    assert_nothing_is_left(app)


def test_restore_migrate_is_refused_where_there_is_no_way(app: SmallApp) -> None:
    app.forget_revision()
    create_backup(app.settings, BackupRequest("old"))
    with pytest.raises(Refused):
        plan_restore(app.settings, "old", migrate=True)


@pytest.mark.parametrize("revision", ["@", "a@"])
def test_a_revision_that_alembic_cannot_read_is_a_typing_error(app: SmallApp, revision: str) -> None:
    refused = app.command("migrate", revision, check=2).err
    assert f"{revision!r} is not a revision to migrate to: Alembic cannot read it." in refused
    assert "alembic history" in refused


def test_a_database_without_a_revision_is_what_failed_and_not_the_migration(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    app.forget_revision()
    before = app.contents()
    failed = app.command("migrate", check=1).err
    assert "already exists" in failed and "has no Alembic revision" in failed and "Correct that" not in failed
    assert "alembic stamp THAT_REVISION" in failed and app.contents() == before
    (found,) = [one for one in examine(app.settings) if "Alembic revision" in one.text]
    assert found.text == "The database has no Alembic revision." and "stamp THAT_REVISION" in found.fix
    app.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    app.execute("INSERT INTO alembic_version VALUES (?)", (DOCUMENTS,))
    app.command("migrate", check=0)
    assert app.revisions() == {HEAD}


def alembic(app: SmallApp, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the plain `alembic` command in the app's folder, as a person types it."""
    known = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "PYTHONPATH": str(BACKEND), **environment}
    python = [f"{word}:{BACKEND}" if word.startswith("PYTHONPATH=") else word for word in python_for_all()]
    command = [*python, "-m", "alembic", *arguments]
    return subprocess.run(command, cwd=app.folder, env=known, capture_output=True, text=True, check=False)


def kinds(app: SmallApp) -> list[str]:
    return [one.metadata.kind for one in store.all_backups(app.settings) if one.metadata]


def test_a_bare_alembic_upgrade_makes_a_backup_first(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    done = alembic(app, "upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert kinds(app) == ["pre_migration"]
    assert app.revisions() == {HEAD}
    (backup,) = store.all_backups(app.settings)
    assert backup.pinned and backup.metadata and backup.metadata.alembic_revision == DOCUMENTS
    alembic(app, "downgrade", MERGED)
    assert len(kinds(app)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who works for another user: run the tests as root")
def test_a_bare_alembic_upgrade_of_roots_has_its_backup_made_by_the_datas_owner(templates: Path) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        app = SmallApp.create(Path(open_to_all, "app"), templates)
        app.at_revision(DOCUMENTS)
        give(USER, app.folder)
        done = alembic(app, "upgrade", "head")
        assert done.returncode == 0, done.stderr
        assert kinds(app) == ["pre_migration"] and app.revisions() == {HEAD}
        made = [app.backups / ".state", *app.backups.glob("pre_migration*"), *app.backups.glob("pre_migration*/*")]
        assert len(made) > 5 and {path.lstat().st_uid for path in made} == {USER}
        app.at_revision(DOCUMENTS)
        give(USER, app.folder)
        shutil.rmtree(app.backups)
        app.backups.write_text("no folder")
        done = alembic(app, "upgrade", "head")
        assert done.returncode != 0 and "is not a folder" in done.stderr
        assert app.revisions() == {DOCUMENTS}


def test_a_bare_alembic_upgrade_waits_for_no_push(app: SmallApp, tmp_path: Path) -> None:
    (app.folder / "backup.toml").write_text(
        f'push_after_backup = true\n[remotes.disk]\ntype = "folder"\npath = "{tmp_path / "disk"}"\n'
    )
    (tmp_path / "disk").mkdir()
    app.command("remotes", "--init", "disk", check=0)
    app.at_revision(DOCUMENTS)
    assert alembic(app, "upgrade", "head").returncode == 0
    assert kinds(app) == ["pre_migration"] and list((tmp_path / "disk").glob("*/SHA256SUMS")) == []


@pytest.mark.parametrize("arguments", [("upgrade", "head"), ("current",), ("check",), ("history",), ("stamp", "head")])
def test_the_guard_adds_nothing_where_there_is_nothing_to_upgrade(app: SmallApp, arguments: tuple[str, ...]) -> None:
    assert alembic(app, *arguments).returncode == 0
    assert kinds(app) == []


def test_the_guard_leaves_a_new_database_alone(app: SmallApp) -> None:
    for path in app.database.parent.glob("pats.db*"):
        path.unlink()
    assert alembic(app, "upgrade", "head").returncode == 0
    assert kinds(app) == []


def test_the_guard_can_be_turned_off(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    done = alembic(app, "upgrade", "head", BACKUP_BACKUP_BEFORE_MIGRATIONS="false")
    assert done.returncode == 0, done.stderr
    assert (kinds(app), app.revisions()) == ([], {HEAD})


def test_a_backup_that_fails_stops_the_upgrade(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    app.uploads.rename(app.folder / "elsewhere")
    done = alembic(app, "upgrade", "head")
    assert done.returncode != 0 and "no uploads folder" in done.stderr
    assert app.revisions() == {DOCUMENTS}


def test_the_guard_makes_no_second_backup_inside_migrate(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    migrate(app.settings)
    assert kinds(app) == ["pre_migration"]
