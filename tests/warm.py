"""Run commands as separate processes, without the time that an interpreter takes to start and import everything.

`run` is `subprocess.run` for the toolkit's command. Each command is forked from a process that has imported the
program and done nothing else. It has its own arguments, environment, folder and streams, and ends as any process does.
If the environment sets something that an interpreter reads only at its start, a new interpreter is started.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

BACKEND = Path(__file__).resolve().parent.parent / "backend"
COMMAND = BACKEND / "backup_restore.py"

# Variables that an interpreter, the C library or the dynamic linker reads once, when a process starts.
READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "TZ", "COVERAGE", "ASAN_")
BESIDE_OURS = (
    "alembic.autogenerate",
    "alembic.command",
    "alembic.script",
    "cryptography.hazmat.primitives.ciphers.aead",
    "pathspec",
    "rich.progress",
    "rich.table",
    "sqlalchemy.dialects.sqlite",
    "tomlkit",
    "typer.rich_utils",
    "zstandard",
)
LENGTH = struct.Struct("!i")
HUGE, MADV_COLLAPSE = 1 << 21, 25  # a kernel before Linux 6.1 answers with an error, and nothing is changed


def run(
    arguments: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None = None,
    input: str = "",
    timeout: float = 120,
    program: str = "",
    strace: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run the toolkit's command, or the text of a program, to its end; return its exit code and its output.

    With `strace`, that program follows the process, with these options, from the beginning of its work.
    """
    typed = [sys.executable, *(("-c", program) if program else (str(COMMAND),)), *arguments]
    if not _is_as_warmed(env):
        typed = [*(("strace", "-f", "-qq", *strace) if strace else ()), *typed]
        return subprocess.run(
            typed, env=env, cwd=cwd, input=input, capture_output=True, text=True, timeout=timeout, check=False
        )
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(os.fsencode(input))
        given.seek(0)
        started = _fork(arguments, env, cwd, [given.fileno(), out.fileno(), err.fileno()], program, strace)
        with started.connection:
            code = started.wait(timeout)
        texts = [_text(stream) for stream in (out, err)]
    return subprocess.CompletedProcess(typed, code, *texts)


class Started:
    """A command that runs beside its test."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.connection, self.pid = connection, pid
        self.code: int | None = None

    def terminate(self) -> None:
        """Send it SIGTERM, unless it has ended."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float) -> int:
        """Return its exit code, negative for a signal; if it takes too long, kill it and raise `TimeoutExpired`."""
        if self.code is None:
            self.connection.settimeout(timeout)
            try:
                self.code = os.waitstatus_to_exitcode(LENGTH.unpack(_receive(self.connection, LENGTH.size))[0])
            except TimeoutError:
                os.kill(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired([str(COMMAND)], timeout) from None
        return self.code


def start(arguments: Sequence[str], env: Mapping[str, str], out: int) -> Started:
    """Start the toolkit's command; `out` is the file for what it prints, its stdin and stderr lead nowhere."""
    assert _is_as_warmed(env)
    with open(os.devnull, "r+b") as nowhere:
        return _fork(arguments, env, None, [nowhere.fileno(), out, nowhere.fileno()])


def _text(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read().decode().replace("\r\n", "\n").replace("\r", "\n"))  # newlines as with text=True


def _is_as_warmed(env: Mapping[str, str]) -> bool:
    return _read_at_the_start(env) == _read_at_the_start(os.environ)


def _read_at_the_start(env: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in env.items() if key.startswith(READ_AT_THE_START)}


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fork(
    arguments: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    streams: list[int],
    program: str = "",
    strace: Sequence[str] = (),
) -> Started:
    place = {"cwd": os.fspath(cwd or os.getcwd()), "umask": umask()}
    wanted = {"arguments": list(arguments), "env": dict(env), "text": program, "strace": list(strace), **place}
    ours, theirs = socket.socketpair()
    with theirs:
        _warm_process(os.getpid(), os.geteuid())[0].sendmsg([b"\0"], [_handles([theirs.fileno(), *streams])])
    message = json.dumps(wanted).encode("utf-8", "surrogateescape")
    ours.sendall(LENGTH.pack(len(message)) + message)
    return Started(ours, LENGTH.unpack(_receive(ours, LENGTH.size))[0])


def _handles(numbers: list[int]) -> tuple[int, int, Any]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = connection.recv(size - len(received))
        if not more:
            raise ConnectionError("the process that starts commands has ended")
        received += more
    return received


@cache
def _warm_process(_whose: int, _user: int) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process from which commands are forked; it ends together with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C ends the tests, and their end ends this process
        )
    return ours, process


# The process from which commands are forked


