"""Other processes: who holds a file, who we are."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def identity() -> str:
    """This process, as another person can find it: `pid 41 on host`."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


def holders(path: Path) -> list[str]:
    """The other processes that have the file open, as `pid 41 (python)`; empty where the system does not show them.

    Linux shows them below /proc, within one container only its own, and to an ordinary user only its own.
    """
    try:
        wanted = os.stat(path)
        processes = [entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
    except OSError:
        return []
    return [f"pid {pid} ({_name(pid)})" for pid in processes if _has_open(pid, wanted)]


def _has_open(pid: str, wanted: os.stat_result) -> bool:
    try:
        return any(_same(f"/proc/{pid}/fd/{handle}", wanted) for handle in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _same(link: str, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(link), wanted)
    except OSError:
        return False


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"
