"""What we want to reach, as ratios within one run, and whether it was reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import live, rewind, starts, texts, trees
from benchmarks.data import MEGABYTE
from benchmarks.peers import OURS, Borg, Consistent, Cp, Naive, Restic, RsyncLinkDest
from benchmarks.report import Report, Scenario

# Those that, like us, store only what changed and keep the earlier backups.
INCREMENTAL = tuple(peer.name for kind in (RsyncLinkDest, Restic, Borg) for peer in (kind(), Consistent(kind())))


@dataclass(frozen=True)
class Target:
    """`measure` is what was reached; None where this run did not measure it."""

    what: str
    against: str
    limit: float
    unit: str
    measure: Callable[[Report], float | None]


@dataclass(frozen=True)
class Verdict:
    """A target and how it was met."""

    target: Target
    reached: float | None

    @property
    def met(self) -> bool | None:
        return None if self.reached is None else self.reached <= self.target.limit


def judge(report: Report) -> list[Verdict]:
    """Every target, also those that this run has nothing to say on."""
    return [Verdict(target, target.measure(report)) for target in TARGETS]


def _against(scenario: Scenario, *names: str) -> Callable[[Report], float | None]:
    """Our median over the least median of these."""
    return lambda report: _ratio(report.median(scenario.key, OURS), report.fastest(scenario.key, names))


def _against_ourselves(scenario: Scenario, other: Scenario) -> Callable[[Report], float | None]:
    return lambda report: _ratio(report.median(scenario.key, OURS), report.median(other.key, OURS))


def _beside_a_writer(report: Report) -> float | None:
    beside, alone = (report.median(live.BESIDE.key, who) for who in (OURS, f"{OURS}, {live.IDLE}"))
    return _ratio(beside, alone)


def _seconds(scenario: Scenario) -> Callable[[Report], float | None]:
    return lambda report: report.median(scenario.key, OURS)


def _peak(report: Report) -> float | None:
    peak = report.peak()
    return peak / MEGABYTE if peak else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


_FASTEST = "the fastest of rsync --link-dest, restic, borg"

TARGETS = (
    Target(trees.FIRST.title, "cp -a", 1.25, "", _against(trees.FIRST, Cp.name)),
    Target(trees.FIRST.title, "rsync and Python", 1.0, "", _against(trees.FIRST, RsyncLinkDest.name, Naive.name)),
    Target(trees.UNCHANGED.title, _FASTEST, 0.8, "", _against(trees.UNCHANGED, *INCREMENTAL)),
    Target(trees.CHANGED.title, _FASTEST, 0.8, "", _against(trees.CHANGED, *INCREMENTAL)),
    Target(trees.RESTORE.title, "cp -a", 1.3, "", _against(trees.RESTORE, Cp.name)),
    Target(trees.RESTORE.title, "restic", 0.6, "", _against(trees.RESTORE, Restic.name)),
    Target(
        trees.DAMAGED_UPLOADS.title,
        "our full restore",
        0.25,
        "",
        _against_ourselves(trees.DAMAGED_UPLOADS, trees.RESTORE),
    ),
    Target(trees.DAMAGE.title, "our full restore", 0.5, "", _against_ourselves(trees.DAMAGE, trees.RESTORE)),
    Target(texts.DUMP.title, "sqlite3 .dump", 1.0, "", _against(texts.DUMP, texts.Shell.name)),
    Target(texts.LOAD.title, "sqlite3 < dump", 0.9, "", _against(texts.LOAD, texts.Shell.name)),
    Target(live.BESIDE.title, live.IDLE, 1.3, "", _beside_a_writer),
    Target("Ten times the files", "a tenth of them", 10, "", _against_ourselves(trees.SMALL, trees.SMALL_TENTH)),
    Target(starts.LIST.title, "the clock", 0.3, " s", _seconds(starts.LIST)),
    Target(starts.HELP.title, "the clock", 0.15, " s", _seconds(starts.HELP)),
    Target(rewind.QUIET.title, "the processor", 0.02, " s", _seconds(rewind.QUIET)),
    Target(rewind.POINT.title, "the processor", 1.0, " s", _seconds(rewind.POINT)),
    Target(rewind.BACK.title, "the full backup", 2.0, "", _against(rewind.BACK, rewind.FULL_BACKUP)),
    Target("Peak memory of any command of ours", "any size of data", 200, " MB", _peak),
)
