"""The main path on a real Podman with `podman-compose`, which `backup.sh` finds: of root, and of an ordinary person."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from combinations import PODMAN, PODMAN_ROOTLESS
from engine import RECIPE, debian, run, wait_until
from people import FIRST_SHIFTED, PERSON
from podman import Podman, PodmanProject
from test_service import KILLED_RESTORE, back_up_and_restore_while_it_writes, drop_table, give, owners

pytestmark = pytest.mark.needs(
    "podman", "podman-compose", "crun", "catatonit", "newuidmap", "unshare", "ip", "mmdebstrap"
)
COMBINATIONS = (PODMAN, PODMAN_ROOTLESS)
APP = 1000  # the image's own user


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The repository's image, as an archive."""
    if os.geteuid() != 0:
        stop = pytest.fail if os.environ.get("BACKUP_TESTS_REQUIRE_ALL") == "1" else pytest.skip
        stop("needs namespaces of its own: run the tests as root")
    folder = Path(tempfile.mkdtemp(prefix="backup-image-"))
    builder = Podman(Path(tempfile.mkdtemp(prefix="backup-podman-")))
    try:
        builder.start()
        builder.build(debian(RECIPE, "base"), folder / "image.tar")
    finally:
        builder.stop()
    folder.chmod(0o755)
    yield folder / "image.tar"
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["rootful", "rootless"])
def podman(image: Path, request: pytest.FixtureRequest) -> Iterator[Podman]:
    engine = Podman(Path(tempfile.mkdtemp(prefix="backup-podman-")), rootless=request.param == "rootless")
    try:
        engine.start()
        engine.docker("load", "--input", str(image))
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def project(podman: Podman, request: pytest.FixtureRequest) -> Iterator[PodmanProject]:
    """A project whose service has not been started, where the engine's user can reach it."""
    folder = podman.folder / f"a project {re.sub(r'[^a-z]+', '', request.node.originalname)[-30:]}"
    folder.mkdir()
    made = PodmanProject(folder, podman, {})
    yield made
    made.down()


def owner(podman: Podman) -> int:
    """Who owns the data on the host: the image's user, or the person who typed."""
    return PERSON if podman.rootless else APP


@pytest.mark.shows("backup beside a writer", "restore")
def test_a_backup_and_a_restore_while_the_app_is_writing(project: PodmanProject, podman: Podman) -> None:
    back_up_and_restore_while_it_writes(project, owner(podman))
    project.backup_sh("undo", "--yes", or_code=3)
    assert "After" in project.companies()
    assert owners(project.database.parent) == owners(project.uploads) == owners(project.backups) == {owner(podman)}


def test_results_and_codes_are_the_toolkits_own(project: PodmanProject) -> None:
    """podman-compose prints lines of its own on stdout, and loses the exit code."""
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


def test_a_setting_that_is_set_lasts(project: PodmanProject) -> None:
    project.up()
    file = project.folder / "backend" / "backup.toml"
    before = file.read_text()
    project.backup_sh("config", "set", "timezone", "Pacific/Kiritimati")
    assert project.json("config")["timezone"] == {"value": "Pacific/Kiritimati", "origin": "backup.toml"}
    with pytest.raises(AssertionError, match="Read-only"):
        project.inside("sh", "-c", "echo >>/app/backup.toml")
    project.backup_sh("config", "unset", "timezone")
    assert file.read_text() == before


def test_restore_stop_starts_the_service_again(project: PodmanProject) -> None:
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
    assert project.containers("True") == []


def test_a_stopped_service_is_backed_up_and_restored_and_stays_stopped(project: PodmanProject) -> None:
    project.up()
    project.add_application("Before")
    project.compose("stop", "backend")
    project.backup_sh("backup", "while_stopped")
    drop_table(project)
    project.backup_sh("restore", "while_stopped", "--force")
    assert project.state() == "exited"
    assert "Before" in project.companies()
    assert project.containers("True") == []


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
def test_an_interrupted_restore_is_finished_before_the_app_starts(project: PodmanProject, podman: Podman) -> None:
    project.up()
    letter = project.add_document(project.add_application("Before"), "Dear all")
    project.backup_sh("backup", "good")
    project.add_application("After")
    project.compose("stop", "backend")
    letter.unlink()
    project.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "backend", "-c", KILLED_RESTORE)
    assert project.companies() == {"Before", "After"}
    project.up()
    assert project.companies() == {"Before"}
    assert letter.read_text() == "Dear all"
    assert owners(project.database.parent) == owners(project.uploads) == {owner(podman)}


def test_recover_ends_an_interrupted_restore_of_a_stopped_service(project: PodmanProject) -> None:
    project.up()
    project.add_application("Before")
    project.backup_sh("backup", "good")
    project.add_application("After")
    project.compose("stop", "backend")
    project.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "backend", "-c", KILLED_RESTORE)
    project.backup_sh("recover")
    assert project.companies() == {"Before"}


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


@pytest.mark.shows("read-only root")
def test_the_root_file_system_is_read_only(project: PodmanProject) -> None:
    project.up()
    with pytest.raises(AssertionError, match="Read-only"):
        project.inside("touch", "/app/x")
    project.backup_sh("backup", "good")
    project.backup_sh("verify", "good", "--test-restore")


@pytest.mark.shows("scheduler")
def test_the_second_service_makes_backups_by_itself(project: PodmanProject, podman: Podman) -> None:
    project.up()
    project.compose("up", "--detach", "--no-build", "scheduler")
    assert wait_until(lambda: list(project.backups.glob("scheduled_*"))), "it makes none"
    project.backup_sh("config", "set", "service", "scheduler")
    project.backup_sh("backup", "good")
    assert project.state() == "running"
    assert owners(project.backups) == {owner(podman)}


def test_auto_backup_knows_gits_facts_from_the_host(project: PodmanProject) -> None:
    project.up()
    project.backup_sh("auto-backup")
    (name,) = project.names()
    assert project.json("show", name)["git"]["subject"] == 'Say "hello"'


def test_an_update_is_refused_where_it_cannot_be_taken_back(project: PodmanProject) -> None:
    project.up()
    done = project.backup_sh("update", code=2)
    assert b"podman-compose cannot change the image" in done.stderr
