"""One visit of `restore --to`: killed at one of its changes of a file, then typed again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import lab

ARGV = ("restore", "first", "--to", "look")  # commands run in the root of their world


def events(known: lab.Known, place: Path) -> int:
    """How many changing events a whole run has."""
    with lab.fresh(known.template, place / f"look-{os.getpid()}-whole") as world:
        ran = lab.run(world, ARGV, at=lab.no_event)
        assert ran.code == 0, ran.err
        return ran.events


def visit(known: lab.Known, place: Path, number: int) -> tuple[bool, list[tuple[str, str]]]:
    """Killed before its event of that number: whether it was, and what is wrong then."""
    with lab.fresh(known.template, place / f"look-{os.getpid()}-{number}") as world:
        target, before = (
            world.root / "look",
            (lab.visible(world), lab.tree(world.app / "data"), lab.tree(world.uploads)),
        )
        killed = lab.run(world, ARGV, at=lab.kill_at(number)).code == -signal.SIGKILL
        wrong = _wrong(world, target) if target.exists() else []
        was_there = target.exists()
        again = lab.run(world, ARGV)
        if again.code != (2 if was_there else 0):
            wrong.append(f"typed again it ended with {again.code}: {again.err}")
        wrong += _wrong(world, target)
        if not was_there and [name for name in os.listdir(world.root) if name.startswith(".draft")]:
            wrong.append("typed again it left a draft")
        if before != (lab.visible(world), lab.tree(world.app / "data"), lab.tree(world.uploads)):
            wrong.append("live data or backups are not as they were")
        shutil.rmtree(target, ignore_errors=True)
        return killed, [(str(number), one) for one in wrong]


def _wrong(world: lab.World, target: Path) -> list[str]:
    """In what the target is not the backup."""
    sealed = world.backups / "first"
    if lab.tree(target / "uploads") != lab.tree(sealed / "uploads"):
        return ["the uploads that were laid out are not the backup's"]
    if _dumped(target / "data" / "pats.db") != _dumped(sealed / "pats.db"):
        return ["the database that was laid out is not the backup's"]
    return []


def _dumped(database: Path) -> list[str]:
    with contextlib.closing(lab.open_sealed(database)) as found:
        return list(found.iterdump())
