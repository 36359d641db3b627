"""Small file systems of other kinds, each in a file that is mounted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupkit.fs import disk

HOW_TO_MAKE = {"xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"), "btrfs": ("mkfs.btrfs", "-q", "--mixed")}


@contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """Mount an empty file system of that kind in the folder; it can share blocks."""
    image, place = folder / "image", folder / kind
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(400_000_000)
    subprocess.run([*HOW_TO_MAKE[kind], image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True).returncode:
        pytest.skip(f"this machine mounts no image of {kind}; it takes root and loop devices")
    disk._devices_without_reflinks.clear()  # an earlier file system may have had the same device
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
