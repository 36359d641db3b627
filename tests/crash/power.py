"""A model of what is on the disk after a power failure: files, folders and syncs, built from a run's system calls.

The model promises less than any file system in use, on purpose: a change of a name is on disk once a folder that it
concerns was synced, a change of a file once the file was; until then each change may be there or not, in any
combination. `data`, `uploads` and `backups` count as three file systems, so that one `syncfs` covers one of them.
The live `-shm` file is shared memory, and is lost.
"""

from __future__ import annotations

import codecs
import os
import random
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import calls
import lab

TRACE = ("-e", f"trace=?{',?'.join((*calls.CHANGING, 'lseek'))}", "-e", "signal=none", "-y", "-s", "1000000")
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?.*$")
_HANDLE = re.compile(r"(?:AT_FDCWD|(\d+))<(.*)>(?:\(deleted\))?$")  # a file without a name leaves nothing on disk
_BY_HANDLE = re.compile(r"/proc/self/fd/(\d+)(.*)")
_TIMES = re.compile(r"tv_sec=(\d+), tv_nsec=(\d+)")


class Unknown(Exception):
    """The run made a call that this model does not know."""


@dataclass(eq=False)
class Node:
    """A file, a folder or a link: its current state, its state on disk, and the changes in between."""

    kind: str
    mode: int
    time: int = 0
    data: bytearray = field(default_factory=bytearray)
    target: str = ""
    entries: dict[str, Node] = field(default_factory=dict)
    kept: dict[str, Node] = field(default_factory=dict)  # the entries that are on disk
    pending: list[tuple[Any, ...]] = field(default_factory=list)  # changes of content, mode and time
    disk: tuple[int, int, bytes] = (0, 0, b"")
    changed: int = 0  # the ctime, if it was there at the start

    def settle(self) -> None:
        self.pending = []
        self.disk = (self.mode, self.time, bytes(self.data))


@dataclass(frozen=True)
class Change:
    """A change of names that may not be on disk yet: the entry that was added, the entry that was removed."""

    put: tuple[Node, str, Node] | None
    taken: tuple[Node, str] | None

    def concerns(self, folders: set[int]) -> bool:
        return any(end is not None and id(end[0]) in folders for end in (self.put, self.taken))

    def apply(self, names: Callable[[Node], dict[str, Node]]) -> None:
        if self.taken:
            names(self.taken[0]).pop(self.taken[1], None)
        if self.put:
            names(self.put[0])[self.put[1]] = self.put[2]


