"""The toolkit's program, for tests that run its commands in their own process."""

from __future__ import annotations

from functools import cache
from typing import Any

from typer.main import get_command

import backup_restore


@cache
def program() -> Any:
    """Return the program, built once: that takes longer than most commands."""
    return get_command(backup_restore.app)
