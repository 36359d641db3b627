"""What a test chooses by chance: of many points some, with one seed, which is the commit's and can be repeated.

So each commit looks at other points, and a failure comes again with `BACKUP_TESTS_SEED`. `--thorough` takes them all,
and `BACKUP_TESTS_SHARE=2` twice as many as a test names.
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
    """Whether every point is wanted."""
    return os.environ.get(THOROUGH) == "1"


def share(most: int) -> int:
    """How many tries are enough in one run of many: a third, or that `SHARE`; all of them in a thorough one."""
    usual = 1.0 if is_thorough() else 1 / 3
    return math.ceil(most * float(os.environ.get(SHARE, usual)))


@cache
def seed() -> int:
    """The seed of this run: as told, or made of the commit; by chance where there is none."""
    if told := os.environ.get(SEED):
        return int(told)
    here = Path(__file__).parent
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True)
    return int(done.stdout, 16) if done.returncode == 0 else random.randrange(1 << 32)


def chance(what: str) -> random.Random:
    """A source of chance for that purpose, the same in each run with this seed."""
    return random.Random(f"{seed()} {what}")


def some(points: Sequence[T], most: int | None, what: str) -> list[T]:
    """At most that `share` of the points, in order, first and last among them; all of them in a thorough run.

    None: that share of all there are.
    """
    number = share(len(points) if most is None else most)
    if is_thorough() or len(points) <= number or len(points) < 3:
        return list(points)
    between = chance(what).sample(range(1, len(points) - 1), max(1, number - 2))
    return [points[number] for number in sorted((0, *between, len(points) - 1))]


def cases(all_of_them: Sequence[T], what: str, most: int | None = None) -> list[T]:
    """Of the cases of one test at most that `share` (None: of all there are), in order; all in a thorough run.

    The end of the run says so.
    """
    number = share(len(all_of_them) if most is None else most)
    if is_thorough() or number >= len(all_of_them):
        return list(all_of_them)
    _told.append(f"{number} of {len(all_of_them)}: {what}")
    return [all_of_them[one] for one in sorted(chance(what).sample(range(len(all_of_them)), number))]


def told() -> Iterator[str]:
    """What `cases` has chosen since this was asked last."""
    while _told:
        yield _told.pop()


_told: list[str] = []


def onwards(what: str) -> Iterator[int]:
    """1, 2, 3 and so on in a thorough run; else that `share` of them, the first among them."""
    number, longest, choose = 1, max(1, round(600 / share(300)) - 1), chance(what)
    while True:
        yield number
        number += choose.randint(1, longest)


def header() -> str:
    """What a run says about it at its beginning."""
    if is_thorough():
        return f"every fault point is visited; the seed is {seed()}"
    return f"of the fault points some are visited ({SEED}={seed()} repeats the choice; --thorough visits all)"
