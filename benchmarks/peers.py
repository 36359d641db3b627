"""Who is measured. Each says, in argument lists, how it backs up and how it restores.

All copy the same two things, `data/pats.db` and `uploads`, seen from the app folder. The peers copy the database's
file as it lies there, which is no consistent copy while the app writes; this is the fastest they can be, and our
ratios are to that. The variants with `sqlite3 .backup` before them do what is needed for a running app.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contents import Copy
from benchmarks.data import BACKEND, App
from benchmarks.measure import Step, step

OURS = "this toolkit"
COMMAND = BACKEND / "backup_restore.py"
NAIVE = Path(__file__).with_name("naive.py")

Steps = Sequence[Step]

HOW_TO_GET = {
    "borg": "apt install borgbackup, or brew install borgbackup",
    "cp": "part of every system",
    "restic": "apt install restic, or brew install restic",
    "rsync": "apt install rsync, or brew install rsync",
    "sqlite3": "apt install sqlite3, or brew install sqlite",
    "tar": "apt install tar, or brew install gnu-tar",
    "zstd": "apt install zstd, or brew install zstd",
}


@dataclass(frozen=True)
class Place:
    """What a peer works on: the live app, the database's path in it, and a folder of the peer's own."""

    app: App
    home: Path
    database: str = "data/pats.db"

    @property
    def sources(self) -> tuple[str, str]:
        return self.database, "uploads"

    def copy(self, number: int) -> Path:
        """The folder or file of the nth backup."""
        return self.home / str(number)


class Peer:
    """A way to back up and restore. `number` counts the backups it has made of this app, from 1."""

    name: str
    tools: tuple[str, ...] = ()
    remark: str = "the database's file as it lies there"
    overwrites = True
    """Whether its restore puts a file over the live database's, past SQLite."""

    @property
    def missing(self) -> list[str]:
        """Its tools that are not installed."""
        return [tool for tool in self.tools if not shutil.which(tool)]

    def prepare(self, place: Place) -> Steps:
        """Once, before the first backup, and not measured."""
        return []

    def backup(self, place: Place, number: int) -> Steps:
        raise NotImplementedError

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        """Everything comes to lie in `into` as it lay in the app folder."""
        raise NotImplementedError

    def kept(self, place: Place, number: int) -> Copy | None:
        """Where a backup can be read without restoring it; None if it cannot."""
        return None


class Ours(Peer):
    name = OURS
    remark = "consistent, checked"
    overwrites = False

    def prepare(self, place: Place) -> Steps:
        place.home.mkdir(exist_ok=True)
        return []

    def command(self, place: Place, *arguments: object) -> Step:
        """One of our commands, as a whole process on this app."""
        places = {"BACKUP_APP_DIR": str(place.app.folder), "BACKUP_DIR": str(place.home)}
        return step(sys.executable, COMMAND, *arguments, folder=place.app.folder, **places)

    def backup(self, place: Place, number: int) -> Steps:
        return [self.command(place, "backup", self._name(number))]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        assert into == place.app.folder, "a restore goes to the live data"
        return [self.command(place, "restore", self._name(number), "--force")]

    def kept(self, place: Place, number: int) -> Copy:
        folder = place.home / self._name(number)
        return Copy(folder / "pats.db", folder / "uploads")

    def _name(self, number: int) -> str:
        return f"backup-{number}"


class _Folders(Peer):
    """Peers whose backup is a plain folder, laid out as the app is."""

    def kept(self, place: Place, number: int) -> Copy | None:
        return Copy(place.copy(number) / place.database, place.copy(number) / "uploads")


class Cp(_Folders):
    name = "cp -a"
    tools = ("cp",)

    def backup(self, place: Place, number: int) -> Steps:
        place.copy(number).mkdir(parents=True)
        return [step("cp", "-a", "--parents", *place.sources, place.copy(number), folder=place.app.folder)]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        return [step("cp", "-a", f"{place.copy(number)}/.", into)]


class Rsync(_Folders):
    name = "rsync -a"
    tools = ("rsync",)
    remark = "one mirror; keeps nothing earlier"

    def backup(self, place: Place, number: int) -> Steps:
        mirror = place.copy(0)
        mirror.mkdir(parents=True, exist_ok=True)
        return [step("rsync", "-aR", "--delete", *place.sources, mirror, folder=place.app.folder)]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        return [step("rsync", "-a", f"{place.copy(0)}/", into)]

    def kept(self, place: Place, number: int) -> Copy | None:
        return super().kept(place, 0)


