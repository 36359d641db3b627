"""A disk for the backups that cannot hold every name, no links, and neither owners nor modes, as exFAT and NTFS."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import disk_images
from backupkit.fs import attributes
from backupkit.model.errors import Refused
from backupkit.rewind import moments
from rewind.a_day import rewinding
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
        with disk_images.until_unmounted(kind, [mount[kind], "-o", "umask=077", device, place]):
            yield place
    finally:
        subprocess.run(["losetup", "-d", device], check=False)


@contextmanager
def on_sshfs(place: Path) -> Iterator[Path]:
    """Mount a folder of this machine at the place with sshfs; yield that folder."""
    servers = (Path(one, "sftp-server") for one in ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh"))
    server = next((one for one in servers if one.exists()), None)
    far, ssh = place.with_name(f"{place.name}-far"), place.with_name(f"{place.name}-ssh")
    far.mkdir()
    place.mkdir(exist_ok=True)
    ssh.write_text(f"#!/bin/sh\nexec {server}\n")
    ssh.chmod(0o755)
    with disk_images.until_unmounted("sshfs", ["sshfs", "-o", f"ssh_command={ssh}", f"far:{far}", place]):
        yield far


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


# Modes and owners


def of_the_app(app: SmallApp) -> None:
    """Give the uploads to a user of the app, as where root makes the backups."""
    (app.uploads / "latest").unlink()
    for path in (app.uploads, *app.uploads.rglob("*")):
        os.chown(path, 4711, 4712)
        path.chmod(0o750 if path.is_dir() else 0o640)
    (app.uploads / "2/letter.txt").chmod(0o664)


def rights(root: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path.relative_to(root)): path.lstat() for path in root.rglob("*")}
    return {path: (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) for path, facts in found.items()}


def lose_and_alter(app: SmallApp) -> None:
    """Remove a file, and a folder with one in it, and change the file whose mode is its own."""
    (app.uploads / "empty").rmdir()
    (app.uploads / "1/letter.txt").unlink()
    (app.uploads / "1").rmdir()
    (app.uploads / "2/letter.txt").write_text("altered")


@NEEDS
def test_a_restore_gives_the_app_its_uploads_back_not_root(on_a_plain_disk: SmallApp) -> None:
    app = on_a_plain_disk
    of_the_app(app)
    made = app.command("backup", "one", check=0)
    assert made.err.count("keeps no modes and no owners of uploads") == 1
    before = rights(app.uploads)
    lose_and_alter(app)
    restored = app.command("restore", "one", "--yes", check=0)
    assert rights(app.uploads) == before
    assert (app.uploads / "2/letter.txt").read_text() == "Dear company 2\n"
    assert "keeps no modes and owners" in restored.out + restored.err
    app.command("undo", "--yes", check=0)
    assert (app.uploads / "2/letter.txt").read_text() == "altered"
    assert rights(app.uploads)["2/letter.txt"] == (0o664, 4711, 4712)
    app.command("verify", "one", "--test-restore", check=0)
    assert "new rights" not in app.command("restore", "one", "--dry-run", check=0).out


@NEEDS
@pytest.mark.parametrize("kind", ["exfat", "ntfs"])
def test_neither_does_one_of_a_backup_pulled_from_such_a_disk(app: SmallApp, kind: str, tmp_path: Path) -> None:
    of_the_app(app)
    with mounted(kind, tmp_path / "nas") as nas:
        table = f'[remotes.nas]\ntype = "folder"\npath = "{nas}"\nretry_for = 1\n'
        (app.folder / "backup.toml").write_text(table)
        app.command("remotes", "--init", "nas", check=0)
        made = app.command("backup", "one", check=0)
        assert "keeps no modes" not in made.err
        said = "The remote nas cannot keep modes and owners of uploads"
        assert app.command("push", check=0).err.count(said) == 1
        assert said in app.command("doctor").out
        app.command("delete", "one", "--yes", check=0)
        assert app.command("pull", "one", "--remote", "nas", check=0).err.count(said) == 1
    before = rights(app.uploads)
    lose_and_alter(app)
    app.command("restore", "one", "--yes", check=0)
    assert rights(app.uploads) == before
    assert (app.uploads / "1/letter.txt").read_text() == "Dear company 1\n"


def push_to(nas: Path, app: SmallApp) -> None:
    table = f'[remotes.nas]\ntype = "folder"\npath = "{nas}"\nretry_for = 1\n'
    (app.folder / "backup.toml").write_text(table)
    app.command("remotes", "--init", "nas", check=0)


@NEEDS
@pytest.mark.parametrize("name", ["a:b.txt", "a?b.txt", "LETTER.TXT", "Folder/in.txt", "latest"])
def test_a_push_to_a_disk_that_cannot_hold_an_upload_names_it_and_leaves_nothing(
    app: SmallApp, tmp_path: Path, name: str
) -> None:
    (app.uploads / "latest").unlink()
    for one in ("letter.txt", "folder/in.txt"):
        app.write_upload(one, b"of somebody")
    app.command("backup", "fits", check=0)
    if name == "latest":
        (app.uploads / name).symlink_to("letter.txt")
    else:
        app.write_upload(name, b"of somebody")
    app.command("backup", "one", check=0)
    with mounted("exfat", tmp_path / "nas") as nas:
        push_to(nas, app)
        pushed = app.command("push", check=2)
        said = " ".join(pushed.err.split())
        assert f"The disk of {nas} cannot hold " in said, said
        assert name.partition("/")[0].lower() in said.lower() and "Rename or remove that upload" in said
        assert sorted(path.name for path in nas.iterdir()) == [".backupkit-remote", "fits"]
        app.command("verify", "--remote", "nas", check=0)


@NEEDS
def test_an_archive_with_a_link_cannot_be_imported_on_such_a_disk_and_the_link_is_named(
    app: SmallApp, tmp_path: Path
) -> None:
    app.command("backup", "one", check=0)
    app.command("export", "one", str(tmp_path / "one.tar"), check=0)
    with mounted("exfat", tmp_path / "disk") as other:
        done = app.command("import", str(tmp_path / "one.tar"), env={"BACKUP_DIR": str(other)}, check=2)
        said = " ".join(done.err.split())
        assert "cannot hold the link uploads/latest (" in said and "Set BACKUP_DIR to a folder on a disk" in said, said


@NEEDS
def test_a_moment_with_a_link_cannot_be_built_on_such_a_disk_and_the_link_is_named(app: SmallApp) -> None:
    (app.uploads / "latest").unlink()
    with mounted("exfat", app.backups):
        rewinder, clock = rewinding(app)
        (app.uploads / "latest").symlink_to("1/letter.txt")
        assert rewinder.look() == "taken"
        moment = moments.timeline(app.settings).before(clock())
        assert moment
        expected = pytest.raises(Refused, match=f"{app.backups} cannot hold the link uploads/latest")
        with expected as refused, moments.built(app.settings, moment):
            pass
        assert "Set BACKUP_DIR to a folder on a disk" in refused.value.hint
        del rewinder, refused
        gc.collect()  # closes what is open on the disk


@NEEDS
@pytest.mark.parametrize("name", ["latest", "a:b.txt", "folder/a:b.txt", "folder/link"])
def test_a_restore_onto_such_a_disk_names_what_it_cannot_hold_and_can_leave_it_out(
    app: SmallApp, tmp_path: Path, name: str
) -> None:
    (app.uploads / "latest").unlink()
    app.write_upload("folder/in.txt", b"of somebody")
    if "txt" in name:
        app.write_upload(name, b"of somebody")
    else:
        (app.uploads / name).symlink_to(app.uploads / "1/letter.txt")
    app.command("backup", "one", check=0)
    with mounted("exfat", tmp_path / "disk") as disk:
        there = {"BACKUP_UPLOADS": str(disk / "uploads")}
        (disk / "uploads").mkdir()
        done = app.command("restore", "one", "--yes", env=there, check=2)
        what = f"cannot hold {name}" if "txt" in name else f"cannot hold the link {name}"
        said = " ".join(done.err.split())
        assert f"The disk of {disk / 'uploads'} {what} (" in said and "BACKUP_EXCLUDE" in said, said
        assert not list((disk / "uploads").iterdir()), "it is as it was"
        app.command("restore", "one", "--yes", env={**there, "BACKUP_EXCLUDE": f"/{name}"}, check=0)
        assert (disk / "uploads/folder/in.txt").read_bytes() == b"of somebody"


@NEEDS
def test_doctor_says_what_the_disk_of_the_backups_does_not_keep(on_a_plain_disk: SmallApp) -> None:
    told = on_a_plain_disk.command("doctor").out
    assert "keeps no modes and no owners: those of uploads are in no backup." in " ".join(told.split())


def test_a_usual_disk_keeps_both(app: SmallApp) -> None:
    assert attributes.missing_rights(app.backups) == ()
    made = app.command("backup", "one", check=0)
    assert "keeps no" not in made.err
    (app.uploads / "1/letter.txt").chmod(0o600)
    app.command("restore", "one", "--yes", check=0)
    assert (app.uploads / "1/letter.txt").stat().st_mode & 0o777 != 0o600


@NEEDS
def test_an_archive_can_be_imported_on_such_a_disk(app: SmallApp, tmp_path: Path) -> None:
    of_the_app(app)
    app.command("backup", "one", check=0)
    app.command("export", "one", str(tmp_path / "one.tar"), check=0)
    app.command("delete", "one", "--yes", check=0)
    before = rights(app.uploads)
    with mounted("exfat", tmp_path / "disk") as other:
        there = {"BACKUP_DIR": str(other)}
        app.command("import", str(tmp_path / "one.tar"), env=there, check=0)
        lose_and_alter(app)
        app.command("restore", "one", "--yes", env=there, check=0)
    assert rights(app.uploads) == before


@pytest.mark.needs("sshfs")
def test_a_backup_says_that_its_disk_shows_no_hard_links_and_doctor_that_it_shares_no_locks(app: SmallApp) -> None:
    """On sshfs a second name can be made, and is shown as another file."""
    os.link(app.uploads / "1/letter.txt", app.uploads / "2/again.txt")
    with on_sshfs(app.backups):
        made = app.command("backup", "one", check=3)
        assert "1 hard links are separate files in the backup" in " ".join(made.err.split())
        assert (app.backups / "one/uploads/2/again.txt").read_bytes() == b"Dear company 1\n"
        said = " ".join(app.command("doctor").out.split())
        assert "keeps no" in said and "hard links: those of uploads are in no backup" in said
        assert "is on fuse.sshfs" in said and "let only one machine write to it" in said
        app.command("restore", "one", "--yes", check=3)
