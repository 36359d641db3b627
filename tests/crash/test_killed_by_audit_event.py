"""Killed before the 1st, the 2nd, the 3rd … change of a file that Python makes, until the command survives.

Whatever the command: the next one leaves the state before or the state after, of database and uploads together, no
litter, every earlier backup as it was, and every visible backup complete.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path

import lab
import pytest
import scenarios

from crash.points import Points

STRIDE = 16  # visits that are under way at once; those beyond the last event cost little


@pytest.mark.slow
@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_at_any_change_of_a_file_the_state_is_the_old_or_the_new(
    scenario: lab.Scenario,
    known: Callable[[lab.Scenario], lab.Known],
    crew: ProcessPoolExecutor,
    place: Path,
    points: Points,
) -> None:
    template = known(scenario)
    killed, wrong = 0, []
    for first in count(1, STRIDE):
        visits = [crew.submit(lab.visit_event, template, place, number) for number in range(first, first + STRIDE)]
        found = [visit.result() for visit in visits]
        killed += sum(was_killed for was_killed, _ in found)
        wrong += [one for _, problems in found for one in problems]
        if not all(was_killed for was_killed, _ in found):
            break
    points.visited(f"kills at audit events: {scenario.name}", killed)
    assert killed >= template.events, f"only {killed} of {template.events} events were visited"
    points.judge(wrong)
