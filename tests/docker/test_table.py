"""The table of engines in the documents says what the tests run, and nothing else."""

from __future__ import annotations

import test_podman
import test_remapped
import test_rootless
import test_scheduler
import test_service
from combinations import table
from engine import REPOSITORY


def test_the_table_of_engines_is_what_the_tests_show() -> None:
    lines = (REPOSITORY / "docs" / "containers.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| host | engine "))
    written = lines[start : lines.index("", start)]
    assert written == table((test_service, test_scheduler, test_podman, test_remapped, test_rootless))
