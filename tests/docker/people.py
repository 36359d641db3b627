"""An ordinary person of the tests' own, who types where nobody is root, and the numbers that are hers on the host."""

from __future__ import annotations

from pathlib import Path

PERSON = 1500
FIRST_SHIFTED = 200_000  # what the kernel calls user 1 of her containers
AS_PERSON = ("setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups", "--")
# The shell's lines that put the files of `write_users`, in $1, over the machine's; in a mount namespace.
MOUNT_USERS = 'for file in passwd group subuid subgid; do mount --bind "$1/$file" "/etc/$file"; done'
# Every user may have a network of his own; the device of a machine of CI is often root's alone.
MOUNT_TUN = 'mknod --mode=666 "$1/tun" c 10 200; mount --bind "$1/tun" /dev/net/tun'


def write_users(folder: Path) -> None:
    """The files of /etc that name the person, and the numbers that belong to her."""
    (folder / "passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\nperson:x:{PERSON}:{PERSON}::{folder}:/bin/sh\n")
    (folder / "group").write_text(f"root:x:0:\nperson:x:{PERSON}:\n")
    for name in ("subuid", "subgid"):
        (folder / name).write_text(f"person:{FIRST_SHIFTED}:65536\n")
