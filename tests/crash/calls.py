"""System calls that change the disk: recorded in a clean run, then interrupted one by one (`strace -e inject`)."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import lab

WRITES = "write pwrite64 writev pwritev pwritev2 copy_file_range sendfile splice ftruncate truncate fallocate"
SYNCS = "fsync fdatasync syncfs sync sync_file_range msync"
NAMES = "rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat rmdir mkdir mkdirat mknod mknodat"
DRESS = "chmod fchmod fchmodat chown fchown lchown fchownat utimensat utimes futimesat setxattr fsetxattr lsetxattr"
OPENS = "open openat openat2 creat"
CHANGING = " ".join((WRITES, SYNCS, NAMES, DRESS, OPENS)).split()
TRACE = ("-e", f"trace=?{',?'.join(CHANGING)}", "-e", "signal=none")
CREATING = re.compile(r"O_CREAT|O_TRUNC")
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)")
# The calls that can fail for lack of space or of rights; to the kernel, Python's and SQLite's are the same.
FULL = set(f"{WRITES} {OPENS} fsync fdatasync syncfs mkdir mkdirat rename renameat link symlink symlinkat".split())
FORBIDDEN = set(f"{NAMES} {DRESS} {OPENS}".split())


@dataclass(frozen=True)
class Call:
    """The `number`th call of that name in its process, as strace counts, and its line in the trace.

    It is the `nth` of that name that changes something, counted from 0.
    """

    name: str
    number: int
    line: str
    nth: int = 0

    @property
    def shown(self) -> str:
        return f"{self.name} {self.number}"


def recorded(trace: Path) -> list[Call]:
    """Return every call in the trace that changes something, in order."""
    counted: Counter[tuple[str, str]] = Counter()
    changing: Counter[str] = Counter()
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match and match[2] in CHANGING:
            counted[match[1], match[2]] += 1
            call = Call(match[2], counted[match[1], match[2]], match[3], changing[match[2]])
            if not _changes_nothing(call):
                changing[match[2]] += 1
                found.append(call)
    return found


def _changes_nothing(call: Call) -> bool:
    """Return whether the call is left out, because no state depends on it.

    Left out are: opening without creating; writing to stdout, stderr or a pipe; and enlarging a `-shm` file by more
    than its first page. That file is shared memory: SQLite remakes it whenever no process has the database open.
    """
    if call.name in OPENS.split():
        return not CREATING.search(call.line)
    if call.name in ("write", "writev"):
        return re.match(r"[12]<|\d+<(pipe|socket|/dev)", call.line) is not None
    return call.name == "pwrite64" and "-shm>" in call.line and not call.line.rstrip().endswith(", 4095) = 1")


def record(known: lab.Known, place: Path) -> list[Call]:
    """Return the calls of a clean run of the scenario that change something."""
    with lab.fresh(known.template, place / f"{known.scenario.name}-recorded-{os.getpid()}") as world:
        trace = world.root / "trace"
        ran = lab.run(world, known.scenario.argv, known.scenario.environment, strace=(*TRACE, "-y"), trace=trace)
        assert ran.code == known.code, ran.err
        return recorded(trace)


def errors_of(call: Call, names: tuple[str, ...]) -> list[str]:
    """Return which of these errors the call can return; `ENOSPC+` also fails every later call of its name."""
    may = {"EIO"}
    may |= {"ENOSPC", "ENOSPC+", "EDQUOT", "EDQUOT+"} if call.name in FULL else set()
    may |= {"EACCES", "EROFS"} if call.name in FORBIDDEN else set()
    return [name for name in names if name in may]


def visit_kill(known: lab.Known, place: Path, call: Call, number: int) -> tuple[bool, list[tuple[str, str]]]:
    """Kill the command at that call; return whether it was killed, and what is wrong then."""
    with lab.fresh(known.template, place / f"{known.scenario.name}-{os.getpid()}-{number}") as world:
        strace = ("-e", f"trace={call.name}", "-e", f"inject={call.name}:signal=KILL:when={call.number}")
        ran = lab.run(world, known.scenario.argv, known.scenario.environment, strace=strace)
        killed = ran.code == -signal.SIGKILL
        wrong = lab.aftermath(known, world, number, None if killed else ran.code, ran.err)
        return killed, [(call.shown, one) for one in wrong]


def visit_error(known: lab.Known, place: Path, call: Call, error: str, number: int) -> list[tuple[str, str]]:
    """Make that call (with `+`, every later one of its name too) fail with that error; return what is wrong then.

    If another call failed, number the call anew in a clean run of this process, and retry: a process that has asked
    for a user's name before opens one file less, and some runs make one call more.
    """
    for attempt in range(5):
        if attempt:
            call = _numbered_anew(known, place, call)
        with lab.fresh(known.template, place / f"{known.scenario.name}-{os.getpid()}-{number}") as world:
            name, forever = error.removesuffix("+"), error[len(error.removesuffix("+")) :]
            when = f"inject={call.name}:error={name}:when={call.number}{forever}"
            strace, trace = ("-y", "-e", f"trace={call.name}", "-e", when), world.root / "trace"
            ran = lab.run(world, known.scenario.argv, known.scenario.environment, strace=strace, trace=trace)
            if not _is_that_call(call, trace.read_text(errors="replace")):
                continue
            before = None if forever else _settled(world)
            wrong = lab.aftermath(known, world, number, ran.code, ran.err)
            if before is not None and ran.code not in (0, 3) and before != (now := lab.live(world)):
                changed = "database" if before.database != now.database else lab.differing(before.uploads, now.uploads)
                wrong.append(f"it ended with {ran.code}, and the next command changed the live data: {changed}")
            wrong += _code_wrong(call, error, ran)
            return [(f"{call.shown} {error}", one) for one in wrong]
    return [(f"{call.shown} {error}", "the call was not reached in five runs")]


def _numbered_anew(known: lab.Known, place: Path, call: Call) -> Call:
    """Return the same change, as a clean run numbers it now."""
    same = [one for one in record(known, place) if one.name == call.name]
    return same[min(call.nth, len(same) - 1)]


def _is_that_call(call: Call, trace: str) -> bool:
    """Return whether the injected error hit a call that, if it opens a file, creates it as the recorded call did."""
    failed = next((line for line in trace.splitlines() if line.endswith("(INJECTED)")), "")
    return bool(failed) and (call.name not in OPENS.split() or CREATING.search(failed) is not None)


def _settled(world: lab.World) -> lab.Live:
    """Return the live data right after the command, read in a copy, because reading may change a hot WAL."""
    with lab.fresh(world.root, world.root.with_name(f"{world.root.name}-look")) as copied:
        found = lab.live(copied)
    ours = {path: entry for path, entry in found.uploads.items() if not path.startswith(lab.STAGING)}
    return lab.Live(found.database, ours)


def _code_wrong(call: Call, error: str, ran: lab.Ran) -> list[str]:
    """Check the exit code: 15 for a full disk, unless SQLite reports only "disk I/O error"; otherwise 1 or 13."""
    if ran.code in (0, 3):
        return []
    allowed = {1, 13}
    if error[:6] in ("ENOSPC", "EDQUOT"):
        allowed = {1, 13, 15} if _hidden_by_sqlite(call, error) else {15}
    return (
        [] if ran.code in allowed else [f"it ended with {ran.code} on {error} of {_short(call.line)}: {ran.err[-300:]}"]
    )


def _hidden_by_sqlite(call: Call, error: str) -> bool:
    """Return whether SQLite hides the error: only ENOSPC when it writes pages is SQLITE_FULL, else SQLITE_IOERR."""
    if not re.search(r"\.db(-wal|-shm|-journal)?[\">]|/data>", call.line):
        return False
    return error != "ENOSPC" or call.name != "pwrite64" or "-shm" in call.line


def _short(line: str) -> str:
    return re.sub(r"/\S*/app/", "", line)[:80]