class Disk:
    """The app's folder as the system calls of a run change it."""

    def __init__(self, app: Path) -> None:
        self.app = app
        self.root = _load(app)
        self.changes: list[Change] = []
        self.positions: dict[tuple[str, str], int] = {}
        self.opened: dict[str, str] = {}  # path of each file descriptor

    # System calls

    def play(self, line: str) -> bool:
        """Apply one line of the trace; return whether it changed what may be on disk."""
        match = _LINE.match(line)
        if not match:
            return False
        process, name, rest, result, path = match.groups()
        if int(result) < 0 and name != "lseek":
            return False
        if path:
            self.opened[result] = path
        arguments = _arguments(rest)
        if name == "lseek":
            self.positions[process, _number(arguments[0])] = int(result)
            return False
        handler = getattr(self, f"_{name}", None)
        if handler is None:
            raise Unknown(line[:200])
        return bool(handler(process, arguments, result))

    def _openat(self, process: str, arguments: list[str], result: str) -> bool:
        flags = arguments[2]
        self.positions[process, result] = -1 if "O_APPEND" in flags else 0
        where = self._place(arguments[0], arguments[1])
        if where is None:
            return False
        folder, name = where
        if name in folder.entries:
            if "O_TRUNC" not in flags:
                return False
            return self._change(folder.entries[name], "cut", 0)
        if "O_CREAT" not in flags:
            return False
        return self._put(folder, name, Node("file", int(arguments[3], 8)))

    def _open(self, process: str, arguments: list[str], result: str) -> bool:
        return self._openat(process, ["AT_FDCWD</>", *arguments], result)

    def _write(self, process: str, arguments: list[str], result: str) -> bool:
        node = self._file(arguments[0])
        data = _bytes(arguments[1])[: int(result)]
        key = process, _number(arguments[0])
        position = self.positions.get(key, 0)
        if node is None:
            return False
        at = len(node.data) if position < 0 else position
        if position >= 0:
            self.positions[key] = position + len(data)
        return self._change(node, "write", at, data)

    def _pwrite64(self, _process: str, arguments: list[str], result: str) -> bool:
        node = self._file(arguments[0])
        return node is not None and self._change(node, "write", int(arguments[3]), _bytes(arguments[1])[: int(result)])

    def _copy_file_range(self, process: str, arguments: list[str], result: str) -> bool:
        source, target = self._file(arguments[0]), self._file(arguments[2])
        assert source and target and arguments[1] == arguments[3] == "NULL", arguments
        ends = [(process, _number(arguments[0])), (process, _number(arguments[2]))]
        start, at = (self.positions.get(end, 0) for end in ends)
        copied = _handle(arguments[2])
        if copied.endswith("-shm"):  # written through memory, which no trace shows: the copy has the content
            source = Node("file", 0, data=bytearray(next(self.app.glob(f"backups/*/{Path(copied).name}")).read_bytes()))
        data = bytes(source.data[start : start + int(result)])
        self.positions.update({ends[0]: start + len(data), ends[1]: at + len(data)})
        return self._change(target, "write", at, data)

    def _ftruncate(self, _process: str, arguments: list[str], _result: str) -> bool:
        node = self._file(arguments[0])
        return node is not None and self._change(node, "cut", int(arguments[1]))

    def _fallocate(self, _process: str, _arguments: list[str], _result: str) -> bool:
        return False

    def _fsync(self, _process: str, arguments: list[str], _result: str) -> bool:
        node = self._file(arguments[0])
        if node is None:
            return False
        self._sync([node])
        return True

    def _fdatasync(self, _process: str, arguments: list[str], result: str) -> bool:
        return self._fsync(_process, arguments, result)

    def _syncfs(self, _process: str, arguments: list[str], _result: str) -> bool:
        path = self._inside(_handle(arguments[0]))
        if path is None:
            return False
        top = path.parts[0] if path.parts else ""
        self._sync(list(_below(self.root.entries[top] if top else self.root)))
        return True

    def _mkdir(self, _process: str, arguments: list[str], _result: str) -> bool:
        return self._mkdirat(_process, ["AT_FDCWD</>", *arguments], _result)

    def _mkdirat(self, _process: str, arguments: list[str], _result: str) -> bool:
        where = self._place(arguments[0], arguments[1])
        return where is not None and self._put(*where, Node("folder", int(arguments[2], 8)))

    def _symlink(self, _process: str, arguments: list[str], _result: str) -> bool:
        return self._symlinkat(_process, [arguments[0], "AT_FDCWD</>", arguments[1]], _result)

    def _symlinkat(self, _process: str, arguments: list[str], _result: str) -> bool:
        where = self._place(arguments[1], arguments[2])
        return where is not None and self._put(*where, Node("link", 0o777, target=_text(arguments[0])))

    def _link(self, _process: str, arguments: list[str], _result: str) -> bool:
        return self._linkat(_process, ["AT_FDCWD</>", arguments[0], "AT_FDCWD</>", arguments[1]], _result)

    def _linkat(self, _process: str, arguments: list[str], _result: str) -> bool:
        source, target = self._place(*arguments[:2]), self._place(*arguments[2:4])
        assert source and target
        return self._put(*target, source[0].entries[source[1]])

    def _unlink(self, _process: str, arguments: list[str], _result: str) -> bool:
        return self._unlinkat(_process, ["AT_FDCWD</>", *arguments], _result)

    def _rmdir(self, _process: str, arguments: list[str], _result: str) -> bool:
        return self._unlinkat(_process, ["AT_FDCWD</>", *arguments], _result)

    def _unlinkat(self, _process: str, arguments: list[str], _result: str) -> bool:
        where = self._place(arguments[0], arguments[1])
        if where is None:
            return False
        del where[0].entries[where[1]]
        self.changes.append(Change(None, where))
        return True

    def _rename(self, _process: str, arguments: list[str], _result: str) -> bool:
        return self._renameat(_process, ["AT_FDCWD</>", arguments[0], "AT_FDCWD</>", arguments[1]], _result)

    def _renameat(self, _process: str, arguments: list[str], _result: str) -> bool:
        source, target = self._place(*arguments[:2]), self._place(*arguments[2:4])
        assert source and target, arguments
        node = source[0].entries.pop(source[1])
        target[0].entries[target[1]] = node
        self.changes.append(Change((*target, node), source))
        return True

    _renameat2 = _renameat

    def _chmod(self, _process: str, arguments: list[str], _result: str) -> bool:
        return self._fchmodat(_process, ["AT_FDCWD</>", *arguments], _result)

    def _fchmodat(self, _process: str, arguments: list[str], _result: str) -> bool:
        where = self._place(arguments[0], arguments[1])
        return where is not None and self._change(where[0].entries[where[1]], "mode", int(arguments[2], 8))

    def _fchmod(self, _process: str, arguments: list[str], _result: str) -> bool:
        node = self._file(arguments[0])
        return node is not None and self._change(node, "mode", int(arguments[1], 8))

    def _utimensat(self, _process: str, arguments: list[str], _result: str) -> bool:
        node = self._file(arguments[0])
        if arguments[1] != "NULL":
            where = self._place(arguments[0], arguments[1])
            node = where[0].entries[where[1]] if where else None
        if node is None:
            return False
        seconds, rest = _TIMES.findall(arguments[2])[-1]
        return self._change(node, "time", int(seconds) * 10**9 + int(rest))

    def _fchown(self, _process: str, _arguments: list[str], _result: str) -> bool:
        return False

    _chown = _lchown = _fchownat = _fsetxattr = _setxattr = _lsetxattr = _fchown

    # Effects

    def _put(self, folder: Node, name: str, node: Node) -> bool:
        folder.entries[name] = node
        self.changes.append(Change((folder, name, node), None))
        return True

    def _change(self, node: Node, *what: Any) -> bool:
        node.pending.append(what)
        node.mode, node.time = _changed(node.mode, node.time, node.data, what)
        return True

    def _sync(self, nodes: list[Node]) -> None:
        folders = {id(node) for node in nodes}
        left: list[Change] = []
        for change in self.changes:
            if not change.concerns(folders):
                left.append(change)
                continue
            change.apply(lambda node: node.kept)
            if change.taken:  # the change that put it there no longer matters
                left = [one for one in left if not (one.put and one.put[:2] == change.taken)]
        self.changes = left
        for node in nodes:
            node.settle()

    # Paths

    def _inside(self, path: str) -> Path | None:
        relative = os.path.relpath(path, self.app)
        return None if relative.startswith("..") else Path(relative)

    def _place(self, handle: str, name: str) -> tuple[Node, str] | None:
        full = os.path.join(_handle(handle), _text(name))
        if by_handle := _BY_HANDLE.fullmatch(full):
            full = self.opened[by_handle[1]] + by_handle[2]
        path = self._inside(full)
        if path is None or not path.parts:
            return None
        node = self.root
        for part in path.parts[:-1]:
            node = node.entries[part]
        return node, path.parts[-1]

    def _file(self, handle: str) -> Node | None:
        path = self._inside(_handle(handle))
        node: Node | None = self.root
        for part in path.parts if path else ():
            node = node.entries.get(part) if node else None
        return node if path is not None else None

    # States after a power failure

    def after_power_loss(self, chance: random.Random) -> Iterator[tuple[str, State]]:
        """Yield the disk without unsynced changes, with only the names, with only the contents, with some of each."""
        for said, names, content in (
            ("all unsynced is lost", lambda: False, lambda: False),
            ("unsynced names are there, contents not", lambda: True, lambda: False),
            ("unsynced contents are there, names not", lambda: False, lambda: True),
            ("some of the unsynced is there", lambda: chance.random() < 0.5, lambda: chance.random() < 0.5),
        ):
            yield said, self._state(names, content)

    def _state(self, names: Callable[[], bool], content: Callable[[], bool]) -> State:
        kept: dict[int, dict[str, Node]] = {}

        def entries(node: Node) -> dict[str, Node]:
            return kept.setdefault(id(node), dict(node.kept))

        for change in self.changes:
            if names() and self._can(change, entries):
                change.apply(entries)
        for name in [one for one in entries(self.root.entries["data"]) if one.endswith("-shm")]:
            del entries(self.root.entries["data"])[name]
        return State(_frozen(self.root, entries, content))

    def _can(self, change: Change, entries: Callable[[Node], dict[str, Node]]) -> bool:
        """Return whether the change is possible: what it moves, and the folder it moves it into, exist."""
        if change.put and change.taken and change.taken[1] not in entries(change.taken[0]):
            return False
        return change.put is None or change.put[0] in _reachable(self.root, entries)


