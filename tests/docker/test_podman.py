"""The main path works on a real Podman of root and of an ordinary user; `backup.sh` finds `podman-compose`."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from combinations import PODMAN, PODMAN_ROOTLESS, PODMAN_V2, PODMAN_V2_ROOTLESS
from engine import BASE, IMAGE, KIT, RECIPE, debian, run, started, wait_until
from people import FIRST_SHIFTED, PERSON
from podman import ComposeProject, Podman, PodmanProject
from project import Project
from test_service import KILLED_RESTORE, back_up_and_restore_while_it_writes, drop_table, give, owners

import chance
from backupkit.repository.lock import LOCK_FILE

pytestmark = pytest.mark.needs(
    "podman", "podman-compose", "crun", "catatonit", "newuidmap", "unshare", "ip", "mmdebstrap"
)
COMBINATIONS = (PODMAN, PODMAN_ROOTLESS)
APP = 1000  # the image's own user


@pytest.fixture(scope="module", params=chance.cases(("rootful", "rootless"), "engines of Podman"))
def podman(image: Path, request: pytest.FixtureRequest) -> Iterator[Podman]:
    engine = Podman(Path(tempfile.mkdtemp(prefix="backup-podman-")), rootless=request.param == "rootless")
    with started(engine):
        engine.load(image)
        yield engine


def folder_of(podman: Podman, name: str) -> Path:
    """Make a folder for a project, where the engine's user can reach it."""
    folder = podman.folder / f"a project {re.sub(r'[^a-z]+', '', name)[-30:]}"
    folder.mkdir()
    return folder


@pytest.fixture
def project(podman: Podman, request: pytest.FixtureRequest) -> Iterator[PodmanProject]:
    """A project whose service has not been started."""
    made = PodmanProject(folder_of(podman, request.node.originalname), podman, {})
    yield made
    made.down()


@pytest.fixture
def composed(podman: Podman, request: pytest.FixtureRequest) -> Iterator[ComposeProject]:
    """The same for `docker compose`."""
    made = ComposeProject(folder_of(podman, request.node.originalname), podman, {"COMPOSE_PROJECT_NAME": "composed"})
    yield made
    made.down()


@pytest.fixture(scope="module")
def stack(podman: Podman) -> Iterator[PodmanProject]:
    """A project whose service runs, for the tests that leave its data as it is."""
    made = PodmanProject(folder_of(podman, "stack"), podman, {"PORT": "8100"})  # the others use port 8000
    made.up()
    yield made
    made.down()


def owner(podman: Podman) -> int:
    """Return who owns the data on the host: the image's user, or the person who typed."""
    return PERSON if podman.rootless else APP


@pytest.mark.shows("backup beside a writer", "restore", "read-only root")
def test_a_backup_and_a_restore_while_the_app_is_writing(project: PodmanProject, podman: Podman) -> None:
    back_up_and_restore_while_it_writes(project, owner(podman))
    project.backup_sh("undo", "--yes", or_code=3)
    assert "After" in project.companies()
    assert owners(project.database.parent) == owners(project.uploads) == owners(project.backups) == {owner(podman)}
    with pytest.raises(AssertionError, match="Read-only"):
        project.inside("touch", "/app/x")


def test_results_and_codes_are_the_toolkits_own(project: PodmanProject) -> None:
    """podman-compose adds its own lines to stdout, and loses the exit code."""
    project.up()
    project.add_application("Grüße")
    text = project.backup_sh("dump", "-").stdout
    assert text.startswith(b"PRAGMA ") and "Grüße" in text.decode() and text.rstrip().endswith(b"COMMIT;")
    drop_table(project)
    project.backup_sh("restore-dump", "-", "--force", content=text)
    assert "Grüße" in project.companies()
    note = "a = b, 'c' \"d\" | $e"
    project.backup_sh("backup", "good", "--note", note, BACKUP_KEEP_LAST="9")
    assert project.json("show", "good")["note"] == note
    assert project.json("config")["timezone"] == {"value": "UTC", "origin": "default"}
    assert project.backup_sh("show", "nope", code=10).stdout == b""
    project.compose("stop", "backend")
    assert project.backup_sh("show", "nope", code=10).stdout == b""
    assert json.loads(project.backup_sh("show", "good", "--json").stdout)["note"] == note


def test_a_setting_that_is_set_lasts(stack: PodmanProject) -> None:
    file = stack.folder / "backend" / "backup.toml"
    before = file.read_text()
    stack.backup_sh("config", "set", "timezone", "Pacific/Kiritimati")
    assert stack.json("config")["timezone"] == {"value": "Pacific/Kiritimati", "origin": "backup.toml"}
    with pytest.raises(AssertionError, match="Read-only"):
        stack.inside("sh", "-c", "echo >>/app/backup.toml")
    stack.backup_sh("config", "unset", "timezone")
    assert file.read_text() == before


def test_auto_backup_knows_gits_facts_from_the_host(stack: PodmanProject) -> None:
    stack.backup_sh("auto-backup")
    (name,) = stack.names()
    assert stack.json("show", name)["git"]["subject"] == 'Say "hello"'
    stack.backup_sh("verify", name, "--test-restore")


def test_an_update_is_refused_where_it_cannot_be_taken_back(stack: PodmanProject) -> None:
    done = stack.backup_sh("update", code=2)
    assert b"update needs Docker Compose: podman-compose cannot change the image" in done.stderr


