"""Odd databases work: with parts that only the app can read, with 2,000 columns, of views only, and under any name."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from backupkit.sqlite import sql
from other_apps import ENV, OtherApp


def with_its_own(connection: sqlite3.Connection) -> None:
    """Add the app's own function and collation, which SQLite needs to read some of its tables."""
    connection.create_collation("german", lambda one, two: (one > two) - (one < two))
    connection.create_function("slug", 1, lambda text: text, deterministic=True)


def module(connection: sqlite3.Connection) -> None:
    """Make a virtual table of a module that only the app loads."""
    connection.execute("CREATE TABLE notes (text)")
    connection.execute("INSERT INTO notes VALUES ('one')")
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "INSERT INTO sqlite_master VALUES"
        " ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING vec0(embedding float[4])')"
    )
    connection.execute("PRAGMA writable_schema=RESET")


def collation(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT COLLATE german)")
    connection.execute("CREATE INDEX by_text ON notes (text)")
    connection.execute("INSERT INTO notes (text) VALUES ('b'), ('a'), (1), (1.5), (NULL)")


def collation_of_the_key(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE notes (text TEXT COLLATE german PRIMARY KEY, more) WITHOUT ROWID")
    connection.execute("INSERT INTO notes VALUES ('b', 1), ('a', 2)")


def function(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE notes (text TEXT, slug TEXT AS (slug(text)))")
    connection.execute("INSERT INTO notes (text) VALUES ('b'), ('a')")


def function_in_an_index(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE notes (text TEXT)")
    connection.execute("CREATE INDEX by_slug ON notes (slug(text))")
    connection.execute("INSERT INTO notes (text) VALUES ('b'), ('a')")


ITS_OWN = {
    module: "vec0",
    collation: "german",
    collation_of_the_key: "german",
    function: "slug",
    function_in_an_index: "slug",
}


@pytest.fixture
def app(tmp_path: Path) -> OtherApp:
    return OtherApp(tmp_path / "app")


def make(app: OtherApp, *kinds: Callable[[sqlite3.Connection], None]) -> None:
    with contextlib.closing(sqlite3.connect(app.database)) as connection, connection:
        with_its_own(connection)
        for kind in kinds:
            kind(connection)


def texts(app: OtherApp) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(app.database)) as connection, connection:
        with_its_own(connection)
        return connection.execute("SELECT text FROM notes ORDER BY quote(text)").fetchall()


@pytest.mark.parametrize("kind", ITS_OWN, ids=lambda one: one.__name__)
def test_dump_says_what_restore_dump_will_refuse_and_what_still_works(app: OtherApp, kind: Callable[..., None]) -> None:
    make(app, kind)
    before = texts(app)
    for target in ("it.sql", "-"):
        done = app.command("dump", target, check=3)
        assert "restore-dump" in done.err and ITS_OWN[kind] in done.err and "backup` and `" in done.err
    refused = app.command("restore-dump", "it.sql", "--force", check=12)
    assert ITS_OWN[kind] in refused.err
    app.command("backup", "whole", check=0)
    app.command("verify", "whole", "--test-restore", check=0)
    make(app, lambda live: live.execute("DELETE FROM notes"))
    app.command("restore", "whole", "--force", check=0)
    assert texts(app) == before


@pytest.mark.parametrize("kind", [collation, collation_of_the_key, function, function_in_an_index])
def test_the_dump_has_every_row_all_the_same(app: OtherApp, kind: Callable[..., None]) -> None:
    make(app, kind)
    app.command("dump", "it.sql", check=3)
    with contextlib.closing(sqlite3.connect(":memory:")) as elsewhere:
        with_its_own(elsewhere)
        elsewhere.executescript((app.backups / "it.sql").read_text())
        assert elsewhere.execute("SELECT text FROM notes ORDER BY quote(text)").fetchall() == texts(app)


def test_a_dump_leaves_nothing_on_the_connection_it_was_given(app: OtherApp) -> None:
    make(app, collation)
    with contextlib.closing(sqlite3.connect(app.database)) as connection:
        sql.write_dump(connection, io.BytesIO())
        with pytest.raises(sqlite3.OperationalError, match="no such collation"):
            connection.execute("SELECT max(text) FROM notes")


def test_a_usual_database_is_dumped_without_a_warning(app: OtherApp) -> None:
    app.query("CREATE VIRTUAL TABLE found USING fts5(text)")
    assert app.command("dump", "one.sql", check=0).err == ""
    app.query("CREATE TABLE notes (text TEXT COLLATE NOCASE UNIQUE, length INTEGER AS (length(text)))")
    app.query("INSERT INTO notes (text) VALUES ('one')")
    app.query("INSERT INTO found (text) SELECT text FROM notes")
    assert app.command("dump", "two.sql", check=0).err == ""
    app.command("restore-dump", "two.sql", "--force", check=0)


@pytest.mark.parametrize("key", ["", " INTEGER PRIMARY KEY"])
def test_two_thousand_columns_are_dumped_and_come_back(app: OtherApp, key: str) -> None:
    app.query(f"CREATE TABLE wide ({', '.join([f'c0{key}', *(f'c{number}' for number in range(1, 2000))])})")
    for number in range(3):
        app.query("INSERT INTO wide (c0, c1, c1999) VALUES (?, ?, 'it''s')", number, number / 10)
    app.query("DELETE FROM wide WHERE c0 = 1")
    before, rowids = app.query("SELECT * FROM wide"), app.query("SELECT rowid FROM wide")
    app.command("dump", "it.sql", check=0)
    app.query("DELETE FROM wide")
    app.command("restore-dump", "it.sql", "--force", check=0)
    assert (app.query("SELECT * FROM wide"), app.query("SELECT rowid FROM wide")) == (before, rowids)


def test_a_database_of_views_only_is_one(app: OtherApp) -> None:
    app.query("CREATE VIEW answers AS SELECT 42 AS answer")
    app.command("backup", "whole", check=0)
    app.command("verify", "whole", "--test-restore", check=0)
    app.command("dump", "it.sql", check=0)
    for command in (("restore", "whole"), ("restore-dump", "it.sql")):
        app.query("DROP VIEW answers")
        app.query("CREATE TABLE other (id INTEGER)")
        app.command(*command, "--force", check=0)
        assert app.query("SELECT * FROM answers") == [(42,)]
        assert app.query("SELECT name FROM sqlite_master") == [("answers",)]
    app.query("DROP VIEW answers")
    assert app.command("backup").code == 13


# Folders and databases with any name

ODD = "ä b?c%41d#e'f"
ITS_TEST = (
    "import os; from sqlalchemy import create_engine, text; engine = create_engine(os.environ['DATABASE_URL']);"
    "assert engine.connect().execute(text('SELECT count(*) FROM notes')).scalar() == 3"
)


@pytest.fixture
def odd(tmp_path: Path) -> OtherApp:
    """An app with odd names for its folder and database, one migration behind its code."""
    env = "import os\n" + ENV.replace('context.config.get_main_option("sqlalchemy.url")', "os.environ['DATABASE_URL']")
    return OtherApp.usual(tmp_path / ODD, env=env, database=f"da ta?%41#/{ODD}.db")


def test_every_command_goes_with_every_name(odd: OtherApp) -> None:
    environment = {"BACKUP_TEST_COMMAND": f'{sys.executable} -c "{ITS_TEST}"'}
    for words in (
        "backup one",
        "list",
        "show one",
        "verify one --test-restore",
        "restore one --dry-run",
        "restore one --force",
        "restore one --migrate --force",
        "undo --force",
        "dump it.sql",
        "restore-dump it.sql --force",
        "migrate",
        "undo --force",
        "export one it.tar.gz",
        "delete one --yes",
        "import it.tar.gz",
        "verify --all",
        "prune --dry-run",
        "doctor",
        "run",
        "recover",
    ):
        odd.command(*words.split(), env=environment, check=0)
    assert len(odd.query("SELECT * FROM notes")) == 3 and odd.revisions() == {"a1"}


def test_alembics_here_may_lead_to_any_name(odd: OtherApp) -> None:
    odd.write("alembic.ini", "[alembic]\nscript_location = %(here)s/alembic\n")
    odd.command("migrate", check=0)
    assert odd.revisions() == {"b2"}


@pytest.mark.parametrize("way", [str, quote], ids=["as it is", "quoted"])
def test_a_url_may_name_it_either_way(odd: OtherApp, way: Callable[[str], str]) -> None:
    plain = odd.folder.parent / "a b%41#ü.db"
    odd.database.rename(plain)
    done = odd.command("backup", "--json", env={"BACKUP_DATABASE": f"sqlite:///{way(str(plain))}"}, check=0)
    assert done.json["database_file"] == plain.name


@pytest.mark.parametrize("compose", [False, True])
def test_the_printed_commands_go_with_every_name(odd: OtherApp, tmp_path: Path, compose: bool) -> None:
    environment = {"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker compose"} if compose else {}
    odd.command("backup", "one", check=0)
    said = odd.command("restore", "one", "--force", env=environment, check=0).out
    lines = [line.strip() for line in said.splitlines() if " && " in line]
    assert len(lines) == 2 and all(line.startswith("docker compose exec" if compose else "cd ") for line in lines)
    docker = tmp_path / "bin" / "docker"  # it runs the service's command at once
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
    docker.chmod(0o755)
    link = tmp_path / "plain.db"
    link.symlink_to(odd.database)
    for line in lines:
        path = os.pathsep.join((str(docker.parent), os.path.dirname(sys.executable), os.environ["PATH"]))
        done = odd.typed(line, DATABASE_URL=f"sqlite:///{link}", PATH=path)
        assert done.returncode == 0, done.stderr
    assert odd.revisions() == {"b2"}


def test_the_guard_of_env_py_knows_the_database_by_any_url(odd: OtherApp) -> None:
    guard = "from backupkit import back_up_before_upgrade\n"
    url = 'os.environ["DATABASE_URL"]'
    env = (odd.folder / "alembic" / "env.py").read_text()
    odd.write("alembic/env.py", env.replace("with ", f"{guard}back_up_before_upgrade(context, {url})\nwith ", 1))
    quoted = f"sqlite:///{quote(str(odd.database))}"
    told = {"BACKUP_DATABASE": str(odd.database), "DATABASE_URL": quoted}
    done = odd.typed(f"cd {shlex.quote(str(odd.folder))} && alembic upgrade head", **told)
    assert done.returncode == 0, done.stderr
    assert [path.name.startswith("pre_migration") for path in odd.backups.iterdir() if path.is_dir()].count(True) == 1
