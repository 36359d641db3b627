"""What is mounted where, as the kernel tells this process: proc(5), /proc/PID/mountinfo."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# File systems behind which another machine, or the host of a virtual machine, writes to the same files. SQLite's
# write-ahead log needs memory that all of its processes share, and these have none: sqlite.org/wal.html.
_SHARED = ("virtiofs", "9p", "nfs", "nfs4", "cifs", "smb3", "smbfs", "fakeowner", "vboxsf", "prl_fs", "afs", "ceph")
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One file system, or a part of it, at its place in this process's tree."""

    number: int
    parent: int
    place: str
    kind: str
    device: str = ""  # MAJOR:MINOR

    @property
    def is_shared(self) -> bool:
        """Whether others than the processes of this kernel may write there."""
        return self.kind in _SHARED or self.kind.startswith("fuse")


def read() -> list[Mount]:
    """Every mount, as far as the system shows them; none where it does not."""
    try:
        return parse(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return []


def parse(text: bytes) -> list[Mount]:
    """The mounts of such a file; a line that is none is passed over."""
    return [mount for line in text.splitlines() if (mount := _parsed(line))]


def mount_of(path: Path, found: Sequence[Mount]) -> Mount | None:
    """The mount that the path is on; None where that cannot be told.

    Walked as the kernel walks a path: at each place what was mounted there last hides what lies below it.
    """
    numbers = {mount.number for mount in found}
    here = next((mount for mount in found if mount.place == "/" and mount.parent not in numbers), None)
    while here and (above := [mount for mount in found if _is_met(mount, here, str(path))]):
        here = min(above, key=lambda mount: len(mount.place))
    return here


def _is_met(mount: Mount, here: Mount, path: str) -> bool:
    """Whether whoever walks to the path from the root of `here` comes to that mount."""
    below = mount.place if mount.place == "/" else f"{mount.place}/"
    return mount.parent == here.number != mount.number and f"{path}/".startswith(below)


def _parsed(line: bytes) -> Mount | None:
    # number parent DEVICE root PLACE options [fields …] - KIND source options
    before, _, after = line.partition(b" - ")
    fields = before.split(b" ")
    if len(fields) < 6 or not after or not (fields[0].isdigit() and fields[1].isdigit()):
        return None
    place, kind = _unescaped(fields[4]), _unescaped(after.split(b" ")[0])
    return Mount(int(fields[0]), int(fields[1]), place, kind, fields[2].decode(errors="replace"))


def _unescaped(field: bytes) -> str:
    """A space, a tab, a newline and a backslash are written as their octal numbers."""
    return os.fsdecode(_OCTAL.sub(lambda octal: bytes([int(octal[1], 8) & 255]), field))
