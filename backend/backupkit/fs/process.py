"""Processes and users: who holds a file, who we are, and becoming the user who owns a place."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_MODULE_FOLDER = Path(__file__).resolve().parents[2]
WORTH_A_THREAD = 16 << 20
_MOST_LINKS = 40  # on the way to one file, as Linux has it


def identity() -> str:
    """This process, as another person can find it: `pid 41 on host`."""
    return named(os.getpid(), host())


def named(pid: int, host: str) -> str:
    """That process, in the same words."""
    return f"pid {pid} on {host}"


def host() -> str:
    """This machine's name; in a container, the container's."""
    return socket.gethostname()


class _AtOnce(Executor):
    """Does what it is given before it returns."""

    def submit(self, work: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def optional_worker(size: int) -> Executor:
    """A second thread, where there are so many bytes to work on that it pays; else one that does it at once."""
    return ThreadPoolExecutor(1) if size >= WORTH_A_THREAD else _AtOnce()


def holders(path: Path, *optional_worker: Path) -> list[str]:
    """The other processes that have one of the files open or locked, as `pid 41 (python)`; empty where none is shown.

    Linux shows them below /proc, within one container only its own. Who locks is shown to everyone, who merely has
    the file open only to its owner and to a root that may trace.
    """
    wanted = [facts for file in (path, *optional_worker) if (facts := _facts(file))]
    try:
        opened = {pid for pid in os.listdir("/proc") if pid.isdigit() and any(_has_open(pid, one) for one in wanted)}
    except OSError:
        return []
    found = {int(pid) for pid in opened | _lockers(wanted)} - {os.getpid(), 0}
    return [f"pid {pid} ({_name(str(pid))})" for pid in sorted(found)]


def _facts(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _lockers(wanted: list[os.stat_result]) -> set[str]:
    """Process ids in /proc/locks: `1: POSIX  ADVISORY  WRITE 41 fd:01:1234 0 EOF`, device in hex, then the inode."""
    names = {f"{os.major(one.st_dev):02x}:{os.minor(one.st_dev):02x}:{one.st_ino}" for one in wanted}
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    fields = (line.replace("-> ", "").split() for line in lines)
    return {field[4] for field in fields if len(field) > 5 and field[5] in names and field[4].isdigit()}


def _has_open(pid: str, wanted: os.stat_result) -> bool:
    try:
        return any(_same(f"/proc/{pid}/fd/{handle}", wanted) for handle in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _same(link: str, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(link), wanted)
    except OSError:
        return False


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def python() -> str:
    """The Python that runs this; `FileNotFoundError` in a program that has Python in it and does not say where."""
    if not sys.executable:
        raise FileNotFoundError(errno.ENOENT, "Python does not know its own path")
    return sys.executable


def start_module(name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """A module of ours at work in a process of its own, with pipes to it and from it; Ctrl-C does not reach it."""
    path = os.pathsep.join(filter(None, (str(_MODULE_FOLDER), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [python(), "-P", "-m", name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what went wrong is said by the one who started it
        env={**os.environ, **environment, "PYTHONPATH": path},
        start_new_session=True,
    )


def end_group(child: subprocess.Popen[Any]) -> None:
    """Neither it nor what it started is running, as far as that stayed in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def user() -> str:
    """The user this process runs as, by name where there is one."""
    return user_named(os.geteuid())


def user_named(uid: int) -> str:
    """The name of that user, or `uid 1234` where there is none."""
    entry = _entry(uid)
    return entry.pw_name if entry else f"uid {uid}"


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def become(uid: int, gid: int) -> None:
    """Root has the rights of that user from here on, in this process and its children, and no way back.

    Raises `PermissionError` in a container that may not change users.
    """
    entry, home_of_root = _entry(uid), _entry(0)
    if gid == 0:  # root's group is nobody's own: a folder keeps it that was given away by `chown USER`
        gid = entry.pw_gid if entry else uid
    os.setgroups(os.getgrouplist(entry.pw_name, gid) if entry else [gid])
    os.setgid(gid)
    os.setuid(uid)
    if home_of_root and os.environ.get("HOME") == home_of_root.pw_dir:
        os.environ["HOME"] = entry.pw_dir if entry else "/"
    if entry:
        os.environ |= {name: entry.pw_name for name in ("USER", "LOGNAME") if name in os.environ}


def owner_of_place(folder: Path) -> tuple[int, int]:
    """The user and group to whom a folder belongs, or will belong: root only where nobody else can replace it.

    Raises `PermissionError` with the path of a link that a third user has put on the way there.
    """
    real = Path(os.path.realpath(folder))
    facts = next(found for one in (real, *real.parents) if (found := _facts(one)))
    if facts.st_uid == 0:
        above = (found for one in real.parents if (found := _facts(one)))
        facts = next((found for found in above if found.st_uid != 0), facts)
    for link in _links_on_the_way(folder):
        if os.lstat(link).st_uid not in (0, facts.st_uid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(link))
    return facts.st_uid, facts.st_gid


def _links_on_the_way(path: Path) -> list[Path]:
    """Every link that is followed on the way to the path, the links in links included."""
    found: list[Path] = []
    left, here = list(path.absolute().parts[1:]), Path("/")
    while left and len(found) < _MOST_LINKS:
        step = left.pop(0)
        here = here.parent if step == ".." else here / step
        if not here.is_symlink():
            continue
        found.append(here)
        target = Path(os.readlink(here))
        left = [*(part for part in target.parts if part != "/"), *left]
        here = Path("/") if target.is_absolute() else here.parent
    return found


def born(pid: int) -> str:
    """When that process began, in the kernel's own count; empty where there is none, or it is not shown."""
    return "".join(_counts(pid)[19:20])


def processor_time(pid: int) -> str:
    """How much processor time that process has used, in the kernel's own count; empty where it is not shown."""
    return " ".join(_counts(pid)[11:13])


def _counts(pid: int) -> list[str]:
    """What /proc/PID/stat has after the program's name, which may hold anything; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int, since: str) -> bool:
    """Whether that very process is running on this host, in this container, and not another of its number."""
    if since:
        return born(pid) == since
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
