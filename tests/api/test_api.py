"""The calls for programs on an app's folder, the public surface, and the examples of the guide, which are run."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import backupkit
from backupkit import AppFolder, PlainDatabase, Settings, create_backup_now, list_backups
from backupkit.backup.create import create_backup
from backupkit.config.extras import from_extra
from backupkit.model.backup import BackupRequest, Kind
from backupkit.model.errors import Refused
from backupkit.monitoring.status import status
from backupkit.repository import store
from examples import PYTHON, examples
from small_app import BACKEND, INITIAL, NOON, SALARY, SmallApp, clean_environment


def program(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the code in a separate process, in that folder."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**clean_environment(), "PYTHONPATH": str(BACKEND), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def calls(app: SmallApp) -> AppFolder:
    return AppFolder(settings=app.settings, clock=lambda: NOON)


# An app's folder


def test_a_backup_is_the_one_that_the_command_makes(app: SmallApp, calls: AppFolder) -> None:
    assert calls.create_backup_now() == app.backups / "backup_20260615_120000"
    (listed,) = app.command("list", "--json", check=0).json
    assert (listed["kind"], listed["state"], listed["uploads_included"]) == ("manual", "checked", True)


def test_the_list_is_newest_first_with_all_that_a_menu_shows(app: SmallApp, calls: AppFolder) -> None:
    calls.create_backup_now()
    AppFolder(settings=app.settings, clock=lambda: datetime(2026, 6, 16, 9, 5, tzinfo=UTC)).create_backup_now()
    first, second = calls.list_backups()
    size = store.read(app.settings, "backup_20260616_090500").size_bytes
    path = app.backups / "backup_20260616_090500"
    assert first == {"path": path, "name": path.name, "display": "16/06/2026 09:05", "size": size}
    assert second["display"] == "15/06/2026 12:00"


def test_times_are_shown_in_the_configured_zone(app: SmallApp) -> None:
    app.command("backup", "one", check=0)
    made = store.read(app.settings, "one").metadata
    assert made
    (app.folder / "backup.toml").write_text('timezone = "Pacific/Kiritimati"\n')
    shown = made.created_at.astimezone(Settings(app_dir=app.folder, timezone="Pacific/Kiritimati").zone)
    calls = AppFolder(app.folder)
    assert calls.get_last_backup_display() == calls.list_backups()[0]["display"] == f"{shown:%d/%m/%Y %H:%M}"


def test_a_damaged_backup_is_listed_without_a_time(app: SmallApp, calls: AppFolder) -> None:
    made = calls.create_backup_now()
    assert made
    (made / "backup_metadata.json").write_text("{")
    assert [entry["display"] for entry in calls.list_backups()] == ["—"]
    assert calls.get_last_backup_display() == "—"


def test_the_last_backup_is_the_one_that_status_names(app: SmallApp, calls: AppFolder) -> None:
    at = calls.clock()

    def make(name: str, hours: float, kind: Kind = "manual", settings: Settings = app.settings) -> Path:
        made = create_backup(settings, BackupRequest(name, kind=kind), clock=lambda: at + timedelta(hours=hours))
        return made.backup.path

    (make("one", -8) / "SHA256SUMS").unlink()
    make("theirs", -7, settings=app.settings.replaced(app_id="another"))
    make("safety", -6, "pre_restore")
    make("wrong", 9000)
    assert calls.get_last_backup_display() == "—"
    assert status(app.settings, calls.clock).numbers.last_backup is None
    make("good", -9)
    assert calls.get_last_backup_display() == "15/06/2026 03:00"
    assert status(app.settings, calls.clock).numbers.last_backup == "good"


def test_a_restore_brings_all_of_it_back_and_can_be_undone(app: SmallApp, calls: AppFolder) -> None:
    made, before = calls.create_backup_now(), app.contents()
    app.execute("DELETE FROM documents")
    app.write_upload("3/new.txt", b"new")
    ruined = app.contents()
    assert made and calls.restore_backup(made) is True
    assert app.contents() == before
    assert calls.get_last_backup_display() == "15/06/2026 12:00"
    app.command("undo", "--force", check=0)
    assert app.contents() == ruined


def test_what_the_database_was_lies_beside_it(app: SmallApp, calls: AppFolder) -> None:
    made = calls.create_backup_now()
    app.use_and_crash(5)
    ruined = app.rows("companies")
    assert made and calls.restore_backup(str(made)) is True
    app.database = app.database.with_name("pats.db.before_restore_20260615_120000")
    assert app.rows("companies") == ruined
    assert sorted(path.name for path in app.database.parent.glob(".*")) == []


def test_a_backup_may_be_named_without_its_folder(app: SmallApp, calls: AppFolder) -> None:
    made = calls.create_backup_now()
    assert made and calls.restore_backup(made.name) is True


def leave_metadata_out(app: SmallApp, made: Path) -> Path:
    (made / "backup_metadata.json").unlink()
    return made


def alter_the_database(app: SmallApp, made: Path) -> Path:
    (made / "pats.db").write_bytes(b"altered")
    return made


def come_from_elsewhere(app: SmallApp, made: Path) -> Path:
    return made.rename(app.folder / made.name)


def be_of_a_later_revision(app: SmallApp, made: Path) -> Path:
    app.execute(f"UPDATE alembic_version SET version_num = '{INITIAL}'")
    for path in (app.folder / "alembic" / "versions").glob("*.py"):
        if path.name.startswith((SALARY, "c619", "e2b8", "f5d1")):
            path.unlink()
    return made


@pytest.mark.parametrize(
    "spoil",
    [
        leave_metadata_out,
        alter_the_database,
        come_from_elsewhere,
        be_of_a_later_revision,
        lambda app, made: made.with_name("other"),
        lambda app, made: app.backups / "..",
    ],
    ids=["metadata", "altered", "elsewhere", "later", "missing", "hostile"],
)
def test_what_cannot_be_restored_is_false_and_nothing_was_touched(
    app: SmallApp, calls: AppFolder, spoil: Callable[[SmallApp, Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    made = calls.create_backup_now()
    app.execute("DELETE FROM documents")
    wanted = spoil(app, made) if made else None
    before, around = app.contents(), sorted(app.database.parent.iterdir())
    assert wanted and calls.restore_backup(wanted) is False
    assert [record.levelname for record in caplog.records if record.levelno >= logging.ERROR] == ["ERROR"]
    assert "Traceback" not in caplog.text
    assert app.contents() == before
    assert sorted(app.database.parent.iterdir()) == around


def test_a_failure_is_none_and_is_logged_with_the_next_step(
    app: SmallApp, calls: AppFolder, caplog: pytest.LogCaptureFixture
) -> None:
    app.database.unlink()
    assert calls.create_backup_now() is None
    assert calls.create_backup_if_needed() is None
    assert caplog.text.count(f"There is no database at {app.database}. Set BACKUP_DATABASE") == 2
    assert list(app.backups.glob("*_*")) == []


def test_a_plain_database_is_told_of_no_settings_and_no_commands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert PlainDatabase(tmp_path / "missing.db").create_backup_now() is None
    assert "There is no database at" in caplog.text and "BACKUP_" not in caplog.text and "`" not in caplog.text


def test_settings_that_cannot_be_right_make_each_call_fail_not_raise(
    app: SmallApp, caplog: pytest.LogCaptureFixture
) -> None:
    (app.folder / "backup.toml").write_text('timezone = "Mars"\n')
    calls = AppFolder(app.folder)
    assert (calls.create_backup_now(), calls.create_backup_if_needed(), calls.restore_backup("one")) == (
        None,
        None,
        False,
    )
    assert (calls.list_backups(), calls.get_last_backup_display()) == ([], "—")
    assert caplog.text.count("timezone = 'Mars'") == 5


def test_what_went_into_a_backup_only_in_part_is_logged(
    app: SmallApp, calls: AppFolder, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(app.uploads / "pipe")
    assert calls.create_backup_now()
    assert "is not in the backup" in caplog.text


def test_there_is_one_a_day_whatever_made_it(app: SmallApp, calls: AppFolder) -> None:
    made = calls.create_backup_if_needed()
    assert made == app.backups / "scheduled_20260615_120000"
    assert calls.create_backup_if_needed() is None
    tomorrow = AppFolder(settings=app.settings, clock=lambda: datetime(2026, 6, 16, tzinfo=UTC))
    assert tomorrow.create_backup_now() and tomorrow.create_backup_if_needed() is None


def test_threads_and_processes_that_ask_at_once_make_one(app: SmallApp) -> None:
    code = (
        "import sys, backupkit; print('ready', flush=True); sys.stdin.readline(); backupkit.create_backup_if_needed()"
    )
    environment = {**clean_environment(), "PYTHONPATH": str(BACKEND), "BACKUP_LOCK_TIMEOUT": "60"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = [
        subprocess.Popen([sys.executable, "-c", code], cwd=app.folder, env=environment, text=True, **pipes)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout and child.stdout.readline() == "ready\n"
    patient = app.settings.replaced(lock_timeout=60)
    threads = [threading.Thread(target=AppFolder(settings=patient).create_backup_if_needed) for _ in range(4)]
    for thread in threads:
        thread.start()
    said = [child.communicate("go\n", timeout=120)[1] for child in children]
    for thread in threads:
        thread.join()
    assert said == ["", ""]
    assert len(store.all_backups(app.settings)) == 1


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_apps_own_locks_outlive_the_calls(app: SmallApp, mode: str) -> None:
    ask = f"import sqlite3; sqlite3.connect({str(app.database)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    calls = AppFolder(settings=app.quick().settings)
    with contextlib.closing(app.connect()) as live:
        live.execute(f"PRAGMA journal_mode={mode}")
        live.execute("BEGIN IMMEDIATE")
        made = calls.create_backup_now()
        live.execute("INSERT INTO companies (name) VALUES ('later')")
        live.commit()
        live.execute("BEGIN IMMEDIATE")
        assert made and calls.restore_backup(made) is False
        assert calls.list_backups() and calls.create_backup_if_needed() is None
        assert "database is locked" in program(ask, app.folder).stderr
    assert program(ask, app.folder).stderr == ""


# Which app is used


def test_without_arguments_it_is_the_app_in_the_current_folder(app: SmallApp) -> None:
    said = program("import backupkit; print(backupkit.create_backup_now())", app.folder)
    assert Path(said.stdout.strip()).parent == app.backups, said.stderr


def test_a_folder_can_be_named_and_the_environment_wins(
    app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = create_backup_now(app_dir=app.folder)
    assert made and made.parent == app.backups
    monkeypatch.setenv("BACKUP_APP_DIR", str(app.folder))
    assert [entry["path"] for entry in list_backups(app_dir=tmp_path)] == [made]


def test_elsewhere_it_is_the_app_that_the_toolkit_was_copied_into(app: SmallApp, tmp_path: Path) -> None:
    shutil.copy2(BACKEND / "backup_restore.py", app.folder)
    shutil.copytree(BACKEND / "backupkit", app.folder / "backupkit", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "elsewhere").mkdir()
    code = "import backupkit; print(backupkit.create_backup_now())"
    said = program(code, tmp_path / "elsewhere", PYTHONPATH=str(app.folder))
    assert Path(said.stdout.strip()).parent == app.backups, said.stderr


# The public surface


def test_what_is_public_is_what_the_guide_lists() -> None:
    section = PYTHON.read_text().split("## The library beneath")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [a-z ]+ \| (`.*) \|$", section, re.M)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(backupkit.__all__)


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in backupkit.__all__:
        value = getattr(backupkit, name)
        assert name in dir(backupkit)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__ and value.__doc__ is not type(value).__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(backupkit, "nonsense")  # noqa: B009 (mypy knows that it is not there)


def test_a_type_checker_sees_what_is_imported_when_it_runs() -> None:
    source = Path(backupkit.__file__).read_text()
    pairs = re.findall(r"from backupkit\.([\w.]+) import (\w+) as \w+", source)
    assert {name: f"backupkit.{room}" for room, name in pairs} == {
        name: f"backupkit.{room}" for room, names in backupkit._HOMES.items() for name in names
    }


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, backupkit; print(*sorted(name for name in sys.modules if name.startswith('backupkit')))"
    assert program(code, BACKEND).stdout.split() == ["backupkit", "backupkit.model", "backupkit.model.version"]


def test_a_program_s_calls_import_neither_command_line_nor_alembic() -> None:
    code = "import sys; from backupkit import create_backup_now; print(*sys.modules)"
    loaded = set(program(code, BACKEND).stdout.split())
    assert loaded.isdisjoint({"typer", "rich", "alembic", "sqlalchemy"})


# The guide's examples


@pytest.mark.parametrize("number", range(len(examples())))
def test_an_example_of_the_guide_runs(app: SmallApp, number: int) -> None:
    with contextlib.closing(sqlite3.connect(app.folder / "app.db")) as notes, notes:
        notes.execute("CREATE TABLE notes (text TEXT)")
    done = program(examples()[number], app.folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert list((app.folder / "backups").glob("*_*")) or list((app.folder / "kept").glob("*_*"))


# Extras


def test_a_missing_extra_is_one_line_that_says_what_to_type() -> None:
    with pytest.raises(Refused) as refused, from_extra("notifications", "A notification by mail"):
        importlib.import_module("no_such_package.at_all")
    assert refused.value.message == "A notification by mail needs the package no_such_package, which is not installed."
    assert refused.value.hint == "pip install 'backupkit[notifications]'"


def test_a_missing_module_of_our_own_is_not_taken_for_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError), from_extra("ui", "The interface"):
        importlib.import_module("backupkit.api.nothing")


def test_what_an_extra_brings_is_imported() -> None:
    with from_extra("ui", "The interface"):
        assert importlib.import_module("json") is json
