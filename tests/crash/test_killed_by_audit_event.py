"""Commands are killed before file changes that Python makes: before a third of them in the commands of `WHOLE`.

The next command then leaves the state before or the state after, of database and uploads together, no litter, every
earlier backup as it was, and every visible backup complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path

import lab
import pytest
import scenarios

import chance
from crash.points import Points

# A third of all their events is visited; the other commands make their changes with the same code.
WHOLE = ("backup", "restore", "restore-several", "prune")
MOST = 20
CHOSEN = [
    *(one for one in scenarios.SCENARIOS if one.name in WHOLE),
    *chance.cases(
        [one for one in scenarios.SCENARIOS if one.name not in WHOLE], "commands killed at a change of a file"
    ),
]
STRIDE = 2  # visits beyond the last event of the clean run: some runs make a few more


@pytest.mark.slow
@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda scenario: scenario.name)
def test_killed_at_any_change_of_a_file_the_state_is_the_old_or_the_new(
    scenario: lab.Scenario,
    known: Callable[[lab.Scenario], lab.Known],
    crew: ProcessPoolExecutor,
    place: Path,
    points: Points,
) -> None:
    template, wrong = known(scenario), []

    def killed(numbers: Iterable[int]) -> list[bool]:
        found = [one.result() for one in [crew.submit(lab.visit_event, template, place, number) for number in numbers]]
        wrong.extend(one for _, problems in found for one in problems)
        return [was_killed for was_killed, _ in found]

    events = range(1, template.events + 1)
    chosen = chance.some(events, None if scenario.name in WHOLE else MOST, scenario.name)
    reached = sum(killed(chosen))
    for first in count(template.events + 1, STRIDE):
        if not all(beyond := killed(range(first, first + STRIDE))):
            break
        reached += sum(beyond)
    points.visited(f"kills at audit events: {scenario.name}", reached)
    assert reached >= len(chosen), f"only {reached} of {len(chosen)} events were reached"
    points.judge(wrong)
