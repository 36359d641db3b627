"""Worlds that are broken on purpose: copied from a template, hit by a fault, recovered, and compared.

A *scenario* is a world and a command. A *visit* runs the command in a fresh copy of that world, injects a fault at one
point, runs the next command in a new process, and returns what is wrong then.

The command runs for real, in a child forked from a process that has imported everything already: a visit takes a
tenth of a second, so that thousands are affordable. The checks (is the backup complete, is the state the old one or
the new one, is there litter) share no code with the product.
"""

from __future__ import annotations

import compileall
import contextlib
import ctypes
import errno
import gc
import hashlib
import importlib
import json
import os
import shutil
import signal
import sqlite3
import stat
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backupkit.cli.errors import end_on_signals
from backupkit.fs import process
from small_app import SmallApp, clean_environment
from whole_program import program

STAGING = ".backupkit-staging"
OURS = (".lock", ".state", ".rewind")  # hidden entries that may stay in the backups folder
FURTHER, FURTHER_TREE = ("data/cache.sqlite3", "storage/queue.sqlite3", "media/inner.sqlite3"), "media"
SEALED = {one: one if one.startswith(FURTHER_TREE) else Path(one).name for one in FURTHER}
INNER = "inner.sqlite3"  # a database inside a tree: compared by its contents, not as a file
TWO_THREADS = "BACKUP_TESTS_TWO_THREADS"  # in a scenario's environment: use a thread, as for a large database
NEXT_COMMANDS = (("recover",), ("list",), ("backup", "next"))
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# CPython 3.11's audit events that precede a change of files. `os.write`, `os.fsync`, `posix_fallocate`,
# `copy_file_range`, `sendfile` and SQLite's own calls raise none: other tests interrupt those by system call.
CHANGING = {
    "os.chflags",
    "os.chmod",  # fchmod and lchmod too
    "os.chown",  # fchown and lchown too
    "os.link",
    "os.mkdir",
    "os.remove",  # unlink too
    "os.removexattr",
    "os.rename",  # replace too
    "os.rmdir",
    "os.setxattr",
    "os.symlink",
    "os.truncate",  # ftruncate too
    "os.utime",
    "sqlite3.connect",
    "subprocess.Popen",
    "tempfile.mkdtemp",
    "tempfile.mkstemp",
}

Tree = dict[str, tuple[str, int, int, str]]
Event = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True)
class World:
    """The folders of one copy of the app; each may be a separate mount."""

    root: Path

    @property
    def app(self) -> Path:
        return self.root / "app"

    @property
    def database(self) -> Path:
        return self.app / "data" / "pats.db"

    @property
    def uploads(self) -> Path:
        return self.app / "uploads"

    @property
    def backups(self) -> Path:
        return self.app / "backups"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"


@dataclass(frozen=True)
class Live:
    """The live data: every row, schema line and main pragma of the database, every entry of the uploads."""

    database: Any
    uploads: Tree
    further: tuple[Any, ...] = ()
    """The further databases and the further tree, if the app has them."""


@dataclass(frozen=True)
class Ran:
    """How a command ended; negative codes are signals. `events` is the number of changing events it reached."""

    code: int
    out: str
    err: str
    events: int = 0


@dataclass(frozen=True)
class Scenario:
    """A command, and the world in which it runs; an event that `fails_at` picks fails, so that it must roll back.

    `safety`: the state before must be kept in a safety copy. `only_new`: only the state after is accepted.
    `left_out`: path endings of uploads that no backup has. `removes`: how many earlier backups the command removes.
    `uploads_first`: the uploads of the state after may be there with the rows of the state before.
    `disks`: the folders that are separate mounts.
    """

    name: str
    argv: tuple[str, ...]
    prepare: Callable[[SmallApp], None]
    safety: bool = False
    left_out: tuple[str, ...] = ()
    uploads_first: bool = False
    fails_at: Callable[[], Callable[[Event], bool]] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    only_new: bool = False
    removes: int = 0
    disks: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        return self.argv[0]


@dataclass(frozen=True)
class Known:
    """A scenario with its template, the state before and after a clean run, and the backups before and after."""

    scenario: Scenario
    template: Path
    old: Live
    new: Live
    code: int
    earlier: dict[str, Tree]
    earlier_after: dict[str, Tree]
    appeared: dict[str, Tree]
    events: int
    """Number of changing events of its run, including the rollback if it fails on purpose."""


