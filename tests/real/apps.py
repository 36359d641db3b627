"""The real apps: how each is laid out and migrated by hand, and which settings the toolkit needs for it.

Nothing of other projects is kept here: their migrations come from the packages that `environment.py` installs. If a
migration needs the rest of a large app, a few lines stand in for it.
"""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import environment

from other_apps import COLOUR, NOTES, OtherApp

PYTHON = str(environment.PYTHON)
VOLATILE = {"applied", "created_at", "updated_at"}  # columns that say when a migration ran
Picture = dict[str, Any]


class RealApp:
    """One kind of app: `settings` are those that the toolkit needs, besides the app's Python and database.

    `old` is the revision that its database begins at, `new` the head revisions of its code. `is_compared`: the toolkit
    knows the revisions, so that a newer backup is refused under older code.
    """

    settings: Mapping[str, Any] = {}
    database = "data/app.db"
    old, new = "a1", ("b2",)
    table = "notes"
    fill: tuple[str, ...] = ("INSERT INTO notes (text) VALUES ('one'), ('two'), ('three')",)
    is_compared = True

    def create(self, folder: Path) -> OtherApp:
        """Create the app at its old revision, with its own tools, and put data in it."""
        app = OtherApp(folder, self.database)
        self.lay(app)
        self.begin(folder)
        with contextlib.closing(sqlite3.connect(app.database)) as live, live:
            live.execute("PRAGMA journal_mode=WAL")
            for statement in self.fill:
                live.execute(statement)
        told = {"python": PYTHON, "database": self.database, **self.settings}
        app.write("backup.toml", "\n".join(f"{name} = {json.dumps(value)}" for name, value in told.items()))
        return app

    def lay(self, app: OtherApp) -> None:
        """Write the app's code."""
        raise NotImplementedError

    def begin(self, folder: Path) -> None:
        """Make its database, at the old revision."""
        self.upgrade(folder, self.old)

    def upgrade(self, folder: Path, revision: str) -> None:
        """Migrate the database to that revision, with what a person types in that folder."""
        run(folder, "alembic", "upgrade", revision)

    def by_hand(self, app: OtherApp) -> Picture:
        """Return what the app's own tools make of its database, in a copy of its folder."""
        copy = app.folder.with_name("by hand")
        shutil.copytree(app.folder, copy, ignore=shutil.ignore_patterns("backups", "__pycache__"))
        self.upgrade(copy, "heads")
        return picture(copy / self.database)

    @contextlib.contextmanager
    def old_code(self, app: OtherApp) -> Iterator[Mapping[str, str]]:
        """Move newer migrations away until the block ends; yield the further environment that the toolkit needs."""
        away = app.folder.with_name("away")
        away.mkdir()
        moved = [(file, away / file.name) for file in self.newer(app)]
        for file, place in moved:
            file.rename(place)
        yield {}
        for file, place in moved:
            place.rename(file)

    def newer(self, app: OtherApp) -> list[Path]:
        """Return the migrations that the old code does not have."""
        return list(app.folder.rglob("b2.py"))


