"""Text of a program, run by a new interpreter that finds what the tests find."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def run(script: str, cwd: Path | None = None, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The finished process, with what it printed."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=check,
    )