# Commands


def run(
    world: World,
    argv: tuple[str, ...],
    environment: dict[str, str] | None = None,
    at: Callable[[int, Event], None] | None = None,
    strace: tuple[str, ...] = (),
    trace: Path | None = None,
) -> Ran:
    """Run the command in a child process. Call `at` before every changing event, which are numbered from 1."""
    ready, told = os.pipe(), os.pipe()
    # Opened by the parent, because strace may or may not see what the child opens.
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [os.open(os.devnull, os.O_RDONLY), *(os.open(world.root / one, writing, 0o600) for one in ("out", "err"))]
    child = os.fork()
    if not child:
        _be_the_command(world, argv, environment or {}, at, ready, told[1], streams)
    for handle in streams:
        os.close(handle)
    os.close(ready[0])
    os.close(told[1])
    tracer = _attach(child, strace, trace) if strace else None
    os.close(ready[1])  # the child continues once this end is closed
    status = os.waitpid(child, 0)[1]
    if tracer:
        tracer.wait()
        assert tracer.stderr
        tracer.stderr.close()
    with open(told[0], "rb") as report:
        events = int.from_bytes(report.read()[-4:], "big")
    out, err = ((world.root / name).read_text(errors="surrogateescape") for name in ("out", "err"))
    return Ran(os.waitstatus_to_exitcode(status), out, err, events)


def _be_the_command(
    world: World,
    argv: tuple[str, ...],
    environment: dict[str, str],
    at: Callable[[int, Event], None] | None,
    ready: tuple[int, int],
    told: int,
    streams: list[int],
) -> None:
    code = 70
    try:
        _let_be_traced()
        for number, handle in enumerate(streams):
            os.dup2(handle, number)
        os.environ.clear()
        os.environ.update(clean_environment() | {"BACKUP_APP_DIR": str(world.app), "TMPDIR": str(world.temporary)})
        os.environ.update({"BACKUP_BUSY_TIMEOUT": "5", "BACKUP_LOCK_TIMEOUT": "5"} | environment)
        if TWO_THREADS in environment:
            process.WORTH_A_THREAD = 0
        sys.argv = ["backup_restore.py", *argv]
        os.chdir(world.root)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.close(ready[1])
        os.read(ready[0], 1)
        _listen(at, told)
        end_on_signals()
        program()()  # as `backup_restore.main` does
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def warm(place: Path) -> None:
    """Import and prepare what the commands need, before the first fork."""
    folder = Path(tempfile.mkdtemp(dir=place))
    program()
    world, app = World(folder), SmallApp.create(folder / "app", folder)
    world.temporary.mkdir()
    for argv in (
        ("backup", "first"),
        ("dump", "a.sql"),
        ("list",),
        ("verify", "first", "--test-restore"),
        ("restore", "first", "--force"),
        ("restore-dump", "a.sql", "--force"),
    ):
        child = os.fork()
        if not child:
            _name_modules(app, argv, folder / "modules")
        os.waitpid(child, 0)
        for name in (folder / "modules").read_text().split():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    shutil.rmtree(folder)
    gc.collect()
    gc.freeze()  # otherwise each fork's first collection would copy all memory


def _name_modules(app: SmallApp, argv: tuple[str, ...], target: Path) -> None:
    try:
        os.environ["BACKUP_APP_DIR"] = str(app.folder)
        sys.argv = ["backup_restore.py", *argv]
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            program()()
    except SystemExit:
        pass
    finally:
        target.write_text("\n".join(name for name in sys.modules if "/" not in name and " " not in name))
        os._exit(0)


def _listen(at: Callable[[int, Event], None] | None, told: int) -> None:
    """Count changing events and call `at` before each; do nothing without `at`."""
    if at is None:
        return
    count, busy = 0, False
    one_thread_at_a_time = threading.RLock()

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, busy
        if not _changes(name, arguments):
            return
        with one_thread_at_a_time:
            if busy:  # events that `at` causes do not count
                return
            count += 1
            busy = True
            try:
                os.write(told, count.to_bytes(4, "big"))
                at(count, (name, arguments))
            finally:
                busy = False

    sys.addaudithook(hook)


