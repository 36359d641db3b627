"""Small apps that use Alembic in other ways than the reference app, written file by file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import warm
from backupkit.config.settings import Settings
from small_app import BACKEND, Result, clean_environment

INI = """
[alembic]
script_location = alembic
sqlalchemy.url = sqlite:///data/app.db
"""
ENV = """
from alembic import context
from sqlalchemy import create_engine
with create_engine(context.config.get_main_option("sqlalchemy.url")).connect() as connection:
    context.configure(connection=connection, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
"""
# Bodies of upgrades.
NOTES = "op.execute('CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)')"
COLOUR = "op.execute('ALTER TABLE notes ADD COLUMN colour TEXT')"


class OtherApp:
    """An app folder with a database, uploads and backups, whose migrations the test writes."""

    def __init__(self, folder: Path, database: str = "data/app.db") -> None:
        self.folder = folder
        self.database = folder / database
        self.uploads = folder / "uploads"
        self.backups = folder / "backups"
        self.version_table = "alembic_version"
        for wanted in (self.database.parent, self.uploads, self.backups):
            wanted.mkdir(parents=True)

    @classmethod
    def usual(cls, folder: Path, ini: str = INI, env: str = ENV, database: str = "data/app.db") -> OtherApp:
        """Create an app with two migrations in `alembic/`, the second not yet run, and three notes."""
        app = cls(folder, database)
        app.write("alembic.ini", ini)
        app.write("alembic/env.py", env)
        app.migration("a1", NOTES)
        app.migration("b2", COLOUR, "a1")
        app.with_notes("a1")
        return app

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip())
        return file

    def migration(
        self, revision: str, run: str, below: Any = None, place: str = "alembic/versions", **more: Any
    ) -> Path:
        """Write one migration; `run` is the body of its upgrade, `more` are other variables of its module."""
        facts = {"revision": revision, "down_revision": below, "branch_labels": None, "depends_on": None, **more}
        lines = [f'"""The migration {revision}."""', "from alembic import op", "import sqlalchemy as sa"]
        lines += [f"{name} = {value!r}" for name, value in facts.items()]
        body = textwrap.indent(textwrap.dedent(run).strip(), "    ")
        text = "\n".join([*lines, "def upgrade():", body, "def downgrade():", "    pass"])
        return self.write(f"{place}/{revision}.py", text)

    def with_notes(self, *revisions: str) -> None:
        """Create the database at these revisions, without Alembic, with three notes in it."""
        columns = "id INTEGER PRIMARY KEY, text TEXT" + (", colour TEXT" if "b2" in revisions else "")
        with contextlib.closing(sqlite3.connect(self.database)) as live, live:
            live.execute("PRAGMA journal_mode=WAL")
            live.execute(f"CREATE TABLE notes ({columns})")
            live.executemany("INSERT INTO notes (text) VALUES (?)", [("one",), ("two",), ("three",)])
            live.execute(f"CREATE TABLE {self.version_table} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
            live.executemany(f"INSERT INTO {self.version_table} VALUES (?)", [(one,) for one in revisions])

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run the statement on the live database, commit, and return the rows."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as live, live:
            return live.execute(statement, values).fetchall()

    def revisions(self) -> set[str]:
        return {row[0] for row in self.query(f"SELECT version_num FROM {self.version_table}")}

    def settings(self, **more: Any) -> Settings:
        """Return the settings of this app, for the library."""
        places = {"database": self.database, "uploads": self.uploads, "dir": self.backups}
        return Settings(app_dir=self.folder, **{**places, "busy_timeout": 5, "lock_timeout": 1, **more})

    def command(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: int | None = None,
    ) -> Result:
        """Run `backup_restore.py` on this app, without a terminal."""
        told = {"BACKUP_APP_DIR": str(self.folder), "BACKUP_DATABASE": str(self.database), **(env or {})}
        done = warm.run(arguments, {**clean_environment(), **told}, cwd or self.folder)
        result = Result(done.returncode, done.stdout, done.stderr)
        assert check is None or result.code == check, f"{arguments} ended with {result.code}:\n{result.out}{result.err}"
        return result

    def typed(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the line in bash, as a person types it in another folder, with this Python's programs on the PATH."""
        path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
        known = {**clean_environment(), "PATH": path, "PYTHONPATH": str(BACKEND), **environment}
        return subprocess.run(["bash", "-c", line], cwd="/", env=known, capture_output=True, text=True, check=False)