Inodes = dict[str, int]  # of each backup that a run left, by name


@dataclass(frozen=True)
class State:
    """A whole tree as values: kind, mode, mtime, content, target, entries, and the old ctime."""

    tree: tuple[Any, ...]

    def make(self, app: Path, inodes: Inodes) -> None:
        """Create the folder in that state.

        Correct the ctimes of files and the inodes of backups that staged files name: a copy cannot keep those.
        """
        noted: dict[bytes, bytes] = {}
        _make(self.tree, app, noted)
        for name, inode in inodes.items():
            if (backup := app / "backups" / name).is_dir():
                noted[b'"inode": %d,' % inode] = b'"inode": %d,' % backup.stat().st_ino
        for path in (*app.rglob(f"{lab.STAGING}/*"), *app.rglob(f"{lab.STAGING}/*/*")):
            if path.is_file() and path.stat().st_size < 1 << 16:
                text = path.read_bytes()
                for old, new in noted.items():
                    text = text.replace(old, new)
                if text != path.read_bytes():
                    path.write_bytes(text)


def _frozen(node: Node, entries: Callable[[Node], dict[str, Node]], content: Callable[[], bool]) -> tuple[Any, ...]:
    mode, time_, data = node.disk
    if node.pending:
        written = bytearray(data)
        for what in node.pending:
            if content():
                mode, time_ = _changed(mode, time_, written, what)
        data = bytes(written)
    inner = tuple((name, _frozen(one, entries, content)) for name, one in sorted(entries(node).items()))
    return node.kind, mode, time_, data, node.target, inner, node.changed


