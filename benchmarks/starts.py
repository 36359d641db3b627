"""How long a person waits for a command that does next to nothing: the whole process, the interpreter's start in it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks import data, measure
from benchmarks.bench import Bench
from benchmarks.data import Sizes
from benchmarks.measure import Failed, step
from benchmarks.peers import OURS, Ours, Place
from benchmarks.report import Scenario

LIST = Scenario("list", "List", "`list` with many backups that share their unchanged files.")
HELP = Scenario("help", "Help", "`--help`.")

FLOOR = "python -c pass"
_TIMES = 5  # in each round: these are short, and the shortest are the noisiest
_METADATA, _CHECKSUMS = "backup_metadata.json", "SHA256SUMS"


def run_round(bench: Bench, place: Place) -> None:
    """Ours, and the bare interpreter for comparison."""
    for scenario, arguments in ((LIST, ["list"]), (HELP, ["--help"])):
        for _ in range(_TIMES if bench.wants(scenario.key) else 0):
            bench.measure(scenario.key, OURS, [Ours().command(place, *arguments)], durable=False)
            bench.measure(scenario.key, FLOOR, [step(sys.executable, "-c", "pass")], durable=False)


def many_backups(bench: Bench, folder: Path) -> Place:
    """A small app with that many backups, one an hour, unchanged files linked; listed once, as a check."""
    app = data.build(folder / "app", Sizes(0.5, 20, 0.1), bench.options.seed)
    place = Place(app, folder / "home")
    measure.prepare([*Ours().prepare(place), *Ours().backup(place, 1)], bench.scratch)
    (first,) = (path for path in place.home.iterdir() if not path.name.startswith("."))
    for number in range(1, bench.options.backups):
        _clone(first, place.home / f"clone-{number}", number)
    _check(bench, place)
    return place


def _clone(first: Path, target: Path, number: int) -> None:
    """A sound backup, made `number` hours before the first: other metadata, other checksums, the same files."""
    for folder, _, names in os.walk(first):
        there = target / Path(folder).relative_to(first)
        there.mkdir()
        for name in names:
            if Path(folder, name) not in (first / _METADATA, first / _CHECKSUMS):
                os.link(Path(folder, name), there / name)
    _seal(first, target, number)


def _seal(first: Path, target: Path, number: int) -> None:
    metadata = json.loads((first / _METADATA).read_text())
    moment = datetime.fromisoformat(metadata["created_at"]) - timedelta(hours=number)
    metadata |= {"backup_name": target.name, "created_at": moment.isoformat()}
    metadata |= {"timestamp": moment.strftime("%Y%m%d_%H%M%S")}
    text = json.dumps(metadata, indent=2) + "\n"
    (target / _METADATA).write_text(text)
    old = hashlib.sha256((first / _METADATA).read_bytes()).hexdigest()
    new = hashlib.sha256(text.encode()).hexdigest()
    (target / _CHECKSUMS).write_text((first / _CHECKSUMS).read_text().replace(old, new))


def _check(bench: Bench, place: Place) -> None:
    listing = bench.scratch / "listing"
    measure.prepare([replace(Ours().command(place, "list", "--json"), writes=listing)], bench.scratch)
    states = [backup["state"] for backup in json.loads(listing.read_text())]
    if len(states) != bench.options.backups or "damaged" in states:
        raise Failed(
            f"`list` shows {len(states)} of {bench.options.backups} backups, {states.count('damaged')} damaged."
        )
