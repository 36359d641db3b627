"""A restore killed at any system call, the app at work, then any command: no committed row is lost.

It is in the live database or in a backup, whatever the next command is, and also where the backups folder was away
meanwhile, or a command came with another one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import calls
import lab
import pytest
import resume
import scenarios

from crash.points import Points

Know = Callable[[lab.Scenario], lab.Known]
pytestmark = [pytest.mark.slow, pytest.mark.needs("strace")]
RESTORES = [one for one in scenarios.SMALL if one.command == "restore"]


@pytest.mark.parametrize("scenario", RESTORES, ids=lambda scenario: scenario.name)
def test_a_row_committed_after_a_kill_at_any_system_call_is_live_or_in_a_backup(
    scenario: lab.Scenario, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    seed = int(os.environ.get("BACKUP_TESTS_SEED", random.randrange(10**6)))
    print(f"the seed is {seed}: BACKUP_TESTS_SEED={seed} repeats this choice")
    chance = random.Random(seed)
    template = known(scenario)
    found = crew.submit(calls.record, template, place).result()
    first = [(call, chance.choice(resume.ALL)) for call in found]
    results = visited(crew, template, place, first)
    states: dict[str, list[calls.Call]] = {}
    seen: dict[str, set[tuple[str, ...]]] = {}
    for (call, command), result in zip(first, results, strict=True):
        if result.state is not None:
            states.setdefault(result.state, []).append(call)
            seen.setdefault(result.state, set()).add(command)
    rest = [
        (chance.choice(states[state]), command)
        for state in states
        for command in resume.ALL
        if command not in seen[state]
    ]
    results += visited(crew, template, place, rest)
    points.visited(f"kills with the app at work: {scenario.name}", len(results))
    points.visited(f"states that they left: {scenario.name}", len(states))
    assert len(states) > 10
    points.judge(one for result in results for one in result.wrong)


def visited(
    crew: ProcessPoolExecutor, template: lab.Known, place: Path, pairs: list[tuple[calls.Call, tuple[str, ...]]]
) -> list[resume.Visit]:
    futures = [
        crew.submit(resume.visit, template, place, call, command, number)
        for number, (call, command) in enumerate(pairs)
    ]
    return [one.result() for one in futures]
