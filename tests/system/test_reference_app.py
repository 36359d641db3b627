"""The reference app, PATS: migrations keep data, models match them, it serves, and it stops as a container must."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from models import Base
from small_app import BACKEND, DOCUMENTS, HEAD, INITIAL, MERGED, REMINDERS, SALARY, SmallApp, clean_environment

EVERY_STAGE = [(INITIAL,), (DOCUMENTS,), (SALARY,), (REMINDERS,), (SALARY, REMINDERS), (MERGED,), (HEAD,)]


def migrations(app: SmallApp, **attributes: object) -> Config:
    config = Config(app.folder / "alembic.ini", attributes=attributes)
    if not attributes:
        config.set_main_option("sqlalchemy.url", f"sqlite:///{app.database}")
    return config


def alembic(app: SmallApp, *arguments: str, **env: str) -> None:
    """Run Alembic's command line in a folder that is not the app's."""
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(app.folder / "alembic.ini"), *arguments],
        check=True,
        cwd=app.folder.parent,
        env=clean_environment() | {"BACKUP_APP_DIR": str(app.folder), "PYTHONPATH": str(BACKEND)} | env,
        capture_output=True,
    )


def sound(app: SmallApp) -> bool:
    with closing(app.connect()) as live:
        checks = live.execute("PRAGMA integrity_check").fetchall()
        return checks == [("ok",)] and not live.execute("PRAGMA foreign_key_check").fetchall()


# Migrations


def test_there_is_one_head_below_a_branch_and_a_merge() -> None:
    scripts = ScriptDirectory(str(BACKEND / "alembic"))
    assert scripts.get_heads() == [HEAD]
    assert [script.revision for script in scripts.walk_revisions() if script.is_merge_point] == [MERGED]
    assert [script.revision for script in scripts.walk_revisions() if script.is_branch_point] == [DOCUMENTS]


@pytest.mark.parametrize("revisions", EVERY_STAGE, ids="+".join)
def test_the_rows_of_every_revision_survive_the_way_to_the_head(app: SmallApp, revisions: tuple[str, ...]) -> None:
    app.at_revision(*revisions, rows=5)
    before = app.rows("companies")
    command.upgrade(migrations(app), "head")
    assert app.revisions() == {HEAD}
    assert app.rows("companies") == before
    assert [row[1] for row in app.rows("applications")] == [1, 2, 3, 4, 5]
    assert sound(app)


@pytest.mark.parametrize("revision", [MERGED, SALARY, REMINDERS, DOCUMENTS, INITIAL])
def test_a_downgrade_keeps_the_rows_of_the_tables_it_keeps(app: SmallApp, revision: str) -> None:
    before = app.rows("companies"), len(app.rows("applications"))
    command.downgrade(migrations(app), revision)
    assert revision in app.revisions()
    assert (app.rows("companies"), len(app.rows("applications"))) == before
    assert sound(app)


def test_a_downgrade_to_the_beginning_leaves_no_table_behind(app: SmallApp) -> None:
    command.downgrade(migrations(app), "base")
    assert app.tables() == ["alembic_version"]


def test_documents_survive_the_copying_of_the_table_they_refer_to(app: SmallApp) -> None:
    before = app.rows("documents")
    command.downgrade(migrations(app), DOCUMENTS)
    command.upgrade(migrations(app), "head")
    assert app.rows("documents") == before != []


@pytest.mark.parametrize(
    ("salary", "low", "high", "notes"),
    [
        ("50000-62000", 50000, 62000, None),
        ("62000 - 50000", 50000, 62000, None),
        ("48000", 48000, 48000, None),
        ("to be agreed", None, None, "Salary: to be agreed"),
        (None, None, None, None),
    ],
)
def test_a_salary_becomes_numbers_and_loses_nothing(
    app: SmallApp, salary: str | None, low: int | None, high: int | None, notes: str | None
) -> None:
    app.at_revision(DOCUMENTS, rows=1)
    app.execute("UPDATE applications SET salary = ?", (salary,))
    command.upgrade(migrations(app), "head")
    with closing(app.connect()) as live:
        found = live.execute("SELECT salary_min, salary_max, notes FROM applications").fetchall()
    assert found == [(low, high, notes)]


def test_a_status_is_mended_and_then_held_to_its_words(app: SmallApp) -> None:
    app.at_revision(MERGED, rows=2)
    app.execute("UPDATE applications SET status = ' Offer ' WHERE id = 1")
    app.execute("UPDATE applications SET status = 'lost' WHERE id = 2")
    command.upgrade(migrations(app), "head")
    with closing(app.connect()) as live:
        assert live.execute("SELECT status FROM applications ORDER BY id").fetchall() == [("offer",), ("draft",)]
    with pytest.raises(sqlite3.IntegrityError, match="ck_applications_status"):
        app.execute("UPDATE applications SET status = 'lost'")


def test_a_migration_that_fails_half_way_leaves_the_database_as_it_was(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    (app.folder / "alembic" / "versions" / "bad.py").write_text(
        f'revision = "bad"\ndown_revision = "{HEAD}"\n\n\ndef upgrade() -> None:\n    raise ZeroDivisionError\n'
    )
    before = app.contents()
    with pytest.raises(ZeroDivisionError):
        command.upgrade(migrations(app), "head")
    assert app.contents() == before


def test_the_models_match_the_migrations(app: SmallApp) -> None:
    with create_engine(f"sqlite:///{app.database}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


# The choice of the file to migrate


def test_a_connection_that_is_brought_along_is_used_before_anything_else(app: SmallApp, tmp_path: Path) -> None:
    with create_engine(f"sqlite:///{tmp_path / 'brought.db'}").begin() as connection:
        config = migrations(app, connection=connection)
        config.set_main_option("sqlalchemy.url", f"sqlite:///{tmp_path / 'other.db'}")
        command.upgrade(config, INITIAL)
    assert not (tmp_path / "other.db").exists()
    with closing(sqlite3.connect(tmp_path / "brought.db")) as brought:
        assert brought.execute("SELECT * FROM alembic_version").fetchall() == [(INITIAL,)]


def test_a_file_on_the_command_line_comes_before_the_environment(app: SmallApp, tmp_path: Path) -> None:
    alembic(app, "-x", f"database={tmp_path / 'a.db'}", "upgrade", INITIAL, BACKUP_DATABASE=str(tmp_path / "no.db"))
    alembic(app, "-x", f"url=sqlite:///{tmp_path / 'b.db'}", "upgrade", INITIAL, DATABASE_URL="sqlite:///no.db")
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["a.db", "b.db"]


@pytest.mark.parametrize("env", [{"BACKUP_DATABASE": "data/new.db"}, {"DATABASE_URL": "sqlite:///data/new.db"}])
def test_the_environment_names_a_file_below_the_app_folder(app: SmallApp, env: dict[str, str]) -> None:
    alembic(app, "upgrade", INITIAL, **env)
    assert (app.folder / "data" / "new.db").stat().st_size > 0
    assert app.revisions() == {HEAD}


def test_the_default_is_made_beside_alembic_ini(app: SmallApp) -> None:
    app.database.unlink()
    app.database.parent.rmdir()
    alembic(app, "upgrade", "head")
    assert app.revisions() == {HEAD}


# The app


class Served:
    """The running app, as its clients see it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, Any]:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                urllib.request.Request(self.address + path, data=body), timeout=30
            ) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def served(app: SmallApp) -> Iterator[Served]:
    """Run the app in its own process on a free port; SIGTERM must end it with exit code 0."""
    env = {"BACKUP_DATABASE": str(app.database), "BACKUP_UPLOADS": str(app.uploads), "PORT": "0"}
    command_line = [sys.executable, str(BACKEND / "app.py")]
    with subprocess.Popen(
        command_line, env=clean_environment() | env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout
            yield Served(process, int(process.stdout.readline().rpartition(" ")[2]))
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def test_what_a_client_stores_is_shown_and_is_there_after_sigterm(app: SmallApp) -> None:
    with served(app) as pats:
        status, made = pats.ask("/applications", json.dumps({"company": "Acme", "position": "Clerk"}).encode())
        assert status == 200
        _, stored = pats.ask(f"/documents?application={made['id']}&name=letter%20%C3%A9.txt", b"Dear Acme")
        _, shown = pats.ask("/applications")
    assert (app.uploads / stored["path"]).read_bytes() == b"Dear Acme"
    assert shown[-1] == {
        "id": made["id"],
        "company": "Acme",
        "position": "Clerk",
        "status": "draft",
        "documents": ["letter é.txt"],
    }
    assert app.rows("applications")[-1][0] == made["id"]
    assert sound(app)


def test_bad_requests_are_refused_change_nothing_and_the_app_goes_on(app: SmallApp) -> None:
    before = app.contents()
    bodies = [b"", b"[]", b"{}", b'{"company": "A", "position": "B", "status": "lost"}', b'{"company": null}']
    names = ["../x", "/x", "a/b", "..", ".", "x%00y", ""]
    with served(app) as pats:
        assert [pats.ask("/applications", body)[0] for body in bodies] == [400] * len(bodies)
        assert [pats.ask(f"/documents?application=1&name={name}", b"x")[0] for name in names] == [400] * len(names)
        assert pats.ask("/documents?application=99&name=x", b"x")[0] == 400
        assert pats.ask("/nowhere")[0] == 404
        assert pats.ask("/health") == (200, {"applications": 3})
    assert app.contents() == before


def test_a_missing_database_is_unhealthy_and_never_created_empty(app: SmallApp) -> None:
    app.database.unlink()
    with served(app) as pats:
        assert pats.ask("/health")[0] == 503
    assert not app.database.exists()


# The small app of the tests


def test_looking_at_a_crashed_app_shows_its_last_rows_and_leaves_its_wal_hot(app: SmallApp) -> None:
    app.use_and_crash(7)
    wal = app.database.with_name("pats.db-wal")
    before = wal.read_bytes()
    assert len(app.rows("companies")) == len(app.contents().rows["companies"]) == 3 + 7
    assert wal.read_bytes() == before


def test_the_writer_has_written_what_it_reports(app: SmallApp) -> None:
    with app.writer() as writer:
        pass
    assert writer.errors == ()
    assert len(app.rows("companies")) == 3 + writer.count > 3
