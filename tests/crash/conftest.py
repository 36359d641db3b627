"""Fixtures of the fault tests: `crew`, warm processes that visit points, and `points`, which counts them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crash.points import Points, pytest_runtest_logreport, pytest_terminal_summary

__all__ = ["pytest_runtest_logreport", "pytest_terminal_summary"]

MEMORY = Path("/dev/shm")


@pytest.fixture
def points(request: pytest.FixtureRequest) -> Points:
    """The counter of the points that the test visits."""
    return Points(request.node)


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """The folder for worlds, in memory if possible, because thousands of them are made and deleted."""
    parent = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="backupkit-crash-", dir=parent))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def crew(place: Path) -> Iterator[ProcessPoolExecutor]:
    """Separate processes that have imported what the commands need, and do not run pytest."""
    import lab  # functions for other processes must not be in a conftest: several have that name

    workers = max(2, os.cpu_count() or 2)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), lab.warm, (place,)) as pool:
        yield pool


@pytest.fixture(scope="session")
def mounts(place: Path) -> None:
    """Skip the test if file systems cannot be mounted, saying how to; fail it if a run must leave nothing out."""
    import lab

    folder = place / "mountable"
    folder.mkdir()
    try:
        lab.mount("tmpfs", folder, "tmpfs", options="size=64k")
        lab.unmount(folder)
    except OSError as error:
        reason = f"needs to mount file systems ({error.strerror}): run as root, in a container with --privileged"
        (pytest.fail if os.environ.get("BACKUP_TESTS_REQUIRE_ALL") == "1" else pytest.skip)(reason)


@pytest.fixture
def known(crew: ProcessPoolExecutor, place: Path) -> Callable[[Any], Any]:
    """Return a function that makes a scenario's template and clean run, once for all tests of this process."""
    import lab

    def know(scenario: lab.Scenario) -> lab.Known:
        if scenario.name not in _known:
            _known[scenario.name] = crew.submit(lab.learn, scenario, place).result()
        return _known[scenario.name]

    return know


_known: dict[str, Any] = {}
