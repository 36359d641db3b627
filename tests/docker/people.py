"""An ordinary user, who types the commands on rootless engines, and the user ids that belong to her on the host."""

from __future__ import annotations

from pathlib import Path

PERSON = 1500
FIRST_SHIFTED = 200_000  # the first of her subordinate ids: user 1 of her rootless containers
AS_PERSON = ("setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups", "--")
# Shell code for a mount namespace: it mounts the files of `write_users`, which are in $1, over the machine's.
MOUNT_USERS = 'for file in passwd group subuid subgid; do mount --bind "$1/$file" "/etc/$file"; done'
# A tun device that every user may open for a separate network: on CI machines, often only root may.
MOUNT_TUN = 'mknod --mode=666 "$1/tun" c 10 200; mount --bind "$1/tun" /dev/net/tun'


def write_users(folder: Path) -> None:
    """Write the files of /etc that name the person and her subordinate ids."""
    (folder / "passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\nperson:x:{PERSON}:{PERSON}::{folder}:/bin/sh\n")
    (folder / "group").write_text(f"root:x:0:\nperson:x:{PERSON}:\n")
    for name in ("subuid", "subgid"):
        (folder / name).write_text(f"person:{FIRST_SHIFTED}:65536\n")
