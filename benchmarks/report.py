"""What was measured: samples by scenario and by who; nothing is judged here."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.peers import OURS


@dataclass(frozen=True)
class Scenario:
    """Something that is measured; `about` says exactly what, for who reads the table."""

    key: str
    title: str
    about: str


@dataclass(frozen=True)
class Sample:
    """One measurement: seconds, and the most memory a process had; without seconds, why there is none."""

    scenario: str
    who: str
    seconds: float | None
    peak_bytes: int = 0
    remark: str = ""


@dataclass(frozen=True)
class Line:
    """All samples of one in one scenario."""

    who: str
    seconds: tuple[float, ...]
    peak_bytes: int
    remark: str

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


@dataclass
class Report:
    """The samples so far."""

    samples: list[Sample] = field(default_factory=list)

    def lines(self, scenario: str) -> list[Line]:
        """In the order in which they came first, ours at the top."""
        chosen = [sample for sample in self.samples if sample.scenario == scenario]
        names = sorted(dict.fromkeys(sample.who for sample in chosen), key=lambda who: who != OURS)
        return [_line(who, [sample for sample in chosen if sample.who == who]) for who in names]

    def median(self, scenario: str, who: str) -> float | None:
        """None where it was not measured."""
        return next((line.median for line in self.lines(scenario) if line.who == who), None)

    def fastest(self, scenario: str, names: Iterable[str]) -> float | None:
        """The least median of these."""
        found = [median for who in names if (median := self.median(scenario, who)) is not None]
        return min(found, default=None)

    def peak(self) -> int | None:
        """The most memory that any command of ours had, in bytes."""
        return max((sample.peak_bytes for sample in self.samples if sample.who.startswith(OURS)), default=None)


def _line(who: str, samples: list[Sample]) -> Line:
    seconds = tuple(sample.seconds for sample in samples if sample.seconds is not None)
    remark = next((sample.remark for sample in samples if sample.remark), "")
    return Line(who, seconds, max(sample.peak_bytes for sample in samples), remark)
