"""Visits of `restore --to` and `clone`: killed at one file change, then run again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import lab

# The commands run in the root folder of their world.
RESTORE = ("restore", "first", "--to", "look")
CLONE = ("clone", "look", "--from", "first", "--mask", "mask.sql")
MASK = "UPDATE companies SET name = 'masked ' || id;"
ALLOWED = ("applications", "documents", "reminders")


def events(known: lab.Known, place: Path, argv: tuple[str, ...]) -> int:
    """Return how many changing events a whole run has."""
    with lab.fresh(known.template, place / f"look-{os.getpid()}-whole") as world:
        _write_mask(world)
        ran = lab.run(world, argv, at=lab.no_event)
        assert ran.code == 0, ran.err
        return ran.events


def _write_mask(world: lab.World) -> None:
    (world.app / "mask.sql").write_text("".join(f"-- allow: {one}.*\n" for one in ALLOWED) + MASK)


def visit(known: lab.Known, place: Path, argv: tuple[str, ...], number: int) -> tuple[bool, list[tuple[str, str]]]:
    """Kill the command before its event of that number; return whether it was killed, and what is wrong then."""
    with lab.fresh(known.template, place / f"look-{os.getpid()}-{number}") as world:
        _write_mask(world)
        target, before = (
            world.root / "look",
            (lab.visible(world), lab.tree(world.app / "data"), lab.tree(world.uploads)),
        )
        killed = lab.run(world, argv, at=lab.kill_at(number)).code == -signal.SIGKILL
        judge = _wrong_clone if argv == CLONE else _wrong
        wrong = judge(world, target) if target.exists() else []
        was_there = target.exists()
        again = lab.run(world, argv)
        if again.code != (2 if was_there else 0):
            wrong.append(f"typed again it ended with {again.code}: {again.err}")
        wrong += judge(world, target)
        if [name for name in os.listdir(world.root) if name.startswith(".draft")]:
            wrong.append("typed again it left a draft")
        if before != (lab.visible(world), lab.tree(world.app / "data"), lab.tree(world.uploads)):
            wrong.append("live data or backups are not as they were")
        shutil.rmtree(target, ignore_errors=True)
        return killed, [(str(number), one) for one in wrong]


def _wrong(world: lab.World, target: Path) -> list[str]:
    """Return how the target differs from the backup."""
    sealed = world.backups / "first"
    if lab.tree(target / "uploads") != lab.tree(sealed / "uploads"):
        return ["the uploads that were laid out are not the backup's"]
    if _dumped(target / "data" / "pats.db") != _dumped(sealed / "pats.db"):
        return ["the database that was laid out is not the backup's"]
    return []


def _wrong_clone(world: lab.World, target: Path) -> list[str]:
    """Return how the target differs from the masked backup, or which masked values it shows."""
    with contextlib.closing(lab.open_sealed(world.backups / "first" / "pats.db")) as sealed:
        names = [name for (name,) in sealed.execute("SELECT name FROM companies")]
    with contextlib.closing(lab.open_sealed(target / "data" / "pats.db")) as clone:
        masked = [name for (name,) in clone.execute("SELECT name FROM companies")]
    content = b"".join(path.read_bytes() for path in target.rglob("*") if path.is_file())
    shown = [name for name in names if name.encode() in content]
    if shown or len(masked) != len(names) or not all(name.startswith("masked ") for name in masked):
        return [f"the clone is not masked: {shown or masked}"]
    return []


def _dumped(database: Path) -> list[str]:
    with contextlib.closing(lab.open_sealed(database)) as found:
        return list(found.iterdump())
