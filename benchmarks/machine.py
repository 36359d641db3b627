"""Where it was measured, and with which versions."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

from benchmarks.peers import HOW_TO_GET

_VERSION_OPTION = {"borg": "--version", "restic": "version"}


def facts(scratch: Path) -> dict[str, str]:
    """By what they are, in the order in which they are shown; `scratch` tells the file system."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(scratch),
        "Python": platform.python_version(),
        "SQLite (Python's)": sqlite3.sqlite_version,
        **{tool: version(tool) for tool in HOW_TO_GET},
    }


def version(tool: str) -> str:
    """As the tool says it; or how to get it."""
    if not shutil.which(tool):
        return f"not installed: {HOW_TO_GET[tool]}"
    told = subprocess.run(
        [tool, _VERSION_OPTION.get(tool, "--version")], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"v?\d+\.\d[\w.]*", told)
    return found[0] if found else "unknown"


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        told = ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.M)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the mount the folder is on."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    holding = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(holding)[1] if holding else "unknown"
