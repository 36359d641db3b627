"""Run a program, given as text, in a new interpreter with the import path of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path


def run(script: str, cwd: Path | None = None, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the program and return the finished process with its output."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=check,
    )


def in_place_of_a_module(program: str) -> Callable[..., subprocess.Popen[bytes]]:
    """Return a substitute for `process.start_module`: it starts this program, with the module's arguments and pipes."""

    def start(_module: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )

    return start