def run(folder: Path, *command: str, **more: str) -> None:
    """Run a command as a person types it, with the app's programs on the path; it must succeed."""
    done = subprocess.run(
        command, cwd=folder, env={**environment.activated(), **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def picture(database: Path) -> Picture:
    """Return each table's columns, keys and rows (without `VOLATILE`), and the names of all tables and indexes."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        names = connection.execute("SELECT type, name, tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
        found: Picture = {"schema": sorted(names.fetchall())}
        for kind, name, _ in found["schema"]:
            if kind == "table":
                found[name] = _table(connection, name)
    return found


def _table(connection: sqlite3.Connection, name: str) -> Picture:
    columns = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
    keys = connection.execute(f'PRAGMA foreign_key_list("{name}")').fetchall()
    steady = ", ".join(f'"{row[1]}"' for row in columns if row[1] not in VOLATILE)
    rows = connection.execute(f'SELECT {steady} FROM "{name}"').fetchall()
    return {"columns": columns, "keys": sorted(row[2:] for row in keys), "rows": sorted(rows, key=repr)}


class AlembicInit(RealApp):
    """What `alembic init` lays out, with the URL filled in as its comments say."""

    template = "generic"
    driver = "sqlite"

    def lay(self, app: OtherApp) -> None:
        run(app.folder, "alembic", "init", "-t", self.template, "alembic")
        ini = app.folder / "alembic.ini"
        text = ini.read_text().replace("driver://user:pass@localhost/dbname", f"{self.driver}:///data/app.db")
        ini.write_text(text)
        app.migration("a1", NOTES)
        app.migration("b2", COLOUR, "a1")


class AlembicInitAsync(AlembicInit):
    template, driver = "async", "sqlite+aiosqlite"


class AlembicInitPyproject(AlembicInit):
    template = "pyproject"


class AlembicInitPyprojectAsync(AlembicInit):
    template, driver = "pyproject_async", "sqlite+aiosqlite"


class AlembicInitMultidb(AlembicInit):
    """The multidb template with one database, whose name its migrations get as an argument."""

    template = "multidb"

    def lay(self, app: OtherApp) -> None:
        super().lay(app)
        ini = app.folder / "alembic.ini"
        before, _, rest = ini.read_text().partition("databases = engine1, engine2")
        rest = rest[: rest.index("[engine2]")] + rest[rest.index("[post_write_hooks]") :]
        ini.write_text(f"{before}databases = engine1{rest}")
        for file in (app.folder / "alembic" / "versions").glob("*.py"):
            file.write_text(file.read_text().replace("grade():", "grade(engine_name):"))


class SeveralHeads(AlembicInit):
    """Two branches, one of them with a label: two heads."""

    new = ("b2", "left2")

    def lay(self, app: OtherApp) -> None:
        super().lay(app)
        app.migration("left1", "op.execute('CREATE TABLE lefts (id INTEGER)')", branch_labels=("left",))
        app.migration("left2", "op.execute('INSERT INTO lefts VALUES (1)')", "left1")


class FlaskMigrate(RealApp):
    """`flask db init`: no script_location in its ini, and an env.py that needs the Flask app."""

    def lay(self, app: OtherApp) -> None:
        app.write(
            "app.py",
            """
            import os
            from pathlib import Path
            from flask import Flask
            from flask_migrate import Migrate
            from flask_sqlalchemy import SQLAlchemy
            app = Flask(__name__)
            here = Path(__file__).parent / "data" / "app.db"
            app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", f"sqlite:///{here}")
            Migrate(app, SQLAlchemy(app))
            """,
        )
        run(app.folder, "flask", "db", "init")
        app.migration("a1", NOTES, place="migrations/versions")
        app.migration("b2", COLOUR, "a1", place="migrations/versions")

    def upgrade(self, folder: Path, revision: str) -> None:
        run(folder, "flask", "db", "upgrade", revision)


class Django(RealApp):
    """A project with one app; the toolkit can read nothing of it without running it."""

    settings: Mapping[str, Any] = {
        "migrate_command": f"{PYTHON} manage.py migrate --no-input",
        "migrate_environment": ["DATABASE_PATH={path}"],
    }
    old = "0001"
    table = "blog_note"
    fill = ("INSERT INTO blog_note (text) VALUES ('one'), ('two'), ('three')",)
    is_compared = False

    def lay(self, app: OtherApp) -> None:
        app.write(
            "manage.py",
            """
            import os, sys
            from django.core.management import execute_from_command_line
            os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
            execute_from_command_line(sys.argv)
            """,
        )
        app.write(
            "site_settings.py",
            """
            import os
            from pathlib import Path
            SECRET_KEY = "none"
            INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "blog"]
            here = Path(__file__).parent / "data" / "app.db"
            DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3",
                                     "NAME": os.environ.get("DATABASE_PATH", here)}}
            DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
            """,
        )
        app.write("blog/__init__.py", "")
        app.write("blog/migrations/__init__.py", "")
        migration = "from django.db import migrations, models\nclass Migration(migrations.Migration):\n    "
        app.write(
            "blog/migrations/0001_initial.py",
            f"""{migration}operations = [migrations.CreateModel("Note", [
                ("id", models.BigAutoField(primary_key=True)), ("text", models.TextField())])]""",
        )
        app.write(
            "blog/migrations/0002_colour.py",
            f"""{migration}dependencies = [("blog", "0001_initial")]
    operations = [migrations.AddField("note", "colour", models.TextField(null=True))]""",
        )

    def begin(self, folder: Path) -> None:
        run(folder, PYTHON, "manage.py", "migrate", "blog", self.old)

    def upgrade(self, folder: Path, revision: str) -> None:
        run(folder, PYTHON, "manage.py", "migrate")

    def newer(self, app: OtherApp) -> list[Path]:
        return [app.folder / "blog" / "migrations" / "0002_colour.py"]


class Mlflow(RealApp):
    """Its migrations are in the installed package; `mlflow db upgrade` runs them, and needs the URL."""

    scripts = environment.PYTHON.parents[1] / "lib"
    settings: Mapping[str, Any] = {
        "alembic_ini": "",  # set by `create`, when mlflow is installed
        "migrate_command": f'{PYTHON} -m mlflow db upgrade "$DATABASE_URL"',
    }
    database = "mlflow.db"
    old, new = "5b0e9adcef9c", ("",)
    table = "experiment_tags"
    fill = (
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (1, 'first', 'active')",
        "INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('one', '1', 1), ('two', '2', 1)",
    )

    def create(self, folder: Path) -> OtherApp:
        (ini,) = environment.FOLDER.glob("lib/*/site-packages/mlflow/store/db_migrations/alembic.ini")
        self.settings = {**self.settings, "alembic_ini": str(ini)}
        self.scripts = ini.parent
        self.new = heads(ini.parent / "versions")
        return super().create(folder)

    def lay(self, app: OtherApp) -> None:
        app.write(
            "begin.py",
            """
            import sys
            from alembic import command
            from mlflow.store.db.utils import _get_alembic_config
            from mlflow.store.tracking.dbmodels.initial_models import Base
            from sqlalchemy import create_engine
            Base.metadata.create_all(create_engine("sqlite:///mlflow.db"))
            command.upgrade(_get_alembic_config("sqlite:///mlflow.db"), sys.argv[1])
            """,
        )

    def begin(self, folder: Path) -> None:
        run(folder, PYTHON, "begin.py", self.old)

    def upgrade(self, folder: Path, revision: str) -> None:
        run(folder, PYTHON, "-m", "mlflow", "db", "upgrade", f"sqlite:///{folder}/mlflow.db")

    @contextlib.contextmanager
    def old_code(self, app: OtherApp) -> Iterator[Mapping[str, str]]:
        """Yield settings as if an older release were installed, whose tree ends at the old backup's revision."""
        older = app.folder.with_name("older")
        shutil.copytree(self.scripts / "versions", older / "scripts" / "versions")
        shutil.copy(self.scripts / "env.py", older / "scripts")
        (older / "alembic.ini").write_text("[alembic]\nscript_location = scripts\n")
        for file in newer_than(older / "scripts" / "versions", self.old):
            file.unlink()
        yield {"BACKUP_ALEMBIC_INI": str(older / "alembic.ini")}


