"""The table of engines in the documents says what the tests run, and nothing else."""

from __future__ import annotations

import os
import platform

import pytest
import test_debian13
import test_podman
import test_remapped
import test_rootless
import test_scheduler
import test_service
from combinations import DOCKER_V2, table
from engine import REPOSITORY


def test_the_table_of_engines_is_what_the_tests_show() -> None:
    lines = (REPOSITORY / "docs" / "containers.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| host | engine "))
    written = lines[start : lines.index("", start)]
    modules = (test_service, test_scheduler, test_podman, test_remapped, test_rootless, test_debian13)
    assert written == table(modules)


@pytest.mark.skipif(
    os.environ.get("BACKUP_TESTS_REQUIRE_ALL") != "1", reason="the table is filled where nothing is left out"
)
def test_the_host_of_the_table_is_the_machine_that_fills_it() -> None:
    machine = platform.freedesktop_os_release()
    assert f"{machine['NAME'].partition(' ')[0]} {machine['VERSION_ID']}" == DOCKER_V2.host
