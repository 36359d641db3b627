"""The demo, run in its own process on a copy of the toolkit that a test may break."""

from __future__ import annotations

import compileall
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import chance
from demo.stage import Narrator
from refusals import without_privileges
from small_app import BACKEND, Result, clean_environment, tree

HEADLINES = [
    "1. An app",
    "2. A backup, while the app is being written to",
    "3. Life goes on",
    "4. Disaster",
    "5. The restore, while the app is being written to",
    "6. The restore taken back, and that taken back too",
    "7. A backup older than the code",
    "8. A backup newer than the code",
    "9. Cleaned up",
]

TORN_COPY = """
copy_all = copy
def copy(moment, target, *more):
    copy_all(moment, target, *more)
    with contextlib.closing(sqlite3.connect(target)) as copied, copied:
        copied.execute("DELETE FROM visits WHERE id = (SELECT max(id) FROM visits)")
"""


class Toolkit:
    """An app folder with a copy of the toolkit and its own data; temporary files go to `temporary`."""

    def __init__(self, folder: Path) -> None:
        self.app, self.temporary = folder / "app", folder / "temporary"
        self.prefix: list[str] = []
        self.temporary.mkdir()
        shutil.copytree(compiled(folder.parent), folder, dirs_exist_ok=True)
        self._make_data()

    def sabotage(self, module: str, code: str) -> None:
        """Append code to the module, to replace what it defined before."""
        with (self.app / "backupkit" / module).open("a") as file:
            file.write(f"\n\n{code}\n")

    def start(self, *options: str, env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        """Start the demo."""
        return subprocess.Popen(
            [*self.prefix, sys.executable, self.app / "backup_restore.py", "demo", *options],
            env={**clean_environment(), "TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
            cwd=self.app,
            stdin=subprocess.DEVNULL,
            text=True,
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True} | more),
        )

    def demo(self, *options: str, env: Mapping[str, str] | None = None, **more: Any) -> Result:
        """Run the demo from beginning to end."""
        with self.start(*options, env=env, **more) as process:
            out, err = process.communicate(timeout=300)
        return Result(process.returncode, out, err)

    def processes(self) -> list[str]:
        """Return the command lines of the processes that work in the temporary folder."""
        return [line for line in command_lines() if str(self.temporary) in line]

    def left_behind(self) -> list[str]:
        """Return the names in the temporary folder."""
        return os.listdir(self.temporary)

    def _make_data(self) -> None:
        for name in ("data", "uploads", "backups"):
            (self.app / name).mkdir()
        (self.app / "uploads" / "letter.txt").write_text("Dear customer\n")
        with closing(sqlite3.connect(self.app / "data" / "pats.db")) as live, live:
            live.execute("PRAGMA journal_mode=WAL")
            live.execute("CREATE TABLE companies (name TEXT)")
            live.execute("INSERT INTO companies VALUES ('a real one')")


@cache
def compiled(parent: Path) -> Path:
    """Return a folder with the toolkit and its examples, all compiled; made once, then copied with file times."""
    folder = parent / "compiled"
    (folder / "app").mkdir(parents=True)
    shutil.copy2(BACKEND / "backup_restore.py", folder / "app")
    for source, target in ((BACKEND / "backupkit", folder / "app"), (BACKEND.parent / "examples", folder)):
        shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(target / source.name, quiet=1)
    return folder


@dataclass(frozen=True)
class Told:
    """A whole run, and the caller's folder before and after it."""

    toolkit: Toolkit
    result: Result
    before: dict[str, tuple[str, int, int, bytes]]
    after: dict[str, tuple[str, int, int, bytes]]