class OpenWebUI(RealApp):
    """Its env.py takes the URL from the app's settings, which take it from DATABASE_URL, or DATA_DIR."""

    settings: Mapping[str, Any] = {"alembic_ini": "open_webui/alembic.ini"}
    database = "open_webui/data/webui.db"
    old, new = "", ("",)
    table = "tag"
    fill = (
        "INSERT INTO user (id, name, email, role, profile_image_url, last_active_at, updated_at, created_at)"
        " VALUES ('u', 'One', 'one@example.org', 'admin', '', 1, 1, 1)",
        "INSERT INTO tag (id, name, user_id) VALUES ('t', 'first', 'u'), ('s', 'second', 'u')",
        "INSERT INTO chat (id, user_id, title, archived, created_at, updated_at, chat)"
        " VALUES ('c', 'u', 'a talk', 0, 1, 1, '{}')",
    )

    def create(self, folder: Path) -> OtherApp:
        versions = environment.TREES / "open_webui" / "migrations" / "versions"
        self.new, self.old = heads(versions), "c440947495f3"
        return super().create(folder)

    def lay(self, app: OtherApp) -> None:
        shutil.copytree(environment.TREES / "open_webui", app.folder / "open_webui", dirs_exist_ok=True)
        app.write("open_webui/__init__.py", "")
        app.write(
            "open_webui/env.py",
            """
            import os
            from pathlib import Path
            DATA_DIR = Path(os.getenv("DATA_DIR", Path(__file__).parent / "data"))
            DATABASE_URL = os.getenv("DATABASE_URL", f"sqlite:///{DATA_DIR}/webui.db")
            DATABASE_PASSWORD = DATABASE_SCHEMA = None
            LOG_FORMAT = ""
            """,
        )
        app.write("open_webui/internal/__init__.py", "")
        app.write(
            "open_webui/internal/db.py",
            """
            from sqlalchemy import types
            from sqlalchemy.orm import declarative_base
            Base = declarative_base()
            class JSONField(types.TypeDecorator):
                impl, cache_ok = types.Text, True
            def enable_iam_token_auth(engine): pass
            def extract_ssl_params_from_url(url): return url, {}
            def reattach_ssl_params_to_url(url, params): return url
            """,
        )
        names = {"auths": "Auth", "calendar": "Calendar CalendarEvent CalendarEventAttendee"}
        names |= {"chat_messages": "ChatMessage", "chats": "Chat"}
        app.write("open_webui/models/__init__.py", "")
        for module, classes in names.items():
            lines = ["from open_webui.internal.db import Base", *(f"{one} = Base" for one in classes.split())]
            app.write(f"open_webui/models/{module}.py", "\n".join(lines))

    def upgrade(self, folder: Path, revision: str) -> None:
        run(folder / "open_webui", "alembic", "upgrade", revision)

    def newer(self, app: OtherApp) -> list[Path]:
        return newer_than(app.folder / "open_webui" / "migrations" / "versions", self.old)


