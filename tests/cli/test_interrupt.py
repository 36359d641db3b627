"""Ctrl-C and SIGTERM at every stage: exit code 130, one sentence, all old or all new data, and no litter."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import chance
from backupkit.backup.create import create_backup
from backupkit.backup.sql_dump import dump
from backupkit.fs import disk
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.model.events import Event, Notice, Step, Warned
from backupkit.model.operation import CANCELLED
from backupkit.monitoring.status import status
from backupkit.repository import history, manifest, store
from backupkit.restore import journal, recovery, restore
from backupkit.restore.recovery import recover as finish
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.sqlite import database
from backupkit.upload_files import apply
from refusals import run_here
from small_app import BACKEND, COMMAND, Contents, SmallApp, clean_environment

STEP = 0.02
COMMANDS = [
    ("backup", "new"),
    ("restore", "old", "--force"),
    ("dump", "new.sql.gz"),
    ("restore-dump", "old.sql", "--force"),
]


@pytest.fixture
def large(app: SmallApp) -> SmallApp:
    """An app large enough to be interrupted in the middle of each stage, changed since its backup and its dump."""
    with contextlib.closing(app.connect()) as live, live:
        rows = ((f"Company {n}", f"{n / 7}" * 20) for n in range(10, 20_000))
        live.executemany("INSERT INTO companies (name, website) VALUES (?, ?)", rows)
        live.execute("CREATE TABLE measured (value REAL)")
        live.executemany("INSERT INTO measured VALUES (?)", ((n / 7,) for n in range(30_000)))
    for number in range(60):
        app.write_upload(f"many/{number}", os.urandom(100_000))
    create_backup(app.settings, BackupRequest("old"))
    dump(app.settings, app.backups / "old.sql")
    app.execute("UPDATE companies SET name = name || ' later'")
    shutil.rmtree(app.uploads / "many")
    app.write_upload("later", b"later")
    return app


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_can_be_interrupted_at_any_moment(large: SmallApp, command: tuple[str, ...]) -> None:
    before, backups, was_interrupted = large.contents(), names(large), 0
    for attempt in itertools.count():
        number = (signal.SIGINT, signal.SIGTERM)[attempt % 2]
        code, said = interrupted(large, command, number, STEP * 1.6**attempt - STEP)
        assert "Traceback" not in said and "Exception" not in said, said
        assert not litter(large), (attempt, said)
        if code in (0, -number):  # done, or killed by the signal in Python's own shutdown
            break
        assert code == 130, (code, said)
        assert said.splitlines()[-1].startswith("Interrupted"), said
        made = {name for name in names(large) - backups if not name.startswith("pre_restore")}
        if made or large.contents() != before:  # the signal came after the last step, so all of it must be done
            assert_done(large, command)
            break
        was_interrupted += 1
    assert was_interrupted >= 2
    for backup in store.all_backups(large.settings):
        assert list(manifest.verify_checksums(backup.path)) == []


LOST = """
import ctypes, os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from backupkit.cli.errors import end_on_signals
end_on_signals()
number = int(sys.argv[2])

@ctypes.CFUNCTYPE(None)
def called_from_c():
    os.kill(os.getpid(), number)
    time.sleep(0.01)

