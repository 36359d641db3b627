"""The results as text that is Markdown too, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import targets
from benchmarks.bench import Bench, Options
from benchmarks.data import MEGABYTE
from benchmarks.measure import own_peak
from benchmarks.peers import HOW_TO_GET, OURS, Peer
from benchmarks.report import Line, Report, Scenario

BEGIN, END = "<!-- last run: written by benchmarks/run --write -->", "<!-- end of last run -->"
NOTHING = "—"
_HEADS = ("", "median", "fastest", "slowest", "ours ÷ this", "peak memory", "remarks")


def as_json(bench: Bench, scenarios: Sequence[Scenario], machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything, every single sample included."""
    return {
        "machine": dict(machine),
        "options": asdict(bench.options),
        "peers": [peer.name for peer in bench.peers],
        "missing": {tool: HOW_TO_GET[tool] for tool in missing_tools(bench.peers)},
        "targets": [_verdict(verdict) for verdict in targets.judge(bench.report)],
        "scenarios": [_scenario(bench.report, scenario) for scenario in scenarios],
    }


def as_text(bench: Bench, scenarios: Sequence[Scenario], machine: Mapping[str, str]) -> str:
    """Targets first, then each scenario that was asked for, then the machine."""
    parts = [
        _asked(bench.options),
        _section("Targets", "", _targets(bench.report)),
        *(_section(one.title, one.about, _lines(bench.report, one)) for one in scenarios),
        _section("Machine", "", _grid(("", ""), machine.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _asked(options: Options) -> str:
    sizes = options.sizes
    return (
        f"Rounds: {options.rounds}. Seed: {options.seed}. A database of {sizes.database_mb:g} MB and {sizes.files:,} "
        f"uploads of {sizes.uploads_mb:g} MB; {options.small_files:,} small files; {options.backups:,} backups "
        f"to list; {options.memory_files:,} files in the big tree."
    )


def put_between(page: str, content: str) -> str:
    """The page with the last run replaced; ValueError where it has no place for one."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{content}\n{END}{after}"


def missing_tools(peers: Sequence[Peer]) -> list[str]:
    return sorted({tool for peer in peers for tool in peer.missing})


def _section(title: str, about: str, grid: str) -> str:
    return "\n\n".join(filter(None, (f"### {title}", about, grid)))


def _targets(report: Report) -> str:
    rows = [
        (
            verdict.target.what,
            verdict.target.against,
            f"≤ {verdict.target.limit:g}{verdict.target.unit}",
            NOTHING if verdict.reached is None else f"{verdict.reached:.2f}{verdict.target.unit}",
            {True: "met", False: "missed", None: NOTHING}[verdict.met],
        )
        for verdict in targets.judge(report)
    ]
    return _grid(("", "against", "target", "reached", ""), rows)


def _lines(report: Report, scenario: Scenario) -> str:
    lines = report.lines(scenario.key)
    ours = report.median(scenario.key, OURS)
    return _grid(_HEADS, (_cells(line, ours) for line in lines))


def _cells(line: Line, ours: float | None) -> tuple[str, ...]:
    times = (line.median, min(line.seconds, default=None), max(line.seconds, default=None))
    ratio = f"{ours / line.median:.2f}" if ours is not None and line.median else NOTHING
    return line.who, *map(_time, times), ratio, _memory(line.peak_bytes), line.remark


def _memory(peak: int) -> str:
    """A process counts what its parent held when it was started: no less than this program's own can be seen."""
    if not peak:
        return NOTHING
    least = "≤ " if peak <= own_peak() else ""
    return f"{least}{peak / MEGABYTE:.0f} MB"


def _time(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{seconds:.3f} s" if seconds < 1 else f"{seconds:.2f} s"


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned for the terminal too."""
    lines = [tuple(heads), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    padded = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rule = "-|-".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (padded[0], *padded[1:])).replace("\n", f"\n|-{rule}-|\n", 1)


def _scenario(report: Report, scenario: Scenario) -> dict[str, Any]:
    ours = report.median(scenario.key, OURS)
    lines = [
        {
            **asdict(line),
            "median": line.median,
            "ours_over_this": ours / line.median if ours is not None and line.median else None,
        }
        for line in report.lines(scenario.key)
    ]
    return {"key": scenario.key, "title": scenario.title, "about": scenario.about, "results": lines}


def _verdict(verdict: targets.Verdict) -> dict[str, Any]:
    target = verdict.target
    return {
        "what": target.what,
        "against": target.against,
        "limit": target.limit,
        "unit": target.unit.strip(),
        "reached": verdict.reached,
        "met": verdict.met,
    }
