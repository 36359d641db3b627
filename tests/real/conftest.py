"""The environment of the real apps, made by the first test that needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import environment


@pytest.fixture(scope="session")
def real_environment() -> Path:
    """The Python that has the apps; without a package index the test is skipped, or fails if none may be skipped."""
    try:
        environment.make()
    except environment.NotToBeHad as error:
        reason = f"needs packages that pip cannot get here: {error}"
        if os.environ.get("BACKUP_TESTS_REQUIRE_ALL") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return environment.PYTHON