class RsyncLinkDest(_Folders):
    name = "rsync --link-dest"
    tools = ("rsync",)

    def backup(self, place: Place, number: int) -> Steps:
        place.copy(number).mkdir(parents=True)
        earlier = [f"--link-dest={place.copy(number - 1)}"] if number > 1 else []
        return [step("rsync", "-aR", *earlier, *place.sources, place.copy(number), folder=place.app.folder)]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        return [step("rsync", "-a", f"{place.copy(number)}/", into)]


class Restic(Peer):
    name = "restic"
    tools = ("restic",)

    def prepare(self, place: Place) -> Steps:
        return [self._step(place, "init")]

    def backup(self, place: Place, number: int) -> Steps:
        return [self._step(place, "backup", "--tag", f"number-{number}", *place.sources)]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        return [self._step(place, "restore", "latest", "--tag", f"number-{number}", "--target", into)]

    def _step(self, place: Place, *arguments: object) -> Step:
        return step(
            *("restic", *arguments),
            folder=place.app.folder,
            RESTIC_CACHE_DIR=str(place.home / "cache"),
            RESTIC_PASSWORD="benchmark",
            RESTIC_REPOSITORY=str(place.home / "repository"),
        )


class Borg(Peer):
    name = "borg"
    tools = ("borg",)

    def prepare(self, place: Place) -> Steps:
        place.home.mkdir(exist_ok=True)
        return [self._step(place, place.app.folder, "init", "--encryption=repokey-blake2")]

    def backup(self, place: Place, number: int) -> Steps:
        return [self._step(place, place.app.folder, "create", f"::number-{number}", *place.sources)]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        return [self._step(place, into, "extract", f"::number-{number}")]

    def _step(self, place: Place, folder: Path, *arguments: object) -> Step:
        return step(
            *("borg", *arguments),
            folder=folder,
            BORG_BASE_DIR=str(place.home / "base"),
            BORG_PASSPHRASE="benchmark",
            BORG_REPO=str(place.home / "repository"),
        )


class Tar(Peer):
    name = "tar + zstd"
    tools = ("tar", "zstd")

    def prepare(self, place: Place) -> Steps:
        place.home.mkdir(exist_ok=True)
        return []

    def backup(self, place: Place, number: int) -> Steps:
        return [
            step("tar", "--posix", "-I", "zstd -T0", "-cf", place.copy(number), "-C", place.app.folder, *place.sources)
        ]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        return [step("tar", "-I", "zstd", "-xf", place.copy(number), "-C", into)]


class Naive(_Folders):
    name = "Python, copytree"
    remark = "consistent"
    overwrites = False

    def backup(self, place: Place, number: int) -> Steps:
        return [step(sys.executable, NAIVE, "backup", place.app.folder, place.copy(number))]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        return [step(sys.executable, NAIVE, "restore", place.copy(number), into)]


class Consistent(Peer):
    """Another peer, of a copy of the database that SQLite made first; the same file each time."""

    remark = "consistent"

    def __init__(self, inner: Peer) -> None:
        self.inner = inner
        self.name = f".backup, {inner.name}"
        self.tools = ("sqlite3", *inner.tools)

    def prepare(self, place: Place) -> Steps:
        return self.inner.prepare(self._moved(place))

    def backup(self, place: Place, number: int) -> Steps:
        moved = self._moved(place)
        return [sqlite_backup(place.app, moved.app.folder / moved.database), *self.inner.backup(moved, number)]

    def restore(self, place: Place, number: int, into: Path) -> Steps:
        moved = self._moved(place)
        back = step("mv", into / moved.database, into / place.database)
        return [*self.inner.restore(moved, number, into), back]

    def kept(self, place: Place, number: int) -> Copy | None:
        return self.inner.kept(self._moved(place), number)

    def _moved(self, place: Place) -> Place:
        return replace(place, database="data/consistent.db")


def sqlite_backup(app: App, target: Path) -> Step:
    """SQLite's own copy of one moment of the live database."""
    return step("sqlite3", app.database, f".backup '{target}'")


PEERS: tuple[Peer, ...] = (
    Ours(),
    Cp(),
    Rsync(),
    RsyncLinkDest(),
    Restic(),
    Borg(),
    Tar(),
    Naive(),
    Consistent(RsyncLinkDest()),
    Consistent(Restic()),
    Consistent(Borg()),
)