def _changes(name: str, arguments: tuple[Any, ...]) -> bool:
    if name == "open":
        return isinstance(arguments[2], int) and bool(arguments[2] & WRITING)
    return name in CHANGING


def _let_be_traced() -> None:
    """Let any process of this user trace this one, if the kernel restricts that (Yama)."""
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)


def _attach(child: int, strace: tuple[str, ...], trace: Path | None) -> Any:
    import subprocess

    command = ["strace", "-f", "-o", trace or os.devnull, *strace, "-p", str(child)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert tracer.stderr
    said = tracer.stderr.readline()
    assert b"attached" in said, said
    return tracer


def kill_at(point: int) -> Callable[[int, Event], None]:
    """Return a callback that kills its process before the changing event of that number."""

    def at(count: int, _event: Event) -> None:
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def failing(fails_at: Callable[[Event], bool], then: Callable[[int, Event], None]) -> Callable[[int, Event], None]:
    """Return a callback that calls `then` for each event, and fails the first that `fails_at` picks with ENOSPC."""
    failed = False

    def at(count: int, event: Event) -> None:
        nonlocal failed
        then(count, event)
        if not failed and fails_at(event):
            failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return at


def no_event(_count: int, _event: Event) -> None:
    """Do nothing before an event."""


# The state of a world


def live(world: World) -> Live:
    """Return the live data. SQLite may change files as it reads, so call this only after a world's last command."""
    return Live(_database(world.database), tree(world.uploads), _further(world))


def _further(world: World) -> tuple[Any, ...]:
    if not (world.app / FURTHER_TREE).is_dir():
        return ()
    return *(_database(world.app / one) for one in FURTHER), tree(world.app / FURTHER_TREE)


def _database(path: Path) -> Any:
    raw = {name.name: _digest(name) for name in sorted(path.parent.glob(f"{path.name}*")) if name.suffix != ".db-shm"}
    if path.name not in raw:
        return ("missing", sorted(raw))
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=5)) as connection:
            connection.execute("BEGIN")
            return _contents(connection)
    except sqlite3.DatabaseError:
        return ("broken", raw)


def _contents(connection: sqlite3.Connection) -> Any:
    schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    tables = [name for kind, name, _, _ in schema if kind == "table"]
    schema = [(*names, _in_order(sql)) for *names, sql in schema]
    rows = {table: sorted(connection.execute(f'SELECT * FROM "{table}"'), key=repr) for table in tables}
    pragmas = ("journal_mode", "user_version", "application_id", "page_size", "encoding")
    values = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
    checked = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return schema, rows, values, checked


def _in_order(sql: str | None) -> list[str]:
    """Return the lines of the SQL, sorted: Alembic writes a table's constraints in a different order each time."""
    return sorted(line.strip().rstrip(",") for line in (sql or "").splitlines())


def tree(folder: Path) -> Tree:
    """Return kind, mode, mtime and content of everything below the folder except `INNER`, by path."""
    if not folder.is_dir():
        return {"": ("missing", 0, 0, "")}
    paths = [path for path in sorted(folder.rglob("*")) if not path.name.startswith(INNER)]
    return {str(path.relative_to(folder)): _entry(path) for path in paths}


def _entry(path: Path) -> tuple[str, int, int, str]:
    facts = path.lstat()
    mode = stat.S_IMODE(facts.st_mode)
    if stat.S_ISLNK(facts.st_mode):
        return "link", mode, facts.st_mtime_ns, os.readlink(path)
    if stat.S_ISDIR(facts.st_mode):
        return "folder", mode, facts.st_mtime_ns, ""
    return "file", mode, facts.st_mtime_ns, _digest(path) if stat.S_ISREG(facts.st_mode) else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def visible(world: World) -> dict[str, Tree]:
    """Return everything in the backups folder that is not hidden: backups and dumps."""
    names = sorted(name for name in os.listdir(world.backups) if not name.startswith("."))
    return {name: _whole(world.backups / name) for name in names}


def _whole(path: Path) -> Tree:
    return {"": _entry(path)} | (tree(path) if path.is_dir() else {})


