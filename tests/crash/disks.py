"""Visits on full, small and read-only disks: real file systems, mounted for one visit."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lab

PAGE = 4096
FAILED = (1, 13, 15)


def visit_full(known: lab.Known, place: Path, folder: str, number: int) -> tuple[bool, list[tuple[str, str]]]:
    """Fill that folder's disk at the changing event of that number; return whether it did, and what is wrong then.

    This acts as another process that fills the disk after the space was checked. At some of the visits a few pages
    stay free, so that the space ends in the middle of a file.
    """
    root = place / f"{known.scenario.name}-full-{os.getpid()}-{number}"
    with lab.fresh(known.template, root, (folder,)) as world:
        ballast = root / "disks" / folder.replace("/", "-") / "ballast"
        ran = lab.run(world, known.scenario.argv, known.scenario.environment, _fill_at(number, ballast))
        became_full = ballast.exists()
        wrong = [] if ran.code in (0, 3, 15) else [f"on a full disk it ended with {ran.code}: {ran.err.strip()}"]
        wrong += _in_the_meantime(world) if became_full else []
        ballast.unlink(missing_ok=True)
        wrong += lab.aftermath(known, world, number, ran.code, ran.err)
        return became_full, [(f"{folder} at event {number}", one) for one in wrong]


def _fill_at(point: int, ballast: Path) -> Callable[[int, lab.Event], None]:
    def at(count: int, _event: lab.Event) -> None:
        if count == point:
            fill(ballast, leave=point % 4 * PAGE)

    return at


def fill(ballast: Path, leave: int) -> None:
    """Fill the disk, except for `leave` bytes."""
    facts = os.statvfs(ballast.parent)
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(handle, 0, max(PAGE, facts.f_bavail * facts.f_frsize - leave))
        while not leave:
            os.write(handle, bytes(PAGE))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(handle)


def _in_the_meantime(world: lab.World) -> list[str]:
    """Run `recover` while the disk is full: it must work or end with 15, without a traceback."""
    ran = lab.run(world, ("recover",))
    if ran.code not in (0, 3, 15) or "Traceback" in ran.err:
        return [f"recover on the full disk ended with {ran.code}: {ran.err.strip()}"]
    return []


def visit_inodes(known: lab.Known, place: Path, folder: str, number: int) -> tuple[bool, list[tuple[str, str]]]:
    """Give that folder's disk few free inodes but enough bytes; return whether they were too few, and what is wrong."""
    used = sum(1 for _ in (known.template / folder).rglob("*"))
    root = place / f"{known.scenario.name}-inodes-{os.getpid()}-{number}"
    with lab.fresh(known.template, root, (folder,), f"size=16m,nr_inodes={used + 3 + number}") as world:
        ran = lab.run(world, known.scenario.argv, known.scenario.environment)
        wrong = [] if ran.code in (0, 3, 15) else [f"without inodes it ended with {ran.code}: {ran.err.strip()}"]
        lab.mount("tmpfs", root / "disks" / folder.replace("/", "-"), "tmpfs", lab.MS_REMOUNT, "size=16m,nr_inodes=0")
        wrong += lab.aftermath(known, world, number, ran.code, ran.err)
        return ran.code == 15, [(f"{folder} with {number} inodes", one) for one in wrong]


def visit_size(known: lab.Known, place: Path, folder: str, kilobytes: int) -> tuple[int, list[tuple[str, str]]]:
    """Give that folder's disk so many kilobytes more than are used; return the exit code, and what is wrong then."""
    there = sum(-(-path.lstat().st_size // PAGE) * PAGE for path in (known.template / folder).rglob("*"))
    root = place / f"{known.scenario.name}-size-{os.getpid()}-{kilobytes}"
    with lab.fresh(known.template, root, (folder,), f"size={there // 1024 + 64 + kilobytes}k") as world:
        ran = lab.run(world, known.scenario.argv, known.scenario.environment)
        wrong = [] if ran.code in (0, 15) else [f"it ended with {ran.code}: {ran.err.strip()}"]
        lab.mount("tmpfs", root / "disks" / folder.replace("/", "-"), "tmpfs", lab.MS_REMOUNT, "size=64m")
        wrong += lab.aftermath(known, world, kilobytes, ran.code, ran.err)
        return ran.code, [(f"{folder} with {kilobytes} kB", one) for one in wrong]


def read_only(known: lab.Known, place: Path, folder: str) -> tuple[lab.Ran, list[str]]:
    """Run the command with that folder mounted read-only; return how it ended, and what is wrong then."""
    with lab.fresh(known.template, place / f"{known.scenario.name}-read-only", (folder,)) as world:
        lab.mount("", world.root / folder, flags=lab.MS_BIND | lab.MS_REMOUNT | lab.MS_RDONLY)
        ran = lab.run(world, known.scenario.argv, known.scenario.environment)
        lab.mount("", world.root / folder, flags=lab.MS_BIND | lab.MS_REMOUNT)
        expected = known if ran.code in (0, 3) else replace(known, new=known.old, scenario=_without_safety(known))
        return ran, lab.aftermath(expected, world, 0, ran.code, ran.err)


def _without_safety(known: lab.Known) -> lab.Scenario:
    return replace(known.scenario, safety=False)
