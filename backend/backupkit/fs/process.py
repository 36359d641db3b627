"""Processes and users: which process has a file open, who we are, and becoming the user who owns a place."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_MODULE_FOLDER = Path(__file__).resolve().parents[2]
WORTH_A_THREAD = 16 << 20
_MOST_LINKS = 40  # on the way to one file: Linux's own limit


def identity() -> str:
    """Return this process as another person can find it: `pid 41 on host`."""
    return named(os.getpid(), host())


def named(pid: int, host: str) -> str:
    """Return the same text for that process."""
    return f"pid {pid} on {host}"


def host() -> str:
    """Return this machine's name; in a container, the container's."""
    return socket.gethostname()


class _ImmediateExecutor(Executor):
    """An executor that does the work before `submit` returns."""

    def submit(self, work: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def optional_worker(size: int) -> Executor:
    """Return an executor with a second thread if there are enough bytes for it to pay; else one that works at once."""
    return ThreadPoolExecutor(1) if size >= WORTH_A_THREAD else _ImmediateExecutor()


def holders(path: Path, *others: Path) -> list[str]:
    """Return the other processes that have one of the files open or locked, as `pid 41 (python)`, as far as shown.

    Linux shows them below /proc, within one container only its own. Everyone sees who holds a lock; only the file's
    owner and a root that may trace see who merely has it open.
    """
    wanted = [facts for file in (path, *others) if (facts := _facts(file))]
    try:
        opened = {pid for pid in os.listdir("/proc") if pid.isdigit() and any(_has_open(pid, one) for one in wanted)}
    except OSError:
        return []
    found = {int(pid) for pid in (*opened, *(pid for _, pid in _locks_on(*wanted)))} - {os.getpid(), 0}
    return [f"pid {pid} ({_name(str(pid))})" for pid in sorted(found)]


def _facts(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _locks_on(*wanted: os.stat_result) -> list[tuple[str, str]]:
    """Return kind and pid of the locks held on these files, as far as /proc/locks shows them.

    It has lines like `1: POSIX  ADVISORY  WRITE 41 fd:01:1234 0 EOF`: the device in hex, then the inode.
    """
    places = {f"{os.major(one.st_dev):02x}:{os.minor(one.st_dev):02x}:{one.st_ino}" for one in wanted}
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    fields = (line.replace("-> ", "").split() for line in lines)
    return [(field[1], field[4]) for field in fields if len(field) > 5 and field[5] in places and field[4].isdigit()]


class Locker(NamedTuple):
    """A process that holds the kernel's lock on an open file or folder."""

    pid: int
    name: str
    user: str


def locker(handle: int) -> Locker | None:
    """Return who holds the kernel's lock (flock) on an open file or folder, or None if we cannot see it."""
    for kind, pid in _locks_on(os.fstat(handle)):
        with contextlib.suppress(OSError):  # it is of another container, or has ended
            if kind == "FLOCK":
                return Locker(int(pid), _name(pid), _user(os.stat(f"/proc/{pid}").st_uid))
    return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _has_open(pid: str, wanted: os.stat_result) -> bool:
    try:
        return any(_is_same_file(f"/proc/{pid}/fd/{handle}", wanted) for handle in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _is_same_file(link: str, wanted: os.stat_result) -> bool:
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
    """Return the path of this Python; raise `FileNotFoundError` if a program embeds Python and does not tell it."""
    if not sys.executable:
        raise FileNotFoundError(errno.ENOENT, "Python does not know its own path")
    return sys.executable


def start_module(name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a module of ours in a child process, with pipes to it and from it; Ctrl-C does not reach it."""
    path = os.pathsep.join(filter(None, (str(_MODULE_FOLDER), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [python(), "-P", "-m", name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the parent reports what went wrong
        env={**os.environ, **environment, "PYTHONPATH": path},
        start_new_session=True,
    )


def end_group(child: subprocess.Popen[Any]) -> None:
    """Kill the process and everything it started that stayed in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def user() -> str:
    """Return the user this process runs as, by name if there is one."""
    return user_named(os.geteuid())


def user_named(uid: int) -> str:
    """Return the name of that user, or `uid 1234` if there is none."""
    entry = _entry(uid)
    return entry.pw_name if entry else f"uid {uid}"


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def line_that_makes(folder: Path, uid: int, gid: int) -> str:
    """Return the command that makes the folder, as root, for that user and group."""
    entry, group = _entry(uid), None
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(gid).gr_name
    return shlex.join(
        ["sudo", "install", "-d", "-o", entry.pw_name if entry else str(uid), "-g", group or str(gid), str(folder)]
    )


def become(uid: int, gid: int) -> None:
    """Give up root's rights for those of that user, in this process and its children, with no way back.

    Raise `PermissionError` in a container that may not change users.
    """
    entry, home_of_root = _entry(uid), _entry(0)
    if gid == 0:  # `chown USER` leaves root's group on a folder; it belongs to no user
        gid = entry.pw_gid if entry else uid
    os.setgroups(os.getgrouplist(entry.pw_name, gid) if entry else [gid])
    os.setgid(gid)
    os.setuid(uid)
    if home_of_root and os.environ.get("HOME") == home_of_root.pw_dir:
        os.environ["HOME"] = entry.pw_dir if entry else "/"
    if entry:
        os.environ |= {name: entry.pw_name for name in ("USER", "LOGNAME") if name in os.environ}


def owner_of_place(folder: Path) -> tuple[int, int]:
    """Return user and group that own the folder, or will own it: root only if nobody else can replace it.

    Raise `PermissionError` with the path of a link on the way there that a third user has made.
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
    """Return every link that is followed on the way to the path, links within links included."""
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


def start_time_of(pid: int) -> str:
    """Return when the process started, in the kernel's own count; empty if there is none, or it is not shown."""
    return "".join(_stat_fields(pid)[19:20])


def processor_time(pid: int) -> str:
    """Return how much processor time the process has used, in the kernel's own count; empty if it is not shown."""
    return " ".join(_stat_fields(pid)[11:13])


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the program's name, which may hold anything; empty if none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int, since: str) -> bool:
    """Return whether that very process runs on this host, in this container; without `since`, any with its pid."""
    if since:
        return start_time_of(pid) == since
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
