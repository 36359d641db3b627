"""Processes that copy uploads: what comes of them is as without them, and nothing is left of one that fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.fs import file_worker, file_workers
from backupkit.fs.file_workers import Copied, FileWorkers
from backupkit.model.backup import STAGING, UPLOADS_FOLDER, BackupRequest
from backupkit.model.errors import BackupError, Damaged
from backupkit.model.events import Event, Progress
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from small_app import COMMAND, SmallApp, clean_environment, tree

MANY = file_workers.WORTH_FILES + 500
LAST = f"many/9/{MANY - 1:04}.bin"

pytestmark = pytest.mark.skipif(file_workers.number() == 0, reason="there is one processor")


@pytest.fixture
def full(app: SmallApp) -> SmallApp:
    """An app with more uploads than one process copies, plain ones and others among them."""
    for number in range(MANY):
        app.write_upload(f"many/{number % 10}/{number:04}.bin", f"{number} ".encode() * (number % 97))
    odd = app.uploads / "many" / "odd"
    odd.mkdir()
    (odd / "link").symlink_to("/etc/passwd")
    (odd / "empty").write_bytes(b"")
    (odd / "mode").write_bytes(b"its mode")
    (odd / "mode").chmod(0o640)
    (odd / "old").write_bytes(b"its time")
    os.utime(odd / "old", ns=(10**18 + 1, 10**18 + 3))
    (odd / "one name").write_bytes(b"two names")
    os.link(odd / "one name", odd / "other name")
    with open(odd / "sparse", "wb") as sparse:
        sparse.truncate(5 << 20)
        sparse.seek(3 << 20)
        sparse.write(b"in the middle")
    odd.chmod(0o750)
    return app


def workers_of(pid: int) -> list[int]:
    """The processes that copy for that one."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and file_worker.__file__.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@contextlib.contextmanager
def meeting(act: Callable[[list[int]], object]) -> Iterator[tuple[Callable[[Event], None], list[int]]]:
    """A listener that acts once, when there are processes that copy; and which those were. In the end none is left."""
    met: list[int] = []

    def hear(event: Event) -> None:
        if isinstance(event, Progress) and not met:
            met.extend(workers_of(os.getpid()))
            if met:
                act(met)

    yield hear, met
    assert met, "no process was started"
    assert not alive(met)


def nothing(_pids: list[int]) -> None:
    pass


