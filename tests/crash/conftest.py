"""The fixtures of the fault suite: `crew`, warm processes that visit points, and `points`, which counts them."""

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
    """Count what is visited."""
    return Points(request.node)


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """Where the worlds are made: in memory where there is such a place, since they are thrown away by the thousand."""
    parent = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="backupkit-crash-", dir=parent))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def crew(place: Path) -> Iterator[ProcessPoolExecutor]:
    """Processes of their own that have imported everything, and know nothing of pytest."""
    import lab  # what it calls in another process must not be in a conftest, of which there are several

    workers = max(2, os.cpu_count() or 2)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), lab.warm, (place,)) as pool:
        yield pool


@pytest.fixture(scope="session")
def mounts(place: Path) -> None:
    """Mounts can be made here, else the test is skipped, saying how; where a run must leave nothing out it fails."""
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
    """A scenario's template and its clean run, made once for all tests of this process."""
    import lab

    def know(scenario: lab.Scenario) -> lab.Known:
        if scenario.name not in _known:
            _known[scenario.name] = crew.submit(lab.learn, scenario, place).result()
        return _known[scenario.name]

    return know


_known: dict[str, Any] = {}
