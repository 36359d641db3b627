"""`./backup.sh update` leads to the new image, or back to the old one and its data, even if killed at any step."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest
from engine import IMAGE, wait_until
from project import QUICK, Project

import chance

HEAD = "f5d1964e7a38"
MIGRATION = """
from alembic import op
import sqlalchemy as sa
revision, down_revision, branch_labels, depends_on = "aa00000000aa", "{head}", None, None
def upgrade():
    {upgrade}
def downgrade():
    pass
"""
ADDS = 'op.add_column("companies", sa.Column("city", sa.String()))'
LOSES = 'op.execute("DELETE FROM companies")'
FAILS = 'raise RuntimeError("no such luck")'

# Apps that write a row, and then end or are never healthy.
CRASHES = """
import sqlite3, time
live = sqlite3.connect("/app/data/pats.db", timeout=30)
with live:
    live.execute("INSERT INTO companies (name) VALUES ('Written by the new image')")
"""
SICK = f"{CRASHES}\ntime.sleep(1000)\n"
STEPS = chance.cases(("building", "stopping", "migrating", "returned"), "steps of an update, killed", 6)


class Updatable:
    """A project that runs on its own image; `next_image` says what the next build makes."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.image = f"{project.name}-app"
        project.engine.docker("tag", IMAGE, self.image)
        self.folder = project.folder / "next"
        self.ledger = project.folder / ".backup-update" / "state"
        self.folder.mkdir()
        build = {"context": str(self.folder), "dockerfile": "Dockerfile"}
        project.override(image=self.image, build=build, healthcheck=QUICK, stop_grace_period="1s")
        project.up()
        self.company = project.add_application("Before")
        self.old = self.runs_on()

    def next_image(self, migration: str = "", app: str = "", last: str = "") -> None:
        lines = [f"FROM {IMAGE}"]
        if migration:
            (self.folder / "new.py").write_text(MIGRATION.format(head=HEAD, upgrade=migration))
            lines.append("COPY new.py /app/alembic/versions/")
        if app:
            (self.folder / "app.py").write_text(app)
            lines.append("COPY app.py /app/")
        (self.folder / "Dockerfile").write_text("\n".join([*lines, last or 'LABEL new="yes"', ""]))

    def runs_on(self) -> str:
        return str(self.project.inspect("Image"))

    def image_named(self, name: str) -> str:
        return self.project.engine.docker("image", "inspect", "--format", "{{.Id}}", name).stdout.strip()

    def columns(self) -> set[str]:
        with closing(sqlite3.connect(self.project.database, timeout=30)) as connection:
            return {str(row[1]) for row in connection.execute("PRAGMA table_info(companies)")}

    def is_as_before(self) -> bool:
        """Check that the old image answers with the old data; return whether no update is under way."""
        assert wait_until(self.project.answers), self.project.logs()
        assert self.runs_on() == self.old
        assert self.project.companies() == {"Before"} and "city" not in self.columns()
        assert self.image_named(self.image) == self.old
        return not self.ledger.exists()

    def is_at(self, step: str) -> bool:
        """Return whether an update has written down that it begins this step."""
        return self.ledger.exists() and self.ledger.read_text().startswith(f"{step}\n")


@contextmanager
def started(project: Project) -> Iterator[subprocess.Popen[bytes]]:
    """Start an update in its own process group; yield the process."""
    quiet = subprocess.DEVNULL
    command = [str(project.folder / "backup.sh"), "update"]
    with subprocess.Popen(
        command, env=project.environment, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    ) as process:
        yield process


@pytest.fixture
def app(project: Project) -> Updatable:
    return Updatable(project)


