"""The benchmark, run as a person does but on very little data, is complete, and its checks find wrong results."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import chance
from benchmarks import contents, data, live, measure, profile, rewind, scenarios, starts, table, texts, trees
from benchmarks.bench import Bench, Options
from benchmarks.data import App, Sizes
from benchmarks.measure import Failed, TooLate, step
from benchmarks.peers import HOW_TO_GET, OURS, PEERS
from benchmarks.report import Report, Sample
from benchmarks.targets import judge
from small_app import BACKEND

ROOT = BACKEND.parent
PAGE = ROOT / "BENCHMARKS.md"
TINY = Sizes(database_mb=0.5, files=60, uploads_mb=0.3)
LITTLE = (
    *("--rounds", "1", "--database-mb", "0.5", "--files", "60", "--uploads-mb", "0.3"),
    *("--small-files", "40", "--memory-files", "40", "--backups", "3", "--points", "3", "--patience", "60"),
    *("--settle", "0"),
)
MEMORY = Path("/dev/shm")
UPLOAD = f"uploads/{data.upload_path(1)}"
ALL_CHAPTERS = (scenarios._WHOLE, scenarios._SMALL, (*scenarios._STARTS, trees.MEMORY), rewind.ALL, (profile.PROFILE,))
CHAPTERS = chance.cases(ALL_CHAPTERS, "chapters of the benchmark", 6)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if there is room, so that hundreds of syncs take no time."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < 500_000_000:
        yield tmp_path
    else:
        with TemporaryDirectory(dir=MEMORY) as folder:
            yield Path(folder)


@pytest.fixture
def benchmark(scratch: Path, tmp_path: Path) -> Callable[..., tuple[int, str, dict[str, Any]]]:
    """A run on little data that returns exit code, output and JSON, and must leave nothing in its scratch folder."""
    scratch, results = scratch / "benchmark", tmp_path / "results.json"
    scratch.mkdir()

    def run(*arguments: str, path: str = os.environ["PATH"]) -> tuple[int, str, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "benchmarks", *LITTLE, "--scratch", scratch, "--json", results, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert list(scratch.iterdir()) == []
        return done.returncode, done.stdout, json.loads(results.read_text()) if results.exists() else {}

    return run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> App:
    """An app with the benchmark's data, which tests must not change."""
    return data.build(tmp_path_factory.mktemp("built") / "app", TINY, seed=4)


@pytest.fixture
def copied(built: App, tmp_path: Path) -> App:
    """A copy of it that tests may change."""
    return App(shutil.copytree(built.folder, tmp_path / "copied"))


@pytest.fixture
def bench(scratch: Path) -> Bench:
    return Bench(Options(TINY, 10, 10, 3, 3, rounds=1, seed=4, patience=30, settle=0, only=("*",)), scratch, PEERS)


def stub(folder: Path, tool: str, script: str) -> str:
    """Return a PATH on which the tool is this script; `$real` is the tool itself, `$last` the last argument."""
    folder.mkdir(exist_ok=True)
    file = folder / tool
    file.write_text(f"#!/bin/sh\nreal={shutil.which(tool)}\nfor last; do :; done\n{script}\n")
    file.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


# Whole runs


@pytest.mark.slow
def test_every_scenario_has_a_result_or_a_reason_for_every_peer(benchmark: Any) -> None:
    chosen = [one.key for chapter in CHAPTERS for one in chapter]
    code, said, results = benchmark("--only", ",".join(chosen))
    assert code == 0, said
    found = {scenario["key"]: scenario["results"] for scenario in results["scenarios"]}
    assert list(found) == [scenario.key for scenario in scenarios.ALL if scenario.key in chosen]
    for key, lines in found.items():
        assert lines, key
        for line in lines:
            assert line["seconds"] or line["remark"], (key, line)
        assert any(line["who"].startswith(OURS) and line["seconds"] for line in lines), key
    names = {peer.name for peer in PEERS}
    of_all = {"first", "unchanged", "changed", "restore", "damaged-uploads", "damage"}
    of_all |= {"small", "small-unchanged", "small-tenth"}
    for key in of_all & {*found}:
        assert {line["who"] for line in found[key]} == names
    installed = {peer.name for peer in PEERS if not peer.missing}
    if "restore" in found:
        assert {line["who"] for line in found["restore"] if line["seconds"]} == installed
    reached = sum(target["reached"] is not None for target in results["targets"])
    assert reached or results["missing"]
    assert len(chosen) < len(scenarios.ALL) or reached == len(results["targets"]) or results["missing"]
    assert all(target["what"] in said for target in results["targets"])


