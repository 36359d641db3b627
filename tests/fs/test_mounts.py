"""The kernel's table tells which file system a path is on; a warning names file systems that are bad for WAL mode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backupkit.fs import disk, mounts
from backupkit.monitoring.doctor import Finding, at_start
from backupkit.sqlite import engine
from refusals import run_here
from small_app import BACKEND, SmallApp

# A container of Docker Desktop: its folders come from the host, a named volume from the engine's own Linux.
DESKTOP = rb"""
1054 880 0:146 / / rw,relatime master:351 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
1055 1054 0:149 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1066 1054 0:42 /Users/ann/My\040App/data /app/data rw,relatime - virtiofs virtiofs0 rw
1067 1054 0:42 /Users/ann/My\040App/uploads /app/uploads rw,relatime - fakeowner /run/host_mark/Users rw
1068 1054 254:1 /docker/volumes/kept/_data /app/data/kept rw,relatime - ext4 /dev/vda1 rw,discard
1069 1066 254:1 /docker/volumes/inner/_data /app/data/inner rw,relatime - ext4 /dev/vda1 rw,discard
""".strip()

# Windows: the drive is 9p, a folder of the distribution is ext4.
WINDOWS = rb"""
82 99 8:32 / / rw,relatime - ext4 /dev/sdc rw,discard
120 82 0:62 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\;uid=1000,access=client,msize=65536
""".strip()

# A server: nested, hidden and repeated mounts, odd names, optional fields, an invalid line.
SERVER = rb"""
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw
30 27 0:40 / /srv rw,relatime - nfs4 10.0.0.1:/export rw,vers=4.2
31 30 8:1 / /srv/local rw,relatime - xfs /dev/sda1 rw
32 27 0:41 / /with\040space\011tab\134slash\012line rw - fuse.sshfs ann@host: rw
33 27 0:42 / /hidden/below rw - cifs //nas/share rw
34 27 8:2 / /hidden rw - ext4 /dev/sdb rw
35 27 0:43 / /twice rw - smb3 //nas/share rw
36 35 8:3 / /twice rw - btrfs /dev/sdc rw
37 27 0:44 / /lone - fuseblk
nonsense
38 27 0:45 / /srv-too rw - fuseblk /dev/sdd1 rw
""".strip()

# In a chroot or another namespace, the parent of the root mount is not listed.
ALONE = b"700 699 0:50 / / rw - tmpfs tmpfs rw\n701 700 0:51 / /data rw - nfs server:/d rw"

CASES = [
    (DESKTOP, "/app/data", "virtiofs"),
    (DESKTOP, "/app/data/deep/er", "virtiofs"),
    (DESKTOP, "/app/uploads", "fakeowner"),
    (DESKTOP, "/app", "overlay"),
    (DESKTOP, "/app/database", "overlay"),
    (DESKTOP, "/app/data/kept", "virtiofs"),  # hidden by /app/data, which was mounted later
    (DESKTOP, "/app/data/inner/x", "ext4"),
    (WINDOWS, "/mnt/c/Users/ann", "9p"),
    (WINDOWS, "/home/ann", "ext4"),
    (SERVER, "/srv", "nfs4"),
    (SERVER, "/srv/other", "nfs4"),
    (SERVER, "/srv/local/app", "xfs"),
    (SERVER, "/srv-too/app", "fuseblk"),
    (SERVER, "/srvx", "ext4"),
    (SERVER, "/with space\ttab\\slash\nline/app", "fuse.sshfs"),
    (SERVER, "/hidden/below/app", "ext4"),
    (SERVER, "/twice/app", "btrfs"),
    (ALONE, "/data/app", "nfs"),
    (ALONE, "/app", "tmpfs"),
]


@pytest.mark.parametrize(("text", "path", "kind"), CASES)
def test_a_path_is_on_the_mount_that_whoever_walks_there_comes_to(text: bytes, path: str, kind: str) -> None:
    found = mounts.mount_of(Path(path), mounts.parse(text))
    assert found is not None and found.kind == kind


@pytest.mark.parametrize("kind", ["virtiofs", "9p", "nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuseblk", "fuse"])
def test_a_file_system_that_another_machine_writes_to_is_called_shared(kind: str) -> None:
    assert mounts.Mount(2, 1, "/", kind).is_shared


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "f2fs"])
def test_one_of_this_kernels_alone_is_not(kind: str) -> None:
    assert not mounts.Mount(2, 1, "/", kind).is_shared


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_kernel_itself_says_the_same_of_any_folder_here(tmp_path: Path) -> None:
    if not any(mount.place == "/" for mount in mounts.read()):
        pytest.skip("this is a chroot, whose own mount is out of sight")
    for folder in (tmp_path, Path("/proc"), Path("/"), Path("/dev"), Path("/dev/shm")):
        with disk.Opened(folder, os.O_RDONLY | os.O_DIRECTORY) as handle:
            said = Path(f"/proc/self/fdinfo/{handle}").read_text()
        number = int(next(line for line in said.splitlines() if line.startswith("mnt_id:")).split()[1])
        found = mounts.mount_of(folder, mounts.read())
        assert found is not None and found.number == number, folder


def test_without_proc_nothing_is_claimed() -> None:
    assert mounts.mount_of(Path("/app"), []) is None
    assert mounts.parse(b"\nnonsense\n1 2 3\n") == []


# Warnings of the doctor and at the start of a container


def with_database_on(app: SmallApp, monkeypatch: pytest.MonkeyPatch, kind: str) -> list[Finding]:
    line = f"50 27 0:99 / {app.database.parent} rw - {kind} source rw"
    monkeypatch.setattr(mounts, "read", lambda: mounts.parse(f"27 1 8:1 / / rw - ext4 /dev/sda rw\n{line}".encode()))
    return [finding for finding in at_start(app.settings) if "WAL mode on" in finding.text]


@pytest.mark.parametrize("kind", ["virtiofs", "9p", "nfs4", "cifs", "fuse.sshfs"])
def test_a_wal_database_on_a_shared_file_system_is_warned_of(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (found,) = with_database_on(app, monkeypatch, kind)
    assert (
        found.level == "warning" and str(app.database) in found.text and f"{kind} ({app.database.parent})" in found.text
    )
    assert "journal_mode=DELETE" in found.fix
    result = run_here(app, "doctor")
    assert found.text in result.out


def test_without_wal_mode_or_on_a_disk_of_this_kernel_there_is_no_warning(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not with_database_on(app, monkeypatch, "ext4")
    app.execute("PRAGMA journal_mode=DELETE")
    assert not with_database_on(app, monkeypatch, "nfs4")


# SQLite versions with the WAL bug


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.44.7", False),
        ("3.45.0", True),
        ("3.46.1", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.0", True),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.53.4", False),
        ("4.0.0", False),
    ],
)
def test_the_versions_with_the_wal_reset_bug_are_known(version: str, has: bool) -> None:
    assert engine.has_wal_reset_bug(tuple(map(int, version.split(".")))) is has


@pytest.mark.parametrize(
    ("has", "mode", "level"), [(True, "wal", "warning"), (True, "delete", "note"), (False, "wal", "fine")]
)
def test_the_doctor_and_the_status_say_which_sqlite_this_is(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, has: bool, mode: str, level: str
) -> None:
    monkeypatch.setattr(engine, "has_wal_reset_bug", lambda: has)
    app.execute(f"PRAGMA journal_mode={mode}")
    version = run_here(app, "doctor").out.partition("SQLite is ")[2].partition(",")[0]
    (found,) = [finding for finding in at_start(app.settings) if "SQLite is" in finding.text]
    assert (found.level, version in found.text) == (level, True)
    assert f"SQLite     {version}" in run_here(app, "status").out
    said = run_here(app, "status", "--json").json
    assert said["sqlite_version"] == version and isinstance(said["sqlite_wal_reset_bug"], bool)


def test_a_container_says_at_its_start_which_sqlite_it_has(app: SmallApp) -> None:
    assert "SQLite is" in run_here(app, "doctor", "--at-start", check=0).out
    app.database.unlink()
    assert "SQLite is" in run_here(app, "doctor", "--at-start", check=0).out
    assert "doctor --at-start" in (BACKEND / "entrypoint.sh").read_text()
    subprocess.run(["sh", "-n", str(BACKEND / "entrypoint.sh")], check=True)