def _make(tree: tuple[Any, ...], path: Path, noted: dict[bytes, bytes]) -> None:
    kind, mode, time_, data, target, inner, changed = tree
    if kind == "folder":
        path.mkdir()
        for name, one in inner:
            _make(one, path / name, noted)
    elif kind == "link":
        path.symlink_to(target)
    else:
        path.write_bytes(data)
    if kind != "link":
        path.chmod(mode)
    if time_:
        os.utime(path, ns=(time_, time_), follow_symlinks=False)
    if changed:
        noted[str(changed).encode()] = str(path.lstat().st_ctime_ns).encode()


def _changed(mode: int, time_: int, data: bytearray, what: tuple[Any, ...]) -> tuple[int, int]:
    if what[0] == "write":
        _, at, new = what
        data.extend(bytes(max(0, at - len(data))))
        data[at : at + len(new)] = new
    elif what[0] == "cut":
        del data[what[1] :]
        data.extend(bytes(what[1] - len(data)))
    return (what[1] if what[0] == "mode" else mode), (what[1] if what[0] == "time" else time_)


def _below(node: Node) -> Iterator[Node]:
    yield node
    for one in node.entries.values():
        yield from _below(one)


def _reachable(node: Node, entries: Callable[[Node], dict[str, Node]]) -> Iterator[Node]:
    yield node
    for one in entries(node).values():
        yield from _reachable(one, entries)


