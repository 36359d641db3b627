"""Commands are killed, or get an error, at system calls that change the disk, SQLite's own included.

Most worlds are small: a database of a few pages, in WAL and in rollback-journal mode, and a handful of uploads. An
error is tried at the calls that can return it: ENOSPC at calls that take room, EACCES at calls that change names.
"""

from __future__ import annotations

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
MOST_ALIKE = 40  # the journal mode changes only SQLite's calls, which are the smaller part of these
MOST_FURTHER = 12  # for scenarios that use mostly the same code
MOST_ERRORS = 75
pytestmark = [pytest.mark.slow, pytest.mark.needs("strace")]


@pytest.mark.parametrize("scenario", [*scenarios.SMALL, *scenarios.FURTHER], ids=lambda scenario: scenario.name)
def test_killed_at_any_system_call_the_state_is_the_old_or_the_new(
    scenario: lab.Scenario, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    template = known(scenario)
    most = MOST_FURTHER if scenario in scenarios.FURTHER else MOST_ALIKE if "rollback" in scenario.name else None
    found = chance.some(crew.submit(calls.record, template, place).result(), most, f"{scenario.name} killed")
    visits = [crew.submit(calls.visit_kill, template, place, call, number) for number, call in enumerate(found)]
    results = [visit.result() for visit in visits]
    points.count(f"kills at system calls: {scenario.name}", [call.name for call in found])
    missed = [call.shown for call, (killed, _) in zip(found, results, strict=True) if not killed]
    assert not missed, f"not reached in the second run: {missed[:10]}"
    points.judge(one for _, wrong in results for one in wrong)


@pytest.mark.parametrize("scenario", scenarios.SMALL, ids=lambda scenario: scenario.name)
def test_a_system_call_that_fails_makes_a_sentence_and_leaves_the_old_or_the_new(
    scenario: lab.Scenario, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    template = known(scenario)
    found = crew.submit(calls.record, template, place).result()
    # The code cannot tell some errors apart: each journal mode gets half of those.
    errors = (
        ("EIO", "EDQUOT", "EROFS", "EDQUOT+") if "rollback" in scenario.name else ("EIO", "ENOSPC", "EACCES", "ENOSPC+")
    )
    pairs = [(call, error) for call in found for error in calls.errors_of(call, errors)]
    pairs = chance.some(pairs, MOST_ERRORS, f"{scenario.name} failing")
    visits = [
        crew.submit(calls.visit_error, template, place, call, error, number)
        for number, (call, error) in enumerate(pairs)
    ]
    results = [visit.result() for visit in visits]
    points.count(f"errors at system calls: {scenario.name}", [error for _, error in pairs])
    points.judge(one for wrong in results for one in wrong)
