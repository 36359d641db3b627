"""The doctor finds what in the set-up would fail on the day it is needed, and names the command that fixes it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.deployment import as_root
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import RemoteAway
from backupkit.model.events import silence
from backupkit.monitoring.doctor import Finding, examine
from backupkit.remotes.folder import FolderRemote
from backupkit.remotes.registry import prepare_remote, try_remotes
from backupkit.scheduling import scheduler_lock
from refusals import run_here
from small_app import DOCUMENTS, HEAD, MERGED, NOON, SmallApp


def with_remotes(app: SmallApp, **tables: dict[str, Any]) -> Settings:
    told = {"app_dir": app.folder, "database": app.database, "uploads": app.uploads, "dir": app.backups}
    return Settings(**told, remotes=tables)  # type: ignore[arg-type]


def about(found: list[Finding], word: str) -> Finding:
    (one,) = [finding for finding in found if word in finding.text]
    return one


@pytest.fixture
def nas(tmp_path: Path) -> dict[str, Any]:
    """The table of a folder that can be a remote."""
    (tmp_path / "nas").mkdir()
    return {"type": "folder", "path": str(tmp_path / "nas")}


# The database


def test_where_there_is_no_database_likely_ones_are_named_with_the_command_to_type(app: SmallApp) -> None:
    found = app.database.rename(app.folder / "data" / "the app's.sqlite3")
    for place in ("node_modules/x.db", ".hidden/x.db", "backups/good/x.db", "a/b/c/d/x.db"):
        (app.folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, app.folder / place)
    (app.folder / "data" / "cache.db").write_bytes(b"something else")
    document = app.command("doctor", "--json", check=1).json
    assert f"There is no database at {app.database}" in document[0]["text"]
    named = [one for one in document if "is it the app's?" in one["text"]]
    assert [one["text"] for one in named] == [f"{found} is a SQLite database: is it the app's?"]
    typed = shlex.split(named[0]["mend"])
    assert typed[:2] == ["python", "backup_restore.py"]
    app.command(*typed[2:], check=0)
    assert f"The database {found} is readable" in app.command("doctor").out


def test_a_missing_database_is_said_once(app: SmallApp) -> None:
    app.database.unlink()
    wrong = [one.text for one in examine(app.settings) if one.level == "wrong"]
    assert len(wrong) == 1 and f"There is no database at {app.database}" in wrong[0]


def test_an_app_without_alembic_is_not_warned_for_that(app: SmallApp) -> None:
    (app.folder / "alembic.ini").unlink()
    settings = app.settings.replaced(alembic_ini=app.folder / "alembic.ini")
    found = about(examine(settings), "alembic.ini")
    assert found.level == "warning" and "BACKUP_ALEMBIC_INI" in found.fix  # needed, as the database has a revision
    assert f"{HEAD}, and is not compared with this code: there is no {settings.alembic_ini}." in found.text
    with sqlite3.connect(app.database) as live:
        live.execute("DROP TABLE alembic_version")
    found = about(examine(settings), "alembic.ini")
    assert found.level == "note" and "Schemas are not compared" in found.text


def test_in_a_container_a_folder_is_given_away_by_a_line_that_can_be_typed_on_the_host() -> None:
    words = ("chown", "-R", "1000:1000", "/app/backups")
    assert as_root(*words, environment={}) == "As root: chown -R 1000:1000 /app/backups"
    inside = {"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker-compose", "BACKUP_SERVICE": "web"}
    typed = "docker-compose run --rm --no-deps --user root --entrypoint chown web -R 1000:1000 /app/backups"
    assert as_root(*words, environment=inside) == typed


@pytest.mark.parametrize(
    ("services", "fix"),
    [({"BACKUP_HOST_SCHEDULER": "scheduler"}, "docker compose up -d scheduler"), ({}, "a second service, or a line")],
    ids=["with a service for it", "without"],
)
def test_a_service_that_the_compose_file_does_not_have_is_not_named(
    app: SmallApp, services: dict[str, str], fix: str
) -> None:
    inside = {"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker compose", "BACKUP_HOST_COMMAND": "./backup.sh"}
    found = app.command("doctor", "--json", env={**inside, **services}).json
    (scheduler,) = [one["mend"] for one in found if "No scheduler" in one["text"]]
    assert scheduler.startswith(fix)


def test_a_database_that_the_environment_names_wrongly_is_mended_there(app: SmallApp) -> None:
    result = app.command("doctor", env={"BACKUP_DATABASE": "data/other.db"}, check=1)
    assert "BACKUP_DATABASE, in the environment, says so." in result.out
    assert "fix: set BACKUP_DATABASE to data/pats.db" in result.out and "config set database" not in result.out


def test_no_more_than_three_likely_databases_are_named_the_last_changed_first(app: SmallApp) -> None:
    for number in range(5):
        shutil.copy(app.database, app.folder / "data" / f"{number}.db")
        os.utime(app.folder / "data" / f"{number}.db", (number, number))
    found = [one.text for one in examine(app.settings.replaced(database=app.folder / "gone.db"))]
    named = [Path(text.split(" is a ")[0]).name for text in found if "is it the app's?" in text]
    assert named == ["pats.db", "4.db", "3.db"]


@pytest.mark.parametrize(
    ("environment", "fix"),
    [
        ({"BACKUP_RUNNER_IN_USE": "local"}, "./backup.sh config set database VALUE"),
        ({"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker compose"}, "docker compose up -d backend"),
    ],
    ids=["without a container", "in one"],
)
def test_a_setting_of_the_compose_file_that_is_not_in_force_is_explained(
    app: SmallApp, environment: dict[str, str], fix: str
) -> None:
    told = {"BACKUP_HOST_COMPOSE_SETS": " BACKUP_DATABASE ", "BACKUP_HOST_COMMAND": "./backup.sh", **environment}
    found = app.command("doctor", "--json", env=told).json[0]
    assert found["text"].startswith("The compose file sets BACKUP_DATABASE") and found["mend"] == fix
    assert "The compose file sets BACKUP_DATABASE" in app.command("config", env=told, check=0).err
    in_force = {**told, "BACKUP_DATABASE": "data/pats.db"}
    assert "compose file sets" not in app.command("doctor", env=in_force).out
    assert "compose file sets" not in app.command("config", env=in_force, check=0).err


def test_an_engine_that_fails_has_a_row(app: SmallApp) -> None:
    told = {"BACKUP_HOST_ENGINE_FAILS": "podman does not answer within 30 s", "BACKUP_RUNNER_IN_USE": "local"}
    found = [one for one in app.command("doctor", "--json", env=told).json if "compose file" in one["text"]]
    assert [one["text"] for one in found] == ["There is a compose file, but podman does not answer within 30 s."]
    assert found[0]["level"] == "warning" and found[0]["mend"].startswith("start the engine")


# Remotes


def test_a_remote_that_can_be_used_is_fine_and_one_that_is_not_mounted_is_wrong(
    app: SmallApp, nas: dict[str, Any]
) -> None:
    settings = with_remotes(app, nas=nas)
    found = about(examine(settings), "nas")
    assert (found.level, "remotes --init nas" in found.fix) == ("wrong", True)
    prepare_remote(settings, "nas")
    found = about(examine(settings), "The remote nas")
    assert (found.level, found.text) == ("fine", f"The remote nas can be used: folder, {nas['path']}.")


@pytest.mark.parametrize(
    ("version", "is_named"), [("0.14.0", True), ("0.16.5", True), ("0.17.0", False), ("1.0.0", False), ("", False)]
)
def test_a_restic_that_is_older_than_the_reference_image_s_is_named(
    app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_named: bool
) -> None:
    (tmp_path / "restic").write_text(f"#!/bin/sh\necho restic {version} compiled with go\n")
    (tmp_path / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    settings = with_remotes(app, cloud={"type": "restic", "repository": str(tmp_path / "none"), "password": "x"})
    found = [one for one in examine(settings) if one.text.startswith("restic is ")]
    assert [one.level for one in found] == ["warning"] * is_named
    assert all(version[:4] in one.text for one in found)


@pytest.mark.parametrize(("revision", "told"), [(MERGED, "1 migration behind"), (DOCUMENTS, "4 migrations behind")])
def test_how_far_the_schema_is_behind_is_said(app: SmallApp, revision: str, told: str) -> None:
    app.at_revision(revision)
    assert told in about(examine(with_remotes(app)), "behind this code").text


def test_a_secret_that_others_may_read_is_named_with_what_to_type(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "the password").write_text("sesame")
    (app.folder / "urls").write_text("json://host.example.org")
    (app.folder / "backup.toml").write_text('notify_urls_file = "urls"')
    cloud = {"type": "restic", "repository": str(tmp_path / "none"), "password_file": str(tmp_path / "the password")}
    settings = with_remotes(app, cloud=cloud)
    for mode in (0o640, 0o604):
        for path in (tmp_path / "the password", app.folder / "urls"):
            path.chmod(mode)
        found = [one for one in examine(settings) if "the secret in" in one.text]
        assert [one.level for one in found] == ["warning"] * 2
        assert str(app.folder / "urls") in found[0].text
        for one in found:
            subprocess.run(one.fix, shell=True, check=True)
    assert not [one for one in examine(settings) if "the secret in" in one.text]


def test_every_remote_is_looked_at_and_no_secret_is_shown(app: SmallApp, tmp_path: Path, nas: dict[str, Any]) -> None:
    tables = {
        "nas": nas,
        "cloud": {"type": "restic", "repository": "rest:http://ann:sesame@127.0.0.1:9/"},
        "git": {"type": "git", "url": f"{tmp_path}/none.git", "user_name": "B", "user_email": "b@example.com"},
    }
    result = run_here(app, "doctor", env={"BACKUP_REMOTES": json.dumps(tables)}, check=1)
    assert "sesame" not in result.out + result.err
    for name in tables:
        assert (
            f"the remote {name}" in result.out or f"The remote {name}" in result.out or f"remote {name}" in result.out
        )
    assert "BACKUP_REMOTE_CLOUD_PASSWORD_FILE" in result.out


def test_a_remote_that_hangs_is_given_up_and_the_others_are_told_of(
    app: SmallApp, tmp_path: Path, nas: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a folder on a server that went away: calls on it do not return."""
    settings = with_remotes(app, stuck={"type": "folder", "path": str(tmp_path)}, nas=nas)
    prepare_remote(settings, "nas")
    look, is_back = FolderRemote.check, Event()

    def look_or_wait(remote: FolderRemote) -> None:
        look(remote) if remote.name == "nas" else is_back.wait(60)

    monkeypatch.setattr(FolderRemote, "check", look_or_wait)
    answers = try_remotes(settings, seconds=3)
    is_back.set()
    assert answers["nas"] is None
    assert isinstance(answers["stuck"], RemoteAway) and "did not answer within 3 s" in answers["stuck"].message


