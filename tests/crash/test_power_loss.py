"""If the power fails after any system call of a run, the next command leaves the old state or the new one.

A run is recorded, and replayed into a model of the disk that promises less than any file system does: what was synced
is there, what was not may be there or not. The possible states of the disk are then made for real.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lab
import power
import pytest
import scenarios

import chance
from crash.points import Points

OTHERS = ("restore-missing", "restore-corrupt", "restore-database")
CHOSEN = [*scenarios.SMALL, *(one for one in scenarios.SCENARIOS if one.name in OTHERS), *scenarios.FURTHER]
WHOLE = ("small-backup", "small-restore")  # a third of all states; the others change files with the same code
MOST, MOST_FURTHER = 50, 12
pytestmark = [pytest.mark.slow, pytest.mark.needs("strace")]


@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda scenario: scenario.name)
def test_power_lost_at_any_point_leaves_the_old_or_the_new(
    scenario: lab.Scenario,
    known: Callable[[lab.Scenario], lab.Known],
    crew: ProcessPoolExecutor,
    place: Path,
    points: Points,
) -> None:
    template = known(scenario)
    states, inodes = crew.submit(power.record, template, place).result()
    assert len(states) > 20, "the trace was not understood"
    most = MOST_FURTHER if scenario in scenarios.FURTHER else None if scenario.name in WHOLE else MOST
    states = chance.some(states, most, scenario.name)
    visits = [crew.submit(power.visit, template, place, *state, inodes, number) for number, state in enumerate(states)]
    results = [visit.result() for visit in visits]
    points.count(f"states after power loss: {scenario.name}", [said for _, said, _ in states])
    points.judge(one for wrong in results for one in wrong)