def command_lines() -> list[str]:
    """Return the command line of every process; some may have ended meanwhile."""
    if not Path("/proc/self/cmdline").exists():
        return subprocess.run(["ps", "-axww", "-o", "command="], capture_output=True, text=True).stdout.splitlines()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """Return the output of the demo up to the line with these words."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if wanted in line:
            return said
    raise AssertionError(f"{wanted!r} never came:\n{said}")


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass in 30 seconds"
        time.sleep(0.02)


@pytest.fixture
def toolkit(tmp_path: Path) -> Toolkit:
    """The toolkit copied into an app of its own."""
    return Toolkit(tmp_path)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A demo run by a wrapper; all settings point at real data or are wrong, and Alembic is not on the PATH."""
    toolkit = Toolkit(tmp_path_factory.mktemp("told"))
    data = str(toolkit.app / "data" / "pats.db")
    settings = {
        "BACKUP_DATABASE": data,
        "backup_database": data,  # settings are read in any case
        "DATABASE_URL": f"sqlite:///{data}",
        "BACKUP_UPLOADS": str(toolkit.app / "uploads"),
        "BACKUP_DIR": str(toolkit.app / "backups"),
        "BACKUP_APP_DIR": str(toolkit.app),
        "BACKUP_TIMEZONE": "Mars/Phobos",
        "PATH": "/usr/bin:/bin",
    }
    wrapper = {"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker compose", "BACKUP_HOST_COMMAND": "./my.sh"}
    before = tree(toolkit.app)
    result = toolkit.demo(env=settings | wrapper)
    return Told(toolkit, result, before, tree(toolkit.app))


def test_every_proof_holds(told: Told) -> None:
    assert told.result.code == 0, told.result.out + told.result.err
    assert "FAILED" not in told.result.out
    assert told.result.err == ""


def test_each_step_says_what_it_is(told: Told) -> None:
    assert re.findall(r"^\d+\. .*$", told.result.out, re.MULTILINE) == HEADLINES


def test_the_last_lines_say_what_was_proven_and_what_to_type_next(told: Told) -> None:
    *_, proven, following = told.result.out.splitlines()
    proofs = told.result.out.count("   ok      ")
    numbers = r"457 rows and 38 files came back exactly, while another process committed [\d,]+ transactions"
    assert re.match(rf"All {proofs} proofs held, in [\d.]+ s: {numbers} without an error\.$", proven), proven
    assert following == "Next, a backup of your own app:  ./my.sh backup"


def test_the_commands_shown_are_the_ones_a_person_would_type(told: Told) -> None:
    shown = re.findall(r"^   \$ (.*)$", told.result.out, re.MULTILINE)
    assert shown[:3] == [
        "./my.sh backup before_disaster",
        "./my.sh restore before_disaster --force",
        "./my.sh undo --force",
    ]
    upgrade = next(line for line in shown if line.endswith("upgrade head"))
    assert f"           {upgrade}\n" in told.result.out  # as the restore had printed it


def test_a_pipe_gets_plain_text(told: Told) -> None:
    assert re.findall(r"[^\x20-\x7e\n]", told.result.out) == []


def test_nothing_is_left_behind(told: Told) -> None:
    assert told.toolkit.left_behind() == []
    assert told.toolkit.processes() == []


def test_the_data_that_the_callers_settings_point_at_are_untouched(told: Told) -> None:
    assert told.after == told.before


def test_it_needs_to_write_nowhere_but_to_the_temporary_folder(toolkit: Toolkit) -> None:
    subprocess.run(["chmod", "-R", "a+rX,a-w", str(toolkit.app)], check=True)
    before = tree(toolkit.app)
    toolkit.prefix = without_privileges()
    result = toolkit.demo(env={"HOME": "/nonexistent", "BACKUP_RUNNER_IN_USE": "local"})
    assert result.code == 0, result.out + result.err
    assert "   $ python backup_restore.py backup before_disaster\n" in result.out
    assert tree(toolkit.app) == before
    assert toolkit.left_behind() == []
    subprocess.run(["chmod", "-R", "u+w", str(toolkit.app)], check=True)  # or pytest cannot remove it


