"""All ways to set up Alembic work: drivers, heads, paths, and ways to point env.py at a copy."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import chance
from backupkit.backup.create import create_backup
from backupkit.migrations.migrate import migrate
from backupkit.migrations.upgrade import MigrationFailed
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Refused
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.verify.verify import verify_backups
from other_apps import COLOUR, ENV, INI, OtherApp
from small_app import BACKEND

URL = 'context.config.get_main_option("sqlalchemy.url")'


@pytest.fixture
def other(tmp_path: Path) -> OtherApp:
    """An app whose database is one migration behind its code."""
    return OtherApp.usual(tmp_path / "other")


def columns(app: OtherApp) -> list[str]:
    return [row[1] for row in app.query("PRAGMA table_info(notes)")]


def goes_all_the_way(app: OtherApp, **settings: object) -> None:
    """Assert that backup, test restore, migration and the restore that migrates each do what Alembic would do.

    The test restore and the restore both migrate a copy: unless the run is thorough, the commit chooses one of them.
    """
    known = app.settings(**settings)
    before = app.query("SELECT id, text FROM notes")
    create_backup(known, BackupRequest("old"))
    ways = chance.chance(app.folder.parent.name).choices(((True, False), (False, True)))[0]
    is_proven, is_brought = (True, True) if chance.is_thorough() else ways
    if is_proven:
        (proven,) = verify_backups(known, [store.find(known, "old")], test_restore=True)
        assert proven.failure is None and proven.took
    assert app.revisions() == {"a1"} and "colour" not in columns(app)
    done = migrate(known)
    assert done and [one.revision for one in done.migrations] == ["b2"]
    assert app.revisions() == {"b2"} and "colour" in columns(app)
    if is_brought:
        app.query("DELETE FROM notes")
        restored = restore_backup(known, plan_restore(known, "old", migrate=True))
        assert restored.revisions == ("b2",)
    assert app.revisions() == {"b2"} and app.query("SELECT id, text FROM notes") == before
    assert not [one for one in app.database.parent.iterdir() if not one.name.startswith(app.database.name)]


def type_what_is_printed(app: OtherApp, **environment: str) -> None:
    """Restore a backup as it is, then type each line that this prints, in another folder."""
    app.command("backup", "as-it-was", env=environment, check=0)
    said = app.command("restore", "as-it-was", "--force", env=environment, cwd=Path("/"), check=0).out
    lines = [line.strip() for line in said.splitlines() if re.match(r"    cd .* && ", line)]
    assert [" stamp " in lines[0], " upgrade " in lines[1]] == [True, True]
    for line in lines:
        done = app.typed(line, **environment)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert "colour" in columns(app)


# Drivers


@pytest.mark.parametrize("where", ["the ini", "DATABASE_URL", "another variable"])
def test_the_driver_that_stood_there_is_kept(other: OtherApp, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = f"sqlite+pysqlite:///{other.database}"
    read = {"the ini": URL, "DATABASE_URL": 'os.environ["DATABASE_URL"]', "another variable": 'os.environ["ITS_URL"]'}
    other.write("alembic.ini", INI.replace("sqlite:///", "sqlite+pysqlite:///") if where == "the ini" else INI)
    monkeypatch.setenv("DATABASE_URL" if where == "DATABASE_URL" else "ITS_URL", given)
    env = ENV.replace(URL, "url").replace(
        "with ", f"import os\nurl = {read[where]}\nassert '+pysqlite:' in url\nwith ", 1
    )
    other.write("alembic/env.py", env)
    goes_all_the_way(other, migrate_environment=("ITS_URL",) if where == "another variable" else ())


# Several heads, and Alembic's names for revisions


@pytest.fixture
def forked(other: OtherApp) -> OtherApp:
    """The same app with two heads: `c0ffee5afe` after `b2`, and `left2` on its own branch."""
    other.migration("c0ffee5afe", "pass", "b2")
    other.migration("left1", "op.execute('CREATE TABLE lefts (id INTEGER)')", "a1", branch_labels=("left",))
    other.migration("left2", "pass", "left1")
    return other


def test_with_several_heads_migrate_says_which_command_is_meant(forked: OtherApp) -> None:
    done = forked.command("migrate", check=2)
    assert "2 heads: c0ffee5afe, left2" in done.err and "migrate heads" in done.err
    assert forked.revisions() == {"a1"} and store.all_backups(forked.settings()) == []
    forked.command("migrate", "heads", check=0)
    assert forked.revisions() == {"c0ffee5afe", "left2"}
    assert "nothing to migrate" in forked.command("migrate", "heads", check=0).out


def test_with_several_heads_a_backup_is_brought_to_all_of_them(forked: OtherApp) -> None:
    create_backup(forked.settings(), BackupRequest("old"))
    forked.command("verify", "old", "--test-restore", check=0)
    forked.command("restore", "old", "--migrate", "--force", check=0)
    assert forked.revisions() == {"c0ffee5afe", "left2"}


def test_with_several_heads_the_printed_commands_say_so_and_work(forked: OtherApp) -> None:
    type_what_is_printed(forked)
    assert forked.revisions() == {"c0ffee5afe", "left2"}


def test_a_backups_own_page_says_heads_where_the_code_has_several(forked: OtherApp) -> None:
    """The backup is at one revision, from before the branches."""
    create_backup(forked.settings(), BackupRequest("old"))
    page = (forked.backups / "old" / "RESTORE.md").read_text()
    assert "migrate heads`" in page and "stamp a1\n" in page
    (line,) = re.findall(r"^    (cd .* upgrade .*)$", page, re.M)
    done = forked.typed(line)
    assert done.returncode == 0, done.stderr
    assert forked.revisions() == {"c0ffee5afe", "left2"}


@pytest.mark.parametrize(
    ("target", "reached"),
    chance.cases(
        [
            ("left@head", {"left2"}),
            ("left@+1", {"left1"}),
            ("left", {"left1"}),
            ("c0ff", {"c0ffee5afe"}),
            ("left1+1", {"left2"}),
            ("heads", {"c0ffee5afe", "left2"}),
        ],
        "names that Alembic takes",
    ),
)
def test_migrate_takes_every_name_that_alembic_takes(forked: OtherApp, target: str, reached: set[str]) -> None:
    migrate(forked.settings(), target)
    assert forked.revisions() == reached


def test_one_step_at_a_time(other: OtherApp) -> None:
    other.migration("c3", "pass", "b2")
    migrate(other.settings(), "+1")
    assert other.revisions() == {"b2"}
    migrate(other.settings(), "+1")
    assert other.revisions() == {"c3"}
    with pytest.raises(Refused, match="produce 1 migrations"):
        migrate(other.settings(), "+1")


@pytest.mark.parametrize("target", chance.cases(("a1", "-1", "base"), "downgrades"))
def test_a_downgrade_is_refused_with_a_reason(other: OtherApp, target: str) -> None:
    migrate(other.settings())
    count = len(store.all_backups(other.settings()))
    done = other.command("migrate", target) if not target.startswith("-") else other.command("migrate", "--", target)
    assert done.code == 2 and "downgrade" in done.err and "undo" in done.err
    assert other.revisions() == {"b2"} and len(store.all_backups(other.settings())) == count
    assert "nothing to migrate" in other.command("migrate", "b2", check=0).out


# Paths, as Alembic resolves them

APP_MODULE = "import its_models\nassert its_models.HERE\n"


def usual_at(app: OtherApp, place: str) -> None:
    """Move the two migrations to another folder than `alembic`."""
    (app.folder / place).parent.mkdir(parents=True, exist_ok=True)
    (app.folder / "alembic").rename(app.folder / place)
    (app.folder / "alembic.ini").unlink()


def in_conf(app: OtherApp) -> dict[str, str]:
    usual_at(app, "conf/alembic")
    app.write("conf/alembic.ini", INI.replace("= alembic", "= conf/alembic"))
    return {"BACKUP_ALEMBIC_INI": "conf/alembic.ini"}


def beside_its_ini(app: OtherApp) -> dict[str, str]:
    usual_at(app, "db/scripts")
    app.write("db/alembic.ini", INI.replace("= alembic", "= scripts") + "prepend_sys_path = ..\n")
    app.write("its_models.py", "HERE = True")
    app.write("db/scripts/env.py", APP_MODULE + ENV)
    return {"BACKUP_ALEMBIC_INI": "db/alembic.ini"}


def here(app: OtherApp) -> dict[str, str]:
    usual_at(app, "my db/scripts")
    app.write("my db/alembic.ini", INI.replace("= alembic", "= %(here)s/scripts") + "prepend_sys_path = .\n")
    app.write("its_models.py", "HERE = True")
    app.write("my db/scripts/env.py", APP_MODULE + ENV)
    return {"BACKUP_ALEMBIC_INI": "my db/alembic.ini"}


def version_locations(app: OtherApp) -> dict[str, str]:
    app.write("alembic.ini", INI + "version_locations = one:%(here)s/two\npath_separator = os\n")
    for place, name in (("one", "a1"), ("two", "b2")):
        (app.folder / place).mkdir()
        (app.folder / "alembic" / "versions" / f"{name}.py").rename(app.folder / place / f"{name}.py")
    return {}


def in_a_package(app: OtherApp) -> dict[str, str]:
    usual_at(app, "its_app/migrations")
    app.write("its_app/__init__.py", "")
    app.write("alembic.ini", INI.replace("= alembic", "= its_app:migrations") + "prepend_sys_path = .\n")
    return {}


def pyproject(app: OtherApp) -> dict[str, str]:
    usual_at(app, "alembic")
    app.write("pyproject.toml", '[tool.alembic]\nscript_location = "%(here)s/alembic"\nprepend_sys_path = ["."]\n')
    return {}


def ini_and_pyproject(app: OtherApp) -> dict[str, str]:
    app.write("alembic.ini", "[alembic]\nsqlalchemy.url = sqlite:///data/app.db\n")
    app.write("pyproject.toml", '[tool.alembic]\nscript_location = "alembic"\n')
    return {}


def above_the_app(app: OtherApp) -> dict[str, str]:
    app.write("../alembic.ini", INI.replace("= alembic", f"= {app.folder.name}/alembic"))
    (app.folder / "alembic.ini").unlink()
    return {"BACKUP_ALEMBIC_INI": "../alembic.ini"}


LAYOUTS = (
    in_conf,
    beside_its_ini,
    here,
    version_locations,
    in_a_package,
    pyproject,
    ini_and_pyproject,
    above_the_app,
)


@pytest.mark.parametrize("layout", chance.cases(LAYOUTS, "layouts of Alembic"), ids=lambda one: one.__name__)
def test_paths_are_those_that_alembic_would_take(other: OtherApp, layout: Callable[[OtherApp], dict[str, str]]) -> None:
    environment = {**layout(other), "DATABASE_URL": f"sqlite:///{other.database}"}
    other.write(
        next(str(one.relative_to(other.folder)) for one in other.folder.rglob("env.py")),
        next(other.folder.rglob("env.py")).read_text().replace(URL, "__import__('os').environ['DATABASE_URL']"),
    )
    said = other.command("backup", "old", env=environment, cwd=Path("/"), check=0)
    assert "Warning" not in said.err
    done = other.command("migrate", "--json", env=environment, cwd=Path("/"), check=0)
    assert [one["revision"] for one in json.loads(done.out)["migrations"]] == ["b2"]
    other.command("restore", "old", "--force", env=environment, cwd=other.folder.parent, check=0)
    type_what_is_printed(other, **environment)


# Other version tables


@pytest.fixture
def renamed(other: OtherApp) -> OtherApp:
    """The same app with its revisions in `its_versions`, a name that env.py imports from another module."""
    other.query("ALTER TABLE alembic_version RENAME TO its_versions")
    other.version_table = "its_versions"
    other.write("its_names.py", "TABLE = 'its_versions'")
    other.write("alembic.ini", INI + "prepend_sys_path = .\n")
    env = ENV.replace("render_as_batch=True", "version_table=its_names.TABLE")
    other.write("alembic/env.py", "import its_names\n" + env)
    return other


@pytest.fixture
def shared(renamed: OtherApp) -> OtherApp:
    """The same app, with another app's revisions in the usual table of its database."""
    renamed.query("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    renamed.query("INSERT INTO alembic_version VALUES ('feedfacecafe')")
    return renamed


@pytest.mark.parametrize("which", ["renamed", "shared"])
def test_revisions_are_read_where_env_py_keeps_them(which: str, request: pytest.FixtureRequest) -> None:
    app: OtherApp = request.getfixturevalue(which)
    goes_all_the_way(app)
    metadata = store.find(app.settings(), "old").metadata
    assert metadata and (metadata.revisions, metadata.version_table) == (("a1",), "its_versions")
    app.command("verify", "old", check=0)
    assert "at this code's revision: b2" in app.command("doctor").out
    if which == "shared":
        assert app.query("SELECT * FROM alembic_version") == [("feedfacecafe",)]


def test_the_printed_commands_write_to_the_table_that_env_py_names(shared: OtherApp) -> None:
    type_what_is_printed(shared)
    assert shared.revisions() == {"b2"} and shared.query("SELECT * FROM alembic_version") == [("feedfacecafe",)]


def test_env_py_is_asked_once_until_it_changes(renamed: OtherApp) -> None:
    asked = "open('asked', 'a').write('x')\n"
    file = renamed.folder / "alembic" / "env.py"
    file.write_text(asked + file.read_text())
    for name in ("one", "two", "three"):
        renamed.command("backup", name, check=0)
    assert (renamed.folder / "asked").read_text() == "x"
    file.write_text("\n" + file.read_text())
    renamed.command("backup", "four", check=0)
    assert (renamed.folder / "asked").read_text() == "xx"


def test_what_cannot_be_asked_is_neither_guessed_nor_called_unversioned(renamed: OtherApp) -> None:
    file = renamed.folder / "alembic" / "env.py"
    file.write_text("raise ValueError('no settings here')\n" + file.read_text())
    first = renamed.command("backup", "old", check=3)
    assert "BACKUP_VERSION_TABLE" in first.err and "no settings here" in first.err
    plan = renamed.command("restore", "old", "--dry-run", check=0).out
    assert "cannot be compared" in plan and "BACKUP_VERSION_TABLE" in plan and "stamp" not in plan
    assert "stamp" not in renamed.command("restore", "old", "--force", check=3).out
    assert "BACKUP_VERSION_TABLE" in renamed.command("doctor").out
    assert renamed.command("migrate").code == 1
    named = {"BACKUP_VERSION_TABLE": "its_versions"}
    found = renamed.command("restore", "old", "--dry-run", "--json", env=named, check=0).json
    assert found["verdict"]["relation"] == "behind"


def test_revisions_in_another_database_are_told_of_and_not_guessed(renamed: OtherApp) -> None:
    """`version_table_schema` names an attached database, which is in no backup."""
    attach = "    connection.exec_driver_sql(\"ATTACH 'data/versions.db' AS versions\")\n"
    env = ENV.replace("    context", f"{attach}    context", 1)
    renamed.write("alembic/env.py", env.replace("render_as_batch=True", "version_table_schema='versions'"))
    first = renamed.command("backup", "old", check=3).err
    assert "keeps its revisions in another database, versions" in first and "version_table_schema" in first
    plan = renamed.command("restore", "old", "--dry-run", check=0).out
    assert "cannot be compared" in plan and "stamp" not in plan


def test_asking_opens_no_live_database(renamed: OtherApp) -> None:
    file = renamed.folder / "alembic" / "env.py"
    file.write_text(f"import sqlite3\nsqlite3.connect({str(renamed.database)!r})\n" + file.read_text())
    assert "opened the live database" in renamed.command("backup", "old", check=3).err


# Ways to point env.py at a copy

ITS_OWN = """
import os
URL = {url}
"""


def reading(source: str) -> Callable[[OtherApp], dict[str, object]]:
    """Return a function that writes an env.py which takes its URL from `source`."""

    def write(app: OtherApp) -> dict[str, object]:
        app.write("alembic/env.py", "import os\n" + ENV.replace(URL, source))
        return {}

    return write


def by_x(app: OtherApp) -> dict[str, object]:
    reading('context.get_x_argument(as_dictionary=True)["db"]')(app)
    return {"alembic_x": ("db={url}",)}


def by_variable(app: OtherApp) -> dict[str, object]:
    reading('os.environ["ITS_URL"]')(app)
    return {"migrate_environment": ("ITS_URL",)}


def by_folder(app: OtherApp) -> dict[str, object]:
    """mealie's way: only the folder is a setting."""
    reading(f"'sqlite:///' + os.environ['DATA_DIR'] + '/{app.database.name}'")(app)
    return {"migrate_environment": ("DATA_DIR={folder}",)}


def by_connection(app: OtherApp) -> dict[str, object]:
    """The recipe of Alembic's cookbook, with a URL fixed in the code."""
    app.write(
        "alembic/env.py",
        f"""
        from alembic import context
        from sqlalchemy import create_engine
        def run(connection):
            context.configure(connection=connection)
            with context.begin_transaction():
                context.run_migrations()
        given = context.config.attributes.get("connection")
        if given is not None:
            run(given)
        else:
            with create_engine("sqlite:///{app.database}").connect() as connection:
                run(connection)
        """,
    )
    return {}


OWN_COMMAND = """
import os, sys
from alembic import command
from alembic.config import Config
config = Config("alembic.ini")
config.set_main_option("sqlalchemy.url", os.environ["ITS_URL"])
command.upgrade(config, sys.argv[-1] if len(sys.argv) > 1 else "heads")
"""


def by_alembic_command(app: OtherApp) -> dict[str, object]:
    app.write("its_alembic.py", OWN_COMMAND)
    return {"alembic_command": f"{sys.executable} its_alembic.py", "migrate_environment": ("ITS_URL",)}


def by_migrate_command(app: OtherApp) -> dict[str, object]:
    app.write("its_alembic.py", OWN_COMMAND)
    return {"migrate_command": f"{sys.executable} its_alembic.py", "migrate_environment": ("ITS_URL={url}",)}


# Named as in the table of docs/migrations.md
WAYS = {
    "`sqlalchemy.url`": reading(URL),
    "`DATABASE_URL`": reading('os.environ["DATABASE_URL"]'),
    "`BACKUP_DATABASE`": reading('"sqlite:///" + os.environ["BACKUP_DATABASE"]'),
    "what follows `-x`": by_x,
    "a variable": by_variable,
    "the folder in a variable": by_folder,
    "the connection in `config.attributes`": by_connection,
    "a command of the app's own, with Alembic's words": by_alembic_command,
    "any other command": by_migrate_command,
}


def test_the_document_has_every_way_with_its_setting(other: OtherApp) -> None:
    text = (BACKEND.parent / "docs" / "migrations.md").read_text()
    section = text.partition("| `env.py` takes its database from |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.M)
    told = {name: set(re.findall("BACKUP_[A-Z_]+", settings)) for name, settings in rows}
    assert told == {name: {f"BACKUP_{one.upper()}" for one in write(other)} for name, write in WAYS.items()}


@pytest.mark.parametrize("way", chance.cases(list(WAYS), "ways to the copy"))
def test_every_way_leads_env_py_to_the_copy(other: OtherApp, way: str) -> None:
    goes_all_the_way(other, **WAYS[way](other))


def test_with_a_command_of_the_apps_own_no_command_of_alembic_is_printed(other: OtherApp) -> None:
    """It would use another database, or none."""
    settings = other.settings(**by_migrate_command(other))
    create_backup(settings, BackupRequest("old"))
    page = (other.backups / "old" / "RESTORE.md").read_text()
    assert str(settings.migrate_command) in page and re.findall("^    .*alembic (?:stamp|upgrade)", page, re.M) == []
    environment = {"BACKUP_MIGRATE_COMMAND": settings.migrate_command, "BACKUP_MIGRATE_ENVIRONMENT": "ITS_URL={url}"}
    said = other.command("restore", "old", "--yes", env=environment, check=0).out
    assert "    python backup_restore.py migrate\n" in said and "alembic" not in said


def test_the_printed_commands_say_what_env_py_takes_with_x(other: OtherApp) -> None:
    by_x(other)
    type_what_is_printed(other, BACKUP_ALEMBIC_X="db={url}")


@pytest.mark.parametrize("way", chance.cases(list(WAYS), "ways to the live database"))
def test_whatever_way_is_set_an_env_py_that_insists_on_the_live_database_is_refused(other: OtherApp, way: str) -> None:
    settings = other.settings(**WAYS[way](other))
    insisting = f'__import__("sqlite3").connect({str(other.database)!r}).execute("CREATE TABLE touched (id)")\n'
    other.write("alembic/env.py", insisting + (other.folder / "alembic" / "env.py").read_text())
    create_backup(settings, BackupRequest("old"))
    with pytest.raises(MigrationFailed, match="opened the live database") as refused:
        migrate(settings)
    for name in ("sqlalchemy.url", "DATABASE_URL", "BACKUP_MIGRATE_ENVIRONMENT", "ALEMBIC_X", "MIGRATE_COMMAND"):
        assert name in refused.value.hint
    with pytest.raises(MigrationFailed):
        restore_backup(settings, plan_restore(settings, "old", migrate=True))
    assert other.query("SELECT name FROM sqlite_schema WHERE name = 'touched'") == []
    assert other.revisions() == {"a1"}


@pytest.mark.parametrize(
    "touch",
    [
        "open({!r}, 'r+b').close()",
        "os.open({!r}, os.O_RDWR)",
        "sqlite3.connect('file:' + {!r} + '?mode=rw', uri=True)",
        "os.symlink({!r}, 'link.db') or sqlite3.connect('link.db')",
        "subprocess.run([sys.executable, '-c', 'import sqlite3, sys; sqlite3.connect(sys.argv[1])', {!r}], check=True)",
    ],
)
def test_the_live_database_is_kept_from_every_door(other: OtherApp, touch: str) -> None:
    imports = "import os, sqlite3, subprocess, sys\n"
    other.write("alembic/env.py", imports + touch.format(str(other.database)) + "\n" + ENV)
    with pytest.raises(MigrationFailed, match=r"opened the live database|CalledProcessError"):
        migrate(other.settings())
    assert other.revisions() == {"a1"}


def test_a_command_that_changes_the_live_database_all_the_same_is_noticed(
    other: OtherApp, needs: Callable[..., None]
) -> None:
    needs("sqlite3")
    insisting = f"sqlite3 {other.database} 'CREATE TABLE touched (id)'"
    with pytest.raises(MigrationFailed, match="changed the live database"):
        migrate(other.settings(migrate_command=insisting))


def test_a_migration_that_never_ends_is_ended_and_taken_back(other: OtherApp) -> None:
    other.migration(
        "b2", "import os, time\nos.path.islink(os.environ['BACKUP_DATABASE']) or time.sleep(1000)\n" + COLOUR, "a1"
    )
    with pytest.raises(MigrationFailed, match="within 6 s"):
        migrate(other.settings(migrate_timeout=6))
    assert other.revisions() == {"a1"} and "colour" not in columns(other)


def test_an_env_py_of_several_databases_is_refused_before_it_runs(other: OtherApp) -> None:
    other.write("alembic.ini", INI + "databases = one, two\n[one]\nsqlalchemy.url = x\n[two]\nsqlalchemy.url = y\n")
    with pytest.raises(MigrationFailed, match="several databases at once"):
        migrate(other.settings())
