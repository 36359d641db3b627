"""Real apps are backed up, migrated and restored, and end where their own tools would have brought them.

The table in docs/migrations.md says which settings each app needs; each of its lines is a test here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import environment
import pytest
from apps import APPS, AlembicInit, RealApp, picture

import chance
import warm
from backupkit.backup.create import create_backup
from backupkit.config.settings import load_settings
from backupkit.migrations.migrate import migrate
from backupkit.model.backup import BackupRequest
from backupkit.repository import store
from backupkit.restore.restore import restore_backup
from backupkit.restore.undo import plan_undo
from backupkit.verify.verify import verify_backups
from other_apps import OtherApp
from small_app import COMMAND

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "migrations.md"
pytestmark = pytest.mark.usefixtures("real_environment")


def lines_of_the_table() -> dict[str, set[str]]:
    """Return the settings that each set-up needs, as the document says."""
    section = DOCUMENT.read_text().partition("| set-up |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| .*\|$", section, re.M)
    return {name: set(re.findall(r"BACKUP_[A-Z_]+", settings)) for name, settings in rows}


TABLE = lines_of_the_table()


def test_the_table_has_every_set_up_and_no_other() -> None:
    assert list(TABLE) == list(APPS)


@pytest.mark.parametrize("name", chance.cases(list(TABLE), "real apps", 6))
def test_what_the_table_says_is_all_that_is_needed(name: str, tmp_path: Path) -> None:
    """This is one test, because each step begins where the last one ended."""
    kind = APPS[name]()
    app = kind.create(tmp_path / "app")
    assert {f"BACKUP_{one.upper()}" for one in kind.settings} == TABLE[name]
    at_old, expected = picture(app.database), kind.by_hand(app)
    assert at_old != expected

    settings = load_settings(app.folder)
    metadata = create_backup(settings, BackupRequest("old")).backup.metadata
    assert metadata and (metadata.revisions == (kind.old,)) == kind.is_compared
    (proven,) = verify_backups(settings, [store.find(settings, "old")], test_restore=True)
    assert proven.failure is None and proven.took
    assert picture(app.database) == at_old

    assert migrate(settings, "heads")
    assert picture(app.database) == expected
    create_backup(settings, BackupRequest("new"))

    app.query(f"DELETE FROM {kind.table}")
    touched = picture(app.database)
    assert commands_in(command(app, "restore", "old", "--migrate", "--yes")) == []
    assert picture(app.database) == expected
    restore_backup(settings, plan_undo(settings))
    assert picture(app.database) == touched

    printed = command(app, "restore", "old", "--yes")
    assert picture(app.database) == at_old
    under_old_code(kind, app)
    type_what_is_printed(kind, app, printed)
    assert picture(app.database) == expected


def command(app: OtherApp, *words: str, code: int = 0, **more: str) -> str:
    """Run the toolkit's command at `/`, which must end with that code; return its output."""
    done = warm.run(words, told(app, **more), Path("/"))
    assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def told(app: OtherApp, **more: str) -> dict[str, str]:
    """Return the environment of a person who uses the toolkit; all settings are in backup.toml."""
    return {**environment.plain_environment(), "BACKUP_APP_DIR": str(app.folder), **more}


def under_old_code(kind: RealApp, app: OtherApp) -> None:
    """Check that old code refuses the newer backup, or, if revisions are unknown, that the plan says what differs."""
    before = picture(app.database)
    with kind.old_code(app) as more:
        if kind.is_compared:
            assert "does not know revision" in command(app, "restore", "new", "--yes", code=14, **more)
        else:
            assert "The schema differs from the live one: " in command(app, "restore", "new", "--dry-run", **more)
        assert picture(app.database) == before


def commands_in(said: str) -> list[str]:
    """Return each indented line that is a command."""
    return [line.strip() for line in said.splitlines() if re.match(r"    (cd .* && |python )", line)]


def type_what_is_printed(kind: RealApp, app: OtherApp, printed: str) -> None:
    """Run the printed commands that lead on, each as it stands there, outside the app's folder."""
    lines = commands_in(printed)
    own = "python backup_restore.py migrate" + " heads" * (len(kind.new) > 1)
    assert lines[0] == own and len(lines) == (1 if "migrate_command" in kind.settings else 3)
    for line in lines[1:] or [own]:
        # The toolkit's own line is typed in its folder, with its Python.
        path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
        ours = told(app, PATH=path) if line == own else environment.plain_environment()
        folder = COMMAND.parent if line == own else Path("/")
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=ours, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_with_several_databases_all_but_a_migration_works(tmp_path: Path) -> None:
    """The template is unchanged: the other database that it migrates cannot be redirected to a copy."""

    class SeveralDatabases(AlembicInit):
        template = "multidb"

        def lay(self, app: OtherApp) -> None:
            super().lay(app)
            for file in (app.folder / "alembic" / "versions").glob("*.py"):
                file.write_text(file.read_text().replace("grade():", "grade(engine_name):"))
            ini = app.folder / "alembic.ini"
            ini.write_text(ini.read_text().replace("data/app.db2", "data/second.db"))

    assert "several databases" in DOCUMENT.read_text()
    app = SeveralDatabases().create(tmp_path / "app")
    before = picture(app.database)
    command(app, "backup", "old")
    assert "several databases at once (engine1, engine2)" in command(app, "migrate", code=1)
    app.query("DELETE FROM notes")
    command(app, "restore", "old", "--yes")
    assert picture(app.database) == before