def spoil(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def test_a_backup_made_by_several_processes_is_what_is_live(full: SmallApp) -> None:
    with meeting(nothing) as (hear, _):
        created = create_backup(full.settings, BackupRequest("good"), hear)
    assert created.warnings == ()
    assert tree(created.backup.path / UPLOADS_FOLDER) == tree(full.uploads)
    listed = [
        line[66:] for line in (created.backup.path / "SHA256SUMS").read_text().splitlines() if " uploads/" in line
    ]
    assert listed == sorted(listed, key=lambda path: path.split("/")) and len(listed) > MANY
    assert created.backup.metadata and created.backup.metadata.uploads
    assert created.backup.metadata.uploads.hard_links == 1
    full.command("verify", "good", check=0)


def test_a_restore_by_several_processes_brings_all_of_it_back(full: SmallApp) -> None:
    create_backup(full.settings, BackupRequest("good"))
    before = full.contents()
    shutil.rmtree(full.uploads)
    full.uploads.mkdir()
    with meeting(nothing) as (hear, _):
        done = restore_backup(full.settings, plan_restore(full.settings, "good"), hear)
    assert done.warnings == ()
    assert full.contents() == before
    assert os.path.samefile(full.uploads / "many/odd/one name", full.uploads / "many/odd/other name")


def test_few_files_are_copied_without_another_process(app: SmallApp) -> None:
    started: list[object] = []
    listening = [True]

    def hear(event: str, values: tuple[object, ...]) -> None:
        if listening and event == "subprocess.Popen" and file_worker.__file__ in str(values):
            started.append(values)

    sys.addaudithook(hear)
    create_backup(app.settings, BackupRequest("good"))
    listening.clear()
    assert started == []


def test_damage_that_another_process_meets_is_found_before_anything_changes(full: SmallApp) -> None:
    create_backup(full.settings, BackupRequest("good"))
    spoil(full.backups / "good" / UPLOADS_FOLDER / LAST)
    shutil.rmtree(full.uploads / "many")
    before = full.contents()
    with meeting(nothing) as (hear, _), pytest.raises(Damaged, match=f"{LAST} is not as it was written"):
        restore_backup(full.settings, plan_restore(full.settings, "good"), hear)
    assert_untouched(full, before, ["good"])


def assert_untouched(app: SmallApp, before: object, backups: list[str]) -> None:
    assert app.contents() == before
    assert [one.name for one in store.all_backups(app.settings) if not one.name.startswith("pre_")] == backups
    assert not list(app.folder.rglob(STAGING)) and not list(app.backups.glob(".draft-*"))


def kill_one(pids: list[int]) -> None:
    os.kill(pids[0], signal.SIGKILL)


def test_a_backup_whose_process_is_killed_is_an_error_and_leaves_nothing(full: SmallApp) -> None:
    before = full.contents()
    with meeting(kill_one) as (hear, _), pytest.raises(BackupError, match="came to an end too early"):
        create_backup(full.settings, BackupRequest("good"), hear)
    assert_untouched(full, before, [])


def test_a_restore_whose_process_is_killed_is_an_error_and_changes_nothing(full: SmallApp) -> None:
    create_backup(full.settings, BackupRequest("good"))
    shutil.rmtree(full.uploads / "many")
    before = full.contents()
    with meeting(kill_one) as (hear, _), pytest.raises(BackupError, match="came to an end too early"):
        restore_backup(full.settings, plan_restore(full.settings, "good"), hear)
    assert_untouched(full, before, ["good"])


def interrupt(_pids: list[int]) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_ends_all_of_them(full: SmallApp) -> None:
    before = full.contents()
    with meeting(interrupt) as (hear, _), pytest.raises(KeyboardInterrupt):
        create_backup(full.settings, BackupRequest("good"), hear)
    assert_untouched(full, before, [])


def test_ctrl_c_at_the_command_ends_all_of_them(full: SmallApp) -> None:
    run = running_with_workers(full)
    met = workers_of(run.pid)
    os.kill(run.pid, signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130
    assert not alive(met)
    assert not list(full.backups.glob(".draft-*"))


def test_they_end_when_the_command_is_killed(full: SmallApp) -> None:
    run = running_with_workers(full)
    met = workers_of(run.pid)
    run.kill()
    run.communicate()
    until = time.monotonic() + 20
    while alive(met) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(met)
    full.command("backup", "next", check=0)
    assert not list(full.backups.glob(".draft-*"))


def running_with_workers(app: SmallApp) -> subprocess.Popen[bytes]:
    """A `backup` command that is busy with a large file by other processes."""
    with open(app.uploads / "zz-large", "wb") as large:
        for _ in range(200):
            large.write(os.urandom(1 << 20))
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder)}
    run = subprocess.Popen(
        [sys.executable, str(COMMAND), "backup", "good"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 60
    while not workers_of(run.pid):
        assert run.poll() is None and time.monotonic() < until
    return run


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FileWorkers]:
    """Processes that are started for one file, and waited for a second."""
    workers = FileWorkers(tmp_path, lambda: None, patience=1)
    assert workers.pay(file_workers.WORTH_BYTES + 1)
    yield workers
    workers.close()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two open folders, `source` and `target`."""
    handles = []
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        handles.append(os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY))
    yield handles[0], handles[1]
    for handle in handles:
        os.close(handle)


def test_one_that_hangs_is_an_error(pool: FileWorkers, folders: tuple[int, int], tmp_path: Path) -> None:
    for pid in (pids := workers_of(os.getpid())):
        os.kill(pid, signal.SIGSTOP)
    (tmp_path / "source" / "file").write_bytes(b"content")
    pool.copy("", (folders[0], "file"), (folders[1], "file"), 7, lambda _: None, 0)
    with pytest.raises(BackupError, match="has said nothing for 1 s"):
        pool.drain()
    pool.close()
    assert pids and not alive(pids)


@pytest.mark.parametrize("what", ["link", "fifo", "folder", "missing", "taken"])
def test_what_is_not_plain_is_left_to_the_caller(
    pool: FileWorkers, folders: tuple[int, int], tmp_path: Path, what: str
) -> None:
    secret, source, target = tmp_path / "secret", tmp_path / "source" / "name", tmp_path / "target" / "name"
    secret.write_bytes(b"secret")
    if what == "link":
        source.symlink_to(secret)
    elif what == "fifo":
        os.mkfifo(source)
    elif what == "folder":
        source.mkdir()
    elif what == "taken":
        source.write_bytes(b"content")
        target.symlink_to(secret)
    heard: list[Copied | None] = []
    pool.copy("", (folders[0], "name"), (folders[1], "name"), 7, heard.append, 0)
    pool.drain()
    assert heard == [None]
    assert os.path.lexists(target) == (what == "taken") and secret.read_bytes() == b"secret"


def test_a_file_with_another_name_or_with_attributes_is_left_where_that_matters(
    pool: FileWorkers, folders: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "source" / "file").write_bytes(b"content")
    os.link(tmp_path / "source" / "file", tmp_path / "source" / "other")
    heard: list[Copied | None] = []
    for number, unless in enumerate((0, file_worker.OTHER_NAMES)):
        pool.copy("", (folders[0], "file"), (folders[1], str(number)), 7, heard.append, unless)
        pool.drain()
    assert heard[0] and heard[1] is None
    with contextlib.suppress(OSError):
        os.setxattr(tmp_path / "source" / "file", "user.note", b"kept")
        for number, unless in enumerate((0, file_worker.SOURCE_ATTRIBUTES), 2):
            pool.copy("", (folders[0], "file"), (folders[1], str(number)), 7, heard.append, unless)
            pool.drain()
        assert heard[2] and heard[3] is None
    assert sorted(os.listdir(tmp_path / "target"))[:1] == ["0"] and "1" not in os.listdir(tmp_path / "target")


@pytest.mark.parametrize("python", ["", "/usr/bin/missing", "/bin/true", "/bin/echo"])
def test_where_no_process_can_be_started_the_caller_does_it(
    full: SmallApp, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    created = create_backup(full.settings, BackupRequest("good"))
    assert created.warnings == ()
    assert tree(created.backup.path / UPLOADS_FOLDER) == tree(full.uploads)


def test_files_that_are_written_anew_meanwhile_are_whole(full: SmallApp) -> None:
    write = """
import os, sys
names = sys.argv[1:]
n = 0
while True:
    n += 1
    for name in names:
        with open(name + "~", "wb") as file:
            file.write(b"%d " % n * 20000)
        os.rename(name + "~", name)
"""
    names = [f"many/{number % 10}/{number:04}.bin" for number in range(MANY - 20, MANY)]
    writer = subprocess.Popen([sys.executable, "-c", write, *(str(full.uploads / name) for name in names)])
    try:
        created = create_backup(full.settings, BackupRequest("good"))
    finally:
        writer.kill()
        writer.wait()
    full.command("verify", "good", check=0)
    for name in names:
        content = (created.backup.path / UPLOADS_FOLDER / name).read_bytes().split()
        assert len(set(content)) <= 1, name


def test_a_file_that_may_not_be_read_is_named_and_the_rest_is_there(full: SmallApp) -> None:
    (full.uploads / LAST).unlink()
    os.mkfifo(full.uploads / LAST)
    created = create_backup(full.settings, BackupRequest("good"))
    assert [warning.split(" ")[0] for warning in created.warnings] == [LAST]
