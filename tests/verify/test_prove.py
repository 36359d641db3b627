"""A test restore runs the real restore, the code's migrations and the user's test, all in a scratch folder."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings
from backupkit.migrations.upgrade import MigrationFailed
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Damaged, ExitCode, NoSpace, Refused, SchemaMismatch
from backupkit.model.events import Event, Step
from backupkit.repository import store
from backupkit.restore.restore import Restored, restore_backup
from backupkit.verify import test_restore
from backupkit.verify.test_restore import NotProven, refuse_live
from backupkit.verify.verify import Verified, verify_backups
from refusals import picture, run_here
from small_app import COMMAND, DOCUMENTS, HEAD, INITIAL, NOON, SmallApp

LATER = NOON + timedelta(days=3)


ASK = """
import os, sqlite3
copied = sqlite3.connect(os.environ['BACKUP_TEST_DATABASE'])
print(*copied.execute('SELECT version_num FROM alembic_version').fetchone())
"""


def make(app: SmallApp, name: str = "one", **order: Any) -> Path:
    return create_backup(app.settings, BackupRequest(name, **order), clock=lambda: NOON).backup.path


def prove(app: SmallApp, name: str = "one", command: str = "", timeout: float = 60, **options: Any) -> Verified:
    settings = app.settings.replaced(test_command=command, test_timeout=timeout)
    (verified,) = verify_backups(
        settings, [store.read(settings, name)], test_restore=True, clock=lambda: LATER, **options
    )
    return verified


@pytest.mark.parametrize(
    ("secret", "command"),
    [
        ("sesame-open-yourself", "echo the password is sesame-open-yourself; exit 3"),
        ('sesame\'s \\ "door"', 'exit 3 # sesame\'s \\ "door"'),
    ],
)
def test_no_secret_is_in_what_is_said_of_a_test_command(app: SmallApp, secret: str, command: str) -> None:
    make(app)
    told = {"BACKUP_TEST_COMMAND": command, "BACKUP_EXPORT_PASSPHRASE": secret}
    failed = app.command("verify", "one", "--test-restore", env=told)
    assert failed.code == 1 and "ended with 3" in failed.err and secret not in failed.err + failed.out
    assert "door" not in failed.err
    for seen in (app.command("show", "one"), app.command("history", "--json"), app.command("list", "--json")):
        assert secret not in seen.out + seen.err
    for path in (app.backups / ".state").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


def drafts(app: SmallApp) -> list[str]:
    return [path.name for path in app.backups.iterdir() if path.name.startswith(".draft")]


def test_a_backup_that_was_restored_is_proven_with_its_date_and_the_time_it_took(app: SmallApp) -> None:
    app.use_and_crash()
    make(app)
    result = app.command("verify", "one", "--test-restore", check=0)
    assert result.out.startswith("one: proven: restored in ")
    found = app.command("show", "one", "--json", check=0).json
    assert found["state"] == "proven" and found["proven_at"] and found["recovery_seconds"] > 0
    assert "proven 20" in app.command("list", check=0).out
    assert ", restored in " in app.command("show", "one", check=0).out
    assert drafts(app) == []


def test_nothing_live_and_nothing_sealed_is_touched(app: SmallApp) -> None:
    make(app)
    app.use_and_crash()
    app.write_upload("later", b"later")
    before = picture(app)
    prove(app)
    after = picture(app)
    assert {path for path in after if path not in before} == set()
    assert (app.backups / ".state/proofs/one").exists()
    assert {path: after[path] for path in before} == before


def test_a_backup_that_is_behind_is_brought_to_this_codes_revision(app: SmallApp, tmp_path: Path) -> None:
    app.at_revision(INITIAL)
    app.write_upload("1/letter.txt", b"older")
    make(app)
    app.at_revision(HEAD)
    live = app.contents()
    verified = prove(app, command=f'"{sys.executable}" -c "{ASK}" > "{tmp_path}/said"')
    assert verified.took and (tmp_path / "said").read_text().strip() == HEAD
    assert app.contents() == live
    assert store.require_metadata(verified.backup).alembic_revision == INITIAL


def test_a_migration_that_fails_on_it_is_told_and_it_is_not_proven(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    make(app)
    prove(app)
    (version,) = (app.folder / "alembic" / "versions").glob(f"*{HEAD}*")
    version.write_text(version.read_text().replace("def upgrade() -> None:", "def upgrade() -> None:\n    1 / 0"))
    assert store.read(app.settings, "one").state == "proven"
    failed = prove(app)
    assert isinstance(failed.failure, MigrationFailed) and "ZeroDivisionError" in failed.failure.message
    assert failed.backup.state == "checked" and failed.backup.proven_at is None
    assert "ZeroDivisionError" in failed.backup.not_proven
    assert "ZeroDivisionError" in run_here(app, "show", "one", check=0).out
    assert drafts(app) == []


def test_a_backup_that_is_changed_while_it_is_tested_is_damaged(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = make(app)

    def restore_and_change(*given: Any) -> Restored:
        done = restore_backup(*given)
        (backup / "uploads" / "came").write_text("after it was made")
        return done

    monkeypatch.setattr(test_restore, "restore_backup", restore_and_change)
    failed = prove(app)
    assert isinstance(failed.failure, Damaged) and "came was added after the backup was made" in failed.failure.message


def test_a_migration_that_moves_uploads_moves_the_restored_ones(app: SmallApp, tmp_path: Path) -> None:
    app.at_revision(DOCUMENTS)
    app.write_upload("1/letter.txt", b"of somebody")
    make(app)
    (version,) = (app.folder / "alembic" / "versions").glob(f"*{HEAD}*")
    move = "import os, pathlib; up = pathlib.Path(os.environ['BACKUP_UPLOADS']); (up / '1').rename(up / 'letters')"
    version.write_text(version.read_text().replace("def upgrade() -> None:", f"def upgrade() -> None:\n    {move}"))
    live, sealed = app.contents(), picture(app)
    verified = prove(app, command=f'ls "$BACKUP_TEST_UPLOADS" > "{tmp_path}/said"')
    assert verified.backup.state == "proven", verified.failure
    assert "letters" in (tmp_path / "said").read_text().split()
    assert app.contents() == live
    assert {path: sealed[path] for path in sealed if "/uploads/" in str(path)} == {
        path: one for path, one in picture(app).items() if path in sealed and "/uploads/" in str(path)
    }


def test_a_backup_that_this_code_does_not_know_is_not_proven_and_not_damaged(app: SmallApp) -> None:
    app.execute("UPDATE alembic_version SET version_num = 'f00'")
    make(app)
    result = app.command("verify", "one", "--test-restore", check=14)
    assert "f00" in result.err and "one: " in result.out
    assert store.read(app.settings, "one").state == "checked"
    assert isinstance(prove(app).failure, SchemaMismatch)


def test_an_app_without_migrations_is_proven_too(app: SmallApp) -> None:
    app.forget_revision()
    shutil.rmtree(app.folder / "alembic")
    (app.folder / "alembic.ini").unlink()
    make(app)
    assert prove(app).took


# The user's own test


def test_the_users_test_is_told_of_the_copy_in_every_usual_way_and_of_nothing_live(
    app: SmallApp, tmp_path: Path
) -> None:
    make(app)
    app.execute("DELETE FROM documents")
    said = tmp_path / "said"
    command = f'env | sort > "{said}"; pwd >> "{said}"; ls "$BACKUP_TEST_UPLOADS" >> "{said}"'
    prove(app, command=command)
    lines = said.read_text().splitlines()
    told = dict(line.split("=", 1) for line in lines if "=" in line)
    for name in ("BACKUP_TEST_DATABASE", "BACKUP_DATABASE", "DATABASE_URL"):
        assert told[name].endswith("/data/pats.db") and str(app.database) not in told[name]
        assert "/.draft-test-restore-" in told[name]
    assert "/.draft-test-restore-" in told["BACKUP_DIR"]
    assert told["BACKUP_UPLOADS"] == told["BACKUP_TEST_UPLOADS"] != str(app.uploads)
    assert {str(app.folder), "1", "2", "empty", "latest"} <= set(lines)


def test_a_test_that_fails_is_told_with_its_last_line(app: SmallApp) -> None:
    make(app)
    result = app.command(
        "verify", "--test-restore", env={"BACKUP_TEST_COMMAND": "echo first; echo 'no such page' >&2; exit 3"}, check=1
    )
    assert "ended with 3 on the restored copy: no such page" in result.err and "Next: " in result.err
    assert store.read(app.settings, "one").state == "checked"
    document = app.command("verify", "--test-restore", "--json", env={"BACKUP_TEST_COMMAND": "false"}, check=1).json
    assert "ended with 1" in document["failure"] and document["proven_at"] is None


def test_a_test_that_hangs_is_ended_with_all_that_it_started(app: SmallApp, tmp_path: Path) -> None:
    make(app)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    failed = prove(app, command=f"(cat {fifo}; touch {tmp_path}/went_on) & sleep 100", timeout=1)
    assert isinstance(failed.failure, NotProven) and "did not end within 1 s" in failed.failure.message
    assert_nobody_reads(fifo)
    assert drafts(app) == []


def assert_nobody_reads(fifo: Path) -> None:
    """Assert that no process reads from the fifo; one that was killed may take a moment to end."""
    deadline = time.monotonic() + 20
    with contextlib.suppress(BrokenPipeError):
        try:
            handle = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
            return
        with open(handle, "wb", buffering=0) as written:
            while written.write(b"x"):
                assert time.monotonic() < deadline, "a process that it started still reads"
                time.sleep(0.01)


def test_a_good_test_after_a_bad_one_makes_it_proven_again(app: SmallApp) -> None:
    make(app)
    assert prove(app, command="exit 1").backup.not_proven
    found = prove(app, command="exit 0").backup
    assert found.state == "proven" and not found.not_proven


# The scratch folder


def test_a_command_that_runs_meanwhile_leaves_the_scratch_folder_alone(app: SmallApp, tmp_path: Path) -> None:
    make(app)
    live = {"DIR": app.backups, "DATABASE": app.database, "UPLOADS": app.uploads, "APP_DIR": app.folder}
    run = " ".join([*(f'BACKUP_{name}="{path}"' for name, path in live.items()), '"$PYTHON"', str(COMMAND)])
    command = f'PYTHON={sys.executable}; {run} list && {run} backup two && test -e "$BACKUP_TEST_DATABASE"'
    verified = prove(app, command=command)
    assert verified.failure is None, verified.failure
    assert store.read(app.settings, "two").state == "checked"


def test_what_a_killed_test_restore_left_is_cleared_by_the_next_command_that_writes(app: SmallApp) -> None:
    make(app)
    result = app.command("verify", "--test-restore", env={"BACKUP_TEST_COMMAND": "kill -9 $PPID"})
    assert result.code == -9
    assert len(drafts(app)) == 1
    run_here(app, "list", check=0)
    assert len(drafts(app)) == 1
    run_here(app, "backup", "two", check=0)
    assert drafts(app) == []
    assert store.read(app.settings, "one").state == "checked"


def test_an_interrupted_test_restore_leaves_nothing(app: SmallApp) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Step) and event.name == "Running the test command":
            raise KeyboardInterrupt

    make(app)
    with pytest.raises(KeyboardInterrupt):
        prove(app, command="true", emit=interrupt)
    assert drafts(app) == []
    assert store.read(app.settings, "one").proven_at is None


def test_a_folder_without_room_tells_nothing_of_the_backup(app: SmallApp) -> None:
    with contextlib.closing(app.connect()) as live, live:
        live.execute("CREATE TABLE big (body)")
        live.execute("INSERT INTO big VALUES (zeroblob(9000000))")
    make(app)
    assert prove(app).took
    with _little_room(app):
        failed = prove(app)
    assert isinstance(failed.failure, NoSpace) and failed.failure.code == ExitCode.NO_SPACE
    assert failed.backup.state == "proven"


@contextlib.contextmanager
def _little_room(app: SmallApp) -> Any:
    """Use a copy of the backups folder on a disk that has little room left."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root and mount: run the tests as root")
    from crash.lab import mount, unmount

    aside = app.folder / "aside"
    aside.mkdir()
    mount("tmpfs", aside, "tmpfs", options="size=20m")
    try:
        shutil.copytree(app.backups, aside / "backups", symlinks=True)
        kept, app.backups = app.backups, aside / "backups"
        yield
    finally:
        app.backups = kept
        unmount(aside)


