"""After the loss of the machine, a fresh clone, a fresh container and any of the remotes bring the app back."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, run
from project import Project

import chance
import servers
from small_app import entry

APP = 1000
KINDS = ("folder", "sftp", "s3", "git")


@dataclass(frozen=True)
class Copies:
    """What survives the machine: the settings of the remotes, the folder of the copies, and the keys."""

    tables: dict[str, Any]
    places: Path
    keys: Path

    def reach(self, project: Project) -> Project:
        """Let the project reach all remotes, through its compose file; return it."""
        mounts = [f"{self.places}:/copies", f"{self.keys}:/root/.ssh:ro"]
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        project.override(volumes=mounts, network_mode="host", environment=keys)
        return project

    @property
    def settings(self) -> dict[str, str]:
        return {"BACKUP_REMOTES": json.dumps(self.tables), "BACKUP_APP_ID": "pats"}


@contextmanager
def places(folder: Path) -> Iterator[Copies]:
    """Make an empty remote of each kind; their servers run until the block ends."""
    there = folder / "there"
    (there / "nas").mkdir(parents=True)
    run(["git", "init", "--quiet", "--bare", str(there / "host.git")], os.environ)
    with servers.ssh(folder / "sshd") as server, servers.s3() as port:
        restic = {"type": "restic", "password_file": "/root/.ssh/password"}
        person = {"user_name": "Backup", "user_email": "backup@example.com"}
        git = {"type": "git", "include": ["dump", "metadata", "database", "uploads"], **person}
        tables = {
            "folder": {"type": "folder", "path": "/copies/nas"},
            "sftp": {**restic, "repository": f"sftp://{server.address}/{there}/repository"},
            "s3": {**restic, "repository": f"s3:http://127.0.0.1:{port}/backups/pats"},
            "git": {**git, "url": f"ssh://{server.address}{there}/host.git"},
        }
        keys = server.keys_for(folder / "keys")
        (keys / "password").write_text("correct horse\n")
        for path in (keys, *keys.iterdir(), there / "nas"):
            os.chown(path, APP, APP)  # owned by a user who is not root
        yield Copies(tables, there, keys)


@dataclass(frozen=True)
class Lost:
    """The lost machine: what it had, and where its copies are."""

    copies: Copies
    rows: list[Any]
    uploads: dict[str, Any]


@pytest.fixture(scope="module")
def lost(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lost]:
    """The lost machine, whose backup was pushed to every remote from inside its container."""
    folder = tmp_path_factory.mktemp("copies")
    with places(folder) as copies:
        (folder / "project").mkdir()
        project = copies.reach(Project(folder / "project", engine, {"COMPOSE_PROJECT_NAME": "lost"}))
        project.compose("run", "--rm", "--no-deps", "-T", "backend", "true")  # its entrypoint makes the database
        fill(project)
        project.backup_sh("backup", "last")
        for name in ("folder", "sftp", "s3"):
            project.backup_sh("remotes", "--init", name, **copies.settings)
        project.backup_sh("push", "--force", **copies.settings)
        yield Lost(copies, rows(project), uploads(project))


def fill(project: Project) -> None:
    """Add a row, and uploads of several kinds and modes, all owned by the app's user."""
    with closing(sqlite3.connect(project.database)) as connection, connection:
        connection.execute("INSERT INTO companies (name) VALUES ('Before the fire')")
    for name, mode in (("1/letter.txt", 0o644), ("secret", 0o400), ("2/run.sh", 0o755)):
        path = project.uploads / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}, as it was")
        path.chmod(mode)
    (project.uploads / "empty").mkdir()
    (project.uploads / "empty").chmod(0o2750)
    (project.uploads / "latest").symlink_to("1/letter.txt")
    for path in project.uploads.rglob("*"):
        os.chown(path, APP, APP, follow_symlinks=False)
    os.utime(project.uploads / "secret", ns=(0, 987_654_321_123_456_789))


def rows(project: Project) -> list[Any]:
    with closing(sqlite3.connect(f"file:{project.database}?mode=ro", uri=True)) as connection:
        return [*connection.iterdump()]


def uploads(project: Project) -> dict[str, Any]:
    """Return kind, mode, mtime, content, user and group of each upload, by path."""
    found = {path.relative_to(project.uploads): path for path in project.uploads.rglob("*")}
    return {str(name): (*entry(path), path.lstat().st_uid, path.lstat().st_gid) for name, path in found.items()}


@pytest.mark.parametrize("remote", chance.cases(KINDS, "remotes that a new machine starts from"))
def test_a_fresh_container_rebuilds_the_app_from_each_remote(
    lost: Lost, new_project: Callable[..., Project], remote: str
) -> None:
    project = lost.copies.reach(new_project())
    project.backup_sh("pull", "latest", "--remote", remote, **lost.copies.settings)
    project.backup_sh("restore", "latest", "--force")
    assert uploads(project) == lost.uploads
    assert rows(project) == lost.rows
    project.override(network_mode="none")
    project.up()
    assert {path.stat().st_uid for path in (project.database, project.database.parent, project.uploads)} == {APP}
    assert uploads(project) == lost.uploads
    assert project.add_document(project.add_application("After the fire"), "still fine").read_text() == "still fine"
    assert project.companies() == {"Before the fire", "After the fire"}
