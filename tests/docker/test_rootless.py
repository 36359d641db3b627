"""The main path works on rootless Docker: the container's root is its user, every other user has a shifted id."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from combinations import DOCKER_ROOTLESS
from engine import PROGRAMS, Engine, run, started, wait_until
from people import AS_PERSON, FIRST_SHIFTED, MOUNT_TUN, MOUNT_USERS, PERSON, write_users
from project import Project
from test_scheduler import Scheduler
from test_service import back_up_and_restore_while_it_writes, kill_a_restore_and_start_the_app, owners

pytestmark = pytest.mark.needs("rootlesskit", "slirp4netns", "newuidmap", "unshare")
COMBINATIONS = (DOCKER_ROOTLESS,)
SCRIPT = "/usr/share/docker.io/contrib/dockerd-rootless.sh"
PLACE = f'{MOUNT_USERS}; {MOUNT_TUN}; shift; exec "$@"'


class Rootless(Engine):
    """A `dockerd` that has no more rights than the person who started it."""

    rootless = True
    place = AS_PERSON
    client = (*AS_PERSON, "docker")

    def command(self, driver: str) -> list[str]:
        place = ["unshare", "--mount", "--propagation=private", "sh", "-ec", PLACE, "sh", str(self.folder), *AS_PERSON]
        mine = {
            "HOME": self.folder,
            "TMPDIR": self.folder,
            "XDG_RUNTIME_DIR": self.folder / "runtime",
            "PATH": PROGRAMS,
        }
        environment = ["env", "--ignore-environment", *(f"{name}={value}" for name, value in mine.items())]
        return [*place, *environment, SCRIPT, *super().command(driver)[1:]]


@pytest.fixture(scope="module")
def rootless(image: Path) -> Iterator[Rootless]:
    other = Rootless(Path(tempfile.mkdtemp(prefix="backup-rootless-")))
    write_users(other.folder)
    (other.folder / "runtime").mkdir(mode=0o700)
    other.folder.chmod(0o755)
    run(["chown", "--recursive", f"{PERSON}:{PERSON}", str(other.folder)], os.environ)
    with started(other):
        other.load(image)
        yield other


@pytest.fixture
def project(rootless: Rootless, request: pytest.FixtureRequest) -> Iterator[Project]:
    name = request.node.name[-30:].strip("_")
    folder = rootless.folder / name
    folder.mkdir()
    made = Project(folder, rootless, {"COMPOSE_PROJECT_NAME": name})
    yield made
    made.down()


@pytest.mark.shows("backup beside a writer", "restore", "read-only root")
def test_a_backup_and_a_restore_belong_to_the_person_who_typed(project: Project) -> None:
    assert "name=rootless" in project.engine.docker("info", "--format", "{{.SecurityOptions}}").stdout
    back_up_and_restore_while_it_writes(project, PERSON)
    project.backup_sh("undo", "--yes", or_code=3)
    assert "After" in project.companies()
    with pytest.raises(AssertionError, match="Read-only"):
        project.inside("touch", "/app/x")


@pytest.mark.shows("kill, recover")
def test_an_interrupted_restore_is_finished_before_the_app_starts(project: Project) -> None:
    kill_a_restore_and_start_the_app(project, PERSON)


@pytest.mark.shows("scheduler")
def test_the_second_service_makes_backups_by_itself(project: Project) -> None:
    scheduler = Scheduler(project)
    scheduler.up()
    scheduler.says("Test restore of ")
    assert wait_until(lambda: scheduler.health() == "healthy")
    assert len(scheduler.backups()) == 1
    assert owners(project.backups) == {PERSON}


@pytest.mark.shows("other user id")
def test_another_user_id_owns_what_is_made(project: Project) -> None:
    folders = (project.database.parent, project.uploads, project.backups)
    project.override(user="1234:1234")
    chown = (
        "--user=root",
        "--entrypoint=chown",
        "backend",
        "-R",
        "1234:1234",
        "/app/data",
        "/app/uploads",
        "/app/backups",
    )
    project.compose("run", "--rm", "--no-deps", "-T", *chown)
    project.up()
    letter = project.add_document(project.add_application("Before"), "Dear all")
    project.backup_sh("backup", "as_1234")
    letter.unlink()
    project.backup_sh("restore", "as_1234", "--force")
    assert letter.read_text() == "Dear all"
    assert set().union(*map(owners, folders)) == {FIRST_SHIFTED + 1234 - 1}