def inside_uploads(scratch: Settings, settings: Settings) -> dict[str, Path]:
    return {"dir": settings.uploads / "deep" / "x"} if settings.uploads else {}


def around_uploads(scratch: Settings, settings: Settings) -> dict[str, Path]:
    return {"uploads": settings.app_dir}


def the_live_uploads_by_another_name(scratch: Settings, settings: Settings) -> dict[str, Path]:
    (settings.app_dir / "other").symlink_to(settings.app_dir / "uploads")
    return {"uploads": settings.app_dir / "other"}


def beside_the_live_database(scratch: Settings, settings: Settings) -> dict[str, Path]:
    return {"database": settings.database.parent / "scratch" / "pats.db"}


def the_live_databases_own_folder(scratch: Settings, settings: Settings) -> dict[str, Path]:
    return {"database": settings.database}


def in_a_backup(scratch: Settings, settings: Settings) -> dict[str, Path]:
    return {"dir": settings.dir / "one" / "x"}


LIVE: list[Callable[[Settings, Settings], dict[str, Path]]] = [
    inside_uploads,
    around_uploads,
    the_live_uploads_by_another_name,
    beside_the_live_database,
    the_live_databases_own_folder,
    in_a_backup,
]


@pytest.mark.parametrize("place", LIVE, ids=lambda place: place.__name__)
def test_a_scratch_folder_in_live_data_or_in_a_backup_is_refused(
    app: SmallApp, place: Callable[[Settings, Settings], dict[str, Path]]
) -> None:
    make(app)
    folder = app.backups / ".draft-test-restore-x"
    places = {"database": folder / "data" / "pats.db", "uploads": folder / "uploads", "dir": folder / "backups"}
    scratch = app.settings.replaced(**places)
    refuse_live(scratch, app.settings)
    with pytest.raises(Refused, match="in live data or in a backup"):
        refuse_live(scratch.replaced(**place(scratch, app.settings)), app.settings)