def test_a_peer_that_is_not_installed_has_its_line_and_how_to_get_it(benchmark: Any, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cp", "mv"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    code, said, results = benchmark("--only", "first", path=str(tools))
    assert code == 0, said
    assert set(results["missing"]) == set(HOW_TO_GET) - {"cp"}
    lines = {line["who"]: line for line in results["scenarios"][0]["results"]}
    assert set(lines) == {peer.name for peer in PEERS}
    assert {who for who, line in lines.items() if line["seconds"]} == {OURS, "cp -a", "Python, copytree"}
    assert lines["restic"]["remark"] == "restic is not installed"
    assert f"not installed: {HOW_TO_GET['borg']}" in said


# Checks that find wrong results


@pytest.mark.needs("rsync")
@pytest.mark.parametrize(
    ("when", "script", "found"),
    [
        ("first", f'"$real" "$@" && printf x >>"$last/{UPLOAD}"', "rsync -a, backup is not"),
        ("first", f'"$real" "$@" && rm "$last/{UPLOAD}"', "rsync -a, backup is not"),
        (
            "restore",
            f'"$real" "$@" && if [ -e "$last/models.py" ]; then rm "$last/{UPLOAD}"; fi',
            "full restore is not",
        ),
    ],
    ids=["altered", "missing", "restored-without-a-file"],
)
def test_a_wrong_result_ends_it_and_is_named(
    benchmark: Any, tmp_path: Path, when: str, script: str, found: str
) -> None:
    path = stub(tmp_path / "tools", "rsync", script)
    code, said, results = benchmark("--only", when, "--peers", "rsync -a", path=path)
    assert (code, results) == (1, {})
    assert found in said
    assert "these differ: uploads 2018" in said


@pytest.mark.needs("rsync")
def test_a_command_that_fails_ends_it_with_what_it_said(benchmark: Any, tmp_path: Path) -> None:
    path = stub(tmp_path / "tools", "rsync", "echo nothing works today >&2; exit 23")
    code, said, _ = benchmark("--only", "first", "--peers", "rsync -a", path=path)
    assert code == 1
    assert "rsync -aR --delete" in said
    assert "ended with 23 and said:\nnothing works today" in said


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda app: alter_secretly(app.folder / UPLOAD), "uploads 2018"),
        (lambda app: (app.folder / UPLOAD).unlink(), "uploads 2018"),
        (lambda app: (app.folder / UPLOAD).chmod(0o600), "uploads 2018"),
        (lambda app: os.utime(app.folder / UPLOAD, (0, 0)), "uploads 2018"),
        (lambda app: (app.uploads / "more").mkdir(), "uploads more"),
        (lambda app: shutil.rmtree(app.uploads), "uploads"),
        (lambda app: execute(app, "UPDATE contacts SET name = 'x' WHERE id = 7"), "table contacts"),
        (lambda app: execute(app, "DELETE FROM reminders WHERE id = 7"), "table reminders"),
        (lambda app: execute(app, "DROP INDEX ix_applications_status_applied_on"), "schema"),
    ],
    ids=["bytes", "lost", "mode", "time", "extra", "no uploads", "row", "lost row", "index"],
)
def test_each_kind_of_difference_is_found(built: App, copied: App, change: Callable[[App], Any], differs: str) -> None:
    expected = contents.of(built)
    contents.compare("nobody", contents.of(copied), expected)
    change(copied)
    with pytest.raises(Failed, match=f"these differ: .*{differs}"):
        contents.compare("nobody", contents.of(copied), expected)


def alter_secretly(path: Path) -> None:
    """Write other bytes, and keep size and times."""
    facts = path.stat()
    path.write_bytes(bytes(facts.st_size))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def execute(app: App, statement: str) -> None:
    with closing(sqlite3.connect(app.database)) as live, live:
        live.execute(statement)


def test_a_dump_that_lacks_a_row_is_found(bench: Bench, built: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "ALL", (Forgetful(),))
    with pytest.raises(Failed, match=r"Python, dump .* table contacts"):
        texts.run_round(bench, built)


class Forgetful(texts.Naive):
    def dump(self, app: App, file: Path) -> measure.Step:
        execute(app, "DELETE FROM contacts WHERE id = 1")
        return super().dump(app, file)


def test_errors_of_the_live_writer_during_a_command_of_ours_end_it(bench: Bench, copied: App) -> None:
    drop = f"import sqlite3; sqlite3.connect({str(copied.database)!r}).execute('DROP TABLE reminders')"
    with pytest.raises(Failed, match=r"The writer saw errors .* no such table: reminders"):
        live._stall(bench, live.STALL_BACKUP, OURS, copied, [step(sys.executable, "-c", drop)])


def test_an_unsound_database_is_found(copied: App) -> None:
    contents.require_sound("nobody", copied.database)
    execute(copied, "DELETE FROM applications")
    with pytest.raises(Failed, match="0 applications"):
        contents.require_sound("nobody", copied.database)


def test_a_list_that_leaves_backups_out_is_found(bench: Bench, tmp_path: Path) -> None:
    place = starts.many_backups(bench, tmp_path / "listed")
    shutil.rmtree(place.home / "clone-1")
    with pytest.raises(Failed, match="shows 2 of 3 backups"):
        starts._check(bench, place)


@pytest.mark.needs("sha256sum")
def test_the_backups_to_be_listed_are_sound(bench: Bench, tmp_path: Path) -> None:
    place = starts.many_backups(bench, tmp_path / "listed")
    for folder in place.home.glob("clone-*"):
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


# The data


