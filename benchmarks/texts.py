"""SQL text: out of the database, and a database out of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import contents, data, measure
from benchmarks.bench import Bench
from benchmarks.data import App
from benchmarks.measure import Step, step
from benchmarks.peers import NAIVE, OURS, Ours, Place
from benchmarks.report import Sample, Scenario

DUMP = Scenario("dump", "Dump", "The database as SQL text, uncompressed.")
LOAD = Scenario(
    "restore-dump",
    "Restore a dump",
    "The database is gone; the same text, our dump, for all. Ours takes it for a stranger's, and proves the result.",
)


class Ourselves:
    name = OURS
    missing: Sequence[str] = ()

    def dump(self, app: App, file: Path) -> Step:
        return Ours().command(_place(app), "dump", file)

    def load(self, app: App, file: Path) -> Step:
        return Ours().command(_place(app), "restore-dump", file, "--force")


class Shell:
    name = "sqlite3"

    @property
    def missing(self) -> Sequence[str]:
        return () if shutil.which("sqlite3") else ("sqlite3",)

    def dump(self, app: App, file: Path) -> Step:
        return Step(("sqlite3", str(app.database), ".dump"), writes=file)

    def load(self, app: App, file: Path) -> Step:
        return Step(("sqlite3", str(app.database)), reads=file)


class Naive:
    name = "Python"
    missing: Sequence[str] = ()

    def dump(self, app: App, file: Path) -> Step:
        return step(sys.executable, NAIVE, "dump", app.database, file)

    def load(self, app: App, file: Path) -> Step:
        return step(sys.executable, NAIVE, "load", file, app.database)


ALL = (Ourselves(), Shell(), Naive())


def run_round(bench: Bench, whole: App) -> None:
    """Dumps of one database, then databases from one dump; `whole` is not changed."""
    if not bench.wants(DUMP.key, LOAD.key):
        return
    with bench.folder("texts") as folder:
        app = _without_uploads(whole, folder / "app")
        expected = contents.rows_of(contents.of(app))
        for one in _in_turn(bench):
            file = folder / f"{ALL.index(one)}.sql"
            bench.measure(DUMP.key, one.name, [one.dump(app, file)])
            _check_text(bench, one.name, file, expected)
        for one in _in_turn(bench) if bench.wants(LOAD.key) else ():
            data.lose_database(app)
            bench.measure(LOAD.key, one.name, [one.load(app, folder / "0.sql")])
            contents.compare(f"{one.name}, {LOAD.key}", contents.rows_of(contents.of(app)), expected)
    for one in (one for one in ALL if one.missing):
        for scenario in (DUMP, LOAD):
            bench.record(Sample(scenario.key, one.name, None, remark=f"{one.name} is not installed"))


def _in_turn(bench: Bench) -> list[Ourselves | Shell | Naive]:
    there = [one for one in ALL if not one.missing]
    first = (bench.round - 1) % len(there)
    return [*there[first:], *there[:first]]


def _without_uploads(whole: App, folder: Path) -> App:
    shutil.copytree(whole.folder, folder, ignore=lambda _path, names: {"uploads"} & set(names))
    app = App(folder)
    app.uploads.mkdir()
    return app


def _check_text(bench: Bench, who: str, file: Path, expected: contents.Prints) -> None:
    """The text makes the same database again, as the sqlite3 shell reads it, or else Python."""
    with bench.folder("loaded") as folder:
        loaded = App(folder)
        loaded.database.parent.mkdir()
        reader = Naive() if Shell().missing else Shell()
        measure.prepare([reader.load(loaded, file)], bench.scratch)
        contents.compare(f"{who}, dump", contents.of_database(loaded.database), expected)


def _place(app: App) -> Place:
    return Place(app, app.folder / "backups")
