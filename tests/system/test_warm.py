"""A command that the tests fork from a warm process behaves as in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import warm
from small_app import COMMAND, SmallApp, clean_environment

LOOK = """
import os, signal, sys
print(sys.argv[1:], os.getcwd(), sorted(os.environ), [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGCHLD)])
print(sys.stdin.read(), [os.isatty(number) for number in range(3)], sys.stdout.encoding, __name__)
print("and on stderr", file=sys.stderr)
os.path.exists("made") or os.mkdir("made")
sys.exit(3)
"""


def cold(arguments: list[str], env: dict[str, str], cwd: Path, program: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *program, *arguments], env=env, cwd=cwd, input="given", capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_a_program_has_its_own_arguments_streams_folder_environment_and_end(tmp_path: Path) -> None:
    environment, words = {**clean_environment(), "BACKUP_SEEN": "1"}, ["a b", "\udcff"]
    done = warm.run(words, environment, tmp_path, "given", program=LOOK)
    assert cold(words, environment, tmp_path, ["-c", LOOK]) == (done.returncode, done.stdout, done.stderr)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o777 & ~warm.umask()


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["show", "nope"], ["nope"], ["--help"], ["status"]])
def test_a_command_says_and_ends_as_in_a_new_interpreter(app: SmallApp, words: list[str]) -> None:
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder)}
    done = warm.run(words, environment, app.folder.parent)
    code, said, error = cold(words, environment, app.folder.parent, [str(COMMAND)])
    assert (code, error) == (done.returncode, done.stderr)
    assert without_free_space(said) == without_free_space(done.stdout)


def without_free_space(said: str) -> str:
    """Remove the line on free space, because other tests write to the same disk."""
    return re.sub(r"(?m)^  free .*$", "", said)


def test_nothing_of_one_command_is_seen_by_the_next(tmp_path: Path) -> None:
    environment = clean_environment()
    leave = "import os, sys, backupkit; backupkit.seen = 1; os.environ['SEEN'] = '1'; os.chdir('/')"
    assert warm.run([], environment, tmp_path, program=leave).returncode == 0
    look = "import os, backupkit; print(hasattr(backupkit, 'seen'), 'SEEN' in os.environ, os.getcwd())"
    assert warm.run([], environment, tmp_path, program=look).stdout == f"False False {tmp_path}\n"


def test_a_signal_and_a_deadline_end_it(tmp_path: Path) -> None:
    killed = warm.run([], clean_environment(), tmp_path, program="import os; os.kill(os.getpid(), 9)")
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([], clean_environment(), tmp_path, timeout=0.2, program="import time; time.sleep(600)")


def test_what_an_interpreter_reads_at_its_start_is_read(tmp_path: Path) -> None:
    look = "import sys; print(sys.flags.utf8_mode, sys.flags.optimize)"
    environment = {**clean_environment(), "PYTHONUTF8": "1", "PYTHONOPTIMIZE": "2"}
    assert warm.run([], environment, tmp_path, program=look).stdout == "1 2\n"


def test_it_imports_nothing_that_the_program_does_not_have(tmp_path: Path) -> None:
    look = "import sys; print([name for name in ('pytest', 'hypothesis', 'textual') if name in sys.modules])"
    assert warm.run([], dict(os.environ), tmp_path, program=look).stdout == "[]\n"