def test_the_same_seed_gives_the_same_data_and_another_seed_does_not(built: App, tmp_path: Path) -> None:
    again, other = (data.build(tmp_path / str(seed), TINY, seed) for seed in (4, 5))
    order_of_constraints = {"schema": ""}  # Alembic's order differs from run to run
    assert contents.of(again) | order_of_constraints == contents.of(built) | order_of_constraints
    assert contents.of(other)["uploads 2018"] != contents.of(built)["uploads 2018"]
    assert contents.of(other)["table applications"] != contents.of(built)["table applications"]


def test_the_data_have_the_sizes_asked_for(built: App) -> None:
    files = [path for path in built.uploads.rglob("*") if path.is_file()]
    assert len(files) == TINY.files
    assert sum(path.stat().st_size for path in files) == pytest.approx(TINY.uploads_mb * 1e6, rel=0.01)
    assert built.database.stat().st_size >= TINY.database_mb * 1e6
    assert [path.name for path in built.database.parent.iterdir()] == ["pats.db"]


def test_one_percent_is_one_percent(copied: App) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.uploads.rglob("*") if path.is_file()}
    rows = notes(copied)
    data.change_one_percent(copied, seed=5)
    after = {path: path.stat().st_mtime_ns for path in copied.uploads.rglob("*") if path.is_file()}
    assert len(after) == len(before)
    assert len(set(after.items()) - set(before.items())) == 1
    assert len(set(notes(copied)) - set(rows)) == len(rows) // 100


def notes(app: App) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(app.database)) as live:
        return live.execute("SELECT id, notes FROM applications").fetchall()


def test_damage_loses_some_files_and_scribbles_on_others(copied: App) -> None:
    before = contents.of(copied)
    data.damage(copied, seed=5)
    kept = [path for path in copied.uploads.rglob("*") if path.is_file()]
    assert len(kept) == TINY.files - 2
    assert sum(path.read_bytes() == b"scribbled over" for path in kept) == 2
    assert contents.of(copied)["table applications"] != before["table applications"]


# Measuring and reporting


def test_what_takes_too_long_is_given_up(bench: Bench, copied: App) -> None:
    with pytest.raises(TooLate):
        measure.run([step("sleep", "60")], bench.scratch, limit=0.1)
    bench.options = replace(bench.options, patience=1)
    live._stall(bench, live.STALL_BACKUP, "a slow one", copied, [step("sleep", "60")])
    (line,) = bench.report.lines("stall-backup")
    assert (line.median, line.remark) == (None, "did not end within 1 s")


def test_no_variable_of_the_callers_reaches_a_measured_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKUP_DATABASE", "BORG_REPO", "RESTIC_REPOSITORY", "PYTHONPATH"):
        monkeypatch.setenv(name, "another")
    assert "another" not in measure.environment({}).values()


def test_the_memory_of_a_process_is_seen(bench: Bench) -> None:
    hungry = step(sys.executable, "-c", "len(b'x' * 300_000_000)")
    assert measure.run([hungry], bench.scratch).peak_bytes > 300_000_000


def test_each_round_begins_with_another_peer(bench: Bench) -> None:
    there = {peer.name for peer in PEERS if not peer.missing}
    firsts = set()
    for bench.round in range(1, len(there) + 1):
        firsts.add(bench.in_turn()[0].name)
        assert {peer.name for peer in bench.in_turn()} == there
    assert firsts == there


def test_a_target_is_judged_by_medians_against_the_fastest_peer() -> None:
    report = Report()
    for who, times in ((OURS, (9.0, 1.0, 1.8)), ("borg", (2.0, 2.4, 2.0)), ("restic", (4.0, 4.0, 4.0))):
        report.samples += [Sample("unchanged", who, seconds) for seconds in times]
    verdicts = {verdict.target.what: verdict for verdict in judge(report)}
    assert verdicts["Nothing changed"].reached == pytest.approx(0.9)
    assert verdicts["Nothing changed"].met is False
    assert verdicts["First backup"].met is None


@pytest.mark.parametrize("arguments", [["--only", "frist"], ["--peers", "rsink"], ["--json", "no/where"]])
def test_a_slip_in_an_option_is_refused_before_anything_is_measured(benchmark: Any, arguments: list[str]) -> None:
    code, said, results = benchmark(*arguments)
    assert (code, results) == (2, {})
    assert "there is no" in said


def test_too_little_room_is_said_before_anything_is_built(benchmark: Any) -> None:
    code, said, _ = benchmark("--only", "first", "--uploads-mb", "1e12")
    assert code == 1
    assert "GB are needed" in said
    assert "Building" not in said


def test_the_last_run_in_the_page_is_replaced_and_nothing_else() -> None:
    page = PAGE.read_text()
    once = table.put_between(page, "the new table\n")
    assert "the new table" in once
    assert table.put_between(once, page.split(table.BEGIN)[1].split(table.END)[0].strip("\n") + "\n") == page
    with pytest.raises(ValueError, match="has no lines"):
        table.put_between("a page without a place", "")


def test_the_page_names_every_scenario_and_every_target() -> None:
    page = PAGE.read_text()
    for scenario in scenarios.ALL:
        assert scenario.title in page
    for verdict in judge(Report()):
        assert verdict.target.what in page
    assert trees.FIRST.about in page