def test_a_backups_folder_in_the_databases_own_folder_is_a_place_for_it(app: SmallApp) -> None:
    """If the database is at the top of the app's folder, the backups folder is in the database's folder."""
    shutil.move(app.database, app.folder / "pats.db")
    app.database = app.folder / "pats.db"
    make(app)
    assert prove(app).took


def test_a_backups_folder_that_is_a_backup_is_refused(app: SmallApp) -> None:
    shutil.copytree(make(app), app.backups / "one" / "inner", symlinks=True)
    app.backups = app.backups / "one"
    failed = prove(app, "inner")
    assert isinstance(failed.failure, Refused)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests as root to mount")
def test_the_live_uploads_mounted_a_second_time_are_the_live_uploads(app: SmallApp) -> None:
    from crash.lab import MS_BIND, mount, unmount

    make(app)
    elsewhere = app.folder / "elsewhere"
    elsewhere.mkdir()
    mount(app.uploads, elsewhere, flags=MS_BIND)
    try:
        places = {"database": elsewhere / "x" / "pats.db", "uploads": None, "dir": elsewhere / "y"}
        with pytest.raises(Refused):
            refuse_live(app.settings.replaced(**places), app.settings)
    finally:
        unmount(elsewhere)


def test_all_are_proven_one_after_the_other(app: SmallApp) -> None:
    for name in ("one", "two"):
        make(app, name)
    found = run_here(app, "verify", "--all", "--test-restore", "--json", check=0).json
    assert {one["state"] for one in found} == {"proven"}


def test_a_random_one_is_proven_each_week_until_all_are(app: SmallApp) -> None:
    for name in ("one", "two", "three"):
        make(app, name)
    for done in (1, 2, 3):
        run_here(app, "verify", "--random", "--test-restore", check=0)
        assert sum(backup.state == "proven" for backup in store.all_backups(app.settings)) == done


def test_a_damaged_backup_is_not_restored_for_a_test(app: SmallApp) -> None:
    (make(app) / "RESTORE.md").unlink()
    said: list[Event] = []
    found = prove(app, emit=said.append)
    assert found.flaws and not any(isinstance(event, Step) and "Restoring" in event.name for event in said)


def test_the_database_in_the_scratch_folder_is_the_backups(app: SmallApp, tmp_path: Path) -> None:
    make(app)
    app.execute("DELETE FROM documents")
    prove(app, command=f'cp "$BACKUP_TEST_DATABASE"* {tmp_path}/')
    with contextlib.closing(sqlite3.connect(tmp_path / "pats.db")) as copied:
        assert copied.execute("SELECT count(*) FROM documents").fetchone() == (2,)
        assert copied.execute("PRAGMA journal_mode").fetchone() == ("wal",)
