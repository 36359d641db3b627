"""However Alembic is set up, reading an app's migrations runs none in our process and never stops a restore."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.migrations import schema
from backupkit.migrations.tree import read_plainly
from backupkit.model.backup import BackupRequest, SchemaVerdict
from backupkit.model.errors import SchemaMismatch
from backupkit.model.events import silence
from backupkit.restore.restore import plan_restore, restore_backup
from other_apps import OtherApp


@pytest.fixture
def other(tmp_path: Path) -> OtherApp:
    """An app whose database is one migration behind its code."""
    return OtherApp.usual(tmp_path / "other")


# What makes migrations unreadable, and what the toolkit must say that it needs
UNREADABLE = {
    "a package is missing here": (
        lambda app: app.migration("c3", "pass", "b2").write_text("import package_of_the_app\nrevision = str('c3')"),
        "install package_of_the_app",
    ),
    "the ini names no folder": (lambda app: app.write("alembic.ini", "[alembic]\n"), "history"),
    "the ini names a folder that is not there": (
        lambda app: app.write("alembic.ini", "[alembic]\nscript_location = elsewhere\n"),
        "history",
    ),
    "the ini leads to no revision": (
        lambda app: app.write("alembic.ini", "[alembic]\nscript_location = empty\n") and app.write("empty/env.py", ""),
        "BACKUP_ALEMBIC_INI",
    ),
    "a migration is no Python": (lambda app: app.migration("c3", "pass").write_text("revision = ("), "history"),
    "a migration ends the process": (
        lambda app: app.migration("c3", "pass").write_text("import os; os._exit(0)"),
        "history",
    ),
}
unreadable = pytest.mark.parametrize("case", UNREADABLE)


@unreadable
def test_migrations_that_cannot_be_read_never_stop_a_restore(other: OtherApp, case: str) -> None:
    create_backup(other.settings(), BackupRequest("good"))
    other.query("DELETE FROM notes")
    UNREADABLE[case][0](other)
    plan = plan_restore(other.settings(), "good")
    assert plan.verdict and plan.verdict.relation == "unreadable"
    restore_backup(other.settings(), plan)
    assert len(other.query("SELECT * FROM notes")) == 3


@unreadable
def test_the_question_says_that_nothing_was_compared_and_what_that_needs(other: OtherApp, case: str) -> None:
    create_backup(other.settings(), BackupRequest("good"))
    other.query("UPDATE alembic_version SET version_num = 'b2'")
    break_it, needs = UNREADABLE[case]
    break_it(other)
    plan = other.command("restore", "good", "--dry-run", check=0).out
    assert "cannot be compared" in plan and needs in plan
    assert json.loads(other.command("restore", "good", "--dry-run", "--json", check=0).out)["verdict"]["needs"]


@unreadable
def test_doctor_and_the_first_backup_find_it_with_what_mends_it(other: OtherApp, case: str) -> None:
    break_it, needs = UNREADABLE[case]
    break_it(other)
    first = other.command("backup", "first", check=3)
    assert "cannot be compared" in first.err and needs in first.err
    assert "Warning" not in other.command("backup", "second", check=0).err
    said = other.command("doctor").out
    assert needs in said and "cannot be" in said
    (wrong,) = [one for one in json.loads(other.command("doctor", "--json").out) if needs in one["mend"]]
    assert wrong["level"] == "wrong"


def test_a_backup_at_the_live_revision_restores_under_code_that_does_not_know_it(other: OtherApp) -> None:
    other.query("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    create_backup(other.settings(), BackupRequest("good"))
    other.query("DELETE FROM notes")
    restore_backup(other.settings(), plan_restore(other.settings(), "good"))
    assert len(other.query("SELECT * FROM notes")) == 3


def test_a_later_backup_is_refused_still(other: OtherApp) -> None:
    other.query("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    create_backup(other.settings(), BackupRequest("later"))
    other.query("UPDATE alembic_version SET version_num = 'a1'")
    with pytest.raises(SchemaMismatch):
        plan_restore(other.settings(), "later")
    assert plan_restore(other.settings(), "later", force=True)


# Plain files are read without running them; the others run in a separate process.

COMPUTED = "\nrevision = revision.lower()\n"  # only running it gives the revision


def computed(other: OtherApp, more: str) -> None:
    """Add a migration whose revision only running it gives, with more lines at its end."""
    with other.migration("c3", "pass", "b2").open("a") as file:
        file.write(COMPUTED + more)


def relation(app: OtherApp, **more: object) -> SchemaVerdict:
    return schema.classify(app.settings(**more), ("a1",))


def test_plain_migrations_are_read_without_running_them(other: OtherApp) -> None:
    with other.migration("c3", "pass", "b2").open("a") as file:
        file.write("\nimport package_of_the_app\nraise SystemExit\n")
    assert [one.revision for one in relation(other).pending] == ["b2", "c3"]


PLAIN = {
    "a branch and its merge": [("c3", "b2", {}), ("d4", "b2", {}), ("e5", ("c3", "d4"), {})],
    "two bases": [("x1", None, {}), ("x2", "x1", {})],
    "a dependency across branches": [("x1", None, {}), ("x2", "x1", {"depends_on": "b2"})],
    "a dependency in a list": [("x1", None, {"depends_on": ["a1", "b2"]})],
    "two heads and a label": [("c3", "b2", {"branch_labels": ("left",)}), ("d4", "b2", {})],
}


@pytest.mark.parametrize("case", PLAIN)
def test_what_is_read_without_running_is_what_alembic_reads(other: OtherApp, case: str) -> None:
    for revision, below, more in PLAIN[case]:
        other.migration(revision, "pass", below, **more)
    settings = other.settings()
    assert settings.alembic
    plain, ran = read_plainly(settings.alembic), schema._read_by_running(settings, settings.alembic, silence)
    assert plain and plain.heads == ran.heads
    assert {one: set(below) for one, below in plain.below.items()} == {one: set(two) for one, two in ran.below.items()}
    assert set(plain.migrations) == set(ran.migrations)
    order = [one.revision for one in reversed(plain.migrations)]
    assert all(order.index(below) < order.index(one) for one in order for below in plain.below[one])


@pytest.mark.parametrize(
    "text",
    [
        "revision = 'c3'\ndown_revision = PREVIOUS",
        "revision = 'c3'\ndown_revision = 'b2'\nif True:\n    down_revision = 'a1'",
        "revision = 'c3'\ndown_revision = 'b' + '2'",
        "revision = 'c3'\ndown_revision: str",
        "revision = 'a1'\ndown_revision = None",
        "revision = 'c3'\ndown_revision = 'c3'",
        "revision = 'c3'\ndown_revision = 'b2'\ndepends_on = 'a'",
        "down_revision = 'b2'",
        "for revision in ['c3']:\n    down_revision = 'b2'",
    ],
)
def test_what_only_running_can_tell_is_not_guessed(other: OtherApp, text: str) -> None:
    other.migration("c3", "pass").write_text(text)
    setup = other.settings().alembic
    assert setup and read_plainly(setup) is None


def test_what_a_migration_prints_is_no_part_of_our_result(other: OtherApp) -> None:
    create_backup(other.settings(), BackupRequest("good"))
    computed(other, "print('a word of the app')")
    done = other.command("restore", "good", "--dry-run", "--json", check=0)
    assert done.json["verdict"]["relation"] == "behind"
    assert "a word of the app" in done.err


def test_the_apps_logging_stays_apart_from_ours(other: OtherApp) -> None:
    computed(
        other, "import logging, os\nlogging.disable(logging.CRITICAL)\nos.environ['OF_THE_APP'] = '1'\nos.chdir('/')"
    )
    before = logging.root.manager.disable, os.getcwd()
    assert relation(other).relation == "behind"
    assert (logging.root.manager.disable, os.getcwd()) == before and "OF_THE_APP" not in os.environ


def test_a_migration_that_never_returns_is_ended(other: OtherApp, monkeypatch: pytest.MonkeyPatch) -> None:
    computed(other, "import time\ntime.sleep(1000)")
    monkeypatch.setattr(schema, "READING", 1)
    verdict = relation(other)
    assert verdict.relation == "unreadable" and "within 1 s" in verdict.reason


def test_reading_runs_in_the_apps_own_python(other: OtherApp, tmp_path: Path) -> None:
    computed(other, "import package_of_the_app")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "package_of_the_app.py").touch()
    search = f'PYTHONPATH="{tmp_path}/packages:$PYTHONPATH"'
    python = other.write("bin/its python", f'#!/bin/sh\n{search} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert relation(other).relation == "unreadable"
    assert [one.revision for one in relation(other, python=f"'{python}'").pending] == ["b2", "c3"]


def test_a_python_that_is_not_there_is_said(other: OtherApp) -> None:
    computed(other, "")
    verdict = relation(other, python="/nowhere/python")
    assert verdict.relation == "unreadable" and "/nowhere/python" in verdict.reason and "BACKUP_PYTHON" in verdict.needs


def test_reading_keeps_the_apps_code_from_the_live_database_and_leaves_nothing(other: OtherApp) -> None:
    computed(other, f"import sqlite3\nsqlite3.connect({str(other.database)!r}).execute('CREATE TABLE touched (id)')")
    before = sorted(other.folder.rglob("*"))
    verdict = relation(other)
    assert verdict.relation == "unreadable" and "opened the live database" in verdict.reason
    assert other.query("SELECT name FROM sqlite_schema WHERE name = 'touched'") == []
    assert sorted(other.folder.rglob("*")) == before


@pytest.mark.parametrize("more", ["", COMPUTED], ids=["plain", "run"])
def test_migrations_are_read_once_until_one_of_them_changes(
    other: OtherApp, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed(other, more)
    readings: list[int] = []
    read = schema._read
    monkeypatch.setattr(schema, "_read", lambda *arguments: readings.append(1) or read(*arguments))
    assert [len(relation(other).pending) for _ in range(3)] == [2] * 3
    assert len(readings) == 1
    other.migration("d4", "pass", "c3")
    assert len(relation(other).pending) == 3