def _load(path: Path) -> Node:
    facts = path.lstat()
    node = Node("file", stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, changed=facts.st_ctime_ns)
    if stat.S_ISLNK(facts.st_mode):
        node.kind, node.target = "link", os.readlink(path)
    elif stat.S_ISDIR(facts.st_mode):
        node.kind, node.entries = "folder", {one.name: _load(one) for one in path.iterdir()}
        node.kept = dict(node.entries)
    else:
        node.data = bytearray(path.read_bytes())
    node.settle()
    return node


def _arguments(text: str) -> list[str]:
    """Split the arguments of a call at the commas outside strings, brackets and strace's `<comments>`."""
    found, start, depth, quoted, index = [], 0, 0, False, 0
    while index < len(text):
        letter = text[index]
        if quoted:
            index += letter == "\\"
            quoted = letter != '"'
        elif letter == '"':
            quoted = True
        elif letter in "[{<":
            depth += 1
        elif letter in "]}>":
            depth -= 1
        elif letter == "," and not depth:
            found.append(text[start:index].strip())
            start = index + 1
        index += 1
    return [*found, text[start:].strip()]


def _handle(argument: str) -> str:
    match = _HANDLE.match(argument)
    assert match, argument
    return match[2]


def _number(argument: str) -> str:
    return argument.partition("<")[0]


def _bytes(argument: str) -> bytes:
    assert argument[0] == argument[-1] == '"', argument[:80]
    return codecs.decode(argument[1:-1], "unicode_escape").encode("latin-1")


def _text(argument: str) -> str:
    return os.fsdecode(_bytes(argument))


def _touched(path: Path) -> int:
    """Set the mtime to what it is, and return the new ctime."""
    os.utime(path, ns=(path.lstat().st_mtime_ns,) * 2, follow_symlinks=False)
    return path.lstat().st_ctime_ns


def record(known: lab.Known, place: Path) -> tuple[list[tuple[str, str, State]], Inodes]:
    """Return each possible state after a power failure (first place in the run, kind, state), and backups' inodes."""
    with lab.fresh(known.template, place / f"{known.scenario.name}-power") as world:
        times: set[int] = set()
        for path in sorted(world.uploads.rglob("*")):
            while (changed := _touched(path)) in times:
                time.sleep(0.001)  # each needs a ctime of its own
            times.add(changed)
        for path in sorted(world.uploads.rglob("*"), reverse=True):
            assert sum(one.lstat().st_ctime_ns == path.lstat().st_ctime_ns for one in world.uploads.rglob("*")) == 1
        disk, trace = Disk(world.app), world.root / "trace"
        ran = lab.run(world, known.scenario.argv, known.scenario.environment, strace=TRACE, trace=trace)
        assert ran.code == known.code, ran.err
        inodes = {path.name: path.stat().st_ino for path in world.backups.iterdir() if path.is_dir()}
        return _states(disk, trace.read_text(encoding="latin-1").splitlines()), inodes


def _states(disk: Disk, lines: list[str]) -> list[tuple[str, str, State]]:
    seen: set[State] = set()
    found = []
    for number, line in enumerate(["", *lines]):
        if line and not disk.play(line):
            continue
        for said, state in disk.after_power_loss(random.Random(number)):
            if state not in seen:
                seen.add(state)
                found.append((f"{number} {calls._short(line)}", said, state))
    return found


def visit(
    known: lab.Known, place: Path, where: str, said: str, state: State, inodes: Inodes, number: int
) -> list[tuple[str, str]]:
    """Make the state that a power failure there left; return what is wrong after the next command."""
    root = place / f"{known.scenario.name}-power-{os.getpid()}-{number}"
    try:
        world = lab.World(root)
        world.temporary.mkdir(parents=True)
        state.make(world.app, inodes)
        return [(where, f"{one} ({said})") for one in lab.aftermath(known, world, number)]
    finally:
        shutil.rmtree(root, ignore_errors=True)
