"""The program: options in, table out. Progress goes to stderr, the table to stdout."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import machine, scenarios, table
from benchmarks.bench import Bench, Options, say
from benchmarks.data import Sizes
from benchmarks.measure import Failed
from benchmarks.peers import HOW_TO_GET, OURS, PEERS, Peer

FULL = {
    "rounds": 5,
    "database_mb": 512.0,
    "files": 20_000,
    "uploads_mb": 1000.0,
    "small_files": 100_000,
    "memory_files": 1_000_000,
    "backups": 1000,
    "points": 1440,
    "patience": 120.0,
    "settle": 3.0,
}
QUICK = {
    "rounds": 1,
    "database_mb": 16.0,
    "files": 500,
    "uploads_mb": 16.0,
    "small_files": 1000,
    "memory_files": 2000,
    "backups": 50,
    "points": 20,
    "patience": 20.0,
    "settle": 0.0,
}
HELP = {
    "rounds": "how often each thing is measured",
    "database_mb": "the database's size in megabytes",
    "files": "number of uploads",
    "uploads_mb": "their size together, in megabytes",
    "small_files": "files of the tree of many small files",
    "memory_files": "files of the big tree that our memory is measured on",
    "backups": "backups that `list` is measured with",
    "points": "points of rewind, a day's",
    "patience": "seconds after which a backup under a live writer is given up",
    "settle": "seconds between what another peer restored and the backup before small damage",
}


def main() -> None:
    """Exit code 0 where everything was measured and every result was right, whether targets are met or not."""
    chosen = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _run(chosen)
    except Failed as failure:
        sys.exit(f"benchmarks/run: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(chosen: argparse.Namespace) -> None:
    for tool in table.missing_tools(chosen.peers):
        say(f"{tool} is not installed: {HOW_TO_GET[tool]}")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=chosen.scratch) as scratch:
        bench = Bench(_options(chosen), Path(os.path.realpath(scratch)), chosen.peers)
        facts = machine.facts(bench.scratch)
        scenarios.run(bench)
    wanted = [scenario for scenario in scenarios.ALL if bench.wants(scenario.key)]
    text = table.as_text(bench, wanted, facts)
    if chosen.json:
        chosen.json.write_text(json.dumps(table.as_json(bench, wanted, facts), indent=2) + "\n")
    if chosen.write:
        chosen.write.write_text(table.put_between(chosen.write.read_text(), text))
    print(text, end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description="This toolkit beside its peers, in one run.")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: a look, no measurement")
    for name, value in FULL.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), metavar="N", help=f"{HELP[name]} ({value:,g})")
    parser.add_argument("--seed", type=int, default=4, metavar="N", help="for other data of the same kind (4)")
    keys = ", ".join(scenario.key for scenario in scenarios.ALL)
    parser.add_argument("--only", type=_patterns, default=("*",), help=f"scenarios, by comma, * allowed: {keys}")
    names = ", ".join(peer.name for peer in PEERS[1:])
    parser.add_argument(
        "--peers", type=_peers, default=PEERS, help=f"for whole apps, by semicolon: {names}; all if left out"
    )
    parser.add_argument("--scratch", type=_folder, help="work in a new folder below this one, removed at the end")
    parser.add_argument("--json", type=_writable, metavar="FILE", help="the results as JSON too, every sample in it")
    parser.add_argument("--write", type=_page, metavar="FILE", help="put the table between the markers of this page")
    return parser


def _options(chosen: argparse.Namespace) -> Options:
    defaults = QUICK if chosen.quick else FULL
    given = {name: getattr(chosen, name) for name in FULL if getattr(chosen, name) is not None}
    values = {**defaults, **given}
    sizes = Sizes(*(values.pop(name) for name in ("database_mb", "files", "uploads_mb")))
    return Options(sizes, **values, seed=chosen.seed, only=chosen.only)


# What the options may be. What is wrong is said before anything is measured.


def _patterns(text: str) -> tuple[str, ...]:
    patterns = tuple(text.split(","))
    keys = [scenario.key for scenario in scenarios.ALL]
    for pattern in patterns:
        if not fnmatch.filter(keys, pattern):
            raise argparse.ArgumentTypeError(f"there is no scenario {pattern!r}")
    return patterns


def _peers(text: str) -> tuple[Peer, ...]:
    names = {name.strip() for name in text.split(";")}
    if unknown := names - {peer.name for peer in PEERS}:
        raise argparse.ArgumentTypeError(f"there is no peer {', '.join(sorted(unknown))}")
    return tuple(peer for peer in PEERS if peer.name in names | {OURS})


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def _writable(text: str) -> Path:
    _folder(str(Path(text).parent))
    return Path(text)


def _page(text: str) -> Path:
    try:
        table.put_between(Path(text).read_text(), "")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written to: {error}") from error
    return Path(text)


if __name__ == "__main__":
    main()
