"""One run of the benchmark: what it was asked for, where it works, what it has measured so far."""

from __future__ import annotations

import fnmatch
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import contents, measure
from benchmarks.contents import Copy, Prints
from benchmarks.data import Sizes
from benchmarks.peers import Peer, Place, Steps
from benchmarks.report import Report, Sample


@dataclass(frozen=True)
class Options:
    """How much data, how often, how long to wait, and which of the scenarios: patterns of their keys."""

    sizes: Sizes
    small_files: int
    memory_files: int
    backups: int
    points: int
    rounds: int
    seed: int
    patience: float
    settle: float
    only: tuple[str, ...]


@dataclass
class Bench:
    """What every chapter is given. `scratch` is one folder on one file system; all is made in it."""

    options: Options
    scratch: Path
    peers: Sequence[Peer]
    report: Report = field(default_factory=Report)
    round: int = 1

    def rounds(self) -> Iterator[int]:
        """1, 2, 3 …; `round` says which one it is now."""
        for number in range(1, self.options.rounds + 1):
            self.round = number
            yield number

    def wants(self, *keys: str) -> bool:
        """Whether one of these scenarios was asked for."""
        return any(fnmatch.fnmatchcase(key, pattern) for key in keys for pattern in self.options.only)

    def in_turn(self) -> list[Peer]:
        """The peers that are installed, in each round beginning with another one."""
        there = [peer for peer in self.peers if not peer.missing]
        first = (self.round - 1) % len(there)
        return [*there[first:], *there[:first]]

    def record_absent(self, scenario: str) -> None:
        """The others have their line too."""
        for peer in self.peers:
            if peer.missing:
                self.record(Sample(scenario, peer.name, None, remark=f"{', '.join(peer.missing)} is not installed"))

    def measure(self, scenario: str, who: str, steps: Steps, remark: str = "", durable: bool = True) -> None:
        """Runs it; kept as a sample where the scenario was asked for, and told."""
        measured = measure.run(steps, self.scratch, durable=durable)
        self.record(Sample(scenario, who, measured.seconds, measured.peak_bytes, remark))

    def record(self, sample: Sample) -> None:
        if self.wants(sample.scenario):
            self.report.samples.append(sample)
            shown = sample.remark if sample.seconds is None else f"{sample.seconds:.3f} s"
            say(f"round {self.round} of {self.options.rounds}, {sample.scenario}: {sample.who} {shown}")

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A fresh folder in the scratch folder, removed at the end."""
        folder = self.scratch / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def check_backup(self, peer: Peer, place: Place, number: int, expected: Prints) -> None:
        """The nth backup holds what was live; `Failed` otherwise. What cannot be read as it lies is unpacked first."""
        if copy := peer.kept(place, number):
            return contents.compare(f"{peer.name}, backup", contents.of_copy(copy), expected)
        with self.folder("unpacked") as into:
            measure.prepare(peer.restore(place, number, into), self.scratch)
            found = contents.of_copy(Copy(into / "data" / "pats.db", into / "uploads"))
        contents.compare(f"{peer.name}, backup", found, expected)


def say(sentence: str) -> None:
    """To the person who waits."""
    print(sentence, file=sys.stderr, flush=True)
