"""Small file systems of other kinds, each in a file that is mounted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
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
    with until_unmounted(kind, ["mount", "-o", "loop", image, place]):
        disk._devices_without_reflinks.clear()  # an earlier file system may have had the same device
        yield place


@contextmanager
def until_unmounted(kind: str, command: Sequence[str | Path]) -> Iterator[None]:
    """Mount with this command, whose last word is the place, until the block ends; skip the test where that fails."""
    done = subprocess.run(command, capture_output=True, timeout=60)
    if done.returncode:
        pytest.skip(f"this machine mounts no {kind}: {done.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", command[-1]], check=True)
