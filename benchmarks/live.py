"""How long an app that commits all the time waits for one commit, while its data are backed up and restored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks import contents, measure
from benchmarks.bench import Bench
from benchmarks.data import App
from benchmarks.measure import Failed, TooLate, step
from benchmarks.peers import OURS, Cp, Naive, Ours, Peer, Place, Steps, sqlite_backup
from benchmarks.report import Sample, Scenario

STALL_BACKUP = Scenario(
    "stall-backup",
    "Longest stall of a live writer, backup",
    "The longest of the commits that another process made meanwhile, one a millisecond. The final sync is included.",
)
STALL_RESTORE = Scenario(
    "stall-restore", "Longest stall of a live writer, restore", "The same while the backup just made is put back."
)

BESIDE = Scenario(
    "writer",
    "First backup beside a live writer",
    "The whole backup while another process commits a row each millisecond, and the same while nobody writes.",
)

NOTHING = "no backup"
IDLE = "nobody writes"
SHELL = "sqlite3 .backup"
WRITER = Path(__file__).with_name("writer.py")
_IDLE = 3.0  # seconds
_DIED = '{"commits": 0, "longest": 0, "errors": ["the writer died"]}'
_WOULD_HARM = "overwrites the open file: the app has to be stopped"


@dataclass
class Written:
    """What the writer saw; there when the `with` block has ended."""

    commits: int = 0
    errors: tuple[str, ...] = ()
    longest: float = 0.0


def run_round(bench: Bench, app: App) -> None:
    """Backups first, ours and others; then the two that restore under a running app."""
    if bench.wants(BESIDE.key):
        _beside(bench, app, Ours())
        _beside(bench, app, Naive())
        _beside(bench, app, Cp())
    if not bench.wants(STALL_BACKUP.key, STALL_RESTORE.key):
        return
    with bench.folder("homes") as homes:
        ours, naive = Place(app, homes / "ours"), Place(app, homes / "naive")
        measure.prepare(Ours().prepare(ours), bench.scratch)
        for who, steps, remark in (*_backups(ours, naive), *_others(bench, app, homes)):
            _stall(bench, STALL_BACKUP, who, app, steps, remark)
        if bench.wants(STALL_RESTORE.key):
            _stall(bench, STALL_RESTORE, OURS, app, Ours().restore(ours, 1, app.folder))
            _stall(bench, STALL_RESTORE, Naive.name, app, Naive().restore(naive, 1, app.folder))
            for peer in (peer for peer in bench.peers if peer.overwrites):
                bench.record(Sample(STALL_RESTORE.key, peer.name, None, remark=_WOULD_HARM))


def _beside(bench: Bench, app: App, peer: Peer) -> None:
    """A first backup while somebody writes and one while nobody does; in each round the other one first."""
    for is_written in (True, False) if bench.round % 2 else (False, True):
        with bench.folder("beside") as folder, _writer(app) if is_written else nullcontext():
            place = Place(app, folder / "home")
            measure.prepare(peer.prepare(place), bench.scratch)
            who = peer.name if is_written else f"{peer.name}, {IDLE}"
            bench.measure(BESIDE.key, who, peer.backup(place, 1), peer.remark)


def _backups(ours: Place, naive: Place) -> Iterator[tuple[str, Steps, str]]:
    """Those that are restored afterwards."""
    yield OURS, Ours().backup(ours, 1), ""
    yield Naive.name, Naive().backup(naive, 1), ""


def _others(bench: Bench, app: App, homes: Path) -> Iterator[tuple[str, Steps, str]]:
    idle = min(_IDLE, bench.options.patience)
    yield NOTHING, [step(sys.executable, "-c", f"import time; time.sleep({idle})")], f"{idle:g} s of writing"
    yield Cp.name, Cp().backup(Place(app, homes / "cp"), 1), "no consistent copy; shows the disk's share"
    yield SHELL, [sqlite_backup(app, homes / "shell.db")], "database only"


def _stall(bench: Bench, scenario: Scenario, who: str, app: App, steps: Steps, remark: str = "") -> None:
    """One measurement under a writer, to whom ours may cost no error; what takes too long is given up, and said so."""
    if who == SHELL and not shutil.which("sqlite3"):
        return bench.record(Sample(scenario.key, who, None, remark="sqlite3 is not installed"))
    try:
        with _writer(app) as written:
            measured = measure.run(steps, bench.scratch, limit=bench.options.patience)
    except TooLate as late:
        return bench.record(Sample(scenario.key, who, None, remark=str(late)))
    if written.errors and who == OURS:
        raise Failed(f"The writer saw errors during {OURS}, {scenario.key}: {', '.join(written.errors)}.")
    contents.require_sound(f"{who}, {scenario.key}", app.database)
    remark = "; ".join(filter(None, (remark, *written.errors)))
    bench.record(Sample(scenario.key, who, written.longest, measured.peak_bytes, remark))


@contextmanager
def _writer(app: App) -> Iterator[Written]:
    """Another process commits from before the block begins until it ends."""
    written = Written()
    with subprocess.Popen(
        [sys.executable, WRITER, app.database], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin and child.stdout
        if child.stdout.readline() != "writing\n":
            raise Failed("The writer did not begin.")
        try:
            yield written
        finally:
            child.stdin.close()
            told = json.loads(child.stdout.read() or _DIED)
            written.commits, written.longest = told["commits"], told["longest"]
            written.errors = tuple(told["errors"])
