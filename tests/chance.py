"""Random choices of the tests: some of many points, by one seed, which comes from the commit and can be repeated.

So each commit visits other points, and `BACKUP_TESTS_SEED` repeats a failure. `--thorough` visits all points, and
`BACKUP_TESTS_SHARE=2` twice as many as a test names.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
THOROUGH = "BACKUP_TESTS_THOROUGH"
SEED = "BACKUP_TESTS_SEED"
SHARE = "BACKUP_TESTS_SHARE"


def is_thorough() -> bool:
    """Return whether every point is wanted."""
    return os.environ.get(THOROUGH) == "1"


def share(most: int) -> int:
    """Return how many of that many tries one run makes: a third, or the share in `SHARE`; all in a thorough run."""
    usual = 1.0 if is_thorough() else 1 / 3
    return math.ceil(most * float(os.environ.get(SHARE, usual)))


@cache
def seed() -> int:
    """Return the seed of this run: the given one, else the commit's, else a random one."""
    if told := os.environ.get(SEED):
        return int(told)
    here = Path(__file__).parent
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True)
    return int(done.stdout, 16) if done.returncode == 0 else random.randrange(1 << 32)


def chance(what: str) -> random.Random:
    """Return a random generator for that purpose, the same in each run with this seed."""
    return random.Random(f"{seed()} {what}")


def some(points: Sequence[T], most: int | None, what: str) -> list[T]:
    """Return about that `share` of the points, in order, the first and the last included; all in a thorough run.

    With `most` None, the share is of all points.
    """
    number = share(len(points) if most is None else most)
    if is_thorough() or len(points) <= number or len(points) < 3:
        return list(points)
    between = chance(what).sample(range(1, len(points) - 1), max(1, number - 2))
    return [points[number] for number in sorted((0, *between, len(points) - 1))]


def cases(all_of_them: Sequence[T], what: str, most: int | None = None) -> list[T]:
    """Return at most that `share` (`most` None: of all) of a test's cases, in order; all in a thorough run.

    The end of the run reports the choice.
    """
    number = share(len(all_of_them) if most is None else most)
    if is_thorough() or number >= len(all_of_them):
        return list(all_of_them)
    _told.append(f"{number} of {len(all_of_them)}: {what}")
    return [all_of_them[one] for one in sorted(chance(what).sample(range(len(all_of_them)), number))]


def told() -> Iterator[str]:
    """Yield what `cases` has chosen since the last call."""
    while _told:
        yield _told.pop()


_told: list[str] = []


def onwards(what: str) -> Iterator[int]:
    """Yield 1, 2, 3 and so on in a thorough run, else about that `share` of the numbers, 1 included."""
    number, longest, choose = 1, max(1, round(600 / share(300)) - 1), chance(what)
    while True:
        yield number
        number += choose.randint(1, longest)


def header() -> str:
    """Return the line about the choice for the head of a run."""
    if is_thorough():
        return f"every fault point is visited; the seed is {seed()}"
    return f"of the fault points some are visited ({SEED}={seed()} repeats the choice; --thorough visits all)"