def test_a_good_image_goes_live_with_its_migrations_and_leaves_a_way_back(app: Updatable) -> None:
    app.next_image(ADDS)
    container = app.project.container()
    told = app.project.backup_sh("update", "--dry-run")
    assert b"aa00000000aa" in told.stdout and app.project.container() == container and app.is_as_before()
    assert app.project.json("list") == []

    done = app.project.json("update")
    assert done["from"] == app.old and done["to"] == app.runs_on() != app.old
    assert app.project.inspect("State.Health.Status") == "healthy"
    assert app.project.companies() == {"Before"} and "city" in app.columns()
    kept = app.project.json("show", done["backup"])
    assert (
        app.old in kept["note"]
        and kept["kind"] == "auto"
        and kept["pinned"]
        and kept["git"]["subject"] == 'Say "hello"'
    )
    assert app.image_named(f"{app.image}:before-update") == app.old
    again = app.project.backup_sh("update")
    assert b"nothing to update" in again.stderr and app.runs_on() == done["to"]
    # An update that fails or is only shown keeps the way back to before the last one that succeeded.
    app.next_image(ADDS, last='LABEL new="again"')
    app.project.backup_sh("update", "--dry-run")
    app.next_image(ADDS, last="RUN false")
    app.project.backup_sh("update", code=1)
    assert app.image_named(f"{app.image}:before-update") == app.old and app.runs_on() == done["to"]
    assert "updating" not in app.project.engine.docker("image", "ls", "--format", "{{.Tag}}").stdout.split()


def test_an_image_that_cannot_go_live_stops_nothing(app: Updatable) -> None:
    started = app.project.inspect("State.StartedAt")
    for migration, last, said in (
        ("", "RUN false", "could not be built"),
        (FAILS, "", "no such luck"),
        (LOSES, "", "loses data"),
    ):
        app.next_image(migration, last=last)
        done = app.project.backup_sh("update", code=1)
        assert said in done.stderr.decode()
        assert app.project.inspect("State.StartedAt") == started and app.is_as_before()
    # An image whose loss of data is expected goes live.
    app.project.backup_sh("update", "--expect-loss", "companies", "--expect-loss=applications", code=0, or_code=3)
    assert app.project.companies() == set() and app.runs_on() != app.old


@pytest.mark.parametrize(
    "new",
    chance.cases(
        (pytest.param(CRASHES, id="crashes"), pytest.param(SICK, id="sick")), "containers that do not come up"
    ),
)
def test_a_container_that_does_not_come_up_gives_way_to_the_old_image_and_data(app: Updatable, new: str) -> None:
    named = f"{app.image}:2" if new == CRASHES else app.image  # a new compose file may name the image differently
    app.project.override(image=named, healthcheck={**QUICK, "start_period": "1s", "retries": 20})
    app.next_image(ADDS, new)
    done = app.project.backup_sh("update", code=1)
    assert "The new image does not come up" in done.stderr.decode()
    assert app.is_as_before()
    assert (app.image_named(named) == app.old) == (named == app.image)
    (kept,) = [one for one in app.project.json("list") if one["kind"] == "pre_restore"]
    with closing(sqlite3.connect(app.project.backups / kept["backup_name"] / "pats.db")) as connection:
        assert ("Written by the new image",) in connection.execute("SELECT name FROM companies").fetchall()


def test_killed_at_any_step_the_next_command_goes_back(app: Updatable) -> None:
    app.next_image(ADDS, CRASHES)
    for step in STEPS:
        with started(app.project) as killed:
            assert wait_until(partial(app.is_at, step), 120), step
            os.killpg(killed.pid, signal.SIGKILL)
        listed = app.project.backup_sh("list", or_code=137)  # Compose has begun to stop the container
        assert b"An update was interrupted" in listed.stderr
        app.project.backup_sh("recover")
        assert app.is_as_before()
        assert [one for one in app.project.json("list") if one["pinned"] and one["kind"] == "auto"] == [], step
    # The next update goes back too, and then starts again.
    with started(app.project) as killed:
        assert wait_until(partial(app.is_at, "migrating"), 120)
        os.killpg(killed.pid, signal.SIGKILL)
    app.next_image(ADDS)
    app.project.backup_sh("update")
    assert app.project.companies() == {"Before"} and "city" in app.columns()


def test_a_second_update_waits_for_nobody_and_is_refused(app: Updatable) -> None:
    app.next_image(last="RUN sleep 20")
    with started(app.project) as first:
        assert wait_until(app.ledger.exists)
        second = app.project.backup_sh("update", code=11)
        assert str(first.pid) in second.stderr.decode()
        os.killpg(first.pid, signal.SIGINT)
        assert first.wait() == 130
    assert app.is_as_before()