class Galaxy(RealApp):
    """Two models, two branches, many merges, and its own command, which gives env.py its URLs with -x.

    Its graph of revisions and its env.py are real; what each migration does is a stand-in.
    """

    settings: Mapping[str, Any] = {
        "alembic_ini": "galaxy/model/migrations/alembic.ini",
        "alembic_command": f"{PYTHON} run_alembic.py",
        "migrate_environment": ["GALAXY_CONFIG_OVERRIDE_DATABASE_CONNECTION={url}"],
    }
    database = "data/universe.db"
    old, new = "", ()
    table = "t_e7b6dcb09efd"
    fill = ("INSERT INTO t_e7b6dcb09efd VALUES ('mine'), ('yours')",)

    def create(self, folder: Path) -> OtherApp:
        tree = environment.TREES / "galaxy" / "model" / "migrations" / "alembic"
        self.new = (*heads(tree / "versions_gxy"), *heads(tree / "versions_tsi"))
        self.old = "caa7742f7bca"  # below a merge; the other branch has no revision yet
        return super().create(folder)

    def lay(self, app: OtherApp) -> None:
        real, place = environment.TREES / "galaxy" / "model" / "migrations", "galaxy/model/migrations"
        app.write("galaxy/__init__.py", "")
        app.write("galaxy/model/__init__.py", "from sqlalchemy.orm import declarative_base\nBase = declarative_base()")
        app.write(f"{place}/__init__.py", "from typing import NewType\nModelId = str\nGXY, TSI = 'gxy', 'tsi'")
        app.write(f"{place}/alembic.ini", (real / "alembic.ini").read_text())
        app.write(f"{place}/alembic/env.py", (real / "alembic" / "env.py").read_text())
        for branch in ("versions_gxy", "versions_tsi"):
            for facts in map(facts_of, (real / "alembic" / branch).glob("*.py")):
                name = facts["revision"]
                more = {one: facts[one] for one in ("branch_labels", "depends_on") if one in facts}
                run_ = f"op.execute('CREATE TABLE t_{name} (id)')\nop.execute('INSERT INTO t_{name} VALUES (1)')"
                app.migration(name, run_, facts.get("down_revision"), f"{place}/alembic/{branch}", **more)
        app.write(
            "run_alembic.py",
            """
            import os, sys
            from pathlib import Path
            from alembic.config import main
            here = Path(__file__).parent
            url = os.environ.get("GALAXY_CONFIG_OVERRIDE_DATABASE_CONNECTION", f"sqlite:///{here}/data/universe.db")
            before = ["-c", str(here / "galaxy/model/migrations/alembic.ini"), "-x", f"gxy_url={url}",
                      "-x", f"tsi_url={url}"]
            typed = sys.argv[1:]
            both = typed[:1] == ["upgrade"] and typed[1:] == ["heads"]
            for target in ("gxy@head", "tsi@head") if both else (None,):
                main([*before, *(["upgrade", target] if target else typed)])
            """,
        )

    def upgrade(self, folder: Path, revision: str) -> None:
        run(folder, PYTHON, "run_alembic.py", "upgrade", revision)

    def newer(self, app: OtherApp) -> list[Path]:
        versions = app.folder / "galaxy" / "model" / "migrations" / "alembic"
        return [*newer_than(versions / "versions_gxy", self.old), *newer_than(versions / "versions_tsi", self.old)]


