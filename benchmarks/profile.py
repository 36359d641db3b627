"""Where our commands spend their time, by function and by system call: in the run that measured them."""

from __future__ import annotations

import pstats
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import contents, data
from benchmarks.bench import Bench
from benchmarks.data import App
from benchmarks.measure import Step, prepare
from benchmarks.measure import run as run_steps
from benchmarks.peers import OURS, Ours, Place
from benchmarks.report import Sample, Scenario

PROFILE = Scenario(
    "profile",
    "Where the time of ours goes",
    "Each command once under cProfile (a function's own time, in the main thread) and once under strace (the kernel's "
    "time for a system call, in all threads). Both make it slower: compare the lines with each other only.",
)

_MOST = 8  # functions, and system calls, of each command

Spent = tuple[str, float, int]
"""A function or a system call, its seconds, and how often it was called."""
Way = tuple[Callable[[Step, Path], Step], Callable[[Path], list[Spent]]]
"""How to run a command so that it writes a profile to a file, and how to read that."""


def run(bench: Bench) -> None:
    """Run each command in each way that is there, in a fresh app."""
    if not bench.wants(PROFILE.key):
        return
    ways: list[Way] = [(_by_function, _functions)]
    if shutil.which("strace"):
        ways.append((_by_call, _calls))
    for way in ways:
        with bench.folder("profiled") as folder:
            app = data.build(folder / "app", bench.options.sizes, bench.options.seed)
            for title, command in _commands(bench, app, folder / "home"):
                _profile(bench, title, command, way)


def _commands(bench: Bench, app: App, home: Path) -> Iterator[tuple[str, Step]]:
    """Yield the commands in the order in which they are to be run, each on what the ones before left."""
    ours, place = Ours(), Place(app, home)
    prepare(ours.prepare(place), bench.scratch)
    yield "first backup", ours.backup(place, 1)[0]
    yield "nothing changed", ours.backup(place, 2)[0]
    data.change_one_percent(app, bench.options.seed)
    yield "1 % changed", ours.backup(place, 3)[0]
    expected = contents.of(app)
    data.lose(app)
    yield "full restore", ours.restore(place, 3, app.folder)[0]
    contents.compare(f"{OURS}, profiled restore", contents.of(app), expected)
    time.sleep(bench.options.settle)
    prepare(ours.backup(place, 4), bench.scratch)
    time.sleep(1)
    data.damage(app, bench.options.seed)
    yield "small damage", ours.restore(place, 4, app.folder)[0]
    contents.compare(f"{OURS}, profiled restore after small damage", contents.of(app), expected)


def _profile(bench: Bench, title: str, command: Step, way: Way) -> None:
    file = bench.scratch / "profile"
    run_so, read = way
    run_steps([run_so(command, file)], bench.scratch)
    for name, seconds, calls in read(file)[:_MOST]:
        bench.record(Sample(PROFILE.key, f"{OURS}, {title}: {name}", seconds, remark=f"{calls:,} calls"))
    file.unlink()


def _by_function(command: Step, file: Path) -> Step:
    python, *rest = command.arguments
    return replace(command, arguments=(python, "-m", "cProfile", "-o", str(file), *rest))


def _functions(file: Path) -> list[Spent]:
    found: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
    spent = [(_name(*place), own, calls) for place, (_, calls, own, _, _) in found.items()]
    return sorted(spent, key=lambda one: one[1], reverse=True)


def _name(file: str, _line: int, function: str) -> str:
    """Return `archiver._copy_file`, and `posix.link` for a function of C."""
    if file == "~":
        return re.sub(r"^(built-in method|method|function) | at 0x\w+$", "", function.strip("<>"))
    return f"{Path(file).stem}.{function}"


def _by_call(command: Step, file: Path) -> Step:
    return replace(command, arguments=("strace", "-f", "-c", "-o", str(file), *command.arguments))


def _calls(file: Path) -> list[Spent]:
    """Read lines like `12.50    0.125000           6     20000           link`, with errors before the name, if any."""
    rows = [line.split() for line in file.read_text().splitlines()]
    numbered = [row for row in rows if len(row) >= 5 and row[0].replace(".", "").isdigit() and row[-1] != "total"]
    spent = [(f"{row[-1]}()", float(row[1]), int(row[3])) for row in numbered]
    return sorted(spent, key=lambda one: one[1], reverse=True)
