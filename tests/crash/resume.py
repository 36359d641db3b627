"""Visits that kill a restore at a system call, let the app commit a row, run a command, and look for the row.

Thousands of points lead to a few states. Each point is visited with one command; each state that was seen, as told by
its file names and its journal, with all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import calls
import lab

ROW = "committed after the kill"
RECOVER = ("recover",)
DRY_RUN = ("restore", "first", "--dry-run")
READING = (("list",), ("show", "first"), ("status",), ("history",), ("verify", "first"), DRY_RUN)
WRITING = (
    RECOVER,
    ("backup", "next"),
    ("run",),
    ("restore", "first", "--force"),
    ("undo", "--force"),
    ("prune",),
    ("dump", "next.sql"),
)
AWAY, ELSEWHERE = ("backups away",), ("another backups folder",)
ALL = (*WRITING, *READING, AWAY, ELSEWHERE)
_STAMP = re.compile(r"\d{8}_\d{6}(_\d+)?|-[0-9a-f]{8}$")
# `undo` ends with 10 (no safety copy) or 12 (one without a usable database) if no restore came far enough.
_ENDINGS = {"undo": (0, 3, 10, 12), "status": (0, 1, 2)}


@dataclass(frozen=True)
class Visit:
    """The state that the kill left, or None if the restore was not killed, and what is wrong in the end."""

    state: str | None
    wrong: list[tuple[str, str]]


def visit(known: lab.Known, place: Path, call: calls.Call, command: tuple[str, ...], number: int) -> Visit:
    """Kill the restore at that call, commit the row, run the command and then `recover`, and check the result."""
    with lab.fresh(known.template, place / f"{known.scenario.name}-resume-{os.getpid()}-{number}") as world:
        strace = ("-e", f"trace={call.name}", "-e", f"inject={call.name}:signal=KILL:when={call.number}")
        ran = lab.run(world, known.scenario.argv, known.scenario.environment, strace=strace)
        if ran.code != -signal.SIGKILL:
            return Visit(None, [])
        state, uploads = _state(world), _uploads(world)
        committed = _live_rows(world) | {ROW}
        _commit(world)
        wrong = [*_run(world, command), *_run(world, RECOVER)]
        if lost := committed - _live_rows(world) - _rows_in_backups(world):
            wrong.append(f"LOST: {sorted(lost)} in neither the live database nor a backup")
        if lost := {path for path, entry in uploads.items() if not _has_upload(world, path, entry)}:
            wrong.append(f"LOST: uploads {sorted(lost)}")
        wrong += [f"litter: {name}" for name in lab.litter(world)]
        where = f"{call.shown}, then {' '.join(command)}"
        return Visit(state, [(where, one) for one in wrong])


def _run(world: lab.World, command: tuple[str, ...]) -> list[str]:
    if command == AWAY:
        return _with_backups_away(world)
    if command == ELSEWHERE:
        return _with_another_backups_folder(world)
    before = _untouchable(world) if command in READING else None
    ran = lab.run(world, command)
    wrong = [] if ran.code in _ENDINGS.get(command[0], (0, 3)) else [f"ended with {ran.code}: {ran.err.strip()}"]
    wrong += [f"showed a traceback: {ran.err}"] if "Traceback" in ran.err else []
    if before is not None and before != _untouchable(world):
        wrong.append("reads, and changed something")
    return wrong


def _with_backups_away(world: lab.World) -> list[str]:
    """Run `recover` with an empty folder for the backups, as if their disk were not mounted; then put them back."""
    away, is_staged = world.root / "away", _is_staged(world)
    world.backups.rename(away)
    world.backups.mkdir()
    before = _untouchable(world)
    ran = lab.run(world, RECOVER)
    wrong = ["without the backups folder something was touched"] if is_staged and before != _untouchable(world) else []
    if is_staged and (ran.code != 1 or str(world.backups) not in ran.err):
        wrong.append(f"without the backups folder recover ended with {ran.code}: {ran.err.strip()}")
    shutil.rmtree(world.backups)
    away.rename(world.backups)
    return wrong


def _with_another_backups_folder(world: lab.World) -> list[str]:
    other, is_staged = world.root / "other", _is_staged(world)
    other.mkdir()
    before = _untouchable(world)
    ran = lab.run(world, ("backup", "elsewhere"), {"BACKUP_DIR": str(other)})
    wrong = ["from another backups folder something was touched"] if is_staged and before != _untouchable(world) else []
    if is_staged and ran.code != 1:
        wrong.append(f"from another backups folder a backup ended with {ran.code}: {ran.err.strip()}")
    shutil.rmtree(other)
    return wrong


def _is_staged(world: lab.World) -> bool:
    """Return whether a staging area names its restore: any command may clear an area that does not."""
    return any(any(path.glob("restore.json")) for path in world.app.rglob(lab.STAGING))


def _untouchable(world: lab.World) -> object:
    """Return what a reading command must not change: live rows, uploads, staged paths, whether there is a journal."""
    staged = sorted(str(path) for path in world.app.rglob("*") if lab.STAGING in path.parts)
    return _live_rows(world), lab.tree(world.uploads), staged, (world.backups / ".journal").exists()


def _state(world: lab.World) -> str:
    """Describe the state: the names of live, staged and sealed files, and how far the journal is."""
    found = []
    for path in sorted(world.app.rglob("*")):
        name = _STAMP.sub("…", str(path.relative_to(world.app)))
        if path.name != "pats.db-shm" and not any(one.startswith((".draft", ".state", ".lock")) for one in path.parts):
            found.append(name)
    journal = world.backups / ".journal"
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(journal.read_text())
        found.append(f"database {said['database']}, uploads {said['uploads']}, back {said['back']}")
    return "\n".join(found)


def _commit(world: lab.World) -> None:
    """Commit the row as the app does: in another process, which SQLite may make recover first."""
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            with contextlib.closing(sqlite3.connect(world.database, timeout=10)) as live, live:
                live.execute("INSERT INTO companies (name) VALUES (?)", (ROW,))
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def _live_rows(world: lab.World) -> set[str]:
    """Return the live rows, read in a copy: reading may change a hot WAL or journal."""
    copies = world.root / "looked-at"
    copies.mkdir()
    try:
        for path in world.database.parent.glob(f"{world.database.name}*"):
            if not path.name.endswith("-shm"):
                shutil.copy2(path, copies)
        with contextlib.closing(sqlite3.connect(copies / world.database.name)) as live:
            return {name for (name,) in live.execute("SELECT name FROM companies")}
    finally:
        shutil.rmtree(copies)


def _rows_in_backups(world: lab.World) -> set[str]:
    found: set[str] = set()
    for path in world.backups.glob(f"*/{world.database.name}"):
        with contextlib.closing(lab.open_sealed(path)) as copy:
            found |= {name for (name,) in copy.execute("SELECT name FROM companies")}
    return found


def _uploads(world: lab.World) -> lab.Tree:
    found = lab.tree(world.uploads)
    return {path: entry for path, entry in found.items() if entry[0] == "file" and not path.startswith(lab.STAGING)}


def _has_upload(world: lab.World, path: str, entry: tuple[str, int, int, str]) -> bool:
    """Return whether that content is at that path, live or in a backup."""
    trees = [world.uploads, *world.backups.glob("*/uploads")]
    there = [tree / path for tree in trees if (tree / path).is_file()]
    return any(lab._digest(one) == entry[3] for one in there)
