"""A disk for the backups that cannot hold every name, no links, and neither owners nor modes, as exFAT and NTFS."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from small_app import SmallApp

NEEDS = pytest.mark.needs("mkfs.exfat", "mount.exfat-fuse", "mkntfs", "ntfs-3g")


@contextmanager
def mounted(kind: str, place: Path) -> Iterator[Path]:
    """Mount a small file system of that kind at the place, as a desktop does: all is root's alone."""
    place.mkdir(exist_ok=True)
    image = place.with_name(f"{place.name}.image")
    with open(image, "wb") as file:
        file.truncate(60_000_000)
    device = loop_device(image)
    make = {"exfat": ["mkfs.exfat"], "ntfs": ["mkntfs", "-Q", "-F", "-q"]}
    mount = {"exfat": "mount.exfat-fuse", "ntfs": "ntfs-3g"}
    try:
        subprocess.run([*make[kind], device], check=True, capture_output=True)
        done = subprocess.run([mount[kind], "-o", "umask=077", device, place], capture_output=True, timeout=60)
        if done.returncode:
            pytest.skip(f"this machine mounts no {kind}: {done.stderr.decode()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=False)


def loop_device(image: Path) -> str:
    done = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this machine has no loop device; it takes root")
    return done.stdout.strip()


@pytest.fixture(params=["exfat", "ntfs"])
def on_a_plain_disk(request: pytest.FixtureRequest, app: SmallApp) -> Iterator[SmallApp]:
    """An app whose backups are on such a disk."""
    with mounted(request.param, app.backups):
        yield app


def warnings_of(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith("Warning:")]


# Names, links and owners


@NEEDS
def test_what_the_disk_cannot_hold_is_named_and_all_else_is_in_the_backup(app: SmallApp) -> None:
    with mounted("exfat", app.backups):
        for name in (
            "case.txt",
            "CASE.TXT",
            'a:b?"c.txt',
            os.fsdecode(b"\xff\xfe.txt"),
            "Folder/in.txt",
            "folder/in.txt",
        ):
            app.write_upload(name, b"of somebody")
        made = app.command("backup", "one", check=3)
        told = warnings_of(made.err)
        for name in ("CASE.TXT", "case.txt", 'a:b?"c.txt', "\\udcff\\udcfe.txt", "Folder", "folder", "latest"):
            number = sum(f"Warning: {name} " in line or f"Warning: '{name}' " in line for line in told)
            assert number == (name not in ("CASE.TXT", "Folder")), (name, told)
        assert all("that the disk of the backups cannot hold (" in line for line in told)
        assert (app.backups / "one/uploads/CASE.TXT").read_bytes() == b"of somebody"
        assert not [path for path in app.backups.iterdir() if path.name.startswith(".draft")]
        app.command("verify", "one", check=0)
        shown = app.command("show", "one", "--json", check=0).json
        assert "latest" in str(shown)


@NEEDS
def test_an_upload_that_is_not_roots_is_in_a_backup_on_such_a_disk(on_a_plain_disk: SmallApp) -> None:
    app = on_a_plain_disk
    (app.uploads / "latest").unlink()
    letter = app.uploads / "1/letter.txt"
    os.chown(letter, 4711, 4712)
    os.utime(letter, (1_700_000_000, 1_700_000_000))
    made = app.command("backup", "one", check=0)
    assert not warnings_of(made.err)
    kept = app.backups / "one/uploads/1/letter.txt"
    assert kept.read_bytes() == letter.read_bytes()
    assert int(kept.stat().st_mtime) == 1_700_000_000


@NEEDS
def test_two_databases_whose_names_fold_do_not_replace_each_other(app: SmallApp) -> None:
    with mounted("exfat", app.backups):
        (app.uploads / "latest").unlink()
        for name in ("App.db", "app.db"):
            subprocess.run(
                ["sqlite3", app.uploads / name, f"CREATE TABLE t(x); INSERT INTO t VALUES('{name}')"], check=True
            )
        made = app.command("backup", "one", check=3)
        assert [line.split()[1] for line in warnings_of(made.err)] == ["app.db"]
        app.command("verify", "one", check=0)
