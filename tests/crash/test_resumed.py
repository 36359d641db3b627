"""If a restore is killed at any system call, the app commits a row, and any command follows, no row is lost.

It is in the live database or in a backup, whatever the next command is, even if the backups folder was away meanwhile,
or a command used another one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import calls
import lab
import pytest
import resume
import scenarios

import chance
from crash.points import Points

Know = Callable[[lab.Scenario], lab.Known]
pytestmark = [pytest.mark.slow, pytest.mark.needs("strace")]
MOST = 90  # calls, and then pairs of a state that they left and another command
RESTORES = [one for one in scenarios.SMALL if one.command == "restore"]


@pytest.mark.parametrize("scenario", RESTORES, ids=lambda scenario: scenario.name)
def test_a_row_committed_after_a_kill_at_any_system_call_is_live_or_in_a_backup(
    scenario: lab.Scenario, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    choose = chance.chance(f"{scenario.name} resumed").choice
    template = known(scenario)
    found = chance.some(crew.submit(calls.record, template, place).result(), MOST, f"{scenario.name} at work")
    first = [(call, choose(resume.ALL)) for call in found]
    results = visited(crew, template, place, first)
    states: dict[str, list[calls.Call]] = {}
    seen: dict[str, set[tuple[str, ...]]] = {}
    for (call, command), result in zip(first, results, strict=True):
        if result.state is not None:
            states.setdefault(result.state, []).append(call)
            seen.setdefault(result.state, set()).add(command)
    rest = [
        (choose(states[state]), command) for state in states for command in resume.ALL if command not in seen[state]
    ]
    rest = chance.some(rest, MOST, f"{scenario.name} then")
    results += visited(crew, template, place, rest)
    points.visited(f"kills with the app at work: {scenario.name}", len(results))
    points.visited(f"states that they left: {scenario.name}", len(states))
    assert len(states) > 7  # of a random selection; states do not differ by a staged database any more
    points.judge(one for result in results for one in result.wrong)


def visited(
    crew: ProcessPoolExecutor, template: lab.Known, place: Path, pairs: list[tuple[calls.Call, tuple[str, ...]]]
) -> list[resume.Visit]:
    futures = [
        crew.submit(resume.visit, template, place, call, command, number)
        for number, (call, command) in enumerate(pairs)
    ]
    return [one.result() for one in futures]
