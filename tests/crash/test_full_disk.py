"""Commands on full, small, read-only or separate disks leave the old or new state, no litter, and the right code."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path

import disks
import lab
import pytest
import scenarios

import chance
from crash.points import Points

Know = Callable[[lab.Scenario], lab.Known]
BACKUP, _, RESTORE, _ = scenarios.SMALL
FULL = [(RESTORE, "app/data"), (RESTORE, "app/uploads"), (RESTORE, "app/backups"), (BACKUP, "app/backups")]
STRIDE = 16
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mounts")]


def named(value: object) -> str:
    return value.name if isinstance(value, lab.Scenario) else str(value).removeprefix("app/")


@pytest.mark.parametrize(("scenario", "folder"), FULL, ids=named)
def test_a_disk_that_becomes_full_at_any_moment_leaves_the_old_or_the_new(
    scenario: lab.Scenario, folder: str, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    template = known(scenario)
    numbers = chance.some(range(1, template.events + 1), 36, f"{scenario.name} {folder} full")
    visits = [crew.submit(disks.visit_full, template, place, folder, number) for number in numbers]
    results = [visit.result() for visit in visits]
    points.visited(f"moments at which a disk is full: {scenario.name}, {folder}", len(results))
    assert all(became_full for became_full, _ in results)
    points.judge(one for _, wrong in results for one in wrong)


@pytest.mark.parametrize(("scenario", "folder"), FULL, ids=named)
def test_a_disk_without_room_for_another_file_leaves_the_old_until_it_has_enough(
    scenario: lab.Scenario, folder: str, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    template = known(scenario)
    too_few, wrong = 0, []
    for first in count(0, STRIDE):
        numbers = chance.some(range(first, first + STRIDE), None, f"{scenario.name} {folder} inodes {first}")
        results = [
            one.result() for one in [crew.submit(disks.visit_inodes, template, place, folder, one) for one in numbers]
        ]
        too_few += sum(full for full, _ in results)
        wrong += [one for _, problems in results for one in problems]
        if not results[-1][0] or first > 200:
            break
    points.visited(f"disks with too few inodes: {scenario.name}, {folder}", too_few)
    assert too_few > 0
    points.judge(wrong)


@pytest.mark.parametrize(("scenario", "folder"), FULL, ids=named)
def test_a_disk_that_is_too_small_is_refused_and_one_just_large_enough_will_do(
    scenario: lab.Scenario, folder: str, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    template = known(scenario)
    sizes = [*range(0, 128, 8), *range(128, 6144, 512)]
    sizes = chance.some(sizes, None, f"{scenario.name} {folder} sizes")
    results = list(crew.map(disks.visit_size, *zip(*((template, place, folder, size) for size in sizes), strict=True)))
    points.visited(f"disks of another size: {scenario.name}, {folder}", len(sizes))
    codes = [code for code, _ in results]
    assert codes == sorted(codes, reverse=True), f"not refused up to a size, then accepted: {codes}"
    assert {codes[0], codes[-1]} == {15, 0}
    points.judge(one for _, wrong in results for one in wrong)


@pytest.mark.parametrize(
    ("scenario", "folder"),
    [(BACKUP, "app/backups"), (RESTORE, "app/backups"), (RESTORE, "app/data"), (RESTORE, "app/uploads")],
    ids=named,
)
def test_a_read_only_disk_is_named_in_one_sentence_and_nothing_is_changed(
    scenario: lab.Scenario, folder: str, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    ran, wrong = crew.submit(disks.read_only, known(scenario), place, folder).result()
    points.visited("read-only disks", 1)
    assert ran.code in (1, 13), ran.err
    assert folder in ran.err
    assert [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    points.judge((folder, one) for one in wrong)


def test_uploads_on_a_read_only_disk_can_be_backed_up(
    known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    ran, wrong = crew.submit(disks.read_only, known(BACKUP), place, "app/uploads").result()
    points.visited("read-only disks", 1)
    assert ran.code == 0, ran.err
    points.judge(("uploads", one) for one in wrong)


@pytest.mark.parametrize("scenario", scenarios.MOUNTED, ids=named)
def test_killed_at_any_change_of_a_file_where_data_uploads_backups_and_a_folder_of_uploads_are_mounts(
    scenario: lab.Scenario, known: Know, crew: ProcessPoolExecutor, place: Path, points: Points
) -> None:
    template = known(scenario)
    numbers = chance.some(range(1, template.events + 2), 36, scenario.name)
    results = [one.result() for one in [crew.submit(lab.visit_event, template, place, number) for number in numbers]]
    points.visited(f"kills at audit events: {scenario.name}", len(numbers))
    assert [killed for killed, _ in results] == [number <= template.events for number in numbers]
    points.judge(one for _, wrong in results for one in wrong)
