"""The mounts that this process sees, as the kernel lists them: proc(5), /proc/PID/mountinfo."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

# File systems on which another machine, or the host of a virtual machine, may write to the same files. SQLite's
# write-ahead log needs memory that all of its processes share, and these share none: sqlite.org/wal.html.
_SHARED = ("virtiofs", "9p", "nfs", "nfs4", "cifs", "smb3", "smbfs", "fakeowner", "vboxsf", "prl_fs", "afs", "ceph")
_WITH_OWN_LOCKS = ("fuse.sshfs", "fuse.rclone", "fuse.s3fs")
_OCTAL = re.compile(rb"\\([0-7]{3})")


def is_read_only(place: int | Path) -> bool:
    """Return whether the file system of that path or descriptor is mounted read-only."""
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


class Mount(Struct, frozen=True):
    """One file system, or a part of it, mounted at `place` in this process's tree."""

    number: int
    parent: int
    place: str
    kind: str
    device: str = ""  # MAJOR:MINOR

    @property
    def is_shared(self) -> bool:
        """Whether others than the processes of this kernel may write there."""
        return self.kind in _SHARED or self.kind.startswith("fuse")

    @property
    def has_locks_of_its_own(self) -> bool:
        """Whether locks on its files are kept by this machine alone, though others may write there."""
        return self.kind in _WITH_OWN_LOCKS


def read() -> list[Mount]:
    """Return every mount that the system shows; an empty list if it shows none."""
    try:
        return parse(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return []


def first_in(folder: str) -> str | None:
    """Return the first place at that folder or below it where something is mounted, or None."""
    return next((one.place for one in read() if f"{one.place}/".startswith(f"{folder}/")), None)


def below(folder: str) -> list[str] | None:
    """Return the places below that folder where something is mounted, or None if the system shows no mounts."""
    there = read()
    return [one.place for one in there if one.place.startswith(f"{folder}/")] if there else None


def parse(text: bytes) -> list[Mount]:
    """Return the mounts in the text of a mountinfo file, without malformed lines."""
    return [mount for line in text.splitlines() if (mount := _parsed(line))]


def mount_of(path: Path, found: Sequence[Mount]) -> Mount | None:
    """Return the mount that the path is on, or None if that cannot be told.

    The path is followed as the kernel follows it: at each place, the last mount hides what lies below it.
    """
    numbers = {mount.number for mount in found}
    here = next((mount for mount in found if mount.place == "/" and mount.parent not in numbers), None)
    while here and (above := [mount for mount in found if _is_on_the_way(mount, here, str(path))]):
        here = min(above, key=lambda mount: len(mount.place))
    return here


def _is_on_the_way(mount: Mount, here: Mount, path: str) -> bool:
    """Return whether the way to the path, from the root of `here`, leads through that mount."""
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
    """Decode the octal numbers that stand for a space, a tab, a newline and a backslash."""
    return os.fsdecode(_OCTAL.sub(lambda octal: bytes([int(octal[1], 8) & 255]), field))