def test_a_restore_leaves_the_service_running_or_stopped_as_it_was(project: PodmanProject) -> None:
    project.up()
    project.add_application("Before")
    project.backup_sh("backup", "good")
    started = project.inspect("State.StartedAt")
    drop_table(project)
    project.backup_sh("restore", "good", "--force", "--stop")
    assert project.state() == "running"
    assert project.inspect("State.StartedAt") > started
    assert "Before" in project.companies()
    project.backup_sh("restore", "no_such_backup", "--force", "--stop", code=10)
    assert project.state() == "running"
    project.compose("stop", "backend")
    project.backup_sh("backup", "while_stopped")
    drop_table(project)
    project.backup_sh("restore", "while_stopped", "--force")
    assert project.state() == "exited"
    assert "Before" in project.companies()
    assert project.containers("True") == []


def test_a_signal_ends_a_restore_in_its_container(project: PodmanProject, podman: Podman) -> None:
    """In that of the running service, and in one beside it."""
    project.up()
    project.backup_sh("backup", "good")
    project.add_application("After")
    with (project.backups / LOCK_FILE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stopped in (False, True):
            if stopped:
                project.compose("stop", "backend")
            with subprocess.Popen(
                [*podman.place, str(project.folder / "backup.sh"), "restore", "good", "--force"],
                env=project.environment | {"BACKUP_LOCK_TIMEOUT": "300"},
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            ) as restore:
                assert restore.stderr and any(b"Waiting up to 300 s" in line for line in restore.stderr)
                os.killpg(restore.pid, signal.SIGINT)
                assert b"Interrupted; nothing is left half done." in restore.stderr.read()
            assert restore.returncode == 130
            assert project.containers("True") == []
    project.up()
    assert "After" in project.companies()


def test_a_crash_looping_service_is_restored_beside_not_inside_it(project: PodmanProject) -> None:
    project.up()
    project.add_application("Before")
    project.backup_sh("backup", "good")
    drop_table(project)
    project.down()
    project.override(command=["sh", "-c", "sleep 3; exit 1"])
    project.compose("up", "--detach", "--no-build", "backend")
    assert wait_until(lambda: project.inspect("RestartCount") > 0 and project.state() == "running")
    project.backup_sh("restore", "good", "--force")
    assert "Before" in project.companies()


@pytest.mark.shows("kill, recover")
def test_an_interrupted_restore_is_finished_by_recover_or_before_the_app_starts(
    project: PodmanProject, podman: Podman
) -> None:
    project.up()
    letter = project.add_document(project.add_application("Before"), "Dear all")
    project.backup_sh("backup", "good")
    project.add_application("After")
    project.compose("stop", "backend")
    letter.unlink()
    kill_a_restore(project)
    assert project.companies() == {"Before", "After"}
    project.backup_sh("recover")
    assert project.companies() == {"Before"}
    letter.unlink()
    kill_a_restore(project)
    assert not letter.exists()
    project.up()
    assert project.companies() == {"Before"}
    assert letter.read_text() == "Dear all"
    assert owners(project.database.parent) == owners(project.uploads) == {owner(podman)}


def kill_a_restore(project: Project) -> None:
    """Kill a restore of the stopped service; podman-compose loses its exit code."""
    one_off = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "backend", "-c", KILLED_RESTORE)
    project.compose(*one_off, check=False)


@pytest.mark.shows("other user id")
def test_another_user_id_owns_what_is_made(project: PodmanProject, podman: Podman) -> None:
    folders = (project.database.parent, project.uploads, project.backups)
    if podman.rootless:
        podman.docker("unshare", "chown", "-R", "1234:1234", *map(str, folders))
    else:
        for folder in folders:
            give(folder, 1234)
    project.override(user="1234:1234")
    project.up()
    letter = project.add_document(project.add_application("Before"), "Dear all")
    project.backup_sh("backup", "as_1234")
    run(["rm", str(letter)], os.environ)
    project.backup_sh("restore", "as_1234", "--force")
    assert letter.read_text() == "Dear all"
    expected = FIRST_SHIFTED + 1234 - 1 if podman.rootless else 1234
    assert set().union(*map(owners, folders)) == {expected}


@pytest.mark.shows("scheduler")
def test_the_second_service_makes_backups_by_itself(project: PodmanProject, podman: Podman) -> None:
    project.up()
    project.compose("up", "--detach", "--no-build", "scheduler")
    assert wait_until(lambda: list(project.backups.glob("scheduled_*"))), "it makes none"
    project.backup_sh("config", "set", "service", "scheduler")
    project.backup_sh("backup", "good")
    assert project.state() == "running"
    assert owners(project.backups) == {owner(podman)}


@pytest.mark.shows(
    "backup beside a writer", "restore", "kill, recover", "read-only root", on=(PODMAN_V2, PODMAN_V2_ROOTLESS)
)
def test_the_main_path_with_docker_compose(composed: ComposeProject, podman: Podman) -> None:
    back_up_and_restore_while_it_writes(composed, owner(podman))
    with pytest.raises(AssertionError, match="Read-only"):
        composed.inside("touch", "/app/x")
    before = composed.companies()
    composed.add_application("After the backup")
    composed.backup_sh("backup", "good")
    composed.add_application("After")
    composed.compose("stop")
    kill_a_restore(composed)
    assert "After" in composed.companies()
    composed.up()
    assert composed.companies() == before | {"After the backup"}
    assert owners(composed.database.parent) == owners(composed.uploads) == {owner(podman)}


@pytest.mark.skipif(not chance.is_thorough(), reason="takes minutes, and Docker builds it in each run: --thorough")
def test_podman_builds_the_image(podman: Podman) -> None:
    podman.docker("rmi", "--force", IMAGE, KIT, BASE)
    podman.build(debian(RECIPE, "base"))
    podman.docker("run", "--rm", "--network=none", "--entrypoint=ls", IMAGE, "/app/app.py", "/app/backup_restore.py")