def _serve(connection: socket.socket) -> None:
    _import_everything()
    running: dict[int, socket.socket] = {}  # by process id: where its end is told
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = select.select([connection, woken], [], [])[0]
        if woken in ready:
            woken.recv(4096)
            _tell_ends(running)
        if connection in ready:
            started, handles = _next(connection)
            if not started:
                os._exit(0)
            child, told = _started(handles, [connection, woken, wakes, *running.values()])
            running[child] = told


def _started(handles: list[int], ours: list[socket.socket]) -> tuple[int, socket.socket]:
    """Fork the command that is asked for, without our own handles; return its process id, and where to tell its end."""
    told, streams = socket.socket(fileno=handles[0]), handles[1:]
    message = _receive(told, LENGTH.unpack(_receive(told, LENGTH.size))[0])
    wanted = json.loads(message.decode("utf-8", "surrogateescape"))
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in ours:
            one.close()
        if wanted["strace"]:
            _look_after(told, wanted, streams)
        told.close()
        _become(wanted, streams)
    for stream in streams:
        os.close(stream)
    if not wanted["strace"]:
        with contextlib.suppress(OSError):  # the test may have ended
            told.sendall(LENGTH.pack(child))
    return child, told


def _tell_ends(running: dict[int, socket.socket]) -> None:
    """Send the exit status of each command that has ended; one that is traced has sent its own."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with running.pop(ended[0]) as told, contextlib.suppress(OSError):
                told.sendall(LENGTH.pack(ended[1]))


def _next(connection: socket.socket) -> tuple[bytes, list[int]]:
    handles = array.array("i")
    message, notes, _, _ = connection.recvmsg(1, socket.CMSG_LEN(4 * handles.itemsize))
    for _, _, note in notes:
        handles.frombytes(note)
    return message, list(handles)


def _look_after(connection: socket.socket, wanted: dict[str, Any], streams: list[int]) -> None:
    """Start a command that is traced; send its process id, then its exit status when it and strace have ended."""
    ctypes.CDLL(None).prctl(36, 1)  # strace becomes a child of this process when its parent has ended
    child = os.fork()
    if not child:
        connection.close()
        _become(wanted, streams)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(OSError):  # the test may have ended
        connection.sendall(LENGTH.pack(child))
        ended = os.waitpid(child, 0)[1]
        _wait_for_all()  # strace's file is complete then
        connection.sendall(LENGTH.pack(ended))
    os._exit(0)


def _wait_for_all() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _become(wanted: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.chdir(wanted["cwd"])
    os.umask(wanted["umask"])
    sys.argv = ["-c" if wanted["text"] else str(COMMAND), *wanted["arguments"]]
    raise _Start(wanted["text"], wanted["strace"])


class _Start(BaseException):
    """Unwinds the serving process, so that the command starts with an empty stack."""


def _be_traced(options: list[str]) -> None:
    """Start strace, a child of this process, and return once it has attached."""
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # for kernels that restrict tracing
    typed = ["strace", "-f", *options, "-p", str(os.getpid())]
    out, said = os.open(os.devnull, os.O_WRONLY), os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, said[1], 2)]
    os.posix_spawnp("strace", typed, os.environ, file_actions=actions)
    os.close(said[1])
    line = os.read(said[0], 4096)  # stays open: strace ends if it cannot report that it has attached to another process
    assert b"attached" in line, line
    os.close(out)


def _import_everything() -> None:
    sys.path[0] = str(BACKEND)
    import backupkit

    ours = [one.name for one in pkgutil.walk_packages(backupkit.__path__, "backupkit.") if ".ui" not in one.name]
    for name in ("backup_restore", *ours, *BESIDE_OURS):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _ease_forks()


def _ease_forks() -> None:
    """Prepare this process, which has imported what it needs, to be forked often and quickly."""
    gc.collect()
    gc.freeze()  # otherwise the first collection in each command copies all memory
    with contextlib.suppress(OSError, AttributeError):  # not on Linux
        for start, end in _own_memory():
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_COLLAPSE)


def _own_memory() -> list[tuple[int, int]]:
    """Return the parts of the heap that can be huge pages: the kernel copies the table of small ones at each fork."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    places = [one[0].split("-") for one in lines if one[1] == "rw-p" and one[5:] in ([], ["[heap]"])]
    whole = [(-(-int(start, 16) // HUGE) * HUGE, int(end, 16) // HUGE * HUGE) for start, end in places]
    return [(start, end) for start, end in whole if start < end]


def _main() -> None:
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    except _Start as start:
        text, options = start.args
    if options:
        _be_traced(options)
    signal.signal(signal.SIGINT, signal.default_int_handler if text else signal.SIG_DFL)  # as backup_restore.py sets it
    code = 0
    try:
        if text:
            exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
        else:
            importlib.import_module("backup_restore").main()
    except SystemExit as ended:
        if isinstance(ended.code, str):  # Python prints it
            raise
        code = ended.code or 0
    _end(code)


def _end(code: int) -> None:
    """End as an interpreter does, but without freeing memory: in a forked process, that would copy all of it."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _main()