def test_what_is_kept_can_be_looked_at_with_the_toolkit_even_after_ctrl_c(toolkit: Toolkit) -> None:
    with toolkit.start("--keep") as process:
        read_until(process, "4. Disaster")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    (name,) = toolkit.left_behind()
    kept = toolkit.temporary / name
    assert f"\nThe throw-away data are left in {kept}\n" in out
    assert toolkit.processes() == []
    listed = subprocess.run(
        [sys.executable, str(toolkit.app / "backup_restore.py"), "list"],
        env={**clean_environment(), "BACKUP_APP_DIR": str(kept / "app")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\nbefore_disaster " in listed.stdout


# Interrupted


@pytest.mark.parametrize(
    ("moment", "number", "group"),
    chance.cases(
        [
            ("1. An app", signal.SIGINT, False),
            ("backup before_disaster", signal.SIGINT, True),  # as a terminal sends it: to every process of the group
            ("restore before_disaster --force", signal.SIGTERM, False),
            ("alembic upgrade head", signal.SIGHUP, False),
        ],
        "moments of the demo, interrupted",
    ),
)
def test_interrupted_it_leaves_nothing_behind(
    toolkit: Toolkit, moment: str, number: signal.Signals, group: bool
) -> None:
    with toolkit.start() as process:
        read_until(process, moment)
        (os.killpg if group else os.kill)(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.endswith("\nInterrupted; nothing is left half done.\n")
    assert toolkit.left_behind() == []
    assert toolkit.processes() == []


def test_an_interrupt_that_python_loses_ends_the_story_at_its_next_line() -> None:
    narrator = Narrator()
    with suppress(KeyboardInterrupt):  # as the garbage collector does
        narrator.interrupt(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        narrator.say("as if nothing had happened")


def test_the_writing_process_is_a_real_one_and_does_not_outlive_a_killed_demo(toolkit: Toolkit) -> None:
    with toolkit.start() as process:
        read_until(process, "4. Disaster")
        assert [line for line in toolkit.processes() if "demo/writer.py" in line]
        process.kill()
    wait_until(lambda: not toolkit.processes())


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Yield both ends of a terminal."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def test_a_terminal_gets_colours(toolkit: Toolkit) -> None:
    said = b""
    with terminal() as (ours, theirs), toolkit.start(env={"TERM": "xterm"}, stdout=theirs) as process:
        os.close(theirs)
        while b"2. A backup" not in said:
            said += os.read(ours, 4096)
        process.terminate()
    assert b"\x1b[1;36m1. An app\x1b[0m" in said


def test_without_its_files_it_says_where_it_is(toolkit: Toolkit) -> None:
    shutil.rmtree(toolkit.app.parent / "examples")
    result = toolkit.demo()
    assert (result.code, result.out) == (2, "")
    assert f"There is no demo in {toolkit.app.parent / 'examples'}" in result.err and "./backup.sh demo" in result.err


# Faults in the product that the demo finds


FAULTS = {
    "uploads are not put back": (
        "upload_files/apply.py",
        "def apply(*_args, **_options): pass",
        "all 457 rows and 38 files are as at the time of the backup: uploads/",
    ),
    "the database is not put back": (
        "sqlite/database.py",
        "def write_through(*_args, **_options): pass",
        "all 457 rows and 38 files are as at the time of the backup: the schema is another one",
    ),
    "modes and times are not kept": (
        "upload_files/archiver.py",
        "disk.set_what_it_keeps = lambda *_args: None",
        "every row and every file of the app is in it: uploads/",
    ),
    "the database is renamed over": (
        "sqlite/database.py",
        "import shutil\ndef write_through(staged, live, *_args, **_options):\n"
        "    os.replace(shutil.copy(staged, f'{live}.new'), live)",
        # Which of the two happens depends on the old WAL, which does not belong to the new file.
        "the writer goes on in the restored data, after the rows they had|the command .* 0: it ended with 13",
    ),
    "half a transaction is backed up": (
        "sqlite/database.py",
        TORN_COPY,
        "it is of one moment: no transaction of the writer is half in it: ",
    ),
    "any revision is restored": (
        "migrations/schema.py",
        "def refuse_unless_restorable(*_args, **_options): pass",
        "the command ends with exit code 14: it ended with 2",
    ),
    "undo restores something else": (
        "restore/undo.py",
        "def plan_undo(settings, *_args, **_options):\n    from backupkit.restore.restore import plan_restore\n"
        "    return plan_restore(settings, 'before_disaster')",
        "the state before the restore is there again, damage and all: the schema is another one",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", chance.cases(list(FAULTS), "faults that the demo finds"))
def test_a_broken_product_fails_the_demo(toolkit: Toolkit, fault: str) -> None:
    module, code, claim = FAULTS[fault]
    toolkit.sabotage(module, code)
    result = toolkit.demo()
    assert result.code == 1, result.out + result.err
    assert re.search(f"   FAILED  ({claim})", result.out), result.out
    assert re.search(f"^Error: The demo failed: .*({claim})", result.err), result.err
    assert toolkit.left_behind() == []
    assert toolkit.processes() == []
