"""A rebuild in a separate process gives the same result, stays within bounds, and always ends."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_rebuild import Case, case, cut, flipped, with_expensive_indexes

import scripts
from backupkit.fs import child, process
from backupkit.model.errors import BackupError, SourceBroken
from backupkit.model.events import Event, Progress, Step
from backupkit.sqlite import rebuilder
from backupkit.sqlite.allowance import Allowance

__all__ = ["case"]

IMPORTS = (
    "import os, signal, sys; from pathlib import Path; from backupkit.sqlite import allowance, page_file, rebuilder"
)
SERVE = "rebuilder._serve(Path(sys.argv[1]), Path(sys.argv[2]), None, False)"
HOG = "page_file._size_of_wal = lambda _: 0 * len(bytearray(64 << 20))"


@pytest.mark.parametrize("damage", [None, flipped(30), cut(0.5)], ids=["whole", "flipped", "cut"])
@pytest.mark.parametrize("known", [True, False])
def test_it_finds_what_the_same_work_finds_in_this_process(case: Case, damage: object, known: bool) -> None:
    if damage:
        case.damage(damage)  # type: ignore[arg-type]
    heard: list[Event] = []
    here = case.rebuild(known)
    rows = case.result()
    case.target.unlink()
    there = rebuilder.rebuild(case.broken, case.target, case.known if known else None, emit=heard.append)
    assert there == here
    assert case.result() == rows
    assert {type(event) for event in heard} <= {Step, Progress}
    assert Step("Reading the pages", case.broken.stat().st_size // 1024, "pages") in heard or damage


def test_it_is_bound_before_it_reads(case: Case) -> None:
    started = rebuilder._start(case.broken, case.target, None, False)
    assert started
    size = sum(path.stat().st_size for path in case.folder.glob("broken.db*"))
    allowed = Allowance(size, longest=size)
    wanted = [allowed.memory_bytes, rebuilder._TIMES * allowed.seconds, allowed.file_bytes(0)]
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)
    deadline = time.monotonic() + 30
    with started:
        while (found := [resource.prlimit(started.pid, kind)[0] for kind in kinds]) != wanted:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        (f"allowance._FILE = 20_000; allowance._FILE_A_BYTE = 0; {SERVE}", SourceBroken, "asks for more disk space"),
        (f"allowance._MEMORY = 1 << 20; allowance._MEMORY_A_BYTE = 0; {HOG}; {SERVE}", SourceBroken, "more memory"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", SourceBroken, "asks for more processor time than a file of its size"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", BackupError, f"signal {int(signal.SIGSEGV)}"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", BackupError, "did nothing for 2 seconds"),
        ("print('no answer')", BackupError, "an invalid answer"),
        ("", BackupError, "exit code 0"),
        ("from backupkit.fs import child; child.answer('not written', 'x')", sqlite3.DatabaseError, "x"),
    ],
)
def test_a_process_that_comes_to_grief_is_an_error_that_says_how(
    case: Case, monkeypatch: pytest.MonkeyPatch, program: str, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(child, "STANDSTILL", 2.0)
    monkeypatch.setattr(process, "start_module", scripts.in_place_of_a_module(f"{IMPORTS}; {program}"))
    with pytest.raises(error, match=message):
        rebuilder.rebuild(case.broken, case.target, None)


@pytest.mark.parametrize("python", ["", "/nowhere/python"])
def test_where_no_process_can_be_started_it_is_done_in_this_one(
    case: Case, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    assert rebuilder.rebuild(case.broken, case.target, case.known) == case.rebuild()


def test_ctrl_c_ends_the_process_too(tmp_path: Path) -> None:
    broken, script = tmp_path / "broken.db", tmp_path / "script.py"
    with_expensive_indexes(broken, 20)
    script.write_text(
        "import sys; from pathlib import Path; from backupkit.sqlite import rebuilder\n"
        "rebuilder.rebuild(Path(sys.argv[1]), Path(sys.argv[2]), None, emit=lambda event: print(event, flush=True))"
    )
    parent = subprocess.Popen(
        [sys.executable, script, broken, tmp_path / "new.db"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert parent.stdout and parent.stdout.readline().startswith(b"Step(name='Reading the pages'")
    (worker,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.send_signal(signal.SIGINT)
    _, said = parent.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    assert not process.is_alive(int(worker), "")
