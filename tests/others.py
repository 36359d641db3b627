"""An app whose folders belong to another user while root runs the toolkit, and what that user can do meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from small_app import COMMAND, Result, SmallApp, clean_environment

USER = 4242  # this user has no name, and owns only what `give` gives it


def python_for_all() -> list[str]:
    """Return a Python that any user of this machine can start, with this one's packages."""
    folders = (Path(sys.base_prefix), *Path(sys.base_prefix).parents)
    if all(folder.stat().st_mode & 0o005 == 0o005 for folder in folders):
        return [sys.executable]
    python = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    assert python, f"{sys.base_prefix} is closed to other users, and there is no such Python elsewhere"
    return ["env", f"PYTHONPATH={sysconfig.get_path('purelib')}", python]


def give(user: int, *places: Path) -> None:
    """Give the places and everything below them to that user."""
    for place in places:
        for path in (place, *place.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)


def as_root(
    app: SmallApp, *arguments: str, prefix: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> Result:
    """Run the command as root."""
    done = subprocess.run(
        [*prefix, *python_for_all(), str(COMMAND), *arguments],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "HOME": "/root", **(env or {})},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def as_other(act: Callable[[], object], user: int = USER) -> None:
    """Run the act in a process of that user."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def owners(*places: Path) -> set[int]:
    """Return the owners of the places and of everything below them."""
    return {path.lstat().st_uid for place in places for path in (place, *place.rglob("*"))}
