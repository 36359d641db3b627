"""What a minute of rewind costs, and going back to the last of many."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import contents, data, measure
from benchmarks.bench import Bench
from benchmarks.data import MEGABYTE
from benchmarks.measure import Step
from benchmarks.peers import COMMAND, OURS, Ours, Place
from benchmarks.report import Sample, Scenario

QUIET = Scenario("rewind-quiet", "A quiet minute", "A look of rewind that finds nothing changed: seconds of processor.")
POINT = Scenario("rewind-point", "A point", "A look after 100 rows, all over a table, changed: seconds of processor.")
BACK = Scenario(
    "rewind-restore",
    "Back to the last point",
    "Rows and uploads were scribbled over or lost since; a safety copy first. Beside `restore` of the full backup.",
)
ALL = (QUIET, POINT, BACK)

FULL_BACKUP = "the full backup that it stands on"
_MINUTES = Path(__file__).with_name("minutes.py")


def run(bench: Bench) -> None:
    """A backup, the points after it, and back to the last of them; then to the backup itself, in each round."""
    if not bench.wants(*(scenario.key for scenario in ALL)):
        return
    ours, options = Ours(), bench.options
    with bench.folder("rewound") as folder:
        place = Place(data.build(folder / "app", options.sizes, options.seed), folder / "home")
        measure.prepare([*ours.prepare(place), *ours.backup(place, 1)], bench.scratch)
        before = contents.of(place.app)
        at = _take(bench, place)
        after = contents.of(place.app)
        for _ in bench.rounds() if bench.wants(BACK.key) else ():
            _bring_back(bench, place, OURS, ours.command(place, "restore", "--at", at, "--force"), after)
            (command,) = ours.restore(place, 1, place.app.folder)
            _bring_back(bench, place, FULL_BACKUP, command, before)


def _bring_back(bench: Bench, place: Place, who: str, command: Step, expected: contents.Prints) -> None:
    data.damage(place.app, bench.options.seed + bench.round)
    bench.measure(BACK.key, who, [command])
    contents.compare(f"{who}, back", contents.of(place.app), expected)


def _take(bench: Bench, place: Place) -> str:
    """The points are there, and what they cost is recorded; a time at which the last is the newest."""
    said = bench.scratch / "minutes"
    words = (sys.executable, str(_MINUTES), str(COMMAND.parent), str(bench.options.points))
    measure.prepare([replace(Ours().command(place), arguments=words, writes=said)], bench.scratch)
    found = json.loads(said.read_text())
    size = statistics.median(found["sizes"]) / MEGABYTE
    for scenario, seconds, remark in ((QUIET, found["quiet"], ""), (POINT, found["taken"], f"{size:.2f} MB on disk")):
        if bench.wants(scenario.key):
            bench.report.samples += [Sample(scenario.key, OURS, one, remark=remark) for one in seconds]
    return str(found["last"])
