"""Restores are correct in the hard cases of mounts, users, processes and migrations, in real containers."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest
from engine import Engine, run, wait_until
from project import Project

import chance
from backupkit.fs.disk import DRAFT_PREFIX
from backupkit.model.backup import STAGING
from backupkit.repository.lock import LOCK_FILE
from backupkit.restore.journal import JOURNAL_FILE
from others import python_for_all

APP = 1000  # the image's own user
DOCUMENTS, HEAD = "8d24b6f09c13", "f5d1964e7a38"
MANY = 1500  # uploads: a restore of them lasts long enough to be killed in the middle

Contents = tuple[set[str], dict[str, str]]
Prepare = Callable[..., Contents]

# An app that begins a transaction and never ends it.
LOCK_KEEPER = """
import os, sqlite3, sys
connection = sqlite3.connect("/app/data/pats.db", isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print(os.getpid(), flush=True)
sys.stdin.read()
"""


# --- the data ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_start(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database that the entrypoint makes."""
    project = Project(tmp_path_factory.mktemp("first start"), engine, {"COMPOSE_PROJECT_NAME": "firststart"})
    project.compose("run", "--rm", "--no-deps", "-T", "backend", "true")
    return project.database


@pytest.fixture
def prepare(first_start: Path) -> Prepare:
    """Return `prepare(project)`, which makes the data as the first start does, without a service, and returns them."""

    def prepare(project: Project, uploads: int = 3) -> Contents:
        shutil.copy(first_start, project.database)
        give(APP, *folders(project))
        return become(project, "first", uploads)

    return prepare


def become(project: Project, version: str, uploads: int = 3) -> Contents:
    """Change the database and every upload to that version, as the app's user would; return the contents."""
    write_row(project, version)
    write_file(project.uploads / f"only {version}.txt", version)
    for path in project.uploads.glob("only *.txt"):
        if path.stem != f"only {version}":
            path.unlink()
    for number in range(uploads):
        write_file(project.uploads / str(number % 7) / f"{number}.txt", version)
    return contents(project)


def write_row(project: Project, version: str) -> None:
    with closing(sqlite3.connect(project.database, timeout=30)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("DELETE FROM companies")
        connection.execute("INSERT INTO companies (name) VALUES (?)", (version,))


def write_file(path: Path, text: str) -> None:
    if not path.parent.exists():
        path.parent.mkdir()
        os.chown(path.parent, APP, APP)
    path.write_text(text)
    os.chown(path, APP, APP)


def contents(project: Project) -> Contents:
    return project.companies(), texts(project.uploads)


def texts(folder: Path) -> dict[str, str]:
    """Return the text of every file below the folder, those of an unfinished restore included."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def litter(project: Project) -> list[str]:
    """Return what the toolkit has left behind, anywhere in the data and the backups."""
    everything = (path for folder in folders(project) for path in folder.rglob("*"))
    ours = (STAGING, DRAFT_PREFIX, JOURNAL_FILE)
    return [str(path) for path in everything if path.name.startswith(ours)]


def folders(project: Project) -> tuple[Path, Path, Path]:
    return project.database.parent, project.uploads, project.backups


def owners(*places: Path) -> set[int]:
    """Return the owners of the folders and of everything in them."""
    return {path.lstat().st_uid for folder in places for path in (folder, *folder.rglob("*"))}


def give(user: int, *places: Path) -> None:
    for path in [path for folder in places for path in (folder, *folder.rglob("*"))]:
        os.chown(path, user, user, follow_symlinks=False)


# --- concurrent runs --------------------------------------------------------------------------------------------------


class Running:
    """A command that runs in the background."""

    def __init__(self, project: Project, *arguments: str, **settings: str) -> None:
        self.log = project.folder / f"{os.urandom(4).hex()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(project.folder / "backup.sh"), *arguments],
                env=project.environment | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def says(self, text: str) -> bool:
        """Wait for that text; return whether it came before the end."""
        wait_until(lambda: self.process.poll() is not None or text in self.log.read_text(), seconds=300)
        return text in self.log.read_text()

    def ends(self, code: int) -> None:
        assert self.process.wait(120) == code, self.log.read_text()


@contextmanager
def database_locked(project: Project) -> Iterator[None]:
    """Hold a write lock on the host, through the bind mount: a restore waits for it once its journal is on disk."""
    with closing(sqlite3.connect(project.database, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def journal_of(project: Project) -> str:
    try:
        return (project.backups / JOURNAL_FILE).read_text()
    except FileNotFoundError:
        return ""


def commands(project: Project) -> list[str]:
    """Return the commands that run in the service's container; none while it is between two starts."""
    shown = project.engine.docker("top", project.container(), "-eo", "pid,args", check=False).stdout
    return [line.split(maxsplit=1)[1] for line in shown.splitlines()]


def is_recovering(project: Project) -> bool:
    """Return whether the service's container runs `recover`; the app must not be up."""
    running = commands(project)
    assert "python app.py" not in running
    return "python backup_restore.py recover" in running


def run_on_the_host(project: Project) -> None:
    """Make the environment of a first run without a container, where the owner of the data can reach it."""
    requirements = (project.folder / "backend" / "requirements.txt").read_bytes()
    number, size = subprocess.run(["cksum"], input=requirements, capture_output=True, check=True).stdout.split()
    made = project.folder / ".backup-venv" / f"{number.decode()}-{size.decode()}"
    (made / "lib" / f"python3.{sys.version_info.minor}" / "site-packages").mkdir(parents=True)
    (made / "bin").mkdir()
    (made / "bin" / "python").write_text(f'#!/bin/sh\nexec {shlex.join(python_for_all())} "$@"\n')
    (made / "bin" / "python").chmod(0o755)
    for folder in project.folder.parents:
        folder.chmod(folder.stat().st_mode | 0o055)


def test_two_containers_restore_one_after_the_other(project: Project, prepare: Prepare) -> None:
    before = prepare(project)
    project.backup_sh("backup", "first")
    second = become(project, "second")
    project.backup_sh("backup", "second")
    become(project, "third")
    with (project.backups / LOCK_FILE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        project.backup_sh("restore", "first", "--force", code=11, BACKUP_LOCK_TIMEOUT="0")
        restores = [
            Running(project, "restore", name, "--force", BACKUP_LOCK_TIMEOUT="300") for name in ("first", "second")
        ]
        assert all(one.says("Waiting up to 300 s") for one in restores), [one.log.read_text() for one in restores]
        assert contents(project)[0] == {"third"}
    for one in restores:
        one.ends(0)
    after = contents(project)
    assert after in (before, second)
    assert litter(project) == []
    project.backup_sh("undo", "--force")
    assert contents(project) == (second if after == before else before)


def test_a_backup_on_the_host_waits_for_a_restore_in_a_container(project: Project, prepare: Prepare) -> None:
    wanted = prepare(project)
    project.backup_sh("backup", "first")
    become(project, "second")
    run_on_the_host(project)
    with database_locked(project):
        restore = Running(project, "restore", "first", "--force")
        assert wait_until(lambda: journal_of(project))
        done = project.backup_sh("backup", "no", code=11, BACKUP_RUNNER="local", BACKUP_LOCK_TIMEOUT="0")
        assert b"restore of first" in done.stderr
        backup = Running(project, "backup", "after", BACKUP_RUNNER="local", BACKUP_LOCK_TIMEOUT="60")
        assert backup.says("Waiting up to 60 s")
    restore.ends(0)
    backup.ends(0)
    assert contents(project) == wanted
    with closing(sqlite3.connect(project.backups / "after" / "pats.db")) as connection:
        assert connection.execute("SELECT name FROM companies").fetchall() == [("first",)]
    assert texts(project.backups / "after" / "uploads") == wanted[1]
    assert litter(project) == []


def test_an_app_started_during_a_restore_is_up_when_that_is_over(project: Project, prepare: Prepare) -> None:
    wanted = prepare(project)
    project.backup_sh("backup", "first")
    become(project, "second")
    with database_locked(project):
        restore = Running(project, "restore", "first", "--force")
        assert wait_until(lambda: journal_of(project))
        project.compose("up", "--detach", "--no-build")
        assert wait_until(lambda: is_recovering(project))
    restore.ends(0)
    assert wait_until(project.answers)
    assert contents(project) == wanted
    project.add_application("Later")
    assert project.companies() == {"first", "Later"}
    assert litter(project) == []


@pytest.mark.parametrize("number", chance.cases((signal.SIGINT, signal.SIGTERM), "signals to a restore"))
def test_a_restore_that_a_signal_ends_does_not_go_on_in_its_container(
    project: Project, prepare: Prepare, number: signal.Signals
) -> None:
    prepare(project)
    project.backup_sh("backup", "first")
    before = become(project, "second")
    # Beside the stopped service: the engine may have been asked for the container, and not yet have started it.
    restore = Running(project, "restore", "first", "--force")
    assert wait_until(lambda: project.containers("True"))
    os.killpg(restore.process.pid, number)
    restore.ends(130)
    assert project.containers("True") == []
    assert (contents(project), litter(project)) == (before, [])
    # In the service's container.
    project.up()
    with (project.backups / LOCK_FILE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        restore = Running(project, "restore", "first", "--force", BACKUP_LOCK_TIMEOUT="300")
        assert restore.says("Waiting up to 300 s")
        os.killpg(restore.process.pid, number)
        restore.ends(130)
        assert "Interrupted; nothing is left half done." in restore.log.read_text()
        assert not [command for command in commands(project) if "backup_restore.py" in command]
    assert (contents(project), litter(project)) == (before, [])


MOMENTS = ("staging", "waiting for the database", "putting the uploads in place")


@pytest.mark.parametrize("moment", chance.cases(MOMENTS, "moments of a restore in a container, killed"))
def test_a_restore_killed_in_its_container_is_settled_before_the_app_is_up(
    project: Project, prepare: Prepare, moment: str
) -> None:
    wanted = prepare(project, MANY)
    project.backup_sh("backup", "first")
    before = become(project, "second", MANY)
    kill_a_restore(project, moment)
    assert litter(project)
    with database_locked(project):
        project.compose("up", "--detach", "--no-build")
        if moment == "waiting for the database":
            assert wait_until(lambda: is_recovering(project))
    assert wait_until(project.answers), project.logs()
    assert contents(project) == (before if moment == "staging" else wanted)
    assert litter(project) == []
    assert owners(project.database.parent, project.uploads) == {APP}
    project.add_application("Later")


def kill_a_restore(project: Project, moment: str) -> None:
    """Kill the whole container of a restore at that moment."""
    arrived: dict[str, Callable[[], object]] = {
        "staging": (project.uploads / STAGING).exists,
        "waiting for the database": lambda: journal_of(project),
        "putting the uploads in place": lambda: '"database": false' in journal_of(project),
    }
    with nullcontext() if moment == "putting the uploads in place" else database_locked(project):
        restore = Running(project, "restore", "first", "--force")
        process = first_process(project)
        while not arrived[moment]():
            assert restore.process.poll() is None, restore.log.read_text()
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        restore.ends(137)
    assert bool(journal_of(project)) == (moment != "staging")


def first_process(project: Project) -> int:
    """Return the host's pid of the first process in a command's own container, with which all others end."""
    assert wait_until(lambda: project.running("True"))  # the container of the command before may still be ending
    (container,) = project.running("True")
    return int(project.inspect("State.Pid", container))


def test_an_app_that_keeps_a_write_lock_for_ever_is_named_and_can_be_stopped(
    project: Project, prepare: Prepare
) -> None:
    wanted = prepare(project)
    project.up()
    project.backup_sh("backup", "first")
    before = become(project, "second")
    with keeping_a_lock(project) as keeper:
        done = project.backup_sh("restore", "first", "--force", code=13, BACKUP_BUSY_TIMEOUT="2")
        assert f"pid {keeper} (python".encode() in done.stderr
        assert contents(project) == before
        assert litter(project) == []
        project.backup_sh("restore", "first", "--force", "--stop", BACKUP_BUSY_TIMEOUT="2")
    assert contents(project) == wanted
    assert project.state() == "running"
    assert litter(project) == []


@contextmanager
def keeping_a_lock(project: Project) -> Iterator[int]:
    """Keep a write lock in a process in the service's container; yield its pid there."""
    command = ["docker", "exec", "--interactive", "--user", str(APP), project.container(), "python", "-c", LOCK_KEEPER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=project.environment, stdin=pipe, stdout=pipe, text=True) as keeper:
        assert keeper.stdout
        yield int(keeper.stdout.readline())


# --- mounts -----------------------------------------------------------------------------------------------------------


def test_a_mount_inside_the_uploads_is_backed_up_restored_and_stays(project: Project, prepare: Prepare) -> None:
    more = project.folder / "more"
    for folder in (more, project.uploads / more.name):
        folder.mkdir()
    project.override(volumes=["./more:/app/uploads/more"])
    prepare(project)
    for name in ("kept", "changed", "lost"):
        write_file(more / "deep" / f"{name}.txt", "first")
    (more / "link").symlink_to("deep/kept.txt")
    give(APP, more)
    wanted, wanted_more = contents(project), texts(more)
    project.up()
    project.backup_sh("backup", "first")
    assert texts(project.backups / "first" / "uploads" / "more") == wanted_more
    become(project, "second")
    (more / "deep" / "lost.txt").unlink()
    (more / "link").unlink()
    write_file(more / "deep" / "changed.txt", "second")
    write_file(more / "new" / "extra.txt", "second")
    give(APP, more)
    damaged, damaged_more = contents(project), texts(more)

    project.backup_sh("restore", "first", "--force")
    assert (contents(project), texts(more)) == (wanted, wanted_more)
    assert os.readlink(more / "link") == "deep/kept.txt"
    assert not (more / "new").exists()
    project.backup_sh("undo", "--force")
    assert (contents(project), texts(more)) == (damaged, damaged_more)
    assert not (more / "link").is_symlink()

    project.inside("mountpoint", "/app/uploads/more")
    assert litter(project) == [] == list(more.rglob(f"{STAGING}*"))
    assert owners(project.uploads, more) == {APP}
    (more / "deep" / "seen.txt").write_text("through the mount")
    assert project.inside("cat", "/app/uploads/more/deep/seen.txt") == "through the mount"


def test_a_mount_in_the_uploads_that_the_backup_has_not_is_emptied_and_stays(
    project: Project, prepare: Prepare
) -> None:
    wanted = prepare(project)
    project.backup_sh("backup", "first")
    more = project.folder / "more"
    more.mkdir()
    write_file(more / "deep" / "extra.txt", "second")
    give(APP, more)
    project.override(volumes=["./more:/app/uploads/more"])
    project.backup_sh("restore", "first", "--force")
    assert contents(project) == wanted
    assert list(more.iterdir()) == []
    project.backup_sh("undo", "--force")
    assert texts(more) == {"deep/extra.txt": "second"}
    assert litter(project) == []


@pytest.fixture
def mounted() -> Iterator[Callable[[Path], None]]:
    """Return `mounted(folder)`, which mounts a small file system there until the test ends."""
    places: list[Path] = []

    def mount(folder: Path) -> None:
        run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], os.environ)
        places.append(folder)

    yield mount
    for place in reversed(places):
        run(["umount", "--lazy", str(place)], os.environ, check=False)


def test_data_uploads_and_backups_may_be_on_three_file_systems(
    project: Project, prepare: Prepare, mounted: Callable[[Path], None]
) -> None:
    mounted(project.uploads)
    mounted(project.backups)
    assert len({folder.stat().st_dev for folder in folders(project)}) == 3
    wanted = prepare(project)
    project.backup_sh("backup", "first")
    damaged = become(project, "second")
    project.backup_sh("restore", "first", "--force")
    assert contents(project) == wanted
    project.backup_sh("undo", "--force")
    assert contents(project) == damaged
    assert litter(project) == []


def test_a_data_folder_mounted_read_only_is_backed_up_and_never_restored_into(
    project: Project, prepare: Prepare
) -> None:
    wanted = prepare(project)
    project.backup_sh("backup", "first")
    before = become(project, "second")
    project.override(volumes=["./backend/data:/app/data:ro"])
    project.backup_sh("backup", "second")
    names = sorted(project.backups.iterdir())
    done = project.backup_sh("restore", "first", "--force", code=13)
    assert b"/app/data" in done.stderr and b"nothing was changed" in done.stderr
    assert (contents(project), sorted(project.backups.iterdir())) == (before, names)
    assert litter(project) == []
    project.override(volumes=[])
    project.backup_sh("restore", "first", "--force")
    assert contents(project) == wanted
    project.backup_sh("restore", "second", "--force")
    assert contents(project) == before


def test_backups_mounted_read_only_can_be_looked_at_and_the_app_runs(project: Project, prepare: Prepare) -> None:
    prepare(project)
    project.backup_sh("backup", "first")
    before = become(project, "second")
    kept = sorted(project.backups.rglob("*"))
    project.override(volumes=["./backups:/app/backups:ro"])
    for command in (("backup", "second"), ("restore", "first", "--force")):
        done = project.backup_sh(*command, code=1)
        assert b"/app/backups" in done.stderr and b"Traceback" not in done.stderr
    assert contents(project) == before
    assert sorted(project.backups.rglob("*")) == kept
    assert project.names() == ["first"]
    assert litter(project) == []
    give(0, project.backups)
    project.up()
    project.add_application("Later")


# --- users ------------------------------------------------------------------------------------------------------------


def test_a_user_who_may_not_write_the_database_is_refused_before_anything_is_done(
    project: Project, prepare: Prepare
) -> None:
    prepare(project)
    project.backup_sh("backup", "first")
    before = become(project, "second")
    give(1234, *folders(project))
    os.chown(project.database, 0, 0)
    project.database.chmod(0o644)
    project.override(user="1234:1234")
    project.backup_sh("backup", "second")
    names = sorted(project.backups.iterdir())
    done = project.backup_sh("restore", "first", "--force", code=13)
    assert b"/app/data/pats.db cannot be written; nothing was changed." in done.stderr
    assert (contents(project), sorted(project.backups.iterdir())) == (before, names)
    assert litter(project) == []


def test_a_user_who_may_not_read_the_database_is_told_its_path(project: Project, prepare: Prepare) -> None:
    prepare(project)
    give(1234, *folders(project))
    os.chown(project.database, 0, 0)
    project.database.chmod(0o600)
    project.override(user="1234:1234")
    done = project.backup_sh("backup", "first", code=13)
    assert b"/app/data/pats.db" in done.stderr and b"Traceback" not in done.stderr
    assert list(project.backups.glob("[!.]*/")) == []
    assert litter(project) == []


def test_folders_in_the_uploads_that_root_made_never_leave_a_restore_half_done(
    project: Project, prepare: Prepare
) -> None:
    wanted = prepare(project)
    project.backup_sh("backup", "first")
    before = become(project, "second")
    give(1234, *folders(project))
    give(0, project.uploads / "1")
    project.override(user="1234:1234")
    done = project.backup_sh("restore", "first", "--force", code=13)
    assert b"/app/uploads/1" in done.stderr and b"Traceback" not in done.stderr
    assert contents(project) == before
    assert litter(project) == []
    project.backup_sh("list")
    give(1234, project.uploads / "1")
    project.backup_sh("restore", "first", "--force")
    assert contents(project) == wanted


def test_a_restore_over_nothing_leaves_all_to_the_apps_user(project: Project, prepare: Prepare) -> None:
    wanted = prepare(project)
    project.up()
    project.backup_sh("backup", "first")
    project.compose("stop")
    for path in (*project.database.parent.iterdir(), *project.uploads.rglob("*.txt")):
        path.unlink()
    for folder in list(project.uploads.iterdir()):
        folder.rmdir()
    project.backup_sh("restore", "first", "--force")
    assert owners(project.database.parent, project.uploads) == {APP}
    assert contents(project) == wanted
    project.up()
    assert project.add_document(project.add_application("Later"), "Dear all").read_text() == "Dear all"
    project.backup_sh("restore", "first", "--force")  # while the app has it open
    assert contents(project) == wanted
    assert project.add_document(project.add_application("Again"), "Dear all").read_text() == "Dear all"
    assert owners(project.database.parent, project.uploads) == {APP}


# --- migrations -------------------------------------------------------------------------------------------------------


def revision(project: Project) -> str:
    with closing(sqlite3.connect(f"file:{project.database}?mode=ro", uri=True, timeout=30)) as connection:
        return str(connection.execute("SELECT group_concat(version_num) FROM alembic_version").fetchone()[0])


def kinds(project: Project) -> list[str]:
    return [one["kind"] for one in project.json("list")]


def test_migrations_in_the_container_have_a_net(project: Project, prepare: Prepare) -> None:
    prepare(project)
    project.up()
    project.inside("alembic", "downgrade", DOCUMENTS)
    assert (revision(project), kinds(project)) == (DOCUMENTS, ["pre_migration"])
    project.backup_sh("backup", "old")

    project.inside("bash", "-c", "cd /app && alembic upgrade head")
    assert (revision(project), kinds(project)) == (HEAD, ["pre_migration", "manual", "pre_migration"])
    project.inside("alembic", "upgrade", "head")
    assert len(kinds(project)) == 3

    project.backup_sh("restore", "old", "--force")
    assert revision(project) == DOCUMENTS
    done = project.json("migrate")
    assert revision(project) == HEAD
    assert done["rows_before"]["companies"] == done["rows_after"]["companies"] == 1
    project.backup_sh("undo", "--force")
    assert revision(project) == DOCUMENTS

    project.backup_sh("restore", "old", "--force", "--migrate")
    assert (revision(project), project.companies()) == (HEAD, {"first"})
    assert litter(project) == []
    assert owners(*folders(project)) == {APP}
    project.up()
    project.add_application("Later")
