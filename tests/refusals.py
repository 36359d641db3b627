"""Check how a refusal looks, and that it changed nothing; for the tests of bad input."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backupkit.config.deployment import in_full
from small_app import COMMAND, Result, SmallApp, clean_environment
from whole_program import program

# Files that a refused command may leave: the lock, and the record of the refusal.
TRACES = (".lock", ".state", ".state/history.jsonl")

Picture = dict[str, tuple[str, int, int, int, bytes]]


def picture(app: SmallApp) -> Picture:
    """Return every entry of the live data and the backups folder: kind, mode, owner, modification time, content."""
    found: Picture = {}
    for top in (app.database.parent, app.uploads, app.backups):
        found |= {f"{top.name}/{path}": facts for path, facts in _entries(top)}
    traces = tuple(f"{app.backups.name}/{name}" for name in TRACES)
    return {path: facts for path, facts in found.items() if not path.startswith(traces)}


def _entries(top: Path) -> Iterator[tuple[str, tuple[str, int, int, int, bytes]]]:
    if not os.path.lexists(top):
        return
    yield ".", _facts(top)
    for root, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(root, name)
            yield str(path.relative_to(top)), _facts(path)


def _facts(path: Path) -> tuple[str, int, int, int, bytes]:
    facts = path.lstat()
    mode, owner = stat.S_IMODE(facts.st_mode), facts.st_uid
    if stat.S_ISLNK(facts.st_mode):
        return "link", mode, owner, facts.st_mtime_ns, os.fsencode(os.readlink(path))
    if stat.S_ISREG(facts.st_mode):
        content = path.read_bytes() if os.access(path, os.R_OK) else b"cannot be read"
        return "file", mode, owner, facts.st_mtime_ns, content
    # A draft that came and went changes a folder's time, which counts as no change.
    return ("folder" if stat.S_ISDIR(facts.st_mode) else "special"), mode, owner, 0, b""


def assert_refusal(result: Result, code: int, names: str, hint: str) -> None:
    """Assert the exit code, and that stderr ends with one sentence that names the thing, and what to do next.

    Stdout is empty, or with --json holds the same in one document. `hint` is a pattern; a command in backticks in it is
    printed in full.
    """
    hint = in_full(hint, {})
    assert "Traceback" not in result.err, result.err
    assert result.code == code, f"ended with {result.code}, not {code}:\n{result.out}{result.err}"
    *_, error, following = result.err.splitlines()
    if result.out:
        found = json.loads(result.out)["error"]
        assert found["code"] == code and error == f"Error: {found['message']}"
    assert error.startswith("Error: ") and error.endswith("."), result.err
    assert names in error, result.err
    assert re.match(f"  Next: (?=.*({hint})).+", following), result.err
    assert result.err.count("Error: ") == 1, result.err


def run_here(app: SmallApp, *arguments: str, env: Mapping[str, str] | None = None, check: int | None = None) -> Result:
    """Run a command as `app.command` does, but in this process, which is faster."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name in set(os.environ) - set(clean_environment()):
            patch.delenv(name)
        for name, value in {"BACKUP_APP_DIR": str(app.folder), **(env or {})}.items():
            patch.setenv(name, value)
        patch.setattr("sys.stdin", io.StringIO())
        code = _code_of(arguments)
    assert check is None or code == check, f"{arguments} ended with {code}:\n{out.getvalue()}{err.getvalue()}"
    return Result(code, out.getvalue(), err.getvalue())


def _code_of(arguments: tuple[str, ...]) -> int:
    try:
        program()(list(arguments), prog_name=COMMAND.name)
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def refused(
    app: SmallApp,
    *arguments: str,
    code: int,
    names: str = "",
    hint: str,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Assert that the command is refused in that way and changes nothing."""
    before = picture(app)
    result = run_here(app, *arguments, env=env)
    assert_refusal(result, code, names, hint)
    assert picture(app) == before
    return result


def refused_to_user(app: SmallApp, *arguments: str, code: int, names: str, hint: str) -> Result:
    """Like `refused`, as a user to whom file modes apply."""
    before = picture(app)
    result = as_user(app, *arguments)
    assert_refusal(result, code, names, hint)
    assert picture(app) == before
    return result


def as_user(app: SmallApp, *arguments: str) -> Result:
    """Run the command as a user to whom file modes apply: root drops the privileges that bypass them."""
    done = subprocess.run(
        [*without_privileges(), sys.executable, str(COMMAND), *arguments],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        cwd=app.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def without_privileges() -> list[str]:
    """Return the prefix that makes file modes apply to a command: as root, drop root's privileges."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv, or not to be root: apt install util-linux, or run the tests as an ordinary user")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


@contextlib.contextmanager
def another_process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a Python process that executes the code and prints a line; it lives until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys, time\n{code}\nprint('ready', flush=True)\nsys.stdin.read()"]
        + [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout and child.stdin
        assert child.stdout.readline() == "ready\n"
        try:
            yield child
        finally:
            child.stdin.close()
