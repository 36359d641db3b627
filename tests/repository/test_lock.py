"""Only one process writes at a time. The lock ends with its holder, and reading never waits for it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.fs import process
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Locked
from backupkit.model.events import Event, Waiting
from backupkit.repository import lock
from refusals import another_process, refused, run_here
from small_app import BACKEND, COMMAND, SmallApp, clean_environment

HOLD = f"""
sys.path.insert(0, {str(BACKEND)!r})
from collections.abc import Callable, Iterator
from pathlib import Path
from backupkit.repository import lock
held = lock.held(Path(sys.argv[1]), "a test", 0)
held.__enter__()
"""


@pytest.mark.parametrize("command", [("backup", "one"), ("dump",), ("restore", "good", "--force"), ("undo", "--force")])
def test_a_second_writer_gives_up_at_its_deadline_and_names_the_first(app: SmallApp, command: tuple[str, ...]) -> None:
    create_backup(app.settings, BackupRequest("good"))
    create_backup(app.settings, BackupRequest("safety", kind="pre_restore"))
    with another_process(HOLD, app.backups) as holder:
        result = refused(
            app, *command, code=11, names=f"pid {holder.pid}", hint="[Ww]ait", env={"BACKUP_LOCK_TIMEOUT": "0.2"}
        )
    assert str(app.backups) in result.err
    assert "a test" in result.err
    assert "Waiting up to 0.2 s" in result.err


def test_without_patience_no_wait_is_announced(app: SmallApp) -> None:
    with another_process(HOLD, app.backups):
        result = run_here(app, "backup", "one", env={"BACKUP_LOCK_TIMEOUT": "0"}, check=11)
    assert "Waiting" not in result.err


@pytest.mark.parametrize(
    "command", [("list",), ("show", "good"), ("config",), ("restore", "good", "--dry-run"), ("doctor",)]
)
def test_reading_never_waits_for_the_lock(app: SmallApp, command: tuple[str, ...]) -> None:
    create_backup(app.settings, BackupRequest("good"))
    with another_process(HOLD, app.backups):
        assert "Waiting" not in run_here(app, *command, env={"BACKUP_LOCK_TIMEOUT": "3600"}, check=0).err


def test_reading_leaves_a_restore_that_is_under_way_to_its_process(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    (app.backups / ".journal").write_text("{}")
    with another_process(HOLD, app.backups):
        result = run_here(app, "list", check=0)
    assert "good" in result.out and "Finishing" not in result.err


def test_a_killed_holder_frees_the_lock(app: SmallApp) -> None:
    with another_process(HOLD, app.backups) as holder:
        assert lock.is_held(app.backups)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert not lock.is_held(app.backups)
        assert (app.backups / ".lock").stat().st_size > 0  # the killed process's signature is still there
        create_backup(app.settings, BackupRequest("one"))
    assert (app.backups / "one" / "pats.db").is_file()


def test_a_lock_that_comes_free_in_time_is_taken(app: SmallApp) -> None:
    heard: list[Event] = []
    patient = app.settings.replaced(lock_timeout=30)
    with another_process(HOLD, app.backups) as holder:
        threading.Timer(0.3, holder.kill).start()
        create_backup(patient, BackupRequest("one"), heard.append)
    (waited,) = [event for event in heard if isinstance(event, Waiting)]
    assert f"pid {holder.pid}" in waited.what and "30 s" in waited.what


def test_who_accepts_a_backup_is_told_whom_it_waits_for(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("one"))
    with another_process(HOLD, app.backups) as holder:
        done = run_here(app, "verify", "one", "--accept", env={"BACKUP_LOCK_TIMEOUT": "0.2"}, check=11)
    (waited,) = [line for line in done.err.splitlines() if "Waiting up to" in line]
    assert f"pid {holder.pid}" in waited


def test_backups_at_the_same_time_get_distinct_names(app: SmallApp) -> None:
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "BACKUP_LOCK_TIMEOUT": "60"}
    running = [
        subprocess.Popen([sys.executable, str(COMMAND), "backup", "--json"], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    made = [json.loads(process.communicate()[0])["backup_name"] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set(made)) == 3
    assert {one["backup_name"] for one in run_here(app, "list", "--json").json} == set(made)


def test_two_threads_do_not_hold_it_together(app: SmallApp) -> None:
    refusal = pytest.raises(Locked, match=f"first .pid {os.getpid()} on")
    with lock.held(app.backups, "first", 0), refusal, lock.held(app.backups, "second", 0):
        pass


def test_a_worker_forked_meanwhile_does_not_keep_the_lock(app: SmallApp) -> None:
    """A server's forked worker may live for days."""
    forking = """
reading, writing = os.pipe()
with lock.claimed([Path(sys.argv[2])], 0):
    worker = os.fork()
    if worker:
        os.read(reading, 1)  # it has begun
        held.__exit__(None, None, None)
        assert not lock.is_held(Path(sys.argv[1])), "while the worker lives"
    else:
        os.write(writing, b"1")
        time.sleep(60)
        os._exit(0)
assert not lock.is_claimed(Path(sys.argv[2])), "the worker claims the live folder"
os.kill(worker, 9)
os.waitpid(worker, 0)
"""
    text = "import os, sys, time" + HOLD + forking
    done = subprocess.run(
        [sys.executable, "-c", text, app.backups, app.database.parent], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failed_run_frees_the_lock(app: SmallApp) -> None:
    with pytest.raises(RuntimeError), lock.held(app.backups, "first", 0):
        raise RuntimeError
    with lock.held(app.backups, "second", 0):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"[]", b"{}", b"\xff", b'{"command": 1, "who": [], "since": null}']
)
def test_a_lock_signed_with_garbage_is_still_a_lock(app: SmallApp, content: bytes) -> None:
    with lock.held(app.backups, "first", 0):
        (app.backups / ".lock").write_bytes(content)
        with pytest.raises(Locked) as refusal, lock.held(app.backups, "second", 0):
            pass
    assert str(app.backups) in refusal.value.message


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_lock_file_that_somebody_removes_lets_no_second_run_in(app: SmallApp, how: str) -> None:
    with another_process(HOLD, app.backups):
        (app.backups / ".lock").unlink()
        if how == "replaced":
            (app.backups / ".lock").touch()
        assert lock.is_held(app.backups)
        with pytest.raises(Locked), lock.held(app.backups, "second", 0.3):
            pass
        refused(app, "backup", "one", code=11, names=str(app.backups), hint="Wait", env={"BACKUP_LOCK_TIMEOUT": "0"})
    create_backup(app.settings, BackupRequest("one"))


