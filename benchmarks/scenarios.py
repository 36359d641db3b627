"""What is measured, in which order: all of it once in each round, so that a noisy minute hits everyone alike."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks import data, live, profile, rewind, starts, texts, trees
from benchmarks.bench import Bench, say
from benchmarks.measure import Failed
from benchmarks.report import Scenario

ALL: tuple[Scenario, ...] = (
    *(trees.FIRST, trees.UNCHANGED, trees.CHANGED, trees.RESTORE, trees.DAMAGED_UPLOADS, trees.DAMAGE),
    *(texts.DUMP, texts.LOAD),
    *(trees.SMALL, trees.SMALL_UNCHANGED, trees.SMALL_TENTH),
    *(starts.LIST, starts.HELP),
    *(live.BESIDE, live.STALL_BACKUP, live.STALL_RESTORE),
    *rewind.ALL,
    profile.PROFILE,
    trees.MEMORY,
)
_WHOLE = (*ALL[:7], live.BESIDE, live.STALL_BACKUP, live.STALL_RESTORE)
_SMALL = (trees.SMALL, trees.SMALL_UNCHANGED, trees.SMALL_TENTH)
_STARTS = (starts.LIST, starts.HELP)


def run(bench: Bench) -> None:
    """All rounds; the samples are in `bench.report`. `Failed` where a command fails or a result is wrong."""
    _require_room(bench)
    if _wants(bench, _WHOLE):
        _run_whole(bench)
    if _wants(bench, _SMALL):
        _run_small(bench)
    if _wants(bench, _STARTS):
        _run_starts(bench)
    rewind.run(bench)
    bench.round = 1
    profile.run(bench)
    trees.run_memory(bench)


def _run_whole(bench: Bench) -> None:
    with bench.folder("whole") as folder:
        say("Building the app.")
        app = data.build(folder / "app", bench.options.sizes, bench.options.seed)
        for _ in bench.rounds():
            trees.run_round(bench, app)
            texts.run_round(bench, app)
            live.run_round(bench, app)


def _run_small(bench: Bench) -> None:
    files, seed = bench.options.small_files, bench.options.seed
    with bench.folder("small") as folder:
        say("Building the trees of small files.")
        app = data.build(folder / "app", trees.small_sizes(files), seed)
        tenth = data.build(folder / "tenth", trees.small_sizes(files // 10), seed)
        for _ in bench.rounds():
            trees.run_small(bench, app, tenth)


def _run_starts(bench: Bench) -> None:
    with bench.folder("listed") as folder:
        say("Making the backups to be listed.")
        place = starts.many_backups(bench, folder)
        for _ in bench.rounds():
            starts.run_round(bench, place)


def _wants(bench: Bench, scenarios: tuple[Scenario, ...]) -> bool:
    return bench.wants(*(scenario.key for scenario in scenarios))


def _require_room(bench: Bench) -> None:
    """`Failed` before anything is built, where the scratch folder's file system has too little room."""
    needed = max(_needed(bench))
    facts = os.statvfs(bench.scratch)
    free = facts.f_bavail * facts.f_frsize
    if free < needed:
        raise Failed(
            f"{bench.scratch} has {free / 1e9:.1f} GB free, and about {needed / 1e9:.1f} GB are needed. "
            "Choose another folder with --scratch, smaller sizes, fewer --peers or --only some scenarios."
        )


def _needed(bench: Bench) -> Iterator[int]:
    """Bytes, for each part of the run: some peers copy all again in each of their backups."""
    options, copies = bench.options, 3 * len(bench.peers) + 2
    yield options.sizes.bytes * 4 if _wants(bench, (*rewind.ALL, profile.PROFILE)) else 0
    yield options.sizes.bytes * copies if _wants(bench, _WHOLE) else 0
    yield trees.small_sizes(options.small_files).bytes * copies if _wants(bench, _SMALL) else 0
    yield trees.memory_sizes(options.memory_files).bytes * 3 if _wants(bench, (trees.MEMORY,)) else 0
