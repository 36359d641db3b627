"""System calls that read fail with EIO, as if a bad sector could be anywhere.

Live uploads that cannot be read are named in a warning and stay as they are; everything else is done. After any other
disk error, the message that ends the command names a path, and the state is the old one or the new one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import calls
import lab
import pytest
import scenarios

import chance
from crash.points import Points

Know = Callable[[lab.Scenario], lab.Known]
pytestmark = [pytest.mark.slow, pytest.mark.needs("strace")]

READS = ["read", "pread64", "getdents64", "newfstatat", "readlink", "readlinkat", "openat", "statx", "lstat", "stat"]
MOST = 50  # points of each scenario: many lead to the same state
BACKUP, RESTORE = scenarios.SMALL[0], scenarios.SMALL[2]


def recorded(known: lab.Known, place: Path, where: str) -> list[calls.Call]:
    """Return the reading calls of a clean run that concern something below that folder of the app."""
    with lab.fresh(known.template, place / f"{known.scenario.name}-reads") as world:
        trace, counted, found = world.root / "trace", Counter[str](), []
        watched = ("-e", f"trace=?{',?'.join(READS)}", "-e", "signal=none", "-y")
        ran = lab.run(world, known.scenario.argv, known.scenario.environment, strace=watched, trace=trace)
        assert ran.code == known.code, ran.err
        for line in trace.read_text(errors="replace").splitlines():
            match = re.match(r"^\d+ +(\w+)\((.*)", line)
            if match and match[1] in READS:
                counted[match[1]] += 1
                is_read = "O_CREAT" not in line and " = -1 " not in line
                if is_read and f"/app/{where}" in line and lab.STAGING not in line:
                    found.append(calls.Call(match[1], counted[match[1]], match[2]))
        return found


def fail(known: lab.Known, world: lab.World, call: calls.Call) -> lab.Ran:
    how = ("-e", f"trace={call.name}", "-e", f"inject={call.name}:error=EIO:when={call.number}")
    return lab.run(world, known.scenario.argv, known.scenario.environment, strace=how)


def visit_live(known: lab.Known, place: Path, call: calls.Call, number: int) -> list[tuple[str, str]]:
    """Make that call, which reads a live upload or a folder of them, fail; return what is wrong then."""
    with lab.fresh(known.template, place / f"{known.scenario.name}-live-{number}") as world:
        ran = fail(known, world, call)
        wrong = said_wrong(ran)
        if ran.code in (0, 3):
            # Threads shift the number of a call: the history may be what fails, and its warning changes no exit code.
            named = set(re.findall(r"^Warning: (?!The history )(\S+) ", ran.err, re.MULTILINE))
            wrong += done_wrong(known, world, named)
            if named and ran.code == 0:
                wrong.append(f"it ended with 0, and warned of {sorted(named)}: {ran.err[-400:]}")
        return [(f"{call.shown} {call.line[:90]}", one) for one in wrong]


def done_wrong(known: lab.Known, world: lab.World, named: set[str]) -> list[str]:
    """Return the uploads that are not as after a clean run and are not covered by a named path."""
    if known.scenario.command == "backup":
        wanted, found = known.old.uploads, lab.tree(world.backups / "one" / "uploads")
    else:
        wanted, found = known.new.uploads, lab.live(world).uploads
    left = [path for path in lab.differing(wanted, found) if not covered(path, named)]
    return [f"not done, and not named: {left} ({sorted(named)})"] if left else []


def covered(path: str, named: set[str]) -> bool:
    """Return whether the path was named, or one above it, or (because of a folder's mtime) one inside it."""
    return any(path == one or path.startswith(f"{one}/") or one.startswith(f"{path}/") for one in named)


def visit_anywhere(known: lab.Known, place: Path, call: calls.Call, number: int) -> list[tuple[str, str]]:
    with lab.fresh(known.template, place / f"{known.scenario.name}-any-{number}") as world:
        ran = fail(known, world, call)
        wrong = said_wrong(ran)
        if ran.code not in (0, 3):
            wrong += lab.aftermath(known, world, number, ran.code, ran.err)
        return [(f"{call.shown} {call.line[:90]}", one) for one in wrong]


def said_wrong(ran: lab.Ran) -> list[str]:
    """Return what is wrong with the messages: a traceback, or disk errors without a path."""
    if "Traceback" in ran.err:
        return [f"a traceback: {ran.err[-800:]}"]
    lines = [line for line in ran.err.splitlines() if line.startswith(("Error:", "Warning:"))]
    return [f"no path: {line}" for line in lines if re.search(r"Input/output error|Errno", line) and "/" not in line]


@pytest.mark.parametrize("scenario", [BACKUP, RESTORE], ids=lambda scenario: scenario.name)
def test_what_cannot_be_read_of_the_uploads_is_named_and_all_else_is_done(
    scenario: lab.Scenario, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    template = known(scenario)
    calls_found = crew.submit(recorded, template, place, "uploads/").result()
    found = chance.some(calls_found, MOST, f"{scenario.name} uploads")
    visits = [crew.submit(visit_live, template, place, call, number) for number, call in enumerate(found)]
    points.count(f"uploads that cannot be read: {scenario.name}", [call.name for call in found])
    points.judge(one for visit in visits for one in visit.result())


@pytest.mark.parametrize("scenario", [BACKUP, RESTORE], ids=lambda scenario: scenario.name)
def test_an_error_of_the_disk_has_a_path_and_leaves_the_old_or_the_new(
    scenario: lab.Scenario, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    template = known(scenario)
    calls_found = crew.submit(recorded, template, place, "backups").result()
    found = chance.some(calls_found, MOST, f"{scenario.name} backups")
    visits = [crew.submit(visit_anywhere, template, place, call, number) for number, call in enumerate(found)]
    points.count(f"errors where it reads: {scenario.name}", [call.name for call in found])
    points.judge(one for visit in visits for one in visit.result())
