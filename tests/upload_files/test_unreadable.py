"""An error on one file causes one warning with its path; the backup and the restore go on with all other files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import SourceUnreadable
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.upload_files import archiver
from refusals import without_privileges
from small_app import COMMAND, Result, SmallApp, clean_environment


def bound_by_modes(app: SmallApp, *arguments: str) -> Result:
    """Run the command as a user to whom file modes apply."""
    return run(app, [*without_privileges(), sys.executable, str(COMMAND), *arguments])


def with_failing_reads(app: SmallApp, path: Path, *arguments: str, call: str = "read") -> Result:
    """Run the command while each read of that file, or listing of that folder, fails with an I/O error."""
    fail = ["-P", str(path), "-e", f"trace={call}", "-e", f"inject={call}:error=EIO"]
    return run(app, ["strace", "-f", "-o", "/dev/null", *fail, sys.executable, str(COMMAND), *arguments])


def run(app: SmallApp, command: Sequence[str]) -> Result:
    done = subprocess.run(
        command,
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        cwd="/",
        input="",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def warnings(result: Result) -> list[str]:
    return [line.removeprefix("Warning: ") for line in result.err.splitlines() if line.startswith("Warning: ")]


@pytest.fixture
def ordinary(app: SmallApp) -> SmallApp:
    """The app with one upload that may not be read, and one folder that may not be entered."""
    app.write_upload("secret.txt", b"mode 0000").chmod(0)
    app.write_upload("closed/inner.txt", b"in a closed folder")
    app.write_upload("later.txt", b"as it was")
    (app.uploads / "closed").chmod(0)
    return app


def test_a_file_and_a_folder_that_may_not_be_read_are_a_warning_each(ordinary: SmallApp) -> None:
    made = bound_by_modes(ordinary, "backup", "one")
    assert made.code == 3, made.err
    assert [line.split(" ")[0] for line in warnings(made)] == ["closed", "secret.txt"]
    assert "Permission denied" in made.err
    assert (ordinary.backups / "one/uploads/later.txt").read_bytes() == b"as it was"
    assert (ordinary.backups / "one/uploads/1/letter.txt").exists()
    assert bound_by_modes(ordinary, "verify", "one").code == 0


def test_a_restore_keeps_what_it_may_not_read_and_brings_back_the_rest(ordinary: SmallApp) -> None:
    app = ordinary
    for name in ("secret.txt", "closed"):
        (app.uploads / name).chmod(0o700)
    assert bound_by_modes(app, "backup", "whole").code == 0
    app.write_upload("secret.txt", b"mode 0000, and changed since").chmod(0)
    app.write_upload("closed/inner.txt", b"changed in there")
    app.write_upload("later.txt", b"changed")
    (app.uploads / "closed").chmod(0)
    plan = bound_by_modes(app, "restore", "whole", "--dry-run")
    assert plan.code == 0 and "stays as it is: closed" in plan.out + plan.err
    done = bound_by_modes(app, "restore", "whole", "--force")
    assert done.code == 3, done.err
    assert {line.split(" ")[0] for line in warnings(done)} == {"secret.txt", "closed"}
    assert (app.uploads / "later.txt").read_bytes() == b"as it was"
    assert (app.uploads / "secret.txt").stat().st_mode & 0o777 == 0
    assert (app.uploads / "secret.txt").stat().st_size == len(b"mode 0000, and changed since")
    (app.uploads / "closed").chmod(0o700)
    assert (app.uploads / "closed/inner.txt").read_bytes() == b"changed in there"


def test_what_may_not_be_read_is_not_removed_where_the_backup_has_none(app: SmallApp) -> None:
    assert bound_by_modes(app, "backup", "one").code == 0
    app.write_upload("closed/inner.txt", b"came later, closed")
    app.write_upload("secret.txt", b"came later").chmod(0)
    (app.uploads / "closed").chmod(0)
    done = bound_by_modes(app, "restore", "one", "--force")
    assert done.code == 3, done.err
    assert (app.uploads / "secret.txt").exists()
    (app.uploads / "closed").chmod(0o700)
    assert (app.uploads / "closed/inner.txt").exists()


@pytest.mark.needs("strace")
def test_a_bad_sector_is_a_warning_with_the_path_and_all_else_is_backed_up(app: SmallApp) -> None:
    bad = app.write_upload("1/bad.bin", os.urandom(100_000))
    made = with_failing_reads(app, bad, "backup", "one")
    assert made.code == 3, made.err
    assert warnings(made) == ["1/bad.bin cannot be read (Input/output error), and is not in the backup."]
    assert not (app.backups / "one/uploads/1/bad.bin").exists()
    assert (app.backups / "one/uploads/1/letter.txt").exists()
    app.command("verify", "one", check=0)


@pytest.mark.needs("strace")
def test_a_folder_that_cannot_be_listed_is_a_warning_with_the_path(app: SmallApp) -> None:
    made = with_failing_reads(app, app.uploads / "1", "backup", "one", call="getdents64")
    assert made.code == 3, made.err
    assert warnings(made) == ["1 cannot be read (Input/output error), and is not in the backup."]
    assert (app.backups / "one/uploads/2/letter.txt").exists()


@pytest.mark.needs("strace")
def test_a_bad_sector_under_a_file_that_an_earlier_backup_has_costs_nothing(app: SmallApp) -> None:
    bad = app.write_upload("1/bad.bin", b"good once")
    os.utime(bad, ns=(1, 1))
    settled(app)
    app.command("backup", "one", check=0)
    made = with_failing_reads(app, bad, "backup", "two")
    assert made.code == 0, made.err
    assert (app.backups / "two/uploads/1/bad.bin").read_bytes() == b"good once"


def settled(app: SmallApp) -> None:
    """Wait until the clock has ticked since the last change, so that a later change is sure to show."""
    newest = max(path.lstat().st_ctime for path in app.uploads.rglob("*"))
    subprocess.run(["sleep", str(max(0, newest + 2.1 - time.time()))], check=True)


@pytest.mark.needs("strace")
@pytest.mark.parametrize("size", ["same size", "another size"])
def test_a_restore_keeps_a_file_with_a_bad_sector_and_brings_back_the_rest(app: SmallApp, size: str) -> None:
    bad = app.write_upload("1/bad.bin", b"as it was")
    app.write_upload("later.txt", b"as it was")
    app.command("backup", "one", check=0)
    bad.write_bytes(b"as it is!" if size == "same size" else b"as it is by now")
    app.write_upload("later.txt", b"changed")
    done = with_failing_reads(app, bad, "restore", "one", "--force")
    assert done.code == 3, done.err
    assert {line.split(" ")[0] for line in warnings(done)} == {"1/bad.bin"}
    assert bad.read_bytes().startswith(b"as it is")
    assert (app.uploads / "later.txt").read_bytes() == b"as it was"


@pytest.mark.needs("strace")
def test_an_error_of_the_disk_in_the_backups_folder_has_the_path_in_it(app: SmallApp) -> None:
    app.command("backup", "one", check=0)
    sealed = app.backups / "one" / "SHA256SUMS"
    for arguments in (("verify", "one"), ("restore", "one", "--force"), ("export", "one", "one.tar")):
        failed = with_failing_reads(app, sealed, *arguments)
        assert failed.code not in (0, 3)
        assert str(sealed) in failed.err + failed.out or "SHA256SUMS" in failed.err + failed.out, failed.err


def test_an_uploads_folder_that_goes_away_meanwhile_is_no_backup_of_nothing(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a mount is lost: then more than one file cannot be read."""
    real = archiver._copy_file

    def lose_it(*arguments: object) -> None:
        if app.uploads.exists():
            shutil.rmtree(app.uploads)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(archiver, "_copy_file", lose_it)
    with pytest.raises(SourceUnreadable, match="no uploads folder"):
        create_backup(app.settings, BackupRequest("one"))
    assert not (app.backups / "one").exists()


def test_many_troubles_are_told_by_a_hundred_and_a_number(app: SmallApp) -> None:
    for number in range(130):
        os.mkfifo(app.uploads / f"{number:03}")
    created = create_backup(app.settings, BackupRequest("one"))
    assert len(created.warnings) == 101
    assert created.warnings[-1] == "The same holds for 30 more."
    restore_backup(app.settings, plan_restore(app.settings, "one"))