called_from_c()
try:
    time.sleep(30)
    print("went on")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_c_code_cannot_hand_on_comes_again(number: signal.Signals) -> None:
    command = [sys.executable, "-c", LOST, str(BACKEND), str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def assert_done(app: SmallApp, command: tuple[str, ...]) -> None:
    """Assert that the live data is what the whole command makes of it; checksums of a new backup are verified later."""
    found = app.contents()
    if command[0].startswith("restore"):
        app.command(*command, check=0)
        assert app.contents() == found


def interrupted(app: SmallApp, command: tuple[str, ...], number: signal.Signals, delay: float) -> tuple[int, str]:
    """Return exit code and stderr of a command that was sent the signal `delay` seconds after it took the lock."""
    signed = app.backups / ".lock"
    signed.write_bytes(b"")
    process = subprocess.Popen(
        [sys.executable, str(COMMAND), *command],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not signed.stat().st_size and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def catches(pid: int, number: signal.Signals) -> bool:
    """Return whether the process has a handler for the signal."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        mask = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
        return bool(int(mask, 16) & 1 << (number - 1))
    return False


def names(app: SmallApp) -> set[str]:
    return {path.name for path in app.backups.iterdir()} - {".lock", ".state"}


def litter(app: SmallApp) -> list[Path]:
    """Return what an interrupted command must not leave in any folder."""
    drafts = [path for path in app.backups.iterdir() if path.name.startswith((".draft", ".journal"))]
    beside = [path for path in app.database.parent.iterdir() if path.name.startswith(".")]
    return drafts + beside + [path for path in app.uploads.iterdir() if path.name.startswith(".")]


def test_ctrl_c_while_the_program_is_loaded_ends_it_without_a_word(app: SmallApp) -> None:
    said = []
    for delay in (0.0, 0.01, 0.02, 0.04, 0.08):
        process = subprocess.Popen(
            [sys.executable, str(COMMAND), "list"],
            env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for handled in (True, False):  # Python installs its own handler first, which prints a traceback
            while catches(process.pid, signal.SIGINT) != handled and process.poll() is None:
                time.sleep(0.0005)
        assert process.poll() is None, "Ctrl-C would have been a traceback all the time"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        said.append((process.communicate(timeout=60)[1], process.returncode))
    assert ("", -signal.SIGINT) in said
    for words, code in said:
        assert "Traceback" not in words and code in (0, 130, -signal.SIGINT), words


# Ctrl-C can come between any two instructions: here once at each line that a restore runs.

WATCHED = {
    restore: {"_apply"},
    recovery: None,
    journal: {"write", "remove"},
    database: {"replace_live", "watching", "prove"},
    apply: None,
}  # by module: the functions that are watched, None for all
FUNCTIONS = {module.__file__: names for module, names in WATCHED.items()}
Line = tuple[str, int]


@pytest.fixture
def two_states(app: SmallApp) -> Iterator[tuple[SmallApp, dict[str, Contents]]]:
    """An app and the contents of its two backups, which differ in rows and in added, changed and removed uploads."""
    app.execute("PRAGMA journal_mode=DELETE")  # quicker, and its contents can be compared
    states = {"a": app.contents()}
    create_backup(app.settings, BackupRequest("a"))
    app.add_rows(2)
    app.write_upload("1/letter.txt", b"another letter")
    app.write_upload("new/file", b"new")
    shutil.rmtree(app.uploads / "2")
    states["b"] = app.contents()
    create_backup(app.settings, BackupRequest("b"))
    yield app, states


def restored(app: SmallApp, name: str) -> None:
    restore_backup(app.settings, plan_restore(app.settings, name, force=True))


def traced(action: Callable[[], None], at_line: Callable[[Line], None]) -> None:
    """Run the action, and call `at_line` before each line of the watched modules."""

    def local(frame: FrameType, event: str, _value: object) -> Any:
        if event == "line":
            at_line((frame.f_code.co_filename, frame.f_lineno))
        return local

    def enter(frame: FrameType, _event: str, _value: object) -> Any:
        return local if is_watched(frame.f_code) else None

    sys.settrace(enter)
    try:
        action()
    finally:
        sys.settrace(None)


def is_watched(code: CodeType) -> bool:
    functions = FUNCTIONS.get(code.co_filename, set())
    return functions is None or code.co_name in functions


def test_a_restore_interrupted_at_any_line_is_all_old_or_all_new(
    two_states: tuple[SmallApp, dict[str, Contents]],
) -> None:
    app, states = two_states
    there, mixed = "b", []
    lines: dict[Line, None] = {}
    plan = plan_restore(app.settings, "a", force=True)
    traced(lambda: void(restore_backup(app.settings, plan)), lambda line: void(lines.setdefault(line)))
    there = "a"
    assert len(lines) > 40
    assert {file for file, _ in lines} == set(FUNCTIONS)
    assert all(hasattr(module, name) for module, names in WATCHED.items() for name in names or ())
    for line in chance.some(list(lines), 120, "a restore interrupted"):
        other = "b" if there == "a" else "a"
        plan = plan_restore(app.settings, other, force=True)
        # Ctrl-C between closing a handle and forgetting it may end as another error; the promise is the same.
        with contextlib.suppress(BaseException):
            traced(lambda plan=plan: void(restore_backup(app.settings, plan)), interrupting(line))  # type: ignore[misc]
        gc.collect()
        finish(app.settings)
        now = app.contents()
        where = f"{Path(line[0]).name}:{line[1]}"
        if now not in states.values() or litter(app):
            mixed.append(where)
            for leftover in litter(app):
                disk.remove_tree(leftover)
            restored(app, there)
        else:
            there = "a" if now == states["a"] else "b"
        for safety in app.backups.glob("pre_restore*"):
            disk.remove_tree(safety)
    assert mixed == []


def void(_value: object) -> None:
    return None


def interrupting(wanted: Line) -> Callable[[Line], None]:
    """Return a callback that raises KeyboardInterrupt the first time it gets that line."""
    waiting = [wanted]

    def strike(line: Line) -> None:
        if line in waiting:
            waiting.clear()
            raise KeyboardInterrupt

    return strike


def test_who_cancels_a_restore_learns_that_nothing_was_restored_and_it_counts_as_no_failure(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("old"))
    app.execute("DELETE FROM documents")
    app.write_upload("1/letter.txt", b"later")
    before, steps, wanted = app.contents(), list[str](), 0
    while True:
        wanted += 1
        told: list[str] = []
        steps.clear()

        def listen(event: Event, wanted: int = wanted, told: list[str] = told) -> None:
            told += [event.text] if isinstance(event, (Notice, Warned)) else []
            steps.extend([event.name] if isinstance(event, Step) else [])
            if len(steps) == wanted and isinstance(event, Step):
                raise KeyboardInterrupt(CANCELLED)

        plan = plan_restore(app.settings, "old")
        try:
            restore_backup(app.settings, plan, listen)
        except KeyboardInterrupt:
            assert "Nothing was restored: everything is as it was before." in told, steps
            assert app.contents() == before
            assert history.read(app.backups).operations[0].error == CANCELLED
            assert status(app.settings).numbers.failures_since_success == 0
        else:
            break
    assert wanted > 4 and app.contents() != before


SLOW_END = """
import os, signal, time
from backupkit.cli.errors import boundary, end_on_signals
with boundary():
    end_on_signals()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    finally:
        time.sleep(1.5)
"""


def test_an_end_that_takes_its_time_is_said_to_have_begun() -> None:
    environment = {**clean_environment(), "PYTHONPATH": str(COMMAND.parent)}
    run = subprocess.run([sys.executable, "-c", SLOW_END], capture_output=True, text=True, env=environment)
    assert run.returncode == 130
    assert run.stderr.splitlines()[0] == "Interrupted. Cleaning up before the command ends …"
    assert run.stderr.endswith("\nInterrupted; nothing is left half done.\n")


def test_after_an_interrupted_restore_the_database_is_not_locked(large: SmallApp) -> None:
    interrupted(large, ("restore", "old", "--force"), signal.SIGINT, 0.2)
    with contextlib.closing(sqlite3.connect(large.database, timeout=0)) as live, live:
        live.execute("INSERT INTO companies (name) VALUES ('free')")
    run_here(large, "backup", "next", check=0)


def test_what_is_staged_is_gone_when_a_restore_is_interrupted(large: SmallApp) -> None:
    for delay in (0.15, 0.3):
        interrupted(large, ("restore", "old", "--force"), signal.SIGTERM, delay)
        assert not (large.uploads / STAGING).exists() and not (large.database.parent / STAGING).exists()


def test_an_interrupt_that_comes_as_the_handlers_go_leaves_a_finished_command_finished() -> None:
    program = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from backupkit.cli import errors
errors.end_on_signals()
real, came = signal.signal, []
def late(number, action):
    if not came:
        came.append(number)
        os.kill(os.getpid(), number)
    return real(number, action)
signal.signal = late
errors.end_at_once_on_signals()
print("done", [signal.getsignal(one) == signal.SIG_DFL for one in (signal.SIGINT, signal.SIGTERM)])
"""
    done = subprocess.run([sys.executable, "-c", program, str(BACKEND)], capture_output=True, text=True, check=True)
    assert done.stdout == "done [True, True]\n"
