"""Temporary folders are removed at the end of their block, and those of a killed run by the next command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from backupkit.fs import descriptors, scratch
from small_app import BACKEND, SmallApp

HOLD = "from backupkit.fs import scratch\nwith scratch.folder() as it:\n    print(it, flush=True)\n    input()\n"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are made."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def held() -> tuple[subprocess.Popen[str], Path]:
    """Return a process that uses a temporary folder, and that folder with a file in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=BACKEND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    folder = Path(process.stdout.readline().rstrip("\n"))
    (folder / "inner").mkdir()
    (folder / "inner" / "row").write_text("of somebody")
    return process, folder


def test_a_folder_is_gone_with_its_block_and_closed_to_all_others(temporary: Path) -> None:
    with scratch.folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").touch()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_run_left_is_cleared_and_what_is_in_use_stays(temporary: Path) -> None:
    (killed, left), (alive, used) = held(), held()
    killed.kill()
    killed.wait()
    assert scratch.has_leftovers()
    scratch.clear()
    assert not left.exists()
    assert (used / "inner" / "row").exists() and not scratch.has_leftovers()
    alive.communicate("\n")
    assert list(temporary.iterdir()) == []


def test_what_is_not_ours_stays_though_it_bears_such_a_name(temporary: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    (temporary / f"{scratch.PREFIX}aaaaaaaa").symlink_to(other)
    (temporary / f"{scratch.PREFIX}bbbbbbbb").touch()
    (temporary / f"{scratch.PREFIX}long-name").mkdir()
    (temporary / f"{scratch.PREFIX}cccccccc").mkdir()
    (temporary / f"{scratch.PREFIX}cccccccc").chmod(0o777)
    there = sorted(os.listdir(temporary))
    scratch.clear()
    assert sorted(os.listdir(temporary)) == there and (other / "file").exists()


@pytest.mark.parametrize("command", [("recover",), ("backup", "one")])
def test_the_next_command_that_writes_clears_it(app: SmallApp, temporary: Path, command: tuple[str, ...]) -> None:
    killed, left = held()
    killed.kill()
    killed.wait()
    app.command("list", check=0, env={"TMPDIR": str(temporary)})
    assert left.exists(), "what only reads clears nothing away"
    app.command(*command, check=0, env={"TMPDIR": str(temporary)})
    assert list(temporary.iterdir()) == []


def interrupt_at(count: int) -> bool:
    """Use a temporary folder, interrupted at that call of the code that makes and removes it; return whether.

    Python raises what a signal asks for when a function begins, and when native code returns.
    """
    left = count

    def at_call(frame: FrameType, event: str, _value: object) -> None:
        nonlocal left
        left -= frame.f_code.co_filename in WATCHED and event in ("call", "c_return")
        if not left:
            left = -1
            raise KeyboardInterrupt

    sys.setprofile(at_call)
    try:
        with scratch.folder() as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "row").touch()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


WATCHED = (scratch.__file__, descriptors.__file__)


def test_interrupted_at_any_call_it_leaves_no_folder(temporary: Path) -> None:
    count = 1
    while interrupt_at(count):
        assert list(temporary.iterdir()) == [], f"interrupted at call {count}"
        count += 1
    assert count > 40
