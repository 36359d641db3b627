"""Fixtures: an engine for each test process, its images for the whole run, and a separate project for each test."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import chance

sys.path.insert(0, str(Path(__file__).parent))

from engine import BASE, IMAGE, KIT, RECIPE, REPOSITORY, Engine, debian, made_once, started
from project import Project

HERE = Path(__file__).parent
TOOLS = ("docker", "dockerd", "docker-compose", "mmdebstrap", "git")
OTHER_ENGINES = ("test_podman", "test_rootless", "test_remapped")  # each takes the main path once more
CHOSEN = chance.cases(OTHER_ENGINES, "engines beside Docker of root")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    is_of_everything = config.args_source is not config.ArgsSource.ARGS and not config.option.keyword
    if left_out := [one for one in items if is_of_everything and _is_left_out(one)]:
        items[:] = [one for one in items if one not in left_out]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.needs(*TOOLS))


def _is_left_out(item: pytest.Item) -> bool:
    return HERE in item.path.parents and item.path.stem in OTHER_ENGINES and item.path.stem not in CHOSEN


def new_engine() -> Engine:
    return Engine(Path(tempfile.mkdtemp(prefix="backup-engine-")))


def build(engine: Engine, archive: Path) -> None:
    """Build the images of the repository, the app's from the real compose file; save an archive for other engines."""
    engine.load_base(debian(RECIPE, "base"))
    folder = engine.folder / "build"
    folder.mkdir()
    Project(folder, engine, {"COMPOSE_PROJECT_NAME": "build"}).compose("build")
    shutil.rmtree(folder)
    options = ["--target=kit", f"--build-arg=BASE_IMAGE={BASE}", "--network=host", f"--tag={KIT}"]
    engine.docker("build", *options, str(REPOSITORY / "backend"))
    engine.docker("save", "--output", str(archive), IMAGE, KIT, BASE)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the archive of the images, which may not exist yet: one for all processes of this run."""
    if os.geteuid() != 0:
        stop = pytest.fail if os.environ.get("BACKUP_TESTS_REQUIRE_ALL") == "1" else pytest.skip
        stop("needs an engine of its own: run the tests as root")
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "images.tar"


@pytest.fixture(scope="session")
def image(archive: Path) -> Path:
    """The archive, built by a temporary engine if it does not exist, for other kinds of engine."""
    with made_once(archive) as draft:
        if draft:
            with started(new_engine()) as engine:
                build(engine, draft)
    return archive


@pytest.fixture(scope="session")
def engine(archive: Path) -> Iterator[Engine]:
    """A running engine that holds the images: the first process builds them, the others load the archive."""
    with started(new_engine()) as engine:
        with made_once(archive) as draft:
            if draft:
                build(engine, draft)
            else:
                engine.load(archive)
        yield engine


@pytest.fixture
def new_project(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Project]]:
    """Return `new_project(NAME=value …)`, which makes a project; all are taken down after the test."""
    made: list[Project] = []

    def make(**settings: str) -> Project:
        folder = tmp_path / f"a project {len(made)}"
        folder.mkdir()
        name = f"t{len(made)}" + re.sub(r"\W+", "", request.node.name)[-30:].lower()
        made.append(Project(folder, engine, {"COMPOSE_PROJECT_NAME": name, **settings}))
        return made[-1]

    yield make
    for one in made:
        one.down()


@pytest.fixture
def project(new_project: Callable[..., Project]) -> Project:
    """A project whose service has not been started."""
    return new_project()


@pytest.fixture(params=chance.cases(("v1", "v2"), "generations of Compose"))
def generation(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment that selects this generation of Compose; the default is v2."""
    return {"BACKUP_COMPOSE": "docker-compose"} if request.param == "v1" else {}
