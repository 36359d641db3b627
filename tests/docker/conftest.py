"""The engine, once per run; a project of its own, for each test."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from engine import IMAGE, PLUGIN_RECIPE, RECIPE, Engine, debian
from project import Project

HERE = Path(__file__).parent
TOOLS = ("docker", "dockerd", "docker-compose", "mmdebstrap", "git")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.needs(*TOOLS))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine that holds the image, built once from the real compose file."""
    if os.geteuid() != 0:
        stop = pytest.fail if os.environ.get("BACKUP_TESTS_REQUIRE_ALL") == "1" else pytest.skip
        stop("needs dockerd: run the tests as root, so that they can start an engine of their own")
    engine = Engine(Path(tempfile.mkdtemp(prefix="backup-engine-")))
    try:
        engine.start()
        engine.add_compose(debian(PLUGIN_RECIPE, "compose"))
        engine.load_base(debian(RECIPE, "base"))
        build(engine)
        yield engine
    finally:
        engine.stop()


def build(engine: Engine) -> None:
    folder = engine.folder / "build"
    folder.mkdir()
    Project(folder, engine, {"COMPOSE_PROJECT_NAME": "build"}).compose("build")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def image(engine: Engine) -> Path:
    """The image of the repository, as an archive for other engines."""
    engine.docker("save", "--output", str(engine.folder / "image.tar"), IMAGE)
    (engine.folder / "image.tar").chmod(0o644)
    return engine.folder / "image.tar"


@pytest.fixture
def new_project(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Project]]:
    """`new_project(NAME=value …)`, taken down after the test."""
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


@pytest.fixture(params=["v1", "v2"])
def generation(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment that has this generation of Compose; without one it is v2."""
    return {"BACKUP_COMPOSE": "docker-compose"} if request.param == "v1" else {}