def test_who_waited_for_a_lock_file_that_was_removed_takes_the_one_that_is_there(app: SmallApp) -> None:
    first = os.open(app.backups / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX)  # as an earlier version does, which locks only the file
    entered = threading.Event()

    def wait() -> None:
        with lock.held(app.backups, "waiting", 20):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    (app.backups / ".lock").unlink()
    second = os.open(app.backups / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(second, fcntl.LOCK_EX)
    os.close(first)  # now free, but no longer the lock
    assert not entered.wait(0.5)
    os.close(second)
    thread.join(20)
    assert entered.is_set()


def test_a_restore_works_where_the_backups_lie_in_the_folder_of_the_database(app: SmallApp) -> None:
    here = {"BACKUP_DIR": str(app.database.parent)}
    run_here(app, "backup", "one", env=here, check=0)
    app.add_rows(1)
    run_here(app, "restore", "one", "--yes", env=here, check=0)
    assert len(app.rows("companies")) == 3


def test_a_link_in_the_place_of_the_lock_is_not_followed(app: SmallApp, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (app.backups / ".lock").symlink_to(victim)
    refused(app, "backup", "one", code=1, names=".lock", hint="")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_place_of_the_lock_is_named(app: SmallApp, make: Callable[[str], None]) -> None:
    make(str(app.backups / ".lock"))
    refused(app, "backup", "one", code=1, names=f"{app.backups / '.lock'} is not a plain file", hint="rm -r")


def test_the_lock_of_a_scheduler_is_named_by_its_own_path(app: SmallApp) -> None:
    (app.backups / ".state" / "scheduler" / ".lock").mkdir(mode=0o700, parents=True)
    said = " ".join(app.command("schedule", check=1).err.split())
    assert f"{app.backups / '.state' / 'scheduler' / '.lock'} is not a plain file" in said


@pytest.mark.parametrize("locked", [".", ".lock"])
def test_a_lock_of_a_program_that_is_no_run_is_named_with_how_to_end_it(app: SmallApp, locked: str) -> None:
    create_backup(app.settings, BackupRequest("good"))
    (app.backups / ".lock").write_text(
        json.dumps({"command": "backup", "who": process.named(1, process.host()), "since": "then"})  # of a killed run
    )
    with _locked_by_a_stranger(app.backups / locked) as stranger:
        names = f"A lock on {app.backups} is held by pid {stranger.pid} (sleep) of user "
        refused(
            app, "backup", "one", code=11, names=names, hint=f"kill {stranger.pid}", env={"BACKUP_LOCK_TIMEOUT": "0"}
        )


def test_a_lock_on_the_live_folder_is_not_called_a_restore(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(1)
    with _locked_by_a_stranger(app.database.parent) as stranger:
        names, patience = f"held by pid {stranger.pid} (sleep) of user ", {"BACKUP_LOCK_TIMEOUT": "0"}
        refused(app, "restore", "good", "--yes", code=11, names=names, hint=f"kill {stranger.pid}", env=patience)


@pytest.mark.parametrize("is_there", [True, False])
def test_no_other_user_can_open_the_lock_file(app: SmallApp, is_there: bool) -> None:
    if is_there:
        (app.backups / ".lock").touch(0o644)
    with lock.held(app.backups, "first", 0):
        assert (app.backups / ".lock").stat().st_mode & 0o777 == 0o600


@contextlib.contextmanager
def _locked_by_a_stranger(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["flock", "--no-fork", place, "sleep", "1000"]) as stranger:
        try:
            while not lock.is_claimed(place) if place.is_dir() else not lock.is_held(place.parent):
                time.sleep(0.01)
            yield stranger
        finally:
            stranger.kill()