def facts_of(file: Path) -> dict[str, Any]:
    """Return the constants that a migration sets, read without running it."""
    found = {}
    for line in ast.parse(file.read_text()).body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        if isinstance(target, ast.Name) and getattr(line, "value", None) is not None:
            with contextlib.suppress(ValueError):
                found[target.id] = ast.literal_eval(line.value)  # type: ignore[attr-defined]
    return found


def graph(versions: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Return each revision with its file and its down revisions."""
    found = {}
    for file in versions.glob("*.py"):
        facts = facts_of(file)
        below = facts.get("down_revision") or ()
        if "revision" in facts:
            found[facts["revision"]] = (file, (below,) if isinstance(below, str) else tuple(below))
    return found


def heads(versions: Path) -> tuple[str, ...]:
    """Return the revisions that are not a down revision of another."""
    known = graph(versions)
    return tuple(sorted(set(known) - {one for _, below in known.values() for one in below}))


def newer_than(versions: Path, revision: str) -> list[Path]:
    """Return the files of all revisions but the given one and those below it."""
    known, included, open_ = graph(versions), set(), [revision]
    while open_:
        one = open_.pop()
        if one in known and one not in included:
            included.add(one)
            open_ += known[one][1]
    return [file for one, (file, _) in known.items() if one not in included]


# By their names in the table of docs/migrations.md.
APPS: dict[str, type[RealApp]] = {
    "`alembic init`": AlembicInit,
    "`alembic init -t async`": AlembicInitAsync,
    "`alembic init -t pyproject`": AlembicInitPyproject,
    "`alembic init -t pyproject_async`": AlembicInitPyprojectAsync,
    "`alembic init -t multidb`, with one database": AlembicInitMultidb,
    "several heads, branch labels": SeveralHeads,
    "Flask-Migrate": FlaskMigrate,
    "Django": Django,
    "mlflow": Mlflow,
    "Open WebUI": OpenWebUI,
    "Galaxy": Galaxy,
}
