"""Database and uploads together: backed up, backed up again, lost, damaged, restored; and trees of many small files."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import contents, data
from benchmarks.bench import Bench
from benchmarks.data import App, Sizes
from benchmarks.measure import prepare
from benchmarks.peers import OURS, Ours, Peer, Place
from benchmarks.report import Scenario

FIRST = Scenario("first", "First backup", "Database and uploads, nothing there yet.")
UNCHANGED = Scenario("unchanged", "Nothing changed", "The second backup of the same data.")
CHANGED = Scenario(
    "changed", "1 % changed", "One per cent of the rows and of the uploads changed since the last backup."
)
RESTORE = Scenario(
    "restore",
    "Full restore",
    "No database, an empty uploads folder; all comes back. Ours verifies it before and after.",
)
DAMAGED_UPLOADS = Scenario(
    "damaged-uploads",
    "Restore of a few damaged uploads",
    "One upload in a thousand scribbled over or lost since the backup; the database is as it was.",
)
DAMAGE = Scenario(
    "damage",
    "Restore after small damage",
    "One row and one upload in a thousand scribbled over or lost since the backup. Ours makes a safety copy first.",
)
SMALL = Scenario("small", "Many small files", "First backup of a tree of small files, with a small database.")
SMALL_UNCHANGED = Scenario("small-unchanged", "Many small files, nothing changed", "The second backup of that tree.")
SMALL_TENTH = Scenario("small-tenth", "A tenth of those files", "First backup; for how the time grows with the files.")
MEMORY = Scenario("memory", "A big tree", "Our commands on many files, in one round: it is the memory that counts.")

_STAGES = (FIRST, UNCHANGED, CHANGED)
_WAYS_BACK = (RESTORE, DAMAGED_UPLOADS, DAMAGE)
_SMALL_BYTES = 2000  # of a small file, on average
_TINY_BYTES = 100  # of a file of the big tree


def run_round(bench: Bench, app: App) -> None:
    """Every peer backs up the same live data; then, one by one, each brings it back after it was lost or damaged."""
    if not bench.wants(*(scenario.key for scenario in (*_STAGES, *_WAYS_BACK))):
        return
    with bench.folder("homes") as homes:
        places = _settle_in(bench, app, homes)
        number = 0
        for scenario in _STAGES:
            if scenario is FIRST or bench.wants(scenario.key):
                number += 1
                if scenario is CHANGED:
                    data.change_one_percent(app, _seed(bench))
                _back_up(bench, scenario, places, number)
        _restore_all(bench, places, number)


def run_small(bench: Bench, app: App, tenth: App) -> None:
    """First and second backup of the small files, and the first of a tenth of them."""
    for tree, scenarios in ((app, (SMALL, SMALL_UNCHANGED)), (tenth, (SMALL_TENTH,))):
        wanted = [scenario for scenario in scenarios if bench.wants(scenario.key)]
        if wanted:
            with bench.folder("homes") as homes:
                places = _settle_in(bench, tree, homes)
                for number, scenario in enumerate(scenarios, 1):
                    _back_up(bench, scenario, places, number)


def run_memory(bench: Bench) -> None:
    """First backup, second backup and full restore of the big tree, by us alone."""
    if not bench.wants(MEMORY.key):
        return
    ours = Ours()
    with bench.folder("big") as folder:
        app = data.build(folder / "app", memory_sizes(bench.options.memory_files), bench.options.seed)
        expected = contents.of(app)
        place = Place(app, folder / "home")
        prepare(ours.prepare(place), bench.scratch)
        bench.measure(MEMORY.key, f"{OURS}: first backup", ours.backup(place, 1))
        bench.measure(MEMORY.key, f"{OURS}: second backup", ours.backup(place, 2))
        data.lose(app)
        bench.measure(MEMORY.key, f"{OURS}: restore", ours.restore(place, 2, app.folder))
        contents.compare(f"{OURS}, restore", contents.of(app), expected)


def small_sizes(files: int) -> Sizes:
    return Sizes(1, files, files * _SMALL_BYTES / data.MEGABYTE)


def memory_sizes(files: int) -> Sizes:
    return Sizes(1, files, files * _TINY_BYTES / data.MEGABYTE)


def _settle_in(bench: Bench, app: App, homes: Path) -> dict[Peer, Place]:
    places = {peer: Place(app, homes / str(number)) for number, peer in enumerate(bench.in_turn())}
    for peer, place in places.items():
        prepare(peer.prepare(place), bench.scratch)
    return places


def _back_up(bench: Bench, scenario: Scenario, places: dict[Peer, Place], number: int) -> None:
    expected = contents.of(_app(places))
    for peer in bench.in_turn():
        bench.measure(scenario.key, peer.name, peer.backup(places[peer], number), peer.remark)
        bench.check_backup(peer, places[peer], number, expected)
    bench.record_absent(scenario.key)


def _restore_all(bench: Bench, places: dict[Peer, Place], number: int) -> None:
    app = _app(places)
    expected = contents.of(app)
    for further, scenario in enumerate(_WAYS_BACK):
        for peer in bench.in_turn() if bench.wants(scenario.key) else ():
            _bring_back(bench, scenario, peer, places[peer], number + further)
            contents.compare(f"{peer.name}, {scenario.title.lower()}", contents.of(app), expected)
        bench.record_absent(scenario.key)


def _bring_back(bench: Bench, scenario: Scenario, peer: Peer, place: Place, number: int) -> None:
    if scenario is RESTORE:
        data.lose(place.app)
    else:
        # As in life: its last backup is of the very files that are damaged then, not of those another peer restored,
        # and none of them came in the seconds before it. Some peers see no change within the second of the backup.
        time.sleep(bench.options.settle)
        prepare(peer.backup(place, number), bench.scratch)
        time.sleep(1)
        (data.damage if scenario is DAMAGE else data.damage_uploads)(place.app, _seed(bench))
    bench.measure(scenario.key, peer.name, peer.restore(place, number, place.app.folder))


def _app(places: dict[Peer, Place]) -> App:
    return next(iter(places.values())).app


def _seed(bench: Bench) -> int:
    return bench.options.seed + bench.round