def litter(world: World) -> list[str]:
    """Return what the toolkit left behind; lock, state and points may stay, but no drafts inside them."""
    name = world.database.name
    found = [world.database.parent / one for one in os.listdir(world.database.parent)]
    names = (name, *(Path(one).name for one in FURTHER))
    strays = [
        path for path in found if path.name not in [f"{one}{end}" for one in names for end in ("", "-wal", "-shm")]
    ]
    strays += [path for path in world.backups.iterdir() if path.name[0] == "." and path.name not in OURS]
    strays += [path for path in world.app.rglob("*") if path.name.startswith(".draft") or STAGING in path.name]
    strays += list(world.temporary.iterdir())
    return sorted({str(path.relative_to(world.root)) for path in strays})


def incomplete(backup: Path) -> str:
    """Return why the backup is not complete, or "" if it is; uses only the standard library."""
    try:
        metadata = json.loads((backup / "backup_metadata.json").read_bytes())
        lines = [line.split("  ", 1) for line in (backup / "SHA256SUMS").read_text().splitlines()]
        sealed = {name: checksum for checksum, name in lines}
        there = {
            str(path.relative_to(backup)) for path in backup.rglob("*") if path.is_file() and not path.is_symlink()
        }
        if there != {*sealed, "SHA256SUMS"}:
            return f"{backup.name} holds other files than were sealed: {sorted(there ^ {*sealed, 'SHA256SUMS'})}"
        altered = [name for name, checksum in sealed.items() if _digest(backup / name) != checksum]
        if altered or metadata["backup_name"] != backup.name:
            return f"{backup.name} is not as it was sealed: {altered or metadata['backup_name']}"
        if not metadata["database"]["raw"]:
            with contextlib.closing(open_sealed(backup / metadata["database_file"])) as copy:
                if (said := copy.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                    return f"{backup.name}: {said}"
    except (OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
        return f"{backup.name} cannot be read: {type(error).__name__} {error}"
    return ""


def open_sealed(path: Path) -> sqlite3.Connection:
    """Open a finished database file read-only, and write nothing beside it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)


def holds(backup: Path, wanted: Live, with_uploads: bool) -> bool:
    """Return whether it is a safety copy of that database (of its raw files if broken) and, if asked, uploads."""
    metadata = json.loads((backup / "backup_metadata.json").read_bytes())
    if metadata["kind"] not in ("pre_restore", "pre_migration"):
        return False
    if with_uploads and tree(backup / "uploads") != wanted.uploads:
        return False
    for path, contents in zip(FURTHER, wanted.further, strict=False):
        with contextlib.closing(open_sealed(backup / SEALED[path])) as copy:
            if _contents(copy)[:2] != contents[:2]:
                return False
    if wanted.further and tree(backup / FURTHER_TREE) != wanted.further[-1]:
        return False
    if wanted.database[0] == "missing":
        return metadata["database_file"] is None
    if wanted.database[0] == "broken":
        return all(_digest(backup / name) == digest for name, digest in wanted.database[1].items())
    with contextlib.closing(open_sealed(backup / metadata["database_file"])) as copy:
        return bool(_contents(copy)[:2] == wanted.database[:2])


# Worlds


def learn(scenario: Scenario, place: Path) -> Known:
    """Make the scenario's template below `place`, and find out what a run without faults makes of it."""
    folder, templates = place / scenario.name, place / f"{scenario.name}-databases"
    world = World(folder)
    world.temporary.mkdir(parents=True)
    templates.mkdir()
    scenario.prepare(SmallApp.create(world.app, templates))
    compileall.compile_dir(world.app / "alembic", quiet=2)
    with fresh(folder, folder.with_name(f"{folder.name}-before"), scenario.disks) as before:
        old, earlier = live(before), visible(before)
    with fresh(folder, folder.with_name(f"{folder.name}-after"), scenario.disks) as after:
        ran = run(after, scenario.argv, scenario.environment, no_event)
        assert ran.code in (0, 3), f"{scenario.argv} ended with {ran.code}: {ran.err}"
        there, new = visible(after), live(after)
    events = ran.events
    if scenario.fails_at:
        with fresh(folder, folder.with_name(f"{folder.name}-failed"), scenario.disks) as failed:
            at = failing(scenario.fails_at(), no_event)
            events = run(failed, scenario.argv, scenario.environment, at).events
    appeared = {name: found for name, found in there.items() if name not in earlier}
    kept = {name: found for name, found in there.items() if name in earlier}
    assert len(earlier) - len(kept) == scenario.removes, f"{scenario.argv} left {sorted(kept)} of {sorted(earlier)}"
    return Known(scenario, folder, old, new, ran.code, earlier, kept, appeared, events)


@contextlib.contextmanager
def fresh(template: Path, place: Path, disks: tuple[str, ...] = (), options: str = "size=16m") -> Iterator[World]:
    """Yield a copy of the template, mtimes included, and delete it at the end; each of `disks` is a small tmpfs."""
    try:
        place.mkdir()
        for folder in disks:
            disk = place / "disks" / folder.replace("/", "-")
            disk.mkdir(parents=True)
            mount("tmpfs", disk, "tmpfs", options=options)
            (disk / "content").mkdir()
            (place / folder).mkdir(parents=True)
            mount(disk / "content", place / folder, flags=MS_BIND)
        shutil.copytree(template, place, symlinks=True, ignore=shutil.ignore_patterns("*-shm"), dirs_exist_ok=True)
        yield World(place)
    finally:
        for folder in reversed(disks):
            unmount(place / folder)
            unmount(place / "disks" / folder.replace("/", "-"))
        shutil.rmtree(place, ignore_errors=True)


MS_RDONLY, MS_REMOUNT, MS_BIND, MNT_DETACH = 1, 32, 4096, 2
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str | Path, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount like mount(8), without the time that a process takes."""
    names = [os.fsencode(one) for one in (source, target, kind)]
    if _libc.mount(*names, ctypes.c_ulong(flags), os.fsencode(options)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def unmount(target: Path) -> None:
    """Unmount the target if it is mounted."""
    _libc.umount2(os.fsencode(target), MNT_DETACH)


# Visits


def aftermath(known: Known, world: World, number: int, code: int | None = None, err: str = "") -> list[str]:
    """Run the next command after the fault, and return what is wrong then: nothing, if the promise was kept.

    `code` is the exit code of the faulted command, None if it was killed. `number` chooses the next command; `list`
    only reads and leaves drafts, so a backup follows it.
    """
    wrong: list[str] = []
    broken = known.old.database[0] in ("missing", "broken")
    following = NEXT_COMMANDS[number % len(NEXT_COMMANDS)]
    commands = [following] if following[0] != "list" else [following, ("backup", "next")]
    for argv in commands:
        ran = run(world, argv)
        if ran.code not in ((0, 3, 13) if broken and argv[0] == "backup" else (0, 3)):
            wrong.append(f"then {argv[0]} ended with {ran.code}: {ran.err.strip()}")
        if "Traceback" in ran.err:
            wrong.append(f"then {argv[0]} showed a traceback: {ran.err}")
    now = live(world)  # opens the database as the app does at its start, which clears what SQLite left for that
    # Uploads that could not be read are named in a warning, are in no safety copy, and stay.
    unsaved = _unsaved(known.old.uploads, now.uploads, err) if code == 3 else set()
    if code == 3 and _warned_of(differing(known.new.uploads, now.uploads), known.new.uploads, now.uploads, err):
        now = replace(now, uploads=known.new.uploads)
    wrong += [f"litter: {name}" for name in litter(world)]
    there = visible(world)
    wrong += _backups_wrong(known, world, there)
    wrong += _state_wrong(known, world, there, now, unsaved)
    if code in (0, 3) and now != known.new and known.scenario.fails_at is None:
        wrong.append(f"it ended with {code}, and its work is not done")
    if code is not None:
        wrong += _ending_wrong(code, err)
    return wrong


def _unsaved(old: Tree, now: Tree, err: str) -> set[str]:
    said = [line for line in err.splitlines() if line.endswith("and is not in the backup.")]
    named = {path for path in old if any(line.startswith(f"Warning: {path} ") for line in said)}
    return {path for path in named if old[path][::3] == now.get(path, ())[::3]}


def _warned_of(paths: list[str], wanted: Tree, now: Tree, err: str) -> bool:
    """Return whether each path has its kind and content and a warning names it: 3 means done, with warnings."""
    return all(
        path in wanted and path in now and wanted[path][::3] == now[path][::3] and f"Warning: {path} " in err
        for path in paths
    )


def _backups_wrong(known: Known, world: World, there: dict[str, Tree]) -> list[str]:
    wrong = []
    for name, before in known.earlier.items():
        may_go = name not in known.earlier_after
        if name in there and there[name] != before:
            wrong.append(f"the earlier {name} was altered: {differing(before, there[name])}")
        if name not in there and not may_go:
            wrong.append(f"the earlier {name} is gone")
    for name in there.keys() - known.earlier.keys():
        if (world.backups / name).is_dir():
            wrong += filter(None, [incomplete(world.backups / name)])
        elif there[name][""][3] != known.appeared.get(name, {"": ("", 0, 0, "")})[""][3]:
            wrong.append(f"the dump {name} is not complete")
    return wrong


def _state_wrong(known: Known, world: World, there: dict[str, Tree], now: Live, unsaved: set[str]) -> list[str]:
    if now == known.new or (known.scenario.uploads_first and now == replace(known.new, database=known.old.database)):
        if known.scenario.safety and not _kept(known, world, there, unsaved):
            return ["the state before is kept in no safety copy"]
        return []
    if now == known.old and not known.scenario.only_new:
        return []
    return [f"TORN: {torn(known, now)}"]


def _kept(known: Known, world: World, there: dict[str, Tree], unsaved: set[str]) -> bool:
    saved = {
        path: one
        for path, one in known.old.uploads.items()
        if path not in unsaved and not path.endswith(known.scenario.left_out)
    }
    wanted = replace(known.old, uploads=saved)
    fresh_ones = [world.backups / name for name in there if name not in known.earlier]
    with_uploads = known.old.uploads != known.new.uploads
    return any(holds(path, wanted, with_uploads) for path in fresh_ones if path.is_dir())


def _ending_wrong(code: int, err: str) -> list[str]:
    wrong = []
    if "Traceback" in err:
        wrong.append(f"it showed a traceback: {err}")
    elif code not in (0, 3) and ("Error: " not in err or "Next: " not in err):
        wrong.append(f"it ended with {code} without a sentence and a hint: {err!r}")
    return wrong


def torn(known: Known, now: Live) -> str:
    """Describe how the state differs from the one before and the one after."""
    said = []
    for name, wanted in (("old", known.old), ("new", known.new)):
        database = "same" if now.database == wanted.database else _database_difference(wanted.database, now.database)
        said.append(f"from the {name}: database {database}, uploads {differing(wanted.uploads, now.uploads) or 'same'}")
    return "; ".join(said)


def _database_difference(wanted: Any, now: Any) -> str:
    if wanted[0] in ("missing", "broken") or now[0] in ("missing", "broken"):
        return f"is {now[0] if now[0] in ('missing', 'broken') else 'readable'}"
    parts = zip(("schema", "rows", "pragmas", "check"), wanted, now, strict=True)
    return ", ".join(f"{name} differ" for name, one, two in parts if one != two)


def differing(one: Tree, two: Tree) -> list[str]:
    """Return the paths that are not the same in both, sorted."""
    return sorted(path for path in one.keys() | two.keys() if one.get(path) != two.get(path))


def visit_event(known: Known, place: Path, number: int) -> tuple[bool, list[tuple[str, str]]]:
    """Kill the command before its event of that number; return whether it was killed, and what is wrong then."""
    with fresh(known.template, place / f"{known.scenario.name}-{os.getpid()}-{number}", known.scenario.disks) as world:
        at = kill_at(number)
        if known.scenario.fails_at:
            at = failing(known.scenario.fails_at(), at)
        ran = run(world, known.scenario.argv, known.scenario.environment, at)
        killed = ran.code == -signal.SIGKILL
        wrong = aftermath(known, world, number, None if killed else ran.code, ran.err)
        if not killed:
            wrong += _survived_wrong(known, world, ran)
        return killed, [(str(number), one) for one in wrong]


def _survived_wrong(known: Known, world: World, ran: Ran) -> list[str]:
    wanted, codes = (known.old, (15,)) if known.scenario.fails_at else (known.new, (known.code,))
    wrong = [] if live(world) == wanted else ["a run that was not killed left another state than before"]
    return wrong if ran.code in codes else [*wrong, f"a run that was not killed ended with {ran.code}: {ran.err}"]
