"""Limits that a process sets on itself before it handles input from outside, and cannot lift again.

If the system has no such limit, the process goes on without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # numbers of Landlock's system calls, on every processor
_VERSION, _PATH_BENEATH, _NO_NEW_PRIVILEGES = 1, 1, 38
# Rights to change files, by the Landlock version that added them: linux/landlock.h. Reading and running stay allowed.
_WRITES = {1: 1 << 1 | sum(1 << bit for bit in range(4, 13)), 2: 1 << 13, 3: 1 << 14}


def die_of_limits() -> None:
    """Make a limit on files or time end the process by the signal that says which; write no core file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it by default
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    limit(resource.RLIMIT_CORE, 0)


def limit(kind: int, most: int) -> None:
    """Limit a resource: seconds of processor time, bytes of a file, bytes of address space."""
    _, hard = resource.getrlimit(kind)
    with contextlib.suppress(OSError, ValueError):  # macOS does not limit the address space
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def write_below_only(folder: Path) -> bool:
    """Forbid changes of files outside this folder (Landlock); return False if the kernel cannot."""
    if sys.platform != "linux":
        return False
    call = ctypes.CDLL(None)
    known = int(call.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION))
    if known < 1:
        return False
    writes = sum(bits for version, bits in _WRITES.items() if version <= known)
    attributes = struct.pack("=Q", writes)
    rules = call.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        is_added = call.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", writes, place), 0) == 0
        is_bound = call.prctl(_NO_NEW_PRIVILEGES, *(ctypes.c_ulong(one) for one in (1, 0, 0, 0))) == 0
        return is_added and is_bound and bool(call.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(place)
        os.close(rules)
