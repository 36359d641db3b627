"""`restore --to` and `clone`, killed at any file change, leave a whole folder or none, and change nothing else."""

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
@pytest.mark.parametrize("argv", [laid_out.RESTORE, laid_out.CLONE], ids=["restore --to", "clone"])
def test_killed_anywhere_a_laid_out_folder_is_whole_or_not_there(
    argv: tuple[str, ...],
    known: Callable[[lab.Scenario], lab.Known],
    crew: ProcessPoolExecutor,
    place: Path,
    points: Points,
) -> None:
    (scenario,) = (one for one in scenarios.SCENARIOS if one.name == "restore")
    template = known(scenario)
    events = range(1, crew.submit(laid_out.events, template, place, argv).result() + 1)
    chosen = chance.some(events, MOST, argv[0])
    results = [
        one.result() for one in [crew.submit(laid_out.visit, template, place, argv, number) for number in chosen]
    ]
    points.visited(f"kills at audit events: {argv[0]} (laid out)", sum(killed for killed, _ in results))
    assert sum(killed for killed, _ in results) >= len(chosen) - 3
    points.judge(one for _, wrong in results for one in wrong)
