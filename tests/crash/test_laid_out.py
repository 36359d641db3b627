"""`restore --to`, killed at any change of a file: no folder of that name, or a whole one; and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lab
import laid_out
import pytest
import scenarios

import chance
from crash.points import Points

MOST = 60


@pytest.mark.slow
def test_killed_anywhere_a_laid_out_folder_is_whole_or_not_there(
    known: Callable[[lab.Scenario], lab.Known], crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    (scenario,) = (one for one in scenarios.SCENARIOS if one.name == "restore")
    template = known(scenario)
    events = range(1, crew.submit(laid_out.events, template, place).result() + 1)
    chosen = chance.some(events, MOST, "restore --to")
    results = [one.result() for one in [crew.submit(laid_out.visit, template, place, number) for number in chosen]]
    points.visited("kills at audit events: restore --to", sum(killed for killed, _ in results))
    assert sum(killed for killed, _ in results) >= len(chosen) - 3
    points.judge(one for _, wrong in results for one in wrong)
