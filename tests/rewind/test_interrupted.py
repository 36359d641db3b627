"""A restore of a moment that is interrupted goes back as one of a backup does, though the moment is in no backup."""

from __future__ import annotations

import shutil
import signal
from datetime import timedelta

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.clock import utc_now
from backupkit.model.errors import left_by_interrupt
from backupkit.model.events import Event, Notice, Warned
from backupkit.restore import recovery
from backupkit.restore.restore import plan_backup, restore_backup
from backupkit.rewind import moments
from backupkit.rewind.take import Rewinder
from backupkit.upload_files import apply
from killed import AMONG_THE_UPLOADS, Point, interrupt
from small_app import Contents, SmallApp

ON = {"BACKUP_REWIND": "7d"}
TO_THE_MOMENT = ("restore", "--at", "now", "--yes")
AFTER_A_FOLDER = ("backupkit.upload_files.apply", "_try_rename", "after")
FILES = 8


@pytest.fixture
def before(app: SmallApp) -> Contents:
    """What is live, after a point was taken and everything was changed again."""
    then = utc_now() - timedelta(seconds=90)
    app.write_upload("many/kept", b"kept")
    create_backup(app.settings, BackupRequest("base"), clock=lambda: then)
    for number in range(FILES):
        app.write_upload(f"many/{number}", f"then {number}".encode())
        app.write_upload(f"gone/{number}", f"then {number}".encode())
    app.add_rows(2)
    assert Rewinder(app.settings.replaced(rewind="7d"), lambda: then + timedelta(seconds=60)).look() == "taken"
    for number in range(FILES):
        app.write_upload(f"many/{number}", f"now {number}, and more".encode())
    shutil.rmtree(app.uploads / "gone")
    app.write_upload("new/one", b"new")
    app.add_rows(3)
    return app.contents()


def safety_copies(app: SmallApp) -> int:
    return len(list(app.backups.glob("pre_restore_*")))


@pytest.mark.parametrize(
    ("point", "count"), [(AMONG_THE_UPLOADS, 1), (AMONG_THE_UPLOADS, 4), (AMONG_THE_UPLOADS, 9), (AFTER_A_FOLDER, 1)]
)
def test_an_interrupted_one_goes_back_to_what_was_live(
    app: SmallApp, before: Contents, point: Point, count: int
) -> None:
    done = interrupt(app, point, {count: signal.SIGTERM}, *TO_THE_MOMENT, **ON)
    assert done.returncode == 130 and "rolling back" in done.stderr, done.stderr
    assert app.contents() == before
    assert "stays as it is" not in done.stderr and "Everything is as it was before the restore." in done.stderr
    assert safety_copies(app) == 1, "nobody wrote to the database meanwhile"


@pytest.mark.parametrize("count", [6, 8, 10])
def test_one_that_is_killed_on_its_way_back_is_taken_back_by_recover(
    app: SmallApp, before: Contents, count: int
) -> None:
    signals = {5: signal.SIGTERM, count: signal.SIGKILL}
    done = interrupt(app, AMONG_THE_UPLOADS, signals, *TO_THE_MOMENT, **ON)
    assert done.returncode == -signal.SIGKILL, done.stderr
    found = app.command("recover", check=0)
    assert "stays as it is" not in found.err
    assert app.contents() == before
    assert not list(app.backups.glob(".draft-*")), "what the moment was built in goes once the restore is over"


def test_what_does_not_come_back_is_named_and_nothing_else_is_said(
    app: SmallApp, before: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app writes to what the restore has put in place just now: that is in no backup, and stays."""
    put, done = apply._Applying.put, list[str]()

    def interrupted(self: apply._Applying, one: apply.Operation) -> None:
        put(self, one)
        done.append(one.path)
        if len(done) == FILES:
            app.write_upload("many/0", b"written by the app meanwhile")
            raise KeyboardInterrupt

    monkeypatch.setattr(apply._Applying, "put", interrupted)
    heard: list[Event] = []
    settings = app.settings.replaced(rewind="7d")
    chosen, _ = moments.choose_by_words(settings, "now", utc_now())
    assert chosen.moment
    with moments.built(settings, chosen.moment) as built, pytest.raises(KeyboardInterrupt) as interrupt:
        restore_backup(settings, plan_backup(settings, built), heard.append)
    said = [event.text for event in heard if isinstance(event, Notice | Warned)]
    assert (app.uploads / "many" / "0").read_bytes() == b"written by the app meanwhile"
    assert "many/0 came or changed during the restore, and stays as it is." in said
    assert said[-1] == recovery.NOT_ALL_BACK
    assert left_by_interrupt(interrupt.value) == "the warnings say what is not as it was"
