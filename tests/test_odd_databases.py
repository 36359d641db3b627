"""Databases as they are: what only the app can read, 2,000 columns, nothing but views. And folders with any name."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from backupkit.parts.sources import sql
from other_apps import OtherApp


def with_its_own(connection: sqlite3.Connection) -> None:
    """The app's own function and collation, without which SQLite does not read some of its tables."""
    connection.create_collation("german", lambda one, two: (one > two) - (one < two))
    connection.create_function("slug", 1, lambda text: text, deterministic=True)


def module(connection: sqlite3.Connection) -> None:
    """A virtual table of a module that is loaded by the app."""
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
        assert "restore-dump" in done.err and ITS_OWN[kind] in done.err and "`backup` and `restore`" in done.err
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
