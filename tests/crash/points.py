"""The lines at the end of a run: how many points were visited, and how many states were torn.

The process that reports needs the hooks: `tests/conftest.py` imports them too, for runs on several processes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import pytest

PROPERTY = "crash points"
CASES = "cases chosen"
TORN = "torn states"
_STAMP = re.compile(r"\d{8}_\d{6}(_\d+)?|pid \d+")
_cases: set[str] = set()
_counted: dict[tuple[str, str], int] = {}  # by test and kind, so that hooks loaded twice count once

Wrong = tuple[str, str]  # where, and what


class Points:
    """The points that a test visited, for the lines at the end of the run."""

    def __init__(self, node: pytest.Item) -> None:
        self.node = node

    def visited(self, what: str, number: int) -> None:
        """Record that `number` points of that kind were visited."""
        self.node.user_properties.append((PROPERTY, f"{what}={number}"))

    def count(self, what: str, each: list[str]) -> None:
        """Record one point per entry of `each`, and how many there are of each entry."""
        self.visited(what, len(each))
        for kind, number in sorted(Counter(each).items()):
            self.node.user_properties.append((f"{what}, {kind}", number))

    def judge(self, wrong: Iterable[Wrong]) -> None:
        """Fail the test if anything was wrong, naming each kind of problem once, and where it was seen."""
        said = list(wrong)
        self.node.user_properties.append((PROPERTY, f"{TORN}={sum('TORN' in what for _, what in said)}"))
        kinds: dict[str, list[str]] = {}
        for where, what in said:
            kinds.setdefault(_STAMP.sub("…", what), []).append(where)
        lines = [f"{what}\n      at {len(where)}: {', '.join(where[:12])}" for what, where in kinds.items()]
        if lines:
            pytest.fail(f"{len(said)} wrong:\n" + "\n".join(lines), pytrace=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what the tests counted, in other processes too."""
    for name, value in report.user_properties if report.when == "call" else ():
        if name == PROPERTY:
            what, _, number = str(value).rpartition("=")
            _counted[report.nodeid, what] = int(number)
        if name == CASES:
            _cases.add(str(value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the cases chosen for tests that have many, one line for each kind of point, and the sum."""
    if _cases:
        terminalreporter.section("cases chosen by the commit (--thorough takes all)")
        for told in sorted(_cases):
            terminalreporter.line(told)
        _cases.clear()
    if not _counted:
        return
    kinds: Counter[str] = Counter()
    for (_, what), number in _counted.items():
        kinds[what] += number
    torn = kinds.pop(TORN, 0)
    terminalreporter.section("crash points")
    for what, number in sorted(kinds.items()):
        terminalreporter.line(f"{number:6}  {what}")
    terminalreporter.line(f"crash points visited: {kinds.total()}, torn states: {torn}")
    _counted.clear()
