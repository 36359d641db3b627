"""The main path works on an engine that maps the users of its containers to others of the host: `userns-remap`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from combinations import DOCKER_REMAPPED
from engine import Engine, started, wait_until
from people import FIRST_SHIFTED, MOUNT_USERS, PERSON, write_users
from project import Project
from test_service import KILLED_RESTORE, back_up_and_restore_while_it_writes, give

COMBINATIONS = (DOCKER_REMAPPED,)
ROOT, APP = FIRST_SHIFTED, FIRST_SHIFTED + 1000  # the container's root and its app's user, as ids of the host
# `dockerd` reads the ids from the files of `write_users`.
PLACE = f'{MOUNT_USERS}; shift; exec "$@"'


class Remapped(Engine):
    """A `dockerd` whose containers have other user ids than the host."""

    def command(self, driver: str) -> list[str]:
        place = ["unshare", "--mount", "--propagation=private", "sh", "-ec", PLACE, "sh", str(self.folder)]
        return [*place, *super().command(driver), "--userns-remap=person"]


@pytest.fixture(scope="module")
def remapped(image: Path) -> Iterator[Remapped]:
    other = Remapped(Path(tempfile.mkdtemp(prefix="backup-remapped-")))
    other.folder.chmod(0o755)
    write_users(other.folder)
    with started(other):
        other.load(image)
        yield other


@pytest.fixture
def project(remapped: Remapped, request: pytest.FixtureRequest) -> Iterator[Project]:
    name = request.node.name[-30:].strip("_")
    folder = remapped.folder / name
    folder.mkdir()
    made = Project(folder, remapped, {"COMPOSE_PROJECT_NAME": name})
    yield made
    made.down()


@pytest.mark.shows("backup beside a writer", "restore", "read-only root")
def test_a_backup_and_a_restore_on_shifted_numbers(project: Project) -> None:
    for folder in (project.database.parent, project.uploads, project.backups):
        give(folder, ROOT)
    back_up_and_restore_while_it_writes(project, APP)
    with pytest.raises(AssertionError, match="Read-only"):
        project.inside("touch", "/app/x")


@pytest.mark.shows("kill, recover")
def test_an_interrupted_restore_is_finished_before_the_app_starts(project: Project) -> None:
    for folder in (project.database.parent, project.uploads, project.backups):
        give(folder, APP)
    project.up()
    project.add_application("Before")
    project.backup_sh("backup", "good")
    project.add_application("After")
    project.compose("stop")
    killed = project.compose(
        *("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "backend", "-c", KILLED_RESTORE), check=False
    )
    assert killed.returncode == 137
    assert project.companies() == {"Before", "After"}
    project.up()
    assert project.companies() == {"Before"}


def test_data_of_a_user_without_a_number_is_named_with_the_hosts_number(project: Project) -> None:
    project.override(restart="no")
    give(project.database.parent, PERSON)
    project.compose("up", "--detach", "--no-build", "backend")
    assert wait_until(lambda: project.state() == "exited")
    assert f"sudo chown -R {APP}:{APP} backend/data" in project.logs()
