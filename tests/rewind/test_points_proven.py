"""Now and then a point is test-restored, as history and status say; doctor checks that points are taken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import ExitCode
from backupkit.monitoring.doctor import Finding, examine
from backupkit.repository import history, store
from backupkit.retention.prune import plan_prune, prune_backups
from backupkit.rewind.take import Rewinder
from backupkit.scheduling import run, scheduler_lock
from refusals import run_here
from rewind.a_day import Clock, rewinding
from small_app import SmallApp, tree

ON = {"BACKUP_REWIND": "7d"}


@pytest.fixture
def taken(app: SmallApp) -> Iterator[tuple[Settings, Rewinder, Clock]]:
    rewinder, clock = rewinding(app)
    for number in range(3):
        app.add_rows(3)
        app.write_upload(f"f{number}", b"x")
        clock.forward(minutes=1)
        assert rewinder.look() == "taken"
    yield rewinder.settings, rewinder, clock


def test_a_point_is_restored_for_a_test_now_and_then(app: SmallApp, taken: tuple[Settings, Rewinder, Clock]) -> None:
    settings, _, clock = taken
    before = tree(app.uploads)
    (done,) = run.run_steps(run.test_steps(settings, clock, lambda able: able[0]))
    assert done.code == ExitCode.DONE and done.sentence.endswith("So did that of point_20260615_120200.")
    assert [one.backups[0][:6] for one in history.read(settings.dir).operations[:2]] == ["point_", "backup"]
    assert tree(app.uploads) == before and not list(settings.dir.glob(".draft*"))
    found = run_here(app, "status", "--json", env=ON).json
    assert found["rewind_tested"] == "point_20260615_120200"
    assert "test restore of point_20260615_120200 passed" in run_here(app, "status", env=ON).out
    (done,) = run.run_steps(run.test_steps(settings, clock, lambda able: able[-1]))
    assert "point_" not in done.sentence
    assert [one.state for one in store.all_backups(settings)] == ["proven"]


def test_a_point_that_cannot_be_restored_fails_the_test_restore_by_name(
    app: SmallApp, taken: tuple[Settings, Rewinder, Clock]
) -> None:
    settings, _, clock = taken
    for path in settings.dir.glob(".rewind/*/00000001-*"):
        content = bytearray(path.read_bytes())
        content[20] ^= 1
        path.write_bytes(content)
    (done,) = run.run_steps(run.test_steps(settings, clock, lambda able: able[0]))
    assert done.code == ExitCode.DAMAGED and "00000001-" in done.sentence
    (last, *_) = history.read(settings.dir).operations
    assert (last.command, last.backups, last.has_failed) == ("test-restore", ("point_20260615_120200",), True)


def test_doctor_says_whether_points_are_taken_and_what_a_look_costs(
    app: SmallApp, taken: tuple[Settings, Rewinder, Clock]
) -> None:
    settings, rewinder, clock = taken

    def found(words: str) -> Finding:
        (one,) = [one for one in examine(settings, clock=clock) if words in one.text]
        return one

    assert found("no points are taken").level == "warning"
    with scheduler_lock.on(settings.dir, 0):
        assert found("has not looked for points of rewind yet").level == "note"
        scheduler_lock.looked(settings.dir, clock.now)
        assert found("takes points of rewind: it looks every 60 s").level == "fine"
        clock.forward(seconds=170)
        assert found("takes points of rewind").level == "fine"
        clock.now += timedelta(seconds=20)
        assert found("last looked for points of rewind").level == "warning"
        rewinder.interval = 200  # as if the last look had taken ten seconds of processor time
        app.add_rows(1)
        assert rewinder.look() == "taken"
        assert found("A point takes 10.0 s of processor").level == "note"
        assert found("it looks every 200 s").level == "fine"


def test_the_history_has_the_start_of_a_chain_and_what_was_merged_and_no_single_point(
    app: SmallApp, taken: tuple[Settings, Rewinder, Clock]
) -> None:
    settings, rewinder, clock = taken

    def notes() -> list[tuple[str, str]]:
        return [(one.command, one.note) for one in history.read(settings.dir).operations if one.command != "backup"]

    begun = ("rewind-start", "a chain of points begins")
    assert notes() == [begun]
    clock.forward(days=2)
    create_backup(settings, BackupRequest(), clock=clock)
    app.add_rows(1)
    clock.forward(minutes=1)
    assert rewinder.look() == "taken"
    assert notes() == [("rewind-thin", "2 points were merged or removed"), begun, begun]
    clock.forward(days=60)
    prune_backups(settings, plan_prune(settings, clock), clock=clock)
    assert ("prune", "2 points of rewind were merged or removed") in notes()