def test_without_a_remote_it_says_that_there_is_no_copy_elsewhere(app: SmallApp) -> None:
    assert about(examine(app.settings), "copies elsewhere").level == "note"


# Schedulers


def test_without_a_scheduler_nobody_makes_backups_by_themselves(app: SmallApp) -> None:
    found = about(examine(app.settings, clock=lambda: NOON), " scheduler ")
    assert found.level == "warning" and found.fix.endswith(("schedule", "up -d scheduler"))
    app.backups.mkdir(exist_ok=True)
    with scheduler_lock.on(app.backups, 0):
        assert about(examine(app.settings), " scheduler ") == Finding("fine", "A scheduler is running.")
    off = app.settings.replaced(automatic_daily=False)
    assert about(examine(off), "No automatic backup").level == "note"


@pytest.mark.parametrize(("days", "level"), [(1, "fine"), (3, "warning")])
def test_a_line_for_cron_will_do_as_long_as_it_works(app: SmallApp, days: int, level: str) -> None:
    create_backup(app.settings, BackupRequest("one", kind="scheduled"), clock=lambda: NOON - timedelta(days=days))
    assert about(examine(app.settings, silence, lambda: NOON), " scheduler ").level == level


def test_a_clock_that_is_behind_its_own_backups_is_told(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"), clock=lambda: NOON)
    assert about(examine(app.settings, clock=lambda: NOON), "The clock says").level == "fine"
    found = about(examine(app.settings, clock=lambda: NOON - timedelta(days=900)), "The clock says")
    assert (found.level, found.fix) == ("warning", "date")
    assert found.text == "The clock says 2023-12-28 12:00, and a backup is of 2026-06-15 12:00."


# The texts of findings


def test_ok_stands_before_nothing_that_lacks_or_could_harm(app: SmallApp) -> None:
    settings = app.settings.replaced(uploads=None, enabled=False)
    create_backup(settings, BackupRequest("one"))
    said = [one.text for one in examine(settings) if one.level == "fine"]
    assert said
    for text in said:
        assert not any(word in f" {text} " for word in (" no ", " No ", "Nobody", " bug,", " not ")), text
    told = run_here(app, "doctor", env={"BACKUP_UPLOADS": "", "BACKUP_ENABLED": "false"}).out
    assert "note     No message is sent after a failure:" in told and "ok       No message" not in told
