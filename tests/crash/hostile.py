"""An unprivileged user who swaps links into the app's folders, and checks of whether that gained anything."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from others import USER
from small_app import SmallApp

SECRET = "known to root alone"
Places = Mapping[str, tuple[str, int]]  # by place: the target of its link below the secret folder, and its weight

# Turn a place into a link to what must stay out of reach, then put it back. A swap of one of `places` often makes the
# command fail, so between two of them swap `many` files of which only the mode is to change, as fast as possible.
# Without `many`, also read the drafts, and save the secret if it is there.
SWAP = """
import contextlib, glob, json, os, random, sys, time
user, app, secret, seed, places = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), json.loads(sys.argv[5])
many, known = int(sys.argv[6]), sys.argv[7].encode()
os.setgroups([]); os.setgid(user); os.setuid(user)
chance = random.Random(seed)
names, weights = list(places), [weight for _, weight in places.values()]
def swap(place, to, wait):
    path = chance.choice(glob.glob(f"{app}/{place}") or [f"{app}/{place}"])
    with contextlib.suppress(OSError):
        os.rename(path, path + ".away")
        os.symlink(os.path.join(secret, to), path)
        time.sleep(wait)
    with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(OSError):
        os.rename(path + ".away", path)
def look():
    for path in glob.glob(f"{app}/backups/.draft*") + glob.glob(f"{app}/backups/.draft*/**", recursive=True):
        with contextlib.suppress(OSError):
            if os.path.islink(path) or secret in os.path.realpath(path):
                continue
            with open(path, "rb") as file:
                if known in file.read():
                    with open(f"{app}/uploads/seen", "wb") as seen:
                        seen.write(known + path.encode())
print("swapping", flush=True)
while True:
    for _ in range(many):
        swap(f"uploads/many/{chance.randrange(120)}", "file", 0)
    for _ in range(1 if many else chance.randrange(9)):
        place = chance.choices(names, weights)[0]
        swap(place, places[place][0], chance.random() / 2000)
    if not many:
        look()
        time.sleep(chance.random() / 200)
"""


class Swapper:
    """The process of the user who swaps."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Stop the process until the block ends."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def swapping(app: SmallApp, secret: Path, seed: int, places: Places, many: int = 0) -> Iterator[Swapper]:
    """Swap the places until the block ends; between two of them, swap `many` of the files `uploads/many/…`."""
    told = [str(USER), str(app.folder), str(secret), str(seed), json.dumps(places), str(many), SECRET]
    with subprocess.Popen([sys.executable, "-c", SWAP, *told], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "swapping\n"
        try:
            yield Swapper(process)
        finally:
            process.kill()


def pictured(folder: Path) -> dict[str, Any]:
    """Return what must not change, by path: mode, owner, ctime, mtime, content."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_ctime_ns, facts.st_mtime_ns, content)
    return found


def given_away(*folders: Path) -> list[str]:
    """Return the files in these folders that contain the secret."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*")):
        if not path.is_symlink() and path.is_file() and SECRET.encode() in path.read_bytes():
            found.append(str(path))
    return found
