"""A sealed database is restored from its place: no copy is staged, and a resumed restore verifies it again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.fs import descriptors, staging_area
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.model.errors import Damaged
from backupkit.repository import store
from backupkit.restore import journal, staging
from backupkit.restore.restore import plan_restore, restore_backup
from killed import AFTER_THE_COMMIT, AMONG_THE_UPLOADS, BEFORE_THE_DATABASE, kill
from refusals import run_here
from small_app import HEAD, INITIAL, Contents, SmallApp

RESTORE = ("restore", "good", "--force")


@pytest.fixture(params=["wal", "delete"])
def ruined(app: SmallApp, request: pytest.FixtureRequest) -> tuple[SmallApp, Contents]:
    """An app that differs from its backup `good`, and the contents of that backup."""
    app.execute(f"PRAGMA journal_mode={request.param}")
    create_backup(app.settings, BackupRequest("good"))
    good = app.contents()
    app.add_rows(2)
    app.write_upload("1/letter.txt", b"altered")
    app.write_upload("new/file", b"new")
    shutil.rmtree(app.uploads / "2")
    return app, good


def staged(app: SmallApp) -> list[str]:
    return sorted(path.name for path in (app.database.parent / STAGING / "database").iterdir())


def assert_finished(app: SmallApp) -> None:
    assert not journal.exists(app.backups)
    assert not list(app.folder.rglob(STAGING)) and not list(app.backups.glob(".draft-*"))


def test_nothing_is_staged_of_a_database_that_needs_no_change(ruined: tuple[SmallApp, Contents]) -> None:
    app, good = ruined
    plan = plan_restore(app.settings, "good")
    assert plan.source.facts
    needed = plan.needs[str(app.database.parent)]
    assert needed == max(plan.source.facts.size, plan.live.size)
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    assert staged(app) == []
    found = journal.read(app.backups)
    assert found and found.sealed == "good" and found.facts and found.facts.sha256 == plan.source.facts.sha256
    run_here(app, "recover", check=0)
    assert app.contents() == good
    assert_finished(app)


def test_a_migration_another_page_size_and_a_backup_from_elsewhere_are_staged(app: SmallApp, tmp_path: Path) -> None:
    app.at_revision(INITIAL)
    create_backup(app.settings, BackupRequest("good"))
    run_here(app, "export", "good", str(tmp_path / "good.tar"), check=0)
    run_here(app, "import", str(tmp_path / "good.tar"), "--name", "imported", check=0)
    app.at_revision(HEAD)
    for command in ((*RESTORE, "--migrate"), ("restore", "imported", "--force")):
        kill(app, BEFORE_THE_DATABASE, *command)
        assert staged(app) == ["pats.db"]
        run_here(app, "recover", check=0)
    for path in app.database.parent.glob("pats.db*"):
        path.unlink()
    with closing(sqlite3.connect(app.database)) as live:
        live.execute("PRAGMA page_size=8192")
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE other (id INTEGER)")
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    assert staged(app) == ["pats.db"]
    run_here(app, "recover", check=0)
    with closing(app.connect()) as live:
        assert live.execute("PRAGMA page_size").fetchone() == (8192,)
    assert_finished(app)


def test_a_backup_that_changed_since_it_was_verified_is_not_restored(ruined: tuple[SmallApp, Contents]) -> None:
    app, _ = ruined
    plan, before = plan_restore(app.settings, "good"), app.contents()
    flip(app.backups / "good" / "pats.db")
    with pytest.raises(Damaged, match="changed since it was verified"):
        restore_backup(app.settings, plan)
    assert app.contents() == before
    assert_finished(app)


def flip(path: Path) -> None:
    """Flip every bit of the byte at offset 5000."""
    with open(path, "r+b") as file:
        file.seek(5000)
        byte = file.read(1)[0]
        file.seek(5000)
        file.write(bytes([byte ^ 0xFF]))


@pytest.mark.parametrize("point", [BEFORE_THE_DATABASE, AFTER_THE_COMMIT], ids=["before", "after the commit"])
@pytest.mark.parametrize("what", ["flipped", "gone", "another"])
def test_without_the_backup_a_resumed_restore_goes_back_and_says_why(
    ruined: tuple[SmallApp, Contents], what: str, point: tuple[str, str, str]
) -> None:
    app, _ = ruined
    before = app.contents()
    kill(app, point, *RESTORE)
    if what == "flipped":
        flip(app.backups / "good" / "pats.db")
    else:
        shutil.rmtree(app.backups / "good")
    if what == "another":
        newest = next(app.backups.glob("pre_restore*"))
        shutil.copytree(newest, app.backups / "good", symlinks=True)
    result = run_here(app, "recover", check=10 if what == "gone" else 12)
    assert "The restore of good, interrupted on" in result.err and "cannot be finished" in result.err
    assert "Everything is as it was before the restore." in result.err
    assert "Traceback" not in result.err
    assert app.contents() == before
    assert_finished(app)
    run_here(app, "backup", "next", check=0)


def test_once_the_database_is_done_the_backup_is_not_needed_for_it(ruined: tuple[SmallApp, Contents]) -> None:
    app, good = ruined
    kill(app, AMONG_THE_UPLOADS, *RESTORE)
    flip(app.backups / "good" / "pats.db")
    run_here(app, "recover", check=0)
    assert app.contents() == good


def test_a_way_back_whose_safety_copy_is_lost_says_what_to_do(ruined: tuple[SmallApp, Contents]) -> None:
    app, _ = ruined
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    found = json.loads((app.backups / journal.JOURNAL_FILE).read_text())
    lost = app.backups / found["safety"]
    (app.backups / journal.JOURNAL_FILE).write_text(
        json.dumps({**found, "source": lost.name, "safety": None, "sealed": lost.name, "uploads": False})
    )
    shutil.rmtree(lost)
    result = run_here(app, "recover", check=12)
    assert str(lost) in result.err and journal.JOURNAL_FILE in result.err and "Traceback" not in result.err


def test_a_backup_that_an_unfinished_restore_needs_is_not_deleted_before_it_is_finished(
    ruined: tuple[SmallApp, Contents],
) -> None:
    app, good = ruined
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    result = run_here(app, "delete", "good", "--yes", check=0)
    assert "Finishing the restore of good" in result.err
    assert app.contents() == good
    assert not (app.backups / "good").exists()


@pytest.mark.parametrize("what", ["broken", "gone", "paged"])
def test_a_live_database_that_takes_no_pages_any_more_gets_a_copy(ruined: tuple[SmallApp, Contents], what: str) -> None:
    app, good = ruined
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    for path in app.database.parent.glob("pats.db*"):
        path.unlink()
    if what == "broken":
        app.database.write_bytes(b"noise " * 1000)
    elif what == "paged":
        with closing(sqlite3.connect(app.database)) as live:
            live.execute("PRAGMA page_size=1024")
            live.execute("PRAGMA journal_mode=WAL")
            live.execute("CREATE TABLE other (id INTEGER)")
    # Half a copy, as left by a run that was killed while it copied.
    (app.database.parent / STAGING / "database" / "pats.db").write_bytes(b"half")
    run_here(app, "recover", check=0 if what == "gone" else 3)
    assert app.contents() == good
    assert_finished(app)


def test_a_restore_that_an_earlier_version_began_is_finished(ruined: tuple[SmallApp, Contents]) -> None:
    app, good = ruined
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    path = app.backups / journal.JOURNAL_FILE
    found = json.loads(path.read_text())
    found.pop("sealed")
    path.write_text(json.dumps(found))
    shutil.copyfile(app.backups / "good" / "pats.db", staging.staged_database(app.settings))
    shutil.rmtree(app.backups / "good")  # the earlier version staged a copy, and restored that
    run_here(app, "recover", check=0)
    assert app.contents() == good
    assert_finished(app)


def test_going_back_stages_nothing_of_the_database_either(
    ruined: tuple[SmallApp, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _ = ruined
    before, seen = app.contents(), list[bool]()
    real, rename = staging.stage, descriptors.rename_to_free

    def staging_(*given: object, **named: object) -> staging.Source:
        done = real(*given, **named)  # type: ignore[arg-type]
        seen.append((app.database.parent / STAGING / "database" / "pats.db").exists())
        return done

    def fail(*_given: object) -> bool:
        monkeypatch.setattr(descriptors, "rename_to_free", rename)
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr(staging, "stage", staging_)
    monkeypatch.setattr(descriptors, "rename_to_free", fail)
    with pytest.raises(PermissionError):
        restore_backup(app.settings, plan_restore(app.settings, "good"))
    assert seen == [False, False]
    assert app.contents() == before
    assert store.all_backups(app.settings) and not staging_area.exists(app.database.parent)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_where_the_live_pages_are_those_of_the_backup_the_database_is_not_written(app: SmallApp, mode: str) -> None:
    app.execute(f"PRAGMA journal_mode={mode}")
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(2)
    run_here(app, *RESTORE, check=0)
    files = {path: path.read_bytes() for path in app.database.parent.glob("pats.db*") if path.suffix != ".db-shm"}
    result = run_here(app, *RESTORE, check=0)
    assert "stays as it is" in result.err and "every page as restored" in result.out
    assert {path: path.read_bytes() for path in files} == files
    app.add_rows(1)
    assert "stays as it is" not in run_here(app, *RESTORE, check=0).err
